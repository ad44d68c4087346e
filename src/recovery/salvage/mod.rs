//! The salvager: reads what can be read of a damaged database file into a new database.
//!
//! | module | owns |
//! |---|---|
//! | [`snapshot`] | a saved copy of a file's schema and root pages, as data |
//! | [`target`] | the new database |
//! | [`report`] | what was saved and what was not |
//!
//! Two rules take precedence over every heuristic:
//!
//! - A table that SQLite reads to its end, and in which SQLite's check of the whole file finds no
//!   fault, is copied by SQLite itself (`floor`). No heuristic changes it, no other b-tree gets its
//!   pages, and it needs no function or collation of the application.
//! - A readable row without a table goes to `lost_and_found`.
//!
//! The salvager never invents a row: the values of a salvaged row are exactly those in the file.
//!
//! Memory: 52 bytes a page for the survey and the b-trees, plus a fixed amount for the target (page
//! cache, SQLite's sorter): 82 MB for a log of 420 MB, so about 200 MB for one of 10 GB. Each page
//! that is lost, orphaned, contested, or does not end at its divider key takes some more bytes.
//!
//! Runs on the caller's thread, which alone uses the source.

mod absent;
mod adopt;
mod ascending;
mod audit;
mod bounds;
mod chain;
mod contest;
mod encoding;
mod evidence;
mod fit;
mod floor;
mod forest;
mod free;
pub(in crate::recovery) mod geometry;
mod graft;
mod index;
mod leaf;
mod looks;
mod misplaced;
mod outdated;
mod pages;
mod parents;
mod pointers;
pub mod report;
mod rows;
mod scene;
mod schema;
pub mod snapshot;
mod survey;
pub mod target;
mod tree;

use std::collections::HashSet;
use std::path::Path;

pub use report::{Salvage, SchemaSource, SuspectRow, TableSalvage};
pub use snapshot::{SchemaEntry, Snapshot};

use self::adopt::{DamagedIndex, DamagedTable};
use self::chain::Chains;
use self::evidence::{Evidence, Question};
use self::floor::Floor;
use self::forest::{Ground, IndexTree, Moved};
use self::geometry::Geometry;
use self::index::Indexes;
pub(in crate::recovery) use self::pages::{AsImage, Pages};
use self::parents::{Above, Belongs};
use self::rows::{Into, Rows};
use self::scene::{Places, Scene};
use self::survey::{Is, Note, Survey};
use self::target::{Limits, Target};
use self::tree::{Owners, Tree};
use crate::engine::{PageSource, Progress, Result};

/// Maximum number of passes that drop stale leaves: the versions of pages in one b-tree.
const MOST_TIMES: usize = 4;

/// A damaged database: its file, and its WAL if it has one. Neither is written to during the
/// salvage.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The database file.
    pub database: &'a dyn PageSource,
    /// Its WAL.
    pub wal: Option<&'a dyn PageSource>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("wal", &self.wal.is_some()).finish_non_exhaustive()
    }
}

/// Options of a salvage.
#[derive(Debug, Clone, Default)]
pub struct SalvageOptions {
    /// Schema and root pages from a time when the file was sound. Used for the parts of the schema
    /// that the file has lost.
    pub snapshot: Option<Snapshot>,
}

/// Reads what can be read of `source` into a new database at `target`, which must not exist. After
/// an error the incomplete file is removed.
///
/// # Errors
/// `task`'s; those of writing the target (`SQLITE_FULL`, `SQLITE_CANTOPEN`);
/// `ERR_FUSION_NOTHING_TO_SALVAGE` where the source has no page that belongs to a database.
pub fn salvage(
    source: Source<'_>,
    options: &SalvageOptions,
    target: &Path,
    task: &dyn Progress,
) -> Result<Salvage> {
    let (geometry, overlay) = geometry::find(source, options.snapshot.as_ref(), task)?;
    let has_wal = !overlay.is_empty();
    let mut pages = Pages::new(source, geometry.layout, overlay);
    let mut geometry = geometry;
    if has_wal {
        let snapshot = options.snapshot.as_ref();
        let with = audit::faults(&pages, &geometry, snapshot, task)?;
        let alone = Source { wal: None, ..source };
        if with > 0
            && let Ok((other, overlay)) = geometry::find(alone, snapshot, task)
        {
            let others = Pages::new(alone, other.layout, overlay);
            let without = audit::faults(&others, &other, snapshot, task)?;
            if audit::is_better_without(with, without) {
                (pages, geometry) = (others, other);
            }
        }
    }
    let made = Salvager { pages: &pages, geometry: &geometry, options, task }.run(target);
    if made.is_err() {
        // An incomplete file is of no use. The salvage's error matters more than a failed removal.
        let _ = std::fs::remove_file(target);
    }
    made
}

struct Salvager<'a> {
    pages: &'a Pages<'a>,
    geometry: &'a Geometry,
    options: &'a SalvageOptions,
    task: &'a dyn Progress,
}

impl Salvager<'_> {
    /// Finds pages in wrong places, and walks their tables again.
    fn put_in_place(
        &self,
        ground: Ground<'_>,
        owners: &mut Owners,
        trees: &mut [Tree],
        indexes: &[IndexTree<'_>],
        evidence: &Evidence<'_>,
    ) -> Result<Moved> {
        let Self { pages, geometry, .. } = *self;
        let Ground { survey, shapes, .. } = ground;
        // A free page may have old content of any table.
        let without_free = |owners: &Owners| {
            let mut owners = owners.clone();
            let all_free = free::mark(pages, survey, &mut owners, geometry);
            (owners, all_free)
        };
        let mut moved = Moved::default();
        let (mut others, mut all_free) = without_free(owners);
        let mut rootless = ground.rootless(&others)?;
        let places = Places { tables: trees, rootless: &rootless, indexes };
        let scene = Scene { pages, survey, owners: &others, all_free, shapes, places, evidence };
        moved.roots = graft::find(&scene);
        if !moved.roots.is_empty() {
            ground.tables_again(&moved, owners, trees)?;
            (others, all_free) = without_free(owners);
            rootless = ground.rootless(&others)?;
        }
        let places = Places { tables: trees, rootless: &rootless, indexes };
        let scene = Scene { pages, survey, owners: &others, all_free, shapes, places, evidence };
        moved.not_theirs = misplaced::find(&scene);
        ground.tables_again(&moved, owners, trees)?;
        for _ in 0..MOST_TIMES {
            let places = Places { tables: trees, rootless: &rootless, indexes };
            let scene =
                Scene { pages, survey, owners: &others, all_free, shapes, places, evidence };
            let outdated = outdated::find(&scene, &free::named(pages, owners, geometry));
            if outdated.is_empty() {
                break;
            }
            // Without its stale leaves, a table may get leaves of another version: repeat.
            moved.not_theirs.extend(outdated);
            ground.tables_again(&moved, owners, trees)?;
        }
        Ok(moved)
    }

    fn run(&self, path: &Path) -> Result<Salvage> {
        let Self { pages, geometry, task, .. } = *self;
        let survey = Survey::take(pages, task)?;
        let mut owners = Owners::new(pages.layout.count);
        let mut header = geometry.as_snapshot.clone();
        let snapshot = self.options.snapshot.as_ref();
        let schema = schema::find(pages, &survey, &mut owners, &header, snapshot, task)?;
        header.schema.clear();
        let statements = schema.entries.iter().filter_map(|entry| Some(entry.sql.as_ref()?.len()));
        let longest = survey.longest.max(statements.max().unwrap_or(0) as u64);
        let limits = Limits::of(pages.layout.bytes(), longest);
        let mut target = Target::create(path, &header, &schema.entries, limits)?;
        let (shapes, index_shapes) = (target.shapes().to_vec(), target.index_shapes().to_vec());

        let floor = Floor::lay(pages, geometry, &schema.entries, &mut target, task)?;
        floor.claim(&mut owners, shapes.len());
        let ground = Ground {
            pages,
            survey: &survey,
            shapes: &shapes,
            index_shapes: &index_shapes,
            floor: &floor,
            task,
        };
        let mut trees = ground.tables(&mut owners)?;
        let roots = schema.entries.iter().filter(|it| it.kind == "index" && it.root != 0);
        let indexes = ground.indexes(&mut owners, roots.map(|entry| entry.root))?;
        // A settled table is complete, so its indexes need not be queried.
        let is_settled = |table: usize| trees.get(table).is_some_and(|tree| tree.settled);
        let witnesses = indexes
            .iter()
            .filter_map(|(tree, shape)| shape.map(|shape| (shape, tree)))
            .filter(|(shape, _)| !is_settled(shape.table));
        let evidence = Evidence::new(pages, &survey, &shapes, witnesses);
        contest::settle(pages, &survey, &mut owners, &shapes, &mut trees, &indexes, &evidence);
        let moved = self.put_in_place(ground, &mut owners, &mut trees, &indexes, &evidence)?;
        // Tables that SQLite copies itself need no chains here.
        let read = trees.iter().enumerate().filter(|(place, _)| floor.rows(*place).is_none());
        let leaves: Vec<u32> = read.flat_map(|(_, tree)| tree.pages.iter().copied()).collect();
        let all = trees.iter().chain(indexes.iter().map(|(tree, _)| tree));
        let lost: HashSet<u32> = all.flat_map(|tree| &tree.lost).map(|lost| lost.page).collect();
        let misplaced = lost.iter().any(|&page| survey.note(page).is_something());
        let zeroed = lost
            .iter()
            .any(|&page| page <= pages.layout.count && survey.note(page).is == Is::Nothing);
        let clues = Chains::clues(pages, &survey, &mut owners, &leaves, misplaced, zeroed, task)?;
        drop(leaves);
        free::mark(pages, &survey, &mut owners, geometry);

        let seen = |tree: &Tree| Note::of_all(tree.pages.iter().map(|&page| survey.note(page)));
        let mut tables: Vec<DamagedTable<'_>> = shapes
            .iter()
            .zip(&mut trees)
            .enumerate()
            .map(|(place, (shape, tree))| {
                let rows = tree.pages.iter().map(|&page| u64::from(survey.note(page).cells)).sum();
                let seen = seen(tree).map(|seen| (seen, rows));
                DamagedTable {
                    number: forest::number(place),
                    shape,
                    tree,
                    seen,
                    adopted: Vec::new(),
                }
            })
            .collect();
        let damaged_indexes: Vec<DamagedIndex<'_>> = indexes
            .iter()
            .map(|(tree, shape)| DamagedIndex { tree, shape: *shape, seen: seen(tree) })
            .collect();
        let copies = contest::set_copies_aside(pages, &survey, &mut owners, &lost);
        let orphans = {
            let belongs = |page| match header.auto_vacuum {
                0 => Belongs::Unknown,
                _ => parents::of(pages, page),
            };
            let known = adopt::Known {
                survey: &survey,
                pages: geometry.pages,
                shapes: &shapes,
                complete: schema.complete,
                expected: &clues.broken_at,
                roots: &moved.roots,
                not_theirs: &moved.not_theirs,
                belongs: &belongs,
                evidence: &evidence,
            };
            adopt::adopt(&known, &mut owners, &mut tables, &damaged_indexes)
        };

        let mut rows = Rows::new(pages, &survey, clues.clone(), header.encoding);
        let damaged: Vec<Question> = tables
            .iter()
            .enumerate()
            .filter(|(_, table)| !table.tree.settled)
            .flat_map(|(place, table)| {
                let pages = table.tree.pages.iter().chain(&table.adopted).copied();
                pages.filter(|&page| !survey.note(page).sound).map(move |page| (place, page))
            })
            .collect();
        rows.doubt(&evidence, &damaged);
        let mut accounts = Vec::new();
        for (place, table) in tables.iter().enumerate() {
            let mut account =
                TableSalvage { name: table.shape.table.clone(), ..TableSalvage::default() };
            if let Some(rows) = floor.rows(place) {
                account.rows = rows;
                accounts.push(account);
                continue;
            }
            let root = table.shape.root;
            let outlying = table.tree.outlying.iter().map(|at| (at.page, (at.low, at.high)));
            let outlying = outlying.collect();
            let mut into =
                Into { place, shape: table.shape, outlying, account: &mut account, task };
            for &page in &table.tree.pages {
                task.check_cancelled()?;
                rows.put(page, root, &owners, &mut into, &mut target)?;
            }
            for &page in &table.adopted {
                task.check_cancelled()?;
                let adopted = rows.put(page, root, &owners, &mut into, &mut target)?;
                into.account.adopted += adopted;
            }
            account.gaps = table.gaps(&survey);
            account.pages_lost += table.tree.lost.iter().filter(|lost| !lost.found).count() as u64;
            accounts.push(account);
        }
        let above = Above::find(pages, &survey, &owners);
        for page in orphans.into_iter().chain(copies) {
            task.check_cancelled()?;
            let Is::Tree(kind) = survey.note(page).is else { continue };
            if !kind.is_table() && !schema.entries.is_empty() {
                continue;
            }
            let root = above.top(page);
            rows.each(page, &owners, None, &mut |it| {
                target.lost(root, page, it.rowid, it.fields, "no table is known to have lost it")
            })?;
        }
        let indexes = Indexes {
            pages,
            survey: &survey,
            owners: &owners,
            clues,
            encoding: header.encoding,
            trees: indexes.into_iter().map(|(tree, _)| tree).collect(),
        };
        let finished = target.finish(&indexes, &mut accounts, task)?;
        accounts.extend(floor.unmade().map(|(name, rows)| TableSalvage {
            name: name.to_owned(),
            rows,
            ..TableSalvage::default()
        }));
        Ok(Salvage {
            page_size: pages.layout.page_size,
            pages: geometry.pages,
            pages_from_wal: pages.count_from_wal(),
            pages_lost: accounts.iter().map(|account| account.pages_lost).sum(),
            schema_from: schema.from,
            tables: accounts,
            lost_and_found: finished.lost_and_found,
            rebuilt: finished.rebuilt,
            schema_errors: finished.schema_errors,
        })
    }
}
