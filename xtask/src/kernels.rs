//! The kernels that the end-to-end tests boot: Debian's own builds, kept unpacked below target/kernels.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::paths;
use crate::process::{output, run, say};

/// A kernel series under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Series {
    /// The floor; programs attach through clsact.
    #[value(name = "6.1")]
    V6_1,
    /// The first long-term series with tcx in a Debian release.
    #[value(name = "6.12")]
    V6_12,
    /// The newest.
    #[value(name = "7.2")]
    V7_2,
}

impl Series {
    pub(crate) const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_2];

    fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::V7_2 => "7.2",
        }
    }

    /// The Debian suite that carries it.
    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
            Self::V7_2 => "forky",
        }
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A kernel ready to boot.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) series: Series,
    /// The release as `uname -r` prints it.
    pub(crate) version: String,
    /// The image to boot; its modules are found from its place.
    pub(crate) image: PathBuf,
}

/// The kernel of `series`, downloaded when it is not there yet.
pub(crate) fn ensure(series: Series) -> Result<Kernel> {
    let dir = paths::target().join("kernels").join(series.name());
    let root = dir.join("root");
    if !dir.join("complete").is_file() {
        download(series, &dir).with_context(|| format!("cannot fetch the {series} test kernel"))?;
    }
    let version = only_entry(&root.join("lib/modules"))?;
    let image = [
        root.join(format!("boot/vmlinuz-{version}")),
        root.join(format!("lib/modules/{version}/vmlinuz")),
    ]
    .into_iter()
    .find(|path| path.is_file())
    .with_context(|| {
        format!(
            "no kernel image below {}: remove that directory and try again",
            root.display()
        )
    })?;
    Ok(Kernel {
        series,
        version,
        image,
    })
}

fn download(series: Series, dir: &Path) -> Result<()> {
    say(format!(
        "kernel {series}: fetching it from Debian {}",
        series.suite()
    ));
    if dir.exists() {
        fs::remove_dir_all(dir).context("cannot remove an incomplete download")?;
    }
    let apt = Apt::new(series.suite(), &dir.join("apt"))?;
    apt.update()?;
    let image = apt.image_package()?;
    let version = image.trim_start_matches("linux-image-").to_owned();
    if !version.starts_with(&format!("{series}.")) {
        say(format!(
            "Debian {} has moved on: testing {version} in place of {series}",
            series.suite()
        ));
    }

    let debs = dir.join("debs");
    fs::create_dir_all(&debs)?;
    // Newer packages are split: the image only depends on a binary and a modules package.
    let parts: Vec<String> = apt
        .dependencies(&image)?
        .into_iter()
        .filter(|name| {
            *name == format!("linux-binary-{version}")
                || *name == format!("linux-modules-{version}")
        })
        .collect();
    apt.download(
        &debs,
        if parts.is_empty() {
            std::slice::from_ref(&image)
        } else {
            &parts
        },
    )?;

    let root = dir.join("root");
    fs::create_dir_all(&root)?;
    for deb in fs::read_dir(&debs)? {
        run(Command::new("dpkg-deb")
            .arg("-x")
            .arg(deb?.path())
            .arg(&root))?;
    }
    // One layout for merged and unmerged /usr, so that modules are found at lib/modules in both.
    if !root.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", root.join("lib"))?;
    }
    run(Command::new("depmod")
        .env("PATH", sbin_path())
        .arg("-b")
        .arg(&root)
        .arg(&version))?;
    fs::remove_dir_all(&debs)?;
    fs::remove_dir_all(dir.join("apt"))?;
    fs::write(dir.join("complete"), &version)?;
    Ok(())
}

/// apt with sources and lists of its own: nothing on the machine changes.
struct Apt {
    options: Vec<String>,
}

impl Apt {
    fn new(suite: &str, dir: &Path) -> Result<Self> {
        let lists = dir.join("lists");
        fs::create_dir_all(lists.join("partial"))?;
        fs::create_dir_all(dir.join("cache/archives/partial"))?;
        let sources = dir.join("suite.sources");
        let keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
        let signed_by = if keyring.is_file() {
            format!("Signed-By: {}\n", keyring.display())
        } else {
            String::new()
        };
        fs::write(
            &sources,
            format!(
                "Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{signed_by}",
                mirror()?
            ),
        )?;
        let option = |name: &str, value: &str| format!("-o{name}={value}");
        Ok(Self {
            options: vec![
                option("Dir::Etc::sourcelist", &sources.to_string_lossy()),
                option("Dir::Etc::sourceparts", "-"),
                option("Dir::State::Lists", &lists.to_string_lossy()),
                option("Dir::Cache", &dir.join("cache").to_string_lossy()),
                // The download directory is below the workspace, which apt's own user may not enter.
                option("APT::Sandbox::User", "root"),
                option("Acquire::Languages", "none"),
                option("Acquire::Retries", "3"),
            ],
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.args(&self.options);
        command
    }

    fn update(&self) -> Result<()> {
        run(self.command("apt-get").args(["update", "--quiet"]))
    }

    /// The package that the suite's `linux-image-amd64` stands for.
    fn image_package(&self) -> Result<String> {
        self.dependencies("linux-image-amd64")?
            .into_iter()
            .find(|name| name.starts_with("linux-image-"))
            .context("linux-image-amd64 names no kernel")
    }

    fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let text = output(self.command("apt-cache").args(["depends", package]))?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .map(|name| name.trim().to_owned())
            .collect())
    }

    fn download(&self, into: &Path, packages: &[String]) -> Result<()> {
        run(self
            .command("apt-get")
            .arg("download")
            .args(packages)
            .current_dir(into))
    }
}

/// The Debian mirror that this machine is configured to use.
fn mirror() -> Result<String> {
    if let Ok(given) = std::env::var("PORTCULLIS_DEBIAN_MIRROR") {
        return Ok(given);
    }
    let targets = output(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(COMPONENT)",
        "Created-By: Packages",
    ]))?;
    let own = targets
        .lines()
        .find_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
            // The main suite, not -security or -updates, which have other kernels or none.
            [uri, release, "Debian", "main"] if !release.contains('-') => Some(uri.to_owned()),
            _ => None,
        });
    match own {
        Some(uri) => Ok(uri),
        None => bail!(
            "apt on this machine knows no Debian mirror (has `apt-get update` been run?): \
             set PORTCULLIS_DEBIAN_MIRROR to one"
        ),
    }
}

fn only_entry(dir: &Path) -> Result<String> {
    let mut entries =
        fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    match (entries.next().transpose()?, entries.next()) {
        (Some(entry), None) => Ok(entry.file_name().to_string_lossy().into_owned()),
        _ => bail!("{} should hold one kernel's modules", dir.display()),
    }
}

fn sbin_path() -> String {
    format!(
        "{}:/usr/sbin:/sbin",
        std::env::var("PATH").unwrap_or_default()
    )
}
