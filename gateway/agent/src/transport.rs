//! How control is reached: TLS only, with HTTP/2 keepalives.

use std::error::Error;
use std::time::Duration;

use tonic::codegen::http::Uri;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::identity::Enrolment;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead path is noticed after at most the sum of these two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// A snapshot of 100 000 peers is about 15 MB; the default window would stop it every 64 KiB.
const WINDOW: u32 = 4 << 20;

/// The text does not say where control is.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not control's address: it is written https://host:port")]
pub struct AddressError(String);

/// A mutually authenticated channel: only the CA of the enrolment is trusted.
pub(crate) async fn connect(enrolment: &Enrolment) -> Result<Channel, ConnectError> {
    let tls = ClientTlsConfig::new()
        .domain_name(host(&enrolment.control)?)
        .ca_certificate(Certificate::from_pem(&enrolment.ca))
        .identity(Identity::from_pem(
            &enrolment.certificate,
            enrolment.key.as_bytes(),
        ))
        .timeout(CONNECT_TIMEOUT);
    Ok(endpoint(&enrolment.control)?
        .tls_config(tls)?
        .connect()
        .await?)
}

/// Why there is no channel to control.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("{}", causes(.0))]
    Transport(#[from] tonic::transport::Error),
}

pub(crate) fn endpoint(url: &str) -> Result<Endpoint, AddressError> {
    let uri = parse(url)?;
    Ok(Endpoint::from(uri)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW))
}

/// The name or address that the server's certificate must be for.
pub(crate) fn host(url: &str) -> Result<String, AddressError> {
    let uri = parse(url)?;
    let host = uri.host().ok_or_else(|| AddressError(url.to_owned()))?;
    // An IPv6 address is in brackets in a URL, and is not in a certificate.
    Ok(host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned())
}

/// An error with what caused it: the outermost one says no more than "transport error".
pub(crate) fn causes(error: &(dyn Error + '_)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn parse(url: &str) -> Result<Uri, AddressError> {
    let refused = || AddressError(url.to_owned());
    let uri: Uri = url.trim_end_matches('/').parse().map_err(|_| refused())?;
    let complete = uri.scheme_str() == Some("https") && uri.host().is_some_and(|h| !h.is_empty());
    if complete { Ok(uri) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_addresses_are_taken() {
        for bad in [
            "",
            "http://control:7443",
            "control:7443",
            "https://",
            "https:///x",
        ] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
        assert_eq!(host("https://[::1]:7443/").expect("valid"), "::1");
        assert_eq!(
            host("https://control.example.org:7443").expect("valid"),
            "control.example.org"
        );
    }
}
