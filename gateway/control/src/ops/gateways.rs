//! Gateways: adding, enrolling, removing.

use portcullis_proto::v1;
use serde_json::json;

use super::{Result, by_admin, found, new_id};
use crate::ca::certificate_hash;
use crate::core::Core;
use crate::domain::{DeviceKey, Name};
use crate::error::OperationError;
use crate::secrets::{Token, TokenHash};
use crate::store::gateways::{self, GatewayRow, Reason};
use crate::store::{Entry, locations, to_u64};

const TOKEN_LIFETIME_MS: i64 = 60 * 60 * 1000;

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

    /// A token for the gateway of this name at this location, which is made where there is none.
    /// For a control service that is its own gateway.
    pub(crate) async fn gateway_token(&self, name: &str, location: &str) -> Result<Token> {
        let name = Name::parse("gateway", name)?;
        let token = Token::generate()?;
        let mut write = self.store.change(self.now_ms()).await?;
        let now_ms = write.now_ms();
        let location = found("location", location, locations::find(write.sql(), location)).await?;
        let id = match gateways::find(write.sql(), name.as_str()).await? {
            Some(gateway) if gateway.location_id == location.id => gateway.id,
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
        let mut write = self.store.change(self.now_ms()).await?;
        let now_ms = write.now_ms();
        let hash = TokenHash::of(token);
        let gateway = gateways::take_token(write.sql(), hash.as_str(), now_ms)
            .await?
            .ok_or_else(|| {
                OperationError::Precondition("this token is unknown, used up or too old".into())
            })?;
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

    /// Notes the WireGuard public key that a gateway says it has.
    pub(crate) async fn note_gateway_key(
        &self,
        gateway: &GatewayRow,
        key: DeviceKey,
    ) -> Result<()> {
        if gateway.public_key == Some(key) {
            return Ok(());
        }
        let mut write = self.store.record(self.now_ms()).await?;
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

    /// Its certificate is refused from now on, and its stream ends.
    pub(crate) async fn remove_gateway(&self, name: &str) -> Result<()> {
        let mut write = self.store.change(self.now_ms()).await?;
        let gateway = found("gateway", name, gateways::find(write.sql(), name)).await?;
        gateways::delete(write.sql(), &gateway.id).await?;
        write
            .audit(by_admin("gateway.remove", &gateway.name, json!({})))
            .await?;
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
