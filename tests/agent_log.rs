//! The log of a real file, without Node: what was accepted is committed, in order, once.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use fusion_sqlite::agent_log::{
    self, Answer, CallerTransaction, Entries, Event, Listener, Log, LogOptions,
};
use fusion_sqlite::engine::Connection;
use rusqlite::OpenFlags;

const SCHEMA: &str = "
    CREATE TABLE __meta (key TEXT PRIMARY KEY, value TEXT);
    CREATE TABLE tasks (id TEXT PRIMARY KEY);
    CREATE TABLE agentLogEntries (
      id INTEGER PRIMARY KEY AUTOINCREMENT, taskId TEXT NOT NULL, timestamp TEXT NOT NULL,
      text TEXT NOT NULL, type TEXT NOT NULL, detail TEXT, agent TEXT,
      FOREIGN KEY (taskId) REFERENCES tasks(id) ON DELETE CASCADE);
    INSERT INTO tasks VALUES ('FN-1');";

const WAIT: Duration = Duration::from_secs(60);

struct Events(Mutex<mpsc::Sender<String>>);

impl Listener for Events {
    fn event(&self, event: &Event) {
        // The test may have ended already.
        drop(self.0.lock().unwrap().send(format!("{event:?}")));
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    connection: Connection,
    log: Log,
    events: mpsc::Receiver<String>,
}

fn open(path: &std::path::Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    Connection::open_hardened(path, flags, &LogOptions::default().profile).unwrap()
}

fn log_of(connection: &Connection, options: LogOptions) -> (Log, mpsc::Receiver<String>) {
    let (sender, events) = mpsc::channel();
    let listener = Arc::new(Events(Mutex::new(sender)));
    (agent_log::open(connection.file().unwrap(), options, false, listener).unwrap(), events)
}

fn fixture_with(options: LogOptions, schema: &str) -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let connection = open(&folder.path().join("fusion.db"));
    connection.sql().unwrap().execute_batch(schema).unwrap();
    let (log, events) = log_of(&connection, options);
    Fixture { folder, connection, log, events }
}

fn fixture() -> Fixture {
    fixture_with(LogOptions::default(), SCHEMA)
}

fn entries(task: &str, texts: impl IntoIterator<Item = impl AsRef<str>>) -> Entries {
    let mut entries = Entries::default();
    for text in texts {
        let text = text.as_ref().as_bytes();
        entries.push([Some(task.as_bytes()), Some(b"2026"), Some(text), Some(b"text"), None, None]);
    }
    entries
}

fn append(log: &Log, entries: Entries) -> mpsc::Receiver<Answer> {
    let (sender, answer) = mpsc::channel();
    log.append(entries, Box::new(move |outcome| drop(sender.send(outcome)))).unwrap();
    answer
}

/// Waits for an event that says all of `words`, passing over others.
fn event(events: &mpsc::Receiver<String>, words: &[&str]) {
    loop {
        let event = events.recv_timeout(WAIT).unwrap();
        if words.iter().all(|word| event.contains(word)) {
            return;
        }
    }
}

fn texts(connection: &Connection) -> Vec<String> {
    let sql = connection.sql().unwrap();
    let mut statement = sql.prepare("SELECT text FROM agentLogEntries ORDER BY id").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[test]
fn a_receipt_says_what_was_committed() {
    let Fixture { connection, log, folder: _folder, .. } = fixture();
    let answer = append(&log, entries("FN-1", ["a", "b", "c"]));
    let receipt = answer.recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!((receipt.committed, receipt.first_id, receipt.last_id), (3, Some(1), Some(3)));
    assert!(receipt.rejected.is_empty());
    assert_eq!(texts(&connection), ["a", "b", "c"]);
}

#[test]
fn a_row_of_a_deleted_task_is_rejected_alone() {
    let Fixture { connection, log, folder: _folder, .. } = fixture();
    let mut mixed = entries("FN-1", ["a"]);
    mixed.append(&entries("gone", ["b"]));
    mixed.append(&entries("FN-1", ["c"]));
    let receipt = append(&log, mixed).recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!(receipt.committed, 2);
    let rejected: Vec<_> =
        receipt.rejected.iter().map(|row| (row.index, row.error.errcode)).collect();
    assert_eq!(rejected, [(1, 787)]);
    assert_eq!(texts(&connection), ["a", "c"]);
}

#[test]
fn a_constraint_that_speaks_up_at_commit_rejects_its_row_alone() {
    let schema = SCHEMA.replace("ON DELETE CASCADE", "DEFERRABLE INITIALLY DEFERRED");
    let Fixture { connection, log, folder: _folder, .. } =
        fixture_with(LogOptions::default(), &schema);
    // Three calls in one batch.
    connection.sql().unwrap().execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = append(&log, entries("FN-1", ["a"]));
    let mut mixed = entries("FN-1", ["b"]);
    mixed.append(&entries("gone", ["c"]));
    let second = append(&log, mixed);
    let third = append(&log, entries("FN-1", ["d"]));
    connection.sql().unwrap().execute_batch("COMMIT").unwrap();
    let receipt = second.recv_timeout(WAIT).unwrap().unwrap();
    let rejected: Vec<_> =
        receipt.rejected.iter().map(|row| (row.index, row.error.errcode)).collect();
    assert_eq!((receipt.committed, rejected), (1, vec![(1, 787)]));
    assert_eq!(first.recv_timeout(WAIT).unwrap().unwrap().committed, 1);
    assert_eq!(third.recv_timeout(WAIT).unwrap().unwrap().committed, 1);
    assert_eq!(texts(&connection), ["a", "b", "d"]);
}

#[test]
fn a_trigger_that_ends_the_transaction_costs_its_row_alone() {
    let schema = format!(
        "{SCHEMA} CREATE TRIGGER poison BEFORE INSERT ON agentLogEntries WHEN new.text = 'b'
         BEGIN SELECT RAISE(ROLLBACK, 'no b'); END;"
    );
    let Fixture { connection, log, folder: _folder, .. } =
        fixture_with(LogOptions::default(), &schema);
    let receipt =
        append(&log, entries("FN-1", ["a", "b", "c"])).recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!(receipt.committed, 2);
    assert_eq!(receipt.rejected.first().map(|row| row.index), Some(1));
    assert_eq!(texts(&connection), ["a", "c"]);
}

#[test]
fn a_long_call_is_written_in_bounded_batches_and_answered_once() {
    let options = LogOptions { batch_rows: 10, ..LogOptions::default() };
    let Fixture { connection, log, folder: _folder, .. } = fixture_with(options, SCHEMA);
    let expected: Vec<_> = (0..95).map(|n| n.to_string()).collect();
    let receipt = append(&log, entries("FN-1", &expected)).recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!((receipt.committed, receipt.last_id), (95, Some(95)));
    assert_eq!(texts(&connection), expected);
    assert_eq!(log.stats().0.batches, 10);
}

#[test]
fn the_change_counter_never_goes_back_and_moves_once_a_batch() {
    let Fixture { connection, log, folder: _folder, .. } = fixture();
    let future = "9999999999999";
    let sql = connection.sql().unwrap();
    sql.execute("INSERT INTO __meta VALUES ('lastModified', ?1)", [future]).unwrap();
    append(&log, entries("FN-1", ["a", "b"])).recv_timeout(WAIT).unwrap().unwrap();
    let value: String = sql
        .query_row("SELECT value FROM __meta WHERE key = 'lastModified'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(value, "10000000000000");
}

#[test]
fn entries_of_one_thread_commit_in_the_order_of_its_calls() {
    let Fixture { connection, log, folder: _folder, .. } = fixture();
    let mut expected = Vec::new();
    let mut last = None;
    for n in 0..200 {
        expected.push(format!("single {n}"));
        log.append_one(&entries("FN-1", [format!("single {n}")])).unwrap();
        expected.push(format!("batch {n}"));
        last = Some(append(&log, entries("FN-1", [format!("batch {n}")])));
    }
    last.unwrap().recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!(texts(&connection), expected);
}

#[test]
fn another_connections_lock_only_delays() {
    let Fixture { connection, log, folder, .. } = fixture();
    connection.sql().unwrap().execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = append(&log, entries("FN-1", ["a"]));
    // The writer has met the lock at least once.
    while log.stats().0.retries == 0 {
        std::thread::yield_now();
    }
    connection.sql().unwrap().execute_batch("COMMIT").unwrap();
    assert_eq!(answer.recv_timeout(WAIT).unwrap().unwrap().committed, 1);
    drop(folder);
}

#[test]
fn a_barrier_inside_a_write_transaction_writes_on_it() {
    let Fixture { connection, log, folder: _folder, .. } = fixture();
    let sql = connection.sql().unwrap();
    sql.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = append(&log, entries("FN-1", ["a"]));
    let mut borrowed: Option<CallerTransaction> = None;
    log.write_in_caller_transaction(&connection, &mut borrowed).unwrap();
    assert_eq!(texts(&connection), ["a"]);
    assert!(answer.try_recv().is_err(), "nothing is promised before COMMIT");
    sql.execute_batch("COMMIT").unwrap();
    assert_eq!(answer.recv_timeout(WAIT).unwrap().unwrap().committed, 1);
}

#[test]
fn rows_lent_to_a_transaction_that_rolls_back_are_written_later() {
    let Fixture { connection, log, folder: _folder, .. } = fixture();
    let sql = connection.sql().unwrap();
    let mut borrowed: Option<CallerTransaction> = None;
    sql.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = append(&log, entries("FN-1", ["a"]));
    log.write_in_caller_transaction(&connection, &mut borrowed).unwrap();
    let second = append(&log, entries("FN-1", ["b"]));
    sql.execute_batch("ROLLBACK").unwrap();
    first.recv_timeout(WAIT).unwrap().unwrap();
    second.recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!(texts(&connection), ["a", "b"]);
}

#[test]
fn rows_lent_inside_a_savepoint_share_its_fate() {
    let Fixture { connection, log, folder: _folder, .. } = fixture();
    let sql = connection.sql().unwrap();
    let mut borrowed: Option<CallerTransaction> = None;
    sql.execute_batch("BEGIN IMMEDIATE").unwrap();
    let outside = append(&log, entries("FN-1", ["outside"]));
    log.write_in_caller_transaction(&connection, &mut borrowed).unwrap();
    sql.execute_batch("SAVEPOINT one; SAVEPOINT two").unwrap();
    let inside = append(&log, entries("FN-1", ["inside"]));
    log.write_in_caller_transaction(&connection, &mut borrowed).unwrap();
    sql.execute_batch("RELEASE two").unwrap();
    sql.execute_batch("ROLLBACK TO one; RELEASE one").unwrap();
    assert_eq!(texts(&connection), ["outside"]);
    sql.execute_batch("COMMIT").unwrap();
    assert_eq!(outside.recv_timeout(WAIT).unwrap().unwrap().committed, 1);
    assert_eq!(inside.recv_timeout(WAIT).unwrap().unwrap().committed, 1);
    assert_eq!(texts(&connection), ["outside", "inside"]);
    // A released savepoint's rows belong to the transaction.
    sql.execute_batch("SAVEPOINT outermost").unwrap();
    let kept = append(&log, entries("FN-1", ["kept"]));
    sql.execute_batch("DELETE FROM agentLogEntries WHERE 0; SAVEPOINT inner").unwrap();
    log.write_in_caller_transaction(&connection, &mut borrowed).unwrap();
    sql.execute_batch("RELEASE inner; SAVEPOINT other; ROLLBACK TO other").unwrap();
    sql.execute_batch("RELEASE outermost").unwrap();
    assert_eq!(kept.recv_timeout(WAIT).unwrap().unwrap().committed, 1);
    assert_eq!(texts(&connection), ["outside", "inside", "kept"]);
}

#[test]
fn what_the_queue_cannot_hold_is_refused_and_nothing_is_dropped() {
    let options = LogOptions { queue_bytes: 1000, ..LogOptions::default() };
    let Fixture { connection, log, events, folder: _folder } = fixture_with(options, SCHEMA);
    connection.sql().unwrap().execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut accepted = 0;
    while log.append_one(&entries("FN-1", ["x"])).is_ok() {
        accepted += 1;
    }
    event(&events, &["Backpressure(true)"]);
    connection.sql().unwrap().execute_batch("COMMIT").unwrap();
    event(&events, &["Backpressure(false)"]);
    log.flush(WAIT).unwrap();
    assert_eq!(texts(&connection).len(), accepted);
}

#[test]
fn entries_wait_for_a_missing_table_and_can_be_taken_back() {
    let Fixture { connection, log, events, folder: _folder } =
        fixture_with(LogOptions::default(), "CREATE TABLE mine (x)");
    let answer = append(&log, entries("FN-1", ["a", "b"]));
    event(&events, &["ERR_FUSION_SCHEMA"]);
    let pending = log.take_pending();
    assert_eq!(pending.iter().map(Entries::len).sum::<usize>(), 2);
    let (error, receipt) = answer.recv_timeout(WAIT).unwrap().unwrap_err();
    // The schema may have refused them for long enough to be reported first.
    assert!(matches!(error.code, "ERR_FUSION_TAKEN_BACK" | "ERR_FUSION_SCHEMA"), "{error}");
    assert_eq!(receipt.committed, 0);
    connection.sql().unwrap().execute_batch(SCHEMA).unwrap();
    append(&log, entries("FN-1", ["c"])).recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!(texts(&connection), ["c"]);
}

#[test]
fn handles_of_one_file_share_a_writer_and_the_last_one_ends_it() {
    let Fixture { connection, mut log, folder, .. } = fixture();
    let link = folder.path().join("link.db");
    #[cfg(unix)]
    std::os::unix::fs::symlink(folder.path().join("fusion.db"), &link).unwrap();
    let second = open(&link);
    let (mut other, _events) = log_of(&second, LogOptions::default());
    append(&log, entries("FN-1", ["a"])).recv_timeout(WAIT).unwrap().unwrap();
    assert_eq!(other.stats().0.rows, 1, "one writer, one set of figures");
    assert!(!log.release());
    append(&other, entries("FN-1", ["b"])).recv_timeout(WAIT).unwrap().unwrap();
    other.append_one(&entries("FN-1", ["c"])).unwrap();
    assert!(other.release());
    assert!(other.wait_ended(WAIT, &|| ()));
    assert_eq!(texts(&connection), ["a", "b", "c"]);
}

#[test]
fn a_later_handle_that_insists_on_other_options_is_told() {
    let Fixture { connection, log: _log, folder: _folder, .. } = fixture();
    let options = LogOptions { batch_rows: 7, ..LogOptions::default() };
    let (sender, _events) = mpsc::channel();
    let listener = Arc::new(Events(Mutex::new(sender)));
    let refused = agent_log::open(connection.file().unwrap(), options, true, listener);
    assert_eq!(refused.unwrap_err().code, "ERR_FUSION_OPTIONS_CONFLICT");
}

#[test]
fn the_wal_stays_bounded_under_sustained_appends() {
    let options = LogOptions {
        checkpoints: fusion_sqlite::checkpoint::Policy {
            limit_bytes: 256 << 10,
            ..Default::default()
        },
        ..LogOptions::default()
    };
    let Fixture { log, folder, .. } = fixture_with(options, SCHEMA);
    let wal = folder.path().join("fusion.db-wal");
    let text = "x".repeat(200);
    let mut peak = 0;
    for _ in 0..200 {
        append(&log, entries("FN-1", vec![text.as_str(); 1000]))
            .recv_timeout(WAIT)
            .unwrap()
            .unwrap();
        peak = peak.max(std::fs::metadata(&wal).unwrap().len());
    }
    // 1,000 rows of 200 bytes and more are about 250 KiB of pages.
    assert!(peak <= (256 << 10) + (512 << 10), "{peak}");
}

#[test]
fn a_long_reader_delays_checkpoints_and_is_told() {
    let Fixture { log, folder, events, .. } = fixture();
    let reader = open(&folder.path().join("fusion.db"));
    let sql = reader.sql().unwrap();
    append(&log, entries("FN-1", ["before"])).recv_timeout(WAIT).unwrap().unwrap();
    sql.execute_batch("BEGIN; SELECT count(*) FROM agentLogEntries").unwrap();
    let text = "x".repeat(1000);
    append(&log, entries("FN-1", vec![text.as_str(); 1000])).recv_timeout(WAIT).unwrap().unwrap();
    let told = events.recv_timeout(WAIT).unwrap();
    assert!(told.contains("Checkpoint") && told.contains("busy: true"), "{told}");
    let status = log.stats().3;
    assert!(status.prevented > 0 && status.prevented_since.is_some(), "{status:?}");
    sql.execute_batch("COMMIT").unwrap();
    let told = events.recv_timeout(WAIT).unwrap();
    assert!(told.contains("Checkpoint") && told.contains("busy: false"), "{told}");
    assert_eq!(log.stats().3.prevented_since, None);
}
