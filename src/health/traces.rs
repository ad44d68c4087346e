//! Traces of SQLite in a file, or in its sidecar files, that SQLite does not accept as a database.
//! With a trace the file was a database, and a repair may find rows in it.
//!
//! | trace | condition |
//! |---|---|
//! | a part of the header | more than half of the bytes that all headers share |
//! | a b-tree page | [`guess_format`] finds a whole page, for some page size |
//! | a `-wal`, a `-journal` | it begins with its own header |
//! | a copy of the schema | a `-schema` begins as this package writes it |
//!
//! No file is changed. Called on the thread of the check.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use crate::engine::{Storage, Unwatched, View, Wal, beside, guess_format, open_file};
use crate::format::{journal, wal};

/// Offsets and bytes that all database headers share (<https://sqlite.org/fileformat2.html>, 1.3).
const FIXED: [(usize, &[u8]); 2] = [(0, b"SQLite format 3\0"), (21, &[64, 32, 32])];

/// First bytes of the `-schema` file, the copy of a database's schema.
const SNAPSHOT: &[u8] = b"fusion-sqlite schema ";

/// Whether the file at `path`, or one of its sidecar files, has a trace of a database. An
/// unreadable file has none.
pub fn are_there(path: &Path) -> bool {
    has_neighbour(path)
        || View::open(path, Instant::now(), &Unwatched).is_ok_and(|view| {
            let database = view.database();
            has_header(database) || guess_format(database, None).is_some()
        })
}

fn has_neighbour(path: &Path) -> bool {
    wal::Header::parse(&beginning(&Wal::path(path), wal::HEADER)).is_some()
        || beginning(&beside(path, "-journal"), journal::MAGIC.len()) == journal::MAGIC
        || beginning(&beside(path, "-schema"), SNAPSHOT.len()) == SNAPSHOT
}

/// The first bytes of a file; empty if it cannot be read.
fn beginning(path: &Path, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = open_file(path) {
        drop(file.take(count as u64).read_to_end(&mut bytes));
    }
    bytes
}

/// Whether the file has more than half of the bytes that all headers share.
fn has_header(database: &dyn Storage) -> bool {
    let mut header = [0; 100];
    if database.read_at(&mut header, 0).is_err() {
        return false;
    }
    let (mut same, mut all) = (0, 0);
    for (at, bytes) in FIXED {
        let there = header.get(at..at + bytes.len()).unwrap_or_default();
        same += there.iter().zip(bytes).filter(|(one, other)| one == other).count();
        all += bytes.len();
    }
    same * 2 > all
}
