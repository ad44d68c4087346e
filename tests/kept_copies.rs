//! The copies of what repairs and restores replace: each content once, bounded where nothing is lost
//! with them, and never removed where that is not proven.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fault_vfs::{At, Call, Fault, Faults, File, Kind as Fails};
use fusion_sqlite::engine::{Connection, NoProgress, Profile, Wal, kept};
use fusion_sqlite::health;
use fusion_sqlite::recovery::repair::{RepairOptions, repair};
use fusion_sqlite::recovery::{RepairOutcome, Report, restore};
use rusqlite::OpenFlags;

mod fault_vfs;

const PAGE: u64 = 4096;

struct Folder {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Folder {
    /// A database with a table of many pages, all of it in the file.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.db");
        let folder = Self { directory, path };
        let connection = folder.open();
        let sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);
            INSERT INTO t WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT 5000)
                SELECT i, 'row ' || i || hex(zeroblob(100)) FROM n;
            CREATE INDEX t_text ON t (text);
            CREATE TABLE other AS SELECT * FROM t LIMIT 500;
            PRAGMA wal_checkpoint(TRUNCATE)";
        connection.sql().unwrap().execute_batch(sql).unwrap();
        folder
    }

    fn open(&self) -> Connection {
        Connection::open_hardened(&self.path, OpenFlags::default(), &Profile::default()).unwrap()
    }

    fn run(&self, sql: &str) {
        self.open().sql().unwrap().execute_batch(sql).unwrap();
    }

    fn root(&self, table: &str) -> u64 {
        let connection = self.open();
        let sql = connection.sql().unwrap();
        let select = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        u64::from(sql.query_row(select, [table], |row| row.get::<_, u32>(0)).unwrap())
    }

    fn destroy(&self, page: u64) {
        let file = fs::OpenOptions::new().write(true).open(&self.path).unwrap();
        file.write_all_at(&[0x5a; PAGE as usize], (page - 1) * PAGE).unwrap();
    }

    fn repair(&self) -> fusion_sqlite::engine::Result<Report> {
        repair(&self.path, &RepairOptions::default(), &mut |_| (), &NoProgress)
    }

    /// Names that hold `part`, without the WALs of copies.
    fn names(&self, part: &str) -> Vec<String> {
        let names = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(part) && !name.ends_with("-wal"))
            .collect();
        names.sort();
        names
    }

    fn count(&self) -> i64 {
        let connection = self.open();
        let sql = connection.sql().unwrap();
        sql.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
    }
}

#[test]
fn a_repair_that_is_not_written_back_keeps_one_copy_however_often_it_is_tried() {
    let folder = Folder::new();
    // Others keep the WAL, which each try leaves in another state.
    let open = folder.open();
    open.sql().unwrap().execute_batch("INSERT INTO t VALUES (99999, 'in the wal')").unwrap();
    folder.destroy(folder.root("t") + 3);
    let faults = Faults::over(folder.directory.path());
    for nth in [1, 9, 2, 40, 5] {
        faults.plan(&[Fault {
            call: Call::Write,
            file: Some(File::Wal),
            kind: Fails::Full,
            at: At::Nth(nth),
            times: u64::MAX,
        }]);
        let error = folder.repair().unwrap_err();
        assert_eq!(error.errcode, rusqlite::ffi::SQLITE_FULL, "{error}");
        assert_eq!(folder.names(".damaged-").len(), 1, "after write {nth}");
    }
    faults.plan(&[]);
    let report = folder.repair().unwrap();
    assert_eq!(report.outcome, RepairOutcome::Salvaged);
    let [copy] = &kept(&folder.path)[..] else { panic!("{:?}", kept(&folder.path)) };
    assert!(!copy.is_spare, "rows were lost");
    assert_eq!(report.preserved.unwrap().database, copy.path);
    // What a WAL holds that was committed makes another content.
    open.sql().unwrap().execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    folder.destroy(folder.root("t") + 3);
    folder.repair().unwrap();
    assert_eq!(folder.names(".damaged-").len(), 2);
}

#[test]
fn copies_from_which_something_was_lost_stay_and_the_others_are_bounded() {
    let folder = Folder::new();
    let mut lost = Vec::new();
    for at in 1..=5 {
        folder
            .run(&format!("UPDATE other SET text = 'lost {at}'; PRAGMA wal_checkpoint(TRUNCATE)"));
        folder.destroy(folder.root("t") + 3 + at);
        lost.push(folder.repair().unwrap().preserved.unwrap().database);
    }
    // The root of a table that has pages below it holds no row, and the index names every one.
    for at in 1..=6 {
        folder.run(&format!(
            "UPDATE t SET text = 'spare {at}' WHERE id = 1; PRAGMA wal_checkpoint(TRUNCATE)"
        ));
        let before = folder.count();
        folder.destroy(folder.root("t"));
        let report = folder.repair().unwrap();
        assert_eq!(folder.count(), before, "{}", report.text);
        let copy = report.preserved.unwrap().database;
        assert!(copy.to_string_lossy().ends_with("-spare"), "{}", report.text);
        assert!(copy.exists(), "the newest one stays");
    }
    for copy in &lost {
        assert!(copy.exists() && !copy.to_string_lossy().ends_with("-spare"), "{}", copy.display());
    }
    let spare = kept(&folder.path).into_iter().filter(|copy| copy.is_spare).count();
    assert_eq!(spare, 3);
    let info = health::file_info(&folder.path, 1).unwrap();
    let removable =
        info.sidecars.iter().filter(|file| file.removable && !file.path.ends_with("-wal"));
    assert_eq!(removable.count(), 2, "those beyond the newest");
    assert!(
        health::file_info(&folder.path, 3).unwrap().sidecars.iter().all(|file| !file.removable)
    );
}

fn restored(folder: &Folder, from: &Path) -> PathBuf {
    let outcome =
        restore::restore(&folder.path, from, &restore::RestoreOptions::default(), &NoProgress)
            .unwrap();
    let restore::RestoreOutcome::Restored(restored) = outcome else { panic!("{outcome:?}") };
    restored.preserved.unwrap().database
}

#[test]
fn what_a_restore_replaced_is_kept_once_and_spare_only_if_the_database_has_it() {
    let folder = Folder::new();
    let backup = folder.directory.path().join("y.backup");
    let options = fusion_sqlite::recovery::backup_file::BackupOptions::default();
    fusion_sqlite::recovery::backup_file::backup(&folder.path, &backup, &options, &NoProgress)
        .unwrap();
    for _ in 0..4 {
        let copy = restored(&folder, &backup);
        assert!(copy.to_string_lossy().ends_with("-spare"), "{}", copy.display());
    }
    assert_eq!(folder.names(".before-restore-").len(), 1, "the same each time");
    for at in 0..5 {
        folder.run(&format!("INSERT INTO t VALUES (70000, 'nowhere else {at}')"));
        let copy = restored(&folder, &backup);
        assert!(!copy.to_string_lossy().ends_with("-spare"), "{}", copy.display());
    }
    let names = folder.names(".before-restore-");
    assert_eq!(names.len(), 5, "the spare one made way: {names:?}");
    assert!(names.iter().all(|name| !name.ends_with("-spare")), "{names:?}");
}

#[test]
fn a_wal_is_put_aside_once_and_nothing_of_another_name_is_touched() {
    let folder = Folder::new();
    let mine = folder.directory.path().join("x.db.damaged-mine");
    fs::write(&mine, "a person's").unwrap();
    let wal = Wal::path(&folder.path);
    for at in 0..4 {
        fs::write(&wal, [b'a' + at / 2; 5000]).unwrap();
        let kind = fusion_sqlite::engine::KeptKind::StaleWal;
        fusion_sqlite::engine::put_wal_aside(&folder.path, &wal, kind).unwrap();
        assert!(!wal.exists());
    }
    assert_eq!(folder.names("-wal.stale-").len(), 2, "two contents");
    fusion_sqlite::engine::bound(&folder.path, 1);
    assert_eq!(folder.names("-wal.stale-").len(), 2, "they may hold what is nowhere else");
    assert!(mine.exists());
    let info = health::file_info(&folder.path, 1).unwrap();
    assert_eq!(info.sidecars.len(), 3);
}

#[test]
fn a_copy_with_a_wal_is_marked_and_unmarked_with_it() {
    let folder = Folder::new();
    let made = folder.directory.path().join("made");
    let wal = folder.directory.path().join("made-wal");
    fs::write(&made, "copy").unwrap();
    fs::write(&wal, "its wal").unwrap();
    let kind = fusion_sqlite::engine::KeptKind::Damaged;
    let mut copy =
        fusion_sqlite::engine::KeptCopy::name(&folder.path, kind, &made, Some(&wal)).unwrap();
    for is_spare in [true, false, true] {
        copy.mark(is_spare);
        assert_eq!(copy.is_spare, is_spare);
        assert_eq!(fs::read(copy.wal.as_ref().unwrap()).unwrap(), b"its wal");
        assert_eq!(kept(&folder.path), [copy.clone()]);
    }
    copy.remove();
    assert!(kept(&folder.path).is_empty());
}
