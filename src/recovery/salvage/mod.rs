//! The salvager: what can be read of a damaged database file, into a new database.
//!
//! | module | owns |
//! |---|---|
//! | [`snapshot`] | a saved copy of a file's schema and root pages, as data |
//! | [`target`] | the new database that rows are put into |
//! | [`report`] | what was saved and what was not |
//!
//! It never invents a row: values of a salvaged row are exactly what the file held.
//! Memory: 48 bytes a page for the survey and the b-trees, and what the target takes, whatever the
//! file's size (its page cache, SQLite's sorter): 82 MB for a log of 420 MB, so about 200 MB for
//! one of 10 GB. What is lost, orphaned or contested comes on top, some bytes for each page of it.
//! Thread: whichever calls; the source is used by that thread alone.

mod adopt;
mod audit;
mod chain;
mod contest;
mod evidence;
mod fit;
mod free;
mod geometry;
mod index;
mod leaf;
mod looks;
mod pages;
mod parents;
pub mod report;
mod rows;
mod schema;
pub mod snapshot;
mod survey;
pub mod target;
mod tree;

use std::path::Path;

pub use report::{Salvage, SchemaSource, SuspectRow, TableSalvage};
pub use snapshot::{SchemaEntry, Snapshot};

use self::adopt::{Bereft, BereftIndex};
use self::chain::Chains;
use self::geometry::Geometry;
use self::index::Indexes;
use self::pages::Pages;
use self::parents::{Above, Belongs};
use self::rows::{Into, Rows};
use self::survey::{Is, Note, Survey};
use self::target::Target;
use self::tree::{Owners, Tree, Walk};
use crate::engine::{Result, Storage, Task};

/// A damaged database: its file and, where there is one that belongs to it, its WAL. Nobody
/// writes to either meanwhile.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The database file.
    pub database: &'a dyn Storage,
    /// Its WAL.
    pub wal: Option<&'a dyn Storage>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("wal", &self.wal.is_some()).finish_non_exhaustive()
    }
}

/// What helps a salvage.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Schema and root pages as they were when the file was sound, for what the file itself no
    /// longer tells.
    pub snapshot: Option<Snapshot>,
}

/// Reads what can be read of `source` into a new database at `target`, which must not exist.
/// On an error what was written of it is removed.
///
/// # Errors
/// `task`'s; those of writing the target (`SQLITE_FULL`, `SQLITE_CANTOPEN`);
/// `ERR_FUSION_NOTHING_TO_SALVAGE` where the source has no page that belongs to a database.
pub fn salvage(
    source: Source<'_>,
    options: &Options,
    target: &Path,
    task: &dyn Task,
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
        // What is half done is nobody's; that it cannot be removed is no reason to say less.
        let _ = std::fs::remove_file(target);
    }
    made
}

struct Salvager<'a> {
    pages: &'a Pages<'a>,
    geometry: &'a Geometry,
    options: &'a Options,
    task: &'a dyn Task,
}

impl Salvager<'_> {
    fn run(&self, path: &Path) -> Result<Salvage> {
        let Self { pages, geometry, task, .. } = *self;
        let survey = Survey::take(pages, task)?;
        let mut owners = Owners::new(pages.layout.count);
        let mut header = geometry.as_snapshot.clone();
        let snapshot = self.options.snapshot.as_ref();
        let schema = schema::find(pages, &survey, &mut owners, &header, snapshot, task)?;
        header.schema.clear();
        let mut target = Target::create(path, &header, &schema.entries)?;
        let shapes = target.shapes().to_vec();

        let mut trees = Vec::new();
        for (number, shape) in (1..).zip(&shapes) {
            let fits = |page: u32, note: &Note| {
                fit::fit(note, shape).is_some() || fit::most_fit(pages, page, shape)
            };
            let owners = &mut owners;
            let descending = &shape.descending;
            let walk =
                Walk { pages, survey: &survey, owners, task, number, fits: &fits, descending };
            trees.push(walk.tree(shape.root, !shape.without_rowid)?);
        }
        let mut indexes = Vec::new();
        let first = u32::try_from(shapes.len()).unwrap_or(u32::MAX / 2) + 1;
        let roots =
            || schema.entries.iter().filter(|entry| entry.kind == "index" && entry.root != 0);
        for (number, entry) in (first..).zip(roots()) {
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
            indexes.push(walk.tree(entry.root, false)?);
        }
        let of_tables: Vec<(usize, &Tree)> = roots()
            .zip(&indexes)
            .filter_map(|(entry, tree)| {
                let table = shapes.iter().position(|shape| shape.table == entry.table)?;
                let shape = shapes.get(table).filter(|shape| !shape.without_rowid)?;
                let of =
                    schema.entries.iter().find(|it| it.kind == "table" && it.name == entry.table);
                schema::is_of_fields(entry, of?, shape).then_some((table, tree))
            })
            .collect();
        contest::settle(pages, &survey, &mut owners, &shapes, &mut trees, &of_tables);
        let leaves: Vec<u32> = trees.iter().flat_map(|tree| tree.pages.iter().copied()).collect();
        let misplaced = trees.iter().chain(&indexes).flat_map(|tree| &tree.lost).any(|lost| {
            let note = survey.note(lost.page);
            matches!(note.is, Is::Other) || (matches!(note.is, Is::Tree(_)) && note.sound)
        });
        let clues = Chains::clues(pages, &survey, &mut owners, &leaves, misplaced, task)?;
        drop(leaves);
        free::mark(pages, &survey, &mut owners, geometry.freelist());

        let mut tables: Vec<Bereft<'_>> = (1..)
            .zip(&shapes)
            .zip(&mut trees)
            .map(|((number, shape), tree)| {
                let rows = tree.pages.iter().map(|&page| u64::from(survey.note(page).cells)).sum();
                let seen = Note::of_all(tree.pages.iter().map(|&page| survey.note(page)));
                let seen = seen.map(|seen| (seen, rows));
                Bereft { number, shape, tree, seen, adopted: Vec::new() }
            })
            .collect();
        let bereft: Vec<BereftIndex<'_>> = roots()
            .zip(&indexes)
            .map(|(entry, tree)| {
                let seen = Note::of_all(tree.pages.iter().map(|&page| survey.note(page)));
                let of = shapes.iter().find(|shape| shape.table == entry.table);
                let rowids = of.is_none_or(|shape| !shape.without_rowid);
                let columns = entry.sql.as_deref().filter(|_| rowids).and_then(schema::columns);
                BereftIndex { tree, fields: columns.map(|columns| columns + 1), seen }
            })
            .collect();
        contest::set_copies_aside(pages, &survey, &mut owners);
        let orphans = {
            let belongs = |page| match header.auto_vacuum {
                0 => Belongs::Unknown,
                _ => parents::of(pages, page),
            };
            let moved = &clues.broken_at;
            let evidence = |questions: &[(usize, u32)]| evidence::of(pages, &of_tables, questions);
            adopt::adopt(&survey, &mut owners, &mut tables, &bereft, moved, &belongs, &evidence)
        };

        let mut rows = Rows::new(pages, &survey, clues.clone(), header.encoding);
        let mut accounts = Vec::new();
        for (place, table) in tables.iter().enumerate() {
            let mut account =
                TableSalvage { name: table.shape.table.clone(), ..TableSalvage::default() };
            let root = table.shape.root;
            let mut into = Into { place, shape: table.shape, account: &mut account };
            for &page in &table.tree.pages {
                task.go_on()?;
                rows.put(page, root, &owners, &mut into, &mut target)?;
            }
            for &page in &table.adopted {
                task.go_on()?;
                let adopted = rows.put(page, root, &owners, &mut into, &mut target)?;
                into.account.adopted += adopted;
            }
            account.gaps = table.gaps(&survey);
            account.pages_lost += table.tree.lost.iter().filter(|lost| !lost.found).count() as u64;
            accounts.push(account);
        }
        let above = Above::find(pages, &survey, &owners);
        for page in orphans {
            task.go_on()?;
            let Is::Tree(kind) = survey.note(page).is else { continue };
            if !kind.is_table() && !schema.entries.is_empty() {
                continue;
            }
            let root = above.top(page);
            rows.each(page, &owners, &mut |rowid, fields| target.lost(root, page, rowid, fields))?;
        }
        let indexes = Indexes {
            pages,
            survey: &survey,
            owners: &owners,
            clues,
            encoding: header.encoding,
            trees: indexes,
        };
        let finished = target.finish(&indexes, &mut accounts, task)?;
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
