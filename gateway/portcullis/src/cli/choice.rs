//! What may be left out where there is no choice.

use anyhow::{Result, bail};
use portcullis_proto::v1::admin_client::AdminClient;
use portcullis_proto::v1::{ListRequest, NameRequest};
use tonic::transport::Channel;

use crate::exit::UsageError;

/// The location's name, when it exists or there is no choice.
pub(super) async fn location(
    admin: &mut AdminClient<Channel>,
    wanted: Option<String>,
) -> Result<String> {
    if let Some(name) = wanted {
        return Ok(admin
            .get_location(NameRequest { name })
            .await?
            .into_inner()
            .name);
    }
    let locations = admin
        .list_locations(ListRequest {})
        .await?
        .into_inner()
        .locations;
    let names: Vec<String> = locations
        .into_iter()
        .map(|location| location.name)
        .collect();
    match <[String; 1]>::try_from(names) {
        Ok([name]) => Ok(name),
        Err(names) if names.is_empty() => {
            bail!("there is no location yet; add one with `portcullis location add`")
        }
        Err(names) => {
            bail!(UsageError(format!(
                "which location? Name one of {} with --location",
                names.join(", ")
            )))
        }
    }
}
