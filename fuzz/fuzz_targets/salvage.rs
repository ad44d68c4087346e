//! Whatever the bytes are, a salvage ends with a database that is sound, or says why not.
//!
//! The input: four bytes that say how long the WAL at its end is, then the file, then the WAL.

#![no_main]

use fusion_sqlite::engine::{Result, Storage, Unwatched};
use fusion_sqlite::recovery::salvage::{Options, Source, salvage};
use libfuzzer_sys::fuzz_target;

struct Bytes<'a>(&'a [u8]);

impl Storage for Bytes<'_> {
    fn size(&self) -> Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((length, rest)) = input.split_first_chunk::<4>() else { return };
    let wal = (u32::from_le_bytes(*length) as usize).min(rest.len());
    let (database, wal) = rest.split_at(rest.len() - wal);
    let (database, wal) = (Bytes(database), Bytes(wal));
    let source = Source { database: &database, wal: Some(&wal) };
    let Ok(directory) = tempfile::tempdir() else { return };
    let target = directory.path().join("salvaged");
    let _ = salvage(source, &Options::default(), &target, &Unwatched);
});
