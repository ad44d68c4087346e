//! Validation of mapped WAL indexes (`-shm`): detects, when SQLite requests a lock on an index,
//! that another program truncated or zeroed the file while it was in use.
//!
//! SQLite trusts an index whose header is valid. It does not notice two kinds of damage:
//!
//! - A program zeroed the index's tables, or truncated the file so that it grew again with zeros.
//!   SQLite then does not find pages that are in the WAL, and reads old versions of them.
//! - A program truncated the file. SQLite then reads memory behind the file's end: SIGBUS ends the
//!   process.
//!
//! A read transaction reads the header, locks a read mark, and reads the header again; if it
//! differs, SQLite starts over. The request for that lock validates the index in between:
//!
//! 1. It is *cut* if the file ends before the end of its mapping.
//! 2. It is *emptied* if the header's last frame (`mxFrame`) is not in its tables: the frame's page
//!    number is zero, or the hash slot is at which every search for that page begins. SQLite writes
//!    both before it writes the header.
//!
//! In either case the header is cleared, as after a crash. The next reader, of any process,
//! rebuilds the index from the WAL. The rebuild begins with the write lock. SQLite extends an index
//! under that lock, and the missing part of the file is restored here under it.
//!
//! Clearing needs no lock: a header that is cleared without need is rebuilt from the same WAL, and
//! a commit that is under way writes the whole header.
//!
//! Not detected: a file that is truncated to nothing between two transactions (the header is read
//! before any lock is requested) or during a transaction (still a SIGBUS); tables that are zeroed
//! during a transaction, or in part, without the last frame; and the second of two read
//! transactions of one process on one read mark, for which SQLite requests no lock.
//!
//! The `mmap` and `close` hooks report the addresses that SQLite maps. Layout:
//! <https://sqlite.org/walformat.html#the_wal_index_file_format>.

use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};

use parking_lot::{Mutex, MutexGuard};

use super::ofd_locks::{Errno, UNLOCK, WRITE};

/// Where SQLite's locks of an index are, but for that of its opening (`UNIX_SHM_BASE`).
const LOCKS: std::ops::Range<libc::off_t> = 120..128;
/// The first of them.
const WRITE_LOCK: libc::off_t = LOCKS.start;
/// Words of the header: two copies.
const HEADER: usize = 24;
/// Its only version.
const VERSION: u32 = 3_007_000;
/// Bytes of a block, which has page numbers and behind them their hash table.
const BLOCK: usize = 32_768;
/// Where in a block the hash table is.
const TABLE: usize = 16_384;
/// Slots of a hash table.
const SLOTS: u32 = 8_192;
/// Bytes in front of the first block's page numbers.
const FRONT: usize = 136;
/// Frames of a block, and of the first one.
const FRAMES: u32 = 4_096;
const FIRST_FRAMES: u32 = 4_062;
/// Of each so many bytes of a file that is lengthened one is written, as SQLite does, so that the
/// disk has the room before the memory is used.
const STRIDE: libc::off_t = 4_096;

/// The indexes that one copy of SQLite has open, by descriptor.
#[derive(Debug)]
pub(super) struct ShmMaps(Mutex<BTreeMap<RawFd, Index>>);

/// What is mapped of an index for reading and writing, in the order of the file.
#[derive(Debug, Default)]
struct Index {
    parts: Vec<Part>,
    /// It was found to be cut, and not lengthened yet.
    is_cut: bool,
}

#[derive(Debug, Clone, Copy)]
struct Part {
    address: usize,
    offset: usize,
    length: usize,
}

impl ShmMaps {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RawFd, Index>> {
        self.0.lock()
    }

    /// `fd` was opened on an index.
    pub(super) fn opened(&self, fd: RawFd) {
        self.lock().insert(fd, Index::default());
    }

    /// `fd` is about to be closed. Its mappings are gone.
    pub(super) fn closed(&self, fd: RawFd) {
        self.lock().remove(&fd);
    }

    /// A part of the file of `fd` was mapped.
    pub(super) fn mapped(
        &self,
        fd: RawFd,
        address: *mut c_void,
        length: usize,
        offset: libc::off_t,
        protection: c_int,
    ) {
        let both = libc::PROT_READ | libc::PROT_WRITE;
        let (Ok(offset), true) = (usize::try_from(offset), protection & both == both) else {
            return;
        };
        if let Some(index) = self.lock().get_mut(&fd) {
            index.parts.push(Part { address: address.addr(), offset, length });
        }
    }

    /// A lock on `fd` is about to be requested.
    pub(super) fn before(&self, fd: RawFd, lock: &libc::flock) {
        if lock.l_type == UNLOCK || !LOCKS.contains(&lock.l_start) {
            return;
        }
        let mut indexes = self.lock();
        let Some(index) = indexes.get_mut(&fd).filter(|index| !index.parts.is_empty()) else {
            return;
        };
        let Some(size) = size(fd) else { return };
        index.is_cut = size < index.length();
        // SAFETY: the parts are mapped until the descriptor is closed, which waits for the mutex,
        // and lie within the file, or the header alone is touched, on a page that the file has.
        unsafe {
            if if index.is_cut { size > 0 } else { index.is_emptied() } {
                index.clear();
            }
        }
    }

    /// `lock` on `fd` was given.
    ///
    /// # Errors
    /// The disk has no room for what is missing of the file: the lock must not be kept.
    pub(super) fn given(&self, fd: RawFd, lock: &libc::flock) -> Result<(), Errno> {
        if lock.l_start != WRITE_LOCK || lock.l_type != WRITE {
            return Ok(());
        }
        let mut indexes = self.lock();
        let Some(index) = indexes.get_mut(&fd).filter(|index| index.is_cut) else {
            return Ok(());
        };
        let length = index.length();
        // Checked again: another process may have had the lock, and extended the file, in between.
        let Some(size) = size(fd).filter(|size| *size < length) else { return Ok(()) };
        let mut end = size - size % STRIDE + STRIDE;
        while end <= length {
            // SAFETY: writes one byte of a static.
            let written = unsafe { libc::pwrite(fd, [0_u8].as_ptr().cast(), 1, end - 1) };
            if written != 1 {
                return Err(libc::EIO);
            }
            end += STRIDE;
        }
        index.is_cut = false;
        // SAFETY: the file is as long as what is mapped of it, see above.
        unsafe { index.clear() };
        Ok(())
    }
}

impl Index {
    /// Where in the file ends what is mapped.
    fn length(&self) -> libc::off_t {
        let end = self.parts.last().map_or(0, |part| part.offset + part.length);
        libc::off_t::try_from(end).unwrap_or(libc::off_t::MAX)
    }

    /// The address of `offset`, where `length` bytes from there on are mapped.
    fn at(&self, offset: usize, length: usize) -> Option<usize> {
        let part = self
            .parts
            .iter()
            .find(|part| part.offset <= offset && offset + length <= part.offset + part.length)?;
        Some(part.address + (offset - part.offset))
    }

    /// # Safety
    /// The first page of the index is mapped, and the file has it.
    unsafe fn header(&self) -> Option<&[AtomicU32; HEADER]> {
        let address = self.at(0, HEADER * size_of::<u32>())?;
        // SAFETY: the caller's promise. Mapped memory begins at a page's boundary, and other
        // processes write to it, which atomics allow for.
        Some(unsafe { &*std::ptr::with_exposed_provenance(address) })
    }

    /// See the module's documentation, 2.
    ///
    /// # Safety
    /// The parts are mapped, and the file has all of them.
    unsafe fn is_emptied(&self) -> bool {
        // SAFETY: the caller's promise.
        let Some(header) = (unsafe { self.header() }) else { return false };
        let read = || header.each_ref().map(|word| word.load(Ordering::Acquire));
        let words = read();
        let [VERSION, _, _, kind, frame, ..] = words else { return false };
        let (one, other) = words.split_at(HEADER / 2);
        if one != other || kind.to_ne_bytes()[0] != 1 || frame == 0 {
            return false;
        }
        let (block, number) = match frame.checked_sub(FIRST_FRAMES + 1) {
            None => (0, FRONT / size_of::<u32>() + frame as usize - 1),
            Some(rest) => ((rest / FRAMES) as usize + 1, (rest % FRAMES) as usize),
        };
        let Some(block) = block.checked_mul(BLOCK) else { return false };
        let Some(number) = self.at(block + number * size_of::<u32>(), size_of::<u32>()) else {
            return false;
        };
        // SAFETY: as in `header`; the offset is a multiple of the word's size.
        let page: &AtomicU32 = unsafe { &*std::ptr::with_exposed_provenance(number) };
        let page = page.load(Ordering::Acquire);
        let slot = (page.wrapping_mul(383) % SLOTS) as usize;
        let Some(slot) = self.at(block + TABLE + slot * size_of::<u16>(), size_of::<u16>()) else {
            return false;
        };
        // SAFETY: as above.
        let slot: &AtomicU16 = unsafe { &*std::ptr::with_exposed_provenance(slot) };
        let is_there = page != 0 && slot.load(Ordering::Acquire) != 0;
        // A writer that restarts the WAL clears the tables after it has changed the header.
        fence(Ordering::SeqCst);
        !is_there && read() == words
    }

    /// # Safety
    /// The first page of the index is mapped, and the file has it.
    unsafe fn clear(&self) {
        // SAFETY: the caller's promise.
        let Some(header) = (unsafe { self.header() }) else { return };
        for word in header.iter().rev() {
            word.store(0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
    }
}

fn size(fd: RawFd) -> Option<libc::off_t> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: fstat fills the whole structure when it succeeds, and only then is it read.
    unsafe { (libc::fstat(fd, stat.as_mut_ptr()) == 0).then(|| stat.assume_init().st_size) }
}
