//! What a location demands of logins, and that a change of it is in force at once.

use portcullis_control::Level;
use portcullis_proto::v1::admin_server::Admin as _;
use portcullis_proto::v1::{self, SetLocationRequest};
use sqlx::Connection as _;
use tonic::{Code, Request, Status};

use crate::fixture::{Engine, World, key};
use crate::gateway::{Gateway, Served, enroll};

crate::on_both!(
    raising_the_level_ends_exactly_the_sessions_below_it,
    a_raised_level_is_pending_until_acknowledged,
    shorter_terms_shorten_sessions_and_longer_ones_do_not,
    a_removed_factor_leaves_sessions_alone,
    an_administrator_grants_nothing_below_the_level,
    what_nobody_could_satisfy_is_refused_and_changes_nothing,
    presets_set_what_they_promise,
);

const HOUR_MS: i64 = 3_600_000;

pub(crate) async fn set(
    world: &World,
    request: SetLocationRequest,
) -> Result<v1::Location, Status> {
    let admin = world.control.admin();
    let set = admin.set_location(Request::new(request)).await?;
    Ok(set.into_inner())
}

pub(crate) fn office() -> SetLocationRequest {
    SetLocationRequest {
        name: "office".into(),
        ..Default::default()
    }
}

pub(crate) fn require(level: Level) -> SetLocationRequest {
    SetLocationRequest {
        require: Some(level.into()),
        ..office()
    }
}

pub(crate) fn factors(names: &[&str]) -> SetLocationRequest {
    let names = names.iter().map(|name| (*name).into()).collect();
    SetLocationRequest {
        factors: Some(v1::FactorNames { names }),
        ..office()
    }
}

/// As a passkey would have granted it.
pub(crate) async fn make_phishing_resistant(world: &World, session: &str) {
    sqlx::any::install_default_drivers();
    let database = &world.config.database;
    let mut connection = sqlx::AnyConnection::connect(database).await.unwrap();
    sqlx::query("UPDATE sessions SET level = 2 WHERE id = $1")
        .bind(session)
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

async fn session(world: &World, id: &str) -> v1::SessionInfo {
    let request = v1::NameRequest { name: id.into() };
    let admin = world.control.admin();
    admin
        .get_session(Request::new(request))
        .await
        .unwrap()
        .into_inner()
}

async fn raising_the_level_ends_exactly_the_sessions_below_it(engine: Engine) {
    let (world, _, _) = World::with_alice(engine).await;
    world.location("lab", &["10.78.0.0/24"]).await.unwrap();
    world
        .try_device("phone", "alice", "office", &key("phone"))
        .await
        .unwrap();
    world
        .try_device("bench", "alice", "lab", &key("bench"))
        .await
        .unwrap();
    let below = world.grant("laptop").await;
    let at = world.grant("phone").await;
    make_phishing_resistant(&world, &at.id).await;
    let elsewhere = world.grant("bench").await;

    let raised = set(&world, require(Level::PhishingResistant))
        .await
        .unwrap();
    assert_eq!(raised.require(), Level::PhishingResistant);
    let status = raised.revocation.unwrap();
    assert_eq!((status.sessions, status.shortened), (1, 0));
    assert_eq!(session(&world, &below.id).await.state, "revoked");
    assert_eq!(session(&world, &at.id).await.state, "live");
    assert_eq!(session(&world, &elsewhere.id).await.state, "live");
    let record = &world.audit().await[0];
    assert_eq!(
        (record.action.as_str(), record.actor.as_str()),
        ("location.set", "admin")
    );
    assert!(
        record.detail.contains(&below.id) && !record.detail.contains(&at.id),
        "{}",
        record.detail
    );
    // Lowering it ends nothing, and there is no gateway to wait for.
    let lowered = set(&world, require(Level::Mfa)).await.unwrap();
    assert_eq!((lowered.require(), lowered.revocation), (Level::Mfa, None));
    assert_eq!(session(&world, &at.id).await.state, "live");
}

async fn a_raised_level_is_pending_until_acknowledged(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let served = Served::start(&world.control).await;
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose())
        .await
        .unwrap();
    let mut gateway = Gateway::new(enrolled);
    world.grant("laptop").await;
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(*world.control.revisions().borrow()).await;
    let held = |gateway: &Gateway| {
        gateway.state.peers[key("laptop").as_slice()]
            .session
            .clone()
    };
    let before = held(&gateway).unwrap();

    // A shorter lifetime arrives as the same session with an earlier end.
    let shorter = SetLocationRequest {
        session_lifetime_ms: Some(60_000),
        ..office()
    };
    let status = set(&world, shorter).await.unwrap().revocation.unwrap();
    assert_eq!((status.sessions, status.shortened), (0, 1));
    assert!(!status.gateways[0].acknowledged);
    gateway.follow_to(status.revision).await;
    let shortened = held(&gateway).unwrap();
    assert_eq!(shortened.id, before.id);
    assert_eq!(shortened.deadline_ms, before.authenticated_at_ms + 60_000);

    let raise = SetLocationRequest {
        wait_ms: 5_000,
        ..require(Level::PhishingResistant)
    };
    let (raised, ()) = tokio::join!(set(&world, raise), async {
        gateway.hear().await.unwrap();
        gateway.acknowledge().await;
    });
    let status = raised.unwrap().revocation.unwrap();
    assert_eq!(status.sessions, 1);
    assert!(status.gateways[0].acknowledged, "{status:?}");
    assert!(held(&gateway).is_none());
}

async fn shorter_terms_shorten_sessions_and_longer_ones_do_not(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    let granted = world.log_in(from, &alice).await.unwrap();
    let now = |granted: &v1::SessionInfo| {
        (
            granted.deadline_ms - granted.authenticated_at_ms,
            granted.idle_timeout_ms,
        )
    };
    assert_eq!(now(&session(&world, &granted.id).await), (HOUR_MS, 600_000));
    for (lifetime_ms, idle_ms, expected, reached) in [
        (Some(2 * HOUR_MS as u64), Some(0), (HOUR_MS, 600_000), None),
        (
            Some(HOUR_MS as u64 / 2),
            None,
            (HOUR_MS / 2, 600_000),
            Some(1),
        ),
        (None, Some(60_000), (HOUR_MS / 2, 60_000), Some(1)),
        (
            Some(HOUR_MS as u64),
            Some(120_000),
            (HOUR_MS / 2, 60_000),
            None,
        ),
    ] {
        world.advance_s(1);
        let request = SetLocationRequest {
            session_lifetime_ms: lifetime_ms,
            idle_timeout_ms: idle_ms,
            ..office()
        };
        let location = set(&world, request).await.unwrap();
        let shortened = location.revocation.map(|status| status.shortened);
        assert_eq!(shortened, reached, "{lifetime_ms:?} {idle_ms:?}");
        assert_eq!(now(&session(&world, &granted.id).await), expected);
    }
    // A lifetime that is over already ends the session with the next sweep.
    world.advance_s(60);
    let request = SetLocationRequest {
        session_lifetime_ms: Some(30_000),
        ..office()
    };
    set(&world, request).await.unwrap();
    assert!(
        world
            .control
            .logins()
            .current(from)
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_removed_factor_leaves_sessions_alone(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    let granted = world.log_in(from, &alice).await.unwrap();
    let location = set(&world, factors(&["passkey"])).await.unwrap();
    assert_eq!(location.factors, ["passkey"]);
    assert!(location.revocation.is_none());
    assert_eq!(session(&world, &granted.id).await.state, "live");
}

async fn an_administrator_grants_nothing_below_the_level(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let passkey = world.grant("laptop").await;
    make_phishing_resistant(&world, &passkey.id).await;
    set(&world, require(Level::PhishingResistant))
        .await
        .unwrap();
    let admin = world.control.admin();
    let request = v1::AddSessionRequest {
        device: "laptop".into(),
        ..Default::default()
    };
    let refused = admin.add_session(Request::new(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("phishing-resistant"),
        "{refused}"
    );
    // The one that is there stays, and may be extended: it is at the level.
    let extend = v1::ExtendSessionRequest {
        id: passkey.id.clone(),
        by_ms: 1_000,
    };
    let extended = admin
        .extend_session(Request::new(extend))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(extended.deadline_ms, passkey.deadline_ms + 1_000);
}

async fn what_nobody_could_satisfy_is_refused_and_changes_nothing(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let granted = world.grant("laptop").await;
    let before = *world.control.revisions().borrow();
    for request in [
        factors(&["password"]),
        factors(&["totp", "recovery-code"]),
        factors(&[]),
        factors(&["password", "sms"]),
        SetLocationRequest {
            require: Some(Level::PhishingResistant.into()),
            ..factors(&["password", "totp"])
        },
        require(Level::None),
        SetLocationRequest {
            require: Some(9),
            ..office()
        },
        SetLocationRequest {
            preset: "aal4".into(),
            ..office()
        },
        SetLocationRequest {
            session_lifetime_ms: Some(0),
            ..office()
        },
        SetLocationRequest {
            idle_timeout_ms: Some(999),
            ..office()
        },
        office(),
    ] {
        let refused = set(&world, request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{request:?}");
    }
    assert_eq!(*world.control.revisions().borrow(), before);
    assert_eq!(session(&world, &granted.id).await.state, "live");
    let location = v1::Location {
        name: "lab".into(),
        pools: vec!["10.78.0.0/24".into()],
        endpoint: "vpn:1".into(),
        factors: vec!["totp".into()],
        ..Default::default()
    };
    let request = v1::AddLocationRequest {
        location: Some(location),
        preset: String::new(),
    };
    let refused = world
        .control
        .admin()
        .add_location(Request::new(request))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

async fn presets_set_what_they_promise(engine: Engine) {
    let (mut world, ..) = World::with_alice(engine).await;
    let location = v1::Location {
        name: "lab".into(),
        pools: vec!["10.78.0.0/24".into()],
        endpoint: "vpn:1".into(),
        ..Default::default()
    };
    let request = v1::AddLocationRequest {
        location: Some(location),
        preset: "aal2".into(),
    };
    let added = world
        .control
        .admin()
        .add_location(Request::new(request))
        .await;
    let added = added.unwrap().into_inner();
    assert_eq!(added.require(), Level::Mfa);
    assert_eq!(
        added.session_lifetime_ms,
        12 * HOUR_MS as u64,
        "the default is less than 24 h"
    );
    assert_eq!(added.idle_timeout_ms, HOUR_MS as u64);
    assert_eq!(
        added.factors,
        [
            "password",
            "totp",
            "recovery-code",
            "passkey",
            "sso",
            "phone"
        ]
    );

    let granted = world.grant("laptop").await;
    make_phishing_resistant(&world, &granted.id).await;
    let extend = v1::ExtendSessionRequest {
        id: granted.id.clone(),
        by_ms: 48 * HOUR_MS as u64,
    };
    let admin = world.control.admin();
    admin.extend_session(Request::new(extend)).await.unwrap();
    let request = SetLocationRequest {
        preset: "aal3".into(),
        ..office()
    };
    let status = set(&world, request).await.unwrap().revocation.unwrap();
    assert_eq!(
        (status.sessions, status.shortened),
        (0, 1),
        "also what was extended"
    );
    world.reopen().await;
    let location = v1::NameRequest {
        name: "office".into(),
    };
    let location = world
        .control
        .admin()
        .get_location(Request::new(location))
        .await;
    let location = location.unwrap().into_inner();
    assert_eq!(location.require(), Level::PhishingResistant);
    assert_eq!(
        (location.session_lifetime_ms, location.idle_timeout_ms),
        (HOUR_MS as u64, 600_000)
    );
    assert_eq!(
        session(&world, &granted.id).await.deadline_ms,
        granted.deadline_ms
    );
}
