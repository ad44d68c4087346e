//! Why a file could not be opened, read, written or locked, and what to do about it.
//!
//! SQLite's result codes say what it was doing (`SQLITE_CANTOPEN`, `SQLITE_READONLY`, `SQLITE_FULL`),
//! and seldom why it failed. [`advise`] is the one place that decides that, for every error of this
//! package, in this order:
//!
//! 1. the system's error of the call that failed, as the VFS noted it ([`note`]). SQLite follows a
//!    failed `open` with a second one for reading only, and so ends with the error of that one;
//!    the hook of `open` keeps the first ([`note_open`]);
//! 2. how the connection was opened (`?mode=ro`, `?immutable=1`, for reading only);
//! 3. what `faccessat`, `stat` and `statvfs` answer about the file, the files next to it and its
//!    directory. They open nothing. A permission is blamed only on a file that `faccessat` refuses.
//!
//! The answer is a [`Cause`] for programs and a sentence for a person. Any thread; what is noted is
//! of the thread on which the call failed, and is taken by the error that is made of it.

use std::cell::Cell;
use std::ffi::{CStr, c_int};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

use super::{Connection, Error, disk_space, file_system, shown, sidecar_path};

/// Why the system refused something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No block is left.
    DiskFull,
    /// No block is left to this user.
    Quota,
    /// No inode is left: no file can be made.
    NoInodes,
    /// A limit of this process, or of the file system, on the length of a file.
    FileTooLarge,
    /// This process, or the system, has as many files open as it may.
    NoDescriptors,
    /// The file system is mounted for reading only.
    ReadOnlyFileSystem,
    /// Owner and mode of a file or directory refuse this user.
    NoPermission,
    /// Something else than owner and mode refuses this user.
    Refused,
    /// The connection was opened for reading only.
    OpenedReadOnly,
    /// The connection was opened with `?immutable=1`.
    Immutable,
    /// The path, or a name in it, is longer than the system's or SQLite's limit.
    PathTooLong,
    /// The directory does not exist.
    NoDirectory,
    /// Something in the path is used as a directory and is something else.
    NotADirectory,
    /// The path leads to a directory.
    IsADirectory,
    /// The file does not exist.
    NoFile,
    /// No directory for temporary files takes one.
    NoTemporaryDirectory,
    /// The disk or its file system failed a call.
    Io,
}

impl Cause {
    /// Its name in JavaScript.
    pub const fn name(self) -> &'static str {
        match self {
            Self::DiskFull => "diskFull",
            Self::Quota => "quota",
            Self::NoInodes => "noInodes",
            Self::FileTooLarge => "fileTooLarge",
            Self::NoDescriptors => "noDescriptors",
            Self::ReadOnlyFileSystem => "readOnlyFileSystem",
            Self::NoPermission => "noPermission",
            Self::Refused => "refused",
            Self::OpenedReadOnly => "openedReadOnly",
            Self::Immutable => "immutable",
            Self::PathTooLong => "pathTooLong",
            Self::NoDirectory => "noDirectory",
            Self::NotADirectory => "notADirectory",
            Self::IsADirectory => "isADirectory",
            Self::NoFile => "noFile",
            Self::NoTemporaryDirectory => "noTemporaryDirectory",
            Self::Io => "io",
        }
    }

    /// What a number of the system's errors says, where that is one thing.
    fn of_system(errno: i32) -> Option<Self> {
        #[cfg(unix)]
        match errno {
            libc::EMFILE | libc::ENFILE => return Some(Self::NoDescriptors),
            libc::EIO => return Some(Self::Io),
            libc::ENAMETOOLONG => return Some(Self::PathTooLong),
            _ => {}
        }
        match io::Error::from_raw_os_error(errno).kind() {
            io::ErrorKind::StorageFull => Some(Self::DiskFull),
            io::ErrorKind::QuotaExceeded => Some(Self::Quota),
            io::ErrorKind::FileTooLarge => Some(Self::FileTooLarge),
            io::ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnlyFileSystem),
            io::ErrorKind::PermissionDenied => Some(Self::NoPermission),
            io::ErrorKind::NotADirectory => Some(Self::NotADirectory),
            io::ErrorKind::IsADirectory => Some(Self::IsADirectory),
            io::ErrorKind::NotFound => Some(Self::NoFile),
            _ => None,
        }
    }
}

/// The system's name for one of its errors; none where it has no name here.
pub fn system_name(errno: i32) -> Option<&'static str> {
    #[cfg(unix)]
    macro_rules! name {
        ($($name:ident)*) => {
            match errno { $(libc::$name => Some(stringify!($name)),)* _ => None }
        };
    }
    #[cfg(unix)]
    return name!(EACCES EAGAIN EBADF EBUSY EDQUOT EEXIST EFBIG EINVAL EIO EISDIR ELOOP EMFILE
        ENAMETOOLONG ENFILE ENODEV ENOENT ENOLCK ENOMEM ENOSPC ENOSYS ENOTDIR ENOTSUP ENOTTY ENXIO
        EPERM EROFS ESTALE ETXTBSY);
    #[cfg(not(unix))]
    {
        let _ = errno;
        None
    }
}

thread_local! {
    /// The primary result code of the VFS's call that failed last on this thread, and its `errno`.
    static NOTED: Cell<Option<(c_int, i32)>> = const { Cell::new(None) };
    /// `errno` of the first `open` that failed since [`begin`]; 0 for none.
    static OPEN_FAILED: Cell<i32> = const { Cell::new(0) };
    /// `errno` of the lock that failed last since [`begin_lock`], and not because of another lock;
    /// 0 for none.
    static LOCK_FAILED: Cell<i32> = const { Cell::new(0) };
}

/// A call of the VFS that takes locks begins.
pub(super) fn begin_lock() {
    LOCK_FAILED.set(0);
}

/// The system answered a request of SQLite's for a lock with `errno`.
#[cfg(unix)]
pub(super) fn note_lock(errno: i32) {
    if !matches!(errno, libc::EAGAIN | libc::EACCES | libc::EINTR | libc::EDEADLK) {
        LOCK_FAILED.set(errno);
    }
}

/// What a call of the VFS that takes locks came to, in place of `rc`. SQLite takes a lock that the
/// system could not take (`EBADF` for a file that may only be read, `ENOLCK`) for one that another
/// connection has, and waits for a release that never comes: it is `failed`.
pub(super) fn end_lock(rc: c_int, failed: c_int) -> c_int {
    let errno = LOCK_FAILED.take();
    if rc != ffi::SQLITE_BUSY || errno == 0 {
        return rc;
    }
    NOTED.set(Some((failed & 0xff, errno)));
    failed
}

/// A call of the VFS that opens files begins.
pub(super) fn begin() {
    OPEN_FAILED.set(0);
}

/// An `open` of SQLite's failed with `errno`.
#[cfg(unix)]
pub(super) fn note_open(errno: i32) {
    if OPEN_FAILED.get() == 0 {
        OPEN_FAILED.set(errno);
    }
}

/// A call of the VFS answered `rc`, an error, and the system's error at its end was `errno`.
pub(super) fn note(rc: c_int, errno: i32) {
    let errno = match OPEN_FAILED.take() {
        0 => errno,
        first => first,
    };
    NOTED.set((errno != 0).then_some((rc & 0xff, errno)));
}

/// The system's error behind SQLite's `errcode`, which was just reported on this thread; 0 where it
/// is not known.
pub(super) fn take(errcode: c_int) -> i32 {
    match NOTED.get() {
        Some((rc, errno)) if rc == errcode & 0xff => {
            NOTED.set(None);
            errno
        }
        _ => 0,
    }
}

/// What an error is about: a file, and how the connection to it was opened.
struct Subject {
    file: PathBuf,
    /// Why nothing can be written on the connection, where that is how it was opened.
    reads_only: Option<(Cause, &'static str)>,
}

const MODE_RO: (Cause, &str) = (
    Cause::OpenedReadOnly,
    "the database was opened with ?mode=ro, for reading only. Leave mode=ro out of its path to write",
);
const IMMUTABLE: (Cause, &str) = (
    Cause::Immutable,
    "the database was opened with ?immutable=1, which says that its file never changes. Leave \
     immutable=1 out of its path to write",
);
const READ_ONLY: (Cause, &str) = (
    Cause::OpenedReadOnly,
    "the database is open for reading only. Open it without readOnly to write",
);

impl Subject {
    /// What a path, or a URI, leads to.
    fn of(path: &Path) -> Self {
        let bytes = path.as_os_str().as_encoded_bytes();
        let Some(uri) = bytes.strip_prefix(b"file:") else {
            return Self { file: path.to_path_buf(), reads_only: None };
        };
        let uri = uri.split(|byte| *byte == b'#').next().unwrap_or_default();
        let mut parts = uri.splitn(2, |byte| *byte == b'?');
        let (file, query) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let has =
            |wanted: &[&[u8]]| query.split(|byte| *byte == b'&').any(|it| wanted.contains(&it));
        // An authority is empty or "localhost", or SQLite refuses the path.
        let file = match file.strip_prefix(b"//") {
            Some(rest) => rest.get(rest.iter().position(|it| *it == b'/').unwrap_or(0)..),
            None => Some(file),
        };
        let reads_only =
            if has(&[b"immutable=1", b"immutable=true", b"immutable=yes", b"immutable=on"]) {
                Some(IMMUTABLE)
            } else if has(&[b"mode=ro"]) {
                Some(MODE_RO)
            } else {
                None
            };
        Self { file: decoded(file.unwrap_or_default()), reads_only }
    }

    fn directory(&self) -> &Path {
        let parent = self.file.parent().filter(|parent| !parent.as_os_str().is_empty());
        parent.unwrap_or(Path::new("."))
    }

    /// The directory, or the nearest above it that exists: a folder of work is gone with its work.
    fn existing_directory(&self) -> &Path {
        let mut above = self.directory().ancestors().filter(|it| !it.as_os_str().is_empty());
        above.find(|it| it.is_dir()).unwrap_or(Path::new("."))
    }
}

/// The path that a URI's percent escapes spell.
fn decoded(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let escape = tail.first_chunk::<2>().filter(|_| *first == b'%');
        let escape = escape.and_then(|hex| std::str::from_utf8(hex).ok());
        match escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        std::ffi::OsString::from_vec(bytes).into()
    }
    #[cfg(not(unix))]
    {
        String::from_utf8_lossy(&bytes).into_owned().into()
    }
}

/// The error with its cause, and a message that says what happened and what to do, unless it has
/// them already or the cause is not known. Its codes stay SQLite's. `path` is the database's, or the
/// URI by which it was to be opened.
#[must_use]
pub fn explain(error: Error, path: &Path) -> Error {
    explained(error, &Subject::of(path))
}

/// The same, and for an error of what the file holds, or of another connection's lock, what to do
/// about that: for errors of opening a database.
#[must_use]
pub fn advise(error: Error, path: &Path) -> Error {
    with_content(explain(error, path))
}

impl Connection {
    /// [`explain`] for an error of this connection.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        let subject = Subject { file: self.path().to_path_buf(), reads_only: self.reads_only() };
        explained(error, &subject)
    }

    /// [`advise`] for an error of this connection.
    #[must_use]
    pub fn advise(&self, error: Error) -> Error {
        with_content(self.explain(error))
    }

    fn reads_only(&self) -> Option<(Cause, &'static str)> {
        // SAFETY: the handle is null, which SQLite (API_ARMOR) answers, or open and this thread's.
        // The name lives as long as the connection and is SQLite's own, as the two functions that
        // look for a parameter of its URI ask for; what they answer is null or NUL-terminated.
        unsafe {
            if ffi::sqlite3_db_readonly(self.raw(), c"main".as_ptr()) != 1 {
                return None;
            }
            let name = ffi::sqlite3_db_filename(self.raw(), c"main".as_ptr());
            if name.is_null() {
                return None;
            }
            if ffi::sqlite3_uri_boolean(name, c"immutable".as_ptr(), 0) != 0 {
                return Some(IMMUTABLE);
            }
            let mode = ffi::sqlite3_uri_parameter(name, c"mode".as_ptr());
            if !mode.is_null() && CStr::from_ptr(mode) == c"ro" {
                return Some(MODE_RO);
            }
        }
        self.was_opened_to_read().then_some(READ_ONLY)
    }
}

fn explained(mut error: Error, subject: &Subject) -> Error {
    if error.cause.is_some() {
        return error;
    }
    match decide(&mut error, subject) {
        Some((cause, advice)) => {
            error.cause = Some(cause);
            led(error, &advice)
        }
        None => match of_read_only(&error) {
            Some(advice) => led(error, advice),
            None => error,
        },
    }
}

fn led(mut error: Error, advice: &str) -> Error {
    if !error.message.starts_with(advice) {
        error.message = shown(&format!("{advice} ({})", error.message)).into_owned();
    }
    error
}

/// Why a connection that could write cannot, or why one that reads cannot even do that.
fn of_read_only(error: &Error) -> Option<&'static str> {
    Some(match error.errcode {
        ffi::SQLITE_READONLY_DBMOVED => {
            "it was moved, deleted or replaced while it was open. Open it again by its path"
        }
        ffi::SQLITE_READONLY_ROLLBACK => {
            "a transaction was cut off and left its rollback journal (-journal), and this \
             connection only reads. The next one that may write rolls it back: open the database \
             once for writing"
        }
        ffi::SQLITE_READONLY_RECOVERY
        | ffi::SQLITE_READONLY_CANTLOCK
        | ffi::SQLITE_READONLY_CANTINIT => {
            "an ended process left its -wal, and this connection may not write the -shm that it \
             takes to read it. Open the database once for writing"
        }
        _ => return None,
    })
}

fn with_content(error: Error) -> Error {
    if error.cause.is_some() {
        return error;
    }
    let advice = match error.errcode & 0xff {
        ffi::SQLITE_NOTADB => {
            "it is not a SQLite database, or it is encrypted, or its first page was overwritten. \
             It was left as it is. Check the path; if this was the database, keep it with its -wal \
             and restore a backup"
        }
        ffi::SQLITE_CORRUPT => {
            "the database is damaged. Nothing was written or checkpointed. Keep the file and its \
             -wal together, and repair a copy or restore a backup"
        }
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => {
            "another connection, of this process or another, holds it exclusively and did not let \
             go within the busy timeout. Close that one, or wait longer"
        }
        _ => return error,
    };
    led(error, advice)
}

/// The longest path of a database that SQLite's VFS for unix takes, with the ending of a side file.
const LONGEST_PATH: usize = 512 - 8;

/// The cause, and the sentence for it; `error.errno` is set where only a look at the files says why.
fn decide(error: &mut Error, subject: &Subject) -> Option<(Cause, String)> {
    let primary = error.errcode & 0xff;
    let opens = matches!(primary, ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM);
    let writes = matches!(primary, ffi::SQLITE_READONLY | ffi::SQLITE_FULL);
    let is_of_system = opens || writes || matches!(primary, ffi::SQLITE_IOERR | ffi::SQLITE_NOLFS);
    // A file that was moved is no matter of causes, nor are pages that a checksum condemns.
    if !is_of_system
        || matches!(
            error.errcode,
            ffi::SQLITE_READONLY_DBMOVED | ffi::SQLITE_IOERR_VNODE | ffi::SQLITE_IOERR_DATA
        )
    {
        return None;
    }
    let directory = subject.existing_directory();
    if error.errcode == ffi::SQLITE_IOERR_GETTEMPPATH {
        return Some((
            Cause::NoTemporaryDirectory,
            "SQLite needs a temporary file, and no directory for them exists and may be written \
             to. Name one in the environment variable SQLITE_TMPDIR or TMPDIR"
                .to_owned(),
        ));
    }
    if let Some(cause) = Cause::of_system(error.errno)
        && let Some(found) = of_errno(cause, error.errno, subject)
    {
        return Some(found);
    }
    if opens && let Some(found) = of_path(subject) {
        return Some(found);
    }
    if primary == ffi::SQLITE_READONLY
        && let Some((cause, advice)) = subject.reads_only
        && !matches!(
            error.errcode,
            ffi::SQLITE_READONLY_ROLLBACK
                | ffi::SQLITE_READONLY_RECOVERY
                | ffi::SQLITE_READONLY_CANTLOCK
                | ffi::SQLITE_READONLY_CANTINIT
        )
    {
        return Some((cause, advice.to_owned()));
    }
    if (opens || primary == ffi::SQLITE_READONLY)
        && let Some(refusal) = refused(&subject.file)
    {
        error.errno = refusal.errno;
        return Some((refusal.cause, refusal.advice()));
    }
    if primary == ffi::SQLITE_FULL {
        return (disk_space::free_bytes(directory).ok() == Some(0)).then(|| disk_full(directory));
    }
    if opens && !subject.file.exists() {
        return Some(no_file());
    }
    let name = system_name(error.errno).map_or_else(String::new, |name| format!("{name}; "));
    if opens {
        let place = file_system::describe(&subject.file);
        return Some((Cause::Refused, format!("the system did not open it ({name}{place})")));
    }
    (primary == ffi::SQLITE_IOERR).then(|| {
        let place = file_system::describe(&subject.file);
        let advice = format!(
            "the disk or its file system failed a call of SQLite ({name}{place}). This is no sign \
             of damage, and nothing was changed. Try again; if it fails again, look at the \
             system's log for errors of the disk"
        );
        (Cause::Io, advice)
    })
}

/// What the system's error says about the subject; none where it takes a look at the files to know.
fn of_errno(cause: Cause, errno: i32, subject: &Subject) -> Option<(Cause, String)> {
    let directory = subject.existing_directory();
    let advice = match cause {
        Cause::DiskFull if disk_space::free_inodes(directory) == Some(0) => {
            return Some((
                Cause::NoInodes,
                format!(
                    "no inode is left in the file system of {}, so that no file can be made in it, \
                     whatever space there is. Remove files that are not needed, then try again",
                    directory.display()
                ),
            ));
        }
        Cause::DiskFull => return Some(disk_full(directory)),
        Cause::Quota => format!(
            "this user's quota of the file system of {} is used up. Remove files that are not \
             needed, or have the quota raised, then try again",
            directory.display()
        ),
        Cause::FileTooLarge => format!(
            "the file would become longer than this process or the file system of {} allows. Raise \
             the limit (ulimit -f), or move the database to another file system",
            directory.display()
        ),
        Cause::NoDescriptors => no_descriptors(errno),
        Cause::ReadOnlyFileSystem => read_only_file_system(directory),
        Cause::NoPermission => {
            let refusal = refused(&subject.file);
            return Some(match refusal {
                Some(refusal) => (refusal.cause, refusal.advice()),
                None => (
                    Cause::Refused,
                    format!(
                        "the system refused it ({}), although owner and mode of {} allow it. Look \
                         at access control (SELinux, AppArmor), the container's limits and the \
                         file's attributes (lsattr)",
                        system_name(errno).unwrap_or("access denied"),
                        subject.file.display()
                    ),
                ),
            });
        }
        Cause::PathTooLong => return Some(path_too_long(subject)),
        Cause::IsADirectory => return Some(is_a_directory()),
        _ => return of_path(subject),
    };
    Some((cause, advice))
}

/// What is wrong with the path itself.
fn of_path(subject: &Subject) -> Option<(Cause, String)> {
    let file = &subject.file;
    let length = std::path::absolute(file).map_or(0, |path| path.as_os_str().len());
    let is_too_long = |error: io::Error| error.kind() == io::ErrorKind::InvalidFilename;
    if cfg!(unix) && length > LONGEST_PATH
        || std::fs::symlink_metadata(file).is_err_and(is_too_long)
    {
        return Some(path_too_long(subject));
    }
    if file.is_dir() {
        return Some(is_a_directory());
    }
    let directory = subject.directory();
    match std::fs::metadata(directory) {
        Ok(metadata) if !metadata.is_dir() => return Some(not_a_directory(directory)),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            let not = directory.ancestors().find(|above| above.exists()).unwrap_or(directory);
            return Some(not_a_directory(not));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some((
                Cause::NoDirectory,
                format!(
                    "there is no directory {}. Make it first: SQLite makes files, not directories",
                    directory.display()
                ),
            ));
        }
        _ => {}
    }
    None
}

fn not_a_directory(directory: &Path) -> (Cause, String) {
    let advice = format!(
        "{} is not a directory, so that no file is in it. Check the path",
        directory.display()
    );
    (Cause::NotADirectory, advice)
}

fn disk_full(directory: &Path) -> (Cause, String) {
    let advice = format!(
        "the disk is full: no space is left in the file system of {}. Free some, then try again",
        directory.display()
    );
    (Cause::DiskFull, advice)
}

fn path_too_long(subject: &Subject) -> (Cause, String) {
    let length = std::path::absolute(&subject.file).map_or(0, |path| path.as_os_str().len());
    let advice = format!(
        "the path is too long: it has {length} bytes, and SQLite takes {LONGEST_PATH}, the system \
         255 a name. Use a shorter one"
    );
    (Cause::PathTooLong, advice)
}

fn is_a_directory() -> (Cause, String) {
    (Cause::IsADirectory, "it is a directory. Name a file inside it".to_owned())
}

fn no_file() -> (Cause, String) {
    let advice = "there is no such file, and it was not to be made. Check the path";
    (Cause::NoFile, advice.to_owned())
}

fn read_only_file_system(directory: &Path) -> String {
    format!(
        "the file system of {} is mounted for reading only. Mount it for writing, or move the \
         database to another one",
        directory.display()
    )
}

#[cfg(unix)]
fn no_descriptors(errno: i32) -> String {
    if errno == libc::ENFILE {
        return "the system has as many files open as it may. Raise its limit (fs.file-max), or \
                end processes that have many open"
            .to_owned();
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is one `rlimit`, which the call fills.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0;
    let limit = if known { format!(", {}", limit.rlim_cur) } else { String::new() };
    format!(
        "this process has as many files open as it may{limit}. Raise the limit (ulimit -n), or \
         close databases and files that are not needed"
    )
}

#[cfg(not(unix))]
fn no_descriptors(_: i32) -> String {
    "this process has as many files open as it may. Close databases and files that are not needed"
        .to_owned()
}

/// A file or directory that this user may not use, as the system itself answers.
#[derive(Debug)]
pub struct Refusal {
    /// [`Cause::NoPermission`] or [`Cause::ReadOnlyFileSystem`].
    pub cause: Cause,
    /// What is refused.
    pub path: PathBuf,
    errno: i32,
    what: &'static str,
    is_directory: bool,
}

impl Refusal {
    /// What is refused to whom, and what to do.
    pub fn advice(&self) -> String {
        if self.cause == Cause::ReadOnlyFileSystem {
            return read_only_file_system(self.path.parent().unwrap_or(&self.path));
        }
        let path = self.path.display();
        let (owner, user) = ownership(&self.path);
        if self.is_directory {
            return format!(
                "this process{user} has no permission to {} the directory {path}{owner}, where SQLite \
                 makes the database's -wal, -shm and -journal. Change its owner or mode (chown, \
                 chmod), or run as another user",
                self.what
            );
        }
        format!(
            "this process{user} has no permission to {} {path}{owner}. Change its owner or mode \
             (chown, chmod), or run as the user that it belongs to",
            self.what
        )
    }

    /// `error`, which came of it, with this at the end of its message.
    pub(super) fn named(&self, mut error: Error) -> Error {
        error.message = format!("{}: {}", error.message, shown(&self.advice()));
        (error.errno, error.cause) = (self.errno, Some(self.cause));
        error
    }

    /// The error of an open or a lock that is refused for it.
    pub fn error(&self, database: &Path) -> Error {
        let errcode =
            if self.what.starts_with("read") { ffi::SQLITE_CANTOPEN } else { ffi::SQLITE_READONLY };
        let mut error = Error::sqlite(errcode, shown(&self.advice())).at(database);
        (error.errno, error.cause) = (self.errno, Some(self.cause));
        error
    }
}

/// The files that SQLite has next to a database.
const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The first file next to the database at `path` that this user may not read and write, although
/// the database itself may be: it was left there by another user, and nothing can be written to
/// the database with it, nor locked.
pub fn refused_side_file(path: &Path) -> Option<Refusal> {
    let is_ours = access(path, READ | WRITE) == Ok(());
    let sides = SIDE_FILES.iter().map(|ending| sidecar_path(path, ending));
    sides.filter(|_| is_ours).find_map(|file| refused_to(&file))
}

/// The first of the files of the database at `path`, and its directory, that this user may not use.
/// None where nothing is there.
fn refused(path: &Path) -> Option<Refusal> {
    let files =
        || std::iter::once(path.to_path_buf()).chain(SIDE_FILES.map(|it| sidecar_path(path, it)));
    if let Some(unread) = files().find_map(|file| refusal(&file, READ, "read")) {
        return Some(unread);
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    if let Some(found) = files().find_map(|file| refused_to(&file)) {
        return Some(found);
    }
    // Of a directory whose content may not even be asked about, a file in it is not known.
    let mut closed = directory.ancestors().filter(|it| !it.as_os_str().is_empty());
    closed
        .find_map(|above| refusal(above, EXECUTE, "look into"))
        .or_else(|| refusal(directory, WRITE | EXECUTE, "write in"))
        .map(|refusal| Refusal { is_directory: true, ..refusal })
}

fn refused_to(file: &Path) -> Option<Refusal> {
    refusal(file, READ, "read").or_else(|| refusal(file, READ | WRITE, "write"))
}

fn refusal(path: &Path, how: c_int, what: &'static str) -> Option<Refusal> {
    let errno = access(path, how).err()?;
    let cause = match io::Error::from_raw_os_error(errno).kind() {
        io::ErrorKind::ReadOnlyFilesystem => Cause::ReadOnlyFileSystem,
        // A directory above that may not be looked into is named itself.
        io::ErrorKind::PermissionDenied if std::fs::symlink_metadata(path).is_ok() => {
            Cause::NoPermission
        }
        _ => return None,
    };
    Some(Refusal { cause, path: path.to_path_buf(), errno, what, is_directory: false })
}

#[cfg(unix)]
pub(super) const READ: c_int = libc::R_OK;
#[cfg(unix)]
pub(super) const WRITE: c_int = libc::W_OK;
#[cfg(unix)]
pub(super) const EXECUTE: c_int = libc::X_OK;

/// What the system answers for this process's effective user, or the number of its error.
#[cfg(unix)]
pub(super) fn access(path: &Path, how: c_int) -> Result<(), i32> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| libc::ENOENT)?;
    // SAFETY: the path is NUL-terminated; nothing is opened.
    if unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), how, libc::AT_EACCESS) } == 0 {
        return Ok(());
    }
    Err(last_errno())
}

/// Owner and mode of a file, and the user of this process, for a sentence.
#[cfg(unix)]
fn ownership(path: &Path) -> (String, String) {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: it cannot fail.
    let user = unsafe { libc::geteuid() };
    let owner = std::fs::metadata(path).map_or_else(
        |_| String::new(),
        |it| format!(" (of user {}, mode {:04o})", it.uid(), it.mode() & 0o7777),
    );
    (owner, format!(" (user {user})"))
}

#[cfg(not(unix))]
pub(super) const READ: c_int = 0;
#[cfg(not(unix))]
pub(super) const WRITE: c_int = 1;
#[cfg(not(unix))]
pub(super) const EXECUTE: c_int = 0;

/// Only the read-only attribute of a file: access lists cannot be asked without trying.
#[cfg(not(unix))]
pub(super) fn access(path: &Path, how: c_int) -> Result<(), i32> {
    const ERROR_ACCESS_DENIED: i32 = 5;
    let refused = how & WRITE != 0
        && std::fs::metadata(path).is_ok_and(|it| it.is_file() && it.permissions().readonly());
    if refused { Err(ERROR_ACCESS_DENIED) } else { Ok(()) }
}

#[cfg(not(unix))]
fn ownership(_: &Path) -> (String, String) {
    (String::new(), String::new())
}

/// The system's error of the call that failed last on this thread.
pub(super) fn last_errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    /// An error of a write as the VFS notes it, explained.
    fn write_failed(folder: &Path, errno: i32, errcode: c_int) -> Error {
        let error = Error { errno, ..Error::sqlite(errcode, "disk I/O error") };
        explain(error, &folder.join("app.db"))
    }

    #[test]
    fn a_limit_of_this_user_or_process_is_no_full_disk_and_no_faulty_one() {
        let folder = tempfile::tempdir().unwrap();
        for (errno, cause, what_to_do) in [
            (libc::EDQUOT, Cause::Quota, "quota raised"),
            (libc::EFBIG, Cause::FileTooLarge, "ulimit -f"),
            (libc::ENOSPC, Cause::DiskFull, "Free some"),
            (libc::EIO, Cause::Io, "log"),
        ] {
            for errcode in [ffi::SQLITE_IOERR_WRITE, ffi::SQLITE_FULL, ffi::SQLITE_CANTOPEN] {
                // A file that fails to be opened for EIO is said to be refused, with the name.
                if errno == libc::EIO && errcode != ffi::SQLITE_IOERR_WRITE {
                    continue;
                }
                let error = write_failed(folder.path(), errno, errcode);
                assert_eq!(error.cause, Some(cause), "{errcode} {}", error.message);
                assert!(error.message.contains(what_to_do), "{}", error.message);
                assert_eq!((error.errcode, error.errno), (errcode, errno));
            }
        }
        assert_eq!((Cause::Quota.name(), system_name(libc::EDQUOT)), ("quota", Some("EDQUOT")));
    }
}
