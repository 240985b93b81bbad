//! Traffic and drops of each peer as gateways report them, in memory: what `top` shows.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portcullis_proto::v1::{PeerDrops, PeerReport};

use crate::domain::DeviceKey;

/// Gateways report every five seconds what has changed: a peer that is not in the reports for
/// longer has no traffic.
const SILENT: Duration = Duration::from_secs(12);
/// Shorter intervals make rates of chance.
const SHORTEST: Duration = Duration::from_millis(900);

/// What the gateway that has reported last said of a peer.
#[derive(Clone, Debug)]
pub(crate) struct Traffic {
    pub(crate) gateway: String,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_bytes: u64,
    rx_rate: u64,
    tx_rate: u64,
    at: Instant,
    pub(crate) drops: Vec<PeerDrops>,
}

impl Traffic {
    /// Bytes a second from and to the peer.
    pub(crate) fn rates(&self, now: Instant) -> (u64, u64) {
        if now.saturating_duration_since(self.at) > SILENT {
            (0, 0)
        } else {
            (self.rx_rate, self.tx_rate)
        }
    }
}

/// Every peer's traffic.
#[derive(Debug, Default)]
pub(crate) struct TrafficTable(Mutex<HashMap<DeviceKey, Traffic>>);

impl TrafficTable {
    /// Takes in what a gateway reports of a peer.
    pub(crate) fn saw(&self, gateway: &str, key: DeviceKey, report: &PeerReport, now: Instant) {
        let mut table = self.lock();
        let before = table.get(&key).filter(|before| before.gateway == gateway);
        let (mut rx_rate, mut tx_rate, mut at) = (0, 0, now);
        if let Some(before) = before {
            let elapsed = now.saturating_duration_since(before.at);
            if elapsed < SHORTEST {
                (rx_rate, tx_rate, at) = (before.rx_rate, before.tx_rate, before.at);
            } else {
                // Silence since the report before last is not part of this traffic's time.
                let seconds = elapsed.min(SILENT).as_secs_f64();
                let rate = |new: u64, old: u64| (new.saturating_sub(old) as f64 / seconds) as u64;
                rx_rate = rate(report.rx_bytes, before.rx_bytes);
                tx_rate = rate(report.tx_bytes, before.tx_bytes);
            }
        }
        let traffic = Traffic {
            gateway: gateway.to_owned(),
            rx_bytes: report.rx_bytes,
            tx_bytes: report.tx_bytes,
            rx_rate,
            tx_rate,
            at,
            drops: report.drops.clone(),
        };
        table.insert(key, traffic);
    }

    pub(crate) fn get(&self, key: DeviceKey) -> Option<Traffic> {
        self.lock().get(&key).cloned()
    }

    /// Forgets every peer but these.
    pub(crate) fn keep(&self, wanted: impl Fn(&DeviceKey) -> bool) {
        self.lock().retain(|key, _| wanted(key));
    }

    /// The table is valid after every single step, also of a thread that panicked.
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceKey, Traffic>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_come_from_two_reports_of_one_gateway_and_end_with_them() {
        let table = TrafficTable::default();
        let key = DeviceKey::parse(&[1; 32]).unwrap();
        let report = |rx_bytes| PeerReport {
            rx_bytes,
            ..PeerReport::default()
        };
        let start = Instant::now();
        let rates = |after: u64| {
            let now = start + Duration::from_secs(after);
            table.get(key).unwrap().rates(now)
        };
        table.saw("gw1", key, &report(1000), start);
        assert_eq!(rates(0), (0, 0));
        table.saw("gw1", key, &report(6000), start + Duration::from_secs(5));
        assert_eq!(rates(6), (1000, 0));
        assert_eq!(rates(60), (0, 0), "silent since");
        table.saw("gw2", key, &report(9), start + Duration::from_secs(61));
        assert_eq!(rates(61), (0, 0), "another gateway counts anew");
    }
}
