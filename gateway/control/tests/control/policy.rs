//! Policies: applied whole or not at all, told to gateways, explained to people.

use portcullis_proto::v1::policy_outcome_view::Kind;
use portcullis_proto::v1::{self, admin_server::Admin as _};
use tonic::{Code, Request, Status};

use crate::fixture::{Engine, World, key};
use crate::gateway::{Gateway, Served, enroll};

crate::on_both!(
    a_policy_reaches_the_gateway_whole_and_is_done_when_acknowledged,
    a_refused_policy_changes_nothing_and_every_problem_is_told,
    groups_move_users_between_classes,
    a_gateway_that_missed_a_policy_gets_it_on_reconnect,
    users_and_groups_stay_within_the_limits,
    access_is_taken_away_under_a_policy_that_cannot_be_loaded,
    every_applied_policy_is_kept,
    people_are_told_what_a_policy_means,
    a_restart_tells_the_same_policy,
    a_shadow_needs_a_sound_policy_and_ends_in_time,
);

const STAFF: &str = r#"
[[rule]]
name = "web"
who = ["group:staff"]
to = ["10.0.0.0/8"]
ports = ["tcp/443"]

[[rule]]
name = "fresh"
who = ["group:sre"]
to = ["10.1.0.0/16"]
max_age = "15m"
"#;

async fn apply(world: &World, text: &str, wait_ms: u64) -> v1::ApplyPolicyResponse {
    let request = v1::ApplyPolicyRequest {
        text: text.into(),
        wait_ms,
    };
    let admin = world.control.admin();
    let applied = admin.apply_policy(Request::new(request)).await;
    applied.unwrap().into_inner()
}

async fn groups(world: &World, name: &str, groups: &[&str]) -> Result<v1::User, Status> {
    let request = v1::SetUserGroupsRequest {
        name: name.into(),
        replace: true,
        add: groups.iter().map(|group| (*group).into()).collect(),
        ..Default::default()
    };
    let admin = world.control.admin();
    let set = admin.set_user_groups(Request::new(request)).await?;
    Ok(set.into_inner().user.unwrap())
}

fn newest(world: &World) -> u64 {
    *world.control.revisions().borrow()
}

/// Alice of `staff` with a laptop, bob of `staff` with a phone, and a gateway that is up to date.
async fn with_gateway(engine: Engine) -> (World, Served, Gateway) {
    let (world, ..) = World::with_alice(engine).await;
    world.user("bob").await;
    world.device("phone", "bob").await;
    let served = Served::start(&world.control).await;
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose());
    let mut gateway = Gateway::new(enrolled.await.unwrap());
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    (world, served, gateway)
}

fn class(gateway: &Gateway, device: &str) -> u32 {
    gateway.state.peers[key(device).as_slice()].policy
}

/// The principals of the device's class.
fn principals(gateway: &Gateway, device: &str) -> Vec<u32> {
    let policy = gateway.state.policy.as_ref().unwrap();
    policy.classes[class(gateway, device) as usize]
        .principals
        .clone()
}

async fn a_policy_reaches_the_gateway_whole_and_is_done_when_acknowledged(engine: Engine) {
    let (world, _served, mut gateway) = with_gateway(engine).await;
    assert!(gateway.state.policy.is_none());
    assert_eq!(class(&gateway, "laptop"), 0);
    gateway.heard.clear();

    // Told, but not acknowledged: pending.
    let applied = apply(&world, STAFF, 50).await;
    let status = applied.status.unwrap();
    assert!(!status.gateways[0].acknowledged);
    gateway.follow_to(status.revision).await;
    assert_eq!(gateway.heard, "s", "a changed policy comes as a snapshot");
    let policy = gateway.state.policy.clone().unwrap();
    assert_ne!(policy.id, 0);
    assert_eq!(policy.rules, ["web", "fresh"]);
    assert_eq!(policy.classes.len(), 2, "nobody's, and that of staff");
    assert_eq!(policy.prefixes.len(), 2);
    assert_eq!(principals(&gateway, "laptop").len(), 1);
    assert_eq!(class(&gateway, "laptop"), class(&gateway, "phone"));

    // The same again changes nothing for the gateway, and is acknowledged while the call waits.
    gateway.heard.clear();
    let (applied, ()) = tokio::join!(apply(&world, STAFF, 5_000), async {
        gateway.hear().await.unwrap();
        gateway.acknowledge().await;
    });
    assert!(applied.status.unwrap().gateways[0].acknowledged);
    assert_eq!(gateway.heard, "d");
    assert_eq!(gateway.state.policy.clone().unwrap().id, policy.id);
}

async fn a_refused_policy_changes_nothing_and_every_problem_is_told(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    apply(&world, STAFF, 0).await;
    let before = newest(&world);
    let bad = STAFF
        .replace("10.0.0.0/8", "10.0.0.1/8")
        .replace("group:sre", "role:sre");
    let refused = apply(&world, &bad, 0).await;
    let told: Vec<(u32, &str)> = refused
        .problems
        .iter()
        .map(|problem| (problem.line, problem.rule.as_str()))
        .collect();
    assert_eq!(told, [(5, "web"), (10, "fresh")]);
    assert!(refused.version.is_none() && refused.status.is_none());
    assert_eq!(newest(&world), before);
    let admin = world.control.admin();
    let live = admin.get_policy(Request::new(v1::GetPolicyRequest::default()));
    let live = live.await.unwrap().into_inner();
    assert_eq!((live.number, live.text.as_str()), (1, STAFF));

    let admin = world.control.admin();
    let source = v1::PolicySource { text: bad };
    let checked = admin.check_policy(Request::new(source));
    assert_eq!(
        checked.await.unwrap().into_inner().problems,
        refused.problems
    );
    let source = v1::PolicySource { text: STAFF.into() };
    let checked = admin.check_policy(Request::new(source));
    let checked = checked.await.unwrap().into_inner();
    assert_eq!(
        (checked.rules, checked.prefixes, checked.classes),
        (2, 2, 1)
    );
}

async fn groups_move_users_between_classes(engine: Engine) {
    let (world, _served, mut gateway) = with_gateway(engine).await;
    let applied = apply(&world, STAFF, 0).await;
    gateway.follow_to(applied.status.unwrap().revision).await;
    let (first, id) = (
        class(&gateway, "laptop"),
        gateway.state.policy.clone().unwrap().id,
    );

    // A set of rules that nobody had: other tables.
    gateway.heard.clear();
    let alice = groups(&world, "alice", &["sre", "staff"]).await.unwrap();
    assert_eq!(alice.groups, ["sre", "staff"]);
    gateway.follow_to(newest(&world)).await;
    assert_eq!(gateway.heard, "s");
    assert_ne!(gateway.state.policy.clone().unwrap().id, id);
    assert_eq!(principals(&gateway, "laptop").len(), 2);
    assert_eq!(principals(&gateway, "phone").len(), 1);

    // One that another user has already: only the user's own peers change.
    gateway.heard.clear();
    groups(&world, "bob", &["sre", "staff", "unheard-of"])
        .await
        .unwrap();
    world.user("carol").await;
    gateway.follow_to(newest(&world)).await;
    assert_eq!(class(&gateway, "phone"), class(&gateway, "laptop"));
    groups(&world, "bob", &[]).await.unwrap();
    gateway.heard.clear();
    gateway.follow_to(newest(&world)).await;
    assert_eq!(gateway.heard, "d");
    assert_eq!(class(&gateway, "phone"), 0, "no rule is left for bob");
    assert_ne!(first, 0);

    // The kernel reads back as told.
    let request = v1::NameRequest { name: "gw".into() };
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        let gateway = world.control.admin();
        let gateway = gateway.get_gateway(Request::new(request.clone())).await;
        if gateway.unwrap().into_inner().in_sync {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let refused = groups(&world, "bob", &["no group"]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = groups(&world, "nobody", &["sre"]).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

async fn a_gateway_that_missed_a_policy_gets_it_on_reconnect(engine: Engine) {
    let (world, served, mut gateway) = with_gateway(engine).await;
    apply(&world, STAFF, 0).await;
    gateway.follow_to(newest(&world)).await;
    gateway.disconnect();
    // What is no news to rules comes as a delta, also after a reconnect.
    world.grant("laptop").await;
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    assert_eq!(gateway.heard, "d");
    gateway.disconnect();
    apply(&world, &STAFF.replace("tcp/443", "tcp/80"), 0).await;
    let held = gateway.state.policy.clone().unwrap().id;
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    assert_eq!(gateway.heard, "s");
    assert_ne!(gateway.state.policy.clone().unwrap().id, held);
}

async fn users_and_groups_stay_within_the_limits(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let names: Vec<String> = (0..33).map(|i| format!("g{i}")).collect();
    let text: String = names
        .iter()
        .enumerate()
        .map(|(i, group)| {
            format!(
                "[[rule]]\nname = \"{group}\"\nwho = [\"group:{group}\"]\nto = [\"10.0.0.{i}\"]\n"
            )
        })
        .collect();
    apply(&world, &text, 0).await;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    groups(&world, "alice", &names[..32]).await.unwrap();
    let before = newest(&world);
    let refused = groups(&world, "alice", &names).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("\"alice\""), "{refused}");
    let request = v1::AddUserRequest {
        name: "carol".into(),
        groups: names.iter().map(|name| (*name).into()).collect(),
        password: crate::fixture::PASSWORD.into(),
        ..Default::default()
    };
    let admin = world.control.admin();
    let refused = admin.add_user(Request::new(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert_eq!(newest(&world), before);

    // And the other way round: users that a policy has no room for refuse it.
    let all = text.replace("group:g0\"", "*\"");
    let refused = apply(&world, &all, 0).await;
    assert_eq!(refused.problems, [], "31 groups and everyone");
    let mut more = text.clone();
    more.push_str("[[rule]]\nname = \"all\"\nwho = [\"*\"]\nto = [\"10.9.9.9\"]\n");
    let refused = apply(&world, &more, 0).await;
    assert_eq!(refused.problems.len(), 1);
    assert!(refused.problems[0].text.contains("\"alice\""));
}

/// As after a downgrade: the store has a policy that this version does not understand.
async fn access_is_taken_away_under_a_policy_that_cannot_be_loaded(engine: Engine) {
    let (mut world, served, mut gateway) = with_gateway(engine).await;
    apply(&world, STAFF, 0).await;
    world.grant("laptop").await;
    world.grant("phone").await;
    gateway.disconnect();
    served.stop().await;
    sqlx::any::install_default_drivers();
    let database = sqlx::AnyPool::connect(&world.config.database)
        .await
        .unwrap();
    sqlx::query("UPDATE policies SET source = '[[rule]]', digest = 'another'")
        .execute(&database)
        .await
        .unwrap();
    database.close().await;
    world.reopen().await;
    let served = Served::start(&world.control).await;
    gateway.state = crate::gateway::State::default();
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    let policy = gateway.state.policy.clone().unwrap();
    assert_eq!((policy.rules.len(), policy.classes.len()), (0, 1));

    let admin = world.control.admin();
    let name = |name: &str| Request::new(v1::NameRequest { name: name.into() });
    admin.remove_user(name("alice")).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    assert!(!gateway.state.peers.contains_key(key("laptop").as_slice()));
    groups(&world, "bob", &[]).await.unwrap();
    let disable = v1::SetUserDisabledRequest {
        name: "bob".into(),
        disabled: true,
    };
    admin
        .set_user_disabled(Request::new(disable))
        .await
        .unwrap();
    gateway.follow_to(newest(&world)).await;
    assert!(
        gateway.state.peers[key("phone").as_slice()]
            .session
            .is_none()
    );
    // And a sound policy ends it.
    assert_eq!(apply(&world, STAFF, 0).await.problems, []);
    world.user("carol").await;
}

async fn every_applied_policy_is_kept(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let admin = world.control.admin();
    let live = || admin.get_policy(Request::new(v1::GetPolicyRequest::default()));
    assert_eq!(live().await.unwrap_err().code(), Code::FailedPrecondition);
    let other = STAFF.replace("tcp/443", "tcp/80");
    for text in [STAFF, &other, ""] {
        assert_eq!(apply(&world, text, 0).await.problems, []);
    }
    let list = admin.list_policies(Request::new(v1::ListRequest {}));
    let versions = list.await.unwrap().into_inner().versions;
    let told: Vec<(u64, u32, bool)> = versions
        .iter()
        .map(|version| (version.number, version.rules, version.live))
        .collect();
    assert_eq!(told, [(3, 0, true), (2, 2, false), (1, 2, false)]);
    let request = v1::GetPolicyRequest { number: 2 };
    let second = admin.get_policy(Request::new(request)).await.unwrap();
    assert_eq!(second.into_inner().text, other);
    let request = v1::GetPolicyRequest { number: 4 };
    let missing = admin.get_policy(Request::new(request)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let audit = world.audit().await;
    let applied = audit
        .iter()
        .filter(|record| record.action == "policy.apply");
    assert_eq!(applied.count(), 3);
}

async fn people_are_told_what_a_policy_means(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let admin = world.control.admin();
    let show = || {
        let request = v1::NameRequest {
            name: "alice".into(),
        };
        async {
            admin
                .show_policy(Request::new(request))
                .await
                .unwrap()
                .into_inner()
        }
    };
    let gate = show().await;
    assert_eq!(
        (gate.policy, gate.lines.len()),
        (0, 2),
        "both families, with a login"
    );

    let diff = |text: &str| {
        let source = v1::PolicySource { text: text.into() };
        async {
            admin
                .diff_policy(Request::new(source))
                .await
                .unwrap()
                .into_inner()
        }
    };
    let effects: Vec<String> = diff(STAFF)
        .await
        .changes
        .into_iter()
        .map(|change| change.effect)
        .collect();
    assert!(!effects.is_empty() && effects.iter().all(|effect| effect == "loses"));

    apply(&world, STAFF, 0).await;
    let shown = show().await;
    assert_eq!(
        (shown.policy, shown.groups.as_slice()),
        (1, &["staff".to_owned()][..])
    );
    assert_eq!(shown.lines.len(), 1);
    let line = &shown.lines[0];
    assert_eq!(
        (line.remote.as_str(), line.ports.as_slice()),
        ("10.0.0.0/8", &["tcp/443".to_owned()][..])
    );
    let outcome = line.outcome.clone().unwrap();
    assert_eq!(
        (outcome.kind(), outcome.rule.as_str(), outcome.level()),
        (Kind::Allow, "web", v1::Level::Mfa)
    );

    assert_eq!(diff(STAFF).await.changes, []);
    let fresh = diff(&STAFF.replace("[\"tcp/443\"]", "[\"tcp/443\"]\nmax_age = \"5m\"")).await;
    assert_eq!((fresh.policy, fresh.changes.len()), (1, 1));
    let change = &fresh.changes[0];
    assert_eq!(
        (change.effect.as_str(), change.users.as_slice()),
        ("stricter", &["alice".to_owned()][..])
    );
    assert_eq!(change.after.clone().unwrap().max_age_ms, 300_000);
    assert_eq!(diff("[[rule]]").await.problems.len(), 3);
}

async fn a_restart_tells_the_same_policy(engine: Engine) {
    let (mut world, served, mut gateway) = with_gateway(engine).await;
    apply(&world, STAFF, 0).await;
    gateway.follow_to(newest(&world)).await;
    let before = gateway.state.clone();
    gateway.disconnect();
    served.stop().await;
    world.reopen().await;
    let served = Served::start(&world.control).await;
    gateway.connect(served.port).await.unwrap();
    gateway.hear().await.unwrap();
    gateway.acknowledge().await;
    assert_eq!(gateway.heard, "d", "it holds everything already");
    // And from nothing, by a process that never saw it applied.
    gateway.disconnect();
    gateway.state = crate::gateway::State::default();
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    assert_eq!(gateway.state.policy, before.policy);
    assert_eq!(gateway.state.digest(), before.digest());
}

async fn a_shadow_needs_a_sound_policy_and_ends_in_time(engine: Engine) {
    use tokio_stream::StreamExt as _;
    let (world, ..) = World::with_alice(engine).await;
    let admin = world.control.admin();
    let shadow = |text: &str, for_ms: u64| {
        let request = v1::ShadowPolicyRequest {
            text: text.into(),
            for_ms,
        };
        admin.shadow_policy(Request::new(request))
    };
    assert_eq!(
        shadow(STAFF, 0).await.unwrap_err().code(),
        Code::InvalidArgument
    );
    let mut refused = shadow("[[rule]]", 1000).await.unwrap().into_inner();
    let told = refused.next().await.unwrap().unwrap();
    assert!(told.done && told.problems.len() == 3);
    let mut reports = shadow(STAFF, 300).await.unwrap().into_inner();
    let mut last = v1::PolicyShadow::default();
    while let Some(report) = reports.next().await {
        last = report.unwrap();
    }
    assert!(last.done && last.observed == 0 && last.elapsed_ms >= 300);
}
