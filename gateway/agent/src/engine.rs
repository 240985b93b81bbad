//! The engine: holds the desired state, brings the kernel there, and reads back what it did.
//!
//! It is synchronous and knows neither control nor links: whoever drives it, agent or benchmark,
//! hands it messages and takes acknowledgements.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portcullis_proto::v1;

use crate::datapath::{self, Attached, Datapath, DatapathError, PeerView};
use crate::desired::{Desired, DesiredError, Location, Policy, PolicyError};
use crate::held::KernelView;
use crate::keys::PublicKey;
use crate::reconcile::{self, Action};
use crate::shield::Cut;
use crate::stream::Resume;
use crate::wireguard::{Device, PeerChange, WireGuard, WireGuardError};

/// From this many peers on, reading all of them at once is faster than one by one.
const READ_ALL_FROM: usize = 1024;
/// Events kept for the next report; more of them say nothing new.
const MOST_EVENTS: usize = 64;

/// Why a message was not applied, or not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    Desired(#[from] DesiredError),
    #[error("the datapath cannot be read back: {0}")]
    Datapath(#[from] DatapathError),
    #[error("WireGuard cannot be read back: {0}")]
    WireGuard(#[from] WireGuardError),
    #[error("the policy cannot be loaded, the one before stays: {0}")]
    Policy(#[from] PolicyError),
    #[error("a delta came before any snapshot")]
    NoSnapshot,
}

/// What applying a message came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// For control: what the kernel now holds.
    pub applied: v1::Applied,
    /// Whether the interface itself must be configured anew.
    pub location_changed: bool,
    /// Whether peers or their addresses changed, so that routes may have to.
    pub peers_changed: bool,
}

/// The gateway's desired state and its datapath.
pub struct Engine {
    datapath: Datapath,
    wireguard: Arc<dyn WireGuard>,
    desired: Option<Desired>,
    kernel: KernelView,
    /// Whether the view is what the kernel held after the last change that was made to it.
    current: bool,
    /// Tags of sessions whose end has been reported.
    pub(crate) ended: HashSet<u64>,
    events: Vec<String>,
    /// Peers that were cut off; `None` while nobody asks for them.
    cut: Option<Cut>,
}

impl Engine {
    /// Changes nothing yet: what the kernel holds stays until control says otherwise.
    pub fn new(datapath: Datapath, wireguard: Arc<dyn WireGuard>) -> Self {
        Self {
            datapath,
            wireguard,
            desired: None,
            kernel: KernelView::default(),
            current: false,
            ended: HashSet::new(),
            events: Vec::new(),
            cut: None,
        }
    }

    /// Puts the programs on both hooks of the interface, in place of those that are there.
    pub fn attach(&mut self, ifindex: u32) -> Result<Attached, DatapathError> {
        self.datapath.attach(ifindex)
    }

    /// Whether the kernel has both programs on the interface.
    pub fn is_attached(&self, ifindex: u32) -> Result<bool, DatapathError> {
        self.datapath.is_attached(ifindex)
    }

    /// Replaces the desired state, and converges everything.
    pub fn snapshot(&mut self, snapshot: v1::Snapshot) -> Result<Outcome, EngineError> {
        self.snapshot_received(snapshot, datapath::now())
    }

    /// As [`Self::snapshot`], with one that was received some time ago, on the clock of the maps.
    pub fn snapshot_received(
        &mut self,
        snapshot: v1::Snapshot,
        received_at: u64,
    ) -> Result<Outcome, EngineError> {
        if let Err(error) = self.lock_ahead(&snapshot) {
            // Tried again below, where it counts.
            tracing::debug!("sessions are not ended yet: {error}");
        }
        let (mut desired, rejected) = Desired::from_snapshot(snapshot, received_at);
        rejected
            .iter()
            .for_each(|rejection| self.note(rejection.to_string()));
        desired.location = desired.location.or_else(|| self.location().cloned());
        let location_changed = self.location() != desired.location.as_ref();
        self.desired = Some(desired);
        self.ended.clear();
        let outcome = self.reconcile()?;
        Ok(Outcome {
            location_changed,
            peers_changed: true,
            ..outcome
        })
    }

    /// Ends the sessions of the peers that the snapshot gives none, before the rest of it is looked at:
    /// a large policy takes its time. Whatever else is wrong with a peer can only take its session too.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer; one that cannot be ended keeps no other from it.
    pub fn lock_ahead(&mut self, snapshot: &v1::Snapshot) -> Result<(), EngineError> {
        if snapshot.policy.is_none() {
            return Ok(());
        }
        // Named twice, it counts as wanted here: which one holds is not for this to say.
        let wanted: HashSet<&[u8]> = snapshot
            .peers
            .iter()
            .filter(|peer| peer.session.is_some())
            .map(|peer| peer.public_key.as_slice())
            .collect();
        let mut unwanted = with_session(&self.datapath.peers()?);
        unwanted.retain(|key| !wanted.contains(key.as_bytes().as_slice()));
        self.current = false;
        self.lock_all(&unwanted)?;
        Ok(())
    }

    /// Goes on from the revision that was applied last, and converges what the delta touches.
    pub fn delta(&mut self, delta: v1::Delta) -> Result<Outcome, EngineError> {
        self.delta_received(delta, datapath::now())
    }

    /// As [`Self::delta`], with one that was received some time ago, on the clock of the maps.
    pub fn delta_received(
        &mut self,
        delta: v1::Delta,
        received_at: u64,
    ) -> Result<Outcome, EngineError> {
        let desired = self.desired.as_mut().ok_or(EngineError::NoSnapshot)?;
        let change = desired.apply(delta, received_at)?;
        change
            .rejected
            .iter()
            .for_each(|rejection| self.note(rejection.to_string()));
        let locked = self.lock_unwanted(&change.touched);
        if !self.current || locked.is_err() {
            // Something failed before: what is not known of the kernel cannot be acknowledged.
            return Ok(Outcome {
                location_changed: change.location,
                ..self.reconcile()?
            });
        }
        let services = if change.location {
            self.set_services()
        } else {
            Ok(())
        };
        // Not from memory: what is acknowledged has been read back, whether or not it changed.
        self.read_datapath(&change.touched)?;
        let peers_changed = self.converge(&change.touched)?;
        // The next message tries again, whatever it is about.
        self.current &= services.is_ok();
        services?;
        Ok(Outcome {
            applied: self.applied(),
            location_changed: change.location,
            peers_changed,
        })
    }

    /// Reads everything from the kernel, and converges it. Without a desired state: only reads.
    ///
    /// Sessions that are over are ended first, from the maps alone. Neither services that cannot be
    /// set nor a WireGuard that cannot be read keeps a revocation from being applied; they keep it
    /// from being acknowledged.
    pub fn reconcile(&mut self) -> Result<Outcome, EngineError> {
        self.current = false;
        let mut views = self.datapath.peers()?;
        if self.lock_unwanted(&with_session(&views))? {
            views = self.datapath.peers()?;
        }
        let services = self.set_services();
        self.take_view(self.wireguard.read()?, views)?;
        let mut peers_changed = false;
        if let Some(desired) = &self.desired {
            let mut keys: Vec<_> = self
                .kernel
                .keys()
                .chain(desired.peers().map(|(key, _)| key))
                .copied()
                .collect();
            keys.sort_unstable();
            keys.dedup();
            if let Err(error) = self.switch_policy(&keys) {
                self.remove_unwanted(keys)?;
                return Err(error);
            }
            peers_changed = self.converge(&keys)?;
        }
        self.current &= services.is_ok();
        services?;
        Ok(Outcome {
            applied: self.applied(),
            location_changed: false,
            peers_changed,
        })
    }

    /// The next snapshot is asked for whole.
    pub(crate) fn resume(&self, from_scratch: bool) -> Resume {
        match &self.desired {
            Some(desired) if !from_scratch => Resume {
                revision: desired.revision,
                store_id: desired.store_id.clone(),
            },
            _ => Resume::default(),
        }
    }

    /// As control described it last.
    pub fn location(&self) -> Option<&Location> {
        self.desired.as_ref()?.location.as_ref()
    }

    pub(crate) fn desired(&self) -> Option<&Desired> {
        self.desired.as_ref()
    }

    /// Id and rules of the policy that control has sent; 0 and none for none.
    pub(crate) fn policy(&self) -> (u64, Option<&gateway_common::policy::Tables>) {
        self.desired_policy()
            .map_or((0, None), |policy| (policy.id, Some(&policy.tables)))
    }

    /// Name of the rule of this number; empty where there is none.
    pub(crate) fn rule_name(&self, rule: u32) -> &str {
        self.desired_policy()
            .and_then(|policy| policy.rule_name(rule))
            .unwrap_or_default()
    }

    /// The same for a packet that was judged at that time; empty also where it is not certain that the
    /// number is one of this policy's.
    pub(crate) fn rule_name_at(&self, rule: u32, time: u64) -> &str {
        name_at(self.desired_policy(), rule, self.datapath.policy_at(time))
    }

    fn desired_policy(&self) -> Option<&Policy> {
        self.desired.as_ref()?.policy.as_ref().ok()?.as_deref()
    }

    pub(crate) fn kernel(&self) -> &KernelView {
        &self.kernel
    }

    pub(crate) fn datapath(&self) -> &Datapath {
        &self.datapath
    }

    pub(crate) fn datapath_mut(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Allowed IPs that lie outside the interface's own networks, and so need a route. A default
    /// route is never taken from the machine, whatever a peer may send from.
    pub(crate) fn routes(&self) -> Vec<IpNet> {
        let Some(desired) = &self.desired else {
            return Vec::new();
        };
        let connected: Vec<_> = desired
            .location
            .iter()
            .flat_map(|location| &location.addresses)
            .map(IpNet::trunc)
            .collect();
        let mut routes: Vec<_> = desired
            .peers()
            .flat_map(|(_, peer)| &peer.allowed_ips)
            .filter(|network| network.prefix_len() > 0)
            .filter(|network| {
                !connected
                    .iter()
                    .any(|connected| connected.contains(*network))
            })
            .copied()
            .collect();
        routes.sort_unstable();
        routes.dedup();
        routes
    }

    /// Something an admin should see, for the log and for the next report.
    pub(crate) fn note(&mut self, event: String) {
        tracing::warn!("{event}");
        if self.events.len() < MOST_EVENTS {
            self.events.push(event);
        }
    }

    /// From now on, remembers where cut-off peers are.
    pub(crate) fn watch_cut(&mut self, with_locked: bool) {
        self.cut = Some(Cut::new(with_locked));
    }

    /// Outer addresses of the peers that were removed or locked since, and of nobody else. Where one was
    /// locked, WireGuard is asked.
    pub(crate) fn take_cut(&mut self) -> HashSet<SocketAddr> {
        let Some(cut) = self.cut.as_mut().map(Cut::take) else {
            return HashSet::new();
        };
        // Not those that have another session by now.
        let locked = |key: &PublicKey| {
            let peer = self.desired.as_ref().and_then(|desired| desired.peer(key));
            peer.is_some_and(|peer| peer.session.is_none())
        };
        cut.endpoints(locked, || self.wireguard.read())
    }

    pub(crate) fn take_events(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events)
    }

    /// Revision and digest as they are now.
    fn applied(&self) -> v1::Applied {
        v1::Applied {
            revision: self.desired.as_ref().map_or(0, |desired| desired.revision),
            digest: self.kernel.digest().to_vec(),
        }
    }

    fn set_services(&mut self) -> Result<(), DatapathError> {
        let Some(location) = self.desired.as_ref().and_then(|d| d.location.as_ref()) else {
            return Ok(());
        };
        // First, so that nothing is led to what has ceased to be a service.
        self.datapath.set_captive(&location.captive_portals)?;
        self.datapath.set_services(&location.services)?;
        self.datapath.set_answers(location.answer_drops)
    }

    /// Ends the sessions of those of `keys` that are to have none, which needs the maps and nothing
    /// else. Says whether there was any; one that cannot be ended keeps no other from it.
    fn lock_unwanted(&mut self, keys: &[PublicKey]) -> Result<bool, DatapathError> {
        let Some(desired) = &self.desired else {
            return Ok(false);
        };
        let wanted = |key: &PublicKey| desired.peer(key).is_some_and(|peer| peer.session.is_some());
        let unwanted: Vec<_> = keys.iter().filter(|key| !wanted(key)).copied().collect();
        self.lock_all(&unwanted)
    }

    /// Ends the sessions of all of `keys`, as [`Self::lock_unwanted`].
    fn lock_all(&mut self, keys: &[PublicKey]) -> Result<bool, DatapathError> {
        let mut any = false;
        let mut failure = None;
        for key in keys {
            match self.datapath.read_peer(key.as_bytes()) {
                Ok(Some(view)) if view.session.is_none() => continue,
                Ok(None) => continue,
                // What cannot be read is locked all the same.
                read => failure = failure.or(read.err()),
            }
            any = true;
            let locked = self.datapath.set_session(key.as_bytes(), None);
            if let Some(cut) = &mut self.cut {
                cut.locked(*key);
            }
            failure = failure.or(locked.err());
        }
        failure.map_or(Ok(any), Err)
    }

    fn lock(&mut self, key: &PublicKey) -> Result<(), DatapathError> {
        if let Some(cut) = &mut self.cut {
            cut.locked(*key);
        }
        self.datapath.set_session(key.as_bytes(), None)
    }

    /// Makes the desired policy hold. Sessions are brought down to what both the old and the new state
    /// permit before, so that none is used under a policy that it was not meant for; also where the
    /// policy then turns out not to be loadable, which must not keep a session from being cut short.
    fn switch_policy(&mut self, keys: &[PublicKey]) -> Result<(), EngineError> {
        let Some(desired) = &self.desired else {
            return Ok(());
        };
        let policy = desired.policy.clone();
        let id = |policy: &Option<Arc<Policy>>| policy.as_ref().map_or(0, |policy| policy.id);
        if policy
            .as_ref()
            .is_ok_and(|policy| self.kernel.policy() == id(policy))
        {
            return Ok(());
        }
        let classes: HashMap<datapath::PublicKey, u32> = desired
            .peers()
            .map(|(key, peer)| (*key.as_bytes(), peer.policy))
            .collect();
        for action in self.plan(keys) {
            let narrowed = match &action {
                Action::Lock(key) => self.lock(key),
                Action::Grant(key, grant) => {
                    match self.datapath.narrow_session(key.as_bytes(), grant) {
                        // It comes later.
                        Err(DatapathError::UnknownPeer) => Ok(()),
                        result => result,
                    }
                }
                _ => Ok(()),
            };
            if let Err(error) = narrowed {
                self.note(format!("peer {}: {error}", action.key()));
            }
        }
        let policy = policy?;
        let class = |key: &datapath::PublicKey| classes.get(key).copied().unwrap_or(0);
        let tables = policy.as_ref().map(|policy| (policy.id, &policy.tables));
        self.datapath.switch_policy(tables, class)?;
        self.read_all()
    }

    /// Takes those of `keys` away that are to be gone, and changes nobody else: effective policies are
    /// numbers in the policy that is wanted, and mean something else in the one that holds.
    fn remove_unwanted(&mut self, mut keys: Vec<PublicKey>) -> Result<(), EngineError> {
        if let Some(desired) = &self.desired {
            keys.retain(|key| desired.peer(key).is_none());
        }
        let result = self.converge(&keys);
        // What holds is not what is wanted.
        self.current = false;
        result.map(drop)
    }

    /// Brings the kernel to what is desired of `keys`, and reads those back. Says whether
    /// anything but sessions changed.
    fn converge(&mut self, keys: &[PublicKey]) -> Result<bool, EngineError> {
        self.refresh_activity(keys);
        let actions = self.plan(keys);
        if actions.is_empty() {
            return Ok(false);
        }
        let touched = touched(&actions);
        let wireguard = actions
            .iter()
            .any(|action| matches!(action, Action::WireGuard(_)));
        let peers = actions.iter().any(|action| {
            !matches!(
                action,
                Action::Lock(_) | Action::Grant(..) | Action::Classify(..)
            )
        });
        self.current = false;
        self.execute(actions);
        self.read_back(&touched, wireguard)?;
        self.current = true;
        let missed = touched_count(&self.plan(&touched));
        if missed > 0 {
            self.note(format!(
                "{missed} peers are not in the kernel as control wants them"
            ));
        }
        Ok(peers)
    }

    fn plan(&self, keys: &[PublicKey]) -> Vec<Action> {
        let Some(desired) = &self.desired else {
            return Vec::new();
        };
        let held = |key: &PublicKey| self.kernel.get(key);
        reconcile::plan(keys, |key| desired.peer(key), held, datapath::now())
    }

    /// A failed action leaves its peer as it is, which is never more open than before: what
    /// follows for that peer is left out. After a failure of WireGuard's, or to take an address
    /// from a peer, everything that follows is: an address must not be admitted for its new owner
    /// while the old one can use it.
    fn execute(&mut self, actions: Vec<Action>) {
        let mut failed = HashSet::new();
        let mut batch: Vec<PeerChange> = Vec::new();
        for action in actions {
            if failed.contains(&action.key()) {
                continue;
            }
            if let Action::WireGuard(change) = action {
                batch.push(change);
                continue;
            }
            if !self.flush(&mut batch) {
                return;
            }
            let key = action.key();
            if let Err(error) = self.execute_one(&action) {
                self.note(format!("peer {key}: {error}"));
                if self.only_removes(&action) {
                    return;
                }
                failed.insert(key);
            }
        }
        self.flush(&mut batch);
    }

    /// Whether the action takes addresses away and gives none.
    fn only_removes(&self, action: &Action) -> bool {
        let held = |key| self.kernel.get(key).and_then(|held| held.datapath.as_ref());
        match action {
            Action::Forget(_) => true,
            Action::Admit(key, addresses) => held(key)
                .is_some_and(|half| addresses.iter().all(|net| half.addresses.contains(net))),
            _ => false,
        }
    }

    fn execute_one(&mut self, action: &Action) -> Result<(), DatapathError> {
        match action {
            Action::Lock(key) => self.lock(key),
            Action::Grant(key, grant) => self.datapath.set_session(key.as_bytes(), Some(grant)),
            Action::Classify(key, class) => self.datapath.set_class(key.as_bytes(), *class),
            Action::Forget(key) => self.datapath.remove_peer(key.as_bytes()),
            Action::Admit(key, addresses) => self.datapath.upsert_peer(key.as_bytes(), addresses),
            // Collected by the caller, which sends many at once.
            Action::WireGuard(_) => Ok(()),
        }
    }

    fn flush(&mut self, batch: &mut Vec<PeerChange>) -> bool {
        if batch.is_empty() {
            return true;
        }
        self.remember_removed(batch);
        let result = self.wireguard.apply(&std::mem::take(batch));
        if let Err(error) = &result {
            self.note(error.to_string());
        }
        result.is_ok()
    }

    /// WireGuard forgets where a peer was together with the peer.
    fn remember_removed(&mut self, batch: &[PeerChange]) {
        let Some(cut) = &mut self.cut else {
            return;
        };
        // Not those that are made anew with another key.
        let stays = |key| self.desired.as_ref().is_some_and(|d| d.peer(key).is_some());
        let removed: HashSet<_> = batch
            .iter()
            .filter_map(|change| match change {
                PeerChange::Remove(key) => (!stays(key)).then_some(*key),
                PeerChange::Update(_) => None,
            })
            .collect();
        if removed.is_empty() {
            return;
        }
        match self.wireguard.read() {
            Ok(device) => cut.left(&device, &removed),
            Err(error) => tracing::debug!("where removed peers were is not known: {error}"),
        }
    }

    /// The kernel writes the time of a peer's last packet by itself; a grant must not undo that.
    fn refresh_activity(&mut self, keys: &[PublicKey]) {
        for key in keys {
            let Some(activity) = self.datapath.activity(key.as_bytes()) else {
                continue;
            };
            self.kernel.saw_activity(key, activity);
        }
    }

    fn read_all(&mut self) -> Result<(), EngineError> {
        let device = self.wireguard.read()?;
        let views = self.datapath.peers()?;
        self.take_view(device, views)?;
        Ok(())
    }

    fn take_view(&mut self, device: Device, views: Vec<PeerView>) -> Result<(), DatapathError> {
        let policy = self.datapath.policy_id()?;
        self.kernel.clear();
        self.kernel.set_policy(policy);
        for peer in device.peers {
            self.kernel.set_wireguard(peer.key, Some(peer.config));
        }
        for view in views {
            if let Ok(key) = PublicKey::try_from(view.key) {
                self.kernel.set_datapath(key, Some(view.into()));
            }
        }
        self.current = true;
        Ok(())
    }

    fn read_back(&mut self, keys: &[PublicKey], wireguard: bool) -> Result<(), EngineError> {
        if keys.len() >= READ_ALL_FROM {
            return self.read_all();
        }
        self.read_datapath(keys)?;
        if wireguard {
            self.read_wireguard(keys)?;
        }
        Ok(())
    }

    fn read_datapath(&mut self, keys: &[PublicKey]) -> Result<(), DatapathError> {
        for key in keys {
            let view = self.datapath.read_peer(key.as_bytes());
            // What is half read is not to be acknowledged.
            self.current &= view.is_ok();
            self.kernel.set_datapath(*key, view?.map(Into::into));
        }
        Ok(())
    }

    fn read_wireguard(&mut self, keys: &[PublicKey]) -> Result<(), WireGuardError> {
        let Device { peers, .. } = self.wireguard.read()?;
        let mut missing: HashSet<_> = keys.iter().copied().collect();
        for peer in peers {
            if missing.remove(&peer.key) {
                self.kernel.set_wireguard(peer.key, Some(peer.config));
            }
        }
        for key in missing {
            self.kernel.set_wireguard(key, None);
        }
        Ok(())
    }
}

/// The name of the rule in the policy, where that is the one that the packet was judged by.
fn name_at(policy: Option<&Policy>, rule: u32, judged_by: Option<u64>) -> &str {
    policy
        .filter(|policy| judged_by == Some(policy.id))
        .and_then(|policy| policy.rule_name(rule))
        .unwrap_or_default()
}

/// The peers that hold a session.
fn with_session(views: &[PeerView]) -> Vec<PublicKey> {
    views
        .iter()
        .filter(|view| view.session.is_some())
        .filter_map(|view| PublicKey::try_from(view.key).ok())
        .collect()
}

/// Whose state the actions change, none twice.
fn touched(actions: &[Action]) -> Vec<PublicKey> {
    let mut keys: Vec<_> = actions.iter().map(Action::key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn touched_count(actions: &[Action]) -> usize {
    touched(actions).len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inv9_a_rule_is_named_only_by_the_policy_that_the_packet_was_judged_by() {
        let policy = Policy {
            id: 7,
            tables: gateway_common::policy::Tables::default(),
            rules: vec!["ssh".into()],
        };
        assert_eq!(name_at(Some(&policy), 0, Some(7)), "ssh");
        assert_eq!(name_at(Some(&policy), 1, Some(7)), "");
        // Another policy, none, one that is not known, and one that control has not sent.
        for other in [Some(8), Some(0), None] {
            assert_eq!(name_at(Some(&policy), 0, other), "");
        }
        assert_eq!(name_at(None, 0, Some(7)), "");
    }
}
