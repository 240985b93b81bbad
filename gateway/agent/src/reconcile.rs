//! The difference between what control wants and what the kernel holds, as ordered actions.
//!
//! The order keeps every instant of its execution closed, also where it stops half-way:
//! 1. sessions that end, and those of peers whose identity changes, are locked;
//!    and those of peers whose effective policy changes together with the session;
//! 2. effective policies change, and sessions of peers that stay as they are get their new grants;
//! 3. peers and addresses that go are taken away, from both halves, so that
//! 4. an address enters the datapath for its new owner only when no other peer can send from it;
//! 5. WireGuard is told of what is new or changed. Where that is the pre-shared key, the peer is taken away in 3 and
//!    made anew here, so that no transport key of the old one is left; but for a session that is renewed, whose
//!    owner has both;
//! 6. peers that are new get their effective policies, and
//! 7. peers that were changed get their grants, last.
//!
//! Between 1 and 2, and wherever a grant follows a changed effective policy, programs that are running
//! are waited for: once, for all that was written before. So what is alike is written together.

use ipnet::IpNet;

use crate::datapath::SessionGrant;
use crate::desired::{Peer, Session};
use crate::held::Held;
use crate::keys::PublicKey;
use crate::wireguard::{PeerChange, PeerUpdate};

/// How much earlier than control's a deadline in the kernel may be before it is written again: more
/// than what two conversions between the clocks differ by, less than anyone would notice. A machine
/// that was suspended, or a clock that was set at control, exceeds it. One that is later is always
/// written: a session ends when control says, not when a slow message made it seem.
const DEADLINE_TOLERANCE: u64 = 5_000_000_000;

/// One step towards the desired state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ends the peer's session in the datapath.
    Lock(PublicKey),
    /// Gives the peer a session in the datapath, or changes the one it has.
    Grant(PublicKey, SessionGrant),
    /// Gives the peer another effective policy in the datapath.
    Classify(PublicKey, u32),
    /// Takes the peer from the datapath.
    Forget(PublicKey),
    /// Sets the addresses that prove the peer in the datapath; adds the peer where it is missing.
    Admit(PublicKey, Vec<IpNet>),
    /// Changes WireGuard's half.
    WireGuard(PeerChange),
}

impl Action {
    /// Whose state it changes.
    pub fn key(&self) -> PublicKey {
        match self {
            Self::Lock(key)
            | Self::Grant(key, _)
            | Self::Classify(key, _)
            | Self::Forget(key)
            | Self::Admit(key, _)
            | Self::WireGuard(PeerChange::Remove(key))
            | Self::WireGuard(PeerChange::Update(PeerUpdate { key, .. })) => *key,
        }
    }
}

/// What to do so that the kernel holds what is desired of `keys`.
pub fn plan<'a>(
    keys: impl IntoIterator<Item = &'a PublicKey>,
    desired: impl Fn(&PublicKey) -> Option<&'a Peer>,
    held: impl Fn(&PublicKey) -> Option<&'a Held>,
    now: u64,
) -> Vec<Action> {
    let nothing = Held::default();
    let mut plan = Plan::default();
    for key in keys {
        let held = held(key).unwrap_or(&nothing);
        match desired(key) {
            Some(peer) => plan.keep(*key, peer, held, now),
            None => plan.remove(*key, held),
        }
    }
    plan.ordered()
}

/// Whether the kernel holds this session. Its deadline is compared as a time, all else through
/// the tag; two deadlines that have both passed are the same.
pub fn holds_session(held: Option<&SessionGrant>, wanted: Option<&Session>, now: u64) -> bool {
    match (held, wanted) {
        (None, None) => true,
        (Some(held), Some(wanted)) => {
            let grant = wanted.grant(now, Some(held.last_activity));
            is_same_but_deadline(held, &grant)
                && (grant
                    .deadline
                    .checked_sub(held.deadline)
                    .is_some_and(|early| early <= DEADLINE_TOLERANCE)
                    || (held.deadline <= now && grant.deadline <= now))
        }
        _ => false,
    }
}

fn is_same_but_deadline(held: &SessionGrant, grant: &SessionGrant) -> bool {
    held.tag == grant.tag && held.level == grant.level && held.idle_timeout == grant.idle_timeout
}

/// Whether nothing is wanted of the session that is held but an earlier deadline, which is still to come for a while:
/// as after a message that was faster than the one before. No packet until then is one that only the old state
/// permits, so that none has to be dropped for it.
fn is_earlier_only(held: Option<&SessionGrant>, wanted: Option<&Session>, now: u64) -> bool {
    let (Some(held), Some(wanted)) = (held, wanted) else {
        return false;
    };
    let grant = wanted.grant(now, Some(held.last_activity));
    is_same_but_deadline(held, &grant)
        && grant.deadline <= held.deadline
        && grant.deadline > now.saturating_add(DEADLINE_TOLERANCE)
}

/// What becomes of a peer's pre-shared key in WireGuard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KeyChange {
    /// Nothing, or there is no such peer yet.
    None,
    /// The session's next one.
    Renewed,
    /// Another session's: WireGuard itself would keep the transport keys that the old one led to for three
    /// minutes.
    Another,
}

fn key_change(peer: &Peer, held: &Held) -> KeyChange {
    match &held.wireguard {
        None => KeyChange::None,
        Some(half) if half.preshared_key == peer.preshared_key => KeyChange::None,
        Some(half) if peer.renews(half.preshared_key.as_ref()) => KeyChange::Renewed,
        Some(_) => KeyChange::Another,
    }
}

/// Actions by phase.
#[derive(Default)]
struct Plan {
    locks: Vec<Action>,
    classes: Vec<Action>,
    renewals: Vec<Action>,
    removals: Vec<Action>,
    admissions: Vec<Action>,
    updates: Vec<Action>,
    late_classes: Vec<Action>,
    grants: Vec<Action>,
}

impl Plan {
    fn remove(&mut self, key: PublicKey, held: &Held) {
        if held.session().is_some() {
            self.locks.push(Action::Lock(key));
        }
        if held.datapath.is_some() {
            self.removals.push(Action::Forget(key));
        }
        if held.wireguard.is_some() {
            self.removals
                .push(Action::WireGuard(PeerChange::Remove(key)));
        }
    }

    fn keep(&mut self, key: PublicKey, peer: &Peer, held: &Held, now: u64) {
        let key_change = key_change(peer, held);
        let identity_changes = held.datapath.as_ref().map(|half| &half.addresses)
            != Some(&peer.allowed_ips)
            || held
                .wireguard
                .as_ref()
                .is_none_or(|half| half.allowed_ips != peer.allowed_ips)
            || key_change == KeyChange::Another;
        // What a session gets with its next key it gets when WireGuard has the key.
        let after = identity_changes || key_change == KeyChange::Renewed;
        self.session(key, peer, held, (identity_changes, after), now);
        self.addresses(key, peer, held);
        self.wireguard(key, peer, held, key_change);
    }

    fn session(
        &mut self,
        key: PublicKey,
        peer: &Peer,
        held: &Held,
        (identity_changes, after): (bool, bool),
        now: u64,
    ) {
        let (have, want) = (held.session(), peer.session.as_ref());
        let class_changes = held.policy() != peer.policy;
        if class_changes {
            // A new peer has to be there before it can have one.
            let classes = if held.datapath.is_some() {
                &mut self.classes
            } else {
                &mut self.late_classes
            };
            classes.push(Action::Classify(key, peer.policy));
        }
        if holds_session(have, want, now) {
            return;
        }
        let other = class_changes && !is_earlier_only(have, want, now);
        if have.is_some() && (want.is_none() || identity_changes || other) {
            self.locks.push(Action::Lock(key));
        }
        if let Some(want) = want {
            let grant = want.grant(now, have.map(|session| session.last_activity));
            let grants = if after {
                &mut self.grants
            } else {
                &mut self.renewals
            };
            grants.push(Action::Grant(key, grant));
        }
    }

    fn addresses(&mut self, key: PublicKey, peer: &Peer, held: &Held) {
        let Some(half) = &held.datapath else {
            self.admissions
                .push(Action::Admit(key, peer.allowed_ips.clone()));
            return;
        };
        let kept = common(&half.addresses, &peer.allowed_ips);
        if kept.len() < half.addresses.len() {
            self.removals.push(Action::Admit(key, kept.clone()));
        }
        if kept.len() < peer.allowed_ips.len() {
            self.admissions
                .push(Action::Admit(key, peer.allowed_ips.clone()));
        }
    }

    fn wireguard(&mut self, key: PublicKey, peer: &Peer, held: &Held, key_change: KeyChange) {
        let mut update = PeerUpdate {
            key,
            create: false,
            preshared_key: None,
            endpoint: None,
            persistent_keepalive: None,
            allowed_ips: None,
        };
        let stays = key_change != KeyChange::Another;
        if !stays {
            self.removals
                .push(Action::WireGuard(PeerChange::Remove(key)));
        }
        let Some(half) = held.wireguard.as_ref().filter(|_| stays) else {
            self.updates
                .push(Action::WireGuard(PeerChange::Update(PeerUpdate {
                    create: true,
                    preshared_key: Some(peer.preshared_key.clone()),
                    persistent_keepalive: Some(peer.persistent_keepalive),
                    allowed_ips: Some(peer.allowed_ips.clone()),
                    ..update
                })));
            return;
        };
        let kept = common(&half.allowed_ips, &peer.allowed_ips);
        if kept.len() < half.allowed_ips.len() {
            self.removals
                .push(Action::WireGuard(PeerChange::Update(PeerUpdate {
                    allowed_ips: Some(kept.clone()),
                    ..update.clone()
                })));
        }
        update.allowed_ips =
            (kept.len() < peer.allowed_ips.len()).then(|| peer.allowed_ips.clone());
        update.preshared_key =
            (key_change == KeyChange::Renewed).then(|| peer.preshared_key.clone());
        update.persistent_keepalive = (half.persistent_keepalive != peer.persistent_keepalive)
            .then_some(peer.persistent_keepalive);
        if update.allowed_ips.is_some()
            || update.preshared_key.is_some()
            || update.persistent_keepalive.is_some()
        {
            self.updates
                .push(Action::WireGuard(PeerChange::Update(update)));
        }
    }

    fn ordered(self) -> Vec<Action> {
        let mut actions = self.locks;
        actions.extend(self.classes);
        actions.extend(self.renewals);
        actions.extend(self.removals);
        actions.extend(self.admissions);
        actions.extend(self.updates);
        actions.extend(self.late_classes);
        actions.extend(self.grants);
        actions
    }
}

/// What two sorted lists share.
fn common(have: &[IpNet], want: &[IpNet]) -> Vec<IpNet> {
    have.iter()
        .filter(|network| want.binary_search(network).is_ok())
        .copied()
        .collect()
}

#[cfg(test)]
mod tests;
