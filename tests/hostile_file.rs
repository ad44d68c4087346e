//! Files whose pages lead to each other as no database's do: a salvage ends after a bounded number
//! of reads, keeps what is sound, and makes a sound database.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fusion_sqlite::engine::{self, PageSource, Progress, Stage};
use fusion_sqlite::recovery::salvage::{Salvage, SalvageOptions, Source, salvage};
use rusqlite::Connection;

const PAGE: usize = 1024;

/// Bytes that count how often they are read.
struct Counted {
    bytes: Vec<u8>,
    reads: AtomicU64,
}

impl PageSource for Counted {
    fn size(&self) -> engine::Result<u64> {
        self.bytes.as_slice().size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> engine::Result<usize> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.bytes.as_slice().read_at(buffer, offset)
    }
}

/// Counts how often it is asked: work that nobody could end is not asked about.
#[derive(Default)]
struct Counting(AtomicU64);

impl Progress for Counting {
    fn stage(&self, _: Stage) {}

    fn check_cancelled(&self) -> engine::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A database of two tables and an index, with some pages to spare.
struct File {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    wal: Vec<u8>,
}

impl File {
    fn new() -> Self {
        engine::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {PAGE}; PRAGMA journal_mode = WAL;
                 CREATE TABLE kept(id INTEGER PRIMARY KEY, a TEXT);
                 CREATE TABLE spoilt(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
                 CREATE TABLE long(id INTEGER PRIMARY KEY, b BLOB);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300)
                 INSERT INTO kept SELECT i, 'row ' || i FROM n;
                 INSERT INTO long VALUES (1, zeroblob(5000)), (2, zeroblob(5000));
                 CREATE TABLE spare(a);
                 INSERT INTO spare VALUES (zeroblob(200000));
                 PRAGMA wal_checkpoint(TRUNCATE);
                 PRAGMA wal_autocheckpoint = 0;
                 UPDATE kept SET a = a || '!';"
            ))
            .unwrap();
        // Copies of files that nobody writes to meanwhile.
        let wal = std::fs::read(folder.path().join("made.db-wal")).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        connection.close().unwrap();
        Self { folder, bytes, wal }
    }

    fn pages(&self) -> usize {
        self.bytes.len() / PAGE
    }

    /// The root of a table.
    fn root(&self, table: &str) -> usize {
        let connection = Connection::open(self.path()).unwrap();
        let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
        connection.query_row(sql, [table], |row| row.get::<_, i64>(0)).unwrap() as usize
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("made.db")
    }

    fn page(&mut self, number: usize) -> &mut [u8] {
        &mut self.bytes[(number - 1) * PAGE..number * PAGE]
    }

    /// Makes a page an interior one of an index's b-tree, with so many cells for `children`.
    fn make_interior(&mut self, number: usize, children: &[u32]) {
        let (last, others) = children.split_last().unwrap();
        let page = self.page(number);
        page.fill(0);
        page[0] = 2;
        page[3..5].copy_from_slice(&(others.len() as u16).to_be_bytes());
        page[8..12].copy_from_slice(&last.to_be_bytes());
        let mut at = PAGE;
        for (place, child) in others.iter().enumerate() {
            // A record of a text and a NULL.
            let cell = [&child.to_be_bytes()[..], &[4, 3, 15, 0, b'a']].concat();
            at -= cell.len();
            page[at..at + cell.len()].copy_from_slice(&cell);
            page[12 + 2 * place..][..2].copy_from_slice(&(at as u16).to_be_bytes());
        }
        page[5..7].copy_from_slice(&(at as u16).to_be_bytes());
    }

    /// Salvages it; answers the account and the salvaged database.
    fn salvage(self) -> (Salvage, Connection, tempfile::TempDir) {
        let target = self.folder.path().join("salvaged.db");
        let pages = ((self.bytes.len() + self.wal.len()) / PAGE) as u64;
        let counted = |bytes| Counted { bytes, reads: AtomicU64::new(0) };
        let (database, wal) = (counted(self.bytes), counted(self.wal));
        let task = Counting::default();
        let source = Source { database: &database, wal: Some(&wal) };
        let account = salvage(source, &SalvageOptions::default(), &target, &task).unwrap();
        let reads = database.reads.into_inner() + wal.reads.into_inner();
        assert!(reads <= 256 * (pages + 64), "{reads} reads of {pages} pages");
        assert!(task.0.into_inner() <= 1_000 * (pages + 64));
        (account, open(&target), self.folder)
    }

    /// Salvages it; the rows that it keeps are there.
    fn keeps_its_rows(self) -> Salvage {
        let (account, connection, _folder) = self.salvage();
        let sum = "SELECT count(*) FROM kept WHERE a = 'row ' || id || '!'";
        let kept: i64 = connection.query_row(sum, [], |row| row.get(0)).unwrap();
        assert_eq!(kept, 300);
        account
    }
}

fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    let sql = "PRAGMA integrity_check";
    let check: String = connection.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(check, "ok");
    connection
}

#[test]
fn interior_pages_that_all_lead_to_each_other_are_not_walked_in_every_way() {
    let mut file = File::new();
    let (root, last) = (file.root("spoilt"), file.pages());
    let others: Vec<u32> = (last - 60..=last).map(|page| page as u32).collect();
    for page in others.iter().map(|&page| page as usize).chain([root]) {
        file.make_interior(page, &others);
    }
    file.keeps_its_rows();
}

#[test]
fn a_b_tree_that_leads_to_itself_ends() {
    let mut file = File::new();
    let root = file.root("spoilt");
    file.make_interior(root, &[root as u32, root as u32, root as u32]);
    file.keeps_its_rows();
}

#[test]
fn overflow_chains_that_loop_or_are_shared_are_no_records() {
    let mut file = File::new();
    let last = file.pages();
    // All that could be overflow pages lead in one circle.
    for page in last - 150..last {
        let next = if page + 1 == last { last - 150 } else { page + 1 };
        file.page(page)[..4].copy_from_slice(&(next as u32).to_be_bytes());
    }
    file.keeps_its_rows();
}

#[test]
fn lengths_beyond_all_measure_are_no_records() {
    let mut file = File::new();
    let root = file.root("long");
    let page = file.page(root);
    let cell = usize::from(u16::from_be_bytes([page[8], page[9]]));
    page[cell..cell + 5].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x7f]);
    file.keeps_its_rows();
}

#[test]
fn a_freelist_without_an_end_is_left() {
    let mut file = File::new();
    let last = file.pages() as u32;
    file.page(1)[32..36].copy_from_slice(&last.to_be_bytes());
    file.page(1)[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
    let trunk = file.page(last as usize);
    trunk[..4].copy_from_slice(&last.to_be_bytes());
    trunk[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    file.keeps_its_rows();
}

#[test]
fn a_header_that_promises_all_pages_there_may_be_takes_no_memory() {
    let mut file = File::new();
    file.page(1)[28..32].copy_from_slice(&(u32::MAX - 1).to_be_bytes());
    file.keeps_its_rows();
}

#[test]
fn frames_of_no_page_and_commits_of_no_size_are_no_frames() {
    const FRAME: usize = PAGE + 24;
    for number in [0, u32::MAX] {
        for field in [0, 4] {
            let mut file = File::new();
            // Whatever the sums say of it, the frame is not believed: it is the last one.
            let at = 32 + (file.wal.len() - 32) / FRAME * FRAME - FRAME;
            file.wal[at + field..at + field + 4].copy_from_slice(&number.to_be_bytes());
            let (_, connection, _folder) = file.salvage();
            let count = "SELECT count(*) FROM kept";
            let rows: i64 = connection.query_row(count, [], |row| row.get(0)).unwrap();
            assert_eq!(rows, 300);
        }
    }
}
