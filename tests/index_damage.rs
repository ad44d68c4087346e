//! Damage of indexes alone: the table is not blamed for it, and they are rebuilt without a salvage.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "damage/random.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod random;

use std::path::PathBuf;

use fusion_sqlite::engine::{self, NoProgress};
use fusion_sqlite::health::{self, CheckKind, Finding, Health};
use fusion_sqlite::recovery::repair::{self, RepairOptions};
use fusion_sqlite::recovery::{Reason, RepairOutcome, Report};
use random::Random;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::Value;
use tempfile::TempDir;

/// Indexes of a table of their own each, by name.
const INDEXES: [(&str, &str); 7] = [
    ("plain", "CREATE INDEX plain ON t (text)"),
    ("uniq", "CREATE UNIQUE INDEX uniq ON t (number, text)"),
    ("expression", "CREATE INDEX expression ON t (lower(text), number % 7)"),
    ("part", "CREATE INDEX part ON t (text) WHERE number % 3 <> 1"),
    ("descending", "CREATE INDEX descending ON t (number DESC, text)"),
    ("nocase", "CREATE INDEX nocase ON t (text COLLATE NOCASE)"),
    ("without_rowid", "CREATE INDEX without_rowid ON w (text DESC)"),
];

struct Sample {
    directory: TempDir,
    path: PathBuf,
    page: usize,
    rows: Vec<Vec<Value>>,
}

impl Sample {
    fn new(random: &mut Random, settings: &str) -> Self {
        engine::init().unwrap();
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("sample.db");
        let sql = rusqlite::Connection::open(&path).unwrap();
        sql.execute_batch(settings).unwrap();
        sql.execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, number INT, text TEXT);
             CREATE TABLE w (text TEXT, number INT, PRIMARY KEY (number)) WITHOUT ROWID;
             CREATE TABLE other (id INTEGER PRIMARY KEY, text TEXT UNIQUE)",
        )
        .unwrap();
        for (_, index) in INDEXES {
            sql.execute_batch(index).unwrap();
        }
        sql.execute_batch("BEGIN").unwrap();
        for number in 0..900_i64 {
            let length = if random.below(40) == 0 { 1500 } else { 8 + random.below(40) };
            let text: String =
                (0..length).map(|_| char::from(b'A' + random.below(50) as u8)).collect();
            sql.execute("INSERT INTO t (number, text) VALUES (?, ?)", (number * 7 % 901, &text))
                .unwrap();
            sql.execute("INSERT INTO w VALUES (?, ?)", (&text, number)).unwrap();
            sql.execute("INSERT INTO other (text) VALUES (?)", [format!("{number} {text}")])
                .unwrap();
        }
        sql.execute_batch("COMMIT").unwrap();
        let page: u32 = sql.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
        let rows = rows(&sql);
        // Without the journal's last trace.
        drop(sql);
        Self { directory, path, page: page as usize, rows }
    }

    fn pages_of(&self, name: &str) -> Vec<u32> {
        let sql = rusqlite::Connection::open(&self.path).unwrap();
        let mut pages = sql.prepare("SELECT pageno FROM dbstat WHERE name = ? ORDER BY 1").unwrap();
        pages.query_map([name], |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut [u8])) {
        let mut bytes = std::fs::read(&self.path).unwrap();
        change(&mut bytes);
        std::fs::write(&self.path, bytes).unwrap();
    }

    fn check(&self, kind: CheckKind) -> Health {
        health::check(&self.path, kind, &NoProgress).unwrap()
    }

    fn repair(&self, reason: Reason) -> engine::Result<Report> {
        let options = RepairOptions { reason, ..RepairOptions::default() };
        repair::repair(&self.path, &options, &mut |_| (), &NoProgress)
    }

    /// Nothing but the database is left in its folder.
    fn assert_alone(&self, about: &str) {
        let names: Vec<_> = std::fs::read_dir(self.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains("damaged") || name.contains("partial"))
            .collect();
        assert_eq!(names, Vec::<String>::new(), "{about}");
    }
}

fn rows(sql: &rusqlite::Connection) -> Vec<Vec<Value>> {
    let mut all = Vec::new();
    for table in ["t", "w", "other"] {
        let mut read =
            sql.prepare(&format!("SELECT * FROM {table} NOT INDEXED ORDER BY 1, 2")).unwrap();
        let columns = read.column_count();
        let rows = read
            .query_map([], |row| (0..columns).map(|at| row.get(at)).collect::<Result<Vec<_>, _>>())
            .unwrap();
        all.extend(rows.map(|row| row.unwrap()));
    }
    all
}

/// Damages some pages of an index; answers what was done.
fn damage(sample: &Sample, name: &str, random: &mut Random) -> String {
    let pages = sample.pages_of(name);
    let page = sample.page;
    let pick = |random: &mut Random| pages[random.below(pages.len())];
    let at = |number: u32| (number as usize - 1) * page;
    let one = pick(random);
    match random.below(5) {
        0 => {
            sample.change(|bytes| bytes[at(one)..at(one) + page].fill(0));
            format!("{name}: page {one} zeroed")
        }
        1 => {
            let sql = rusqlite::Connection::open(&sample.path).unwrap();
            let root: u32 = sql
                .query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?", [name], |row| {
                    row.get(0)
                })
                .unwrap();
            drop(sql);
            sample.change(|bytes| bytes[at(root)..at(root) + page].fill(0xa5));
            format!("{name}: page {root} overwritten")
        }
        2 => {
            let two = pick(random);
            sample.change(|bytes| {
                let (first, second) = (one.min(two), one.max(two));
                if first != second {
                    let (left, right) = bytes.split_at_mut(at(second));
                    left[at(first)..at(first) + page].swap_with_slice(&mut right[..page]);
                }
            });
            format!("{name}: pages {one} and {two} swapped")
        }
        _ => {
            let bits: Vec<_> = (0..1 + random.below(6))
                .map(|_| (random.below(page), 1_u8 << random.below(8)))
                .collect();
            sample.change(|bytes| {
                for (offset, bit) in &bits {
                    bytes[at(one) + offset] ^= bit;
                }
            });
            format!("{name}: page {one}, bits {bits:?}")
        }
    }
}

#[test]
fn an_index_that_is_damaged_is_rebuilt_and_its_table_is_not_blamed() {
    let settings = [
        "",
        "PRAGMA page_size = 512",
        "PRAGMA journal_mode = WAL",
        "PRAGMA page_size = 1024; PRAGMA auto_vacuum = FULL",
    ];
    let mut found = 0;
    for seed in 0..64_u64 {
        let mut random = Random::new(seed);
        let sample = Sample::new(&mut random, settings[seed as usize % settings.len()]);
        let name = INDEXES[random.below(INDEXES.len())].0;
        let about = format!("seed {seed}, {}", damage(&sample, name, &mut random));
        for kind in [CheckKind::Quick, CheckKind::Full] {
            let health = sample.check(kind);
            // A pointer that leads to a page of another index has that one named, too, and an
            // interior page that names fewer pages than it did is no fault to SQLite.
            let is_of_indexes = |finding: &Finding| {
                matches!(finding, Finding::IndexDamage { .. } | Finding::Freelist { .. })
            };
            assert!(health.findings.iter().all(is_of_indexes), "{about}: {health:?}");
            if about.ends_with("overwritten") {
                let [Finding::IndexDamage { index, pages, .. }] = &health.findings[..] else {
                    panic!("{about}: {health:?}");
                };
                assert!(index == name && pages.len() == 1, "{about}: {health:?}");
            }
        }
        let health = sample.check(CheckKind::Full);
        if health.ok {
            // Nothing reads the bits that were flipped.
            continue;
        }
        found += 1;
        let report =
            sample.repair(Reason::Damage).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_eq!(report.outcome, RepairOutcome::Reindexed, "{about}: {}", report.text);
        assert!(report.preserved.is_none() && report.salvage.is_none(), "{about}");
        let sql = rusqlite::Connection::open(&sample.path).unwrap();
        assert!(rows(&sql) == sample.rows, "{about}");
        let verdict: String =
            sql.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok", "{about}");
        sample.assert_alone(&about);
    }
    assert!(found > 36, "{found}");
}

/// Indexes over what only the application knows, by name.
const OF_THE_APPLICATION: [(&str, &str); 4] = [
    ("slugs", "CREATE INDEX slugs ON t (slug(text), number)"),
    ("long", "CREATE INDEX long ON t (number) WHERE slug(text) > 'c'"),
    ("own_order", "CREATE UNIQUE INDEX own_order ON t (number, text COLLATE backwards)"),
    ("own_order_of_w", "CREATE INDEX own_order_of_w ON w (text COLLATE backwards)"),
];

/// A connection of the application.
fn application(path: &std::path::Path) -> rusqlite::Connection {
    let sql = rusqlite::Connection::open(path).unwrap();
    let flags = FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_UTF8;
    sql.create_scalar_function("slug", 1, flags, |call| Ok(call.get::<String>(0)?.to_lowercase()))
        .unwrap();
    sql.create_collation("backwards", |one, other| other.cmp(one)).unwrap();
    sql
}

#[test]
fn an_index_that_only_the_application_can_rebuild_is_left_to_it() {
    let mut found = 0;
    for seed in 0..24_u64 {
        let mut random = Random::named("application", seed);
        let sample = Sample::new(&mut random, "PRAGMA page_size = 1024");
        let sql = application(&sample.path);
        for (_, index) in OF_THE_APPLICATION {
            sql.execute_batch(index).unwrap();
        }
        drop(sql);
        for kind in [CheckKind::Quick, CheckKind::Full] {
            assert_eq!(sample.check(kind).findings, [], "seed {seed}: it is sound");
        }
        let name = OF_THE_APPLICATION[random.below(OF_THE_APPLICATION.len())].0;
        let about = format!("seed {seed}, {}", damage(&sample, name, &mut random));
        let [quick, full] = [CheckKind::Quick, CheckKind::Full].map(|kind| sample.check(kind));
        let names = |health: &Health| -> Vec<String> {
            let index = |finding: &Finding| match finding {
                Finding::IndexDamage { index, needs_application, .. } => {
                    assert!(*needs_application, "{about}: {health:?}");
                    Some(index.clone())
                }
                Finding::Freelist { .. } => None,
                _ => panic!("{about}: {health:?}"),
            };
            health.findings.iter().filter_map(index).collect()
        };
        assert_eq!(names(&quick), names(&full), "{about}");
        assert_eq!(quick.ok, full.ok, "{about}: {quick:?} {full:?}");
        if names(&full).is_empty() {
            // Nothing reads the bits that were flipped, or entries are gone that only the
            // application can miss.
            continue;
        }
        found += 1;
        let before = std::fs::read(&sample.path).unwrap();
        let refused = sample.repair(Reason::Damage).unwrap_err();
        assert_eq!(refused.errcode, rusqlite::ffi::SQLITE_CORRUPT_INDEX, "{about}: {refused}");
        assert!(refused.message.contains("REINDEX"), "{about}: {refused}");
        assert_eq!(std::fs::read(&sample.path).unwrap(), before, "{about}");
        sample.assert_alone(&about);
    }
    assert!(found > 8, "{found}");
}

#[test]
fn an_index_out_of_step_that_the_application_rebuilds_is_in_order() {
    let sample = Sample::new(&mut Random::new(1), "");
    let sql = application(&sample.path);
    sql.execute_batch(OF_THE_APPLICATION[0].1).unwrap();
    // The index is no part of the schema while rows are deleted.
    let change = |statements: &str| {
        let sql = rusqlite::Connection::open(&sample.path).unwrap();
        sql.execute_batch(&format!("PRAGMA writable_schema = ON; {statements}")).unwrap();
    };
    let entry: (u32, String) = sql
        .query_row("SELECT rootpage, sql FROM sqlite_schema WHERE name = 'slugs'", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    drop(sql);
    change("DELETE FROM sqlite_schema WHERE name = 'slugs'; PRAGMA schema_version = 1000");
    change("DELETE FROM t WHERE id > 880");
    change(&format!(
        "INSERT INTO sqlite_schema VALUES ('index', 'slugs', 't', {}, '{}');
         PRAGMA schema_version = 2000",
        entry.0, entry.1
    ));
    for kind in [CheckKind::Quick, CheckKind::Full] {
        let health = sample.check(kind);
        let [Finding::IndexDamage { index, needs_application: true, .. }] = &health.findings[..]
        else {
            panic!("{health:?}");
        };
        assert_eq!(index, "slugs");
    }
    sample.repair(Reason::Damage).unwrap_err();
    application(&sample.path).execute_batch("REINDEX slugs").unwrap();
    assert_eq!(sample.check(CheckKind::Full).findings, []);
    assert_eq!(sample.repair(Reason::Damage).unwrap().outcome, RepairOutcome::Healthy);
}

#[test]
fn rows_that_a_table_no_longer_leads_to_are_salvaged_and_not_forgotten_by_a_reindex() {
    let sample = Sample::new(&mut Random::new(7), "PRAGMA page_size = 512");
    let sql = rusqlite::Connection::open(&sample.path).unwrap();
    let root: u32 = sql
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'other'", [], |row| row.get(0))
        .unwrap();
    let parent: u32 = sql
        .query_row(
            "SELECT pageno FROM dbstat WHERE name = 'other' AND pagetype = 'internal'
              AND ncell > 4 AND pageno <> ?",
            [root],
            |row| row.get(0),
        )
        .unwrap();
    drop(sql);
    // The page forgets its last two cells, and counts their bytes as free.
    sample.change(|bytes| {
        let page = &mut bytes[(parent as usize - 1) * 512..][..512];
        let word = |page: &[u8], at: usize| usize::from(page[at]) << 8 | usize::from(page[at + 1]);
        let cells = word(page, 3);
        let mut starts: Vec<_> = (0..cells).map(|cell| word(page, 12 + 2 * cell)).collect();
        starts.truncate(cells - 2);
        page[3..5].copy_from_slice(&(cells as u16 - 2).to_be_bytes());
        page[5..7].copy_from_slice(&(*starts.iter().min().unwrap() as u16).to_be_bytes());
    });
    let health = sample.check(CheckKind::Full);
    let is_of_index =
        |it: &Finding| matches!(it, Finding::IndexDamage { table, .. } if table == "other");
    assert!(health.findings.iter().any(is_of_index), "{health:?}");
    let report = sample.repair(Reason::Damage).unwrap();
    assert_eq!(report.outcome, RepairOutcome::Salvaged, "{}", report.text);
    let sql = rusqlite::Connection::open(&sample.path).unwrap();
    let is = rows(&sql);
    let gone = sample.rows.iter().filter(|row| !is.contains(row)).count();
    let lost_and_found: usize = sql
        .query_row("SELECT count(*) FROM lost_and_found", [], |row| row.get::<_, u32>(0))
        .map_or(0, |count| count as usize);
    assert_eq!(is.len() + lost_and_found, sample.rows.len(), "{}", report.text);
    assert_eq!(gone, lost_and_found, "{}", report.text);
}
