//! What is in a database: everything that has to be there afterwards.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, Result};

use super::application;

/// A row: its rowid, if it has one, then each column's type and content.
pub type Row = Vec<Value>;

/// Everything that is in a database, but of tables and indexes that are left out.
#[derive(Debug, Default)]
pub struct Contents {
    /// What it says of itself.
    header: BTreeMap<&'static str, String>,
    /// By kind, in their order: name, table, statement.
    objects: BTreeMap<String, Vec<(String, String, Option<String>)>>,
    /// By table, in the order of a scan.
    pub rows: BTreeMap<String, Vec<Row>>,
    /// Of queries: how each is carried out, and its answer.
    answers: Vec<(String, Vec<String>, Vec<Row>)>,
    /// SQLite's check.
    check: Vec<String>,
}

/// A connection with everything that the application has.
pub fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    application::register(&connection).unwrap();
    connection
}

impl Contents {
    /// Those of the database at `path`, whose table `without` is left out.
    pub fn of(path: &Path, queries: &[&str], without: &str) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let connection = open(path);
        let mut contents = Self::default();
        contents.read(&connection, queries, without).unwrap();
        contents.header.insert("reserved bytes", bytes[20].to_string());
        contents.header.insert("versions", format!("{} {}", bytes[18], bytes[19]));
        drop(connection);
        contents
    }

    fn read(&mut self, connection: &Connection, queries: &[&str], without: &str) -> Result<()> {
        for pragma in ["user_version", "application_id", "auto_vacuum", "encoding", "page_size"] {
            let value: Value =
                connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))?;
            self.header.insert(pragma, format!("{value:?}"));
        }
        let mut schema = connection
            .prepare("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY rowid")?;
        let mut objects = schema.query([])?;
        while let Some(row) = objects.next()? {
            let table: String = row.get(2)?;
            if table != without {
                let object = (row.get(1)?, table, row.get(3)?);
                self.objects.entry(row.get(0)?).or_default().push(object);
            }
        }
        for (name, _, _) in self.objects.get("table").cloned().unwrap_or_default() {
            if let Some(rows) = rows(connection, &name)? {
                self.rows.insert(name, rows);
            }
        }
        for query in queries {
            let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
            let plan = plan.query_map([], |row| row.get(3))?.collect::<Result<_>>()?;
            let answer = all(connection, query)
                .unwrap_or_else(|error| vec![vec![Value::Text(format!("{error}"))]]);
            self.answers.push(((*query).to_owned(), plan, answer));
        }
        let mut check = connection.prepare("PRAGMA integrity_check")?;
        self.check = check.query_map([], |row| row.get(0))?.collect::<Result<_>>()?;
        Ok(())
    }

    /// In what `other` differs, one line for each difference.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let is_all = |what: &str| self.header.get(what) != other.header.get(what);
        for what in self.header.keys().filter(|what| is_all(what)) {
            let (was, is) = (&self.header[what], other.header.get(what));
            found.push(format!("{what} was {was}, is {is:?}"));
        }
        for (kind, was) in &self.objects {
            let is = other.objects.get(kind).map_or(&[][..], Vec::as_slice);
            found.extend(
                was.iter()
                    .filter(|it| !is.contains(it))
                    .map(|it| format!("{kind} {} is missing or not the same", it.0)),
            );
            let is: Vec<_> = is.iter().filter(|it| !is_of_a_repair(&it.0, was)).cloned().collect();
            found.extend(
                is.iter()
                    .filter(|it| !was.contains(it))
                    .map(|it| format!("{kind} {} was not there", it.0)),
            );
            if found.is_empty() && *was != is {
                let names = |list: &[(String, String, Option<String>)]| {
                    list.iter().map(|it| it.0.clone()).collect::<Vec<_>>().join(", ")
                };
                found.push(format!("order of {kind}s: was {}; is {}", names(was), names(&is)));
            }
        }
        for (table, was) in &self.rows {
            let Some(is) = other.rows.get(table) else {
                found.push(format!("table {table} is not read"));
                continue;
            };
            if was != is {
                let missing: Vec<_> = was.iter().filter(|row| !is.contains(row)).collect();
                let more: Vec<_> = is.iter().filter(|row| !was.contains(row)).collect();
                found.push(format!(
                    "table {table}: {} rows were, {} are, {} missing ({}), {} new ({})",
                    was.len(),
                    is.len(),
                    missing.len(),
                    missing.first().map_or(String::new(), |row| shown(row)),
                    more.len(),
                    more.first().map_or(String::new(), |row| shown(row)),
                ));
            }
        }
        for (was, is) in self.answers.iter().zip(&other.answers) {
            if was.1 != is.1 {
                found.push(format!("{}: was {:?}, is {:?}", was.0, was.1, is.1));
            }
            if was.2 != is.2 {
                let first = |rows: &[Row]| rows.first().map_or(String::new(), |row| shown(row));
                found.push(format!(
                    "{}: {} rows ({}), now {} ({})",
                    was.0,
                    was.2.len(),
                    first(&was.2),
                    is.2.len(),
                    first(&is.2)
                ));
            }
        }
        if other.check != ["ok"] {
            found.push(format!("the check says: {}", other.check.join("; ")));
        }
        found
    }

    /// That it is what its generator wants: sound, with answers.
    pub fn assert_sound(&self) {
        assert_eq!(self.check, ["ok"]);
        for (query, _, answer) in &self.answers {
            let is_check = query.starts_with("INSERT");
            assert!(is_check == answer.is_empty(), "{query}: {answer:?}");
        }
    }
}

/// Whether a table is a repair's, for rows that are of no table.
fn is_of_a_repair(name: &str, was: &[(String, String, Option<String>)]) -> bool {
    name.starts_with("lost_and_found") && !was.iter().any(|it| it.0 == name)
}

/// The rows of a table that is not virtual, in the order of a scan. SQLite may give those of its
/// own tables other rowids.
fn rows(connection: &Connection, name: &str) -> Result<Option<Vec<Row>>> {
    let (kind, keyed): (String, bool) = connection.query_row(
        "SELECT type, wr FROM pragma_table_list(?1) WHERE schema = 'main'",
        [name],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    if kind == "virtual" {
        return Ok(None);
    }
    let columns = columns(connection, name)?;
    let own = name.starts_with("sqlite_");
    let rowid = rowid_of(&columns).filter(|_| !keyed && !own).unwrap_or("NULL");
    let list: String = columns
        .iter()
        .map(|column| {
            let column = quoted(column);
            // Text as its bytes.
            format!(
                ", typeof({column}), iif(typeof({column}) = 'text', CAST({column} AS BLOB), {column})"
            )
        })
        .collect();
    let order = if own { "ORDER BY 3, 5" } else { "" };
    let select = format!("SELECT {rowid}{list} FROM main.{} NOT INDEXED {order}", quoted(name));
    all(connection, &select).map(Some)
}

/// Every column of a table, hidden ones included.
pub fn columns(connection: &Connection, name: &str) -> Result<Vec<String>> {
    let mut columns = connection.prepare("SELECT name FROM pragma_table_xinfo(?1) ORDER BY cid")?;
    columns.query_map([name], |row| row.get(0))?.collect()
}

/// A name of the rowid that no column has.
pub fn rowid_of(columns: &[String]) -> Option<&'static str> {
    let taken = |name: &str| columns.iter().any(|column| column.eq_ignore_ascii_case(name));
    ["rowid", "_rowid_", "oid"].into_iter().find(|name| !taken(name))
}

pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// All rows that a query gives.
fn all(connection: &Connection, sql: &str) -> Result<Vec<Row>> {
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut found = statement.query([])?;
    let mut rows = Vec::new();
    while let Some(row) = found.next()? {
        rows.push((0..columns).map(|at| Ok(value(row.get_ref(at)?))).collect::<Result<_>>()?);
    }
    Ok(rows)
}

/// A value by its bits: -0.0 is not 0.0.
fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Text(format!("{number:?} {:x}", number.to_bits())),
        ValueRef::Text(text) => Value::Text(String::from_utf8_lossy(text).into_owned()),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

/// A row for a person.
fn shown(row: &[Value]) -> String {
    let part = |value: &Value| match value {
        Value::Text(text) => text.chars().take(30).collect(),
        Value::Blob(blob) => String::from_utf8_lossy(&blob[..blob.len().min(30)]).into_owned(),
        other => format!("{other:?}"),
    };
    row.iter().take(14).map(part).collect::<Vec<_>>().join(" | ")
}

/// The pages of a table or index, by SQLite's own account: kind and number, in the b-tree's order.
pub fn pages_of(path: &Path, name: &str) -> Vec<(String, u32)> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = Connection::open_with_flags(path, flags).unwrap();
    let mut pages = connection
        .prepare("SELECT pagetype, pageno FROM dbstat WHERE name = ?1 ORDER BY path")
        .unwrap();
    pages
        .query_map([name], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_>>()
        .unwrap()
}
