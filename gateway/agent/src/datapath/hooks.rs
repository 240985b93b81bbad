//! Attaching the programs to the interface, and finding out whether they are.
//!
//! On Linux 6.6 and later through tcx links, which are pinned: they outlive the agent, and their
//! program is replaced in place. Before that through clsact filters of one known priority and
//! handle, which stay until someone deletes them.

use std::{fs, io, os::fd::AsFd as _};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, ProgramInfo, SchedClassifier, TcAttachType,
        links::{FdLink, LinkError, PinnedLink},
        tc::{
            NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
        },
    },
    sys::SyscallError,
    util::KernelVersion,
};
use gateway_common::{abi::names, shield};

use super::{
    error::DatapathError,
    filters,
    load::uninterrupted,
    pins::Pins,
    sys::{self, LinkInfo},
    types::Attached,
};

/// First of all classic filters, so that none before it lets a packet past the gate.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 1);
/// On the network card there may be others' filters: a handle that they hardly use.
const LEARN_HANDLE: TcHandle = TcHandle::new(0, 0x706f);

/// One hook and its program.
#[derive(Clone, Copy)]
pub(super) struct Hook {
    pub(super) program: &'static str,
    link: &'static str,
    program_pin: &'static str,
    at: TcAttachType,
    handle: TcHandle,
    /// It lets packets through or not: it has to be the first on its interface, and must not be
    /// taken off one that is alive.
    enforces: bool,
}

/// Both hooks.
pub(super) const HOOKS: [Hook; 2] = [
    Hook {
        program: names::FROM_PEER,
        link: "link_from_peer",
        program_pin: "program_from_peer",
        at: TcAttachType::Ingress,
        handle: HANDLE,
        enforces: true,
    },
    Hook {
        program: names::TO_PEER,
        link: "link_to_peer",
        program_pin: "program_to_peer",
        at: TcAttachType::Egress,
        handle: HANDLE,
        enforces: true,
    },
];

/// The shield's learner, on the network card.
pub(super) const LEARN: Hook = Hook {
    program: shield::names::LEARN,
    link: "link_learn",
    program_pin: "program_learn",
    at: TcAttachType::Egress,
    handle: LEARN_HANDLE,
    enforces: false,
};

impl Hook {
    /// Name of the program.
    pub(super) const fn name(self) -> &'static str {
        self.program
    }

    /// Loads the program into the kernel and returns its id.
    pub(super) fn load(self, object: &mut Ebpf) -> Result<u32, DatapathError> {
        let program = self.program(object)?;
        uninterrupted(|| program.load()).map_err(|source| self.error("load", source))?;
        Ok(program
            .info()
            .map_err(|source| self.error("inspect", source))?
            .id())
    }

    /// Puts this program on the hook, in place of an earlier one of ours where there is one.
    pub(super) fn attach(
        self,
        object: &mut Ebpf,
        pins: &Pins,
        ifindex: u32,
    ) -> Result<Attached, DatapathError> {
        let interface = sys::interface_name(ifindex).ok_or_else(|| DatapathError::System {
            call: "if_indextoname",
            target: format!("interface {ifindex}"),
            source: io::Error::from_raw_os_error(libc::ENXIO),
        })?;
        let attached = if has_tcx() {
            self.attach_tcx(object, pins, ifindex, &interface)
        } else {
            self.attach_clsact(object, &interface)
        }?;
        self.pin_program(object, pins)?;
        Ok(attached)
    }

    /// Whether the kernel runs the program of this id on the hook: one that enforces before any
    /// other.
    pub(super) fn is_attached(self, ifindex: u32, id: u32) -> Result<bool, DatapathError> {
        let running = self.running(ifindex)?;
        Ok(if self.enforces {
            running.first() == Some(&id)
        } else {
            running.contains(&id)
        })
    }

    /// Asks the kernel whether the program of this id is the first on the hook.
    pub(super) fn verify(self, ifindex: u32, id: u32) -> Result<(), DatapathError> {
        if self.is_attached(ifindex, id)? {
            Ok(())
        } else {
            Err(DatapathError::NotFirst {
                program: self.program,
                interface: sys::interface_name(ifindex)
                    .unwrap_or_else(|| format!("interface {ifindex}")),
            })
        }
    }

    /// Whether an earlier run's program is on the hook of this interface, before any other.
    pub(super) fn holds(self, pins: &Pins, ifindex: u32) -> Result<bool, DatapathError> {
        let earlier = if has_tcx() {
            self.pinned_link(pins)?.map(|link| link.program)
        } else {
            let pin = pins.path(self.program_pin);
            pin.exists()
                .then(|| ProgramInfo::from_pin(&pin))
                .transpose()
                .map_err(|source| self.error("inspect", source))?
                .map(|program| program.id())
        };
        earlier.map_or(Ok(false), |id| self.is_attached(ifindex, id))
    }

    /// Refuses where the pinned link holds the program on an interface that is alive and is not
    /// the one of this index: without the link, that one would be open.
    pub(super) fn refuse_elsewhere(
        self,
        pins: &Pins,
        interface: &str,
        ifindex: Option<u32>,
    ) -> Result<(), DatapathError> {
        match self.pinned_link(pins)? {
            Some(link) if link.ifindex != 0 => self.refuse_if_elsewhere(link, interface, ifindex),
            _ => Ok(()),
        }
    }

    fn refuse_if_elsewhere(
        self,
        link: LinkInfo,
        interface: &str,
        ifindex: Option<u32>,
    ) -> Result<(), DatapathError> {
        // Interfaces of two network namespaces may have the same index: the program tells.
        if let Some(ifindex) = ifindex.filter(|ifindex| *ifindex == link.ifindex)
            && self.running(ifindex)?.contains(&link.program)
        {
            return Ok(());
        }
        let name = sys::interface_name(link.ifindex).filter(|name| name != interface);
        let holder = name.map_or_else(
            || format!("interface {} of another network namespace", link.ifindex),
            |name| format!("{name} (interface {})", link.ifindex),
        );
        Err(DatapathError::AttachedElsewhere {
            program: self.program,
            holder,
            interface: interface.to_owned(),
        })
    }

    /// Ids of the programs on the hook, in the order in which they run.
    fn running(self, ifindex: u32) -> Result<Vec<u32>, DatapathError> {
        let Some(interface) = sys::interface_name(ifindex) else {
            return Ok(Vec::new());
        };
        if !has_tcx() {
            return filters::programs(ifindex, self.at).map_err(|source| DatapathError::System {
                call: "RTM_GETTFILTER",
                target: interface,
                source,
            });
        }
        let (_, programs) = SchedClassifier::query_tcx(&interface, self.at)
            .map_err(|source| self.error("query", source))?;
        Ok(programs.iter().map(ProgramInfo::id).collect())
    }

    /// Takes the classic filter off; tcx links go with their pins.
    pub(super) fn detach_clsact(self, interface: &str) -> Result<(), DatapathError> {
        let result = SchedClassifierLink::attached(interface, self.at, PRIORITY, self.handle, None)
            .map_err(TcError::IoError)
            .map_err(ProgramError::TcError)
            .and_then(detach);
        match result {
            // No interface, no qdisc or no filter: there is nothing to take off.
            Err(error)
                if matches!(
                    errno(&error),
                    Some(libc::ENODEV | libc::ENOENT | libc::EINVAL)
                ) =>
            {
                Ok(())
            }
            result => result.map_err(|source| self.error("detach", source)),
        }
    }

    fn attach_tcx(
        self,
        object: &mut Ebpf,
        pins: &Pins,
        ifindex: u32,
        interface: &str,
    ) -> Result<Attached, DatapathError> {
        let pin = pins.path(self.link);
        if let Some(link) = self.adoptable(pins, ifindex, interface)? {
            let program = self.program(object)?;
            match program
                .attach_to_link(link)
                .and_then(|id| program.take_link(id))
            {
                // Dropped, the link stays: its pin holds it.
                Ok(_) => return Ok(Attached::Replaced),
                // The interface is gone and with it what the link was attached to.
                Err(error) if errno(&error) == Some(libc::ENOLINK) => self.unpin(pins)?,
                Err(source) => return Err(self.error("replace", source)),
            }
        }
        let program = self.program(object)?;
        // First of all tcx programs, so that none before it lets a packet past the gate.
        let link: FdLink = program
            .attach_with_options(
                interface,
                self.at,
                TcAttachOptions::TcxOrder(LinkOrder::first()),
            )
            .and_then(|id| program.take_link(id))
            .map_err(|source| self.error("attach", source))?
            .try_into()
            .map_err(|source: LinkError| self.error("attach", io::Error::other(source).into()))?;
        link.pin(&pin)
            .map_err(|source| DatapathError::PinDirectory {
                path: pin,
                source: io::Error::other(source),
            })?;
        Ok(Attached::Afresh)
    }

    /// The pinned link, where it is this interface's. That of an interface that is gone is removed;
    /// one that enforces on an interface that is alive must stay, and is an error.
    fn adoptable(
        self,
        pins: &Pins,
        ifindex: u32,
        interface: &str,
    ) -> Result<Option<SchedClassifierLink>, DatapathError> {
        let Some(link) = self.pinned_link(pins)? else {
            return Ok(None);
        };
        if link.ifindex == 0 {
            self.unpin(pins)?;
            return Ok(None);
        }
        match self.refuse_if_elsewhere(link, interface, Some(ifindex)) {
            Err(DatapathError::AttachedElsewhere { .. }) if !self.enforces => {
                self.unpin(pins)?;
                return Ok(None);
            }
            result => result?,
        }
        PinnedLink::from_pin(pins.path(self.link))
            .and_then(|link| FdLink::from(link).try_into())
            .map(Some)
            .map_err(|source: LinkError| self.error("adopt", io::Error::other(source).into()))
    }

    /// What the pinned link holds together, if there is one.
    fn pinned_link(self, pins: &Pins) -> Result<Option<LinkInfo>, DatapathError> {
        let pin = pins.path(self.link);
        let system = |source| DatapathError::System {
            call: "BPF_OBJ_GET",
            target: pin.display().to_string(),
            source,
        };
        let fd = match sys::open_pin(&pin) {
            Ok(fd) => fd,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(system(error)),
        };
        sys::link_info(fd.as_fd()).map(Some).map_err(system)
    }

    fn attach_clsact(self, object: &mut Ebpf, interface: &str) -> Result<Attached, DatapathError> {
        match qdisc_add_clsact(interface) {
            Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                self.require_clsact(interface)?;
            }
            result => {
                result.map_err(|source| self.error("add the clsact qdisc for", source.into()))?
            }
        }
        let program = self.program(object)?;
        let options = NlOptions {
            priority: PRIORITY,
            handle: self.handle,
            classid: None,
        };
        let created =
            program.attach_with_options(interface, self.at, TcAttachOptions::Netlink(options));
        let (id, attached) = match created {
            Ok(id) => (id, Attached::Afresh),
            Err(error) if errno(&error) == Some(libc::EEXIST) => {
                let link =
                    SchedClassifierLink::attached(interface, self.at, PRIORITY, self.handle, None)
                        .map_err(|error| self.error("replace", TcError::IoError(error).into()))?;
                let id = program
                    .attach_to_link(link)
                    .map_err(|source| self.error("replace", source))?;
                (id, Attached::Replaced)
            }
            Err(source) => return Err(self.error("attach", source)),
        };
        let link = program
            .take_link(id)
            .map_err(|source| self.error("attach", source))?;
        // Dropping it would take the filter off; only teardown does that.
        std::mem::forget(link);
        Ok(attached)
    }

    /// A plain `ingress` qdisc answers as if it were clsact, and has no egress hook.
    fn require_clsact(self, interface: &str) -> Result<(), DatapathError> {
        let system = |source| DatapathError::System {
            call: "RTM_GETQDISC",
            target: interface.to_owned(),
            source,
        };
        let ifindex = sys::interface_index(interface)
            .ok_or_else(|| system(io::Error::from_raw_os_error(libc::ENODEV)))?;
        match filters::ingress_qdisc(ifindex).map_err(system)? {
            Some(kind) if kind == "clsact" => Ok(()),
            kind => Err(DatapathError::Qdisc {
                interface: interface.to_owned(),
                kind: kind.unwrap_or_else(|| "unknown".into()),
            }),
        }
    }

    fn pin_program(self, object: &mut Ebpf, pins: &Pins) -> Result<(), DatapathError> {
        let pin = pins.path(self.program_pin);
        remove_file(&pin)?;
        self.program(object)?
            .pin(&pin)
            .map_err(|source| DatapathError::PinDirectory {
                path: pin,
                source: io::Error::other(source),
            })
    }

    fn unpin(self, pins: &Pins) -> Result<(), DatapathError> {
        remove_file(&pins.path(self.link))
    }

    pub(super) fn program(self, object: &mut Ebpf) -> Result<&mut SchedClassifier, DatapathError> {
        object
            .program_mut(self.program)
            .and_then(|program| program.try_into().ok())
            .ok_or(DatapathError::Object(self.program))
    }

    pub(super) fn error(self, action: &'static str, source: ProgramError) -> DatapathError {
        DatapathError::Program {
            action,
            program: self.program,
            source,
        }
    }
}

fn detach(link: SchedClassifierLink) -> Result<(), ProgramError> {
    use aya::programs::links::Link as _;
    link.detach()
}

/// tcx came with Linux 6.6 (commit e420bed02507).
fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0))
}

pub(super) fn remove_file(path: &std::path::Path) -> Result<(), DatapathError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(DatapathError::PinDirectory {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

/// The kernel's answer in an error of aya's.
pub(super) fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::LoadError { io_error, .. } => io_error.raw_os_error(),
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::TcError(TcError::NetlinkError(error)) | ProgramError::NetlinkError(error) => {
            error.raw_os_error()
        }
        ProgramError::TcError(TcError::IoError(error)) | ProgramError::IOError(error) => {
            error.raw_os_error()
        }
        _ => None,
    }
}
