//! The overall status, and the audit log.

use portcullis_proto::v1;

use super::Result;
use crate::core::Core;
use crate::store::{acme, audit, devices, sessions, users};

const DEFAULT_LIMIT: u32 = 100;
const LONGEST: u32 = 10_000;

impl Core {
    pub(crate) async fn status(&self) -> Result<v1::StatusResponse> {
        let gateways = self.list_gateways().await?.gateways;
        let mut read = self.store.read().await?;
        let users = users::count(read.sql()).await?;
        let devices = devices::count(read.sql()).await?;
        let live_sessions = sessions::count_live(read.sql()).await?;
        read.end().await?;
        let portal_certificate = self.portal_certificate().await?;
        let small = |count: i64| u32::try_from(count).unwrap_or(u32::MAX);
        Ok(v1::StatusResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            store: self.store.place().into(),
            revision: self.store.revision(),
            users: small(users),
            devices: small(devices),
            live_sessions: small(live_sessions),
            gateways,
            ca_fingerprint: self.ca.fingerprint(),
            portal_certificate,
        })
    }

    /// `None` where the own CA's is all that there is to be.
    async fn portal_certificate(&self) -> Result<Option<v1::PortalCertificate>> {
        let shown = self.certificate.shown(self.now_ms());
        if shown.source.is_empty() {
            return Ok(None);
        }
        let mut told = v1::PortalCertificate {
            source: shown.source.into(),
            name: shown.name,
            not_after_ms: shown.not_after_ms.unwrap_or(0),
            problem: shown.problem,
            ..Default::default()
        };
        if let Some(directory) = shown.directory {
            let whose = acme::Whose {
                name: &told.name,
                directory: &directory,
            };
            let mut read = self.store.read().await?;
            let row = acme::find(read.sql(), whose).await?.unwrap_or_default();
            read.end().await?;
            // While it is under way, an attempt counts as failed.
            if row.lease_until_ms <= self.now_ms() {
                told.failures = u32::try_from(row.failures).unwrap_or(u32::MAX);
                told.problem = row.problem;
            }
            told.next_ms = row.next_ms;
        }
        Ok(Some(told))
    }

    pub(crate) async fn list_audit(
        &self,
        request: v1::ListAuditRequest,
    ) -> Result<v1::AuditRecords> {
        let limit = if request.limit == 0 {
            DEFAULT_LIMIT
        } else {
            request.limit.min(LONGEST)
        };
        let mut read = self.store.read().await?;
        let records = audit::newest(read.sql(), limit).await?;
        read.end().await?;
        let records = records.into_iter().map(|record| v1::AuditRecord {
            at_ms: record.at_ms,
            actor: record.actor,
            action: record.action,
            subject: record.subject,
            detail: record.detail,
        });
        Ok(v1::AuditRecords {
            records: records.collect(),
        })
    }
}
