//! The states that a power cut can leave, from a [`Tape`].
//!
//! | of | there is after the cut |
//! |---|---|
//! | a file's bytes | of each sector what it was at some moment since the file's last sync, one moment for each sector: writes are lost in any subset, reordered, and torn between sectors |
//! | a file's size | what it was at some moment since then; bytes that are not there read as zeros |
//! | names | a beginning of what was done to them, at least up to the last change of a folder that was synced, and to the last naming of a file that was synced: journaling file systems keep their order |
//!
//! [`Disk::step`] goes on by one event; [`Disk::state`] is what a cut at this moment leaves.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use super::random::Random;
use super::tape::{Event, FileNumber, Mark, NameEvent, Names, Tape};

/// Whether the disk does what a sync asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syncs {
    Kept,
    /// Syncs do nothing: the control.
    Dropped,
}

/// How much of what was not synced is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Nothing.
    None,
    /// Everything.
    All,
    /// Everything up to a moment; what happened at that moment is torn.
    UpTo { sector: u64 },
    /// Each sector for itself.
    Sectors { sector: u64 },
    /// Nothing of one file, everything of the others, or the other way round.
    OneFile,
}

/// One of each in turn.
pub const STYLES: [Style; 8] = [
    Style::None,
    Style::Sectors { sector: 4096 },
    Style::UpTo { sector: 512 },
    Style::Sectors { sector: 512 },
    Style::All,
    Style::OneFile,
    Style::UpTo { sector: 4096 },
    Style::Sectors { sector: 4096 },
];

#[derive(Debug, Default, Clone)]
struct Inode {
    durable: Vec<u8>,
    /// Numbers of events since.
    pending: Vec<usize>,
}

/// A disk at a moment of a recording.
pub struct Disk<'a> {
    tape: &'a Tape,
    syncs: Syncs,
    at: usize,
    inodes: Vec<Inode>,
    durable: Names,
    pending: Vec<(usize, &'a NameEvent)>,
    live: Names,
    pub marks: Vec<Mark>,
}

/// What is on the disk after a cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    pub files: BTreeMap<String, Vec<u8>>,
    pub folders: Vec<String>,
}

impl State {
    /// Makes it in an empty folder.
    pub fn make(&self, folder: &Path) {
        for name in &self.folders {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        for (name, bytes) in &self.files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    pub fn number(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn touches(event: &NameEvent, folder: &str) -> bool {
    let is_in = |path: &str| folder_of(path) == folder;
    match event {
        NameEvent::Made { path, .. }
        | NameEvent::MadeFolder { path }
        | NameEvent::Removed { path } => is_in(path),
        NameEvent::Renamed { from, to } => is_in(from) || is_in(to),
        NameEvent::Linked { to, .. } => is_in(to),
    }
}

/// Puts `bytes` at `at`, with zeros before where there is nothing.
fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

impl<'a> Disk<'a> {
    pub fn new(tape: &'a Tape, syncs: Syncs) -> Self {
        let inode = |content: &Vec<u8>| Inode { durable: content.clone(), pending: Vec::new() };
        Self {
            tape,
            syncs,
            at: 0,
            inodes: tape.contents.iter().map(inode).collect(),
            durable: tape.names.clone(),
            pending: Vec::new(),
            live: tape.names.clone(),
            marks: Vec::new(),
        }
    }

    /// The number of events so far.
    pub fn at(&self) -> usize {
        self.at
    }

    /// Goes on by one event; false at the end.
    pub fn step(&mut self) -> bool {
        let Some(event) = self.tape.events.get(self.at) else { return false };
        match event {
            Event::Write { file, .. } | Event::Truncate { file, .. } => {
                self.inodes[*file].pending.push(self.at);
            }
            Event::Name(event) => {
                self.pending.push((self.at, event));
                self.live.apply(event);
            }
            Event::Mark(mark) => self.marks.push(*mark),
            Event::Sync { .. } | Event::SyncFolder { .. } if self.syncs == Syncs::Dropped => {}
            Event::Sync { file, end } => self.sync(*file, *end),
            Event::SyncFolder { folder, end } => {
                let mut names = self.pending.iter();
                let last =
                    names.rposition(|(number, event)| number < end && touches(event, folder));
                self.sync_names(last);
            }
        }
        self.at += 1;
        true
    }

    fn sync(&mut self, file: FileNumber, end: usize) {
        let inode = &mut self.inodes[file];
        let count = inode.pending.iter().take_while(|number| **number < end).count();
        for number in inode.pending.drain(..count) {
            match &self.tape.events[number] {
                Event::Write { at, bytes, .. } => put(&mut inode.durable, index(*at), bytes),
                Event::Truncate { size, .. } => inode.durable.resize(index(*size), 0),
                _ => {}
            }
        }
        // The names that it had, in their order.
        let mut names = self.durable.clone();
        let mut last = None;
        for (place, (number, event)) in self.pending.iter().enumerate() {
            names.apply(event);
            let path = match event {
                NameEvent::Made { path, .. } => path,
                NameEvent::Renamed { to, .. } | NameEvent::Linked { to, .. } => to,
                NameEvent::MadeFolder { .. } | NameEvent::Removed { .. } => continue,
            };
            if *number < end && names.files.get(path) == Some(&file) {
                last = Some(place);
            }
        }
        self.sync_names(last);
    }

    fn sync_names(&mut self, last: Option<usize>) {
        for (_, event) in self.pending.drain(..last.map_or(0, |last| last + 1)) {
            self.durable.apply(event);
        }
    }

    /// Whether a cut at this moment leaves more than one state.
    pub fn is_open(&self) -> bool {
        !self.pending.is_empty() || self.inodes.iter().any(|inode| !inode.pending.is_empty())
    }

    /// What a cut at this moment leaves.
    pub fn state(&self, style: Style, random: &mut Random) -> State {
        let moment = match style {
            Style::UpTo { .. } => {
                let mut pending: Vec<usize> =
                    self.inodes.iter().flat_map(|it| it.pending.iter().copied()).collect();
                pending.sort_unstable();
                // The last ones are those that a cut at another moment does not have.
                let near = pending.len().saturating_sub(8);
                let from = if random.below(2) == 0 { near } else { 0 };
                pending.get(from..).filter(|it| !it.is_empty()).map(|it| *random.pick(it))
            }
            _ => None,
        };
        let count = match style {
            Style::None => 0,
            Style::All => self.pending.len(),
            Style::UpTo { .. } => self
                .pending
                .iter()
                .take_while(|(number, _)| moment.is_some_and(|moment| *number < moment))
                .count(),
            Style::Sectors { .. } | Style::OneFile => random.below(self.pending.len() + 1),
        };
        let mut names = self.durable.clone();
        for (_, event) in &self.pending[..count] {
            names.apply(event);
        }
        let numbers: Vec<FileNumber> = names.files.values().copied().collect();
        let chosen = numbers.get(random.below(numbers.len().max(1))).copied();
        let others = random.below(2) == 0;
        let files = names.files.iter().map(|(name, file)| {
            let inode = &self.inodes[*file];
            let content = match style {
                Style::None => inode.durable.clone(),
                Style::All => self.up_to(inode, usize::MAX, 0),
                Style::UpTo { sector } => {
                    // Up to and with the moment, torn.
                    self.up_to(inode, moment.unwrap_or(0), sector << 1 | random.next() & 1)
                }
                Style::OneFile if (chosen == Some(*file)) == others => inode.durable.clone(),
                Style::OneFile => self.up_to(inode, usize::MAX, 0),
                Style::Sectors { sector } => self.sectors(inode, sector, random),
            };
            (name.clone(), content)
        });
        let files = files.collect();
        State { files, folders: names.folders.into_iter().collect() }
    }

    /// What was written before the event `end`, and of that event itself the first half of its
    /// sectors, or the second: `torn` has the size of a sector in all bits but the last.
    fn up_to(&self, inode: &Inode, end: usize, torn: u64) -> Vec<u8> {
        let mut content = inode.durable.clone();
        for number in inode.pending.iter().filter(|number| **number <= end) {
            match &self.tape.events[*number] {
                Event::Write { at, bytes, .. } if *number == end => {
                    let sector = (torn >> 1).max(1);
                    let middle = (at + bytes.len() as u64 / 2).div_ceil(sector) * sector;
                    let middle = index(middle.saturating_sub(*at)).min(bytes.len());
                    if torn & 1 == 0 {
                        put(&mut content, index(*at), &bytes[..middle]);
                    } else if middle < bytes.len() {
                        put(&mut content, index(*at) + middle, &bytes[middle..]);
                    }
                }
                Event::Write { at, bytes, .. } => put(&mut content, index(*at), bytes),
                Event::Truncate { size, .. } if *number < end => {
                    content.resize(index(*size), 0);
                }
                _ => {}
            }
        }
        content
    }

    /// Each sector as it was at a moment of its own, and the size as it was at one of its own.
    fn sectors(&self, inode: &Inode, sector: u64, random: &mut Random) -> Vec<u8> {
        let count = inode.pending.len();
        let mut moments: BTreeMap<u64, usize> = BTreeMap::new();
        let percent = *random.pick(&[10, 50, 90]);
        let moment = |random: &mut Random| match random.below(100) {
            one if one < percent => count,
            one if one % 2 == 0 => 0,
            _ => random.below(count + 1),
        };
        let (size_at, is_cut) = (moment(random), random.below(2) == 0);
        let mut content = inode.durable.clone();
        let mut size = content.len();
        for (place, number) in inode.pending.iter().enumerate() {
            match &self.tape.events[*number] {
                Event::Write { at, bytes, .. } => {
                    let end = at + bytes.len() as u64;
                    if place < size_at {
                        size = size.max(index(end));
                    }
                    let mut from = *at;
                    while from < end {
                        let to = end.min((from / sector + 1) * sector);
                        let moment =
                            *moments.entry(from / sector).or_insert_with(|| moment(random));
                        if place < moment {
                            put(
                                &mut content,
                                index(from),
                                &bytes[index(from - at)..index(to - at)],
                            );
                        }
                        from = to;
                    }
                }
                Event::Truncate { size: new, .. } if place < size_at => {
                    content.resize(index(*new), 0);
                    size = index(*new);
                }
                _ => {}
            }
        }
        if is_cut {
            content.resize(size, 0);
        }
        content
    }
}
