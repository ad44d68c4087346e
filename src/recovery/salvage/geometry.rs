//! Determines a damaged file's format: page size, reserved bytes, text encoding, auto-vacuum.
//!
//! The header is one witness. The others are the WAL's header, a snapshot, and the pages: a page
//! that is sound under a format is a vote for it, and a text that only one encoding can have is a
//! vote for that encoding. A flipped bit of the header never outweighs the pages. Header fields
//! without another witness (the first freelist trunk, the user version) count if the rest is a
//! valid header.
//!
//! Cost, whatever the file's size: it reads 4 MiB of the file and 1,024 pages of the WAL.

use super::encoding::Texts;
use super::pages::{Layout, Pages, start_of};
use super::{Snapshot, Source};
use crate::engine::{Error, PageSource, Progress, Result, Votes, WalPageIndex, is_whole};
use crate::format::ptrmap::{self, Entry};
use crate::format::{Header, header, is_page_size, number, wal};
use crate::recovery::original::Format;

/// The least number of valid fields ([`believable`]) that make a header.
const ENOUGH: usize = 4;

/// The latest format of schemas.
const SCHEMA_FORMAT: u32 = 4;

/// A damaged file's format.
#[derive(Debug)]
pub(in crate::recovery) struct Geometry {
    pub(in crate::recovery) layout: Layout,
    /// The header, if it is valid enough.
    header: Option<Header>,
    /// The format as a snapshot with an empty schema.
    pub(super) as_snapshot: Snapshot,
    /// The number of pages of the database, by its header if that has more.
    pub(super) pages: u64,
}

/// A format that a file may have, with the header that says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::recovery) struct Candidate {
    /// The source of the format.
    pub(in crate::recovery) by: Witness,
    /// Bytes a page.
    pub(in crate::recovery) page_size: u32,
    /// Bytes at the end of each page that are not SQLite's.
    pub(in crate::recovery) reserved: u8,
    /// The first bytes of page 1 under this format: SQLite opens the file with them.
    pub(in crate::recovery) header: [u8; header::SIZE],
}

/// The source of a candidate format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::recovery) enum Witness {
    /// The file's own header, unchanged.
    Header,
    /// All witnesses together: pages, texts, WAL, header, snapshot.
    Pages,
    /// The snapshot.
    Snapshot,
}

/// What is decided of a file.
struct Decided {
    page_size: u32,
    reserved: u8,
    encoding: u8,
    auto_vacuum: u8,
    /// The header's bytes, the WAL's if it has page 1.
    own: Vec<u8>,
    /// They are a header's.
    believed: bool,
    /// Their count of pages is wrong.
    miscounted: bool,
    /// Frames of the WAL that count.
    overlay: WalPageIndex,
}

/// The formats that a file may have, the likeliest first: its own header alone where all that there
/// is agrees with it.
///
/// # Errors
/// `task`'s; `ERR_FUSION_NOTHING_TO_SALVAGE`.
pub(in crate::recovery) fn candidates(
    source: Source<'_>,
    snapshot: Option<&Snapshot>,
    task: &dyn Progress,
) -> Result<Vec<Candidate>> {
    let decided = decide(source, snapshot, task)?;
    let pages = pages_of(&decided, source.database.size()?);
    let of = |by, page_size, reserved, header| Candidate { by, page_size, reserved, header };
    let own = Header::parse(&decided.own).zip(decided.own.first_chunk().copied());
    let own = own.map(|(own, bytes)| of(Witness::Header, own.page_size, own.reserved, bytes));
    let voted = decided.header(pages, snapshot);
    let voted = of(Witness::Pages, decided.page_size, decided.reserved, voted);
    let mut candidates = vec![voted];
    if let Some(own) = own {
        match own.header == candidates.first().map_or([0; header::SIZE], |voted| voted.header) {
            true => candidates = vec![own],
            false => candidates.push(own),
        }
    }
    if let Some(snapshot) = snapshot {
        let Snapshot { page_size, reserved, encoding, auto_vacuum, .. } = *snapshot;
        let theirs = Decided { page_size, reserved, encoding, auto_vacuum, ..decided };
        let pages = pages_of(&theirs, source.database.size()?);
        let theirs = theirs.header(pages, Some(snapshot));
        if is_page_size(page_size) && candidates.iter().all(|it| it.header != theirs) {
            candidates.push(of(Witness::Snapshot, page_size, reserved, theirs));
        }
    }
    Ok(candidates)
}

impl Candidate {
    /// The file's pages under this format, with the WAL's frames over them.
    ///
    /// # Errors
    /// `task`'s; of asking for the file's size.
    pub(in crate::recovery) fn pages<'s>(
        &self,
        source: Source<'s>,
        task: &dyn Progress,
    ) -> Result<Pages<'s>> {
        let log = source.wal.and_then(|log| wal::WalHeader::parse(&start_of(log, wal::HEADER)));
        let overlay = match (source.wal, log) {
            (Some(storage), Some(log)) if log.page_size == self.page_size => {
                WalPageIndex::read(storage, &log, task)?
            }
            _ => WalPageIndex::default(),
        };
        let count = pages_with(&overlay, self.page_size, source.database.size()?);
        let usable = self.page_size.saturating_sub(u32::from(self.reserved)) as usize;
        let layout = Layout { page_size: self.page_size, usable, count };
        Ok(Pages::new(source, layout, overlay))
    }

    /// What SQLite goes by in every page.
    pub(in crate::recovery) fn format(&self) -> Format {
        let header = Header::read(&self.header);
        let (encoding, schema) = header.map_or((0, 0), |it| (it.encoding as u8, it.schema_format));
        Format::new(self.page_size, self.reserved, encoding, schema)
    }
}

impl Geometry {
    /// What SQLite goes by in every page.
    pub(super) fn format(&self) -> Format {
        let Snapshot { reserved, encoding, .. } = self.as_snapshot;
        let schema = self.header.map_or(0, |header| header.schema_format);
        Format::new(self.layout.page_size, reserved, encoding, schema)
    }

    /// The freelist's first page and how many it has, by the header.
    pub(super) fn freelist(&self) -> Option<(u32, u32)> {
        self.header.map(|header| (header.freelist, header.free_pages))
    }
}

/// Finds the format, and the frames of the WAL that count.
///
/// # Errors
/// `task`'s; `ERR_FUSION_NOTHING_TO_SALVAGE`.
pub(in crate::recovery) fn find(
    source: Source<'_>,
    snapshot: Option<&Snapshot>,
    task: &dyn Progress,
) -> Result<(Geometry, WalPageIndex)> {
    let mut decided = decide(source, snapshot, task)?;
    let count = pages_of(&decided, source.database.size()?);
    if count == 0 {
        return Err(nothing());
    }
    let header = Header::read(&decided.own).filter(|_| decided.believed);
    let by_header = header.filter(Header::count_is_valid).map_or(0, |header| header.pages);
    let pages = u64::from(count.max(by_header));
    let usable = decided.page_size.saturating_sub(u32::from(decided.reserved)) as usize;
    let as_snapshot = describe(&decided, header.as_ref(), snapshot);
    let layout = Layout { page_size: decided.page_size, usable, count };
    let overlay = std::mem::take(&mut decided.overlay);
    Ok((Geometry { layout, header, as_snapshot, pages }, overlay))
}

/// Pages that are there, in the file or in the WAL.
fn pages_of(decided: &Decided, size: u64) -> u32 {
    pages_with(&decided.overlay, decided.page_size, size)
}

/// The pages of a file of so many bytes, and of the WAL's frames.
fn pages_with(overlay: &WalPageIndex, page_size: u32, size: u64) -> u32 {
    let in_file = size.div_ceil(u64::from(page_size));
    // A frame far behind the file's end is another file's.
    let most = in_file.saturating_mul(4) + 16 * overlay.len() as u64 + 1024;
    let in_log = u64::from(overlay.pages).min(most);
    let count = in_file.max(in_log).min(u64::from(u32::MAX - 1));
    u32::try_from(count).unwrap_or(u32::MAX - 1)
}

fn decide(source: Source<'_>, snapshot: Option<&Snapshot>, task: &dyn Progress) -> Result<Decided> {
    let log = source.wal.and_then(|log| wal::WalHeader::parse(&start_of(log, wal::HEADER)));
    let mut overlay = match (source.wal, log) {
        (Some(storage), Some(log)) => WalPageIndex::read(storage, &log, task)?,
        _ => WalPageIndex::default(),
    };
    let in_file = start_of(source.database, header::SIZE);
    let in_log = source.wal.zip(overlay.frame(1)).map(|(storage, offset)| {
        let mut bytes = vec![0; header::SIZE];
        let read = storage.read_at(&mut bytes, offset).unwrap_or(0);
        bytes.truncate(read);
        bytes
    });
    let mut witnesses: Vec<(u32, Option<u8>)> = Vec::new();
    let own = Header::read(&in_file).filter(|own| is_page_size(own.page_size));
    witnesses.extend(own.map(|own| (own.page_size, Some(own.reserved))));
    witnesses.extend(snapshot.map(|it| (it.page_size, Some(it.reserved))));
    let log = log.filter(|_| !overlay.is_empty());
    witnesses.extend(log.map(|log| (log.page_size, None)));
    let named: Vec<u8> = witnesses.iter().filter_map(|(_, reserved)| *reserved).collect();
    let mut votes = Votes::new(&named);
    votes.add(source.database);
    if votes.is_empty()
        && let Some(log) = log
    {
        overlay.sample(source.wal, log.page_size, |page, bytes| votes.add_page(bytes, page == 1));
    }
    let is_header = own.is_some() && in_file.starts_with(header::MAGIC);
    if votes.is_empty() && !is_header && snapshot.is_none() && log.is_none() {
        return Err(nothing());
    }
    let (page_size, reserved) = votes.best(&witnesses).ok_or_else(nothing)?;
    if log.is_some_and(|log| log.page_size != page_size) {
        overlay = WalPageIndex::default();
    }
    let own = in_log.filter(|_| !overlay.is_empty()).unwrap_or(in_file);
    let believed = believable(&own, page_size, reserved);
    let header = Header::read(&own).filter(|_| believed);
    let witnesses = [
        header.and_then(|header| u8::try_from(header.encoding).ok()),
        snapshot.map(|snapshot| snapshot.encoding),
    ];
    let witnesses: Vec<u8> = witnesses.into_iter().flatten().collect();
    let encoding = Texts::of(source, &overlay, page_size, reserved).best(&witnesses);
    let said = header.map(|it| it.auto_vacuum()).or(snapshot.map(|it| it.auto_vacuum)).unwrap_or(0);
    let modes = [header.map_or(0, |it| if it.incremental == 0 { 1 } else { 2 }), 1];
    let mut decided = Decided {
        page_size,
        reserved,
        encoding,
        auto_vacuum: said,
        own,
        believed,
        miscounted: false,
        overlay,
    };
    let pages = pages_of(&decided, source.database.size()?);
    decided.miscounted = header.filter(Header::count_is_valid).is_some_and(|header| {
        let behind = u64::from(header.pages) * u64::from(page_size);
        let mut bytes = vec![0; page_size as usize];
        let read = source.database.read_at(&mut bytes, behind).unwrap_or(0);
        let goes_on = read == bytes.len() && is_whole(&bytes, usize::from(reserved), false);
        header.pages > pages || (header.pages < pages && goes_on)
    });
    decided.auto_vacuum = match has_map(source.database, &decided) {
        Some(true) if said == 0 => {
            let of_snapshot = snapshot.map(|it| it.auto_vacuum).filter(|&mode| mode != 0);
            of_snapshot.or(modes.into_iter().find(|&mode| mode != 0)).unwrap_or(1)
        }
        Some(false) => 0,
        _ => said,
    };
    Ok(decided)
}

/// Whether `own` is a header, though some of its fields may be damaged, of a file with such pages.
fn believable(own: &[u8], page_size: u32, reserved: u8) -> bool {
    let Some(header) = Header::read(own) else { return false };
    let signs = [
        own.starts_with(header::MAGIC),
        own.get(21..24) == Some(&header::FRACTIONS),
        header.page_size == page_size,
        header.reserved == reserved,
        (1..=3).contains(&header.encoding),
        own.get(18..20).is_some_and(|versions| versions.iter().all(|it| (1..=2).contains(it))),
    ];
    signs.into_iter().filter(|sign| *sign).count() >= ENOUGH
}

/// Whether page 2 is a pointer map: one has an entry for each page behind it, and is no page of a
/// b-tree. None where it is neither.
fn has_map(database: &dyn PageSource, decided: &Decided) -> Option<bool> {
    let size = decided.page_size as usize;
    let usable = size.saturating_sub(usize::from(decided.reserved));
    let mut bytes = vec![0; size];
    let read = database.read_at(&mut bytes, size as u64).unwrap_or(0);
    if read < size {
        return None;
    }
    let count = u32::try_from(database.size().ok()?.div_ceil(size as u64)).unwrap_or(u32::MAX);
    let last = count.min(2 + u32::try_from(usable / 5).unwrap_or(0));
    let is_entry = |page| match ptrmap::entry(&bytes, 2, page) {
        Some(Entry::Root | Entry::Free) => true,
        Some(Entry::FirstOverflow(of) | Entry::Overflow(of) | Entry::Child(of)) => {
            (1..=count).contains(&of)
        }
        None => false,
    };
    if last >= 3 && (3..=last).all(is_entry) {
        return Some(true);
    }
    is_whole(&bytes, usize::from(decided.reserved), false).then_some(false)
}

impl Decided {
    /// The header with what is decided in its place: the file's own, changed in nothing else, or
    /// where it has none, one with what the snapshot says.
    fn header(&self, pages: u32, snapshot: Option<&Snapshot>) -> [u8; header::SIZE] {
        let own = self.own.first_chunk().filter(|_| self.believed);
        let mut header = Bytes(own.copied().unwrap_or([0; header::SIZE]));
        let has = Header::read(&header.0);
        header.put(0, header::MAGIC);
        // 65,536 is 1 there.
        header.put(16, &u16::try_from(self.page_size).unwrap_or(1).to_be_bytes());
        let version = if self.overlay.is_empty() { 1 } else { 2 };
        for at in [18, 19] {
            if !header.0.get(at).is_some_and(|version| (1..=2).contains(version)) {
                header.put(at, &[version]);
            }
        }
        header.put(20, &[self.reserved]);
        header.put(21, &header::FRACTIONS);
        if own.is_none() {
            header.put_number(24, 1);
            header.put_number(28, pages);
            header.put_number(40, snapshot.map_or(0, |it| it.schema_cookie));
            header.put(60, &snapshot.map_or(0, |it| it.user_version).to_be_bytes());
            header.put(68, &snapshot.map_or(0, |it| it.application_id).to_be_bytes());
            header.put_number(92, 1);
        }
        if self.miscounted {
            header.put_number(28, pages);
        }
        // Of a file without a schema it is 0.
        if own.is_none() || number::u32_at(&header.0, 44).is_none_or(|it| it > SCHEMA_FORMAT) {
            header.put_number(44, SCHEMA_FORMAT);
        }
        header.put_number(56, u32::from(self.encoding));
        if has.is_none_or(|has| has.auto_vacuum() != self.auto_vacuum) {
            let root = has.map_or(0, |has| has.largest_root).max(1);
            header.put_number(52, if self.auto_vacuum == 0 { 0 } else { root });
            header.put_number(64, u32::from(self.auto_vacuum == 2));
        }
        header.0
    }
}

/// A header that is written.
struct Bytes([u8; header::SIZE]);

impl Bytes {
    fn put(&mut self, at: usize, value: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + value.len()) {
            place.copy_from_slice(value);
        }
    }

    fn put_number(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_be_bytes());
    }
}

fn nothing() -> Error {
    Error::fusion(
        "ERR_FUSION_NOTHING_TO_SALVAGE",
        "the file has no page that belongs to a database: there is nothing to salvage",
    )
}

/// What is known without the schema.
fn describe(decided: &Decided, header: Option<&Header>, snapshot: Option<&Snapshot>) -> Snapshot {
    let &Decided { page_size, reserved, encoding, auto_vacuum, .. } = decided;
    let signed = |value: u32| i32::from_ne_bytes(value.to_ne_bytes());
    let (user_version, application_id, schema_cookie) = match (header, snapshot) {
        (Some(it), _) => (signed(it.user_version), signed(it.application_id), it.schema_cookie),
        (None, Some(it)) => (it.user_version, it.application_id, it.schema_cookie),
        (None, None) => (0, 0, 0),
    };
    Snapshot {
        page_size,
        reserved,
        encoding,
        auto_vacuum,
        user_version,
        application_id,
        schema_cookie,
        schema: Vec::new(),
        taken_ms: 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::engine::NoProgress;

    struct Bytes<'a>(&'a [u8]);

    impl PageSource for Bytes<'_> {
        fn size(&self) -> Result<u64> {
            self.0.size()
        }

        fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
            self.0.read_at(buffer, offset)
        }
    }

    fn found(bytes: &[u8]) -> Vec<Candidate> {
        candidates(Source { database: &Bytes(bytes), wal: None }, None, &NoProgress).unwrap()
    }

    /// A header with any bit flipped: SQLite reads every row with the one that is decided on.
    #[test]
    fn sqlite_reads_all_rows_with_the_likeliest_header() {
        crate::engine::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made.db");
        for before in
            ["", "PRAGMA page_size = 512; PRAGMA encoding = 'UTF-16le';", "PRAGMA auto_vacuum = 1;"]
        {
            let connection = Connection::open(&path).unwrap();
            connection
                .execute_batch(&format!(
                    "{before}
                     CREATE TABLE t(a, b TEXT);
                     CREATE INDEX i ON t(b);
                     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 300)
                     INSERT INTO t SELECT i, 'row ' || i FROM n;"
                ))
                .unwrap();
            connection.close().unwrap();
            let sound = std::fs::read(&path).unwrap();
            let own = found(&sound);
            assert_eq!(own.len(), 1);
            assert_eq!((own[0].by, &own[0].header[..]), (Witness::Header, &sound[..100]));
            for bit in 0..800 {
                let mut damaged = sound.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let best = found(&damaged)[0].header;
                damaged[..100].copy_from_slice(&best);
                std::fs::write(&path, damaged).unwrap();
                let connection = Connection::open(&path).unwrap();
                connection.execute_batch("PRAGMA writable_schema = ON").unwrap();
                let count = connection.query_row(
                    "SELECT count(*) FROM t NOT INDEXED WHERE b = 'row ' || a",
                    [],
                    |row| row.get::<_, i64>(0),
                );
                assert_eq!(count, Ok(300), "{before} byte {}, bit {}", bit / 8, bit % 8);
            }
            std::fs::remove_file(&path).unwrap();
        }
    }
}
