//! The layout of a table's records, as SQLite reports it, not parsed from the table's SQL.
//!
//! Runs on the connection's thread. May call: the engine.

use rusqlite::params;

use super::affinity::Affinity;
use super::statement::{Encoding, Statement, quoted};
use crate::engine::{Connection, Result};
use crate::format::{Owned, Value};

/// The layout of a table's records. It assigns orphan records to a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// The table.
    pub table: String,
    /// Its root page in the damaged file.
    pub root: u32,
    /// A WITHOUT ROWID table: its records are those of an index b-tree.
    pub without_rowid: bool,
    /// The stored fields of a record, in their order. Virtual generated columns have none.
    pub fields: Vec<Field>,
    /// A record of a row older than `ALTER TABLE ADD COLUMN` has fewer fields than the table has
    /// columns, but never fewer than this.
    pub least_fields: usize,
    /// How many of the first fields are the key of a WITHOUT ROWID table; 0 of others.
    pub key_fields: usize,
    /// For each field of a WITHOUT ROWID table's key, whether it is descending. Ends before the
    /// first field with a collation other than BINARY.
    pub descending: Vec<bool>,
}

/// One stored field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The column.
    pub name: String,
    /// Its affinity (<https://sqlite.org/datatype3.html>, 3.1).
    pub affinity: Affinity,
    /// Declared NOT NULL (or part of a WITHOUT ROWID primary key): a NULL in it belongs to
    /// another table. A rowid alias is stored as NULL and is not counted as such.
    pub not_null: bool,
    /// The rowid's alias (`INTEGER PRIMARY KEY`): always stored as NULL.
    pub rowid_alias: bool,
    /// A generated column: computed from others.
    pub generated: bool,
}

/// A table of the new database, as SQLite describes it.
#[derive(Debug, Clone)]
pub(super) struct Described {
    pub(super) without_rowid: bool,
    /// The stored fields in their order.
    pub(super) fields: Vec<Field>,
    /// For each field, whether it is generated, or repeats a column.
    pub(super) derived: Vec<bool>,
    /// For each field, the value that SQLite reads if a record is older than the column.
    pub(super) absent: Vec<Owned>,
    /// The number of fields in the primary key of a WITHOUT ROWID table; 0 for rowid tables.
    pub(super) key_fields: usize,
    pub(super) least_fields: usize,
    /// See [`Shape::descending`].
    pub(super) descending: Vec<bool>,
    /// The name by which SQL can set the rowid. `None` if columns have all of its names, and for
    /// WITHOUT ROWID tables.
    pub(super) rowid: Option<String>,
    /// The names of all columns, virtual ones included.
    pub(super) columns: Vec<String>,
    /// The field of the rowid alias.
    pub(super) rowid_alias: Option<usize>,
}

impl Described {
    /// The same records under a neutral declaration, which has no generated columns.
    pub(super) fn neutral(mut self) -> Self {
        let alias = self.rowid_alias;
        for (place, field) in self.fields.iter_mut().enumerate() {
            field.name = format!("c{place}");
        }
        self.derived.fill(false);
        self.columns = self.fields.iter().map(|field| field.name.clone()).collect();
        self.rowid = (!self.without_rowid)
            .then(|| alias.map_or_else(|| ROWID[0].to_owned(), |alias| format!("c{alias}")));
        self
    }

    /// An SQL condition with a parameter for the rowid, or one for each field of the key.
    pub(super) fn is_identified(&self) -> String {
        let is = |name: &str| format!("{} = ?", quoted(name));
        match &self.rowid {
            Some(rowid) => is(rowid),
            None => {
                let key = self.fields.iter().take(self.key_fields);
                key.map(|field| is(&field.name)).collect::<Vec<_>>().join(" AND ")
            }
        }
    }
}

struct Column {
    name: String,
    affinity: Affinity,
    not_null: bool,
    default: Option<String>,
    key: i64,
    virtual_: bool,
    generated: bool,
    /// Certainly as old as the table.
    original: bool,
    /// What SQLite reads where a record does not have it.
    absent: Owned,
}

/// Names of the rowid, the usual one first.
const ROWID: [&str; 3] = ["rowid", "_rowid_", "oid"];

/// Describes `table`, which exists. `scratch` is an empty database of that `encoding` to ask SQLite
/// in what it would do.
///
/// # Errors
/// SQLite's.
pub(super) fn describe(
    connection: &Connection,
    scratch: &Connection,
    encoding: Encoding,
    table: &str,
) -> Result<Described> {
    let sql = connection.sql()?;
    let (without_rowid, strict) = sql.query_row(
        "SELECT wr, strict FROM pragma_table_list(?1) WHERE schema = 'main'",
        [table],
        |row| Ok((row.get::<_, bool>(0)?, row.get::<_, bool>(1)?)),
    )?;
    let mut columns = columns(connection, table, strict)?;

    // A column of a constraint's own index was there when the table was made: ADD COLUMN takes
    // neither UNIQUE nor PRIMARY KEY.
    let mut key_has_index = false;
    let mut automatic = sql.prepare(
        "SELECT list.origin = 'pk', info.cid
           FROM pragma_index_list(?1) AS list, pragma_index_xinfo(list.name) AS info
          WHERE list.origin IN ('u', 'pk') AND info.key",
    )?;
    let mut rows = automatic.query([table])?;
    while let Some(row) = rows.next()? {
        key_has_index |= row.get::<_, bool>(0)?;
        if let Some(column) = at(&mut columns, row.get(1)?) {
            column.original = true;
        }
    }
    drop(rows);
    for column in &mut columns {
        column.original |= column.key > 0 || (column.generated && !column.virtual_);
        if !column.original && (column.not_null || column.default.is_some()) {
            match added(scratch, encoding, column)? {
                Some(absent) => column.absent = absent,
                None => column.original = true,
            }
        }
    }

    // Order of the fields: as declared, or a WITHOUT ROWID table's key first.
    let mut order = Vec::new();
    let mut key_fields = 0;
    let mut descending = Vec::new();
    if without_rowid {
        let mut key = sql.prepare("SELECT cid, key, \"desc\", coll FROM pragma_index_xinfo(?1)")?;
        let mut rows = key.query([table])?;
        while let Some(row) = rows.next()? {
            let column: i64 = row.get(0)?;
            order.extend(usize::try_from(column).ok());
            let is_key = row.get::<_, bool>(1)?;
            let binary = row.get_ref(3)?.as_str().is_ok_and(|it| it.eq_ignore_ascii_case("BINARY"));
            if is_key && binary && descending.len() == key_fields {
                descending.push(row.get(2)?);
            }
            key_fields += usize::from(is_key);
        }
    } else {
        order.extend(
            (0..columns.len()).filter(|&at| columns.get(at).is_some_and(|it| !it.virtual_)),
        );
    }
    let alias = (!without_rowid && !key_has_index)
        .then(|| columns.iter().position(|column| column.key > 0))
        .flatten();

    let mut fields = Vec::new();
    let mut derived = Vec::new();
    let mut absent = Vec::new();
    let mut least_fields = 1;
    let mut seen = vec![false; columns.len()];
    for &place in &order {
        let (Some(column), Some(seen)) = (columns.get(place), seen.get_mut(place)) else {
            continue;
        };
        fields.push(Field {
            name: column.name.clone(),
            affinity: column.affinity,
            not_null: column.not_null && alias != Some(place),
            rowid_alias: alias == Some(place),
            generated: column.generated,
        });
        derived.push(column.generated || *seen);
        absent.push(column.absent.clone());
        *seen = true;
        if column.original {
            least_fields = fields.len();
        }
    }
    let is_column =
        |name: &str| columns.iter().any(|column| column.name.eq_ignore_ascii_case(name));
    let rowid = match alias.and_then(|at| columns.get(at)) {
        _ if without_rowid => None,
        Some(alias) => Some(alias.name.clone()),
        None => ROWID.into_iter().find(|name| !is_column(name)).map(str::to_owned),
    };
    Ok(Described {
        without_rowid,
        rowid_alias: fields.iter().position(|field| field.rowid_alias),
        least_fields: least_fields.max(key_fields).min(fields.len()),
        fields,
        derived,
        absent,
        key_fields,
        descending,
        rowid,
        columns: columns.into_iter().map(|column| column.name).collect(),
    })
}

fn at(columns: &mut [Column], place: i64) -> Option<&mut Column> {
    columns.get_mut(usize::try_from(place).ok()?)
}

fn columns(connection: &Connection, table: &str, strict: bool) -> Result<Vec<Column>> {
    let mut statement = connection.sql()?.prepare(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1)",
    )?;
    let mut rows = statement.query(params![table])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let declared: String = row.get(1)?;
        let hidden: i64 = row.get(5)?;
        columns.push(Column {
            name: row.get(0)?,
            affinity: Affinity::of_type(&declared, strict),
            not_null: row.get(2)?,
            default: row.get(3)?,
            key: row.get(4)?,
            // <https://sqlite.org/pragma.html#pragma_table_xinfo>: 2 virtual, 3 stored.
            virtual_: hidden == 2,
            generated: hidden == 2 || hidden == 3,
            original: false,
            absent: Owned::Null,
        });
    }
    Ok(columns)
}

/// What SQLite reads of a column in rows that are older than it; none if there are no such rows,
/// because `ALTER TABLE ADD COLUMN` does not take such a column in a table that has rows. SQLite
/// decides: a NOT NULL column needs a default that is not NULL, and a default has to be constant.
/// (What it reads may be another value than what it stores in new rows: `TEXT DEFAULT 1e3`.)
///
/// The catalogue keeps a default's text without the parentheses that it may have had: an expression
/// needs them, and a name that stands for a string must not have them. SQLite takes one of the two.
fn added(scratch: &Connection, encoding: Encoding, column: &Column) -> Result<Option<Owned>> {
    let kind = column.affinity.declared();
    let not_null = if column.not_null { " NOT NULL" } else { "" };
    let defaults = match &column.default {
        Some(default) => vec![format!(" DEFAULT {default}"), format!(" DEFAULT ({default})")],
        None => vec![String::new()],
    };
    let sql = scratch.sql()?;
    for default in defaults {
        sql.execute_batch("SAVEPOINT ask; CREATE TABLE t(a); INSERT INTO t VALUES (1)")?;
        let alter = format!("ALTER TABLE t ADD COLUMN b {kind}{not_null}{default}");
        let mut absent = None;
        if sql.execute_batch(&alter).is_ok() {
            let mut select = Statement::prepare(scratch, encoding, "SELECT b FROM t")?;
            select.each(std::iter::empty::<Value<'_>>(), |row| {
                absent = Some(row.value(0).into());
                Ok(false)
            })?;
        }
        sql.execute_batch("ROLLBACK TO ask; RELEASE ask")?;
        if absent.is_some() {
            return Ok(absent);
        }
    }
    Ok(None)
}
