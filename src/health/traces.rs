//! Searches a file that SQLite does not recognise as a database for traces of one. With a trace, a
//! repair may find rows in it.
//!
//! | trace | found if |
//! |---|---|
//! | a part of the header | most of the bytes match that every header has in common |
//! | a b-tree page | [`guess_format`] finds a well-formed page, of any page size |
//! | a `-wal` or `-journal` | the file next to the database begins with its own header |
//! | a copy of the schema | a `-schema` next to the database begins as this package writes it |
//!
//! Changes nothing. Called on the thread of the check.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use crate::engine::{
    NoProgress, PageSnapshot, PageSource, Wal, guess_format, open_file, sidecar_path,
};
use crate::format::{journal, wal};

/// Offsets and bytes that all database headers share (<https://sqlite.org/fileformat2.html>, 1.3).
const FIXED: [(usize, &[u8]); 2] = [(0, b"SQLite format 3\0"), (21, &[64, 32, 32])];

/// The first bytes of a saved schema.
const SNAPSHOT: &[u8] = b"fusion-sqlite schema ";

/// Whether the file at `path`, or a file next to it, holds a trace of a database. `false` for a
/// file that cannot be read.
pub fn are_there(path: &Path) -> bool {
    has_neighbour(path)
        || PageSnapshot::open(path, Instant::now(), &NoProgress).is_ok_and(|view| {
            let database = view.database();
            has_header(database) || guess_format(database, None).is_some()
        })
}

fn has_neighbour(path: &Path) -> bool {
    wal::WalHeader::parse(&beginning(&Wal::path(path), wal::HEADER)).is_some()
        || beginning(&sidecar_path(path, "-journal"), journal::MAGIC.len()) == journal::MAGIC
        || beginning(&sidecar_path(path, "-schema"), SNAPSHOT.len()) == SNAPSHOT
}

/// The first `count` bytes of a file; fewer if it is shorter, empty if it cannot be read.
fn beginning(path: &Path, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = open_file(path) {
        drop(file.take(count as u64).read_to_end(&mut bytes));
    }
    bytes
}

/// Whether more than half of the bytes that all headers share are present.
fn has_header(database: &dyn PageSource) -> bool {
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
