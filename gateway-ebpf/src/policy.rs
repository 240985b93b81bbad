//! The compiled rules: two sets of maps, one for each parity of the settings' epoch.
//!
//! Each outer map holds the inner maps of both sets. Userspace fills new inner maps before it puts them
//! there, so that a set is never seen half written, and takes the room that its policy needs.

use core::ptr;

use aya_ebpf::{
    helpers::generated::{bpf_jiffies64, bpf_loop, bpf_map_lookup_elem},
    macros::map,
    maps::{Array, lpm_trie::Key},
};
use gateway_common::{
    abi::{
        self, AddressV4, AddressV6, EffectivePolicy, GrantKey, IntervalList, NO_REGION, Outcome,
        PolicyPrefix, PortInterval, Region, RuleOutcome, port_key,
    },
    decide::Query,
    policy::{PolicyTables, Step, find},
};

use crate::{clock, maps};

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
    fn nothing() -> u32 {
        // SAFETY: a helper without arguments (Linux 5.5).
        clock::nothing(unsafe { bpf_jiffies64() })
    }

    #[inline(always)]
    fn repeat<S: Step>(times: u32, state: &mut S) {
        // SAFETY: the helper (Linux 5.17) calls the function with the state, and is done when it
        // returns.
        unsafe {
            bpf_loop(times, turn::<S> as *mut _, (&raw mut *state).cast(), 0);
        }
    }
}

/// One turn of `bpf_loop`: 0 asks for another.
extern "C" fn turn<S: Step>(_: u32, state: *mut S) -> i64 {
    // SAFETY: `repeat` passes a state that nothing else uses meanwhile.
    if unsafe { (*state).step() } { 0 } else { 1 }
}

/// What the rules say about a flow of a peer's IPv4 address.
#[inline(always)]
pub(crate) fn rule_v4(query: &Query<AddressV4>) -> RuleOutcome {
    let Some(scratch) = maps::scratch() else {
        return RuleOutcome::NoRule;
    };
    let address = PolicyPrefix {
        direction: query.direction as u32,
        address: query.remote,
    };
    scratch.prefix_v4 = Key::new(64, address);
    let region = look_up::<_, u32>(&POLICY_V4, query.parity, &scratch.prefix_v4).copied();
    rule(query, region.unwrap_or(NO_REGION))
}

/// What the rules say about a flow of a peer's IPv6 address.
#[inline(always)]
pub(crate) fn rule_v6(query: &Query<AddressV6>) -> RuleOutcome {
    let Some(scratch) = maps::scratch() else {
        return RuleOutcome::NoRule;
    };
    let address = PolicyPrefix {
        direction: query.direction as u32,
        address: query.remote,
    };
    scratch.prefix_v6 = Key::new(160, address);
    let region = look_up::<_, u32>(&POLICY_V6, query.parity, &scratch.prefix_v6).copied();
    rule(query, region.unwrap_or(NO_REGION))
}

#[inline(always)]
fn rule<A>(query: &Query<A>, region: u32) -> RuleOutcome {
    climb(
        query.parity,
        query.class,
        region,
        port_key(query.protocol, query.port),
    );
    maps::scratch().map_or(RuleOutcome::NoRule, |scratch| scratch.outcome.into())
}

/// Leaves the outcome in the scratch. Once in each program, however often it is called.
#[inline(never)]
extern "C" fn climb(parity: u32, class: u32, region: u32, key: u32) {
    // The room first: an outcome that waits for it costs stack, of which nothing is to spare.
    if let Some(scratch) = maps::scratch() {
        scratch.outcome = find(Set(parity), class, region, key);
    }
}
