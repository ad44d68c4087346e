//! Assigns orphan pages, which are reachable from no root, to the tables that lost them.
//!
//! An orphan can only belong to a table that has lost pages, and only within the range of rowids
//! that was lost. A table with an intact b-tree gets no page: an orphan that looks like its rows
//! holds deleted or moved ones. A page becomes an orphan in two ways:
//!
//! * Its parent was lost. Then no page references it, and it belongs to a table that has lost an
//!   interior page.
//! * It was swapped with another page, or copied. Then its parent expects other content there, and
//!   some table misses the orphan's content. If that table has, in the place of the missing page,
//!   the content that is expected in the orphan's place, the two pages were swapped.
//!
//! If more than one table could have lost the orphan, it stays unassigned. Tables that look intact
//! count too if pages were swapped, and so do unknown tables if part of the schema is lost. In
//! those cases the orphan must end exactly where a lost page ended, or the table's indexes must
//! have its rows.

use std::collections::{HashMap, HashSet};

use super::bounds::Range;
use super::evidence::{Evidence, Question, Verdict};
use super::fit;
use super::looks::{self, Candidate, Looks};
use super::parents::Belongs;
use super::survey::{Is, Note, Survey};
use super::target::{IndexShape, Part, Shape};
use super::tree::{Lost, Owner, Owners, Placed, Tree};
use crate::format::PageKind;

/// Points for an orphan whose last rowid is that of the lost leaf.
const EXACT: i64 = 1000;

/// Points for an orphan that was swapped with the page in the place of the lost one, or that is in
/// that place itself.
const EXCHANGED: i64 = 10_000;

/// Points off for each column with a type that none of the table's other rows has there.
const STRANGE: i64 = 2000;

/// Points for an orphan whose rows an index of the table has.
const CERTAIN: i64 = 100_000;

/// The least number of rows from which the usual types of a table's columns are known.
const KNOWN: u64 = 50;

/// Maximum number of lost leaves that are kept for one page's place.
const MOST_EXPECTED: usize = 4;

/// Maximum number of pages for which the indexes of a table are queried.
const MOST_QUESTIONS: usize = 20_000;

/// A table that may have lost pages.
pub(super) struct DamagedTable<'a> {
    /// The table's number in [`Owner::Tree`].
    pub(super) number: u32,
    pub(super) shape: &'a Shape,
    pub(super) tree: &'a mut Tree,
    /// The summary of the pages that the table still has, and their number of rows.
    pub(super) seen: Option<(Note, u64)>,
    /// The orphans that were assigned to the table.
    pub(super) adopted: Vec<u32>,
}

/// An index that may have lost pages.
pub(super) struct DamagedIndex<'a> {
    pub(super) tree: &'a Tree,
    /// The layout of its entries, if known.
    pub(super) shape: Option<&'a IndexShape>,
    /// The summary of the pages that the index still has.
    pub(super) seen: Option<Note>,
}

/// The facts that are known besides the damaged b-trees.
pub(super) struct Known<'a> {
    pub(super) survey: &'a Survey,
    /// The number of pages that the database had.
    pub(super) pages: u64,
    /// The layouts of all tables.
    pub(super) shapes: &'a [Shape],
    /// The schema is complete: there are no other tables.
    pub(super) complete: bool,
    /// B-tree pages to which an overflow chain leads.
    pub(super) expected: &'a [u32],
    /// The page of each root that was moved, by the number of its table.
    pub(super) roots: &'a HashMap<usize, u32>,
    /// Pages that are in the b-tree of a table they do not belong to.
    pub(super) not_theirs: &'a HashSet<Question>,
    /// The owner of a page by the pointer map.
    pub(super) belongs: &'a dyn Fn(u32) -> Belongs,
    pub(super) evidence: &'a Evidence<'a>,
}

/// Assigns orphan pages to the tables that lost them. Returns the orphans without a table.
pub(super) fn adopt(
    known: &Known<'_>,
    owners: &mut Owners,
    tables: &mut [DamagedTable<'_>],
    indexes: &[DamagedIndex<'_>],
) -> Vec<u32> {
    let Known { survey, belongs, .. } = *known;
    let expected: HashSet<u32> = tables
        .iter()
        .flat_map(|table| &table.tree.lost)
        .chain(indexes.iter().flat_map(|index| &index.tree.lost))
        .map(|lost| lost.page)
        .chain(known.expected.iter().copied())
        .chain(known.roots.keys().filter_map(|&table| Some(known.shapes.get(table)?.root)))
        .collect();
    let exchanges = Exchanges::find(known, tables);
    let mut left = Vec::new();
    let orphans: Vec<u32> = survey
        .iter()
        .filter(|(page, note)| {
            let rows = matches!(note.is, Is::Tree(kind) if kind != PageKind::TableInterior);
            rows && note.cells > 0 && owners.get(*page) == Owner::None
        })
        .map(|(page, _)| page)
        .collect();
    let role = |page| Role { page, moved: expected.contains(&page), survey, pages: known.pages };
    let looks: Vec<Looks> =
        tables.iter().map(|table| table.looks(&orphans, &role, survey, belongs)).collect();
    let mut questions = Vec::new();
    for (number, table) in tables.iter().enumerate().filter(|(_, it)| !it.tree.lost.is_empty()) {
        let could = |&page: &u32| {
            let note = survey.note(page);
            let Is::Tree(kind) = note.is else { return false };
            table.fits(&note, kind).is_some()
        };
        let pages = orphans.iter().copied().filter(could).map(|page| (number, page));
        questions.extend(pages.take(MOST_QUESTIONS));
    }
    let verdicts = known.evidence.ask(&questions);
    for (table, looks) in tables.iter_mut().zip(&looks) {
        if looks.of.is_some() {
            table.seen = looks.of;
        }
    }
    // An orphan that fills a gap exactly comes before one that only ends where the gap ends.
    let gaps: HashSet<Range> = tables
        .iter()
        .flat_map(|table| &table.tree.lost)
        .filter(|lost| lost.leaf)
        .map(|lost| (lost.low, lost.high))
        .collect();
    let (fills, others): (Vec<u32>, Vec<u32>) = orphans.into_iter().partition(|&page| {
        let note = survey.note(page);
        gaps.contains(&(note.low, note.high))
    });
    for page in fills.into_iter().chain(others) {
        let note = &survey.note(page);
        let Is::Tree(kind) = note.is else { continue };
        let moved = expected.contains(&page);
        let by_pointer_map = if moved { Belongs::Unknown } else { belongs(page) };
        let found = match by_pointer_map {
            Belongs::Free => {
                owners.set(page, Owner::Free);
                continue;
            }
            Belongs::To(root) => whose(note, kind, root, tables),
            Belongs::Unknown => None,
        };
        let verdict = |table: usize| verdicts.get(&(table, page)).copied();
        let found = found.filter(|&(table, _)| !verdict(table).is_some_and(Verdict::is_others));
        let place = || {
            let orphan =
                Orphan { note, kind, role: role(page), verdict: &verdict, exchanges: &exchanges };
            orphan.place(known, tables, indexes, &looks)
        };
        match found.or_else(place) {
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
    left.retain(|&page| match in_part(known, page, tables, &verdicts) {
        Some((table, placed)) => {
            let Some(table) = tables.get_mut(table) else { return true };
            owners.set(page, Owner::Tree(table.number));
            table.adopted.push(page);
            table.tree.outlying.push(placed);
            false
        }
        None => true,
    });
    for table in tables {
        table.adopted.sort_by_key(|&page| survey.note(page).low);
    }
    left.sort_unstable();
    left
}

/// Finds the table whose b-tree references a leaf with some rowids outside of the leaf's range: the
/// leaf and its parent were written at different times. The rows in the range belong to that table,
/// if no other table could have them.
fn in_part(
    known: &Known<'_>,
    page: u32,
    tables: &[DamagedTable<'_>],
    verdicts: &HashMap<Question, Verdict>,
) -> Option<(usize, Placed)> {
    let note = known.survey.note(page);
    let Is::Tree(kind @ PageKind::TableLeaf) = note.is else { return None };
    let places = tables.iter().enumerate().flat_map(|(number, table)| {
        let lost = table.tree.lost.iter().filter(|lost| lost.page == page && !lost.found);
        lost.map(move |lost| (number, table, lost))
    });
    let mut places = places.filter(|(number, table, lost)| {
        let denied = verdicts.get(&(*number, page)).copied().is_some_and(Verdict::is_others);
        let overlaps = note.low <= lost.high && note.high >= lost.low;
        let is_root = page == table.shape.root;
        overlaps && !is_root && !denied && !known.not_theirs.contains(&(*number, page))
    });
    let (number, table, lost) = places.next()?;
    let points = table.fits(&note, kind)?;
    let others = tables.iter().filter(|other| other.number != table.number);
    let anothers = others.filter_map(|other| other.fits(&note, kind)).any(|it| it >= points);
    let alone = places.next().is_none() && !anothers;
    alone.then_some((number, Placed { page, low: lost.low, high: lost.high }))
}

/// The table with that root, and its gap that the page can fill. `None` if the page's records
/// cannot be rows of the table.
fn whose(
    note: &Note,
    kind: PageKind,
    root: u32,
    tables: &[DamagedTable<'_>],
) -> Option<(usize, usize)> {
    let number = tables.iter().position(|table| table.shape.root == root)?;
    let table = tables.get(number)?;
    fit::fit(note, table.shape)?;
    let contains = |lost: &Lost| note.is_in((lost.low, lost.high)) && !lost.leaf;
    let lost = table.tree.lost.iter().position(contains)?;
    (kind.is_table() != table.shape.without_rowid).then_some((number, lost))
}

/// An orphan page.
struct Orphan<'a> {
    note: &'a Note,
    kind: PageKind,
    role: Role<'a>,
    /// The verdict of a table's indexes on it.
    verdict: &'a dyn Fn(usize) -> Option<Verdict>,
    exchanges: &'a Exchanges<'a>,
}

/// The content that is expected in the places of pages, to detect pages that were swapped.
struct Exchanges<'a> {
    survey: &'a Survey,
    /// The lost leaves that are expected in a page's place.
    expected: HashMap<u32, Vec<Lost>>,
    /// The pages where moved roots are, by the pages where they were.
    roots: HashMap<u32, u32>,
}

impl<'a> Exchanges<'a> {
    fn find(known: &Known<'a>, tables: &[DamagedTable<'_>]) -> Self {
        let mut expected: HashMap<u32, Vec<Lost>> = HashMap::new();
        for lost in tables.iter().flat_map(|table| &table.tree.lost).filter(|lost| lost.leaf) {
            let of_page = expected.entry(lost.page).or_default();
            if of_page.len() < MOST_EXPECTED {
                of_page.push(*lost);
            }
        }
        let root = |(&table, &page): (&usize, &u32)| Some((known.shapes.get(table)?.root, page));
        let roots = known.roots.iter().filter_map(root).collect();
        Self { survey: known.survey, expected, roots }
    }

    /// Whether page `other` has the content that is expected in the place of `page`.
    fn has(&self, page: u32, other: u32) -> bool {
        let mut expected = self.expected.get(&page).into_iter().flatten();
        page != other
            && (expected.any(|lost| lost.is_just(&self.survey.note(other)))
                || self.roots.get(&page) == Some(&other))
    }
}

impl Orphan<'_> {
    /// The one table that must have lost the page, and its gap.
    fn place(
        &self,
        known: &Known<'_>,
        tables: &[DamagedTable<'_>],
        indexes: &[DamagedIndex<'_>],
        looks: &[Looks],
    ) -> Option<(usize, usize)> {
        let &Self { note, kind, role, .. } = self;
        let entries_of: Vec<&DamagedIndex<'_>> = indexes
            .iter()
            .filter(|index| !kind.is_table() && index.could_have(note, known.shapes))
            .collect();
        let mut best: Option<(i64, (usize, usize))> = None;
        let mut tied = false;
        let mut contested = false;
        for ((number, table), looks) in tables.iter().enumerate().zip(looks) {
            let verdict = (self.verdict)(number);
            let somewhere = || {
                // The indexes have the rows, so an out-of-date divider key does not count.
                let own = verdict.is_some_and(Verdict::is_own);
                own.then(|| Some((table.fits(note, kind)?, table.any_lost()?, false))).flatten()
            };
            let could_have = table.could_have(note, kind, role).or_else(somewhere);
            let Some((points, lost, exact)) = could_have else { continue };
            if verdict.is_some_and(Verdict::is_others) || looks.others.contains(&role.page) {
                continue;
            }
            let certain = verdict.is_some_and(Verdict::is_own);
            // The page may also be one that an index has lost. Its entries contain keys of the
            // table, which the table's other indexes confirm, and its values may look like keys:
            // an entry with fewer fields than a row is compared by little else.
            let short = usize::from(note.fields.1) < table.shape.fields.len();
            let mostly = verdict == Some(Verdict::Own { mostly: true });
            let keyed = || entries_of.iter().any(|index| index.has_keys_of(number, table.shape));
            if !entries_of.is_empty() && (keyed() || !(if short { mostly } else { certain })) {
                continue;
            }
            let place = table.tree.lost.get(lost).map_or(0, |lost| lost.page);
            let only_page = place == table.shape.root;
            let exchanged = (exact || only_page) && self.exchanges.has(role.page, place);
            let sure = certain || exact || exchanged;
            if !sure && self.could_be_anothers(known, table, lost) {
                continue;
            }
            // A parent with damaged keys may still reference the page.
            let is_there = place == role.page && !known.not_theirs.contains(&(number, role.page));
            let mut points = i64::from(points) + if exact { EXACT } else { 0 };
            points += if exchanged || is_there { EXCHANGED } else { 0 };
            points += if certain { CERTAIN } else { 0 };
            if let Some((seen, rows)) = &table.seen {
                points += i64::from(note.likeness(seen));
                if *rows >= KNOWN {
                    points -= STRANGE * i64::from(note.strangeness(seen));
                }
            }
            if points < 0 {
                continue;
            }
            contested |= looks.contested.contains(&role.page) && !certain;
            match best {
                Some((most, _)) if most > points => {}
                Some((most, _)) if most == points => tied = true,
                _ => {
                    best = Some((points, (number, lost)));
                    tied = false;
                }
            }
        }
        // Overlapping candidates cannot all belong to one table, even if no other table is known to
        // have lost a page: the root of that table may be a page of another one.
        let at_home = |table: usize| tables.get(table).is_some_and(|it| it.shape.root == role.page);
        best.filter(|&(points, (table, _))| {
            points >= CERTAIN || (!tied && (!contested || points >= EXCHANGED || at_home(table)))
        })
        .map(|(_, place)| place)
    }

    /// Whether the page could also belong to a table that looks intact, or to an unknown one.
    fn could_be_anothers(&self, known: &Known<'_>, table: &DamagedTable<'_>, lost: usize) -> bool {
        let Some(lost) = table.tree.lost.get(lost) else { return false };
        let everything = lost.low == i64::MIN && lost.high == i64::MAX;
        if !known.complete && everything {
            return true;
        }
        // A damaged parent references the page, with a wrong range.
        let led_to = table.tree.lost.iter().any(|lost| lost.page == self.role.page);
        self.role.moved
            && !led_to
            && known.shapes.iter().any(|shape| {
                shape.root != table.shape.root
                    && shape.without_rowid == table.shape.without_rowid
                    && fit::fit(self.note, shape).is_some()
            })
    }
}

/// How a page became an orphan.
#[derive(Clone, Copy)]
struct Role<'a> {
    page: u32,
    /// Another page was expected in its place.
    moved: bool,
    survey: &'a Survey,
    /// The number of pages that the database had.
    pages: u64,
}

/// Finds a gap that this page could fill. `true` if the gap is a lost leaf with the same last
/// rowid, and another page was expected in this page's place.
///
/// If no page was expected there, the reference may be lost too. Then the page can still be a lost
/// leaf with the same last rowid, if that leaf's place has other content or does not exist.
fn gap(note: &Note, lost: &[Lost], role: Role<'_>) -> Option<(usize, bool)> {
    let fits = |lost: &Lost| {
        let exact = note.high == lost.high;
        let replaced = || {
            role.survey.note(lost.page).is != Is::Nothing
                || lost.page == 0
                || u64::from(lost.page) > role.pages
        };
        let is_there = lost.page == role.page;
        let in_hole = is_there && lost.hole.is_some_and(|hole| note.is_in(hole));
        (in_hole || note.is_in((lost.low, lost.high)))
            && (!lost.leaf || (!lost.found && (role.moved || (exact && replaced()))))
    };
    lost.iter()
        .enumerate()
        .filter(|(_, lost)| fits(lost))
        .map(|(number, lost)| (number, role.moved && lost.leaf && note.high == lost.high))
        .max_by_key(|&(number, exact)| (exact, !lost.get(number).is_some_and(|lost| lost.leaf)))
}

impl DamagedTable<'_> {
    /// How well a page fits, the gap that it could fill, and whether it does so exactly.
    fn could_have(
        &self,
        note: &Note,
        kind: PageKind,
        role: Role<'_>,
    ) -> Option<(u32, usize, bool)> {
        let points = self.fits(note, kind)?;
        let (lost, exact) = gap(note, &self.tree.lost, role)?;
        Some((points, lost, exact))
    }

    /// How well a page's records fit the table. `None` if they cannot be its rows.
    fn fits(&self, note: &Note, kind: PageKind) -> Option<u32> {
        if kind.is_table() == self.shape.without_rowid {
            return None;
        }
        fit::fit(note, self.shape)
    }

    /// The first gap that is not filled yet, else the first one.
    fn any_lost(&self) -> Option<usize> {
        let lost = &self.tree.lost;
        lost.iter().position(|lost| !lost.found).or((!lost.is_empty()).then_some(0))
    }

    /// Infers the usual types of the table's columns from the orphans, if the table has too few
    /// rows left.
    fn looks<'s>(
        &self,
        orphans: &[u32],
        role: &dyn Fn(u32) -> Role<'s>,
        survey: &'s Survey,
        belongs: &dyn Fn(u32) -> Belongs,
    ) -> Looks {
        let whole = |lost: &Lost| !lost.leaf;
        if self.shape.without_rowid
            || self.seen.is_some_and(|(_, rows)| rows >= KNOWN)
            || !self.tree.lost.iter().any(whole)
        {
            return Looks::default();
        }
        let candidate = |&page: &u32| {
            let note = survey.note(page);
            let Is::Tree(kind) = note.is else { return None };
            let (points, ..) = self.could_have(&note, kind, role(page))?;
            (belongs(page) != Belongs::Free).then_some(Candidate { page, note, points })
        };
        let looks = looks::find(orphans.iter().filter_map(candidate).collect());
        let enough = looks.of.is_some_and(|(_, rows)| rows >= KNOWN);
        if enough { looks } else { Looks { of: None, ..looks } }
    }

    /// The lost ranges of rowids, without the ranges of assigned orphans.
    pub(super) fn gaps(&self, survey: &Survey) -> Vec<(i64, i64)> {
        if self.shape.without_rowid {
            return Vec::new();
        }
        let mut gaps: Vec<(i64, i64)> = Vec::new();
        let mut add = |low: i64, high: i64| match gaps.last_mut() {
            _ if low > high => {}
            Some(last) if last.1.checked_add(1) == Some(low) => last.1 = high,
            _ => gaps.push((low, high)),
        };
        for lost in self.tree.lost.iter().filter(|lost| !(lost.leaf && lost.found)) {
            let mut from = Some(lost.low);
            for &page in &self.adopted {
                let note = survey.note(page);
                match from {
                    Some(low) if note.low >= low && note.high <= lost.high => {
                        if let Some(before) = note.low.checked_sub(1) {
                            add(low, before);
                        }
                        from = note.high.checked_add(1);
                    }
                    _ => {}
                }
            }
            if let Some(low) = from {
                add(low, lost.high);
            }
        }
        gaps
    }
}

impl DamagedIndex<'_> {
    /// Whether its entries begin with the key of the table with that number, and differ from the
    /// table's rows.
    fn has_keys_of(&self, number: usize, table: &Shape) -> bool {
        self.shape.is_some_and(|shape| {
            let field = |(at, part): (usize, &Part)| *part == Part::Field(at);
            let parts = || shape.parts.iter().enumerate();
            let as_rows = parts().all(field) && shape.parts.len() == table.fields.len();
            shape.table == number && parts().take(table.key_fields).all(field) && !as_rows
        })
    }

    /// Whether this index could have lost an index page with that summary.
    fn could_have(&self, note: &Note, tables: &[Shape]) -> bool {
        if self.tree.lost.is_empty() {
            return false;
        }
        if let Some(shape) = self.shape {
            return fit::index_fits(note, shape, tables);
        }
        match &self.seen {
            Some(seen) => seen.fields == note.fields && note.strangeness(seen) == 0,
            None => true,
        }
    }
}
