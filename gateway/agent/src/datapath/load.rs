//! Loading an object over its pinned maps, or over new ones that are pinned.

use std::{os::fd::AsFd as _, path::Path};

use aya::{Ebpf, EbpfLoader};

use super::{error::DatapathError, pins::Pins, specs::Spec, sys, types::Config};

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
