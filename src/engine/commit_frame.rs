//! Whether a COMMIT that failed may have taken place all the same.
//!
//! A transaction in the WAL exists, for a recovery, with its commit frame: a header of 24
//! bytes whose second word is not zero, written first, and a page, written next
//! (<https://sqlite.org/walformat.html>). A COMMIT that failed before that header was handed to the
//! file system has not taken place, and neither has one whose header or page does not fit into the
//! file as the failed write left it. All else may have.
//!
//! Counted for the thread that writes: a connection writes on the thread that calls it. The count
//! means nothing for a database that is not in WAL mode.

use std::cell::Cell;
use std::ffi::c_int;

use rusqlite::ffi;

/// Bytes of a frame's header.
const HEADER: usize = 24;

thread_local! {
    /// Commit frames that may be in a WAL.
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// Where the page of the commit frame belongs whose header was written last.
    static PAGE_AT: Cell<Option<i64>> = const { Cell::new(None) };
}

/// How many commit frames this thread may have written so far; wraps.
pub fn commit_frames() -> u64 {
    COUNT.get()
}

/// Notes a write to any of a database's files. `size` asks for the file's size.
pub(super) fn note(content: &[u8], offset: i64, rc: c_int, size: impl FnOnce() -> Option<i64>) {
    let is_header = content.len() == HEADER && content.get(4..8).is_some_and(|mark| mark != [0; 4]);
    let is_page = PAGE_AT.take() == Some(offset);
    if !is_header && !is_page {
        return;
    }
    let end = offset.saturating_add(content.len() as i64);
    let is_short = rc != ffi::SQLITE_OK && size().is_some_and(|size| size < end);
    match (is_header, is_short) {
        (true, false) => {
            COUNT.set(COUNT.get().wrapping_add(1));
            PAGE_AT.set((rc == ffi::SQLITE_OK).then_some(end));
        }
        // Its header was counted.
        (false, true) => COUNT.set(COUNT.get().wrapping_sub(1)),
        (true, true) | (false, false) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: c_int = ffi::SQLITE_FULL;
    const OK: c_int = ffi::SQLITE_OK;

    fn header(mark: u8) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[7] = mark;
        header
    }

    #[test]
    fn a_commit_frame_counts_unless_it_cannot_be_whole() {
        let counted = |writes: &[(&[u8], i64, c_int, i64)]| {
            let before = commit_frames();
            for (content, offset, rc, size) in writes {
                note(content, *offset, *rc, || Some(*size));
            }
            commit_frames().wrapping_sub(before)
        };
        let page = [1; 512];
        assert_eq!(counted(&[(&header(0), 32, OK, 56), (&page, 56, OK, 568)]), 0, "no commit");
        assert_eq!(counted(&[(&header(9), 32, OK, 56), (&page, 56, OK, 568)]), 1);
        assert_eq!(counted(&[(&header(9), 32, FULL, 40)]), 0, "half a header");
        assert_eq!(counted(&[(&header(9), 32, FULL, 56)]), 1, "old bytes may complete it");
        assert_eq!(counted(&[(&header(9), 32, OK, 56), (&page, 56, FULL, 567)]), 0, "half a page");
        assert_eq!(counted(&[(&header(9), 32, OK, 56), (&page, 56, FULL, 568)]), 1);
        assert_eq!(
            counted(&[(&header(9), 32, OK, 56), (&page, 56, OK, 568), (&page, 568, FULL, 600)]),
            1,
            "a write that came after"
        );
    }
}
