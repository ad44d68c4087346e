//! Opening a file to read it, whatever lies at its name. A FIFO there would keep the thread waiting
//! for a writer, without end and without a look at a deadline; so would some devices.
//!
//! [`open_file`] is the one way to read a file that is not read through SQLite, and [`open_descriptor`]
//! is beneath it and beneath SQLite's own opens. Any thread.

#[cfg(unix)]
use std::ffi::CStr;
use std::fs::{File, Metadata};
use std::path::Path;

use rusqlite::ffi;

use super::{Error, Result, Wal, sidecar_path};

/// Opens the file at `path` to be read. Returns at once.
///
/// # Errors
/// `ERR_FUSION_NOT_A_FILE` where something else than a regular file is there; else `SQLITE_CANTOPEN`
/// with the system's reason.
pub fn open_file(path: &Path) -> Result<File> {
    let failed =
        |error: std::io::Error| Error::sqlite(ffi::SQLITE_CANTOPEN, error.to_string()).at(path);
    let file = match open(path) {
        Ok(file) => file,
        // A socket cannot be opened; on some systems neither can a directory.
        Err(error) => {
            return Err(std::fs::metadata(path)
                .ok()
                .filter(|it| !it.is_file())
                .map_or_else(|| failed(error), |metadata| not_a_file(path, &metadata)));
        }
    };
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() { Ok(file) } else { Err(not_a_file(path, &metadata)) }
}

#[cfg(unix)]
fn open(path: &Path) -> std::io::Result<File> {
    use std::os::fd::FromRawFd;
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let fd = open_descriptor(&name, libc::O_RDONLY | libc::O_CLOEXEC, 0);
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened, and is owned by nothing else.
    Ok(unsafe { File::from_raw_fd(fd) })
}

#[cfg(not(unix))]
fn open(path: &Path) -> std::io::Result<File> {
    File::open(path)
}

/// `open(2)` that does not wait for the other end of a FIFO, nor for a device. Returns the descriptor,
/// or -1 with `errno` set.
#[cfg(unix)]
pub(super) fn open_descriptor(path: &CStr, flags: i32, mode: i32) -> i32 {
    // SAFETY: the name ends with NUL and outlives the call.
    let open = |flags| unsafe { libc::open(path.as_ptr(), flags, mode) };
    let fd = open(flags | libc::O_NONBLOCK | libc::O_NOCTTY);
    // Another process has a lease on it, which only an open that waits takes from it. Only regular
    // files have leases.
    if fd < 0 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EWOULDBLOCK) {
        return open(flags);
    }
    fd
}

/// That the `-wal`, `-shm` and `-journal` of the database at `path`, and what is at `path` itself, are
/// regular files as far as they exist. A directory at `path` is left to SQLite, which refuses it.
///
/// # Errors
/// `ERR_FUSION_NOT_A_FILE`.
pub fn check_files(path: &Path) -> Result<()> {
    let check = |name: &Path| match std::fs::metadata(name) {
        Ok(metadata) if !metadata.is_file() => Err(not_a_file(name, &metadata)),
        _ => Ok(()),
    };
    if !path.is_dir() {
        check(path)?;
    }
    check(&Wal::path(path))?;
    check(&sidecar_path(path, "-shm"))?;
    check(&sidecar_path(path, "-journal"))
}

/// The error for something that is no regular file.
pub fn not_a_file(path: &Path, metadata: &Metadata) -> Error {
    let message = format!(
        "{} is {} and no regular file. It was neither read nor replaced: move it away, or name \
         another path",
        path.display(),
        kind(metadata)
    );
    let mut error = Error::fusion("ERR_FUSION_NOT_A_FILE", message).at(path);
    error.errcode = ffi::SQLITE_CANTOPEN;
    error.errstr = super::errstr(ffi::SQLITE_CANTOPEN);
    error
}

fn kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a FIFO";
        } else if kind.is_socket() {
            return "a socket";
        } else if kind.is_block_device() || kind.is_char_device() {
            return "a device";
        }
    }
    if kind.is_dir() {
        "a directory"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else {
        "something else"
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use crate::engine::{NoProgress, Reader, SqliteFile};
    use std::os::unix::ffi::OsStrExt;
    use std::time::{Duration, Instant};

    fn fifo(path: &Path) {
        let name = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name ends with NUL.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    }

    #[test]
    fn what_is_no_regular_file_is_named_and_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fifo(&at("fifo"));
        std::fs::create_dir(at("directory")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::fs::write(at("file"), "x").unwrap();
        std::os::unix::fs::symlink(at("fifo"), at("link")).unwrap();
        for (name, kind) in [
            ("fifo", "a FIFO"),
            ("directory", "a directory"),
            ("socket", "a socket"),
            ("link", "a FIFO"),
        ] {
            let error = open_file(&at(name)).unwrap_err();
            assert_eq!(error.code, "ERR_FUSION_NOT_A_FILE", "{name}: {error}");
            assert_eq!(error.errcode, ffi::SQLITE_CANTOPEN);
            assert!(error.message.contains(kind), "{error}");
        }
        let device = open_file(Path::new("/dev/null")).unwrap_err();
        assert!(device.message.contains("a device"), "{device}");
        assert!(open_file(&at("file")).is_ok());
        assert_eq!(open_file(&at("none")).unwrap_err().code, "ERR_SQLITE_ERROR");
    }

    #[test]
    fn a_database_with_a_fifo_for_a_side_file_is_refused_at_once() {
        for name in ["", "-wal", "-shm", "-journal"] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("x.db");
            if !name.is_empty() {
                let sql = rusqlite::Connection::open(&path).unwrap();
                sql.execute_batch("CREATE TABLE t (a)").unwrap();
            }
            fifo(&sidecar_path(&path, name));
            let errors = [
                Reader::open(&path, Duration::ZERO).err(),
                SqliteFile::open(&path, Instant::now(), &NoProgress).err(),
            ];
            for error in errors {
                assert_eq!(error.unwrap().code, "ERR_FUSION_NOT_A_FILE", "{name}");
            }
        }
    }
}
