//! Runs commands inside a chosen kernel, under emulation, over this machine's file system.

mod boot;
mod follow;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::kernels::{self, Kernel, Series};
use crate::process::say;
use crate::{build, paths, setup, test};

/// How long a command may take inside, unless told otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(30 * 60);

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask vm --kernel 6.1 -- uname -r\n  cargo xtask vm --kernel 7.2 --e2e inv4\n\n\
    The workspace is readable inside under its own path; $SHARE is a directory that both sides may write, \
    and $PORTCULLIS_BIN the binary. The command's exit code is passed on."
)]
pub(crate) struct Args {
    /// The kernel to boot.
    #[arg(long)]
    kernel: Series,
    /// Run the end-to-end tests; what follows is a filter for their names.
    #[arg(long)]
    e2e: bool,
    /// Give up after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<u64>,
    /// The command and its arguments, or with --e2e a filter.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// `cargo xtask vm`.
pub(crate) fn command(args: &Args) -> Result<ExitCode> {
    if args.e2e {
        return test::end_to_end_in(args.kernel, args.command.first().map(String::as_str));
    }
    if args.command.is_empty() {
        bail!("give a command to run, or --e2e");
    }
    build::bpf()?;
    let binaries = build::binaries()?;
    let machine = Machine::new(args.kernel)?
        .with_program("PORTCULLIS_BIN", &binaries.portcullis)?
        .with_time_limit(args.time_limit.map_or(TIME_LIMIT, Duration::from_secs));
    let code = machine.run(&args.command, &mut |line| println!("{line}"))?;
    Ok(ExitCode::from(code))
}

/// A virtual machine to be started for one command.
pub(crate) struct Machine {
    kernel: Kernel,
    vng: PathBuf,
    share: PathBuf,
    environment: Vec<(String, String)>,
    time_limit: Duration,
}

impl Machine {
    /// Prepares a machine that boots `series`, with an empty directory shared between both sides.
    pub(crate) fn new(series: Series) -> Result<Self> {
        let vng = setup::for_vm()?;
        let kernel = kernels::ensure(series)?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let share = paths::target().join(format!("vm/{series}-{}-{number}", std::process::id()));
        if share.exists() {
            fs::remove_dir_all(&share)?;
        }
        fs::create_dir_all(&share).with_context(|| format!("cannot make {}", share.display()))?;
        Ok(Self {
            kernel,
            vng,
            share,
            environment: Vec::new(),
            time_limit: TIME_LIMIT,
        })
    }

    /// The kernel's release.
    pub(crate) fn release(&self) -> &str {
        &self.kernel.version
    }

    /// Copies a program into the machine, without debug information (the guest reads files slowly), and names its
    /// place in an environment variable.
    pub(crate) fn with_program(mut self, variable: &str, program: &Path) -> Result<Self> {
        let name = program
            .file_name()
            .context("a program has a name")?
            .to_string_lossy()
            .into_owned();
        let copy = self.share.join(&name);
        let stripped = Command::new("objcopy")
            .arg("--strip-debug")
            .arg(program)
            .arg(&copy)
            .status();
        if !stripped.is_ok_and(|status| status.success()) {
            fs::copy(program, &copy)
                .with_context(|| format!("cannot copy {}", program.display()))?;
        }
        self.environment
            .push((variable.to_owned(), format!("{}/{name}", boot::PROGRAMS)));
        Ok(self)
    }

    pub(crate) fn with_time_limit(mut self, limit: Duration) -> Self {
        self.time_limit = limit;
        self
    }

    /// Boots, runs `command`, hands each line of its output to `on_line`, and returns its exit code.
    pub(crate) fn run(&self, command: &[String], on_line: &mut dyn FnMut(&str)) -> Result<u8> {
        // QEMU's emulation of self-modifying kernel code has lost a boot now and then: such a machine never
        // reaches the command, so starting it again hides nothing.
        const BOOTS: u32 = 3;
        boot::write_guest_script(&self.share, &self.environment, command)?;
        for attempt in 1..=BOOTS {
            say(format!("booting {}", self.kernel.version));
            match boot::once(self, on_line)? {
                boot::End::Finished(code) => {
                    // The console's log and the share are of use only when something went wrong.
                    if code == 0 {
                        fs::remove_dir_all(&self.share).ok();
                    }
                    return Ok(code);
                }
                boot::End::NeverStarted if attempt < BOOTS => {
                    say(format!(
                        "{} did not finish booting, trying again",
                        self.kernel.series
                    ));
                }
                boot::End::NeverStarted => break,
            }
        }
        let console = self.share.join(boot::CONSOLE);
        let log = fs::read_to_string(&console).unwrap_or_default();
        bail!(
            "{} does not boot: {} ({})",
            self.kernel.version,
            log.lines().last().unwrap_or("its console says nothing"),
            console.display()
        )
    }
}
