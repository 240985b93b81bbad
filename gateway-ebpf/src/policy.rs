//! The compiled rules: two sets of maps, one for each parity of the settings' epoch.
//!
//! Each outer map holds the inner maps of both sets. Userspace fills new inner maps before it puts them
//! there, so that a set is never seen half written, and takes the room that its policy needs.

use core::ptr;

use aya_ebpf::{
    helpers::generated::{bpf_loop, bpf_map_lookup_elem},
    macros::map,
    maps::{Array, lpm_trie::Key},
};
use gateway_common::{
    abi::{
        self, AddressV4, AddressV6, Check as _, EffectivePolicy, FlowKey, GrantKey, IntervalList,
        NO_REGION, Outcome, PolicyPrefix, PortInterval, Region, RuleOutcome, port_key,
    },
    decide::Query,
    policy::{PolicyTables, Step},
};

use crate::maps;

// Declared as plain arrays, because aya knows maps of maps only from BTF, and what the linker writes of
// Rust's enums the kernel does not accept as BTF. The agent makes them, as what they are, and loads the
// object over them; what a look-up returns is then an inner map. (An object that was loaded without
// would be refused: what a look-up in an array returns is no map.)
#[map]
static POLICY_V4: Outer = Outer::with_max_entries(abi::POLICY_SETS, 0);
#[map]
static POLICY_V6: Outer = Outer::with_max_entries(abi::POLICY_SETS, 0);
#[map]
static POLICY_REGIONS: Outer = Outer::with_max_entries(abi::POLICY_SETS, 0);
#[map]
static POLICY_GRANTS: Outer = Outer::with_max_entries(abi::POLICY_SETS, 0);
#[map]
static POLICY_INTERVALS: Outer = Outer::with_max_entries(abi::POLICY_SETS, 0);
#[map]
static POLICY_OUTCOMES: Outer = Outer::with_max_entries(abi::POLICY_SETS, 0);
#[map]
static POLICY_CLASSES: Outer = Outer::with_max_entries(abi::POLICY_SETS, 0);

/// By parity, inner maps.
type Outer = Array<u32>;

/// Looks up a key in the inner map of this parity, whose values are `V`.
#[inline(always)]
fn look_up<'a, K, V>(outer: &Outer, parity: u32, key: &K) -> Option<&'a V> {
    let inner = outer.get_ptr(parity)?;
    // SAFETY: the outer map's elements are maps with keys and values of these types (the agent checks
    // their shape), and the kernel returns a value of that size. Nothing is written to or deleted from
    // an inner map that programs may read.
    unsafe {
        bpf_map_lookup_elem(inner.cast_mut().cast(), ptr::from_ref(key).cast())
            .cast::<V>()
            .as_ref()
    }
}

/// The set of this parity. What is in it does not change while any program may read it.
#[derive(Clone, Copy)]
pub(crate) struct Set(u32);

impl PolicyTables for Set {
    #[inline(always)]
    fn class(&self, number: u32) -> Option<&EffectivePolicy> {
        look_up(&POLICY_CLASSES, self.0, &number)
    }

    #[inline(always)]
    fn region(&self, number: u32) -> Option<&Region> {
        look_up(&POLICY_REGIONS, self.0, &number)
    }

    #[inline(always)]
    fn grant(&self, key: &GrantKey) -> Option<IntervalList> {
        look_up(&POLICY_GRANTS, self.0, key).copied()
    }

    #[inline(always)]
    fn interval(&self, number: u32) -> Option<&PortInterval> {
        look_up(&POLICY_INTERVALS, self.0, &number)
    }

    #[inline(always)]
    fn outcome(&self, number: u32) -> Option<&Outcome> {
        look_up(&POLICY_OUTCOMES, self.0, &number)
    }

    #[inline(always)]
    fn repeat<S: Step>(times: u32, state: &mut S) {
        // The helper takes pointers into the stack only, and the state lies elsewhere.
        let mut state: *mut S = state;
        // SAFETY: the helper (Linux 5.17) calls the function with the pointer, and is done when it
        // returns.
        unsafe {
            bpf_loop(times, turn::<S> as *mut _, (&raw mut state).cast(), 0);
        }
    }
}

/// One turn of `bpf_loop`: 0 asks for another.
extern "C" fn turn<S: Step>(_: u32, state: *mut *mut S) -> i64 {
    // SAFETY: `repeat` passes a pointer to a state that nothing else uses meanwhile.
    if unsafe { (**state).step() } { 0 } else { 1 }
}

/// Outcomes that each CPU remembers, per address family; a power of two.
pub(crate) const RULINGS: u32 = 1024;

/// What the rules said about one kind of flow: many flows of many peers go to the same few places, and
/// a look-up in large tables costs several times what all else does that is done for a flow's first
/// packet. Tables do not change within an epoch, so neither does what was found in them.
#[repr(C)]
pub(crate) struct Ruling<A> {
    outcome: Outcome,
    epoch: u32,
    /// 0 for an entry that was never written.
    filled: u32,
    /// A flow's key, with the class in the peer's place, the direction in its port's.
    key: FlowKey<A>,
}

macro_rules! rules {
    ($rule:ident, $address:ty, $class:expr, $bits:literal, $prefix:ident, $rulings:ident, $prefixes:ident) => {
        /// What the rules say about a flow of a peer.
        #[inline(always)]
        pub(crate) fn $rule(query: &Query<$address>) -> RuleOutcome {
            let class: fn(u32) -> $address = $class;
            let key = FlowKey::<$address> {
                peer: class(query.class),
                remote: query.remote,
                peer_port: query.direction as u16,
                remote_port: query.port,
                protocol: query.protocol,
                remote_asks: 0,
                pad: 0,
            };
            // The upper bits of a digest by multiplication are the well-mixed ones.
            let place = (key.check() >> (64 - RULINGS.trailing_zeros())) as u32;
            let Some(ruling) = maps::$rulings(place) else {
                return RuleOutcome::NoRule;
            };
            // SAFETY: a valid value, this CPU's own; programs do not interrupt each other.
            let ruling = unsafe { &mut *ruling };
            if ruling.filled != 0 && ruling.epoch == query.epoch && ruling.key.same(&key) {
                return ruling.outcome.into();
            }
            let Some(scratch) = maps::scratch() else {
                return RuleOutcome::NoRule;
            };
            let address = PolicyPrefix {
                direction: query.direction as u32,
                address: query.remote,
            };
            scratch.$prefix = Key::new($bits, address);
            let parity = query.epoch & 1;
            let region = look_up::<_, u32>(&$prefixes, parity, &scratch.$prefix).copied();
            let outcome = outcome(query, region.unwrap_or(NO_REGION));
            ruling.outcome = outcome;
            ruling.epoch = query.epoch;
            ruling.filled = 1;
            ruling.key = key;
            outcome.into()
        }
    };
}

rules!(
    rule_v4, AddressV4, AddressV4, 64, prefix_v4, rulings_v4, POLICY_V4
);
rules!(
    rule_v6,
    AddressV6,
    |class| AddressV6([class, 0, 0, 0]),
    160,
    prefix_v6,
    rulings_v6,
    POLICY_V6
);

#[inline(always)]
fn outcome<A>(query: &Query<A>, region: u32) -> Outcome {
    climb(
        query.epoch & 1,
        query.class,
        region,
        port_key(query.protocol, query.port),
    );
    maps::scratch().map_or(Outcome::default(), |scratch| scratch.climb.outcome())
}

/// Leaves the outcome in the scratch. Once in each program, however often it is called.
#[inline(never)]
extern "C" fn climb(parity: u32, class: u32, region: u32, key: u32) {
    if let Some(scratch) = maps::scratch() {
        scratch.climb.find(Set(parity), class, region, key);
    }
}
