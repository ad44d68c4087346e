//! How much is wrong with a file's structure, to tell whether a WAL is its own.
//!
//! A WAL that belongs to another file, or to this one when it was another, is well summed and
//! makes b-trees lead nowhere. SQLite would take it; here the file alone is believed where it is
//! sound, or much sounder, without.
//!
//! A page of the WAL that is none in itself is no such fault: it was damaged before it was
//! written, by whomever, and says nothing of what else the WAL holds. It is a loss of that page.

use super::geometry::Geometry;
use super::pages::Pages;
use super::survey::{Is, Survey};
use super::tree::{Owner, Owners, Walk};
use super::{Snapshot, free, schema};
use crate::engine::{Result, Task};

/// Whether a file with so many faults with its WAL, and so many without, is better read without.
pub(super) fn is_better_without(with: u64, without: u64) -> bool {
    with > 0 && (without == 0 || without.saturating_mul(2) < with)
}

/// Counts pages that b-trees lack, unless they are in the WAL and damaged in themselves, and pages
/// of b-trees that nothing leads to.
///
/// # Errors
/// `task`'s.
pub(super) fn faults(
    pages: &Pages<'_>,
    geometry: &Geometry,
    snapshot: Option<&Snapshot>,
    task: &dyn Task,
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
