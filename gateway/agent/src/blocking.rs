//! Work that takes longer than a task should.

use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs the work without holding up other tasks of this runtime, where it has other threads.
pub(crate) fn blocking<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}
