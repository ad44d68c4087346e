//! A second process, driven line by line: the test binary itself, started again.
//!
//! A test file declares `mod second_process;` and a test named `serve` that calls [`serve`]; it
//! passes at once unless this module started it. Nothing waits for a clock: a command is answered
//! when it is done, and a process whose input ends ends itself.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the standard streams are how two processes and a person are told"
)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use fusion_sqlite::engine::{self, Connection, Error, Profile, Progress, Stage};
use fusion_sqlite::recovery::backup_file;
use rusqlite::OpenFlags;

const ROLE: &str = "FUSION_TEST_SECOND_PROCESS";
/// Marks an answer among the lines that the test harness prints.
const MARK: char = '\u{1}';

/// The other end.
pub struct SecondProcess {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// An error that the second process reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub code: String,
    pub errcode: i32,
    pub message: String,
}

impl SecondProcess {
    /// With the locks that the platform gives.
    pub fn start() -> Self {
        Self::with(|_| ()).unwrap()
    }

    /// With POSIX locks.
    pub fn with_posix_locks() -> Self {
        Self::with(|command| {
            command.env("FUSION_SQLITE_LOCKS", "posix");
        })
        .unwrap()
    }

    /// As a user whom permissions bind: nobody, if this process is root's. None, said on the
    /// terminal, where that user may not run the test binary.
    #[cfg(unix)]
    pub fn unprivileged() -> Option<Self> {
        let started = Self::with(|command| {
            use std::os::unix::process::CommandExt;
            // SAFETY: no arguments, no memory.
            if unsafe { libc::geteuid() } == 0 {
                command.uid(65_534).gid(65_534);
            }
        });
        match started {
            Ok(process) => Some(process),
            Err(error) => {
                eprintln!("skipped: an unprivileged user may not run this test ({error})");
                None
            }
        }
    }

    fn with(change: impl FnOnce(&mut Command)) -> std::io::Result<Self> {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["serve", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, "1")
            .env_remove("FUSION_SQLITE_LOCKS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn()?;
        let output = BufReader::new(child.stdout.take().unwrap());
        Ok(Self { input: child.stdin.take(), output, child })
    }

    /// Sends a command and returns its answer.
    pub fn ask(&mut self, command: &[&str]) -> Result<String, Refused> {
        self.send(command);
        self.answer()
    }

    /// Sends a command. Its answer is to be fetched before the next one is sent.
    pub fn send(&mut self, command: &[&str]) {
        let mut line = command.join("\t");
        assert!(!line.contains('\n'));
        line.push('\n');
        self.input.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    /// The answer to the command that was sent.
    pub fn answer(&mut self) -> Result<String, Refused> {
        loop {
            let mut line = String::new();
            let read = self.output.read_line(&mut line).unwrap();
            assert_ne!(read, 0, "the second process died");
            let Some((_, answer)) = line.trim_end().split_once(MARK) else {
                continue;
            };
            let mut parts = answer.splitn(4, '\t');
            if parts.next() == Some("ok") {
                return Ok(parts.next().unwrap_or_default().to_owned());
            }
            return Err(Refused {
                errcode: parts.next().unwrap().parse().unwrap(),
                code: parts.next().unwrap().to_owned(),
                message: parts.next().unwrap().to_owned(),
            });
        }
    }

    /// Opens a connection called `name` that waits for nobody.
    pub fn open(&mut self, name: &str, path: &Path) {
        self.ask(&["open", name, path.to_str().unwrap()]).unwrap();
    }

    /// Runs SQL and returns the first column of the first row, if there is one.
    pub fn sql(&mut self, name: &str, sql: &str) -> Result<String, Refused> {
        self.ask(&["sql", name, sql])
    }

    /// Runs SQL that is expected to be refused, and returns the extended code.
    pub fn refused(&mut self, name: &str, sql: &str) -> i32 {
        self.sql(name, sql).map_err(|refused| refused.errcode).unwrap_err()
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without warning.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
    }

    /// Opens, reads and closes a file, as a backup or a header check would.
    pub fn read_file(&mut self, path: &Path) {
        self.ask(&["read", path.to_str().unwrap()]).unwrap();
    }
}

impl Drop for SecondProcess {
    fn drop(&mut self) {
        drop(self.input.take());
        self.child.wait().unwrap();
    }
}

/// The body of the test `serve`.
pub fn serve() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let mut connections = HashMap::new();
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split('\t').collect();
        match carry_out(&mut connections, &words) {
            Ok(answer) => println!("{MARK}ok\t{answer}"),
            Err(error) => println!(
                "{MARK}err\t{}\t{}\t{}",
                error.errcode,
                error.code,
                error.to_string().replace('\n', " ")
            ),
        }
    }
}

fn carry_out(
    connections: &mut HashMap<String, Connection>,
    words: &[&str],
) -> Result<String, Error> {
    let patience = Duration::ZERO;
    let mut done = String::new();
    match *words {
        ["open", name, path] => {
            let opened = Connection::open(Path::new(path), OpenFlags::default(), patience)?;
            connections.insert(name.to_owned(), opened);
        }
        ["open-read-only", name, path] => {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
            let opened = Connection::open(Path::new(path), flags, patience)?;
            connections.insert(name.to_owned(), opened);
        }
        ["open-hardened", name, path] => {
            let profile = Profile { busy_timeout: patience, ..Profile::default() };
            let flags = OpenFlags::default();
            let opened = Connection::open_hardened(Path::new(path), flags, &profile)?;
            connections.insert(name.to_owned(), opened);
        }
        ["close", name] => connections.remove(name).unwrap().close()?,
        ["sql", name, sql] => {
            let mut statement = connections[name].sql()?.prepare(sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                if done.is_empty() {
                    done = match row.get_ref(0)? {
                        rusqlite::types::ValueRef::Integer(value) => value.to_string(),
                        rusqlite::types::ValueRef::Text(text) => {
                            String::from_utf8_lossy(text).into_owned()
                        }
                        other => format!("{other:?}"),
                    };
                }
            }
        }
        ["check-identity", name] => connections[name].check_identity()?,
        ["read", path] => drop(std::fs::read(path).unwrap()),
        #[cfg(unix)]
        ["overwrite", path, offset, byte, count] => {
            use std::os::unix::fs::FileExt;
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            let bytes = vec![byte.parse::<u8>().unwrap(); count.parse().unwrap()];
            file.write_all_at(&bytes, offset.parse().unwrap()).unwrap();
        }
        ["truncate", path, length] => {
            let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(length.parse().unwrap()).unwrap();
        }
        ["unlink", path] => std::fs::remove_file(path).unwrap(),
        ["rename", from, to] => std::fs::rename(from, to).unwrap(),
        ["locks"] => {
            engine::init()?;
            done = format!(
                "{:?} {}",
                engine::lock_kind(),
                engine::lock_fallback_reason().unwrap_or("none")
            );
        }
        ["insert-from-threads", path, threads, rows] => {
            let rows: u32 = rows.parse().unwrap();
            std::thread::scope(|scope| {
                for _ in 0..threads.parse::<u32>().unwrap() {
                    scope.spawn(|| insert_and_meddle(Path::new(path), rows).unwrap());
                }
            });
        }
        ["backup-until-killed", database, target, stage] => {
            let task = StandsStill(stage);
            let options = backup_file::BackupOptions { rate: 1, ..Default::default() };
            backup_file::backup(Path::new(database), Path::new(target), &options, &task)?;
        }
        ["open-and-close-many", directory, count] => {
            engine::init()?;
            let before = descriptors();
            for number in 0..count.parse::<u32>().unwrap() {
                let path = Path::new(directory).join(format!("{number}.sqlite"));
                let opened = Connection::open(&path, OpenFlags::default(), patience)?;
                opened.sql()?.execute_batch("SELECT * FROM sqlite_schema")?;
                drop(opened);
                std::fs::remove_file(path).unwrap();
            }
            done = format!("{} {}", before, descriptors());
        }
        _ => panic!("{words:?}"),
    }
    Ok(done)
}

/// Says so once it is in the middle of a stage, and goes no further.
struct StandsStill<'a>(&'a str);

impl Progress for StandsStill<'_> {
    fn stage(&self, stage: Stage) {
        if stage.name == self.0 && stage.done > 0 {
            println!("{MARK}ok\t{}", stage.name);
            loop {
                std::thread::park();
            }
        }
    }

    fn check_cancelled(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Inserts row by row, opening the database anew now and then, and reads its files as nobody
/// should in between.
fn insert_and_meddle(path: &Path, rows: u32) -> Result<(), Error> {
    let patience = Duration::from_secs(3600);
    let mut connection = Connection::open(path, OpenFlags::default(), patience)?;
    for row in 0..rows {
        if row % 16 == 15 {
            connection = Connection::open(path, OpenFlags::default(), patience)?;
        }
        connection
            .sql()?
            .execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (randomblob(300)); COMMIT")?;
        for suffix in ["", "-wal", "-shm"] {
            let mut file = path.as_os_str().to_owned();
            file.push(suffix);
            drop(std::fs::read(file));
        }
    }
    connection.close()
}

fn descriptors() -> usize {
    std::fs::read_dir("/dev/fd").unwrap().count()
}
