//! A map by its file descriptor, with keys and values of one type each.

use std::{
    io,
    marker::PhantomData,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::Pod;

use super::{error::DatapathError, sys};

/// One map.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    name: &'static str,
    fd: OwnedFd,
    types: PhantomData<fn(K) -> V>,
}

impl<K: Pod + Default, V: Pod + Default> Table<K, V> {
    /// `fd` is that of a map with keys and values of these types: its shape has been checked.
    pub(super) fn new(name: &'static str, fd: OwnedFd) -> Self {
        Self {
            name,
            fd,
            types: PhantomData,
        }
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    pub(super) fn get(&self, key: &K) -> Result<Option<V>, DatapathError> {
        sys::lookup(self.fd.as_fd(), key).map_err(|source| self.error("look-up", source))
    }

    pub(super) fn insert(&self, key: &K, value: &V) -> Result<(), DatapathError> {
        sys::update(self.fd.as_fd(), key, value).map_err(|source| self.error("update", source))
    }

    pub(super) fn insert_all(&self, keys: &[K], values: &[V]) -> Result<(), DatapathError> {
        sys::update_batch(self.fd.as_fd(), keys, values)
            .map_err(|source| self.error("batch update", source))
    }

    pub(super) fn remove(&self, key: &K) -> Result<bool, DatapathError> {
        sys::delete(self.fd.as_fd(), key).map_err(|source| self.error("delete", source))
    }

    /// Whether there is any element at all.
    pub(super) fn any(&self) -> Result<bool, DatapathError> {
        sys::any::<K>(self.fd.as_fd()).map_err(|source| self.error("first key", source))
    }

    pub(super) fn dump(&self) -> Result<Vec<(K, V)>, DatapathError> {
        sys::dump(self.fd.as_fd(), 4096).map_err(|source| self.error("batch look-up", source))
    }

    fn error(&self, call: &'static str, source: io::Error) -> DatapathError {
        DatapathError::System {
            call,
            target: format!("map {}", self.name),
            source,
        }
    }
}
