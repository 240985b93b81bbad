//! The packet's bytes, as the parser wants them.

use core::{mem::MaybeUninit, ptr};

use aya_ebpf::{Global, helpers::generated::bpf_skb_load_bytes, programs::TcContext};
use gateway_common::parse::Bytes;

/// Headers that the parser reads near the front: IPv6 and what it wants of TCP.
const NEAR: u32 = 40 + 16;

/// Bytes of link-layer header in front of the packet. WireGuard's interface has none; measurements
/// of throughput run on Ethernet. It is set before the programs are loaded, so that the verifier
/// knows it and removes the branches that it rules out.
#[unsafe(no_mangle)]
static LINK_HEADER: Global<u32> = Global::new(0);

/// A packet; offsets count from its IP header.
pub(crate) struct SkBuff<'a> {
    ctx: &'a TcContext,
    data: usize,
    end: usize,
    len: u32,
    link: u32,
}

impl<'a> SkBuff<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
        let link = LINK_HEADER.load();
        let near = if link == 0 { NEAR } else { NEAR + link };
        let len = ctx.len();
        // Headers of a non-linear packet (GRO, cloned pages) may lie outside of what can be read
        // directly. Nearly never: the stack itself wants them linear.
        if ctx.data() + (near as usize) > ctx.data_end() {
            let linear = (ctx.data_end() - ctx.data()) as u32;
            if linear < len {
                // Failing, it leaves the packet as it is, and the parser finds it truncated.
                let _ = ctx.pull_data(if len < near { len } else { near });
            }
        }
        let mut packet = Self {
            ctx,
            data: ctx.data(),
            end: ctx.data_end(),
            len,
            link,
        };
        if link != 0 {
            packet.data += link as usize;
            packet.len = len.saturating_sub(link);
        }
        packet
    }
}

impl Bytes for SkBuff<'_> {
    #[inline(always)]
    fn len(&self) -> u32 {
        self.len
    }

    #[inline(always)]
    fn near<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let start = self.data + offset as usize;
        if start + 4 * N > self.end {
            return None;
        }
        // SAFETY: within the bounds just checked, which the verifier checks again. Alignment does
        // not matter to the kernel on machines with efficient unaligned access.
        Some(unsafe { ptr::read(start as *const [u32; N]) })
    }

    #[inline(always)]
    fn far<const N: usize>(&self, mut offset: u32) -> Option<[u32; N]> {
        if self.link != 0 {
            offset += self.link;
        }
        let mut words = MaybeUninit::<[u32; N]>::uninit();
        // SAFETY: the helper writes all of the bytes or reports failure.
        unsafe {
            let failed = bpf_skb_load_bytes(
                self.ctx.skb.skb.cast(),
                offset,
                words.as_mut_ptr().cast(),
                (4 * N) as u32,
            );
            if failed == 0 {
                Some(words.assume_init())
            } else {
                None
            }
        }
    }
}
