//! Notices what happens to the interface behind the agent's back.

use futures_util::StreamExt as _;
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::RouteNetlinkMessage as Message;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::MulticastGroup;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::link::LinkError;

/// Tells that a link or its traffic control changed. A hint only: whoever hears it asks the
/// kernel, and asks from time to time without a hint, since the kernel may drop notifications.
#[derive(Debug)]
pub(crate) struct LinkWatch {
    hints: mpsc::Receiver<()>,
    task: JoinHandle<()>,
}

impl Drop for LinkWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl LinkWatch {
    /// Watches the interface of this name; must be called within a Tokio runtime.
    pub(crate) fn new(name: &str) -> Result<Self, LinkError> {
        let groups = [MulticastGroup::Link, MulticastGroup::Tc];
        let (connection, _, mut messages) =
            rtnetlink::new_multicast_connection(&groups).map_err(LinkError::Socket)?;
        // One place: a hint that waits says as much as two.
        let (sender, hints) = mpsc::channel(1);
        let name = name.to_owned();
        let task = tokio::spawn(async move {
            let read = async {
                while let Some((message, _)) = messages.next().await {
                    if let NetlinkPayload::InnerMessage(message) = message.payload
                        && concerns(&message, &name)
                    {
                        // Full: there is a hint already.
                        let _ = sender.try_send(());
                    }
                }
            };
            tokio::join!(connection, read);
        });
        Ok(Self { hints, task })
    }

    /// Waits for the next hint. Cancel-safe.
    pub(crate) async fn hint(&mut self) {
        if self.hints.recv().await.is_none() {
            // The socket failed; the caller's own timer has to do.
            std::future::pending::<()>().await;
        }
    }
}

fn concerns(message: &Message, name: &str) -> bool {
    match message {
        Message::NewLink(link) | Message::DelLink(link) => has_name(link, name),
        // These carry an index only.
        Message::NewQueueDiscipline(_)
        | Message::DelQueueDiscipline(_)
        | Message::NewTrafficFilter(_)
        | Message::DelTrafficFilter(_) => true,
        _ => false,
    }
}

fn has_name(link: &LinkMessage, name: &str) -> bool {
    link.attributes
        .iter()
        .any(|attribute| matches!(attribute, LinkAttribute::IfName(found) if found == name))
}
