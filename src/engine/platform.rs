//! What this system answers where this package depends on it: locks, syncs, identities, shared
//! memory, renames. For a person who reports a fault; the answers decide nothing.
//!
//! The questions are put through the engine's own functions, on new files in a folder of their own,
//! which is removed. One [`Topic`] is asked about at a time: on a network file system a call may not
//! return, and what the others answer is known then. Any thread, which waits for the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rusqlite::ffi;
use serde::Serialize;

use super::file_system::{self, FileSystem};
use super::{
    Error, FileId, Likeness, Result, disk_space, hard_links, other_sqlite, sync, system_name,
};

/// How the name of the folder begins that is made.
const NAME: &str = ".fusion-sqlite-platform";

/// What is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// The file system of the folder. Nothing is made.
    FileSystem,
    /// Locks of files, as SQLite takes them.
    Locks,
    /// Locks of whole files and folders, as operations of this package take them.
    Ownership,
    /// Syncs of files and folders.
    Syncs,
    /// Identities of files, links and descriptors.
    Identity,
    /// Memory that two opens of a file share.
    Memory,
    /// Renames over, and removals of, open files.
    Renames,
}

impl Topic {
    /// All, in the order in which they are asked about, by name.
    pub const ALL: [(&'static str, Self); 7] = [
        ("fileSystem", Self::FileSystem),
        ("locks", Self::Locks),
        ("ownership", Self::Ownership),
        ("syncs", Self::Syncs),
        ("identity", Self::Identity),
        ("memory", Self::Memory),
        ("renames", Self::Renames),
    ];
}

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// The question, for programs.
    pub name: &'static str,
    /// The question, for people.
    pub question: &'static str,
    /// What the system did, or its error.
    pub answer: String,
    /// Whether that is the answer of a local disk on Linux.
    pub usual: bool,
}

/// The system that this addon was built for, and the C library that it found.
fn target() -> String {
    let target = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: the answer is a static string that ends with NUL.
        let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
        format!("{target}, glibc {}", version.to_string_lossy())
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    if cfg!(target_env = "musl") { format!("{target}, musl") } else { target }
}

/// Asks the system about `topic` in `folder`, which is as it was afterwards.
///
/// # Errors
/// The system's, where no folder can be made in `folder`, or no file in that.
pub fn ask(folder: &Path, topic: Topic) -> Result<Vec<Answer>> {
    let mut asked = Asked::default();
    if topic == Topic::FileSystem {
        asked.file_system(folder);
        return Ok(asked.0);
    }
    let within = folder.join(NAME);
    let failed = |error: io::Error| Error::system(ffi::SQLITE_CANTOPEN, &within, &error);
    let made = Folder::make(folder).map_err(failed)?;
    match topic {
        Topic::FileSystem => Ok(()),
        Topic::Locks => asked.locks(&made),
        Topic::Ownership => asked.ownership(&made),
        Topic::Syncs => asked.syncs(&made),
        Topic::Identity => asked.identity(&made),
        Topic::Memory => asked.memory(&made),
        Topic::Renames => asked.renames(&made),
    }
    .map_err(failed)?;
    Ok(asked.0)
}

/// A folder that is removed with all that is in it.
struct Folder(PathBuf);

impl Folder {
    fn make(within: &Path) -> io::Result<Self> {
        let mut number = 0_u32;
        loop {
            let path = within.join(format!("{NAME}-{}-{number}", std::process::id()));
            match Likeness::private().create_folder(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < 100 => {
                    number += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A new file, and its path.
    fn file(&self, name: &str) -> io::Result<(File, PathBuf)> {
        let path = self.path(name);
        Ok((Likeness::private().create(&path)?, path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A second open of a file.
fn again(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// An error in a few words: its name, then the system's text.
fn named(error: &io::Error) -> String {
    let name = error.raw_os_error().and_then(system_name);
    name.map_or_else(|| error.to_string(), |name| format!("{name}: {error}"))
}

fn said<T>(outcome: &io::Result<T>, done: &str) -> String {
    outcome.as_ref().map_or_else(named, |_| done.to_owned())
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

#[derive(Default)]
struct Asked(Vec<Answer>);

impl Asked {
    fn note(&mut self, name: &'static str, question: &'static str, answer: String, usual: bool) {
        self.0.push(Answer { name, question, answer, usual });
    }

    fn yes(&mut self, name: &'static str, question: &'static str, yes: bool) {
        self.note(name, question, yes_or_no(yes), yes);
    }

    fn done<T>(&mut self, name: &'static str, question: &'static str, outcome: &io::Result<T>) {
        self.note(name, question, said(outcome, "done"), outcome.is_ok());
    }

    fn file_system(&mut self, folder: &Path) {
        self.note("addon", "the addon's system and C library", target(), true);
        let found = FileSystem::of(folder);
        let usual = found.as_ref().is_ok_and(|it| !it.network);
        let answer = found.as_ref().map_or_else(named, ToString::to_string);
        self.note("fileSystem", "the folder's file system", answer, usual);
        self.note("fileSystemSign", "as the system names it", file_system::signs(folder), true);
        let free = disk_space::free_bytes(folder);
        let answer = free.as_ref().map_or_else(named, |bytes| format!("{bytes} bytes"));
        self.note("freeSpace", "free space for this user", answer, free.is_ok());
        let inodes = disk_space::free_inodes(folder)
            .map_or_else(|| "not counted".to_owned(), |count| count.to_string());
        self.note("freeInodes", "files that may still be made", inodes, true);
    }

    #[cfg(unix)]
    fn locks(&mut self, folder: &Folder) -> io::Result<()> {
        use super::locks::{self, ofd_locks};
        use std::os::fd::AsRawFd;
        let failed = io::Error::from_raw_os_error;
        let ofd = ofd_locks::Commands::OFD;

        let probe = locks::hold_in(&folder.0);
        let answer = probe.as_ref().map_or_else(Clone::clone, |()| "they hold".to_owned());
        self.note("probe", "the engine's probe of its locks in this folder", answer, probe.is_ok());

        let (first, path) = folder.file("ofd")?;
        let (second, third) = (again(&path)?, again(&path)?);
        let taken = ofd_locks::try_write_lock(first.as_raw_fd(), ofd).map_err(failed);
        self.done("ofdLock", "an open-file-description lock (F_OFD_SETLK)", &taken);
        let refused = ofd_locks::try_write_lock(second.as_raw_fd(), ofd);
        let answer = refused.map_err(failed);
        let usual = matches!(refused, Err(libc::EAGAIN | libc::EACCES));
        let question = "the same lock through a second open of the file";
        self.note("ofdConflict", question, said(&answer, "granted as well"), usual);
        let owner = |fd| {
            ofd_locks::in_the_way(fd, 0, 0, ofd).map_err(failed).map(|it| it.map(|it| it.process))
        };
        let seen = owner(second.as_raw_fd());
        let usual = seen.as_ref().is_ok_and(|it| *it == Some(-1));
        self.note("ofdQuestion", "its owner (F_OFD_GETLK)", owner_in_words(&seen), usual);
        drop(third);
        let seen = owner(second.as_raw_fd());
        let question = "its owner after another open of the file was closed";
        let usual = seen.as_ref().is_ok_and(|it| *it == Some(-1));
        self.note("ofdAfterClose", question, owner_in_words(&seen), usual);

        let (posix, path) = folder.file("posix")?;
        let other = again(&path)?;
        let (question, taken) = ofd_locks::try_posix(posix.as_raw_fd());
        let question = question.map_err(failed);
        let text = "a question about POSIX locks of an empty file (F_GETLK)";
        self.done("posixQuestion", text, &question);
        self.done("posixLock", "a POSIX lock (F_SETLK)", &taken.map_err(failed));
        let seen = owner(other.as_raw_fd());
        let usual = seen.as_ref().is_ok_and(|it| is_this_process(*it));
        let text = "the owner of a POSIX lock of this process (F_OFD_GETLK)";
        self.note("posixOwner", text, owner_in_words(&seen), usual);
        Ok(())
    }

    #[cfg(not(unix))]
    fn locks(&mut self, folder: &Folder) -> io::Result<()> {
        let (file, path) = folder.file("lock")?;
        self.done(
            "lock",
            "a lock of a file (LockFileEx)",
            &file.try_lock().map_err(io::Error::from),
        );
        let refused = again(&path)?.try_lock();
        let answer = refused.as_ref().map_or_else(ToString::to_string, |()| "granted".to_owned());
        let question = "the same lock through a second open of the file";
        self.note("lockConflict", question, answer, refused.is_err());
        Ok(())
    }

    fn ownership(&mut self, folder: &Folder) -> io::Result<()> {
        let lock = folder.path("lock");
        let answers = super::try_lock_exclusive(&folder.0, &lock).and_then(|first| {
            Ok((first.is_some(), first, super::try_lock_exclusive(&folder.0, &lock)?))
        });
        let answer = match &answers {
            Ok((true, _, None)) => "yes".to_owned(),
            Ok((true, _, Some(_))) => "no: both may hold it".to_owned(),
            Ok((false, ..)) => "no: not even the first may".to_owned(),
            Err(error) => named(error),
        };
        let usual = matches!(answers, Ok((true, _, None)));
        self.note("folderOwner", "a folder locked by one operation at a time", answer, usual);
        Ok(())
    }

    fn syncs(&mut self, folder: &Folder) -> io::Result<()> {
        let (mut file, path) = folder.file("file")?;
        file.write_all(b"x")?;
        for (name, question, outcome) in sync::each(&file) {
            self.done(name, question, &outcome);
        }
        self.done("fileSync", "a file synced, as this package does it", &sync::sync(&file));
        let synced = sync::sync_folder_of(&path).map_err(|error| io::Error::other(error.message));
        self.done("folderSync", "a folder synced, as this package does it", &synced);
        if cfg!(unix) {
            let folder = File::open(&folder.0)?;
            for (name, _, outcome) in sync::each(&folder) {
                let (name, question) = match name {
                    "fullFsync" => ("folderFullFsync", "F_FULLFSYNC of a folder"),
                    "fdatasync" => ("folderFdatasync", "fdatasync of a folder"),
                    _ => ("folderFsync", "fsync of a folder"),
                };
                self.done(name, question, &outcome);
            }
        }
        Ok(())
    }

    fn identity(&mut self, folder: &Folder) -> io::Result<()> {
        let (mut first, path) = folder.file("first")?;
        let (_second, other) = folder.file("second")?;
        let empty = FileId::of(&path)?;
        // FAT on macOS: FILENO_EMPTY.
        let differ = empty != FileId::of(&other)?;
        self.yes("emptyFiles", "two empty files have two inode numbers", differ);
        first.write_all(b"x")?;
        first.sync_all()?;
        let question = "an empty file keeps its inode number with its first byte";
        self.yes("firstByte", question, FileId::of(&path)? == empty);
        let moved = folder.path("moved");
        super::rename(&path, &moved)?;
        self.yes("moved", "and when it is renamed", FileId::of(&moved)? == empty);
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            let known = super::locks::ofd_locks::has_identity(first.as_raw_fd());
            self.yes("isKey", "the engine keeps its locks by the inode number", known);
        }
        let link = fs::hard_link(&moved, folder.path("link"));
        self.done("hardLink", "a second name of a file (link)", &link);
        if link.is_ok() {
            self.yes("linkCount", "two names are counted", hard_links(&moved)? == 2);
        }
        #[cfg(unix)]
        {
            use std::os::fd::AsRawFd;
            use std::os::unix::fs::OpenOptionsExt;
            let flags = libc::O_NOFOLLOW;
            let file = OpenOptions::new().read(true).custom_flags(flags).open(&moved)?;
            // SAFETY: F_GETFL takes no argument and touches no memory.
            let reported = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
            let question = "O_NOFOLLOW is reported of a descriptor (F_GETFL)";
            self.yes("noFollow", question, reported >= 0 && reported & flags != 0);
            let listed = other_sqlite::is_possible();
            self.yes("descriptors", "the descriptors of the process can be listed", listed);
        }
        Ok(())
    }

    #[cfg(unix)]
    fn memory(&mut self, folder: &Folder) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        const AT: usize = 100;
        let (file, path) = folder.file("memory")?;
        file.set_len(Shared::LENGTH as u64)?;
        let other = again(&path)?;
        let maps = Shared::of(&file).and_then(|one| Ok((one, Shared::of(&other)?)));
        self.done("map", "a file mapped twice, as the -shm is (mmap, MAP_SHARED)", &maps);
        let Ok((one, two)) = maps else { return Ok(()) };
        one.put(AT, 7);
        let question = "what is stored in one mapping is read in the other";
        self.yes("mapSeen", question, two.get(AT) == Some(7));
        let mut byte = [0];
        other.read_at(&mut byte, AT as u64)?;
        let question = "and by read() through another open of the file";
        self.yes("mapRead", question, byte == [7]);
        other.write_at(&[9], AT as u64)?;
        self.yes("writeSeen", "what is written is read in the mapping", one.get(AT) == Some(9));
        Ok(())
    }

    #[cfg(not(unix))]
    fn memory(&mut self, folder: &Folder) -> io::Result<()> {
        // SQLite maps the -shm of a database in WAL mode.
        let path = folder.path("memory.db");
        let failed = |error: Error| io::Error::other(error.message);
        let open = || {
            let flags = rusqlite::OpenFlags::default();
            super::Connection::open(&path, flags, std::time::Duration::ZERO).map_err(failed)
        };
        let run = |connection: &super::Connection, sql: &str| {
            let sql = connection.sql().map_err(failed)?.execute_batch(sql);
            sql.map_err(|error| failed(error.into()))
        };
        let (one, two) = (open()?, open()?);
        let first = run(&one, "PRAGMA journal_mode = wal; CREATE TABLE t (a)");
        self.done("map", "a database in WAL mode", &first);
        let second = run(&two, "SELECT * FROM t");
        self.done("mapSeen", "and a second connection that reads it", &second);
        Ok(())
    }

    fn renames(&mut self, folder: &Folder) -> io::Result<()> {
        let (mut old, path) = folder.file("old")?;
        old.write_all(b"old")?;
        let id = FileId::of(&path)?;
        let (mut new, from) = folder.file("new")?;
        new.write_all(b"newer")?;
        let renamed = super::rename(&from, &path);
        self.done("renameOver", "a rename over a file that is open", &renamed);
        if renamed.is_ok() {
            let changed = FileId::of(&path)? != id;
            self.yes("renamed", "the path then leads to the other file", changed);
            let kept = old.metadata()?.len() == 3;
            self.yes("renamedOpen", "and the open file is still the old one", kept);
        }
        let removed = fs::remove_file(&path);
        self.done("removeOpen", "the removal of a file that is open", &removed);
        Ok(())
    }
}

#[cfg(unix)]
fn is_this_process(process: Option<libc::pid_t>) -> bool {
    process.is_some_and(|it| u32::try_from(it) == Ok(std::process::id()))
}

#[cfg(unix)]
fn owner_in_words(found: &io::Result<Option<libc::pid_t>>) -> String {
    match found {
        Ok(None) => "there is no lock".to_owned(),
        Ok(Some(-1)) => "a description, l_pid -1".to_owned(),
        Ok(process @ Some(_)) if is_this_process(*process) => "l_pid is this process".to_owned(),
        Ok(Some(process)) => format!("l_pid {process}, which is not this process"),
        Err(error) => named(error),
    }
}

/// A page of a file in memory.
#[cfg(unix)]
struct Shared(std::ptr::NonNull<libc::c_void>);

#[cfg(unix)]
impl Shared {
    /// As long as SQLite's regions of a `-shm`, a multiple of every system's page.
    const LENGTH: usize = 32 << 10;

    /// The first bytes of `file`, which is as long.
    fn of(file: &File) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address that the system chooses, of an open descriptor.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                Self::LENGTH,
                protection,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        std::ptr::NonNull::new(at).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn at(&self, offset: usize) -> Option<*mut u8> {
        // SAFETY: within the mapping.
        (offset < Self::LENGTH).then(|| unsafe { self.0.as_ptr().cast::<u8>().add(offset) })
    }

    fn put(&self, offset: usize, byte: u8) {
        if let Some(at) = self.at(offset) {
            // SAFETY: mapped for writing as long as `self` is; the file, which only this module
            // has open, is as long.
            unsafe { at.write_volatile(byte) };
        }
    }

    fn get(&self, offset: usize) -> Option<u8> {
        // SAFETY: as above.
        self.at(offset).map(|at| unsafe { at.read_volatile() })
    }
}

#[cfg(unix)]
impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: mapped once, unmapped once.
        unsafe { libc::munmap(self.0.as_ptr(), Self::LENGTH) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_topic_is_answered_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let mut names = Vec::new();
        for (name, topic) in Topic::ALL {
            let answers = ask(folder.path(), topic).unwrap();
            assert!(!answers.is_empty(), "{name}");
            names.extend(answers.iter().map(|it| it.name));
            if cfg!(target_os = "linux") {
                let odd: Vec<_> = answers.iter().filter(|it| !it.usual).collect();
                assert!(odd.is_empty(), "{odd:#?}");
            }
        }
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name is that of one question");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        for (name, topic) in Topic::ALL {
            if topic != Topic::FileSystem {
                assert!(ask(&gone, topic).is_err(), "{name}");
            }
        }
    }
}
