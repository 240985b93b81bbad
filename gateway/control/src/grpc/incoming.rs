//! Connections to the gateways' port: how many there may be, and how long one may stay before it has
//! shown that it is a gateway's. Anybody can open them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// Open connections; further ones are closed at once.
const CONNECTIONS: usize = 1024;
/// For a TLS handshake and an enrolment, or to begin a gateway's stream.
const STRANGER_FOR: Duration = Duration::from_secs(30);

/// A connection in its place.
pub(super) struct Connection {
    tcp: TcpStream,
    info: ConnectInfo,
    /// Over when a connection that is no gateway's has to end.
    patience: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

/// What a call learns of its connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectInfo {
    pub(super) tcp: TcpConnectInfo,
    gateways: Arc<AtomicBool>,
}

impl ConnectInfo {
    /// It is an enrolled gateway's: it may stay.
    pub(super) fn welcome(&self) {
        self.gateways.store(true, Ordering::Relaxed);
    }
}

/// Accepts for as long as it is polled.
pub(super) fn connections(
    listener: TcpListener,
) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    TcpListenerStream::new(listener).filter_map(move |accepted| {
        let tcp = match accepted {
            Ok(tcp) => tcp,
            Err(error) => return Some(Err(error)),
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            tracing::warn!("too many connections to the gateways' port: one was closed");
            return None;
        };
        // Acknowledgements are small and awaited.
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its small packets back");
        }
        Some(Ok(Connection {
            info: ConnectInfo {
                tcp: tcp.connect_info(),
                gateways: Arc::default(),
            },
            tcp,
            patience: Box::pin(sleep(STRANGER_FOR)),
            _place: place,
        }))
    })
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let stranger = !self.info.gateways.load(Ordering::Relaxed);
        if stranger && self.patience.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.tcp).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}
