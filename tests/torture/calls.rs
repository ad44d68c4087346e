//! The C library's file calls, as this program has them: carried out by the system, unless a
//! [`Site`] says otherwise. Any thread.
//!
//! | call | functions |
//! |---|---|
//! | open | `open`, `open64`, `openat`, `openat64` |
//! | read, write | `read`, `pread64`, `write`, `pwrite64` |
//! | sync | `fsync`, `fdatasync` |
//! | truncate | `ftruncate`, `ftruncate64` |
//! | stat | `fstat`, `fstat64` |
//! | lock | `fcntl`, `fcntl64` with a lock to be set |
//! | map | `mmap`, `mmap64` |
//! | access | `access` |
//! | delete | `unlink`, `unlinkat`, `rmdir` |
//! | rename | `rename` |
//! | link | `link`, `linkat` |
//! | make a folder | `mkdir` |

use std::ffi::{CStr, OsStr, c_char, c_int, c_long, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use libc::{mode_t, off64_t, size_t, ssize_t};

use super::site::{self, Call, Site, Strike};

/// The system's own calls, past the functions of this module.
pub mod system {
    use super::*;

    /// # Safety
    /// As `write(2)`, or with an offset as `pwrite(2)`.
    pub unsafe fn write(fd: c_int, from: *const c_void, size: usize, at: Option<i64>) -> ssize_t {
        // SAFETY: the caller's promise.
        unsafe {
            match at {
                None => libc::syscall(libc::SYS_write, fd, from, size) as ssize_t,
                Some(at) => libc::syscall(libc::SYS_pwrite64, fd, from, size, at) as ssize_t,
            }
        }
    }

    /// # Safety
    /// As `read(2)`, or with an offset as `pread(2)`.
    pub unsafe fn read(fd: c_int, to: *mut c_void, size: usize, at: Option<i64>) -> ssize_t {
        // SAFETY: the caller's promise.
        unsafe {
            match at {
                None => libc::syscall(libc::SYS_read, fd, to, size) as ssize_t,
                Some(at) => libc::syscall(libc::SYS_pread64, fd, to, size, at) as ssize_t,
            }
        }
    }

    /// Where the next `read(2)` or `write(2)` of `fd` is.
    pub fn position(fd: c_int) -> i64 {
        // SAFETY: passes no memory.
        unsafe { libc::syscall(libc::SYS_lseek, fd, 0, libc::SEEK_CUR) as i64 }
    }

    /// Device and inode of an open file.
    pub fn id(fd: c_int) -> Option<(u64, u64)> {
        let mut stat = std::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: on 64-bit systems the kernel's structure is the C library's.
        unsafe {
            (libc::syscall(libc::SYS_fstat, fd, stat.as_mut_ptr()) == 0).then(|| {
                let stat = stat.assume_init();
                (stat.st_dev, stat.st_ino)
            })
        }
    }

    /// Sets `errno`, and answers -1.
    pub fn fail(errno: c_int) -> c_int {
        // SAFETY: each thread has its own.
        unsafe { *libc::__errno_location() = errno };
        -1
    }
}

/// The site of an open file, and its path.
fn of_fd(fd: c_int) -> Option<(Arc<Site>, PathBuf)> {
    if site::is_idle() || fd < 0 {
        return None;
    }
    let path = std::fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    Some((site::of(&path)?, path))
}

/// The site of a name.
///
/// # Safety
/// `name` is null, or ends with NUL.
unsafe fn of_name(folder: c_int, name: *const c_char) -> Option<(Arc<Site>, PathBuf)> {
    if site::is_idle() || name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    let name = PathBuf::from(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
    let path = if name.is_absolute() {
        name
    } else if folder == libc::AT_FDCWD {
        return None;
    } else {
        std::fs::read_link(format!("/proc/self/fd/{folder}")).ok()?.join(name)
    };
    Some((site::of(&path)?, path))
}

/// What is left of a call that is not about bytes: an answer, or nothing.
fn struck(site: &Site, call: Call, path: &std::path::Path) -> Option<c_int> {
    match site.call(call, path)? {
        Strike::Error(errno) | Strike::Torn(errno) => Some(system::fail(errno)),
        Strike::Slow(time) => {
            std::thread::sleep(time);
            None
        }
        Strike::Half | Strike::Old => None,
    }
}

unsafe fn any_write(fd: c_int, from: *const c_void, size: size_t, at: Option<i64>) -> ssize_t {
    // SAFETY: the arguments of a call of the C library's, passed on.
    unsafe {
        let Some((site, path)) = of_fd(fd) else { return system::write(fd, from, size, at) };
        let mut size = size;
        let mut errno = None;
        match site.call(Call::Write, &path) {
            None | Some(Strike::Old) => {}
            Some(Strike::Error(errno)) => return system::fail(errno) as ssize_t,
            Some(Strike::Slow(time)) => std::thread::sleep(time),
            Some(Strike::Half) => size = size.div_ceil(2),
            Some(Strike::Torn(with)) => {
                size /= 2;
                errno = Some(with);
            }
        }
        let done = site.write(fd, std::slice::from_raw_parts(from.cast(), size), at);
        errno.map_or(done, |errno| system::fail(errno) as ssize_t)
    }
}

unsafe fn any_read(fd: c_int, to: *mut c_void, size: size_t, at: Option<i64>) -> ssize_t {
    // SAFETY: as above.
    unsafe {
        let Some((site, path)) = of_fd(fd) else { return system::read(fd, to, size, at) };
        match site.call(Call::Read, &path) {
            None => system::read(fd, to, size, at),
            Some(Strike::Error(errno) | Strike::Torn(errno)) => system::fail(errno) as ssize_t,
            Some(Strike::Slow(time)) => {
                std::thread::sleep(time);
                system::read(fd, to, size, at)
            }
            Some(Strike::Half) => system::read(fd, to, size.div_ceil(2), at),
            Some(Strike::Old) => site.read_old(fd, to.cast(), size, at),
        }
    }
}

unsafe fn any_open(folder: c_int, name: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: as above.
    unsafe {
        let open =
            || libc::syscall(libc::SYS_openat, folder, name, flags | libc::O_LARGEFILE, mode);
        let Some((site, path)) = of_name(folder, name) else { return open() as c_int };
        match struck(&site, Call::Open, &path) {
            Some(answer) => answer,
            None => site.open(&path, flags, || open() as c_int),
        }
    }
}

unsafe fn any_truncate(fd: c_int, size: off64_t) -> c_int {
    // SAFETY: passes no memory.
    let truncate = || unsafe { libc::syscall(libc::SYS_ftruncate, fd, size) as c_int };
    let Some((site, path)) = of_fd(fd) else { return truncate() };
    match struck(&site, Call::Truncate, &path) {
        Some(answer) => answer,
        None => site.truncate(fd, size, truncate),
    }
}

fn any_sync(fd: c_int, number: c_long) -> c_int {
    // SAFETY: passes no memory.
    let sync = || unsafe { libc::syscall(number, fd) as c_int };
    let Some((site, path)) = of_fd(fd) else { return sync() };
    match struck(&site, Call::Sync, &path) {
        Some(answer) => answer,
        None => site.sync(fd, &path, sync),
    }
}

unsafe fn any_stat(fd: c_int, to: *mut c_void) -> c_int {
    if let Some((site, path)) = of_fd(fd)
        && let Some(answer) = struck(&site, Call::Stat, &path)
    {
        return answer;
    }
    // SAFETY: as above; the structure is the kernel's on 64-bit systems.
    unsafe { libc::syscall(libc::SYS_fstat, fd, to) as c_int }
}

unsafe fn any_fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
    let sets =
        matches!(command, libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK | libc::F_OFD_SETLKW);
    if sets
        && !site::is_idle()
        // SAFETY: the argument of these commands is such a structure.
        && unsafe { (*argument.cast::<libc::flock>()).l_type } != libc::F_UNLCK as i16
        && let Some((site, path)) = of_fd(fd)
        && let Some(answer) = struck(&site, Call::Lock, &path)
    {
        return answer;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_fcntl, fd, command, argument) as c_int }
}

unsafe fn any_map(
    at: *mut c_void,
    size: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off64_t,
) -> *mut c_void {
    if flags & libc::MAP_ANONYMOUS == 0
        && let Some((site, path)) = of_fd(fd)
        && struck(&site, Call::Map, &path).is_some()
    {
        return libc::MAP_FAILED;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_mmap, at, size, protection, flags, fd, offset) as *mut c_void }
}

unsafe fn any_unlink(folder: c_int, name: *const c_char, flags: c_int) -> c_int {
    // SAFETY: as above.
    unsafe {
        let unlink = || libc::syscall(libc::SYS_unlinkat, folder, name, flags) as c_int;
        let Some((site, path)) = of_name(folder, name) else { return unlink() };
        match struck(&site, Call::Delete, &path) {
            Some(answer) => answer,
            None => site.remove(&path, unlink),
        }
    }
}

unsafe fn any_link(
    from_folder: c_int,
    from: *const c_char,
    to_folder: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    // SAFETY: as above.
    unsafe {
        let link =
            || libc::syscall(libc::SYS_linkat, from_folder, from, to_folder, to, flags) as c_int;
        let (Some((_, from)), Some((site, to))) =
            (of_name(from_folder, from), of_name(to_folder, to))
        else {
            return link();
        };
        match struck(&site, Call::Link, &to) {
            Some(answer) => answer,
            None => site.link(&from, &to, link),
        }
    }
}

/// Defines functions of the C library's. All are safe to call with arguments that are valid for them.
macro_rules! functions {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty, $body:expr;)*) => {
        $(
            /// The C library's, see the module.
            ///
            /// # Safety
            /// As the C library's.
            // SAFETY: it has the C library's signature, of which the variable arguments of `open` and
            // `fcntl` are passed like any others on the systems that this is compiled for.
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($argument: $type),*) -> $answer {
                #[allow(unused_unsafe, reason = "some bodies are safe")]
                // SAFETY: the caller's promise.
                unsafe { $body }
            }
        )*
    };
}

functions! {
    write(fd: c_int, from: *const c_void, size: size_t) -> ssize_t, any_write(fd, from, size, None);
    pwrite64(fd: c_int, from: *const c_void, size: size_t, at: off64_t) -> ssize_t,
        any_write(fd, from, size, Some(at));
    pwrite(fd: c_int, from: *const c_void, size: size_t, at: off64_t) -> ssize_t,
        any_write(fd, from, size, Some(at));
    read(fd: c_int, to: *mut c_void, size: size_t) -> ssize_t, any_read(fd, to, size, None);
    pread64(fd: c_int, to: *mut c_void, size: size_t, at: off64_t) -> ssize_t,
        any_read(fd, to, size, Some(at));
    pread(fd: c_int, to: *mut c_void, size: size_t, at: off64_t) -> ssize_t,
        any_read(fd, to, size, Some(at));
    open(name: *const c_char, flags: c_int, mode: mode_t) -> c_int,
        any_open(libc::AT_FDCWD, name, flags, mode);
    open64(name: *const c_char, flags: c_int, mode: mode_t) -> c_int,
        any_open(libc::AT_FDCWD, name, flags, mode);
    openat(folder: c_int, name: *const c_char, flags: c_int, mode: mode_t) -> c_int,
        any_open(folder, name, flags, mode);
    openat64(folder: c_int, name: *const c_char, flags: c_int, mode: mode_t) -> c_int,
        any_open(folder, name, flags, mode);
    ftruncate(fd: c_int, size: off64_t) -> c_int, any_truncate(fd, size);
    ftruncate64(fd: c_int, size: off64_t) -> c_int, any_truncate(fd, size);
    fsync(fd: c_int) -> c_int, any_sync(fd, libc::SYS_fsync);
    fdatasync(fd: c_int) -> c_int, any_sync(fd, libc::SYS_fdatasync);
    fstat(fd: c_int, to: *mut c_void) -> c_int, any_stat(fd, to);
    fstat64(fd: c_int, to: *mut c_void) -> c_int, any_stat(fd, to);
    fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int,
        any_fcntl(fd, command, argument);
    fcntl64(fd: c_int, command: c_int, argument: *mut c_void) -> c_int,
        any_fcntl(fd, command, argument);
    mmap(at: *mut c_void, size: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off64_t)
        -> *mut c_void, any_map(at, size, protection, flags, fd, offset);
    mmap64(at: *mut c_void, size: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off64_t)
        -> *mut c_void, any_map(at, size, protection, flags, fd, offset);
    access(name: *const c_char, mode: c_int) -> c_int, {
        let path = of_name(libc::AT_FDCWD, name);
        match path.and_then(|(site, path)| struck(&site, Call::Access, &path)) {
            Some(answer) => answer,
            None => libc::syscall(libc::SYS_faccessat, libc::AT_FDCWD, name, mode) as c_int,
        }
    };
    unlink(name: *const c_char) -> c_int, any_unlink(libc::AT_FDCWD, name, 0);
    unlinkat(folder: c_int, name: *const c_char, flags: c_int) -> c_int,
        any_unlink(folder, name, flags);
    rmdir(name: *const c_char) -> c_int, any_unlink(libc::AT_FDCWD, name, libc::AT_REMOVEDIR);
    rename(from: *const c_char, to: *const c_char) -> c_int, {
        let rename = || {
            libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as c_int
        };
        match (of_name(libc::AT_FDCWD, from), of_name(libc::AT_FDCWD, to)) {
            (Some((_, from)), Some((site, to))) => match struck(&site, Call::Rename, &to) {
                Some(answer) => answer,
                None => site.rename(&from, &to, rename),
            },
            _ => rename(),
        }
    };
    link(from: *const c_char, to: *const c_char) -> c_int,
        any_link(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0);
    linkat(from_folder: c_int, from: *const c_char, to_folder: c_int, to: *const c_char, flags: c_int)
        -> c_int, any_link(from_folder, from, to_folder, to, flags);
    mkdir(name: *const c_char, mode: mode_t) -> c_int, {
        let mkdir = || libc::syscall(libc::SYS_mkdirat, libc::AT_FDCWD, name, mode) as c_int;
        match of_name(libc::AT_FDCWD, name) {
            None => mkdir(),
            Some((site, path)) => match struck(&site, Call::MakeFolder, &path) {
                Some(answer) => answer,
                None => site.make_folder(&path, mkdir),
            },
        }
    };
}
