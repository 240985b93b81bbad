//! Traces, explanations, live figures and the location's manners, as gateways and administrators
//! see them.

use gateway_common::verdict::Reason;
use portcullis_metrics::Page;
use portcullis_proto::v1::admin_server::Admin as _;
use portcullis_proto::v1::control_message::Message;
use portcullis_proto::v1::gateway_message::Message as FromGateway;
use portcullis_proto::v1::{self, SetTrace, TraceEvent, TraceEvents};
use tokio_stream::StreamExt as _;
use tonic::{Code, Request};

use crate::fixture::{Engine, World, key};
use crate::gateway::{Gateway, Served, enroll};

/// Alice with her laptop, and a gateway that has applied everything.
async fn world() -> (World, Served, Gateway) {
    let (world, ..) = World::with_alice(Engine::Sqlite).await;
    let served = Served::start(&world.control).await;
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose())
        .await
        .unwrap();
    let mut gateway = Gateway::new(enrolled);
    gateway.connect(served.port).await.unwrap();
    gateway.hear().await.unwrap();
    gateway.acknowledge().await;
    (world, served, gateway)
}

/// The next thing that control wants beside state.
async fn asked(gateway: &mut Gateway) -> Message {
    while gateway.asked.is_empty() {
        gateway.hear().await.unwrap();
    }
    gateway.asked.remove(0)
}

async fn set_trace(gateway: &mut Gateway) -> SetTrace {
    match asked(gateway).await {
        Message::SetTrace(wanted) => wanted,
        other => panic!("not a trace: {other:?}"),
    }
}

fn event(name: &str, reason: Reason) -> TraceEvent {
    TraceEvent {
        public_key: key(name).to_vec(),
        reason: reason as u32,
        ..TraceEvent::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_runs_while_somebody_reads_it_and_names_whose_packets_they_are() {
    let (world, _served, mut gateway) = world().await;
    let request = v1::TraceRequest {
        user: "alice".into(),
        reason: "locked".into(),
        ..v1::TraceRequest::default()
    };
    let stream = world.control.admin().trace(Request::new(request)).await;
    let mut stream = stream.unwrap().into_inner();
    let wanted = set_trace(&mut gateway).await;
    assert!(wanted.on);
    assert_eq!(wanted.peers, [key("laptop").to_vec()]);

    let events = vec![
        event("stranger", Reason::Locked),
        event("laptop", Reason::Session),
        event("laptop", Reason::Locked),
    ];
    gateway
        .say(FromGateway::Trace(TraceEvents { events, lost: 7 }))
        .await;
    let lost = stream.next().await.unwrap().unwrap();
    assert_eq!((lost.event, lost.lost), (None, 7));
    let item = stream.next().await.unwrap().unwrap();
    assert_eq!(
        (
            item.gateway.as_str(),
            item.device.as_str(),
            item.user.as_str(),
            item.lost
        ),
        ("gw", "laptop", "alice", 7)
    );
    assert_eq!(item.event.unwrap().reason, Reason::Locked as u32);
    // Loss is told as a sum since the gateway's trace began.
    gateway
        .say(FromGateway::Trace(TraceEvents {
            events: Vec::new(),
            lost: 9,
        }))
        .await;
    assert_eq!(stream.next().await.unwrap().unwrap().lost, 9);

    drop(stream);
    assert_eq!(set_trace(&mut gateway).await, SetTrace::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_connects_during_a_trace_takes_part_in_it() {
    let (world, served, mut gateway) = world().await;
    let stream = world
        .control
        .admin()
        .trace(Request::new(v1::TraceRequest::default()))
        .await;
    let _stream = stream.unwrap();
    assert!(set_trace(&mut gateway).await.on);
    gateway.disconnect();
    gateway.connect(served.port).await.unwrap();
    let wanted = set_trace(&mut gateway).await;
    assert!(wanted.on && wanted.peers.is_empty());
}

#[tokio::test]
async fn a_trace_of_nobody_and_for_no_reason_is_refused() {
    let (world, ..) = World::with_alice(Engine::Sqlite).await;
    let ask = async |request| {
        world
            .control
            .admin()
            .trace(Request::new(request))
            .await
            .unwrap_err()
    };
    let nobody = v1::TraceRequest {
        device: "phone".into(),
        ..v1::TraceRequest::default()
    };
    assert_eq!(ask(nobody).await.code(), Code::NotFound);
    let no_reason = v1::TraceRequest {
        reason: "because".into(),
        ..v1::TraceRequest::default()
    };
    let refused = ask(no_reason).await;
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(
        refused.message().contains("not_fresh"),
        "names those there are: {}",
        refused.message()
    );
}

/// What comes until so many events are accounted for: passed on from now, and lost at all.
async fn accounted(
    stream: &mut (impl tokio_stream::Stream<Item = Result<v1::TraceItem, tonic::Status>> + Unpin),
    of: u64,
) -> (u64, u64) {
    let (mut passed, mut lost) = (0, 0);
    while passed + lost < of {
        let item = stream.next().await.unwrap().unwrap();
        passed += u64::from(item.event.is_some());
        lost = item.lost;
    }
    (passed, lost)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_talks_too_much_is_cut_short_and_nothing_is_lost_in_silence() {
    let (world, _served, mut gateway) = world().await;
    let stream = world
        .control
        .admin()
        .trace(Request::new(v1::TraceRequest::default()))
        .await;
    let mut stream = stream.unwrap().into_inner();
    assert!(set_trace(&mut gateway).await.on);
    let mut say = async |events| {
        let message = TraceEvents { events, lost: 0 };
        gateway.say(FromGateway::Trace(message)).await;
    };
    // As many in a message as gateways send, and one more.
    say(vec![event("laptop", Reason::Session); 1025]).await;
    assert_eq!(accounted(&mut stream, 1025).await, (1024, 1));

    // Peers that nobody has heard of: each would be a look-up.
    let made_up = |n: u32| event(&format!("made up {n}"), Reason::Session);
    for message in 0..4 {
        say((0..1000).map(|n| made_up(1000 * message + n)).collect()).await;
    }
    let (passed, lost) = accounted(&mut stream, 1 + 4000).await;
    // Some seconds may have gone by.
    // One look-up was the laptop's.
    assert!(passed >= 499, "{passed} passed, {lost} lost");
    assert!(lost >= 1000, "{passed} passed, {lost} lost");

    // Known peers have their names all the while.
    say(vec![event("laptop", Reason::Session)]).await;
    let item = stream.next().await.unwrap().unwrap();
    assert_eq!((item.device.as_str(), item.lost), ("laptop", lost));
}

fn question(device: &str) -> Request<v1::ExplainRequest> {
    Request::new(v1::ExplainRequest {
        device: device.into(),
        remote: "10.9.0.2".into(),
        protocol: 6,
        port: 22,
        ..v1::ExplainRequest::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kernel_is_asked_where_a_gateway_is_connected() {
    let (world, _served, mut gateway) = world().await;
    let admin = world.control.admin();
    let explaining = tokio::spawn(async move { admin.explain(question("10.77.0.2")).await });
    let Message::Explain(asked) = asked(&mut gateway).await else {
        panic!("no question")
    };
    assert_eq!(asked.public_key, key("laptop"));
    assert_eq!(
        (asked.remote.as_str(), asked.protocol, asked.port),
        ("10.9.0.2", 6, 22)
    );
    let explanation = v1::Explanation {
        reason: Reason::Idle as u32,
        ..v1::Explanation::default()
    };
    let answer = v1::Explained {
        id: asked.id,
        explanation: Some(explanation.clone()),
        ..v1::Explained::default()
    };
    gateway.say(FromGateway::Explained(answer)).await;
    let response = explaining.await.unwrap().unwrap().into_inner();
    assert_eq!(
        (response.gateway.as_str(), response.device.as_str()),
        ("gw", "laptop")
    );
    assert_eq!(response.explanation, Some(explanation));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_does_not_answer_for_another() {
    let (world, served, mut gateway) = world().await;
    let token = world
        .control
        .gateway_token("other", "office")
        .await
        .unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose());
    let mut other = Gateway::new(enrolled.await.unwrap());
    other.connect(served.port).await.unwrap();
    other.hear().await.unwrap();
    other.acknowledge().await;
    let admin = world.control.admin();
    let explaining = tokio::spawn(async move { admin.explain(question("laptop")).await });
    let Message::Explain(asked) = asked(&mut gateway).await else {
        panic!("no question")
    };
    let answer = |reason: Reason| v1::Explained {
        id: asked.id,
        explanation: Some(v1::Explanation {
            reason: reason as u32,
            ..v1::Explanation::default()
        }),
        ..v1::Explained::default()
    };
    other
        .say(FromGateway::Explained(answer(Reason::Session)))
        .await;
    // Taken in before what comes after it.
    other
        .report(v1::Report {
            events: vec!["after the answer".into()],
            ..v1::Report::default()
        })
        .await;
    while !world
        .audit()
        .await
        .iter()
        .any(|record| format!("{record:?}").contains("after the answer"))
    {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    gateway
        .say(FromGateway::Explained(answer(Reason::Locked)))
        .await;
    let response = explaining.await.unwrap().unwrap().into_inner();
    assert_eq!(response.gateway, "gw");
    assert_eq!(response.explanation.unwrap().reason, Reason::Locked as u32);
}

#[tokio::test]
async fn the_store_answers_where_no_gateway_does_and_says_so() {
    let (world, ..) = World::with_alice(Engine::Sqlite).await;
    let explain = async || {
        let response = world.control.admin().explain(question("laptop")).await;
        let response = response.unwrap().into_inner();
        assert_eq!(response.gateway, "");
        response.explanation.unwrap()
    };
    let locked = explain().await;
    assert_eq!(locked.reason, Reason::Locked as u32);
    assert_eq!(locked.required(), v1::Level::Mfa);
    world.grant("laptop").await;
    world.advance_s(60);
    let live = explain().await;
    assert_eq!(live.reason, Reason::Session as u32);
    assert_eq!(
        (live.has_session, live.age_ms, live.ends_by.as_str()),
        (true, 60_000, "deadline")
    );
    assert_eq!(live.ends_in_ms, live.deadline_in_ms);
    // The portal is open to everybody.
    let portal = v1::ExplainRequest {
        device: "laptop".into(),
        remote: "10.77.0.1".into(),
        protocol: 6,
        port: 443,
        ..v1::ExplainRequest::default()
    };
    let response = world
        .control
        .admin()
        .explain(Request::new(portal))
        .await
        .unwrap();
    let explanation = response.into_inner().explanation.unwrap();
    assert_eq!(explanation.reason, Reason::OpenService as u32);
    assert_eq!(explanation.ends_in_ms, 0);
}

#[tokio::test]
async fn inv3_between_two_devices_both_sides_are_explained() {
    let (world, ..) = World::with_alice(Engine::Sqlite).await;
    let phone = world.device("phone", "alice").await.device.unwrap();
    let to = phone.addresses[0].clone();
    let explain = async |direction| {
        let request = v1::ExplainRequest {
            device: "laptop".into(),
            remote: to.clone(),
            protocol: 6,
            port: 22,
            direction,
        };
        let admin = world.control.admin();
        let response = admin.explain(Request::new(request)).await.unwrap();
        let response = response.into_inner();
        let reason = response.explanation.as_ref().unwrap().reason;
        let side = (response.decided_at, response.decided_direction);
        (response.device, side, reason)
    };
    let laptop = || "laptop".to_owned();
    let phone = || "phone".to_owned();
    // The sender's side comes first, whichever way the question is put.
    let locked = Reason::Locked as u32;
    assert_eq!(explain(0).await, (laptop(), (laptop(), 0), locked));
    assert_eq!(explain(1).await, (laptop(), (phone(), 0), locked));
    // With a session the packet leaves one device, and may not enter the other.
    world.grant("laptop").await;
    let unsolicited = Reason::Unsolicited as u32;
    assert_eq!(explain(0).await, (laptop(), (phone(), 1), unsolicited));
}

#[tokio::test]
async fn an_address_of_no_device_is_an_unknown_peer_and_a_name_a_mistake() {
    let (world, ..) = World::with_alice(Engine::Sqlite).await;
    let admin = world.control.admin();
    let response = admin.explain(question("10.77.0.250")).await.unwrap();
    let response = response.into_inner();
    assert_eq!((response.device, response.gateway), <_>::default());
    assert_eq!(
        response.explanation.unwrap().reason,
        Reason::UnknownPeer as u32
    );
    let refused = admin.explain(question("tablet")).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn top_shows_what_gateways_report_and_figures_count_it() {
    let (world, _served, mut gateway) = world().await;
    world.grant("laptop").await;
    let drops = vec![v1::PeerDrops {
        reason: Reason::Locked as u32,
        packets: 3,
    }];
    let peer = v1::PeerReport {
        public_key: key("laptop").to_vec(),
        rx_bytes: 1000,
        tx_bytes: 2000,
        drops: drops.clone(),
        ..v1::PeerReport::default()
    };
    gateway
        .report(v1::Report {
            peers: vec![peer],
            ..v1::Report::default()
        })
        .await;
    let top = async || {
        let top = world
            .control
            .admin()
            .top(Request::new(v1::TopRequest {}))
            .await;
        top.unwrap().into_inner().peers.remove(0)
    };
    let mut shown = top().await;
    while shown.rx_bytes == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        shown = top().await;
    }
    assert_eq!(
        (
            shown.device.as_str(),
            shown.user.as_str(),
            shown.gateway.as_str()
        ),
        ("laptop", "alice", "gw")
    );
    assert_eq!(
        (shown.rx_bytes, shown.tx_bytes, shown.drops),
        (1000, 2000, drops)
    );
    assert!(shown.session.is_some());

    for per_peer in [false, true] {
        let mut page = Page::default();
        world.control.figures(&mut page, per_peer).await.unwrap();
        let text = page.text();
        for line in [
            "portcullis_sessions_live 1",
            "portcullis_gateway_connected{gateway=\"gw\",location=\"office\"} 1",
            "portcullis_revocation_seconds_count 0",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        assert_eq!(text.contains("alice"), per_peer, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drops_are_answered_unless_the_location_says_otherwise() {
    let (world, _served, mut gateway) = world().await;
    assert!(
        gateway.state.location.as_ref().unwrap().answer_drops,
        "the default"
    );
    let set = |answer_drops| {
        Request::new(v1::SetLocationRequest {
            name: "office".into(),
            answer_drops,
            ..Default::default()
        })
    };
    let location = world
        .control
        .admin()
        .set_location(set(Some(false)))
        .await
        .unwrap();
    assert_eq!(location.into_inner().answer_drops, Some(false));
    let newest = *world.control.revisions().borrow();
    gateway.follow_to(newest).await;
    assert!(!gateway.state.location.as_ref().unwrap().answer_drops);
    let nothing = world
        .control
        .admin()
        .set_location(set(None))
        .await
        .unwrap_err();
    assert_eq!(nothing.code(), Code::InvalidArgument);
    assert!(
        world
            .audit()
            .await
            .iter()
            .any(|record| record.action == "location.set")
    );
}
