//! Locations.

use portcullis_proto::v1::Level;
use serde::de::DeserializeOwned;
use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Row as _};

use super::{StoreError, can_be_named};
use crate::domain::{FactorSet, MfaPolicy, Mode, Pool, level_from_store};

pub(crate) struct LocationRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// How its sessions begin.
    pub(crate) mode: Mode,
    pub(crate) pools: Vec<String>,
    pub(crate) endpoint: String,
    pub(crate) listen_port: i64,
    pub(crate) mtu: i64,
    pub(crate) routes: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) portal_port: i64,
    pub(crate) portals: Vec<String>,
    /// Who may open a session here, and for how long.
    pub(crate) mfa: MfaPolicy,
    pub(crate) persistent_keepalive_s: i64,
    /// 1 where senders of dropped openers are told.
    pub(crate) answer_drops: i64,
    /// 1 where plain HTTP of devices that have to log in is led to the portal.
    pub(crate) captive: i64,
    /// 1 where a session goes on when its device is heard from another network.
    pub(crate) roaming: i64,
    pub(crate) created_ms: i64,
    pub(crate) revision: i64,
}

impl LocationRow {
    pub(crate) fn pools(&self) -> Result<Vec<Pool>, StoreError> {
        let parsed = self.pools.iter().map(|pool| Pool::parse(pool));
        parsed
            .collect::<Result<_, _>>()
            .map_err(|_| StoreError::Value("pool"))
    }
}

const SELECT: &str = "
    SELECT id, name, pools, endpoint, listen_port, mtu, routes, dns, portal_port, portals,
        session_lifetime_ms, idle_timeout_ms, required_level, factors, persistent_keepalive_s,
        answer_drops, captive, created_ms, revision, mode, roaming
    FROM locations";

pub(crate) async fn insert(
    sql: &mut AnyConnection,
    location: &LocationRow,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO locations (id, name, pools, endpoint, listen_port, mtu, routes, dns,
            portal_port, portals, session_lifetime_ms, idle_timeout_ms, persistent_keepalive_s,
            created_ms, revision, answer_drops, required_level, factors, captive, mode, roaming)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
            $20, $21)",
    )
    .bind(&location.id)
    .bind(&location.name)
    .bind(list_to_store(&location.pools))
    .bind(&location.endpoint)
    .bind(location.listen_port)
    .bind(location.mtu)
    .bind(list_to_store(&location.routes))
    .bind(list_to_store(&location.dns))
    .bind(location.portal_port)
    .bind(list_to_store(&location.portals))
    .bind(location.mfa.session_lifetime_ms)
    .bind(location.mfa.idle_timeout_ms)
    .bind(location.persistent_keepalive_s)
    .bind(location.created_ms)
    .bind(location.revision)
    .bind(location.answer_drops)
    .bind(level_to_store(location.mfa.require))
    .bind(list_to_store(&location.mfa.factors.names()))
    .bind(location.captive)
    .bind(location.mode.as_str())
    .bind(location.roaming)
    .execute(sql)
    .await?;
    Ok(())
}

/// By name or id.
pub(crate) async fn find(
    sql: &mut AnyConnection,
    name_or_id: &str,
) -> Result<Option<LocationRow>, StoreError> {
    if !can_be_named(name_or_id) {
        return Ok(None);
    }
    let query = sqlx::AssertSqlSafe(format!("{SELECT} WHERE name = $1 OR id = $1"));
    let row = sqlx::query(query)
        .bind(name_or_id)
        .fetch_optional(sql)
        .await?;
    row.as_ref().map(parse).transpose()
}

pub(crate) async fn list(sql: &mut AnyConnection) -> Result<Vec<LocationRow>, StoreError> {
    let query = sqlx::AssertSqlSafe(format!("{SELECT} ORDER BY name"));
    let rows = sqlx::query(query).fetch_all(sql).await?;
    rows.iter().map(parse).collect()
}

/// Whether senders of dropped openers are told, from this revision on.
pub(crate) async fn set_answer_drops(
    sql: &mut AnyConnection,
    id: &str,
    answer_drops: bool,
    revision: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE locations SET answer_drops = $2, revision = $3 WHERE id = $1")
        .bind(id)
        .bind(i64::from(answer_drops))
        .bind(revision)
        .execute(sql)
        .await?;
    Ok(())
}

/// Whether plain HTTP is led to the portal, from this revision on.
pub(crate) async fn set_captive(
    sql: &mut AnyConnection,
    id: &str,
    captive: bool,
    revision: i64,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE locations SET captive = $2, revision = $3 WHERE id = $1")
        .bind(id)
        .bind(i64::from(captive))
        .bind(revision)
        .execute(sql)
        .await?;
    Ok(())
}

/// Whether sessions go on when their devices are heard from another network. Those that there are belong to the
/// network that they are heard from next: no gateway has told of any before.
pub(crate) async fn set_roaming(
    sql: &mut AnyConnection,
    id: &str,
    roaming: bool,
) -> Result<(), StoreError> {
    sqlx::query("UPDATE locations SET roaming = $2 WHERE id = $1")
        .bind(id)
        .bind(i64::from(roaming))
        .execute(&mut *sql)
        .await?;
    sqlx::query("UPDATE sessions SET network = '' WHERE location_id = $1 AND state = 'live'")
        .bind(id)
        .execute(sql)
        .await?;
    Ok(())
}

/// Who may open a session here from now on, and for how long. Gateways know nothing of it: sessions
/// that there are change by [`sessions`](super::sessions).
pub(crate) async fn set_mfa(
    sql: &mut AnyConnection,
    id: &str,
    mfa: &MfaPolicy,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE locations SET required_level = $2, factors = $3, session_lifetime_ms = $4,
            idle_timeout_ms = $5
         WHERE id = $1",
    )
    .bind(id)
    .bind(level_to_store(mfa.require))
    .bind(list_to_store(&mfa.factors.names()))
    .bind(mfa.session_lifetime_ms)
    .bind(mfa.idle_timeout_ms)
    .execute(sql)
    .await?;
    Ok(())
}

pub(crate) async fn delete(sql: &mut AnyConnection, id: &str) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM tombstones WHERE location_id = $1")
        .bind(id)
        .execute(&mut *sql)
        .await?;
    // Ended sessions of devices that are gone are gone with them: none can be left here.
    sqlx::query("DELETE FROM locations WHERE id = $1")
        .bind(id)
        .execute(sql)
        .await?;
    Ok(())
}

/// Devices and gateways that a location still has.
pub(crate) async fn uses(sql: &mut AnyConnection, id: &str) -> Result<(i64, i64), StoreError> {
    Ok(sqlx::query_as(
        "SELECT (SELECT COUNT(*) FROM devices WHERE location_id = $1),
                (SELECT COUNT(*) FROM gateways WHERE location_id = $1)",
    )
    .bind(id)
    .fetch_one(sql)
    .await?)
}

fn parse(row: &AnyRow) -> Result<LocationRow, StoreError> {
    Ok(LocationRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        mode: mode_from_store(&row.try_get::<String, _>("mode")?)?,
        pools: list_from_store(row, "pools")?,
        endpoint: row.try_get("endpoint")?,
        listen_port: row.try_get("listen_port")?,
        mtu: row.try_get("mtu")?,
        routes: list_from_store(row, "routes")?,
        dns: list_from_store(row, "dns")?,
        portal_port: row.try_get("portal_port")?,
        portals: list_from_store(row, "portals")?,
        mfa: parse_mfa(row)?,
        persistent_keepalive_s: row.try_get("persistent_keepalive_s")?,
        answer_drops: row.try_get("answer_drops")?,
        captive: row.try_get("captive")?,
        roaming: row.try_get("roaming")?,
        created_ms: row.try_get("created_ms")?,
        revision: row.try_get("revision")?,
    })
}

/// How sessions begin at a location, by its id.
pub(crate) async fn mode(sql: &mut AnyConnection, id: &str) -> Result<Mode, StoreError> {
    let query = "SELECT mode FROM locations WHERE id = $1";
    let mode: String = sqlx::query_scalar(query).bind(id).fetch_one(sql).await?;
    mode_from_store(&mode)
}

/// A mode that this version does not know is none: its devices must not become peers by mistake.
pub(super) fn mode_from_store(text: &str) -> Result<Mode, StoreError> {
    Mode::parse(text).map_err(|_| StoreError::Value("mode"))
}

fn parse_mfa(row: &AnyRow) -> Result<MfaPolicy, StoreError> {
    let factors: Vec<String> = list_from_store(row, "factors")?;
    // An unknown level would be one that every session satisfies.
    let require = match level_from_store(row.try_get("required_level")?) {
        Level::None => return Err(StoreError::Value("required level")),
        level => level,
    };
    Ok(MfaPolicy {
        factors: FactorSet::parse(&factors).map_err(|_| StoreError::Value("factor"))?,
        require,
        session_lifetime_ms: row.try_get("session_lifetime_ms")?,
        idle_timeout_ms: row.try_get("idle_timeout_ms")?,
    })
}

fn level_to_store(level: Level) -> i64 {
    i64::from(i32::from(level))
}

/// Lists are JSON in one column: they are always read and written whole.
fn list_to_store(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}

fn list_from_store<T: DeserializeOwned>(
    row: &AnyRow,
    column: &'static str,
) -> Result<T, StoreError> {
    let text: String = row.try_get(column)?;
    serde_json::from_str(&text).map_err(|_| StoreError::Value(column))
}
