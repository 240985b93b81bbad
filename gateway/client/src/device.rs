//! Where the device's keys are kept: one for each location, made at first use.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

use crate::KeyPair;
use crate::keys::KeyError;

/// Why the state directory cannot be used.
#[derive(Debug, Error)]
pub enum DeviceError {
    #[error("cannot {action} {path}: {source}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{0} can be read or written by others: make it its owner's alone (chmod go= {0})")]
    Exposed(PathBuf),
    #[error("{path} holds no key: {source}")]
    Key { path: PathBuf, source: KeyError },
    #[error("this location is connected already, by another `portcullis connect`")]
    Connected,
}

/// The state directory of a device.
#[derive(Clone, Debug)]
pub struct DeviceState(PathBuf);

/// While it lives, no other process connects this location from this directory.
#[derive(Debug)]
pub struct ConnectLock(#[expect(dead_code, reason = "held open for its lock")] File);

impl DeviceState {
    /// Makes the directory, for its owner alone, where it does not exist.
    pub fn open(dir: &Path) -> Result<Self, DeviceError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(failed("make", dir))?;
        Self::existing(dir)
    }

    /// One that is there.
    pub fn existing(dir: &Path) -> Result<Self, DeviceError> {
        let mode = fs::metadata(dir).map_err(failed("look at", dir))?.mode();
        if mode & 0o077 != 0 {
            return Err(DeviceError::Exposed(dir.to_owned()));
        }
        Ok(Self(dir.to_owned()))
    }

    /// The device's key at a location, and whether it was made just now.
    pub fn key(&self, location: &str) -> Result<(KeyPair, bool), DeviceError> {
        match self.known_key(location)? {
            Some(pair) => Ok((pair, false)),
            None => Ok((self.make_key(&self.key_of(location))?, true)),
        }
    }

    /// The device's key at a location, if there is one.
    pub fn known_key(&self, location: &str) -> Result<Option<KeyPair>, DeviceError> {
        let path = self.key_of(location);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        let metadata = file.metadata().map_err(failed("look at", &path))?;
        if metadata.mode() & 0o077 != 0 {
            return Err(DeviceError::Exposed(path));
        }
        let mut text = Zeroizing::new(String::with_capacity(64));
        file.read_to_string(&mut text)
            .map_err(failed("read", &path))?;
        match KeyPair::from_private_base64(text.trim()) {
            Ok(pair) => Ok(Some(pair)),
            Err(source) => Err(DeviceError::Key { path, source }),
        }
    }

    /// A crash leaves no key or a whole one, and a process beside this one never another.
    fn make_key(&self, path: &Path) -> Result<KeyPair, DeviceError> {
        let pair = KeyPair::generate().map_err(|source| DeviceError::Key {
            path: path.to_owned(),
            source,
        })?;
        let temporary = path.with_extension(format!("key.{}", std::process::id()));
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(pair.private_base64().as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            // Unlike a rename it replaces nothing.
            fs::hard_link(&temporary, path)?;
            File::open(&self.0)?.sync_all()
        })();
        // What counts is the error of the writing.
        let _ = fs::remove_file(&temporary);
        written.map_err(failed("write", path))?;
        Ok(pair)
    }

    /// For one process at a time, which may end in any way.
    pub fn lock(&self, location: &str) -> Result<ConnectLock, DeviceError> {
        let path = self.lock_of(location);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DeviceError::Connected),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        let named = file
            .set_len(0)
            .and_then(|()| file.write_all(std::process::id().to_string().as_bytes()));
        named.map_err(failed("write", &path))?;
        Ok(ConnectLock(file))
    }

    /// The process that holds the lock now. What a file says whose lock nobody holds is not believed.
    pub fn holder(&self, location: &str) -> Result<Option<u32>, DeviceError> {
        let path = self.lock_of(location);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &path)(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        let mut text = String::new();
        let read = file.read_to_string(&mut text);
        read.map_err(failed("read", &path))?;
        // Empty for the moment between the lock and its name.
        Ok(text.trim().parse().ok())
    }

    /// Those that were connected from here once.
    pub fn locations(&self) -> Result<Vec<String>, DeviceError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0).map_err(failed("read", &self.0))? {
            let name = entry.map_err(failed("read", &self.0))?.file_name();
            let location = name.to_str().and_then(|name| name.strip_suffix(".lock"));
            found.extend(location.map(str::to_owned));
        }
        found.sort();
        Ok(found)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.0
    }

    fn key_of(&self, location: &str) -> PathBuf {
        self.0.join(format!("{location}.key"))
    }

    fn lock_of(&self, location: &str) -> PathBuf {
        self.0.join(format!("{location}.lock"))
    }
}

pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DeviceError {
    let path = path.to_owned();
    move |source| DeviceError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn inv10_the_key_is_made_once_and_is_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let state = DeviceState::open(&path).unwrap();
        let (first, new) = state.key("hq.example").unwrap();
        assert!(new);
        let (second, new) = state.key("hq.example").unwrap();
        assert!(!new && first.public() == second.public());
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        let file = path.join("hq.example.key");
        assert_eq!(mode(&file), 0o600);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1);
        let (other, new) = state.key("vault").unwrap();
        assert!(new && other.public() != first.public());

        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            state.key("hq.example"),
            Err(DeviceError::Exposed(_))
        ));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "not a key").unwrap();
        assert!(matches!(
            state.key("hq.example"),
            Err(DeviceError::Key { .. })
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(
            DeviceState::open(&path),
            Err(DeviceError::Exposed(_))
        ));
    }

    #[test]
    fn a_location_is_connected_once_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = DeviceState::open(&dir.path().join("state")).unwrap();
        let held = state.lock("vault").unwrap();
        assert!(matches!(state.lock("vault"), Err(DeviceError::Connected)));
        state.lock("office").unwrap();
        assert_eq!(state.holder("vault").unwrap(), Some(std::process::id()));
        assert_eq!(state.locations().unwrap(), ["office", "vault"]);
        drop(held);
        assert_eq!(
            state.holder("vault").unwrap(),
            None,
            "its name is still there"
        );
        assert_eq!(state.holder("never").unwrap(), None);
        state.lock("vault").unwrap();
    }
}
