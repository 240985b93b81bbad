//! Which certificate a client is shown.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::check::{CertificateError, Checked};
use crate::clock::Clock;
use crate::webauthn::PortalName;

/// The certificate at the portal's name, as far as there is one of another CA's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// `files` or `acme`; nothing for the own CA's.
    source: &'static str,
    name: String,
    /// By ACME: of which CA.
    directory: Option<String>,
    installed: Option<Checked>,
    /// Why files were not taken the last time.
    problem: String,
}

/// What administrators are told.
pub(crate) struct Shown {
    pub(crate) source: &'static str,
    pub(crate) name: String,
    pub(crate) directory: Option<String>,
    /// None: the own CA's is shown.
    pub(crate) not_after_ms: Option<i64>,
    pub(crate) problem: String,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says where the certificate is to come from: files, or the CA of this directory.
    pub(super) fn describe(&self, name: &PortalName, directory: Option<&str>) {
        let mut state = self.lock();
        state.source = if directory.is_some() { "acme" } else { "files" };
        state.directory = directory.map(str::to_owned);
        state.name = name.to_string();
    }

    /// Answers whether this is another one than before.
    pub(super) fn install(&self, found: Checked) -> bool {
        let mut state = self.lock();
        state.problem.clear();
        let same = |old: &Checked| old.key.cert == found.key.cert;
        if state.installed.as_ref().is_some_and(same) {
            return false;
        }
        state.installed = Some(found);
        true
    }

    /// Takes what a look at the files found. A refusal is logged once, and leaves the old one in use.
    pub(super) fn take(&self, found: Result<Checked, CertificateError>) {
        match found {
            Ok(found) => {
                let not_after_ms = found.not_after_ms;
                if self.install(found) {
                    tracing::info!(not_after_ms, "the portal has a new certificate");
                }
            }
            Err(error) => {
                let problem = error.to_string();
                let mut state = self.lock();
                if state.problem != problem {
                    tracing::error!(
                        problem,
                        "the portal's certificate is not taken; what is in use stays, or the own CA's"
                    );
                    state.problem = problem;
                }
            }
        }
    }

    pub(crate) fn shown(&self, now_ms: i64) -> Shown {
        let state = self.lock();
        Shown {
            source: state.source,
            name: state.name.clone(),
            directory: state.directory.clone(),
            not_after_ms: state.live(now_ms).map(|one| one.not_after_ms),
            problem: state.problem.clone(),
        }
    }
}

impl State {
    /// An expired one convinces nobody: the own CA's does at least those who know the CA.
    fn live(&self, now_ms: i64) -> Option<&Checked> {
        self.installed
            .as_ref()
            .filter(|one| now_ms < one.not_after_ms)
    }
}

/// To a client that asks for the portal's name: the certificate at the name. To any other, which came
/// by an address or pins the CA: the own CA's.
#[derive(Debug)]
pub(crate) struct ByName {
    pub(crate) name: Option<PortalName>,
    pub(crate) slot: Slot,
    pub(crate) own: Arc<CertifiedKey>,
    pub(crate) clock: Clock,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello.server_name();
        let is_name = match (&self.name, asked) {
            (Some(name), Some(asked)) => asked.eq_ignore_ascii_case(name.as_str()),
            _ => false,
        };
        let by_name = is_name.then(|| {
            let state = self.slot.lock();
            state.live(self.clock.now_ms()).map(|one| one.key.clone())
        });
        Some(by_name.flatten().unwrap_or_else(|| self.own.clone()))
    }
}
