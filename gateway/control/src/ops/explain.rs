//! What would become of a packet: asked of a gateway, which reads its kernel, or else of the store.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway_common::abi::{
    AddressV4, AddressV6, Direction, NO_RULE, PeerState, RuleOutcome, ServiceKey, Settings,
};
use gateway_common::explain::{Explained, Question, Rules, Scene, explain};
use portcullis_proto::v1::{self, control_message::Message};
use sqlx::AnyConnection;
use tokio::sync::oneshot;

use super::{Result, found};
use crate::core::Core;
use crate::error::OperationError;
use crate::grpc::open_services;
use crate::policy::CompiledPolicy;
use crate::store::devices::DeviceRow;
use crate::store::{devices, gateways, locations, sessions, to_u64};

/// How long a gateway may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Questions that gateways have yet to answer.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    by_id: HashMap<u64, oneshot::Sender<v1::Explained>>,
}

impl Questions {
    /// Takes a gateway's answer; nobody may wait for it any more.
    pub(crate) fn answer(&self, answer: v1::Explained) {
        if let Some(asker) = self.lock().by_id.remove(&answer.id) {
            let _ = asker.send(answer);
        }
    }

    fn ask(&self) -> (u64, oneshot::Receiver<v1::Explained>) {
        let (sender, receiver) = oneshot::channel();
        let mut open = self.lock();
        open.by_id.retain(|_, asker| !asker.is_closed());
        open.last += 1;
        let id = open.last;
        open.by_id.insert(id, sender);
        (id, receiver)
    }

    /// The table is valid after every single step, also of a thread that panicked.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A device by name, id, tunnel address or public key (base64).
pub(crate) async fn device(sql: &mut AnyConnection, text: &str) -> Result<DeviceRow> {
    if let Ok(address) = text.parse::<IpAddr>()
        && let Some(device) = devices::find_by_address(sql, &address.to_string()).await?
    {
        return Ok(device);
    }
    if let Some(key) = crate::domain::DeviceKey::from_store(text)
        && let Some(device) = devices::find_by_key(sql, key).await?
    {
        return Ok(device);
    }
    found("device", text, devices::find(sql, text)).await
}

impl Core {
    pub(crate) async fn explain(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse> {
        let remote: IpAddr = request.remote.parse().map_err(|_| {
            OperationError::invalid(format!("{:?} is not an IP address", request.remote))
        })?;
        let mut read = self.store.read().await?;
        let device = device(read.sql(), &request.device).await?;
        let mut gateways = gateways::list(read.sql(), "").await?;
        read.end().await?;
        // One that is being removed is told to hold no peer, and would know none.
        gateways.retain(|gateway| gateway.location_id == device.location_id && !gateway.removing);
        let mut response = v1::ExplainResponse {
            device: device.name.clone(),
            user: device.user.clone(),
            location: device.location.clone(),
            ..v1::ExplainResponse::default()
        };
        for gateway in gateways {
            let (id, answer) = self.questions.ask();
            let question = v1::Explain {
                id,
                public_key: device.public_key.as_bytes().to_vec(),
                direction: request.direction,
                remote: request.remote.clone(),
                protocol: request.protocol,
                port: request.port,
            };
            if !self.fleet.send(&gateway.id, Message::Explain(question)) {
                continue;
            }
            // One that does not answer in time is as good as away.
            let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_WITHIN, answer).await else {
                continue;
            };
            if !answer.failure.is_empty() {
                return Err(OperationError::Precondition(format!(
                    "gateway {}: {}",
                    gateway.name, answer.failure
                )));
            }
            response.gateway = gateway.name;
            response.explanation = answer.explanation;
            return Ok(response);
        }
        response.explanation = Some(self.explain_from_store(&device, &request, remote).await?);
        Ok(response)
    }

    /// As a gateway would decide that has just applied everything.
    async fn explain_from_store(
        &self,
        device: &DeviceRow,
        request: &v1::ExplainRequest,
        remote: IpAddr,
    ) -> Result<v1::Explanation> {
        let mut read = self.store.read().await?;
        let location = locations::find(read.sql(), &device.location_id);
        let location = found("location", &device.location, location).await?;
        let addresses = devices::addresses_of(read.sql(), &device.id).await?;
        let live = self.policies.live(read.sql()).await?;
        let now_ms = self.now_ms();
        let session = match addresses.first() {
            Some(address) => sessions::find_live_by_address(read.sql(), address, now_ms).await?,
            None => None,
        };
        read.end().await?;
        // The map clock of a gateway that started at the epoch.
        let ns = |ms: i64| to_u64(ms).saturating_mul(1_000_000);
        let mut peer = PeerState {
            policy: [live.class_of(&device.user_id); 2],
            ..PeerState::default()
        };
        if let Some(session) = session {
            peer.deadline = ns(session.deadline_ms);
            peer.idle_timeout = ns(session.idle_timeout_ms);
            peer.last_activity = ns(session.last_activity_ms);
            peer.authenticated_at = ns(session.authenticated_at_ms);
            peer.level = u8::try_from(i32::from(session.level)).unwrap_or(0);
            peer.tag = 1;
        }
        let services = open_services(&location)?;
        let services: Vec<ServiceKey> = services.iter().filter_map(service_key).collect();
        let filter = services.iter().fold(0, |filter, service| {
            filter | ServiceKey::filter_bit(service.port, service.protocol)
        });
        let compiled = live.compiled().map(|compiled| &compiled.tables);
        let scene = Scene {
            settings: Settings {
                flags: if compiled.is_some() {
                    Settings::POLICY
                } else {
                    0
                },
                service_filter: filter,
                ..Settings::default()
            },
            peer,
            is_service: |key: &ServiceKey| services.contains(key),
            rules: compiled,
        };
        let own = addresses
            .iter()
            .filter_map(|address| address.parse::<IpAddr>().ok())
            .find(|own| own.is_ipv4() == remote.is_ipv4())
            .ok_or_else(|| {
                let family = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
                OperationError::Precondition(format!(
                    "device {:?} has no {family} address",
                    device.name
                ))
            })?;
        let explained = ask(&scene, request, own, remote, ns(now_ms))?;
        let rule = compiled
            .filter(|_| explained.decision.rule != NO_RULE)
            .and_then(|tables| tables.rule_name(explained.decision.rule));
        Ok(v1::Explanation::new(&explained, rule, ns(now_ms)))
    }
}

fn ask<S: Fn(&ServiceKey) -> bool>(
    scene: &Scene<'_, S, CompiledPolicy>,
    request: &v1::ExplainRequest,
    own: IpAddr,
    remote: IpAddr,
    now: u64,
) -> Result<Explained> {
    let direction = if request.direction == 0 {
        Direction::FromPeer
    } else {
        Direction::ToPeer
    };
    let protocol = u8::try_from(request.protocol).map_err(|_| {
        OperationError::invalid(format!("{} is not an IP protocol number", request.protocol))
    })?;
    let port = u16::try_from(request.port)
        .map_err(|_| OperationError::invalid(format!("{} is not a port", request.port)))?;
    Ok(match (own, remote) {
        (IpAddr::V4(own), IpAddr::V4(remote)) => {
            let (peer, remote) = (AddressV4::from(own), AddressV4::from(remote));
            explain(
                scene,
                &Question {
                    direction,
                    peer,
                    remote,
                    protocol,
                    port,
                },
                now,
            )
        }
        (own, remote) => {
            let v6 = |address: IpAddr| match address {
                IpAddr::V4(v4) => AddressV6::from(v4.to_ipv6_mapped()),
                IpAddr::V6(v6) => AddressV6::from(v6),
            };
            let (peer, remote) = (v6(own), v6(remote));
            explain(
                scene,
                &Question {
                    direction,
                    peer,
                    remote,
                    protocol,
                    port,
                },
                now,
            )
        }
    })
}

fn service_key(service: &v1::OpenService) -> Option<ServiceKey> {
    let address: IpAddr = service.address.parse().ok()?;
    Some(ServiceKey {
        address: address.into(),
        port: u16::try_from(service.port).ok()?,
        protocol: u8::try_from(service.protocol).ok()?,
        pad: 0,
    })
}

impl Rules for CompiledPolicy {
    fn rule(
        &self,
        class: u32,
        direction: Direction,
        remote: IpAddr,
        protocol: u8,
        port: u16,
    ) -> RuleOutcome {
        self.lookup(class, direction, remote, protocol, port)
    }
}
