//! The key that seals all secrets in the store: a file beside the database, never in it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{RandomError, random};

/// Why the master key could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("{call} {path}: {source}")]
    Io {
        call: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{path} is open to others (mode {mode:o}): run `chmod 600 {path}` and consider the key leaked"
    )]
    Open { path: PathBuf, mode: u32 },
    #[error("{path} does not hold a 32-byte key: restore it from a backup")]
    Shape { path: PathBuf },
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Reads `master.key` in `state_dir`, or makes it when there is none yet.
pub(super) fn load_or_create(state_dir: &Path) -> Result<Zeroizing<[u8; 32]>, MasterKeyError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .map_err(|source| MasterKeyError::Io {
            call: "create",
            path: state_dir.into(),
            source,
        })?;
    let path = state_dir.join("master.key");
    match load(&path) {
        Err(MasterKeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            create(&path)?;
            load(&path)
        }
        result => result,
    }
}

fn load(path: &Path) -> Result<Zeroizing<[u8; 32]>, MasterKeyError> {
    let failed = |call| {
        move |source| MasterKeyError::Io {
            call,
            path: path.into(),
            source,
        }
    };
    let file = fs::File::open(path).map_err(failed("open"))?;
    let mode = file
        .metadata()
        .map_err(failed("stat"))?
        .permissions()
        .mode()
        & 0o7777;
    if mode & 0o077 != 0 {
        return Err(MasterKeyError::Open {
            path: path.into(),
            mode,
        });
    }
    let mut text = Zeroizing::new(Vec::with_capacity(33));
    file.take(33)
        .read_to_end(&mut text)
        .map_err(failed("read"))?;
    let key = <[u8; 32]>::try_from(text.as_slice())
        .map_err(|_| MasterKeyError::Shape { path: path.into() })?;
    Ok(Zeroizing::new(key))
}

/// Writes a new key beside its final name first, so that no reader ever sees half of one, and
/// keeps a key that another process made in the meantime.
fn create(path: &Path) -> Result<(), MasterKeyError> {
    let failed = |call| {
        move |source| MasterKeyError::Io {
            call,
            path: path.into(),
            source,
        }
    };
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)
        .map_err(failed("create"))?;
    let written = random::<32>()
        .map_err(MasterKeyError::from)
        .and_then(|key| {
            file.write_all(key.as_slice())
                .and_then(|()| file.sync_all())
                .map_err(failed("write"))
        });
    let linked = written.and_then(|()| match fs::hard_link(&draft, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed("create")(error)),
        _ => Ok(()),
    });
    let _ = fs::remove_file(&draft);
    linked?;
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(failed("sync directory of"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_create(dir.path()).unwrap();
        let again = load_or_create(dir.path()).unwrap();
        assert_eq!(*first, *again);
        let path = dir.path().join("master.key");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            load_or_create(dir.path()),
            Err(MasterKeyError::Open { .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"short").unwrap();
        assert!(matches!(
            load_or_create(dir.path()),
            Err(MasterKeyError::Shape { .. })
        ));
    }
}
