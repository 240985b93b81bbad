//! Trust by fingerprint. The portal presents its certificate with the CA's; the CA is the trust
//! anchor if, and only if, its fingerprint is the one the user was given.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::fingerprint::Fingerprint;
use crate::portal::PortalError;

/// The provider of this crate's TLS, whatever the process default is.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Makes one handshake with `host:port` and returns the CA certificate, once its fingerprint
/// matched and the server's certificate proved valid under it and for this host.
pub(crate) fn fetch_ca(
    host: &str,
    port: u16,
    expected: Fingerprint,
    timeout: Duration,
) -> Result<CertificateDer<'static>, PortalError> {
    let unreachable = |source| PortalError::Unreachable {
        place: format!("{host} port {port}"),
        source,
    };
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_| PortalError::Url(host.to_owned()))?;
    let verifier = Arc::new(PinnedCa {
        expected,
        provider: provider(),
        presented: OnceLock::new(),
    });
    let config = rustls::ClientConfig::builder_with_provider(verifier.provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    let mut tls = ClientConnection::new(Arc::new(config), name)?;
    let mut tcp = connect(host, port, timeout).map_err(unreachable)?;
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut tcp) {
            return Err(handshake_error(error, &verifier, unreachable));
        }
    }
    match verifier.presented.get() {
        Some(ca) if Fingerprint::of(ca) == expected => Ok(ca.clone()),
        _ => Err(PortalError::NoCa),
    }
}

fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(tcp) => {
                tcp.set_read_timeout(Some(timeout))?;
                tcp.set_write_timeout(Some(timeout))?;
                return Ok(tcp);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// rustls hides its own error inside the I/O error of `complete_io`.
fn handshake_error(
    error: io::Error,
    verifier: &PinnedCa,
    unreachable: impl FnOnce(io::Error) -> PortalError,
) -> PortalError {
    if let Some(ca) = verifier.presented.get() {
        let found = Fingerprint::of(ca);
        if found != verifier.expected {
            return PortalError::AnotherCa {
                expected: verifier.expected,
                found,
            };
        }
    }
    match error.downcast::<rustls::Error>() {
        Ok(tls) => PortalError::Tls(tls),
        Err(io) => unreachable(io),
    }
}

#[derive(Debug)]
struct PinnedCa {
    expected: Fingerprint,
    provider: Arc<CryptoProvider>,
    /// The last certificate of the presented chain.
    presented: OnceLock<CertificateDer<'static>>,
}

impl ServerCertVerifier for PinnedCa {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let unknown = || rustls::Error::from(CertificateError::UnknownIssuer);
        let (ca, between) = intermediates.split_last().ok_or_else(unknown)?;
        let presented = self.presented.get_or_init(|| ca.clone().into_owned());
        if Fingerprint::of(presented) != self.expected || presented != ca {
            return Err(unknown());
        }
        let mut roots = RootCertStore::empty();
        roots.add(presented.clone())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, between, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
