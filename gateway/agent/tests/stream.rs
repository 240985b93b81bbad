//! The agent on this machine's kernel, driven by a control service over mutual TLS.

mod support;

use std::sync::Arc;
use std::time::Duration;

use portcullis_agent::datapath::Datapath;
use portcullis_agent::identity::Enrolment;
use portcullis_agent::{Agent, AgentConfig, LinkMode, datapath};
use portcullis_proto::v1::control_message::Message;
use support::control::Control;
use support::kernel::Sandbox;
use support::pki::Authority;
use support::wireguard::Memory;
use support::{delta, digest, peer, session, snapshot};
use tokio::task::JoinHandle;

struct Site {
    sandbox: Sandbox,
    authority: Arc<Authority>,
    wireguard: Memory,
    reconcile_period: Duration,
}

impl Site {
    fn new() -> Self {
        Self {
            sandbox: Sandbox::new(),
            authority: Arc::new(Authority::new()),
            wireguard: Memory::default(),
            reconcile_period: Duration::from_secs(3600),
        }
    }

    async fn control(&self) -> Control {
        let control = Control::start(Arc::clone(&self.authority)).await;
        let issued = self.authority.issue("gw1");
        let enrolment = Enrolment {
            control: control.url(),
            gateway: "gw1".into(),
            location: "office".into(),
            ca: self.authority.pem(),
            certificate: issued.certificate,
            key: issued.key.into(),
        };
        enrolment.store(self.sandbox.state_dir()).expect("stored");
        control
    }

    fn datapath(&self) -> datapath::Config {
        datapath::Config {
            interface: self.sandbox.interface.clone(),
            pin_root: self.sandbox.pin_root(),
            max_peers: 64,
            max_flows: 64,
        }
    }

    fn agent(&self) -> Running {
        let config = AgentConfig {
            state_dir: self.sandbox.state_dir().to_owned(),
            interface: self.sandbox.interface.clone(),
            pin_root: self.sandbox.pin_root(),
            max_peers: 64,
            max_flows: 64,
            reconcile_period: self.reconcile_period,
            shield: None,
        };
        let link = LinkMode::Existing {
            index: self.sandbox.index(),
        };
        let agent = Agent::with_parts(config, link, Box::new(self.wireguard.clone()));
        Running(tokio::spawn(async move {
            agent
                .run(std::future::pending())
                .await
                .expect("the agent starts");
        }))
    }

    /// Tags of the sessions in the kernel, by peer, read past the agent.
    fn sessions(&self) -> Vec<(u8, Option<u64>)> {
        let datapath = Datapath::open(&self.datapath()).expect("pinned");
        let mut sessions: Vec<_> = datapath
            .peers()
            .expect("read")
            .into_iter()
            .map(|view| (view.key[0], view.session.map(|session| session.tag)))
            .collect();
        sessions.sort_unstable();
        sessions
    }
}

/// An agent that is killed, not stopped, when this goes.
struct Running(JoinHandle<()>);

impl Running {
    async fn kill(self) {
        self.0.abort();
        let _ = self.0.await;
    }
}

fn tag(session: &portcullis_proto::v1::Session) -> u64 {
    portcullis_proto::digest::session_tag(session)
}

#[tokio::test(flavor = "multi_thread")]
async fn inv4_each_revision_is_acknowledged_with_what_the_kernel_holds() {
    let site = Site::new();
    let mut control = site.control().await;
    let agent = site.agent();
    let (mut gateway, hello) = control.gateway().await;
    assert_eq!((hello.resume_from, hello.public_key.len()), (0, 32));

    let live = session(1, 3600);
    let peers = vec![peer(2, Some(live.clone())), peer(3, None)];
    let applied = gateway.snapshot(snapshot(10, peers.clone())).await;
    assert_eq!((applied.revision, applied.digest), (10, digest(&peers)));
    assert_eq!(site.sessions(), [(2, Some(tag(&live))), (3, None)]);

    // A revocation: no dump of WireGuard, no change to it.
    let (changes, reads) = (site.wireguard.changes(), site.wireguard.reads());
    let applied = gateway.delta(delta(10, vec![peer(2, None)], &[])).await;
    assert_eq!(applied.revision, 11);
    assert_eq!(applied.digest, digest(&[peer(2, None), peer(3, None)]));
    assert_eq!(site.sessions(), [(2, None), (3, None)]);
    assert_eq!(site.wireguard.changes(), changes);
    assert!(site.wireguard.reads() <= reads + 1, "at most a report's");

    let applied = gateway
        .delta(delta(11, vec![peer(4, Some(live.clone()))], &[2]))
        .await;
    assert_eq!(
        applied.digest,
        digest(&[peer(3, None), peer(4, Some(live.clone()))])
    );
    assert_eq!(site.sessions(), [(3, None), (4, Some(tag(&live)))]);
    assert_eq!(site.wireguard.peers(), 2);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv5_a_gap_is_answered_by_asking_for_a_snapshot() {
    let site = Site::new();
    let mut control = site.control().await;
    let agent = site.agent();
    let (mut gateway, _) = control.gateway().await;
    gateway
        .snapshot(snapshot(10, vec![peer(2, Some(session(1, 3600)))]))
        .await;
    gateway.send(Message::Delta(delta(11, vec![], &[2]))).await;
    let (mut gateway, hello) = control.gateway().await;
    assert_eq!(hello.resume_from, 0);
    let applied = gateway.snapshot(snapshot(12, vec![])).await;
    assert_eq!(applied.digest, digest(&[]));
    assert_eq!(site.sessions(), []);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv5_a_broken_stream_is_resumed_where_it_ended() {
    let site = Site::new();
    let mut control = site.control().await;
    let agent = site.agent();
    let (mut gateway, _) = control.gateway().await;
    let peers = vec![peer(2, Some(session(1, 3600)))];
    gateway.snapshot(snapshot(10, peers.clone())).await;
    drop(gateway);
    let (mut gateway, hello) = control.gateway().await;
    assert_eq!((hello.resume_from, hello.store_id.as_str()), (10, "store"));
    let applied = gateway.delta(delta(10, vec![peer(2, None)], &[])).await;
    assert_eq!(applied.digest, digest(&[peer(2, None)]));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv1_a_killed_agent_leaves_the_kernel_as_it_is_and_adopts_it_on_return() {
    let site = Site::new();
    let mut control = site.control().await;
    let agent = site.agent();
    let (mut gateway, _) = control.gateway().await;
    let live = session(1, 3600);
    let peers = vec![peer(2, Some(live.clone())), peer(3, None)];
    gateway.snapshot(snapshot(10, peers.clone())).await;
    agent.kill().await;
    control.stop().await;
    assert_eq!(site.sessions(), [(2, Some(tag(&live))), (3, None)]);

    // Control is away: the agent changes nothing.
    let changes = site.wireguard.changes();
    let agent = site.agent();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(site.sessions(), [(2, Some(tag(&live))), (3, None)]);
    agent.kill().await;

    let mut control = site.control().await;
    let agent = site.agent();
    let (mut gateway, hello) = control.gateway().await;
    assert_eq!(hello.resume_from, 0);
    let applied = gateway.snapshot(snapshot(10, peers.clone())).await;
    assert_eq!(applied.digest, digest(&peers));
    assert_eq!(site.wireguard.changes(), changes, "no peer was touched");
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv5_drift_is_repaired_within_one_reconcile_period_and_told() {
    let site = Site {
        reconcile_period: Duration::from_secs(1),
        ..Site::new()
    };
    let mut control = site.control().await;
    let agent = site.agent();
    let (mut gateway, _) = control.gateway().await;
    let peers = vec![peer(2, None), peer(3, None)];
    gateway.snapshot(snapshot(10, peers.clone())).await;
    site.wireguard.remove_behind_the_back(3);
    let report = gateway.report(|report| !report.events.is_empty()).await;
    assert!(report.events[0].contains("drifted"), "{report:?}");
    assert_eq!(site.wireguard.peers(), 2);
    assert_eq!(gateway.applied().await.digest, digest(&peers));
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv2_a_session_that_the_kernel_ended_is_reported() {
    let site = Site::new();
    let mut control = site.control().await;
    let agent = site.agent();
    let (mut gateway, _) = control.gateway().await;
    let over = session(7, -1);
    let idle = portcullis_proto::v1::Session {
        last_activity_ms: support::NOW_MS - 700_000,
        ..session(8, 3600)
    };
    let peers = vec![peer(2, Some(over)), peer(3, Some(idle))];
    let applied = gateway.snapshot(snapshot(10, peers.clone())).await;
    assert_eq!(
        applied.digest,
        digest(&peers),
        "held as control wants it, though over"
    );
    let mut ended = gateway.report(|report| report.ended.len() == 2).await.ended;
    ended.sort_by_key(|ended| ended.cause);
    assert_eq!((ended[0].id[0], ended[0].cause), (7, 1), "by its deadline");
    assert_eq!(
        (ended[1].id[0], ended[1].cause),
        (8, 2),
        "by its idle timeout"
    );
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv1_detached_programs_are_attached_again_and_it_is_told() {
    let site = Site::new();
    let mut control = site.control().await;
    let agent = site.agent();
    let (mut gateway, _) = control.gateway().await;
    gateway.snapshot(snapshot(10, vec![])).await;
    assert_eq!(site.sandbox.attached(), 2);
    site.sandbox.detach();
    let report = gateway.report(|report| !report.events.is_empty()).await;
    assert!(report.events[0].contains("detached"), "{report:?}");
    assert_eq!(site.sandbox.attached(), 2);
    agent.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn inv1_a_second_agent_for_the_interface_is_refused() {
    let site = Site::new();
    let mut control = site.control().await;
    let agent = site.agent();
    let (mut gateway, _) = control.gateway().await;
    gateway.snapshot(snapshot(10, vec![])).await;
    let config = AgentConfig {
        state_dir: site.sandbox.state_dir().to_owned(),
        interface: site.sandbox.interface.clone(),
        pin_root: site.sandbox.pin_root(),
        ..AgentConfig::default()
    };
    let refused = portcullis_agent::teardown(&config)
        .await
        .expect_err("an agent runs");
    assert!(refused.to_string().contains("runs already"), "{refused}");
    let second = Agent::with_parts(
        config.clone(),
        LinkMode::Existing {
            index: site.sandbox.index(),
        },
        Box::new(site.wireguard.clone()),
    );
    let refused = second
        .run(std::future::pending())
        .await
        .expect_err("an agent runs");
    assert!(refused.to_string().contains("runs already"), "{refused}");
    agent.kill().await;
    portcullis_agent::teardown(&config).await.expect("alone");
}
