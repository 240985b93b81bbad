//! The login portal: a JSON API and small pages, reachable by a peer before it has a session.
//!
//! Which device is asking is told by the connection's source address and by nothing else:
//! WireGuard's cryptokey routing proves it, a header proves nothing.
#![forbid(unsafe_code)]

mod api;
mod approve;
mod captive;
mod challenge;
mod connect;
mod cookie;
mod enrol;
mod guard;
mod known;
mod limits;
mod listen;
mod nav;
mod openapi;
mod outside;
mod own;
mod pages;
mod passkeys;
mod phone;
mod public;
mod seed;
mod site;
mod sso;
mod view;

use axum::Router;
use axum::middleware;
use axum::response::Redirect;
use axum::routing::get;
use portcullis_control::{Approvals, Connects, Enrolments, Logins, Outside, Passkeys, Sso};
use site::Site;

use challenge::challenge_app;

pub use guard::DeviceAddr;
pub use listen::{BindError, Portal};
pub use public::PublicAddr;
pub use sso::backchannel_app;

/// Every route; those for passkeys and for single sign-on say that they are off where there are none. The
/// caller adds the [`DeviceAddr`] of the connection as an extension.
pub fn app(logins: Logins, passkeys: Option<Passkeys>, sso: Option<Sso>) -> Router {
    Router::new()
        .merge(pages::routes())
        .merge(passkeys::pages())
        .merge(captive::routes())
        .merge(own::pages())
        .merge(sso::pages())
        .merge(openapi::routes())
        .layer(middleware::from_fn(guard::body_limit))
        .layer(middleware::from_fn(guard::time_limit))
        .layer(middleware::from_fn(guard::same_origin))
        .layer(middleware::from_fn(guard::security_headers))
        .with_state(Site {
            logins,
            passkeys,
            sso,
        })
}

/// What is said in the clear: where to go instead.
fn plain_app(logins: Logins, passkeys: Option<Passkeys>) -> Router {
    captive::plain()
        .layer(middleware::from_fn(guard::time_limit))
        .with_state(Site {
            logins,
            passkeys,
            sso: None,
        })
}

/// What is served outside of the tunnel: enrolment, logins of devices that prove their key, signing in where
/// that is wished, phones that approve where the portal has a name, and nothing that takes an address for a device's. The caller adds the [`PublicAddr`] of the
/// connection as an extension.
pub fn public_app(
    enrolments: Enrolments,
    connects: Connects,
    outside: Option<Outside>,
    approvals: Option<Approvals>,
) -> Router {
    let requests = public::Requests::default();
    let pages = match outside {
        Some(outside) => outside::routes().with_state(outside),
        None => Router::new().route("/", get(async || Redirect::to("/enrol"))),
    };
    let approve = match approvals {
        Some(approvals) => approve::routes().with_state(approvals),
        None => Router::new(),
    };
    Router::new()
        .merge(enrol::pages())
        .merge(enrol::calls())
        .with_state(enrolments)
        .merge(connect::calls().with_state(connects))
        .merge(pages)
        .merge(approve)
        .route("/style.css", get(pages::style))
        .layer(middleware::from_fn(guard::body_limit))
        .layer(middleware::from_fn(guard::time_limit))
        .layer(middleware::from_fn(guard::same_origin))
        .layer(middleware::from_fn_with_state(requests, public::limit))
        .layer(middleware::from_fn(guard::security_headers))
}
