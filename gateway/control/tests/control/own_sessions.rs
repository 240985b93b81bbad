//! Users, their own sessions, and what they are told about their own account.

use std::net::IpAddr;

use portcullis_control::{Activity, SelfServiceError};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use portcullis_proto::v1::revoke_sessions_request::Target;
use tonic::Request;

use crate::fixture::{Engine, World};

crate::on_both!(
    sessions_are_listed_and_ended_one_by_one_or_all_others,
    activity_is_told_in_words_and_is_ones_own,
    a_name_that_was_someone_elses_brings_none_of_their_records,
);

async fn phone(world: &World) -> IpAddr {
    let device = world.device("phone", "alice").await.device.unwrap();
    device.addresses[0].parse().unwrap()
}

async fn sessions_are_listed_and_ended_one_by_one_or_all_others(engine: Engine) {
    let (world, _, laptop) = World::with_alice(engine).await;
    let phone = phone(&world).await;
    world.user("bob").await;
    world.device("bobs", "bob").await;
    let bobs = world.grant("bobs").await;
    let mine = world.grant("laptop").await;
    world.advance_s(1);
    let other = world.grant("phone").await;
    let own = world.control.logins().self_service();
    let listed = own.sessions(laptop).await.unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|own| (own.session.id.as_str(), own.is_this))
        .collect();
    assert_eq!(
        listed,
        [(other.id.as_str(), false), (mine.id.as_str(), true)]
    );

    let ended = own.end_session(laptop, &other.id).await.unwrap();
    assert_eq!((ended.ended, ended.pending), (1, false));
    let again = own.end_session(laptop, &other.id).await;
    assert!(matches!(again, Err(SelfServiceError::UnknownSession)));
    assert!(matches!(
        own.sessions(phone).await,
        Err(SelfServiceError::NoSession)
    ));

    world.grant("phone").await;
    let ended = own.end_other_sessions(laptop).await.unwrap();
    assert_eq!(ended.ended, 1);
    assert_eq!(own.sessions(laptop).await.unwrap().len(), 1);
    let state = |id: &str| {
        let id = id.to_owned();
        let sessions = world.sessions();
        async move {
            let sessions = sessions.await;
            sessions.into_iter().find(|s| s.id == id).unwrap().state
        }
    };
    assert_eq!(state(&bobs.id).await, "live");
    assert_eq!(state(&mine.id).await, "live");
    // Over by its deadline, and not swept yet: not live either.
    world.grant("phone").await;
    world.advance_s(3600);
    world.grant("laptop").await;
    assert_eq!(own.sessions(laptop).await.unwrap().len(), 1);
}

fn whats(activity: &[Activity]) -> Vec<(&str, &str)> {
    activity.iter().map(|a| (a.what.as_str(), a.by)).collect()
}

async fn activity_is_told_in_words_and_is_ones_own(engine: Engine) {
    let (world, alice, laptop) = World::with_alice(engine).await;
    let bob = world.user("bob").await;
    let bobs = world.device("bobs", "bob").await.device.unwrap();
    let bobs: IpAddr = bobs.addresses[0].parse().unwrap();
    world.log_in(bobs, &bob).await.unwrap();
    world.grant("laptop").await;
    world.revoke(Target::Everyone(true), 0).await;
    world.log_in(laptop, &alice).await.unwrap();
    let own = world.control.logins().self_service();
    own.rename_device(laptop, &laptop_id(&world).await, "Old laptop")
        .await
        .unwrap();
    let activity = own.activity(laptop).await.unwrap();
    assert_eq!(
        whats(&activity),
        [
            ("A device was renamed to “Old laptop”", "you"),
            ("Signed in on “Old laptop”", "you"),
            ("A sign-in was begun on “Old laptop”", "someone using it"),
            ("A session was ended", "an administrator"),
            ("A session was opened on “Old laptop”", "an administrator"),
            ("Device “Old laptop” was added", "an administrator"),
            ("The account was made", "an administrator"),
        ]
    );
    // Fifty at most.
    for number in 0..60 {
        own.rename_device(laptop, &laptop_id(&world).await, &format!("№{number}"))
            .await
            .unwrap();
    }
    let activity = own.activity(laptop).await.unwrap();
    assert_eq!(activity.len(), 50);
    assert_eq!(activity[0].what, "A device was renamed to “№59”");
}

async fn laptop_id(world: &World) -> String {
    let name = "laptop".into();
    let admin = world.control.admin();
    let device = admin.get_device(Request::new(v1::NameRequest { name }));
    device.await.unwrap().into_inner().id
}

async fn a_name_that_was_someone_elses_brings_none_of_their_records(engine: Engine) {
    let (world, _, _) = World::with_alice(engine).await;
    world.grant("laptop").await;
    let admin = world.control.admin();
    let name = "alice".to_owned();
    admin
        .remove_user(Request::new(v1::NameRequest { name }))
        .await
        .unwrap();
    world.user("alice").await;
    let laptop = world.device("laptop", "alice").await.device.unwrap();
    let laptop: IpAddr = laptop.addresses[0].parse().unwrap();
    world.grant("laptop").await;
    let own = world.control.logins().self_service();
    let activity = own.activity(laptop).await.unwrap();
    assert_eq!(
        whats(&activity),
        [
            ("A session was opened on “laptop”", "an administrator"),
            ("Device “laptop” was added", "an administrator"),
            ("The account was made", "an administrator"),
        ]
    );
}
