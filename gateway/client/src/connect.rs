//! The login that comes before a session-key location's tunnel.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_trust::Claim;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::portal::{Attempt, LoggedOut, PortalClient, PortalError, Session, answer};
use crate::{KeyPair, PublicKey};

/// Everything that a tunnel needs, shown once.
pub struct Connection {
    /// What was granted.
    pub session: Session,
    /// Base64, 32 bytes.
    pub preshared_key: Zeroizing<String>,
    /// What to set up.
    pub tunnel: Tunnel,
    token: Zeroizing<String>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("session", &self.session)
            .field("tunnel", &self.tunnel)
            .finish_non_exhaustive()
    }
}

/// What a last factor leads to.
#[derive(Debug)]
pub enum Granted {
    /// A session of its own.
    New(Connection),
    /// The device's session goes on.
    Renewed(Renewal),
}

/// What a tunnel that is up goes on with, shown once.
pub struct Renewal {
    /// With its new deadline.
    pub session: Session,
    /// Base64, 32 bytes.
    pub preshared_key: Zeroizing<String>,
    /// As it is set up already.
    pub tunnel: Tunnel,
}

impl fmt::Debug for Renewal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewal")
            .field("session", &self.session)
            .field("tunnel", &self.tunnel)
            .finish_non_exhaustive()
    }
}

/// A WireGuard tunnel, but for its keys' private halves.
#[derive(Clone, Debug, Deserialize)]
pub struct Tunnel {
    /// The device's own; a bare address stands for itself alone.
    pub addresses: Vec<String>,
    /// Resolvers.
    pub dns: Vec<String>,
    /// Bytes; 0: up to the client.
    pub mtu: u32,
    /// The gateway's, base64.
    pub server_public_key: String,
    /// `host:port` of the gateway.
    pub endpoint: String,
    /// What is routed into the tunnel.
    pub allowed_ips: Vec<String>,
    /// Seconds; 0: off.
    pub persistent_keepalive_s: u32,
}

/// What became of a session.
#[derive(Clone, Debug, Deserialize)]
pub struct Connected {
    /// With its deadline as it is now.
    pub session: Session,
    /// Whether it goes on.
    pub live: bool,
    /// `live`, `revoked`, `expired`, `idle` or `replaced`.
    pub state: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(crate) enum Step {
    Granted(Box<GrantedJson>),
    Next(Attempt),
}

/// A challenge and its answer.
pub(crate) struct Proven {
    pub(crate) public_key: String,
    pub(crate) challenge: String,
    pub(crate) proof: Zeroizing<String>,
}

impl Step {
    fn granted(self) -> Result<Granted, PortalError> {
        match self {
            Self::Granted(granted) => Ok((*granted).into()),
            Self::Next(next) => Err(PortalError::Refused(format!(
                "this location asks for one more factor, which a terminal cannot present ({})",
                next.factors.join(", ")
            ))),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum PhoneAnswer {
    Step(Step),
    Waiting {
        #[serde(rename = "state")]
        _state: String,
    },
}

/// What is to be shown for a phone.
#[derive(Clone, Debug, Deserialize)]
pub struct PhoneAsked {
    /// For a QR code, which the phone opens. Names the login: not for anybody else.
    pub url: String,
    /// To be typed there.
    pub number: u8,
    /// Seconds.
    pub expires_in_s: u64,
}

#[derive(Deserialize)]
pub(crate) struct GrantedJson {
    session: Session,
    /// A session that is renewed keeps its own.
    token: Option<String>,
    preshared_key: String,
    tunnel: Tunnel,
}

impl From<GrantedJson> for Granted {
    fn from(json: GrantedJson) -> Self {
        let GrantedJson {
            session,
            token,
            preshared_key,
            tunnel,
        } = json;
        let preshared_key = Zeroizing::new(preshared_key);
        match token.map(Zeroizing::new) {
            Some(token) => Self::New(Connection {
                session,
                preshared_key,
                tunnel,
                token,
            }),
            None => Self::Renewed(Renewal {
                session,
                preshared_key,
                tunnel,
            }),
        }
    }
}

impl PortalClient {
    /// Proves the device's key to the location and gives the first factor. The login opens a session, or renews the
    /// one that the device has.
    pub fn begin_connect(
        &self,
        location: &str,
        device: &KeyPair,
        username: &str,
        password: &str,
        renew: bool,
    ) -> Result<Attempt, PortalError> {
        #[derive(Serialize)]
        struct Begin<'a> {
            location: &'a str,
            public_key: &'a str,
            challenge: &'a str,
            proof: &'a str,
            username: &'a str,
            password: &'a str,
            renew: bool,
        }
        let proven = self.prove_device(location, device, username)?;
        let begin = Begin {
            location,
            public_key: &proven.public_key,
            challenge: &proven.challenge,
            proof: &proven.proof,
            username,
            password,
            renew,
        };
        let url = format!("{}/connect", self.base);
        match answer(self.agent.post(&url).send_json(begin)?)? {
            Step::Next(attempt) => Ok(attempt),
            // No location is content with a password.
            Step::Granted(_) => Err(PortalError::OneFactor),
        }
    }

    /// Makes the device's key known, with what an administrator has given out for this user and this location.
    pub fn enrol_device(
        &self,
        location: &str,
        device: &KeyPair,
        username: &str,
        invitation: &str,
        called: &str,
    ) -> Result<(), PortalError> {
        #[derive(Serialize)]
        struct Enrol<'a> {
            location: &'a str,
            public_key: &'a str,
            challenge: &'a str,
            proof: &'a str,
            username: &'a str,
            invitation: &'a str,
            name: &'a str,
        }
        #[derive(Deserialize)]
        struct Enrolled {}
        let proven = self.prove_device(location, device, username)?;
        let enrol = Enrol {
            location,
            public_key: &proven.public_key,
            challenge: &proven.challenge,
            proof: &proven.proof,
            username,
            invitation,
            name: called,
        };
        let url = format!("{}/connect/enrol", self.base);
        let Enrolled {} = answer(self.agent.post(&url).send_json(enrol)?)?;
        Ok(())
    }

    /// Answers a challenge for the device's key.
    pub(crate) fn prove_device(
        &self,
        location: &str,
        device: &KeyPair,
        username: &str,
    ) -> Result<Proven, PortalError> {
        #[derive(Serialize)]
        struct To<'a> {
            location: &'a str,
            public_key: &'a str,
        }
        #[derive(Deserialize)]
        struct Challenge {
            challenge: String,
            location_key: String,
        }
        let device_key = device.public();
        let public_key = device_key.to_string();
        let to = To {
            location,
            public_key: &public_key,
        };
        let url = format!("{}/connect/challenge", self.base);
        let given: Challenge = answer(self.agent.post(&url).send_json(to)?)?;
        let location_key: PublicKey = given
            .location_key
            .parse()
            .map_err(|_| PortalError::LocationKey)?;
        let claim = Claim {
            challenge: &given.challenge,
            location,
            username,
            device: device_key.as_bytes(),
            location_key: location_key.as_bytes(),
        };
        let proof = claim
            .prove(device.private_bytes())
            .ok_or(PortalError::LocationKey)?;
        Ok(Proven {
            public_key,
            challenge: given.challenge,
            proof: Zeroizing::new(STANDARD.encode(*proof)),
        })
    }

    /// The last factor: a code of six digits.
    pub fn connect_by_totp(&self, attempt: &Attempt, code: &str) -> Result<Granted, PortalError> {
        self.finish_connect(attempt, "totp", code)
    }

    /// The last factor: a recovery code.
    pub fn connect_by_recovery(
        &self,
        attempt: &Attempt,
        code: &str,
    ) -> Result<Granted, PortalError> {
        self.finish_connect(attempt, "recovery", code)
    }

    /// Asks the user's phone, or a browser that has the user's passkeys.
    pub fn ask_phone(&self, attempt: &Attempt) -> Result<PhoneAsked, PortalError> {
        let url = format!("{}/connect/{}/phone", self.base, attempt.id);
        answer(self.agent.post(&url).send_empty()?)
    }

    /// The last factor: the phone's answer. `None` as long as there is none.
    pub fn connect_by_phone(&self, attempt: &Attempt) -> Result<Option<Granted>, PortalError> {
        let url = format!("{}/connect/{}/phone/finish", self.base, attempt.id);
        match answer(self.agent.post(&url).send_empty()?)? {
            PhoneAnswer::Step(step) => step.granted().map(Some),
            PhoneAnswer::Waiting { .. } => Ok(None),
        }
    }

    fn finish_connect(
        &self,
        attempt: &Attempt,
        factor: &str,
        code: &str,
    ) -> Result<Granted, PortalError> {
        #[derive(Serialize)]
        struct Code<'a> {
            code: &'a str,
        }
        let url = format!("{}/connect/{}/{factor}", self.base, attempt.id);
        let step: Step = answer(self.agent.post(&url).send_json(Code { code })?)?;
        step.granted()
    }

    /// What became of the connection's session. `None` where the server has forgotten it.
    pub fn connected(&self, connection: &Connection) -> Result<Option<Connected>, PortalError> {
        let url = format!("{}/connect/session", self.base);
        let request = self.agent.get(&url);
        let response = request
            .header("Authorization", connection.bearer().as_str())
            .call()?;
        if response.status() == 404 {
            return Ok(None);
        }
        answer(response).map(Some)
    }

    /// Ends the connection's session. `None` where it had ended already.
    pub fn disconnect(&self, connection: &Connection) -> Result<Option<LoggedOut>, PortalError> {
        let url = format!("{}/connect/session", self.base);
        let request = self.agent.delete(&url);
        let response = request
            .header("Authorization", connection.bearer().as_str())
            .call()?;
        if response.status() == 404 {
            return Ok(None);
        }
        answer(response).map(Some)
    }
}

impl Connection {
    fn bearer(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", self.token.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANTED: &str = r#"{"session":{"id":"s","user":"ada","device":"d","location":"vault","level":"mfa",
        "authenticated_at":"2026-01-01T00:00:00Z","deadline":"2026-01-01T01:00:00Z","idle_timeout_ms":0},
        "token":"TOKEN","preshared_key":"KEY","tunnel":{"addresses":["10.88.0.2/32"],"dns":[],"mtu":0,
        "server_public_key":"S","endpoint":"192.0.2.1:51820","allowed_ips":["10.9.0.0/24"],
        "persistent_keepalive_s":25,"portal_url":""}}"#;

    #[test]
    fn steps_are_told_apart() {
        let next = r#"{"attempt":"a","factors":["totp"],"expires_in_s":60}"#;
        assert!(matches!(
            serde_json::from_str(next).unwrap(),
            Step::Next(attempt) if attempt.wants("totp")
        ));
        assert!(matches!(
            serde_json::from_str(GRANTED).unwrap(),
            Step::Granted(_)
        ));
    }

    #[test]
    fn a_phone_that_says_nothing_yet_is_no_connection() {
        let answer = |text: &str| serde_json::from_str::<PhoneAnswer>(text);
        let waiting = r#"{"state":"waiting","expires_in_s":41}"#;
        assert!(matches!(
            answer(waiting).unwrap(),
            PhoneAnswer::Waiting { .. }
        ));
        assert!(matches!(
            answer(GRANTED).unwrap(),
            PhoneAnswer::Step(Step::Granted(_))
        ));
        let more = r#"{"attempt":"a","factors":["totp"],"expires_in_s":60}"#;
        let PhoneAnswer::Step(step) = answer(more).unwrap() else {
            panic!("it wants more");
        };
        assert!(step.granted().is_err());
        assert!(answer("{}").is_err());
    }

    #[test]
    fn inv10_debug_shows_neither_key_nor_token() {
        let renewed = GRANTED.replace("\"token\":\"TOKEN\",", "");
        let granted = |text: &str| -> Granted {
            let json: GrantedJson = serde_json::from_str(text).unwrap();
            json.into()
        };
        let (new, renewed) = (granted(GRANTED), granted(&renewed));
        assert!(matches!(new, Granted::New(_)) && matches!(renewed, Granted::Renewed(_)));
        let shown = format!("{new:?} {renewed:?}");
        assert!(shown.contains("vault"), "{shown}");
        assert!(
            !shown.contains("TOKEN") && !shown.contains("KEY"),
            "{shown}"
        );
    }
}
