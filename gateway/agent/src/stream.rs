//! The stream to control: one connection at a time, dialled by the gateway.

use portcullis_proto::PROTOCOL;
use portcullis_proto::v1::gateway_control_client::GatewayControlClient;
use portcullis_proto::v1::{
    Applied, ControlMessage, Explained, GatewayMessage, Hello, Report, TraceEvents, gateway_message,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::datapath;
use crate::identity::Enrolment;
use crate::keys::PublicKey;
use crate::transport::{self, ConnectError};

/// Messages to control that may wait: a slow control must not make the gateway's memory grow.
const OUTBOUND: usize = 256;
/// Messages from control that may wait for the kernel; more of them wait on the way.
const INBOUND: usize = 16;
/// A snapshot of the largest location must fit.
const MESSAGE_LIMIT: usize = 512 << 20;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("control refused the stream: {}", .0.message())]
    Refused(#[from] Status),
    #[error("the stream has ended")]
    Ended,
    #[error("control reads too slowly")]
    Backlog,
}

/// Where the gateway is, for control to go on from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Resume {
    /// 0 asks for a snapshot.
    pub(crate) revision: u64,
    pub(crate) store_id: String,
}

/// An open stream.
#[derive(Debug)]
pub(crate) struct Stream {
    outbound: mpsc::Sender<GatewayMessage>,
    inbound: mpsc::Receiver<Result<Received, StreamError>>,
    reader: JoinHandle<()>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A message, and when it came.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: ControlMessage,
    /// On the clock of the maps. What the message says in control's time counts from here, however
    /// long the message then waits: a busy gateway must not prolong sessions.
    pub(crate) at: u64,
}

impl Stream {
    /// Dials control, and says hello.
    pub(crate) async fn open(
        enrolment: &Enrolment,
        public_key: PublicKey,
        resume: Resume,
    ) -> Result<Self, StreamError> {
        let channel = transport::connect(enrolment).await?;
        let (outbound, messages) = mpsc::channel(OUTBOUND);
        let hello = Hello {
            protocol: PROTOCOL,
            abi_version: gateway_common::abi::ABI_VERSION,
            resume_from: resume.revision,
            store_id: resume.store_id,
            public_key: public_key.as_bytes().to_vec(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let stream = |message| GatewayMessage {
            message: Some(message),
        };
        // The channel is empty: this cannot fail for want of room.
        outbound
            .try_send(stream(gateway_message::Message::Hello(hello)))
            .map_err(|_| StreamError::Ended)?;
        let inbound = GatewayControlClient::new(channel)
            .max_decoding_message_size(MESSAGE_LIMIT)
            .sync(ReceiverStream::new(messages))
            .await?
            .into_inner();
        let (received, messages) = mpsc::channel(INBOUND);
        Ok(Self {
            outbound,
            inbound: messages,
            reader: tokio::spawn(read(inbound, received)),
        })
    }

    /// The next message. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Received, StreamError> {
        self.inbound.recv().await.unwrap_or(Err(StreamError::Ended))
    }

    pub(crate) fn applied(&self, applied: Applied) -> Result<(), StreamError> {
        self.send(gateway_message::Message::Applied(applied))
    }

    pub(crate) fn report(&self, report: Report) -> Result<(), StreamError> {
        self.send(gateway_message::Message::Report(report))
    }

    /// Sends as much of a trace as there is room for; answers how many events there was none for. Half
    /// of the room is left for what matters more.
    pub(crate) fn trace(&self, messages: Vec<TraceEvents>) -> Result<usize, StreamError> {
        let mut lost = 0;
        for message in messages {
            if self.outbound.capacity() <= OUTBOUND / 2 {
                lost += message.events.len();
            } else {
                self.send(gateway_message::Message::Trace(message))?;
            }
        }
        Ok(lost)
    }

    pub(crate) fn explained(&self, explained: Explained) -> Result<(), StreamError> {
        self.send(gateway_message::Message::Explained(explained))
    }

    fn send(&self, message: gateway_message::Message) -> Result<(), StreamError> {
        self.outbound
            .try_send(GatewayMessage {
                message: Some(message),
            })
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => StreamError::Backlog,
                mpsc::error::TrySendError::Closed(_) => StreamError::Ended,
            })
    }
}

/// Takes messages as they come, until the stream ends or nobody listens any more.
async fn read(
    mut inbound: Streaming<ControlMessage>,
    received: mpsc::Sender<Result<Received, StreamError>>,
) {
    loop {
        let message = inbound.message().await;
        let at = datapath::now();
        let message = match message {
            Ok(Some(message)) => Ok(Received { message, at }),
            Ok(None) => Err(StreamError::Ended),
            Err(status) => Err(status.into()),
        };
        let over = message.is_err();
        if received.send(message).await.is_err() || over {
            return;
        }
    }
}
