//! Has SQLite itself read a damaged file.
//!
//! SQLite reads an [`Image`] of the file's pages, overlaid with the WAL's frames. The image has a
//! new header, and a schema of neutral declarations ([`super::neutral`]) in place of the file's
//! own. So a damaged schema entry hides no other entry, SQLite evaluates no expression of the
//! schema, and the file is not written to. The rows that SQLite reads from the image without an
//! error are the rows that it can read from the file. A fault that its check reports for a b-tree
//! is a fault of that b-tree in the file.
//!
//! The objects of the image are named `t` or `i` with the object's place in the schema, so that
//! each line of the check names its object.
//!
//! Runs on the caller's thread, which alone uses the connection. Memory: SQLite's page cache, and
//! the pages of the neutral schema.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::neutral::{self, NeutralIndex, NeutralTable};
use super::salvage::target::{Encoding, Limits, watched};
use super::salvage::{Pages, SchemaEntry};
use super::scan::{self, Look, RowidSource};
use crate::engine::{Class, Connection, Error, Image, PageImage, Progress, Result};
use crate::format::Value;
use crate::format::header::SIZE as HEADER;

/// The name under which an image is attached.
pub(super) const ORIGINAL: &str = "original";

/// Page cache while an image is read, in KiB.
const CACHE: i64 = 16 << 10;

/// Maximum number of lines of SQLite's check, besides one line a page (`Page N: never used`).
const LINES: u64 = 100_000;

/// What every page of an image has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Bytes a page.
    pub(super) page_size: u32,
    /// Bytes at the end of each page that are not SQLite's.
    pub(super) reserved: u8,
    /// The text encoding.
    pub(super) encoding: Encoding,
    /// The schema format number (<https://sqlite.org/fileformat2.html#schema_format_number>).
    pub(super) schema_format: u32,
}

/// The newest schema format.
const SCHEMA_FORMAT: u32 = 4;

impl Format {
    /// The format by the header's fields. An unknown schema format becomes the newest one.
    pub(super) fn new(page_size: u32, reserved: u8, encoding: u8, schema_format: u32) -> Self {
        let is_known = (1..=SCHEMA_FORMAT).contains(&schema_format);
        Self {
            page_size,
            reserved,
            encoding: Encoding::of_header(encoding),
            schema_format: if is_known { schema_format } else { SCHEMA_FORMAT },
        }
    }
}

/// The faults of b-trees that SQLite's check of the whole file reports.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Places in the schema of the tables and indexes with a fault.
    pub(super) objects: HashSet<usize>,
    /// Pages that are referenced twice, by two b-trees or by one.
    shared: HashSet<u32>,
    /// Pages that a line of the check names.
    pub(super) pages: HashSet<u32>,
}

impl Faults {
    /// Whether neither the table nor one of its indexes has a fault.
    pub(super) fn spare(&self, table: &NeutralTable) -> bool {
        table.whole && !table.entries().any(|place| self.objects.contains(&place))
    }
}

/// A file as SQLite reads it. The connection has it attached as [`ORIGINAL`].
#[derive(Debug)]
pub(super) struct Original<'a> {
    // Declared first: the connection must close before the image is dropped.
    pub(super) connection: Connection,
    _image: Image<'a>,
    /// The tables whose root page exists.
    pub(super) tables: Vec<NeutralTable>,
    pages: u32,
    limits: Limits,
}

/// How the indexes of an image are declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Indexes {
    /// As indexes where SQLite can compare them with their table, else as tables.
    Compared,
    /// As tables.
    Carried,
}

impl<'a> Original<'a> {
    /// Has SQLite read `pages` with the tables of `schema`.
    ///
    /// # Errors
    /// SQLite's, of the neutral schema.
    pub(super) fn open(
        pages: &'a dyn PageImage,
        format: Format,
        schema: &[SchemaEntry],
    ) -> Result<Self> {
        Self::of_tables(pages, format, neutral::describe(schema, format.encoding)?)
    }

    /// Has SQLite read `pages` with these tables.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn of_tables(
        pages: &'a dyn PageImage,
        format: Format,
        mut tables: Vec<NeutralTable>,
    ) -> Result<Self> {
        let count = pages.pages();
        let leads = |root: u32| (1..=count).contains(&root);
        tables.retain(|table| leads(table.root));
        for table in &mut tables {
            table.whole &= table.indexes.iter().all(|index| leads(index.root));
            table.indexes.retain(|index| leads(index.root));
        }
        let connection = connection(format)?;
        let image = image(&connection, pages, format, &tables, Indexes::Compared)?;
        let bytes = u64::from(count) * u64::from(format.page_size);
        let limits = Limits::of(bytes, bytes);
        Ok(Self { connection, _image: image, tables, pages: count, limits })
    }

    /// The entries of the file's own schema table, as far as SQLite reads them.
    ///
    /// # Errors
    /// SQLite's, but for damage; `task`'s.
    pub(super) fn schema_of(
        pages: &Pages<'_>,
        image: &'a dyn PageImage,
        format: Format,
        task: &dyn Progress,
    ) -> Result<Vec<SchemaEntry>> {
        let first = first_page(format, image.pages());
        let mut own = vec![0; format.page_size as usize];
        if image.read_page(1, &mut own).is_err() {
            return Ok(Vec::new());
        }
        if let (Some(header), Some(from)) = (own.get_mut(..HEADER), first.get(..HEADER)) {
            header.copy_from_slice(from);
        }
        let connection = connection(format)?;
        let attached = Image::new(image)?;
        attached.write(1, &own);
        // With writable_schema SQLite ignores schema entries that it cannot parse.
        connection.sql()?.execute_batch("PRAGMA writable_schema = ON")?;
        match attached.attach(&connection, ORIGINAL) {
            Ok(()) => {}
            Err(error) if is_of_the_file(&error) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
        let mut entries = Vec::new();
        let text = |value: Value<'_>| match value {
            Value::Text(text) => Some(format.encoding.text_of(text)),
            _ => None,
        };
        let source = RowidSource {
            connection: &connection,
            encoding: format.encoding,
            table: &format!("{ORIGINAL}.sqlite_schema"),
            columns: "type, name, tbl_name, rootpage, sql",
            root: 1,
        };
        scan::by_rowid(&source, pages, &mut |_, row, first, look| {
            task.check_cancelled()?;
            let value = |at: usize| text(row.value(first + at)).unwrap_or_default();
            let root = match row.value(first + 3) {
                Value::Integer(root) => u32::try_from(root).unwrap_or(0),
                _ => 0,
            };
            let sql = text(row.value(first + 4));
            let (kind, name, table) = (value(0), value(1), value(2));
            let entry = SchemaEntry { kind, name, table, root, sql };
            if look == Look::First || !entries.contains(&entry) {
                entries.push(entry);
            }
            Ok(())
        })?;
        drop(connection);
        Ok(entries)
    }

    /// The result of SQLite's integrity check of the whole file.
    ///
    /// # Errors
    /// Of reading the file (`SQLITE_IOERR`); `task`'s.
    pub(super) fn check(&self, task: &dyn Progress) -> Result<Faults> {
        let mut faults = self.check_each(task)?;
        if faults.shared.is_empty() {
            return Ok(faults);
        }
        // SQLite reports a page with two references as a fault of the b-tree that it checks second.
        // The page belongs to the table that has no other fault. If several tables have no other
        // fault, its owner is unknown, and each of them counts as faulty.
        let mut claims: HashMap<u32, Vec<usize>> = HashMap::new();
        for (number, table) in self.tables.iter().enumerate() {
            let Some(pages) = self.shared_pages_of(table, &faults.shared, task)? else { continue };
            if pages.is_empty() || !self.is_sound_alone(table, task)? {
                continue;
            }
            faults.objects.retain(|place| !table.has(*place));
            pages.into_iter().for_each(|page| claims.entry(page).or_default().push(number));
        }
        for number in claims.into_values().filter(|of| of.len() > 1).flatten() {
            faults.objects.extend(self.tables.get(number).map(|table| table.entry));
        }
        Ok(faults)
    }

    /// The `shared` pages in the b-trees of a table and its indexes. `None` if SQLite cannot walk
    /// those b-trees.
    fn shared_pages_of(
        &self,
        table: &NeutralTable,
        shared: &HashSet<u32>,
        task: &dyn Progress,
    ) -> Result<Option<HashSet<u32>>> {
        let mut found = HashSet::new();
        for entry in table.entries() {
            match self.pages_of(entry, task) {
                Ok(pages) => found.extend(pages.all().filter(|page| shared.contains(page))),
                Err(error) if is_of_the_file(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Ok(Some(found))
    }

    /// Whether SQLite's check of a table, without the others, finds no fault.
    fn is_sound_alone(&self, table: &NeutralTable, task: &dyn Progress) -> Result<bool> {
        let mut faults = Faults::default();
        let ended = self.check_one(table, &mut faults, task)?;
        Ok(ended && faults.spare(table))
    }

    /// Checks a table without the others; returns whether the check got to its end.
    fn check_one(
        &self,
        table: &NeutralTable,
        faults: &mut Faults,
        task: &dyn Progress,
    ) -> Result<bool> {
        let lines = u64::from(self.pages) + LINES;
        let names = table.indexes.iter().filter(|index| !index.is_comparable());
        let names = names.map(|index| format!("i{}", index.entry));
        for name in names.chain([format!("t{}", table.entry)]) {
            let one = format!("PRAGMA {ORIGINAL}.integrity_check('{name}')");
            if !self.lines(&one, lines, faults, task)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn check_each(&self, task: &dyn Progress) -> Result<Faults> {
        let mut faults = Faults::default();
        let lines = u64::from(self.pages) + LINES;
        let whole = format!("PRAGMA {ORIGINAL}.integrity_check({lines})");
        if self.lines(&whole, lines, &mut faults, task)? {
            return Ok(faults);
        }
        // The check ends at the first row that it cannot read, and after `lines` lines. It has
        // walked all b-trees before that, but not compared all tables with their indexes.
        for table in &self.tables {
            if faults.spare(table) && !self.check_one(table, &mut faults, task)? {
                faults.objects.insert(table.entry);
            }
        }
        Ok(faults)
    }

    /// Runs a check and collects its faults. Returns whether the check was complete: it had no
    /// error and less than `most` lines.
    fn lines(
        &self,
        pragma: &str,
        most: u64,
        faults: &mut Faults,
        task: &dyn Progress,
    ) -> Result<bool> {
        let (mut ended, mut count) = (true, 0);
        let run = watched(&self.connection, &self.limits, task, || {
            let mut statement = self.connection.sql()?.prepare(pragma)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let text: String = row.get(0)?;
                for line in text.lines() {
                    count += 1;
                    ended &= self.line(line, faults);
                }
            }
            Ok(())
        });
        match run {
            Ok(()) => Ok(ended && count < most),
            Err(error) if is_of_the_file(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Collects the fault of one line of the check. Returns `false` for a line that is not the
    /// check's own: after an error, the check's last line is the error's message.
    fn line(&self, line: &str, faults: &mut Faults) -> bool {
        // Unreferenced pages and the freelist belong to no b-tree. An index that is declared as a
        // table may hold NULL in its key.
        let others = ["***", "Page ", "Freelist: ", "Main freelist: ", "NULL value in "];
        if line == "ok" || others.iter().any(|start| line.starts_with(start)) {
            return true;
        }
        if let Some(rest) = line.strip_prefix("Tree ") {
            let mut words = rest.split([' ', ':']);
            let root = words.next().and_then(|word| word.parse::<u32>().ok());
            let page = words.skip_while(|word| *word != "page").nth(1);
            faults.pages.extend(page.and_then(|word| word.parse::<u32>().ok()));
            let shared = line.split_once("2nd reference to page ").map(|(_, page)| page);
            faults.shared.extend(shared.and_then(|page| page.parse::<u32>().ok()));
            for table in &self.tables {
                if Some(table.root) == root {
                    faults.objects.insert(table.entry);
                }
                let of = table.indexes.iter().filter(|index| Some(index.root) == root);
                faults.objects.extend(of.map(|index| index.entry));
            }
            return true;
        }
        // Without the application's collation, SQLite's report of a wrong order means nothing.
        let disorder = line.starts_with("row not in PRIMARY KEY order");
        let mut is_of_an_object = false;
        for word in line.split([' ', '.', ':']) {
            let Some(place) = place_of(word) else { continue };
            is_of_an_object = true;
            let is_known = self.tables.iter().all(|table| {
                (table.entry != place || table.order_is_known())
                    && table
                        .indexes
                        .iter()
                        .all(|index| index.entry != place || index.order_is_known())
            });
            if is_known || !disorder {
                faults.objects.insert(place);
            }
        }
        is_of_an_object
    }

    /// Whether SQLite can read every field of the table, and of those of its indexes that the check
    /// does not compare with the table. The check itself reads only the serial types of a record.
    ///
    /// # Errors
    /// SQLite's, but for damage; `task`'s.
    pub(super) fn reads(&self, table: &NeutralTable, task: &dyn Progress) -> Result<bool> {
        let name = format!("t{}", table.entry);
        let of = |index: &NeutralIndex| {
            let own = format!("i{}", index.entry);
            index.as_index(&own, &name).is_none().then_some(own)
        };
        let names = std::iter::once(name.clone()).chain(table.indexes.iter().filter_map(of));
        for name in names {
            let read = watched(&self.connection, &self.limits, task, || {
                let select = format!("SELECT * FROM {ORIGINAL}.{name} NOT INDEXED");
                let mut select = self.connection.sql()?.prepare(&select)?;
                let mut rows = select.query([])?;
                while rows.next()?.is_some() {}
                Ok(())
            });
            match read {
                Ok(()) => {}
                Err(error) if is_of_the_file(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The pages of the b-tree of the object at `place` in the schema, as SQLite's `dbstat` reports
    /// them.
    ///
    /// # Errors
    /// SQLite's, where it cannot walk the b-tree.
    pub(super) fn pages_of(&self, place: usize, task: &dyn Progress) -> Result<TreePages> {
        watched(&self.connection, &self.limits, task, || {
            let mut statement = self.connection.sql()?.prepare(
                "SELECT pageno, pagetype FROM dbstat(?1) WHERE name IN (?2, ?3) ORDER BY path",
            )?;
            let mut rows = statement.query((ORIGINAL, format!("t{place}"), format!("i{place}")))?;
            let mut pages = TreePages::default();
            while let Some(row) = rows.next()? {
                let list = match row.get_ref(1)?.as_str() {
                    Ok("leaf") => &mut pages.leaves,
                    Ok("internal") => &mut pages.interior,
                    _ => &mut pages.overflow,
                };
                list.push(row.get(0)?);
            }
            Ok(pages)
        })
    }

    /// An image of the same pages for the connection `to`, which copies tables from it. Every
    /// b-tree is declared as a table.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn carried<'p>(
        pages: &'p dyn PageImage,
        format: Format,
        tables: &[NeutralTable],
        to: &Connection,
    ) -> Result<Image<'p>> {
        let making = connection(format)?;
        let image = image(&making, pages, format, tables, Indexes::Carried)?;
        image.attach(to, ORIGINAL)?;
        Ok(image)
    }
}

/// The pages of a b-tree.
#[derive(Debug, Default)]
pub(super) struct TreePages {
    /// In the b-tree's order.
    pub(super) leaves: Vec<u32>,
    pub(super) interior: Vec<u32>,
    pub(super) overflow: Vec<u32>,
}

impl TreePages {
    /// All of them.
    fn all(&self) -> impl Iterator<Item = u32> {
        self.leaves.iter().chain(&self.interior).chain(&self.overflow).copied()
    }
}

/// Whether an error reports damage of the file, or a page that cannot be read.
pub(super) fn is_of_the_file(error: &Error) -> bool {
    matches!(error.class(), Class::Corrupt | Class::Index)
        || error.errcode & 0xff == ffi::SQLITE_IOERR
}

/// The place in the schema of the image's object `name`.
fn place_of(name: &str) -> Option<usize> {
    name.strip_prefix(['t', 'i'])?.parse().ok()
}

/// A connection to a database in memory, to which an image can be attached.
fn connection(format: Format) -> Result<Connection> {
    let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open(Path::new(":memory:"), flags, Duration::ZERO)?;
    neutral::allow_any_schema(&connection);
    neutral::keep_order(&connection)?;
    connection.sql()?.execute_batch(&format!(
        "PRAGMA encoding = '{}'; PRAGMA temp_store = MEMORY",
        format.encoding.name()
    ))?;
    Ok(connection)
}

/// An image of `pages` with a schema of `tables`, attached to `connection`.
fn image<'p>(
    connection: &Connection,
    pages: &'p dyn PageImage,
    format: Format,
    tables: &[NeutralTable],
    indexes: Indexes,
) -> Result<Image<'p>> {
    let image = Image::new(pages)?;
    image.write(1, &first_page(format, pages.pages()));
    image.attach(connection, ORIGINAL)?;
    let sql = connection.sql()?;
    sql.execute_batch(&format!(
        "PRAGMA {ORIGINAL}.journal_mode = OFF;
         PRAGMA {ORIGINAL}.cache_size = -{CACHE};
         PRAGMA writable_schema = ON;
         BEGIN"
    ))?;
    let mut insert = sql.prepare(&format!(
        "INSERT INTO {ORIGINAL}.sqlite_schema(type, name, tbl_name, rootpage, sql)
         VALUES (?1, ?2, ?3, ?4, ?5)"
    ))?;
    for table in tables {
        let name = format!("t{}", table.entry);
        insert.execute(("table", &name, &name, table.root, table.declaration(&name)))?;
        for index in &table.indexes {
            let own = format!("i{}", index.entry);
            match index.as_index(&own, &name).filter(|_| indexes == Indexes::Compared) {
                Some(text) => insert.execute(("index", &own, &name, index.root, text))?,
                None => insert.execute(("table", &own, &own, index.root, index.as_table(&own)))?,
            };
        }
    }
    drop(insert);
    sql.execute_batch("COMMIT; PRAGMA writable_schema = RESET")?;
    Ok(image)
}

/// The first page of a database with `pages` pages and an empty schema
/// (<https://sqlite.org/fileformat2.html#the_database_header>).
fn first_page(format: Format, pages: u32) -> Vec<u8> {
    let mut page = vec![0; format.page_size as usize];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(to) = page.get_mut(at..at + bytes.len()) {
            to.copy_from_slice(bytes);
        }
    };
    put(0, b"SQLite format 3\0");
    // 1 stands for 65536.
    let size = u16::try_from(format.page_size).unwrap_or(1);
    put(16, &size.to_be_bytes());
    put(18, &[1, 1, format.reserved, 64, 32, 32]);
    let one = 1_u32.to_be_bytes();
    put(24, &one);
    put(28, &pages.to_be_bytes());
    put(40, &one);
    put(44, &format.schema_format.to_be_bytes());
    put(56, &u32::from(format.encoding.number()).to_be_bytes());
    put(92, &one);
    put(96, &3_054_001_u32.to_be_bytes());
    let usable = format.page_size - u32::from(format.reserved);
    // 0 stands for 65536.
    let content = u16::try_from(usable).unwrap_or(0);
    put(100, &[13, 0, 0, 0, 0]);
    put(105, &content.to_be_bytes());
    page
}
