//! A database file with the frames of its WAL over it, as bytes: what SQLite reads of the two.
//! Thread: whichever made it. Memory: one entry a page of the WAL.

use super::{PageSource, Progress, Result, WalPageIndex};
use crate::format::wal::{HEADER, WalHeader};

/// The bytes of `database` with the committed frames of `wal` over them.
pub struct DatabaseWithWal<D, W> {
    database: D,
    wal: Option<W>,
    overlay: WalPageIndex,
    page_size: u64,
}

impl<D: PageSource, W: PageSource> DatabaseWithWal<D, W> {
    /// Reads the WAL, where there is one.
    ///
    /// # Errors
    /// `task`'s; a read that fails.
    pub fn new(database: D, wal: Option<W>, task: &dyn Progress) -> Result<Self> {
        let (mut overlay, mut page_size) = (WalPageIndex::default(), 0);
        if let Some(wal) = &wal {
            let mut first = [0; HEADER];
            if wal.read_at(&mut first, 0)? == HEADER
                && let Some(header) = WalHeader::parse(&first)
            {
                overlay = WalPageIndex::read(wal, &header, task)?;
                page_size = header.page_size.into();
            }
        }
        Ok(Self { database, wal, overlay, page_size })
    }

    /// The database file alone.
    pub fn database(&self) -> &D {
        &self.database
    }

    /// The WAL.
    pub fn wal(&self) -> Option<&W> {
        self.wal.as_ref()
    }
}

impl<D: PageSource, W: PageSource> PageSource for DatabaseWithWal<D, W> {
    fn size(&self) -> Result<u64> {
        match self.overlay.pages {
            0 => self.database.size(),
            pages => Ok(u64::from(pages) * self.page_size),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let Some(wal) = self.wal.as_ref().filter(|_| self.overlay.pages > 0) else {
            return self.database.read_at(buffer, offset);
        };
        let size = self.size()?;
        let mut filled = 0;
        while filled < buffer.len() {
            let at = offset + filled as u64;
            if at >= size {
                break;
            }
            let within = at % self.page_size;
            let left = usize::try_from(self.page_size - within).unwrap_or(usize::MAX);
            let end = filled + left.min(buffer.len() - filled);
            let Some(part) = buffer.get_mut(filled..end) else { break };
            let page = u32::try_from(at / self.page_size + 1).unwrap_or(u32::MAX);
            let count = match self.overlay.frame(page) {
                Some(frame) => wal.read_at(part, frame + within)?,
                None => self.database.read_at(part, at)?,
            };
            if let Some(rest) = part.get_mut(count..) {
                // A page that is neither in the file nor in the WAL reads as zeros.
                rest.fill(0);
            }
            filled = end;
        }
        Ok(filled)
    }
}
