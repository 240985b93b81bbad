//! A given certificate.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use portcullis_control::{CertificateSource, PortalCertificate, PortalName};

use portcullis_client::{Fingerprint, PortalClient, PortalError};

use super::{NAME, TestCa, World, accepts, name, serve, serve_as, shown, write_private};

const NOW: (i32, i32) = (2000, 2200);

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn in_world(world: &World) -> Self {
        Self {
            certificate: world.dir.path().join("portal.crt"),
            key: world.dir.path().join("portal.key"),
        }
    }

    fn write(&self, (certificate, key): &(String, String)) {
        std::fs::write(&self.certificate, certificate).unwrap();
        write_private(&self.key, key);
    }

    async fn open(&self, world: &World) -> Result<PortalCertificate, String> {
        let source = CertificateSource::Files {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        };
        let opened = world.control.portal_certificate(name(), source).await;
        opened.map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn is_shown_at_the_name_and_the_own_cas_everywhere_else() {
    let world = World::new().await;
    let (files, ca) = (Files::in_world(&world), TestCa::new());
    let portal = serve(&world.control);
    let own = world.control.ca_certificate();
    assert!(accepts(portal.address, &own, NAME).await);
    files.write(&ca.give(&[NAME], NOW));
    files.open(&world).await.unwrap();
    assert!(accepts(portal.address, &ca.certificate, NAME).await);
    assert!(accepts(portal.address, &ca.certificate, "LOGIN.example.com").await);
    assert!(!accepts(portal.address, &own, NAME).await);
    assert!(accepts(portal.address, &own, "127.0.0.1").await);
    let last = shown(portal.address, "other.example.com").await.pop();
    assert_eq!(last, Some(own), "another name");
    let told = world.told().await;
    assert_eq!((told.source.as_str(), told.name.as_str()), ("files", NAME));
    assert!(told.not_after_ms > world.now_ms() && told.problem.is_empty());
}

#[tokio::test]
async fn renewed_files_are_taken_and_bad_ones_leave_the_old_one_in_use() {
    let world = World::new().await;
    let (files, ca) = (Files::in_world(&world), TestCa::new());
    let portal = serve(&world.control);
    let old = ca.give(&[NAME], NOW);
    files.write(&old);
    let certificate = files.open(&world).await.unwrap();
    let first = shown(portal.address, NAME).await;
    let renewed = ca.give(&[NAME], NOW);
    // The moment between the two files.
    std::fs::write(&files.certificate, &renewed.0).unwrap();
    certificate.look().await;
    assert_eq!(shown(portal.address, NAME).await, first);
    assert!(world.told().await.problem.contains("does not belong"));
    std::fs::remove_file(&files.key).unwrap();
    certificate.look().await;
    assert_eq!(shown(portal.address, NAME).await, first);
    write_private(&files.key, &renewed.1);
    certificate.look().await;
    let second = shown(portal.address, NAME).await;
    assert_ne!(second, first);
    assert_eq!(world.told().await.problem, "");
}

#[tokio::test]
async fn what_cannot_be_used_is_refused() {
    let world = World::new().await;
    let (files, ca) = (Files::in_world(&world), TestCa::new());
    let good = ca.give(&[NAME], NOW);
    let other = ca.give(&[NAME], NOW);
    for (what, pair, reason) in [
        (
            "another key",
            (good.0.clone(), other.1.clone()),
            "does not belong",
        ),
        (
            "name",
            ca.give(&["example.com"], NOW),
            "does not name login.example.com",
        ),
        (
            "no certificate",
            (String::new(), good.1.clone()),
            "no certificate in PEM",
        ),
        (
            "no key",
            (good.0.clone(), good.0.clone()),
            "no private key in PEM",
        ),
    ] {
        files.write(&pair);
        let error = files.open(&world).await.unwrap_err();
        assert!(error.contains(reason), "{what}: {error}");
    }
    files.write(&good);
    let mode = std::fs::Permissions::from_mode(0o604);
    std::fs::set_permissions(&files.key, mode).unwrap();
    let error = files.open(&world).await.unwrap_err();
    assert!(error.contains("chmod 0600"), "{error}");
    std::fs::remove_file(&files.certificate).unwrap();
    let error = files.open(&world).await.unwrap_err();
    assert!(error.contains("portal.crt"), "{error}");
    files.write(&ca.give(&["*.example.com"], NOW));
    files.open(&world).await.unwrap();
}

/// A restart is no reason to take the service down, and an expired certificate is not shown.
#[tokio::test]
async fn one_of_another_time_is_refused_and_the_own_cas_shown() {
    for (years, reason) in [
        ((2000, 2001), "has expired"),
        ((2190, 2200), "not valid yet"),
    ] {
        let world = World::new().await;
        let (files, ca) = (Files::in_world(&world), TestCa::new());
        let portal = serve(&world.control);
        files.write(&ca.give(&[NAME], years));
        let certificate = files.open(&world).await.unwrap();
        let told = world.told().await;
        assert!(
            told.problem.contains(reason) && told.not_after_ms == 0,
            "{}",
            told.problem
        );
        let own = world.control.ca_certificate();
        assert!(accepts(portal.address, &own, NAME).await);
        files.write(&ca.give(&[NAME], NOW));
        certificate.look().await;
        assert!(accepts(portal.address, &ca.certificate, NAME).await);
    }
}

/// Never without TLS, and never with one that convinces nobody.
#[tokio::test]
async fn an_expired_one_gives_way_to_the_own_cas() {
    let world = World::new().await;
    let (files, ca) = (Files::in_world(&world), TestCa::new());
    let portal = serve(&world.control);
    files.write(&ca.give(&[NAME], NOW));
    let certificate = files.open(&world).await.unwrap();
    let left_ms = world.told().await.not_after_ms - world.now_ms();
    world.advance_ms(left_ms - 1000);
    let own = world.control.ca_certificate();
    assert_ne!(shown(portal.address, NAME).await.pop().unwrap(), own);
    world.advance_ms(1000);
    assert_eq!(shown(portal.address, NAME).await.pop().unwrap(), own);
    certificate.look().await;
    let told = world.told().await;
    assert_eq!(told.not_after_ms, 0);
    assert!(told.problem.contains("has expired"), "{}", told.problem);
}

/// `portcullis login` knows the own CA's fingerprint and nothing else, also where it goes by the name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pins_the_own_ca_is_shown_its_certificate_at_the_name_too() {
    let world = World::new().await;
    let (files, ca) = (Files::in_world(&world), TestCa::new());
    let here = PortalName::parse("localhost").unwrap();
    let portal = serve_as(&world.control, &here);
    files.write(&ca.give(&["localhost"], NOW));
    let source = CertificateSource::Files {
        certificate: files.certificate.clone(),
        key: files.key.clone(),
    };
    let opened = world.control.portal_certificate(here, source).await;
    opened.unwrap();
    assert!(accepts(portal.address, &ca.certificate, "localhost").await);
    let url = format!("https://localhost:{}", portal.address.port());
    let pinned = Fingerprint::of(&world.control.ca_certificate());
    let other = Fingerprint::of(&ca.certificate);
    tokio::task::spawn_blocking(move || {
        let client = PortalClient::connect(&url, pinned).unwrap();
        // Served, although these pages know of no session: both of its ways to connect work.
        let asked = client.session();
        assert!(
            matches!(
                asked,
                Ok(None) | Err(PortalError::Unexpected { status: 404, .. })
            ),
            "{asked:?}"
        );
        let refused = PortalClient::connect(&url, other).unwrap_err();
        assert!(
            matches!(refused, PortalError::AnotherCa { .. }),
            "{refused}"
        );
    })
    .await
    .unwrap();
}
