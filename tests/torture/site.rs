//! A folder whose files' calls are counted, fail as planned, and are recorded. Any thread; several
//! sites at a time, none inside of another.

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_int;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use libc::ssize_t;

use super::calls::system;
use super::tape::{Event, FileNumber, Mark, NameEvent, Names, Tape};

/// A call to the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    Open,
    Read,
    Write,
    Sync,
    Truncate,
    Stat,
    Lock,
    Map,
    Access,
    Delete,
    Rename,
    Link,
    MakeFolder,
}

/// Which file it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    Database,
    Wal,
    Shm,
    Journal,
    /// A generation of a backup.
    Backup,
    /// Files under work, copies that are kept, the schema snapshot.
    Side,
    Folder,
}

/// What happens to a call instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strike {
    /// It fails with this number.
    Error(c_int),
    /// Half is written, and it fails with this number.
    Torn(c_int),
    /// Half is read or written.
    Half,
    /// It takes so long.
    Slow(Duration),
    /// It reads what was there before the last write.
    Old,
}

/// Calls that are struck: from the `nth` of this kind on, `times` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub call: Call,
    pub file: File,
    pub nth: u64,
    pub times: u64,
    pub strike: Strike,
}

/// Bytes, and where they were.
type Piece = (u64, Vec<u8>);

#[derive(Default)]
struct State {
    fault: Option<Fault>,
    calls: BTreeMap<(Call, File), u64>,
    struck: u64,
    recording: Option<Recording>,
    /// What was overwritten, by file; kept while [`Strike::Old`] is planned.
    old: HashMap<(u64, u64), Vec<Piece>>,
}

#[derive(Default)]
struct Recording {
    tape: Tape,
    live: Names,
    numbers: HashMap<(u64, u64), FileNumber>,
}

/// See the module.
pub struct Site {
    folder: PathBuf,
    /// The database's name.
    database: &'static str,
    state: Mutex<State>,
}

static SITES: RwLock<Vec<Arc<Site>>> = RwLock::new(Vec::new());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Whether there is no site.
pub fn is_idle() -> bool {
    COUNT.load(Ordering::Relaxed) == 0
}

/// The site that a path lies in.
pub fn of(path: &Path) -> Option<Arc<Site>> {
    let sites = SITES.read().unwrap_or_else(PoisonError::into_inner);
    sites.iter().find(|site| path.starts_with(&site.folder)).map(Arc::clone)
}

/// A site, until this is dropped.
pub struct Watch(Arc<Site>);

impl Watch {
    /// Counts the calls of the files below `folder`, in which the database is called `database`.
    pub fn over(folder: &Path, database: &'static str) -> Self {
        let folder = fs::canonicalize(folder).unwrap();
        let site = Arc::new(Site { folder, database, state: Mutex::default() });
        SITES.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&site));
        COUNT.fetch_add(1, Ordering::Relaxed);
        Self(site)
    }
}

impl std::ops::Deref for Watch {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.0
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.plan(None);
        let mut sites = SITES.write().unwrap_or_else(PoisonError::into_inner);
        sites.retain(|site| !Arc::ptr_eq(site, &self.0));
        COUNT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Site {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what is planned, and counts from 0 again.
    pub fn plan(&self, fault: Option<Fault>) {
        let mut state = self.lock();
        state.fault = fault;
        state.calls.clear();
        state.old.clear();
    }

    /// How often each call was made.
    pub fn calls(&self) -> BTreeMap<(Call, File), u64> {
        self.lock().calls.clone()
    }

    /// Calls that were struck so far, by whichever plan.
    pub fn struck(&self) -> u64 {
        self.lock().struck
    }

    /// Begins to record. What there is now is on the disk.
    pub fn record(&self) {
        let mut recording = Recording::default();
        read_folder(&self.folder, &self.folder, &mut recording);
        recording.live = recording.tape.names.clone();
        self.lock().recording = Some(recording);
    }

    /// Ends the recording.
    pub fn recorded(&self) -> Tape {
        self.lock().recording.take().unwrap().tape
    }

    /// Notes what the program knows from here on.
    pub fn mark(&self, what: &'static str, number: u64) {
        if let Some(recording) = &mut self.lock().recording {
            recording.tape.events.push(Event::Mark(Mark { what, number }));
        }
    }

    fn file_of(&self, path: &Path) -> File {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(" (deleted)");
        let is_below = path.parent().is_some_and(|parent| parent != self.folder);
        if *path == *self.folder || name.contains(".partial-") {
            File::Folder
        } else if is_below || name.contains(".damaged-") || name.contains(".before-") {
            File::Side
        } else if name.contains(".backup") {
            File::Backup
        } else if name == self.database {
            File::Database
        } else if name.ends_with("-wal") {
            File::Wal
        } else if name.ends_with("-shm") {
            File::Shm
        } else if name.ends_with("-journal") {
            File::Journal
        } else {
            File::Side
        }
    }

    /// Counts a call, and answers what happens to it.
    pub fn call(&self, call: Call, path: &Path) -> Option<Strike> {
        let file = self.file_of(path);
        let mut state = self.lock();
        let count = state.calls.entry((call, file)).or_default();
        *count += 1;
        let count = *count;
        let fault = state.fault.filter(|fault| (fault.call, fault.file) == (call, file))?;
        let is_struck = count >= fault.nth && count - fault.nth < fault.times;
        state.struck += u64::from(is_struck);
        is_struck.then_some(fault.strike)
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.folder).unwrap_or(path).to_string_lossy().into_owned()
    }

    /// # Safety
    /// As `write(2)` or `pwrite(2)`.
    pub unsafe fn write(&self, fd: c_int, bytes: &[u8], at: Option<i64>) -> ssize_t {
        let mut state = self.lock();
        let first = at.unwrap_or_else(|| system::position(fd));
        if state.fault.is_some_and(|fault| fault.strike == Strike::Old)
            && let Some(id) = system::id(fd)
        {
            let mut old = vec![0_u8; bytes.len()];
            // SAFETY: the buffer has that many bytes.
            let read = unsafe { system::read(fd, old.as_mut_ptr().cast(), old.len(), Some(first)) };
            old.truncate(usize::try_from(read).unwrap_or(0));
            state.old.entry(id).or_default().push((first as u64, old));
        }
        // SAFETY: the caller's promise.
        let done = unsafe { system::write(fd, bytes.as_ptr().cast(), bytes.len(), at) };
        if let Ok(count) = usize::try_from(done)
            && let Some(recording) = &mut state.recording
            && let Some(file) = recording.number(fd)
        {
            let bytes = bytes[..count].to_vec();
            recording.tape.events.push(Event::Write { file, at: first as u64, bytes });
        }
        done
    }

    /// Reads what was there before each place was last written.
    ///
    /// # Safety
    /// As `read(2)` or `pread(2)`.
    pub unsafe fn read_old(&self, fd: c_int, to: *mut u8, size: usize, at: Option<i64>) -> ssize_t {
        let state = self.lock();
        let first = at.unwrap_or_else(|| system::position(fd)) as u64;
        // SAFETY: the caller's promise.
        let done = unsafe { system::read(fd, to.cast(), size, at) };
        if let (Ok(count), Some(id)) = (usize::try_from(done), system::id(fd)) {
            // SAFETY: that many bytes were just read into it.
            let read = unsafe { std::slice::from_raw_parts_mut(to, count) };
            for (start, bytes) in state.old.get(&id).into_iter().flatten() {
                for (place, byte) in (*start..).zip(bytes) {
                    let byte_at = place.checked_sub(first).and_then(|it| usize::try_from(it).ok());
                    if let Some(to) = byte_at.and_then(|it| read.get_mut(it)) {
                        *to = *byte;
                    }
                }
            }
        }
        done
    }

    pub fn open(&self, path: &Path, flags: c_int, open: impl FnOnce() -> c_int) -> c_int {
        let mut state = self.lock();
        let Some(recording) = &mut state.recording else {
            drop(state);
            return open();
        };
        let is_new = flags & libc::O_CREAT != 0 && fs::symlink_metadata(path).is_err();
        let fd = open();
        let Some(id) = system::id(fd).filter(|_| fd >= 0) else { return fd };
        if is_new {
            let file = recording.tape.contents.len();
            recording.tape.contents.push(Vec::new());
            recording.numbers.insert(id, file);
            recording.named(NameEvent::Made { path: self.relative(path), file });
        } else if flags & libc::O_TRUNC != 0
            && let Some(file) = recording.numbers.get(&id)
        {
            recording.tape.events.push(Event::Truncate { file: *file, size: 0 });
        }
        fd
    }

    pub fn truncate(&self, fd: c_int, size: i64, truncate: impl FnOnce() -> c_int) -> c_int {
        let mut state = self.lock();
        let done = truncate();
        if done == 0
            && let Some(recording) = &mut state.recording
            && let Some(file) = recording.number(fd)
        {
            recording.tape.events.push(Event::Truncate { file, size: size as u64 });
        }
        done
    }

    pub fn sync(&self, fd: c_int, path: &Path, sync: impl FnOnce() -> c_int) -> c_int {
        let end = self.lock().recording.as_ref().map(|recording| recording.tape.events.len());
        let done = sync();
        let mut state = self.lock();
        if done == 0
            && let (Some(end), Some(recording)) = (end, &mut state.recording)
        {
            if let Some(file) = recording.number(fd) {
                recording.tape.events.push(Event::Sync { file, end });
            } else if path.is_dir() {
                let folder = self.relative(path);
                recording.tape.events.push(Event::SyncFolder { folder, end });
            }
        }
        done
    }

    /// Carries `change` out, and records what it did if it did.
    fn names(&self, change: impl FnOnce() -> c_int, event: impl FnOnce() -> NameEvent) -> c_int {
        let mut state = self.lock();
        let done = change();
        if done == 0
            && let Some(recording) = &mut state.recording
        {
            recording.named(event());
        }
        done
    }

    pub fn remove(&self, path: &Path, remove: impl FnOnce() -> c_int) -> c_int {
        self.names(remove, || NameEvent::Removed { path: self.relative(path) })
    }

    pub fn rename(&self, from: &Path, to: &Path, rename: impl FnOnce() -> c_int) -> c_int {
        let event = || NameEvent::Renamed { from: self.relative(from), to: self.relative(to) };
        self.names(rename, event)
    }

    pub fn link(&self, from: &Path, to: &Path, link: impl FnOnce() -> c_int) -> c_int {
        let event = || NameEvent::Linked { from: self.relative(from), to: self.relative(to) };
        self.names(link, event)
    }

    pub fn make_folder(&self, path: &Path, make: impl FnOnce() -> c_int) -> c_int {
        self.names(make, || NameEvent::MadeFolder { path: self.relative(path) })
    }
}

impl Recording {
    fn number(&self, fd: c_int) -> Option<FileNumber> {
        self.numbers.get(&system::id(fd)?).copied()
    }

    fn named(&mut self, event: NameEvent) {
        self.live.apply(&event);
        self.tape.events.push(Event::Name(event));
    }
}

fn read_folder(folder: &Path, top: &Path, recording: &mut Recording) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(top).unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            recording.tape.names.folders.insert(name);
            read_folder(&path, top, recording);
        } else {
            let metadata = fs::metadata(&path).unwrap();
            let file = recording.tape.contents.len();
            recording.tape.contents.push(fs::read(&path).unwrap());
            recording.numbers.insert((metadata.dev(), metadata.ino()), file);
            recording.tape.names.files.insert(name, file);
        }
    }
}
