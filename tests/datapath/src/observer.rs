//! Hears of each packet that opens a flow or is dropped, and by which rule.

use std::mem::offset_of;

use anyhow::{Context as _, ensure};
use aya::maps::{Map, MapData, MapInfo, PerCpuArray, PerCpuValues, RingBuf};
use gateway_common::{
    abi::{Direction, Event, EventBudget, NO_RULE, names},
    verdict::{Reason, Verdict},
};
use portcullis_agent::datapath::Datapath;

use crate::kernel::{self, DROP, Kernel, PASS};

/// Packets after which the programs' budget of events is given back to them.
const TOGETHER: u32 = 200;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Why.
    pub reason: Reason,
    /// Number of the rule that decided.
    pub rule: Option<u32>,
}

/// The events of a datapath.
pub struct Observer {
    ring: RingBuf<MapData>,
    budget: PerCpuArray<MapData, EventBudget>,
    since: u32,
}

impl Observer {
    /// Takes the events.
    ///
    /// # Errors
    ///
    /// When they are taken already, or the kernel refuses.
    pub fn new(datapath: &mut Datapath) -> anyhow::Result<Self> {
        datapath.set_trace(true)?;
        let program = kernel::program(datapath.object(), Direction::FromPeer)?.info()?;
        let ids = program.map_ids()?.context("the kernel names no maps")?;
        let mut found = None;
        for id in ids {
            if MapInfo::from_id(id)?.name_as_str() == Some(names::EVENT_BUDGET) {
                found = Some(MapData::from_id(id)?);
            }
        }
        let budget = found.context("the programs have no budget")?;
        Ok(Self {
            ring: datapath.take_events().context("the events are taken")?,
            budget: Map::PerCpuArray(budget).try_into()?,
            since: TOGETHER,
        })
    }

    /// Runs a program once. `None` where the packet passed without a word, as those of known flows do.
    ///
    /// # Errors
    ///
    /// When the event and what the program returned contradict each other.
    pub fn run(
        &mut self,
        gate: &mut Kernel,
        direction: Direction,
        packet: &[u8],
    ) -> anyhow::Result<Option<Observed>> {
        if self.since == TOGETHER {
            let cpus = aya::util::nr_cpus().map_err(|(_, error)| error)?;
            let none = PerCpuValues::try_from(vec![EventBudget::default(); cpus])?;
            self.budget.set(0, none, 0)?;
            self.since = 0;
        }
        self.since += 1;
        let action = gate.action(direction, packet)?;
        let Some(event) = self.ring.next() else {
            ensure!(action == PASS, "a packet was dropped without a word");
            return Ok(None);
        };
        ensure!(event.len() == size_of::<Event>());
        let at = offset_of!(Event, rule);
        let rule = u32::from_ne_bytes(event[at..at + 4].try_into()?);
        let reason = Reason::from_number(event[offset_of!(Event, reason)])
            .context("no reason of this number")?;
        ensure!(
            event[offset_of!(Event, direction)] == direction as u8,
            "the event is of the other direction"
        );
        drop(event);
        ensure!(self.ring.next().is_none(), "one packet, two events");
        let wanted = match reason.verdict() {
            Verdict::Pass => PASS,
            Verdict::Drop => DROP,
        };
        ensure!(action == wanted, "{reason} must not end in {action}");
        Ok(Some(Observed {
            reason,
            rule: (rule != NO_RULE).then_some(rule),
        }))
    }
}
