//! Revocation: committed first, then awaited gateway by gateway (invariant 4).

use std::time::{Duration, Instant};

use portcullis_proto::v1;

use super::{Result, by_admin, found};
use crate::core::Core;
use crate::domain::SessionState;
use crate::error::OperationError;
use crate::store::gateways::GatewayRow;
use crate::store::sessions::{Ending, Selection};
use crate::store::{Engine, Write, devices, gateways, locations, sessions, to_u64, users};

/// How long an act that revokes along the way (removing a device, say) waits to report.
const DEFAULT_WAIT: Duration = Duration::from_secs(2);
/// How often the store is asked about gateways that are connected to another control process.
const ELSEWHERE: Duration = Duration::from_millis(100);

/// A committed revocation, and where it has to arrive.
pub(super) struct Affected {
    pub(super) revision: u64,
    pub(super) sessions: u64,
    /// Ids.
    pub(super) locations: Vec<String>,
    pub(super) committed: Instant,
}

impl Core {
    /// Ends sessions, then waits for every gateway of their locations. With no session to end it
    /// still takes a revision and waits: an acknowledgement then proves that none is left.
    pub(crate) async fn revoke(
        &self,
        request: v1::RevokeSessionsRequest,
    ) -> Result<v1::RevocationStatus> {
        use v1::revoke_sessions_request::Target;
        let target = request
            .target
            .ok_or_else(|| OperationError::invalid("say whose sessions are to be revoked"))?;
        let mut write = self.store.change(self.now_ms()).await?;
        let (selection, locations, subject) = match target {
            Target::Session(id) => {
                let row = found("session", &id, sessions::find(write.sql(), &id)).await?;
                (
                    Selection::Session(row.id),
                    vec![row.location_id],
                    format!("session:{id}"),
                )
            }
            Target::Device(name) => {
                let row = found("device", &name, devices::find(write.sql(), &name)).await?;
                (
                    Selection::Device(row.id),
                    vec![row.location_id],
                    format!("device:{}", row.name),
                )
            }
            Target::User(name) => {
                let row = found("user", &name, users::find(write.sql(), &name)).await?;
                let locations = locations_of_user(&mut write, &row.id).await?;
                (
                    Selection::User(row.id),
                    locations,
                    format!("user:{}", row.name),
                )
            }
            Target::Location(name) => {
                let row = found("location", &name, locations::find(write.sql(), &name)).await?;
                (
                    Selection::Location(row.id.clone()),
                    vec![row.id],
                    format!("location:{}", row.name),
                )
            }
            Target::Everyone(true) => {
                let all = locations::list(write.sql()).await?;
                let all = all.into_iter().map(|location| location.id).collect();
                (Selection::Everyone, all, "everyone".to_owned())
            }
            Target::Everyone(false) => {
                return Err(OperationError::invalid("everyone = false selects nobody"));
            }
        };
        let (revision, now_ms) = (write.revision(), write.now_ms());
        let ending = Ending {
            state: SessionState::Revoked,
            by: super::ADMIN,
        };
        let sessions = sessions::end(write.sql(), &selection, ending, revision, now_ms).await?;
        write
            .audit(by_admin(
                "session.revoke",
                &subject,
                super::ended(&sessions),
            ))
            .await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let affected = Affected {
            revision,
            sessions: super::count(&sessions),
            locations,
            committed,
        };
        self.settle_within(affected, Duration::from_millis(request.wait_ms))
            .await
    }

    pub(super) async fn settle(&self, affected: Affected) -> Result<v1::RevocationStatus> {
        self.settle_within(affected, DEFAULT_WAIT).await
    }

    pub(super) async fn settle_within(
        &self,
        affected: Affected,
        wait: Duration,
    ) -> Result<v1::RevocationStatus> {
        let gateways = self
            .acknowledged(
                &affected.locations,
                affected.revision,
                affected.committed,
                wait,
            )
            .await?;
        for gateway in gateways.iter().filter(|gateway| gateway.acknowledged) {
            self.figures.revoked(Duration::from_millis(gateway.took_ms));
        }
        Ok(v1::RevocationStatus {
            revision: affected.revision,
            sessions: u32::try_from(affected.sessions).unwrap_or(u32::MAX),
            gateways,
            open_until_ms: 0,
            shortened: 0,
        })
    }

    /// Waits until every enrolled gateway of these locations has applied the revision and read it
    /// back from its kernel, or until the time is up.
    pub(crate) async fn acknowledged(
        &self,
        locations: &[String],
        revision: u64,
        committed: Instant,
        wait: Duration,
    ) -> Result<Vec<v1::GatewayRevocation>> {
        let until = tokio::time::Instant::from_std(committed + wait);
        let mut changes = self.fleet.changes();
        let mut gateways = self.gateways_of(locations).await?;
        loop {
            changes.mark_unchanged();
            let states: Vec<_> = gateways
                .iter()
                .map(|gateway| self.state(gateway, revision, committed))
                .collect();
            let now = tokio::time::Instant::now();
            if now >= until || states.iter().all(|state| state.acknowledged) {
                return Ok(states);
            }
            let elsewhere = self.store.engine() == Engine::Postgres
                && states
                    .iter()
                    .any(|state| !state.acknowledged && !state.connected);
            let pause = if elsewhere {
                until.min(now + ELSEWHERE)
            } else {
                until
            };
            // The fleet lives as long as this: the channel cannot close.
            let _ = tokio::time::timeout_at(pause, changes.changed()).await;
            // One that goes away may have been removed: then it has let go of everything.
            let gone = gateways
                .iter()
                .any(|gateway| self.fleet.status(&gateway.id).is_none());
            if elsewhere || gone {
                gateways = self.gateways_of(locations).await?;
            }
        }
    }

    async fn gateways_of(&self, locations: &[String]) -> Result<Vec<GatewayRow>> {
        let mut read = self.store.read().await?;
        let mut all = gateways::list(read.sql(), "").await?;
        read.end().await?;
        // One that never enrolled holds nothing.
        all.retain(|gateway| {
            gateway.certificate.is_some() && locations.contains(&gateway.location_id)
        });
        Ok(all)
    }

    fn state(
        &self,
        gateway: &GatewayRow,
        revision: u64,
        committed: Instant,
    ) -> v1::GatewayRevocation {
        let live = self.fleet.status(&gateway.id);
        let applied = live
            .map_or(0, |live| live.applied)
            .max(to_u64(gateway.applied_revision));
        // Of one being removed, only its letting go of everything counts; then its row is gone.
        let acknowledged = applied >= revision && !gateway.removing;
        let took = match live {
            Some(live) if live.applied >= revision => {
                live.applied_at.saturating_duration_since(committed)
            }
            _ => committed.elapsed(),
        };
        v1::GatewayRevocation {
            gateway: gateway.name.clone(),
            acknowledged,
            connected: live.is_some(),
            removing: gateway.removing,
            applied_revision: applied,
            took_ms: if acknowledged {
                u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
            } else {
                0
            },
        }
    }
}

/// Ids of the locations that the user has devices at.
pub(crate) async fn locations_of_user(write: &mut Write<'_>, user_id: &str) -> Result<Vec<String>> {
    let devices = devices::list(write.sql(), user_id, "").await?;
    let mut locations: Vec<String> = devices
        .into_iter()
        .map(|device| device.location_id)
        .collect();
    locations.sort();
    locations.dedup();
    Ok(locations)
}
