//! What a live connection leaves for other commands to read.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::device::failed;
use crate::{DeviceError, DeviceState, Session};

/// A connection as the process that holds it last knew it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Record {
    /// The WireGuard interface.
    pub interface: String,
    /// With its deadline.
    pub session: Session,
}

impl DeviceState {
    /// Writes down a connection. A crash leaves the former record or this one.
    pub fn record(&self, location: &str, record: &Record) -> Result<(), DeviceError> {
        let path = self.record_of(location);
        let temporary = path.with_extension("new");
        let written = (|| {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            file.write_all(&serde_json::to_vec(record)?)?;
            fs::rename(&temporary, &path)
        })();
        written.map_err(failed("write", &path))
    }

    /// The connection that was last recorded, whether or not it is still there (see [`DeviceState::holder`]).
    pub fn recorded(&self, location: &str) -> Result<Option<Record>, DeviceError> {
        let path = self.record_of(location);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| failed("read", &path)(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// The connection is over.
    pub fn forget(&self, location: &str) -> Result<(), DeviceError> {
        let path = self.record_of(location);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn record_of(&self, location: &str) -> PathBuf {
        self.dir().join(format!("{location}.json"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_record_is_kept_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let state = DeviceState::open(&dir.path().join("state")).unwrap();
        assert_eq!(state.recorded("hq.example").unwrap(), None);
        let record = Record {
            interface: "wg-hq".into(),
            session: Session {
                id: "s".into(),
                user: "ada".into(),
                device: "laptop".into(),
                location: "hq.example".into(),
                level: "mfa".into(),
                authenticated_at: "2026-01-01T00:00:00Z".into(),
                deadline: "2026-01-01T01:00:00Z".into(),
                idle_timeout_ms: 0,
                reset: None,
            },
        };
        state.record("hq.example", &record).unwrap();
        assert_eq!(state.recorded("hq.example").unwrap(), Some(record));
        let mode = fs::metadata(state.record_of("hq.example")).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            state.locations().unwrap().is_empty(),
            "a record is no connection"
        );
        state.forget("hq.example").unwrap();
        state.forget("hq.example").unwrap();
        assert_eq!(state.recorded("hq.example").unwrap(), None);
    }
}
