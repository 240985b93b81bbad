//! What the programs tell about single packets: read from their ring buffer, logged, and sent to
//! control while it wants a trace. It is rate-limited in the kernel; the counters are what counts.
//!
//! An event names peer and rule by number, and is read up to a quarter of a second later, when the
//! numbers may be others': each is told with its name where that is certain, and else without.
//!
//! The log explains a drop: which peer, why, and by which deadline (invariant 9). Identities are
//! logged at debug and below only.

mod event;

use std::collections::HashSet;
use std::time::{SystemTime, UNIX_EPOCH};

use aya::maps::{MapData, RingBuf};
use portcullis_proto::v1;

use crate::datapath::{self, Datapath, DatapathError};
use crate::engine::Engine;
use crate::keys::PublicKey;
use event::Seen;

/// Events that wait to be sent; what comes on top is lost, and counted.
const WAITING: usize = 8192;
/// Events in one message.
const MOST: usize = 1024;

/// The ring buffer's reading end, and what control wants of it.
pub(crate) struct Trace {
    events: Option<RingBuf<MapData>>,
    wanted: Option<Wanted>,
}

/// A trace that is on.
struct Wanted {
    /// Empty for all.
    peers: HashSet<PublicKey>,
    waiting: Vec<Seen>,
    /// What the kernel had lost before.
    lost_before: u64,
    /// Lost here since.
    lost_here: u64,
    /// What control has been told.
    told: u64,
}

impl Trace {
    pub(crate) fn new(events: Option<RingBuf<MapData>>) -> Self {
        Self {
            events,
            wanted: None,
        }
    }

    /// Does what control wants.
    pub(crate) fn set(
        &mut self,
        engine: &mut Engine,
        wanted: v1::SetTrace,
    ) -> Result<(), DatapathError> {
        if !wanted.on {
            return self.stop(engine);
        }
        let keys = wanted.peers.iter();
        let peers = keys
            .filter_map(|key| PublicKey::try_from(key.as_slice()).ok())
            .collect();
        match &mut self.wanted {
            Some(going_on) => going_on.peers = peers,
            None => {
                // What is in the buffer already is older than the trace.
                self.read(engine.datapath());
                self.wanted = Some(Wanted {
                    peers,
                    waiting: Vec::new(),
                    lost_before: engine.datapath().lost_events()?,
                    lost_here: 0,
                    told: 0,
                });
            }
        }
        engine.datapath_mut().set_trace(true)
    }

    /// Ends the trace: nobody listens.
    pub(crate) fn stop(&mut self, engine: &mut Engine) -> Result<(), DatapathError> {
        self.wanted = None;
        engine.datapath_mut().set_trace(false)
    }

    /// Takes what has come since from the buffer. Never waits.
    pub(crate) fn read(&mut self, datapath: &Datapath) {
        let Some(events) = &mut self.events else {
            return;
        };
        let heard = tracing::enabled!(tracing::Level::DEBUG);
        while let Some(item) = events.next() {
            if !heard && self.wanted.is_none() {
                continue;
            }
            let Some(seen) = Seen::parse(&item) else {
                continue;
            };
            if heard {
                log(&seen, datapath);
            }
            let Some(wanted) = &mut self.wanted else {
                continue;
            };
            if wanted.waiting.len() < WAITING {
                wanted.waiting.push(seen);
            } else {
                wanted.lost_here += 1;
            }
        }
    }

    /// Messages for control, of what was read.
    pub(crate) fn messages(
        &mut self,
        engine: &Engine,
    ) -> Result<Vec<v1::TraceEvents>, DatapathError> {
        let Some(wanted) = &mut self.wanted else {
            return Ok(Vec::new());
        };
        let lost = engine
            .datapath()
            .lost_events()?
            .saturating_sub(wanted.lost_before)
            + wanted.lost_here;
        let clocks = Clocks::now();
        let events: Vec<_> = std::mem::take(&mut wanted.waiting)
            .iter()
            .filter_map(|seen| {
                let key = engine.datapath().key_at(seen.peer, seen.time);
                let key = key.and_then(|key| PublicKey::try_from(*key).ok());
                let is_wanted =
                    wanted.peers.is_empty() || key.is_some_and(|key| wanted.peers.contains(&key));
                is_wanted.then(|| {
                    let rule = engine.rule_name_at(seen.rule, seen.time);
                    seen.event(key, rule, clocks.unix_ms(seen.time))
                })
            })
            .collect();
        let mut messages: Vec<_> = events
            .chunks(MOST)
            .map(|events| v1::TraceEvents {
                events: events.to_vec(),
                lost,
            })
            .collect();
        if messages.is_empty() && lost != wanted.told {
            messages.push(v1::TraceEvents {
                events: Vec::new(),
                lost,
            });
        }
        wanted.told = lost;
        Ok(messages)
    }

    /// Messages that the stream had no room for.
    pub(crate) fn lost(&mut self, events: usize) {
        if let Some(wanted) = &mut self.wanted {
            wanted.lost_here += events as u64;
        }
    }
}

fn log(seen: &Seen, datapath: &Datapath) {
    let peer = datapath
        .peer_at(seen.peer, seen.time)
        .and_then(|(key, state)| Some((PublicKey::try_from(key).ok()?, state)));
    match peer {
        Some((key, state)) => tracing::debug!(peer = %key, "{seen}{}", seen.because(&state)),
        None => tracing::debug!("{seen}"),
    }
}

/// The maps' clock and the wall clock at one moment.
struct Clocks {
    map: u64,
    unix_ms: i64,
}

impl Clocks {
    fn now() -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            map: datapath::now(),
            unix_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        }
    }

    fn unix_ms(&self, map: u64) -> i64 {
        let ago = self.map.saturating_sub(map) / 1_000_000;
        self.unix_ms
            .saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
    }
}
