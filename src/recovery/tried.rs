//! Retries the reads of a damaged original on a failing disk.
//!
//! The salvager treats a page that cannot be read as lost. That is right only if a person asked for
//! the repair: a read that fails now may succeed in a minute, and an automatic repair would lose
//! those rows for good. So [`Tried`] remembers the first failed read, and the repair ends with its
//! error. If a person asked, [`Tried`] tries each read three times, then in smaller pieces, returns
//! zeros for the sectors that cannot be read, and lists them.
//!
//! Runs on the repair's thread.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::Duration;

use crate::engine::{Error, PageSource, Progress, Result, Stage};

/// How often a read is tried.
pub(super) const TRIES: u32 = 3;

/// Bytes that [`Tried::lost_pages_of_all`] reads at once.
const CHUNK: usize = 1 << 20;

/// The pause between two tries: a stall of the disk may be over by then.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// The smallest unit of a read, in bytes.
const SECTOR: usize = 512;

/// A storage whose failed reads are remembered.
pub(super) struct Tried<'a> {
    storage: &'a dyn PageSource,
    /// Whether a person asked for the repair: unreadable sectors then count as lost.
    asked: bool,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    failure: Option<Error>,
    /// Numbers of sectors.
    lost: BTreeSet<u64>,
}

impl<'a> Tried<'a> {
    /// Reads `storage`. `asked`: a person asked for the repair, so unreadable sectors are lost.
    pub(super) fn new(storage: &'a dyn PageSource, asked: bool) -> Self {
        Self { storage, asked, state: RefCell::default() }
    }

    /// Checks that no read has failed, unless a person asked for the repair.
    ///
    /// # Errors
    /// That of the first failed read.
    pub(super) fn check(&self) -> Result<()> {
        match &self.state.borrow().failure {
            Some(error) if !self.asked => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// The pages of `page_size` bytes with an unreadable sector.
    pub(super) fn lost_pages(&self, page_size: u32) -> Vec<u32> {
        let size = u64::from(page_size.max(1));
        let number = |sector: &u64| u32::try_from(sector * SECTOR as u64 / size + 1);
        let mut pages: Vec<u32> =
            self.state.borrow().lost.iter().filter_map(|sector| number(sector).ok()).collect();
        pages.dedup();
        pages
    }

    /// Reads the whole storage, and returns [`Self::lost_pages`].
    ///
    /// # Errors
    /// `task`'s; the operating system's, if the file's size is unknown.
    pub(super) fn lost_pages_of_all(
        &self,
        page_size: u32,
        task: &dyn Progress,
    ) -> Result<Vec<u32>> {
        let mut buffer = vec![0; CHUNK];
        let (mut done, total) = (0, self.size()?);
        while done < total {
            task.check_cancelled()?;
            task.stage(Stage { name: "reading pages", done, total });
            match self.read_at(&mut buffer, done)? {
                0 => break,
                count => done += count as u64,
            }
        }
        Ok(self.lost_pages(page_size))
    }

    fn failed(&self, error: Error) {
        self.state.borrow_mut().failure.get_or_insert(error);
    }

    /// Fills `buffer` with ever smaller reads, and with zeros for unreadable sectors.
    fn piece_by_piece(&self, buffer: &mut [u8], offset: u64) -> usize {
        let sector = offset / SECTOR as u64;
        if buffer.len() <= SECTOR && self.state.borrow().lost.contains(&sector) {
            buffer.fill(0);
            return buffer.len();
        }
        if let Ok(read) = self.storage.read_at(buffer, offset) {
            return read;
        }
        if buffer.len() <= SECTOR {
            for _ in 1..TRIES {
                if let Ok(read) = self.storage.read_at(buffer, offset) {
                    return read;
                }
            }
            self.state.borrow_mut().lost.insert(sector);
            buffer.fill(0);
            return buffer.len();
        }
        let half = (buffer.len() / 2).next_multiple_of(SECTOR).min(buffer.len());
        let (one, other) = buffer.split_at_mut(half);
        let read = self.piece_by_piece(one, offset);
        if read < one.len() {
            return read;
        }
        read + self.piece_by_piece(other, offset + read as u64)
    }
}

impl PageSource for Tried<'_> {
    fn size(&self) -> Result<u64> {
        self.storage.size().inspect_err(|error| self.failed(error.clone()))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let error = match self.storage.read_at(buffer, offset) {
            Ok(read) => return Ok(read),
            Err(error) => error,
        };
        self.failed(error.clone());
        if !self.asked {
            return Err(error);
        }
        for _ in 1..TRIES {
            std::thread::sleep(PAUSE);
            if let Ok(read) = self.storage.read_at(buffer, offset) {
                return Ok(read);
            }
        }
        // The operating system gives the length, whether the bytes are readable or not.
        let left = self.storage.size()?.saturating_sub(offset);
        let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        Ok(self.piece_by_piece(buffer.get_mut(..count).unwrap_or_default(), offset))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// `length` bytes that follow from their offsets, with some unreadable sectors.
    struct Failing {
        length: usize,
        bad: Vec<u64>,
        /// The number of reads that fail first, at any offset.
        first: Cell<u32>,
    }

    impl PageSource for Failing {
        fn size(&self) -> Result<u64> {
            Ok(self.length as u64)
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
            let count = buffer.len().min(self.length.saturating_sub(offset as usize));
            let sectors = offset / 512..=(offset + (count as u64).max(1) - 1) / 512;
            if self.first.get() > 0 || self.bad.iter().any(|bad| sectors.contains(bad)) {
                self.first.set(self.first.get().saturating_sub(1));
                return Err(Error::sqlite(266, "no"));
            }
            for (at, byte) in buffer[..count].iter_mut().enumerate() {
                *byte = ((offset as usize + at) % 251) as u8 + 1;
            }
            Ok(count)
        }
    }

    #[test]
    fn unasked_a_read_that_fails_once_is_an_error_for_good() {
        let storage = Failing { length: 9000, bad: Vec::new(), first: Cell::new(1) };
        let tried = Tried::new(&storage, false);
        let mut buffer = [0; 512];
        assert_eq!(tried.read_at(&mut buffer, 0).unwrap_err().errcode, 266);
        assert_eq!(tried.read_at(&mut buffer, 0).unwrap(), 512);
        assert_eq!(tried.check().unwrap_err().errcode, 266);
    }

    #[test]
    fn asked_a_read_that_fails_twice_loses_nothing() {
        let storage = Failing { length: 9000, bad: Vec::new(), first: Cell::new(2) };
        let tried = Tried::new(&storage, true);
        let mut buffer = vec![0; 10_000];
        assert_eq!(tried.read_at(&mut buffer, 0).unwrap(), 9000);
        assert!(buffer[..9000].iter().all(|byte| *byte != 0));
        tried.check().unwrap();
        assert!(tried.lost_pages(4096).is_empty());
    }

    #[test]
    fn asked_the_sectors_that_cannot_be_read_are_lost_and_no_others() {
        let storage = Failing { length: 9000, bad: vec![3, 9, 10, 17], first: Cell::new(0) };
        let tried = Tried::new(&storage, true);
        for _ in 0..2 {
            let mut buffer = vec![0x77; 10_000];
            assert_eq!(tried.read_at(&mut buffer, 0).unwrap(), 9000);
            for (at, byte) in buffer[..9000].iter().enumerate() {
                let is_lost = storage.bad.contains(&(at as u64 / 512));
                assert_eq!(*byte, if is_lost { 0 } else { (at % 251) as u8 + 1 }, "{at}");
            }
        }
        assert_eq!(tried.lost_pages(512), [4, 10, 11, 18]);
        assert_eq!(tried.lost_pages(4096), [1, 2, 3]);
    }
}
