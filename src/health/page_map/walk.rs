//! Walks the schema table, the b-trees, the overflow chains and the freelist, and claims each page.

use std::collections::HashSet;

use super::cells::{Cells, Claim, OWNERS};
use super::pages::{Pages, adds_up};
use super::{Known, Names, Options, Owner, OwnerKind, PageMap, Role};
use crate::engine::{Result, Stage, Storage, Task};
use crate::format::Page;
use crate::format::freelist::Trunk;

/// Pages between two checks whether the task was cancelled.
const BREATH: u64 = 256;

/// The longest row of the schema table that is read, in bytes.
const STATEMENT: u64 = 1024 * 1024;

const MEANINGLESS: &str = "it is no page of a b-tree";
const UNSOUND: &str = "its cells do not add up to a page";
const OTHER_KIND: &str = "it is a page of another kind of b-tree";
const OTHER_DEPTH: &str = "it is a leaf at another depth than the other leaves of its b-tree";
const UNORDERED: &str = "its keys are not in order";
const ELSEWHERE: &str = "its rows belong elsewhere in the table";
const NOWHERE: &str = "it leads to a page that the file cannot have";
const TWICE: &str = "more than one page leads to it";
const CHAIN_SHORT: &str = "the overflow chain ends on it too early";
const CHAIN_LONG: &str = "the overflow chain should end on it, but goes on";
const NO_TRUNK: &str = "it is no trunk page of the freelist";
const UNREADABLE: &str = "the system could not read it";
const FOUND: &str = "the integrity check reports it";

pub fn walk(
    database: &dyn Storage,
    wal: Option<&dyn Storage>,
    options: &Options,
    task: &dyn Task,
) -> Result<PageMap> {
    let pages = Pages::new(database, wal, task)?;
    let mut walk = Walk {
        cells: Cells::new(pages.count()),
        owners: Vec::new(),
        buffer: vec![0; pages.size()],
        pages,
        visited: 0,
        lenient: false,
        task,
    };
    walk.fixed();
    let whole = walk.schema()?;
    let names_from = match (whole, options.known.is_empty()) {
        (true, _) => Names::Schema,
        (false, false) => Names::Known,
        (false, true) => Names::Nothing,
    };
    if !whole {
        walk.own(options.known.iter().cloned());
    }
    walk.trees(1)?;
    walk.free_list()?;
    if names_from == Names::Nothing {
        walk.strays()?;
    }
    for page in &options.damaged {
        // A check also reports pages that no page leads to. These are shown as orphans.
        if !walk.cells.is_orphan(*page) {
            walk.cells.damage(*page, FOUND);
        }
    }
    let Walk { cells, mut owners, pages, .. } = walk;
    cells.count(&mut owners);
    let (runs, pages_per_cell) = cells.runs(options.resolution);
    Ok(PageMap {
        path: String::new(),
        page_size: u32::try_from(pages.size()).unwrap_or(u32::MAX),
        pages: u64::from(cells.pages()),
        pages_per_cell,
        file_bytes: database.size()?,
        pages_from_wal: pages.in_wal(),
        names_from,
        owners,
        roles: cells.roles(),
        runs,
        damaged_pages: cells.damaged_pages(),
        damaged: cells.damaged(),
    })
}

struct Walk<'a> {
    cells: Cells,
    owners: Vec<Owner>,
    pages: Pages<'a>,
    /// The current page.
    buffer: Vec<u8>,
    visited: u64,
    /// The b-trees may be remains whose pages were reused: pages are not marked as damaged.
    lenient: bool,
    task: &'a dyn Task,
}

/// A page that is claimed and still to be read.
#[derive(Debug, Clone, Copy)]
struct Visit {
    page: u32,
    depth: u16,
    /// Bounds of its rowids by the keys of its parents: greater than `above`, at most `upto`.
    above: Option<i64>,
    upto: Option<i64>,
}

/// A b-tree that is being walked.
struct Tree {
    owner: u16,
    /// It is a rowid table.
    is_table: bool,
    /// Depth of its leaves, once a leaf was read.
    depth: Option<u16>,
    ahead: Vec<Visit>,
}

impl Walk<'_> {
    /// Sets the roles that depend on the page number only: lock-byte page, pointer map, missing.
    fn fixed(&mut self) {
        self.cells.claim(self.pages.lock_byte(), None, Role::LockByte);
        for page in 2..=self.pages.count() {
            if self.pages.is_missing(page) {
                self.cells.set_role(page, Role::Missing);
            } else if self.pages.is_pointer_map(page) {
                self.cells.claim(page, None, Role::PointerMap);
            }
        }
    }

    /// Walks the schema table and adds its tables and indexes as owners. Returns `false` if it is
    /// damaged.
    fn schema(&mut self) -> Result<bool> {
        let name = "sqlite_schema".to_owned();
        let schema = Known { table: name.clone(), name, kind: OwnerKind::Table, root: 1 };
        self.own([schema]);
        let mut found = Vec::new();
        if let Some(mut tree) = self.plant(0)? {
            while let Some(visit) = tree.ahead.pop() {
                self.visit(&mut tree, visit)?;
                let usable = self.pages.usable();
                let Some(page) = Page::parse(&self.buffer, usable, visit.page == 1) else {
                    continue;
                };
                if !page.kind.is_interior() {
                    let cells = (0..page.cells).filter_map(|index| page.cell(index));
                    found.extend(cells.filter_map(|cell| self.pages.schema_row(&cell, STATEMENT)));
                }
            }
        }
        self.own(found.into_iter().filter_map(|(kind, name, table, root)| {
            let kind = match kind.as_str() {
                "table" => OwnerKind::Table,
                "index" => OwnerKind::Index,
                _ => return None,
            };
            Some(Known { name, kind, table, root })
        }));
        Ok(self.pages.has_header() && self.cells.damaged_pages() == 0)
    }

    /// Adds an owner for each b-tree whose root has none yet.
    fn own(&mut self, trees: impl IntoIterator<Item = Known>) {
        let mut roots: HashSet<u32> = self.owners.iter().map(|owner| owner.root).collect();
        for Known { name, kind, table, root } in trees {
            if root != 0 && self.owners.len() < OWNERS && roots.insert(root) {
                self.owners.push(Owner {
                    name,
                    kind,
                    table,
                    root,
                    pages: 0,
                    interior_pages: 0,
                    overflow_pages: 0,
                    damaged_pages: 0,
                    missing_pages: 0,
                });
            }
        }
    }

    /// Walks the b-trees of all owners from `first` on.
    fn trees(&mut self, first: usize) -> Result<()> {
        // All roots are claimed first, so that no damaged page can claim another b-tree's root.
        let mut planted = Vec::new();
        for owner in first..self.owners.len() {
            planted.push(self.plant(u16::try_from(owner).unwrap_or(u16::MAX))?);
        }
        for mut tree in planted.into_iter().flatten() {
            while let Some(visit) = tree.ahead.pop() {
                self.visit(&mut tree, visit)?;
            }
        }
        Ok(())
    }

    /// Finds the b-trees among the orphan pages: their roots are interior pages without a parent.
    /// Orphan leaves without a parent stay orphans.
    fn strays(&mut self) -> Result<()> {
        let (mut parents, mut children) = (Vec::new(), HashSet::new());
        for number in 2..=self.pages.count() {
            if !self.cells.is_orphan(number) || !self.read(number)? {
                continue;
            }
            let page = Page::parse(&self.buffer, self.pages.usable(), false);
            if let Some(page) = page.filter(|page| page.kind.is_interior() && adds_up(page)) {
                parents.push((number, page.kind.is_table()));
                children.extend(page.children().map(|(child, _)| child));
            }
        }
        self.lenient = true;
        let first = self.owners.len();
        self.own(parents.into_iter().filter(|(page, _)| !children.contains(page)).map(
            |(root, is_table)| {
                let name = format!("(b-tree at page {root})");
                let kind = if is_table { OwnerKind::Table } else { OwnerKind::Index };
                Known { table: name.clone(), name, kind, root }
            },
        ));
        self.trees(first)
    }

    /// Claims the root of an owner's b-tree. `None` if the root cannot be claimed.
    fn plant(&mut self, owner: u16) -> Result<Option<Tree>> {
        let Some(it) = self.owners.get(usize::from(owner)) else { return Ok(None) };
        let (page, is_index) = (it.root, it.kind == OwnerKind::Index);
        if self.cells.claim(page, Some(owner), Role::Leaf) != Claim::Granted {
            return Ok(None);
        }
        self.read(page)?;
        // A WITHOUT ROWID table is stored as an index b-tree.
        let parsed = Page::parse(&self.buffer, self.pages.usable(), page == 1);
        let is_table = !is_index && parsed.is_none_or(|parsed| parsed.kind.is_table());
        let first = Visit { page, depth: 0, above: None, upto: None };
        Ok(Some(Tree { owner, is_table, depth: None, ahead: vec![first] }))
    }

    /// Reads a page into the buffer. Returns `false` if the read failed.
    fn read(&mut self, page: u32) -> Result<bool> {
        self.breathe()?;
        let read = self.pages.read(page, &mut self.buffer).is_ok();
        if !read {
            self.blame(page, UNREADABLE);
        }
        Ok(read)
    }

    /// Marks a page as damaged, unless the walk is lenient.
    fn blame(&mut self, page: u32, reason: &'static str) {
        if !self.lenient {
            self.cells.damage(page, reason);
        }
    }

    fn breathe(&mut self) -> Result<()> {
        self.visited += 1;
        if self.visited.is_multiple_of(BREATH) {
            self.task.go_on()?;
            let total = u64::from(self.pages.count());
            self.task.stage(Stage { name: "mapping pages", done: self.visited.min(total), total });
        }
        Ok(())
    }

    /// Reads and checks a page, and queues its children.
    fn visit(&mut self, tree: &mut Tree, visit: Visit) -> Result<()> {
        let Visit { page: number, depth, .. } = visit;
        if !self.read(number)? {
            return Ok(());
        }
        let buffer = std::mem::take(&mut self.buffer);
        let page = Page::parse(&buffer, self.pages.usable(), number == 1);
        let seen = match page {
            None => {
                self.blame(number, MEANINGLESS);
                Ok(())
            }
            Some(page) if page.kind.is_table() != tree.is_table => {
                self.blame(number, OTHER_KIND);
                Ok(())
            }
            Some(page) => self.look(tree, visit, &page),
        };
        let is_leaf = page.is_some_and(|page| !page.kind.is_interior());
        self.buffer = buffer;
        seen?;
        if is_leaf && *tree.depth.get_or_insert(depth) != depth {
            self.blame(number, OTHER_DEPTH);
        }
        Ok(())
    }

    fn look(&mut self, tree: &mut Tree, visit: Visit, page: &Page<'_>) -> Result<()> {
        if !adds_up(page) {
            self.blame(visit.page, UNSOUND);
        }
        let within = !page.kind.is_table() || self.judge_order(page, visit);
        let payload = (self.pages.usable() - 4) as u64;
        for cell in (0..page.cells).filter_map(|index| page.cell(index)) {
            if cell.overflow != 0 {
                let pages = (cell.length - cell.local.len() as u64).div_ceil(payload);
                self.chain(tree.owner, visit.page, cell.overflow, pages)?;
            }
        }
        if !page.kind.is_interior() {
            return Ok(());
        }
        self.cells.set_role(visit.page, Role::Interior);
        // Bounds from the parents hold for the children only if this page is within them.
        let (mut above, last) = if within { (visit.above, visit.upto) } else { (None, None) };
        let at = tree.ahead.len();
        for (child, key) in page.children() {
            let key = key.filter(|_| page.kind.is_table());
            let upto = key.or(last);
            if self.follow(tree.owner, visit.page, child, Role::Leaf) {
                tree.ahead.push(Visit {
                    page: child,
                    depth: visit.depth.saturating_add(1),
                    above,
                    upto,
                });
            }
            above = key;
        }
        // The first child is visited first.
        if let Some(pushed) = tree.ahead.get_mut(at..) {
            pushed.reverse();
        }
        Ok(())
    }

    /// Checks that the rowids of a page ascend and lie within the bounds from its parents. Marks
    /// the page as damaged and returns `false` if not.
    fn judge_order(&mut self, page: &Page<'_>, visit: Visit) -> bool {
        let mut rowids = (0..page.cells).filter_map(|index| page.cell(index)).map(|it| it.rowid);
        let Some(first) = rowids.next() else { return true };
        let mut last = first;
        for rowid in rowids {
            if rowid <= last {
                self.blame(visit.page, UNORDERED);
                return false;
            }
            last = rowid;
        }
        let within = visit.above.is_none_or(|above| first > above)
            && visit.upto.is_none_or(|upto| last <= upto);
        if !within {
            self.blame(visit.page, ELSEWHERE);
        }
        within
    }

    /// Claims the page `to`, which `from` leads to. Returns whether it is to be read.
    fn follow(&mut self, owner: u16, from: u32, to: u32, role: Role) -> bool {
        match self.cells.claim(to, Some(owner), role) {
            Claim::Granted => return true,
            Claim::Missing => {}
            Claim::Taken => self.blame(to, TWICE),
            Claim::Nowhere => self.blame(from, NOWHERE),
        }
        false
    }

    /// Follows an overflow chain of `length` pages from `page`.
    fn chain(&mut self, owner: u16, page: u32, first: u32, length: u64) -> Result<()> {
        let (mut from, mut next) = (page, first);
        for _ in 0..length {
            if next == 0 {
                self.blame(from, CHAIN_SHORT);
                return Ok(());
            }
            if !self.follow(owner, from, next, Role::Overflow) {
                return Ok(());
            }
            self.breathe()?;
            from = next;
            match self.pages.link(from) {
                Ok(link) => next = link,
                Err(_) => {
                    self.blame(from, UNREADABLE);
                    return Ok(());
                }
            }
        }
        if next != 0 {
            self.blame(from, CHAIN_LONG);
        }
        Ok(())
    }

    /// Follows the freelist.
    fn free_list(&mut self) -> Result<()> {
        let (mut from, mut next) = (1, self.pages.first_free());
        while next != 0 {
            match self.cells.claim(next, None, Role::FreeTrunk) {
                Claim::Granted => {}
                Claim::Missing => return Ok(()),
                Claim::Taken => {
                    self.blame(next, TWICE);
                    return Ok(());
                }
                Claim::Nowhere => {
                    self.blame(from, NOWHERE);
                    return Ok(());
                }
            }
            if !self.read(next)? {
                return Ok(());
            }
            let (usable, count) = (self.pages.usable(), self.pages.count());
            let Some(trunk) = Trunk::parse(&self.buffer, usable, count) else {
                self.blame(next, NO_TRUNK);
                return Ok(());
            };
            for page in trunk.leaves() {
                if self.cells.claim(page, None, Role::FreeLeaf) == Claim::Taken {
                    self.cells.damage(page, TWICE);
                }
            }
            (from, next) = (next, trunk.next);
        }
        Ok(())
    }
}
