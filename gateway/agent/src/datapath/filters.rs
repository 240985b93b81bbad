//! Asks the kernel which programs the classic TC filters of an interface run (clsact, before 6.6),
//! and what holds its ingress hook.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    ptr,
};

use aya::programs::TcAttachType;

const RTM_GETQDISC: u16 = 38;
const RTM_GETTFILTER: u16 = 46;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
const TC_H_CLSACT: u32 = 0xffff_0000;
/// Parent of both `ingress` and `clsact`.
const TC_H_INGRESS: u32 = 0xffff_fff1;
const TC_H_MIN_INGRESS: u32 = 0xfff2;
const TC_H_MIN_EGRESS: u32 = 0xfff3;
const HEADER: usize = size_of::<libc::nlmsghdr>();
const TCMSG: usize = 20;
/// Offsets in `struct tcmsg`, after family and padding.
const IFINDEX: usize = 4;
const HANDLE: usize = 8;
const PARENT: usize = 12;

/// Ids of the programs on one hook, in the order in which they run; 0 for a filter that is no
/// program.
pub(super) fn programs(ifindex: u32, hook: TcAttachType) -> io::Result<Vec<u32>> {
    let parent = match hook {
        TcAttachType::Ingress => TC_H_CLSACT | TC_H_MIN_INGRESS,
        TcAttachType::Egress => TC_H_CLSACT | TC_H_MIN_EGRESS,
        TcAttachType::Custom(parent) => parent,
    };
    let mut programs = Vec::new();
    dump(RTM_GETTFILTER, ifindex, parent, |tcmsg, attributes| {
        // Each priority announces itself with handle 0 before its filters come.
        if field(tcmsg, HANDLE) != Some(0) {
            programs.push(program(attributes).unwrap_or(0));
        }
    })?;
    Ok(programs)
}

/// Kind of the queueing discipline that holds the ingress hook: `clsact`, `ingress`, or none.
pub(super) fn ingress_qdisc(ifindex: u32) -> io::Result<Option<String>> {
    let mut kind = None;
    dump(RTM_GETQDISC, ifindex, 0, |tcmsg, attributes| {
        // Older kernels answer with every interface's.
        if field(tcmsg, IFINDEX) == Some(ifindex) && field(tcmsg, PARENT) == Some(TC_H_INGRESS) {
            kind = attribute(attributes, TCA_KIND)
                .and_then(|text| CStr::from_bytes_until_nul(text).ok())
                .map(|text| text.to_string_lossy().into_owned());
        }
    })?;
    Ok(kind)
}

/// Asks for everything of one kind; hands over each answer's `struct tcmsg` and attributes.
fn dump(
    kind: u16,
    ifindex: u32,
    parent: u32,
    mut answer: impl FnMut(&[u8], &[u8]),
) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is ours.
    let socket = unsafe {
        let fd = libc::socket(
            libc::AF_NETLINK,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC,
            libc::NETLINK_ROUTE,
        );
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    send(&socket, &request(kind, ifindex, parent))?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let received = receive(&socket, &mut buffer)?;
        let mut rest = &buffer[..received];
        while let Some((kind, payload, next)) = message(rest) {
            match i32::from(kind) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let code = payload
                        .first_chunk()
                        .map_or(0, |bytes| i32::from_ne_bytes(*bytes));
                    return if code == 0 {
                        Ok(())
                    } else {
                        Err(io::Error::from_raw_os_error(-code))
                    };
                }
                _ => {
                    if let Some((tcmsg, attributes)) = payload.split_at_checked(TCMSG) {
                        answer(tcmsg, attributes);
                    }
                }
            }
            rest = next;
        }
    }
}

/// A 4-byte field of a `struct tcmsg`.
fn field(tcmsg: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*tcmsg.get(at..)?.first_chunk()?))
}

fn request(kind: u16, ifindex: u32, parent: u32) -> Vec<u8> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut bytes = Vec::with_capacity(HEADER + TCMSG);
    bytes.extend(((HEADER + TCMSG) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and port; then struct tcmsg: family and padding, interface, handle, parent, info.
    bytes.extend([0; 8]);
    bytes.extend([0; 4]);
    bytes.extend(ifindex.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(parent.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the buffer outlives the call. An unconnected netlink socket talks to the kernel.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer outlives the call and is as long as it is told.
    let received = unsafe {
        libc::recvfrom(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            0,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// First message of a datagram: its type, its payload, and what follows.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let payload = bytes.get(HEADER..length)?;
    Some((
        kind,
        payload,
        bytes.get(length.next_multiple_of(4)..).unwrap_or_default(),
    ))
}

fn program(attributes: &[u8]) -> Option<u32> {
    let options = attribute(attributes, TCA_OPTIONS)?;
    Some(u32::from_ne_bytes(
        *attribute(options, TCA_BPF_ID)?.first_chunk()?,
    ))
}

fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    /// Type without the nested and byte-order flags.
    const TYPE: u16 = 0x3fff;
    loop {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let payload = bytes.get(4..length)?;
        if kind & TYPE == wanted {
            return Some(payload);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    struct Tun(String);

    impl Tun {
        fn new(name: &str) -> Self {
            let tun = Self(name.to_owned());
            tun.run("ip", &["tuntap", "add", name, "mode", "tun"]);
            tun
        }

        fn run(&self, program: &str, arguments: &[&str]) {
            let status = Command::new(program).args(arguments).status();
            assert!(
                status.expect("installed").success(),
                "{program} {arguments:?} on {} failed: this test needs root",
                self.0
            );
        }

        fn index(&self) -> u32 {
            super::super::sys::interface_index(&self.0).expect("there")
        }
    }

    impl Drop for Tun {
        fn drop(&mut self) {
            let _ = Command::new("ip").args(["link", "del", &self.0]).status();
        }
    }

    #[test]
    fn inv1_a_plain_ingress_qdisc_is_told_from_clsact() {
        let tun = Tun::new("pcfilters0");
        assert_eq!(ingress_qdisc(tun.index()).expect("asked"), None);
        tun.run("tc", &["qdisc", "add", "dev", &tun.0, "ingress"]);
        let kind = ingress_qdisc(tun.index()).expect("asked");
        assert_eq!(kind.as_deref(), Some("ingress"));
        tun.run("tc", &["qdisc", "del", "dev", &tun.0, "ingress"]);
        tun.run("tc", &["qdisc", "add", "dev", &tun.0, "clsact"]);
        let kind = ingress_qdisc(tun.index()).expect("asked");
        assert_eq!(kind.as_deref(), Some("clsact"));
        let none = programs(tun.index(), TcAttachType::Ingress).expect("asked");
        assert!(none.is_empty(), "{none:?}");
    }

    #[test]
    fn inv1_a_filter_that_is_no_program_is_not_overlooked() {
        let tun = Tun::new("pcfilters1");
        tun.run("tc", &["qdisc", "add", "dev", &tun.0, "clsact"]);
        let filter = "filter add dev pcfilters1 ingress prio 1 protocol all u32 match u32 0 0";
        tun.run("tc", &filter.split(' ').collect::<Vec<_>>());
        let programs = programs(tun.index(), TcAttachType::Ingress).expect("asked");
        assert_eq!(programs.first(), Some(&0), "{programs:?}");
    }
}
