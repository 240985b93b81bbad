//! A TLS server that says what it is told to.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// A certificate authority.
pub(crate) struct Ca {
    pub(crate) certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn server(&self, name: &str, chain_end: &CertificateDer<'static>) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf, chain_end.clone()], key)
            .unwrap()
    }
}

/// Answers one request on every connection, by the request; returns the port.
pub(crate) fn serve(
    config: ServerConfig,
    mut answer: impl FnMut(&str) -> String + Send + 'static,
) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(config);
    thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut tls =
                StreamOwned::new(ServerConnection::new(config.clone()).unwrap(), tcp.unwrap());
            let mut request = [0; 4096];
            if let Ok(length @ 1..) = tls.read(&mut request) {
                let request = String::from_utf8_lossy(&request[..length]);
                let _ = tls.write_all(answer(&request).as_bytes());
            }
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
    });
    port
}

/// Where the server of this port is.
pub(crate) fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}
