//! Full-text indexes of tables that keep their own text (`content='…'`), against that text.
//!
//! SQLite's checks look whether such an FTS5 index is well-formed, never whether it says what its
//! table says (`xIntegrity` leaves external content alone; FTS3 and FTS4 do compare). It goes
//! stale easily: `INSERT OR REPLACE` fires no delete trigger unless `recursive_triggers` is on.
//! FTS5 can compare, but only as a write (`'integrity-check'` with rank 1,
//! <https://sqlite.org/fts5.html#the_integrity_check_command>). So:
//!
//! * where the connection holds the write lock already, FTS5 is asked, inside a savepoint that is
//!   rolled back;
//! * elsewhere its two sides are compared here, by one sum over all tokens (term, row, column,
//!   position) of the index, as `fts5vocab` lists them, and one over those that the same
//!   tokenizer finds in the table's text; and what FTS5 remembers of sizes (`%_docsize`, and the
//!   averages in `%_data`, <https://sqlite.org/fts5.html#fts5_data_structures>) with what it
//!   would remember of that text. The text is indexed in a temporary contentless table a mebibyte
//!   at a time, so that neither memory nor disk depends on the table's size.
//!
//! Called on the thread of the check.

use std::hash::{DefaultHasher, Hash, Hasher};

use rusqlite::types::{Value, ValueRef};
use rusqlite::{OptionalExtension, ffi};

use super::inspect::{execute, quoted};
use super::lines::{Findings, Subject};
use super::schema::{Object, Schema};
use super::watch::Watch;
use crate::engine::{Class, Connection, Error, Result};
use crate::format::number::varint;

/// Where FTS5 has its totals: how many rows there are, and how many tokens in each column.
const AVERAGES: i64 = 1;

/// How much text is indexed at a time, in bytes.
const PORTION: usize = 1 << 20;

/// Compares each FTS5 index of external content with its table. One that cannot be compared (its
/// tokenizer is unknown to this connection, its table is gone) is passed over: that is no damage.
pub(super) fn check(
    connection: &Connection,
    schema: &Schema,
    watch: &Watch<'_>,
    findings: &mut Findings,
) -> Result<()> {
    for table in schema.virtual_tables() {
        watch.go_on()?;
        let Some(index) = External::of(table) else {
            continue;
        };
        if findings.has_full_text_damage(&table.name) {
            continue;
        }
        execute(connection, "SAVEPOINT fusion_sqlite_full_text")?;
        let agrees =
            if may_write(connection) { index.ask(connection) } else { index.compare(connection) };
        let ended = execute(
            connection,
            "ROLLBACK TO fusion_sqlite_full_text; RELEASE fusion_sqlite_full_text",
        );
        match agrees {
            Ok(true) => ended?,
            Ok(false) => {
                ended?;
                let line =
                    format!("the full-text index does not agree with its table {}", index.content);
                findings.note(Subject::FullText(table.name.clone()), None, &line);
            }
            Err(error) => match watch.reason(error) {
                error if error.class() == Class::Index => {
                    ended?;
                    findings.note(Subject::FullText(table.name.clone()), None, &error.message);
                }
                error if error.errcode & 0xff == ffi::SQLITE_ERROR => ended?,
                error => return Err(error),
            },
        }
    }
    Ok(())
}

/// Whether the connection holds the write lock of its database.
fn may_write(connection: &Connection) -> bool {
    // SAFETY: the connection is open or null, which SQLite answers with -1.
    unsafe { ffi::sqlite3_txn_state(connection.raw(), c"main".as_ptr()) == ffi::SQLITE_TXN_WRITE }
}

/// An FTS5 index whose text is elsewhere.
#[derive(Debug, PartialEq, Eq)]
struct External {
    name: String,
    /// The table or view that has the text.
    content: String,
    /// Its column with the row's number.
    rowid: String,
    /// Whether it has a table of its rows' sizes.
    has_sizes: bool,
    /// The arguments that say what is kept of a text: columns, tokenizer, detail, columnsize.
    arguments: Vec<String>,
}

impl External {
    fn of(table: &Object) -> Option<Self> {
        let (module, arguments) = module(&table.sql)?;
        if !module.eq_ignore_ascii_case("fts5") {
            return None;
        }
        let mut index = Self {
            name: table.name.clone(),
            content: String::new(),
            rowid: "rowid".to_owned(),
            has_sizes: true,
            arguments: Vec::new(),
        };
        for argument in arguments {
            match argument.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some((key, value)) if key.eq_ignore_ascii_case("content") => {
                    index.content = unquoted(value);
                }
                Some((key, value)) if key.eq_ignore_ascii_case("content_rowid") => {
                    index.rowid = unquoted(value);
                }
                // Extra indexes, which say nothing that the index does not say.
                Some((key, _)) if key.eq_ignore_ascii_case("prefix") => {}
                Some((key, value)) if key.eq_ignore_ascii_case("columnsize") => {
                    index.has_sizes = unquoted(value) != "0";
                    index.arguments.push(argument.to_owned());
                }
                _ => index.arguments.push(argument.to_owned()),
            }
        }
        (!index.content.is_empty()).then_some(index)
    }

    /// Has FTS5 compare.
    fn ask(&self, connection: &Connection) -> Result<bool> {
        let name = identifier(&self.name);
        let sql = format!("INSERT INTO main.{name}({name}, rank) VALUES ('integrity-check', 1)");
        match execute(connection, &sql) {
            Ok(()) => Ok(true),
            Err(error) if error.class() == Class::Index => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Compares.
    fn compare(&self, connection: &Connection) -> Result<bool> {
        let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
        let sql = connection.sql()?;
        execute(
            connection,
            &format!(
                "CREATE VIRTUAL TABLE temp.fusion_sqlite_text USING fts5({}, content='');
                 CREATE VIRTUAL TABLE temp.fusion_sqlite_expected USING \
                 fts5vocab('temp', 'fusion_sqlite_text', 'instance');
                 CREATE VIRTUAL TABLE temp.fusion_sqlite_found USING \
                 fts5vocab('main', {}, 'instance')",
                self.arguments.join(", "),
                quoted(&self.name),
            ),
        )?;
        let columns = columns(sql, &self.name).map_err(at)?;
        let mut expected = Tokens::default();
        let mut totals = Totals::default();
        let mut read = sql
            .prepare(&format!(
                "SELECT {}, {} FROM main.{}",
                identifier(&self.rowid),
                columns.join(", "),
                identifier(&self.content)
            ))
            .map_err(at)?;
        let mut index = sql
            .prepare(&format!(
                "INSERT INTO temp.fusion_sqlite_text(rowid, {}) VALUES (?{})",
                columns.join(", "),
                ", ?".repeat(columns.len())
            ))
            .map_err(at)?;
        let mut rows = read.query([]).map_err(at)?;
        let mut bytes = 0;
        while let Some(row) = rows.next().map_err(at)? {
            let mut values: Vec<Value> = Vec::with_capacity(columns.len() + 1);
            for column in 0..=columns.len() {
                values.push(row.get(column).map_err(at)?);
            }
            bytes += values.iter().map(size).sum::<usize>();
            index.execute(rusqlite::params_from_iter(values)).map_err(at)?;
            if bytes >= PORTION {
                bytes = 0;
                if !self.has_sizes_of_portion(sql).map_err(at)? {
                    return Ok(false);
                }
                expected.add(sql, "fusion_sqlite_expected").map_err(at)?;
                totals.add(&Totals::of(sql, "temp", "fusion_sqlite_text").map_err(at)?);
                sql.execute(
                    "INSERT INTO temp.fusion_sqlite_text(fusion_sqlite_text) VALUES ('delete-all')",
                    [],
                )
                .map_err(at)?;
            }
        }
        if !self.has_sizes_of_portion(sql).map_err(at)? {
            return Ok(false);
        }
        expected.add(sql, "fusion_sqlite_expected").map_err(at)?;
        totals.add(&Totals::of(sql, "temp", "fusion_sqlite_text").map_err(at)?);
        let mut found = Tokens::default();
        found.add(sql, "fusion_sqlite_found").map_err(at)?;
        let told = Totals::of(sql, "main", &self.name).map_err(at)?;
        Ok(found == expected
            && told.tokens == totals.tokens
            && (!self.has_sizes || told.rows == self.rows_with_size(sql).map_err(at)?))
    }

    /// Whether the sizes of the rows that are in the temporary index are those that this one
    /// remembers.
    fn has_sizes_of_portion(&self, sql: &rusqlite::Connection) -> rusqlite::Result<bool> {
        if !self.has_sizes {
            return Ok(true);
        }
        let sizes = identifier(&format!("{}_docsize", self.name));
        sql.query_row(
            &format!(
                "SELECT NOT EXISTS (SELECT * FROM temp.fusion_sqlite_text_docsize AS expected \
                 LEFT JOIN main.{sizes} AS found USING (id) WHERE found.sz IS NOT expected.sz)"
            ),
            [],
            |row| row.get(0),
        )
    }

    fn rows_with_size(&self, sql: &rusqlite::Connection) -> rusqlite::Result<u64> {
        let sizes = identifier(&format!("{}_docsize", self.name));
        let rows: i64 =
            sql.query_row(&format!("SELECT count(*) FROM main.{sizes}"), [], |row| row.get(0))?;
        Ok(u64::try_from(rows).unwrap_or(0))
    }
}

/// What FTS5 remembers of an index as a whole.
#[derive(Debug, Default)]
struct Totals {
    rows: u64,
    /// By column.
    tokens: Vec<u64>,
}

impl Totals {
    /// What the index `name` remembers, once it has written that down; nothing where it has not.
    fn of(sql: &rusqlite::Connection, schema: &str, name: &str) -> rusqlite::Result<Self> {
        let data = identifier(&format!("{name}_data"));
        let record: Option<Vec<u8>> = sql
            .query_row(
                &format!("SELECT block FROM {schema}.{data} WHERE id = ?"),
                [AVERAGES],
                |row| row.get(0),
            )
            .optional()?;
        let record = record.unwrap_or_default();
        let mut at = 0;
        let mut numbers = std::iter::from_fn(|| {
            let (number, length) = varint(&record, at)?;
            at += length;
            Some(number)
        });
        Ok(Self { rows: numbers.next().unwrap_or(0), tokens: numbers.collect() }.trimmed())
    }

    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        let columns = self.tokens.len().max(other.tokens.len());
        self.tokens.resize(columns, 0);
        for (sum, tokens) in self.tokens.iter_mut().zip(&other.tokens) {
            *sum = sum.wrapping_add(*tokens);
        }
    }

    /// Without columns at the end that have no tokens: an empty index may leave them out.
    fn trimmed(mut self) -> Self {
        while self.tokens.last() == Some(&0) {
            self.tokens.pop();
        }
        self
    }
}

/// The columns of a table, as identifiers; hidden ones are not among them.
fn columns(sql: &rusqlite::Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = sql.prepare(&format!("PRAGMA main.table_info({})", quoted(table)))?;
    let names = statement.query_map([], |row| row.get::<_, String>(1))?;
    names.map(|name| Ok(identifier(&name?))).collect()
}

fn size(value: &Value) -> usize {
    match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 8,
    }
}

/// A sum over tokens that does not depend on their order.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tokens {
    count: u64,
    sum: u64,
}

impl Tokens {
    fn add(&mut self, sql: &rusqlite::Connection, vocabulary: &str) -> rusqlite::Result<()> {
        let mut statement =
            sql.prepare(&format!("SELECT term, doc, col, offset FROM temp.{vocabulary}"))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let mut hasher = DefaultHasher::new();
            for column in 0..4 {
                match row.get_ref(column)? {
                    ValueRef::Integer(value) => value.hash(&mut hasher),
                    ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.hash(&mut hasher),
                    ValueRef::Null | ValueRef::Real(_) => hasher.write_u8(0),
                }
            }
            self.count += 1;
            self.sum = self.sum.wrapping_add(hasher.finish());
        }
        Ok(())
    }
}

/// Module and arguments of `CREATE VIRTUAL TABLE … USING module(arguments)`, as SQLite's parser
/// splits them: at commas outside of parentheses and quotes.
fn module(sql: &str) -> Option<(&str, Vec<&str>)> {
    let open = positions(sql).find(|(_, depth, c)| *depth == 0 && *c == '(')?.0;
    let close = sql.rfind(')')?;
    let inside = sql.get(open + 1..close)?;
    let mut arguments = Vec::new();
    let mut start = 0;
    for (at, _, _) in positions(inside).filter(|(_, depth, c)| *depth == 0 && *c == ',') {
        arguments.push(inside.get(start..at)?.trim());
        start = at + 1;
    }
    arguments.push(inside.get(start..)?.trim());
    let name = sql.get(..open)?.trim_end();
    let name = name.rsplit(char::is_whitespace).next()?;
    Some((name.trim_matches(['"', '`', '[', ']', '\'']), arguments))
}

/// Characters outside of quotes, each with the parentheses that are open before it.
fn positions(sql: &str) -> impl Iterator<Item = (usize, usize, char)> {
    let mut quote = None;
    let mut depth = 0_usize;
    sql.char_indices().filter_map(move |(at, c)| {
        if let Some(end) = quote {
            // A doubled quote opens the next part of the same text.
            if c == end {
                quote = None;
            }
            return None;
        }
        let before = depth;
        match c {
            '\'' | '"' | '`' => quote = Some(c),
            '[' => quote = Some(']'),
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        Some((at, before, c))
    })
}

fn unquoted(value: &str) -> String {
    let mut characters = value.chars();
    let (first, last) = (characters.next(), characters.next_back());
    let inside = characters.as_str();
    match (first, last) {
        (Some('['), Some(']')) => inside.to_owned(),
        (Some(quote @ ('\'' | '"' | '`')), Some(end)) if quote == end => {
            inside.replace(&format!("{quote}{quote}"), &quote.to_string())
        }
        _ => value.to_owned(),
    }
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn external(sql: &str) -> Option<External> {
        External::of(&Object {
            kind: "table".to_owned(),
            name: "words".to_owned(),
            table: "words".to_owned(),
            root: 0,
            sql: sql.to_owned(),
        })
    }

    #[test]
    fn arguments_are_split_as_sqlite_splits_them() {
        let index = external(
            "CREATE VIRTUAL TABLE \"words (1)\" USING FTS5 (text, 'de, tail' UNINDEXED, \
             tokenize = 'unicode61 tokenchars ''(,''', content = \"my logs\", content_rowid=[id], \
             prefix='2,3')",
        )
        .unwrap();
        assert_eq!(index.content, "my logs");
        assert_eq!(index.rowid, "id");
        assert_eq!(
            index.arguments,
            ["text", "'de, tail' UNINDEXED", "tokenize = 'unicode61 tokenchars ''(,'''"]
        );
    }

    #[test]
    fn what_has_its_own_text_or_none_is_left_to_sqlite() {
        assert_eq!(external("CREATE VIRTUAL TABLE words USING fts5(text)"), None);
        assert_eq!(external("CREATE VIRTUAL TABLE words USING fts5(text, content='')"), None);
        assert_eq!(external("CREATE VIRTUAL TABLE words USING fts4(text, content=logs)"), None);
    }
}
