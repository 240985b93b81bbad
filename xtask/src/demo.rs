//! Shows the whole story, on this machine's kernel where it has WireGuard and in a VM where it has not.

use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::Result;

use crate::kernels::Series;
use crate::process::{as_root, output, say};
use crate::vm::Machine;
use crate::{build, setup};

/// The kernel used where this machine's own will not do.
const KERNEL: Series = Series::V6_12;
const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run it in a VM with this kernel, whatever this machine's own can do.
    #[arg(long)]
    kernel: Option<Series>,
}

/// `cargo xtask demo`.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    build::bpf()?;
    setup::for_tests()?;
    let binaries = build::binaries()?;
    if args.kernel.is_none() && this_kernel_has_wireguard() {
        let status = as_root(&binaries.demo)
            .env("PORTCULLIS_BIN", &binaries.portcullis)
            .status()?;
        return Ok(if status.success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        });
    }
    let series = args.kernel.unwrap_or(KERNEL);
    say(format!(
        "this runs in a VM with Debian's {series} kernel, under emulation"
    ));
    let machine = Machine::new(series)?
        .with_program("PORTCULLIS_BIN", &binaries.portcullis)?
        .with_program("DEMO_BIN", &binaries.demo)?
        .with_time_limit(TIME_LIMIT);
    let command = ["sh", "-c", "exec \"$DEMO_BIN\""].map(str::to_owned);
    let code = machine.run(&command, &mut |line| println!("{line}"))?;
    Ok(ExitCode::from(code))
}

/// Tries it, in a network namespace that goes away with the attempt.
fn this_kernel_has_wireguard() -> bool {
    let attempt = "modprobe wireguard 2>/dev/null; ip link add wgprobe type wireguard";
    let works = output(as_root("unshare").args(["--net", "sh", "-c", attempt])).is_ok();
    if !works {
        say("this machine's kernel has no WireGuard");
    }
    // The story also needs nsenter and a BPF file system to pin in.
    works && output(Command::new("mountpoint").args(["-q", "/sys/fs/bpf"])).is_ok()
}
