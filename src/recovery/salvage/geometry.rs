//! What a damaged file says of itself as a whole: page size, encoding, where its free pages
//! begin. From its header, or else from its WAL, from a snapshot, or from its pages themselves.

use super::pages::{Layout, start_of};
use super::{Snapshot, Source};
use crate::engine::{Error, Overlay, Result, Task, guess_format};
use crate::format::{Header, header, wal};

/// A damaged file's format.
#[derive(Debug)]
pub(in crate::recovery) struct Geometry {
    pub(in crate::recovery) layout: Layout,
    /// The header, if the file has one that can be believed.
    header: Option<Header>,
    /// Everything but the schema.
    pub(super) as_snapshot: Snapshot,
    /// Pages that the database has, or had by its header.
    pub(super) pages: u64,
}

impl Geometry {
    /// The schema format number (<https://sqlite.org/fileformat2.html#schema_format_number>); the
    /// newest where the header does not say one that there is.
    pub(super) fn schema_format(&self) -> u32 {
        let number = self.header.map_or(4, |header| header.schema_format);
        if (1..=4).contains(&number) { number } else { 4 }
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
        .or(log.filter(|_| !overlay.is_empty()).map(|log| log.page_size));
    let (page_size, reserved) = match (page_size, found, snapshot) {
        (Some(page_size), Some(header), _) => (page_size, header.reserved),
        (Some(page_size), None, Some(snapshot)) => (page_size, snapshot.reserved),
        (page_size, None, _) => guess_format(source.database, page_size).ok_or_else(nothing)?,
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
