//! Policies as large as they may be, and one larger.

use std::fmt::Write as _;

use portcullis_proto::v1::{self, admin_server::Admin as _};
use prost::Message as _;
use tonic::{Code, Request};

use crate::fixture::{Engine, World};
use crate::gateway::{Gateway, Served, enroll};

const RULES: usize = 10_000;
const PREFIXES: usize = 100_000;
const EFFECTIVE: usize = 4_096;

/// So many rules, with so many prefixes in all, half of them IPv6.
fn file(rules: usize, prefixes: usize) -> String {
    let mut text = String::new();
    let mut made = 0;
    for rule in 0..rules {
        let until = prefixes * (rule + 1) / rules;
        let to: Vec<String> = (made..until)
            .map(|n| {
                let (high, low) = (n >> 16, n & 0xffff);
                match n % 2 {
                    0 => format!("\"10.{high}.{}.{}\"", low >> 8, low & 255),
                    _ => format!("\"fd00:{high:x}:{low:x}::/64\""),
                }
            })
            .collect();
        made = until;
        let port = 1 + rule % 60_000;
        writeln!(
            text,
            "[[rule]]\nname=\"r{rule}\"\nwho=[\"group:staff\"]\nto=[{}]\nports=[\"tcp/{port}\"]",
            to.join(",")
        )
        .unwrap();
    }
    text
}

/// A rule for each of so many users, of whom there are `user0` and so on.
fn personal(users: usize) -> String {
    (0..users)
        .map(|n| {
            let host = format!("10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
            format!("[[rule]]\nname=\"u{n}\"\nwho=[\"user:user{n}\"]\nto=[\"{host}\"]\n")
        })
        .collect()
}

async fn apply(world: &World, text: &str) -> v1::ApplyPolicyResponse {
    let request = v1::ApplyPolicyRequest {
        text: text.into(),
        wait_ms: 0,
    };
    let admin = world.control.admin();
    let applied = admin.apply_policy(Request::new(request)).await;
    applied.unwrap().into_inner()
}

fn newest(world: &World) -> u64 {
    *world.control.revisions().borrow()
}

/// That it is refused with this in its one problem, and that nothing has changed.
async fn refused(world: &World, text: &str, problem: &str) {
    let before = newest(world);
    let answer = apply(world, text).await;
    let told: Vec<&str> = answer
        .problems
        .iter()
        .map(|problem| problem.text.as_str())
        .collect();
    assert!(
        told.len() == 1 && told[0].contains(problem),
        "{problem:?} is not what was told: {told:?}"
    );
    assert!(answer.version.is_none() && answer.status.is_none());
    assert_eq!(newest(world), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_file_reaches_a_gateway_and_a_larger_one_is_refused() {
    let (world, ..) = World::with_alice(Engine::Sqlite).await;
    let served = Served::start(&world.control).await;
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose());
    let mut gateway = Gateway::new(enrolled.await.unwrap());

    let largest = file(RULES, PREFIXES);
    let applied = apply(&world, &largest).await;
    assert_eq!(applied.problems, []);
    assert_eq!(applied.version.unwrap().rules as usize, RULES);
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(newest(&world)).await;
    let policy = gateway.state.policy.clone().unwrap();
    assert_eq!(
        (policy.rules.len(), policy.prefixes.len()),
        (RULES, PREFIXES)
    );
    println!(
        "{} bytes of file, {} bytes of message",
        largest.len(),
        policy.encoded_len()
    );

    refused(&world, &file(RULES + 1, PREFIXES), "10000 rules").await;
    refused(&world, &file(RULES, PREFIXES + 1), "100000").await;
    let live = world.control.admin();
    let live = live.get_policy(Request::new(v1::GetPolicyRequest::default()));
    let live = live.await.unwrap().into_inner();
    assert_eq!((live.number, live.text == largest), (1, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_users_as_may_differ_do_and_one_more_is_refused() {
    let (mut world, ..) = World::with_alice(Engine::Sqlite).await;
    // Passwords would take an hour.
    world.control.close().await;
    sqlx::any::install_default_drivers();
    let database = sqlx::AnyPool::connect(&world.config.database)
        .await
        .unwrap();
    for n in 0..EFFECTIVE {
        sqlx::query(
            "INSERT INTO users (id, name, password, totp_secret, created_ms) VALUES ($1, $2, '', '', 0)",
        )
        .bind(format!("{n:032x}"))
        .bind(format!("user{n}"))
        .execute(&database)
        .await
        .unwrap();
    }
    database.close().await;
    world.control = crate::fixture::open(&world.config, &world.now).await;

    let all = personal(EFFECTIVE);
    assert_eq!(apply(&world, &all).await.problems, []);
    let checked = world.control.admin();
    let checked = checked.check_policy(Request::new(v1::PolicySource { text: all.clone() }));
    assert_eq!(
        checked.await.unwrap().into_inner().classes as usize,
        EFFECTIVE
    );

    // One more by the file: the number is told, and one of the users.
    let alice = "[[rule]]\nname=\"one\"\nwho=[\"user:alice\"]\nto=[\"10.9.9.9\"]\n";
    let more = format!("{all}{alice}");
    refused(&world, &more, "4096 distinct effective policies").await;
    // And by a group: the user is refused, by name, and keeps what it had.
    let staff = "[[rule]]\nname=\"one\"\nwho=[\"group:ops\"]\nto=[\"10.9.9.9\"]\n";
    assert_eq!(apply(&world, &format!("{all}{staff}")).await.problems, []);
    let before = newest(&world);
    let request = v1::SetUserGroupsRequest {
        name: "alice".into(),
        add: vec!["ops".into()],
        ..Default::default()
    };
    let admin = world.control.admin();
    let error = admin.set_user_groups(Request::new(request)).await;
    let error = error.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition);
    assert!(
        error.message().contains("4096 distinct effective policies"),
        "{error}"
    );
    assert_eq!(newest(&world), before);
}
