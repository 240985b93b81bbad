//! What the tests in a browser share: the portal with one user and device, and Chromium.
#![forbid(unsafe_code)]

mod browser;
mod portal;

pub use browser::{Authenticator, Browser};
pub use portal::{GATEWAY_KEY, NAME, PASSWORD, Portal};
