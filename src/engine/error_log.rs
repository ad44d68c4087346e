//! SQLite's error log (<https://sqlite.org/errlog.html>), kept in a bounded ring.
//!
//! SQLite logs what no result code carries: "file unlinked while open", which page is corrupt and
//! at which source line that was found. The hook runs on the thread that caused the message,
//! possibly under SQLite's mutexes, so it only copies the text; any thread may read it.
//!
//! Only here does SQLite report that it recovered a WAL that an earlier process left, and the path
//! of that WAL: see [`recovered`].

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rusqlite::ffi;

/// How many messages are kept.
const CAPACITY: usize = 256;

/// One message of SQLite's error log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Number of the message in this process, from 1; a gap shows that older ones were let go.
    pub sequence: u64,
    /// Milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// SQLite's extended result code.
    pub errcode: i32,
    /// SQLite's text.
    pub message: String,
}

struct Ring {
    messages: VecDeque<Logged>,
    count: u64,
}

static RING: Mutex<Ring> = Mutex::new(Ring { messages: VecDeque::new(), count: 0 });

/// WALs that were recovered and not yet reported by [`recovered`]. Bounded like the ring.
static RECOVERED: Mutex<VecDeque<PathBuf>> = Mutex::new(VecDeque::new());

/// Whether this process recovered frames of `wal`, a `-wal` file, since the last call: an
/// earlier process ended without closing the database, or the database was replaced and the WAL
/// is not its own.
pub(super) fn recovered(wal: &Path) -> bool {
    let mut recovered = RECOVERED.lock();
    let before = recovered.len();
    recovered.retain(|other| other != wal);
    recovered.len() < before
}

/// The file of "recovered N frames from WAL file PATH" (wal.c).
fn recovered_file(message: &str) -> Option<PathBuf> {
    message.split_once(" from WAL file ").map(|(_, path)| PathBuf::from(path))
}

/// The newest messages, oldest first.
pub fn recent() -> Vec<Logged> {
    RING.lock().messages.iter().cloned().collect()
}

/// Sets the hook. Must be called before SQLite is initialised.
pub(super) fn install() {
    // SAFETY: SQLITE_CONFIG_LOG takes a function pointer and a user pointer; the function is a
    // static one and the user pointer is not used. Called once, before sqlite3_initialize.
    unsafe {
        ffi::sqlite3_config(
            ffi::SQLITE_CONFIG_LOG,
            record as unsafe extern "C" fn(*mut c_void, c_int, *const c_char),
            std::ptr::null_mut::<c_void>(),
        );
    }
}

unsafe extern "C" fn record(_: *mut c_void, errcode: c_int, message: *const c_char) {
    let message = if message.is_null() {
        String::new()
    } else {
        // SAFETY: SQLite passes a NUL-terminated string that is valid during the call.
        unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
    };
    let time_ms = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    if errcode == ffi::SQLITE_NOTICE_RECOVER_WAL
        && let Some(wal) = recovered_file(&message)
    {
        let mut recovered = RECOVERED.lock();
        if recovered.len() == CAPACITY {
            recovered.pop_front();
        }
        recovered.push_back(wal);
    }
    let mut ring = RING.lock();
    ring.count += 1;
    let sequence = ring.count;
    if ring.messages.len() == CAPACITY {
        ring.messages.pop_front();
    }
    ring.messages.push_back(Logged { sequence, time_ms, errcode, message });
}
