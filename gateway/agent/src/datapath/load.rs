//! Loading an object over its pinned maps, or over new ones that are pinned.

use std::{os::fd::AsFd as _, path::Path};

use aya::{Ebpf, EbpfLoader, programs::ProgramError};

use super::{error::DatapathError, hooks::errno, pins::Pins, specs::Spec, sys, types::Config};

/// An object that is part of this binary, and the maps of it that are pinned.
#[derive(Clone, Copy)]
pub(super) struct Object {
    pub(super) bytes: &'static [u8],
    pub(super) specs: &'static [Spec],
    /// Global variables of it that the loader sets.
    pub(super) globals: &'static [(&'static str, u32)],
}

impl Object {
    /// Loads it over pinned maps, each of which must be of the right shape.
    pub(super) fn adopt(&self, config: &Config, pins: &Pins) -> Result<Ebpf, DatapathError> {
        let mut loader = EbpfLoader::new();
        self.sized(&mut loader, config);
        let paths: Vec<_> = self
            .specs
            .iter()
            .map(|spec| (spec.name, pins.path(spec.name)))
            .collect();
        for (spec, (name, path)) in self.specs.iter().zip(&paths) {
            if !path.exists() {
                let path = path.parent().unwrap_or(path).to_owned();
                return Err(DatapathError::PinnedMapMissing { map: name, path });
            }
            spec.check(path, config)?;
        }
        for (name, path) in &paths {
            loader.map_pin_path(name, path.as_path());
        }
        Ok(loader.load(self.bytes)?)
    }

    /// Loads it over new maps and pins them where they are to be committed from.
    pub(super) fn begin(&self, config: &Config, pins: &Pins) -> Result<Ebpf, DatapathError> {
        let dir = pins.begin(config)?;
        let mut loader = EbpfLoader::new();
        self.sized(&mut loader, config);
        let mut made = Vec::new();
        for spec in self.specs {
            if let Some(map) = spec.create(config)? {
                let path = dir.join(spec.name);
                sys::pin(map.as_fd(), &path).map_err(|source| DatapathError::PinDirectory {
                    path: path.clone(),
                    source,
                })?;
                made.push((spec.name, path));
            }
        }
        for (name, path) in &made {
            loader.map_pin_path(name, path.as_path());
        }
        let object = loader.load(self.bytes)?;
        for spec in self.specs.iter().filter(|spec| spec.inner.is_none()) {
            let path = dir.join(spec.name);
            object
                .map(spec.name)
                .ok_or(DatapathError::Object(spec.name))?
                .pin(&path)
                .map_err(|error| pin_error(&path, error))?;
            spec.check(&path, config)?;
        }
        Ok(object)
    }

    fn sized<'a, 'b>(
        &self,
        loader: &'a mut EbpfLoader<'b>,
        config: &Config,
    ) -> &'a mut EbpfLoader<'b> {
        for spec in self.specs {
            loader.map_max_entries(spec.name, spec.entries(config));
        }
        for (name, value) in self.globals {
            loader.override_global(name, value, true);
        }
        loader
    }
}

pub(super) fn pin_error(path: &Path, error: aya::pin::PinError) -> DatapathError {
    DatapathError::PinDirectory {
        path: path.to_owned(),
        source: std::io::Error::other(error),
    }
}

/// Loads a program. The verifier breaks off with `EAGAIN` when a signal arrives, and is to be asked again
/// (as libbpf does, as often).
pub(super) fn uninterrupted(
    mut load: impl FnMut() -> Result<(), ProgramError>,
) -> Result<(), ProgramError> {
    const ATTEMPTS: u32 = 5;
    for _ in 1..ATTEMPTS {
        match load() {
            Err(error) if errno(&error) == Some(libc::EAGAIN) => {}
            result => return result,
        }
    }
    load()
}

#[cfg(test)]
mod tests {
    use std::io;

    use aya::sys::SyscallError;

    use super::*;

    fn refused(errno: i32) -> ProgramError {
        ProgramError::SyscallError(SyscallError {
            call: "bpf_prog_load",
            io_error: io::Error::from_raw_os_error(errno),
        })
    }

    #[test]
    fn a_load_that_a_signal_broke_off_is_tried_again() {
        let mut calls = 0;
        let result = uninterrupted(|| {
            calls += 1;
            if calls < 3 {
                Err(refused(libc::EAGAIN))
            } else {
                Ok(())
            }
        });
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(calls, 3);
    }

    #[test]
    fn a_load_that_is_refused_is_not_nor_for_ever() {
        for (errno, times) in [(libc::EACCES, 1), (libc::EAGAIN, 5)] {
            let mut calls = 0;
            let result = uninterrupted(|| {
                calls += 1;
                Err(refused(errno))
            });
            assert!(result.is_err());
            assert_eq!(calls, times, "{errno}");
        }
    }
}
