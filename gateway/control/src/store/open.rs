//! Opening the database, whichever it is, and bringing its schema up to date.

use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Once};
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AnyConnection, AnyPool, Connection as _, Executor as _};
use tokio::sync::{Mutex, watch};

use super::{Engine, Inner, Store, StoreError, maintenance, to_u64};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations");

static DRIVERS: Once = Once::new();

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
                return Err(StoreError::Url(scheme(url)));
            }
            make_private(Path::new(path))?;
            return Ok(Self {
                engine: Engine::Sqlite,
                url: format!("{url}?mode=rw"),
                place: format!("sqlite {path}"),
            });
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err(StoreError::Url(scheme(url)));
        }
        let options: PgConnectOptions = url.parse().map_err(|_| StoreError::Url(scheme(url)))?;
        let place = place_of(&options);
        if !is_local(&options) && !matches!(options.get_ssl_mode(), PgSslMode::VerifyFull) {
            return Err(StoreError::Unverified { place });
        }
        Ok(Self {
            engine: Engine::Postgres,
            url: url.into(),
            place,
        })
    }
}

/// What may be repeated of a URL: the whole of it may hold a password.
fn scheme(url: &str) -> String {
    let of_scheme = |c: &char| c.is_ascii_alphanumeric() || "+-.".contains(*c);
    let name: String = url.chars().take_while(of_scheme).take(16).collect();
    if url[name.len()..].starts_with("://") {
        name
    } else {
        String::new()
    }
}

fn place_of(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_default();
    match options.get_socket() {
        Some(socket) => format!("postgres {}/{database}", socket.display()),
        None => format!(
            "postgres {}:{}/{database}",
            options.get_host(),
            options.get_port()
        ),
    }
}

/// Over a Unix socket or the loopback interface, nobody is in between.
fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host().trim_matches(['[', ']']);
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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
        .map_err(|_| StoreError::Url(scheme(&target.url)))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_has_to_prove_who_it_is() {
        for local in [
            "postgres://u:p@localhost/db",
            "postgres://u:p@127.0.0.1:5433/db",
            "postgresql://u:p@[::1]/db",
            "postgres://u@localhost/db?host=/run/postgresql",
            "postgres://u:p@db.example.org/db?sslmode=verify-full",
        ] {
            assert!(Target::parse(local).is_ok(), "{local}");
        }
        for mode in [
            "",
            "?sslmode=disable",
            "?sslmode=require",
            "?sslmode=verify-ca",
        ] {
            let url = format!("postgres://u:hunter2@db.example.org/db{mode}");
            let error = Target::parse(&url).err().unwrap().to_string();
            assert!(error.contains("sslmode=verify-full"), "{error}");
            assert!(error.contains("db.example.org") && !error.contains("hunter2"));
        }
    }

    /// Somebody else would be the first administrator of a store that has had accounts for long.
    #[tokio::test]
    async fn accounts_from_before_enrolment_are_enrolled() {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/store.db", dir.path().display());
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let target = Target::parse(&url).unwrap();
        let pool = connect(&target).await.unwrap();
        MIGRATIONS.run_to(8, &pool).await.unwrap();
        sqlx::query(
            "INSERT INTO users (id, name, password, totp_secret, created_ms)
             VALUES ('u', 'u', 'x', 'x', 7)",
        )
        .execute(&pool)
        .await
        .unwrap();
        pool.close().await;
        let store = Store::open(&url).await.unwrap();
        let mut read = store.read().await.unwrap();
        let user = crate::store::users::find(read.sql(), "u").await.unwrap();
        let user = user.unwrap();
        assert_eq!((user.enrolled_ms, user.role.as_str()), (7, "user"));
        assert_eq!(
            crate::store::accounts::enrolled(read.sql()).await.unwrap(),
            1
        );
    }

    #[test]
    fn a_malformed_url_is_not_repeated() {
        for url in [
            "postgres://u:hunter2@:99999999/db",
            "postgres:u:hunter2@h/db",
            "hunter2",
            "mysql://u:hunter2@h/db",
            "sqlite:///x?hunter2",
        ] {
            let error = Target::parse(url).err().unwrap();
            assert!(matches!(error, StoreError::Url(_)), "{error:?}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
