//! Restores virtual tables. Their schema entries are written without running their modules, because
//! the salvaged shadow tables exist already. A missing shadow table is created empty. Afterwards
//! each index that can be derived from content is rebuilt if necessary.
//!
//! | module | index |
//! |---|---|
//! | `fts5`, `fts4`, `fts3` | kept if sound and complete, else rebuilt from its content |
//! | … without content (`content=''`) | kept if sound |
//! | `rtree`, `rtree_i32` | checked, else created again from the certain entries |
//! | `geopoly` | checked, else created again from its shapes |
//! | others | kept as salvaged |
//!
//! A full-text index is complete if no row of its shadow tables and of its content was lost. The
//! content is the table's own or another table. If the rebuild fails, it is repeated with new
//! shadow tables for the derived data.
//!
//! An index of external content may leave rows out on purpose. It is then rebuilt from the rows
//! that it held. If the list of those rows is damaged, the report says so.
//!
//! A virtual table whose index is damaged and cannot be derived is emptied: the rows of its shadow
//! tables go to `lost_and_found`.
//!
//! A virtual table that still cannot be opened (its tokenizer is unknown, its statement damaged) is
//! left out of the schema: every check of the file would fail because of it, and no statement could
//! use it. Its shadow tables stay as ordinary tables, and the reported error has its statement. A
//! virtual table with an unknown *module* stays: checks ignore it, and the application may have the
//! module.

use std::iter;
use std::path::Path;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::carried::Carried;
use super::limits::Limits;
use super::lost_and_found::{LostAndFound, LostRow};
use super::module::{Kind, Module};
use super::rtree::{self, RTree};
use super::schema;
use super::shadow::{self, Shadow};
use super::statement::{Encoding, Statement, quoted};
use super::transaction::{atomically, in_savepoint};
use super::watch::watched;
use crate::engine::{Class, Connection, Error, Progress, Result, Stage};
use crate::format::Value;
use crate::format::sql::{self, Makes};
use crate::health::{Content, FullText};
use crate::recovery::salvage::{SchemaEntry, TableSalvage};

/// The reason in `lost_and_found` for a row of a shadow table.
const EMPTIED: &str = "the virtual table was damaged and is emptied";

/// The virtual tables of `schema`.
fn among(schema: &[SchemaEntry]) -> impl Iterator<Item = &SchemaEntry> {
    schema.iter().filter(|entry| {
        entry.kind == "table"
            && entry.sql.as_deref().and_then(sql::makes) == Some(Makes::VirtualTable)
    })
}

/// A virtual table of the new file.
#[derive(Debug)]
pub(super) struct PutBack<'s> {
    entry: &'s SchemaEntry,
    /// A shadow table with primary (non-derivable) data was lost.
    lost_data: bool,
}

/// Writes the virtual tables into the schema, creates their missing shadow tables, and returns the
/// virtual tables. Adds a text to `errors` for each one that cannot be restored. Only connections
/// that are opened afterwards see the virtual tables.
///
/// # Errors
/// Those of writing the file.
pub(super) fn put_back<'s>(
    connection: &Connection,
    schema: &'s [SchemaEntry],
    errors: &mut Vec<String>,
) -> Result<Vec<PutBack<'s>>> {
    let mut put_back = Vec::new();
    for entry in among(schema) {
        if let Err(error) = is_readable(entry) {
            errors.push(format!("table {}: {}", entry.name, error.message));
            continue;
        }
        let sql = connection.sql()?;
        let taken: bool = sql.query_row(
            "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema
                             WHERE name = ?1 COLLATE NOCASE AND type IN ('table', 'index', 'view'))",
            [&entry.name],
            |row| row.get(0),
        )?;
        if taken {
            errors.push(format!("table {}: there is one of that name", entry.name));
            continue;
        }
        let lost_data = make_missing(connection, schema, entry, errors)?;
        schema::writable(connection, || {
            sql.execute(
                "INSERT INTO main.sqlite_schema(type, name, tbl_name, rootpage, sql)
                 VALUES ('table', ?1, ?1, 0, ?2)",
                [Some(&entry.name), entry.sql.as_ref()],
            )?;
            Ok(())
        })?;
        put_back.push(PutBack { entry, lost_data });
    }
    Ok(put_back)
}

/// Creates the missing shadow tables of a virtual table. Returns whether one of them held primary
/// (non-derivable) data.
fn make_missing(
    connection: &Connection,
    schema: &[SchemaEntry],
    entry: &SchemaEntry,
    errors: &mut Vec<String>,
) -> Result<bool> {
    let sql = connection.sql()?;
    let mut lost_data = false;
    // If the module cannot create the virtual table, a later check of the table reports it.
    for shadow in shadow::all(schema, entry, page_size(connection)?).unwrap_or_default() {
        let there: bool = sql.query_row(
            "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE name = ?1 COLLATE NOCASE)",
            [&shadow.name],
            |row| row.get(0),
        )?;
        if there {
            continue;
        }
        match in_savepoint(connection, || shadow.make(connection)) {
            Ok(()) if Module::of(entry).derives(shadow.suffix(&entry.name)) => {}
            Ok(()) => {
                lost_data = true;
                errors.push(format!(
                    "table {}: its own table {} was lost, and is now empty",
                    entry.name, shadow.name
                ));
            }
            Err(error) if schema::is_of_statement(&error) => {
                errors.push(format!("table {}: {}", shadow.name, error.message));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(lost_data)
}

fn page_size(connection: &Connection) -> Result<u32> {
    Ok(connection.sql()?.query_row("PRAGMA page_size", [], |row| row.get(0))?)
}

/// Checks that SQLite can parse the entry as a statement that creates this table. An entry that it
/// cannot parse would make the whole file unreadable.
fn is_readable(entry: &SchemaEntry) -> Result<()> {
    let scratch = Connection::open(Path::new(":memory:"), OpenFlags::default(), Duration::ZERO)?;
    let sql = scratch.sql()?;
    schema::writable(&scratch, || {
        sql.execute(
            "INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql)
             VALUES ('table', ?1, ?1, 0, ?2)",
            [Some(&entry.name), entry.sql.as_ref()],
        )?;
        Ok(())
    })?;
    let found: i64 = sql.query_row(
        "SELECT count(*) FROM pragma_table_list
          WHERE schema = 'main' AND type = 'virtual' AND name = ?1",
        [&entry.name],
        |row| row.get(0),
    )?;
    if found == 1 {
        Ok(())
    } else {
        Err(Error::sqlite(ffi::SQLITE_ERROR, "the statement is another's"))
    }
}

/// The result of [`derive`](fn@derive).
#[derive(Debug, Default)]
pub(super) struct Derived {
    pub(super) rebuilt: Vec<String>,
    pub(super) errors: Vec<String>,
}

/// Rebuilds the indexes that can be derived from content, and checks the others. The connection was
/// opened after that of [`put_back`] was closed.
///
/// # Errors
/// Those of writing the file; `task`'s.
#[expect(clippy::too_many_arguments, reason = "each is a part of the target")]
pub(super) fn derive(
    connection: &Connection,
    encoding: Encoding,
    schema: &[SchemaEntry],
    tables: &[PutBack<'_>],
    carried: &Carried,
    report: &[TableSalvage],
    lost: &mut LostAndFound,
    limits: &Limits,
    task: &dyn Progress,
) -> Result<Derived> {
    let page_size = page_size(connection)?;
    let derived = Derived::default();
    let mut deriving =
        Deriving { connection, encoding, schema, report, page_size, lost, limits, task, derived };
    let total = tables.len() as u64;
    for (done, table) in (0..).zip(tables) {
        task.stage(Stage { name: "full-text", done, total });
        // A virtual table that SQLite copied whole is kept, even if its module is unknown here.
        if !is_carried(schema, table.entry, carried) || deriving.is_damaged(table.entry)? {
            deriving.table(table)?;
        }
    }
    task.stage(Stage { name: "full-text", done: total, total });
    Ok(deriving.derived)
}

/// Whether SQLite copied all shadow tables of a virtual table, and the content of its index.
fn is_carried(schema: &[SchemaEntry], entry: &SchemaEntry, carried: &Carried) -> bool {
    let mut own = schema
        .iter()
        .filter(|it| it.kind == "table" && it.root != 0 && shadow::is_named_after(entry, &it.name))
        .peekable();
    let index = FullText::of(&entry.name, entry.sql.as_deref().unwrap_or_default());
    let content_is_carried = match index.as_ref().map(FullText::content) {
        Some(Content::External(content)) => carried.has(content),
        Some(Content::Own | Content::None) | None => true,
    };
    own.peek().is_some() && own.all(|it| carried.has(&it.name)) && content_is_carried
}

/// The derived shadow tables of a full-text table that are replaced before a rebuild.
#[derive(Debug, Clone, Copy)]
enum Replaced {
    /// Those that are not as the module creates them.
    Different,
    /// All except the settings.
    Index,
    All,
}

struct Deriving<'a> {
    connection: &'a Connection,
    encoding: Encoding,
    schema: &'a [SchemaEntry],
    /// The reports of the tables with rows.
    report: &'a [TableSalvage],
    page_size: u32,
    lost: &'a mut LostAndFound,
    limits: &'a Limits,
    task: &'a dyn Progress,
    derived: Derived,
}

impl Deriving<'_> {
    fn table(&mut self, &PutBack { entry, lost_data }: &PutBack<'_>) -> Result<()> {
        let (connection, name) = (self.connection, &entry.name);
        let (limits, task) = (self.limits, self.task);
        let module = Module::of(entry);
        let done = watched(connection, limits, task, || self.look_after(entry, lost_data));
        let reason = match done {
            Err(error) if is_of_table(&error) => error.message,
            done => return done,
        };
        // If the rebuild failed, the salvaged index may still be sound.
        let derives = matches!(module, Module::FullText { content: true, .. });
        let is_sound = || watched(connection, limits, task, || check_full_text(connection, entry));
        let outcome = if derives && is_ok(is_sound())? {
            reason
        } else if module != Module::Other
            && is_ok(watched(connection, limits, task, || self.empty(entry)))?
        {
            format!("its index was damaged, and is empty now ({reason})")
        } else {
            self.leave_out(entry)?;
            let statement = entry.sql.as_deref().unwrap_or_default();
            format!("{reason}; it is left out, its own tables are ordinary ones: {statement}")
        };
        self.derived.errors.push(format!("table {name}: {outcome}"));
        Ok(())
    }

    /// Rebuilds or checks a virtual table, by its module.
    fn look_after(&mut self, entry: &SchemaEntry, lost_data: bool) -> Result<()> {
        match Module::of(entry) {
            Module::FullText { content: true, five } => self.rebuild(entry, five),
            Module::RTree { kind } => self.tree(entry, kind),
            // Its shadow tables reference each other, which no check verifies.
            Module::FullText { content: false, .. } if lost_data => {
                Err(Error::sqlite(ffi::SQLITE_CORRUPT_VTAB, "it is no longer complete"))
            }
            Module::FullText { content: false, .. } | Module::Other => {
                check(self.connection, &entry.name)
            }
        }
    }

    /// Whether the module reports damage, or cannot use the shadow tables. If the module, or
    /// something that the statement needs, is unknown here, no virtual table can be created by that
    /// statement, and the answer is `false`.
    fn is_damaged(&self, entry: &SchemaEntry) -> Result<bool> {
        let check = || check_full_text(self.connection, entry);
        match watched(self.connection, self.limits, self.task, check) {
            Ok(()) => Ok(false),
            Err(error) if matches!(error.class(), Class::Corrupt | Class::Index) => Ok(true),
            Err(error) if is_of_table(&error) => {
                Ok(shadow::all(self.schema, entry, self.page_size).is_ok())
            }
            Err(error) => Err(error),
        }
    }

    /// The report of a table; `None` if it has none.
    fn salvaged(&self, table: &str) -> Option<&TableSalvage> {
        self.report.iter().find(|it| it.name.eq_ignore_ascii_case(table))
    }

    fn is_whole(&self, table: &str) -> bool {
        self.salvaged(table).is_some_and(TableSalvage::is_whole)
    }

    /// Whether a full-text table's shadow tables and its content are complete, and its index is
    /// sound. Then it needs no rebuild.
    fn is_to_be_kept(&self, index: &FullText, shadows: &[Shadow]) -> Result<bool> {
        let is_whole = !shadows.is_empty()
            && shadows.iter().all(|shadow| self.is_whole(&shadow.name))
            && match index.content() {
                Content::Own => true,
                // A view has no report: the tables that it selects from may have lost rows.
                Content::External(content) => self.is_whole(content),
                Content::None => false,
            };
        if !is_whole {
            return Ok(false);
        }
        match index.is_sound(self.connection) {
            Ok(is_sound) => Ok(is_sound),
            Err(error) if is_of_table(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lists the rows that an index of external content holds, in a temporary table. Returns
    /// whether the index leaves rows out. Rows in the gaps of a damaged list count as held.
    fn leaves_rows_out(&self, index: &FullText, name: &str) -> Result<bool> {
        let (Content::External(content), Some(list)) = (index.content(), index.list_of_held())
        else {
            return Ok(false);
        };
        let (content, rowid) = (quoted(content), index.rowid());
        let sizes = self.salvaged(&format!("{name}_docsize"));
        let sql = self.connection.sql()?;
        let listed = sql.execute_batch(&list).and_then(|()| {
            for (first, last) in sizes.map_or(&[][..], |sizes| &sizes.gaps) {
                sql.execute(
                    &format!(
                        "INSERT INTO temp.fusion_sqlite_held
                         SELECT {rowid} FROM main.{content} WHERE {rowid} BETWEEN ?1 AND ?2"
                    ),
                    [first, last],
                )?;
            }
            sql.query_row(
                &format!(
                    "SELECT EXISTS (SELECT 1 FROM temp.fusion_sqlite_held) AND EXISTS (
                       SELECT 1 FROM main.{content}
                        WHERE {rowid} NOT IN (SELECT id FROM temp.fusion_sqlite_held))"
                ),
                [],
                |row| row.get(0),
            )
        });
        match listed.map_err(Error::from) {
            Err(error) if schema::is_of_statement(&error) => Ok(false),
            listed => listed,
        }
    }

    /// Rebuilds a full-text index, unless it is to be kept. An index that leaves rows out is
    /// rebuilt from the rows that it held.
    fn rebuild(&mut self, entry: &SchemaEntry, five: bool) -> Result<()> {
        let name = quoted(&entry.name);
        // Empty if the module refuses the statement; the rebuild then reports that.
        let shadows = shadow::all(self.schema, entry, self.page_size).unwrap_or_default();
        let mut rebuild = format!("INSERT INTO main.{name}({name}) VALUES ('rebuild')");
        let index = FullText::of(&entry.name, entry.sql.as_deref().unwrap_or_default());
        if let Some(index) = index {
            if self.is_to_be_kept(&index, &shadows)? {
                return Ok(());
            }
            if self.leaves_rows_out(&index, &entry.name)?
                && let Some(of_held) = index.rebuild_of_held(self.connection)?
            {
                rebuild = of_held;
                if !self.is_whole(&format!("{}_docsize", entry.name)) {
                    self.derived.errors.push(format!(
                        "table {}: it left out rows of its content, and is no longer known to \
                         have left out all that it does",
                        entry.name
                    ));
                }
            }
        }
        let done = self.rebuild_by(entry, five, &shadows, rebuild);
        let dropped = "DROP TABLE IF EXISTS temp.fusion_sqlite_held";
        done.and(Ok(self.connection.sql()?.execute_batch(dropped)?))
    }

    /// Runs the statements that rebuild a full-text index. The first attempt keeps the shadow
    /// tables that are as the module creates them (a rebuild may accept a table that a query does
    /// not). If it fails, the derived shadow tables are replaced; if that fails, the settings, too.
    fn rebuild_by(
        &mut self,
        entry: &SchemaEntry,
        five: bool,
        shadows: &[Shadow],
        mut rebuild: String,
    ) -> Result<()> {
        let (connection, module) = (self.connection, Module::of(entry));
        if five {
            // FTS5 opens no table without the format version of its index, not even for a rebuild.
            // The rebuilt index has the version that is written here.
            let config = quoted(&format!("{}_config", entry.name));
            rebuild = format!(
                "INSERT OR REPLACE INTO main.{config}(k, v) VALUES ('version', 4); {rebuild}"
            );
        }
        let sql = connection.sql()?;
        // If the statement of a content table is damaged, the module's is the right one. If the
        // rows do not fit it, the check detects that; a rebuild does not.
        let mut odd = Vec::new();
        for shadow in shadows.iter().filter(|it| !module.derives(it.suffix(&entry.name))) {
            if shadow.differs(connection)? {
                odd.push(shadow);
            }
        }
        let mut done = Ok(());
        for tables in [Replaced::Different, Replaced::Index, Replaced::All] {
            let mut replaced = Vec::new();
            for shadow in shadows {
                let suffix = shadow.suffix(&entry.name);
                let holds_settings = suffix.eq_ignore_ascii_case("config");
                let wanted = match tables {
                    Replaced::Different => !holds_settings && shadow.differs(connection)?,
                    Replaced::Index => !holds_settings,
                    Replaced::All => true,
                };
                replaced.extend((wanted && module.derives(suffix)).then_some(shadow));
            }
            disconnect(connection)?;
            let outcome = atomically(connection, || {
                replaced.iter().try_for_each(|shadow| shadow.remake(connection))?;
                odd.iter().try_for_each(|shadow| shadow.declare(connection))?;
                sql.execute_batch(&rebuild)?;
                if odd.is_empty() { Ok(()) } else { check(connection, &entry.name) }
            });
            match outcome {
                Ok(()) => {
                    done = Ok(());
                    break;
                }
                // The first error has the cause.
                Err(error) if is_of_table(&error) => done = done.and(Err(error)),
                Err(error) => return Err(error),
            }
        }
        done?;
        self.derived.rebuilt.push(entry.name.clone());
        Ok(())
    }

    /// Checks an R-Tree, and creates it again if it is damaged.
    fn tree(&mut self, entry: &SchemaEntry, kind: Kind) -> Result<()> {
        let (connection, encoding, name) = (self.connection, self.encoding, &entry.name);
        let damage = match rtree::check(connection, name) {
            Ok(None) => return Ok(()),
            Ok(Some(damage)) => damage,
            Err(error) if is_of_table(&error) => error.message,
            Err(error) => return Err(error),
        };
        let root = self.root(&format!("{name}_rowid"));
        let uncertain = self.lost.in_transaction(connection, |lost| {
            let mut tree = RTree { connection, encoding, name, kind, lost, root };
            let uncertain = tree.rebuild()?;
            check(connection, name)?;
            Ok(uncertain)
        })?;
        self.derived.rebuilt.push(name.clone());
        self.derived.errors.push(format!(
            "table {name}: its nodes were damaged ({damage}); {uncertain} of its entries have lost \
             their coordinates"
        ));
        Ok(())
    }

    /// Empties a virtual table's shadow tables, except those with its content. Without content, the
    /// rows of all shadow tables go to `lost_and_found`. If the table is not sound afterwards, the
    /// change is rolled back.
    fn empty(&mut self, entry: &SchemaEntry) -> Result<()> {
        let (connection, encoding, module) = (self.connection, self.encoding, Module::of(entry));
        let has_content = matches!(module, Module::FullText { content: true, .. });
        let mut shadows = shadow::all(self.schema, entry, self.page_size)?;
        shadows.retain(|it| !has_content || module.derives(it.suffix(&entry.name)));
        let roots: Vec<u32> = shadows.iter().map(|shadow| self.root(&shadow.name)).collect();
        disconnect(connection)?;
        self.lost.in_transaction(connection, |lost| {
            for (shadow, root) in shadows.iter().zip(roots) {
                if !has_content {
                    move_rows(connection, encoding, &shadow.name, root, lost)?;
                }
                shadow.remake(connection)?;
            }
            check(connection, &entry.name)
        })
    }

    fn leave_out(&self, entry: &SchemaEntry) -> Result<()> {
        let sql = self.connection.sql()?;
        schema::writable(self.connection, || {
            sql.execute(
                "DELETE FROM main.sqlite_schema
                  WHERE type = 'table' AND name = ?1 AND rootpage = 0",
                [&entry.name],
            )?;
            Ok(())
        })
    }

    /// The root of a table in the damaged file.
    fn root(&self, table: &str) -> u32 {
        let named = |it: &&SchemaEntry| it.kind == "table" && it.name.eq_ignore_ascii_case(table);
        self.schema.iter().find(named).map_or(0, |entry| entry.root)
    }
}

/// SQLite's integrity check of one virtual table.
///
/// # Errors
/// `SQLITE_CORRUPT_VTAB` with the check's report; SQLite's.
fn check(connection: &Connection, table: &str) -> Result<()> {
    let pragma = format!("PRAGMA main.integrity_check('{}')", table.replace('\'', "''"));
    let verdict: String = connection.sql()?.query_row(&pragma, [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(Error::sqlite(ffi::SQLITE_CORRUPT_VTAB, verdict)) }
}

/// [`check`] of a full-text table, which may leave rows out.
fn check_full_text(connection: &Connection, entry: &SchemaEntry) -> Result<()> {
    let index = FullText::of(&entry.name, entry.sql.as_deref().unwrap_or_default());
    match index.map(|index| index.is_sound(connection)) {
        Some(Ok(true)) => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(false)) | None => check(connection, &entry.name),
    }
}

/// Whether `outcome` is a success. An error of the one virtual table is `false`; others are
/// returned.
fn is_ok(outcome: Result<()>) -> Result<bool> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if is_of_table(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an error concerns one virtual table only. That includes `SQLITE_NOMEM`: a module that
/// reads a damaged length requests more memory than SQLite ever allocates.
fn is_of_table(error: &Error) -> bool {
    schema::is_of_statement(error) || error.errcode & 0xff == ffi::SQLITE_NOMEM
}

/// Disconnects the modules from their tables. A connected module keeps shadow tables open, which
/// then cannot be dropped.
fn disconnect(connection: &Connection) -> Result<()> {
    schema::writable(connection, || Ok(()))
}

/// Copies a table's rows to `lost_and_found`, as their records are stored.
fn move_rows(
    connection: &Connection,
    encoding: Encoding,
    table: &str,
    root: u32,
    lost: &mut LostAndFound,
) -> Result<()> {
    let sql = connection.sql()?;
    let mut columns = sql.prepare(
        "SELECT i.name, l.wr, i.pk = 1 AND i.type = 'INTEGER' COLLATE NOCASE
                AND (SELECT max(pk) FROM pragma_table_info(l.name)) = 1
           FROM pragma_table_list AS l JOIN pragma_table_info(l.name) AS i
          WHERE l.schema = 'main' AND l.name = ?1 COLLATE NOCASE ORDER BY i.cid",
    )?;
    let columns = columns.query_map([table], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, bool>(1)?, row.get::<_, bool>(2)?))
    })?;
    let columns: Vec<(String, bool, bool)> = columns.collect::<std::result::Result<_, _>>()?;
    let Some(&(_, without_rowid, _)) = columns.first() else {
        return Ok(());
    };
    let fields = columns.iter().map(|(name, _, alias)| {
        // The stored record has NULL for the rowid alias.
        if *alias && !without_rowid { "NULL".to_owned() } else { quoted(name) }
    });
    let rowid = if without_rowid { "NULL" } else { "rowid" };
    let select = iter::once(rowid.to_owned()).chain(fields).collect::<Vec<_>>().join(", ");
    let select = format!("SELECT {select} FROM main.{}", quoted(table));
    Statement::prepare(connection, encoding, &select)?.each(iter::empty(), |row| {
        let rowid = match row.value(0) {
            Value::Integer(rowid) => Some(rowid),
            _ => None,
        };
        let fields: Vec<Value<'_>> = (1..=columns.len()).map(|at| row.value(at)).collect();
        lost.add(
            connection,
            encoding,
            LostRow { root, page: 0, rowid, fields: &fields, reason: EMPTIED },
        )?;
        Ok(true)
    })
}
