//! A PostgreSQL server in a private directory, from Debian's package, for the life of this process.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const ADVICE: &str = "PostgreSQL's programs are missing: apt-get install postgresql";

/// The shell owns the server: it makes it, says when it is ready, and when our end of the pipe
/// closes, however this process ended, it stops the server and removes the directory. PostgreSQL
/// refuses to run as root, so root becomes `postgres` for it.
const SCRIPT: &str = r#"
    set -eu
    bin=$1; dir=$2
    if [ "$(id -u)" = 0 ]; then as="runuser -u postgres --"; else as=""; fi
    mkdir -m 0700 "$dir"
    if [ -n "$as" ]; then chown postgres "$dir"; fi
    trap 'rm -rf "$dir"' EXIT
    cd "$dir"
    $as "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --no-sync >"$dir/log" 2>&1 \
        || { cat "$dir/log" >&2; exit 1; }
    $as "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= -c fsync=off \
        -c max_connections=400 >>"$dir/log" 2>&1 </dev/null &
    for _ in $(seq 200); do
        if "$bin/pg_isready" -q -h "$dir" -U postgres; then echo ready; break; fi
        sleep 0.1
    done
    read -r _ || true
    kill -INT "$(head -n 1 "$dir/data/postmaster.pid")"
    wait
"#;

pub(crate) struct Server {
    bin: PathBuf,
    dir: PathBuf,
    // Holds the pipe.
    _shell: Child,
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The server, started by whoever asks first.
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(start)
}

impl Server {
    /// The URL of a new database.
    pub(crate) fn database(&self) -> String {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let made = Command::new(self.bin.join("createdb"))
            .args(["-h".as_ref(), self.dir.as_os_str()])
            .args(["-U", "postgres", &name])
            .status();
        assert!(made.expect(ADVICE).success(), "createdb failed");
        format!(
            "postgres://postgres@localhost/{name}?host={}",
            self.dir.display()
        )
    }

    /// Everything in a database, as text.
    pub(crate) fn dump(&self, url: &str) -> Vec<u8> {
        let output = Command::new(self.bin.join("pg_dump"))
            .arg(url)
            .output()
            .expect(ADVICE);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        output.stdout
    }
}

fn start() -> Server {
    let bin = programs();
    let dir = std::env::temp_dir().join(format!("portcullis-postgres-{}", std::process::id()));
    let mut shell = Command::new("sh")
        .args(["-c", SCRIPT, "postgres-for-tests"])
        .args([&bin, &dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh");
    let mut line = String::new();
    BufReader::new(shell.stdout.take().expect("piped"))
        .read_line(&mut line)
        .expect("read");
    assert_eq!(line, "ready\n", "PostgreSQL did not start");
    Server {
        bin,
        dir,
        _shell: shell,
    }
}

/// Debian keeps the server's programs off the PATH, by version.
fn programs() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect(ADVICE)
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| bin.join("initdb").exists() && bin.join("postgres").exists())
        .collect();
    versions.sort();
    versions.pop().expect(ADVICE)
}
