//! Pages that no b-tree leads to any more, and whose they are.
//!
//! A leaf can only be a table's that has lost one, in the range of rowids that was lost. So a
//! table whose b-tree is whole takes nothing: what looks like its rows was deleted, or moved.

use super::fit;
use super::survey::{Note, Survey};
use super::target::Shape;
use super::tree::{Lost, Owner, Owners, Tree};
use crate::format::Kind;

/// A table that may have lost pages.
pub(super) struct Bereft<'a> {
    /// Its number among the owners.
    pub(super) number: u32,
    pub(super) shape: &'a Shape,
    pub(super) tree: &'a mut Tree,
    /// The pages that were found to be its.
    pub(super) adopted: Vec<u32>,
}

/// Gives orphan leaves to the tables that lost them; what remains belongs to none.
pub(super) fn adopt(survey: &Survey, owners: &mut Owners, tables: &mut [Bereft<'_>]) -> Vec<u32> {
    let mut left = Vec::new();
    for (page, note) in survey.iter() {
        let kind = match note.is {
            super::survey::Is::Tree(kind) if !kind.is_interior() && note.cells > 0 => kind,
            _ => continue,
        };
        if owners.get(page) != Owner::None {
            continue;
        }
        match place(note, kind, tables) {
            Some((table, lost)) => {
                let Some(table) = tables.get_mut(table) else { continue };
                owners.set(page, Owner::Tree(table.number));
                table.adopted.push(page);
                if let Some(lost) = table.tree.lost.get_mut(lost) {
                    lost.found = true;
                }
            }
            None => left.push(page),
        }
    }
    for table in tables {
        table.adopted.sort_by_key(|&page| survey.note(page).low);
    }
    left
}

/// The one table, and what it lost, that a leaf must be of.
fn place(note: &Note, kind: Kind, tables: &[Bereft<'_>]) -> Option<(usize, usize)> {
    let mut best: Option<(u32, (usize, usize))> = None;
    let mut tied = false;
    for (number, table) in tables.iter().enumerate() {
        if kind.is_table() == table.shape.without_rowid {
            continue;
        }
        let Some(points) = fit::fit(note, table.shape) else { continue };
        let Some((lost, exact)) = gap(note, &table.tree.lost) else { continue };
        let points = points + if exact { 1000 } else { 0 };
        match best {
            Some((most, _)) if most > points => {}
            Some((most, _)) if most == points => tied = true,
            _ => {
                best = Some((points, (number, lost)));
                tied = false;
            }
        }
    }
    best.filter(|_| !tied).map(|(_, place)| place)
}

/// What of the lost a leaf could be, and whether it is so exactly.
fn gap(note: &Note, lost: &[Lost]) -> Option<(usize, bool)> {
    lost.iter()
        .enumerate()
        .filter(|(_, lost)| note.low >= lost.low && note.high <= lost.high)
        .filter(|(_, lost)| !(lost.leaf && lost.found))
        .map(|(number, lost)| (number, note.high == lost.high))
        .max_by_key(|&(_, exact)| exact)
}
