//! What a salvage brings back of files that are damaged in ways that a person can picture.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::Path;

use fusion_sqlite::engine::{self, NoProgress};
use fusion_sqlite::recovery::salvage::{
    Salvage, SalvageOptions, SchemaEntry, SchemaSource, Snapshot, Source, salvage,
};
use rusqlite::Connection;

const SCHEMA: &str = "
    CREATE TABLE log(id INTEGER PRIMARY KEY, task TEXT NOT NULL, text TEXT NOT NULL, at REAL);
    CREATE INDEX log_task ON log(task);
    CREATE TABLE pairs(a TEXT, b INTEGER, c BLOB, PRIMARY KEY(a, b)) WITHOUT ROWID;
    CREATE TABLE big(id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
    CREATE VIEW tasks AS SELECT DISTINCT task FROM log;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000)
    INSERT INTO log SELECT i, 'task-' || (i % 7), 'line ' || i || hex(randomblob(40)), i / 3.0 FROM n;
    INSERT INTO pairs SELECT task, id, randomblob(30) FROM log WHERE id % 3 = 0;
    INSERT INTO big(body) SELECT randomblob(100 * id) FROM log WHERE id < 200;
    DELETE FROM big WHERE id % 5 = 0;";

/// A database of `SCHEMA` as bytes, with what else to say before.
fn database(directory: &Path, before: &str) -> Vec<u8> {
    engine::init().unwrap();
    let path = directory.join("made");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&format!("{before}; BEGIN; {SCHEMA}; COMMIT;")).unwrap();
    connection.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
}

fn salvaged(directory: &Path, bytes: &[u8], options: &SalvageOptions) -> (Salvage, Connection) {
    let (account, connection) = unchecked(directory, bytes, options);
    let check: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    (account, connection)
}

fn unchecked(directory: &Path, bytes: &[u8], options: &SalvageOptions) -> (Salvage, Connection) {
    let storage = Bytes(bytes.to_vec());
    let path = directory.join("salvaged");
    let _ = std::fs::remove_file(&path);
    let source = Source { database: &storage, wal: None };
    let account = salvage(source, options, &path, &NoProgress).unwrap();
    (account, Connection::open(&path).unwrap())
}

struct Bytes(Vec<u8>);

impl engine::PageSource for Bytes {
    fn size(&self) -> engine::Result<u64> {
        self.0.as_slice().size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> engine::Result<usize> {
        self.0.as_slice().read_at(buffer, offset)
    }
}

/// All rows of the tables, as text.
fn rows(connection: &Connection) -> Vec<String> {
    let mut rows = Vec::new();
    for (table, id) in [("log", "rowid"), ("pairs", "b"), ("big", "rowid")] {
        let columns = match table {
            "log" => "quote(task) || quote(text) || quote(at)",
            "pairs" => "quote(a) || quote(c)",
            _ => "quote(body)",
        };
        let sql =
            format!("SELECT '{table} ' || {id} || ' ' || {columns} FROM {table} ORDER BY {id}");
        let mut statement = connection.prepare(&sql).unwrap();
        let found = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
        rows.extend(found.map(Result::unwrap));
    }
    rows
}

fn original(directory: &Path, bytes: &[u8]) -> Vec<String> {
    let path = directory.join("original");
    std::fs::write(&path, bytes).unwrap();
    let found = rows(&Connection::open(&path).unwrap());
    std::fs::remove_file(&path).unwrap();
    found
}

#[test]
fn a_sound_file_comes_back_whole_whatever_its_format() {
    let directory = tempfile::tempdir().unwrap();
    for page_size in [512, 1024, 4096, 65_536] {
        for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
            let before = format!(
                "PRAGMA page_size = {page_size}; PRAGMA encoding = '{encoding}';
                 PRAGMA auto_vacuum = {}",
                page_size % 3
            );
            let bytes = database(directory.path(), &before);
            let (account, connection) =
                salvaged(directory.path(), &bytes, &SalvageOptions::default());
            assert!(rows(&connection) == original(directory.path(), &bytes), "{before}");
            assert_eq!(account.page_size, page_size);
            assert_eq!(account.schema_from, SchemaSource::File);
            assert_eq!((account.pages_lost, account.lost_and_found), (0, 0), "{account:?}");
        }
    }
}

/// What a snapshot of the file would say.
fn snapshot(directory: &Path, bytes: &[u8]) -> Snapshot {
    let path = directory.join("original");
    std::fs::write(&path, bytes).unwrap();
    let connection = Connection::open(&path).unwrap();
    let mut statement = connection
        .prepare("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema")
        .unwrap();
    let schema = statement
        .query_map([], |row| {
            Ok(SchemaEntry {
                kind: row.get(0)?,
                name: row.get(1)?,
                table: row.get(2)?,
                root: row.get(3)?,
                sql: row.get(4)?,
            })
        })
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let header = fusion_sqlite::format::Header::parse(bytes).unwrap();
    std::fs::remove_file(&path).unwrap();
    Snapshot {
        page_size: header.page_size,
        reserved: header.reserved,
        encoding: u8::try_from(header.encoding).unwrap(),
        auto_vacuum: header.auto_vacuum(),
        user_version: 7,
        application_id: 0,
        schema_cookie: header.schema_cookie,
        schema,
        taken_ms: 0,
    }
}

fn page(bytes: &mut [u8], number: u32) -> &mut [u8] {
    let size = 1024;
    let start = (number as usize - 1) * size;
    &mut bytes[start..start + size]
}

#[test]
fn without_page_1_every_row_comes_back_by_the_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(directory.path(), "PRAGMA page_size = 1024");
    let options = SalvageOptions { snapshot: Some(snapshot(directory.path(), &sound)) };
    let mut zeroed = sound.clone();
    page(&mut zeroed, 1).fill(0);
    let mut overwritten = sound.clone();
    let another = page(&mut overwritten, 40).to_vec();
    page(&mut overwritten, 1).copy_from_slice(&another);
    for damaged in [zeroed, overwritten] {
        let (account, connection) = salvaged(directory.path(), &damaged, &options);
        assert!(rows(&connection) == original(directory.path(), &sound));
        assert_eq!(account.schema_from, SchemaSource::Snapshot);
        let version: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        assert_eq!(version, 7);
    }
}

#[test]
fn without_page_1_and_a_snapshot_every_row_is_lost_and_found() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(directory.path(), "PRAGMA page_size = 1024");
    let mut damaged = sound.clone();
    page(&mut damaged, 1).fill(0);
    let (account, connection) = salvaged(directory.path(), &damaged, &SalvageOptions::default());
    assert_eq!(account.schema_from, SchemaSource::None);
    let found: i64 = connection
        .query_row(
            "SELECT count(*) FROM lost_and_found WHERE c1 LIKE 'task-%' AND nfield = 4",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(found, 3000);
    // As one b-tree's, which they were.
    let roots: i64 = connection
        .query_row(
            "SELECT count(DISTINCT rootpgno) FROM lost_and_found WHERE c1 LIKE 'task-%' AND nfield = 4",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(roots, 1);
}

#[test]
fn a_lost_table_root_costs_no_row() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(directory.path(), "PRAGMA page_size = 1024");
    let root = snapshot(directory.path(), &sound).schema[0].root;
    let mut damaged = sound.clone();
    page(&mut damaged, root).fill(0);
    let (account, connection) = salvaged(directory.path(), &damaged, &SalvageOptions::default());
    assert!(rows(&connection) == original(directory.path(), &sound));
    assert_eq!((account.tables[0].rows, account.tables[0].adopted), (3000, 3000));
}

#[test]
fn pages_that_have_changed_places_are_put_right() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(directory.path(), "PRAGMA page_size = 1024");
    let mut damaged = sound.clone();
    for (one, other) in [(30, 90), (41, 42), (55, 120)] {
        swap(&mut damaged, one, other);
    }
    let (_, connection) = salvaged(directory.path(), &damaged, &SalvageOptions::default());
    assert!(rows(&connection) == original(directory.path(), &sound));
}

#[test]
fn a_zeroed_leaf_is_told_by_the_rowids_that_it_held() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(directory.path(), "PRAGMA page_size = 1024");
    let mut damaged = sound.clone();
    page(&mut damaged, 60).fill(0);
    let (account, connection) = salvaged(directory.path(), &damaged, &SalvageOptions::default());
    let log = &account.tables[0];
    assert_eq!((log.name.as_str(), log.pages_lost), ("log", 1));
    let &[(low, high)] = log.gaps.as_slice() else { panic!("{:?}", log.gaps) };
    let missing = 3000 - log.rows;
    assert_eq!(u64::try_from(high - low + 1).unwrap(), missing);
    let there: i64 = connection
        .query_row("SELECT count(*) FROM log WHERE id BETWEEN ?1 AND ?2", [low, high], |row| {
            row.get(0)
        })
        .unwrap();
    assert_eq!(there, 0);
}

/// A flipped bit in any pointer of a leaf's array, and in its count of cells.
#[test]
fn a_leaf_with_a_flipped_pointer_or_count_keeps_all_of_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(directory.path(), "PRAGMA page_size = 1024");
    let truth = original(directory.path(), &sound);
    let mut damaged = sound.clone();
    let leaves = (2..=damaged.len() as u32 / 1024).filter(|&number| {
        let leaf = page(&mut damaged, number);
        leaf[0] == 13 && u16::from_be_bytes([leaf[3], leaf[4]]) > 4
    });
    let leaves: Vec<u32> = leaves.collect();
    for (turn, &number) in leaves.iter().enumerate() {
        let leaf = page(&mut damaged, number);
        let cells = usize::from(u16::from_be_bytes([leaf[3], leaf[4]]));
        if turn % 4 == 0 {
            leaf[3] ^= 8;
        } else {
            leaf[8 + 2 * (turn % cells) + turn % 2] ^= 1 << (turn % 8);
        }
    }
    assert!(damaged != sound);
    let (account, connection) = salvaged(directory.path(), &damaged, &SalvageOptions::default());
    assert!(rows(&connection) == truth, "{account:?}");
    // What a damaged pointer leads to is read as a row by SQLite, where it can be.
    assert!(account.lost_and_found < leaves.len() as u64 / 4, "{account:?}");
    assert_eq!(account.tables.iter().map(|table| table.records_lost).sum::<u64>(), 0);
}

/// A flipped bit in the size of a record's header: the record adds up with one size only.
#[test]
fn a_row_whose_header_has_another_size_is_read_and_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let mut bytes = database(directory.path(), "PRAGMA page_size = 1024");
    let truth = original(directory.path(), &bytes);
    // NULL for the rowid's alias, a text, a longer one, and a REAL: the header of a row of the log has
    // six bytes. The first cell of a page ends with it.
    let is_row = |it: &[u8]| it[0] == 6 && it[1] == 0 && it[5] == 7 && it[6] == b't';
    let mut first_rows = (2..).filter_map(|number| {
        let leaf = page(&mut bytes, number);
        let cell = usize::from(u16::from_be_bytes([leaf[8], leaf[9]]));
        let header = (leaf[0] == 13).then(|| leaf.get(cell..)?.windows(7).position(is_row))??;
        Some((number, cell + header))
    });
    let (number, at) = first_rows.next().unwrap();
    let (other, _) = first_rows.next().unwrap();
    drop(first_rows);
    page(&mut bytes, number)[at] ^= 1 << 4;
    // SQLite reads the row with other values, and its check says nothing of it. What it faults is
    // another page's kind; else the table would be carried as SQLite reads it.
    page(&mut bytes, other)[0] ^= 1;
    let (account, connection) = salvaged(directory.path(), &bytes, &SalvageOptions::default());
    assert!(rows(&connection) == truth, "{account:?}");
    let log = account.tables.iter().find(|table| table.name == "log").unwrap();
    assert_eq!((log.mended, log.records_lost), (1, 0), "{account:?}");
}

#[test]
fn a_blob_that_ends_with_zeros_is_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let zeros = "INSERT INTO big(body) VALUES
        (zeroblob(20000)), (zeroblob(1100)),
        (CAST(randomblob(8000) || zeroblob(3000) AS BLOB)), (zeroblob(2 * 1020 + 900))";
    let make = format!("PRAGMA page_size = 1024; BEGIN; {SCHEMA}; {zeros}; COMMIT;");
    let path = directory.path().join("zeros");
    engine::init().unwrap();
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&make).unwrap();
    connection.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let truth = original(directory.path(), &bytes);
    let (account, connection) = salvaged(directory.path(), &bytes, &SalvageOptions::default());
    assert!(rows(&connection) == truth);
    assert_eq!((account.pages_lost, account.lost_and_found), (0, 0));
    // Where pages were zeroed, a page of zeros counts for content only behind others.
    let leaf = (2..).find(|&number| page(&mut bytes, number)[0] == 13).unwrap();
    page(&mut bytes, leaf).fill(0);
    let (_, connection) = salvaged(directory.path(), &bytes, &SalvageOptions::default());
    let found = rows(&connection);
    let of_zeros = |row: &&String| row.ends_with("00000000'");
    let expected: Vec<_> = truth.iter().filter(of_zeros).collect();
    assert!(expected.len() >= 4);
    assert!(expected.iter().all(|row| found.contains(row)));
}

/// The pages of a b-tree that are of a type, in the b-tree's order.
fn pages_of(directory: &Path, bytes: &[u8], name: &str, kind: &str) -> Vec<u32> {
    let path = directory.join("original");
    std::fs::write(&path, bytes).unwrap();
    let connection = Connection::open(&path).unwrap();
    let sql = "SELECT pageno FROM dbstat WHERE name = ?1 AND pagetype = ?2 ORDER BY path";
    let mut statement = connection.prepare(sql).unwrap();
    let found = statement.query_map([name, kind], |row| row.get(0)).unwrap();
    let found = found.map(Result::unwrap).collect();
    std::fs::remove_file(&path).unwrap();
    found
}

fn swap(bytes: &mut [u8], one: u32, other: u32) {
    let (first, second) = (page(bytes, one).to_vec(), page(bytes, other).to_vec());
    page(bytes, one).copy_from_slice(&second);
    page(bytes, other).copy_from_slice(&first);
}

/// The newest rows are last in the table and in its indexes: a file that was cut, or whose end was
/// written over, has lost them from all of them at once.
#[test]
fn indexes_that_lost_the_same_rows_do_not_speak_against_a_leaf() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(
        directory.path(),
        "PRAGMA page_size = 1024;
         CREATE TABLE steps(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, text TEXT NOT NULL);
         CREATE TABLE notes(id INTEGER PRIMARY KEY, at INTEGER NOT NULL, text TEXT NOT NULL);
         CREATE INDEX steps_at ON steps(at);
         CREATE INDEX steps_text ON steps(text);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3000)
         INSERT INTO steps SELECT i, 1700000000 + i * 7, printf('step %06d of the work', i) FROM n",
    );
    let leaves = pages_of(directory.path(), &sound, "steps", "leaf");
    let mut damaged = sound.clone();
    for (one, other) in [(10, 30), (12, 40), (14, 50)] {
        swap(&mut damaged, leaves[one], leaves[other]);
    }
    for index in ["steps_at", "steps_text"] {
        let pages = pages_of(directory.path(), &sound, index, "leaf");
        pages.iter().rev().take(6).for_each(|&lost| page(&mut damaged, lost).fill(0));
    }
    // One of the last leaves is where one of the first was, and nothing is in its own place.
    let moved = leaves[leaves.len() - 3];
    let rows = page(&mut damaged, moved).to_vec();
    page(&mut damaged, leaves[1]).copy_from_slice(&rows);
    page(&mut damaged, moved).fill(0);
    let (account, connection) = salvaged(directory.path(), &damaged, &SalvageOptions::default());
    let steps = account.tables.iter().find(|table| table.name == "steps").unwrap();
    assert_eq!((account.lost_and_found, steps.pages_lost), (0, 1), "{steps:?}");
    let last: i64 =
        connection.query_row("SELECT max(id) FROM steps", [], |row| row.get(0)).unwrap();
    assert_eq!(last, 3000);
    assert!(steps.gaps.iter().all(|gap| gap.1 < 200), "{:?}", steps.gaps);
}

/// An index on the same columns has leaves that look just like the table's, but for their order.
#[test]
fn leaves_without_rowids_are_told_from_an_indexs_by_what_the_index_has_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(
        directory.path(),
        "PRAGMA page_size = 1024;
         CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT NOT NULL) WITHOUT ROWID;
         CREATE INDEX words_down ON words(id DESC, word);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 6000)
         INSERT INTO words SELECT i * 3, printf('word %d of many', i * 31 % 6007) FROM n",
    );
    let interior = pages_of(directory.path(), &sound, "words", "internal");
    let entries = pages_of(directory.path(), &sound, "words_down", "leaf");
    let mut damaged = sound.clone();
    page(&mut damaged, interior[1]).fill(0);
    page(&mut damaged, entries[5]).fill(0);
    let (account, connection) = salvaged(directory.path(), &damaged, &SalvageOptions::default());
    let words = account.tables.iter().find(|table| table.name == "words").unwrap();
    // Of the table's pages only that one is gone, whose own rows were between its leaves.
    assert!(words.adopted > 500 && words.rows > 5900, "{words:?}");
    let wrong = "SELECT count(*) FROM words
                 WHERE id % 3 OR word <> printf('word %d of many', id / 3 * 31 % 6007)";
    let wrong: i64 = connection.query_row(wrong, [], |row| row.get(0)).unwrap();
    assert_eq!(wrong, 0);
}

#[test]
fn a_damaged_table_that_only_its_application_can_compile_keeps_its_rows() {
    let directory = tempfile::tempdir().unwrap();
    engine::init().unwrap();
    let path = directory.path().join("application");
    let with_functions = |connection: &Connection| {
        let flags = rusqlite::functions::FunctionFlags::SQLITE_DETERMINISTIC
            | rusqlite::functions::FunctionFlags::SQLITE_UTF8;
        connection
            .create_scalar_function("slug", 1, flags, |it| Ok(it.get::<String>(0)?.to_lowercase()))
            .unwrap();
    };
    let connection = Connection::open(&path).unwrap();
    with_functions(&connection);
    connection
        .execute_batch(
            "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT UNIQUE, weight REAL,
               slug TEXT AS (slug(name)) STORED, loud TEXT AS (slug(name) || '!') VIRTUAL,
               CHECK (slug(name) <> 'bad'));
             CREATE TABLE keyed(a, b TEXT, slug AS (slug(b)) STORED, UNIQUE (b DESC),
               PRIMARY KEY (b, a)) WITHOUT ROWID;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO t(id, name, weight) SELECT i, 'Name ' || i, i / 2.0 FROM n;
             INSERT INTO keyed(a, b) SELECT id, name FROM t;
             ALTER TABLE t ADD COLUMN more DEFAULT 'none'",
        )
        .unwrap();
    let read = |connection: &Connection, sql: &str| -> Vec<String> {
        let mut rows = connection.prepare(sql).unwrap();
        rows.query_map([], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    };
    let queries = [
        "SELECT id || name || weight || slug || loud || more FROM t",
        "SELECT a || b || slug FROM keyed",
    ];
    let truth = queries.map(|query| read(&connection, query));
    connection.close().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    for (kind, holds) in [(13_u8, &b"Name 1000"[..]), (10, b"Name 1000")] {
        let leaf = bytes
            .chunks(4096)
            .position(|it| it[0] == kind && it.windows(holds.len()).any(|part| part == holds));
        let at = leaf.unwrap() * 4096;
        bytes[at..at + 4096].fill(0);
    }
    let (account, connection) = unchecked(directory.path(), &bytes, &SalvageOptions::default());
    with_functions(&connection);
    for (query, truth) in queries.iter().zip(truth) {
        let found = read(&connection, query);
        assert!(found.len() > 1500 && found.iter().all(|row| truth.contains(row)), "{account:?}");
    }
    assert_eq!(read(&connection, "PRAGMA integrity_check"), ["ok"]);
    assert!(account.schema_errors.is_empty(), "{account:?}");
    let insert = "INSERT INTO t(name) VALUES ('Name 3')";
    assert!(connection.execute(insert, []).unwrap_err().to_string().contains("UNIQUE"));
}
