//! Neutral declarations: a table as its records are, without what only its application knows.
//!
//! A record depends on the places of its columns, not on their names, types, functions or
//! collations. A neutral declaration has the stored columns in the order of the record. It keeps
//! an INTEGER PRIMARY KEY, the key of a WITHOUT ROWID table and the values that SQLite reads where
//! a record is shorter than its table (`ALTER TABLE ADD COLUMN`). It has no type names, generated
//! expressions, constraints, and no application's collation: those have [`KEPT_ORDER`], under
//! which entries stay in the order in which they come.
//!
//! The b-tree of an index has the form of a WITHOUT ROWID table's
//! (<https://sqlite.org/fileformat2.html#representation_of_sql_indices>), so that one declares it,
//! too, whatever computes its entries.
//!
//! What the columns are is asked of SQLite, by the object's own statement in a database in memory.
//!
//! Thread: whichever calls. May call: the engine.

use std::ffi::{c_int, c_void};
use std::path::Path;
use std::ptr;
use std::time::Duration;

use rusqlite::{OpenFlags, ffi};

use super::rebuild::quoted;
use super::salvage::SchemaEntry;
use super::salvage::target::{Affinity, Encoding, Statement};
use crate::engine::stub_functions::{self, StubResult};
use crate::engine::{Connection, Error, Result};
use crate::format::Value;
use crate::format::sql::{self, Makes};

/// The name of the collation under which entries keep the order in which they come.
pub(super) const KEPT_ORDER: &std::ffi::CStr = c"fusion_kept_order";

/// Collations that SQLite has.
const BUILT_IN: [&str; 3] = ["BINARY", "NOCASE", "RTRIM"];

/// A table of a schema, neutrally declared.
#[derive(Debug, Clone)]
pub(super) struct NeutralTable {
    /// Its place in the schema.
    pub(super) entry: usize,
    /// The table.
    pub(super) name: String,
    /// Its root page.
    pub(super) root: u32,
    /// Its stored columns, in the order of its records.
    pub(super) columns: Vec<NeutralColumn>,
    /// The key of a WITHOUT ROWID table: of its first columns.
    pub(super) key: Option<Vec<Sorted>>,
    /// The place of the INTEGER PRIMARY KEY among the columns.
    pub(super) alias: Option<usize>,
    /// Its indexes.
    pub(super) indexes: Vec<NeutralIndex>,
    /// All of its indexes and defaults are declared: else SQLite reads it, and nothing can say that
    /// it is sound.
    pub(super) whole: bool,
}

/// A stored column.
#[derive(Debug, Clone)]
pub(super) struct NeutralColumn {
    /// The affinity that its own declaration gives it.
    pub(super) affinity: Affinity,
    /// What SQLite reads where a record has no such field; none: NULL.
    pub(super) default: Option<Default>,
}

/// What SQLite reads where a record has no such field.
#[derive(Debug, Clone)]
pub(super) struct Default {
    /// As SQL.
    sql: String,
    /// As [`image_of`] has it.
    pub(super) image: Vec<u8>,
}

/// What a part of a key is sorted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sorted {
    collation: String,
    descending: bool,
}

/// An index of a table.
#[derive(Debug, Clone)]
pub(super) struct NeutralIndex {
    /// Its place in the schema.
    pub(super) entry: usize,
    /// Its root page.
    pub(super) root: u32,
    /// What its entries are sorted by, one for each field.
    fields: Vec<Sorted>,
    /// The columns that it is of, by place, where it is of nothing but columns and has every row.
    columns: Option<Vec<(usize, Sorted)>>,
    unique: bool,
}

impl Sorted {
    fn sql(&self) -> String {
        self.directed(false)
    }

    /// As SQL, or the opposite of it. The order in which entries come has one direction only.
    fn directed(&self, opposite: bool) -> String {
        let (collation, descending) = if self.is_known() {
            (quoted(&self.collation), self.descending)
        } else {
            (kept_order().to_owned(), false)
        };
        format!(" COLLATE {collation}{}", if descending == opposite { "" } else { " DESC" })
    }

    /// Whether SQLite has the collation.
    fn is_known(&self) -> bool {
        BUILT_IN.iter().any(|name| self.collation.eq_ignore_ascii_case(name))
    }
}

fn kept_order() -> &'static str {
    KEPT_ORDER.to_str().unwrap_or_default()
}

impl NeutralTable {
    /// The places in the schema of the table and of its indexes.
    pub(super) fn entries(&self) -> impl Iterator<Item = usize> {
        std::iter::once(self.entry).chain(self.indexes.iter().map(|index| index.entry))
    }

    /// Whether the table, or one of its indexes, is at a place in the schema.
    pub(super) fn has(&self, place: usize) -> bool {
        self.entries().any(|entry| entry == place)
    }

    /// Its columns' names.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        (0..self.columns.len()).map(|column| format!("c{column}"))
    }

    /// Whether its rows have rowids.
    pub(super) fn has_rowid(&self) -> bool {
        self.key.is_none()
    }

    /// The statement that declares it as `name`, an SQL identifier.
    pub(super) fn declaration(&self, name: &str) -> String {
        let mut parts: Vec<String> = self
            .names()
            .zip(&self.columns)
            .enumerate()
            .map(|(place, (name, column))| {
                if self.alias == Some(place) {
                    return format!("{name} INTEGER PRIMARY KEY");
                }
                match &column.default {
                    Some(default) => format!("{name} DEFAULT {}", default.sql),
                    None => name,
                }
            })
            .collect();
        let Some(key) = &self.key else {
            return format!("CREATE TABLE {name}({})", parts.join(", "));
        };
        parts.push(primary_key(key));
        format!("CREATE TABLE {name}({}) WITHOUT ROWID", parts.join(", "))
    }

    /// The order of its key, or the opposite of it, as SQL.
    pub(super) fn order(&self, opposite: bool) -> String {
        let parts = self.key.iter().flatten().enumerate();
        let parts: Vec<String> =
            parts.map(|(column, it)| format!("c{column}{}", it.directed(opposite))).collect();
        parts.join(", ")
    }

    /// Whether SQLite knows the order of its rows.
    pub(super) fn order_is_known(&self) -> bool {
        self.key.iter().flatten().all(Sorted::is_known)
    }
}

impl NeutralIndex {
    /// The statement that declares its b-tree as the table `name`, an SQL identifier.
    pub(super) fn as_table(&self, name: &str) -> String {
        let mut parts: Vec<String> = (0..self.fields.len()).map(|at| format!("c{at}")).collect();
        parts.push(primary_key(&self.fields));
        format!("CREATE TABLE {name}({}) WITHOUT ROWID", parts.join(", "))
    }

    /// The statement that declares it as the index `name` of the neutral table `table`; none where
    /// its entries are computed, some rows have none, or SQLite does not know their order.
    pub(super) fn as_index(&self, name: &str, table: &str) -> Option<String> {
        let columns = self.columns.as_ref().filter(|_| self.is_comparable())?;
        let parts: Vec<String> =
            columns.iter().map(|(column, sorted)| format!("c{column}{}", sorted.sql())).collect();
        let unique = if self.unique { "UNIQUE " } else { "" };
        Some(format!("CREATE {unique}INDEX {name} ON {table}({})", parts.join(", ")))
    }

    /// Whether SQLite can compare its entries with the rows of its table.
    pub(super) fn is_comparable(&self) -> bool {
        self.columns.is_some() && self.order_is_known()
    }

    /// Whether SQLite knows the order of its entries.
    pub(super) fn order_is_known(&self) -> bool {
        self.fields.iter().all(Sorted::is_known)
    }
}

fn primary_key(of: &[Sorted]) -> String {
    let parts: Vec<String> =
        of.iter().enumerate().map(|(at, sorted)| format!("c{at}{}", sorted.sql())).collect();
    format!("PRIMARY KEY({})", parts.join(", "))
}

/// The tables of `schema` that have a b-tree and that SQLite can declare, each with all of its
/// indexes; without any if one of them cannot be declared.
///
/// # Errors
/// SQLite's, of its own database in memory.
pub(super) fn describe(schema: &[SchemaEntry], encoding: Encoding) -> Result<Vec<NeutralTable>> {
    describe_some(schema, encoding, |_| true)
}

fn describe_some(
    schema: &[SchemaEntry],
    encoding: Encoding,
    is_wanted: impl Fn(usize) -> bool,
) -> Result<Vec<NeutralTable>> {
    let flags = OpenFlags::default();
    let scratch = Connection::open(Path::new(":memory:"), flags, Duration::ZERO)?;
    allow_any_schema(&scratch);
    scratch.sql()?.execute_batch(&format!("PRAGMA encoding = '{}'", encoding.name()))?;
    let mut indexes: std::collections::HashMap<String, Vec<usize>> =
        std::collections::HashMap::new();
    for (place, entry) in schema.iter().enumerate().filter(|(_, entry)| entry.kind == "index") {
        indexes.entry(entry.table.to_ascii_lowercase()).or_default().push(place);
    }
    let mut tables = Vec::new();
    for (place, entry) in schema.iter().enumerate() {
        if entry.kind != "table" || entry.root == 0 || !is_wanted(place) {
            continue;
        }
        let of = indexes.get(&entry.name.to_ascii_lowercase()).map_or(&[][..], Vec::as_slice);
        let describing = Describing { scratch: &scratch, encoding, schema };
        let described = describing.table(place, entry, Some(of));
        tables.extend(described.or_else(|_| describing.table(place, entry, None)));
    }
    Ok(tables)
}

/// The neutral declaration of the table that `entry` of `schema` is.
///
/// # Errors
/// As [`describe`]; `SQLITE_ERROR` where the table or one of its indexes cannot be declared.
pub(super) fn describe_one(
    schema: &[SchemaEntry],
    entry: &SchemaEntry,
    encoding: Encoding,
) -> Result<NeutralTable> {
    let place = schema.iter().position(|it| it == entry).ok_or_else(undescribable)?;
    let tables = describe_some(schema, encoding, |other| other == place)?;
    tables.into_iter().find(|table| table.whole).ok_or_else(undescribable)
}

/// Has a connection take every statement that a schema may have.
pub(super) fn allow_any_schema(connection: &Connection) {
    // SAFETY: the connection is open; each operation takes an int and a pointer that may be null,
    // and cannot fail.
    unsafe {
        for (operation, value) in [
            (ffi::SQLITE_DBCONFIG_DEFENSIVE, 0),
            (ffi::SQLITE_DBCONFIG_DQS_DDL, 1),
            (ffi::SQLITE_DBCONFIG_DQS_DML, 1),
            (ffi::SQLITE_DBCONFIG_TRUSTED_SCHEMA, 1),
            (ffi::SQLITE_DBCONFIG_ENABLE_TRIGGER, 0),
        ] {
            ffi::sqlite3_db_config(connection.raw(), operation, value, ptr::null_mut::<c_int>());
        }
    }
}

/// The columns of a table of SQLite's own, which no statement can make.
pub(super) fn columns_of_internal(name: &str) -> Option<&'static str> {
    [
        ("sqlite_sequence", "name,seq"),
        ("sqlite_stat1", "tbl,idx,stat"),
        ("sqlite_stat2", "tbl,idx,sampleno,sample"),
        ("sqlite_stat3", "tbl,idx,neq,nlt,ndlt,sample"),
        ("sqlite_stat4", "tbl,idx,neq,nlt,ndlt,sample"),
    ]
    .into_iter()
    .find_map(|(own, columns)| name.eq_ignore_ascii_case(own).then_some(columns))
}

struct Describing<'a> {
    scratch: &'a Connection,
    encoding: Encoding,
    schema: &'a [SchemaEntry],
}

impl Describing<'_> {
    /// Describes a table in a transaction of its own, of which nothing is left; with `indexes`, all
    /// of which are its, or without any.
    fn table(
        &self,
        place: usize,
        entry: &SchemaEntry,
        indexes: Option<&[usize]>,
    ) -> Result<NeutralTable> {
        let sql = self.scratch.sql()?;
        let mut statements = Vec::new();
        let internal = columns_of_internal(&entry.name);
        let name = match internal {
            Some(columns) => {
                statements.push(format!("CREATE TABLE internal({columns})"));
                "internal"
            }
            None => {
                let text = entry.sql.as_deref().unwrap_or_default();
                if sql::makes(text) != Some(Makes::Table) {
                    return Err(Error::sqlite(ffi::SQLITE_ERROR, "no statement for a table"));
                }
                statements.push(text.to_owned());
                &entry.name
            }
        };
        for &index in indexes.unwrap_or_default() {
            let text = self.schema.get(index).and_then(|index| index.sql.as_deref());
            let Some(text) = text else { continue };
            if !matches!(sql::makes(text), Some(Makes::Index | Makes::UniqueIndex)) {
                return Err(Error::sqlite(ffi::SQLITE_ERROR, "no statement for an index"));
            }
            statements.push(text.to_owned());
        }
        sql.execute_batch("BEGIN")?;
        let made = statements.iter().try_for_each(|text| {
            // It ends with the statement: a damaged text may go on with another.
            sql.execute(text, []).map(drop)
        });
        let described = match made {
            Ok(()) => self.described(place, entry, name, indexes),
            Err(_) => {
                sql.execute_batch("ROLLBACK; BEGIN")?;
                let all = statements.join(";\n");
                stub_functions::with_stubs(self.scratch, &all, StubResult::Error, || {
                    for text in &statements {
                        sql.execute(text, [])?;
                    }
                    self.described(place, entry, name, indexes)
                })
            }
        };
        if !sql.is_autocommit() {
            sql.execute_batch("ROLLBACK")?;
        }
        described
    }

    fn described(
        &self,
        place: usize,
        entry: &SchemaEntry,
        name: &str,
        indexes: Option<&[usize]>,
    ) -> Result<NeutralTable> {
        let sql = self.scratch.sql()?;
        let (without_rowid, strict) = sql.query_row(
            "SELECT wr, strict FROM pragma_table_list(?1) WHERE schema = 'main'",
            [name],
            |row| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?)),
        )?;
        let mut declared = sql.prepare(
            "SELECT name, type, hidden, pk, dflt_value FROM pragma_table_xinfo(?1) ORDER BY cid",
        )?;
        let declared = declared.query_map([name], |row| {
            Ok(Declared {
                name: row.get(0)?,
                affinity: Affinity::of_type(&row.get::<_, String>(1)?, strict),
                // <https://sqlite.org/pragma.html#pragma_table_xinfo>: 2 virtual, 3 stored.
                is_stored: row.get::<_, i64>(2)? != 2,
                is_generated: matches!(row.get::<_, i64>(2)?, 2 | 3),
                key: row.get(3)?,
                default: row.get(4)?,
            })
        })?;
        let declared: Vec<Declared> = declared.collect::<std::result::Result<_, _>>()?;
        let mut list = sql.prepare(
            "SELECT name, origin, \"unique\", partial FROM pragma_index_list(?1) ORDER BY seq",
        )?;
        let list =
            list.query_map([name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
        let list: Vec<(String, String, bool, bool)> =
            list.collect::<std::result::Result<_, _>>()?;
        let own_key = list.iter().find(|(_, origin, ..)| origin == "pk");

        let mut key = None;
        // Of each stored field, the column that it holds.
        let mut fields: Vec<usize> = Vec::new();
        if without_rowid {
            let (name, ..) = own_key.ok_or_else(undescribable)?;
            let parts = parts_of(sql, name)?;
            key = Some(parts.iter().filter(|it| it.key).map(|it| it.sorted.clone()).collect());
            for part in &parts {
                fields.push(part.column.ok_or_else(undescribable)?);
            }
        } else {
            fields.extend(
                (0..declared.len())
                    .filter(|&at| declared.get(at).is_some_and(|column| column.is_stored)),
            );
        }
        let is_alias = |column: usize| {
            !without_rowid
                && own_key.is_none()
                && declared.get(column).is_some_and(|column| column.key > 0)
        };
        let (defaults, whole) = self.defaults(
            name,
            own_key.filter(|_| without_rowid).map(|(key, ..)| key.as_str()),
            &declared,
            &fields,
        )?;
        let columns = fields.iter().zip(defaults).map(|(&column, default)| {
            let affinity = declared.get(column).map_or(Affinity::Blob, |column| column.affinity);
            NeutralColumn { affinity, default }
        });
        let mut table = NeutralTable {
            entry: place,
            name: entry.name.clone(),
            root: entry.root,
            columns: columns.collect(),
            key,
            alias: fields.iter().position(|&column| is_alias(column)),
            indexes: Vec::new(),
            whole: whole && indexes.is_some(),
        };
        let Some(indexes) = indexes else { return Ok(table) };
        for (index, origin, unique, partial) in &list {
            if without_rowid && origin == "pk" {
                continue;
            }
            let of_name = |&&place: &&usize| {
                self.schema.get(place).is_some_and(|it| it.name.eq_ignore_ascii_case(index))
            };
            let place = *indexes.iter().find(of_name).ok_or_else(undescribable)?;
            let root = self.schema.get(place).map_or(0, |index| index.root);
            let parts = parts_of(sql, index)?;
            let stored = |column: usize| fields.iter().position(|&field| field == column);
            let keys = parts.iter().filter(|part| part.key);
            let columns: Option<Vec<(usize, Sorted)>> = keys
                .map(|part| Some((part.column.and_then(stored)?, part.sorted.clone())))
                .collect();
            table.indexes.push(NeutralIndex {
                entry: place,
                root,
                fields: parts.into_iter().map(|part| part.sorted).collect(),
                columns: columns.filter(|_| !partial),
                unique: *unique,
            });
        }
        if table.indexes.len() == indexes.len() { Ok(table) } else { Err(undescribable()) }
    }

    /// What SQLite reads in the first field of a record that has none: what it reads in the second
    /// one of a record that has one.
    fn default_of_first(&self, column: &Declared) -> Result<(Option<Default>, bool)> {
        let sql = self.scratch.sql()?;
        let text = column.default.as_deref().unwrap_or_default();
        sql.execute_batch(
            "SAVEPOINT first; CREATE TABLE \"fusion short record\"(a);
             INSERT INTO \"fusion short record\" VALUES (0)",
        )?;
        let kind = column.affinity.declared();
        let add = |text: &str| {
            let add = "ALTER TABLE \"fusion short record\" ADD COLUMN b";
            sql.execute(&format!("{add} {kind} DEFAULT {text}"), [])
        };
        // SQLite reports an expression without its parentheses.
        let added = add(text).or_else(|_| add(&format!("({text})")));
        let mut default = (None, added.is_ok());
        if added.is_ok() {
            let select = "SELECT b FROM \"fusion short record\"";
            Statement::prepare(self.scratch, self.encoding, select)?.each(
                std::iter::empty(),
                |row| {
                    default = declared_as(row.value(0), self.encoding);
                    Ok(false)
                },
            )?;
        }
        sql.execute_batch("ROLLBACK TO first; RELEASE first")?;
        Ok(default)
    }

    /// What SQLite reads in the `fields` of a record that has none; and whether all of it can be
    /// declared. A table without rowids has the index `key`.
    fn defaults(
        &self,
        name: &str,
        key: Option<&str>,
        declared: &[Declared],
        fields: &[usize],
    ) -> Result<(Vec<Option<Default>>, bool)> {
        let sql = self.scratch.sql()?;
        let mut defaults: Vec<Option<Default>> = vec![None; fields.len()];
        let mut whole = true;
        // Only a column that is not generated has one. The first field is in every record that
        // SQLite writes, but not in every damaged one.
        if let Some(column) = fields.first().and_then(|&column| declared.get(column))
            && column.default.is_some()
            && !column.is_generated
        {
            let (default, is_declared) = self.default_of_first(column)?;
            whole &= is_declared;
            if let Some(first) = defaults.first_mut() {
                *first = default;
            }
        }
        let asked: Vec<(usize, String)> = fields
            .iter()
            .enumerate()
            .skip(1)
            .filter_map(|(place, &column)| Some((place, declared.get(column)?)))
            .filter(|(_, column)| column.default.is_some() && !column.is_generated)
            .map(|(place, column)| (place, quoted(&column.name)))
            .collect();
        if asked.is_empty() {
            return Ok((defaults, whole));
        }
        let short = if key.is_some() { "a PRIMARY KEY) WITHOUT ROWID" } else { "a)" };
        sql.execute_batch(&format!(
            "SAVEPOINT short; CREATE TABLE \"fusion short record\"({short};
             INSERT INTO \"fusion short record\" VALUES (0);
             PRAGMA writable_schema = ON",
        ))?;
        let swapped = sql.execute(
            "UPDATE main.sqlite_schema SET rootpage =
               (SELECT rootpage FROM main.sqlite_schema WHERE name = 'fusion short record')
              WHERE type = 'table' AND name = ?1 COLLATE NOCASE",
            [name],
        );
        sql.execute_batch("PRAGMA writable_schema = RESET")?;
        swapped?;
        let columns: Vec<&str> = asked.iter().map(|(_, column)| column.as_str()).collect();
        // Else SQLite may read a table without rowids by one of its indexes.
        let by = key.map_or("NOT INDEXED".to_owned(), |key| format!("INDEXED BY {}", quoted(key)));
        let select = format!("SELECT {} FROM main.{} {by}", columns.join(", "), quoted(name));
        Statement::prepare(self.scratch, self.encoding, &select)?.each(
            std::iter::empty(),
            |row| {
                for (at, (place, _)) in asked.iter().enumerate() {
                    if let Some(default) = defaults.get_mut(*place) {
                        let value = row.value(at);
                        let (read, is_declared) = declared_as(value, self.encoding);
                        whole &= is_declared;
                        *default = read;
                    }
                }
                Ok(false)
            },
        )?;
        sql.execute_batch("ROLLBACK TO short; RELEASE short")?;
        Ok((defaults, whole))
    }
}

/// What is read where a field is missing, as a default; and whether it can be declared.
fn declared_as(value: Value<'_>, encoding: Encoding) -> (Option<Default>, bool) {
    match literal(value, encoding) {
        Ok(sql) => (sql.map(|sql| Default { sql, image: image_of(value) }), true),
        Err(_) => (None, false),
    }
}

/// A column as its table declares it.
struct Declared {
    name: String,
    default: Option<String>,
    affinity: Affinity,
    is_stored: bool,
    is_generated: bool,
    key: i64,
}

/// A field of an index's entries.
struct Part {
    /// The column; none of an expression and of the rowid.
    column: Option<usize>,
    sorted: Sorted,
    key: bool,
}

fn parts_of(sql: &rusqlite::Connection, index: &str) -> Result<Vec<Part>> {
    let mut parts =
        sql.prepare("SELECT cid, coll, \"desc\", key FROM pragma_index_xinfo(?1) ORDER BY seqno")?;
    let parts = parts.query_map([index], |row| {
        Ok(Part {
            column: usize::try_from(row.get::<_, i64>(0)?).ok(),
            sorted: Sorted {
                collation: row.get::<_, Option<String>>(1)?.unwrap_or("BINARY".to_owned()),
                descending: row.get(2)?,
            },
            key: row.get(3)?,
        })
    })?;
    Ok(parts.collect::<std::result::Result<_, _>>()?)
}

fn undescribable() -> Error {
    Error::sqlite(ffi::SQLITE_ERROR, "the table has no neutral declaration")
}

/// A value as SQL that a DEFAULT takes, which SQLite reads as just that value where a record is
/// shorter than its table; none of NULL.
///
/// # Errors
/// There is no such SQL. A CAST is no help in a database of UTF-16: SQLite takes the bytes for
/// UTF-8 there (`valueFromExpr` in `sqlite3.c`).
fn literal(value: Value<'_>, encoding: Encoding) -> Result<Option<String>> {
    let hex = |bytes: &[u8]| {
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("x'{digits}'")
    };
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Integer(number) => number.to_string(),
        Value::Real(number) if number.is_infinite() => {
            if number > 0.0 { "9e999" } else { "-9e999" }.to_owned()
        }
        Value::Real(number) => format!("{number:e}"),
        Value::Text(bytes) => {
            let text = encoding.text_of(bytes);
            if encoding.bytes_of(&text) == bytes && !text.contains('\0') {
                format!("'{}'", text.replace('\'', "''"))
            } else if encoding == Encoding::Utf8 {
                format!("(CAST({} AS TEXT))", hex(bytes))
            } else {
                return Err(undescribable());
            }
        }
        Value::Blob(blob) => hex(blob),
    }))
}

/// A value as bytes that no other value has; a number has the same as an integer and as a REAL.
pub(super) fn image_of(value: Value<'_>) -> Vec<u8> {
    let mut image = Vec::new();
    match value {
        Value::Null => image.push(0),
        Value::Integer(number) => {
            image.push(1);
            image.extend(number.to_le_bytes());
        }
        Value::Real(number) => match as_integer(number) {
            Some(number) => return image_of(Value::Integer(number)),
            None => {
                image.push(2);
                image.extend(number.to_bits().to_le_bytes());
            }
        },
        Value::Text(bytes) | Value::Blob(bytes) => {
            image.push(if matches!(value, Value::Text(_)) { 3 } else { 4 });
            image.extend((bytes.len() as u64).to_le_bytes());
            image.extend(bytes);
        }
    }
    image
}

/// A REAL as the integer that SQLite may store for it.
fn as_integer(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "it is compared afterwards")]
    let integer = number as i64;
    #[expect(clippy::cast_precision_loss, reason = "it is compared with what it was")]
    let same = integer as f64 == number && integer != i64::MAX;
    same.then_some(integer)
}

/// Registers [`KEPT_ORDER`].
///
/// # Errors
/// SQLite's.
pub(super) fn keep_order(connection: &Connection) -> Result<()> {
    // SAFETY: the connection is open, the name NUL-terminated, and the collation has no data.
    let rc = unsafe {
        ffi::sqlite3_create_collation_v2(
            connection.raw(),
            KEPT_ORDER.as_ptr(),
            ffi::SQLITE_UTF8,
            ptr::null_mut(),
            Some(after),
            None,
        )
    };
    if rc == ffi::SQLITE_OK { Ok(()) } else { Err(connection.last_error()) }
}

/// What is stored comes before what is put in: the first argument is the stored value
/// (`vdbeCompareMemString` of `sqlite3.c`).
unsafe extern "C" fn after(
    _: *mut c_void,
    _: c_int,
    _: *const c_void,
    _: c_int,
    _: *const c_void,
) -> c_int {
    -1
}
