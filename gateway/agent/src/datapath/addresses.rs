//! From tunnel address to peer index, in the kernel.
//!
//! An element deleted from a hash map may be used again while a program on another CPU still looks
//! at it, and would then give one address's packet another address's peer. So after a deletion a
//! grace period passes before the next insertion.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
};

use gateway_common::abi::{AddressV4, AddressV6, LpmKey};
use ipnet::IpNet;

use super::{error::DatapathError, sys, table::Table};

/// The four maps.
#[derive(Debug)]
pub(super) struct Addresses {
    pub(super) v4: Table<AddressV4, u32>,
    pub(super) v6: Table<AddressV6, u32>,
    pub(super) wide_v4: Table<LpmKey<AddressV4>, u32>,
    pub(super) wide_v6: Table<LpmKey<AddressV6>, u32>,
    deleted: AtomicBool,
}

/// Where one prefix is kept.
enum Place {
    V4(AddressV4),
    V6(AddressV6),
    WideV4(LpmKey<AddressV4>),
    WideV6(LpmKey<AddressV6>),
}

impl Addresses {
    pub(super) fn new(
        v4: Table<AddressV4, u32>,
        v6: Table<AddressV6, u32>,
        wide_v4: Table<LpmKey<AddressV4>, u32>,
        wide_v6: Table<LpmKey<AddressV6>, u32>,
    ) -> Self {
        // An earlier run may have deleted something just before it ended.
        Self {
            v4,
            v6,
            wide_v4,
            wide_v6,
            deleted: AtomicBool::new(true),
        }
    }

    /// Index of exactly this prefix. (The kernel has no exact look-up of a trie: see [`Self::covering`].)
    pub(super) fn owner(&self, address: &IpNet) -> Result<Option<u32>, DatapathError> {
        match place(address) {
            Place::V4(key) => self.v4.get(&key),
            Place::V6(key) => self.v6.get(&key),
            Place::WideV4(key) => self.wide_v4.get(&key),
            Place::WideV6(key) => self.wide_v6.get(&key),
        }
    }

    /// Index of the longest wider prefix that covers this one.
    pub(super) fn covering(&self, address: &IpNet) -> Result<Option<u32>, DatapathError> {
        match address.network() {
            IpAddr::V4(v4) => self.wide_v4.get(&LpmKey {
                prefix_length: u32::from(address.prefix_len()),
                address: v4.into(),
            }),
            IpAddr::V6(v6) => self.wide_v6.get(&LpmKey {
                prefix_length: u32::from(address.prefix_len()),
                address: v6.into(),
            }),
        }
    }

    /// Lets the address prove the peer of this index.
    pub(super) fn insert(&self, address: &IpNet, index: u32) -> Result<(), DatapathError> {
        self.settle();
        match place(address) {
            Place::V4(key) => self.v4.insert(&key, &index),
            Place::V6(key) => self.v6.insert(&key, &index),
            Place::WideV4(key) => self.wide_v4.insert(&key, &index),
            Place::WideV6(key) => self.wide_v6.insert(&key, &index),
        }
    }

    /// Inserts many at once.
    pub(super) fn insert_all(&self, all: &[(IpNet, u32)]) -> Result<(), DatapathError> {
        self.settle();
        let (mut v4, mut v6) = ((Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
        for (address, index) in all {
            match place(address) {
                Place::V4(key) => {
                    v4.0.push(key);
                    v4.1.push(*index);
                }
                Place::V6(key) => {
                    v6.0.push(key);
                    v6.1.push(*index);
                }
                Place::WideV4(key) => self.wide_v4.insert(&key, index)?,
                Place::WideV6(key) => self.wide_v6.insert(&key, index)?,
            }
        }
        // A million take the better part of a second, so both families at once.
        std::thread::scope(|scope| {
            let other = scope.spawn(|| self.v6.insert_all(&v6.0, &v6.1));
            self.v4.insert_all(&v4.0, &v4.1)?;
            other.join().unwrap_or(Err(DatapathError::Interrupted))
        })
    }

    /// Makes the address nobody's.
    pub(super) fn remove(&self, address: &IpNet) -> Result<(), DatapathError> {
        self.deleted.store(true, Ordering::Relaxed);
        self.remove_idle(address)
    }

    /// The same where no program runs that could still act on it.
    pub(super) fn remove_idle(&self, address: &IpNet) -> Result<(), DatapathError> {
        match place(address) {
            Place::V4(key) => self.v4.remove(&key),
            Place::V6(key) => self.v6.remove(&key),
            Place::WideV4(key) => self.wide_v4.remove(&key),
            Place::WideV6(key) => self.wide_v6.remove(&key),
        }
        .map(drop)
    }

    /// Waits until no program can still act on an address deleted before.
    pub(super) fn settle(&self) {
        if self.deleted.swap(false, Ordering::Relaxed) {
            sys::grace_period();
        }
    }

    /// Everything in the kernel.
    pub(super) fn dump(&self) -> Result<Vec<(IpNet, u32)>, DatapathError> {
        let mut all = Vec::new();
        for (address, index) in self.v4.dump()? {
            all.push((IpNet::from(IpAddr::V4(address.into())), index));
        }
        for (address, index) in self.v6.dump()? {
            all.push((IpNet::from(IpAddr::V6(address.into())), index));
        }
        for (key, index) in self.wide_v4.dump()? {
            all.extend(
                wide(IpAddr::V4(key.address.into()), key.prefix_length)
                    .map(|address| (address, index)),
            );
        }
        for (key, index) in self.wide_v6.dump()? {
            all.extend(
                wide(IpAddr::V6(key.address.into()), key.prefix_length)
                    .map(|address| (address, index)),
            );
        }
        Ok(all)
    }
}

/// Whether the prefix is kept apart, as wider than one address.
pub(super) fn is_wide(address: &IpNet) -> bool {
    address.prefix_len() < address.max_prefix_len()
}

fn place(address: &IpNet) -> Place {
    let prefix_length = u32::from(address.prefix_len());
    match (address.network(), is_wide(address)) {
        (IpAddr::V4(v4), false) => Place::V4(v4.into()),
        (IpAddr::V6(v6), false) => Place::V6(v6.into()),
        (IpAddr::V4(v4), true) => Place::WideV4(LpmKey {
            prefix_length,
            address: v4.into(),
        }),
        (IpAddr::V6(v6), true) => Place::WideV6(LpmKey {
            prefix_length,
            address: v6.into(),
        }),
    }
}

fn wide(address: IpAddr, prefix_length: u32) -> Option<IpNet> {
    IpNet::new(address, u8::try_from(prefix_length).ok()?).ok()
}
