//! An authenticator in software: ES256, no attestation, and whatever misbehaviour a test asks for.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SigningKey as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const USER_PRESENT: u8 = 0x01;
const USER_VERIFIED: u8 = 0x04;
const ATTESTED_DATA: u8 = 0x40;

/// One credential, with the browser that speaks for it.
pub(crate) struct Authenticator {
    key: KeyPair,
    pub(crate) id: Vec<u8>,
    /// What the browser says the page's origin is.
    pub(crate) origin: String,
    /// What it is told to sign for; the browser would take it from the options.
    pub(crate) rp_id: String,
    /// Whose credential it says this is.
    pub(crate) user_handle: Option<String>,
    /// Whether it asks for PIN, fingerprint or face.
    pub(crate) verifies: bool,
    /// The counter in its next answer.
    pub(crate) counter: u32,
    /// By how much it counts; 0 for passkeys that do not.
    pub(crate) step: u32,
}

impl Authenticator {
    pub(crate) fn new(name: &str, origin: &str, rp_id: &str) -> Self {
        Self {
            key: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
            id: Sha256::digest(name.as_bytes()).to_vec(),
            origin: origin.to_owned(),
            rp_id: rp_id.to_owned(),
            user_handle: None,
            verifies: true,
            counter: 1,
            step: 1,
        }
    }

    /// `navigator.credentials.create`: the options' JSON in, the credential's JSON out.
    pub(crate) fn create(&mut self, options: &Value) -> Value {
        let client_data = self.client_data("webauthn.create", options);
        let mut data = self.data(ATTESTED_DATA);
        data.extend([0; 16]);
        data.extend(u16::try_from(self.id.len()).unwrap().to_be_bytes());
        data.extend(&self.id);
        data.extend(self.cose_key());
        let mut object = vec![0xa3];
        object.extend([0x63, b'f', b'm', b't', 0x64, b'n', b'o', b'n', b'e']);
        object.extend([0x67]);
        object.extend(b"attStmt");
        object.extend([0xa0, 0x68]);
        object.extend(b"authData");
        object.extend([0x59]);
        object.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
        object.extend(data);
        json!({
            "id": base64(&self.id),
            "rawId": base64(&self.id),
            "type": "public-key",
            "extensions": {},
            "response": {
                "attestationObject": base64(&object),
                "clientDataJSON": base64(client_data.as_bytes()),
                "transports": ["usb"],
            },
        })
    }

    /// `navigator.credentials.get`.
    pub(crate) fn get(&mut self, options: &Value) -> Value {
        let client_data = self.client_data("webauthn.get", options);
        let data = self.data(0);
        let signed = [&data[..], &Sha256::digest(client_data.as_bytes())].concat();
        json!({
            "id": base64(&self.id),
            "rawId": base64(&self.id),
            "type": "public-key",
            "extensions": {},
            "response": {
                "authenticatorData": base64(&data),
                "clientDataJSON": base64(client_data.as_bytes()),
                "signature": base64(&self.key.sign(&signed).unwrap()),
                "userHandle": self.user_handle,
            },
        })
    }

    fn client_data(&self, kind: &str, options: &Value) -> String {
        let challenge = &options["publicKey"]["challenge"];
        assert!(challenge.is_string(), "{options}");
        json!({
            "type": kind, "challenge": challenge, "origin": self.origin, "crossOrigin": false,
        })
        .to_string()
    }

    fn data(&mut self, flags: u8) -> Vec<u8> {
        let verified = if self.verifies { USER_VERIFIED } else { 0 };
        let mut data = Sha256::digest(self.rp_id.as_bytes()).to_vec();
        data.push(flags | USER_PRESENT | verified);
        data.extend(self.counter.to_be_bytes());
        self.counter += self.step;
        data
    }

    fn cose_key(&self) -> Vec<u8> {
        // The uncompressed point: 4, x, y.
        let point = self.key.der_bytes();
        let (x, y) = point[1..].split_at(32);
        [
            &[0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21, 0x58, 0x20],
            x,
            &[0x22, 0x58, 0x20],
            y,
        ]
        .concat()
    }
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
