//! What is kept of a database or a WAL that was replaced: the names, the making, the listing and the
//! removal of these copies, and nothing else makes or removes one.
//!
//! | name | what it is |
//! |---|---|
//! | `<database>.damaged-<UTC>`, with its `-wal` | what a repair, or a restore over a file without a header, replaced |
//! | `<database>.before-restore-<UTC>` | what a restore replaced; with `-wal`, a WAL whose database was gone |
//! | `<database>-wal.stale-<UTC>` | a WAL that was not the database's own |
//!
//! A number follows the time where the name is taken. What is kept once is not kept again:
//! [`find_same`] compares contents, so that a repair that fails each time, in one process or in one
//! after another, adds nothing.
//!
//! A copy may be removed only if it is proven that the database has all that it holds. The proof is in
//! the name, `-spare` at its end ([`KeptCopy::mark`]), so that it survives the process and the loss of
//! power, and a copy without it, of whatever origin, stays. [`bound`] removes spare copies beyond the
//! newest few of a kind.
//!
//! Runs on the thread of the repair or the restore. Copies are made while the database is held, so
//! that two processes do not make the same one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::rename::{is_in_use, rename};
use super::{
    DatabaseWithWal, Error, Likeness, PageSource, PrivateFile, Progress, Result, Wal, sidecar_path,
    stamp, sync, sync_folder_of,
};
use crate::format::wal::HEADER;
use rusqlite::ffi;

/// How many copies of a kind are kept unless the caller says otherwise.
pub const KEEP: u32 = 3;

/// How the name of a copy ends that holds nothing which the database does not.
const SPARE: &str = "-spare";

/// Bytes that are compared at a time.
const CHUNK: usize = 1 << 20;

/// Why a copy was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeptKind {
    /// `.damaged-`
    Damaged,
    /// `.before-restore-`
    BeforeRestore,
    /// `-wal.stale-`
    StaleWal,
}

impl KeptKind {
    const ALL: [Self; 3] = [Self::Damaged, Self::BeforeRestore, Self::StaleWal];

    const fn mark(self) -> &'static str {
        match self {
            Self::Damaged => ".damaged-",
            Self::BeforeRestore => ".before-restore-",
            Self::StaleWal => "-wal.stale-",
        }
    }
}

/// A copy that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCopy {
    /// Why.
    pub kind: KeptKind,
    /// The copy; of a WAL without its database, that WAL.
    pub path: PathBuf,
    /// The copy of the WAL that belongs to it.
    pub wal: Option<PathBuf>,
    /// It is proven that the database has all that it holds.
    pub is_spare: bool,
    /// The name without [`SPARE`].
    plain: PathBuf,
    /// When it was made, and its number among those of that second.
    made: (String, u32),
}

/// Whether a name that goes on so after the database's is that of a copy, or of one that a person
/// renamed.
pub fn is_kept(suffix: &str) -> bool {
    KeptKind::ALL.iter().any(|kind| suffix.starts_with(kind.mark()))
}

/// The copies of `database` by kind, the newest first. What has a name of another form, or is no
/// regular file, is not among them.
pub fn kept(database: &Path) -> Vec<KeptCopy> {
    let (Some(folder), Some(name)) = (database.parent(), database.file_name()) else {
        return Vec::new();
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let name = name.as_encoded_bytes();
    let suffixes = fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        entry.file_type().ok().filter(fs::FileType::is_file)?;
        let found = entry.file_name();
        let suffix = found.as_encoded_bytes().strip_prefix(name)?;
        Some(std::str::from_utf8(suffix).ok()?.to_owned())
    });
    let mut found: Vec<KeptCopy> =
        suffixes.filter_map(|suffix| KeptCopy::parse(database, &suffix)).collect();
    let wals: Vec<PathBuf> = found.iter().map(|copy| copy.path.clone()).collect();
    for copy in &mut found {
        copy.wal = Some(Wal::path(&copy.path)).filter(|wal| wals.contains(wal));
    }
    let owned: Vec<PathBuf> = found.iter().filter_map(|copy| copy.wal.clone()).collect();
    found.retain(|copy| !owned.contains(&copy.path));
    found.sort_by(|a, b| a.kind.cmp(&b.kind).then_with(|| b.made.cmp(&a.made)));
    found
}

impl KeptCopy {
    fn parse(database: &Path, suffix: &str) -> Option<Self> {
        let kind = *KeptKind::ALL.iter().find(|kind| suffix.starts_with(kind.mark()))?;
        let rest = suffix.strip_prefix(kind.mark())?;
        let rest = rest.strip_suffix("-wal").unwrap_or(rest);
        let (rest, is_spare) = match rest.strip_suffix(SPARE) {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (time, number) = match rest.split_once('-') {
            Some((time, number)) => (time, number.parse().ok()?),
            None => (rest, 0),
        };
        let is_time = time.len() == 16
            && time.bytes().enumerate().all(|(at, byte)| match at {
                8 => byte == b'T',
                15 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            });
        is_time.then(|| Self {
            kind,
            path: sidecar_path(database, suffix),
            wal: None,
            is_spare,
            plain: sidecar_path(database, &format!("{}{rest}", kind.mark())),
            made: (time.to_owned(), number),
        })
    }

    /// Gives `made`, and `wal` which belongs to it, the name of a new copy. Nothing that exists is
    /// replaced. A copy that has its name has its WAL, too.
    ///
    /// # Errors
    /// The system's; nothing has another name then.
    pub fn name(
        database: &Path,
        kind: KeptKind,
        made: &Path,
        wal: Option<&Path>,
    ) -> io::Result<Self> {
        let time = stamp().map_err(io::Error::other)?;
        let mut copy = Self::free(database, kind, &time);
        if let Some(wal) = wal {
            let name = Wal::path(&copy.path);
            rename(wal, &name)?;
            copy.wal = Some(name);
        }
        if let Err(error) = rename(made, &copy.path) {
            if let (Some(from), Some(to)) = (wal, &copy.wal) {
                drop(rename(to, from));
            }
            return Err(error);
        }
        Ok(copy)
    }

    /// A copy whose name, with each ending that a copy's may have, is not taken.
    fn free(database: &Path, kind: KeptKind, time: &str) -> Self {
        let taken = kept(database).into_iter().filter(|it| it.kind == kind && it.made.0 == time);
        // Higher than any of this second, so that the order stays that of making.
        let mut number = taken.map(|it| it.made.1.max(1).saturating_add(1)).max().unwrap_or(1);
        loop {
            let again = if number == 1 { String::new() } else { format!("-{number}") };
            let path = sidecar_path(database, &format!("{}{time}{again}", kind.mark()));
            let is_free = ["", "-wal", SPARE, "-spare-wal"]
                .iter()
                .all(|ending| fs::symlink_metadata(sidecar_path(&path, ending)).is_err());
            if is_free {
                let made = (time.to_owned(), if number == 1 { 0 } else { number });
                let plain = path.clone();
                return Self { kind, path, wal: None, is_spare: false, plain, made };
            }
            number = number.saturating_add(1);
        }
    }

    /// Notes in the name that the database has all that the copy holds, or that this is not known any
    /// more. Where the system fails it, nothing is noted: the copy stays.
    pub fn mark(&mut self, is_spare: bool) {
        if self.is_spare == is_spare {
            return;
        }
        let name = if is_spare { sidecar_path(&self.plain, SPARE) } else { self.plain.clone() };
        if fs::symlink_metadata(&name).is_ok() {
            return;
        }
        let wal = self.wal.as_ref().map(|_| Wal::path(&name));
        // A copy is never without its WAL: that has both names meanwhile.
        if let (Some(from), Some(to)) = (&self.wal, &wal)
            && fs::hard_link(from, to).is_err()
        {
            return;
        }
        if rename(&self.path, &name).is_err() {
            if let Some(to) = &wal {
                drop(fs::remove_file(to));
            }
            return;
        }
        if let Some(from) = &self.wal {
            drop(fs::remove_file(from));
        }
        (self.path, self.wal, self.is_spare) = (name, wal, is_spare);
    }

    /// Removes the copy. What cannot be removed stays.
    pub fn remove(&self) {
        drop(fs::remove_file(&self.path));
        if let Some(wal) = &self.wal {
            drop(fs::remove_file(wal));
        }
    }
}

/// The copy of that kind that holds the same as a new one of `content` and `wal` would, as SQLite
/// reads them: the database file, and every transaction in the WAL. It is no longer spare. A WAL may
/// end with what was never committed, which does not count: each try at a repair leaves some there.
///
/// # Errors
/// Reads of `content` and `wal` that fail; `task`'s. A copy that cannot be read is another one.
pub fn find_same(
    database: &Path,
    kind: KeptKind,
    content: &dyn PageSource,
    wal: Option<&dyn PageSource>,
    task: &dyn Progress,
) -> Result<Option<KeptCopy>> {
    let candidates = kept(database).into_iter().filter(|copy| copy.kind == kind);
    let mut new = None;
    for mut copy in candidates {
        task.check_cancelled()?;
        let Ok(old) = open(&copy, task) else { continue };
        if new.is_none() {
            new = Some(DatabaseWithWal::new(content, wal, task)?);
        }
        let Some(new) = &new else { break };
        let is_same = is_same(new, &old, kind == KeptKind::BeforeRestore, task)?
            && has_same_rest(new, &old, task)?;
        if is_same {
            copy.mark(false);
            if !copy.is_spare {
                return Ok(Some(copy));
            }
        }
    }
    Ok(None)
}

/// Whether the database, of which `now` is the content, has all that `copy` holds, because it holds
/// the same.
///
/// # Errors
/// Reads of `now` that fail; `task`'s.
pub fn is_in(copy: &KeptCopy, now: &dyn PageSource, task: &dyn Progress) -> Result<bool> {
    match open(copy, task) {
        Ok(old) => is_same(now, &old, true, task),
        Err(_) => Ok(false),
    }
}

type Opened = DatabaseWithWal<PrivateFile, PrivateFile>;

fn open(copy: &KeptCopy, task: &dyn Progress) -> Result<Opened> {
    let wal = copy.wal.as_deref().map(PrivateFile::open).transpose()?;
    DatabaseWithWal::new(PrivateFile::open(&copy.path)?, wal, task)
}

/// Where a header has numbers that each writer sets, and that say nothing of the content: the format
/// versions, the change counter, the schema cookie, and the version of the last writer
/// (<https://sqlite.org/fileformat2.html>, 1.3).
const COUNTERS: [std::ops::Range<usize>; 4] = [18..20, 24..28, 40..44, 92..100];

/// Whether both hold the same bytes, `but_counters` of the header.
fn is_same(
    new: &dyn PageSource,
    old: &dyn PageSource,
    but_counters: bool,
    task: &dyn Progress,
) -> Result<bool> {
    let size = new.size()?;
    if old.size().ok() != Some(size) {
        return Ok(false);
    }
    let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    while at < size {
        task.check_cancelled()?;
        let count = new.read_at(&mut one, at)?;
        if count == 0 || !old.read_at(&mut other, at).is_ok_and(|read| read == count) {
            return Ok(false);
        }
        if at == 0 && but_counters {
            for field in COUNTERS {
                for bytes in [&mut one, &mut other] {
                    if let Some(bytes) = bytes.get_mut(field.clone()) {
                        bytes.fill(0);
                    }
                }
            }
        }
        if one.get(..count) != other.get(..count) {
            return Ok(false);
        }
        at += count as u64;
    }
    Ok(true)
}

/// Whether what lies in the file behind the database's last page is in the copy as well: rows may be
/// found there.
fn has_same_rest(
    new: &DatabaseWithWal<&dyn PageSource, &dyn PageSource>,
    old: &Opened,
    task: &dyn Progress,
) -> Result<bool> {
    let (size, end) = (new.database().size()?, new.size()?);
    if size <= end {
        return Ok(true);
    }
    let rest = Tail { file: *new.database(), from: end };
    is_same(&rest, &Tail { file: old.database(), from: end }, false, task)
}

/// The bytes of a file from one on.
struct Tail<'a> {
    file: &'a dyn PageSource,
    from: u64,
}

impl PageSource for Tail<'_> {
    fn size(&self) -> Result<u64> {
        Ok(self.file.size()?.saturating_sub(self.from))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.file.read_at(buffer, self.from + offset)
    }
}

/// Removes spare copies of `database` beyond the newest `keep` of their kind. What cannot be removed
/// stays.
pub fn bound(database: &Path, keep: u32) {
    for copy in removable(database, keep) {
        copy.remove();
    }
}

/// The copies that [`bound`] removes.
pub fn removable(database: &Path, keep: u32) -> Vec<KeptCopy> {
    let all = kept(database);
    let of = |kind| all.iter().filter(move |copy: &&KeptCopy| copy.kind == kind);
    let keep = usize::try_from(keep).unwrap_or(usize::MAX);
    let beyond = KeptKind::ALL.into_iter().flat_map(|kind| of(kind).skip(keep));
    beyond.filter(|copy| copy.is_spare).cloned().collect()
}

/// Puts the WAL at `wal`, which no connection may find any more, out of the way of `database`, as a
/// copy of that kind. Returns its name: that of one with the same bytes, if there is one.
///
/// # Errors
/// The system's; `SQLITE_BUSY` on Windows, which renames no file that is open, where it is.
pub fn put_wal_aside(database: &Path, wal: &Path, kind: KeptKind) -> Result<PathBuf> {
    let failed = |error: io::Error| {
        if is_in_use(&error) {
            let message = "the -wal could not be renamed, because a program has it open. Close the \
                           database everywhere";
            return Error::sqlite(ffi::SQLITE_BUSY, message).at(database);
        }
        let message = format!("the -wal could not be renamed: {error}");
        Error::sqlite(ffi::SQLITE_IOERR, message).at(database)
    };
    let aside = match same_wal(database, wal, kind)? {
        // A rename over the same bytes loses none, whenever the power is cut.
        Some(same) => same,
        None => {
            let time = stamp()?;
            let copy = KeptCopy::free(database, kind, &time);
            let is_database = kind != KeptKind::StaleWal;
            if is_database { Wal::path(&copy.path) } else { copy.path }
        }
    };
    rename(wal, &aside).map_err(failed)?;
    // The new name survives loss of power, or the old one does: either is a whole WAL.
    drop(sync_folder_of(&aside));
    Ok(aside)
}

/// As [`put_wal_aside`], and the WAL keeps its name as well: SQLite removes that.
///
/// # Errors
/// The system's.
pub fn rescue_wal(database: &Path, wal: &Path) -> Result<PathBuf> {
    if let Some(same) = same_wal(database, wal, KeptKind::StaleWal)? {
        return Ok(same);
    }
    let aside = KeptCopy::free(database, KeptKind::StaleWal, &stamp()?).path;
    // exFAT, SMB and many FUSE file systems have no links. A copy that is cut off is found again as
    // one with other bytes, and stays.
    let copied = || {
        let mut from = super::open_file(wal).map_err(|error| io::Error::other(error.message))?;
        let mut to = Likeness::of(database).create(&aside)?;
        io::copy(&mut from, &mut to)?;
        sync(&to)
    };
    fs::hard_link(wal, &aside).or_else(|_| copied()).map_err(|error| {
        let message = format!("the -wal got no second name: {error}");
        Error::sqlite(ffi::SQLITE_CANTOPEN, message).at(&aside)
    })?;
    Ok(aside)
}

/// A WAL that is kept and has the same bytes. One that says nothing is not looked for.
fn same_wal(database: &Path, wal: &Path, kind: KeptKind) -> Result<Option<PathBuf>> {
    let new = PrivateFile::open(wal)?;
    if new.size()? <= HEADER as u64 {
        return Ok(None);
    }
    for copy in kept(database).into_iter().filter(|copy| copy.kind == kind && copy.wal.is_none()) {
        let Ok(old) = PrivateFile::open(&copy.path) else { continue };
        if is_same(&new, &old, false, &super::NoProgress)? {
            return Ok(Some(copy.path));
        }
    }
    Ok(None)
}
