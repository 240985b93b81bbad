//! The configuration file. Each role's section is its crate's own type; unknown keys are refused.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use portcullis_agent::AgentConfig;
use portcullis_control::{AcmeConfig, CertificateSource, ControlConfig, PortalName};
use portcullis_metrics::MetricsConfig;
use serde::Deserialize;
use thiserror::Error;

/// The whole file. What is left out has its default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    pub(crate) control: ControlConfig,
    pub(crate) portal: PortalConfig,
    pub(crate) agent: AgentConfig,
    pub(crate) metrics: MetricsConfig,
    pub(crate) up: UpConfig,
}

/// Where the portal listens, and by which name it is known.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PortalConfig {
    /// Addresses inside the tunnel. Empty: `up` takes the location's, `control` runs no portal.
    pub(crate) listen: Vec<SocketAddr>,
    /// The DNS name that devices reach it by. Without it there are no passkeys.
    pub(crate) name: Option<PortalName>,
    /// Addresses outside of the tunnel, for enrolment. Empty: nobody enrols by a link.
    pub(crate) public: Vec<SocketAddr>,
    /// Whether users sign in there, too.
    pub(crate) outside: bool,
    /// Where providers of single sign-on tell of logouts. Empty: they cannot.
    pub(crate) backchannel: Vec<SocketAddr>,
    /// A certificate for the name, PEM, with those between it and its CA. Without it, and without
    /// `acme`: the own CA's.
    pub(crate) certificate: Option<PathBuf>,
    /// The certificate's private key, PEM.
    pub(crate) key: Option<PathBuf>,
    /// A CA that gives a certificate for the name.
    pub(crate) acme: Option<AcmeConfig>,
}

impl PortalConfig {
    /// Where links to enrol by lead: to the portal's name, or to the first public address.
    pub(crate) fn enrolment_page(&self) -> Option<String> {
        self.public_page("/enrol")
    }

    /// Where phones approve logins: by passkeys, which need the portal's name.
    pub(crate) fn approval_page(&self) -> Option<String> {
        self.name.as_ref()?;
        self.public_page("/approve")
    }

    fn public_page(&self, path: &str) -> Option<String> {
        let first = self.public.first()?;
        let host = match &self.name {
            Some(name) => name.to_string(),
            None if first.is_ipv6() => format!("[{}]", first.ip()),
            None => first.ip().to_string(),
        };
        Some(match first.port() {
            443 => format!("https://{host}{path}"),
            port => format!("https://{host}:{port}{path}"),
        })
    }

    /// Whether the public pages are at this address as well, by listening on all addresses.
    pub(crate) fn is_beside_public(&self, inside: SocketAddr) -> bool {
        self.public.iter().any(|public| {
            let same_family = public.is_ipv4() == inside.is_ipv4();
            public.ip().is_unspecified() && same_family && public.port() == inside.port()
        })
    }

    /// Where the certificate at the name comes from, unless it is the own CA's.
    pub(crate) fn certificate_source(&self) -> Option<(PortalName, CertificateSource)> {
        let name = self.name.clone()?;
        let source = match (&self.certificate, &self.key, &self.acme) {
            (Some(certificate), Some(key), None) => CertificateSource::Files {
                certificate: certificate.clone(),
                key: key.clone(),
            },
            (None, None, Some(acme)) => CertificateSource::Acme(acme.clone()),
            _ => return None,
        };
        Some((name, source))
    }

    fn validate(&self) -> Result<(), String> {
        self.validate_certificate()?;
        self.validate_public()
    }

    fn validate_certificate(&self) -> Result<(), String> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err("portal.certificate and portal.key belong together: set both".into());
        }
        if self.certificate.is_some() && self.acme.is_some() {
            return Err("the portal's certificate comes from portal.certificate or from portal.acme, not from both".into());
        }
        if (self.certificate.is_some() || self.acme.is_some()) && self.name.is_none() {
            return Err("a certificate is for the portal's name: set portal.name".into());
        }
        self.acme.as_ref().map_or(Ok(()), AcmeConfig::validate)
    }

    /// A link has to lead somewhere: an address that stands for all of them is no place.
    fn validate_public(&self) -> Result<(), String> {
        match self.public.first() {
            None if self.outside => {
                Err("portal.outside is for the addresses in portal.public: name one there".into())
            }
            Some(first) if first.ip().is_unspecified() && self.name.is_none() => Err(format!(
                "portal.public begins with {first}, which links to enrol by cannot lead to: set portal.name, or put an address that users reach first"
            )),
            _ => Ok(()),
        }
    }
}

/// What `up` calls its own gateway, and where it belongs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UpConfig {
    /// The embedded gateway's name.
    pub(crate) gateway: String,
    /// Its location; may be left out where there is only one.
    pub(crate) location: Option<String>,
}

impl Default for UpConfig {
    fn default() -> Self {
        Self {
            gateway: "local".to_owned(),
            location: None,
        }
    }
}

/// Why the configuration cannot be used.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration {}: {source}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    /// toml's own rendering quotes the line, which may hold a database password.
    #[error("the configuration {} is not usable: line {line}, column {column}: {message}", .path.display())]
    Parse {
        path: PathBuf,
        line: usize,
        column: usize,
        message: String,
    },
    #[error("the configuration {} is not usable: {reason}", .path.display())]
    Value { path: PathBuf, reason: String },
}

impl Config {
    /// Reads and checks the file.
    pub(crate) fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let before = text
                .get(..error.span().map_or(0, |span| span.start))
                .unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            ConfigError::Parse {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before[line_start..].chars().count() + 1,
                message: format!("{}{}", key_at(&text[line_start..]), error.message()),
            }
        })?;
        config
            .agent
            .validate()
            .map_err(|error| ConfigError::Value {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        config
            .portal
            .validate()
            .map_err(|reason| ConfigError::Value {
                path: path.to_owned(),
                reason,
            })?;
        Ok(config)
    }
}

/// `key: ` of the setting that a line begins with, or nothing.
fn key_at(line: &str) -> String {
    let line = line.lines().next().unwrap_or_default();
    line.split_once('=')
        .map(|(key, _)| format!("{}: ", key.trim()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../deploy/portcullis.example.toml");

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("test.toml"), text)
    }

    #[test]
    fn the_example_is_valid_and_so_is_each_value_it_comments_out() {
        parse(EXAMPLE).unwrap();
        // One certificate comes from one place, and one proof is enough.
        let alternatives = ["#certificate = ", "#key = ", "#dns_command = "];
        let everything: String = EXAMPLE
            .lines()
            .filter(|line| !alternatives.iter().any(|other| line.starts_with(other)))
            .map(|line| match line.strip_prefix('#') {
                // `#key = value` is a setting that is off, `# text` is a comment.
                Some(setting) if !setting.starts_with([' ', '#']) && !setting.is_empty() => {
                    format!("{setting}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        parse(&everything).unwrap();
    }

    #[test]
    fn the_example_lists_each_key_of_each_section() {
        let sections = keys_expected_by("no_such_section = 1");
        assert_eq!(sections, ["control", "portal", "agent", "metrics", "up"]);
        for section in sections {
            let start = EXAMPLE
                .find(&format!("[{section}]"))
                .unwrap_or_else(|| panic!("no [{section}]"));
            let body = &EXAMPLE[start + 1..];
            let body = &body[..body.find("\n[").unwrap_or(body.len())];
            for key in keys_expected_by(&format!("[{section}]\nno_such_key = 1")) {
                let header = format!("[{section}.{key}]");
                let list = format!("[{header}]");
                let listed = body.lines().any(|line| {
                    let line = line.trim_start_matches('#');
                    line == header
                        || line == list
                        || line
                            .strip_prefix(&key)
                            .is_some_and(|rest| rest.trim_start().starts_with('='))
                });
                assert!(listed, "[{section}] {key} is missing from the example");
            }
        }
    }

    #[test]
    fn the_example_lists_each_key_of_a_provider() {
        let start = EXAMPLE.find("#[[control.sso]]").expect("the section");
        let section = &EXAMPLE[start..];
        let section = &section[..section.find("\n[").expect("another section")];
        for key in keys_expected_by("[[control.sso]]\nno_such_key = 1") {
            assert!(section.contains(&format!("\n#{key} = ")), "{key}");
        }
    }

    #[test]
    fn the_example_lists_each_key_of_the_shield() {
        let start = EXAMPLE.find("#[agent.shield]").expect("the section");
        for key in keys_expected_by("[agent.shield]\nno_such_key = 1") {
            assert!(EXAMPLE[start..].contains(&format!("\n#{key} = ")), "{key}");
        }
    }

    /// serde names what it would have accepted in place of an unknown key.
    fn keys_expected_by(text: &str) -> Vec<String> {
        let error = parse(text).unwrap_err().to_string();
        let (_, expected) = error.split_once("expected").unwrap();
        expected
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn phones_approve_at_the_name_alone() {
        let page = |text: &str| parse(text).unwrap().portal.approval_page();
        assert_eq!(page("[portal]\nname = 'a.example'"), None);
        assert_eq!(page("[portal]\npublic = ['192.0.2.1:8443']"), None);
        assert_eq!(
            page("[portal]\npublic = ['0.0.0.0:8443']\nname = 'a.example'").unwrap(),
            "https://a.example:8443/approve"
        );
    }

    #[test]
    fn links_lead_to_the_name_or_to_an_address_that_is_one() {
        let page = |text: &str| parse(text).unwrap().portal.enrolment_page();
        assert_eq!(page("[portal]"), None);
        let error = parse("[portal]\noutside = true").unwrap_err();
        assert!(error.to_string().contains("portal.public"), "{error}");
        assert_eq!(
            page("[portal]\npublic = ['0.0.0.0:443']\nname = 'login.example.com'").unwrap(),
            "https://login.example.com/enrol"
        );
        assert_eq!(
            page("[portal]\npublic = ['192.0.2.1:8443']").unwrap(),
            "https://192.0.2.1:8443/enrol"
        );
        assert_eq!(
            page("[portal]\npublic = ['[2001:db8::1]:443']").unwrap(),
            "https://[2001:db8::1]/enrol"
        );
        let portal = parse("[portal]\npublic = ['0.0.0.0:443']\nname = 'a.example'")
            .unwrap()
            .portal;
        assert!(portal.is_beside_public("10.77.0.1:443".parse().unwrap()));
        assert!(!portal.is_beside_public("10.77.0.1:8443".parse().unwrap()));
        assert!(!portal.is_beside_public("[fd77::1]:443".parse().unwrap()));
        let error = parse("[portal]\npublic = ['[::]:443']").unwrap_err();
        assert!(error.to_string().contains("set portal.name"), "{error}");
    }

    #[test]
    fn the_example_lists_each_key_of_acme() {
        let start = EXAMPLE.find("#[portal.acme]").expect("the section");
        let section = &EXAMPLE[start..];
        let section = &section[..section.find("\n[").expect("another section")];
        for key in keys_expected_by("[portal.acme]\nno_such_key = 1") {
            assert!(section.contains(&format!("\n#{key} = ")), "{key}");
        }
    }

    #[test]
    fn a_certificate_is_given_or_ordered_and_for_a_name() {
        let refused = |text: &str| parse(text).unwrap_err().to_string();
        let name = "[portal]\nname = 'login.example.com'\n";
        let acme = "[portal.acme]\naccept_terms = true\nlisten = ['0.0.0.0:80']\n";
        let both = "certificate = '/c'\nkey = '/k'\n";
        for (text, reason) in [
            (format!("{name}key = '/k'"), "belong together"),
            (format!("[portal]\n{both}"), "set portal.name"),
            (format!("[portal]\n{acme}"), "set portal.name"),
            (format!("{name}{both}{acme}"), "not from both"),
            (
                format!("{name}[portal.acme]\nlisten = ['0.0.0.0:80']"),
                "terms of service",
            ),
            (
                format!("{name}[portal.acme]\naccept_terms = true"),
                "http-01",
            ),
            (format!("{name}{acme}dns_command = ['/x']"), "not both"),
            (
                format!("{name}{acme}directory = 'http://ca.example'"),
                "https://",
            ),
            (format!("{name}{acme}contact = 'me@example.com'"), "mailto:"),
            (
                format!("{name}[portal.acme]\naccept_terms = true\ndns_command = ['x']"),
                "a path",
            ),
        ] {
            let found = refused(&text);
            assert!(found.contains(reason), "{text}: {found}");
        }
        assert!(
            parse(&format!("{name}{acme}"))
                .unwrap()
                .portal
                .certificate_source()
                .is_some()
        );
        assert!(parse(name).unwrap().portal.certificate_source().is_none());
    }

    #[test]
    fn errors_name_line_and_key() {
        let error = |text| parse(text).unwrap_err().to_string();
        let unknown = error("[control]\nlisten = \"0.0.0.0:7443\"\nlissten = 1\n");
        assert!(
            unknown.contains("line 3, column 1") && unknown.contains("`lissten`"),
            "{unknown}"
        );
        let address = error("[portal]\nlisten = [\"10.77.0.1\"]\n");
        assert!(
            address.contains("line 2") && address.contains("socket address"),
            "{address}"
        );
        let name = error("[portal]\nname = \"10.77.0.1\"\n");
        assert!(
            name.contains("line 2") && name.contains("passkeys need a DNS name"),
            "{name}"
        );
        let number = error("[agent]\nmax_peers = \"many\"\n");
        assert!(
            number.contains("line 2") && number.contains("max_peers: "),
            "{number}"
        );
        let value = error("[agent]\nmax_peers = 0\n");
        assert!(value.contains("agent.max_peers"), "{value}");
    }

    #[test]
    fn inv10_an_error_does_not_quote_the_database_password() {
        let error = parse("[control]\ndatabase = \"postgres://p:sesame@db/p\n").unwrap_err();
        assert!(
            !format!("{error} {error:?}").contains("sesame"),
            "{error:?}"
        );
    }
}
