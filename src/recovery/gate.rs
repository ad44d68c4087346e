//! The gate: compares a repair's result with what SQLite itself can read of the original.
//!
//! A *version* is what SQLite reads as one row: table, rowid, values. Three rules must hold:
//!
//! 1. Every version is in its table of the result, or in `lost_and_found`.
//! 2. If SQLite reads a table to its end, and its check of the whole file finds no fault in the
//!    table's b-trees (indexes included), the table of the result has every version and no other
//!    row.
//! 3. The result has every object of `sqlite_schema` with the same text.
//!
//! SQLite reads the original as an image ([`super::original`]), under each header that may be the
//! right one. The header with the fewest faulty pages counts. If SQLite reads no table, nothing is
//! proven. Values are compared as SQLite reads them on both sides: by type and bits.
//!
//! After an error a scan continues at the next rowid. If a page cannot be read, it continues at the
//! next key of the table's interior pages.
//!
//! With [`Missing::Keep`], [`compare`] adds versions of damaged tables that the result lacks to
//! `lost_and_found`, with the reason. It then compares again, and reports that result.
//!
//! Memory: SQLite's page caches; hashes of the versions in `lost_and_found` and of tables without
//! rowids, in a temporary database; 16 bytes for each interior key of a damaged table.
//! Runs on the caller's thread.

use std::collections::HashSet;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::iter;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::comparison::{Comparison, HeaderFrom, MissingObject, ROWIDS, TableComparison};
use super::neutral::{NeutralTable, image_of};
use super::original::{Faults, Format, ORIGINAL, Original};
use super::rebuild::quoted;
use super::salvage::geometry::{self, Candidate, Witness};
use super::salvage::target::{Affinity, Encoding, LostAndFound, LostRow, Row, Statement, is_same};
use super::salvage::{AsImage, Pages, SchemaEntry, Snapshot, Source};
use super::scan::{self, Look};
use super::snapshot_file;
use crate::engine::{
    Connection, Error, Likeness, PageImage, PageSource, PrivateFile, Progress, Result, Stage,
};
use crate::format::header::{Header, SIZE};
use crate::format::sql::{self, Makes};
use crate::format::{Page, Value};

/// Why a version is put into `lost_and_found`.
const AS_READ: &str =
    "SQLite reads this row of the damaged table, where no row of the result is it";

/// The name of `lost_and_found` tables, without a number.
const LOST_AND_FOUND: &str = "lost_and_found";

/// Versions between two calls of [`Progress::check_cancelled`].
const INTERVAL: u64 = 1_000;

/// What is done with a version of a damaged table that the result has nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is counted.
    Count,
    /// It is put into `lost_and_found`.
    Keep,
}

/// Compares the database at `result`, which is complete and has no WAL, with `source`. Tables
/// called as in `derived`, in lower case, follow from others in the result and are not compared.
///
/// # Errors
/// Those of reading the result, and of writing it where versions are kept; `task`'s.
pub(super) fn compare(
    source: Source<'_>,
    snapshot: Option<&Snapshot>,
    result: &Path,
    derived: &HashSet<String>,
    missing: Missing,
    task: &dyn Progress,
) -> Result<Comparison> {
    let mut best: Option<(Reading, Rank)> = None;
    for mut reading in readings(source, snapshot, task)? {
        let rank = reading.read(source, task)?;
        let is_perfect = rank.tables && rank.faults == 0;
        if best.as_ref().is_none_or(|(_, best)| rank.is_better_than(best)) {
            best = Some((reading, rank));
        }
        if is_perfect {
            break;
        }
    }
    let Some((reading, rank)) = best else {
        return Ok(Comparison::of_nothing(HeaderFrom::Own));
    };
    if !rank.tables {
        let from = reading.from;
        if !reading.has_rows(source, task)? {
            return Ok(Comparison::of_nothing(from));
        }
        let reason = "SQLite itself reads no table of the damaged file, which has rows";
        return Ok(Comparison::unproven(reason, from));
    }
    let gate = Gate { source, reading: &reading, faults: &rank.found, result, derived, task };
    let (comparison, kept) = gate.compare(missing)?;
    if kept == 0 {
        return Ok(comparison);
    }
    Ok(gate.compare(Missing::Count)?.0)
}

/// A format that the file may have, and the schema that goes with it.
struct Reading {
    from: HeaderFrom,
    candidate: Candidate,
    /// None: the file's own.
    schema: Option<Vec<SchemaEntry>>,
}

/// How well SQLite reads an original.
struct Rank {
    /// It reads a table.
    tables: bool,
    /// Pages that its check faults.
    faults: usize,
    objects: usize,
    found: Faults,
}

impl Rank {
    fn is_better_than(&self, other: &Self) -> bool {
        let key = |it: &Self| (it.tables, std::cmp::Reverse(it.faults), it.objects);
        key(self) > key(other)
    }
}

/// The ways in which SQLite may read the file, the likeliest first.
fn readings(
    source: Source<'_>,
    snapshot: Option<&Snapshot>,
    task: &dyn Progress,
) -> Result<Vec<Reading>> {
    let candidates = match geometry::candidates(source, snapshot, task) {
        Ok(candidates) => candidates,
        Err(error) if error.code == "ERR_FUSION_NOTHING_TO_SALVAGE" => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut readings = Vec::new();
    for candidate in &candidates {
        let from = match candidate.by {
            Witness::Header => HeaderFrom::Own,
            Witness::Pages => HeaderFrom::Pages,
            Witness::Snapshot => HeaderFrom::Snapshot,
        };
        readings.push(Reading { from, candidate: candidate.clone(), schema: None });
    }
    // The schema that was saved may be all that there is of one.
    for (snapshot, candidate) in snapshot.into_iter().zip(candidates) {
        let schema = Some(snapshot.schema.clone());
        readings.push(Reading { from: HeaderFrom::Snapshot, candidate, schema });
    }
    Ok(readings)
}

impl Reading {
    /// Whether any page of the file has rows: without one there is nothing to lose.
    fn has_rows(&self, source: Source<'_>, task: &dyn Progress) -> Result<bool> {
        let pages = self.candidate.pages(source, task)?;
        for number in 1..=pages.layout.count {
            task.check_cancelled()?;
            let Some(bytes) = pages.read(number) else { continue };
            let page = Page::parse(&bytes, pages.layout.usable, number == 1);
            if page.is_some_and(|page| !page.kind.is_interior() && page.cell(0).is_some()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads the schema and has SQLite check the file.
    fn read(&mut self, source: Source<'_>, task: &dyn Progress) -> Result<Rank> {
        let (pages, format) = (self.candidate.pages(source, task)?, self.candidate.format());
        let image = AsImage::padded(&pages);
        let schema = match &self.schema {
            Some(schema) => schema.clone(),
            None => Original::schema_of(&pages, &image, format, task)?,
        };
        let original = Original::open(&image, format, &schema)?;
        let found = original.check(task)?;
        let rank = Rank {
            tables: !original.tables.is_empty(),
            faults: found.pages.len(),
            objects: schema.len(),
            found,
        };
        drop(original);
        self.schema = Some(schema);
        Ok(rank)
    }
}

/// One comparison.
struct Gate<'a> {
    source: Source<'a>,
    reading: &'a Reading,
    faults: &'a Faults,
    result: &'a Path,
    derived: &'a HashSet<String>,
    task: &'a dyn Progress,
}

impl Gate<'_> {
    /// Compares; returns how many versions were put into `lost_and_found`, too.
    fn compare(&self, missing: Missing) -> Result<(Comparison, u64)> {
        let Self { reading, task, .. } = *self;
        let candidate = &reading.candidate;
        let (pages, format) = (candidate.pages(self.source, task)?, candidate.format());
        let image = AsImage::padded(&pages);
        let schema = reading.schema.as_deref().unwrap_or_default();
        let original = Original::open(&image, format, schema)?;
        let file = FilePages::open(self.result)?;
        let held = Held::open(&file, self.result, &original.tables)?;
        let mut spool = match missing {
            Missing::Keep => Some(Spool::new(self.result, held.encoding)?),
            Missing::Count => None,
        };
        let mut tables = Vec::new();
        let total = original.tables.len() as u64;
        for (done, table) in (0..).zip(&original.tables) {
            task.stage(Stage { name: "comparing with what SQLite reads", done, total });
            if self.derived.contains(&table.name.to_ascii_lowercase()) {
                continue;
            }
            tables.push(self.table(&original, &pages, &held, table, spool.as_mut())?);
        }
        let objects = missing_objects(schema, &held.schema);
        drop(original);
        let comparison = Comparison {
            holds: false,
            reason: None,
            header: reading.from,
            tables,
            objects,
            text: String::new(),
        };
        let names: Vec<String> = held.schema.iter().map(|entry| entry.name.clone()).collect();
        drop(held);
        let kept = match spool {
            Some(spool) => spool.add_to(self.result, &names, schema)?,
            None => 0,
        };
        Ok((comparison.judged(), kept))
    }

    fn table(
        &self,
        original: &Original<'_>,
        pages: &Pages<'_>,
        held: &Held<'_>,
        table: &NeutralTable,
        mut spool: Option<&mut Spool>,
    ) -> Result<TableComparison> {
        let encoding = self.reading.candidate.format().encoding;
        let is_faultless = self.faults.spare(table);
        let mut account = TableComparison {
            table: table.name.clone(),
            sound: is_faultless,
            rows: 0,
            in_table: 0,
            in_lost_and_found: 0,
            missing: 0,
            invented: 0,
            missing_rowids: Vec::new(),
        };
        let mut lookup = held.lookup(table)?;
        let mut looked: u64 = 0;
        let whole =
            scan::rows(original, pages, encoding, table, &mut |rowid, row, first, look| {
                looked += 1;
                if looked.is_multiple_of(INTERVAL) {
                    self.task.check_cancelled()?;
                }
                let count = u64::from(look == Look::First);
                if lookup.has(rowid, row, first)? {
                    account.rows += count;
                    account.in_table += count;
                    return Ok(());
                }
                let version = Version { rowid, row, first, table };
                let sum = version.hash();
                if lookup.lost.has(sum)? {
                    account.rows += count;
                    account.in_lost_and_found += count;
                    return Ok(());
                }
                if lookup.missing.has(sum)? {
                    return Ok(());
                }
                lookup.note_missing.run(iter::once(Value::Blob(&sum)))?;
                account.rows += 1;
                account.missing += 1;
                if let Some(rowid) = rowid.filter(|_| account.missing_rowids.len() < ROWIDS) {
                    account.missing_rowids.push(rowid);
                }
                match &mut spool {
                    // What a sound table lacks is no version that may be anywhere else.
                    Some(spool) if !is_faultless => spool.put(&version),
                    _ => Ok(()),
                }
            })?;
        account.sound &= whole;
        if account.sound && !lookup.grows() {
            account.invented = held.rows(table)?.saturating_sub(account.in_table);
        }
        Ok(account)
    }
}

/// What SQLite reads as one row.
struct Version<'a> {
    rowid: Option<i64>,
    row: &'a Row<'a>,
    /// The column of the row that is the first field.
    first: usize,
    table: &'a NeutralTable,
}

impl Version<'_> {
    /// The stored fields, as a record has them: nothing for the rowid's alias.
    fn fields(&self) -> Vec<Value<'_>> {
        let field = |at: usize| match self.table.alias {
            Some(alias) if alias == at => Value::Null,
            _ => self.row.value(self.first + at),
        };
        (0..self.table.columns.len()).map(field).collect()
    }

    fn hash(&self) -> [u8; 16] {
        hash(self.rowid, &self.fields(), Some(self.table))
    }
}

/// A sum of a version. Fields at the end that SQLite reads without being there do not count.
fn hash(rowid: Option<i64>, fields: &[Value<'_>], table: Option<&NeutralTable>) -> [u8; 16] {
    let mut images: Vec<Vec<u8>> = fields.iter().map(|&field| image_of(field)).collect();
    let nothing = image_of(Value::Null);
    while let Some(last) = images.last() {
        let column = table.and_then(|table| table.columns.get(images.len() - 1));
        let default = column.and_then(|column| column.default.as_ref());
        if last != default.map_or(&nothing, |default| &default.image) {
            break;
        }
        images.pop();
    }
    let mut sum = [0; 16];
    for (seed, half) in sum.chunks_exact_mut(8).enumerate() {
        let mut hasher = DefaultHasher::new();
        hasher.write_usize(seed);
        hasher.write(&image_of(rowid.map_or(Value::Null, Value::Integer)));
        for image in &images {
            hasher.write(image);
        }
        half.copy_from_slice(&hasher.finish().to_le_bytes());
    }
    sum
}

/// The pages of a file that is complete.
struct FilePages {
    file: PrivateFile,
    format: Format,
    pages: u32,
}

impl FilePages {
    fn open(path: &Path) -> Result<Self> {
        let file = PrivateFile::open(path)?;
        let mut start = [0; SIZE];
        file.read_at(&mut start, 0)?;
        let header = Header::parse(&start).ok_or_else(|| {
            Error::sqlite(ffi::SQLITE_NOTADB, "the result has no header").at(path)
        })?;
        let pages = file.size()? / u64::from(header.page_size);
        let encoding = u8::try_from(header.encoding).unwrap_or(0);
        let (size, reserved) = (header.page_size, header.reserved);
        let format = Format::new(size, reserved, encoding, header.schema_format);
        Ok(Self { file, format, pages: u32::try_from(pages).unwrap_or(u32::MAX) })
    }
}

impl PageImage for FilePages {
    fn page_size(&self) -> u32 {
        self.format.page_size
    }

    fn pages(&self) -> u32 {
        self.pages
    }

    fn read_page(&self, page: u32, to: &mut [u8]) -> Result<()> {
        let offset = u64::from(page.saturating_sub(1)) * u64::from(self.format.page_size);
        let read = self.file.read_at(to, offset)?;
        to.get_mut(read..).unwrap_or_default().fill(0);
        Ok(())
    }
}

/// The result of a repair, as SQLite reads it under the original's declarations.
struct Held<'a> {
    schema: Vec<SchemaEntry>,
    encoding: Encoding,
    read: Original<'a>,
}

impl<'a> Held<'a> {
    /// Opens the result, which is at `path` and has `pages`, for comparing `tables` with it.
    fn open(pages: &'a FilePages, path: &Path, tables: &[NeutralTable]) -> Result<Self> {
        let plain = Connection::open(path, OpenFlags::SQLITE_OPEN_READ_ONLY, Duration::ZERO)?;
        let schema = snapshot_file::entries(&plain)?;
        let kept: Vec<NeutralTable> = tables
            .iter()
            .filter_map(|table| {
                let of = |entry: &&SchemaEntry| entry.kind == "table" && entry.name == table.name;
                let root = schema.iter().find(of)?.root;
                Some(NeutralTable { root, indexes: Vec::new(), ..table.clone() })
            })
            .collect();
        let encoding = pages.format.encoding;
        let read = Original::of_tables(pages, pages.format, kept)?;
        let sql = read.connection.sql()?;
        sql.execute_batch(
            "PRAGMA temp_store = FILE;
             CREATE TEMP TABLE lost(hash BLOB PRIMARY KEY) WITHOUT ROWID;
             CREATE TEMP TABLE held(hash BLOB PRIMARY KEY) WITHOUT ROWID;
             CREATE TEMP TABLE missing(hash BLOB PRIMARY KEY) WITHOUT ROWID;",
        )?;
        let held = Self { schema, encoding, read };
        held.note_lost(&plain, tables)?;
        Ok(held)
    }

    /// Takes note of what is in the result's tables of rows without a table.
    fn note_lost(&self, plain: &Connection, tables: &[NeutralTable]) -> Result<()> {
        let prepare = |sql: &str| Statement::prepare(&self.read.connection, self.encoding, sql);
        let mut note = prepare("INSERT OR IGNORE INTO temp.lost VALUES (?)")?;
        for entry in self.schema.iter().filter(|entry| is_lost_and_found(&entry.name)) {
            let sql = plain.sql()?;
            let columns: usize = sql.query_row(
                "SELECT count(*) FROM pragma_table_info(?1)
                  WHERE name GLOB 'c[0-9]*' AND substr(name, 2) NOT GLOB '*[^0-9]*'",
                [&entry.name],
                |row| row.get::<_, u32>(0),
            )? as usize;
            let list: String = (0..columns).map(|column| format!(", c{column}")).collect();
            let select =
                format!("SELECT rootpgno, nfield, id{list} FROM main.{}", quoted(&entry.name));
            // A table of the application's that only has such a name.
            let Ok(mut select) = Statement::prepare(plain, self.encoding, &select) else {
                continue;
            };
            select.each(iter::empty(), |row| {
                let number = |column: usize| match row.value(column) {
                    Value::Integer(number) => Some(number),
                    _ => None,
                };
                let count = number(1).and_then(|count| usize::try_from(count).ok());
                let count = count.unwrap_or(0).min(columns);
                let fields: Vec<Value<'_>> = (0..count).map(|at| row.value(3 + at)).collect();
                let of = |table: &&NeutralTable| Some(i64::from(table.root)) == number(0);
                let sum = hash(number(2), &fields, tables.iter().find(of));
                note.run(iter::once(Value::Blob(&sum)))?;
                Ok(true)
            })?;
        }
        Ok(())
    }

    /// How many rows the result has of `table`.
    fn rows(&self, table: &NeutralTable) -> Result<u64> {
        if !self.read.tables.iter().any(|it| it.entry == table.entry) {
            return Ok(0);
        }
        let count = format!("SELECT count(*) FROM {ORIGINAL}.t{}", table.entry);
        let count: i64 = self.read.connection.sql()?.query_row(&count, [], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// What finds versions of `table`.
    fn lookup(&self, table: &NeutralTable) -> Result<Lookup> {
        let prepare = |sql: &str| Statement::prepare(&self.read.connection, self.encoding, sql);
        let is_there = self.read.tables.iter().any(|it| it.entry == table.entry);
        let columns = table.names().collect::<Vec<_>>().join(", ");
        let from = format!("FROM {ORIGINAL}.t{}", table.entry);
        let lost = Hashes { find: prepare("SELECT 1 FROM temp.lost WHERE hash = ?")? };
        self.read.connection.sql()?.execute_batch("DELETE FROM temp.missing")?;
        let missing = Hashes { find: prepare("SELECT 1 FROM temp.missing WHERE hash = ?")? };
        let note_missing = prepare("INSERT INTO temp.missing VALUES (?)")?;
        let place = if !is_there {
            Place::Nowhere
        } else if table.name.eq_ignore_ascii_case("sqlite_sequence") {
            let find = format!(
                "SELECT 1 {from} WHERE c0 IS ?1 AND (c1 IS ?2
                   OR (typeof(c1) = 'integer' AND typeof(?2) = 'integer' AND c1 > ?2))"
            );
            Place::Sequence(prepare(&find)?)
        } else if table.has_rowid() {
            Place::Rowid(prepare(&format!("SELECT {columns} {from} WHERE rowid = ?"))?)
        } else {
            self.read.connection.sql()?.execute_batch("DELETE FROM temp.held")?;
            let mut note = prepare("INSERT OR IGNORE INTO temp.held VALUES (?)")?;
            prepare(&format!("SELECT {columns} {from}"))?.each(iter::empty(), |row| {
                let version = Version { rowid: None, row, first: 0, table };
                note.run(iter::once(Value::Blob(&version.hash())))?;
                Ok(true)
            })?;
            Place::Hashes(Hashes { find: prepare("SELECT 1 FROM temp.held WHERE hash = ?")? })
        };
        let affinities = table.columns.iter().map(|column| column.affinity).collect();
        Ok(Lookup {
            place,
            affinities,
            alias: table.alias,
            table: table.clone(),
            lost,
            missing,
            note_missing,
        })
    }
}

/// Versions by their sums, in a temporary table.
struct Hashes {
    find: Statement,
}

impl Hashes {
    fn has(&mut self, sum: [u8; 16]) -> Result<bool> {
        let mut found = false;
        self.find.each(iter::once(Value::Blob(&sum)), |_| {
            found = true;
            Ok(false)
        })?;
        Ok(found)
    }
}

/// Where the versions of a table are looked for in the result.
enum Place {
    Nowhere,
    Rowid(Statement),
    /// SQLite raises the number in `sqlite_sequence` with the rows that are put in.
    Sequence(Statement),
    Hashes(Hashes),
}

struct Lookup {
    place: Place,
    affinities: Vec<Affinity>,
    alias: Option<usize>,
    table: NeutralTable,
    lost: Hashes,
    /// What was missed already: equal versions count once.
    missing: Hashes,
    note_missing: Statement,
}

impl Lookup {
    /// Whether SQLite itself may have put rows into it.
    fn grows(&self) -> bool {
        matches!(self.place, Place::Sequence(_))
    }

    /// Whether the version is in its table.
    fn has(&mut self, rowid: Option<i64>, row: &Row<'_>, first: usize) -> Result<bool> {
        let mut has = false;
        match &mut self.place {
            Place::Nowhere => {}
            Place::Rowid(find) => {
                let (affinities, alias) = (&self.affinities, self.alias);
                find.each(rowid.map(Value::Integer).into_iter(), |found| {
                    has = affinities.iter().enumerate().all(|(at, &affinity)| {
                        alias == Some(at)
                            || is_equal(row.value(first + at), found.value(at), affinity)
                    });
                    Ok(false)
                })?;
            }
            Place::Sequence(find) => {
                let key = [row.value(first), row.value(first + 1)];
                find.each(key.into_iter(), |_| {
                    has = true;
                    Ok(false)
                })?;
            }
            Place::Hashes(hashes) => {
                let version = Version { rowid: None, row, first, table: &self.table };
                has = hashes.has(version.hash())?;
            }
        }
        Ok(has)
    }
}

/// Whether two stored values are the same to who reads a column of that affinity: a REAL one's
/// whole numbers are stored as integers, or not.
fn is_equal(one: Value<'_>, other: Value<'_>, affinity: Affinity) -> bool {
    match (affinity, one, other) {
        (Affinity::Real, Value::Real(_), Value::Integer(_)) => is_same(one, other),
        (Affinity::Real, Value::Integer(_), Value::Real(_)) => is_same(other, one),
        _ => is_same(one, other),
    }
}

fn is_lost_and_found(name: &str) -> bool {
    name.get(..LOST_AND_FOUND.len()).is_some_and(|start| start.eq_ignore_ascii_case(LOST_AND_FOUND))
}

/// The objects of the original's `schema` that `held` lacks, or has with another text. One whose
/// text SQLite can make nothing of may have another: then it is what was damaged.
fn missing_objects(schema: &[SchemaEntry], held: &[SchemaEntry]) -> Vec<MissingObject> {
    let kinds = ["table", "index", "view", "trigger"];
    let has_table = |entry: &SchemaEntry| {
        let is_of =
            |it: &SchemaEntry| it.kind == "table" && it.name.eq_ignore_ascii_case(&entry.table);
        schema.iter().any(is_of)
    };
    let makes_sense = |entry: &SchemaEntry| match entry.sql.as_deref().map(sql::makes) {
        // An index of a constraint's.
        None => entry.kind == "index" && has_table(entry),
        Some(makes) => matches!(
            (entry.kind.as_str(), makes),
            ("table", Some(Makes::Table | Makes::VirtualTable))
                | ("index", Some(Makes::Index | Makes::UniqueIndex))
                | ("view", Some(Makes::View))
                | ("trigger", Some(Makes::Trigger))
        ),
    };
    let mut missing = Vec::new();
    for entry in schema.iter().filter(|entry| kinds.contains(&entry.kind.as_str())) {
        let mut of_name = held
            .iter()
            .filter(|it| it.kind == entry.kind && it.name.eq_ignore_ascii_case(&entry.name));
        let reason = match of_name.next() {
            // SQLite can make nothing of it, and no row is lost with it.
            None if entry.kind != "table" && !makes_sense(entry) => continue,
            None => "is not in the result",
            Some(it) if it.sql != entry.sql && makes_sense(entry) => {
                "has another text in the result"
            }
            Some(it) if !it.table.eq_ignore_ascii_case(&entry.table) && makes_sense(entry) => {
                "is another table's in the result"
            }
            Some(_) => continue,
        };
        missing.push(MissingObject {
            kind: entry.kind.clone(),
            name: entry.name.clone(),
            reason: reason.to_owned(),
        });
    }
    missing
}

/// Versions on their way into the result's table of rows without a table.
struct Spool {
    path: PathBuf,
    // Its statements go before the connection.
    lost: LostAndFound,
    connection: Connection,
    encoding: Encoding,
}

impl Spool {
    /// A new one, next to the result.
    fn new(result: &Path, encoding: Encoding) -> Result<Self> {
        let path = result.with_extension("kept");
        drop(fs::remove_file(&path));
        Likeness::private()
            .create(&path)
            .map_err(|error| Error::sqlite(ffi::SQLITE_CANTOPEN, error.to_string()).at(&path))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = Connection::open(&path, flags, Duration::ZERO)?;
        connection.sql()?.execute_batch(&format!(
            "PRAGMA encoding = '{}'; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; BEGIN",
            encoding.name()
        ))?;
        Ok(Self { path, lost: LostAndFound::new(iter::empty(), 1), connection, encoding })
    }

    fn put(&mut self, version: &Version<'_>) -> Result<()> {
        let (root, fields) = (version.table.root, version.fields());
        {
            let rowid = version.rowid;
            let row = LostRow { root, page: 0, rowid, fields: &fields, reason: AS_READ };
            self.lost.add(&self.connection, self.encoding, row)
        }
    }

    /// Puts everything into the result's table, whose name none of the original's `schema` has.
    fn add_to(mut self, result: &Path, names: &[String], schema: &[SchemaEntry]) -> Result<u64> {
        let kept = self.lost.rows;
        self.lost.forget_statements();
        if kept > 0 {
            let to = Connection::open(result, OpenFlags::SQLITE_OPEN_READ_WRITE, Duration::ZERO)?;
            to.sql()?.execute_batch(
                "PRAGMA synchronous = FULL; PRAGMA fullfsync = 1; BEGIN IMMEDIATE",
            )?;
            let taken = schema.iter().map(|entry| entry.name.as_str());
            let mut lost = LostAndFound::new(taken, 1);
            lost.find(&to, names)?;
            let width: usize = self.connection.sql()?.query_row(
                "SELECT count(*) - 5 FROM pragma_table_info('lost_and_found')",
                [],
                |row| row.get::<_, u32>(0),
            )? as usize;
            let list: String = (0..width).map(|column| format!(", c{column}")).collect();
            let select = format!("SELECT rootpgno, nfield, id{list} FROM lost_and_found");
            Statement::prepare(&self.connection, self.encoding, &select)?.each(
                iter::empty(),
                |row| {
                    let number = |column: usize| match row.value(column) {
                        Value::Integer(number) => Some(number),
                        _ => None,
                    };
                    let root = number(0).and_then(|root| u32::try_from(root).ok()).unwrap_or(0);
                    let count = number(1).and_then(|count| usize::try_from(count).ok());
                    let count = count.unwrap_or(0).min(width);
                    let fields: Vec<Value<'_>> = (0..count).map(|at| row.value(3 + at)).collect();
                    let rowid = number(2);
                    let row = LostRow { root, page: 0, rowid, fields: &fields, reason: AS_READ };
                    lost.add(&to, self.encoding, row)?;
                    Ok(true)
                },
            )?;
            lost.forget_statements();
            to.sql()?.execute_batch("COMMIT")?;
        }
        self.connection.close()?;
        drop(fs::remove_file(&self.path));
        Ok(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::NoProgress;

    const SCHEMA: &str = "
        CREATE TABLE log(id INTEGER PRIMARY KEY, task TEXT, body BLOB, weight REAL);
        CREATE INDEX log_by_task ON log(task);
        CREATE TABLE pairs(a TEXT COLLATE NOCASE, b INT, c, PRIMARY KEY(a, b)) WITHOUT ROWID;
        CREATE TABLE plain(x, y DEFAULT 'none');
        CREATE VIEW names AS SELECT task FROM log;
        CREATE TRIGGER noted AFTER DELETE ON log BEGIN DELETE FROM plain WHERE x = old.id; END;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
        INSERT INTO log SELECT i, 'task ' || i % 7, zeroblob(i % 300), i / 4.0 FROM n;
        INSERT INTO pairs SELECT 'Name ' || id, id % 3, body FROM log WHERE id % 2;
        INSERT INTO plain(x) SELECT id * 10 FROM log WHERE id % 5 = 0;
        ALTER TABLE plain ADD COLUMN z DEFAULT \"\";
        INSERT INTO plain SELECT id, task, weight FROM log WHERE id % 9 = 0;";

    fn made(folder: &Path, name: &str, change: &str) -> PathBuf {
        crate::engine::init().unwrap();
        let path = folder.join(name);
        let one = rusqlite::Connection::open(&path).unwrap();
        one.execute_batch(&format!("{SCHEMA};{change}")).unwrap();
        path
    }

    fn compared(original: &Path, result: &Path, missing: Missing) -> Comparison {
        let bytes = PrivateFile::open(original).unwrap();
        let source = Source { database: &bytes, wal: None };
        compare(source, None, result, &HashSet::new(), missing, &NoProgress).unwrap()
    }

    #[test]
    fn a_result_that_lacks_nothing_holds() {
        let folder = tempfile::tempdir().unwrap();
        let original = made(folder.path(), "original", "");
        // The same content on other pages, and records with all fields.
        let result = made(folder.path(), "result", "UPDATE plain SET y = y; VACUUM");
        let comparison = compared(&original, &result, Missing::Count);
        assert!(comparison.holds, "{comparison:?}");
        assert!(comparison.tables.iter().all(|table| table.sound && table.rows > 0));
        assert_eq!(comparison.tables.len(), 3);
    }

    #[test]
    fn a_result_with_anything_wrong_does_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let original = made(folder.path(), "original", "");
        let wrong = [
            ("a table is dropped", "DROP TABLE plain"),
            ("a table is emptied", "DELETE FROM pairs"),
            ("a row is lost", "DELETE FROM log WHERE id = 777"),
            ("the last row is lost", "DELETE FROM log WHERE id = 2000"),
            ("a row without a rowid is lost", "DELETE FROM pairs WHERE a = 'name 5'"),
            ("a row is moved", "UPDATE log SET id = 5000 WHERE id = 12"),
            ("a rowid is changed", "UPDATE plain SET rowid = -1 WHERE rowid = 3"),
            ("a value is changed", "UPDATE log SET task = 'task  1' WHERE id = 8"),
            ("a type is changed", "UPDATE log SET body = CAST(body AS TEXT) WHERE id = 9"),
            ("a number is another", "UPDATE log SET weight = weight + 1e-9 WHERE id = 9"),
            ("case is changed", "UPDATE pairs SET a = upper(a) WHERE b = 1"),
            ("a default is lost", "UPDATE plain SET z = NULL WHERE rowid = 1"),
            ("an index is lost", "DROP INDEX log_by_task"),
            (
                "an index has another text",
                "DROP INDEX log_by_task; CREATE INDEX log_by_task ON log(body)",
            ),
            ("a view is lost", "DROP VIEW names"),
            ("a trigger is lost", "DROP TRIGGER noted"),
            ("a column is added", "ALTER TABLE log ADD COLUMN more"),
            ("a row is invented", "INSERT INTO log VALUES (2001, 'task 1', NULL, 0)"),
            ("a row without a rowid is invented", "INSERT INTO pairs VALUES ('new', 1, 2)"),
            (
                "a row is in lost_and_found instead",
                "CREATE TABLE lost_and_found(rootpgno INTEGER, pgno INTEGER, nfield INTEGER,
                   id INTEGER, reason TEXT, c0, c1, c2, c3);
                 INSERT INTO lost_and_found SELECT 2, 0, 4, id, '', NULL, task, body, weight
                   FROM log WHERE id = 7;
                 DELETE FROM log WHERE id = 7",
            ),
        ];
        for (number, (what, change)) in wrong.into_iter().enumerate() {
            let result = made(folder.path(), &format!("result {number}"), change);
            for missing in [Missing::Count, Missing::Keep] {
                let comparison = compared(&original, &result, missing);
                assert!(!comparison.holds, "{what}: {comparison:?}");
            }
        }
    }

    /// A leaf of `log` whose last cell leads nowhere: SQLite reads the rows before it, and behind.
    #[test]
    fn what_a_damaged_table_lacks_is_kept_in_lost_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let original = made(folder.path(), "original", "");
        let mut bytes = fs::read(&original).unwrap();
        let leaves: Vec<usize> =
            (1..bytes.len() / 4096).filter(|page| bytes[page * 4096] == 13).collect();
        let leaf = leaves[leaves.len() / 2] * 4096;
        let cells = usize::from(u16::from_be_bytes([bytes[leaf + 3], bytes[leaf + 4]]));
        let last = leaf + 8 + 2 * (cells - 1);
        bytes[last..last + 2].fill(0xff);
        fs::write(&original, bytes).unwrap();
        let result = made(folder.path(), "result", "DELETE FROM log WHERE id % 50 = 1 AND id % 9");
        let counted = compared(&original, &result, Missing::Count);
        assert!(!counted.holds, "{counted:?}");
        let log = counted.tables.iter().find(|table| table.table == "log").unwrap();
        assert!(!log.sound && log.missing > 30 && log.rows > 1900, "{log:?}");
        let kept = compared(&original, &result, Missing::Keep);
        assert!(kept.holds, "{kept:?}");
        let log = kept.tables.iter().find(|table| table.table == "log").unwrap();
        assert_eq!((log.missing, log.in_lost_and_found), (0, log.rows - log.in_table));
        let one = rusqlite::Connection::open(&result).unwrap();
        let kept: (i64, i64) = one
            .query_row("SELECT count(*), count(reason) FROM lost_and_found", [], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        let expected = i64::try_from(log.in_lost_and_found).unwrap();
        assert_eq!(kept, (expected, expected));
    }

    #[test]
    fn a_file_without_a_schema_proves_nothing_unless_it_has_no_row() {
        let folder = tempfile::tempdir().unwrap();
        let original = made(folder.path(), "original", "");
        let result = made(folder.path(), "result", "");
        let mut bytes = fs::read(&original).unwrap();
        bytes[..4096].fill(0);
        fs::write(&original, &bytes).unwrap();
        let comparison = compared(&original, &result, Missing::Count);
        assert!(!comparison.holds && comparison.reason.is_some(), "{comparison:?}");
        bytes.fill(0);
        fs::write(&original, &bytes).unwrap();
        assert!(compared(&original, &result, Missing::Count).holds);
    }
}
