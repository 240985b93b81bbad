//! Trust by fingerprint. The portal presents its certificate with the CA's; the CA is the trust
//! anchor if, and only if, its fingerprint is the one the user was given.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use portcullis_trust::{Fingerprint, PinnedCa};
use rustls::ClientConnection;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::portal::PortalError;

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
    let verifier = Arc::new(PinnedCa::new(expected));
    let mut config = rustls::ClientConfig::builder_with_provider(verifier.provider().clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    // The portal shows the certificate of the CA that is pinned to those who ask for no name. It has to
    // be for this host all the same.
    config.enable_sni = false;
    let mut tls = ClientConnection::new(Arc::new(config), name)?;
    let mut tcp = connect(host, port, timeout).map_err(unreachable)?;
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut tcp) {
            return Err(handshake_error(error, expected, &verifier, unreachable));
        }
    }
    verifier.ca().ok_or(PortalError::NoCa)
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
    expected: Fingerprint,
    verifier: &PinnedCa,
    unreachable: impl FnOnce(io::Error) -> PortalError,
) -> PortalError {
    if let Some(found) = verifier.presented().filter(|found| *found != expected) {
        return PortalError::AnotherCa { expected, found };
    }
    match error.downcast::<rustls::Error>() {
        Ok(tls) => PortalError::Tls(tls),
        Err(io) => unreachable(io),
    }
}
