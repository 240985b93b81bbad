//! Generic netlink, synchronously: the kernel answers before `recv` would have to wait for long.

use std::fmt::Debug;
use std::io;
use std::time::Duration;

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_DUMP_INTR, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkBuffer,
    NetlinkMessage, NetlinkPayload, ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_GENERIC};
use zeroize::{Zeroize as _, Zeroizing};

/// The kernel fills what it is offered, up to 32 KiB, with as many messages of a dump as fit.
const RECEIVE_BUFFER: usize = 64 << 10;

/// The kernel answers at once, unless somebody holds its configuration lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why an exchange failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum GenlError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the kernel's answer makes no sense: {0}")]
    Decode(#[from] DecodeError),
    #[error("the state changed while it was being read")]
    Interrupted,
}

impl From<GenlError> for io::Error {
    fn from(error: GenlError) -> Self {
        match error {
            GenlError::Io(error) => error,
            other => io::Error::other(other),
        }
    }
}

/// A connection to one generic netlink family.
pub(super) struct Genl {
    socket: Socket,
    family: u16,
    sequence: u32,
}

impl Genl {
    /// `ErrorKind::NotFound` where the kernel has no such family.
    pub(super) fn open(family: &str) -> Result<Self, GenlError> {
        let mut socket = Socket::new(NETLINK_GENERIC)?;
        socket2::SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        let mut genl = Self {
            socket,
            family: 0,
            sequence: 0,
        };
        let request = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName(family.to_owned())],
        };
        let answers: Vec<GenlCtrl> = genl.request(request, 0)?;
        genl.family = answers
            .iter()
            .flat_map(|answer| &answer.nlas)
            .find_map(|attribute| match attribute {
                GenlCtrlAttrs::FamilyId(id) => Some(*id),
                _ => None,
            })
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(genl)
    }

    /// Sends one request and takes all of the answer. `flags` beside `NLM_F_REQUEST`: with
    /// `NLM_F_ACK` or `NLM_F_DUMP` the end of the answer is marked, otherwise it is one message.
    pub(super) fn request<F>(&mut self, payload: F, flags: u16) -> Result<Vec<F>, GenlError>
    where
        F: GenlFamily + Emitable + ParseableParametrized<[u8], GenlHeader> + Debug,
    {
        self.sequence = self.sequence.wrapping_add(1);
        self.send(payload, flags)?;
        let mut answers = Vec::new();
        let mut interrupted = false;
        let mut buffer = Zeroizing::new(Vec::with_capacity(RECEIVE_BUFFER));
        loop {
            buffer.zeroize();
            self.socket.recv(&mut *buffer, 0)?;
            let mut rest = buffer.as_slice();
            while !rest.is_empty() {
                let length = message_length(rest)?;
                let message = NetlinkMessage::<GenlMessage<F>>::deserialize(&rest[..length])?;
                rest = &rest[length.next_multiple_of(4).min(rest.len())..];
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
                let more = message.header.flags & NLM_F_MULTIPART != 0 || flags != 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(answer) => {
                        answers.push(answer.payload);
                        if !more {
                            return Ok(answers);
                        }
                    }
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io().into());
                    }
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code).into());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) if interrupted => {
                        return Err(GenlError::Interrupted);
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answers),
                    _ => {}
                }
            }
        }
    }

    fn send<F>(&mut self, payload: F, flags: u16) -> Result<(), GenlError>
    where
        F: GenlFamily + Emitable + Debug,
    {
        let mut message = GenlMessage::from_payload(payload);
        message.set_resolved_family_id(self.family);
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = self.sequence;
        message.finalize();
        // Requests carry keys.
        let mut buffer = Zeroizing::new(vec![0; message.buffer_len()]);
        message.serialize(&mut buffer);
        let sent = self.socket.send(&buffer, 0)?;
        if sent == buffer.len() {
            Ok(())
        } else {
            Err(io::Error::from(io::ErrorKind::WriteZero).into())
        }
    }
}

/// The length of the first message, which is at least a header's and at most what is there.
fn message_length(buffer: &[u8]) -> Result<usize, GenlError> {
    let header = NetlinkBuffer::new_checked(buffer)?;
    Ok(header.length() as usize)
}
