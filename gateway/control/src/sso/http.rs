//! HTTP to providers: TLS, no redirects, and bounds on time and size.

use std::pin::Pin;
use std::time::Duration;

use openidconnect::url::{Host, Url};
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse, http};

/// For a whole exchange.
const WITHIN: Duration = Duration::from_secs(8);
const CONNECT_WITHIN: Duration = Duration::from_secs(4);
/// No document or token of a provider is larger.
const MOST_BYTES: usize = 256 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("{0} is no https address")]
    Plain(String),
    #[error("the answer is larger than {MOST_BYTES} bytes")]
    Large,
    #[error(transparent)]
    Failed(#[from] reqwest::Error),
    #[error("an answer that is none: {0}")]
    Answer(#[from] http::Error),
}

/// A client for one provider.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    /// The provider is on this machine, and spoken to without TLS: for tests.
    loopback: bool,
}

impl Client {
    pub(super) fn new(loopback: bool) -> Result<Self, reqwest::Error> {
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(WITHIN)
            .connect_timeout(CONNECT_WITHIN)
            .https_only(!loopback)
            .user_agent("portcullis");
        if loopback {
            builder = builder.no_proxy();
        }
        Ok(Self {
            http: builder.build()?,
            loopback,
        })
    }

    /// Whether this provider may have such an address.
    pub(super) fn permits(&self, url: &Url) -> bool {
        url.scheme() == "https" || (self.loopback && is_loopback(url))
    }

    async fn send(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        if !self.permits(request.url()) {
            return Err(HttpError::Plain(
                request.url().origin().ascii_serialization(),
            ));
        }
        let mut response = self.http.execute(request).await?;
        let mut answer = http::Response::builder().status(response.status());
        if let Some(headers) = answer.headers_mut() {
            headers.clone_from(response.headers());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(HttpError::Large);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(answer.body(body)?)
    }
}

impl<'c> AsyncHttpClient<'c> for Client {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.send(request))
    }
}

/// Whether it is plain HTTP to an address of this machine: a name could be anything's.
pub(super) fn is_loopback(url: &Url) -> bool {
    let here = match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(_)) | None => false,
    };
    url.scheme() == "http" && here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_provider_on_this_machine_is_spoken_to_without_tls() {
        let url = |text: &str| Url::parse(text).unwrap();
        let (remote, local) = (Client::new(false).unwrap(), Client::new(true).unwrap());
        for plain in ["http://127.0.0.1:1/", "http://[::1]:1/x"] {
            assert!(local.permits(&url(plain)), "{plain}");
            assert!(!remote.permits(&url(plain)), "{plain}");
        }
        for never in [
            "http://id.example.com/",
            "http://localhost:1/",
            "ftp://127.0.0.1/",
        ] {
            assert!(!local.permits(&url(never)), "{never}");
        }
        assert!(remote.permits(&url("https://id.example.com/")));
    }
}
