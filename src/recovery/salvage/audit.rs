//! Counts the structural faults of a file with and without its WAL, to detect a foreign WAL.
//!
//! A WAL of another file, or of an older version of this one, has valid checksums, but its frames
//! break the b-trees. SQLite would use it. The salvager ignores the WAL if the file is sound, or
//! much sounder, without it.
//!
//! A page of the WAL that does not parse was damaged before it was written. It is a loss of that
//! page, and says nothing about the rest of the WAL, so it does not count.

use super::geometry::Geometry;
use super::pages::Pages;
use super::survey::{Is, Survey};
use super::tree::{Owner, Owners, Walk};
use super::{Snapshot, free, schema};
use crate::engine::{Progress, Result};

/// Whether a file is better read without its WAL, by the number of faults with it and without it.
pub(super) fn is_better_without(with: u64, without: u64) -> bool {
    with > 0 && (without == 0 || without.saturating_mul(2) < with)
}

/// Counts the pages that b-trees lack, except damaged pages of the WAL, and the b-tree pages
/// without a reference.
///
/// # Errors
/// `task`'s.
pub(super) fn faults(
    pages: &Pages<'_>,
    geometry: &Geometry,
    snapshot: Option<&Snapshot>,
    task: &dyn Progress,
) -> Result<u64> {
    let survey = Survey::take(pages, task)?;
    let mut owners = Owners::new(pages.layout.count);
    let header = &geometry.as_snapshot;
    let schema = schema::find(pages, &survey, &mut owners, header, snapshot, task)?;
    let mut faults = u64::from(!schema.whole);
    for (number, entry) in (1..).zip(schema.entries.iter().filter(|entry| entry.root != 0)) {
        let table = match survey.note(entry.root).is {
            Is::Tree(kind) => kind.is_table(),
            _ => entry.kind == "table",
        };
        let owners = &mut owners;
        let walk = Walk {
            pages,
            survey: &survey,
            owners,
            task,
            number,
            fits: &|_, _| true,
            descending: &[],
        };
        let tree = walk.tree(entry.root, table)?;
        let contradicts = |page: u32| {
            let note = survey.note(page);
            !pages.is_from_wal(page) || (matches!(note.is, Is::Tree(_)) && note.sound)
        };
        faults += tree.lost.iter().filter(|lost| contradicts(lost.page)).count() as u64;
    }
    free::mark(pages, &survey, &mut owners, geometry);
    let orphans = survey.iter().filter(|(page, note)| {
        matches!(note.is, Is::Tree(_))
            && note.sound
            && note.cells > 0
            && owners.get(*page) == Owner::None
    });
    Ok(faults + orphans.count() as u64)
}
