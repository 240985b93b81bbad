//! Opening the database, whichever it is, and bringing its schema up to date.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _};
use tokio::sync::{Mutex, watch};

use super::{Engine, Inner, Store, StoreError, maintenance, to_u64};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A commit is on disk when it returns. The log is folded into the file by
/// [`maintenance`](super::maintenance), so that no commit waits for that.
const SQLITE_SETTINGS: &str = "
    PRAGMA busy_timeout = 5000;
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA foreign_keys = ON;
    PRAGMA wal_autocheckpoint = 20000;
    PRAGMA trusted_schema = OFF;
";

impl Store {
    /// Opens the database at the URL, makes it where it does not exist yet (SQLite), and migrates it.
    pub(crate) async fn open(url: &str) -> Result<Self, StoreError> {
        static DRIVERS: Once = Once::new();
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let target = Target::parse(url)?;
        let pool = connect(&target)
            .await
            .map_err(|error| error.at(&target.place))?;
        MIGRATIONS
            .run(&pool)
            .await
            .map_err(|error| StoreError::from(error).at(&target.place))?;
        let (store_id, revision) = identify(&pool).await?;
        let inner = Arc::new(Inner {
            pool,
            engine: target.engine,
            place: target.place,
            store_id,
            writer: Mutex::new(()),
            revision: watch::Sender::new(revision),
        });
        maintenance::spawn(&inner);
        Ok(Self(inner))
    }
}

struct Target {
    engine: Engine,
    url: String,
    place: String,
}

impl Target {
    fn parse(url: &str) -> Result<Self, StoreError> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            // sqlx takes options after a question mark; a path has no business holding one.
            if path.is_empty() || path.contains(['?', '#']) {
                return Err(StoreError::Url(url.into()));
            }
            make_private(Path::new(path))?;
            return Ok(Self {
                engine: Engine::Sqlite,
                url: format!("{url}?mode=rw"),
                place: format!("sqlite {path}"),
            });
        }
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"));
        // The whole URL may hold a password: it is never repeated.
        let rest = rest.ok_or_else(|| {
            StoreError::Url(
                url.split_once("://")
                    .map_or(url, |(scheme, _)| scheme)
                    .into(),
            )
        })?;
        let place = rest.rsplit_once('@').map_or(rest, |(_, place)| place);
        let place = place.split_once('?').map_or(place, |(place, _)| place);
        Ok(Self {
            engine: Engine::Postgres,
            url: url.into(),
            place: format!("postgres {place}"),
        })
    }
}

/// Makes the file before SQLite would, readable by its owner only.
fn make_private(path: &Path) -> Result<(), StoreError> {
    let failed = |error: io::Error| StoreError::Unreachable {
        place: format!("sqlite {}", path.display()),
        reason: error.to_string(),
    };
    if let Some(directory) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(failed)?;
    }
    match OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
        _ => Ok(()),
    }
}

async fn connect(target: &Target) -> Result<AnyPool, StoreError> {
    let options: AnyConnectOptions = target
        .url
        .parse()
        .map_err(|_| StoreError::Url(target.place.clone()))?;
    let sqlite = target.engine == Engine::Sqlite;
    // A pool retries until its time is up, and then cannot say why: ask once without it.
    let mut probe = tokio::time::timeout(CONNECT_TIMEOUT, AnyConnection::connect_with(&options))
        .await
        .map_err(|_| sqlx::Error::PoolTimedOut)??;
    if sqlite {
        probe.execute(SQLITE_SETTINGS).await?;
    }
    probe.close().await?;
    let pool = AnyPoolOptions::new()
        .max_connections(if sqlite { 8 } else { 16 })
        .min_connections(2)
        .acquire_timeout(CONNECT_TIMEOUT)
        // A file cannot go away between two uses; a server's connection can.
        .test_before_acquire(!sqlite)
        .idle_timeout(None)
        .max_lifetime(None)
        // SQLite itself ends a transaction when the disk is full or fails. The driver does not
        // notice, and would go on counting it on this connection: such a one is not used again.
        .after_release(move |connection, _| {
            Box::pin(async move {
                if !sqlite {
                    return Ok(true);
                }
                connection.ping().await?; // what was queued on it is done after this
                Ok(!connection.is_in_transaction())
            })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                if sqlite {
                    connection.execute(SQLITE_SETTINGS).await?;
                }
                Ok(())
            })
        })
        .connect_with(options)
        .await?;
    Ok(pool)
}

/// Gives a new store its random id.
async fn identify(pool: &AnyPool) -> Result<(String, u64), StoreError> {
    sqlx::query("UPDATE meta SET store_id = $1 WHERE store_id = ''")
        .bind(uuid::Uuid::new_v4().to_string())
        .execute(pool)
        .await?;
    let (store_id, revision): (String, i64) = sqlx::query_as("SELECT store_id, revision FROM meta")
        .fetch_one(pool)
        .await?;
    Ok((store_id, to_u64(revision)))
}
