//! What strangers may take of the machine, where the portal listens outside of the tunnel. Counted per
//! network, which comes from the socket: no header is asked.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::time::Instant;

use crate::api::Told;
use crate::view::wait;

/// Where a connection from outside of the tunnel comes from, by its socket. It proves nothing.
#[derive(Clone, Copy, Debug)]
pub struct PublicAddr(pub IpAddr);

/// Networks remembered. Beyond them those that are quiet again are forgotten, and at worst all.
const MOST: usize = 16 * 1024;

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

/// So many at once, then one in each such time.
#[derive(Clone, Copy)]
struct Rate {
    burst: u32,
    every: Duration,
}

/// One customer's share: an IPv4 address, or an IPv6 /64 (RFC 6177: no site has less).
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// Counts by network: the time at which a network has nothing taken any more (a leaky bucket by its
/// virtual scheduling, ITU-T I.371).
struct Shares {
    rate: Rate,
    free_at: Mutex<HashMap<IpAddr, Instant>>,
}

impl Shares {
    fn new(rate: Rate) -> Self {
        Self {
            rate,
            free_at: Mutex::default(),
        }
    }

    /// Takes one. Otherwise how long to wait for it.
    fn take(&self, network: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        if free_at.len() >= MOST && !free_at.contains_key(&network) {
            free_at.retain(|_, at| *at > now);
            if free_at.len() >= MOST {
                free_at.clear();
            }
        }
        let at = free_at.entry(network).or_insert(now);
        let next = (*at).max(now) + self.rate.every;
        let latest = now + self.rate.every * self.rate.burst;
        if next > latest {
            return Err(next - latest);
        }
        *at = next;
        Ok(())
    }
}

/// Connections as they come.
#[derive(Clone)]
pub(crate) struct Arrivals(Arc<Shares>);

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
        self.0.take(network, Instant::now()).is_ok()
    }
}

/// Requests, also many on one connection.
#[derive(Clone)]
pub(crate) struct Requests(Arc<Shares>);

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
    let Err(left) = requests.0.take(network(from), Instant::now()) else {
        return next.run(request).await;
    };
    let seconds = left.as_secs() + 1;
    let told = Told {
        status: StatusCode::TOO_MANY_REQUESTS,
        code: "delayed",
        text: format!("too many requests; try again in {}", wait(seconds)),
        retry_after_s: Some(seconds),
    };
    if request.uri().path().starts_with("/api/") {
        told.into_response()
    } else {
        told.into_page()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn a_network_has_its_share_and_takes_no_other_ones() {
        let shares = Shares::new(Rate {
            burst: 3,
            every: Duration::from_secs(2),
        });
        let (one, other) = (ip("198.51.100.7"), ip("198.51.100.8"));
        let now = Instant::now();
        for _ in 0..3 {
            shares.take(one, now).unwrap();
        }
        assert_eq!(shares.take(one, now), Err(Duration::from_secs(2)));
        shares.take(other, now).unwrap();
        // One comes back in each such time, and never more than the burst.
        let later = now + Duration::from_secs(2);
        shares.take(one, later).unwrap();
        assert!(shares.take(one, later).is_err());
        let much_later = now + Duration::from_secs(3600);
        for _ in 0..3 {
            shares.take(one, much_later).unwrap();
        }
        assert!(shares.take(one, much_later).is_err());
    }

    #[test]
    fn a_network_is_an_ipv4_address_or_an_ipv6_64() {
        assert_eq!(network(ip("2001:db8:1:2:3:4:5:6")), ip("2001:db8:1:2::"));
        assert_ne!(
            network(ip("2001:db8:1:3::1")),
            network(ip("2001:db8:1:2::1"))
        );
        assert_eq!(network(ip("::ffff:198.51.100.7")), ip("198.51.100.7"));
        assert_ne!(network(ip("198.51.100.8")), network(ip("198.51.100.7")));
    }

    #[tokio::test]
    async fn memory_for_networks_is_bounded() {
        let shares = Shares::new(CONNECTIONS);
        let now = Instant::now();
        for index in 0..u32::try_from(MOST).unwrap() + 10 {
            let _ = shares.take(IpAddr::V4(index.into()), now);
        }
        assert!(shares.free_at.lock().unwrap().len() <= MOST);
    }
}
