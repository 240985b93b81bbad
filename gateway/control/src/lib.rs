//! Portcullis' control service: who may pass, until when, and the proof that gateways know it.
//!
//! [`Control`] is the whole service. It owns the store, the certificate authority and the streams
//! to the gateways; the portal and the command line are built on top of it.
#![forbid(unsafe_code)]

mod admin;
mod approval;
mod ca;
mod certificate;
mod clock;
mod config;
mod connect;
mod core;
mod domain;
mod enrol;
mod error;
mod expiry;
mod fleet;
mod fresh;
mod grpc;
mod live;
mod login;
mod observe;
mod ops;
mod outside;
mod password;
pub mod policy;
mod secrets;
mod self_service;
mod shares;
mod ssh;
mod sso;
mod store;
pub mod text;
mod totp;
mod webauthn;

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use portcullis_proto::v1::Location;
use tokio::net::TcpListener;

pub use admin::AdminService;
pub use approval::{ApprovalError, ApprovalView, Approvals, PhonePrompt, PhoneState, PhoneStep};
pub use ca::CaError;
pub use certificate::{
    AcmeConfig, AcmeError, CertificateError, CertificateSource, PortalCertificate,
};
pub use clock::Clock;
pub use config::ControlConfig;
pub use connect::{
    BrowserVisit, ConnectStep, Connected, Connection, Connects, Proof as ConnectProof,
    ProofChallenge, Renewed as RenewedConnection,
};
pub use domain::{Factor, FactorSet, Invalid, level_name};
pub use enrol::{
    EnrolError, EnrolStep, Enrolled, EnrolmentId, Enrolments, FirstAdmin, NewAuthenticator,
    Newcomer,
};
pub use error::{ControlError, OperationError};
pub use login::{
    Browser, LoggedOut, LoginError, LoginId, LoginStep, Logins, ResetNotice, SessionView,
};
pub use outside::{Choice, Opened, Outside, OutsideStep, Stranger, network};
pub use password::PasswordError;
pub use portcullis_proto::v1::Level;
pub use secrets::{MasterKeyError, RandomError, Secret, VaultError};
pub use self_service::{
    Activity, AddedDevice, DeviceList, DeviceRemoval, EndedSessions, LinkedProvider, NewDevice,
    NewRecoveryCodes, OwnDevice, OwnFactors, OwnSession, SelfService, SelfServiceError, SetSince,
    TotpSetup, Tunnel,
};
pub use shares::{Rate, Shares};
pub use ssh::{HeldStream, SshConfig, SshLevel, SshSessions};
pub use sso::{
    Callback, LoggedOutThere, Sso, SsoConfig, SsoConfigError, SsoError, SsoPreset, Visit,
};
pub use store::StoreError;
pub use totp::TotpError;
pub use webauthn::{
    CeremonyId, Challenge, CreationChallengeResponse, PasskeyChange, PasskeyError, PasskeyList,
    PasskeyView, Passkeys, PortalName, PublicKeyCredential, RegisterPublicKeyCredential,
    RequestChallengeResponse,
};

/// How long open connections of gateways may take to close at shutdown.
const STOP_WITHIN: Duration = Duration::from_secs(1);

/// The control service; cheap to clone.
#[derive(Clone, Debug)]
pub struct Control(Arc<core::Core>);

impl Control {
    /// Opens the store (and makes what is missing: database, schema, master key, CA).
    pub async fn open(config: ControlConfig) -> Result<Self, ControlError> {
        Self::open_with_clock(config, Clock::system()).await
    }

    /// The same with a clock of the caller's.
    pub async fn open_with_clock(
        config: ControlConfig,
        clock: Clock,
    ) -> Result<Self, ControlError> {
        Ok(Self(Arc::new(core::Core::open(config, clock).await?)))
    }

    /// Serves gateways at the configured address until `shutdown` resolves. Open streams end with
    /// it; what the gateways' kernels hold stays.
    pub async fn serve_gateways(
        &self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ControlError> {
        let listener = self.bind_gateways().await?;
        self.serve_gateways_on(listener, shutdown).await
    }

    /// Takes the configured address, so that an occupied port shows before anything is served.
    pub async fn bind_gateways(&self) -> Result<TcpListener, ControlError> {
        let address = self.0.config.listen;
        TcpListener::bind(address)
            .await
            .map_err(|source| ControlError::Listen { address, source })
    }

    /// Serves gateways on a listener until `shutdown` resolves.
    pub async fn serve_gateways_on(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ControlError> {
        let mut over = std::pin::pin!(shutdown);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let mut serving = std::pin::pin!(grpc::serve(self.0.clone(), listener, async {
            let _ = stopped.await;
        }));
        tokio::select! {
            served = &mut serving => return served,
            () = &mut over => {}
        }
        // The streams end at once; connections that hang do not hold up the rest.
        let _ = stop.send(());
        match tokio::time::timeout(STOP_WITHIN, serving).await {
            Ok(served) => served,
            Err(_) => Ok(()),
        }
    }

    /// Serves administrators on the configured Unix socket until `shutdown` resolves.
    pub async fn serve_admin(
        &self,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ControlError> {
        admin::serve(self.0.clone(), shutdown).await
    }

    /// Serves SSH's sessions on their Unix socket until `shutdown` resolves. Where there is no
    /// `[control.ssh]`, nothing is served.
    pub async fn serve_ssh(&self, shutdown: impl Future<Output = ()>) -> Result<(), ControlError> {
        match &self.0.config.ssh {
            Some(config) => ssh::serve(self.ssh(), &config.socket, shutdown).await,
            None => {
                shutdown.await;
                Ok(())
            }
        }
    }

    /// Ends sessions in the store as their deadlines pass, until `shutdown` resolves.
    pub async fn run_expiry(&self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = expiry::run(&self.0) => {}
            () = shutdown => {}
        }
    }

    /// The administrators' calls, in this process.
    pub fn admin(&self) -> AdminService {
        AdminService(self.0.clone())
    }

    /// The users' logins.
    pub fn logins(&self) -> Logins {
        Logins(self.0.clone())
    }

    /// TLS for the portal at these addresses and by this name, with a certificate by the own CA, made
    /// anew at each call. The chain includes the CA's certificate. To clients that ask for the name, the
    /// [`portal_certificate`](Self::portal_certificate) is shown instead, as soon as there is one.
    pub fn server_config_for_portal(
        &self,
        addresses: &[IpAddr],
        name: Option<&PortalName>,
    ) -> Result<Arc<rustls::ServerConfig>, ControlError> {
        let mut names: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        names.extend(name.map(PortalName::to_string));
        let choose = certificate::ByName {
            name: name.cloned(),
            slot: self.0.certificate.clone(),
            own: self.0.ca.server_key(&names, self.0.now_ms())?,
            clock: self.0.clock.clone(),
        };
        Ok(Arc::new(ca::https(Arc::new(choose))?))
    }

    /// Takes the certificate at the portal's name from files or from a CA. Files that cannot be used are
    /// refused; what a CA has not given yet is ordered by [`PortalCertificate::look`].
    pub async fn portal_certificate(
        &self,
        name: PortalName,
        source: CertificateSource,
    ) -> Result<PortalCertificate, CertificateError> {
        PortalCertificate::open(self.0.clone(), name, source).await
    }

    /// `sha256:` and the SHA-256 of the CA's certificate in hexadecimal.
    pub fn ca_fingerprint(&self) -> String {
        self.0.ca.fingerprint()
    }

    /// The CA's certificate, DER.
    pub fn ca_certificate(&self) -> rustls_pki_types::CertificateDer<'static> {
        self.0.ca.certificate().clone()
    }

    /// What gateways are told to dial.
    pub fn control_url(&self) -> String {
        self.0.config.control_url()
    }

    /// A one-time enrolment token for the gateway of this name, which is added to the location if
    /// there is none. Any token it had not used is void.
    pub async fn gateway_token(&self, name: &str, location: &str) -> Result<Secret, ControlError> {
        let token = self.0.gateway_token(name, location).await?;
        Ok(Secret::from(token.expose()))
    }

    /// Whether this certificate (DER) is what the gateway of this name enrolled with last at this
    /// location, and is not about to end.
    pub async fn is_gateway_enrolled(
        &self,
        name: &str,
        location: &str,
        certificate: &[u8],
    ) -> Result<bool, ControlError> {
        let enrolled = self.0.is_gateway_enrolled(name, location, certificate);
        Ok(enrolled.await?)
    }

    /// Whether a certificate (DER) ends soon enough to be replaced.
    pub fn is_certificate_ending(&self, certificate: &[u8]) -> bool {
        self.0.is_certificate_ending(certificate)
    }

    /// All locations, by name.
    pub async fn locations(&self) -> Result<Vec<Location>, ControlError> {
        Ok(self.0.list_locations().await?.locations)
    }

    /// Follows the store's revision: it changes after every commit, by whichever process.
    pub fn revisions(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.store.revisions()
    }

    /// Puts figures for Prometheus on the page; those of every peer as well, where asked for.
    pub async fn figures(
        &self,
        page: &mut portcullis_metrics::Page,
        per_peer: bool,
    ) -> Result<(), ControlError> {
        let begun = std::time::Instant::now();
        self.0.figures(page, per_peer).await?;
        observe::metrics::took(page, begun);
        Ok(())
    }

    /// Closes the database. Whatever else still runs fails from then on.
    pub async fn close(&self) {
        self.0.store.close().await;
    }
}
