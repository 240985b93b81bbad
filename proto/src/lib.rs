//! The wire protocol: generated types, and the two things both ends must compute alike.
#![forbid(unsafe_code)]

pub mod digest;
mod explain;
mod redacted;

/// Version of the stream; a gateway of another version is refused.
pub const PROTOCOL: u32 = 1;

#[allow(
    clippy::all,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
pub mod v1 {
    tonic::include_proto!("portcullis.v1");
}
