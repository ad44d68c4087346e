//! What SQLite reads of a damaged file, by plain SQL: every table forwards, then backwards. What
//! it reads has to be in its table afterwards, or in `lost_and_found`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

use super::contents::{quoted, rowid_of};

/// A stored value; whole numbers are the same as an integer and as a REAL.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stored {
    Null,
    Integer(i64),
    Real(u64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

/// A row as SQLite reads it: its rowid, if it has one, and its stored fields in their order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Version {
    pub rowid: Option<i64>,
    pub fields: Vec<Stored>,
}

/// What SQLite reads, by table.
pub type Versions = BTreeMap<String, HashSet<Version>>;

/// What SQLite reads of the database at `path`, whether it is damaged or not.
pub fn versions(path: &Path) -> Versions {
    let mut found = Versions::new();
    let Ok(connection) = Connection::open(path) else { return found };
    // Then one entry of the schema that makes no sense hides no other.
    if connection.execute_batch("PRAGMA writable_schema = ON; PRAGMA query_only = ON").is_err() {
        return found;
    }
    let mut names: Vec<String> = Vec::new();
    for direction in ["ASC", "DESC"] {
        let list = format!(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0
              ORDER BY rowid {direction}"
        );
        let _ = each(&connection, &list, |row| {
            if let Ok(name) = row.get::<_, String>(0)
                && !names.contains(&name)
            {
                names.push(name);
            }
        });
    }
    for name in names {
        if is_derived(&connection, &name) || name.starts_with("lost_and_found") {
            continue;
        }
        let mut rows = HashSet::new();
        if let Ok(table) = Table::of(&connection, &name) {
            table.read(&connection, &mut rows);
        }
        found.insert(name, rows);
    }
    found
}

/// What follows from other tables: a module's own tables but for content, whether SQLite still
/// knows the module's table or not.
fn is_derived(connection: &Connection, name: &str) -> bool {
    let kind = "SELECT type FROM pragma_table_list(?1) WHERE schema = 'main'";
    let kind: String = connection.query_row(kind, [name], |row| row.get(0)).unwrap_or_default();
    let own = ["data", "idx", "config", "docsize", "segments", "segdir", "stat"];
    kind == "virtual"
        || (kind == "shadow" && !name.ends_with("_content"))
        || name.rsplit_once('_').is_some_and(|(_, what)| own.contains(&what))
}

/// A table as its declaration has it.
struct Table {
    name: String,
    /// As SQL; none without rowids.
    rowid: Option<&'static str>,
    /// As SQL, in the order of the record.
    columns: Vec<String>,
    /// The place of the INTEGER PRIMARY KEY, which is not stored.
    alias: Option<usize>,
    /// How it is read in both directions, as SQL.
    orders: [String; 2],
}

impl Table {
    fn of(connection: &Connection, name: &str) -> Result<Self> {
        let keyed: bool = connection.query_row(
            "SELECT wr FROM pragma_table_list(?1) WHERE schema = 'main'",
            [name],
            |row| row.get(0),
        )?;
        let mut declared: Vec<(String, String, bool, bool)> = Vec::new();
        each(
            connection,
            &format!(
                "SELECT name, type, pk > 0, hidden = 2 FROM pragma_table_xinfo({}) ORDER BY cid",
                text(name)
            ),
            |row| {
                let column = || {
                    Ok::<_, rusqlite::Error>((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                };
                declared.extend(column().ok());
            },
        )?;
        let mut key: Vec<(String, [String; 2])> = Vec::new();
        let mut index: Option<String> = None;
        each(
            connection,
            &format!(
                "SELECT part.name, coll, \"desc\", list.name FROM pragma_index_list({}) AS list,
                   pragma_index_xinfo(list.name) AS part
                  WHERE origin = 'pk' AND key ORDER BY part.seqno",
                text(name)
            ),
            |row| {
                index = row.get(3).ok();
                let part = || {
                    let (name, collation): (String, String) = (row.get(0)?, row.get(1)?);
                    let descending: bool = row.get(2)?;
                    let part = |descending: bool| {
                        let direction = if descending { "DESC" } else { "ASC" };
                        format!("{} COLLATE {} {direction}", quoted(&name), quoted(&collation))
                    };
                    let parts = [part(descending), part(!descending)];
                    Ok::<_, rusqlite::Error>((name, parts))
                };
                key.extend(part().ok());
            },
        )?;
        let names: Vec<String> = declared.iter().map(|column| column.0.clone()).collect();
        let rowid = rowid_of(&names).filter(|_| !keyed);
        let stored: Vec<_> = declared.iter().filter(|column| !column.3).collect();
        let mut columns: Vec<String> = Vec::new();
        if keyed {
            for (name, _) in &key {
                if !columns.contains(name) {
                    columns.push(name.clone());
                }
            }
        }
        for column in &stored {
            if !columns.contains(&column.0) {
                columns.push(column.0.clone());
            }
        }
        let alias = (!keyed && index.is_none())
            .then(|| {
                stored.iter().find(|column| column.2 && column.1.eq_ignore_ascii_case("integer"))
            })
            .flatten()
            .and_then(|alias| columns.iter().position(|column| *column == alias.0));
        // By its own b-tree: else SQLite may read an index instead.
        let by = index.filter(|_| keyed).map(|index| format!("INDEXED BY {}", quoted(&index)));
        let by = by.unwrap_or_else(|| "NOT INDEXED".to_owned());
        let orders = [0, 1].map(|direction: usize| {
            if keyed {
                let parts: Vec<_> = key.iter().map(|(_, parts)| parts[direction].clone()).collect();
                return format!("{by} ORDER BY {}", parts.join(", "));
            }
            let backwards = rowid.filter(|_| direction == 1);
            backwards.map_or(by.clone(), |rowid| format!("{by} ORDER BY {rowid} DESC"))
        });
        let columns = columns.iter().map(|column| quoted(column)).collect();
        Ok(Self { name: name.to_owned(), rowid, columns, alias, orders })
    }

    fn read(&self, connection: &Connection, rows: &mut HashSet<Version>) {
        let list: String = self
            .columns
            .iter()
            .map(|column| {
                format!(
                    ", typeof({column}), iif(typeof({column}) = 'text', CAST({column} AS BLOB), {column})"
                )
            })
            .collect();
        let select = format!(
            "SELECT {}{list} FROM main.{}",
            self.rowid.unwrap_or("NULL"),
            quoted(&self.name)
        );
        for order in &self.orders {
            let whole = each(connection, &format!("{select} {order}"), |row| {
                let version = || {
                    let mut fields = Vec::new();
                    for at in 0..self.columns.len() {
                        let is_text = row.get_ref(1 + 2 * at)?.as_bytes()? == b"text";
                        fields.push(match row.get_ref(2 + 2 * at)? {
                            _ if self.alias == Some(at) => Stored::Null,
                            ValueRef::Blob(bytes) if is_text => Stored::Text(bytes.to_vec()),
                            value => stored(value),
                        });
                    }
                    Ok::<_, rusqlite::Error>(Version { rowid: row.get(0)?, fields })
                };
                rows.extend(version().ok());
            });
            if whole.is_ok() {
                return;
            }
        }
    }
}

fn stored(value: ValueRef<'_>) -> Stored {
    match value {
        ValueRef::Null => Stored::Null,
        ValueRef::Integer(number) => Stored::Integer(number),
        ValueRef::Real(number) => {
            #[allow(clippy::cast_possible_truncation, reason = "it is compared afterwards")]
            let whole = number as i64;
            #[allow(clippy::cast_precision_loss, reason = "it is compared with what it was")]
            if whole as f64 == number && whole != i64::MAX {
                Stored::Integer(whole)
            } else {
                Stored::Real(number.to_bits())
            }
        }
        ValueRef::Text(text) => Stored::Text(text.to_vec()),
        ValueRef::Blob(blob) => Stored::Blob(blob.to_vec()),
    }
}

fn text(name: &str) -> String {
    format!("'{}'", name.replace('\'', "''"))
}

fn each(
    connection: &Connection,
    sql: &str,
    mut on_row: impl FnMut(&rusqlite::Row<'_>),
) -> Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        on_row(row);
    }
    Ok(())
}

/// What is in the tables of rows without a table, by rowid.
fn lost_and_found(connection: &Connection) -> Result<HashMap<Option<i64>, Vec<Vec<Stored>>>> {
    let mut names: Vec<String> = Vec::new();
    each(
        connection,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'lost_and_found%'
           AND sql LIKE '%rootpgno%'",
        |row| names.extend(row.get(0).ok()),
    )?;
    let mut lost: HashMap<Option<i64>, Vec<Vec<Stored>>> = HashMap::new();
    for name in names {
        let mut width: usize = 0;
        each(connection, &format!("SELECT * FROM pragma_table_info({})", text(&name)), |_| {
            width += 1;
        })?;
        let fields: String = (0..width - 5)
            .map(|at| format!(", iif(typeof(c{at}) = 'text', CAST(c{at} AS BLOB), c{at})"))
            .collect();
        let select = format!("SELECT id, nfield{fields} FROM {}", quoted(&name));
        each(connection, &select, |row| {
            let count: usize = row.get::<_, i64>(1).unwrap().try_into().unwrap();
            let fields = (0..count.min(width - 5)).map(|at| stored(row.get_ref(2 + at).unwrap()));
            lost.entry(row.get(0).unwrap()).or_default().push(fields.collect());
        })?;
    }
    Ok(lost)
}

/// Of `read`, what is neither in its table of the database at `path` nor in `lost_and_found`:
/// one line for each table.
pub fn nowhere(read: &Versions, path: &Path) -> Vec<String> {
    let held = versions(path);
    let lost = lost_and_found(&Connection::open(path).unwrap()).unwrap();
    let none = HashSet::new();
    let mut missing = Vec::new();
    for (table, rows) in read {
        let held = held.get(table).unwrap_or(&none);
        let is_kept = |version: &&Version| {
            held.contains(*version)
                || (table == "sqlite_sequence" && goes_on(version, held))
                || lost
                    .get(&version.rowid)
                    .is_some_and(|lost| lost.iter().any(|fields| is_of(fields, version)))
        };
        let nowhere: Vec<_> = rows.iter().filter(|version| !is_kept(version)).collect();
        if let Some(first) = nowhere.first() {
            let shown: String = format!("{first:?}").chars().take(400).collect();
            missing.push(format!("{table}: {} of {} rows, {shown}", nowhere.len(), rows.len()));
        }
    }
    missing
}

/// SQLite raises the number with the rows that are put in.
fn goes_on(version: &Version, held: &HashSet<Version>) -> bool {
    let [name, Stored::Integer(was)] = version.fields.as_slice() else { return false };
    held.iter().any(|it| {
        matches!(it.fields.as_slice(), [other, Stored::Integer(is)] if other == name && is >= was)
    })
}

/// Whether the fields are those of the version's record, which may be shorter than its table.
fn is_of(fields: &[Stored], version: &Version) -> bool {
    let is_same = |one: &Stored, other: &Stored| match (one, other) {
        // Text is read as its bytes.
        (Stored::Blob(bytes), Stored::Text(text)) => bytes == text,
        _ => one == other,
    };
    // SQLite reads no field behind the table's last one.
    let behind = fields.get(version.fields.len()..).unwrap_or_default();
    let there = fields.get(..version.fields.len()).unwrap_or(fields);
    // Of a record without a field only what is read in its place is known.
    let is_empty = fields.is_empty() && version.rowid.is_none();
    behind.iter().all(|it| *it == Stored::Null)
        && there.iter().zip(&version.fields).all(|(one, other)| is_same(one, other))
        && (!is_empty || version.fields.iter().all(|it| *it == Stored::Null))
}

/// Rows of the database at `path` that are in none of `truth`'s, in tables that it has: one line
/// for each table.
pub fn invented(truth: &Versions, path: &Path) -> Vec<String> {
    let mut invented = Vec::new();
    for (table, rows) in versions(path) {
        let Some(truth) = truth.get(&table) else { continue };
        let false_rows: Vec<_> = rows.iter().filter(|row| !truth.contains(*row)).collect();
        if let Some(first) = false_rows.first() {
            let shown: String = format!("{first:?}").chars().take(300).collect();
            invented.push(format!("{table}: {} false rows, {shown}", false_rows.len()));
        }
    }
    invented
}
