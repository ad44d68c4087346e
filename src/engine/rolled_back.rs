//! A database as it will be once its hot journal is rolled back.
//!
//! An interrupted transaction leaves its rollback journal behind, with the original content of the
//! pages that it changed. The next read-write connection restores them; a read-only connection
//! refuses to read (`SQLITE_READONLY_ROLLBACK`). [`RolledBack`] reads the file through the journal
//! by the rules of SQLite's own rollback (`pager_playback`), and changes neither file:
//!
//! * A journal that names a super-journal which is not there belongs to a transaction that was
//!   committed: nothing is rolled back.
//! * The database has as many pages as the first header says.
//! * A record is valid if its checksum is right and all records before it are valid. The first
//!   invalid or incomplete record ends the journal: it and later records were never synced, so
//!   SQLite never wrote their pages to the database.
//!
//! It takes no lock, so that neither readers nor a connection that rolls back wait for it. A
//! rollback meanwhile changes the file into what is read here. Only a transaction after that makes
//! a difference, which [`RolledBack::is_current`] detects.
//!
//! Any thread, one at a time. Memory: one entry a page of the journal.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::page_source::PrivateFile;
use super::sqlite_file::Handle;
use super::{Connection, Error, FileId, PageSource, Result, Wal, sidecar_path};
use crate::format::journal::{self, HEADER, JournalHeader, RECORD_OVERHEAD};
use crate::format::lock_page;

/// Where the rollback journal of the database at `path` is.
pub(super) fn journal_path(path: &Path) -> PathBuf {
    sidecar_path(path, "-journal")
}

/// Bytes of a sector before a journal says how many.
const SECTOR: u64 = 512;

/// A journal that is there: another one has another nonce.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    file: FileId,
    bytes: u64,
    header: Vec<u8>,
}

impl Identity {
    /// `None` without a journal, and for a journal that a commit has ended: its first byte is zero.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?;
        let mut header = Vec::new();
        super::open_file(path).ok()?.take(HEADER as u64).read_to_end(&mut header).ok()?;
        header.first().filter(|byte| **byte != 0)?;
        Some(Self { file: FileId::of(path).ok()?, bytes: metadata.len(), header })
    }
}

/// Whether the database at `path` has the journal of a transaction, running or interrupted.
pub(super) fn has_journal(path: &Path) -> bool {
    Identity::of(&journal_path(path)).is_some()
}

/// A hot journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HotJournal {
    /// Bytes of it.
    pub bytes: u64,
    /// Pages that a rollback puts back.
    pub pages: u64,
}

/// See the module.
pub struct RolledBack {
    /// Owns what `database` points to. It only reads.
    connection: Connection,
    database: Handle,
    journal: PrivateFile,
    identity: Identity,
    layout: Layout,
}

impl std::fmt::Debug for RolledBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RolledBack").field("identity", &self.identity).finish_non_exhaustive()
    }
}

impl RolledBack {
    /// The database at `path` through its hot journal. `None` without a journal, and for a journal
    /// that is not hot: a transaction is under way, and readers read the file.
    ///
    /// # Errors
    /// SQLite's; `SQLITE_READONLY_ROLLBACK` where there is a WAL with frames as well.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        if !has_journal(path) {
            return Ok(None);
        }
        let connection = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, Duration::ZERO)?;
        let read = connection
            .sql()?
            .query_row("PRAGMA schema_version", [], |_| Ok(()))
            .map_err(|error| Error::from(error).at(path));
        let refusal = match read {
            Err(error) if error.errcode == ffi::SQLITE_READONLY_ROLLBACK => error,
            // Whatever else it is, the next read of the file meets it again.
            _ => return Ok(None),
        };
        if std::fs::metadata(Wal::path(path)).is_ok_and(|wal| wal.len() > 0) {
            return Err(refusal);
        }
        let journal_path = journal_path(connection.path());
        let Some(identity) = Identity::of(&journal_path) else { return Ok(None) };
        let journal = PrivateFile::open(&journal_path)?;
        let database = Handle::of(&connection, ffi::SQLITE_FCNTL_FILE_POINTER)?
            .ok_or_else(|| Error::fusion("ERR_INVALID_STATE", "the database has no file"))?;
        let layout = Layout::read(&database, &journal, |name| Path::new(name).exists())?;
        Ok(Some(Self { connection, database, journal, identity, layout }))
    }

    /// Whether everything read so far is of one state of the database: no connection has begun
    /// another transaction.
    pub fn is_current(&self) -> bool {
        match Identity::of(&journal_path(self.path())) {
            Some(now) => now == self.identity,
            // Rolled back, and perhaps written to since.
            None => self.begins_as_before(),
        }
    }

    /// Whether the first bytes of the file, which hold its change counter, are those of before
    /// the transaction.
    fn begins_as_before(&self) -> bool {
        let (mut now, mut then) = ([0; 100], [0; 100]);
        let read = self.database.read_at(&mut now, 0).and_then(|_| self.read_at(&mut then, 0));
        read.is_ok() && now == then
    }

    /// The path as SQLite resolved it.
    pub fn path(&self) -> &Path {
        self.connection.path()
    }

    /// The journal.
    pub fn hot_journal(&self) -> HotJournal {
        HotJournal { bytes: self.identity.bytes, pages: self.layout.pages.len() as u64 }
    }
}

/// Where the pages are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Layout {
    page_size: u32,
    /// Bytes of the database after a rollback; none: as many as the file has.
    size: Option<u64>,
    /// Where in the journal a page is, by its number.
    pages: HashMap<u32, u64>,
}

impl Layout {
    fn read(
        database: &dyn PageSource,
        journal: &dyn PageSource,
        exists: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let bytes = journal.size()?;
        let tail = |distance: usize, length: usize| {
            let mut buffer = vec![0; length];
            let from = bytes.checked_sub(distance as u64)?;
            let count = journal.read_at(&mut buffer, from).ok()?;
            (count == length).then_some(buffer)
        };
        if let Some(name) = journal::super_journal(tail)
            && !exists(&String::from_utf8_lossy(&name))
        {
            return Ok(Self::default());
        }
        let mut layout = Self::default();
        let mut sector = SECTOR;
        let mut offset = 0;
        loop {
            let mut header = [0; HEADER];
            if offset + sector > bytes {
                break;
            }
            if journal.read_at(&mut header, offset)? < HEADER {
                break;
            }
            let Some(mut header) = JournalHeader::parse(&header) else { break };
            if offset == 0 {
                if header.page_size == 0 {
                    header.page_size = page_size(database)?;
                }
                if !header.is_synced() {
                    break;
                }
                sector = u64::from(header.sector);
                layout.page_size = header.page_size;
                layout.size = Some(size_after(database.size()?, header));
            }
            offset += sector;
            if !layout.take(journal, &header, &mut offset, bytes)? {
                break;
            }
            offset = offset.next_multiple_of(sector);
        }
        Ok(layout)
    }

    /// Takes the records behind a header, of which the first is at `offset`. False: the journal
    /// ends among them.
    fn take(
        &mut self,
        journal: &dyn PageSource,
        header: &JournalHeader,
        offset: &mut u64,
        bytes: u64,
    ) -> Result<bool> {
        let length = self.page_size as usize + RECORD_OVERHEAD;
        let fitting = bytes.saturating_sub(*offset) / length as u64;
        let count = header.records.map_or(fitting, u64::from);
        let database = self.size.map_or(0, |size| size / u64::from(self.page_size));
        let mut record = vec![0; length];
        for _ in 0..count {
            if journal.read_at(&mut record, *offset)? < length {
                return Ok(false);
            }
            let word = |at: usize| {
                let bytes = record.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
                bytes.map_or(0, u32::from_be_bytes)
            };
            let number = word(0);
            if number == 0 || number == lock_page(self.page_size) {
                return Ok(false);
            }
            if u64::from(number) <= database {
                let page = record.get(4..length - 4).unwrap_or_default();
                if journal::checksum(page, header.nonce) != word(length - 4) {
                    return Ok(false);
                }
                self.pages.insert(number, *offset + 4);
            }
            *offset += length as u64;
        }
        Ok(true)
    }
}

/// The page size in the database's header.
fn page_size(database: &dyn PageSource) -> Result<u32> {
    let mut field = [0; 2];
    database.read_at(&mut field, 16)?;
    Ok(match u16::from_be_bytes(field) {
        1 => 65_536,
        size => size.into(),
    })
}

/// Bytes of the database once it is rolled back. SQLite truncates a longer file, and extends a file
/// that is shorter by at least a page.
fn size_after(now: u64, header: JournalHeader) -> u64 {
    let page = u64::from(header.page_size);
    let then = u64::from(header.pages) * page;
    if now > then || now + page <= then { then } else { now }
}

impl PageSource for RolledBack {
    fn size(&self) -> Result<u64> {
        self.layout.size.map_or_else(|| self.database.size(), Ok)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let size = self.size()?;
        if self.layout.pages.is_empty() {
            let count = self.database.read_at(buffer, offset)?;
            return Ok(count.min(usize::try_from(size.saturating_sub(offset)).unwrap_or(count)));
        }
        let page_size = u64::from(self.layout.page_size);
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            if at >= size {
                break;
            }
            // To the end of the page, of the database or of what is asked for.
            let within = at % page_size;
            let left = usize::try_from((page_size - within).min(size - at)).unwrap_or(usize::MAX);
            let end = filled + left.min(buffer.len() - filled);
            let Some(part) = buffer.get_mut(filled..end) else { break };
            let number = u32::try_from(at / page_size + 1).unwrap_or(u32::MAX);
            let count = match self.layout.pages.get(&number) {
                Some(page) => self.journal.read_at(part, page + within)?,
                None => self.database.read_at(part, at)?,
            };
            if let Some(rest) = part.get_mut(count..) {
                // A rollback fills with zeros behind the end of the file. A journal that has become
                // shorter has been replaced, which `is_current` detects.
                rest.fill(0);
            }
            filled = end;
        }
        Ok(filled)
    }
}
