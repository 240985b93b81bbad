//! `[portal.acme]` of the configuration file.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// Let's Encrypt.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The CA that is asked for the portal's certificate, and how it is convinced.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AcmeConfig {
    /// The CA's directory (RFC 8555, 7.1.1).
    pub directory: String,
    /// Whom the CA writes to: `mailto:…`. Told when the account is made.
    pub contact: Option<String>,
    /// The CA's terms of service are agreed to. Required.
    pub accept_terms: bool,
    /// The only CA that the directory's own TLS certificate is then accepted from, PEM.
    pub ca_file: Option<PathBuf>,
    /// For http-01: where the CA's plain HTTP arrives.
    pub listen: Vec<SocketAddr>,
    /// For dns-01: a program and its first arguments; `set` or `clear`, the record and its value follow.
    pub dns_command: Vec<String>,
}

impl Default for AcmeConfig {
    fn default() -> Self {
        Self {
            directory: DIRECTORY.to_owned(),
            contact: None,
            accept_terms: false,
            ca_file: None,
            listen: Vec::new(),
            dns_command: Vec::new(),
        }
    }
}

impl AcmeConfig {
    /// Whether this can work at all; the text says what to do.
    pub fn validate(&self) -> Result<(), String> {
        if !self.accept_terms {
            return Err(format!(
                "portal.acme.accept_terms has to be true: read the terms of service of the CA at {}",
                self.directory
            ));
        }
        if !self.directory.starts_with("https://") {
            return Err(format!(
                "portal.acme.directory {:?} has to begin with https://",
                self.directory
            ));
        }
        if let Some(contact) = &self.contact
            && !contact.starts_with("mailto:")
        {
            return Err(format!(
                "portal.acme.contact {contact:?} has to look like mailto:admin@example.com"
            ));
        }
        match (self.listen.is_empty(), self.dns_command.first()) {
            (true, None) => Err(
                "portal.acme needs listen (http-01) or dns_command (dns-01): the CA wants to see that the name is yours".into(),
            ),
            (false, Some(_)) => {
                Err("portal.acme takes listen (http-01) or dns_command (dns-01), not both".into())
            }
            (true, Some(program)) if !program.starts_with('/') => Err(format!(
                "portal.acme.dns_command begins with {program:?}, which has to be a path from /"
            )),
            _ => Ok(()),
        }
    }
}
