//! Sockets, TLS and connections.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use portcullis_control::{Logins, Passkeys, Sso};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::guard::DeviceAddr;
use crate::known::Known;
use crate::limits::Limits;

const BACKLOG: i32 = 256;
/// For the TLS handshake, and for the head of each request.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// After this a connection ends, busy or not; clients just open another.
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// What a request under way is given when the service stops.
const DRAIN_TIME: Duration = Duration::from_secs(3);
/// After `accept` failed, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The portal cannot listen.
#[derive(Debug, Error)]
#[error("the portal cannot listen on {address}: {}", explain(.source))]
pub struct BindError {
    pub address: SocketAddr,
    pub source: io::Error,
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "{error}; another program has this port (see `ss -ltnp`), or choose another one in [portal] listen"
            )
        }
        io::ErrorKind::PermissionDenied => {
            format!("{error}; ports below 1024 need root or CAP_NET_BIND_SERVICE")
        }
        _ => error.to_string(),
    }
}

/// Bound sockets and what they serve.
pub struct Portal {
    listeners: Vec<TcpListener>,
    tls: TlsAcceptor,
    /// None: whoever asks is answered.
    known: Option<Known>,
    app: Router,
}

impl Portal {
    /// Takes the addresses; they need not exist on the machine yet, because the tunnel's
    /// interface may come up later. To be called inside a tokio runtime.
    pub fn bind(
        listen: &[SocketAddr],
        tls: Arc<ServerConfig>,
        logins: Logins,
        passkeys: Option<Passkeys>,
        sso: Option<Sso>,
    ) -> Result<Self, BindError> {
        let listeners = open_all(listen)?;
        Ok(Self {
            listeners,
            tls: TlsAcceptor::from(tls),
            known: Some(Known::new(logins.clone())),
            app: crate::app(logins, passkeys, sso),
        })
    }

    /// Takes addresses for what providers of single sign-on tell, which reach nothing but that.
    pub fn bind_backchannel(
        listen: &[SocketAddr],
        tls: Arc<ServerConfig>,
        sso: Sso,
    ) -> Result<Self, BindError> {
        Ok(Self {
            listeners: open_all(listen)?,
            tls: TlsAcceptor::from(tls),
            known: None,
            app: crate::backchannel_app(sso),
        })
    }

    /// Where it listens; port 0 has become a real port.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Serves until `shutdown`, then lets requests under way finish for a moment.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let (stop, stopped) = watch::channel(false);
        let server = Server {
            tls: self.tls,
            known: self.known,
            app: self.app,
            limits: Limits::default(),
            stopped,
        };
        let mut accepting = JoinSet::new();
        for listener in self.listeners {
            accepting.spawn(server.clone().accept(listener));
        }
        shutdown.await;
        let _ = stop.send(true);
        let _ = tokio::time::timeout(DRAIN_TIME, accepting.join_all()).await;
    }
}

/// What each connection needs.
#[derive(Clone)]
struct Server {
    tls: TlsAcceptor,
    known: Option<Known>,
    app: Router,
    limits: Limits,
    stopped: watch::Receiver<bool>,
}

impl Server {
    async fn accept(mut self, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                _ = self.stopped.changed() => break,
            };
            match accepted {
                Ok((tcp, from)) => {
                    // A socket for both families shows IPv4 peers as mapped IPv6 addresses.
                    let device = from.ip().to_canonical();
                    let server = self.clone();
                    connections.spawn(async move {
                        // A stranger takes no place from a device, and costs no handshake. Closing
                        // the connection is all the answer there is, as it is over the limit.
                        if let Some(known) = &server.known
                            && !known.is_device(device).await
                        {
                            tracing::debug!(%device, "no device has this address");
                            return;
                        }
                        let Some(_place) = server.limits.enter(device) else {
                            return;
                        };
                        let served = server.connection(tcp, device);
                        let _ = tokio::time::timeout(CONNECTION_TIME, served).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the portal cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        connections.join_all().await;
    }

    async fn connection(mut self, tcp: TcpStream, device: IpAddr) {
        let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE_TIME, self.tls.accept(tcp)).await else {
            return;
        };
        let service = TowerToHyperService::new(self.app.layer(Extension(DeviceAddr(device))));
        let mut http = Builder::new(TokioExecutor::new()).http1_only();
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HANDSHAKE_TIME);
        let mut connection = pin!(http.serve_connection(TokioIo::new(tls), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = self.stopped.changed() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection to the portal ended early");
        }
    }
}

fn open_all(listen: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let open = |&address| open(address).map_err(|source| BindError { address, source });
    listen.iter().map(open).collect()
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv4() {
        socket.set_freebind_v4(true)?;
    } else {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(StdListener::from(socket))
}
