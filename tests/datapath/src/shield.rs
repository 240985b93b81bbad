//! A shield of one's own on this machine's kernel, on a veth pair of its own, run by program test-run.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    process::{self, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, ensure};
use aya::{
    TestRun as _, TestRunOptions,
    programs::{SchedClassifier, Xdp},
};
use gateway_common::{
    shield::{Budget, ShieldReason, names},
    verdict::Verdict,
};
use portcullis_agent::datapath::{
    Config, Shield, ShieldBudgets, ShieldKept, ShieldMode, ShieldWanted,
};

use crate::{
    kernel::BpfFs,
    wireguard::{PORT, frame},
};

/// `XDP_DROP`.
pub const DROP: u32 = 1;
/// `XDP_PASS`.
pub const PASS: u32 = 2;

/// The gateway's addresses and a peer's, of both families.
pub const GATEWAY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// A peer's.
pub const PEER: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7)),
];

/// A pair of virtual Ethernet interfaces; gone when dropped.
#[derive(Debug)]
pub struct Card(String);

impl Card {
    /// Makes one.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn new() -> anyhow::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sh{}.{number}", process::id());
        let peer = format!("{name}p");
        let arguments = ["link", "add", &name, "type", "veth", "peer", "name", &peer];
        ensure!(
            Command::new("ip").args(arguments).status()?.success(),
            "cannot add the interface {name}"
        );
        Ok(Self(name))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Its index.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn index(&self) -> anyhow::Result<u32> {
        let path = format!("/sys/class/net/{}/ifindex", self.0);
        Ok(std::fs::read_to_string(path)?.trim().parse()?)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["link", "delete", "dev", &self.0])
            .status();
    }
}

/// A shield, attached to a card of its own.
#[derive(Debug)]
pub struct Guarded {
    /// The shield.
    pub shield: Shield,
    /// What it is to be.
    pub wanted: ShieldWanted,
    /// How it was opened.
    pub config: Config,
    // Before the file system: what is pinned there is attached here.
    card: Card,
    bpf_fs: BpfFs,
}

impl Guarded {
    /// Attaches one whose budgets are never used up, and which has learned all there is.
    ///
    /// # Errors
    ///
    /// Without root, or when the kernel refuses.
    pub fn new() -> anyhow::Result<Self> {
        let mut guarded = Self::learning(64)?;
        guarded.shield.stop_learning()?;
        Ok(guarded)
    }

    /// Attaches one with room for this many peers, fresh from the start.
    ///
    /// # Errors
    ///
    /// As for [`Guarded::new`].
    pub fn learning(max_peers: u32) -> anyhow::Result<Self> {
        let bpf_fs = BpfFs::mount()?;
        let card = Card::new()?;
        let config = Config {
            max_peers,
            ..bpf_fs.config()
        };
        let wanted = ShieldWanted {
            ifindex: card.index()?,
            mode: ShieldMode::Auto,
            port: PORT,
            local: GATEWAY.to_vec(),
            budgets: ShieldBudgets {
                source: Budget::default(),
                overall: Budget::default(),
            },
        };
        let mut shield = Shield::open(&config).context("cannot open a shield")?;
        let kept = shield.keep(&wanted)?;
        ensure!(
            matches!(kept, ShieldKept::Attached { .. }),
            "nothing was attached"
        );
        Ok(Self {
            shield,
            wanted,
            config,
            card,
            bpf_fs,
        })
    }

    /// The card.
    pub fn card(&self) -> &Card {
        &self.card
    }

    /// Lets go of the shield, as a killed agent does, and opens it anew.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn restart(self) -> anyhow::Result<Self> {
        let Self {
            shield,
            wanted,
            config,
            card,
            bpf_fs,
        } = self;
        drop(shield);
        let shield = Shield::open(&config)?;
        let mut guarded = Self {
            shield,
            wanted,
            config,
            card,
            bpf_fs,
        };
        guarded.keep()?;
        Ok(guarded)
    }

    /// Has the shield look after itself, as the agent does every few seconds.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn keep(&mut self) -> anyhow::Result<ShieldKept> {
        Ok(self.shield.keep(&self.wanted)?)
    }

    /// Runs the guard on a frame and returns the XDP action.
    ///
    /// # Errors
    ///
    /// When the kernel does not run it.
    pub fn action(&mut self, frame: &[u8]) -> anyhow::Result<u32> {
        let guard: &Xdp = self
            .shield
            .object()
            .program(names::GUARD)
            .context("no guard")?
            .try_into()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        Ok(guard.test_run(options)?.return_value)
    }

    /// Runs the guard on a frame. The counters tell the reason, which must agree with the action; `None`
    /// where nothing was counted, which must be a pass.
    ///
    /// # Errors
    ///
    /// When it is not so.
    pub fn judge(&mut self, frame: &[u8]) -> anyhow::Result<Option<ShieldReason>> {
        let before = self.shield.counters()?;
        let action = self.action(frame)?;
        let after = self.shield.counters()?;
        let changed: Vec<_> = after
            .iter()
            .filter(|counter| !before.contains(counter))
            .collect();
        let (reason, wanted) = match changed.as_slice() {
            [] => (None, PASS),
            [(reason, _)] if reason.verdict() == Verdict::Drop => (Some(*reason), DROP),
            [(reason, _)] => (Some(*reason), PASS),
            more => anyhow::bail!("a message must count once: {more:?}"),
        };
        ensure!(
            action == wanted,
            "{reason:?} must not end in action {action}"
        );
        Ok(reason)
    }

    /// A message from a peer, as the guard sees it.
    ///
    /// # Errors
    ///
    /// As for [`Guarded::judge`].
    pub fn receive(
        &mut self,
        family: usize,
        message: &[u8],
    ) -> anyhow::Result<Option<ShieldReason>> {
        self.receive_from(SocketAddr::new(PEER[family], 4000), message)
    }

    /// The same from this address.
    ///
    /// # Errors
    ///
    /// As for [`Guarded::judge`].
    pub fn receive_from(
        &mut self,
        from: SocketAddr,
        message: &[u8],
    ) -> anyhow::Result<Option<ShieldReason>> {
        let to = GATEWAY[usize::from(from.is_ipv6())];
        self.judge(&frame(&[], from, SocketAddr::new(to, PORT), message))
    }

    /// A message from the gateway to a peer, as the learner sees it.
    ///
    /// # Errors
    ///
    /// When the kernel does not run it.
    pub fn send(&mut self, family: usize, message: &[u8]) -> anyhow::Result<()> {
        let to = SocketAddr::new(PEER[family], 4000);
        self.transmit(&frame(
            &[],
            SocketAddr::new(GATEWAY[family], PORT),
            to,
            message,
        ))
    }

    /// Runs the learner on a frame.
    ///
    /// # Errors
    ///
    /// When the kernel does not run it.
    pub fn transmit(&mut self, frame: &[u8]) -> anyhow::Result<()> {
        let learn: &SchedClassifier = self
            .shield
            .object()
            .program(names::LEARN)
            .context("no learner")?
            .try_into()?;
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        let action = learn.test_run(options)?.return_value;
        ensure!(
            action == crate::kernel::PASS,
            "the learner must not interfere, but ended in {action}"
        );
        Ok(())
    }
}
