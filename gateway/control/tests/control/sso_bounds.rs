//! What bounds a provider's word: the browser that it is given to, the time that it counts, and what it may
//! cost those whom it is not about.

use std::time::Duration;

use portcullis_control::{Browser, SsoError};
use serde_json::{Value, json};

use crate::fixture::Engine;
use crate::rogue::Key;
use crate::sso::{SUBJECT, Setting, callback};

crate::on_both!(
    a_visit_is_the_browsers_that_was_sent,
    groups_count_as_long_as_a_session_of_the_location,
    groups_count_as_long_as_is_configured,
    a_logout_of_somebody_unknown_is_not_written_down,
);

/// The thief of a device's key cannot have its owner's browser finish what another one began.
async fn a_visit_is_the_browsers_that_was_sent(engine: Engine) {
    let setting = Setting::new(engine).await;
    let visit = setting.begin().await;
    let token = setting.key.sign(&setting.claims(&visit));
    setting.rogue.answer(token.clone());
    let another = Browser::new().unwrap();
    for browser in [Some(&another), None] {
        let sso = setting.sso();
        let callback = callback(&visit);
        let step = sso.finish(setting.laptop, "acme", &callback, browser).await;
        assert!(matches!(step, Err(SsoError::UnknownVisit)), "{step:?}");
    }
    assert!(setting.rogue.asked().is_empty(), "the code was not given");
    assert_eq!(setting.live().await, 0);
    // Nor can another browser spend it.
    setting.back(&visit, token).await.unwrap();
}

#[test]
fn only_a_cookie_that_we_gave_names_a_browser() {
    let browser = Browser::new().unwrap();
    let cookie = browser.cookie().expose();
    assert!(Browser::presenting(cookie).is_some());
    for none in ["", "x", "portcullis_", "portcullis_AAAA", &cookie[1..]] {
        assert!(Browser::presenting(none).is_none(), "{none}");
    }
    assert!(!format!("{browser:?}").contains(cookie));
}

async fn lapses_after(setting: &Setting, seconds: i64) {
    let control = setting.world.control.clone();
    let sweeping = tokio::spawn(async move { control.run_expiry(std::future::pending()).await });
    setting.world.advance_s(seconds - 1);
    setting.world.user("bob").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(setting.alices().await.groups, ["sre", "staff"]);
    let before = *setting.world.control.revisions().borrow();
    setting.world.advance_s(1);
    // Any change wakes the sweep, as the real clock would.
    setting.world.user("carol").await;
    for _ in 0..200 {
        if setting.alices().await.groups == ["staff"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    sweeping.abort();
    assert_eq!(
        setting.alices().await.groups,
        ["staff"],
        "what an administrator gave stays"
    );
    assert!(
        *setting.world.control.revisions().borrow() > before + 1,
        "gateways hear of it"
    );
    let audit = setting.world.audit().await;
    let told = audit.iter().find(|record| {
        record.action == "user.groups" && record.actor == "system" && record.subject == "alice"
    });
    assert!(told.unwrap().detail.contains("\"sre\""));
}

async fn groups_count_as_long_as_a_session_of_the_location(engine: Engine) {
    let setting = Setting::new(engine).await;
    let sre = |claims: &mut Value| claims["groups"] = json!(["sre"]);
    setting.session(sre).await;
    // The same groups, told again, count anew.
    setting.world.advance_s(1800);
    setting.session(sre).await;
    lapses_after(&setting, 3600).await;
}

async fn groups_count_as_long_as_is_configured(engine: Engine) {
    let mut setting = Setting::new(engine).await;
    setting.world.config.sso[0].groups_lifetime = Some(Duration::from_secs(600));
    setting.world.reopen().await;
    setting
        .session(|claims| claims["groups"] = json!(["sre"]))
        .await;
    lapses_after(&setting, 600).await;
    assert_eq!(setting.live().await, 1, "the session goes on without them");

    setting.world.config.sso[0].groups_lifetime = Some(Duration::from_secs(59));
    let opened = portcullis_control::Control::open(setting.world.config.clone()).await;
    let error = opened.unwrap_err();
    assert!(error.to_string().contains("groups_lifetime"), "{error}");
}

/// A provider tells of all its users' logouts. Those that are not about us cost neither an audit record
/// nor a revision.
async fn a_logout_of_somebody_unknown_is_not_written_down(engine: Engine) {
    let setting = Setting::new(engine).await;
    setting.session(|_| {}).await;
    let records = setting.world.audit().await.len();
    let revision = *setting.world.control.revisions().borrow();
    for index in 0..20 {
        let mut claims = setting.logout(&format!("unknown-{index}"));
        claims["sub"] = json!(format!("stranger-{index}"));
        assert_eq!(setting.tell(&claims).await.unwrap(), 0);
        let again = setting.tell(&claims).await;
        assert!(matches!(again, Err(SsoError::Refused)), "{again:?}");
    }
    assert_eq!(setting.world.audit().await.len(), records);
    assert_eq!(*setting.world.control.revisions().borrow(), revision);
    assert_eq!(setting.live().await, 1);
    // One that is about us is written down.
    let claims = setting.logout("ours");
    assert_eq!(claims["sub"], json!(SUBJECT));
    assert_eq!(setting.tell(&claims).await.unwrap(), 1);
    assert_eq!(setting.world.audit().await.len(), records + 1);
}

/// A token with a key that nobody knows makes the keys be fetched anew; a provider that is slow to answer
/// that must not keep others from signing in.
#[tokio::test]
async fn a_fetch_for_an_unknown_key_stalls_nobody_else() {
    let setting = Setting::new(Engine::Sqlite).await;
    setting.session(|_| {}).await;
    let fetches = setting.rogue.key_fetches();
    let silence = setting.rogue.silence().await;
    let sso = setting.sso();
    let unknown = Key::new("unknown").sign_as("logout+jwt", &setting.logout("x"));
    let waiting = tokio::spawn(async move { sso.log_out("acme", &unknown).await });
    while setting.rogue.key_fetches() == fetches {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let others = tokio::time::timeout(Duration::from_secs(5), setting.session(|_| {}));
    others.await.expect("it does not wait for the provider");
    assert!(!waiting.is_finished());
    drop(silence);
    let told = waiting.await.unwrap();
    assert!(matches!(told, Err(SsoError::Refused)), "{told:?}");
}
