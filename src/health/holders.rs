//! The processes that have a database open, and the SQLite locks that they hold.
//!
//! On Linux `/proc` (proc(5)) lists each process's file descriptors, which are compared by `stat`,
//! and the locks taken through each descriptor. No file of the database is opened. Other systems
//! do not provide this. Any thread.

use std::path::Path;

use serde::Serialize;

use crate::engine::{FileId, beside};

/// Which of a database's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// The database itself.
    Database,
    /// Its `-wal`.
    Wal,
    /// Its `-shm`.
    Shm,
    /// Its `-journal`.
    Journal,
}

impl Role {
    /// Every role, with what its file's name ends with.
    pub const ALL: [(Self, &'static str); 4] = [
        (Self::Database, ""),
        (Self::Wal, "-wal"),
        (Self::Shm, "-shm"),
        (Self::Journal, "-journal"),
    ];
}

/// A process that has the database open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// Its number.
    pub pid: u32,
    /// Its command line, at most 200 characters; empty if the system does not report it.
    pub command: String,
    /// It is this process.
    pub this_process: bool,
    /// Which files it has open.
    pub files: Vec<Role>,
}

/// A lock on one of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldLock {
    /// The process that holds it; `None` if the system does not report it.
    pub pid: Option<u32>,
    /// The locked file.
    pub file: Role,
    /// `ofd` (of an open file description) or `posix` (of a process).
    pub kind: &'static str,
    /// It is an exclusive lock, not a shared one.
    pub exclusive: bool,
    /// SQLite's names of the locks on these bytes; see [`meanings`].
    pub stands_for: Vec<&'static str>,
}

/// The processes that have a database open, and their locks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holders {
    /// The processes, by number; `None` if the system does not report them.
    pub processes: Option<Vec<Holder>>,
    /// The locks; `None` if the system does not report them.
    pub locks: Option<Vec<HeldLock>>,
    /// Why the lists may be incomplete, for a person.
    pub unknown: Option<String>,
}

/// The processes that have the database at `path` open.
pub fn holders(path: &Path) -> Holders {
    let mut files = Vec::new();
    for (role, suffix) in Role::ALL {
        if let Ok(id) = FileId::of(&beside(path, suffix)) {
            files.push((role, id));
        }
    }
    platform::holders(&files)
}

/// SQLite's lock bytes in a database file (<https://sqlite.org/fileformat2.html>, 1.2).
const PENDING: u64 = 0x4000_0000;
const RESERVED: u64 = PENDING + 1;
const SHARED_FIRST: u64 = PENDING + 2;
const SHARED_LAST: u64 = SHARED_FIRST + 509;

/// SQLite's lock bytes in a `-shm` (<https://sqlite.org/walformat.html>, 2.2).
const WAL_LOCKS: [(u64, u64, &str); 5] = [
    (120, 120, "write"),
    (121, 121, "checkpoint"),
    (122, 122, "recover"),
    (123, 127, "read"),
    (128, 128, "open"),
];

/// SQLite's names for a lock on the bytes `first` to `last`: `shared`, `reserved`, `pending` or
/// `exclusive` on a database; `write`, `checkpoint`, `recover`, `read` or `open` on a `-shm`.
/// Empty for bytes that SQLite does not lock.
pub fn meanings(file: Role, exclusive: bool, first: u64, last: u64) -> Vec<&'static str> {
    let covers = |from: u64, to: u64| first <= to && last >= from;
    match file {
        Role::Database if covers(SHARED_FIRST, SHARED_LAST) => {
            if exclusive {
                return vec!["exclusive"];
            }
            let mut meanings = vec!["shared"];
            if covers(PENDING, PENDING) {
                meanings.push("pending");
            }
            meanings
        }
        Role::Database => [(RESERVED, "reserved"), (PENDING, "pending")]
            .into_iter()
            .filter_map(|(byte, meaning)| covers(byte, byte).then_some(meaning))
            .collect(),
        Role::Shm => WAL_LOCKS
            .into_iter()
            .filter_map(|(from, to, meaning)| covers(from, to).then_some(meaning))
            .collect(),
        Role::Wal | Role::Journal => Vec::new(),
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    use super::{FileId, Holders, Role};

    pub(super) fn holders(_: &[(Role, FileId)]) -> Holders {
        Holders {
            processes: None,
            locks: None,
            unknown: Some(
                "this system does not report which processes have a file open".to_owned(),
            ),
        }
    }
}

#[cfg(target_os = "linux")]
mod platform {
    use std::fs;
    use std::io::ErrorKind;
    use std::path::Path;

    use super::{FileId, HeldLock, Holder, Holders, Role, meanings};

    /// Characters of a command line that are reported.
    const LONGEST_COMMAND: usize = 200;

    pub(super) fn holders(files: &[(Role, FileId)]) -> Holders {
        let entries = match fs::read_dir("/proc") {
            Ok(entries) => entries,
            Err(error) => {
                let unknown = Some(format!("/proc cannot be read: {error}"));
                return Holders { processes: None, locks: None, unknown };
            }
        };
        let (mut processes, mut locks, mut unseen) = (Vec::new(), Vec::new(), 0_u32);
        for entry in entries.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            match open_files(&entry.path(), pid, files, &mut locks) {
                Ok(open) if open.is_empty() => {}
                Ok(open) => processes.push(holder(pid, open)),
                Err(ErrorKind::PermissionDenied) => unseen += 1,
                // The process has ended.
                Err(_) => {}
            }
        }
        // The kernel's list also has the locks of processes whose descriptors we may not read.
        if let Ok(list) = fs::read_to_string("/proc/locks") {
            for (lock, id) in list.lines().filter_map(parse) {
                let Some((role, _)) = files.iter().find(|(_, file)| same(*file, id)) else {
                    continue;
                };
                let lock = lock.on(*role, lock.pid);
                if let Some(pid) = lock.pid
                    && !processes.iter().any(|known: &Holder| known.pid == pid)
                {
                    processes.push(holder(pid, vec![*role]));
                }
                if !locks.iter().any(|known| alike(known, &lock)) {
                    locks.push(lock);
                }
            }
        }
        processes.sort_by_key(|process| process.pid);
        let unknown = (unseen > 0).then(|| {
            format!(
                "the open files of {unseen} processes of other users could not be read; run it as \
                 root to see them"
            )
        });
        Holders { processes: Some(processes), locks: Some(locks), unknown }
    }

    /// Whether a lock in the kernel's list is the `known` lock.
    fn alike(known: &HeldLock, listed: &HeldLock) -> bool {
        known.file == listed.file
            && known.kind == listed.kind
            && known.exclusive == listed.exclusive
            && known.stands_for == listed.stands_for
            && (listed.pid.is_none() || listed.pid == known.pid)
    }

    fn holder(pid: u32, mut files: Vec<Role>) -> Holder {
        files.sort_unstable();
        files.dedup();
        Holder { pid, command: command(pid), this_process: pid == std::process::id(), files }
    }

    fn command(pid: u32) -> String {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        match line.trim() {
            "" => fs::read_to_string(format!("/proc/{pid}/comm"))
                .unwrap_or_default()
                .trim()
                .to_owned(),
            line => line.chars().take(LONGEST_COMMAND).collect(),
        }
    }

    /// Which of `files` a process has open; adds the locks taken through their descriptors.
    fn open_files(
        process: &Path,
        pid: u32,
        files: &[(Role, FileId)],
        locks: &mut Vec<HeldLock>,
    ) -> Result<Vec<Role>, ErrorKind> {
        let mut open = Vec::new();
        for entry in fs::read_dir(process.join("fd")).map_err(|error| error.kind())? {
            let Ok(entry) = entry else { continue };
            // The link leads to the open file itself, even if the file was renamed or deleted.
            let Ok(id) = FileId::of(&entry.path()) else { continue };
            let Some((role, _)) = files.iter().find(|(_, file)| *file == id) else { continue };
            open.push(*role);
            let info = fs::read_to_string(process.join("fdinfo").join(entry.file_name()));
            for line in info.unwrap_or_default().lines() {
                let Some((lock, _)) = line.strip_prefix("lock:").and_then(parse) else { continue };
                let lock = lock.on(*role, Some(pid));
                if !locks.contains(&lock) {
                    locks.push(lock);
                }
            }
        }
        Ok(open)
    }

    /// A lock as the kernel lists it.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(super) struct Listed {
        kind: &'static str,
        exclusive: bool,
        pub(super) pid: Option<u32>,
        first: u64,
        last: u64,
    }

    impl Listed {
        fn on(self, file: Role, pid: Option<u32>) -> HeldLock {
            HeldLock {
                pid,
                file,
                kind: self.kind,
                exclusive: self.exclusive,
                stands_for: meanings(file, self.exclusive, self.first, self.last),
            }
        }
    }

    /// A line of `/proc/locks`, or of a descriptor's `fdinfo`:
    /// `1: POSIX  ADVISORY  WRITE 1234 08:01:5678 1073741824 1073742335`.
    pub(super) fn parse(line: &str) -> Option<(Listed, (u32, u32, u64))> {
        let mut words = line.split_ascii_whitespace().skip(1);
        let kind = match words.next()? {
            "POSIX" => "posix",
            "OFDLCK" => "ofd",
            _ => return None,
        };
        let exclusive = words.nth(1)? == "WRITE";
        let pid = words.next()?.parse::<i64>().ok().and_then(|pid| u32::try_from(pid).ok());
        let mut id = words.next()?.split(':');
        let major = u32::from_str_radix(id.next()?, 16).ok()?;
        let minor = u32::from_str_radix(id.next()?, 16).ok()?;
        let inode = id.next()?.parse().ok()?;
        let first = words.next()?.parse().ok()?;
        let last = match words.next()? {
            "EOF" => u64::MAX,
            last => last.parse().ok()?,
        };
        let pid = pid.filter(|pid| *pid > 0);
        Some((Listed { kind, exclusive, pid, first, last }, (major, minor, inode)))
    }

    fn same(file: FileId, (major, minor, inode): (u32, u32, u64)) -> bool {
        file.inode == inode && file.device == libc::makedev(major, minor)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_kernels_lines_are_read() {
            let (lock, id) =
                parse("12: POSIX  ADVISORY  WRITE 4711 08:02:5678 1073741824 1073742335").unwrap();
            assert_eq!((lock.kind, lock.exclusive, lock.pid), ("posix", true, Some(4711)));
            assert_eq!(id, (8, 2, 5678));
            assert_eq!(lock.on(Role::Database, lock.pid).stands_for, ["exclusive"]);

            let (lock, _) = parse("\t1: OFDLCK ADVISORY  READ -1 fd:0a:99 128 128").unwrap();
            assert_eq!((lock.kind, lock.exclusive, lock.pid), ("ofd", false, None));
            assert_eq!(lock.on(Role::Shm, None).stands_for, ["open"]);

            assert!(parse("1: FLOCK  ADVISORY  WRITE 1 08:02:5678 0 EOF").is_none());
            assert!(parse("1: -> POSIX  ADVISORY  WRITE 1 08:02:5678 0 EOF").is_none());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_have_sqlites_names() {
        let database = |exclusive, first, last| meanings(Role::Database, exclusive, first, last);
        assert_eq!(database(false, SHARED_FIRST, SHARED_LAST), ["shared"]);
        assert_eq!(database(true, RESERVED, RESERVED), ["reserved"]);
        assert_eq!(database(true, PENDING, RESERVED), ["reserved", "pending"]);
        assert_eq!(database(true, PENDING, SHARED_LAST), ["exclusive"]);
        assert!(database(true, 0, 99).is_empty());
        assert_eq!(meanings(Role::Shm, true, 120, 121), ["write", "checkpoint"]);
        assert_eq!(meanings(Role::Shm, false, 126, 126), ["read"]);
    }
}
