//! Rebuilds indexes with damaged b-trees, in a copy of the database.
//!
//! REINDEX first frees the pages of the old index, and so walks its b-tree. That fails on a page
//! that is not a b-tree page, and a damaged pointer would free pages of another b-tree. So the old
//! b-trees are cut off in a private copy:
//!
//! 1. The root of each index becomes an empty leaf. SQLite then walks nothing of the old b-tree.
//! 2. Pages without a reference were the index's. They become empty pages below the first of these
//!    roots, so that REINDEX frees them like any index's.
//! 3. REINDEX runs, and then a full check of the copy.
//!
//! If an unreferenced page has rows of a table, then a table has lost it, though SQLite's check may
//! find no fault with that table. Nothing is done then, and the rows can be salvaged. The bytes of
//! table pages never change.
//!
//! Runs on the caller's thread. Memory: 4 bytes for each page of the old indexes, and the page
//! map's.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::copy::copy;
use super::rebuild::{Plan, carry_out};
use super::work_dir::system;
use crate::engine::{Connection, Error, PrivateFile, Progress, Result};
use crate::format::{Header, Page, PageKind};
use crate::health::page_map::{self, MapOptions, Role};

/// Pages copied at a time.
const RATE: u32 = 1000;

/// Bytes of an interior page's header, and of a cell with its pointer: a child, and an entry of one
/// NULL.
const INTERIOR_HEADER: usize = 12;
const CELL: usize = 7;

/// What follows the child in a cell: the payload's length, and a record of one NULL.
const ENTRY: [u8; 3] = [2, 2, 0];

/// How the rebuild ended.
#[derive(Debug)]
pub(super) enum Reindexed {
    /// The copy is sound.
    Yes,
    /// The copy is not sound, for this reason.
    NotEnough(String),
    /// Rows of tables are on unreferenced pages.
    RowsAreLost,
}

/// Copies what `source` sees to `target`, which must not exist, and rebuilds the indexes of `plan`
/// in the copy. `source` is in a read transaction.
///
/// # Errors
/// SQLite's, of reading the source and of writing the copy; `task`'s.
pub(super) fn reindex(
    source: &Connection,
    target: &Path,
    plan: &Plan,
    task: &dyn Progress,
) -> Result<Reindexed> {
    let roots = roots(source, plan)?;
    copy(source, target, RATE, "copying", None, task)?;
    let Some(mut pages) = Pages::open(target)? else {
        return Ok(Reindexed::NotEnough("the header makes no sense".to_owned()));
    };
    for root in &roots {
        pages.write_leaf(*root)?;
    }
    let orphans = orphans(target, task)?;
    for page in &orphans {
        if pages.is_table(*page)? {
            return Ok(Reindexed::RowsAreLost);
        }
    }
    if let Some(root) = roots.first() {
        pages.hang(*root, &orphans)?;
    }
    drop(pages);
    let connection = Connection::open(target, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
    let run = |sql: &str| {
        let done = connection.sql()?.execute_batch(sql);
        done.map_err(|error| Error::from(error).at(target))
    };
    run("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; BEGIN IMMEDIATE")?;
    Ok(match carry_out(plan, &connection, task)? {
        Ok(()) => {
            run("COMMIT")?;
            Reindexed::Yes
        }
        Err(reason) => Reindexed::NotEnough(reason),
    })
}

/// The root pages of the plan's indexes.
fn roots(source: &Connection, plan: &Plan) -> Result<Vec<u32>> {
    let sql = source.sql()?;
    let root = |name: &String| -> Result<u32> {
        let found = sql.query_row(
            "SELECT rootpage FROM main.sqlite_schema WHERE type = 'index' AND name = ?1",
            [name],
            |row| row.get(0),
        );
        found.map_err(|error| Error::from(error).at(source.path()))
    };
    plan.indexes().iter().map(root).collect()
}

/// The unreferenced pages, in ascending order.
fn orphans(path: &Path, task: &dyn Progress) -> Result<Vec<u32>> {
    let file = PrivateFile::open(path)?;
    let options = MapOptions { resolution: u64::from(u32::MAX), ..MapOptions::default() };
    let map = page_map::map(&file, None, &options, task)?;
    let runs = map.runs.iter().filter(|run| run.role == Role::Orphan);
    let pages = runs.flat_map(|run| run.first..run.first + run.pages);
    Ok(pages.filter_map(|page| u32::try_from(page).ok()).collect())
}

/// The pages of a database that no other connection has open.
struct Pages<'a> {
    path: &'a Path,
    file: File,
    size: usize,
    usable: usize,
}

impl<'a> Pages<'a> {
    /// `None` if the header is not valid.
    fn open(path: &'a Path) -> Result<Option<Self>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| system(ffi::SQLITE_CANTOPEN, path, &error))?;
        let mut header = [0; crate::format::header::SIZE];
        file.read_exact(&mut header)
            .map_err(|error| system(ffi::SQLITE_IOERR_READ, path, &error))?;
        Ok(Header::parse(&header).map(|header| {
            let size = header.page_size as usize;
            Self { path, file, size, usable: size - usize::from(header.reserved) }
        }))
    }

    fn seek(&mut self, page: u32) -> Result<()> {
        let at = u64::from(page.saturating_sub(1)) * self.size as u64;
        let sought = self.file.seek(SeekFrom::Start(at));
        sought.map(drop).map_err(|error| system(ffi::SQLITE_IOERR_SEEK, self.path, &error))
    }

    /// Whether a page parses as a page of a table b-tree.
    fn is_table(&mut self, page: u32) -> Result<bool> {
        self.seek(page)?;
        let mut bytes = vec![0; self.size];
        self.file
            .read_exact(&mut bytes)
            .map_err(|error| system(ffi::SQLITE_IOERR_READ, self.path, &error))?;
        let page = Page::parse(&bytes, self.usable, page == 1);
        Ok(page.is_some_and(|page| page.kind.is_table()))
    }

    /// Makes a page the root of an index b-tree of these pages. Their entries hold only NULL.
    fn hang(&mut self, root: u32, pages: &[u32]) -> Result<()> {
        let most = (self.usable - INTERIOR_HEADER) / (CELL + 2) + 1;
        let (children, rest) = pages.split_at(pages.len().min(most));
        let Some((last, others)) = children.split_last() else {
            return self.write_leaf(root);
        };
        self.write_interior(root, others, *last)?;
        let share = rest.len().div_ceil(children.len()).max(1);
        let mut rest = rest.chunks(share);
        for child in children {
            self.hang(*child, rest.next().unwrap_or_default())?;
        }
        Ok(())
    }

    fn write_leaf(&mut self, page: u32) -> Result<()> {
        self.write(page, PageKind::IndexLeaf, &[], None)
    }

    fn write_interior(&mut self, page: u32, children: &[u32], last: u32) -> Result<()> {
        self.write(page, PageKind::IndexInterior, children, Some(last))
    }

    /// Writes a page of an index. The reserved bytes at its end stay as they are.
    fn write(
        &mut self,
        page: u32,
        kind: PageKind,
        children: &[u32],
        last: Option<u32>,
    ) -> Result<()> {
        let mut content = self.usable;
        let mut cells = Vec::new();
        let mut pointers = Vec::new();
        for child in children {
            content -= CELL;
            pointers.extend(word(content));
            cells.splice(0..0, child.to_be_bytes().into_iter().chain(ENTRY));
        }
        let mut bytes = vec![kind.flag(), 0, 0];
        bytes.extend(word(children.len()));
        bytes.extend(word(content));
        bytes.push(0);
        bytes.extend(last.map(u32::to_be_bytes).into_iter().flatten());
        bytes.extend(pointers);
        bytes.resize(content.max(bytes.len()), 0);
        bytes.extend(cells);
        self.seek(page)?;
        self.file
            .write_all(&bytes)
            .map_err(|error| system(ffi::SQLITE_IOERR_WRITE, self.path, &error))
    }
}

/// A number of two bytes; 65,536 is 0, as the format has it.
fn word(number: usize) -> [u8; 2] {
    let [.., high, low] = number.to_be_bytes();
    [high, low]
}
