//! The shield's figures for Prometheus.

use gateway_common::shield::ShieldReason;
use portcullis_metrics::{Labels, Page};

use crate::datapath::{self, Shield};

/// The shield at one moment.
#[derive(Debug)]
pub(crate) struct ShieldFigures {
    learning: bool,
    live: usize,
    room: usize,
    counters: Vec<(ShieldReason, u64)>,
}

impl ShieldFigures {
    pub(super) fn read(shield: &Shield) -> Self {
        Self {
            learning: shield.learning_until() > datapath::now(),
            live: shield.live(),
            room: shield.room(),
            counters: shield.counters().unwrap_or_default(),
        }
    }

    pub(crate) fn put(self, page: &mut Page) {
        let one = |value: f64| [(Labels::new(), value)];
        page.gauge(
            "shield_learning",
            "Whether unknown indexes pass for now",
            one(f64::from(u8::from(self.learning))),
        );
        page.gauge(
            "shield_indexes",
            "Live WireGuard indexes that the shield knows",
            one(self.live as f64),
        );
        page.gauge(
            "shield_indexes_max",
            "Indexes that it has room for",
            one(self.room as f64),
        );
        let messages = self.counters.into_iter().map(|(reason, count)| {
            let labels: Labels = vec![("reason", reason.name().to_owned())];
            (labels, count)
        });
        page.counter(
            "shield_messages",
            "Messages for WireGuard by what the shield did",
            messages,
        );
    }
}
