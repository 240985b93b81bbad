//! The page of one's sessions, and of what happened to the account.

use askama::Template;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router};
use jiff::Timestamp;
use portcullis_control::{Activity, EndedSessions, OwnSession, SelfServiceError};

use super::Own;
use super::devices::{script, told};
use crate::guard::DeviceAddr;
use crate::nav::Nav;
use crate::pages::{Notice, page};
use crate::site::Site;
use crate::view::{Moment, level_in_words, time_left};

const SCRIPT: &str = include_str!("../../assets/session.js");

pub(super) fn routes() -> Router<Site> {
    Router::new()
        .route("/sessions", get(sessions))
        .route("/sessions/end-others", post(end_others))
        .route("/sessions/{id}/end", post(end))
        .route("/session.js", get(session_script))
}

/// Counts a session down.
pub(crate) async fn session_script() -> Response {
    script(SCRIPT)
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionsPage<'a> {
    nav: Nav,
    cards: Vec<Card<'a>>,
    has_others: bool,
    events: Vec<Event<'a>>,
}

struct Card<'a> {
    own: &'a OwnSession,
    level: &'static str,
    since: Moment,
    active: Moment,
    left: String,
}

struct Event<'a> {
    at: Moment,
    activity: &'a Activity,
}

async fn sessions(
    Own(own): Own,
    nav: Nav,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
) -> Response {
    let both = async { Ok((own.sessions(from).await?, own.activity(from).await?)) };
    let (sessions, events) = match both.await {
        Ok(both) => both,
        Err(error) => return told(error),
    };
    let now = Timestamp::now();
    let cards = sessions.iter().map(|own| Card {
        own,
        level: level_in_words(own.session.level),
        since: own.session.authenticated_at_ms.into(),
        active: own.last_activity_ms.into(),
        left: time_left(own.session.deadline_ms, now),
    });
    let events = events.iter().map(|activity| Event {
        at: activity.at_ms.into(),
        activity,
    });
    let template = SessionsPage {
        nav,
        cards: cards.collect(),
        has_others: sessions.iter().any(|own| !own.is_this),
        events: events.collect(),
    };
    page(StatusCode::OK, &template)
}

async fn end(
    Own(own): Own,
    Extension(DeviceAddr(from)): Extension<DeviceAddr>,
    Path(id): Path<String>,
) -> Response {
    after(own.end_session(from, &id).await)
}

async fn end_others(Own(own): Own, Extension(DeviceAddr(from)): Extension<DeviceAddr>) -> Response {
    after(own.end_other_sessions(from).await)
}

fn after(ended: Result<EndedSessions, SelfServiceError>) -> Response {
    match ended {
        Ok(ended) if ended.pending => page(
            StatusCode::ACCEPTED,
            &Notice {
                text: "The session has ended, but a gateway has not confirmed it yet: until it does, the device may still be let through.",
            },
        ),
        // One that is over by now is what was asked for.
        Ok(_) | Err(SelfServiceError::UnknownSession) => Redirect::to("/sessions").into_response(),
        Err(error) => told(error),
    }
}
