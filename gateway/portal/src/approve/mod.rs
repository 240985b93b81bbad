//! Where a phone approves a login elsewhere: a page that is the same for everybody, and calls that need the token of
//! the QR code. It stands behind a fragment: opening the code sends it to nobody.

mod api;

use askama::Template;
use axum::Router;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use portcullis_control::{ApprovalError, Approvals};

use crate::api::Told;
use crate::own::script;
use crate::pages::page;

const SCRIPT: &str = include_str!("../../assets/approve.js");

/// Page, script and calls.
pub(crate) fn routes() -> Router<Approvals> {
    Router::new()
        .route("/approve", get(open))
        .route("/approve.js", get(async || script(SCRIPT)))
        .merge(api::routes())
}

#[derive(Template)]
#[template(path = "approve.html")]
struct Approve;

async fn open() -> Response {
    page(StatusCode::OK, &Approve)
}

impl From<ApprovalError> for Told {
    fn from(error: ApprovalError) -> Self {
        let text = error.to_string();
        let (status, code) = match error {
            ApprovalError::Over => (StatusCode::NOT_FOUND, "approval_over"),
            ApprovalError::WrongNumber => (StatusCode::FORBIDDEN, "wrong_number"),
            ApprovalError::Passkey(error) => return error.into(),
        };
        Self {
            status,
            code,
            text,
            retry_after_s: None,
        }
    }
}
