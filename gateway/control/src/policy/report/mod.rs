//! What a policy means for a user, and what another would change, for people to read.

mod areas;
mod changes;
mod outline;
mod reach;

pub use changes::{Change, Effect, changes};
pub use reach::{Reach, reach};
