//! Where maps and links are pinned.

use std::fs;
use std::path::Path;

use super::Check;

pub(super) fn bpf_file_system(pin_root: &Path) -> Check {
    let name = "bpffs";
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let advice = "mount -t bpf bpf /sys/fs/bpf";
    let Some((mount, kind)) = holding(&mounts, pin_root) else {
        return Check::bad(
            name,
            format!("{} is on no known file system", pin_root.display()),
            advice,
        );
    };
    if kind != "bpf" {
        let found = format!("{} is on {mount}, a {kind} file system", pin_root.display());
        return Check::bad(name, found, advice);
    }
    match probe(pin_root) {
        Ok(()) => Check::good(name, format!("{} is writable", pin_root.display())),
        Err(error) => Check::bad(
            name,
            format!("{} is not writable: {error}", pin_root.display()),
            "run as root, or give the agent's user the directory",
        ),
    }
}

/// Only directories and pins can be made on a bpf file system: a directory shows it.
fn probe(pin_root: &Path) -> std::io::Result<()> {
    let existing = pin_root
        .ancestors()
        .find(|path| path.is_dir())
        .unwrap_or(pin_root);
    let probe = existing.join(format!("portcullis-doctor-{}", std::process::id()));
    fs::create_dir(&probe)?;
    fs::remove_dir(&probe)
}

/// Mount point and type of the file system that holds the path.
fn holding<'a>(mounts: &'a str, path: &Path) -> Option<(&'a str, &'a str)> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mount, _)| path.starts_with(mount))
        // Of mounts on the same point, the last one is on top.
        .max_by_key(|(mount, _)| Path::new(mount).components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_holds_a_path() {
        let mounts = "root / ext4 rw 0 0\nsysfs /sys sysfs rw 0 0\nbpf /sys/fs/bpf bpf rw 0 0\n";
        let of = |path: &str| holding(mounts, Path::new(path)).map(|(_, kind)| kind);
        assert_eq!(of("/sys/fs/bpf/portcullis"), Some("bpf"));
        assert_eq!(of("/sys/fs/bpfx"), Some("sysfs"));
        assert_eq!(of("/var"), Some("ext4"));
    }
}
