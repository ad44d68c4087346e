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

use std::path::{Path, PathBuf};

use fusion_sqlite::engine::{self, Unwatched};
use fusion_sqlite::health::{self, Finding, Health, Kind};
use fusion_sqlite::recovery::repair::{self, Options};
use fusion_sqlite::recovery::{Outcome, Reason, Report};
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
        let page: usize = sql.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
        let rows = rows(&sql);
        // Without the journal's last trace.
        drop(sql);
        Self { directory, path, page, rows }
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

    fn check(&self, kind: Kind) -> Health {
        health::check(&self.path, kind, &Unwatched).unwrap()
    }

    fn repair(&self, reason: Reason) -> engine::Result<Report> {
        let options = Options { reason, ..Options::default() };
        repair::repair(&self.path, &options, &mut |_| (), &Unwatched)
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
    let pick = |random: &mut Random| pages[random.below(pages.len() as u64) as usize];
    let at = |number: u32| (number as usize - 1) * page;
    let one = pick(random);
    match random.below(5) {
        0 => {
            sample.change(|bytes| bytes[at(one)..at(one) + page].fill(0));
            format!("{name}: page {one} zeroed")
        }
        1 => {
            let root = pages[0];
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
                .map(|_| (random.below(page as u64) as usize, 1_u8 << random.below(8)))
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
    for seed in 0..120_u64 {
        let mut random = Random::new(seed);
        let sample = Sample::new(&mut random, settings[seed as usize % settings.len()]);
        let name = INDEXES[random.below(INDEXES.len() as u64) as usize].0;
        let mut about = format!("seed {seed}, {}", damage(&sample, name, &mut random));
        for kind in [Kind::Quick, Kind::Full] {
            let health = sample.check(kind);
            for finding in &health.findings {
                let is_its_own = match finding {
                    Finding::IndexDamage { index, .. } => index == name || kind == Kind::Quick,
                    Finding::Freelist { .. } => true,
                    _ => false,
                };
                // A pointer that leads to another index has that one named, too.
                assert!(is_its_own || matches!(finding, Finding::IndexDamage { .. }), "{about}: {health:?}");
            }
            about = format!("{about}; {:?}: {}", kind, health.summary());
        }
        let health = sample.check(Kind::Full);
        if health.ok {
            // Nothing reads the bits that were flipped.
            continue;
        }
        found += 1;
        let report = sample.repair(Reason::Damage).unwrap_or_else(|error| panic!("{about}: {error}"));
        assert_eq!(report.outcome, Outcome::Reindexed, "{about}: {}", report.text);
        assert!(report.preserved.is_none() && report.salvage.is_none(), "{about}");
        let sql = rusqlite::Connection::open(&sample.path).unwrap();
        assert_eq!(rows(&sql), sample.rows, "{about}");
        let verdict: String =
            sql.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(verdict, "ok", "{about}");
        sample.assert_alone(&about);
    }
    assert!(found > 70, "{found}");
}
