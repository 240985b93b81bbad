//! A certificate by ACME.

use portcullis_control::{AcmeConfig, CertificateSource, Control, PortalCertificate};
use portcullis_portal::Portal;
use rustls::pki_types::CertificateDer;
use sqlx::Connection as _;

use super::pebble::Pebble;
use super::{Engine, NAME, World, accepts, name, serve, shown, told};

const MINUTE_MS: i64 = 60_000;

fn by_http(pebble: &Pebble) -> AcmeConfig {
    AcmeConfig {
        directory: pebble.directory(),
        contact: Some("mailto:admin@example.com".into()),
        accept_terms: true,
        ca_file: Some(pebble.ca_file()),
        listen: vec![pebble.asks_at()],
        dns_command: Vec::new(),
    }
}

async fn open(control: &Control, config: &AcmeConfig) -> PortalCertificate {
    config.validate().unwrap();
    let source = CertificateSource::Acme(config.clone());
    control.portal_certificate(name(), source).await.unwrap()
}

/// Where the CA asks.
fn answering(config: &AcmeConfig, certificate: &PortalCertificate) -> tokio::task::JoinHandle<()> {
    let portal = Portal::bind_challenges(&config.listen, certificate.clone()).unwrap();
    tokio::spawn(portal.serve(std::future::pending()))
}

async fn count(world: &World, query: &'static str) -> i64 {
    let url = &world.config.database;
    let mut database = sqlx::AnyConnection::connect(url).await.unwrap();
    sqlx::query_scalar(query)
        .fetch_one(&mut database)
        .await
        .unwrap()
}

async fn renewals(world: &World) -> i64 {
    let query = "SELECT COUNT(*) FROM audit WHERE action = 'certificate.renew'";
    count(world, query).await
}

async fn leaf(at: std::net::SocketAddr) -> CertificateDer<'static> {
    shown(at, NAME).await.swap_remove(0)
}

on_both!(
    http_01_renewal_and_a_restart,
    two_processes_do_not_both_order,
    a_ca_that_is_away_is_asked_ever_more_rarely_also_after_restarts,
);

async fn http_01_renewal_and_a_restart(engine: Engine) {
    let world = World::on(engine).await;
    let mut pebble = Pebble::start(world.dir.path()).await;
    let config = by_http(&pebble);
    let portal = serve(&world.control);
    let own = world.control.ca_certificate();
    let certificate = open(&world.control, &config).await;
    let answers = answering(&config, &certificate);
    assert!(
        accepts(portal.address, &own, NAME).await,
        "until there is one"
    );
    certificate.look().await;
    let told = world.told().await;
    assert_eq!((told.source.as_str(), told.problem.as_str()), ("acme", ""));
    let root = pebble.root().await;
    assert!(accepts(portal.address, &root, NAME).await);
    assert!(accepts(portal.address, &own, "127.0.0.1").await);
    assert_eq!(
        count(&world, "SELECT COUNT(*) FROM acme_challenges").await,
        0
    );

    // Not before two thirds of its life, and then by the same account.
    let first = leaf(portal.address).await;
    let life_ms = told.not_after_ms - world.now_ms();
    world.advance_ms(life_ms / 3 * 2 - 60 * MINUTE_MS);
    certificate.look().await;
    assert_eq!(leaf(portal.address).await, first);
    world.advance_ms(life_ms / 30 + 120 * MINUTE_MS);
    certificate.look().await;
    let second = leaf(portal.address).await;
    assert_ne!(second, first);
    assert!(accepts(portal.address, &root, NAME).await);
    assert_eq!(renewals(&world).await, 2);
    let accounts = "SELECT COUNT(*) FROM audit WHERE action = 'certificate.account'";
    assert_eq!(count(&world, accounts).await, 1);

    // Another process, or this one after a restart, needs no CA.
    pebble.stop();
    answers.abort();
    let another = world.another().await;
    let beside = serve(&another);
    let certificate = open(&another, &config).await;
    assert_eq!(leaf(beside.address).await, second);
    certificate.look().await;
    assert_eq!(super::told(&another).await.failures, 0);
    assert_eq!(leaf(beside.address).await, second);
}

#[tokio::test]
async fn inv10_keys_are_in_the_store_sealed_and_nowhere_else() {
    let world = World::new().await;
    let pebble = Pebble::start(world.dir.path()).await;
    let config = by_http(&pebble);
    let certificate = open(&world.control, &config).await;
    let answers = answering(&config, &certificate);
    certificate.look().await;
    answers.abort();
    let has = "SELECT COUNT(*) FROM acme_certificates c, acme_accounts a
        WHERE c.chain LIKE '-----BEGIN CERTIFICATE%' AND length(c.private_key) > 200
        AND length(a.credentials) > 200";
    assert_eq!(count(&world, has).await, 1);
    for entry in std::fs::read_dir(world.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if !path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("store.db")
        {
            continue;
        }
        let bytes = std::fs::read(&path).unwrap();
        // What is in each PKCS#8 key on P-256, in the forms in which one could be stored.
        let oid = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let pkcs8 = [
            &[
                0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
            ],
            &oid[..],
            &[0x04],
        ]
        .concat();
        for clear in [
            &b"PRIVATE KEY"[..],
            b"key_pkcs8",
            b"MIGHAgEAMBMGByqGSM49",
            &pkcs8,
        ] {
            let found = bytes.windows(clear.len()).any(|window| window == clear);
            assert!(!found, "{}: {clear:?}", path.display());
        }
    }
    assert!(!format!("{certificate:?}").contains("PRIVATE"));
}

/// Two processes on one store make one order, and both show what came of it.
async fn two_processes_do_not_both_order(engine: Engine) {
    let world = World::on(engine).await;
    let pebble = Pebble::start(world.dir.path()).await;
    let config = by_http(&pebble);
    let another = world.another().await;
    let (here, there) = (
        open(&world.control, &config).await,
        open(&another, &config).await,
    );
    // Whichever is asked answers for both.
    let answers = answering(&config, &there);
    tokio::join!(here.look(), there.look(), here.look(), there.look());
    answers.abort();
    assert_eq!(world.told().await.problem, "");
    assert_eq!(renewals(&world).await, 1);
    here.look().await;
    there.look().await;
    assert_eq!(renewals(&world).await, 1);
    let (one, other) = (serve(&world.control), serve(&another));
    assert_eq!(leaf(one.address).await, leaf(other.address).await);
    assert!(accepts(other.address, &pebble.root().await, NAME).await);
}

#[tokio::test]
async fn dns_01_sets_and_clears_a_record_without_a_shell() {
    let world = World::new().await;
    let pebble = Pebble::start(world.dir.path()).await;
    let config = AcmeConfig {
        listen: Vec::new(),
        dns_command: pebble.dns_command(),
        ..by_http(&pebble)
    };
    let certificate = open(&world.control, &config).await;
    certificate.look().await;
    assert_eq!(world.told().await.problem, "");
    let portal = serve(&world.control);
    assert!(accepts(portal.address, &pebble.root().await, NAME).await);
    let log = pebble.dns_log();
    let lines: Vec<&str> = log.lines().collect();
    let [set, clear] = lines[..] else {
        panic!("{log}")
    };
    let rest = set.strip_prefix("$HOME; first set _acme-challenge.login.example.com ");
    let value = rest.expect("the record");
    assert!(clear.ends_with(&format!("clear _acme-challenge.login.example.com {value}")));
}

#[tokio::test]
async fn a_dns_command_that_fails_is_told() {
    let world = World::new().await;
    let pebble = Pebble::start(world.dir.path()).await;
    let config = AcmeConfig {
        listen: Vec::new(),
        dns_command: vec!["/bin/false".into()],
        ..by_http(&pebble)
    };
    let certificate = open(&world.control, &config).await;
    certificate.look().await;
    let told = world.told().await;
    assert!(
        told.problem.contains("failed to set the record"),
        "{}",
        told.problem
    );
    assert_eq!(told.failures, 1);
}

/// Nobody answers at the name: the own CA's certificate goes on, and the CA is not asked all the time.
#[tokio::test]
async fn a_challenge_that_fails_is_told_and_not_repeated_at_once() {
    let world = World::new().await;
    let pebble = Pebble::start(world.dir.path()).await;
    let config = by_http(&pebble);
    let portal = serve(&world.control);
    let certificate = open(&world.control, &config).await;
    certificate.look().await;
    let told = world.told().await;
    assert_eq!((told.failures, told.not_after_ms), (1, 0));
    assert!(
        told.problem.contains("acme:error:connection"),
        "{}",
        told.problem
    );
    let own = world.control.ca_certificate();
    assert!(accepts(portal.address, &own, NAME).await);
    certificate.look().await;
    assert_eq!(world.told().await.failures, 1);
    world.advance_ms(6 * MINUTE_MS);
    let answers = answering(&config, &certificate);
    certificate.look().await;
    answers.abort();
    let told = world.told().await;
    assert_eq!((told.failures, told.problem.as_str()), (0, ""));
    assert!(accepts(portal.address, &pebble.root().await, NAME).await);
}

async fn a_ca_that_is_away_is_asked_ever_more_rarely_also_after_restarts(engine: Engine) {
    let world = World::on(engine).await;
    let mut pebble = Pebble::start(world.dir.path()).await;
    pebble.stop();
    let config = by_http(&pebble);
    for (failures, pause_m) in [(1, 5), (2, 15), (3, 60), (4, 120)] {
        let control = world.another().await;
        let certificate = open(&control, &config).await;
        certificate.look().await;
        let now_ms = world.now_ms();
        let found = told(&control).await;
        assert_eq!(found.failures, failures, "{}", found.problem);
        assert!(
            found.problem.contains("CA gave no account"),
            "{}",
            found.problem
        );
        let pause_ms = found.next_ms - now_ms;
        assert!((pause_m * MINUTE_MS..pause_m * MINUTE_MS * 11 / 10).contains(&pause_ms));
        world.advance_ms(pause_ms - 1);
        open(&world.another().await, &config).await.look().await;
        assert_eq!(told(&control).await.failures, failures);
        world.advance_ms(1);
    }
}

#[tokio::test]
async fn an_account_that_the_ca_forgot_is_made_anew() {
    let world = World::new().await;
    let mut pebble = Pebble::start(world.dir.path()).await;
    let config = by_http(&pebble);
    let certificate = open(&world.control, &config).await;
    let answers = answering(&config, &certificate);
    certificate.look().await;
    pebble.forget_everything().await;
    let told = world.told().await;
    world.advance_ms(told.next_ms - world.now_ms());
    certificate.look().await;
    let told = world.told().await;
    assert!(
        told.problem.contains("accountDoesNotExist"),
        "{}",
        told.problem
    );
    world.advance_ms(told.next_ms - world.now_ms());
    certificate.look().await;
    answers.abort();
    assert_eq!(world.told().await.problem, "");
    let portal = serve(&world.control);
    assert!(accepts(portal.address, &pebble.root().await, NAME).await);
}
