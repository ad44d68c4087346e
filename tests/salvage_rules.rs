//! The rules that a salvage keeps whatever the damage is: what SQLite reads is not lost, what is
//! complete is believed, bytes that are not there are not invented, and the header is one witness.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::Path;

use fusion_sqlite::engine::{self, NoProgress};
use fusion_sqlite::recovery::salvage::{
    Salvage, SalvageOptions, SchemaEntry, SchemaSource, Snapshot, Source, salvage,
};
use rusqlite::Connection;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;

/// A database of `sql` as bytes.
fn database(directory: &Path, sql: &str) -> Vec<u8> {
    engine::init().unwrap();
    let path = directory.join("made");
    let connection = Connection::open(&path).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DDL, true).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
}

fn salvaged_by(directory: &Path, bytes: &[u8], options: &SalvageOptions) -> (Salvage, Connection) {
    let path = directory.join("salvaged");
    let _ = std::fs::remove_file(&path);
    let source = Source { database: &Bytes(bytes), wal: None };
    let account = salvage(source, options, &path, &NoProgress).unwrap();
    let connection = Connection::open(&path).unwrap();
    let check: String =
        connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok", "{account:#?}");
    (account, connection)
}

fn salvaged(directory: &Path, bytes: &[u8]) -> (Salvage, Connection) {
    salvaged_by(directory, bytes, &SalvageOptions::default())
}

/// What SQLite itself makes of the bytes.
fn sqlite(directory: &Path, bytes: &[u8]) -> Connection {
    let path = directory.join("damaged");
    std::fs::write(&path, bytes).unwrap();
    Connection::open(&path).unwrap()
}

struct Bytes<'a>(&'a [u8]);

impl engine::PageSource for Bytes<'_> {
    fn size(&self) -> engine::Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> engine::Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

/// The rows of a query as text, as far as they can be read.
fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let Ok(mut statement) = connection.prepare(sql) else { return Vec::new() };
    let width = statement.column_count();
    let mut found = statement.query([]).unwrap();
    let mut rows = Vec::new();
    while let Ok(Some(row)) = found.next() {
        let value = |at| match row.get_ref(at).unwrap() {
            ValueRef::Null => "NULL".to_owned(),
            ValueRef::Integer(value) => value.to_string(),
            ValueRef::Real(value) => format!("{value:?}"),
            ValueRef::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
            ValueRef::Blob(blob) => format!("x'{blob:02x?}'"),
        };
        rows.push((0..width).map(value).collect::<Vec<_>>().join(" | "));
    }
    rows
}

fn set(rows: &[String]) -> BTreeSet<&String> {
    rows.iter().collect()
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % end
    }
}

#[test]
fn rows_older_than_a_column_are_in_their_table_whatever_its_default_is() {
    let directory = tempfile::tempdir().unwrap();
    let defaults = [
        "''",
        "'x'",
        "'it''s'",
        "\"\"",
        "\"x\"",
        "\"a \"\"b\"\" c\"",
        "x",
        "[x]",
        "[a b]",
        "`x`",
        "\"NULL\"",
        "5",
        "+5",
        "-5",
        "- 5",
        "-1.5e3",
        "+.5",
        "0x1F",
        "-9223372036854775808",
        "TRUE",
        "false",
        "x'ab'",
        "X''",
        "(1)",
        "(-7)",
        "( x'00' )",
        "((('x')))",
        "/* c */ 'x'",
    ];
    let made = database(
        directory.path(),
        "CREATE TABLE old(id INTEGER PRIMARY KEY, name TEXT);
         INSERT INTO old(name) VALUES ('a'), ('b'), (NULL);",
    );
    let path = directory.path().join("altered");
    std::fs::write(&path, made).unwrap();
    let altered = Connection::open(&path).unwrap();
    let mut added = 0;
    for default in defaults {
        for constraint in ["", "NOT NULL", "COLLATE nocase"] {
            for kind in ["", "TEXT", "INTEGER", "REAL", "NUMERIC", "\"DEFAULT 1\""] {
                let alter = format!(
                    "ALTER TABLE old ADD COLUMN new_{added} {kind} {constraint} DEFAULT {default}"
                );
                let outcome = altered.execute_batch(&alter);
                assert!(outcome.is_ok(), "{alter}: {outcome:?}");
                added += 1;
            }
        }
    }
    altered.execute_batch("INSERT INTO old(name) VALUES ('d')").unwrap();
    altered.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let (account, connection) = salvaged(directory.path(), &bytes);
    assert_eq!(account.lost_and_found, 0);
    let original = sqlite(directory.path(), &bytes);
    for column in (0..added).map(|number| format!("new_{number}")) {
        let all = format!("SELECT id, name, {column} FROM old");
        let before = rows(&original, &all);
        assert_eq!(before.len(), 4);
        assert_eq!(rows(&connection, &all), before, "{}", schema_of(&connection));
    }
}

fn schema_of(connection: &Connection) -> String {
    rows(connection, "SELECT sql FROM sqlite_schema").join(";\n")
}

/// Where in a database a text is: the last place, for the first may be what a root had once.
fn place_of(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).rposition(|window| window == text.as_bytes()).unwrap()
}

#[test]
fn a_row_with_a_reserved_type_is_a_row() {
    let directory = tempfile::tempdir().unwrap();
    for rows_of in [1, 2, 60] {
        for (of, value) in [(0_u8, "NULL"), (8, "0"), (9, "1")] {
            for reserved in [10, 11] {
                for (without_rowid, long) in [(false, false), (false, true), (true, false)] {
                    let sql = format!(
                        "CREATE TABLE t(k TEXT PRIMARY KEY, v, b) {};
                         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows_of})
                         INSERT INTO t SELECT 'key-' || printf('%03d', i), {value},
                                printf('%.*c', CASE WHEN i = 1 THEN {} ELSE 3 END, 'x') FROM n;",
                        if without_rowid { "WITHOUT ROWID" } else { "" },
                        if long { 9000 } else { 3 },
                    );
                    let mut bytes = database(directory.path(), &sql);
                    // Header length, type of the key, type of the value, type of the text.
                    let at = place_of(&bytes, "key-001xxx") - if long { 3 } else { 1 } - 1;
                    assert_eq!(bytes[at], of);
                    bytes[at] = reserved;
                    let all = "SELECT * FROM t NOT INDEXED";
                    let read = rows(&sqlite(directory.path(), &bytes), all);
                    assert_eq!(read.len(), rows_of);
                    let (_, connection) = salvaged(directory.path(), &bytes);
                    let mut found = rows(&connection, all);
                    assert_eq!(found.len(), rows_of, "{sql}");
                    found.extend(rows(&connection, "SELECT c0, c1, c2 FROM lost_and_found"));
                    assert!(set(&found).is_superset(&set(&read)), "{sql}: {found:?}");
                }
            }
        }
    }
}

#[test]
fn a_file_that_is_cut_has_no_row_that_never_was() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(
        directory.path(),
        "PRAGMA page_size = 512;
         CREATE TABLE line(id INTEGER PRIMARY KEY, product INT, price REAL, n REAL);
         CREATE TABLE pairs(a INT, b INT, c, PRIMARY KEY(a, b)) WITHOUT ROWID;
         CREATE TABLE long(id INTEGER PRIMARY KEY, body);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40)
         INSERT INTO line SELECT i, i * 7, 1.99, i + 0.125 FROM n;
         INSERT INTO pairs SELECT id % 5, id, zeroblob(id % 9) FROM line;
         INSERT INTO long SELECT id, zeroblob(id * 150) FROM line WHERE id < 4;
         INSERT INTO long SELECT id, printf('%.*c', id * 90, 'x') FROM line WHERE id BETWEEN 4 AND 7;",
    );
    let tables = ["line", "pairs", "long"].map(|table| format!("SELECT * FROM {table}"));
    let original = sqlite(directory.path(), &sound);
    let truths = tables.clone().map(|sql| rows(&original, &sql));
    drop(original);
    assert!(sound.len() < 20 * 512, "{}", sound.len());
    for cut in 512..sound.len() {
        let (_, connection) = salvaged(directory.path(), &sound[..cut]);
        for (sql, truth) in tables.iter().zip(&truths) {
            let found = rows(&connection, sql);
            let invented: Vec<_> = set(&found).difference(&set(truth)).cloned().collect();
            assert!(invented.is_empty(), "{sql}, cut at {cut}: {invented:?}");
            assert!(found.len() <= truth.len(), "{sql}, cut at {cut}: twice");
        }
    }
}

#[test]
fn a_flipped_rowid_costs_no_row() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(
        directory.path(),
        "CREATE TABLE words(id INTEGER PRIMARY KEY, word TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 2000)
         INSERT INTO words SELECT i, printf('word-%04d', i) FROM n;
         DELETE FROM words WHERE id BETWEEN 700 AND 720;
         VACUUM;",
    );
    let truth = rows(&sqlite(directory.path(), &sound), "SELECT * FROM words");
    let mut numbers = Numbers(1);
    for _ in 0..25 {
        let row = &truth[numbers.below(truth.len() as u64) as usize];
        let word = row.split('\'').nth(1).unwrap();
        // Length, rowid of one byte or two, header length, two types.
        let rowid: i64 = row.split(' ').next().unwrap().parse().unwrap();
        let size = if rowid < 128 { 1 } else { 2 };
        let at = place_of(&sound, word) - 3 - size;
        for bit in 0..7 * size {
            let mut damaged = sound.clone();
            damaged[at + bit / 7] ^= 1 << (bit % 7);
            let (_, connection) = salvaged(directory.path(), &damaged);
            let found = rows(&connection, "SELECT * FROM words");
            let words =
                rows(&connection, "SELECT word FROM words UNION SELECT c1 FROM lost_and_found");
            assert!(words.contains(&format!("'{word}'")), "{row}, bit {bit}: {found:?}");
            let read = rows(&sqlite(directory.path(), &damaged), "SELECT * FROM words");
            let lost = rows(&connection, "SELECT id, c1 FROM lost_and_found");
            let all: BTreeSet<&String> = found.iter().chain(&lost).collect();
            assert!(all.is_superset(&set(&read)), "{row}, bit {bit}: {lost:?}");
        }
    }
}

#[test]
fn whole_chains_are_not_exchanged_because_other_pages_were() {
    let directory = tempfile::tempdir().unwrap();
    for (page_size, most) in [(4096, 20_000), (1024, 6000), (512, 3000)] {
        for seed in 1..=6 {
            let mut numbers = Numbers(seed * 7919);
            let mut sql = format!(
                "PRAGMA page_size = {page_size};
                 CREATE TABLE images(id INTEGER PRIMARY KEY, data BLOB, name TEXT);
                 CREATE TABLE small(id INTEGER PRIMARY KEY, a TEXT);"
            );
            for _ in 0..12 {
                sql += "BEGIN;";
                for _ in 0..30 {
                    let length = 200 + numbers.below(most - 200);
                    let name = numbers.below(1 << 30);
                    sql += &format!(
                        "INSERT INTO images(data, name)
                         VALUES (unhex(replace(hex(randomblob({length})), '00', '01')), 'n{name}');"
                    );
                }
                for _ in 0..40 {
                    let length = 20 + numbers.below(70);
                    sql += &format!("INSERT INTO small(a) VALUES (printf('%.*c', {length}, 's'));");
                }
                let rest = numbers.below(3);
                sql += &format!("DELETE FROM images WHERE id % 3 = {rest}; COMMIT;");
            }
            let mut damaged = database(directory.path(), &sql);
            let original = sqlite(directory.path(), &damaged);
            let all = "SELECT * FROM images";
            let truth = rows(&original, all);
            let leaves: Vec<usize> = rows(
                &original,
                "SELECT pageno FROM dbstat WHERE name = 'small' AND pagetype = 'leaf'",
            )
            .iter()
            .map(|page| page.parse().unwrap())
            .collect();
            drop(original);
            let (one, other) = (leaves[0] - 1, leaves[leaves.len() - 1] - 1);
            for at in 0..page_size {
                damaged.swap(one * page_size + at, other * page_size + at);
            }
            let (_, connection) = salvaged(directory.path(), &damaged);
            let found = rows(&connection, all);
            assert!(found == truth, "{page_size}, {seed}: {} of {}", found.len(), truth.len());
        }
    }
}

const MIXED: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a, b TEXT);
    CREATE INDEX i ON t(b);
    CREATE TABLE u(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200)
    INSERT INTO t SELECT i, i * 3, 'row ' || i FROM n;
    INSERT INTO u SELECT 'ключ ' || a, id FROM t;";

/// Databases of every format.
fn formats(directory: &Path, schema: &str) -> Vec<(String, Vec<u8>)> {
    let mut databases = Vec::new();
    for (page_size, encoding, auto_vacuum) in [
        (4096, "UTF-8", 0),
        (512, "UTF-16le", 1),
        (1024, "UTF-8", 2),
        (8192, "UTF-16be", 0),
        (65_536, "UTF-8", 0),
    ] {
        let before = format!(
            "PRAGMA page_size = {page_size}; PRAGMA encoding = '{encoding}';
             PRAGMA auto_vacuum = {auto_vacuum};"
        );
        databases.push((before.clone(), database(directory, &format!("{before} {schema}"))));
    }
    let path = directory.join("reserved");
    let connection = Connection::open(&path).unwrap();
    let mut reserved = 12;
    // SAFETY: the connection is open, and this file control reads and writes one int.
    unsafe {
        let operation = rusqlite::ffi::SQLITE_FCNTL_RESERVE_BYTES;
        let place = (&raw mut reserved).cast();
        rusqlite::ffi::sqlite3_file_control(
            connection.handle(),
            c"main".as_ptr(),
            operation,
            place,
        );
    }
    connection.execute_batch(&format!("PRAGMA page_size = 1024; {schema}")).unwrap();
    connection.close().unwrap();
    databases.push(("12 bytes reserved".to_owned(), std::fs::read(&path).unwrap()));
    std::fs::remove_file(&path).unwrap();
    databases
}

/// All rows of [`MIXED`].
fn mixed(connection: &Connection) -> Vec<String> {
    let mut all = rows(connection, "SELECT * FROM t NOT INDEXED");
    all.extend(rows(connection, "SELECT * FROM u"));
    all
}

/// What a snapshot of the file would say.
fn snapshot(directory: &Path, bytes: &[u8]) -> SalvageOptions {
    let connection = sqlite(directory, bytes);
    let mut statement = connection
        .prepare("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema")
        .unwrap();
    let entry = |row: &rusqlite::Row<'_>| {
        Ok(SchemaEntry {
            kind: row.get(0)?,
            name: row.get(1)?,
            table: row.get(2)?,
            root: row.get(3)?,
            sql: row.get(4)?,
        })
    };
    let schema = statement.query_map([], entry).unwrap().map(Result::unwrap).collect();
    let header = fusion_sqlite::format::Header::parse(bytes).unwrap();
    let snapshot = Snapshot {
        page_size: header.page_size,
        reserved: header.reserved,
        encoding: u8::try_from(header.encoding).unwrap(),
        auto_vacuum: header.auto_vacuum(),
        user_version: 0,
        application_id: 0,
        schema_cookie: header.schema_cookie,
        schema,
        taken_ms: 0,
    };
    SalvageOptions { snapshot: Some(snapshot) }
}

#[test]
fn no_bit_of_the_header_is_believed_against_the_pages() {
    let directory = tempfile::tempdir().unwrap();
    let (_, sound) = formats(directory.path(), MIXED).swap_remove(0);
    let truth = mixed(&sqlite(directory.path(), &sound));
    assert_eq!(truth.len(), 400);
    for bit in 0..800 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let (account, connection) = salvaged(directory.path(), &damaged);
        assert!(mixed(&connection) == truth, "byte {}, bit {}", bit / 8, bit % 8);
        assert_eq!(account.lost_and_found, 0, "byte {}, bit {}", bit / 8, bit % 8);
    }
}

#[test]
fn a_wrong_field_of_the_header_costs_no_row_whatever_the_format_is() {
    let directory = tempfile::tempdir().unwrap();
    for (format, sound) in formats(directory.path(), MIXED) {
        let truth = mixed(&sqlite(directory.path(), &sound));
        let options = snapshot(directory.path(), &sound);
        let mut wrong: Vec<(usize, Vec<u8>)> = vec![(0, vec![0; 100]), (0, vec![0xa5; 100])];
        for page_size in [0, 1, 512, 1000, 1024, 2048, 4096, 8192, 32_768_u16] {
            wrong.push((16, page_size.to_be_bytes().to_vec()));
        }
        wrong.extend([1, 8, 32, 255].map(|reserved| (20, vec![reserved])));
        wrong.extend([0, 5, 255].map(|format| (47, vec![format])));
        wrong.extend([0, 1, 2, 3, 4].map(|encoding| (59, vec![encoding])));
        wrong.extend([0_u32, 4].map(|root| (52, root.to_be_bytes().to_vec())));
        for (at, field) in wrong {
            let mut damaged = sound.clone();
            damaged[at..at + field.len()].copy_from_slice(&field);
            for options in [&SalvageOptions::default(), &options] {
                let (account, connection) = salvaged_by(directory.path(), &damaged, options);
                assert!(mixed(&connection) == truth, "{format}, {at}: {field:?}: {account:?}");
                let same = ["page_size", "encoding", "auto_vacuum"].iter().all(|pragma| {
                    let pragma = format!("PRAGMA {pragma}");
                    rows(&connection, &pragma) == rows(&sqlite(directory.path(), &sound), &pragma)
                });
                let zeroed = field.len() == 100 || field == [0; 4];
                assert!(same || zeroed, "{format}, {at}: {field:?}");
            }
        }
    }
}

#[test]
fn without_a_header_tables_without_rowids_are_whole() {
    let directory = tempfile::tempdir().unwrap();
    for rows_of in [1, 5, 1000] {
        let schema = format!(
            "CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT {rows_of})
             INSERT INTO w SELECT 'key ' || i, i FROM n;"
        );
        for (format, mut bytes) in formats(directory.path(), &schema) {
            let all = "SELECT * FROM w";
            let truth = rows(&sqlite(directory.path(), &bytes), all);
            assert_eq!(truth.len(), rows_of);
            bytes[..100].fill(0);
            let (account, connection) = salvaged(directory.path(), &bytes);
            assert!(rows(&connection, all) == truth, "{format}: {account:?}");
        }
    }
}

#[test]
fn a_virtual_table_that_cannot_be_made_again_costs_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(7);
    for module in ["fts3(a, b)", "fts4(a, b)", "fts5(a, b)", "rtree(a, b, c)"] {
        let sound = database(
            directory.path(),
            &format!(
                "CREATE TABLE before(x);
                 CREATE VIRTUAL TABLE v USING {module};
                 CREATE TABLE after(x);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50)
                 INSERT INTO before SELECT 'row ' || i FROM n;
                 {};
                 INSERT INTO after SELECT x FROM before;",
                match module {
                    "rtree(a, b, c)" => "INSERT INTO v SELECT rowid, rowid, rowid + 1 FROM before",
                    _ => "INSERT INTO v(a, b) SELECT rowid, x FROM before",
                }
            ),
        );
        let tables = ["SELECT * FROM before", "SELECT * FROM after"];
        let original = sqlite(directory.path(), &sound);
        let truth = tables.map(|sql| rows(&original, sql));
        drop(original);
        // The statements of the virtual table and of its own tables.
        let text = |text| place_of(&sound, text);
        let own: Vec<usize> = rows(
            &sqlite(directory.path(), &sound),
            "SELECT sql FROM sqlite_schema WHERE name LIKE 'v%' AND sql IS NOT NULL",
        )
        .iter()
        .flat_map(|sql| {
            let sql = &sql[1..sql.len() - 1];
            text(sql)..text(sql) + sql.len()
        })
        .collect();
        for _ in 0..60 {
            let mut damaged = sound.clone();
            let at = own[numbers.below(own.len() as u64) as usize];
            damaged[at] ^= 1 << numbers.below(8);
            let (account, connection) = salvaged(directory.path(), &damaged);
            for (sql, truth) in tables.iter().zip(&truth) {
                assert!(rows(&connection, sql) == *truth, "{module}, {at}: {account:#?}");
            }
            // One of a module that nobody knows stays as it is.
            let stays = schema_of(&connection).contains("VIRTUAL TABLE");
            let made = rows(&connection, "SELECT 1 FROM v").len();
            let said =
                !account.schema_errors.is_empty() || account.schema_from != SchemaSource::File;
            assert!(
                made == 50 || said || stays,
                "{module}, {at}: {made} {}",
                schema_of(&connection)
            );
        }
    }
}

/// Of each page of a transaction that was written to the file or not, whatever that made of it.
#[test]
fn rows_in_their_place_stay_after_a_torn_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 1..=12 {
        let mut numbers = Numbers(seed * 104_729);
        let path = directory.path().join("torn");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;
                 CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1500)
                 INSERT INTO t SELECT i, printf('row %d %.*c', i, 30 + i * 7919 % 90, 'x') FROM n;
                 PRAGMA wal_checkpoint(TRUNCATE);",
            )
            .unwrap();
        let all = "SELECT * FROM t";
        let mut truth = rows(&connection, all);
        let mut torn = std::fs::read(&path).unwrap();
        for turn in 0..3 {
            connection
                .execute_batch(&format!(
                    "BEGIN; DELETE FROM t WHERE id % 9 = {turn};
                     UPDATE t SET text = text || '~{turn}' WHERE id % 5 = {turn}; COMMIT"
                ))
                .unwrap();
            truth.extend(rows(&connection, all));
        }
        let wal = std::fs::read(directory.path().join("torn-wal")).unwrap();
        connection.close().unwrap();
        std::fs::remove_file(&path).unwrap();
        for frame in wal[32..].chunks_exact(4096 + 24).filter(|_| numbers.below(2) == 0) {
            let page = u32::from_be_bytes(frame[..4].try_into().unwrap()) as usize;
            torn.resize(torn.len().max(page * 4096), 0);
            torn[(page - 1) * 4096..page * 4096].copy_from_slice(&frame[24..]);
        }
        let (_, connection) = salvaged(directory.path(), &torn);
        let found = rows(&connection, all);
        assert!(set(&truth).is_superset(&set(&found)), "{seed}: rows that never were");
        // Rows that are on a leaf in the place that the page above gives it, as far as they are in
        // its range: those that a range of rowids finds.
        let read = sqlite(directory.path(), &torn);
        let mut lost = 0;
        for id in 1..=1500 {
            let by_id = format!("SELECT * FROM t WHERE id = {id}");
            let row = rows(&read, &by_id);
            lost += row.iter().filter(|row| !found.contains(row)).count();
        }
        assert_eq!(lost, 0, "{seed}: of {}", found.len());
    }
}

#[test]
fn a_copy_of_its_only_page_elsewhere_does_not_empty_a_table() {
    let directory = tempfile::tempdir().unwrap();
    for rows_of in [3, 10, 20] {
        let sound = database(
            directory.path(),
            &format!(
                "CREATE TABLE one(id INTEGER PRIMARY KEY, text TEXT);
                 CREATE TABLE many(id INTEGER PRIMARY KEY, text TEXT);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 900)
                 INSERT INTO many SELECT i, 'many ' || i || ' ' || hex(zeroblob(20)) FROM n;
                 INSERT INTO one SELECT id, 'one ' || id FROM many LIMIT {rows_of};"
            ),
        );
        let original = sqlite(directory.path(), &sound);
        let all = "SELECT * FROM one";
        let truth = rows(&original, all);
        let page = |sql: &str| -> usize { rows(&original, sql)[0].parse().unwrap() };
        let from = page("SELECT rootpage FROM sqlite_schema WHERE name = 'one'") - 1;
        let leaves = "SELECT pageno FROM dbstat WHERE name = 'many' AND pagetype = 'leaf'";
        for to in rows(&original, leaves) {
            let to = to.parse::<usize>().unwrap() - 1;
            let mut damaged = sound.clone();
            damaged.copy_within(from * 4096..(from + 1) * 4096, to * 4096);
            let (account, connection) = salvaged(directory.path(), &damaged);
            assert!(rows(&connection, all) == truth, "{rows_of}, page {to}: {account:#?}");
        }
    }
}

#[test]
fn a_free_copy_of_a_leaf_does_not_put_it_out_of_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let sound = database(
        directory.path(),
        "CREATE TABLE t(id INTEGER PRIMARY KEY, text TEXT);
         CREATE TABLE u(id INTEGER PRIMARY KEY, text TEXT);
         CREATE TABLE dropped(text TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 900)
         INSERT INTO t SELECT i, 'text ' || i || ' ' || hex(zeroblob(20)) FROM n;
         INSERT INTO u SELECT id + 5000, text FROM t;
         INSERT INTO dropped SELECT text FROM t;
         DROP TABLE dropped;
         -- Leaves that neither begin nor end where the page above says.
         DELETE FROM t WHERE id % 5 <> 0;",
    );
    let original = sqlite(directory.path(), &sound);
    let all = "SELECT * FROM t";
    let truth = rows(&original, all);
    let leaves = |table: &str| -> Vec<usize> {
        let sql = format!("SELECT pageno FROM dbstat WHERE name = '{table}' AND pagetype = 'leaf'");
        rows(&original, &sql).iter().map(|page| page.parse::<usize>().unwrap() - 1).collect()
    };
    let number = |at: usize| u32::from_be_bytes(sound[at..at + 4].try_into().unwrap()) as usize;
    let trunk = (number(32) - 1) * 4096;
    let swapped = leaves("u");
    for (place, leaf) in leaves("t").into_iter().enumerate() {
        let mut damaged = sound.clone();
        for at in 0..4096 {
            damaged.swap(swapped[0] * 4096 + at, swapped[swapped.len() - 1] * 4096 + at);
        }
        let free = (number(trunk + 8 + 4 * place) - 1) * 4096;
        damaged.copy_within(leaf * 4096..(leaf + 1) * 4096, free);
        let (account, connection) = salvaged(directory.path(), &damaged);
        assert!(rows(&connection, all) == truth, "leaf {leaf}: {account:#?}");
    }
}
