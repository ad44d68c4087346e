//! The `sqlite3` shell, whose `.recover` is the baseline: compiled from the sources that the
//! crate `sqlite3-src` carries, kept under `target/`. `FUSION_SQLITE_SHELL` names another one, of
//! another version, that has `.recover`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::random::Random;

const OPTIONS: &[&str] = &[
    "-O2",
    "-DSQLITE_ENABLE_DBPAGE_VTAB",
    "-DSQLITE_ENABLE_FTS3",
    "-DSQLITE_ENABLE_FTS3_PARENTHESIS",
    "-DSQLITE_ENABLE_FTS5",
    "-DSQLITE_ENABLE_RTREE",
    "-DSQLITE_OMIT_LOAD_EXTENSION",
    "-DSQLITE_THREADSAFE=0",
];

/// Where the shell is. The first call fetches its sources from cargo's registry and compiles
/// them, in half a minute, unless that was done before.
///
/// # Panics
/// Says what is missing where it cannot be built.
pub fn shell() -> &'static Path {
    static SHELL: OnceLock<PathBuf> = OnceLock::new();
    SHELL.get_or_init(|| std::env::var_os("FUSION_SQLITE_SHELL").map_or_else(build, PathBuf::from))
}

/// The version of SQLite that the shell is of.
pub fn version() -> String {
    let output = Command::new(shell()).arg("--version").output();
    let output = output.expect("the shell was just built");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split(' ').next().unwrap_or_default().to_string()
}

fn build() -> PathBuf {
    let (version, source) = sources();
    let options = Random::named(&OPTIONS.join(" "), 0).next();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("sqlite3-shell-{version}-{options:016x}"));
    let shell = folder.join("sqlite3");
    if shell.exists() {
        return shell;
    }
    std::fs::create_dir_all(&folder).expect("target/ can be written");
    // Under a name of its own, so that two who build at once do not disturb each other.
    let building = folder.join(format!("sqlite3-{}", std::process::id()));
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let mut command = Command::new(&compiler);
    command.args(OPTIONS).arg("-I").arg(&source);
    command.arg(source.join("shell.c")).arg(source.join("sqlite3.c"));
    command.arg("-o").arg(&building).arg("-lm");
    let output = command.output().unwrap_or_else(|error| {
        panic!(
            "the baseline, the sqlite3 shell, cannot be compiled: no C compiler {} ({error}); \
             install one or name it in CC",
            compiler.display()
        )
    });
    assert!(
        output.status.success(),
        "the baseline, the sqlite3 shell, cannot be compiled with {}:\n{}",
        compiler.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(&building, &shell).expect("target/ can be written");
    shell
}

/// The version of the crate with the shell's sources, and their folder.
fn sources() -> (String, PathBuf) {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shell/Cargo.toml");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--locked", "--format-version", "1", "--manifest-path"])
        .arg(&manifest)
        .output()
        .unwrap_or_else(|error| {
            panic!("the baseline, the sqlite3 shell, has its sources fetched by cargo: {error}")
        });
    assert!(
        output.status.success(),
        "the sources of the baseline, the sqlite3 shell, cannot be fetched from cargo's registry \
         (cargo metadata --manifest-path tests/shell/Cargo.toml):\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("cargo lists packages");
    let package = packages
        .iter()
        .find(|package| package["name"] == "sqlite3-src")
        .expect("tests/shell/Cargo.toml names sqlite3-src");
    let text =
        |key: &str| package[key].as_str().expect("cargo says it of every package").to_string();
    let manifest = PathBuf::from(text("manifest_path"));
    (text("version"), manifest.with_file_name("source"))
}

/// The two processes that recover `database` into the new database `into`, as a person would: the
/// second reads the SQL that `.recover` writes on the first one's output. Their exit codes say
/// little: what comes of it is in the file, if anything.
pub fn commands(database: &Path, into: &Path) -> (Command, Command) {
    let new = || {
        let mut command = Command::new(shell());
        command.args(["-batch", "-init", "/dev/null"]).stderr(Stdio::null());
        command
    };
    let (mut first, mut second) = (new(), new());
    first.arg(database).arg(".recover").stdin(Stdio::null()).stdout(Stdio::piped());
    // Or it refuses the script's sequences and virtual tables.
    second.args(["-cmd", ".dbconfig defensive off"]).arg(into).stdout(Stdio::null());
    (first, second)
}

/// Recovers `database` into the new database `into`.
pub fn recover(database: &Path, into: &Path) {
    let (mut first, mut second) = commands(database, into);
    let mut first = first.spawn().expect("the shell was just built");
    let sql = first.stdout.take().expect("it is piped");
    second.stdin(sql).status().expect("the shell was just built");
    let _ = first.wait();
}
