//! Makes sure of the tools that the other commands need. Idempotent: looks first, installs what is missing.

mod apt;
mod bpf;
mod provider;
mod virtme;

use anyhow::Result;

pub(crate) use bpf::Toolchain;

/// What compiling the workspace needs: protoc, the eBPF toolchain and linker.
pub(crate) fn for_build() -> Result<Toolchain> {
    apt::ensure(apt::BUILD)?;
    bpf::ensure()
}

/// What tests need, beside [`for_build`].
pub(crate) fn for_tests() -> Result<()> {
    apt::ensure(apt::TEST)?;
    provider::ensure()
}

/// What booting a test kernel needs: QEMU, virtme-ng and the tools used inside. Returns the path of `vng`.
pub(crate) fn for_vm() -> Result<std::path::PathBuf> {
    apt::ensure(apt::VM)?;
    for_tests()?;
    virtme::ensure()
}

/// Everything, the kernels included.
pub(crate) fn everything() -> Result<()> {
    let toolchain = for_build()?;
    for_vm()?;
    for series in crate::kernels::Series::ALL {
        let kernel = crate::kernels::ensure(series)?;
        crate::process::say(format!("kernel {series}: {}", kernel.version));
    }
    crate::process::say(format!("eBPF toolchain: {toolchain}"));
    crate::process::say("everything is in place");
    Ok(())
}
