//! System calls that have no safe wrapper in aya or the standard library, each behind one that is.

use std::{
    ffi::{CStr, CString, c_int, c_void},
    io,
    mem::size_of_val,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use aya::Pod;

const BPF_MAP_CREATE: c_int = 0;
const BPF_MAP_LOOKUP_ELEM: c_int = 1;
const BPF_MAP_UPDATE_ELEM: c_int = 2;
const BPF_MAP_DELETE_ELEM: c_int = 3;
const BPF_MAP_GET_NEXT_KEY: c_int = 4;
const BPF_OBJ_PIN: c_int = 6;
const BPF_OBJ_GET: c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: c_int = 15;
const BPF_MAP_LOOKUP_BATCH: c_int = 24;
const BPF_MAP_UPDATE_BATCH: c_int = 26;
const BPF_LINK_DETACH: c_int = 34;

/// What a map is like.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// `BPF_MAP_TYPE_…`.
    pub(super) kind: u32,
    /// Bytes of a key.
    pub(super) key: u32,
    /// Bytes of a value.
    pub(super) value: u32,
    /// Most elements.
    pub(super) entries: u32,
    /// `BPF_F_…`.
    pub(super) flags: u32,
}

/// `union bpf_attr` for a new map.
#[repr(C)]
#[derive(Default)]
struct NewMap {
    kind: u32,
    key: u32,
    value: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; 16],
}

/// `union bpf_attr` for one element of a map.
#[repr(C)]
#[derive(Default)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// `union bpf_attr` for many.
#[repr(C)]
#[derive(Default)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

#[repr(C)]
#[derive(Default)]
struct ObjectPath {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct ObjectInfo {
    fd: u32,
    length: u32,
    info: u64,
}

/// `struct bpf_link_info`, as far as XDP (Linux 5.9) and tcx links (6.6) fill it alike.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(super) struct LinkInfo {
    kind: u32,
    id: u32,
    /// Id of the program.
    pub(super) program: u32,
    pad: u32,
    /// Interface that it is attached to, in that interface's own network namespace; 0 once the
    /// interface is gone.
    pub(super) ifindex: u32,
    attach_type: u32,
    rest: [u64; 8],
}

fn bpf<T>(command: c_int, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: every caller passes the attribute structure of its command, whose pointers outlive
    // the call and whose sizes are those of the map.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            ptr::from_mut(attributes),
            size_of_val(attributes),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // An open descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

/// The descriptor's number, as a map of maps wants it for a value.
pub(super) fn number(fd: BorrowedFd<'_>) -> u32 {
    raw(fd)
}

fn address<T: ?Sized>(value: &T) -> u64 {
    ptr::from_ref(value).cast::<c_void>() as u64
}

fn address_mut<T: ?Sized>(value: &mut T) -> u64 {
    ptr::from_mut(value).cast::<c_void>() as u64
}

/// Reads one element; `None` where the map has no such key.
pub(super) fn lookup<K: Pod, V: Pod + Default>(
    map: BorrowedFd<'_>,
    key: &K,
) -> io::Result<Option<V>> {
    let mut value = V::default();
    let mut attributes = Element {
        map: raw(map),
        key: address(key),
        value: address_mut(&mut value),
        ..Element::default()
    };
    match bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes) {
        Ok(_) => Ok(Some(value)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes one element.
pub(super) fn update<K: Pod, V: Pod>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let mut attributes = Element {
        map: raw(map),
        key: address(key),
        value: address(value),
        ..Element::default()
    };
    bpf(BPF_MAP_UPDATE_ELEM, &mut attributes).map(drop)
}

/// Deletes one element; returns whether it was there.
pub(super) fn delete<K: Pod>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let mut attributes = Element {
        map: raw(map),
        key: address(key),
        ..Element::default()
    };
    match bpf(BPF_MAP_DELETE_ELEM, &mut attributes) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the map has any element.
pub(super) fn any<K: Pod + Default>(map: BorrowedFd<'_>) -> io::Result<bool> {
    let mut first = K::default();
    // Without a key to start from, the next is the first.
    let mut attributes = Element {
        map: raw(map),
        value: address_mut(&mut first),
        ..Element::default()
    };
    match bpf(BPF_MAP_GET_NEXT_KEY, &mut attributes) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Writes many elements (Linux 5.6; 5.13 for LPM tries).
pub(super) fn update_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    let mut done = 0;
    while done < keys.len().min(values.len()) {
        let (keys, values) = (&keys[done..], &values[done..]);
        let count = u32::try_from(keys.len().min(values.len())).unwrap_or(u32::MAX);
        let mut attributes = Batch {
            keys: address(keys),
            values: address(values),
            count,
            map: raw(map),
            ..Batch::default()
        };
        bpf(BPF_MAP_UPDATE_BATCH, &mut attributes)?;
        if attributes.count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += attributes.count as usize;
    }
    Ok(())
}

/// Reads all elements (Linux 5.6; 5.13 for LPM tries), in chunks of at least `chunk`.
pub(super) fn dump<K: Pod + Default, V: Pod + Default>(
    map: BorrowedFd<'_>,
    chunk: usize,
) -> io::Result<Vec<(K, V)>> {
    let mut all = Vec::new();
    let blank = (K::default(), V::default());
    each_batch(map, chunk, blank, |keys, values| {
        all.extend(keys.iter().copied().zip(values.iter().copied()));
    })?;
    Ok(all)
}

/// Counts the elements of a map with keys and values of these sizes, by reading them all.
pub(super) fn count<const KEY: usize, const VALUE: usize>(map: BorrowedFd<'_>) -> io::Result<u64> {
    let mut all = 0;
    let blank = ([0_u8; KEY], [0_u8; VALUE]);
    each_batch(map, 4096, blank, |keys, _| all += keys.len() as u64)?;
    Ok(all)
}

/// Reads all elements, some at a time, into copies of `blank`.
fn each_batch<K: Pod, V: Pod>(
    map: BorrowedFd<'_>,
    chunk: usize,
    blank: (K, V),
    mut each: impl FnMut(&[K], &[V]),
) -> io::Result<()> {
    let mut chunk = chunk.max(256);
    // The kernel's cursor is a key at most, or a bucket number.
    let mut cursor = [0_u64; 8];
    let mut started = false;
    loop {
        let mut keys = vec![blank.0; chunk];
        let mut values = vec![blank.1; chunk];
        let mut next = [0_u64; 8];
        let mut attributes = Batch {
            in_batch: if started { address(&cursor) } else { 0 },
            out_batch: address_mut(&mut next),
            keys: address_mut(keys.as_mut_slice()),
            values: address_mut(values.as_mut_slice()),
            count: u32::try_from(chunk).unwrap_or(u32::MAX),
            map: raw(map),
            ..Batch::default()
        };
        let end = match bpf(BPF_MAP_LOOKUP_BATCH, &mut attributes) {
            Ok(_) => false,
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT) => true,
                // A bucket holds more than fits into the rest: ask again with more room.
                Some(libc::ENOSPC) => {
                    chunk *= 2;
                    continue;
                }
                Some(libc::EINTR) => continue,
                _ => return Err(error),
            },
        };
        let count = (attributes.count as usize).min(chunk);
        each(&keys[..count], &values[..count]);
        if end {
            return Ok(());
        }
        cursor = next;
        started = true;
    }
}

/// Makes a map; one of maps where `inner` says like which.
pub(super) fn create_map(
    name: &str,
    shape: Shape,
    inner: Option<BorrowedFd<'_>>,
) -> io::Result<OwnedFd> {
    let Shape {
        kind,
        key,
        value,
        entries,
        flags,
    } = shape;
    let inner = inner.map_or(0, raw);
    let mut attributes = NewMap {
        kind,
        key,
        value,
        entries,
        flags,
        inner,
        ..NewMap::default()
    };
    // The last byte ends it.
    for (place, byte) in attributes.name.iter_mut().take(15).zip(name.bytes()) {
        *place = byte;
    }
    let fd = bpf(BPF_MAP_CREATE, &mut attributes)?;
    let fd = c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins an object.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectPath {
        path: path.as_ptr() as u64,
        fd: raw(fd),
        ..ObjectPath::default()
    };
    bpf(BPF_OBJ_PIN, &mut attributes).map(drop)
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = ObjectPath {
        path: path.as_ptr() as u64,
        ..ObjectPath::default()
    };
    let fd = bpf(BPF_OBJ_GET, &mut attributes)?;
    let fd = c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes a link's program off now (Linux 5.9). Left to the last descriptor's end, it happens some time later.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = [raw(link), 0];
    bpf(BPF_LINK_DETACH, &mut attributes).map(drop)
}

/// What an XDP or tcx link attaches where.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let mut attributes = ObjectInfo {
        fd: raw(link),
        length: u32::try_from(size_of::<LinkInfo>()).unwrap_or(0),
        info: address_mut(&mut info),
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok(info)
}

/// Number of this thread's network namespace; no two that exist have the same.
pub(super) fn network_namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata("/proc/thread-self/ns/net").map(|namespace| namespace.ino())
}

/// Index of the interface of this name, here and now.
pub(super) fn interface_index(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: a terminated string that outlives the call.
    let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
    (index != 0).then_some(index)
}

/// Waits until every program that was running when this was called has ended (an RCU grace period).
pub(super) fn grace_period() {
    const MEMBARRIER_CMD_GLOBAL: c_int = 1;
    // SAFETY: no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 {
        // Not there, or refused on a kernel with nohz_full: a program runs for microseconds, so this
        // is long enough by far.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Name of an interface; `None` when there is none of this index.
pub(super) fn interface_name(ifindex: u32) -> Option<String> {
    let mut name = [0; libc::IF_NAMESIZE];
    // SAFETY: the buffer is as large as the call asks for, and the result is terminated.
    unsafe {
        if libc::if_indextoname(ifindex, name.as_mut_ptr()).is_null() {
            return None;
        }
        CStr::from_ptr(name.as_ptr())
            .to_str()
            .ok()
            .map(str::to_owned)
    }
}

/// Whether this path is on a BPF file system.
pub(super) fn is_bpf_fs(path: &Path) -> io::Result<bool> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a terminated path, and a structure that the call fills.
    unsafe {
        let mut info: libc::statfs = std::mem::zeroed();
        if libc::statfs(path.as_ptr(), &raw mut info) != 0 {
            return Err(io::Error::last_os_error());
        }
        #[allow(
            clippy::unnecessary_cast,
            reason = "the type differs between architectures"
        )]
        Ok(info.f_type as i64 == BPF_FS_MAGIC)
    }
}

/// Mounts a BPF file system.
pub(super) fn mount_bpf_fs(path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    // SAFETY: terminated strings that outlive the call.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            path.as_ptr(),
            c"bpf".as_ptr(),
            flags,
            c"mode=0700".as_ptr().cast(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A BPF file system that is mounted nowhere: its root directory, which is all that holds it.
pub(super) fn detached_bpf_fs() -> io::Result<OwnedFd> {
    const FSCONFIG_SET_STRING: c_int = 1;
    const FSCONFIG_CMD_CREATE: c_int = 6;
    const CLOSE_ON_EXEC: c_int = 1;
    let owned = |result: libc::c_long| {
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = c_int::try_from(result).map_err(io::Error::other)?;
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    };
    let configure = |context: &OwnedFd, command: c_int, key: *const i8, value: *const i8| {
        // SAFETY: null or terminated strings that outlive the call.
        let result = unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                command,
                key,
                value,
                0,
            )
        };
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: a terminated string that outlives the call.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, c"bpf".as_ptr(), CLOSE_ON_EXEC) })?;
    let (key, value) = (c"mode".as_ptr().cast(), c"0700".as_ptr().cast());
    configure(&context, FSCONFIG_SET_STRING, key, value)?;
    configure(&context, FSCONFIG_CMD_CREATE, ptr::null(), ptr::null())?;
    let attributes = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
    // SAFETY: no pointers.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            CLOSE_ON_EXEC,
            attributes,
        )
    })
}
