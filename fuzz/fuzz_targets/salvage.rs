//! Whatever the bytes are, a salvage ends with a database that is sound, or says why there is none.
//!
//! The input: four bytes, then the file, then the WAL. Of the first four the lowest three (little
//! endian) say how long the WAL is, and the bits of the fourth are [`SNAPSHOT`] and [`SUMS`].

#![no_main]

use std::path::Path;

use fusion_sqlite::engine::{NoProgress, PageSource, Result};
use fusion_sqlite::format::wal::{self, Checksum, FRAME_HEADER, Frame};
use fusion_sqlite::recovery::salvage::{SalvageOptions, SchemaEntry, Snapshot, Source, salvage};
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use rusqlite::Connection;

/// A snapshot of the seeds' schema is given.
const SNAPSHOT: u8 = 1;

/// The checksums of the WAL are made right first: no mutation gets past them otherwise.
const SUMS: u8 = 2;

/// Bytes before the file.
const HEAD: usize = 4;

struct Bytes<'a>(&'a [u8]);

impl PageSource for Bytes<'_> {
    fn size(&self) -> Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((&[low, middle, high, flags], rest)) = input.split_first_chunk::<HEAD>() else {
        return;
    };
    let length = u32::from_le_bytes([low, middle, high, 0]) as usize;
    let (database, wal) = rest.split_at(rest.len() - length.min(rest.len()));
    let mut wal = wal.to_vec();
    if flags & SUMS != 0 {
        mend_sums(&mut wal);
    }
    let (database, wal) = (Bytes(database), Bytes(&wal));
    let source = Source { database: &database, wal: Some(&wal) };
    let options = SalvageOptions { snapshot: (flags & SNAPSHOT != 0).then(snapshot) };
    let Ok(directory) = tempfile::tempdir() else { return };
    let target = directory.path().join("salvaged");
    match salvage(source, &options, &target, &NoProgress) {
        Ok(_) => check(&target),
        Err(error) => {
            assert_eq!(error.code, "ERR_FUSION_NOTHING_TO_SALVAGE", "{error}");
            assert!(!target.exists(), "something is left of a salvage that failed");
        }
    }
});

/// The salvaged database opens and is sound. A row that its CHECK constraints do not allow is no
/// damage: it was salvaged all the same.
fn check(target: &Path) {
    let connection = Connection::open(target).expect("the database opens");
    connection.execute_batch("PRAGMA ignore_check_constraints = ON").expect("a pragma");
    let mut check = match connection.prepare("PRAGMA integrity_check") {
        // Only an application that has these can check a database that names some.
        Err(error) if is_of_application(&error) => return,
        check => check.expect("the schema is readable"),
    };
    let found: Vec<String> = check
        .query_map([], |row| row.get(0))
        .and_then(Iterator::collect)
        .expect("the database is readable");
    assert_eq!(found, ["ok"]);
}

/// Whether a collation or a function is missing that no SQLite has by itself.
fn is_of_application(error: &rusqlite::Error) -> bool {
    let message = error.to_string();
    ["no such collation sequence", "no such function"].iter().any(|it| message.contains(it))
}

/// What a snapshot of a seed says.
fn snapshot() -> Snapshot {
    let entry = |kind: &str, name: &str, table: &str, root, sql: &str| SchemaEntry {
        kind: kind.to_owned(),
        name: name.to_owned(),
        table: table.to_owned(),
        root,
        sql: (!sql.is_empty()).then(|| sql.to_owned()),
    };
    Snapshot {
        page_size: 512,
        reserved: 0,
        encoding: 1,
        auto_vacuum: 0,
        user_version: 7,
        application_id: 0,
        schema_cookie: 5,
        schema: vec![
            entry("table", "t", "t", 2, "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b)"),
            entry("index", "t_a", "t", 3, "CREATE UNIQUE INDEX t_a ON t(a)"),
            entry("table", "w", "w", 4, "CREATE TABLE w(k TEXT, n, PRIMARY KEY(k)) WITHOUT ROWID"),
            entry("view", "v", "v", 0, "CREATE VIEW v AS SELECT a FROM t"),
        ],
        taken_ms: 0,
    }
}

/// Makes the header's checksum that of its content, and each frame's the sums up to there.
fn mend_sums(log: &mut [u8]) {
    let Some(magic) = log.first_chunk::<4>() else { return };
    let big_endian = u32::from_be_bytes(*magic) & 1 == 1;
    let Some(head) = log.get(..24) else { return };
    let mut sums = Checksum::default().after(head, big_endian);
    put(log, 24, [sums.0, sums.1]);
    let Some(header) = wal::WalHeader::parse(log) else { return };
    let Some(frames) = log.get_mut(wal::HEADER..) else { return };
    for frame in frames.chunks_exact_mut(FRAME_HEADER + header.page_size as usize) {
        put(frame, 8, [header.salts.0, header.salts.1]);
        let Some(after) = Frame::sum(frame, sums, big_endian) else { return };
        put(frame, 16, [after.0, after.1]);
        sums = after;
    }
}

fn put(bytes: &mut [u8], at: usize, words: [u32; 2]) {
    let words = words.map(u32::to_be_bytes).concat();
    if let Some(to) = bytes.get_mut(at..at + words.len()) {
        to.copy_from_slice(&words);
    }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // Half of the inputs are changed as bytes, the others as pages; some in both ways.
    let mut random = Random(u64::from(seed));
    let kind = random.below(8);
    let size = if kind < 5 { fuzzer_mutate(data, size, max_size) } else { size };
    if kind >= 4 && size > HEAD {
        for _ in 0..=random.below(3) {
            change_page(&mut data[HEAD..size], &mut random);
        }
    }
    size
});

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
        (self.next() % end.max(1) as u64) as usize
    }
}

/// Does to one page of 512 bytes what damage does: another page in its place, another number where
/// a page's is, another length where a cell begins.
fn change_page(file: &mut [u8], random: &mut Random) {
    const PAGE: usize = 512;
    let pages = file.len() / PAGE;
    if pages == 0 {
        return;
    }
    let of = random.below(pages) * PAGE;
    let from = random.below(pages) * PAGE;
    let number = match random.below(8) {
        0 => u32::MAX,
        1 => 0,
        _ => random.below(pages + 2) as u32,
    };
    let head = if of == 0 { 100 } else { 0 };
    let u16_at = |at: usize| usize::from(u16::from_be_bytes([file[at], file[at + 1]]));
    let interior = matches!(file[of + head], 2 | 5);
    let pointers = of + head + if interior { 12 } else { 8 };
    let cells = u16_at(of + head + 3).clamp(1, 100);
    let pointer = (pointers + 2 * random.below(cells)).min(of + PAGE - 2);
    let cell = (of + u16_at(pointer) % PAGE).min(of + PAGE - 4);
    match random.below(10) {
        0 => file.copy_within(from..from + PAGE, of),
        1 => {
            for at in 0..PAGE {
                file.swap(of + at, from + at);
            }
        }
        2 => file[of..of + PAGE].fill(0),
        // A freelist's or an overflow chain's link; the last child; the child of a cell.
        3 => file[of..of + 4].copy_from_slice(&number.to_be_bytes()),
        4 => file[of + head + 8..of + head + 12].copy_from_slice(&number.to_be_bytes()),
        5 => file[cell..cell + 4].copy_from_slice(&number.to_be_bytes()),
        6 => file[cell] = random.next() as u8,
        // The length of a cell, its rowid, the first types of its record.
        7 => {
            let byte = cell + random.below(8).min(of + PAGE - cell - 1);
            file[byte] = [0, 1, 7, 8, 9, 0x7f, 0x80, 0xff][random.below(8)];
        }
        8 => {
            let place = (of + random.below(PAGE)) as u16;
            file[pointer..pointer + 2].copy_from_slice(&(place % PAGE as u16).to_be_bytes());
        }
        _ => file[of + head] = [2, 5, 10, 13][random.below(4)],
    }
}
