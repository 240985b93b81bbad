//! Where maps, programs and links are pinned, and whether what is there can be taken over.
//!
//! `<pin_root>/v<ABI>/<namespace>-<interface>/` appears whole or not at all: a first start pins into a
//! directory beside it and renames that. A process killed half-way leaves nothing that a later one
//! would adopt. The number of the network namespace is a part of the name because a BPF file system
//! may be shared by several, each with an interface of this name.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use gateway_common::abi;

use super::{error::DatapathError, sys, types::Config};

/// Where systemd and everyone else mounts the BPF file system.
const BPF_FS: &str = "/sys/fs/bpf";

/// The pins of one interface.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    root: PathBuf,
    name: String,
    dir: PathBuf,
    fresh: PathBuf,
}

impl Pins {
    /// Those of the interface of this name in this thread's network namespace.
    pub(super) fn new(config: &Config) -> Result<Self, DatapathError> {
        Self::named(config, "")
    }

    /// Those of the interface's shield, which come and go apart from the gate's.
    pub(super) fn shield(config: &Config) -> Result<Self, DatapathError> {
        Self::named(config, "%shield")
    }

    fn named(config: &Config, suffix: &str) -> Result<Self, DatapathError> {
        let namespace = sys::network_namespace()
            .map_err(|source| at(Path::new("/proc/thread-self/ns/net"), source))?;
        // The BPF file system reserves dots, which an interface's name may have.
        let interface = config.interface.replace('%', "%25").replace('.', "%2e");
        let version = format!("v{}", abi::ABI_VERSION);
        Ok(Self::of_version(
            &config.pin_root,
            &version,
            format!("{namespace}-{interface}{suffix}"),
        ))
    }

    fn of_version(root: &Path, version: &str, name: String) -> Self {
        let parent = root.join(version);
        Self {
            root: root.to_owned(),
            dir: parent.join(&name),
            fresh: parent.join(format!("{name}%new")),
            name,
        }
    }

    /// These, and those that earlier versions of the maps have left for the same interface.
    pub(super) fn of_all_versions(&self) -> Result<Vec<Self>, DatapathError> {
        let mut all = vec![self.clone()];
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(all),
            entries => entries.map_err(|source| at(&self.root, source))?,
        };
        for entry in entries {
            let entry = entry.map_err(|source| at(&self.root, source))?;
            let version = entry.file_name().to_string_lossy().into_owned();
            let number = version.strip_prefix('v').map(str::parse::<u32>);
            let pins = Self::of_version(&self.root, &version, self.name.clone());
            if matches!(number, Some(Ok(_))) && pins.dir != self.dir {
                all.push(pins);
            }
        }
        Ok(all)
    }

    /// The directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether an earlier run has left its pins.
    pub(super) fn exist(&self) -> Result<bool, DatapathError> {
        self.dir
            .try_exists()
            .map_err(|source| at(&self.dir, source))
    }

    /// Path of a pin.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// An empty directory for pins to be, on a BPF file system.
    pub(super) fn begin(&self, config: &Config) -> Result<&Path, DatapathError> {
        mount_where_usual(&config.pin_root)?;
        let parent = self.fresh.parent().unwrap_or(&config.pin_root);
        fs::create_dir_all(parent).map_err(|source| at(parent, source))?;
        if !sys::is_bpf_fs(parent).map_err(|source| at(parent, source))? {
            return Err(at(parent, io::Error::other("not a BPF file system")));
        }
        remove(&self.fresh)?;
        fs::create_dir(&self.fresh).map_err(|source| at(&self.fresh, source))?;
        Ok(&self.fresh)
    }

    /// Makes them the interface's pins.
    pub(super) fn commit(&self) -> Result<(), DatapathError> {
        fs::rename(&self.fresh, &self.dir).map_err(|source| at(&self.dir, source))
    }

    /// Removes every pin of the interface. What is attached only through them is detached.
    pub(super) fn remove(&self) -> Result<(), DatapathError> {
        remove(&self.fresh)?;
        remove(&self.dir)?;
        if let Some(version) = self.dir.parent() {
            // Another interface's pins may be in it: then it stays.
            let _ = fs::remove_dir(version);
        }
        Ok(())
    }
}

/// Hosts without systemd may not have mounted it; like other loaders, do so at the usual place only.
fn mount_where_usual(root: &Path) -> Result<(), DatapathError> {
    let usual = Path::new(BPF_FS);
    if !root.starts_with(usual) || sys::is_bpf_fs(usual).map_err(|source| at(usual, source))? {
        return Ok(());
    }
    sys::mount_bpf_fs(usual).map_err(|source| at(usual, source))
}

fn remove(dir: &Path) -> Result<(), DatapathError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(dir, error)),
        _ => Ok(()),
    }
}

fn at(path: &Path, source: io::Error) -> DatapathError {
    DatapathError::PinDirectory {
        path: path.to_owned(),
        source,
    }
}
