//! TC egress of the network card: handshake messages that this machine sends.

use aya_ebpf::{bindings::TC_ACT_UNSPEC, macros::classifier, programs::TcContext};
use gateway_common::{
    abi::AddressV6,
    shield::{
        BUCKET_SLOTS, Kind, LEARNING, Learned, Message, PENDING_LIFE, SESSION_LIFE, Slot, datagram,
        message, source_key,
    },
};

use crate::{frame::Frame, maps};

/// Enough for the headers and the handshake message, with two tags and all options.
const HANDSHAKE_MOST: u32 = 14 + 8 + 60 + 8 + 148;

/// Writes down the sender's index of each handshake message. The packet itself goes on untouched.
#[classifier]
pub(crate) fn learn(ctx: TcContext) -> i32 {
    let _ = handle(&ctx);
    TC_ACT_UNSPEC
}

#[inline(always)]
fn handle(ctx: &TcContext) -> Option<()> {
    let length = ctx.len();
    // Handshake messages are short. A machine that forwards to another gateway sees that one's, too.
    // SAFETY: a field of the context.
    if length > HANDSHAKE_MOST || unsafe { (*ctx.skb.skb).ingress_ifindex } != 0 {
        return None;
    }
    if ctx.data_end() - ctx.data() < length as usize {
        ctx.pull_data(length).ok()?;
    }
    let frame = Frame::new(ctx.data(), ctx.data_end());
    let sent = datagram(&frame)?;
    let settings = maps::settings()?;
    if settings.port == 0 || sent.source_port != settings.port {
        return None;
    }
    let (now, to) = (maps::now(), sent.destination(&frame)?);
    let (index, slot) = match message(&frame, &sent).ok()? {
        Message::Initiation { sender } => {
            (sender, Slot::new(sender, Kind::Pending, now, PENDING_LIFE))
        }
        Message::Response { sender, .. } => {
            maps::set_known(source_key(sent.is_v6, to), now);
            (sender, Slot::new(sender, Kind::Session, now, SESSION_LIFE))
        }
        Message::Cookie { .. } | Message::Data { .. } => return None,
    };
    store(
        index & settings.mask,
        slot,
        (to, sent.destination_port),
        now,
    );
    None
}

#[inline(always)]
fn store(number: u32, new: Slot, to: (AddressV6, u16), now: u64) {
    let learned = Learned {
        address: to.0,
        index: new.index(),
        port: to.1,
        pad: 0,
    };
    for position in 0..BUCKET_SLOTS {
        let Some(bucket) = maps::bucket(number) else {
            return;
        };
        let old = Slot(bucket.slots[position]);
        // Another CPU may be faster: then the next one.
        if old.is_free(now) && maps::replace(number, position, old, new) {
            maps::learned(number, position, &learned);
            return;
        }
    }
    maps::overflowed(number, now + LEARNING);
}
