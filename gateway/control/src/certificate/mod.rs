//! The certificate at the portal's name: the own CA's, one from files, or one that a CA gives by ACME.
//!
//! By address the portal always shows the own CA's certificate, which clients pin.

mod acme;
mod check;
mod choose;
mod config;
mod dns;
mod files;
mod order;

use std::path::PathBuf;
use std::sync::Arc;

use crate::core::Core;
use crate::webauthn::PortalName;

pub use acme::AcmeError;
pub use check::CertificateError;
pub(crate) use choose::{ByName, Slot};
pub use config::AcmeConfig;

/// Where the certificate at the portal's name comes from.
#[derive(Clone, Debug)]
pub enum CertificateSource {
    /// PEM files, which somebody else renews.
    Files {
        /// The certificate, followed by those between it and its CA.
        certificate: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
    /// A CA that is asked for it.
    Acme(AcmeConfig),
}

impl CertificateSource {
    /// Reads and checks what there is to read: `Some` is when the certificate ends, in milliseconds
    /// since the Unix epoch.
    pub fn check(&self, name: &PortalName, now_ms: i64) -> Result<Option<i64>, CertificateError> {
        match self {
            Self::Files { certificate, key } => {
                let found = files::read(certificate, key, name, now_ms)?;
                Ok(Some(found.not_after_ms))
            }
            Self::Acme(_) => Ok(None),
        }
    }
}

/// Keeps the certificate at the portal's name.
#[derive(Clone, Debug)]
pub struct PortalCertificate {
    core: Arc<Core>,
    name: PortalName,
    source: CertificateSource,
}

impl PortalCertificate {
    /// Installs what there is. Files that cannot be used are refused, unless time alone is in the way: a
    /// restart is not to take the whole service down where a running one would have gone on.
    pub(crate) async fn open(
        core: Arc<Core>,
        name: PortalName,
        source: CertificateSource,
    ) -> Result<Self, CertificateError> {
        let this = Self { core, name, source };
        match &this.source {
            CertificateSource::Files { certificate, key } => {
                let found = files::read(certificate, key, &this.name, this.core.now_ms());
                let found = match found {
                    Err(error) if !error.is_of_time() => return Err(error),
                    found => found,
                };
                this.core.certificate.describe(&this.name, None);
                this.core.certificate.take(found);
            }
            CertificateSource::Acme(config) => {
                let directory = Some(config.directory.as_str());
                this.core.certificate.describe(&this.name, directory);
                if let Err(error) = this.core.install_from_store(&this.name, config).await {
                    tracing::error!(%error, "the portal's certificate in the store cannot be used");
                }
            }
        }
        Ok(this)
    }

    /// Looks once: takes a renewed certificate, and orders one where that is due. What fails leaves the
    /// present one in use, and is logged.
    pub async fn look(&self) {
        match &self.source {
            CertificateSource::Files { certificate, key } => {
                let found = files::read(certificate, key, &self.name, self.core.now_ms());
                self.core.certificate.take(found);
            }
            CertificateSource::Acme(config) => self.core.keep_certificate(&self.name, config).await,
        }
    }

    /// What an ACME CA that asks for this token (http-01) is to be answered.
    pub async fn answer(&self, token: &str) -> Option<String> {
        self.core.challenge_answer(token).await
    }
}
