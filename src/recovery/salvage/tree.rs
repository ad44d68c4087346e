//! Walks a b-tree from its root, and validates each page.
//!
//! A child page of a rowid table must have rowids between its divider keys (or, if a key is
//! damaged, between its neighbours), and records that could be rows of that table. A child page of
//! a WITHOUT ROWID table must have records between its divider records, as far as their order is
//! known. A page that does not is not this table's: it was swapped, overwritten or reused. The
//! missing page is recorded as [`Lost`]. All leaves of a b-tree have the same depth, so a leaf at
//! another depth is not this table's, either.
//!
//! Pages of a hostile file may reference each other in any way. The number of visits is bounded,
//! for each page without a valid child and for all pages together.
//!
//! Memory: 4 bytes a page for owners, 4 for the lists of leaves, 24 for each leaf that does not end
//! at its divider key, and the lost pages.

use std::cmp::Ordering;
use std::collections::HashMap;

use super::bounds::{self, Bounds, Child, Range};
use super::leaf;
use super::pages::Pages;
use super::survey::{Is, Note, Survey};
use crate::engine::{Progress, Result};
use crate::format::{Page, PageKind, record};

/// Maximum depth of an SQLite b-tree.
const DEEPEST: usize = 20;

/// Maximum number of visits of an interior page without a valid child. A sound file has no such
/// page. In a hostile file all pages may reference each other.
const MOST_DEAD_ENDS: u8 = 16;

/// The owner of each page.
#[derive(Debug, Clone)]
pub(super) struct Owners {
    of: Vec<u32>,
    /// Pages whose owner is certain.
    settled: Vec<u64>,
    /// How often an interior page had no valid child.
    dead_ends: HashMap<u32, u8>,
    /// The number of visits that all walks together may still make.
    visits: u64,
}

/// A page's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// Unclaimed.
    None,
    /// It is free.
    Free,
    /// An overflow chain.
    Chain,
    /// The b-tree of that number.
    Tree(u32),
}

impl Owners {
    pub(super) fn new(count: u32) -> Self {
        let visits = 64 * u64::from(count) + 1_000_000;
        let settled = vec![0; (count as usize).div_ceil(64)];
        Self { of: vec![0; count as usize], settled, dead_ends: HashMap::new(), visits }
    }

    /// Counts a visit. Returns whether the walk may make it.
    fn visit(&mut self, page: u32) -> bool {
        let left = self.visits.checked_sub(1);
        self.visits = left.unwrap_or(0);
        left.is_some() && self.dead_ends.get(&page).is_none_or(|&times| times < MOST_DEAD_ENDS)
    }

    /// Releases an interior page without a valid child.
    fn is_dead_end(&mut self, page: u32) {
        self.set(page, Owner::None);
        let times = self.dead_ends.entry(page).or_default();
        *times = times.saturating_add(1);
    }

    pub(super) fn get(&self, page: u32) -> Owner {
        let place = (page as usize).checked_sub(1);
        match place.and_then(|place| self.of.get(place)).copied().unwrap_or(0) {
            0 => Owner::None,
            1 => Owner::Free,
            2 => Owner::Chain,
            tree => Owner::Tree(tree - 3),
        }
    }

    /// Sets a page's owner permanently.
    pub(super) fn settle(&mut self, page: u32, owner: Owner) {
        self.set(page, owner);
        let place = (page as usize).wrapping_sub(1);
        if let Some(word) = self.settled.get_mut(place / 64) {
            *word |= 1 << (place % 64);
        }
    }

    fn is_settled(&self, page: u32) -> bool {
        let place = (page as usize).wrapping_sub(1);
        self.settled.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }

    /// Releases all pages of an owner.
    pub(super) fn release(&mut self, owner: Owner) {
        for page in 1..=u32::try_from(self.of.len()).unwrap_or(u32::MAX) {
            if self.get(page) == owner {
                self.set(page, Owner::None);
            }
        }
    }

    /// Sets a page's owner, unless the owner is settled.
    pub(super) fn set(&mut self, page: u32, owner: Owner) {
        if self.is_settled(page) {
            return;
        }
        let place = (page as usize).checked_sub(1);
        if let Some(of) = place.and_then(|place| self.of.get_mut(place)) {
            *of = match owner {
                Owner::None => 0,
                Owner::Free => 1,
                Owner::Chain => 2,
                Owner::Tree(tree) => tree.saturating_add(3),
            };
        }
    }
}

/// A page, or a subtree, that a b-tree should have and that was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// Least rowid that was there.
    pub(super) low: i64,
    /// Greatest.
    pub(super) high: i64,
    /// A single leaf; otherwise it may be a subtree.
    pub(super) leaf: bool,
    /// The number of the page that was expected.
    pub(super) page: u32,
    /// The range between the neighbours that contains the rowids of the page that is there now:
    /// the divider keys may be damaged instead of the page.
    pub(super) hole: Option<Range>,
    /// An orphan was assigned to this gap.
    pub(super) found: bool,
}

impl Lost {
    /// A whole b-tree.
    pub(super) fn all(root: u32) -> Self {
        let (low, high) = (i64::MIN, i64::MAX);
        Self { low, high, leaf: false, page: root, hole: None, found: false }
    }

    /// Whether a leaf ends exactly where the lost leaf ended. If no divider key gives that end:
    /// whether it begins where the lost leaf began.
    pub(super) fn is_just(&self, leaf: &Note) -> bool {
        let ends = match self.high {
            i64::MAX => leaf.low == self.low,
            high => leaf.high == high,
        };
        self.leaf && leaf.cells > 0 && ends && leaf.low >= self.low
    }
}

/// A leaf of a table and the bounds of its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) page: u32,
    /// Least rowid that may be there.
    pub(super) low: i64,
    /// Greatest rowid by the divider key; [`i64::MAX`] without one.
    pub(super) high: i64,
}

/// A b-tree.
#[derive(Debug)]
pub(super) struct Tree {
    pub(super) root: u32,
    /// A table with rowids.
    pub(super) table: bool,
    /// Pages with records, leaves in the b-tree's order.
    pub(super) pages: Vec<u32>,
    /// Leaves of a table whose greatest rowid is not their divider key.
    pub(super) placed: Vec<Placed>,
    /// Leaves of a table with rowids outside of their range.
    pub(super) outlying: Vec<Placed>,
    pub(super) lost: Vec<Lost>,
    /// SQLite reads it without a fault: it keeps its pages, and gets no others.
    pub(super) settled: bool,
}

/// Walks a b-tree's pages.
pub(super) struct Walk<'a> {
    pub(super) pages: &'a Pages<'a>,
    pub(super) survey: &'a Survey,
    pub(super) owners: &'a mut Owners,
    pub(super) task: &'a dyn Progress,
    /// The b-tree's number.
    pub(super) number: u32,
    /// Whether a page's records could be this b-tree's.
    pub(super) fits: &'a dyn Fn(u32, &Note) -> bool,
    /// For each field of the sort key, whether it is descending. Empty if that is unknown, and for
    /// rowid tables.
    pub(super) descending: &'a [bool],
}

/// A b-tree that is being walked.
struct Growing {
    tree: Tree,
    /// Its interior pages.
    above: Vec<u32>,
    /// The number of its leaves by depth.
    leaves: [u32; DEEPEST],
    /// The depth of the leaves, if it is known.
    height: Option<usize>,
}

impl Growing {
    /// The depth of most leaves, if the leaves are at different depths.
    fn height_of_most(&self) -> Option<usize> {
        let most = (0..DEEPEST).max_by_key(|&depth| self.leaves.get(depth))?;
        let uneven = self.leaves.iter().filter(|&&leaves| leaves > 0).count() > 1;
        uneven.then_some(most)
    }
}

/// The bounds of a page's rows.
#[derive(Clone, Copy)]
struct Between<'k> {
    /// Least and greatest rowid.
    low: i64,
    high: i64,
    /// The divider records before and after the page, if known.
    after: Option<&'k [u8]>,
    before: Option<&'k [u8]>,
}

/// The result of visiting a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Leaf,
    Interior,
    Nothing,
}

/// The children of an interior page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Children {
    /// At least one belongs to this b-tree.
    Found,
    /// None belongs to this b-tree.
    Others,
    /// All of them are zeroed or unreadable.
    Gone,
}

impl Walk<'_> {
    /// Walks the b-tree at `root`; `table`: of a rowid table.
    ///
    /// # Errors
    /// The task's.
    pub(super) fn tree(mut self, root: u32, table: bool) -> Result<Tree> {
        let first = self.grow(root, table, None)?;
        let Some(height) = first.height_of_most() else { return Ok(first.tree) };
        for page in first.tree.pages.into_iter().chain(first.above) {
            if self.owners.get(page) == Owner::Tree(self.number) {
                self.owners.set(page, Owner::None);
            }
        }
        Ok(self.grow(root, table, Some(height))?.tree)
    }

    fn grow(&mut self, root: u32, table: bool, height: Option<usize>) -> Result<Growing> {
        self.task.check_cancelled()?;
        let (low, high) = (i64::MIN, i64::MAX);
        let tree = Tree {
            root,
            table,
            pages: Vec::new(),
            placed: Vec::new(),
            outlying: Vec::new(),
            lost: Vec::new(),
            settled: false,
        };
        let mut growing = Growing { tree, above: Vec::new(), leaves: [0; DEEPEST], height };
        let all = Between { low, high, after: None, before: None };
        if self.page(&mut growing, root, all, 0)? == Found::Nothing {
            growing.tree.lost.push(Lost::all(root));
        }
        Ok(growing)
    }

    fn page(
        &mut self,
        growing: &mut Growing,
        number: u32,
        between: Between<'_>,
        depth: usize,
    ) -> Result<Found> {
        let Between { low, high, .. } = between;
        let note = self.survey.note(number);
        let Is::Tree(kind) = note.is else { return Ok(Found::Nothing) };
        let Growing { tree, height, .. } = growing;
        let root = number == tree.root;
        let level = height.is_none_or(|height| match kind.is_interior() {
            true => depth < height,
            false => depth == height,
        });
        let in_place = self.owners.visit(number)
            && kind.is_table() == tree.table
            && depth < DEEPEST
            && level
            && self.owners.get(number) == Owner::None
            && (!tree.table || note.cells == 0 || self.is_in(number, &note, (low, high)));
        if !in_place || !self.in_order(number, between) {
            return Ok(Found::Nothing);
        }
        if !kind.is_interior() {
            // A leaf with no rows is the root of an empty table.
            if (note.cells == 0 && !(root && note.sound)) || !(self.fits)(number, &note) {
                return Ok(Found::Nothing);
            }
            self.owners.set(number, Owner::Tree(self.number));
            if let Some(leaves) = growing.leaves.get_mut(depth) {
                *leaves += 1;
            }
            tree.pages.push(number);
            let placed = Placed { page: number, low, high };
            if tree.table && note.cells > 0 && note.high != high {
                tree.placed.push(placed);
            }
            if tree.table && !note.is_in((low, high)) {
                tree.outlying.push(placed);
            }
            return Ok(Found::Leaf);
        }
        if kind == PageKind::IndexInterior && note.cells > 0 && !(self.fits)(number, &note) {
            return Ok(Found::Nothing);
        }
        self.owners.set(number, Owner::Tree(self.number));
        growing.above.push(number);
        let lost_before = growing.tree.lost.len();
        let children = self.children(growing, number, between, depth)?;
        // Interior pages of an index b-tree have records, which may be all that is left.
        let is_all_there_is = children == Children::Gone && kind == PageKind::IndexInterior;
        if children != Children::Found && !(is_all_there_is && note.cells > 0) {
            // The page belongs to another b-tree, which may claim it later.
            growing.tree.lost.truncate(lost_before);
            self.owners.is_dead_end(number);
            return Ok(Found::Nothing);
        }
        if kind == PageKind::IndexInterior {
            growing.tree.pages.push(number);
        }
        Ok(Found::Interior)
    }

    /// Whether a page's rowids are in a range. On a leaf, one rowid or one in eight may be damaged.
    fn is_in(&self, number: u32, note: &Note, range: Range) -> bool {
        if note.is_in(range) || note.is != Is::Tree(PageKind::TableLeaf) || note.cells < 3 {
            return note.is_in(range);
        }
        let Some(bytes) = self.pages.read(number) else { return false };
        let Some(page) = leaf::open(&bytes, self.pages.layout.usable, number == 1) else {
            return false;
        };
        let cells = leaf::cells(&page).cells;
        let outlying = cells.iter().filter(|it| it.rowid < range.0 || it.rowid > range.1).count();
        outlying == 1 || outlying * 8 <= cells.len()
    }

    /// Whether most of a page's records are between the divider records.
    fn in_order(&self, number: u32, between: Between<'_>) -> bool {
        if self.descending.is_empty() || (between.after.is_none() && between.before.is_none()) {
            return true;
        }
        let Some(bytes) = self.pages.read(number) else { return false };
        let Some(page) = leaf::open(&bytes, self.pages.layout.usable, number == 1) else {
            return false;
        };
        let (mut inside, mut outside) = (0, 0);
        for cell in leaf::cells(&page).cells {
            match self.is_between(cell.local, between) {
                true => inside += 1,
                false => outside += 1,
            }
        }
        inside >= outside
    }

    fn is_between(&self, record: &[u8], between: Between<'_>) -> bool {
        let order = |other| record::compare(record, other, self.descending);
        between.after.is_none_or(|after| order(after).is_none_or(Ordering::is_ge))
            && between.before.is_none_or(|before| order(before).is_none_or(Ordering::is_le))
    }

    /// The divider records of an interior page. `None` in place of a record that is out of order or
    /// continues on an overflow page.
    fn dividers<'p>(&self, page: &Page<'p>, between: Between<'_>) -> Vec<Option<&'p [u8]>> {
        if self.descending.is_empty() {
            return Vec::new();
        }
        let cells = (0..page.cells).filter_map(|index| page.cell(index));
        let records: Vec<&[u8]> = cells.map(|cell| cell.local).collect();
        let mut last = None;
        let mut dividers = Vec::with_capacity(records.len());
        for (place, record) in records.iter().enumerate() {
            let next = records.get(place + 1).copied();
            let stands = record::compare(record, record, self.descending).is_some()
                && self.is_between(record, between)
                && self.is_between(record, Between { after: last, before: next, ..between });
            if stands {
                last = Some(*record);
            }
            dividers.push(stands.then_some(*record));
        }
        dividers
    }

    /// Walks an interior page's children.
    fn children(
        &mut self,
        growing: &mut Growing,
        number: u32,
        between: Between<'_>,
        depth: usize,
    ) -> Result<Children> {
        let Between { low, high, .. } = between;
        self.task.check_cancelled()?;
        let Some(bytes) = self.pages.read(number) else { return Ok(Children::Others) };
        let Some(page) = leaf::open(&bytes, self.pages.layout.usable, number == 1) else {
            return Ok(Children::Others);
        };
        let lost_before = growing.tree.lost.len();
        let mut level = Found::Nothing;
        let survey = self.survey;
        let child = |(page, key)| Child { page, key, note: survey.note(page) };
        let children: Vec<Child> = page.children().map(child).collect();
        let bounds = if growing.tree.table {
            let is_in = |child: &Child, range| self.is_in(child.page, &child.note, range);
            bounds::of(&children, (low, high), &is_in)
        } else {
            vec![Bounds { range: (low, high), hole: None }; children.len()]
        };
        let mut records = self.dividers(&page, between).into_iter();
        let mut after = between.after;
        for (&Child { page: child, .. }, Bounds { range: (low, high), hole }) in
            children.iter().zip(bounds)
        {
            let before = records.next().flatten();
            let between = Between { low, high, after, before: before.or(between.before) };
            let found = self.page(growing, child, between, depth + 1)?;
            after = before.or(after);
            if found == Found::Nothing {
                growing.tree.lost.push(Lost {
                    low,
                    high,
                    leaf: false,
                    page: child,
                    hole,
                    found: false,
                });
            } else {
                level = found;
            }
        }
        let gone = |child: &Child| child.note.is == Is::Nothing;
        let children = match level {
            Found::Nothing if children.iter().all(gone) => Children::Gone,
            Found::Nothing => Children::Others,
            Found::Leaf | Found::Interior => Children::Found,
        };
        if level == Found::Leaf {
            // All children of a page are at the same depth.
            for lost in growing.tree.lost.iter_mut().skip(lost_before) {
                lost.leaf = true;
            }
        }
        Ok(children)
    }
}
