//! What strangers may take of the machine, where the portal listens outside of the tunnel. Counted per
//! network, which comes from the socket: no header is asked.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use portcullis_control::{Rate, Shares, network};

use crate::api::Told;
use crate::view::wait;

/// Where a connection from outside of the tunnel comes from, by its socket. It proves nothing.
#[derive(Clone, Copy, Debug)]
pub struct PublicAddr(pub IpAddr);

/// Each connection costs a TLS handshake.
const CONNECTIONS: Rate = Rate {
    burst: 30,
    every: Duration::from_secs(2),
};
/// A person's enrolment takes fewer than ten; one of them may cost a password's hashing.
const REQUESTS: Rate = Rate {
    burst: 60,
    every: Duration::from_secs(2),
};

/// Of either, where providers of single sign-on tell of logouts: one address speaks for all of its users.
const TELLINGS: Rate = Rate {
    burst: 200,
    every: Duration::from_millis(50),
};

/// Connections as they come.
#[derive(Clone)]
pub(crate) struct Arrivals(Arc<Shares<IpAddr>>);

impl Default for Arrivals {
    fn default() -> Self {
        Self(Arc::new(Shares::new(CONNECTIONS)))
    }
}

impl Arrivals {
    /// Of providers of single sign-on.
    pub(crate) fn of_providers() -> Self {
        Self(Arc::new(Shares::new(TELLINGS)))
    }

    pub(crate) fn admit(&self, network: IpAddr) -> bool {
        self.0.take(network).is_ok()
    }
}

/// Requests, also many on one connection.
#[derive(Clone)]
pub(crate) struct Requests(Arc<Shares<IpAddr>>);

impl Default for Requests {
    fn default() -> Self {
        Self(Arc::new(Shares::new(REQUESTS)))
    }
}

impl Requests {
    /// Of providers of single sign-on.
    pub(crate) fn of_providers() -> Self {
        Self(Arc::new(Shares::new(TELLINGS)))
    }
}

/// Refuses what is over the share, before it costs anything.
pub(crate) async fn limit(
    State(requests): State<Requests>,
    Extension(PublicAddr(from)): Extension<PublicAddr>,
    request: Request,
    next: Next,
) -> Response {
    let Err(left) = requests.0.take(network(from)) else {
        return next.run(request).await;
    };
    let seconds = left.as_secs() + 1;
    let told = Told {
        status: StatusCode::TOO_MANY_REQUESTS,
        code: "delayed",
        text: format!("too many requests; try again in {}", wait(seconds)),
        retry_after_s: Some(seconds),
    };
    told.at(request.uri().path())
}
