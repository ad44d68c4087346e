//! Creates the indexes of CREATE INDEX statements. Rows that violate a UNIQUE index are moved to
//! `lost_and_found`; of rows with the same key, the first by rowid or primary key stays.
//!
//! Each index has a transaction of its own, because SQLite rolls back the whole transaction when a
//! write is interrupted (<https://sqlite.org/c3ref/interrupt.html>).

use std::iter;

use rusqlite::ffi;

use super::fill::{Fill, lookup_sql};
use super::limits::Limits;
use super::lost_and_found::{LostAndFound, LostRow};
use super::schema::{self, Table};
use super::statement::{Encoding, Statement, quoted};
use super::watch::watched;
use crate::engine::{Connection, Error, Progress, Result, Stage};
use crate::format::Value;
use crate::format::sql::{self, Makes, Token};
use crate::recovery::salvage::SchemaEntry;
use crate::recovery::salvage::report::TableSalvage;

/// The input of [`Self::make`].
pub(super) struct Making<'a> {
    pub(super) connection: &'a Connection,
    pub(super) encoding: Encoding,
    pub(super) limits: &'a Limits,
    pub(super) tables: &'a [Table],
    pub(super) lost: &'a mut LostAndFound,
    pub(super) report: &'a mut [TableSalvage],
}

impl Making<'_> {
    /// Creates the indexes of `schema`. Returns an error text for each statement that failed.
    ///
    /// # Errors
    /// Those of writing the file; `task`'s.
    pub(super) fn make(
        mut self,
        schema: &[SchemaEntry],
        task: &dyn Progress,
    ) -> Result<Vec<String>> {
        let mut errors = Vec::new();
        let made = |entry: &&SchemaEntry| entry.kind == "index" && entry.sql.is_some();
        let total = schema.iter().filter(made).count() as u64;
        for (done, entry) in (0..).zip(schema.iter().filter(made)) {
            task.stage(Stage { name: "indexes", done, total });
            match self.make_one(entry, task) {
                Err(error) if schema::is_of_statement(&error) => {
                    errors.push(format!("index {}: {}", entry.name, error.message));
                }
                outcome => outcome?,
            }
        }
        task.stage(Stage { name: "indexes", done: total, total });
        Ok(errors)
    }

    fn make_one(&mut self, entry: &SchemaEntry, task: &dyn Progress) -> Result<()> {
        let Self { connection, encoding, limits, tables, .. } = *self;
        let kinds = [Makes::Index, Makes::UniqueIndex];
        let moved = self.lost.in_transaction(connection, |lost| {
            watched(connection, limits, task, || {
                let outcome = schema::run(connection, entry, &kinds);
                let in_the_way = matches!(&outcome,
                    Err(error) if error.errcode == ffi::SQLITE_CONSTRAINT_UNIQUE);
                if !in_the_way {
                    return outcome.map(|()| None);
                }
                let moved = Way { connection, encoding, tables, lost }.make(entry)?;
                schema::run(connection, entry, &kinds)?;
                Ok(moved)
            })
        })?;
        let report = moved.and_then(|(table, rows)| Some((self.report.get_mut(table)?, rows)));
        if let Some((report, rows)) = report {
            report.rows = report.rows.saturating_sub(rows);
        }
        Ok(())
    }
}

/// Moves the rows that violate a UNIQUE index.
struct Way<'a> {
    connection: &'a Connection,
    encoding: Encoding,
    tables: &'a [Table],
    lost: &'a mut LostAndFound,
}

impl Way<'_> {
    /// Moves the rows whose key an earlier row has. Returns the table's place, and the number of
    /// rows.
    fn make(&mut self, entry: &SchemaEntry) -> Result<Option<(usize, u64)>> {
        let of_table = |table: &Table| table.entry.name.eq_ignore_ascii_case(&entry.table);
        let (Some(sql_text), Some(place)) =
            (entry.sql.as_deref(), self.tables.iter().position(of_table))
        else {
            return Ok(None);
        };
        let (Some(table), Some(keys)) = (self.tables.get(place), Keys::of(sql_text)) else {
            return Ok(None);
        };
        let fill = &table.fill;
        let sql = self.connection.sql()?;
        // SQLite reports the key columns of the same index without UNIQUE.
        let twin = SchemaEntry { sql: Some(keys.not_unique.clone()), ..entry.clone() };
        schema::run(self.connection, &twin, &[Makes::Index])?;
        let partition = self.partition(&entry.name, &keys)?;
        let identity = identity(fill);
        let filter = keys.filter.map(|filter| format!("({filter}) AND ")).unwrap_or_default();
        let not_null: Vec<String> =
            partition.iter().map(|key| format!("{key} IS NOT NULL")).collect();
        let aliases: Vec<String> = (0..identity.len()).map(|number| format!("k{number}")).collect();
        let named: Vec<String> = identity
            .iter()
            .zip(&aliases)
            .map(|(column, alias)| format!("{column} AS {alias}"))
            .collect();
        sql.execute_batch(&format!(
            "CREATE TEMP TABLE later AS SELECT {aliases} FROM (
               SELECT {named}, row_number() OVER (PARTITION BY {keys} ORDER BY {identity}) AS place
                 FROM main.{table} WHERE {filter}{not_null})
              WHERE place > 1;
             DROP INDEX main.{index}",
            aliases = aliases.join(", "),
            named = named.join(", "),
            keys = partition.join(", "),
            identity = identity.join(", "),
            table = quoted(&fill.name),
            not_null = not_null.join(" AND "),
            index = quoted(&entry.name),
        ))?;
        let moved = self.move_rows(fill, table.entry.root, identity.len(), &entry.name)?;
        sql.execute_batch("DROP TABLE temp.later")?;
        Ok(Some((place, moved)))
    }

    /// The parts of the key as SQL, each with its collation.
    fn partition(&self, index: &str, keys: &Keys<'_>) -> Result<Vec<String>> {
        let mut statement = self.connection.sql()?.prepare(
            "SELECT cid, name, coll FROM pragma_index_xinfo(?1) WHERE key ORDER BY seqno",
        )?;
        let mut rows = statement.query([index])?;
        let mut parts = keys.parts.iter();
        let mut partition = Vec::new();
        while let Some(row) = rows.next()? {
            let part = parts.next();
            // -2 is an expression, whose text is in the statement.
            let key = match (row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?, part) {
                (-1, _, _) => "rowid".to_owned(),
                (_, Some(column), _) => quoted(&column),
                (_, None, Some(part)) => format!("({part})"),
                (_, None, None) => {
                    let message = "the index has more key columns than its statement";
                    return Err(Error::sqlite(ffi::SQLITE_ERROR, message));
                }
            };
            let collation: String = row.get(2)?;
            partition.push(format!("{key} COLLATE {}", quoted(&collation)));
        }
        Ok(partition)
    }

    /// Moves the rows that the temporary table names. Returns their number.
    fn move_rows(&mut self, fill: &Fill, root: u32, identity: usize, index: &str) -> Result<u64> {
        let prepare = |sql: &str| Statement::prepare(self.connection, self.encoding, sql);
        let mut later = prepare("SELECT * FROM temp.later")?;
        let mut lookup = prepare(&lookup_sql(&fill.name, &fill.table))?;
        let mut delete = prepare(&format!(
            "DELETE FROM main.{} WHERE {}",
            quoted(&fill.name),
            fill.table.is_identified()
        ))?;
        let reason = format!("an earlier row has its key in the UNIQUE index {index}");
        let mut moved = 0;
        later.each(iter::empty(), |key| {
            let key: Vec<Value<'_>> = (0..identity).map(|at| key.value(at)).collect();
            let rowid = match key.first() {
                Some(&Value::Integer(rowid)) if !fill.table.without_rowid => Some(rowid),
                _ => None,
            };
            lookup.each(key.iter().copied(), |row| {
                let fields: Vec<Value<'_>> = (0..fill.table.fields.len())
                    .map(|at| {
                        if fill.table.rowid_alias == Some(at) { Value::Null } else { row.value(at) }
                    })
                    .collect();
                let row = LostRow { root, page: 0, rowid, fields: &fields, reason: &reason };
                self.lost.add(self.connection, self.encoding, row)?;
                Ok(false)
            })?;
            delete.run(key.iter().copied())?;
            moved += 1;
            Ok(true)
        })?;
        Ok(moved)
    }
}

/// The columns that identify a row, as SQL.
fn identity(fill: &Fill) -> Vec<String> {
    match &fill.table.rowid {
        Some(rowid) => vec![quoted(rowid)],
        None => {
            let key = fill.table.fields.iter().take(fill.table.key_fields);
            key.map(|field| quoted(&field.name)).collect()
        }
    }
}

/// The parts of a CREATE UNIQUE INDEX statement.
struct Keys<'a> {
    not_unique: String,
    parts: Vec<&'a str>,
    filter: Option<&'a str>,
}

impl<'a> Keys<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let mut tokens = sql::tokens(text);
        let unique = tokens.nth(1).filter(|token| token.is("UNIQUE"))?;
        let not_unique = format!("{}{}", text.get(..unique.start)?, text.get(unique.end()..)?);
        let open = tokens.find(|token| token.text == "(")?;
        let mut depth = 0_usize;
        let mut parts = Vec::new();
        let mut start = open.end();
        let mut last: Option<Token<'_>> = None;
        loop {
            let token = tokens.next()?;
            let closes = token.text == ")" && depth == 0;
            if closes || (token.text == "," && depth == 0) {
                let end = match last {
                    Some(last) if last.is("ASC") || last.is("DESC") => last.start,
                    _ => token.start,
                };
                parts.push(text.get(start..end)?);
                start = token.end();
                if closes {
                    break;
                }
            }
            match token.text {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                _ => {}
            }
            last = Some(token);
        }
        let filter = match tokens.next() {
            Some(token) if token.is("WHERE") => Some(text.get(token.end()..)?),
            Some(_) => return None,
            None => None,
        };
        Some(Self { not_unique, parts, filter })
    }
}

#[cfg(test)]
mod tests {
    use super::Keys;

    #[test]
    fn the_parts_of_a_key_are_separated() {
        let keys = Keys::of(
            "CREATE UNIQUE INDEX \"a(b\" ON t(a DESC, coalesce(b, ','), /* , */ c COLLATE x ASC) \
             WHERE (a > ')') -- all",
        )
        .unwrap();
        let parts: Vec<&str> = keys.parts.iter().map(|part| part.trim()).collect();
        assert_eq!(parts, ["a", "coalesce(b, ',')", "/* , */ c COLLATE x"]);
        assert_eq!(keys.filter.unwrap().trim(), "(a > ')') -- all");
        assert!(keys.not_unique.starts_with("CREATE  INDEX \"a(b\" ON"));
    }

    #[test]
    fn what_is_no_unique_index_has_no_parts() {
        for text in ["", "CREATE INDEX i ON t(a)", "CREATE UNIQUE INDEX i ON t(a", "CREATE UNIQUE"]
        {
            assert!(Keys::of(text).is_none(), "{text}");
        }
    }
}
