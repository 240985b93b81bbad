//! Figures about control and the gateways that it knows.

use std::time::{Duration, Instant};

use gateway_common::shield::ShieldReason;
use gateway_common::verdict::Reason;
use portcullis_metrics::{Histogram, Labels, Page, exponential_buckets};
use portcullis_proto::v1;

use crate::core::Core;
use crate::error::OperationError;

/// What is counted as it happens; everything else is read when it is asked for.
#[derive(Debug)]
pub(crate) struct Figures {
    /// From commit to a gateway's acknowledgement.
    revocation: Histogram,
}

impl Default for Figures {
    fn default() -> Self {
        // Half a millisecond to half a minute.
        Self {
            revocation: Histogram::new(exponential_buckets(0.0005, 2.0, 17)),
        }
    }
}

impl Figures {
    /// Notes how long a gateway took to acknowledge a revocation.
    pub(crate) fn revoked(&self, took: Duration) {
        self.revocation.observe(took.as_secs_f64());
    }
}

impl Core {
    /// Puts all figures on the page.
    pub(crate) async fn figures(
        &self,
        page: &mut Page,
        per_peer: bool,
    ) -> Result<(), OperationError> {
        let status = self.status().await?;
        let one = |value: f64| [(Labels::new(), value)];
        page.gauge("users", "Users", one(status.users.into()));
        page.gauge("devices", "Devices", one(status.devices.into()));
        page.gauge(
            "sessions_live",
            "Live sessions",
            one(status.live_sessions.into()),
        );
        page.gauge(
            "revision",
            "Revision of the desired state",
            one(status.revision as f64),
        );
        page.histogram(
            "revocation_seconds",
            "From the commit of a revocation to a gateway's acknowledgement",
            &self.figures.revocation,
        );
        if let Some(certificate) = &status.portal_certificate {
            let left_ms = certificate
                .not_after_ms
                .saturating_sub(self.now_ms())
                .max(0);
            page.gauge(
                "portal_certificate_left_seconds",
                "Time until the certificate at the portal's name ends; 0: the own CA's is shown",
                one(left_ms as f64 / 1000.0),
            );
            page.gauge(
                "portal_certificate_failures",
                "Attempts on end to get a certificate by ACME that failed",
                one(certificate.failures.into()),
            );
        }
        gateways(page, &status.gateways);
        if per_peer {
            self.peers(page).await?;
        }
        Ok(())
    }

    async fn peers(&self, page: &mut Page) -> Result<(), OperationError> {
        let peers = self.top().await?.peers;
        let labels = |peer: &v1::TopPeer| -> Labels {
            vec![
                ("device", peer.device.clone()),
                ("user", peer.user.clone()),
                ("location", peer.location.clone()),
            ]
        };
        let received = peers.iter().map(|peer| (labels(peer), peer.rx_bytes));
        page.counter(
            "peer_received_bytes",
            "Bytes from the peer, as WireGuard counts them",
            received,
        );
        let sent = peers.iter().map(|peer| (labels(peer), peer.tx_bytes));
        page.counter(
            "peer_sent_bytes",
            "Bytes to the peer, as WireGuard counts them",
            sent,
        );
        let now_ms = self.now_ms();
        let left = peers.iter().filter_map(|peer| {
            let deadline_ms = peer.session.as_ref()?.deadline_ms;
            Some((
                labels(peer),
                deadline_ms.saturating_sub(now_ms).max(0) as f64 / 1000.0,
            ))
        });
        page.gauge(
            "peer_session_left_seconds",
            "Time until the session's deadline",
            left,
        );
        let drops = peers.iter().flat_map(|peer| {
            peer.drops.iter().map(|drops| {
                let mut labels = labels(peer);
                labels.push(("reason", reason_name(drops.reason)));
                (labels, drops.packets)
            })
        });
        page.counter(
            "peer_dropped_packets",
            "Packets of the peer that its session or a rule did not permit",
            drops,
        );
        Ok(())
    }
}

fn gateways(page: &mut Page, gateways: &[v1::Gateway]) {
    let labels = |gateway: &v1::Gateway| -> Labels {
        vec![
            ("gateway", gateway.name.clone()),
            ("location", gateway.location.clone()),
        ]
    };
    let flag = |pick: fn(&v1::Gateway) -> bool| {
        gateways
            .iter()
            .map(move |gateway| (labels(gateway), f64::from(u8::from(pick(gateway)))))
    };
    page.gauge(
        "gateway_connected",
        "Whether the gateway's stream is open to this process",
        flag(|gateway| gateway.connected),
    );
    page.gauge(
        "gateway_in_sync",
        "Whether the gateway has applied the newest revision, its kernel read back as expected",
        flag(|gateway| gateway.in_sync),
    );
    page.gauge(
        "gateway_applied_revision",
        "Newest revision that the gateway has acknowledged",
        gateways
            .iter()
            .map(|gateway| (labels(gateway), gateway.applied_revision as f64)),
    );
    let packets = gateways.iter().flat_map(|gateway| {
        gateway.reasons.iter().map(|count| {
            let mut labels = labels(gateway);
            labels.push(("direction", direction_name(count.direction).to_owned()));
            labels.push(("reason", counted_name(count)));
            (labels, count.packets)
        })
    });
    page.counter(
        "gateway_packets",
        "Packets by gateway, direction and reason, as last reported",
        packets,
    );
}

fn reason_name(number: u32) -> String {
    let reason = u8::try_from(number).ok().and_then(Reason::from_number);
    reason.map_or_else(|| number.to_string(), |reason| reason.name().to_owned())
}

/// The shield's reasons are numbered apart.
fn counted_name(count: &v1::ReasonCount) -> String {
    if count.direction <= 1 {
        return reason_name(count.reason);
    }
    let reason = u8::try_from(count.reason)
        .ok()
        .and_then(ShieldReason::from_number);
    reason.map_or_else(
        || count.reason.to_string(),
        |reason| reason.name().to_owned(),
    )
}

fn direction_name(number: u32) -> &'static str {
    match number {
        0 => "from_peer",
        1 => "to_peer",
        _ => "shield",
    }
}

/// How long a scrape took, for the page itself.
pub(crate) fn took(page: &mut Page, since: Instant) {
    let seconds = since.elapsed().as_secs_f64();
    page.gauge(
        "control_scrape_seconds",
        "What reading control's figures took",
        [(Labels::new(), seconds)],
    );
}
