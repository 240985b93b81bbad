//! The location's resolver, for as long as the tunnel is up: by systemd-resolved where it runs, or else by
//! resolvconf(8), as wg-quick(8) does it. All names go there: which ones a location knows is not told.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

/// Where programs are looked for, whatever the caller's PATH says: this runs with privileges.
const PATH: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What resolves names on this machine.
pub(super) struct Resolvers {
    programs: Vec<PathBuf>,
    /// Exists while systemd-resolved runs.
    resolved: PathBuf,
    /// Exists with Debian's resolvconf, which sorts by names.
    order: PathBuf,
}

/// Undone when dropped.
#[derive(Debug)]
pub(super) struct Resolving {
    how: &'static str,
    undo: (PathBuf, Vec<String>),
}

impl Resolvers {
    pub(super) fn of_this_machine() -> Self {
        Self {
            programs: PATH.map(PathBuf::from).into(),
            resolved: "/run/systemd/resolve".into(),
            order: "/etc/resolvconf/interface-order".into(),
        }
    }

    /// Lets the location's servers resolve. `None` where there is nobody to tell.
    pub(super) fn set(&self, interface: &str, servers: &[String]) -> Result<Option<Resolving>> {
        if servers.is_empty() {
            return Ok(None);
        }
        if let Some(program) = self.find("resolvectl").filter(|_| self.resolved.is_dir()) {
            let undo = (program.clone(), strings(&["revert", interface]));
            let set = Resolving {
                how: "resolved",
                undo,
            };
            let dns = [&["dns", interface][..], &texts(servers)].concat();
            run(&program, &dns, "")?;
            run(&program, &["domain", interface, "~."], "")?;
            run(&program, &["default-route", interface, "yes"], "")?;
            return Ok(Some(set));
        }
        let Some(program) = self.find("resolvconf") else {
            return Ok(None);
        };
        let name = self.record(interface);
        let undo = (program.clone(), strings(&["-d", &name, "-f"]));
        let set = Resolving {
            how: "resolvconf",
            undo,
        };
        let lines: String = servers
            .iter()
            .map(|server| format!("nameserver {server}\n"))
            .collect();
        run(&program, &["-a", &name, "-m", "0", "-x"], &lines)?;
        Ok(Some(set))
    }

    /// Undoes what a killed process has left. systemd-resolved forgets by itself, with the interface.
    pub(super) fn forget(&self, interface: &str) {
        if self.resolved.is_dir() {
            return;
        }
        if let Some(program) = self.find("resolvconf") {
            let name = self.record(interface);
            // Nothing is there, most of the time.
            let _ = run(&program, &["-d", &name, "-f"], "");
        }
    }

    fn record(&self, interface: &str) -> String {
        match self.order.exists() {
            true => format!("tun.{interface}"),
            false => interface.to_owned(),
        }
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let all = self.programs.iter().map(|dir| dir.join(name));
        all.into_iter().find(|program| program.is_file())
    }
}

impl Resolving {
    /// `resolved` or `resolvconf`.
    pub(super) fn how(&self) -> &'static str {
        self.how
    }
}

impl Drop for Resolving {
    fn drop(&mut self) {
        let (program, args) = &self.undo;
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if let Err(error) = run(program, &args, "") {
            tracing::warn!("the location's resolver may still be asked: {error:#}");
        }
    }
}

fn run(program: &Path, args: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new(program)
        .args(args)
        .env("PATH", PATH.join(":"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", program.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // It may not read any.
        let _ = stdin.write_all(input.as_bytes());
    }
    let ended = child.wait_with_output()?;
    if !ended.status.success() {
        bail!(
            "{} {} failed: {}",
            program.display(),
            args.join(" "),
            String::from_utf8_lossy(&ended.stderr).trim()
        );
    }
    Ok(())
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn texts(strings: &[String]) -> Vec<&str> {
    strings.iter().map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// A machine whose programs write down how they were called.
    struct Machine {
        dir: tempfile::TempDir,
        resolvers: Resolvers,
    }

    impl Machine {
        fn with(programs: &[&str], resolved: bool) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for program in programs {
                let log = dir.path().join("log").display().to_string();
                let script = format!("#!/bin/sh\n{{ echo \"{program} $*\"; cat; }} >>{log}\n");
                let path = dir.path().join(program);
                fs::write(&path, script).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
            if resolved {
                fs::create_dir(dir.path().join("resolve")).unwrap();
            }
            let resolvers = Resolvers {
                programs: vec![dir.path().to_owned()],
                resolved: dir.path().join("resolve"),
                order: dir.path().join("order"),
            };
            Self { dir, resolvers }
        }

        fn log(&self) -> String {
            fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
        }
    }

    fn servers() -> Vec<String> {
        strings(&["10.77.0.53", "fd77::53"])
    }

    #[test]
    fn systemd_resolved_where_it_runs() {
        let machine = Machine::with(&["resolvectl", "resolvconf"], true);
        let set = machine.resolvers.set("vault", &servers()).unwrap().unwrap();
        assert_eq!(set.how(), "resolved");
        let told = "resolvectl dns vault 10.77.0.53 fd77::53\nresolvectl domain vault ~.\nresolvectl default-route vault yes\n";
        assert_eq!(machine.log(), told);
        drop(set);
        assert_eq!(machine.log(), format!("{told}resolvectl revert vault\n"));
    }

    #[test]
    fn resolvconf_where_it_does_not() {
        let machine = Machine::with(&["resolvectl", "resolvconf"], false);
        let set = machine.resolvers.set("vault", &servers()).unwrap().unwrap();
        assert_eq!(set.how(), "resolvconf");
        let told = "resolvconf -a vault -m 0 -x\nnameserver 10.77.0.53\nnameserver fd77::53\n";
        assert_eq!(machine.log(), told);
        drop(set);
        assert_eq!(machine.log(), format!("{told}resolvconf -d vault -f\n"));
        // Debian's sorts by names, and tunnels come first.
        fs::write(&machine.resolvers.order, "").unwrap();
        machine.resolvers.forget("vault");
        assert!(machine.log().ends_with("resolvconf -d tun.vault -f\n"));
    }

    #[test]
    fn nothing_is_told_where_there_is_nobody_or_no_server() {
        let machine = Machine::with(&[], false);
        assert!(
            machine
                .resolvers
                .set("vault", &servers())
                .unwrap()
                .is_none()
        );
        let machine = Machine::with(&["resolvconf"], false);
        assert!(machine.resolvers.set("vault", &[]).unwrap().is_none());
        assert_eq!(machine.log(), "");
    }

    #[test]
    fn what_fails_half_way_is_undone() {
        let machine = Machine::with(&["resolvectl"], true);
        let path = machine.dir.path().join("resolvectl");
        let script = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{script}[ $1 != domain ]\n")).unwrap();
        let error = machine.resolvers.set("vault", &servers()).unwrap_err();
        assert!(error.to_string().contains("domain vault"), "{error}");
        assert!(machine.log().ends_with("resolvectl revert vault\n"));
    }
}
