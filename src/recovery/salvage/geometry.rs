//! What a damaged file says of itself as a whole: page size, encoding, where its free pages
//! begin. From its header, or else from its WAL, from a snapshot, or from its pages themselves.

use super::overlay::Overlay;
use super::pages::{Layout, start_of};
use super::{Snapshot, Source};
use crate::engine::{Error, Result, Task};
use crate::format::{Header, Kind, Page, header, wal};

/// Bytes of the file that are looked at where the page size has to be found: the first and as many
/// at each of [`SAMPLES`] places.
const SAMPLE: usize = 1 << 17;

/// Places at which a file is sampled.
const SAMPLES: u64 = 16;

/// A damaged file's format.
#[derive(Debug)]
pub(super) struct Geometry {
    pub(super) layout: Layout,
    /// The header, if the file has one that can be believed.
    header: Option<Header>,
    /// Everything but the schema.
    pub(super) as_snapshot: Snapshot,
    /// Pages that the database has, or had by its header.
    pub(super) pages: u64,
}

impl Geometry {
    /// The freelist's first page and how many it has, by the header.
    pub(super) fn freelist(&self) -> Option<(u32, u32)> {
        self.header.map(|header| (header.freelist, header.free_pages))
    }
}

/// Finds the format, and the frames of the WAL that count.
///
/// # Errors
/// `task`'s; `ERR_FUSION_NOTHING_TO_SALVAGE`.
pub(super) fn find(
    source: Source<'_>,
    snapshot: Option<&Snapshot>,
    task: &dyn Task,
) -> Result<(Geometry, Overlay)> {
    let size = source.database.size()?;
    let log = source.wal.and_then(|log| wal::Header::parse(&start_of(log, wal::HEADER)));
    let mut found = Header::parse(&start_of(source.database, header::SIZE));
    let mut overlay = Overlay::default();
    let trusted = found.map(|header| header.page_size).or(snapshot.map(|it| it.page_size));
    if let (Some(storage), Some(log)) = (source.wal, log)
        && trusted.is_none_or(|page_size| page_size == log.page_size)
    {
        overlay = Overlay::read(storage, &log, task)?;
        if let Some(offset) = overlay.frame(1) {
            let mut bytes = vec![0; header::SIZE];
            let read = storage.read_at(&mut bytes, offset).unwrap_or(0);
            found = bytes.get(..read).and_then(Header::parse).or(found);
        }
    }
    let page_size = trusted
        .or(found.map(|header| header.page_size))
        .or(log.filter(|_| overlay.len() > 0).map(|log| log.page_size));
    let (page_size, reserved) = match (page_size, found, snapshot) {
        (Some(page_size), Some(header), _) => (page_size, header.reserved),
        (Some(page_size), None, Some(snapshot)) => (page_size, snapshot.reserved),
        (page_size, None, _) => search(source, size, page_size).ok_or_else(nothing)?,
        (None, Some(header), _) => (header.page_size, header.reserved),
    };
    let in_file = size.div_ceil(u64::from(page_size));
    // A frame far behind the file's end is another file's.
    let most = in_file.saturating_mul(4) + 16 * overlay.len() as u64 + 1024;
    let in_log = u64::from(overlay.pages).min(most);
    let count = in_file.max(in_log).min(u64::from(u32::MAX - 1));
    let count = u32::try_from(count).unwrap_or(u32::MAX - 1);
    if count == 0 {
        return Err(nothing());
    }
    let by_header = found.filter(Header::count_is_valid).map_or(0, |header| header.pages);
    let pages = u64::from(count.max(by_header));
    let usable = page_size.saturating_sub(u32::from(reserved)) as usize;
    let as_snapshot = describe(page_size, reserved, found.as_ref(), snapshot);
    let layout = Layout { page_size, usable, count };
    Ok((Geometry { layout, header: found, as_snapshot, pages }, overlay))
}

fn nothing() -> Error {
    Error::fusion(
        "ERR_FUSION_NOTHING_TO_SALVAGE",
        "the file has no page that belongs to a database: there is nothing to salvage",
    )
}

/// What is known without the schema.
fn describe(
    page_size: u32,
    reserved: u8,
    header: Option<&Header>,
    snapshot: Option<&Snapshot>,
) -> Snapshot {
    let empty = Snapshot {
        page_size,
        reserved,
        encoding: 0,
        auto_vacuum: 0,
        user_version: 0,
        application_id: 0,
        schema_cookie: 0,
        schema: Vec::new(),
        taken_ms: 0,
    };
    match (header, snapshot) {
        (Some(header), _) => Snapshot {
            encoding: u8::try_from(header.encoding).unwrap_or(0),
            auto_vacuum: header.auto_vacuum(),
            user_version: i32::from_ne_bytes(header.user_version.to_ne_bytes()),
            application_id: i32::from_ne_bytes(header.application_id.to_ne_bytes()),
            schema_cookie: header.schema_cookie,
            ..empty
        },
        (None, Some(snapshot)) => {
            Snapshot { page_size, reserved, schema: Vec::new(), ..snapshot.clone() }
        }
        (None, None) => empty,
    }
}

/// The page size, and how many bytes of a page are reserved, of which most b-tree pages of a
/// sample come out whole.
fn search(source: Source<'_>, size: u64, known: Option<u32>) -> Option<(u32, u8)> {
    let mut best = None;
    let mut most = 0;
    let mut bytes = vec![0; SAMPLE];
    let step = (size / SAMPLES).max(SAMPLE as u64).next_multiple_of(SAMPLE as u64);
    let mut scores = [[0_usize; 256]; 8];
    for place in 0..SAMPLES {
        let Ok(read) = source.database.read_at(&mut bytes, place * step) else { continue };
        for (power, scores) in scores.iter_mut().enumerate() {
            let page_size = 512_usize << power;
            if known.is_some_and(|known| known as usize != page_size) {
                continue;
            }
            for page in bytes.get(..read).unwrap_or_default().chunks_exact(page_size) {
                if let Some(score) = reserved(page).and_then(|reserved| scores.get_mut(reserved)) {
                    *score += page_size;
                }
            }
        }
    }
    for (power, scores) in scores.iter().enumerate() {
        for (reserved, &score) in scores.iter().enumerate() {
            if score > most {
                most = score;
                best = Some((512_u32 << power, u8::try_from(reserved).unwrap_or(0)));
            }
        }
    }
    best.or(known.map(|page_size| (page_size, 0)))
}

/// How many bytes of a page that is a whole leaf are reserved: its first cell was put before them.
fn reserved(bytes: &[u8]) -> Option<usize> {
    let page = Page::parse(bytes, bytes.len(), false)?;
    if page.kind != Kind::TableLeaf || page.cells == 0 {
        return None;
    }
    let end = (0..page.cells)
        .filter_map(|index| page.cell(index))
        .map(|cell| cell.at + cell.size)
        .max()?;
    let reserved = bytes.len().checked_sub(end)?;
    if reserved > 255 || bytes.len() - reserved < 480 {
        return None;
    }
    let usable = Page::parse(bytes, end, false)?;
    let taken = (0..usable.cells).map(|index| Some(usable.cell(index)?.size)).sum::<Option<_>>()?;
    usable.accounts_for(taken).then_some(reserved)
}
