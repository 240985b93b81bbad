//! What enrolment left behind: where control is, the certificate that names this gateway, and the
//! only CA it trusts. One file, so that it is replaced whole.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{IdentityError, secret_file};

const FILE: &str = "enrolment.json";

/// A gateway's enrolment with control.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Enrolment {
    /// `https://host:port`
    pub control: String,
    /// This gateway's name.
    pub gateway: String,
    /// The location that it serves.
    pub location: String,
    /// PEM.
    pub ca: String,
    /// PEM.
    pub certificate: String,
    /// PEM, PKCS #8. Never leaves this machine.
    pub key: Zeroizing<String>,
}

impl Enrolment {
    /// Reads the enrolment in `state_dir`; [`IdentityError::NotEnrolled`] where there is none.
    pub fn load(state_dir: &Path) -> Result<Self, IdentityError> {
        let path = path(state_dir);
        let Some(text) = secret_file::read(&path)? else {
            return Err(IdentityError::NotEnrolled { path });
        };
        serde_json::from_str(&text).map_err(|error| IdentityError::Enrolment {
            path,
            reason: error.to_string(),
        })
    }

    /// Replaces the enrolment in `state_dir`, if any.
    pub fn store(&self, state_dir: &Path) -> Result<(), IdentityError> {
        secret_file::make_dir(state_dir)?;
        let path = path(state_dir);
        let text = serde_json::to_string_pretty(self)
            .map(Zeroizing::new)
            .map_err(|error| IdentityError::Enrolment {
                path: path.clone(),
                reason: error.to_string(),
            })?;
        secret_file::write(&path, &text)
    }
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment")
            .field("control", &self.control)
            .field("gateway", &self.gateway)
            .field("location", &self.location)
            .finish_non_exhaustive()
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enrolment_survives_and_its_key_is_not_printed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert!(matches!(
            Enrolment::load(dir.path()),
            Err(IdentityError::NotEnrolled { .. })
        ));
        let enrolment = Enrolment {
            control: "https://control.example.org:7443".into(),
            gateway: "gw1".into(),
            location: "office".into(),
            ca: "ca".into(),
            certificate: "certificate".into(),
            key: Zeroizing::new("hidden".into()),
        };
        enrolment.store(dir.path()).expect("stored");
        let loaded = Enrolment::load(dir.path()).expect("loaded");
        assert_eq!(loaded.gateway, "gw1");
        assert_eq!(*loaded.key, "hidden");
        assert!(!format!("{loaded:?}").contains("hidden"));
    }
}
