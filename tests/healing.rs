//! A wedged connection is healed, on real files wedged by a real second process: what was
//! acknowledged is there, once. A COMMIT whose outcome is unknown is never reported as done, nor
//! made twice: a VFS that fails the WAL's sync at a chosen COMMIT leaves exactly that.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod second_process;

use std::ffi::c_int;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use fusion_sqlite::agent_log::{self, Answer, Entries, Event, Listener, Log, LogOptions};
use fusion_sqlite::engine::{self, Connection, Error, Profile, Remedy, Synchronous};
use fusion_sqlite::health;
use rusqlite::{OpenFlags, ffi};
use second_process::SecondProcess;

const SCHEMA: &str = "
    CREATE TABLE __meta (key TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE agentLogEntries (
      id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT NOT NULL, timestamp TEXT NOT NULL,
      text TEXT NOT NULL, type TEXT NOT NULL, detail TEXT, agent TEXT);";
const WAIT: Duration = Duration::from_secs(60);
/// Where the first region of the WAL index has its tables: the header is in front.
const TABLES: &str = "16384";

#[test]
fn serve() {
    second_process::serve();
}

/// What a listener does, on the writer's thread.
type Act = Box<dyn Fn(&Event) + Send>;

struct Events {
    told: Mutex<mpsc::Sender<String>>,
    act: Mutex<Act>,
}

impl Listener for Events {
    fn event(&self, event: &Event) {
        (self.act.lock().unwrap())(event);
        // The test may have ended already.
        drop(self.told.lock().unwrap().send(format!("{event:?}")));
    }
}

struct Fixture {
    _folder: tempfile::TempDir,
    path: PathBuf,
    connection: Connection,
    log: Log,
    events: mpsc::Receiver<String>,
    listener: Arc<Events>,
    /// One test at a time, to its end: the VFS fails syncs of all.
    _alone: MutexGuard<'static, ()>,
}

fn open(path: &Path, profile: &Profile) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    Connection::open_hardened(path, flags, profile).unwrap()
}

/// A database with some rows in it, and some in its WAL.
fn fixture() -> Fixture {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    failing_vfs();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fusion.db");
    let mut options = LogOptions::default();
    options.profile.synchronous = Synchronous::Full;
    options.checkpoints.due_frames = u32::MAX;
    options.checkpoints.idle = Duration::from_secs(3600);
    let connection = open(&path, &options.profile);
    connection.sql().unwrap().execute_batch(SCHEMA).unwrap();
    let (told, events) = mpsc::channel();
    let listener = Arc::new(Events { told: Mutex::new(told), act: Mutex::new(Box::new(|_| ())) });
    let log =
        agent_log::open(connection.file().unwrap(), options, false, listener.clone()).unwrap();
    let fixture =
        Fixture { _folder: folder, path, connection, log, events, listener, _alone: alone };
    fixture.append("first", 40).unwrap();
    fixture.checkpoint();
    fixture.append("second", 40).unwrap();
    fixture
}

impl Fixture {
    fn send(&self, name: &str, rows: usize) -> mpsc::Receiver<Answer> {
        let mut entries = Entries::default();
        for row in 0..rows {
            let text = format!("{name} {row} {}", "d".repeat(300));
            let text = Some(text.as_bytes());
            entries.push([Some(b"FN-1"), Some(b"2026"), text, Some(b"text"), None, None]);
        }
        let (sender, answer) = mpsc::channel();
        self.log.append(entries, Box::new(move |answer| drop(sender.send(answer)))).unwrap();
        answer
    }

    fn append(&self, name: &str, rows: usize) -> Result<(Option<i64>, Option<i64>), Error> {
        match self.send(name, rows).recv_timeout(WAIT).unwrap() {
            Ok(receipt) => {
                assert_eq!(receipt.committed, rows as u64);
                Ok((receipt.first_id, receipt.last_id))
            }
            Err((error, _)) => Err(error),
        }
    }

    fn checkpoint(&self) {
        let (sender, done) = mpsc::channel();
        self.log.checkpoint(fusion_sqlite::checkpoint::Mode::Truncate, move |outcome| {
            drop(sender.send(outcome.map(|outcome| outcome.busy)));
        });
        assert!(!done.recv_timeout(WAIT).unwrap().unwrap());
    }

    fn when(&self, act: impl Fn(&Event) + Send + 'static) {
        *self.listener.act.lock().unwrap() = Box::new(act);
    }

    /// Waits for an event that says all of `words`, passing over others.
    fn event(&self, words: &[&str]) {
        let mut passed_over = Vec::new();
        loop {
            let Ok(event) = self.events.recv_timeout(WAIT) else {
                panic!("{words:?} was not told, but {passed_over:?}");
            };
            assert!(!event.starts_with("Corrupt"), "{event}");
            if words.iter().all(|word| event.contains(word)) {
                return;
            }
            passed_over.push(event);
        }
    }

    /// What another process finds: how many rows, and that each is there once.
    fn found(&self, other: &mut SecondProcess) -> String {
        other.ask(&["open-hardened", "look", self.path.to_str().unwrap()]).unwrap();
        assert_eq!(other.sql("look", "PRAGMA integrity_check").unwrap(), "ok");
        let query = "SELECT count(*) || ' ' || count(DISTINCT text) FROM agentLogEntries";
        let found = other.sql("look", query).unwrap();
        other.ask(&["close", "look"]).unwrap();
        found
    }

    fn sidecar_path(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.path.display())
    }
}

fn rows(connection: &Connection) -> Result<i64, Error> {
    let query = "SELECT count(*) FROM agentLogEntries WHERE length(text) > 0";
    Ok(connection.sql()?.query_row(query, [], |row| row.get(0))?)
}

#[test]
fn a_wal_index_that_another_process_overwrote_is_built_anew_for_everybody() {
    let fixture = fixture();
    let mut other = SecondProcess::start();
    let mut third = SecondProcess::start();
    third.open("long", &fixture.path);
    assert_eq!(third.sql("long", "SELECT count(*) FROM agentLogEntries").unwrap(), "80");
    other.ask(&["overwrite", &fixture.sidecar_path("shm"), TABLES, "255", "16384"]).unwrap();
    // Every process is wedged, with an intact file.
    third.open("fresh", &fixture.path);
    let query = "SELECT sum(length(text)) FROM agentLogEntries";
    assert_eq!(third.refused("fresh", query) & 0xff, ffi::SQLITE_CORRUPT);

    assert_eq!(fixture.append("third", 20).unwrap(), (Some(81), Some(100)));
    fixture.event(&["Healed", "IndexRebuilt"]);
    assert_eq!(fixture.connection.file().unwrap().recovery.count(), 1);
    assert_eq!(rows(&fixture.connection).unwrap(), 100);
    for name in ["long", "fresh"] {
        assert_eq!(third.sql(name, "SELECT count(*) FROM agentLogEntries").unwrap(), "100");
    }
    drop(third);
    assert_eq!(fixture.found(&mut other), "100 100");
}

#[test]
fn an_index_is_not_given_up_for_a_wal_that_does_not_hold_what_it_tells_of() {
    let fixture = fixture();
    let mut other = SecondProcess::start();
    // A page in the middle of the WAL, and the index that knows better.
    other.ask(&["overwrite", &fixture.sidecar_path("wal"), "9000", "0", "64"]).unwrap();
    other.ask(&["overwrite", &fixture.sidecar_path("shm"), TABLES, "255", "16384"]).unwrap();
    let told = std::fs::read(fixture.sidecar_path("shm")).unwrap();
    let file = Arc::clone(fixture.connection.file().unwrap());
    let error = file.recover_connections(None, Duration::ZERO).unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_WAL_LOST", "{error}");
    let header = |index: &[u8]| index[..96].to_vec();
    assert_eq!(header(&std::fs::read(fixture.sidecar_path("shm")).unwrap()), header(&told));
}

#[test]
fn healing_waits_for_whoever_writes() {
    let fixture = fixture();
    let mut other = SecondProcess::start();
    other.open("writer", &fixture.path);
    other.sql("writer", "BEGIN IMMEDIATE").unwrap();
    let file = Arc::clone(fixture.connection.file().unwrap());
    let error = file.recover_connections(None, Duration::ZERO).unwrap_err();
    assert_eq!(error.errcode, ffi::SQLITE_BUSY);
    other.sql("writer", "INSERT INTO __meta VALUES ('theirs', '1')").unwrap();
    other.sql("writer", "COMMIT").unwrap();
    assert_eq!(file.recover_connections(None, Duration::ZERO), Ok(Remedy::IndexRebuilt));
    assert_eq!(rows(&fixture.connection).unwrap(), 80);
}

#[test]
fn a_deleted_wal_and_its_index_are_left_behind_without_losing_a_commit() {
    let mut fixture = fixture();
    let mut other = SecondProcess::start();
    for suffix in ["wal", "shm"] {
        other.ask(&["unlink", &fixture.sidecar_path(suffix)]).unwrap();
    }
    let answer = fixture.send("third", 20);
    // Asked to let go, a thread closes its stale connection.
    fixture.event(&["Reopen"]);
    assert!(fixture.connection.is_stale());
    fixture.connection.close().unwrap();
    let receipt = answer.recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!((receipt.first_id, receipt.last_id), (Some(81), Some(100)));
    fixture.event(&["Healed", "Reopened"]);
    assert_eq!(fixture.found(&mut other), "100 100");
}

/// Two processes that share deleted files agree over the locks of the old index: each commit of
/// either is saved, and neither has to end.
#[test]
fn processes_that_share_deleted_files_both_go_on() {
    for unlinked in [&["wal", "shm"][..], &["wal"], &["shm"]] {
        let mut fixture = fixture();
        let mut other = SecondProcess::start();
        let mut third = SecondProcess::start();
        third.open("old", &fixture.path);
        assert_eq!(third.sql("old", "SELECT count(*) FROM agentLogEntries").unwrap(), "80");
        third.open("reader", &fixture.path);
        third.sql("reader", "BEGIN").unwrap();
        for suffix in unlinked {
            other.ask(&["unlink", &fixture.sidecar_path(suffix)]).unwrap();
        }
        // Committed to files without a name, and acknowledged.
        third.sql("old", "INSERT INTO __meta VALUES ('theirs', '1')").unwrap();
        let answer = fixture.send("third", 20);
        fixture.event(&["Reopen"]);
        fixture.connection.close().unwrap();
        assert_eq!(answer.recv_timeout(WAIT).unwrap().unwrap().committed, 20, "{unlinked:?}");
        fixture.event(&["Healed", "Reopened"]);
        // Nothing can be committed through the old index any more, nor read by a new snapshot.
        for sql in ["INSERT INTO __meta VALUES ('lost', '1')", "SELECT count(*) FROM __meta"] {
            let refused = third.sql("old", sql).unwrap_err();
            assert_eq!(refused.errcode, ffi::SQLITE_CANTOPEN, "{unlinked:?}: {sql}");
        }
        for name in ["old", "reader"] {
            third.ask(&["close", name]).unwrap();
        }
        third.open("new", &fixture.path);
        third.sql("new", "INSERT INTO __meta VALUES ('more', '1')").unwrap();
        let select = "SELECT group_concat(key, ' ') FROM (SELECT key FROM __meta \
                      WHERE key IN ('theirs', 'more', 'lost') ORDER BY key)";
        assert_eq!(third.sql("new", select).unwrap(), "more theirs");
        third.ask(&["close", "new"]).unwrap();
        assert_eq!(fixture.found(&mut other), "100 100");
    }
}

/// The pages that a snapshot needs stay as they are until it ends, in whichever process it is.
#[test]
fn a_snapshot_of_another_process_is_waited_for() {
    for unlinked in [&["wal", "shm"][..], &["shm"]] {
        let mut fixture = fixture();
        let mut other = SecondProcess::start();
        let mut third = SecondProcess::start();
        third.open("reader", &fixture.path);
        let count = "SELECT count(*) FROM agentLogEntries";
        third.sql("reader", "BEGIN").unwrap();
        assert_eq!(third.sql("reader", count).unwrap(), "80");
        for suffix in unlinked {
            other.ask(&["unlink", &fixture.sidecar_path(suffix)]).unwrap();
        }
        let file = Arc::clone(fixture.connection.file().unwrap());
        let heal =
            |fixture: &Fixture| file.recover_connections(Some(&fixture.connection), Duration::ZERO);
        let waits = heal(&fixture).unwrap_err();
        assert!(
            waits.errcode == ffi::SQLITE_BUSY && waits.message.contains("still reads"),
            "{waits}"
        );
        assert!(!fixture.connection.is_stale());
        assert_eq!(third.sql("reader", count).unwrap(), "80");
        third.sql("reader", "COMMIT").unwrap();
        assert_eq!(heal(&fixture), Ok(Remedy::Reopened), "{unlinked:?}");
        fixture.connection.close().unwrap();
        fixture.append("third", 20).unwrap();
        third.ask(&["close", "reader"]).unwrap();
        assert_eq!(fixture.found(&mut other), "100 100");
    }
}

/// What the one saved that noticed first is found saved by the other, a process that was killed
/// in between or not.
#[test]
fn the_second_process_finds_every_frame_copied() {
    let mut fixture = fixture();
    let mut other = SecondProcess::start();
    for suffix in ["wal", "shm"] {
        other.ask(&["unlink", &fixture.sidecar_path(suffix)]).unwrap();
    }
    let connection = &fixture.connection;
    let file = Arc::clone(connection.file().unwrap());
    connection.sql().unwrap().query_row("SELECT 1 FROM __meta", [], |_| Ok(())).ok();
    assert_eq!(file.recover_connections(Some(connection), Duration::ZERO), Ok(Remedy::Reopened));
    // It is of an earlier generation now, and its index is closed.
    assert!(connection.is_stale());
    assert_eq!(rows(connection).unwrap_err().errcode, ffi::SQLITE_CANTOPEN);
    fixture.event(&["Reopen"]);
    fixture.connection.close().unwrap();
    fixture.append("third", 20).unwrap();
    assert_eq!(fixture.found(&mut other), "100 100");
}

#[test]
fn commits_that_cannot_be_saved_are_told_of() {
    let mut fixture = fixture();
    let mut other = SecondProcess::start();
    for suffix in ["wal", "shm"] {
        other.ask(&["unlink", &fixture.sidecar_path(suffix)]).unwrap();
    }
    // Somebody uses the file without its WAL.
    other.open("theirs", &fixture.path);
    other.sql("theirs", "INSERT INTO __meta VALUES ('theirs', '1')").unwrap();
    let answer = fixture.send("third", 20);
    fixture.event(&["Reopen"]);
    fixture.connection.close().unwrap();
    assert_eq!(answer.recv_timeout(WAIT).unwrap().unwrap().committed, 20);
    fixture.event(&["Error", "ERR_FUSION_WAL_LOST"]);
    fixture.event(&["Healed", "Lost"]);
    assert_eq!(other.sql("theirs", "SELECT value FROM __meta WHERE key = 'theirs'").unwrap(), "1");
    other.ask(&["close", "theirs"]).unwrap();
    assert_eq!(fixture.found(&mut other), "60 60");
}

/// As long as a connection has the old ones open, whoever opens the file in its process reads the
/// new WAL by the old index.
#[test]
fn files_that_were_left_behind_are_not_taken_for_damage() {
    let mut fixture = fixture();
    let mut other = SecondProcess::start();
    for suffix in ["wal", "shm"] {
        other.ask(&["unlink", &fixture.sidecar_path(suffix)]).unwrap();
    }
    other.open("theirs", &fixture.path);
    other.sql("theirs", "INSERT INTO __meta VALUES ('theirs', '1')").unwrap();
    let check = || {
        let (kind, patience) = (health::CheckKind::Full, Duration::ZERO);
        health::check_within(&fixture.path, kind, patience, &engine::NoProgress).unwrap()
    };
    for healed in [false, true] {
        if healed {
            let connection = &fixture.connection;
            connection
                .file()
                .unwrap()
                .recover_connections(Some(connection), Duration::ZERO)
                .unwrap();
        }
        let health = check();
        assert!(health.is_locked(), "{health:?}");
        assert!(health.findings.iter().all(|finding| !finding.is_damage()), "{health:?}");
    }
    drop(fixture.log);
    fixture.connection.close().unwrap();
    let health =
        health::check(&fixture.path, health::CheckKind::Full, &engine::NoProgress).unwrap();
    assert!(health.ok, "{health:?}");
}

#[test]
fn a_replaced_file_is_not_healed_into_another() {
    let fixture = fixture();
    let mut other = SecondProcess::start();
    let copy = fixture.path.with_extension("copy");
    std::fs::write(&copy, b"").unwrap();
    other.ask(&["rename", copy.to_str().unwrap(), fixture.path.to_str().unwrap()]).unwrap();
    let error =
        fixture.connection.file().unwrap().recover_connections(None, Duration::ZERO).unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_REPLACED");
    let error = fixture.append("third", 1).unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_REPLACED");
}

#[test]
fn rows_of_a_commit_that_failed_are_written_once() {
    let fixture = fixture();
    FAIL_SYNC.store(true, Ordering::SeqCst);
    assert_eq!(fixture.append("third", 20).unwrap(), (Some(81), Some(100)));
    fixture.event(&["Error", "disk I/O error"]);
    assert_eq!(fixture.found(&mut SecondProcess::start()), "100 100");
}

/// The frames of the COMMIT that failed are in the WAL, and building its index anew finds them.
#[test]
fn rows_of_a_commit_that_failed_and_took_place_are_not_written_again() {
    let fixture = fixture();
    recover_after_the_failure(&fixture, "");
    FAIL_SYNC.store(true, Ordering::SeqCst);
    let batches = fixture.log.stats().0.batches;
    assert_eq!(fixture.append("third", 20).unwrap(), (Some(81), Some(100)));
    assert_eq!(fixture.log.stats().0.batches, batches + 1);
    assert_eq!(fixture.found(&mut SecondProcess::start()), "100 100");
}

#[test]
fn a_commit_of_which_nobody_can_tell_is_not_reported_as_done() {
    let fixture = fixture();
    recover_after_the_failure(&fixture, "DELETE FROM agentLogEntries WHERE id > 80");
    FAIL_SYNC.store(true, Ordering::SeqCst);
    let error = fixture.append("third", 20).unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_COMMIT_UNKNOWN", "{error}");
    assert_eq!(error.errcode & 0xff, ffi::SQLITE_IOERR);
    let kept: usize = fixture.log.take_pending().iter().map(Entries::len).sum();
    assert_eq!(kept, 20);
    assert_eq!(fixture.found(&mut SecondProcess::start()), "80 80");
}

/// Between a failed COMMIT and the next attempt: the index is built anew, and `sql` is run.
fn recover_after_the_failure(fixture: &Fixture, sql: &'static str) {
    let file = Arc::clone(fixture.connection.file().unwrap());
    fixture.when(move |event| {
        if matches!(event, Event::Error(error) if error.code == engine::SQLITE_ERROR) {
            assert_eq!(file.recover_connections(None, Duration::ZERO), Ok(Remedy::IndexRebuilt));
            let other = open(&file.path, &Profile::default());
            assert_eq!(rows(&other).unwrap(), 100, "the COMMIT took place");
            other.sql().unwrap().execute_batch(sql).unwrap();
        }
    });
}

/// The next sync of a WAL fails, once.
static FAIL_SYNC: AtomicBool = AtomicBool::new(false);

/// Makes the default VFS one that fails syncs when it is told to. Its files are the unix VFS's
/// own, but for one method of WALs.
fn failing_vfs() {
    static REGISTER: OnceLock<()> = OnceLock::new();
    REGISTER.get_or_init(|| {
        engine::init().unwrap();
        // SAFETY: the default VFS lives for ever, and so does its copy; no file is open yet.
        unsafe {
            let mut vfs = *ffi::sqlite3_vfs_find(std::ptr::null());
            vfs.zName = c"failing".as_ptr();
            vfs.pNext = std::ptr::null_mut();
            vfs.xOpen = Some(open_file);
            let rc = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 1);
            assert_eq!(rc, ffi::SQLITE_OK);
        }
    });
}

/// The unix VFS's methods, and with another sync.
static METHODS: OnceLock<(ffi::sqlite3_io_methods, ffi::sqlite3_io_methods)> = OnceLock::new();

unsafe extern "C" fn open_file(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: the unix VFS's own open, for a file of its size; its methods are statics.
    unsafe {
        let unix = ffi::sqlite3_vfs_find(c"unix".as_ptr());
        let rc = (*unix).xOpen.unwrap()(unix, name, file, flags, out);
        if rc == ffi::SQLITE_OK && flags & ffi::SQLITE_OPEN_WAL != 0 {
            let original = *(*file).pMethods;
            let (_, changed) = METHODS.get_or_init(|| {
                (original, ffi::sqlite3_io_methods { xSync: Some(sync), ..original })
            });
            (*file).pMethods = changed;
        }
        rc
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    if FAIL_SYNC.swap(false, Ordering::SeqCst) {
        return ffi::SQLITE_IOERR_FSYNC;
    }
    let (original, _) = METHODS.get().unwrap();
    // SAFETY: the unix VFS's own method on a file of its own.
    unsafe { original.xSync.unwrap()(file, flags) }
}
