//! Enrolling by a one-time link: what finishes it, what it changes, and all that is refused.

use std::net::IpAddr;

use portcullis_control::{
    EnrolError, Enrolled, EnrolmentId, FirstAdmin, LoginError, NewAuthenticator,
};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use tonic::{Code, Request, Status};

use crate::fixture::{Account, Engine, PASSWORD, World};

crate::on_both!(
    a_link_enrols_an_account_across_restarts_and_only_once,
    opening_a_link_uses_nothing_up_and_the_first_to_finish_wins,
    until_it_is_finished_the_old_factors_stay,
    expired_replaced_and_unknown_links_are_told_apart_by_nothing,
    a_password_that_may_not_be_one_is_refused,
    the_code_that_was_shown_for_the_enrolment_opens_no_session,
    tries_are_counted_in_the_store,
    an_enrolment_ends_after_an_hour,
    the_first_admins_link_is_good_until_somebody_has_enrolled,
    without_a_page_to_enrol_at_there_are_no_links,
);

pub(crate) const PAGE: &str = "https://login.example.com/enrol";
const CHOSEN: &str = "a fine new phrase";
pub(crate) const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7));

pub(crate) async fn invite(world: &World, user: &str) -> Result<String, Status> {
    let request = v1::InviteUserRequest {
        name: user.into(),
        ..Default::default()
    };
    let admin = world.control.admin();
    let link = admin.invite_user(Request::new(request)).await?.into_inner();
    Ok(token(&link.url))
}

pub(crate) fn token(url: &str) -> String {
    let token = url.strip_prefix(&format!("{PAGE}#")).expect("the page");
    token.to_owned()
}

async fn add_invited(world: &World, user: &str) -> v1::AddUserResponse {
    let request = v1::AddUserRequest {
        name: user.into(),
        invite: true,
        ..Default::default()
    };
    let admin = world.control.admin();
    admin
        .add_user(Request::new(request))
        .await
        .unwrap()
        .into_inner()
}

pub(crate) async fn begin(world: &World, token: &str) -> Result<EnrolmentId, EnrolError> {
    let enrolments = world.control.enrolments();
    let step = enrolments.begin(FROM, &token.into()).await?;
    Ok(step.enrolment)
}

pub(crate) async fn choose(
    world: &World,
    id: &EnrolmentId,
    password: &str,
) -> Result<NewAuthenticator, EnrolError> {
    let enrolments = world.control.enrolments();
    enrolments.password(id, &password.into()).await
}

pub(crate) async fn confirm(
    world: &World,
    id: &EnrolmentId,
    code: &str,
) -> Result<Enrolled, EnrolError> {
    let enrolments = world.control.enrolments();
    enrolments.confirm(FROM, id, code).await
}

/// The whole of it.
pub(crate) async fn enrol(
    world: &World,
    token: &str,
    password: &str,
) -> Result<Account, EnrolError> {
    let id = begin(world, token).await?;
    let account = account(choose(world, &id, password).await?);
    confirm(world, &id, &account.code(world.now_ms())).await?;
    Ok(account)
}

pub(crate) fn account(new: NewAuthenticator) -> Account {
    assert!(new.uri.expose().starts_with("otpauth://totp/"));
    Account {
        name: new.user,
        totp: new.secret.expose().to_owned(),
    }
}

async fn new_world(engine: Engine) -> World {
    let world = World::new(engine).await;
    world.control.serve_enrolments_at(PAGE.into());
    world
}

async fn with_alice(engine: Engine) -> (World, Account, IpAddr) {
    let (world, alice, from) = World::with_alice(engine).await;
    world.control.serve_enrolments_at(PAGE.into());
    (world, alice, from)
}

async fn log_in(world: &World, from: IpAddr, account: &Account, password: &str) -> bool {
    let Ok(attempt) = world.begin(from, &account.name, password).await else {
        return false;
    };
    let code = account.code(world.now_ms());
    world
        .control
        .logins()
        .totp(from, &attempt, &code)
        .await
        .is_ok()
}

fn is_over<T: std::fmt::Debug>(result: Result<T, EnrolError>) -> bool {
    matches!(result, Err(EnrolError::Over))
}

async fn a_link_enrols_an_account_across_restarts_and_only_once(engine: Engine) {
    let mut world = new_world(engine).await;
    world.location("office", &["10.77.0.0/24"]).await.unwrap();
    let added = add_invited(&world, "ada").await;
    assert!(added.totp_secret.is_empty() && added.totp_uri.is_empty());
    let user = added.user.unwrap();
    assert_eq!(
        (user.enrolled_ms, user.has_password, user.has_totp),
        (0, false, false)
    );
    let link = added.link.unwrap();
    assert!(!format!("{link:?}").contains("portcullis_"));
    let token = token(&link.url);
    let device = world.device("laptop", "ada").await.device.unwrap();
    let from: IpAddr = device.addresses[0].parse().unwrap();
    // An account without factors is answered like any wrong password.
    for password in ["", PASSWORD] {
        let refused = world.begin(from, "ada", password).await;
        assert!(matches!(refused, Err(LoginError::Refused)));
    }

    let id = begin(&world, &token).await.unwrap();
    let early = confirm(&world, &id, "000000").await;
    assert!(matches!(early, Err(EnrolError::PasswordFirst)));
    let ada = account(choose(&world, &id, CHOSEN).await.unwrap());
    world.reopen().await;
    let wrong = confirm(&world, &id, &ada.wrong_code(world.now_ms())).await;
    assert!(matches!(wrong, Err(EnrolError::Code)));
    assert!(!log_in(&world, from, &ada, CHOSEN).await, "not finished");
    let shown = world.control.enrolments().authenticator(&id).await.unwrap();
    assert_eq!(shown.secret.expose(), ada.totp, "the same one");
    let enrolled = confirm(&world, &id, &ada.code(world.now_ms()))
        .await
        .unwrap();
    assert_eq!(
        (enrolled.user.as_str(), enrolled.recovery_codes.len()),
        ("ada", 10)
    );

    world.advance_s(60);
    assert!(log_in(&world, from, &ada, CHOSEN).await);
    assert!(is_over(begin(&world, &token).await), "used");
    assert!(is_over(
        confirm(&world, &id, &ada.code(world.now_ms())).await
    ));
    let codes = enrolled.recovery_codes;
    let attempt = world.begin(from, "ada", CHOSEN).await.unwrap();
    let logins = world.control.logins();
    let recovered = logins.recovery(from, &attempt, codes[0].expose()).await;
    recovered.unwrap();
    let audit = world.audit().await;
    for action in ["user.add", "user.invite", "enrolment.begin", "user.enrol"] {
        assert!(
            audit.iter().any(|record| record.action == action),
            "{action}"
        );
    }
    for record in &audit {
        for secret in [&token, &ada.totp, codes[0].expose(), id.as_str()] {
            assert!(!record.detail.contains(secret), "{}", record.action);
        }
    }
}

async fn opening_a_link_uses_nothing_up_and_the_first_to_finish_wins(engine: Engine) {
    let (world, _, from) = with_alice(engine).await;
    let token = invite(&world, "alice").await.unwrap();
    let first = begin(&world, &token).await.unwrap();
    let second = begin(&world, &token).await.unwrap();
    let one = account(choose(&world, &first, "the first one's").await.unwrap());
    let two = account(choose(&world, &second, "the second one's").await.unwrap());
    assert_ne!(one.totp, two.totp);
    let other = confirm(&world, &first, &two.code(world.now_ms())).await;
    assert!(
        matches!(other, Err(EnrolError::Code)),
        "its own authenticator"
    );
    confirm(&world, &second, &two.code(world.now_ms()))
        .await
        .unwrap();
    let late = confirm(&world, &first, &one.code(world.now_ms())).await;
    assert!(is_over(late));
    world.advance_s(60);
    assert!(!log_in(&world, from, &one, "the first one's").await);
    assert!(log_in(&world, from, &two, "the second one's").await);

    // And when they finish at the same moment.
    let token = invite(&world, "alice").await.unwrap();
    let mut ready = Vec::new();
    for _ in 0..4 {
        let id = begin(&world, &token).await.unwrap();
        let account = account(choose(&world, &id, CHOSEN).await.unwrap());
        ready.push((id, account.code(world.now_ms())));
    }
    let racing = ready.into_iter().map(|(id, code)| {
        let enrolments = world.control.enrolments();
        tokio::spawn(async move { enrolments.confirm(FROM, &id, &code).await.is_ok() })
    });
    let racing: Vec<_> = racing.collect();
    let mut won = 0;
    for one in racing {
        won += i32::from(one.await.unwrap());
    }
    assert_eq!(won, 1);
}

async fn until_it_is_finished_the_old_factors_stay(engine: Engine) {
    let (world, alice, from) = with_alice(engine).await;
    world.log_in(from, &alice).await.unwrap();
    let token = invite(&world, "alice").await.unwrap();
    let id = begin(&world, &token).await.unwrap();
    let new = account(choose(&world, &id, CHOSEN).await.unwrap());
    world.advance_s(60);
    world.log_in(from, &alice).await.unwrap();
    confirm(&world, &id, &new.code(world.now_ms()))
        .await
        .unwrap();
    // From here on the new ones alone, and no session by the old ones.
    let sessions = world.sessions().await;
    assert!(sessions.iter().all(|session| session.state != "live"));
    world.advance_s(60);
    assert!(!log_in(&world, from, &alice, PASSWORD).await);
    assert!(!log_in(&world, from, &alice, CHOSEN).await);
    assert!(log_in(&world, from, &new, CHOSEN).await);
}

async fn expired_replaced_and_unknown_links_are_told_apart_by_nothing(engine: Engine) {
    let (world, ..) = with_alice(engine).await;
    let replaced = invite(&world, "alice").await.unwrap();
    let open = begin(&world, &replaced).await.unwrap();
    let expired = invite(&world, "alice").await.unwrap();
    assert!(
        is_over(choose(&world, &open, CHOSEN).await),
        "went with its link"
    );
    begin(&world, &expired).await.unwrap();
    world.advance_s(24 * 3600);
    let unknown = "portcullis_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let mut texts = Vec::new();
    for token in [replaced.as_str(), &expired, unknown, "", &"x".repeat(9000)] {
        let refused = begin(&world, token).await.unwrap_err();
        assert!(matches!(refused, EnrolError::Over), "{refused:?}");
        texts.push(refused.to_string());
    }
    texts.dedup();
    assert_eq!(texts.len(), 1);
    let begun = |record: &&v1::AuditRecord| record.action == "enrolment.begin";
    assert_eq!(world.audit().await.iter().filter(begun).count(), 2);
    for valid_ms in [59_999, 31 * 24 * 3_600_000] {
        let name = "alice".into();
        let request = Request::new(v1::InviteUserRequest {
            name,
            valid_ms,
            ..Default::default()
        });
        let refused = world.control.admin().invite_user(request).await;
        assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    }
}

async fn a_password_that_may_not_be_one_is_refused(engine: Engine) {
    let (world, ..) = with_alice(engine).await;
    let token = invite(&world, "alice").await.unwrap();
    let id = begin(&world, &token).await.unwrap();
    for weak in [
        "",
        "seven77",
        "Password1",
        "alice's phrase",
        &"x".repeat(5000),
    ] {
        let refused = choose(&world, &id, weak).await;
        assert!(
            matches!(refused, Err(EnrolError::Password(_))),
            "{weak:.20}"
        );
    }
    let early = confirm(&world, &id, "000000").await;
    assert!(matches!(early, Err(EnrolError::PasswordFirst)));
    choose(&world, &id, CHOSEN).await.unwrap();
}

async fn the_code_that_was_shown_for_the_enrolment_opens_no_session(engine: Engine) {
    let (world, _, from) = with_alice(engine).await;
    let token = invite(&world, "alice").await.unwrap();
    let account = enrol(&world, &token, CHOSEN).await.unwrap();
    assert!(!log_in(&world, from, &account, CHOSEN).await, "spent");
    world.advance_s(30);
    assert!(log_in(&world, from, &account, CHOSEN).await);
}

async fn tries_are_counted_in_the_store(engine: Engine) {
    let (mut world, ..) = with_alice(engine).await;
    let token = invite(&world, "alice").await.unwrap();
    let id = begin(&world, &token).await.unwrap();
    choose(&world, &id, CHOSEN).await.unwrap();
    for _ in 0..60 {
        let wrong = confirm(&world, &id, "nonsense").await;
        assert!(matches!(wrong, Err(EnrolError::Code)));
    }
    // Neither a restart nor beginning again forgets them.
    world.reopen().await;
    for _ in 0..38 {
        begin(&world, &token).await.unwrap();
    }
    assert!(is_over(begin(&world, &token).await));
    assert!(is_over(confirm(&world, &id, "nonsense").await));
}

async fn an_enrolment_ends_after_an_hour(engine: Engine) {
    let (world, ..) = with_alice(engine).await;
    let token = invite(&world, "alice").await.unwrap();
    let id = begin(&world, &token).await.unwrap();
    world.advance_s(3599);
    let account = account(choose(&world, &id, CHOSEN).await.unwrap());
    world.advance_s(1);
    let late = confirm(&world, &id, &account.code(world.now_ms())).await;
    assert!(is_over(late));
    enrol(&world, &token, CHOSEN).await.unwrap();
}

async fn the_first_admins_link_is_good_until_somebody_has_enrolled(engine: Engine) {
    let mut world = World::new(engine).await;
    let off = world.control.first_admin().await.unwrap();
    assert!(matches!(off, FirstAdmin::Off), "{off:?}");
    let link = async |world: &World| match world.control.first_admin().await.unwrap() {
        FirstAdmin::Link { url, .. } => token(url.expose()),
        other => panic!("{other:?}"),
    };
    world.control.serve_enrolments_at(PAGE.into());
    let older = link(&world).await;
    world.reopen().await;
    world.control.serve_enrolments_at(PAGE.into());
    let newer = link(&world).await;
    assert!(is_over(begin(&world, &older).await), "printed afresh");
    let id = begin(&world, &newer).await.unwrap();
    let admin = account(choose(&world, &id, CHOSEN).await.unwrap());
    // Somebody else is there first: whoever finds the link in a log later enrols nobody.
    world.user("alice").await;
    assert!(is_over(begin(&world, &newer).await));
    let late = confirm(&world, &id, &admin.code(world.now_ms())).await;
    assert!(is_over(late));
    let over = world.control.first_admin().await.unwrap();
    assert!(matches!(over, FirstAdmin::NotNeeded), "{over:?}");

    let world = new_world(engine).await;
    let first = link(&world).await;
    enrol(&world, &first, CHOSEN).await.unwrap();
    let over = world.control.first_admin().await.unwrap();
    assert!(matches!(over, FirstAdmin::NotNeeded), "{over:?}");
    let name = "admin".into();
    let request = Request::new(v1::NameRequest { name });
    let user = world.control.admin().get_user(request).await.unwrap();
    assert_eq!(user.into_inner().role, "admin");
}

async fn without_a_page_to_enrol_at_there_are_no_links(engine: Engine) {
    let (world, ..) = World::with_alice(engine).await;
    let refused = invite(&world, "alice").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let request = v1::AddUserRequest {
        name: "bob".into(),
        invite: true,
        ..Default::default()
    };
    let admin = world.control.admin();
    let refused = admin.add_user(Request::new(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let name = "bob".into();
    let request = Request::new(v1::NameRequest { name });
    let missing = admin.get_user(request).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "nothing was changed");
}
