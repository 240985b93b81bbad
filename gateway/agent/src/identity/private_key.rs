//! The gateway's WireGuard private key: made once, by the gateway, and never sent anywhere.

use std::path::Path;

use super::{IdentityError, secret_file};
use crate::keys::PrivateKey;

const FILE: &str = "wireguard.key";

/// The key in `state_dir`, made there where there is none.
pub fn load_or_generate(state_dir: &Path) -> Result<PrivateKey, IdentityError> {
    let path = state_dir.join(FILE);
    if let Some(text) = secret_file::read(&path)? {
        return PrivateKey::from_base64(&text)
            .map_err(|source| IdentityError::Key { path, source });
    }
    secret_file::make_dir(state_dir)?;
    let key = PrivateKey::generate()?;
    let mut text = key.to_base64();
    text.push('\n');
    secret_file::write(&path, &text)?;
    tracing::info!(path = %path.display(), public_key = %key.public_key(), "made a WireGuard key");
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let state = dir.path().join("state");
        let made = load_or_generate(&state).expect("made");
        let mode = fs::metadata(state.join(FILE))
            .expect("file")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let read = load_or_generate(&state).expect("read");
        assert_eq!(made.public_key(), read.public_key());
    }

    #[test]
    fn an_exposed_or_damaged_key_is_refused_and_kept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join(FILE);
        load_or_generate(dir.path()).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(matches!(
            load_or_generate(dir.path()),
            Err(IdentityError::Exposed { .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("chmod");
        fs::write(&path, "not a key").expect("written");
        assert!(matches!(
            load_or_generate(dir.path()),
            Err(IdentityError::Key { .. })
        ));
        assert_eq!(fs::read_to_string(&path).expect("still there"), "not a key");
    }
}
