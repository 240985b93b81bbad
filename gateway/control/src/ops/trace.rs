//! A live trace for an administrator.

use gateway_common::verdict::Reason;
use portcullis_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Result, explain, found};
use crate::core::Core;
use crate::error::OperationError;
use crate::observe::trace::{Heard, Listener, Observed};
use crate::store::{devices, users};

/// Items that may wait for a slow reader; after that the listener falls behind, and loss is counted.
const WAITING: usize = 256;

/// What an administrator reads.
pub(crate) type TraceStream = ReceiverStream<std::result::Result<v1::TraceItem, Status>>;

impl Core {
    /// Traces until the stream is dropped.
    pub(crate) async fn trace(&self, request: v1::TraceRequest) -> Result<TraceStream> {
        let mut read = self.store.read().await?;
        let mut keys = None;
        let mut filter = Filter {
            device: None,
            user: None,
            reason: reason(&request.reason)?,
        };
        if !request.user.is_empty() {
            let name = &request.user;
            let user = found("user", name, users::find(read.sql(), name)).await?;
            let devices = devices::list(read.sql(), &user.id, "").await?;
            keys = Some(devices.iter().map(|device| device.public_key).collect());
            filter.user = Some(user.name);
        }
        if !request.device.is_empty() {
            let device = explain::device(read.sql(), &request.device).await?;
            keys = Some(vec![device.public_key]);
            filter.device = Some(device.name);
        }
        read.end().await?;
        let keys = keys.map(|keys| keys.iter().map(|key| key.as_bytes().to_vec()).collect());
        let listener = self.trace.listen(keys);
        let (sender, stream) = mpsc::channel(WAITING);
        tokio::spawn(follow(listener, filter, sender));
        Ok(ReceiverStream::new(stream))
    }
}

struct Filter {
    device: Option<String>,
    user: Option<String>,
    reason: Option<Reason>,
}

impl Filter {
    fn wants(&self, observed: &Observed) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|w| w == found);
        is(&self.device, &observed.device)
            && is(&self.user, &observed.user)
            && self
                .reason
                .is_none_or(|reason| observed.event.reason == reason as u32)
    }
}

fn reason(name: &str) -> Result<Option<Reason>> {
    if name.is_empty() {
        return Ok(None);
    }
    let reason = Reason::ALL.iter().find(|reason| reason.name() == name);
    reason.copied().map(Some).ok_or_else(|| {
        let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        OperationError::invalid(format!(
            "no reason is called {name:?}; there are {}",
            names.join(", ")
        ))
    })
}

async fn follow(
    mut listener: Listener,
    filter: Filter,
    sender: mpsc::Sender<std::result::Result<v1::TraceItem, Status>>,
) {
    let mut lost = 0_u64;
    loop {
        let heard = tokio::select! {
            heard = listener.next() => heard,
            () = sender.closed() => return,
        };
        let item = match heard {
            Heard::Lost(0) => continue,
            Heard::Lost(more) => {
                lost = lost.saturating_add(more);
                v1::TraceItem {
                    lost,
                    ..v1::TraceItem::default()
                }
            }
            Heard::Event(observed) if filter.wants(&observed) => v1::TraceItem {
                gateway: observed.gateway.clone(),
                device: observed.device.clone(),
                user: observed.user.clone(),
                event: Some(observed.event.clone()),
                lost,
            },
            Heard::Event(_) => continue,
        };
        if sender.send(Ok(item)).await.is_err() {
            return;
        }
    }
}
