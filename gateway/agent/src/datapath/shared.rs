//! A memory-mapped array map: writes are plain stores that the programs see at once.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU32, AtomicU64},
};

/// `BPF_F_MMAPABLE` array (Linux 5.5) of elements of `stride` bytes.
#[derive(Debug)]
pub(super) struct Shared {
    base: NonNull<u8>,
    bytes: usize,
    stride: usize,
}

// SAFETY: the memory is reached through atomics only, and stays mapped as long as this lives.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps the array: `entries` elements of `stride` bytes, a multiple of 8.
    pub(super) fn map(fd: BorrowedFd<'_>, entries: u32, stride: usize) -> io::Result<Self> {
        let bytes = entries as usize * stride;
        // SAFETY: a fresh mapping of a descriptor that lives through the call; the kernel refuses a
        // length beyond the array, rounded up to a page.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self {
            base,
            bytes,
            stride,
        })
    }

    /// The 8-byte word at `offset` of element `index`.
    pub(super) fn word(&self, index: u32, offset: usize) -> &AtomicU64 {
        let at = self.at(index, offset, 8);
        // SAFETY: in bounds and aligned (`at` checks both), valid for any bits, and only ever reached
        // through atomics on this side.
        unsafe { AtomicU64::from_ptr(self.base.add(at).as_ptr().cast()) }
    }

    /// The 4-byte word at `offset` of element `index`.
    pub(super) fn half(&self, index: u32, offset: usize) -> &AtomicU32 {
        let at = self.at(index, offset, 4);
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.base.add(at).as_ptr().cast()) }
    }

    fn at(&self, index: u32, offset: usize, size: usize) -> usize {
        let at = index as usize * self.stride + offset;
        assert!(
            offset + size <= self.stride && at + size <= self.bytes && at.is_multiple_of(size),
            "offset {offset} of element {index} is outside of the map",
        );
        at
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
