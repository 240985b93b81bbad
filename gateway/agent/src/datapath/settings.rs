//! Writing the settings: word by word, each a single store.

use std::{mem::offset_of, sync::atomic::Ordering::SeqCst};

use gateway_common::abi::Settings;

use super::{Datapath, DatapathError};

const EPOCH: usize = offset_of!(Settings, epoch);
const FILTER: usize = offset_of!(Settings, service_filter);
const POLICIES: usize = offset_of!(Settings, policies);
const MARK: usize = offset_of!(Settings, answer_mark);

impl Datapath {
    /// As the kernel holds them.
    pub(super) fn settings(&self) -> Result<Settings, DatapathError> {
        Ok(self.settings.get(&0)?.unwrap_or_default())
    }

    /// Changes the settings. Epoch and flags change at once; before them whatever the programs may only
    /// see with the new ones, after them what they may only see without the old ones.
    pub(super) fn change_settings(
        &self,
        change: impl FnOnce(&mut Settings),
    ) -> Result<(), DatapathError> {
        let held = self.settings()?;
        let mut settings = held;
        change(&mut settings);
        let words = &self.settings_words;
        let store = |offset: usize, value: u64| words.word(0, offset).store(value, SeqCst);
        if settings.service_filter != held.service_filter {
            // A bit too many costs a look-up; one too few hides a service.
            store(FILTER, settings.service_filter | held.service_filter);
        }
        for (i, id) in settings.policies.into_iter().enumerate() {
            if id != held.policies[i] {
                store(POLICIES + 8 * i, id);
            }
        }
        if settings.answer_mark != held.answer_mark {
            words.half(0, MARK).store(settings.answer_mark, SeqCst);
        }
        if (settings.epoch, settings.flags) != (held.epoch, held.flags) {
            store(EPOCH, word(settings.epoch, settings.flags));
        }
        if settings.service_filter != held.service_filter {
            store(FILTER, settings.service_filter);
        }
        Ok(())
    }
}

/// Two halves as they lie in memory.
fn word(first: u32, second: u32) -> u64 {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..].copy_from_slice(&second.to_ne_bytes());
    u64::from_ne_bytes(bytes)
}
