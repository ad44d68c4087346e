//! The newest committed WAL frame of each page.
//!
//! A frame is valid if and only if
//!
//! 1. its salts are the header's,
//! 2. its checksum continues the checksums of all frames before it, and
//! 3. it is a commit frame, or a later frame that fulfils 1 and 2 is one.
//!
//! Memory: one entry a page that has a valid frame.

use std::collections::HashMap;

use super::{PageSource, Progress, Result};
use crate::format::wal::{FRAME_HEADER, Frame, HEADER, WalHeader};

/// The newest committed frame of each page.
#[derive(Debug, Default, Clone)]
pub struct WalPageIndex {
    frames: HashMap<u32, u64>,
    /// Pages of the database after the last committed transaction; 0 without one.
    pub pages: u32,
    /// Bytes of the WAL up to the end of the last committed transaction; 0 without one.
    pub end: u64,
}

impl WalPageIndex {
    /// Where in the WAL the page is, in bytes.
    pub fn frame(&self, page: u32) -> Option<u64> {
        self.frames.get(&page).copied()
    }

    /// How many pages there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether the WAL has no committed frame.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The highest page number; 0 without a committed frame.
    pub fn last(&self) -> u32 {
        self.frames.keys().copied().max().unwrap_or(0)
    }

    /// Calls `look` with some of its pages and their numbers, which are `page_size` bytes long: 512
    /// at most.
    pub fn sample(
        &self,
        wal: Option<&dyn PageSource>,
        page_size: u32,
        mut look: impl FnMut(u32, &[u8]),
    ) {
        let Some(wal) = wal else { return };
        let mut frames: Vec<(u32, u64)> =
            self.frames.iter().map(|(&page, &at)| (page, at)).collect();
        frames.sort_unstable();
        let mut bytes = vec![0; page_size as usize];
        for (page, offset) in frames.iter().step_by(frames.len() / 512 + 1) {
            if wal.read_at(&mut bytes, *offset).is_ok_and(|read| read == bytes.len()) {
                look(*page, &bytes);
            }
        }
    }

    /// Reads a WAL whose header is `header`.
    ///
    /// # Errors
    /// `task`'s; SQLite's, where a read fails: a failed read is not the end of the WAL.
    pub fn read(wal: &dyn PageSource, header: &WalHeader, task: &dyn Progress) -> Result<Self> {
        let mut overlay = Self::default();
        let mut pending = Vec::new();
        let mut sums = header.checksum;
        let mut offset = HEADER as u64;
        let mut bytes = vec![0; FRAME_HEADER + header.page_size as usize];
        for count in 1_u64.. {
            if count.is_multiple_of(1024) {
                task.check_cancelled()?;
            }
            if wal.read_at(&mut bytes, offset)? < bytes.len() {
                break;
            }
            let Some(frame) = Frame::parse(&bytes) else { break };
            let Some(after) = Frame::sum(&bytes, sums, header.big_endian) else { break };
            if frame.page == 0 || frame.salts != header.salts || after != frame.checksum {
                break;
            }
            sums = after;
            pending.push((frame.page, offset + FRAME_HEADER as u64));
            offset += bytes.len() as u64;
            if frame.commit != 0 {
                overlay.frames.extend(pending.drain(..));
                overlay.pages = frame.commit;
                overlay.end = offset;
            }
        }
        // The file was shrunk: what was behind its end is gone.
        let pages = overlay.pages;
        overlay.frames.retain(|&page, _| page <= pages);
        Ok(overlay)
    }
}
