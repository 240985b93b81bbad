//! Accounts: roles, lost factors, and that disabling ends everything.

use portcullis_control::{EnrolError, LoginError};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use tonic::{Code, Request, Status};

use crate::enrol::{PAGE, begin, enrol, invite, token};
use crate::fixture::{Engine, PASSWORD, World};
use crate::gateway::{Gateway, Served, enroll};

crate::on_both!(
    a_role_is_recorded_and_nothing_else_is_one,
    a_lost_factor_ends_everything_and_is_told_for_a_week,
    only_the_factors_that_were_lost_are_void,
    a_reset_waits_for_gateways_and_needs_a_reason,
    disabling_an_account_ends_all_that_it_holds,
);

async fn reset(
    world: &World,
    factors: &[&str],
    reason: &str,
) -> Result<v1::ResetFactorsResponse, Status> {
    let request = v1::ResetFactorsRequest {
        name: "alice".into(),
        reason: reason.into(),
        factors: factors.iter().map(|name| (*name).into()).collect(),
        ..Default::default()
    };
    let admin = world.control.admin();
    Ok(admin
        .reset_factors(Request::new(request))
        .await?
        .into_inner())
}

async fn alice(world: &World) -> v1::User {
    let request = v1::NameRequest {
        name: "alice".into(),
    };
    let admin = world.control.admin();
    let user = admin.get_user(Request::new(request)).await;
    user.unwrap().into_inner()
}

async fn set_disabled(world: &World, disabled: bool) {
    let request = v1::SetUserDisabledRequest {
        name: "alice".into(),
        disabled,
    };
    let admin = world.control.admin();
    admin
        .set_user_disabled(Request::new(request))
        .await
        .unwrap();
}

async fn a_role_is_recorded_and_nothing_else_is_one(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    assert_eq!(alice(&world).await.role, "user");
    let admin = world.control.admin();
    let set = async |role: &str| {
        let (name, role) = ("alice".into(), role.into());
        let request = Request::new(v1::SetUserRequest { name, role });
        admin.set_user(request).await
    };
    for bad in ["", "root", "Admin"] {
        let refused = set(bad).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{bad:?}");
    }
    assert_eq!(set("admin").await.unwrap().into_inner().role, "admin");
    assert_eq!(alice(&world).await.role, "admin");
    let record = world.audit().await.remove(0);
    assert_eq!(
        (record.action.as_str(), record.actor.as_str()),
        ("user.role", "admin")
    );
    assert!(
        record.detail.contains("\"before\":\"user\""),
        "{}",
        record.detail
    );
    let bad = v1::AddUserRequest {
        name: "bob".into(),
        password: PASSWORD.into(),
        role: "boss".into(),
        ..Default::default()
    };
    let refused = admin.add_user(Request::new(bad)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

async fn a_lost_factor_ends_everything_and_is_told_for_a_week(engine: Engine) {
    let (world, old, from) = World::with_alice(engine).await;
    world.control.serve_enrolments_at(PAGE.into());
    world.log_in(from, &old).await.unwrap();
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    let earlier = invite(&world, "alice").await.unwrap();
    let answer = reset(&world, &[], "phone stolen, called from +49 1")
        .await
        .unwrap();
    assert_eq!(answer.revocation.unwrap().sessions, 1);
    let user = alice(&world).await;
    assert!(!user.has_password && !user.has_totp && user.live_sessions == 0);
    assert_eq!(user.reset_reason, "phone stolen, called from +49 1");

    world.advance_s(60);
    let logins = world.control.logins();
    let code = old.code(world.now_ms());
    let late = logins.totp(from, &attempt, &code).await;
    assert!(matches!(late, Err(LoginError::UnknownAttempt)));
    let refused = world.begin(from, "alice", PASSWORD).await;
    assert!(matches!(refused, Err(LoginError::Refused)));
    assert!(matches!(
        begin(&world, &earlier).await,
        Err(EnrolError::Over)
    ));
    let link = token(&answer.link.unwrap().url);
    let new = enrol(&world, &link, PASSWORD).await.unwrap();

    // An administrator's grant is no login: it tells nobody.
    world.grant("laptop").await;
    world.advance_s(60);
    let told = world.log_in(from, &new).await.unwrap();
    let notice = told.reset.unwrap();
    assert_eq!(notice.reason, "phone stolen, called from +49 1");
    world.advance_s(60);
    let next = world.log_in(from, &new).await.unwrap();
    assert!(next.reset.is_some(), "whoever was the first");
    world.advance_s(7 * 24 * 3600);
    let next = world.log_in(from, &new).await.unwrap();
    assert!(next.reset.is_none(), "a week later");
    let audit = world.audit().await;
    let of = |action: &str| {
        let of = audit.iter().filter(|record| record.action == action);
        of.cloned().collect::<Vec<_>>()
    };
    let done = of("user.reset-factors");
    assert_eq!((done.len(), done[0].actor.as_str()), (1, "admin"));
    assert!(
        done[0].detail.contains("phone stolen"),
        "{}",
        done[0].detail
    );
    let told = of("user.reset-told");
    assert_eq!((told.len(), told[0].actor.as_str()), (1, "user:alice"));
}

async fn only_the_factors_that_were_lost_are_void(engine: Engine) {
    let (world, old, from) = World::with_alice(engine).await;
    let name = "alice".to_owned();
    let admin = world.control.admin();
    let codes = admin.new_recovery_codes(Request::new(v1::NameRequest { name }));
    let codes = codes.await.unwrap().into_inner().codes;
    // Also where enrolment is off: then there is no link, and the rest holds.
    let answer = reset(&world, &["recovery-code"], "list lost")
        .await
        .unwrap();
    assert!(answer.link.is_none());
    assert_eq!(answer.recovery_codes_voided, 10);
    world.log_in(from, &old).await.unwrap();
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    let logins = world.control.logins();
    let refused = logins.recovery(from, &attempt, &codes[0]).await;
    assert!(matches!(refused, Err(LoginError::Refused)));

    reset(&world, &["totp"], "phone lost").await.unwrap();
    let user = alice(&world).await;
    assert!(user.has_password && !user.has_totp);
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    world.advance_s(60);
    for code in [old.code(world.now_ms()), String::new(), "000000".to_owned()] {
        let refused = logins.totp(from, &attempt, &code).await;
        assert!(matches!(refused, Err(LoginError::Refused)), "{refused:?}");
    }
}

async fn a_reset_waits_for_gateways_and_needs_a_reason(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    for reason in ["", "  ", "two\nlines", &"x".repeat(257), "\u{202e}turned"] {
        let refused = reset(&world, &[], reason).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{reason:?}");
    }
    // A phone approves by its passkey, which is what there is to reset.
    for none in ["sms", "phone"] {
        let refused = reset(&world, &[none], "lost").await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{none}");
    }
    assert!(alice(&world).await.has_totp, "nothing was changed");

    let served = Served::start(&world.control).await;
    let token = world.control.gateway_token("gw", "office").await.unwrap();
    let enrolled = enroll(&world.control, served.port, token.expose()).await;
    let mut gateway = Gateway::new(enrolled.unwrap());
    world.grant("laptop").await;
    gateway.connect(served.port).await.unwrap();
    gateway.follow_to(*world.control.revisions().borrow()).await;
    let answer = reset(&world, &[], "lost").await.unwrap();
    let pending = answer.revocation.unwrap();
    assert_eq!(pending.gateways.len(), 1);
    assert!(!pending.gateways[0].acknowledged);
}

async fn disabling_an_account_ends_all_that_it_holds(engine: Engine) {
    let (world, alice, from) = World::with_alice(engine).await;
    world.control.serve_enrolments_at(PAGE.into());
    world.log_in(from, &alice).await.unwrap();
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    let link = invite(&world, "alice").await.unwrap();
    let enrolment = begin(&world, &link).await.unwrap();
    set_disabled(&world, true).await;
    let refused = invite(&world, "alice").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    // Enabled again, it begins with nothing.
    set_disabled(&world, false).await;
    world.advance_s(60);
    let sessions = world.sessions().await;
    assert!(sessions.iter().all(|session| session.state != "live"));
    let code = alice.code(world.now_ms());
    let late = world.control.logins().totp(from, &attempt, &code).await;
    assert!(matches!(late, Err(LoginError::UnknownAttempt)));
    assert!(matches!(begin(&world, &link).await, Err(EnrolError::Over)));
    let enrolments = world.control.enrolments();
    let late = enrolments.password(&enrolment, &PASSWORD.into()).await;
    assert!(matches!(late, Err(EnrolError::Over)));
}
