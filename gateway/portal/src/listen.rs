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
use portcullis_control::{
    Approvals, Connects, Enrolments, Logins, Outside, Passkeys, PortalCertificate, Sso, network,
};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::captive::TLS_HANDSHAKE;
use crate::guard::{DeviceAddr, PortalAddr};
use crate::known::Known;
use crate::limits::{Limits, Place};
use crate::public::{Arrivals, PublicAddr};

const BACKLOG: i32 = 256;
/// For the TLS handshake, and for the head of each request.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
const CONNECTION_TIME: Duration = Duration::from_secs(300);
/// Outside of the tunnel, where places are taken by anyone. The second is more than a request may take.
const STRANGERS_HANDSHAKE_TIME: Duration = Duration::from_secs(4);
const STRANGERS_TIME: Duration = Duration::from_secs(30);
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
    /// None: only what comes in the clear is answered.
    tls: Option<TlsAcceptor>,
    door: Door,
    app: Router,
    /// Answers what comes without TLS, where anything does.
    plain: Option<Router>,
    limits: Limits,
}

/// Who is spoken to.
#[derive(Clone)]
enum Door {
    /// Devices alone, by their addresses inside the tunnel.
    Devices(Known),
    /// Anyone, so many at a time; the address tells nothing but whose share a connection takes.
    Anyone(Arrivals),
}

impl Door {
    /// After this a connection ends, busy or not; clients just open another.
    fn connection_time(&self) -> Duration {
        match self {
            Self::Devices(_) => CONNECTION_TIME,
            Self::Anyone(_) => STRANGERS_TIME,
        }
    }

    /// For what comes before the first request.
    fn handshake_time(&self) -> Duration {
        match self {
            Self::Devices(_) => HANDSHAKE_TIME,
            Self::Anyone(_) => STRANGERS_HANDSHAKE_TIME,
        }
    }
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
        let listeners = open_all(listen, false)?;
        Ok(Self::inside(listeners, tls, logins, passkeys, sso))
    }

    /// The same beside a public portal that listens on all addresses, at a port of these.
    pub fn bind_beside_public(
        listen: &[SocketAddr],
        tls: Arc<ServerConfig>,
        logins: Logins,
        passkeys: Option<Passkeys>,
        sso: Option<Sso>,
    ) -> Result<Self, BindError> {
        let listeners = open_all(listen, true)?;
        Ok(Self::inside(listeners, tls, logins, passkeys, sso))
    }

    fn inside(
        listeners: Vec<TcpListener>,
        tls: Arc<ServerConfig>,
        logins: Logins,
        passkeys: Option<Passkeys>,
        sso: Option<Sso>,
    ) -> Self {
        Self {
            listeners,
            tls: Some(TlsAcceptor::from(tls)),
            door: Door::Devices(Known::new(logins.clone())),
            plain: Some(crate::plain_app(logins.clone(), passkeys.clone())),
            limits: Limits::default(),
            app: crate::app(logins, passkeys, sso),
        }
    }

    /// The same outside of the tunnel: enrolment, logins with proof of the device's key, signing in where
    /// that is wished, and phones that approve where the portal has a name.
    pub fn bind_public(
        listen: &[SocketAddr],
        tls: Arc<ServerConfig>,
        enrolments: Enrolments,
        connects: Connects,
        outside: Option<Outside>,
        approvals: Option<Approvals>,
    ) -> Result<Self, BindError> {
        let everywhere = listen.iter().any(|address| address.ip().is_unspecified());
        Ok(Self {
            listeners: open_all(listen, everywhere)?,
            tls: Some(TlsAcceptor::from(tls)),
            door: Door::Anyone(Arrivals::default()),
            app: crate::public_app(enrolments, connects, outside, approvals),
            plain: None,
            limits: Limits::default(),
        })
    }

    /// Takes addresses for what providers of single sign-on tell, which reach nothing but that.
    pub fn bind_backchannel(
        listen: &[SocketAddr],
        tls: Arc<ServerConfig>,
        sso: Sso,
    ) -> Result<Self, BindError> {
        Ok(Self {
            listeners: open_all(listen, false)?,
            tls: Some(TlsAcceptor::from(tls)),
            door: Door::Anyone(Arrivals::of_providers()),
            app: crate::backchannel_app(sso),
            plain: None,
            limits: Limits::of_providers(),
        })
    }

    /// Takes addresses for what a CA asks by plain HTTP (ACME, http-01), which reach nothing but that.
    pub fn bind_challenges(
        listen: &[SocketAddr],
        certificate: PortalCertificate,
    ) -> Result<Self, BindError> {
        Ok(Self {
            listeners: open_all(listen, false)?,
            tls: None,
            door: Door::Anyone(Arrivals::default()),
            app: Router::new(),
            plain: Some(crate::challenge_app(certificate)),
            limits: Limits::default(),
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
            door: self.door,
            app: self.app,
            plain: self.plain,
            limits: self.limits,
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
    tls: Option<TlsAcceptor>,
    door: Door,
    app: Router,
    plain: Option<Router>,
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
                    let from = from.ip().to_canonical();
                    let server = self.clone();
                    connections.spawn(async move {
                        // Closing the connection is all the answer there is.
                        let Some(_place) = server.enter(from).await else {
                            return;
                        };
                        let most = server.door.connection_time();
                        let served = server.connection(tcp, from);
                        let _ = tokio::time::timeout(most, served).await;
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

    /// Whether a connection is spoken to, before it costs a handshake. A stranger takes no place from a
    /// device.
    async fn enter(&self, from: IpAddr) -> Option<Place> {
        match &self.door {
            Door::Devices(known) => {
                if !known.is_device(from).await {
                    tracing::debug!(device = %from, "no device has this address");
                    return None;
                }
                self.limits.enter(from)
            }
            Door::Anyone(arrivals) => {
                let from = network(from);
                if !arrivals.admit(from) {
                    tracing::debug!(%from, "too many connections from this network");
                    return None;
                }
                self.limits.enter(from)
            }
        }
    }

    async fn connection(self, tcp: TcpStream, from: IpAddr) {
        let Ok(at) = tcp.local_addr() else { return };
        let at = PortalAddr(SocketAddr::new(at.ip().to_canonical(), at.port()));
        let mut first = [0];
        let within = self.door.handshake_time();
        let peeked = tokio::time::timeout(within, tcp.peek(&mut first));
        let Ok(Ok(1)) = peeked.await else { return };
        if first == [TLS_HANDSHAKE] {
            let Some(tls) = &self.tls else { return };
            let accepted = tokio::time::timeout(within, tls.accept(tcp));
            let Ok(Ok(tls)) = accepted.await else { return };
            let app = self.app.clone();
            self.serve(tls, app, from, at).await;
        } else if let Some(plain) = self.plain.clone() {
            self.serve(tcp, plain, from, at).await;
        }
    }

    async fn serve(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
        app: Router,
        from: IpAddr,
        at: PortalAddr,
    ) {
        let app = match self.door {
            Door::Devices(_) => app.layer(Extension(DeviceAddr(from))),
            Door::Anyone(_) => app.layer(Extension(PublicAddr(from))),
        };
        let service = TowerToHyperService::new(app.layer(Extension(at)));
        let mut http = Builder::new(TokioExecutor::new()).http1_only();
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.door.handshake_time());
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
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

/// Where all addresses are listened on outside, and one of them inside at the same port, both have to
/// share it: the kernel then gives a connection to the socket with the more specific address
/// (inet_lookup_listener). Only sockets of the same user can.
fn open_all(listen: &[SocketAddr], share_ports: bool) -> Result<Vec<TcpListener>, BindError> {
    listen
        .iter()
        .map(|&address| open(address, share_ports).map_err(|source| BindError { address, source }))
        .collect()
}

fn open(address: SocketAddr, shares_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shares_port)?;
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
