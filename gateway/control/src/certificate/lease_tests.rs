//! Whose turn it is to order, and when.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::clock::Clock;
use crate::config::ControlConfig;
use crate::store::acme::Row;

const START_MS: i64 = 1_800_000_000_000;
const YEAR_MS: i64 = 365 * 24 * HOUR_MS;

struct Scene {
    core: Core,
    now_ms: Arc<AtomicI64>,
    name: PortalName,
    config: AcmeConfig,
    _dir: tempfile::TempDir,
}

impl Scene {
    /// With a CA that nobody answers for.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ControlConfig {
            database: format!("sqlite://{}", dir.path().join("store.db").display()),
            state_dir: dir.path().join("state"),
            ..ControlConfig::default()
        };
        let now_ms = Arc::new(AtomicI64::new(START_MS));
        let clock = Clock::stepped(now_ms.clone());
        Self {
            core: Core::open(config, clock).await.unwrap(),
            now_ms,
            name: PortalName::parse("login.example.com").unwrap(),
            config: AcmeConfig {
                directory: "https://127.0.0.1:1/directory".into(),
                accept_terms: true,
                ..AcmeConfig::default()
            },
            _dir: dir,
        }
    }

    fn set_clock(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    fn whose(&self) -> Whose<'_> {
        whose(&self.name, &self.config)
    }

    async fn order(&self) -> Result<(), OperationError> {
        self.core.order_where_due(&self.name, &self.config).await
    }

    async fn row(&self) -> Row {
        let mut read = self.core.store.read().await.unwrap();
        let row = acme::find(read.sql(), self.whose()).await.unwrap();
        read.end().await.unwrap();
        row.unwrap()
    }

    /// As a process does that then dies, or goes on for too long.
    async fn lease(&self, holder: &str) -> Option<i64> {
        let now_ms = self.core.now_ms();
        let mut write = self.core.store.record(now_ms).await.unwrap();
        let until_ms = now_ms + LEASE_MS;
        let leased = acme::lease(write.sql(), self.whose(), holder, times(now_ms), until_ms).await;
        let leased = leased.unwrap();
        if leased.is_some() {
            write.commit().await.unwrap();
        }
        leased
    }

    async fn audited(&self) -> i64 {
        let mut read = self.core.store.read().await.unwrap();
        let query = "SELECT COUNT(*) FROM audit WHERE action = 'certificate.fail'";
        let found = sqlx::query_scalar(query).fetch_one(read.sql()).await;
        read.end().await.unwrap();
        found.unwrap()
    }
}

#[tokio::test]
async fn a_clock_that_was_set_years_ahead_delays_nothing_for_years() {
    let scene = Scene::new().await;
    scene.set_clock(START_MS + 10 * YEAR_MS);
    scene.order().await.unwrap();
    assert_eq!(scene.row().await.failures, 1);
    scene.set_clock(START_MS);
    scene.order().await.unwrap();
    let row = scene.row().await;
    assert_eq!(row.failures, 2, "it is due");
    assert!(row.next_ms < START_MS + HOUR_MS, "{row:?}");
    // As ever then, also where the clocks of two processes differ a little.
    for now_ms in [START_MS, START_MS - 60_000] {
        scene.set_clock(now_ms);
        scene.order().await.unwrap();
        assert_eq!(scene.row().await.failures, 2);
    }

    // The same of the right to order, which died with who had it.
    let scene = Scene::new().await;
    scene.set_clock(START_MS + 10 * YEAR_MS);
    assert_eq!(scene.lease("one").await, Some(1));
    scene.set_clock(START_MS);
    assert_eq!(scene.lease("two").await, Some(2));
    scene.set_clock(START_MS - 60_000);
    assert_eq!(scene.lease("three").await, None);
    scene.order().await.unwrap();
    assert_eq!(scene.row().await.failures, 2, "somebody is at it");
}

#[tokio::test]
async fn who_has_lost_the_right_to_order_writes_no_failure_down() {
    let scene = Scene::new().await;
    scene.lease("one").await.unwrap();
    scene.set_clock(START_MS + LEASE_MS);
    scene.lease("two").await.unwrap();
    let before = scene.row().await;
    let late = AcmeError::Late(ORDER_WITHIN);
    let core = &scene.core;
    let lost = core.note_failure(scene.whose(), "one", &late, 1).await;
    assert!(
        matches!(lost, Err(OperationError::Precondition(_))),
        "{lost:?}"
    );
    assert_eq!(scene.row().await, before);
    assert_eq!(scene.audited().await, 0);
    core.note_failure(scene.whose(), "two", &late, 2)
        .await
        .unwrap();
    assert_eq!(scene.row().await.lease_until_ms, 0);
    assert_eq!(scene.audited().await, 1);
}
