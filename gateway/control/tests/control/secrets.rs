//! Invariant 10: what is in the database is of no use without the master key.

use portcullis_control::{Control, ControlError, VaultError};
use portcullis_proto::v1;
use portcullis_proto::v1::admin_server::Admin as _;
use tonic::Request;

use crate::enrol::{PAGE, begin, invite};
use crate::fixture::{Engine, PASSWORD, World};
use crate::postgres;

crate::on_both!(invariant_10_the_database_holds_no_secret_in_the_clear);

async fn invariant_10_the_database_holds_no_secret_in_the_clear(engine: Engine) {
    let world = World::new(engine).await;
    world.location("office", &["10.77.0.0/24"]).await.unwrap();
    let alice = world.user("alice").await;
    let added = world.device("laptop", "alice").await;
    let gateway = v1::AddGatewayRequest {
        name: "gw".into(),
        location: "office".into(),
    };
    let gateway = world
        .control
        .admin()
        .add_gateway(Request::new(gateway))
        .await
        .unwrap()
        .into_inner();
    let from = added.device.as_ref().unwrap().addresses[0].parse().unwrap();
    let attempt = world.begin(from, "alice", PASSWORD).await.unwrap();
    let name = v1::NameRequest {
        name: "alice".into(),
    };
    let admin = world.control.admin();
    let codes = admin.new_recovery_codes(Request::new(name));
    let codes = codes.await.unwrap().into_inner().codes;
    let plain = codes[0].replace('-', "");
    world.control.serve_enrolments_at(PAGE.into());
    let link = invite(&world, "alice").await.unwrap();
    let enrolment = begin(&world, &link).await.unwrap();
    let enrolments = world.control.enrolments();
    let chosen = "a fine new phrase";
    let new = enrolments
        .password(&enrolment, &chosen.into())
        .await
        .unwrap();
    let new_seed = base32(new.secret.expose());
    world.control.close().await;

    let bytes = match engine {
        Engine::Postgres => {
            let url = world.config.database.clone();
            tokio::task::spawn_blocking(move || postgres::server().dump(&url))
                .await
                .unwrap()
        }
        Engine::Sqlite => {
            let files = std::fs::read_dir(world.dir.path())
                .unwrap()
                .map(|file| file.unwrap().path());
            files
                .filter(|file| file.is_file())
                .flat_map(|file| std::fs::read(file).unwrap())
                .collect()
        }
    };
    let contains = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    assert!(contains(b"laptop"), "this is the database");
    let seed = base32(&alice.totp);
    for (what, secret) in [
        ("password", PASSWORD.as_bytes()),
        ("TOTP seed, base32", alice.totp.as_bytes()),
        ("TOTP seed", &seed),
        ("pre-shared key", &added.preshared_key),
        ("enrolment token", gateway.token.as_bytes()),
        ("login", attempt.as_str().as_bytes()),
        ("recovery code", codes[0].as_bytes()),
        ("recovery code, plain", plain.as_bytes()),
        ("link", link.as_bytes()),
        ("enrolment", enrolment.as_str().as_bytes()),
        ("new password", chosen.as_bytes()),
        ("new TOTP seed, base32", new.secret.expose().as_bytes()),
        ("new TOTP seed", &new_seed),
    ] {
        assert!(!secret.is_empty() && !contains(secret), "{what}");
        assert!(!contains(hex(secret).as_bytes()), "{what} in hexadecimal");
        assert!(!contains(base64(secret).as_bytes()), "{what} in base64");
    }

    // With another master key it does not open.
    let mut config = world.config.clone();
    config.state_dir = world.dir.path().join("other-state");
    let opened = Control::open(config).await;
    assert!(
        matches!(opened, Err(ControlError::Vault(VaultError::Open { .. }))),
        "{opened:?}"
    );
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

fn base32(text: &str) -> Vec<u8> {
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut bits = (0_u64, 0);
    let mut bytes = Vec::new();
    for c in text.chars() {
        bits = (bits.0 << 5 | alphabet.find(c).unwrap() as u64, bits.1 + 5);
        if bits.1 >= 8 {
            bits.1 -= 8;
            bytes.push((bits.0 >> bits.1) as u8);
        }
    }
    bytes
}
