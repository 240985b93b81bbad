//! The login portal: a JSON API and small pages, reachable by a peer before it has a session.
//!
//! Which device is asking is told by the connection's source address and by nothing else:
//! WireGuard's cryptokey routing proves it, a header proves nothing.
#![forbid(unsafe_code)]

mod api;
mod guard;
mod known;
mod limits;
mod listen;
mod pages;
mod passkeys;
mod site;
mod sso;
mod view;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use portcullis_control::{Logins, Passkeys, Sso};
use site::Site;

pub use guard::DeviceAddr;
pub use listen::{BindError, Portal};
pub use sso::backchannel_app;

/// No request to the portal is larger than a new passkey.
const BODY_LIMIT: usize = 16 * 1024;

/// Every route; those for passkeys and for single sign-on say that they are off where there are none. The
/// caller adds the [`DeviceAddr`] of the connection as an extension.
pub fn app(logins: Logins, passkeys: Option<Passkeys>, sso: Option<Sso>) -> Router {
    Router::new()
        .merge(pages::routes())
        .merge(passkeys::pages())
        .merge(sso::pages())
        .nest(
            "/api/v1",
            api::routes().merge(passkeys::calls()).merge(sso::calls()),
        )
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(guard::time_limit))
        .layer(middleware::from_fn(guard::same_origin))
        .layer(middleware::from_fn(guard::security_headers))
        .with_state(Site {
            logins,
            passkeys,
            sso,
        })
}
