//! Whether something of SQLite is in a file, or next to it, that SQLite does not take for a
//! database: then it was one, and a repair may find rows in it.
//!
//! | a trace | is |
//! |---|---|
//! | the header, in part | most of the bytes that every header has in common |
//! | a b-tree page | one that [`guess_format`] finds whole, for whatever page size |
//! | a `-wal`, a `-journal` | one that begins with its own header |
//! | a copy of the schema | a `-schema` that begins as this package writes it |
//!
//! Nothing is changed. Called on the thread of the check.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use crate::engine::{Storage, Unwatched, View, Wal, beside, guess_format, open_file};
use crate::format::{journal, wal};

/// What every header of a database has, and where (<https://sqlite.org/fileformat2.html>, 1.3).
const FIXED: [(usize, &[u8]); 2] = [(0, b"SQLite format 3\0"), (21, &[64, 32, 32])];

/// How the copy of a schema begins that is kept next to a database.
const SNAPSHOT: &[u8] = b"fusion-sqlite schema ";

/// Whether there is a trace of a database in the file at `path` or next to it. One that cannot be
/// read has none.
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

/// The first bytes of a file; none where it is no file or cannot be read.
fn beginning(path: &Path, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = open_file(path) {
        drop(file.take(count as u64).read_to_end(&mut bytes));
    }
    bytes
}

/// Whether more than half of what headers have in common is there.
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
