//! A given certificate.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use portcullis_control::{CertificateSource, PortalCertificate};

use super::{NAME, TestCa, World, accepts, name, serve, shown, write_private};

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
        ("expired", ca.give(&[NAME], (2000, 2001)), "has expired"),
        ("early", ca.give(&[NAME], (2190, 2200)), "not valid yet"),
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
