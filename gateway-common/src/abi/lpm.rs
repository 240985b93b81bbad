//! Prefixes.

/// Key of an LPM trie (`struct bpf_lpm_trie_key`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LpmKey<A> {
    /// Bits of the address that count.
    pub prefix_length: u32,
    /// The address, in network byte order.
    pub address: A,
}
