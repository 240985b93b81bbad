//! What of a shield there is in the kernel, for those who only look.

use std::{io, time::Duration};

use gateway_common::shield::{ShieldSettings, names};

use super::{guard, system};
use crate::datapath::{clock, error::DatapathError, pins::Pins, sys, table::Table, types::Config};

/// An attached shield.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The card it is on.
    pub ifindex: u32,
    /// Otherwise it is generic XDP.
    pub native: bool,
    /// Unknown indexes pass for as long.
    pub learning: Duration,
}

impl State {
    /// The shield that an agent of this configuration keeps or has left; `None` where there is none.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn read(config: &Config) -> Result<Option<Self>, DatapathError> {
        let pins = Pins::shield(config)?;
        let settings = match sys::open_pin(&pins.path(names::SETTINGS)) {
            Ok(fd) => Table::<u32, ShieldSettings>::new(names::SETTINGS, fd).get(&0)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(system("BPF_OBJ_GET", names::SETTINGS, error)),
        };
        let Some(settings) = settings else {
            return Ok(None);
        };
        if guard::card(&pins)? != Some(settings.ifindex) {
            return Ok(None);
        }
        let left = settings.learning_until.saturating_sub(clock::now());
        Ok(Some(Self {
            ifindex: settings.ifindex,
            native: settings.flags & ShieldSettings::NATIVE != 0,
            learning: Duration::from_nanos(left),
        }))
    }
}
