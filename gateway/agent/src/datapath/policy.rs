//! The compiled rules in the kernel: two sets of tables, of which one holds.
//!
//! A new policy is loaded into maps that no program can see, which then become the set of the other
//! parity; each peer gets its number in that set; and one store moves the epoch on, and with it the
//! parity. So every packet is judged by one policy, whole. Killed before that store, this process has
//! changed nothing that counts, and the next one begins anew with the same set. Killed after it, it
//! leaves tables behind that the next change of policy replaces.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    thread,
};

use aya::{Pod, maps::MapInfo};
use gateway_common::{
    abi::{AddressV4, AddressV6, Direction, LpmKey, PolicyPrefix, Settings, names},
    policy::{Family, PrefixEntry, Tables},
};

use super::{Datapath, DatapathError, PublicKey, open_pin, pins::Pins, specs::SPECS, sys};

/// The outer maps, in the order in which [`inner_maps`] fills inner ones.
const OUTER: [&str; 7] = [
    names::POLICY_V4,
    names::POLICY_V6,
    names::POLICY_REGIONS,
    names::POLICY_GRANTS,
    names::POLICY_INTERVALS,
    names::POLICY_OUTCOMES,
    names::POLICY_CLASSES,
];

/// The maps of maps.
#[derive(Debug)]
pub(super) struct Sets([OwnedFd; OUTER.len()]);

impl Sets {
    pub(super) fn open(pins: &Pins) -> Result<Self, DatapathError> {
        let [a, b, c, d, e, f, g] = OUTER.map(|name| open_pin(pins, name));
        Ok(Self([a?, b?, c?, d?, e?, f?, g?]))
    }

    /// Makes these maps the set of this parity, or leaves it empty.
    ///
    /// Each update waits until no program uses what was there before; they wait together.
    fn put(&self, parity: u32, maps: Option<&[OwnedFd; OUTER.len()]>) -> Result<(), DatapathError> {
        let put = |place: usize| {
            let outer = self.0[place].as_fd();
            match maps {
                Some(maps) => sys::update(outer, &parity, &sys::number(maps[place].as_fd())),
                None => sys::delete(outer, &parity).map(drop),
            }
            .map_err(|source| error("update", OUTER[place], source))
        };
        thread::scope(|scope| {
            let running: Vec<_> = (0..OUTER.len())
                .map(|place| scope.spawn(move || put(place)))
                .collect();
            running
                .into_iter()
                .try_for_each(|thread| match thread.join() {
                    Ok(result) => result,
                    Err(panic) => std::panic::resume_unwind(panic),
                })
        })
    }
}

impl Datapath {
    /// What the kernel's tables of the policy that holds take, in bytes; 0 without one.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn policy_bytes(&self) -> Result<u64, DatapathError> {
        let settings = self.settings()?;
        if settings.flags & Settings::POLICY == 0 {
            return Ok(0);
        }
        let parity = settings.parity();
        let mut bytes = 0;
        for (place, map) in OUTER.into_iter().enumerate() {
            let id = sys::lookup::<u32, u32>(self.sets.0[place].as_fd(), &parity)
                .map_err(|source| error("look-up", map, source))?;
            if let Some(id) = id {
                bytes += memory_of(id).map_err(|source| error("measure", map, source))?;
            }
        }
        Ok(bytes)
    }

    /// Id of the policy that holds; 0 for none.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn policy_id(&self) -> Result<u64, DatapathError> {
        Ok(self.settings()?.policy_id())
    }

    /// Id of the policy that packets were judged by at that time, 0 for none; `None` where that is not
    /// certain, as before the last switch.
    pub fn policy_at(&self, time: u64) -> Option<u64> {
        let (id, since) = self.judged?;
        (since < time).then_some(id)
    }

    /// Makes this policy hold, in place of the one that does, from one packet to the next; `None` for
    /// none, which is [`gateway_common::decide::gate`]. `id` is never 0. `class` says which effective
    /// policy of it is a peer's.
    ///
    /// # Errors
    ///
    /// When the kernel refuses; then the policy that held before does still.
    pub fn switch_policy(
        &mut self,
        policy: Option<(u64, &Tables)>,
        class: impl Fn(&PublicKey) -> u32,
    ) -> Result<(), DatapathError> {
        let old = self.settings()?.parity();
        let new = old ^ 1;
        // What is in the other set is no policy until it is whole.
        self.change_settings(|settings| settings.policies[new as usize] = 0)?;
        for (key, slot) in self.slots.iter() {
            self.states.set_class(slot.index, new, class(key));
        }
        match policy {
            Some((_, tables)) => {
                let maps = inner_maps(tables)?;
                self.sets.put(new, Some(&maps))?;
            }
            None => sys::grace_period(),
        }
        let id = policy.map_or(0, |(id, _)| id);
        self.judged = None;
        self.change_settings(|settings| {
            settings.policies[new as usize] = id;
            settings.epoch = settings.epoch.wrapping_add(1);
            settings.flags = if policy.is_some() {
                settings.flags | Settings::POLICY
            } else {
                settings.flags & !Settings::POLICY
            };
        })?;
        // Until the last program that began with the old epoch has ended.
        sys::grace_period();
        self.judged = Some((id, super::now()));
        self.change_settings(|settings| settings.policies[old as usize] = 0)?;
        self.sets.put(old, None)
    }

    /// Gives the peer another effective policy of the policy that holds; its flows obey from the next
    /// packet on. A session that is to become narrower has to be narrowed before, and one that is to
    /// become wider, or to be granted, comes after: [`Datapath::set_session`] waits for this.
    ///
    /// # Errors
    ///
    /// When there is no such peer.
    pub fn set_class(&mut self, key: &PublicKey, class: u32) -> Result<(), DatapathError> {
        let index = self.slots.get(key).ok_or(DatapathError::UnknownPeer)?.index;
        let parity = self.settings()?.parity();
        let before = self.states.class(index, parity);
        if before != class {
            self.order.before_class();
            self.states.set_class(index, parity, class);
            self.states.renew(index);
            self.order.class_written(before);
        }
        Ok(())
    }
}

/// New maps with these tables in them, in the order of [`OUTER`].
fn inner_maps(tables: &Tables) -> Result<[OwnedFd; OUTER.len()], DatapathError> {
    let (v4, v4_regions) = prefixes(tables, Family::V4, |bytes| {
        let [a, b, c, d, ..] = *bytes;
        AddressV4(u32::from_ne_bytes([a, b, c, d]))
    });
    let (v6, v6_regions) = prefixes(tables, Family::V6, |bytes| {
        std::net::Ipv6Addr::from(*bytes).into()
    });
    let (grants, lists): (Vec<_>, Vec<_>) = tables
        .grants
        .iter()
        .map(|(key, list)| (*key, *list))
        .unzip();
    Ok([
        filled::<LpmKey<PolicyPrefix<AddressV4>>, u32>(names::POLICY_V4, &v4, &v4_regions)?,
        filled::<LpmKey<PolicyPrefix<AddressV6>>, u32>(names::POLICY_V6, &v6, &v6_regions)?,
        numbered(names::POLICY_REGIONS, &tables.regions)?,
        filled(names::POLICY_GRANTS, &grants, &lists)?,
        numbered(names::POLICY_INTERVALS, &tables.intervals)?,
        numbered(names::POLICY_OUTCOMES, &tables.outcomes)?,
        numbered(names::POLICY_CLASSES, &tables.policies)?,
    ])
}

/// What the map of this id takes, as the kernel reckons it.
fn memory_of(id: u32) -> io::Result<u64> {
    let fd = MapInfo::from_id(id)
        .and_then(|info| info.fd())
        .map_err(io::Error::other)?;
    let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let text = fs::read_to_string(path)?;
    let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    bytes
        .and_then(|bytes| bytes.trim().parse().ok())
        .ok_or_else(|| io::Error::other("no size among the descriptor's details"))
}

type Prefixes<A> = (Vec<LpmKey<PolicyPrefix<A>>>, Vec<u32>);

fn prefixes<A>(tables: &Tables, family: Family, address: impl Fn(&[u8; 16]) -> A) -> Prefixes<A> {
    let of = |direction: Direction| {
        tables
            .prefixes(direction, family)
            .iter()
            .map(move |entry| (direction, entry))
    };
    Direction::ALL
        .into_iter()
        .flat_map(of)
        .map(
            |(
                direction,
                PrefixEntry {
                    length,
                    address: bytes,
                    region,
                },
            )| {
                let address = PolicyPrefix {
                    direction: direction as u32,
                    address: address(bytes),
                };
                (
                    LpmKey {
                        prefix_length: PolicyPrefix::<A>::DIRECTION_BITS + length,
                        address,
                    },
                    *region,
                )
            },
        )
        .unzip()
}

/// An array of these, from number 0 on.
fn numbered<V: Pod>(name: &'static str, values: &[V]) -> Result<OwnedFd, DatapathError> {
    let keys: Vec<u32> = (0..).take(values.len()).collect();
    filled(name, &keys, values)
}

fn filled<K: Pod, V: Pod>(
    name: &'static str,
    keys: &[K],
    values: &[V],
) -> Result<OwnedFd, DatapathError> {
    let spec = SPECS.iter().find(|spec| spec.name == name);
    let mut shape = spec
        .and_then(|spec| spec.inner)
        .ok_or(DatapathError::Object(name))?;
    shape.entries = u32::try_from(keys.len()).unwrap_or(u32::MAX).max(1);
    let map = sys::create_map(name, shape, None)
        .map_err(|source| error("BPF_MAP_CREATE", name, source))?;
    sys::update_batch(map.as_fd(), keys, values)
        .map_err(|source| error("batch update", name, source))?;
    Ok(map)
}

fn error(call: &'static str, name: &str, source: io::Error) -> DatapathError {
    DatapathError::System {
        call,
        target: format!("map {name}"),
        source,
    }
}
