//! Repairs of damaged databases: what is kept, what is said, and that neither death nor a full
//! disk nor others at work leave anything between the old file and the new one.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and a child tells its parent by printing"
)]

mod second_process;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use fusion_sqlite::engine::{self, Class, Connection, NoProgress, Profile, Progress, Stage, Wal};
use fusion_sqlite::health::{Finding, Health};
use fusion_sqlite::recovery::repair::{self, RepairOptions, recover_to};
use fusion_sqlite::recovery::{
    Reason, RepairOutcome, Report, StepKind, backup_file, snapshot_file,
};
use rusqlite::OpenFlags;
use second_process::{SecondProcess, serve as serve_commands};

const PAGE: u64 = 4096;

const SCHEMA: &str = "
    CREATE TABLE tasks (id TEXT PRIMARY KEY, title TEXT NOT NULL);
    CREATE TABLE log (id INTEGER PRIMARY KEY AUTOINCREMENT,
        task TEXT NOT NULL REFERENCES tasks (id) ON DELETE CASCADE, text TEXT NOT NULL, agent TEXT);
    CREATE INDEX log_task ON log (task, id);
    CREATE TABLE plain (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
    CREATE TABLE __meta (key TEXT PRIMARY KEY, value TEXT);
    CREATE VIRTUAL TABLE found USING fts5 (title, content = 'tasks', content_rowid = 'rowid');
    CREATE TRIGGER tasks_ai AFTER INSERT ON tasks BEGIN
        INSERT INTO found (rowid, title) VALUES (new.rowid, new.title); END;
    CREATE TRIGGER tasks_ad AFTER DELETE ON tasks BEGIN
        INSERT INTO found (found, rowid, title) VALUES ('delete', old.rowid, old.title); END;
    PRAGMA user_version = 17;
    INSERT INTO __meta VALUES ('lastModified', '1');
    INSERT INTO tasks WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 20)
        SELECT 'FN-' || i, 'task number ' || i FROM n;
    INSERT INTO log (task, text, agent)
        WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 4000)
        SELECT 'FN-' || (i % 20 + 1), 'line ' || i || ' ' || hex(randomblob(150)), 'a' FROM n;
    INSERT INTO plain SELECT id, 'plain ' || id || hex(randomblob(100)) FROM log;";

#[test]
fn serve() {
    serve_commands();
}

struct Folder {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Folder {
    /// With a database as [`SCHEMA`] makes it, nothing in its WAL but what is open.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("fusion.db");
        let folder = Self { _directory: directory, path };
        let connection = folder.open();
        run(&connection, &format!("BEGIN; {SCHEMA}; COMMIT"));
        close(connection);
        folder
    }

    fn open(&self) -> Connection {
        Connection::open_hardened(&self.path, OpenFlags::default(), &Profile::default()).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    /// Names in the folder, without SQLite's own and the schema's copy.
    fn names(&self) -> BTreeSet<String> {
        std::fs::read_dir(self._directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| {
                !["fusion.db-wal", "fusion.db-shm", "fusion.db-schema"].contains(&name.as_str())
            })
            .collect()
    }

    fn repair(&self) -> Report {
        self.repair_with(&RepairOptions::default()).unwrap()
    }

    fn repair_with(&self, options: &RepairOptions) -> engine::Result<Report> {
        repair::repair(&self.path, options, &mut |_| (), &NoProgress)
    }

    fn destroy(&self, page: u64) {
        overwrite(&self.path, (page - 1) * PAGE, &noise(page));
    }

    /// Leaf pages of a table, by SQLite's own account.
    fn leaves(&self, table: &str) -> Vec<u64> {
        leaves(&self.bytes(), root(&self.open(), table))
    }
}

/// Leaves the file as a clean shutdown does.
fn close(connection: Connection) {
    run(&connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    connection.checkpoint_on_close(true);
}

fn run(connection: &Connection, sql: &str) {
    connection.sql().unwrap().execute_batch(sql).unwrap();
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.sql().unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn texts(connection: &Connection, sql: &str) -> BTreeMap<i64, String> {
    let sql_of = connection.sql().unwrap();
    let mut statement = sql_of.prepare(sql).unwrap();
    statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<rusqlite::Result<_>>()
        .unwrap()
}

fn rows(connection: &Connection) -> [BTreeMap<i64, String>; 3] {
    [
        texts(connection, "SELECT id, task || text || agent FROM log"),
        texts(connection, "SELECT id, text FROM plain"),
        texts(connection, "SELECT rowid, id || title FROM tasks"),
    ]
}

fn assert_sound(connection: &Connection) {
    let check: String = connection
        .sql()
        .unwrap()
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    run(connection, "INSERT INTO found (found, rank) VALUES ('integrity-check', 1)");
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// A page of bytes that no b-tree page looks like, different for each seed.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..PAGE)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            0x80 | state.to_le_bytes()[3]
        })
        .collect()
}

fn root(connection: &Connection, name: &str) -> u64 {
    let sql = format!("SELECT rootpage FROM sqlite_schema WHERE name = '{name}'");
    u64::try_from(number(connection, &sql)).unwrap()
}

/// The leaf pages of the table b-tree at `root`, in the order of their keys.
fn leaves(bytes: &[u8], root: u64) -> Vec<u64> {
    let start = usize::try_from((root - 1) * PAGE).unwrap();
    let page = &bytes[start..start + 4096];
    if !matches!(page[0], 2 | 5) {
        return vec![root];
    }
    let word = |at: usize| usize::from(page[at]) << 8 | usize::from(page[at + 1]);
    let child = |at: usize| u64::from(u32::from_be_bytes(page[at..at + 4].try_into().unwrap()));
    let mut found = Vec::new();
    for cell in 0..word(3) {
        found.extend(leaves(bytes, child(word(12 + 2 * cell))));
    }
    found.extend(leaves(bytes, child(8)));
    found
}

/// Has the index `name` miss what is inserted while `change` runs.
fn out_of_step(folder: &Folder, name: &str, change: &str) {
    let connection = Connection::open(&folder.path, OpenFlags::default(), Duration::ZERO).unwrap();
    let keep = format!(
        "PRAGMA writable_schema = ON; CREATE TEMP TABLE kept AS SELECT * FROM sqlite_schema \
         WHERE name = '{name}'; DELETE FROM sqlite_schema WHERE name = '{name}'"
    );
    run(&connection, &keep);
    run(&connection, "PRAGMA schema_version = 1000");
    run(&connection, change);
    run(&connection, "INSERT INTO sqlite_schema SELECT * FROM kept");
    run(&connection, "PRAGMA schema_version = 2000");
}

#[test]
fn a_sound_file_is_left_as_it_is() {
    let folder = Folder::new();
    let before = folder.bytes();
    let report = folder.repair();
    assert_eq!(report.outcome, RepairOutcome::Healthy);
    assert!(report.steps.is_empty() && report.preserved.is_none() && report.after.ok);
    assert_eq!(folder.bytes(), before);
    assert_eq!(folder.names(), BTreeSet::from(["fusion.db".to_owned()]));
}

#[test]
fn a_stale_full_text_index_is_rebuilt_and_nothing_else_touched() {
    let folder = Folder::new();
    // No trigger for what it replaces, which stays in the index.
    run(
        &folder.open(),
        "INSERT OR REPLACE INTO tasks (rowid, id, title) VALUES (3, 'FN-3', 'new')",
    );
    let before = rows(&folder.open());
    assert_eq!(folder.repair().outcome, RepairOutcome::Healthy, "it is no damage");
    let met = RepairOptions { reason: Reason::VirtualTable, ..RepairOptions::default() };
    let report = folder.repair_with(&met).unwrap();
    assert_eq!(report.outcome, RepairOutcome::RebuiltFts);
    assert_eq!(report.steps.len(), 1);
    assert_eq!((report.steps[0].step, report.steps[0].ok), (StepKind::Fts, true));
    assert!(report.preserved.is_none());
    assert!(report.before.findings.iter().any(|it| matches!(it, Finding::FtsStale { .. })));
    let after = folder.open();
    assert_sound(&after);
    assert_eq!(rows(&after), before);
    assert_eq!(folder.names().len(), 1);
}

#[test]
fn an_index_out_of_step_is_rebuilt_and_nothing_else_touched() {
    let folder = Folder::new();
    out_of_step(&folder, "log_task", "UPDATE log SET task = 'FN-1' WHERE id % 7 = 0");
    let before = rows(&folder.open());
    let report = folder.repair();
    assert_eq!(report.outcome, RepairOutcome::Reindexed, "{}", report.text);
    assert!(report.preserved.is_none());
    assert!(report.text.contains("log_task"), "{}", report.text);
    let after = folder.open();
    assert_sound(&after);
    assert_eq!(rows(&after), before);
}

#[test]
fn a_file_with_destroyed_pages_is_salvaged_and_its_original_kept() {
    let folder = Folder::new();
    let truth = rows(&folder.open());
    let lost = folder.leaves("log");
    let lost = &lost[lost.len() - 20..lost.len() - 10];
    for page in lost {
        folder.destroy(*page);
    }
    // Commits that are in the WAL alone.
    let open = folder.open();
    run(&open, "INSERT INTO plain VALUES (9999, 'in the WAL')");
    let (bytes, wal) = (folder.bytes(), std::fs::read(Wal::path(&folder.path)).unwrap());
    let inode = std::fs::metadata(&folder.path).unwrap().ino();
    let mut other = SecondProcess::start();
    other.ask(&["open-hardened", "it", folder.path.to_str().unwrap()]).unwrap();
    other.sql("it", "BEGIN").unwrap();
    assert_eq!(other.sql("it", "SELECT count(*) FROM plain").unwrap(), "4001");

    let report = folder.repair();

    assert_eq!(report.outcome, RepairOutcome::Salvaged);
    let preserved = report.preserved.clone().unwrap();
    assert_eq!(std::fs::read(&preserved.database).unwrap(), bytes);
    assert_eq!(std::fs::read(preserved.wal.unwrap()).unwrap(), wal);
    assert!(report.after.ok && !report.before.ok);
    let salvage = report.salvage.as_ref().unwrap();
    let log = salvage.tables.iter().find(|table| table.name == "log").unwrap();
    assert_eq!(log.pages_lost, lost.len() as u64);
    assert!(log.rows_missing.unwrap() > 0);
    assert_eq!(log.rows + log.rows_missing.unwrap(), 4000);
    assert_eq!(report.totals.known_lost, log.rows_missing);
    assert_eq!(report.totals.from_backup, 0);
    for part in ["log:", "10 pages lost", "rows lost", "fusion.db.damaged-"] {
        assert!(report.text.contains(part), "{part}: {}", report.text);
    }
    // Whoever was reading reads on, and then sees the repaired file through the same handle.
    assert_eq!(other.sql("it", "SELECT count(*) FROM plain").unwrap(), "4001");
    other.sql("it", "COMMIT").unwrap();
    assert_eq!(other.sql("it", "PRAGMA integrity_check").unwrap(), "ok");
    other.sql("it", "INSERT INTO log (task, text, agent) VALUES ('FN-1', 'goes on', 'b')").unwrap();
    assert_eq!(std::fs::metadata(&folder.path).unwrap().ino(), inode);

    assert_sound(&open);
    let after = rows(&open);
    assert!(after[0].iter().all(|(id, text)| truth[0].get(id).is_none_or(|was| was == text)));
    // And the row of the other process.
    assert_eq!(after[0].len() as u64, log.rows + 1);
    assert_eq!(after[1].len(), 4001);
    assert_eq!(after[2], truth[2]);
    assert_eq!(number(&open, "PRAGMA user_version"), 17);
    assert_eq!(number(&open, "SELECT seq FROM sqlite_sequence WHERE name = 'log'"), 4001);
}

#[test]
fn a_file_without_its_first_page_is_salvaged_into_its_tables() {
    let folder = Folder::new();
    let truth = rows(&folder.open());
    let snapshot = snapshot_file::take(&folder.open()).unwrap();
    snapshot_file::write(&folder.path, &snapshot).unwrap();
    close(folder.open());
    for page in [vec![0; 4096], noise(1)] {
        overwrite(&folder.path, 0, &page);
        let report = folder.repair();
        assert_eq!(report.outcome, RepairOutcome::Salvaged);
        let after = folder.open();
        assert_sound(&after);
        assert_eq!(rows(&after), truth);
        close(after);
    }
}

#[test]
fn what_is_no_database_is_left_alone() {
    let folder = Folder::new();
    for content in [noise(3), b"not a database at all, but notes of somebody".repeat(1000)] {
        std::fs::write(&folder.path, &content).unwrap();
        let error = folder.repair_with(&RepairOptions::default()).unwrap_err();
        assert!(error.code.starts_with("ERR_FUSION_"), "{error:?}");
        assert_eq!(folder.bytes(), content);
        assert_eq!(folder.names().len(), 1, "{:?}", folder.names());
    }
}

#[test]
fn where_nothing_can_be_read_the_newest_sound_backup_is_restored() {
    let folder = Folder::new();
    let target = folder.path.with_extension("db.backup");
    let options = backup_file::BackupOptions::default();
    backup_file::backup(&folder.path, &target, &options, &NoProgress).unwrap();
    let truth = rows(&folder.open());
    backup_file::backup(&folder.path, &target, &options, &NoProgress).unwrap();
    overwrite(&target, 5 * PAGE, &noise(5));
    std::fs::remove_file(snapshot_file::path(&folder.path)).unwrap();
    close(folder.open());
    std::fs::write(&folder.path, noise(3)).unwrap();

    let report = folder.repair();
    assert_eq!(report.outcome, RepairOutcome::Restored, "{}", report.text);
    let used = report.backup.unwrap();
    assert!(used.path.to_str().unwrap().ends_with(".backup.1"));
    assert_eq!(std::fs::read(report.preserved.unwrap().database).unwrap(), noise(3));
    let after = folder.open();
    assert_sound(&after);
    assert_eq!(rows(&after), truth);
}

#[test]
fn rows_of_the_backup_fill_gaps_and_bring_nothing_deleted_back() {
    let folder = Folder::new();
    let target = folder.path.with_extension("db.backup");
    backup_file::backup(&folder.path, &target, &backup_file::BackupOptions::default(), &NoProgress)
        .unwrap();
    let open = folder.open();
    run(&open, "DELETE FROM log WHERE id BETWEEN 1000 AND 1200 OR id % 100 = 0");
    run(&open, "UPDATE plain SET text = 'changed' WHERE id % 2 = 0");
    run(&open, "INSERT INTO log (task, text, agent) VALUES ('FN-1', 'newer', 'a')");
    let truth = rows(&open);
    close(open);
    for table in ["log", "plain"] {
        let pages = folder.leaves(table);
        for page in &pages[20..30] {
            folder.destroy(*page);
        }
    }
    let report = folder.repair();
    let taken = report.backup.clone().unwrap().rows;
    assert!(taken > 0);
    let after = folder.open();
    assert_sound(&after);
    let [log, plain, _] = rows(&after);
    // What the index knows of is back, what it does not know of stays deleted.
    assert_eq!(log, truth[0]);
    // Of a table without an index the rows on lost pages are as they were in the backup.
    assert_eq!(plain.len(), truth[1].len());
    assert!(plain.iter().filter(|(id, text)| truth[1][id] != **text).count() <= 400);
    assert!(report.text.contains(&format!("{taken} rows came from")), "{}", report.text);
    // So none of the log is lost; of the other table nobody knows.
    let filled = &report.backup.as_ref().unwrap().tables;
    let of = |name: &str| filled.iter().find(|table| table.name == name).unwrap();
    assert_eq!(of("log").rows + of("plain").rows, taken);
    assert_eq!(of("log").named, of("log").rows);
    let log = format!("{} rows from the backup; no row known to be lost.", of("log").rows);
    assert!(report.text.contains(&log), "{}", report.text);
    assert!(report.text.contains("how many more rows are lost is not known"), "{}", report.text);
    assert_eq!(report.totals.from_backup, taken);
    assert_eq!(report.totals.known_lost, None);
}

#[test]
fn an_index_that_has_lost_pages_itself_keeps_no_row_of_the_backup_out() {
    let folder = Folder::new();
    let target = folder.path.with_extension("db.backup");
    backup_file::backup(&folder.path, &target, &backup_file::BackupOptions::default(), &NoProgress)
        .unwrap();
    let open = folder.open();
    let truth = rows(&open);
    close(open);
    for page in &folder.leaves("log")[20..25] {
        folder.destroy(*page);
    }
    let index = folder.leaves("log_task");
    for page in &index[..index.len() / 2] {
        folder.destroy(*page);
    }
    let report = folder.repair();
    let log = report.salvage.as_ref().unwrap().tables.iter().find(|it| it.name == "log").unwrap();
    assert!(!log.index_is_whole);
    assert_eq!(rows(&folder.open()), truth);
}

#[test]
fn a_recovery_into_a_new_file_leaves_the_source_alone() {
    let folder = Folder::new();
    let pages = folder.leaves("log");
    folder.destroy(pages[7]);
    let before = folder.bytes();
    let to = folder.path.with_file_name("new.db");
    let report = recover_to(&folder.path, &to, &RepairOptions::default(), &NoProgress).unwrap();
    assert_eq!(report.outcome, RepairOutcome::Salvaged);
    let names = format!(
        "What could be read of {} is in {}. {0} was not changed.\n",
        folder.path.display(),
        to.display()
    );
    assert!(report.text.starts_with(&names), "{}", report.text);
    assert_eq!(report.to.as_ref(), Some(&to));
    assert_eq!((report.after.path.as_path(), report.preserved), (to.as_path(), None));
    assert_eq!(folder.bytes(), before);
    let new = Connection::open(&to, OpenFlags::default(), Duration::ZERO).unwrap();
    assert_sound(&new);
    assert_eq!(folder.names(), BTreeSet::from(["fusion.db".to_owned(), "new.db".to_owned()]));
    let error = recover_to(&folder.path, &to, &RepairOptions::default(), &NoProgress).unwrap_err();
    assert_eq!(error.errcode, 14);
}

#[test]
fn rows_of_a_file_that_has_lost_its_schema_go_into_a_new_one_only() {
    let folder = Folder::new();
    let truth = rows(&folder.open());
    close(folder.open());
    overwrite(&folder.path, 0, &[0; 4096]);
    let before = folder.bytes();
    let error = folder.repair_with(&RepairOptions::default()).unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_UNRECOVERABLE");
    assert!(error.message.contains("a new file"), "{}", error.message);
    let to = folder.path.with_file_name("new.db");
    let report = recover_to(&folder.path, &to, &RepairOptions::default(), &NoProgress).unwrap();
    assert!(report.text.contains("every row is in lost_and_found"), "{}", report.text);
    assert_eq!(folder.bytes(), before);
    let new = Connection::open(&to, OpenFlags::default(), Duration::ZERO).unwrap();
    let wrong = "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check <> 'ok'";
    assert_eq!(number(&new, wrong), 0);
    let found = number(&new, "SELECT count(*) FROM lost_and_found");
    let all: usize = truth.iter().map(BTreeMap::len).sum();
    assert!(found as usize >= all, "{found} of {all}");
    let of_log = "SELECT count(*) FROM lost_and_found WHERE id = 77 AND c0 IS NULL";
    assert!(number(&new, of_log) > 0);
}

#[test]
fn a_file_with_a_rollback_journal_is_repaired_and_stays_one() {
    for header in [false, true] {
        let folder = Folder::new();
        let open = folder.open();
        let mode = open
            .sql()
            .unwrap()
            .query_row("PRAGMA journal_mode = DELETE", [], |row| row.get::<_, String>(0));
        assert_eq!(mode.unwrap(), "delete");
        let truth = rows(&open);
        drop(open);
        let plain =
            || Connection::open(&folder.path, OpenFlags::default(), Duration::ZERO).unwrap();
        let snapshot = snapshot_file::take(&plain()).unwrap();
        snapshot_file::write(&folder.path, &snapshot).unwrap();
        let page = if header { 1 } else { leaves(&folder.bytes(), root(&plain(), "log"))[5] };
        folder.destroy(page);
        let before = folder.bytes();
        let reader = plain();
        let report = folder.repair();
        assert_eq!(report.outcome, RepairOutcome::Salvaged, "{}", report.text);
        let preserved = report.preserved.unwrap();
        assert_eq!((std::fs::read(preserved.database).unwrap(), preserved.wal), (before, None));
        assert_sound(&reader);
        let after = rows(&reader);
        assert!(after[0].len() >= 3950 && after[0].iter().all(|(id, text)| truth[0][id] == *text));
        assert_eq!(after[1..], truth[1..]);
        assert!(!Wal::path(&folder.path).exists());
    }
}

#[test]
fn the_wal_beside_a_file_that_was_emptied_gets_another_name_and_is_not_lost() {
    let folder = Folder::new();
    let mut other = SecondProcess::start();
    other.ask(&["open-hardened", "it", folder.path.to_str().unwrap()]).unwrap();
    other.sql("it", "INSERT INTO plain VALUES (5000, 'in the WAL')").unwrap();
    // Hardened connections leave the WAL when they are closed.
    drop(other);
    let wal = std::fs::read(Wal::path(&folder.path)).unwrap();
    assert!(!wal.is_empty());
    std::fs::OpenOptions::new().write(true).truncate(true).open(&folder.path).unwrap();
    let report = folder.repair();
    assert_eq!(report.steps[0].step, StepKind::StaleWal);
    let aside = folder.names().into_iter().find(|name| name.contains("-wal.stale-")).unwrap();
    assert!(report.text.contains(&aside), "{}", report.text);
    assert_eq!(std::fs::read(folder.path.with_file_name(aside)).unwrap(), wal);
}

/// Has the WAL hold noise for `page`, well summed: what a program writes that has the page wrong
/// in its memory.
fn damage_in_wal(wal: &Path, page: u64) {
    use fusion_sqlite::format::wal::{FRAME_HEADER, Frame, HEADER, WalHeader};
    let mut bytes = std::fs::read(wal).unwrap();
    let header = WalHeader::parse(&bytes).unwrap();
    let size = FRAME_HEADER + header.page_size as usize;
    let mut sums = header.checksum;
    let mut damaged = 0;
    for frame in bytes[HEADER..].chunks_exact_mut(size) {
        if u64::from(Frame::parse(frame).unwrap().page) == page {
            frame[FRAME_HEADER..].copy_from_slice(&noise(page));
            damaged += 1;
        }
        sums = Frame::sum(frame, sums, header.big_endian).unwrap();
        frame[16..20].copy_from_slice(&sums.0.to_be_bytes());
        frame[20..24].copy_from_slice(&sums.1.to_be_bytes());
    }
    assert!(damaged > 0);
    std::fs::write(wal, bytes).unwrap();
}

/// The rowid of the first row of a table's leaf page, whichever it is.
fn first_rowid(bytes: &[u8], page: u64) -> i64 {
    let start = usize::try_from((page - 1) * PAGE).unwrap();
    let page = &bytes[start..start + 4096];
    let mut at = usize::from(page[8]) << 8 | usize::from(page[9]);
    let mut varint = || {
        let mut value = 0;
        loop {
            let byte = page[at];
            at += 1;
            value = value << 7 | i64::from(byte & 0x7f);
            if byte < 0x80 {
                return value;
            }
        }
    };
    varint();
    varint()
}

#[test]
fn rows_of_a_wal_that_was_put_aside_are_told_of_and_can_be_salvaged_with_it() {
    let folder = Folder::new();
    let leaf = folder.leaves("plain")[3];
    let row = first_rowid(&folder.bytes(), leaf);
    let mut other = SecondProcess::start();
    other.ask(&["open-hardened", "it", folder.path.to_str().unwrap()]).unwrap();
    other.sql("it", "INSERT INTO plain VALUES (5000, 'in the WAL')").unwrap();
    other.sql("it", &format!("UPDATE plain SET text = 'changed' WHERE id = {row}")).unwrap();
    let truth = rows(&folder.open());
    other.kill();
    damage_in_wal(&Wal::path(&folder.path), leaf);
    let wal = std::fs::read(Wal::path(&folder.path)).unwrap();

    // It is the file's own, and nothing shows that it is not: unasked it stays where it is.
    let file = folder.bytes();
    let refused = folder.repair_with(&RepairOptions::default()).unwrap_err();
    assert_eq!(refused.errcode, 11, "{refused}");
    assert!(refused.message.contains("nothing proves"), "{refused}");
    assert_eq!(std::fs::read(Wal::path(&folder.path)).unwrap(), wal);
    assert_eq!(folder.bytes(), file);
    assert!(folder.names().iter().all(|name| !name.contains("stale")));

    // A person asks for it, so it is put aside: not applied, and not lost.
    let report = folder
        .repair_with(&RepairOptions { reason: Reason::Asked, ..RepairOptions::default() })
        .unwrap();
    assert_eq!(report.outcome, RepairOutcome::Healthy);
    assert_eq!(report.steps[0].step, StepKind::StaleWal);
    assert_eq!(number(&folder.open(), "SELECT count(*) FROM plain"), 4000);
    let aside = folder.names().into_iter().find(|name| name.contains("-wal.stale-")).unwrap();
    let aside = folder.path.with_file_name(aside);
    assert_eq!(std::fs::read(&aside).unwrap(), wal);
    for part in [
        aside.to_str().unwrap(),
        "Rows that were only in it are not in the database",
        "npx fusion-sqlite recover copy-of-fusion.db rows-of-fusion.db",
    ] {
        assert!(report.text.contains(part), "{part}: {}", report.text);
    }

    // As it is said there.
    let copy = folder.path.with_file_name("copy-of-fusion.db");
    let found = folder.path.with_file_name("rows-of-fusion.db");
    close(folder.open());
    std::fs::copy(&folder.path, &copy).unwrap();
    std::fs::copy(&aside, Wal::path(&copy)).unwrap();
    let report = recover_to(&copy, &found, &RepairOptions::default(), &NoProgress).unwrap();
    let salvage = report.salvage.unwrap();
    assert!(salvage.pages_from_wal > 0);
    let plain = salvage.tables.iter().find(|table| table.name == "plain").unwrap();
    assert_eq!(plain.pages_lost, 1);
    let connection = Connection::open(&found, OpenFlags::default(), Duration::ZERO).unwrap();
    let [log, plain, tasks] = rows(&connection);
    assert_eq!((log, tasks), (truth[0].clone(), truth[2].clone()));
    assert_eq!(plain[&5000], "in the WAL");
    assert!(plain.len() > 3950 && plain.iter().all(|(id, text)| truth[1][id] == *text));
}

/// Commits while a repair goes on, and says what was acknowledged.
#[test]
fn nothing_that_another_process_commits_meanwhile_is_lost() {
    let folder = Folder::new();
    let pages = folder.leaves("plain");
    for page in &pages[3..6] {
        folder.destroy(*page);
    }
    let child = Child::start(&folder.path, "appends");
    let mut output = child.lines();
    // It is at it when the repair begins, and goes on after it.
    while output.next().unwrap() != "appended 20" {}
    let report = folder.repair();
    assert_eq!(report.outcome, RepairOutcome::Salvaged);
    let mut last = 0;
    for line in output.by_ref() {
        last = line.strip_prefix("appended ").unwrap().parse().unwrap();
        if last >= 200 {
            break;
        }
    }
    child.end();
    let rest =
        output.filter_map(|line| line.strip_prefix("appended ").map(|it| it.parse().unwrap()));
    let last: i64 = rest.last().unwrap_or(last);
    let after = folder.open();
    assert_sound(&after);
    assert!(number(&after, "SELECT count(*) FROM log WHERE agent = 'child'") >= last);
    assert!(
        number(&after, "SELECT max(CAST(text AS INTEGER)) FROM log WHERE agent = 'child'") >= last
    );
}

#[test]
fn of_two_processes_one_repairs_and_the_other_finds_it_done() {
    for damage in ["pages", "index"] {
        let folder = Folder::new();
        if damage == "pages" {
            let pages = folder.leaves("log");
            folder.destroy(pages[5]);
        } else {
            out_of_step(&folder, "log_task", "DELETE FROM log WHERE id % 7 = 0");
        }
        let children: Vec<_> = (0..2).map(|_| Child::start(&folder.path, "repairs")).collect();
        let mut outcomes: Vec<_> =
            children.into_iter().map(|child| child.lines().last().unwrap()).collect();
        outcomes.sort();
        let repaired = if damage == "pages" { "done Salvaged" } else { "done Reindexed" };
        assert_eq!(outcomes, ["done Healthy", repaired]);
        assert_sound(&folder.open());
        let copies = folder.names().iter().filter(|name| name.contains("damaged")).count();
        assert_eq!(copies, usize::from(damage == "pages"));
    }
}

/// Page 1 as it is destroyed in practice: with zeros, with another page, with a header whose
/// page size is none of this database's.
fn destroyed_first_pages(folder: &Folder) -> [Vec<u8>; 4] {
    let other = folder.bytes()[2 * 4096..3 * 4096].to_vec();
    let mut lies = noise(5);
    lies[16..18].copy_from_slice(&[0x20, 0]);
    [vec![0; 4096], other, noise(1), lies]
}

/// A database that is idle: others have it open, and its WAL is empty.
fn idle(folder: &Folder) -> (SecondProcess, Connection) {
    let mut other = SecondProcess::start();
    other.ask(&["open-hardened", "it", folder.path.to_str().unwrap()]).unwrap();
    other.sql("it", "INSERT INTO plain VALUES (5000, 'of another process')").unwrap();
    other.sql("it", "SELECT sum(length(text)) FROM plain").unwrap();
    let here = folder.open();
    assert_eq!(rows(&here)[1].len(), 4001);
    let snapshot = snapshot_file::take(&here).unwrap();
    snapshot_file::write(&folder.path, &snapshot).unwrap();
    assert_eq!(number(&here, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    assert_eq!(wal_size(folder), 0);
    (other, here)
}

fn wal_size(folder: &Folder) -> u64 {
    std::fs::metadata(Wal::path(&folder.path)).unwrap().len()
}

#[test]
fn a_first_page_is_repaired_while_others_have_the_file_and_its_empty_wal_open() {
    for destroyed in 0..4 {
        let folder = Folder::new();
        let (mut other, here) = idle(&folder);
        let truth = rows(&here);
        let inode = std::fs::metadata(&folder.path).unwrap().ino();
        overwrite(&folder.path, 0, &destroyed_first_pages(&folder)[destroyed]);
        let damaged = folder.bytes();

        let patience = Duration::from_secs(20);
        let report =
            folder.repair_with(&RepairOptions { patience, ..RepairOptions::default() }).unwrap();
        assert_eq!(report.outcome, RepairOutcome::Salvaged);
        let preserved = report.preserved.unwrap();
        assert_eq!(std::fs::read(&preserved.database).unwrap(), damaged);
        assert_eq!(preserved.wal, None);

        // Whoever had it open goes on with it.
        assert_eq!(std::fs::metadata(&folder.path).unwrap().ino(), inode);
        assert_eq!(rows(&here), truth);
        assert_eq!(other.sql("it", "SELECT count(*) FROM plain").unwrap(), "4001");
        other.sql("it", "INSERT INTO plain VALUES (5001, 'after')").unwrap();
        run(&here, "INSERT INTO plain VALUES (5002, 'after')");
        assert_eq!(other.sql("it", "SELECT count(*) FROM plain").unwrap(), "4003");
        assert_sound(&here);
        assert_eq!(number(&here, "PRAGMA wal_checkpoint(TRUNCATE)"), 0);
        assert_eq!(wal_size(&folder), 0);
    }
}

#[test]
fn a_first_page_of_another_page_size_is_repaired_while_others_have_an_empty_wal_open() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("fusion.db");
    let folder = Folder { _directory: directory, path };
    let setup = Connection::open(&folder.path, OpenFlags::default(), Duration::ZERO).unwrap();
    run(&setup, &format!("PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; {SCHEMA}"));
    drop(setup);
    let (mut other, here) = idle(&folder);
    let truth = rows(&here);
    overwrite(&folder.path, 0, &[0; 8192]);
    assert_eq!(folder.repair().outcome, RepairOutcome::Salvaged);
    assert_eq!(rows(&here), truth);
    assert_eq!(number(&here, "PRAGMA page_size"), 8192);
    other.sql("it", "INSERT INTO plain VALUES (5001, 'after')").unwrap();
    assert_sound(&here);
}

#[test]
fn a_first_page_is_repaired_where_an_ended_process_left_an_empty_wal() {
    let folder = Folder::new();
    let (other, here) = idle(&folder);
    let truth = rows(&here);
    other.kill();
    drop(here);
    assert_eq!(wal_size(&folder), 0);
    overwrite(&folder.path, 0, &[0; 4096]);
    assert_eq!(folder.repair().outcome, RepairOutcome::Salvaged);
    let after = folder.open();
    assert_sound(&after);
    assert_eq!(rows(&after), truth);
}

/// Commits through another process as soon as the repair lets go of its locks in order to write
/// back, once.
struct CommitsBetween {
    other: std::sync::Mutex<Option<SecondProcess>>,
    writes_back: std::sync::atomic::AtomicBool,
}

impl Progress for CommitsBetween {
    fn stage(&self, stage: Stage) {
        let verified = stage.name == "verifying";
        self.writes_back.fetch_or(verified, std::sync::atomic::Ordering::SeqCst);
    }

    fn check_cancelled(&self) -> engine::Result<()> {
        let mut other = self.other.lock().unwrap();
        if self.writes_back.load(std::sync::atomic::Ordering::SeqCst)
            && let Some(process) = other.as_mut()
            && process.sql("it", "UPDATE plain SET text = 'late' WHERE id = 7").is_ok()
        {
            // It is closed, too.
            other.take();
        }
        Ok(())
    }
}

#[test]
fn what_another_process_commits_before_a_first_page_is_written_back_is_noticed() {
    let folder = Folder::new();
    let (mut other, here) = idle(&folder);
    let mut truth = rows(&here);
    truth[1].insert(7, "late".to_owned());
    // It remembers page 1, so that it can commit without it.
    other.sql("it", "SELECT sum(length(text)) FROM plain").unwrap();
    overwrite(&folder.path, 0, &[0; 4096]);
    let task =
        CommitsBetween { other: std::sync::Mutex::new(Some(other)), writes_back: false.into() };
    let report =
        repair::repair(&folder.path, &RepairOptions::default(), &mut |_| (), &task).unwrap();
    assert_eq!(report.outcome, RepairOutcome::Salvaged);
    assert!(task.other.lock().unwrap().is_none(), "it was not let in");
    // The second attempt read the commit from the WAL.
    assert!(report.salvage.unwrap().pages_from_wal > 0);
    assert_eq!(rows(&here), truth);
    assert_sound(&here);
}

#[test]
fn of_processes_that_have_a_first_page_repaired_one_does_it_and_none_waits_for_ever() {
    // Each time they meet at another moment.
    for _ in 0..8 {
        let folder = Folder::new();
        let (mut other, here) = idle(&folder);
        let truth = rows(&here);
        overwrite(&folder.path, 0, &[0; 4096]);
        let children: Vec<_> = (0..3).map(|_| Child::start(&folder.path, "repairs")).collect();
        let mut outcomes: Vec<_> =
            children.into_iter().map(|child| child.lines().last().unwrap()).collect();
        outcomes.sort();
        assert_eq!(outcomes, ["done Healthy", "done Healthy", "done Salvaged"]);
        assert_eq!(rows(&here), truth);
        other.sql("it", "INSERT INTO plain VALUES (5001, 'after')").unwrap();
        assert_sound(&here);
    }
}

#[test]
fn a_process_killed_at_whatever_stage_leaves_the_old_file_or_the_new_one() {
    let stages = {
        let folder = Folder::new();
        let pages = folder.leaves("log");
        folder.destroy(pages[5]);
        Child::start(&folder.path, "repairs").lines().count()
    };
    assert!(stages > 10, "{stages}");
    // As many points as fit, spread evenly, the first and the last stages included.
    for kill_after in (0..stages).step_by((stages / 24).max(1)) {
        let folder = Folder::new();
        let truth = rows(&folder.open());
        let pages = folder.leaves("log");
        folder.destroy(pages[5]);
        // Somebody has it open all the time.
        let open = folder.open();
        let child = Child::start(&folder.path, "repairs");
        for line in child.lines().take(kill_after) {
            assert!(!line.starts_with("failed"), "{line}");
        }
        child.kill();

        let report = folder.repair();
        assert!(
            matches!(report.outcome, RepairOutcome::Salvaged | RepairOutcome::Healthy),
            "{kill_after}: {}",
            report.text
        );
        assert_sound(&open);
        let after = rows(&open);
        assert!(after[0].len() >= 3950 && after[0].iter().all(|(id, text)| truth[0][id] == *text));
        assert_eq!(after[1..], truth[1..]);
        let copies = |name: &&String| name.contains(".damaged-") && !name.ends_with("-wal");
        assert!(folder.names().iter().filter(copies).count() <= 1, "{:?}", folder.names());
        // That of the schema's copy goes when the copy is next written.
        assert!(
            folder.names().iter().all(|name| !name.starts_with(".fusion.db.partial")),
            "{:?}",
            folder.names()
        );
    }
}

#[test]
fn where_the_disk_takes_no_more_the_file_stays_as_it_was() {
    let folder = Folder::new();
    // A WAL that a reader keeps from beginning anew, so that it outgrows the file.
    let reader = folder.open();
    run(&reader, "BEGIN; SELECT count(*) FROM plain");
    run(&folder.open(), "UPDATE plain SET text = text || 'x' WHERE id < 400");
    let pages = folder.leaves("log");
    folder.destroy(pages[5]);
    let before = folder.bytes();
    let size = before.len();
    for limit in [size / 2, size - 4096, size + 8192] {
        let child = Child::start_limited(&folder.path, "repairs", Some(limit as u64));
        let last = child.lines().last().unwrap();
        // The limit is met as a full disk, or as a write that fails.
        let is_disk = ["failed Disk", "failed Io"].iter().any(|word| last.starts_with(word));
        assert!(is_disk, "{last}");
        assert_eq!(folder.bytes(), before);
        assert!(
            folder.names().iter().all(|name| !name.contains("partial")),
            "{:?}",
            folder.names()
        );
    }
    assert_eq!(folder.repair().outcome, RepairOutcome::Salvaged);
}

#[test]
fn a_repair_that_is_cancelled_at_whatever_stage_changes_nothing() {
    struct Cancelled(std::cell::Cell<u32>);
    // SAFETY: the test uses it on one thread.
    unsafe impl Sync for Cancelled {}
    // SAFETY: as above.
    unsafe impl Send for Cancelled {}
    impl Progress for Cancelled {
        fn stage(&self, _: Stage) {}
        fn check_cancelled(&self) -> engine::Result<()> {
            let left = self.0.get();
            self.0.set(left.saturating_sub(1));
            if left == 0 { Err(engine::Error::cancelled()) } else { Ok(()) }
        }
    }
    let folder = Folder::new();
    let pages = folder.leaves("log");
    folder.destroy(pages[5]);
    let before = folder.bytes();
    let mut asked = 1;
    loop {
        let task = Cancelled(std::cell::Cell::new(asked));
        match repair::repair(&folder.path, &RepairOptions::default(), &mut |_| (), &task) {
            Err(error) => {
                assert_eq!(error.code, "ERR_FUSION_CANCELLED");
                assert_eq!(folder.bytes(), before);
                assert_eq!(folder.names().len(), 1, "{asked}: {:?}", folder.names());
            }
            Ok(report) => {
                assert_eq!(report.outcome, RepairOutcome::Salvaged);
                break;
            }
        }
        asked += 1 + asked / 4;
    }
}

#[test]
fn a_repair_that_waits_for_a_lock_ends_when_it_is_told_to() {
    struct Ends<'a>(&'a std::sync::atomic::AtomicBool);
    impl Progress for Ends<'_> {
        fn stage(&self, _: Stage) {}
        fn check_cancelled(&self) -> engine::Result<()> {
            let ends = self.0.load(std::sync::atomic::Ordering::SeqCst);
            if ends { Err(engine::Error::cancelled()) } else { Ok(()) }
        }
    }
    for idle_wal in [false, true] {
        let folder = Folder::new();
        let (mut other, here) = idle(&folder);
        // It remembers page 1, so that it can lock without it.
        other.sql("it", "SELECT sum(length(text)) FROM plain").unwrap();
        if idle_wal {
            overwrite(&folder.path, 0, &[0; 4096]);
        } else {
            folder.destroy(folder.leaves("log")[5]);
        }
        drop(here);
        other.sql("it", "BEGIN IMMEDIATE").unwrap();
        let before = folder.bytes();
        let ends = std::sync::atomic::AtomicBool::new(false);
        // Told once it knows what is wrong, before it has the lock, which nobody gives up.
        let mut found = |_: &Health| ends.store(true, std::sync::atomic::Ordering::SeqCst);
        let options =
            RepairOptions { patience: Duration::from_secs(3600), ..RepairOptions::default() };
        let error = repair::repair(&folder.path, &options, &mut found, &Ends(&ends)).unwrap_err();
        assert_eq!(error.code, "ERR_FUSION_CANCELLED");
        assert_eq!(folder.bytes(), before);
        assert_eq!(folder.names().len(), 1, "{:?}", folder.names());
        other.sql("it", "COMMIT").unwrap();
    }
}

#[test]
fn a_database_that_somebody_writes_to_all_the_time_is_said_to_be_in_use() {
    let folder = Folder::new();
    let pages = folder.leaves("log");
    folder.destroy(pages[5]);
    let before = folder.bytes();
    let mut other = SecondProcess::start();
    other.ask(&["open-hardened", "it", folder.path.to_str().unwrap()]).unwrap();
    other.sql("it", "BEGIN IMMEDIATE").unwrap();
    let options = RepairOptions { patience: Duration::ZERO, ..RepairOptions::default() };
    let error = folder.repair_with(&options).unwrap_err();
    assert_eq!(error.class(), Class::Transient);
    assert_eq!(folder.bytes(), before);
    other.sql("it", "COMMIT").unwrap();
    let mut found = Vec::new();
    let mut note = |health: &Health| found.push(health.ok);
    repair::repair(&folder.path, &options, &mut note, &NoProgress).unwrap();
    assert_eq!(found, [false]);
}

const ROLE: &str = "FUSION_TEST_RECOVERY_CHILD";
/// Begins a line for the parent among those of the test harness.
const MARK: char = '\u{1}';

/// This test binary, started again to do one thing and to say how far it is.
struct Child(std::cell::RefCell<std::process::Child>);

impl Child {
    fn start(path: &Path, role: &str) -> Self {
        Self::start_limited(path, role, None)
    }

    /// Which may write so many bytes to a file.
    fn start_limited(path: &Path, role: &str, limit: Option<u64>) -> Self {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["child", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env("FUSION_TEST_PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(limit) = limit {
            // SAFETY: the two calls are async-signal-safe and touch no memory of the parent's.
            unsafe {
                command.pre_exec(move || {
                    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                    libc::setrlimit(libc::RLIMIT_FSIZE, &limit);
                    libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
                    Ok(())
                });
            }
        }
        Self(std::cell::RefCell::new(command.spawn().unwrap()))
    }

    /// What it says, as it says it. The rest is read by the next call.
    fn lines(&self) -> impl Iterator<Item = String> {
        let output = self.0.borrow_mut().stdout.take().unwrap();
        BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.split_once(MARK).map(|(_, told)| told.to_owned()))
    }

    /// Has it end by itself.
    fn end(&self) {
        drop(self.0.borrow_mut().stdin.take());
    }

    fn kill(self) {
        let mut child = self.0.borrow_mut();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
        let _ = self.0.borrow_mut().wait();
    }
}

struct Tells;

impl Progress for Tells {
    fn stage(&self, stage: Stage) {
        tell(&format!("stage {} {}/{}", stage.name, stage.done, stage.total));
    }

    fn check_cancelled(&self) -> engine::Result<()> {
        Ok(())
    }
}

fn tell(line: &str) {
    println!("{MARK}{line}");
    std::io::stdout().flush().unwrap();
}

#[test]
fn child() {
    let Some(role) = std::env::var_os(ROLE) else { return };
    let path = PathBuf::from(std::env::var_os("FUSION_TEST_PATH").unwrap());
    if role == "repairs" {
        match repair::repair(&path, &RepairOptions::default(), &mut |_| (), &Tells) {
            Ok(report) => tell(&format!("done {:?}", report.outcome)),
            Err(error) => tell(&format!("failed {:?} {error}", error.class())),
        }
        return;
    }
    let ended = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let end = std::sync::Arc::clone(&ended);
    std::thread::spawn(move || {
        std::io::stdin().lines().count();
        end.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    let profile = Profile { busy_timeout: Duration::from_secs(60), ..Profile::default() };
    let connection = Connection::open_hardened(&path, OpenFlags::default(), &profile).unwrap();
    let mut count = 0;
    while !ended.load(std::sync::atomic::Ordering::SeqCst) {
        count += 1;
        run(
            &connection,
            &format!("INSERT INTO log (task, text, agent) VALUES ('FN-1', '{count}', 'child')"),
        );
        tell(&format!("appended {count}"));
    }
}
