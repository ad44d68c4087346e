//! The walk over all pointers to pages: b-trees, overflow chains, the freelist and the pointer map.

use std::collections::HashSet;

use super::map_cells::{MapCells, OWNERS, PageClaim};
use super::pages::{Pages, adds_up};
use super::{Known, MapOptions, Names, Owner, OwnerKind, PageMap, Role};
use crate::engine::{PageSource, Progress, Result, Stage};
use crate::format::Page;
use crate::format::freelist::Trunk;

/// Pages between two reports of progress, which are also the chances to cancel.
const REPORT_EVERY: u64 = 256;

/// Largest size in bytes of a row of the schema table. A longer row is taken for damage.
const STATEMENT: u64 = 1024 * 1024;

const MEANINGLESS: &str = "it is not a b-tree page";
const UNSOUND: &str = "its cells and free space do not add up to a page";
const OTHER_KIND: &str = "it belongs to the other kind of b-tree (table or index)";
const OTHER_DEPTH: &str = "it is a leaf at another depth than the other leaves of its b-tree";
const UNORDERED: &str = "its rowids are not in ascending order";
const ELSEWHERE: &str = "its rowids are outside the range that its parent pages allow";
const NOWHERE: &str = "it points to a page number that the database does not have";
const TWICE: &str = "more than one page points to it";
const CHAIN_SHORT: &str = "an overflow chain ends on it before its row is complete";
const CHAIN_LONG: &str = "an overflow chain goes on after it although its row is complete";
const NO_TRUNK: &str = "it is not a freelist trunk page";
const UNREADABLE: &str = "the system could not read it";
const FOUND: &str = "the integrity check reports it";

pub fn walk(
    database: &dyn PageSource,
    wal: Option<&dyn PageSource>,
    options: &MapOptions,
    task: &dyn Progress,
) -> Result<PageMap> {
    let pages = Pages::new(database, wal, task)?;
    let mut walk = Walk {
        cells: MapCells::new(pages.count()),
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
        // A check also reports unclaimed pages. The map shows them as orphans, not as damaged.
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
    cells: MapCells,
    owners: Vec<Owner>,
    pages: Pages<'a>,
    /// The current page.
    buffer: Vec<u8>,
    visited: u64,
    /// Set for b-trees found without a schema. They may be dropped ones whose pages were reused in
    /// part, so their faults do not count as damage.
    lenient: bool,
    task: &'a dyn Progress,
}

/// A claimed page to visit.
#[derive(Debug, Clone, Copy)]
struct Visit {
    page: u32,
    depth: u16,
    /// Exclusive lower and inclusive upper bound of its rowids, by the keys of its parent pages.
    above: Option<i64>,
    upto: Option<i64>,
}

/// A b-tree that is being walked.
struct Tree {
    owner: u16,
    /// It is a table b-tree, with rowids.
    is_table: bool,
    /// Depth of its leaves, once one was visited.
    depth: Option<u16>,
    ahead: Vec<Visit>,
}

impl Walk<'_> {
    /// Claims the pages whose type follows from their number.
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

    /// Walks the schema table, and adds an owner for each of its b-trees. `false` if it is damaged.
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

    /// Adds owners for the b-trees whose root has none yet.
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
        // All roots are claimed first, so that a wrong pointer of a damaged page cannot claim one.
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

    /// Finds the b-trees among the unclaimed pages. Their roots are the interior pages that are not
    /// a child of another one. Single pages stay orphans.
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

    /// Claims the root of an owner's b-tree. `None` if the root is claimed or missing.
    fn plant(&mut self, owner: u16) -> Result<Option<Tree>> {
        let Some(it) = self.owners.get(usize::from(owner)) else { return Ok(None) };
        let (page, is_index) = (it.root, it.kind == OwnerKind::Index);
        if self.cells.claim(page, Some(owner), Role::Leaf) != PageClaim::Granted {
            return Ok(None);
        }
        self.read(page)?;
        // A WITHOUT ROWID table is stored in an index b-tree.
        let parsed = Page::parse(&self.buffer, self.pages.usable(), page == 1);
        let is_table = !is_index && parsed.is_none_or(|parsed| parsed.kind.is_table());
        let first = Visit { page, depth: 0, above: None, upto: None };
        Ok(Some(Tree { owner, is_table, depth: None, ahead: vec![first] }))
    }

    /// Reads a page into the buffer. `false` if the read fails.
    fn read(&mut self, page: u32) -> Result<bool> {
        self.report_progress()?;
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

    fn report_progress(&mut self) -> Result<()> {
        self.visited += 1;
        if self.visited.is_multiple_of(REPORT_EVERY) {
            self.task.check_cancelled()?;
            let total = u64::from(self.pages.count());
            self.task.stage(Stage { name: "mapping pages", done: self.visited.min(total), total });
        }
        Ok(())
    }

    /// Examines a page, and adds its children to the pages to visit.
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
        // If this page is not within its own bounds, they do not apply to its children.
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
        // Reversed, because the last one is popped first.
        if let Some(pushed) = tree.ahead.get_mut(at..) {
            pushed.reverse();
        }
        Ok(())
    }

    /// Verifies that the rowids of a page ascend and lie within its bounds. If not, marks the page
    /// as damaged and returns `false`.
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

    /// Claims the page that `from` points to. `false` if there is no page to visit.
    fn follow(&mut self, owner: u16, from: u32, to: u32, role: Role) -> bool {
        match self.cells.claim(to, Some(owner), role) {
            PageClaim::Granted => return true,
            PageClaim::Missing => {}
            PageClaim::Taken => self.blame(to, TWICE),
            PageClaim::Nowhere => self.blame(from, NOWHERE),
        }
        false
    }

    /// Follows the overflow chain of a row of `page`, which has `length` pages.
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
            self.report_progress()?;
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
                PageClaim::Granted => {}
                PageClaim::Missing => return Ok(()),
                PageClaim::Taken => {
                    self.blame(next, TWICE);
                    return Ok(());
                }
                PageClaim::Nowhere => {
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
                if self.cells.claim(page, None, Role::FreeLeaf) == PageClaim::Taken {
                    self.cells.damage(page, TWICE);
                }
            }
            (from, next) = (next, trunk.next);
        }
        Ok(())
    }
}
