//! The limits on logins from outside of the tunnel, where everybody may try every name (NIST SP 800-63B-4,
//! 3.2.2; OWASP ASVS 5, 6.3.1). In the store, like all others (invariant 11).

use std::net::IpAddr;

use sqlx::AnyConnection;

use super::StoreError;
use super::limits::delay_after;
use crate::secrets::TokenHash;

const MINUTE_MS: i64 = 60 * 1000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Something that wrong attempts are counted by.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    id: TokenHash,
    /// Wrong attempts that cost nothing.
    free: i64,
    longest_delay_ms: i64,
    /// They are forgotten this long after the last one.
    forget_ms: i64,
}

/// What was counted as wrong already, and how long the next one would have to wait for it.
#[derive(Debug)]
pub(crate) struct Reserved(Vec<(Share, i64)>);

impl Share {
    /// The name, as a stranger has typed it, stands where nothing in it can pass for another kind or for
    /// another network: behind the kind, and before the last line.
    fn of(what: &[&str]) -> TokenHash {
        TokenHash::of(&what.join("\n"))
    }

    /// One name, tried from one network: whoever is elsewhere is not delayed by it.
    pub(crate) fn name_from(name: &str, network: IpAddr) -> Self {
        Self {
            id: Self::of(&["name-from", name, &network.to_string()]),
            free: 5,
            longest_delay_ms: 15 * MINUTE_MS,
            forget_ms: 24 * HOUR_MS,
        }
    }

    /// One name, from however many networks.
    pub(crate) fn name(name: &str) -> Self {
        Self {
            id: Self::of(&["name", name]),
            free: 50,
            longest_delay_ms: 15 * MINUTE_MS,
            forget_ms: 24 * HOUR_MS,
        }
    }

    /// One network, whatever names it tries.
    pub(crate) fn network(network: IpAddr) -> Self {
        Self {
            id: Self::of(&["network", &network.to_string()]),
            free: 20,
            longest_delay_ms: 15 * MINUTE_MS,
            forget_ms: HOUR_MS,
        }
    }

    /// Codes of one account: whoever guesses at them has its password.
    pub(crate) fn codes(user_id: &str) -> Self {
        Self {
            id: Self::of(&["codes", user_id]),
            free: 5,
            longest_delay_ms: HOUR_MS,
            forget_ms: 24 * HOUR_MS,
        }
    }

    /// Approvals that are asked of an account's phone, by logins that were begun in this way: each counts as a
    /// wrong attempt until one of them is the last step of a login.
    pub(crate) fn approvals(user_id: &str, place: &str) -> Self {
        Self {
            id: Self::of(&["approvals", user_id, place]),
            free: 5,
            longest_delay_ms: 15 * MINUTE_MS,
            forget_ms: HOUR_MS,
        }
    }
}

/// Counts an attempt by all of these before it is evaluated. Otherwise until when none is evaluated. Call
/// within a write.
pub(crate) async fn reserve(
    sql: &mut AnyConnection,
    shares: Vec<Share>,
    now_ms: i64,
) -> Result<Result<Reserved, i64>, StoreError> {
    let mut counted = Vec::with_capacity(shares.len());
    let mut delayed_until_ms = None;
    for share in shares {
        let query = "SELECT failures, delayed_until_ms FROM outside_limits
             WHERE id = $1 AND expires_ms > $2";
        let found: Option<(i64, i64)> = sqlx::query_as(query)
            .bind(share.id.as_str())
            .bind(now_ms)
            .fetch_optional(&mut *sql)
            .await?;
        let (failures, until_ms) = found.unwrap_or_default();
        // A clock that was set back must not turn minutes into years.
        let latest_ms = now_ms.saturating_add(share.longest_delay_ms);
        if (now_ms + 1..=latest_ms).contains(&until_ms) {
            delayed_until_ms = delayed_until_ms.max(Some(until_ms));
        }
        counted.push((share, failures + 1));
    }
    if let Some(until_ms) = delayed_until_ms {
        return Ok(Err(until_ms));
    }
    let mut reserved = Vec::with_capacity(counted.len());
    for (share, failures) in counted {
        let until_ms = match delay_after(failures, share.free, share.longest_delay_ms) {
            0 => 0,
            delay_ms => now_ms + delay_ms,
        };
        sqlx::query(
            "INSERT INTO outside_limits (id, failures, delayed_until_ms, expires_ms)
             VALUES ($1, $2, $3, $4)
             ON CONFLICT (id) DO UPDATE SET failures = $2, delayed_until_ms = $3, expires_ms = $4",
        )
        .bind(share.id.as_str())
        .bind(failures)
        .bind(until_ms)
        .bind(now_ms + share.forget_ms)
        .execute(&mut *sql)
        .await?;
        reserved.push((share, until_ms));
    }
    Ok(Ok(Reserved(reserved)))
}

/// Uncounts an attempt that was right. What was counted before it stays.
pub(crate) async fn give_back(
    sql: &mut AnyConnection,
    reserved: &Reserved,
) -> Result<(), StoreError> {
    for (share, until_ms) in &reserved.0 {
        sqlx::query(
            "UPDATE outside_limits SET
                failures = CASE WHEN failures > 0 THEN failures - 1 ELSE 0 END,
                delayed_until_ms = CASE
                    WHEN failures - 1 < $3 OR delayed_until_ms = $2 THEN 0
                    ELSE delayed_until_ms END
             WHERE id = $1",
        )
        .bind(share.id.as_str())
        .bind(*until_ms)
        .bind(share.free)
        .execute(&mut *sql)
        .await?;
    }
    Ok(())
}

/// Forgets what was counted by it.
pub(crate) async fn forgive(sql: &mut AnyConnection, share: &Share) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM outside_limits WHERE id = $1")
        .bind(share.id.as_str())
        .execute(sql)
        .await?;
    Ok(())
}

pub(crate) async fn delete_expired(sql: &mut AnyConnection, now_ms: i64) -> Result<(), StoreError> {
    sqlx::query("DELETE FROM outside_limits WHERE expires_ms <= $1")
        .bind(now_ms)
        .execute(sql)
        .await?;
    Ok(())
}
