//! What the kernel has to bring.

use std::fs;
use std::path::Path;

use super::Check;

/// The oldest kernel that the programs are tested on.
const FLOOR: (u32, u32) = (6, 1);
/// From here on programs are attached through tcx links, which are replaced without a gap.
const TCX: (u32, u32) = (6, 6);

pub(super) fn version() -> Check {
    let name = "kernel";
    let release = read("/proc/sys/kernel/osrelease");
    match parse(&release) {
        Some(version) if version >= TCX => Check::good(name, format!("{release} (tcx)")),
        Some(version) if version >= FLOOR => Check::good(name, format!("{release} (clsact)")),
        _ => Check::bad(
            name,
            release,
            "Linux 6.1 or later is needed: upgrade the kernel",
        ),
    }
}

pub(super) fn btf() -> Check {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        Check::good("btf", path)
    } else {
        Check::bad(
            "btf",
            "none",
            "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distributions' are",
        )
    }
}

pub(super) fn jit() -> Check {
    match read("/proc/sys/net/core/bpf_jit_enable").as_str() {
        // Only root may read it; a kernel without the interpreter has no such file.
        "" => Check::good("bpf-jit", "not readable, or always on"),
        "0" => Check::hint(
            "bpf-jit",
            "off",
            "packets are slower: sysctl net.core.bpf_jit_enable=1",
        ),
        _ => Check::good("bpf-jit", "on"),
    }
}

pub(super) fn wireguard() -> Check {
    let name = "wireguard";
    if Path::new("/sys/module/wireguard").exists() {
        return Check::good(name, "loaded");
    }
    let release = read("/proc/sys/kernel/osrelease");
    let lists = |file: &str| {
        ["/lib/modules", "/usr/lib/modules"].iter().any(|root| {
            fs::read_to_string(format!("{root}/{release}/{file}"))
                .is_ok_and(|text| text.contains("/wireguard.ko"))
        })
    };
    if lists("modules.builtin") {
        Check::good(name, "built in")
    } else if lists("modules.dep") {
        Check::good(name, "available as a module, loaded when needed")
    } else {
        Check::bad(
            name,
            format!("no module for {release}"),
            "install the distribution's kernel modules for the running kernel, or reboot into the \
             installed one, then `modprobe wireguard`",
        )
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn parse(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(parse("6.1.0-41-amd64"), Some((6, 1)));
        assert_eq!(parse("7.2+deb14-amd64"), Some((7, 2)));
        assert_eq!(parse("6.12.57+deb13-amd64"), Some((6, 12)));
        assert_eq!(parse(""), None);
    }
}
