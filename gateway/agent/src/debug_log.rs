//! What the programs log while they are being debugged. Only with the feature `debug-log`, and only
//! where the object was built to log; counters and events are what a gateway in use has.

use aya::Ebpf;

/// Hands on what the programs have logged.
pub(crate) struct DebugLog(Option<Box<dyn FnMut() + Send>>);

impl DebugLog {
    /// Looks for the object's log; having none is the usual case.
    #[cfg(feature = "debug-log")]
    pub(crate) fn open(object: &mut Ebpf) -> Self {
        match aya_log::EbpfLogger::init(object) {
            Ok(mut logger) => Self(Some(Box::new(move || logger.flush()))),
            Err(aya_log::Error::MapNotFound) => {
                tracing::info!("the eBPF object was built without a log");
                Self(None)
            }
            Err(error) => {
                tracing::warn!("the programs' log cannot be read: {error}");
                Self(None)
            }
        }
    }

    /// This agent was built without it.
    #[cfg(not(feature = "debug-log"))]
    pub(crate) fn open(_object: &mut Ebpf) -> Self {
        Self(None)
    }

    /// Logs what has come since. Never waits.
    pub(crate) fn flush(&mut self) {
        if let Some(flush) = &mut self.0 {
            flush();
        }
    }
}
