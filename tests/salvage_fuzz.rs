//! Whatever is done to a file's bytes, a salvage ends, without a panic, after a bounded number of
//! reads, and what it makes is a sound database. The same damage in every run.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::path::Path;

use fusion_sqlite::engine::{self, NoProgress, PageSource};
use fusion_sqlite::recovery::salvage::{SalvageOptions, Source, salvage};
use rusqlite::Connection;

/// Damaged files for each database.
const FILES: u64 = 60;

/// Bytes that count how often they are read.
struct Counted {
    bytes: Vec<u8>,
    reads: Cell<u64>,
}

impl PageSource for Counted {
    fn size(&self) -> engine::Result<u64> {
        self.bytes.as_slice().size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> engine::Result<usize> {
        self.reads.set(self.reads.get() + 1);
        self.bytes.as_slice().read_at(buffer, offset)
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end.max(1) as u64).unwrap()
    }
}

const SCHEMA: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT NOT NULL, b, c REAL);
    CREATE INDEX t_a ON t(a);
    CREATE TABLE w(k TEXT, n INTEGER, v BLOB, PRIMARY KEY(k, n)) WITHOUT ROWID;
    CREATE VIRTUAL TABLE f USING fts5(x);
    CREATE VIEW v AS SELECT a FROM t;
    CREATE TRIGGER r AFTER DELETE ON t BEGIN DELETE FROM w WHERE n = old.id; END;
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 150)
    INSERT INTO t SELECT i, 'a' || i, zeroblob(i % 7 * 300), i / 3.0 FROM n;
    INSERT INTO w SELECT a, id, b FROM t;
    INSERT INTO f SELECT a FROM t;
    DELETE FROM t WHERE id % 4 = 0;";

/// A database and its WAL.
fn made(directory: &Path, pragmas: &str) -> (Vec<u8>, Vec<u8>) {
    engine::init().unwrap();
    let path = directory.join("made");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch(&format!("{pragmas}; PRAGMA journal_mode = WAL; {SCHEMA}")).unwrap();
    connection
        .execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA wal_autocheckpoint = 0")
        .unwrap();
    connection
        .execute_batch("UPDATE t SET c = 1 WHERE id < 40; DELETE FROM w WHERE n > 100")
        .unwrap();
    // The copies of a file that is still open: nobody writes to it meanwhile.
    let wal = directory.join("made-wal");
    let bytes = (std::fs::read(&path).unwrap(), std::fs::read(&wal).unwrap());
    connection.close().unwrap();
    std::fs::remove_file(&path).unwrap();
    bytes
}

/// Does one to eight things to a file.
fn damage(bytes: &mut Vec<u8>, page_size: usize, random: &mut Random) {
    for _ in 0..=random.below(8) {
        let pages = (bytes.len() / page_size).max(1);
        let place = random.below(pages) * page_size;
        let within = place + random.below(page_size);
        let length = bytes.len();
        match random.below(9) {
            0 => flip(bytes, within, random),
            // The head of a page, where it hurts.
            1 => flip(bytes, place + random.below(16), random),
            2 => flip(bytes, random.below(100), random),
            3 => fill(bytes, place, page_size, 0),
            4 => fill(bytes, within, page_size / 2, 0xff),
            5 => bytes.truncate(length - random.below(length / 2 + 1)),
            6 => {
                let from = random.below(pages) * page_size;
                if from + page_size <= length && place + page_size <= length {
                    bytes.copy_within(from..from + page_size, place);
                }
            }
            7 => {
                let number = u32::try_from(random.below(pages + 2)).unwrap().to_be_bytes();
                if let Some(to) = bytes.get_mut(within..within + 4) {
                    to.copy_from_slice(&number);
                }
            }
            _ => {
                for offset in 0..random.below(64) {
                    flip(bytes, within + offset, random);
                }
            }
        }
    }
}

fn flip(bytes: &mut [u8], at: usize, random: &mut Random) {
    let bit = random.below(8);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

fn fill(bytes: &mut [u8], from: usize, count: usize, with: u8) {
    let end = (from + count).min(bytes.len());
    if let Some(bytes) = bytes.get_mut(from..end) {
        bytes.fill(with);
    }
}

fn run(seed: u64, page_size: usize, pragmas: &str) {
    let directory = tempfile::tempdir().unwrap();
    let (database, wal) =
        made(directory.path(), &format!("PRAGMA page_size = {page_size}; {pragmas}"));
    let mut random = Random(seed);
    let mut saved = 0;
    for file in 0..FILES {
        let (mut database, mut wal) = (database.clone(), wal.clone());
        damage(&mut database, page_size, &mut random);
        if file % 2 == 0 {
            damage(&mut wal, page_size + 24, &mut random);
        }
        let pages = ((database.len() + wal.len()) / page_size) as u64;
        let counted = |bytes| Counted { bytes, reads: Cell::new(0) };
        let (database, wal) = (counted(database), counted(wal));
        let target = directory.path().join("salvaged");
        let with_wal = file % 3 != 0;
        let source =
            Source { database: &database, wal: with_wal.then_some(&wal as &dyn PageSource) };
        let made = salvage(source, &SalvageOptions::default(), &target, &NoProgress);
        let reads = database.reads.get() + wal.reads.get();
        assert!(reads <= 64 * (pages + 64), "file {file}: {reads} reads of {pages} pages");
        match made {
            Ok(_) => {
                saved += 1;
                let connection = Connection::open(&target).unwrap();
                let sql = "PRAGMA integrity_check";
                let check: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
                assert_eq!(check, "ok", "file {file}");
                connection.close().unwrap();
                std::fs::remove_file(&target).unwrap();
            }
            Err(error) => {
                assert_eq!(error.code, "ERR_FUSION_NOTHING_TO_SALVAGE", "file {file}: {error}");
                assert!(!target.exists(), "file {file}");
            }
        }
    }
    assert!(saved * 10 >= FILES * 9, "{saved} of {FILES} gave a database");
}

#[test]
fn small_pages() {
    run(1, 512, "");
}

#[test]
fn auto_vacuum() {
    run(2, 1024, "PRAGMA auto_vacuum = FULL");
}

#[test]
fn utf_16() {
    run(3, 4096, "PRAGMA encoding = 'UTF-16le'");
}
