//! What would become of a packet: asked of a gateway, which reads its kernel, or else of the store.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway_common::abi::{
    AddressV4, AddressV6, Direction, NO_RULE, PeerState, RuleOutcome, ServiceKey, Settings,
};
use gateway_common::explain::{Explained, Question, Rules, Scene, explain};
use gateway_common::verdict::{Reason, Verdict};
use portcullis_proto::v1::{self, control_message::Message};
use sqlx::AnyConnection;
use tokio::sync::oneshot;

use super::{Result, found};
use crate::core::Core;
use crate::error::OperationError;
use crate::grpc::open_services;
use crate::policy::CompiledPolicy;
use crate::store::devices::DeviceRow;
use crate::store::gateways::GatewayRow;
use crate::store::{devices, gateways, locations, sessions, to_u64};
use crate::text;

/// How long a gateway may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Questions that gateways have yet to answer.
#[derive(Debug, Default)]
pub(crate) struct Questions(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    last: u64,
    by_id: HashMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    /// Id of the gateway.
    of: String,
    asker: oneshot::Sender<v1::Explained>,
}

impl Questions {
    /// Takes the answer of the gateway of this id; nobody may wait for it any more. Numbers can be
    /// guessed, so what another gateway was asked is not its to answer.
    pub(crate) fn answer(&self, gateway: &str, mut answer: v1::Explained) {
        let mut open = self.lock();
        match open.by_id.remove(&answer.id) {
            Some(asked) if asked.of == gateway => {
                tidy(&mut answer);
                let _ = asked.asker.send(answer);
            }
            Some(asked) => {
                tracing::warn!(gateway, "a gateway answered what another was asked");
                open.by_id.insert(answer.id, asked);
            }
            None => {}
        }
    }

    fn ask(&self, gateway: &str) -> (u64, oneshot::Receiver<v1::Explained>) {
        let (asker, receiver) = oneshot::channel();
        let of = gateway.to_owned();
        let mut open = self.lock();
        open.by_id.retain(|_, asked| !asked.asker.is_closed());
        open.last += 1;
        let id = open.last;
        open.by_id.insert(id, Asked { of, asker });
        (id, receiver)
    }

    /// The table is valid after every single step, also of a thread that panicked.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Leaves what administrators can be shown: texts of some length, without what a terminal obeys.
fn tidy(answer: &mut v1::Explained) {
    let explanation = answer.explanation.iter_mut();
    let texts = explanation.flat_map(|found| [&mut found.rule, &mut found.ends_by]);
    for text in texts.chain([&mut answer.failure]) {
        let said = !text.is_empty();
        text::tidy(text, text::LONGEST);
        if said && text.is_empty() {
            // That there was something decides whether it is a failure.
            *text = "?".to_owned();
        }
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

/// A packet as one of the programs meets it.
struct Packet<'a> {
    device: &'a DeviceRow,
    direction: Direction,
    /// The device's address, of the other end's family.
    own: IpAddr,
    remote: IpAddr,
    protocol: u8,
    port: u16,
}

/// Whose kernel answered, empty for none, and what.
type Answer = (String, v1::Explanation);

impl Core {
    pub(crate) async fn explain(&self, request: v1::ExplainRequest) -> Result<v1::ExplainResponse> {
        let remote: IpAddr = request.remote.parse().map_err(|_| {
            OperationError::invalid(format!("{:?} is not an IP address", request.remote))
        })?;
        let protocol = u8::try_from(request.protocol).map_err(|_| {
            OperationError::invalid(format!("{} is not an IP protocol number", request.protocol))
        })?;
        let port = u16::try_from(request.port)
            .map_err(|_| OperationError::invalid(format!("{} is not a port", request.port)))?;
        let mut read = self.store.read().await?;
        let device = match device(read.sql(), &request.device).await {
            Err(OperationError::NotFound { .. }) if request.device.parse::<IpAddr>().is_ok() => {
                return Ok(nobody());
            }
            found => found?,
        };
        let addresses = devices::addresses_of(read.sql(), &device.id).await?;
        let other = devices::find_by_address(read.sql(), &remote.to_string()).await?;
        let other = other.filter(|other| other.location_id == device.location_id);
        let mut gateways = gateways::list(read.sql(), "").await?;
        read.end().await?;
        // One that is being removed is told to hold no peer, and would know none.
        gateways.retain(|gateway| gateway.location_id == device.location_id && !gateway.removing);
        let own = own_address(&device, &addresses, remote)?;
        let side = |device, direction, own, remote| Packet {
            device,
            direction,
            own,
            remote,
            protocol,
            port,
        };
        let asked = match request.direction {
            0 => Direction::FromPeer,
            _ => Direction::ToPeer,
        };
        let mut response = v1::ExplainResponse {
            device: device.name.clone(),
            user: device.user.clone(),
            location: device.location.clone(),
            ..v1::ExplainResponse::default()
        };
        let here = side(&device, asked, own, remote);
        let Some(other) = &other else {
            let (gateway, explanation) = self.explain_at(&gateways, &here).await?;
            response.gateway = gateway;
            response.explanation = Some(explanation);
            return Ok(response);
        };
        // Between two devices the packet meets both programs, and has to satisfy both.
        let sides = match asked {
            Direction::FromPeer => [here, side(other, Direction::ToPeer, remote, own)],
            Direction::ToPeer => [side(other, Direction::FromPeer, remote, own), here],
        };
        let first = self.explain_at(&gateways, &sides[0]).await?;
        let (deciding, (gateway, explanation)) = if passes(&first.1) {
            let second = self.explain_at(&gateways, &sides[1]).await?;
            if ends_sooner(&first.1, &second.1) {
                (&sides[0], first)
            } else {
                (&sides[1], second)
            }
        } else {
            (&sides[0], first)
        };
        response.gateway = gateway;
        response.explanation = Some(explanation);
        response.decided_at = deciding.device.name.clone();
        response.decided_direction = deciding.direction as u32;
        Ok(response)
    }

    /// What one of the programs makes of the packet.
    async fn explain_at(&self, gateways: &[GatewayRow], packet: &Packet<'_>) -> Result<Answer> {
        for gateway in gateways {
            let (id, answer) = self.questions.ask(&gateway.id);
            let question = v1::Explain {
                id,
                public_key: packet.device.public_key.as_bytes().to_vec(),
                direction: packet.direction as u32,
                remote: packet.remote.to_string(),
                protocol: packet.protocol.into(),
                port: packet.port.into(),
            };
            if !self.fleet.send(&gateway.id, Message::Explain(question)) {
                continue;
            }
            // One that does not answer in time is as good as away.
            let Ok(Ok(answer)) = tokio::time::timeout(ANSWER_WITHIN, answer).await else {
                continue;
            };
            return match answer.explanation {
                Some(explanation) if answer.failure.is_empty() => {
                    Ok((gateway.name.clone(), explanation))
                }
                _ => Err(OperationError::Precondition(format!(
                    "gateway {}: {}",
                    gateway.name, answer.failure
                ))),
            };
        }
        Ok((String::new(), self.explain_from_store(packet).await?))
    }

    /// As a gateway would decide that has just applied everything.
    async fn explain_from_store(&self, packet: &Packet<'_>) -> Result<v1::Explanation> {
        let device = packet.device;
        let mut read = self.store.read().await?;
        let location = locations::find(read.sql(), &device.location_id);
        let location = found("location", &device.location, location).await?;
        let live = self.policies.live(read.sql()).await?;
        let now_ms = self.now_ms();
        let own = packet.own.to_string();
        let session = sessions::find_live_by_address(read.sql(), &own, now_ms).await?;
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
        let explained = ask(&scene, packet, ns(now_ms));
        let rule = compiled
            .filter(|_| explained.decision.rule != NO_RULE)
            .and_then(|tables| tables.rule_name(explained.decision.rule));
        Ok(v1::Explanation::new(&explained, rule, ns(now_ms)))
    }
}

/// What every gateway makes of an address that no device has.
fn nobody() -> v1::ExplainResponse {
    v1::ExplainResponse {
        explanation: Some(v1::Explanation {
            reason: Reason::UnknownPeer as u32,
            ..v1::Explanation::default()
        }),
        ..v1::ExplainResponse::default()
    }
}

fn own_address(device: &DeviceRow, addresses: &[String], remote: IpAddr) -> Result<IpAddr> {
    let own = addresses
        .iter()
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .find(|own| own.is_ipv4() == remote.is_ipv4());
    own.ok_or_else(|| {
        let family = if remote.is_ipv4() { "IPv4" } else { "IPv6" };
        OperationError::Precondition(format!("device {:?} has no {family} address", device.name))
    })
}

fn passes(explanation: &v1::Explanation) -> bool {
    u8::try_from(explanation.reason)
        .ok()
        .and_then(Reason::from_number)
        .is_some_and(|reason| reason.verdict() == Verdict::Pass)
}

/// Whether the first side, which passes, is what will end a verdict of both.
fn ends_sooner(first: &v1::Explanation, second: &v1::Explanation) -> bool {
    passes(second)
        && first.ends_in_ms != 0
        && (second.ends_in_ms == 0 || first.ends_in_ms <= second.ends_in_ms)
}

fn ask<S: Fn(&ServiceKey) -> bool>(
    scene: &Scene<'_, S, CompiledPolicy>,
    packet: &Packet<'_>,
    now: u64,
) -> Explained {
    match (packet.own, packet.remote) {
        (IpAddr::V4(own), IpAddr::V4(remote)) => {
            let (own, remote) = (AddressV4::from(own), AddressV4::from(remote));
            explain(scene, &packet.question(own, remote), now)
        }
        (own, remote) => {
            let v6 = |address: IpAddr| match address {
                IpAddr::V4(v4) => AddressV6::from(v4.to_ipv6_mapped()),
                IpAddr::V6(v6) => AddressV6::from(v6),
            };
            explain(scene, &packet.question(v6(own), v6(remote)), now)
        }
    }
}

impl Packet<'_> {
    fn question<A>(&self, peer: A, remote: A) -> Question<A> {
        Question {
            direction: self.direction,
            peer,
            remote,
            protocol: self.protocol,
            port: self.port,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_gateway_that_was_asked_answers() {
        let questions = Questions::default();
        let (id, mut answer) = questions.ask("gw1");
        let explained = |failure: &str| v1::Explained {
            id,
            failure: failure.into(),
            ..v1::Explained::default()
        };
        questions.answer("gw2", explained("a lie"));
        assert!(answer.try_recv().is_err(), "nobody has answered");
        questions.answer("gw1", explained("the truth"));
        assert_eq!(answer.try_recv().unwrap().failure, "the truth");
        // Once.
        questions.answer("gw1", explained("again"));
    }

    #[test]
    fn what_a_gateway_answers_is_short_and_nothing_that_a_terminal_obeys() {
        let questions = Questions::default();
        let answered = |failure: String, name: String| {
            let (id, mut answer) = questions.ask("gw1");
            let explanation = v1::Explanation {
                rule: name.clone(),
                ends_by: name,
                ..v1::Explanation::default()
            };
            let explained = v1::Explained {
                id,
                explanation: Some(explanation),
                failure,
            };
            questions.answer("gw1", explained);
            answer.try_recv().unwrap()
        };
        let long = answered("x".repeat(1 << 20), "é".repeat(1 << 20));
        assert_eq!(long.failure, "x".repeat(256));
        let explanation = long.explanation.unwrap();
        assert_eq!(explanation.rule, "é".repeat(256));
        assert_eq!(explanation.ends_by, "é".repeat(256));
        let loud = answered("\u{1b}[2Jno\n".into(), "ssh\u{202e}".into());
        assert_eq!(loud.failure, "[2Jno");
        let explanation = loud.explanation.unwrap();
        assert_eq!((&*explanation.rule, &*explanation.ends_by), ("ssh", "ssh"));
        // It is a failure still.
        assert_eq!(answered("\u{1b}".into(), String::new()).failure, "?");
    }
}
