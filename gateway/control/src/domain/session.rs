//! Session states and levels as the store and the wire name them.

use portcullis_proto::v1::Level;

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionState {
    Live,
    /// Ended by an administrator or by its user.
    Revoked,
    /// Its deadline passed.
    Expired,
    /// Its idle timeout passed.
    Idle,
    /// The same device logged in again.
    Replaced,
    /// Its device was heard from another network, where that is not allowed.
    Moved,
}

impl SessionState {
    /// The word in the store and in `SessionInfo`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Idle => "idle",
            Self::Replaced => "replaced",
            Self::Moved => "moved",
        }
    }
}

/// A stored level. An unknown one grants nothing.
pub(crate) fn level_from_store(level: i64) -> Level {
    i32::try_from(level)
        .ok()
        .and_then(|level| Level::try_from(level).ok())
        .unwrap_or(Level::None)
}
