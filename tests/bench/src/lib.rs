//! Parts of the benchmarks that run the real agent and control without WireGuard, which this kind
//! of machine's kernel may lack: a TUN device stands in for the interface, and WireGuard's
//! configuration is kept in memory. Everything else is the product.
#![forbid(unsafe_code)]

mod fleet;
mod namespace;
mod percentile;
mod wireguard;
mod workload;

pub use datapath_tests::figure::Figure;
pub use fleet::{SERVER, datagram, in_sync, start};
pub use namespace::{Host, Tun, in_own_namespace, run, write_sysctl};
pub use percentile::percentile;
pub use wireguard::InMemory;
pub use workload::with_policy;

/// Removes pins however the benchmark ends.
pub struct PinRoot(std::path::PathBuf);

impl PinRoot {
    pub fn new(name: &str) -> Self {
        Self(format!("/sys/fs/bpf/portcullis-{name}-{}", std::process::id()).into())
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for PinRoot {
    fn drop(&mut self) {
        // Nothing is there where the benchmark failed early.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
