//! The pages of a database, those in its WAL included.

use rusqlite::ffi;

use crate::engine::{Error, PageSource, Progress, Result, WalPageIndex, guess_format};
use crate::format::{Cell, Header, Page, header, lock_page, number, ptrmap, record, wal};

/// Reads pages.
pub struct Pages<'a> {
    database: &'a dyn PageSource,
    wal: Option<&'a dyn PageSource>,
    overlay: WalPageIndex,
    header: Option<Header>,
    size: usize,
    usable: usize,
    in_file: u32,
    count: u32,
}

impl<'a> Pages<'a> {
    /// Reads the headers, and indexes the frames of the WAL.
    ///
    /// # Errors
    /// `SQLITE_NOTADB` if the page size cannot be determined; `task`'s.
    pub fn new(
        database: &'a dyn PageSource,
        wal: Option<&'a dyn PageSource>,
        task: &dyn Progress,
    ) -> Result<Self> {
        let (mut overlay, mut log) = (WalPageIndex::default(), [0; wal::HEADER]);
        let log = match wal {
            Some(wal) if wal.read_at(&mut log, 0)? == log.len() => wal::WalHeader::parse(&log),
            _ => None,
        };
        if let (Some(wal), Some(log)) = (wal, &log) {
            overlay = WalPageIndex::read(wal, log, task)?;
        }
        let mut pages = Self {
            database,
            wal,
            overlay,
            header: None,
            size: header::SIZE,
            usable: header::SIZE,
            in_file: 0,
            count: 0,
        };
        let mut first = [0; header::SIZE];
        // If the first page cannot be read, there is no header.
        let _ = pages.fill(1, 0, &mut first);
        pages.header = Header::parse(&first);
        let known = log.map(|log| log.page_size);
        let (size, reserved) = match pages.header {
            Some(header) => (header.page_size, header.reserved),
            None => guess_format(database, known).ok_or_else(|| {
                Error::sqlite(ffi::SQLITE_NOTADB, "the page size cannot be determined")
            })?,
        };
        pages.size = size as usize;
        pages.usable = pages.size.saturating_sub(usize::from(reserved));
        pages.in_file =
            u32::try_from(database.size()?.div_ceil(u64::from(size))).unwrap_or(u32::MAX);
        let present = pages.in_file.max(pages.overlay.last());
        let declared = match pages.header.filter(Header::count_is_valid) {
            Some(header) if pages.overlay.pages == 0 => header.pages,
            _ => pages.overlay.pages,
        };
        // The header may be damaged, so its page count is limited to twice the pages present.
        pages.count = if declared == 0 { present } else { declared.min(present.saturating_mul(2)) };
        Ok(pages)
    }

    /// `SQLITE_VERSION_NUMBER` of the SQLite that wrote to the database last, for example 3054001.
    pub fn last_writer(&self) -> u32 {
        let mut header = [0; header::SIZE];
        let _ = self.fill(1, 0, &mut header);
        number::u32_at(&header, 96).unwrap_or(0)
    }

    /// Whether the first page begins with a header.
    pub fn has_header(&self) -> bool {
        self.header.is_some()
    }

    /// Bytes per page.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Usable bytes per page: the page size without the reserved bytes.
    pub fn usable(&self) -> usize {
        self.usable
    }

    /// Whether the page is neither in the file nor in the WAL.
    pub fn is_missing(&self, page: u32) -> bool {
        page > self.in_file && self.overlay.frame(page).is_none()
    }

    /// The last page that should exist.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Pages that are read from the WAL.
    pub fn in_wal(&self) -> u64 {
        self.overlay.len() as u64
    }

    /// The first freelist trunk page; 0 if the freelist is empty.
    pub fn first_free(&self) -> u32 {
        self.header.map_or(0, |header| header.freelist)
    }

    /// The lock-byte page.
    pub fn lock_byte(&self) -> u32 {
        lock_page(u32::try_from(self.size).unwrap_or(u32::MAX))
    }

    /// Whether the page belongs to the pointer map.
    pub fn is_pointer_map(&self, page: u32) -> bool {
        self.header.is_some_and(|header| {
            header.largest_root != 0 && ptrmap::is_map(page, header.page_size, self.usable)
        })
    }

    /// Reads a page. Bytes beyond the end of the file are 0.
    ///
    /// # Errors
    /// The system's.
    pub fn read(&self, page: u32, buffer: &mut [u8]) -> Result<()> {
        buffer.fill(0);
        self.fill(page, 0, buffer)
    }

    /// The 4-byte number at the beginning of a page: the next page of an overflow chain.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn link(&self, page: u32) -> Result<u32> {
        let mut bytes = [0; 4];
        self.fill(page, 0, &mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }

    fn fill(&self, page: u32, at: u64, buffer: &mut [u8]) -> Result<()> {
        match (self.overlay.frame(page), self.wal) {
            (Some(offset), Some(wal)) => wal.read_at(buffer, offset + at)?,
            _ => {
                let offset = u64::from(page.saturating_sub(1)) * self.size as u64;
                self.database.read_at(buffer, offset + at)?
            }
        };
        Ok(())
    }

    /// A row of the schema table: its type, name, table and root page. `None` if it is damaged, or
    /// longer than `most` bytes.
    pub fn schema_row(&self, cell: &Cell<'_>, most: u64) -> Option<(String, String, String, u32)> {
        if cell.length > most {
            return None;
        }
        let mut payload = cell.local.to_vec();
        let wanted = usize::try_from(cell.length).ok()?;
        let (mut next, mut buffer) = (cell.overflow, vec![0; self.size]);
        while payload.len() < wanted {
            if next == 0 || next > self.count {
                return None;
            }
            self.read(next, &mut buffer).ok()?;
            next = number::u32_at(&buffer, 0)?;
            let rest = buffer.get(4..self.usable)?;
            payload.extend(rest.iter().take(wanted - payload.len()));
        }
        let mut fields = Vec::new();
        if !record::read(&payload, &mut fields) {
            return None;
        }
        let &[kind, name, table, root, ..] = fields.as_slice() else { return None };
        let crate::format::Value::Integer(root) = root else { return None };
        Some((self.text(kind)?, self.text(name)?, self.text(table)?, u32::try_from(root).ok()?))
    }

    fn text(&self, value: crate::format::Value<'_>) -> Option<String> {
        let crate::format::Value::Text(bytes) = value else { return None };
        let units = |from: fn([u8; 2]) -> u16| {
            let units = bytes.chunks_exact(2).filter_map(|pair| Some(from(pair.try_into().ok()?)));
            String::from_utf16_lossy(&units.collect::<Vec<_>>())
        };
        Some(match self.header?.encoding {
            2 => units(u16::from_le_bytes),
            3 => units(u16::from_be_bytes),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        })
    }
}

/// Whether the cells, free blocks and fragments of a page make up all of it.
pub fn adds_up(page: &Page<'_>) -> bool {
    let mut taken = 0;
    for index in 0..page.cells {
        match page.cell(index) {
            Some(cell) => taken += cell.size,
            None => return false,
        }
    }
    page.accounts_for(taken)
}
