//! One boot of a virtual machine.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use super::Machine;
use super::follow::Follower;

/// Where programs are copied to inside, in memory.
pub(super) const PROGRAMS: &str = "/run/programs";
/// The console's log, in the shared directory.
pub(super) const CONSOLE: &str = "console.log";

const SCRIPT: &str = "guest.sh";
const OUTPUT: &str = "output.log";
const STARTED: &str = "started";
const EXIT_CODE: &str = "exit-code";

/// A boot that has not reached the command by then is given up.
const BOOT_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(100);

/// How a boot ended.
pub(super) enum End {
    /// The command ran and returned this.
    Finished(u8),
    /// The kernel did not get as far as the command.
    NeverStarted,
}

/// What emulation pays dearly for and no test is about: thunks around indirect jumps, and pages that are cleared twice.
const PARAMETERS: &str = "mitigations=off init_on_alloc=0";

/// Writes the script that the guest runs. Addresses are not random there: the emulator's translation of a program
/// is good for the next start of it only at the same addresses. Results travel through files: the guest has no other channel whose
/// loss could be told from silence.
pub(super) fn write_guest_script(
    share: &Path,
    environment: &[(String, String)],
    command: &[String],
) -> Result<()> {
    let dir = share.display();
    let mut script = format!(
        "#!/bin/sh\n\
         exec >'{dir}/{OUTPUT}' 2>&1 </dev/null\n\
         : >'{dir}/{STARTED}'\n\
         export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8\n\
         export SHARE='{dir}' TMPDIR=/run/work\n\
         mount -t bpf bpf /sys/fs/bpf\n\
         mkdir -p /run/work {PROGRAMS}\n\
         ip link set lo up\n\
         modprobe wireguard\n\
         echo 0 >/proc/sys/kernel/randomize_va_space\n"
    );
    for (name, value) in environment {
        let file = value.rsplit('/').next().unwrap_or(value);
        script.push_str(&format!(
            "cp '{dir}/{file}' '{value}' && chmod 755 '{value}' && export {name}='{value}'\n"
        ));
    }
    let words: Vec<String> = command.iter().map(|word| quote(word)).collect();
    script.push_str(&format!(
        "{}\necho $? >'{dir}/{EXIT_CODE}'\nsync\n",
        words.join(" ")
    ));
    fs::write(share.join(SCRIPT), script).context("cannot write the guest's script")
}

/// Boots once and follows the command's output until the machine is off.
pub(super) fn once(machine: &Machine, on_line: &mut dyn FnMut(&str)) -> Result<End> {
    let share = &machine.share;
    for name in [OUTPUT, STARTED, EXIT_CODE] {
        fs::remove_file(share.join(name)).ok();
    }
    let console = File::create(share.join(CONSOLE))?;
    let mut child = Group(
        // timeout(1) ends the machine even where nothing is left of this process to do so.
        Command::new("timeout")
            .args([
                "--kill-after=5",
                &(machine.time_limit + BOOT_LIMIT).as_secs().to_string(),
            ])
            .arg(&machine.vng)
            // vng starts its other programs by name, also from an environment of its own.
            .env("PATH", path_with(&machine.vng)?)
            .arg("--run")
            .arg(&machine.kernel.image)
            // The emulator is used even where KVM is: nested hosts offer one that cannot run stock kernels.
            .arg("--disable-kvm")
            // One processor: QEMU's multi-threaded emulation races with the kernel patching its own code.
            .args(["--cpus", "1", "--memory", "1G", "--verbose"])
            .args(["--append", PARAMETERS])
            .arg("--rwdir")
            .arg(share)
            .arg("--exec")
            .arg(format!(
                "sh {}",
                quote(&share.join(SCRIPT).to_string_lossy())
            ))
            .stdin(Stdio::null())
            .stdout(console.try_clone()?)
            .stderr(console)
            .process_group(0)
            .spawn()
            .context("cannot start virtme-ng")?,
    );

    let mut output = Follower::new(share.join(OUTPUT));
    let begun = Instant::now();
    let limit = machine.time_limit;
    loop {
        output.poll(on_line)?;
        if child.0.try_wait()?.is_some() {
            break;
        }
        let started = share.join(STARTED).exists();
        if !started && begun.elapsed() > BOOT_LIMIT {
            return Ok(End::NeverStarted);
        }
        if begun.elapsed() > limit {
            bail!(
                "not done after {} s in {}: see {}",
                limit.as_secs(),
                machine.release(),
                share.display()
            );
        }
        std::thread::sleep(POLL);
    }
    output.poll(on_line)?;
    output.finish(on_line);

    match fs::read_to_string(share.join(EXIT_CODE)) {
        Ok(code) => code
            .trim()
            .parse()
            .map(End::Finished)
            .context("the guest's exit code is not a number"),
        Err(_) if share.join(STARTED).exists() => {
            bail!(
                "{} died while the command ran: see {}",
                machine.release(),
                share.join(CONSOLE).display()
            )
        }
        Err(_) => Ok(End::NeverStarted),
    }
}

/// A child in a process group of its own, which ends with it: vng starts QEMU and helpers.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
            kill_process_group(group, Signal::KILL).ok();
        }
        self.0.wait().ok();
    }
}

/// PATH, with the directory of this program first.
fn path_with(program: &Path) -> Result<OsString> {
    let path = env::var_os("PATH").unwrap_or_default();
    let beside = program.parent().filter(|dir| dir.is_absolute());
    let all = beside.map(Path::to_path_buf).into_iter();
    env::join_paths(all.chain(env::split_paths(&path))).context("PATH cannot be extended")
}

fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_survive_the_shell() {
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("$HOME `x`"), "'$HOME `x`'");
    }
}
