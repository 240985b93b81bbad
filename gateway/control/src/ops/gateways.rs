//! Gateways: adding, enrolling, removing.

use std::time::{Duration, Instant};

use portcullis_proto::v1;
use serde_json::json;

use super::{Result, by_admin, found, new_id};
use crate::ca::{certificate_hash, expires_ms};
use crate::core::Core;
use crate::domain::{DeviceKey, Name};
use crate::error::OperationError;
use crate::secrets::{Token, TokenHash};
use crate::store::gateways::{self, GatewayRow, Reason};
use crate::store::{Entry, devices, locations, to_u64};

const TOKEN_LIFETIME_MS: i64 = 60 * 60 * 1000;
/// A certificate that ends within this is replaced.
const RENEW_WITHIN_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// For what was on its way to the gateway when it was removed.
const OPEN_MARGIN_MS: i64 = 60 * 1000;
const REMOVED_WITHIN: Duration = Duration::from_secs(2);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// All that a caller without a token learns.
pub(crate) const TOKEN_REFUSED: &str = "this token is unknown, used up or too old";

/// What a gateway gets for its token.
pub(crate) struct Enrolled {
    pub(crate) certificate_der: Vec<u8>,
    pub(crate) gateway: String,
    pub(crate) location: String,
}

impl Core {
    pub(crate) async fn add_gateway(
        &self,
        request: v1::AddGatewayRequest,
    ) -> Result<v1::AddGatewayResponse> {
        let name = Name::parse("gateway", &request.name)?;
        let token = Token::generate()?;
        let mut write = self.store.change(self.now_ms()).await?;
        let now_ms = write.now_ms();
        let location = found(
            "location",
            &request.location,
            locations::find(write.sql(), &request.location),
        )
        .await?;
        let id = new_id();
        gateways::insert(write.sql(), &id, name.as_str(), &location.id, now_ms)
            .await
            .map_err(OperationError::taken("gateway", name.as_str()))?;
        gateways::set_token(
            write.sql(),
            &id,
            token.hash().as_str(),
            now_ms + TOKEN_LIFETIME_MS,
        )
        .await?;
        let detail = json!({ "location": location.name });
        write
            .audit(by_admin("gateway.add", name.as_str(), detail))
            .await?;
        let gateway = found("gateway", &id, gateways::find(write.sql(), &id)).await?;
        write.commit().await?;
        Ok(v1::AddGatewayResponse {
            gateway: Some(self.gateway_view(gateway, Vec::new())),
            token: token.expose().to_owned(),
            ca_fingerprint: self.ca.fingerprint(),
            control_url: self.config.control_url(),
        })
    }

    /// A token for a gateway that there is already. The certificate that it has stays good until the
    /// token is used.
    pub(crate) async fn new_gateway_token(&self, name: &str) -> Result<v1::AddGatewayResponse> {
        let token = Token::generate()?;
        let mut write = self.store.record(self.now_ms()).await?;
        let gateway = found("gateway", name, gateways::find(write.sql(), name)).await?;
        refuse_removing(&gateway)?;
        let expires_ms = write.now_ms() + TOKEN_LIFETIME_MS;
        gateways::set_token(write.sql(), &gateway.id, token.hash().as_str(), expires_ms).await?;
        let detail = json!({ "location": gateway.location });
        write
            .audit(by_admin("gateway.token", &gateway.name, detail))
            .await?;
        write.commit().await?;
        Ok(v1::AddGatewayResponse {
            gateway: Some(self.gateway_view(gateway, Vec::new())),
            token: token.expose().to_owned(),
            ca_fingerprint: self.ca.fingerprint(),
            control_url: self.config.control_url(),
        })
    }

    /// Whether this certificate is what the gateway of this name enrolled with last, at this
    /// location, and good for a while longer.
    pub(crate) async fn is_gateway_enrolled(
        &self,
        name: &str,
        location: &str,
        certificate: &[u8],
    ) -> Result<bool> {
        let mut read = self.store.read().await?;
        let gateway = gateways::find(read.sql(), name).await?;
        read.end().await?;
        let hash = certificate_hash(certificate);
        let ours = gateway.is_some_and(|gateway| {
            gateway.name == name
                && gateway.location == location
                && gateway.certificate == Some(hash)
        });
        Ok(ours && !self.is_certificate_ending(certificate))
    }

    pub(crate) fn is_certificate_ending(&self, certificate: &[u8]) -> bool {
        let good_until_ms = expires_ms(certificate).unwrap_or(0);
        good_until_ms.saturating_sub(self.now_ms()) <= RENEW_WITHIN_MS
    }

    /// A token for the gateway of this name at this location, which is made where there is none.
    /// For a control service that is its own gateway.
    pub(crate) async fn gateway_token(&self, name: &str, location: &str) -> Result<Token> {
        let name = Name::parse("gateway", name)?;
        let token = Token::generate()?;
        let mut write = self.store.change(self.now_ms()).await?;
        let now_ms = write.now_ms();
        let location = found("location", location, locations::find(write.sql(), location)).await?;
        let id = match gateways::find(write.sql(), name.as_str()).await? {
            Some(gateway) if gateway.location_id == location.id => {
                refuse_removing(&gateway)?;
                gateway.id
            }
            Some(gateway) => {
                return Err(OperationError::Precondition(format!(
                    "gateway {:?} belongs to location {:?}, not to {:?}",
                    gateway.name, gateway.location, location.name
                )));
            }
            None => {
                let id = new_id();
                gateways::insert(write.sql(), &id, name.as_str(), &location.id, now_ms).await?;
                id
            }
        };
        gateways::set_token(
            write.sql(),
            &id,
            token.hash().as_str(),
            now_ms + TOKEN_LIFETIME_MS,
        )
        .await?;
        let entry = Entry {
            actor: "system",
            action: "gateway.token",
            subject: name.as_str(),
            detail: json!({ "location": location.name }),
        };
        write.audit(entry).await?;
        write.commit().await?;
        Ok(token)
    }

    /// Spends a token. Any certificate that the gateway had before is worth nothing afterwards.
    pub(crate) async fn enroll(&self, token: &str, csr_der: &[u8]) -> Result<Enrolled> {
        let refused = || OperationError::Precondition(TOKEN_REFUSED.into());
        let hash = TokenHash::of(token);
        // Anybody may call this: whoever has no token does not get as far as the writers' queue.
        let mut read = self.store.read().await?;
        let known = gateways::has_token(read.sql(), hash.as_str(), self.now_ms()).await?;
        read.end().await?;
        if !known {
            return Err(refused());
        }
        let mut write = self.store.change(self.now_ms()).await?;
        let now_ms = write.now_ms();
        let gateway = gateways::take_token(write.sql(), hash.as_str(), now_ms)
            .await?
            .ok_or_else(refused)?;
        let certificate = self.ca.gateway(&gateway.id, csr_der, now_ms)?;
        gateways::set_certificate(write.sql(), &gateway.id, &certificate_hash(&certificate))
            .await?;
        let actor = format!("gateway:{}", gateway.name);
        let entry = Entry {
            actor: &actor,
            action: "gateway.enroll",
            subject: &gateway.name,
            detail: json!({}),
        };
        write.audit(entry).await?;
        write.commit().await?;
        Ok(Enrolled {
            certificate_der: certificate.to_vec(),
            gateway: gateway.name,
            location: gateway.location,
        })
    }

    /// Pins the WireGuard public key that a gateway has at its first connection after an enrolment:
    /// clients are configured with it. Another one later is an error, until it enrols again.
    pub(crate) async fn note_gateway_key(
        &self,
        gateway: &GatewayRow,
        key: DeviceKey,
    ) -> Result<()> {
        if gateway.key_pinned {
            return match gateway.public_key {
                Some(pinned) if pinned == key => Ok(()),
                _ => Err(OperationError::Precondition(format!(
                    "gateway {:?} has another WireGuard key than when it enrolled: restore the old one, or enrol again with `portcullis gateway token {}`",
                    gateway.name, gateway.name
                ))),
            };
        }
        let mut write = self.store.record(self.now_ms()).await?;
        let certificate = gateway.certificate.as_deref();
        if !gateways::is_enrolled(write.sql(), &gateway.id, certificate).await? {
            return Err(OperationError::Precondition(
                "this gateway has been removed or enrolled again".into(),
            ));
        }
        if let Some(device) = devices::find_by_key(write.sql(), key).await? {
            return Err(OperationError::Precondition(format!(
                "gateway {:?} has the WireGuard key of device {:?}: give the gateway a new one, or remove the device",
                gateway.name, device.name
            )));
        }
        gateways::set_public_key(write.sql(), &gateway.id, key).await?;
        let actor = format!("gateway:{}", gateway.name);
        let entry = Entry {
            actor: &actor,
            action: "gateway.key",
            subject: &gateway.name,
            detail: json!({ "public_key": key.to_base64() }),
        };
        write.audit(entry).await?;
        write.commit().await?;
        Ok(())
    }

    pub(crate) async fn list_gateways(&self) -> Result<v1::Gateways> {
        let mut read = self.store.read().await?;
        let mut views = Vec::new();
        for gateway in gateways::list(read.sql(), "").await? {
            let reasons = gateways::reasons(read.sql(), &gateway.id).await?;
            views.push(self.gateway_view(gateway, reasons));
        }
        read.end().await?;
        Ok(v1::Gateways { gateways: views })
    }

    pub(crate) async fn get_gateway(&self, name: &str) -> Result<v1::Gateway> {
        let mut read = self.store.read().await?;
        let gateway = found("gateway", name, gateways::find(read.sql(), name)).await?;
        let reasons = gateways::reasons(read.sql(), &gateway.id).await?;
        read.end().await?;
        Ok(self.gateway_view(gateway, reasons))
    }

    /// Tells the gateway to let go of every peer, and waits a moment for it. Its row stays until it
    /// has, or until nothing that it can hold is open any more; then it is refused. One that never
    /// enrolled holds nothing and goes at once, and so does any other by `force`.
    pub(crate) async fn remove_gateway(
        &self,
        request: v1::RemoveGatewayRequest,
    ) -> Result<v1::RevocationStatus> {
        let name = &request.name;
        let mut write = self.store.change(self.now_ms()).await?;
        let now_ms = write.now_ms();
        let gateway = found("gateway", name, gateways::find(write.sql(), name)).await?;
        let enrolled = gateway.certificate.is_some();
        let open_until_ms = match (enrolled, gateway.removing) {
            (false, _) => 0,
            // Nothing granted since was sent to it.
            (true, true) => gateway.open_until_ms,
            (true, false) => {
                gateways::set_removing(write.sql(), &gateway, now_ms, OPEN_MARGIN_MS).await?
            }
        };
        let at_once = request.force || !enrolled;
        if at_once {
            gateways::delete(write.sql(), &gateway.id).await?;
        }
        let detail = json!({ "force": request.force, "open_until_ms": open_until_ms });
        write
            .audit(by_admin("gateway.remove", &gateway.name, detail))
            .await?;
        let committed = Instant::now();
        let revision = write.commit().await?;
        let mut status = v1::RevocationStatus {
            revision,
            open_until_ms: if enrolled { open_until_ms } else { 0 },
            ..Default::default()
        };
        if !at_once {
            let state = self.until_gone(&gateway, committed).await?;
            if state.acknowledged {
                status.open_until_ms = 0;
            }
            status.gateways.push(state);
        }
        Ok(status)
    }

    /// Waits a moment for a gateway's row to go.
    async fn until_gone(
        &self,
        gateway: &GatewayRow,
        committed: Instant,
    ) -> Result<v1::GatewayRevocation> {
        let mut changes = self.fleet.changes();
        loop {
            changes.mark_unchanged();
            let mut read = self.store.read().await?;
            let row = gateways::find(read.sql(), &gateway.id).await?;
            read.end().await?;
            let took = committed.elapsed();
            if row.is_none() || took >= REMOVED_WITHIN {
                let gone = row.is_none();
                return Ok(v1::GatewayRevocation {
                    gateway: gateway.name.clone(),
                    acknowledged: gone,
                    connected: self.fleet.status(&gateway.id).is_some(),
                    removing: true,
                    applied_revision: to_u64(row.map_or(0, |row| row.applied_revision)),
                    took_ms: if gone {
                        u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
                    } else {
                        0
                    },
                });
            }
            // The gateway may be connected to another control process: look again all the same.
            let _ = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
        }
    }

    /// Forgets a gateway that has acknowledged that it holds no peer.
    pub(crate) async fn gateway_let_go(&self, gateway: &GatewayRow) -> Result<()> {
        let mut write = self.store.change(self.now_ms()).await?;
        gateways::delete(write.sql(), &gateway.id).await?;
        let actor = format!("gateway:{}", gateway.name);
        let entry = Entry {
            actor: &actor,
            action: "gateway.removed",
            subject: &gateway.name,
            detail: json!({ "because": "it holds no peer any more" }),
        };
        write.audit(entry).await?;
        write.commit().await?;
        Ok(())
    }

    fn gateway_view(&self, gateway: GatewayRow, reasons: Vec<Reason>) -> v1::Gateway {
        let live = self.fleet.status(&gateway.id);
        let applied = live
            .map_or(0, |live| live.applied)
            .max(to_u64(gateway.applied_revision));
        let newest = self.store.revision();
        v1::Gateway {
            connected: live.is_some(),
            applied_revision: applied,
            in_sync: live.is_some_and(|live| live.as_expected && live.applied >= newest),
            last_seen_ms: if live.is_some() {
                self.now_ms()
            } else {
                gateway.last_seen_ms
            },
            id: gateway.id,
            name: gateway.name,
            location: gateway.location,
            public_key: gateway
                .public_key
                .map(|key| key.as_bytes().to_vec())
                .unwrap_or_default(),
            enrolled: gateway.certificate.is_some(),
            removing: gateway.removing,
            open_until_ms: gateway.open_until_ms,
            reasons: reasons
                .into_iter()
                .map(|count| v1::ReasonCount {
                    reason: count.reason,
                    direction: count.direction,
                    packets: count.packets,
                })
                .collect(),
        }
    }
}

/// One that is being removed comes back under another enrolment only once it is gone.
fn refuse_removing(gateway: &GatewayRow) -> Result<()> {
    if gateway.removing {
        return Err(OperationError::Precondition(format!(
            "gateway {:?} is being removed; wait until it is gone, or drop it with `portcullis gateway remove {} --force`",
            gateway.name, gateway.name
        )));
    }
    Ok(())
}
