//! What every part of control shares.

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::ca::{Ca, Identity};
use crate::certificate::Slot;
use crate::clock::Clock;
use crate::config::ControlConfig;
use crate::error::ControlError;
use crate::fleet::Fleet;
use crate::live::Policies;
use crate::observe::metrics::Figures;
use crate::observe::trace::TraceHub;
use crate::observe::traffic::TrafficTable;
use crate::ops::explain::Questions;
use crate::password::Passwords;
use crate::secrets::{Field, Vault};
use crate::sso::{Provider, SsoConfigError};
use crate::store::{self, Store, StoreError};

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: ControlConfig,
    pub(crate) clock: Clock,
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    pub(crate) ca: Ca,
    pub(crate) passwords: Passwords,
    pub(crate) fleet: Fleet,
    pub(crate) policies: Policies,
    pub(crate) trace: TraceHub,
    pub(crate) traffic: TrafficTable,
    pub(crate) questions: Questions,
    pub(crate) figures: Figures,
    /// The page to enrol at, once it is served.
    pub(crate) enrolment_page: OnceLock<String>,
    /// The page at which phones approve logins, once it is served.
    pub(crate) approval_page: OnceLock<String>,
    pub(crate) providers: Vec<Arc<Provider>>,
    pub(crate) certificate: Slot,
}

impl Core {
    pub(crate) async fn open(config: ControlConfig, clock: Clock) -> Result<Self, ControlError> {
        let providers = providers(&config)?;
        let vault = Vault::open(&config.state_dir)?;
        let store = Store::open(&config.database).await?;
        let ca = load_or_create_ca(&store, &vault, &clock).await?;
        let passwords = Passwords::new()?;
        Ok(Self {
            config,
            clock,
            store,
            vault,
            ca,
            passwords,
            fleet: Fleet::new(),
            policies: Policies::default(),
            trace: TraceHub::new(),
            traffic: TrafficTable::default(),
            questions: Questions::default(),
            figures: Figures::default(),
            enrolment_page: OnceLock::new(),
            approval_page: OnceLock::new(),
            providers,
            certificate: Slot::default(),
        })
    }

    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }
}

/// The configured providers; no two of one name, nor of one issuer: an identity belongs to one of them.
fn providers(config: &ControlConfig) -> Result<Vec<Arc<Provider>>, ControlError> {
    let mut providers: Vec<Arc<Provider>> = Vec::new();
    for one in &config.sso {
        let provider = Provider::new(one)?;
        let again =
            |other: &Arc<Provider>| other.name == provider.name || other.issuer == provider.issuer;
        if providers.iter().any(again) {
            return Err(SsoConfigError::Value {
                provider: provider.name,
                reason: "there is another one of this name or issuer".into(),
            }
            .into());
        }
        providers.push(provider.into());
    }
    Ok(providers)
}

const CA_KEY: Field<'static> = Field {
    table: "meta",
    column: "ca_key",
    row: "1",
};

/// Control processes that share a store share its CA: the first one makes it. That the key opens
/// also proves that the master key belongs to this store.
async fn load_or_create_ca(
    store: &Store,
    vault: &Vault,
    clock: &Clock,
) -> Result<Ca, ControlError> {
    let mut read = store.read().await?;
    let found = store::ca::load(read.sql()).await?;
    read.end().await?;
    if let Some(found) = found {
        return open_ca(vault, found);
    }
    let mut write = store.record(clock.now_ms()).await?;
    if let Some(found) = store::ca::load(write.sql()).await? {
        return open_ca(vault, found);
    }
    let identity = Ca::generate(write.now_ms())?;
    let sealed = vault.seal(CA_KEY, &identity.key)?;
    store::ca::save(
        write.sql(),
        &STANDARD.encode(&identity.certificate),
        &sealed,
    )
    .await?;
    let entry = store::Entry {
        actor: "system",
        action: "ca.create",
        subject: "ca",
        detail: serde_json::Value::Null,
    };
    write.audit(entry).await?;
    write.commit().await?;
    Ok(Ca::load(identity)?)
}

fn open_ca(vault: &Vault, (certificate, key): (String, String)) -> Result<Ca, ControlError> {
    let certificate = STANDARD
        .decode(certificate)
        .map_err(|_| StoreError::Value("CA certificate"))?;
    let key = vault.unseal(CA_KEY, &key)?;
    Ok(Ca::load(Identity {
        certificate: certificate.into(),
        key,
    })?)
}
