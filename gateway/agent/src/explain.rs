//! What would become of a packet, by what the kernel holds now.

use std::net::IpAddr;

use gateway_common::abi::{AddressV4, AddressV6, Direction, NO_RULE, ServiceKey};
use gateway_common::explain::{Question, Scene, explain as judge};
use gateway_common::verdict::Reason;
use portcullis_proto::v1;

use crate::datapath;
use crate::engine::Engine;
use crate::keys::{KeyError, PublicKey};

/// Why there is no explanation.
#[derive(Debug, thiserror::Error)]
enum ExplainError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Datapath(#[from] datapath::DatapathError),
    #[error("{0:?} is not an IP address")]
    Address(String),
    #[error("the peer has no address of the family of {0}")]
    Family(IpAddr),
    #[error("{0} is not an IP protocol number")]
    Protocol(u32),
    #[error("{0} is not a port")]
    Port(u32),
    #[error("the kernel holds another policy than control has sent: ask again in a moment")]
    OtherPolicy,
}

/// Answers control's question.
pub(crate) fn explain(engine: &Engine, question: v1::Explain) -> v1::Explained {
    let id = question.id;
    match explanation(engine, &question) {
        Ok(explanation) => v1::Explained {
            id,
            explanation: Some(explanation),
            failure: String::new(),
        },
        Err(error) => v1::Explained {
            id,
            explanation: None,
            failure: error.to_string(),
        },
    }
}

fn explanation(engine: &Engine, question: &v1::Explain) -> Result<v1::Explanation, ExplainError> {
    let key = PublicKey::try_from(question.public_key.as_slice())?;
    let remote: IpAddr = question
        .remote
        .parse()
        .map_err(|_| ExplainError::Address(question.remote.clone()))?;
    let direction = match question.direction {
        0 => Direction::FromPeer,
        _ => Direction::ToPeer,
    };
    let protocol =
        u8::try_from(question.protocol).map_err(|_| ExplainError::Protocol(question.protocol))?;
    let port = u16::try_from(question.port).map_err(|_| ExplainError::Port(question.port))?;
    let datapath = engine.datapath();
    let (Some(view), Some(held)) = (
        datapath.read_peer(key.as_bytes())?,
        datapath.snapshot(key.as_bytes())?,
    ) else {
        // What control knows has not reached the kernel yet: to the programs its address is nobody's.
        return Ok(v1::Explanation {
            reason: Reason::UnknownPeer as u32,
            ..v1::Explanation::default()
        });
    };
    let own = view
        .addresses
        .iter()
        .map(|network| network.addr())
        .find(|own| own.is_ipv4() == remote.is_ipv4())
        .ok_or(ExplainError::Family(remote))?;
    // Rules by name are known of the policy that control has sent; the kernel must hold that one.
    let (id, tables) = engine.policy();
    if id != held.settings.policy_id() {
        return Err(ExplainError::OtherPolicy);
    }
    let scene = Scene {
        settings: held.settings,
        peer: held.state,
        is_service: |key: &ServiceKey| held.services.contains(key),
        rules: tables,
    };
    let now = datapath::now();
    let explained = match (own, remote) {
        (IpAddr::V4(own), IpAddr::V4(remote)) => {
            let (peer, remote) = (AddressV4::from(own), AddressV4::from(remote));
            judge(
                &scene,
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
            let (peer, remote) = (AddressV6::from(own), AddressV6::from(remote));
            judge(
                &scene,
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
    };
    let rule = Some(engine.rule_name(explained.decision.rule))
        .filter(|_| explained.decision.rule != NO_RULE);
    Ok(v1::Explanation::new(&explained, rule, now))
}
