//! A database's rows as bytes, and the comparison of two.

use std::collections::{BTreeMap, HashMap, HashSet};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Result};

/// A row: its rowid, where it has one, and every column's type and exact bytes, unambiguously.
pub type Row = Box<[u8]>;

/// The rows of every table that holds a user's data, in the order of a scan.
pub type Rows = BTreeMap<String, Vec<Row>>;

/// Rows that a table held once.
pub type Former = BTreeMap<String, HashSet<Row>>;

/// A table whose rows are compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Whether its rows have rowids.
    pub rowid: bool,
    /// Whether it is a virtual table, whose rows are in tables of its own.
    pub virtual_table: bool,
}

/// The tables whose rows are compared: ordinary ones, a full-text index's own content, and
/// R*Trees, as a query sees them. What is derived from other rows is not compared, but queried.
pub fn tables(connection: &Connection) -> Result<Vec<Table>> {
    let mut list = connection.prepare(
        "SELECT l.name, l.type, l.wr, coalesce(s.sql, '') FROM pragma_table_list AS l \
         JOIN sqlite_schema AS s ON s.name = l.name AND s.type = 'table' \
         WHERE l.schema = 'main' AND l.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY l.name",
    )?;
    let mut found = list.query([])?;
    let mut tables = Vec::new();
    while let Some(row) = found.next()? {
        let (name, kind, sql): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(3)?);
        let compared = match kind.as_str() {
            "table" => !name.starts_with("lost_and_found"),
            "shadow" => name.ends_with("_content"),
            "virtual" => sql.contains("rtree"),
            _ => false,
        };
        if compared {
            tables.push(Table {
                name,
                rowid: row.get::<_, i64>(2)? == 0,
                virtual_table: kind == "virtual",
            });
        }
    }
    Ok(tables)
}

/// Reads every row of every table that is compared.
pub fn read(connection: &Connection) -> Result<Rows> {
    let mut rows = Rows::new();
    for table in tables(connection)? {
        let mut found = Vec::new();
        read_table(connection, &table, &mut found)?;
        rows.insert(table.name, found);
    }
    Ok(rows)
}

/// Reads every row of a table.
pub fn read_table(connection: &Connection, table: &Table, rows: &mut Vec<Row>) -> Result<()> {
    let name = table.name.replace('"', "\"\"");
    let rowid = if table.rowid { "rowid" } else { "NULL" };
    let scan = if table.virtual_table { "" } else { "NOT INDEXED" };
    let mut statement = connection.prepare(&format!("SELECT {rowid}, * FROM \"{name}\" {scan}"))?;
    let columns = statement.column_count();
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let mut bytes = Vec::new();
        for column in 0..columns {
            encode(row.get_ref(column)?, &mut bytes);
        }
        rows.push(bytes.into());
    }
    Ok(())
}

fn encode(value: ValueRef<'_>, bytes: &mut Vec<u8>) {
    let mut part = |tag: u8, content: &[u8]| {
        bytes.push(tag);
        bytes.extend_from_slice(&(content.len() as u32).to_le_bytes());
        bytes.extend_from_slice(content);
    };
    match value {
        ValueRef::Null => part(0, &[]),
        ValueRef::Integer(number) => part(1, &number.to_le_bytes()),
        ValueRef::Real(number) => part(2, &number.to_bits().to_le_bytes()),
        ValueRef::Text(text) => part(3, text),
        ValueRef::Blob(blob) => part(4, blob),
    }
}

/// A row for a person.
pub fn describe(row: &[u8]) -> String {
    let mut words = Vec::new();
    let mut rest = row;
    while let [tag, a, b, c, d, tail @ ..] = rest {
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let (content, tail) = tail.split_at(length);
        rest = tail;
        let number = || content.try_into().map(i64::from_le_bytes).unwrap_or_default();
        words.push(match tag {
            0 => "NULL".into(),
            1 => number().to_string(),
            2 => format!("{:?}", f64::from_bits(number() as u64)),
            3 => {
                let text = String::from_utf8_lossy(content);
                let start: String = text.chars().take(24).collect();
                if start.len() < text.len() {
                    format!("{start:?}…({length})")
                } else {
                    format!("{start:?}")
                }
            }
            _ => format!("blob({length})"),
        });
        if words.len() == 12 {
            words.push("…".into());
            break;
        }
    }
    format!("({})", words.join(", "))
}

/// What a recovery made of the rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows that are as they were, in their table.
    pub true_rows: usize,
    /// Rows in a table that are not a row of it: never were, or a second time.
    pub false_rows: usize,
    /// How many of the false ones the table held once, and not in the end.
    pub stale_rows: usize,
    /// Rows in `lost_and_found`.
    pub lost_and_found: usize,
    /// True rows by table.
    pub by_table: BTreeMap<String, usize>,
    /// The first few false rows, with their table.
    pub examples: Vec<String>,
}

/// Compares the database that `connection` has open with the truth.
pub fn compare(
    connection: &Connection,
    tables: &[Table],
    truth: &Rows,
    former: &Former,
) -> Result<Tally> {
    let mut tally = Tally::default();
    for table in tables {
        let mut found = Vec::new();
        // A recovery may have left a table out, or unreadable: what was read until then counts.
        let _ = read_table(connection, table, &mut found);
        let table = &table.name;
        let mut expected: HashMap<&[u8], usize> = HashMap::new();
        for row in truth.get(table).into_iter().flatten() {
            *expected.entry(row).or_default() += 1;
        }
        let mut here = 0;
        for row in &found {
            match expected.get_mut(&**row) {
                Some(left) if *left > 0 => {
                    *left -= 1;
                    here += 1;
                }
                _ => {
                    tally.false_rows += 1;
                    let stale = former.get(table).is_some_and(|rows| rows.contains(row));
                    tally.stale_rows += usize::from(stale);
                    if tally.examples.len() < 3 {
                        let kind = if stale { "stale" } else { "false" };
                        tally.examples.push(format!("{kind}: {table}{}", describe(row)));
                    }
                }
            }
        }
        tally.true_rows += here;
        tally.by_table.insert(table.clone(), here);
    }
    let mut names = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE 'lost_and_found%'",
    )?;
    for name in names.query_map([], |row| row.get::<_, String>(0))? {
        let count = format!("SELECT count(*) FROM \"{}\"", name?);
        tally.lost_and_found +=
            connection.query_row(&count, [], |row| row.get::<_, i64>(0)).unwrap_or(0) as usize;
    }
    Ok(tally)
}

/// How many rows there are.
pub fn count(rows: &Rows) -> usize {
    rows.values().map(Vec::len).sum()
}
