//! `GET /metrics` over plain HTTP.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::page::Page;

/// Connections at a time; others wait.
const CONNECTIONS: usize = 16;
/// How long a request's head may take, so that idle connections do not use those up.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may take altogether.
const CONNECTION_WITHIN: Duration = Duration::from_secs(60);
/// After a failed accept, which may be for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves pages, each made by `scrape`, until `shutdown` resolves.
pub async fn serve<S, F>(listener: TcpListener, scrape: S, shutdown: impl Future<Output = ()>)
where
    S: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Page> + Send,
{
    tokio::select! {
        () = accept(listener, scrape) => {}
        () = shutdown => {}
    }
}

async fn accept<S, F>(listener: TcpListener, scrape: S)
where
    S: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Page> + Send,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let scrape = scrape.clone();
                tokio::spawn(async move {
                    let _place = place;
                    let _ = tokio::time::timeout(CONNECTION_WITHIN, converse(stream, scrape)).await;
                });
            }
            Err(error) => {
                tracing::debug!("a connection for figures failed: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn converse<S, F>(stream: TcpStream, scrape: S)
where
    S: Fn() -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Page> + Send,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let scrape = scrape.clone();
        async move { Ok::<_, Infallible>(answer(&request, scrape).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection for figures broke: {error}");
    }
}

async fn answer<S, F>(request: &Request<Incoming>, scrape: S) -> Response<Full<Bytes>>
where
    S: Fn() -> F,
    F: Future<Output = Page>,
{
    if request.uri().path() != "/metrics" {
        return refused(StatusCode::NOT_FOUND, "figures are at /metrics\n");
    }
    if request.method() != Method::GET {
        return refused(StatusCode::METHOD_NOT_ALLOWED, "figures can only be read\n");
    }
    let text = scrape().await.text();
    let mut response = Response::new(Full::from(text));
    let media_type = hyper::header::HeaderValue::from_static(Page::MEDIA_TYPE);
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

fn refused(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}
