//! The XDP program on the network card: attached through a pinned link (Linux 5.9), in the driver where
//! that can be.

use std::{io, os::fd::AsFd as _};

use aya::{
    Ebpf,
    programs::{
        ProgramError, Xdp, XdpMode,
        links::{FdLink, LinkError, PinnedLink},
    },
};
use gateway_common::shield::names::GUARD;
use serde::Deserialize;

use crate::datapath::{
    error::DatapathError,
    hooks::{errno, remove_file},
    load::uninterrupted,
    pins::Pins,
    sys,
};

const LINK: &str = "link_guard";
const PROGRAM: &str = "program_guard";

/// Where the guard runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver where it can, else generic.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the stack, before all else.
    Generic,
}

/// Loads the program and returns its id.
pub(super) fn load(object: &mut Ebpf) -> Result<u32, DatapathError> {
    let program = program(object)?;
    uninterrupted(|| program.load()).map_err(|source| error("load", source))?;
    Ok(program
        .info()
        .map_err(|source| error("inspect", source))?
        .id())
}

/// Whether the pinned link runs the program of this id on the interface.
pub(super) fn is_attached(pins: &Pins, ifindex: u32, id: u32) -> Result<bool, DatapathError> {
    match sys::open_pin(&pins.path(LINK)) {
        Ok(link) => {
            let link = sys::link_info(link.as_fd()).map_err(system)?;
            Ok(link.ifindex == ifindex && link.program == id)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(system(error)),
    }
}

/// The card that the pinned link is on.
pub(super) fn card(pins: &Pins) -> Result<Option<u32>, DatapathError> {
    match sys::open_pin(&pins.path(LINK)) {
        Ok(link) => {
            let ifindex = sys::link_info(link.as_fd()).map_err(system)?.ifindex;
            Ok(Some(ifindex).filter(|&ifindex| ifindex != 0))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(system(error)),
    }
}

/// Puts the program on the card, in place of an earlier one of ours where there is one, and says whether
/// it runs in the driver.
pub(super) fn attach(
    object: &mut Ebpf,
    pins: &Pins,
    ifindex: u32,
    mode: Mode,
    was_native: bool,
) -> Result<bool, DatapathError> {
    let fits = match mode {
        Mode::Auto => true,
        Mode::Native => was_native,
        Mode::Generic => !was_native,
    };
    let native = if fits && replace(object, pins, ifindex)? {
        was_native
    } else {
        detach(pins)?;
        attach_afresh(object, pins, ifindex, mode)?
    };
    let pin = pins.path(PROGRAM);
    remove_file(&pin)?;
    program(object)?
        .pin(&pin)
        .map_err(|source| DatapathError::PinDirectory {
            path: pin,
            source: io::Error::other(source),
        })?;
    Ok(native)
}

/// Takes the guard off its card, if it is on one.
pub(super) fn detach(pins: &Pins) -> Result<(), DatapathError> {
    let pin = pins.path(LINK);
    match sys::open_pin(&pin) {
        Ok(link) => sys::detach_link(link.as_fd()).map_err(system)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(system(error)),
    }
    remove_file(&pin)
}

/// Whether there was a link of ours on this interface.
fn replace(object: &mut Ebpf, pins: &Pins, ifindex: u32) -> Result<bool, DatapathError> {
    let pin = pins.path(LINK);
    let fd = match sys::open_pin(&pin) {
        Ok(fd) => fd,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(system(error)),
    };
    if sys::link_info(fd.as_fd()).map_err(system)?.ifindex != ifindex {
        return Ok(false);
    }
    let link = PinnedLink::from_pin(&pin)
        .and_then(|link| FdLink::from(link).try_into())
        .map_err(|source: LinkError| error("adopt", io::Error::other(source).into()))?;
    let program = program(object)?;
    match program
        .attach_to_link(link)
        .and_then(|id| program.take_link(id))
    {
        // Dropped, the link stays: its pin holds it.
        Ok(_) => Ok(true),
        Err(failure) if errno(&failure) == Some(libc::ENOLINK) => Ok(false),
        Err(source) => Err(error("replace", source)),
    }
}

fn attach_afresh(
    object: &mut Ebpf,
    pins: &Pins,
    ifindex: u32,
    mode: Mode,
) -> Result<bool, DatapathError> {
    let modes: &[(XdpMode, bool)] = match mode {
        Mode::Auto => &[(XdpMode::Driver, true), (XdpMode::Skb, false)],
        Mode::Native => &[(XdpMode::Driver, true)],
        Mode::Generic => &[(XdpMode::Skb, false)],
    };
    let mut refused = None;
    for &(mode, native) in modes {
        match attach_in(object, ifindex, mode) {
            Ok(link) => {
                let pin = pins.path(LINK);
                link.pin(&pin)
                    .map_err(|source| DatapathError::PinDirectory {
                        path: pin,
                        source: io::Error::other(source),
                    })?;
                return Ok(native);
            }
            Err(failure) => refused = Some(failure),
        }
    }
    Err(refused.map_or(DatapathError::Object(GUARD), |source| {
        error("attach", source)
    }))
}

fn attach_in(object: &mut Ebpf, ifindex: u32, mode: XdpMode) -> Result<FdLink, ProgramError> {
    let Ok(program) = program(object) else {
        return Err(ProgramError::NotLoaded);
    };
    let id = program.attach_to_if_index(ifindex, mode)?;
    let link = program.take_link(id)?;
    // What is not a link proper cannot be pinned; dropped, it is detached.
    link.try_into()
        .map_err(|source: LinkError| io::Error::other(source).into())
}

fn program(object: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    object
        .program_mut(GUARD)
        .and_then(|program| program.try_into().ok())
        .ok_or(DatapathError::Object(GUARD))
}

fn error(action: &'static str, source: ProgramError) -> DatapathError {
    DatapathError::Program {
        action,
        program: GUARD,
        source,
    }
}

fn system(source: io::Error) -> DatapathError {
    DatapathError::System {
        call: "bpf",
        target: format!("link {LINK}"),
        source,
    }
}
