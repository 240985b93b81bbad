//! A gate of one's own on this machine's kernel: private BPF file system, private maps, program
//! test-run in place of an interface. Everything is gone with it, also when a test fails.

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    programs::{Program, SchedClassifier},
};
use gateway_common::{
    abi::{Direction, names},
    verdict::{Reason, Verdict},
};
use portcullis_agent::datapath::{self, Config, Datapath, DatapathError};
use tempfile::TempDir;

use crate::scene::{self, Gate, State};

/// `TC_ACT_UNSPEC`: the next program, or on its way.
pub const PASS: u32 = u32::MAX;
/// `TC_ACT_SHOT`.
pub const DROP: u32 = 2;

/// A BPF file system on a directory of its own.
#[derive(Debug)]
pub struct BpfFs(TempDir);

impl BpfFs {
    /// Mounts one.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn mount() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let status = Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(dir.path())
            .status()?;
        ensure!(
            status.success(),
            "cannot mount a BPF file system: the datapath tests need root"
        );
        Ok(Self(dir))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A configuration that pins here.
    pub fn config(&self) -> Config {
        Config {
            interface: "wg.test".into(),
            pin_root: self.path().join("gate"),
            max_peers: 64,
            max_flows: 1024,
        }
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.0.path())
            .status();
    }
}

/// A way to open a datapath.
pub type Open = fn(&Config) -> Result<Datapath, DatapathError>;

/// A datapath and where it is pinned.
#[derive(Debug)]
pub struct Kernel {
    /// The datapath.
    pub datapath: Datapath,
    /// How it was opened.
    pub config: Config,
    bpf_fs: BpfFs,
}

impl Kernel {
    /// Opens one with the cast of [`scene`].
    ///
    /// # Errors
    ///
    /// Without root, or when the kernel refuses the programs.
    pub fn open() -> anyhow::Result<Self> {
        let bpf_fs = BpfFs::mount()?;
        let config = bpf_fs.config();
        let mut kernel = Self::with(bpf_fs, config)?;
        kernel.datapath.set_services(&scene::services())?;
        let other = [scene::V4.other.into(), scene::V6.other.into()];
        kernel.datapath.upsert_peer(&scene::OTHER_KEY, &other)?;
        kernel.datapath.set_session(
            &scene::OTHER_KEY,
            State::Live.session(datapath::now()).as_ref(),
        )?;
        kernel.put(State::Locked);
        Ok(kernel)
    }

    /// Opens an empty one of this configuration.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn with(bpf_fs: BpfFs, config: Config) -> anyhow::Result<Self> {
        Self::opened_by(Datapath::open, bpf_fs, config)
    }

    /// Opens an empty one of this configuration in this way.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn opened_by(open: Open, bpf_fs: BpfFs, config: Config) -> anyhow::Result<Self> {
        let datapath = open(&config).context("cannot open a datapath")?;
        Ok(Self {
            datapath,
            config,
            bpf_fs,
        })
    }

    /// Lets go of the datapath, as a killed agent does, and opens it anew.
    ///
    /// # Errors
    ///
    /// When it cannot be adopted.
    pub fn restart(self) -> anyhow::Result<Self> {
        let Self {
            datapath,
            config,
            bpf_fs,
        } = self;
        drop(datapath);
        Self::with(bpf_fs, config)
    }

    /// Runs a program once and returns its TC action.
    ///
    /// # Errors
    ///
    /// When the kernel does not run it.
    pub fn action(&mut self, direction: Direction, packet: &[u8]) -> anyhow::Result<u32> {
        let mut options = TestRunOptions::new();
        options.data_in = Some(packet);
        Ok(program(self.datapath.object(), direction)?
            .test_run(options)?
            .return_value)
    }

    /// Packets counted under this reason.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn counted(&self, direction: Direction, reason: Reason) -> anyhow::Result<u64> {
        let all = self.datapath.counters()?;
        let one = all
            .iter()
            .find(|counter| counter.direction == direction && counter.reason == reason);
        Ok(one.map_or(0, |counter| counter.packets))
    }

    /// Runs a program once; the counters tell the reason, which must be one and agree with the action.
    ///
    /// # Errors
    ///
    /// When it is not so.
    pub fn decide(&mut self, direction: Direction, packet: &[u8]) -> anyhow::Result<Reason> {
        let before = self.datapath.counters()?;
        let action = self.action(direction, packet)?;
        let after = self.datapath.counters()?;
        let changed: Vec<_> = after
            .iter()
            .filter(|counter| !before.contains(counter))
            .collect();
        let [counter] = changed.as_slice() else {
            anyhow::bail!("a packet must count once, but these changed: {changed:?}");
        };
        ensure!(
            counter.direction == direction,
            "counted in the wrong direction: {counter:?}"
        );
        let wanted = match counter.reason.verdict() {
            Verdict::Pass => PASS,
            Verdict::Drop => DROP,
        };
        ensure!(
            action == wanted,
            "{} must not end in action {action}",
            counter.reason
        );
        Ok(counter.reason)
    }
}

impl Gate for Kernel {
    fn put(&mut self, state: State) {
        let key = &scene::PEER_KEY;
        if state == State::Unknown {
            self.datapath.remove_peer(key).expect("remove a peer");
            return;
        }
        let addresses = [scene::V4.peer.into(), scene::V6.peer.into()];
        self.datapath
            .upsert_peer(key, &addresses)
            .expect("add a peer");
        // Activity is kept by the datapath: a silent peer begins with a lock, which forgets it.
        self.datapath.set_session(key, None).expect("lock a peer");
        if let Some(session) = state.session(datapath::now()) {
            self.datapath
                .set_session(key, Some(&session))
                .expect("write a session");
        }
    }

    fn run(&mut self, direction: Direction, packet: &[u8]) -> Reason {
        self.decide(direction, packet).expect("run a program")
    }
}

/// The loaded program of a direction.
///
/// # Errors
///
/// When the object lacks it.
pub fn program(object: &mut Ebpf, direction: Direction) -> anyhow::Result<&SchedClassifier> {
    let name = match direction {
        Direction::FromPeer => names::FROM_PEER,
        Direction::ToPeer => names::TO_PEER,
    };
    let program: &Program = object
        .program(name)
        .with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

/// A TUN interface without an address, which is raw IP like WireGuard's; gone when dropped.
#[derive(Debug)]
pub struct Tunnel(String);

impl Tunnel {
    /// Makes one of this name, down.
    ///
    /// # Errors
    ///
    /// Without root.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        ensure!(
            ip_tool(&["tuntap", "add", "dev", name, "mode", "tun"])?,
            "cannot add the interface {name}"
        );
        Ok(Self(name.to_owned()))
    }

    /// Its index now.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn index(&self) -> anyhow::Result<u32> {
        let path = format!("/sys/class/net/{}/ifindex", self.0);
        Ok(std::fs::read_to_string(path)?.trim().parse()?)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = ip_tool(&["link", "delete", "dev", &self.0]);
    }
}

fn ip_tool(arguments: &[&str]) -> anyhow::Result<bool> {
    Ok(Command::new("ip").args(arguments).status()?.success())
}
