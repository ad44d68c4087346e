//! The hardened connection profile: every setting of a connection that may write a shared
//! database, and the order in which a file is opened, verified and only then used.
//!
//! [`Connection::open_hardened`] opens the writer's connection and JavaScript's connections alike.
//! Its steps; each one has a reason to come before the next:
//!
//! 1. Checks the directory's file system, if the file is to be made: on a refused file system no
//!    file is made. Makes the directory if it is missing ([`directory`]).
//! 2. `sqlite3_open_v2`, the busy timeout. Nothing has been read.
//! 3. Neither checkpoint on close nor automatic checkpoint. A WAL that is not the file's own does
//!    no damage until it is checkpointed, and every later step may fail and close.
//! 4. By `stat`: the file system, hard links, whether the path still leads to the open file; and
//!    whether SQLite got the write access that was asked for.
//! 5. The first read: not a database, damaged, held by another process.
//! 6. Pages that are neither in the file nor in its WAL.
//! 7. The journal mode ([`journal_mode`]), the one setting that may write to the file.
//! 8. Whether the WAL's index can be written to ([`sqlite_file::check_index`]).
//! 9. All others ([`SETTINGS`]), each read back.
//!
//! A connection that fails in one of these steps is closed. It has changed nothing, except that
//! SQLite may have rolled back a hot journal.
//!
//! Databases without a file (`:memory:`, temporary ones) skip the steps that are about files.
//! A *read-only* connection is hardened, too, and leaves the journal mode as it is. A file without
//! write permission, opened for writing, is `SQLITE_READONLY`: SQLite itself would open it
//! read-only and say so only at the first write.
//!
//! Settings left at SQLite's defaults on purpose:
//! * `trusted_schema` (on): off, triggers, views and indexes could not call functions that the
//!   application defines. FTS5's tables are marked innocuous and work either way. The schema is
//!   the application's own; this profile is not meant for files from untrusted sources.
//! * `recursive_triggers` (off): on, `INSERT OR REPLACE` fires delete triggers, which changes
//!   what an application's schema means.
//!
//! Thread: whichever opens the connection. Sources: <https://sqlite.org/pragma.html>,
//! <https://sqlite.org/c3ref/c_dbconfig_defensive.html>.

use std::ffi::c_int;
use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::connection::LONGEST_TIMEOUT;
use super::generation::shm_path;
use super::wal::Wal;
use super::wal_index;
use super::{
    Connection, Error, JournalMode, Result, advise, cause, check_files, directory, error_log,
    file_id, file_system, journal_mode, sqlite_file,
};

/// `PRAGMA synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Commits survive a crash of the process.
    Normal,
    /// Commits survive loss of power, too; with a rollback journal all but the last one.
    Full,
    /// As `Full`, with the directory synced after a rollback journal is deleted. In WAL mode the
    /// same as `Full`.
    Extra,
}

/// Settings of a hardened connection. [`Profile::default`] is what a shared `fusion.db` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// How long a call waits for another connection's lock.
    pub busy_timeout: Duration,
    /// Whether the file is put into WAL mode.
    pub journal_mode: JournalMode,
    /// `PRAGMA synchronous`.
    pub synchronous: Synchronous,
    /// `PRAGMA wal_autocheckpoint`, in pages. 0: no commit of this connection checkpoints.
    pub wal_autocheckpoint: u32,
    /// `PRAGMA journal_size_limit`, in bytes; -1: none.
    pub journal_size_limit: i64,
    /// `PRAGMA foreign_keys`.
    pub foreign_keys: bool,
    /// `PRAGMA cell_size_check`: a damaged page is noticed when it is read.
    pub cell_size_check: bool,
    /// `PRAGMA mmap_size`, in bytes. With 0 a truncated file is an error and not a SIGBUS.
    pub mmap_size: i64,
    /// `SQLITE_DBCONFIG_DEFENSIVE`: SQL cannot corrupt the file on purpose.
    pub defensive: bool,
    /// Double-quoted strings, in DDL and DML.
    pub double_quoted_strings: bool,
    /// `PRAGMA temp_store = MEMORY`.
    pub temp_store_memory: bool,
    /// `PRAGMA checkpoint_fullfsync`, and with `synchronous` FULL or EXTRA `fullfsync`, too. Only
    /// macOS acts on them.
    pub checkpoint_fullfsync: bool,
    /// `SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE`.
    pub no_checkpoint_on_close: bool,
    /// Open a file on a network file system instead of refusing it.
    pub allow_network_file_system: bool,
    /// Open a file that has several names instead of refusing it.
    pub allow_hard_links: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            busy_timeout: Duration::from_millis(5_000),
            journal_mode: JournalMode::Wal,
            synchronous: Synchronous::Normal,
            wal_autocheckpoint: 0,
            journal_size_limit: 4 << 20,
            foreign_keys: true,
            cell_size_check: true,
            mmap_size: 0,
            defensive: true,
            double_quoted_strings: false,
            temp_store_memory: true,
            checkpoint_fullfsync: cfg!(target_os = "macos"),
            no_checkpoint_on_close: true,
            allow_network_file_system: false,
            allow_hard_links: false,
        }
    }
}

/// How a setting is made and read back.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// `PRAGMA name = value`, `PRAGMA name`.
    Pragma,
    /// `sqlite3_db_config` with this operation.
    DbConfig(c_int),
}

/// One line of the profile.
struct Setting {
    name: &'static str,
    kind: Kind,
    wanted: fn(&Profile) -> i64,
    /// Whether the setting applies only to a database with a file.
    of_file: bool,
}

impl Setting {
    const fn pragma(name: &'static str, wanted: fn(&Profile) -> i64) -> Self {
        Self { name, kind: Kind::Pragma, wanted, of_file: false }
    }

    const fn of_file(name: &'static str, wanted: fn(&Profile) -> i64) -> Self {
        Self { of_file: true, ..Self::pragma(name, wanted) }
    }

    const fn db_config(name: &'static str, operation: c_int, wanted: fn(&Profile) -> i64) -> Self {
        Self { name, kind: Kind::DbConfig(operation), wanted, of_file: false }
    }
}

/// Step 3: before the file is looked at, whatever the profile says.
const UNTIL_LOOKED_AT: &[Setting] = &[
    Setting::db_config("no_checkpoint_on_close", ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, |_| 1),
    Setting::pragma("wal_autocheckpoint", |_| 0),
];

/// Step 9, and what [`Profile::read_back`] reports.
const SETTINGS: &[Setting] = &[
    Setting::pragma("busy_timeout", |it| {
        let millis = it.busy_timeout.min(LONGEST_TIMEOUT).as_millis();
        i64::try_from(millis).unwrap_or(i64::MAX)
    }),
    Setting::pragma("synchronous", |it| match it.synchronous {
        Synchronous::Normal => 1,
        Synchronous::Full => 2,
        Synchronous::Extra => 3,
    }),
    Setting::pragma("journal_size_limit", |it| it.journal_size_limit),
    Setting::pragma("foreign_keys", |it| it.foreign_keys.into()),
    Setting::pragma("cell_size_check", |it| it.cell_size_check.into()),
    Setting::of_file("mmap_size", |it| it.mmap_size),
    Setting::pragma("temp_store", |it| if it.temp_store_memory { 2 } else { 0 }),
    Setting::pragma("checkpoint_fullfsync", |it| it.checkpoint_fullfsync.into()),
    // On macOS fsync leaves the drive's cache alone, so that FULL alone promises nothing
    // (<https://sqlite.org/pragma.html#pragma_fullfsync>). No other system acts on it.
    Setting::pragma("fullfsync", |it| {
        (it.checkpoint_fullfsync && it.synchronous != Synchronous::Normal).into()
    }),
    Setting::db_config("dqs_ddl", ffi::SQLITE_DBCONFIG_DQS_DDL, |it| {
        it.double_quoted_strings.into()
    }),
    Setting::db_config("dqs_dml", ffi::SQLITE_DBCONFIG_DQS_DML, |it| {
        it.double_quoted_strings.into()
    }),
    Setting::pragma("wal_autocheckpoint", |it| it.wal_autocheckpoint.into()),
    Setting::db_config("no_checkpoint_on_close", ffi::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, |it| {
        it.no_checkpoint_on_close.into()
    }),
    Setting::db_config("defensive", ffi::SQLITE_DBCONFIG_DEFENSIVE, |it| it.defensive.into()),
];

impl Profile {
    /// The profile's settings as `connection` has them now, by name.
    ///
    /// # Errors
    /// SQLite's.
    pub fn read_back(connection: &Connection) -> Result<Vec<(&'static str, i64)>> {
        applicable(SETTINGS, connection)
            .map(|setting| Ok((setting.name, read(connection, setting)?)))
            .collect()
    }

    /// The PRAGMAs whose values on `connection` differ from the profile: name, current value,
    /// profile's value. Not the busy timeout, which each connection may choose.
    ///
    /// # Errors
    /// SQLite's.
    pub fn changed_on(&self, connection: &Connection) -> Result<Vec<(&'static str, i64, i64)>> {
        let mut changed = Vec::new();
        for setting in applicable(SETTINGS, connection) {
            let (now, own) = (read(connection, setting)?, (setting.wanted)(self));
            let is_pragma = matches!(setting.kind, Kind::Pragma);
            if now != own && is_pragma && setting.name != "busy_timeout" {
                changed.push((setting.name, now, own));
            }
        }
        Ok(changed)
    }
}

impl Connection {
    /// Opens `path` with `flags`, verifies the file, and applies the settings of `profile`. Nothing
    /// is written or checkpointed before the file is verified.
    ///
    /// # Errors
    /// * `ERR_FUSION_NETWORK_FS`, `ERR_FUSION_HARD_LINKS`, unless the profile allows them;
    /// * `ERR_FUSION_REPLACED`, `ERR_FUSION_UNLINKED`: the path changed meanwhile;
    /// * `ERR_FUSION_WEDGED`: connections of this process are open that have to be closed first;
    /// * `ERR_FUSION_NOT_WAL`: the database could not be put into WAL mode; the message says why;
    /// * `ERR_FUSION_PROFILE`: a setting did not take; the message names it;
    /// * SQLite's, their messages saying what to do: `SQLITE_CANTOPEN`, `SQLITE_NOTADB`,
    ///   `SQLITE_CORRUPT`, `SQLITE_READONLY`, `SQLITE_BUSY`.
    pub fn open_hardened(path: &Path, flags: OpenFlags, profile: &Profile) -> Result<Self> {
        let is_uri = path.as_os_str().as_encoded_bytes().starts_with(b"file:");
        let is_new = flags.contains(OpenFlags::SQLITE_OPEN_CREATE)
            && !is_uri
            && path != Path::new(":memory:")
            && !path.as_os_str().is_empty()
            && !path.exists();
        let missing = if is_new { directory::missing(path) } else { None };
        if is_new && !profile.allow_network_file_system {
            file_system::check_local(missing.as_ref().map_or(path, |(_, above)| above))?;
        }
        if let Some((missing, _)) = missing {
            directory::make(&missing, path)?;
        }
        if !is_uri {
            check_files(path)?;
        }
        let mut connection =
            Self::open(path, flags, profile.busy_timeout).map_err(|error| advise(error, path))?;
        if connection.file().is_some() {
            check_files(connection.path())?;
        }
        // Before the first read, which would make a new -wal if the old one was deleted while other
        // connections of this process have it open.
        if let Some(file) = connection.file().filter(|file| file.check_sidecars().is_err()) {
            file.recover_connections(None, profile.busy_timeout)?;
        }
        connection.enter_generation(profile.busy_timeout)?;
        wal_index::await_rescue(&connection, &shm_path(connection.path()), profile.busy_timeout)?;
        connection.explain_errors();
        apply(&connection, UNTIL_LOOKED_AT, profile)?;
        if connection.file().is_some() {
            check_place(&connection, flags, profile)?;
        }
        check_content(&connection).map_err(|error| connection.advise(error))?;
        journal_mode::apply(&connection, profile.journal_mode)?;
        if flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
            sqlite_file::check_index(&connection)?;
        }
        if let Some(file) = connection.file() {
            file.connection_set.have_read(connection.path());
            directory::remember(path);
            directory::remember(connection.path());
        }
        apply(&connection, SETTINGS, profile)?;
        if let Some(file) = connection.file()
            && error_log::recovered(&Wal::path(connection.path()))
        {
            file.suspect();
        }
        Ok(connection)
    }
}

/// Step 4.
fn check_place(connection: &Connection, flags: OpenFlags, profile: &Profile) -> Result<()> {
    let path = connection.path();
    if !profile.allow_network_file_system {
        file_system::check_local(path)?;
    }
    if !profile.allow_hard_links {
        file_id::check_one_name(path)?;
    }
    connection.check_identity()?;
    if flags.contains(OpenFlags::SQLITE_OPEN_READ_WRITE) {
        if is_readonly(connection) {
            let message = "it could be opened for reading only";
            return Err(connection.explain(Error::sqlite(ffi::SQLITE_READONLY, message).at(path)));
        }
        // SQLite itself would open them for reading only and say so at the first write.
        if let Some(refusal) = cause::refused_side_file(path) {
            return Err(refusal.error(path));
        }
    }
    Ok(())
}

/// Steps 5 and 6.
fn check_content(connection: &Connection) -> Result<()> {
    if connection.file().is_none() {
        return Ok(());
    }
    check_length(connection.path())?;
    let Extent { pages, missing, .. } = connection.extent()?;
    if missing > 0 {
        return Err(Error::sqlite(
            ffi::SQLITE_CORRUPT,
            format!(
                "at least {missing} of {pages} pages are neither in the file nor in its -wal: \
                 the file was cut short, or the -wal belongs to another one"
            ),
        )
        .at(connection.path()));
    }
    connection.check_identity()
}

/// That the file at `path` is not too short for a database, and not empty. SQLite takes such a
/// file for an empty one, and overwrites it with the first page that it writes.
///
/// # Errors
/// `SQLITE_NOTADB`.
pub fn check_length(path: &Path) -> Result<()> {
    match std::fs::metadata(path) {
        Ok(file) if (SHORTEST..SMALLEST).contains(&file.len()) => Err(advise(
            Error::sqlite(ffi::SQLITE_NOTADB, format!("it has {} bytes", file.len())).at(path),
            path,
        )),
        _ => Ok(()),
    }
}

/// Bytes of the smallest page.
const SMALLEST: u64 = 512;

/// Bytes of the shortest file that is not an empty database. On macOS SQLite writes one byte into
/// an empty file where the file system gives all of them one inode (`findInodeInfo` in
/// `os_unix.c`).
const SHORTEST: u64 = if cfg!(target_os = "macos") { 2 } else { 1 };

/// The size of a database by its header, and how many of its pages are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Pages, as the file's header or its WAL says.
    pub pages: u64,
    /// Bytes a page.
    pub page_size: u64,
    /// At least so many pages are neither in the file nor in its WAL.
    pub missing: u64,
}

impl Connection {
    /// The extent of the database that this connection sees. Reads its first page and its schema.
    ///
    /// # Errors
    /// SQLite's: `SQLITE_CORRUPT` where, outside of WAL mode, the file is shorter than its header
    /// says.
    pub fn extent(&self) -> Result<Extent> {
        let path = self.path();
        let at = |error: rusqlite::Error| Error::from(error).at(path);
        let sql = self.sql()?;
        let number = |pragma: &str| -> Result<u64> {
            let value: i64 = sql.pragma_query_value(None, pragma, |row| row.get(0)).map_err(at)?;
            Ok(u64::try_from(value).unwrap_or(0))
        };
        // During one read transaction no checkpoint resets the frames that the snapshot needs, and
        // no VACUUM truncates the file.
        let snapshot = sql.unchecked_transaction().map_err(at)?;
        number("schema_version")?;
        let (pages, page_size) = (number("page_count")?, number("page_size")?.max(1));
        let (size, wal_size) = self.sizes()?;
        snapshot.finish().map_err(at)?;
        // Without a file at the path nothing is known. `check_identity` reports such a path.
        let missing = size.map_or(0, |size| missing_pages(pages, page_size, size, wal_size));
        Ok(Extent { pages, page_size, missing })
    }

    /// The same from the file's header, for a file that SQLite refuses to read; `None` if the
    /// header is not SQLite's or has no valid page count. Read through SQLite's own handle, without
    /// a lock.
    ///
    /// # Errors
    /// SQLite's.
    pub fn extent_by_header(&self) -> Result<Option<Extent>> {
        self.sql()?;
        let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
        let mut header = [0_u8; 100];
        // SAFETY: the connection is open, and this file control writes one pointer, to a file
        // that lives as long as the connection. SQLite leaves its methods null where nothing is
        // open. The buffer holds as many bytes as are asked for; a short read zeroes the rest.
        let rc = unsafe {
            let rc = ffi::sqlite3_file_control(
                self.raw(),
                c"main".as_ptr(),
                ffi::SQLITE_FCNTL_FILE_POINTER,
                (&raw mut file).cast(),
            );
            match file.as_ref().and_then(|file| file.pMethods.as_ref()?.xRead) {
                Some(read) if rc == ffi::SQLITE_OK => {
                    read(file, header.as_mut_ptr().cast(), 100, 0)
                }
                _ => return Ok(None),
            }
        };
        if rc != ffi::SQLITE_OK && rc != ffi::SQLITE_IOERR_SHORT_READ {
            return Err(Error::sqlite(rc, super::errstr(rc)).at(self.path()));
        }
        let (size, wal_size) = self.sizes()?;
        Ok(header_extent(&header, size.unwrap_or(0), wal_size))
    }
}

/// What the header of a file of `size` bytes says (<https://sqlite.org/fileformat2.html>, 1.3).
fn header_extent(header: &[u8; 100], size: u64, wal_size: u64) -> Option<Extent> {
    let word = |at: usize| {
        let bytes: [u8; 4] = header.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_be_bytes(bytes)))
    };
    let page_size = match word(14)? & 0xffff {
        1 => 65_536,
        size if size.is_power_of_two() && size >= 512 => size,
        _ => return None,
    };
    // The page count is valid only if the change counter equals the version-valid-for number.
    if !header.starts_with(b"SQLite format 3\0") || word(24)? != word(92)? {
        return None;
    }
    let pages = word(28)?;
    Some(Extent { pages, page_size, missing: missing_pages(pages, page_size, size, wal_size) })
}

/// How many pages of a database with `pages` pages can neither be in a file of `size` bytes nor
/// among the frames (a page and a header of 24 bytes) of a WAL of `wal_size` bytes (a header of
/// 32 bytes in front). 0 does not mean that all are there.
fn missing_pages(pages: u64, page_size: u64, size: u64, wal_size: u64) -> u64 {
    let frames = wal_size.saturating_sub(32) / (page_size + 24);
    pages.saturating_sub(size / page_size).saturating_sub(frames)
}

/// Whether the main database can be read only.
pub(super) fn is_readonly(connection: &Connection) -> bool {
    // SAFETY: the handle is null or open, and the name is NUL-terminated. With a null handle
    // SQLite (API_ARMOR) answers -1.
    unsafe { ffi::sqlite3_db_readonly(connection.raw(), c"main".as_ptr()) == 1 }
}

fn applicable<'a>(
    settings: &'a [Setting],
    connection: &Connection,
) -> impl Iterator<Item = &'a Setting> {
    let has_file = connection.file().is_some();
    settings.iter().filter(move |setting| has_file || !setting.of_file)
}

/// Makes each setting and reads it back.
fn apply(connection: &Connection, settings: &[Setting], profile: &Profile) -> Result<()> {
    for setting in applicable(settings, connection) {
        let wanted = (setting.wanted)(profile);
        set(connection, setting, wanted)?;
        let got = read(connection, setting)?;
        if got != wanted {
            return Err(Error::fusion(
                "ERR_FUSION_PROFILE",
                format!(
                    "the setting {} is {got} after it was set to {wanted}: this build of SQLite \
                     does not support the value",
                    setting.name
                ),
            )
            .at(connection.path()));
        }
    }
    Ok(())
}

fn set(connection: &Connection, setting: &Setting, wanted: i64) -> Result<()> {
    match setting.kind {
        Kind::Pragma => connection
            .sql()?
            .pragma_update(None, setting.name, wanted)
            .map_err(|error| Error::from(error).at(connection.path())),
        Kind::DbConfig(operation) => {
            db_config(connection, operation, c_int::from(wanted != 0)).map(drop)
        }
    }
}

fn read(connection: &Connection, setting: &Setting) -> Result<i64> {
    match setting.kind {
        Kind::Pragma => connection
            .sql()?
            .pragma_query_value(None, setting.name, |row| row.get(0))
            .map_err(|error| Error::from(error).at(connection.path())),
        Kind::DbConfig(operation) => db_config(connection, operation, -1),
    }
}

/// Sets (0, 1) or only asks for (-1) an operation of `sqlite3_db_config` that is a switch.
fn db_config(connection: &Connection, operation: c_int, value: c_int) -> Result<i64> {
    connection.sql()?;
    let mut now: c_int = -1;
    // SAFETY: the connection is open; switches take an int and a pointer to an int.
    let rc = unsafe { ffi::sqlite3_db_config(connection.raw(), operation, value, &raw mut now) };
    if rc == ffi::SQLITE_OK {
        Ok(now.into())
    } else {
        Err(Error::sqlite(rc, super::errstr(rc)).at(connection.path()))
    }
}

#[cfg(test)]
mod tests {
    use super::missing_pages;

    #[test]
    fn pages_may_be_in_the_file_or_in_the_wal() {
        const PAGE: u64 = 4096;
        let wal = |frames: u64| 32 + frames * (PAGE + 24);
        assert_eq!(missing_pages(0, PAGE, 0, 0), 0);
        assert_eq!(missing_pages(10, PAGE, 10 * PAGE, 0), 0);
        assert_eq!(missing_pages(10, PAGE, 4 * PAGE, wal(6)), 0);
        assert_eq!(missing_pages(10, PAGE, 4 * PAGE, wal(5)), 1);
        assert_eq!(missing_pages(10, PAGE, 4 * PAGE + 1, 0), 6);
        assert_eq!(missing_pages(u64::MAX, 1, 0, 0), u64::MAX);
    }
}
