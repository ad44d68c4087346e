//! What was recorded of a folder: its files at the beginning, and what was done to them, in order.
//! Plain data.

use std::collections::{BTreeMap, BTreeSet};

/// A file, whatever its names.
pub type FileNumber = usize;

/// One thing that happened. A sync is of what happened before the event with the number that it has
/// as its end, at which it began.
#[derive(Debug, Clone)]
pub enum Event {
    Write { file: FileNumber, at: u64, bytes: Vec<u8> },
    Truncate { file: FileNumber, size: u64 },
    Sync { file: FileNumber, end: usize },
    SyncFolder { folder: String, end: usize },
    Name(NameEvent),
    Mark(Mark),
}

/// A change of folders. Paths are below the folder that is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameEvent {
    Made { path: String, file: FileNumber },
    MadeFolder { path: String },
    Removed { path: String },
    Renamed { from: String, to: String },
    Linked { from: String, to: String },
}

/// What the program knew at a moment: that `what` number `number` is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub what: &'static str,
    pub number: u64,
}

/// The largest number that `what` is acknowledged up to; 0: none is.
pub fn last(marks: &[Mark], what: &str) -> u64 {
    marks.iter().filter(|mark| mark.what == what).map(|mark| mark.number).max().unwrap_or(0)
}

/// Names of files, and folders.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub files: BTreeMap<String, FileNumber>,
    pub folders: BTreeSet<String>,
}

impl Names {
    pub fn apply(&mut self, event: &NameEvent) {
        match event {
            NameEvent::Made { path, file } => {
                self.files.insert(path.clone(), *file);
            }
            NameEvent::MadeFolder { path } => {
                self.folders.insert(path.clone());
            }
            NameEvent::Removed { path } => {
                self.files.remove(path);
                self.folders.remove(path);
            }
            NameEvent::Renamed { from, to } => {
                if let Some(file) = self.files.remove(from) {
                    self.files.insert(to.clone(), file);
                }
            }
            NameEvent::Linked { from, to } => {
                if let Some(file) = self.files.get(from) {
                    self.files.insert(to.clone(), *file);
                }
            }
        }
    }
}

/// A recording.
#[derive(Debug, Default)]
pub struct Tape {
    /// What is on the disk at the beginning.
    pub names: Names,
    /// Contents at the beginning, by number; files that are made later begin empty.
    pub contents: Vec<Vec<u8>>,
    pub events: Vec<Event>,
}
