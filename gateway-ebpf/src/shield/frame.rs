//! A frame's bytes, as the parser wants them.

use core::ptr;

use gateway_common::parse::Bytes;

/// The part of a frame that can be read directly.
pub(crate) struct Frame {
    data: usize,
    end: usize,
}

impl Frame {
    /// `data` and `end` are those of a context, and no helper has moved the packet since.
    #[inline(always)]
    pub(crate) const fn new(data: usize, end: usize) -> Self {
        Self { data, end }
    }
}

impl Bytes for Frame {
    #[inline(always)]
    fn len(&self) -> u32 {
        (self.end - self.data) as u32
    }

    #[inline(always)]
    fn near<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        // No header begins that far in. The verifier loses the bounds of an offset that was on the stack.
        let start = self.data + (offset & 0xff) as usize;
        if start + 4 * N > self.end {
            return None;
        }
        // SAFETY: within the bounds just checked, which the verifier checks again. Alignment does
        // not matter to the kernel on machines with efficient unaligned access.
        Some(unsafe { ptr::read(start as *const [u32; N]) })
    }

    #[inline(always)]
    fn far<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.near(offset)
    }
}
