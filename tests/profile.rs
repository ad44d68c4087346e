//! The hardened profile: what is set, what is refused, and that nothing is touched before a look.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod second_process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use fusion_sqlite::engine::{self, Class, Connection, Error, JournalMode, Profile, Synchronous};
use rusqlite::OpenFlags;
use second_process::SecondProcess;

const READ_ONLY: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY;

#[test]
fn serve() {
    second_process::serve();
}

fn impatient() -> Profile {
    Profile { busy_timeout: Duration::ZERO, ..Profile::default() }
}

fn open_with(path: &Path, profile: &Profile) -> Result<Connection, Error> {
    Connection::open_hardened(path, OpenFlags::default(), profile)
}

fn open(path: &Path) -> Result<Connection, Error> {
    open_with(path, &impatient())
}

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.sqlite");
    (directory, path)
}

fn sidecar_path(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A database in the given journal mode with `rows` rows of about a page, closed.
fn database(path: &Path, journal_mode: &str, rows: u32) {
    // Before the first connection: a lock taken before the shim is installed is foreign to it.
    engine::init().unwrap();
    let connection = rusqlite::Connection::open(path).unwrap();
    connection
        .execute_batch(&format!(
            "PRAGMA journal_mode = {journal_mode}; CREATE TABLE t (x);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows})
             INSERT INTO t SELECT randomblob(3000) FROM n"
        ))
        .unwrap();
}

fn text(connection: &Connection, sql: &str) -> String {
    let sql_connection = connection.sql().unwrap();
    sql_connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn value(connection: &Connection, name: &str) -> Option<i64> {
    let settings = Profile::read_back(connection).unwrap();
    settings.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
}

#[test]
fn the_defaults_are_the_design() {
    let (_directory, path) = directory();
    let connection = open_with(&path, &Profile::default()).unwrap();
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "wal");
    let mac = i64::from(cfg!(target_os = "macos"));
    assert_eq!(
        Profile::read_back(&connection).unwrap(),
        [
            ("busy_timeout", 5000),
            ("synchronous", 1),
            ("journal_size_limit", 4 * 1024 * 1024),
            ("foreign_keys", 1),
            ("cell_size_check", 1),
            ("mmap_size", 0),
            ("temp_store", 2),
            ("checkpoint_fullfsync", mac),
            ("fullfsync", 0),
            ("dqs_ddl", 0),
            ("dqs_dml", 0),
            ("wal_autocheckpoint", 0),
            ("no_checkpoint_on_close", 1),
            ("defensive", 1),
        ]
    );
}

#[test]
fn every_setting_is_an_option() {
    let (_directory, path) = directory();
    let profile = Profile {
        busy_timeout: Duration::MAX,
        synchronous: Synchronous::Extra,
        wal_autocheckpoint: 77,
        journal_size_limit: -1,
        foreign_keys: false,
        cell_size_check: false,
        mmap_size: 1 << 20,
        defensive: false,
        double_quoted_strings: true,
        temp_store_memory: false,
        checkpoint_fullfsync: !Profile::default().checkpoint_fullfsync,
        no_checkpoint_on_close: false,
        ..Profile::default()
    };
    let connection = open_with(&path, &profile).unwrap();
    for (name, wanted) in [
        ("busy_timeout", i64::from(i32::MAX)),
        ("synchronous", 3),
        ("journal_size_limit", -1),
        ("foreign_keys", 0),
        ("cell_size_check", 0),
        ("mmap_size", 1 << 20),
        ("temp_store", 0),
        ("dqs_ddl", 1),
        ("dqs_dml", 1),
        ("wal_autocheckpoint", 77),
        ("no_checkpoint_on_close", 0),
        ("defensive", 0),
    ] {
        assert_eq!(value(&connection, name), Some(wanted), "{name}");
    }
}

#[test]
fn a_setting_that_does_not_take_is_named() {
    let (_directory, path) = directory();
    let profile = Profile { mmap_size: i64::MAX, ..Profile::default() };
    let error = open_with(&path, &profile).unwrap_err();
    assert_eq!(error.code, "ERR_FUSION_PROFILE");
    assert!(error.message.contains("mmap_size"), "{error}");
}

#[test]
fn a_database_without_a_file_has_the_settings_that_apply() {
    for name in [":memory:", "", "file:shared?mode=memory&cache=shared"] {
        let connection = open(Path::new(name)).unwrap();
        assert_ne!(text(&connection, "PRAGMA journal_mode"), "wal", "{name}");
        assert_eq!(value(&connection, "defensive"), Some(1));
        assert_eq!(value(&connection, "mmap_size"), None);
    }
}

#[test]
fn full_text_triggers_work_and_double_quoted_strings_do_not() {
    let (_directory, path) = directory();
    let connection = open(&path).unwrap();
    let sql = connection.sql().unwrap();
    sql.execute_batch(
        "CREATE TABLE log (id INTEGER PRIMARY KEY, body TEXT);
         CREATE VIRTUAL TABLE found USING fts5(body, content = 'log', content_rowid = 'id');
         CREATE TRIGGER added AFTER INSERT ON log BEGIN
           INSERT INTO found(rowid, body) VALUES (new.id, new.body);
         END;
         INSERT INTO log (body) VALUES ('needle in hay')",
    )
    .unwrap();
    let hits = "SELECT count(*) || '' FROM found WHERE found MATCH 'needle'";
    assert_eq!(text(&connection, hits), "1");
    assert!(sql.prepare("SELECT \"no such column\"").is_err());
}

#[test]
fn a_rollback_database_becomes_wal_unless_somebody_has_it_in_use() {
    let (_directory, path) = directory();
    database(&path, "delete", 1);
    let mut holder = SecondProcess::start();
    holder.open("h", &path);

    holder.sql("h", "BEGIN IMMEDIATE").unwrap();
    let error = open(&path).unwrap_err();
    assert_eq!(
        (error.code, error.errcode, error.class()),
        ("ERR_FUSION_NOT_WAL", 5, Class::Transient)
    );
    assert!(error.message.contains("journal mode delete"), "{error}");
    assert!(error.message.contains("another connection"), "{error}");
    holder.sql("h", "ROLLBACK").unwrap();

    holder.sql("h", "BEGIN EXCLUSIVE").unwrap();
    let error = open(&path).unwrap_err();
    assert_eq!((error.code, error.errcode), ("ERR_SQLITE_ERROR", 5));
    assert!(error.message.contains("holds it exclusively"), "{error}");
    holder.sql("h", "ROLLBACK").unwrap();

    open(&path).unwrap();
    assert_eq!(holder.sql("h", "PRAGMA journal_mode").unwrap(), "wal");
}

#[test]
fn a_wal_held_in_exclusive_locking_mode_is_busy() {
    let (_directory, path) = directory();
    database(&path, "wal", 1);
    let mut holder = SecondProcess::start();
    holder.open("h", &path);
    holder.sql("h", "PRAGMA locking_mode = EXCLUSIVE").unwrap();
    holder.sql("h", "INSERT INTO t VALUES (1)").unwrap();
    let error = open(&path).unwrap_err();
    assert_eq!(error.errcode & 0xff, 5);
    assert_eq!(error.class(), Class::Transient);
}

#[test]
fn opening_and_closing_neither_checkpoints_nor_writes() {
    let (_directory, path) = directory();
    let connection = open(&path).unwrap();
    let sql = connection.sql().unwrap();
    sql.execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").unwrap();
    drop(connection);
    let files =
        || [path.clone(), sidecar_path(&path, "-wal")].map(|file| std::fs::read(file).unwrap());
    let before = files();
    let connection = open(&path).unwrap();
    assert_eq!(text(&connection, "SELECT count(*) || '' FROM t"), "1");
    drop(connection);
    assert!(before == files());
}

#[test]
fn a_file_cut_short_is_refused_as_it_is() {
    let (_directory, path) = directory();
    // With a WAL that holds a page or two, SQLite itself does not notice at open.
    database(&path, "wal", 40);
    let connection = open(&path).unwrap();
    let sql = connection.sql().unwrap();
    sql.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    drop(connection);
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(8 * 4096).unwrap();
    drop(file);
    let files =
        || [path.clone(), sidecar_path(&path, "-wal")].map(|file| std::fs::read(file).unwrap());
    let before = files();
    let error = open(&path).unwrap_err();
    assert_eq!((error.errcode, error.class()), (11, Class::Corrupt));
    assert!(error.message.contains("cut short"), "{error}");
    assert!(error.message.contains("Keep the file and its -wal"), "{error}");
    assert!(before == files());

    // Without a WAL it does.
    std::fs::remove_file(sidecar_path(&path, "-wal")).unwrap();
    let error = open(&path).unwrap_err();
    assert_eq!((error.errcode, error.class()), (11, Class::Corrupt));
}

#[test]
fn what_is_not_a_database_is_refused_as_it_is() {
    let (_directory, path) = directory();
    let contents = b"This is a letter and not a database. ".repeat(200);
    std::fs::write(&path, &contents).unwrap();
    let error = open(&path).unwrap_err();
    assert_eq!((error.code, error.errcode), ("ERR_SQLITE_ERROR", 26));
    assert!(error.message.contains("not a SQLite database"), "{error}");
    assert!(error.to_string().contains("test.sqlite"));
    assert_eq!(std::fs::read(&path).unwrap(), contents);
}

#[test]
fn a_path_that_cannot_be_opened_says_why() {
    let (directory, path) = directory();
    let error = open(directory.path()).unwrap_err();
    assert_eq!((error.code, error.errcode & 0xff), ("ERR_SQLITE_ERROR", 14));
    assert!(error.message.contains("it is a directory"), "{error}");

    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let nowhere = directory.path().join("no/such/test.sqlite");
    let error = Connection::open_hardened(&nowhere, flags, &impatient()).unwrap_err();
    assert_eq!(error.errcode & 0xff, 14);
    assert!(error.message.contains("there is no directory"), "{error}");
    assert!(!directory.path().join("no").exists());

    let error = Connection::open_hardened(&path, flags, &impatient()).unwrap_err();
    assert_eq!(error.errcode & 0xff, 14);
    assert!(error.message.contains("there is no such file"), "{error}");
    assert!(!path.exists());
}

#[test]
fn a_read_only_connection_is_hardened_and_leaves_the_journal_mode() {
    let (_directory, path) = directory();
    for mode in ["delete", "wal"] {
        database(&path, mode, 1);
        let connection = Connection::open_hardened(&path, READ_ONLY, &impatient()).unwrap();
        assert_eq!(value(&connection, "defensive"), Some(1));
        assert_eq!(text(&connection, "PRAGMA journal_mode"), mode);
        let insists = connection.insist_on_wal();
        assert_eq!(
            insists.err().map(|error| error.code),
            (mode != "wal").then_some("ERR_FUSION_NOT_WAL")
        );
        drop(connection);
        std::fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_file_that_is_kept_in_rollback_mode_stays_so_for_the_whole_process() {
    let (_directory, path) = directory();
    database(&path, "delete", 1);
    let keeping = Profile { journal_mode: JournalMode::Keep, ..impatient() };
    let kept = open_with(&path, &keeping).unwrap();
    let other = open(&path).unwrap();
    for connection in [&kept, &other] {
        assert_eq!(text(connection, "PRAGMA journal_mode"), "delete");
    }
    assert_eq!(other.insist_on_wal().unwrap_err().code, "ERR_FUSION_OPTIONS_CONFLICT");
    drop(kept);
    other.insist_on_wal().unwrap();
    drop(other);
    let wal = open_with(&path, &keeping).unwrap();
    assert_eq!(text(&wal, "PRAGMA journal_mode"), "wal");
    // Another file by the same path is another file.
    drop(wal);
    std::fs::remove_file(&path).unwrap();
    database(&path, "delete", 1);
    assert_eq!(text(&open(&path).unwrap(), "PRAGMA journal_mode"), "wal");
}

#[test]
fn a_file_too_short_for_a_page_is_no_database_and_is_left_alone() {
    let (_directory, path) = directory();
    std::fs::write(&path, "a note").unwrap();
    let error = open(&path).unwrap_err();
    assert_eq!(error.errcode, 26);
    assert_eq!(std::fs::read(&path).unwrap(), b"a note");
}

#[cfg(unix)]
#[test]
fn missing_permissions_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let Some(mut user) = SecondProcess::unprivileged() else {
        return;
    };
    let mut refused =
        |path: &Path| user.ask(&["open-hardened", "c", path.to_str().unwrap()]).unwrap_err();
    let (directory, path) = directory();
    database(&path, "wal", 1);

    // The database may be written, but no -wal can be made beside it.
    allow(&path, 0o666);
    allow(directory.path(), 0o555);
    let error = refused(&path);
    assert_eq!(error.code, "ERR_SQLITE_ERROR");
    assert!(error.message.contains("has no permission to write in the directory"), "{error:?}");
    // Nor can a new one.
    let error = refused(&directory.path().join("new.sqlite"));
    assert_eq!(error.errcode & 0xff, 14);
    assert!(error.message.contains("has no permission to write in the directory"), "{error:?}");

    // SQLite alone would open it read-only, and fail at the first write.
    allow(directory.path(), 0o777);
    allow(&path, 0o444);
    let error = refused(&path);
    assert_eq!((error.code.as_str(), error.errcode), ("ERR_SQLITE_ERROR", 8));
    assert!(error.message.contains("has no permission to write"), "{error:?}");
}
