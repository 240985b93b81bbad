//! The groups that a provider tells of: they count for as long as its word does.

use serde_json::json;

use super::Provider;
use crate::core::Core;
use crate::error::OperationError;
use crate::store::devices::DeviceRow;
use crate::store::{Entry, Write, devices, provider_groups};

/// Those that the provider tells of take the place of those it told of before. They count for as long as
/// is configured, otherwise as long as a session of this lifetime.
pub(super) async fn told(
    core: &Core,
    write: &mut Write<'_>,
    provider: &Provider,
    device: &DeviceRow,
    groups: &[String],
    session_lifetime_ms: i64,
) -> Result<(), OperationError> {
    let (user_id, name) = (&device.user_id, &provider.name);
    let lifetime_ms = provider.groups_lifetime_ms.unwrap_or(session_lifetime_ms);
    let expires_ms = write.now_ms().saturating_add(lifetime_ms);
    let before = provider_groups::of(write.sql(), user_id, name).await?;
    provider_groups::set(write.sql(), user_id, name, groups, expires_ms).await?;
    if before == groups {
        return Ok(());
    }
    let revision = write.revision();
    devices::touch_of_user(write.sql(), user_id, revision).await?;
    write
        .audit(Entry {
            actor: &format!("provider:{name}"),
            action: "user.groups",
            subject: &device.user,
            detail: json!({ "provider": name, "before": before, "groups": groups }),
        })
        .await?;
    core.reclassify(write).await
}

/// Takes groups that a provider told of too long ago. Answers when the next ones are due, if any are left.
pub(crate) async fn lapse(core: &Core) -> Result<Option<i64>, OperationError> {
    let now_ms = core.now_ms();
    let mut read = core.store.read().await?;
    let next = provider_groups::until(read.sql()).await?;
    read.end().await?;
    if next.is_none_or(|next| next > now_ms) {
        return Ok(next);
    }
    let mut write = core.store.change(now_ms).await?;
    let revision = write.revision();
    let lapsed = provider_groups::take_lapsed(write.sql(), now_ms).await?;
    // None is left where another process was faster; the write is then rolled back.
    if lapsed.is_empty() {
        return Ok(Some(now_ms));
    }
    for lapse in &lapsed {
        devices::touch_of_user(write.sql(), &lapse.user_id, revision).await?;
        let entry = Entry {
            actor: "system",
            action: "user.groups",
            subject: &lapse.user,
            detail: json!({ "provider": lapse.provider, "before": lapse.groups, "groups": [] }),
        };
        write.audit(entry).await?;
    }
    core.declassify(&mut write).await?;
    write.commit().await?;
    Ok(Some(now_ms))
}
