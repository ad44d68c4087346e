//! Pages that no b-tree leads to any more, and whose they are.
//!
//! A page can only be a table's that has lost one, in the range of rowids that was lost: a table
//! whose b-tree is whole takes nothing, and what looks like its rows was deleted, or moved. Two
//! things make an orphan:
//!
//! * The page above it was lost. Then nothing else leads to it, and it is one of a table that has
//!   lost a page above the leaves.
//! * It has changed places, or was copied. Then what leads to it expects something else there, and
//!   it is what some table has lost. If that table has in its place what is expected in the page's,
//!   the two have changed places with each other.
//!
//! Where more than one table could have it, none gets it. That goes for tables that look whole,
//! too, where pages have changed places, and for tables that nobody knows of, where some of the
//! schema is lost: then a page must end just where one was lost, or the table's indexes have its
//! rows.

use std::collections::{HashMap, HashSet};

use super::bounds::Range;
use super::evidence::{Evidence, Question, Verdict};
use super::fit;
use super::looks::{self, Candidate, Looks};
use super::parents::Belongs;
use super::survey::{Is, Note, Survey};
use super::target::{IndexShape, Part, Shape};
use super::tree::{Lost, Owner, Owners, Placed, Tree};
use crate::format::Kind;

/// Points for a page that ends where what was lost ended.
const EXACT: i64 = 1000;

/// Points for a page that has changed places with the one that is where it was lost, or that is
/// there itself.
const EXCHANGED: i64 = 10_000;

/// Points off for a column with values such as the table has in none of its other rows.
const STRANGE: i64 = 2000;

/// Points for a page whose rows an index of the table has.
const CERTAIN: i64 = 100_000;

/// Rows from which on what a table's rows look like is known.
const KNOWN: u64 = 50;

/// B-trees that are heard of which expect something in one page's place.
const MOST_EXPECTED: usize = 4;

/// Pages that a table's indexes are asked about.
const MOST_QUESTIONS: usize = 20_000;

/// A table that may have lost pages.
pub(super) struct Bereft<'a> {
    /// Its number among the owners.
    pub(super) number: u32,
    pub(super) shape: &'a Shape,
    pub(super) tree: &'a mut Tree,
    /// What is noted of the pages that it still has, and of how many rows.
    pub(super) seen: Option<(Note, u64)>,
    /// The pages that were found to be its.
    pub(super) adopted: Vec<u32>,
}

/// An index that may have lost pages.
pub(super) struct BereftIndex<'a> {
    pub(super) tree: &'a Tree,
    /// What its entries look like, where that is known.
    pub(super) shape: Option<&'a IndexShape>,
    /// What is noted of the pages that it still has.
    pub(super) seen: Option<Note>,
}

/// What is known beside the b-trees.
pub(super) struct Known<'a> {
    pub(super) survey: &'a Survey,
    /// Pages that the database had.
    pub(super) pages: u64,
    /// Of all tables.
    pub(super) shapes: &'a [Shape],
    /// There are no other tables.
    pub(super) complete: bool,
    /// Pages that something other than a b-tree expected to be its.
    pub(super) expected: &'a [u32],
    /// Where roots are that have changed places, by the tables' places.
    pub(super) roots: &'a HashMap<usize, u32>,
    /// Pages that are not the tables' in whose places they are.
    pub(super) not_theirs: &'a HashSet<Question>,
    /// What else tells whose a page is.
    pub(super) belongs: &'a dyn Fn(u32) -> Belongs,
    pub(super) evidence: &'a Evidence<'a>,
}

/// Gives orphan pages to the tables that lost them; what remains belongs to none.
pub(super) fn adopt(
    known: &Known<'_>,
    owners: &mut Owners,
    tables: &mut [Bereft<'_>],
    indexes: &[BereftIndex<'_>],
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
            let rows = matches!(note.is, Is::Tree(kind) if kind != Kind::TableInterior);
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
    // What is just as long as a gap comes before what only ends there.
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
        let told = if moved { Belongs::Unknown } else { belongs(page) };
        let found = match told {
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

/// The table whose b-tree leads to a leaf of which only some rowids are in the range there: the
/// leaf and what is above it are of two times. Those rows are the table's, if they can be no
/// other's.
fn in_part(
    known: &Known<'_>,
    page: u32,
    tables: &[Bereft<'_>],
    verdicts: &HashMap<Question, Verdict>,
) -> Option<(usize, Placed)> {
    let note = known.survey.note(page);
    let Is::Tree(kind @ Kind::TableLeaf) = note.is else { return None };
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

/// The table with that root, and what it lost that a page can be, if its records can be the
/// table's.
fn whose(note: &Note, kind: Kind, root: u32, tables: &[Bereft<'_>]) -> Option<(usize, usize)> {
    let number = tables.iter().position(|table| table.shape.root == root)?;
    let table = tables.get(number)?;
    fit::fit(note, table.shape)?;
    let contains = |lost: &Lost| note.is_in((lost.low, lost.high)) && !lost.leaf;
    let lost = table.tree.lost.iter().position(contains)?;
    (kind.is_table() != table.shape.without_rowid).then_some((number, lost))
}

/// A page that nothing leads to.
struct Orphan<'a> {
    note: &'a Note,
    kind: Kind,
    role: Role<'a>,
    /// What a table's indexes say of it.
    verdict: &'a dyn Fn(usize) -> Option<Verdict>,
    exchanges: &'a Exchanges<'a>,
}

/// What is expected in the places of pages, to tell which have changed places with each other.
struct Exchanges<'a> {
    survey: &'a Survey,
    /// What was lost in a page's place: leaves.
    expected: HashMap<u32, Vec<Lost>>,
    /// The pages where roots are, by the pages where they were.
    roots: HashMap<u32, u32>,
}

impl<'a> Exchanges<'a> {
    fn find(known: &Known<'a>, tables: &[Bereft<'_>]) -> Self {
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

    /// Whether what is in the place of `other` is what was expected in that of `page`.
    fn has(&self, page: u32, other: u32) -> bool {
        let mut expected = self.expected.get(&page).into_iter().flatten();
        page != other
            && (expected.any(|lost| lost.is_just(&self.survey.note(other)))
                || self.roots.get(&page) == Some(&other))
    }
}

impl Orphan<'_> {
    /// The one table, and what it lost, that the page must be of.
    fn place(
        &self,
        known: &Known<'_>,
        tables: &[Bereft<'_>],
        indexes: &[BereftIndex<'_>],
        looks: &[Looks],
    ) -> Option<(usize, usize)> {
        let &Self { note, kind, role, .. } = self;
        let entries_of: Vec<&BereftIndex<'_>> = indexes
            .iter()
            .filter(|index| !kind.is_table() && index.could_have(note, known.shapes))
            .collect();
        let mut best: Option<(i64, (usize, usize))> = None;
        let mut tied = false;
        let mut contested = false;
        for ((number, table), looks) in tables.iter().enumerate().zip(looks) {
            let verdict = (self.verdict)(number);
            let somewhere = || {
                // The keys may be of another time than the rows, which the indexes have.
                let own = verdict.is_some_and(Verdict::is_own);
                own.then(|| Some((table.fits(note, kind)?, table.any_lost()?, false))).flatten()
            };
            let could_have = table.could_have(note, kind, role).or_else(somewhere);
            let Some((points, lost, exact)) = could_have else { continue };
            if verdict.is_some_and(Verdict::is_others) || looks.others.contains(&role.page) {
                continue;
            }
            let certain = verdict.is_some_and(Verdict::is_own);
            // An index that has lost a page has its entries nowhere else, but the table's others
            // name their keys. And some of its values may be keys as well: of an entry with fewer
            // fields than a row little else is compared.
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
            // A page above whose keys are damaged may lead to it all the same.
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
        // Of pages that a table cannot all have some are another's, even if none is known that has
        // lost any: it may have another's page for its root.
        let at_home = |table: usize| tables.get(table).is_some_and(|it| it.shape.root == role.page);
        best.filter(|&(points, (table, _))| {
            points >= CERTAIN || (!tied && (!contested || points >= EXCHANGED || at_home(table)))
        })
        .map(|(_, place)| place)
    }

    /// Whether the page could as well be of a table that looks whole, or that nobody knows of.
    fn could_be_anothers(&self, known: &Known<'_>, table: &Bereft<'_>, lost: usize) -> bool {
        let Some(lost) = table.tree.lost.get(lost) else { return false };
        let everything = lost.low == i64::MIN && lost.high == i64::MAX;
        if !known.complete && everything {
            return true;
        }
        // A page above that is damaged itself leads to it, with a range that is not its.
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
    /// Something expected another page in its place.
    moved: bool,
    survey: &'a Survey,
    /// Pages that the database had.
    pages: u64,
}

/// What of the lost a page could be, and whether it is so exactly.
///
/// Where nothing expected anything in the page's place, that may be lost, too: then it can be a
/// leaf that ends just so, if there is another page in that leaf's place, or never was such a page.
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

impl Bereft<'_> {
    /// How well a page fits, what of the lost it could be, and whether it is so exactly.
    fn could_have(&self, note: &Note, kind: Kind, role: Role<'_>) -> Option<(u32, usize, bool)> {
        let points = self.fits(note, kind)?;
        let (lost, exact) = gap(note, &self.tree.lost, role)?;
        Some((points, lost, exact))
    }

    /// How well a page fits.
    fn fits(&self, note: &Note, kind: Kind) -> Option<u32> {
        if kind.is_table() == self.shape.without_rowid {
            return None;
        }
        fit::fit(note, self.shape)
    }

    /// Something of the lost, what was not found first.
    fn any_lost(&self) -> Option<usize> {
        let lost = &self.tree.lost;
        lost.iter().position(|lost| !lost.found).or((!lost.is_empty()).then_some(0))
    }

    /// What the table's rows look like, where it has not enough of them left to tell.
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

    /// Ranges of rowids that were lost and not found, without what was adopted.
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

impl BereftIndex<'_> {
    /// Whether its entries begin with the keys of the table with that number and are not just as
    /// its rows.
    fn has_keys_of(&self, number: usize, table: &Shape) -> bool {
        self.shape.is_some_and(|shape| {
            let field = |(at, part): (usize, &Part)| *part == Part::Field(at);
            let parts = || shape.parts.iter().enumerate();
            let as_rows = parts().all(field) && shape.parts.len() == table.fields.len();
            shape.table == number && parts().take(table.key_fields).all(field) && !as_rows
        })
    }

    /// Whether a page of an index's b-tree could be one that this index lost.
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
