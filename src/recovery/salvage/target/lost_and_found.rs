//! The table of rows without a table. It has the columns that `.recover` of SQLite's shell gives
//! it, and one for the reason why a row is in it.

use std::iter;

use super::statement::{Encoding, Statement, quoted};
use super::transaction::atomically;
use crate::engine::{Connection, Error, Result};
use crate::format::Value;

/// Columns before those of the fields.
const LEADING: usize = 5;

/// The most columns that SQLite lets a table have by default, without the leading ones.
const MOST_FIELDS: usize = 2_000 - LEADING;

/// A row without a table.
#[derive(Debug, Clone, Copy)]
pub(in crate::recovery) struct LostRow<'a> {
    /// Root page of the table that it may have been in; 0 where that is not known.
    pub(in crate::recovery) root: u32,
    /// The page that it was on; 0 where that is not known.
    pub(in crate::recovery) page: u32,
    /// Its rowid, if it had one.
    pub(in crate::recovery) rowid: Option<i64>,
    /// Its fields.
    pub(in crate::recovery) fields: &'a [Value<'a>],
    /// Why it is here.
    pub(in crate::recovery) reason: &'a str,
}

/// The table, made with its first row.
#[derive(Debug)]
pub(in crate::recovery) struct LostAndFound {
    name: String,
    /// The number of field columns, or the number to create the table with.
    width: usize,
    exists: bool,
    /// By number of fields.
    inserts: Vec<Option<Statement>>,
    pub(in crate::recovery) rows: u64,
}

impl LostAndFound {
    /// A table that is not created yet: with a name that no object has, and columns for the widest
    /// table's fields.
    pub(in crate::recovery) fn new<'n>(
        taken: impl Iterator<Item = &'n str> + Clone,
        width: usize,
    ) -> Self {
        let is_taken = |name: &String| taken.clone().any(|it| it.eq_ignore_ascii_case(name));
        let name = iter::once("lost_and_found".to_owned())
            .chain((0_u64..).map(|number| format!("lost_and_found_{number}")))
            .find(|name| !is_taken(name))
            .unwrap_or_default();
        Self {
            name,
            width: width.clamp(1, MOST_FIELDS),
            exists: false,
            inserts: Vec::new(),
            rows: 0,
        }
    }

    /// Continues with the existing table of this name, if it is one of `names`, the database's.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::recovery) fn find(
        &mut self,
        connection: &Connection,
        names: &[String],
    ) -> Result<()> {
        if names.iter().any(|name| name.eq_ignore_ascii_case(&self.name)) {
            let columns = "SELECT count(*) FROM pragma_table_info(?1)";
            let columns: u32 =
                connection.sql()?.query_row(columns, [&self.name], |row| row.get(0))?;
            self.width = (columns as usize).saturating_sub(LEADING);
            self.exists = true;
        }
        Ok(())
    }

    /// Adds a row. Fields beyond the maximum number of columns are left out; `nfield` has the
    /// number of all fields.
    ///
    /// # Errors
    /// SQLite's.
    pub(in crate::recovery) fn add(
        &mut self,
        connection: &Connection,
        encoding: Encoding,
        row: LostRow<'_>,
    ) -> Result<()> {
        let LostRow { root, page, rowid, fields, reason } = row;
        let count = fields.len();
        let fields = fields.get(..MOST_FIELDS).unwrap_or(fields);
        self.widen(connection, fields.len())?;
        let reason = encoding.bytes_of(reason);
        let head = [
            Value::Integer(root.into()),
            Value::Integer(page.into()),
            Value::Integer(i64::try_from(count).unwrap_or(i64::MAX)),
            rowid.map_or(Value::Null, Value::Integer),
            Value::Text(&reason),
        ];
        let odd =
            |value: &Value<'_>| matches!(value, Value::Text(text) if !encoding.binds_as_is(text));
        if fields.iter().any(odd) {
            // SQLite drops an odd last byte of UTF-16 text. A BLOB keeps it.
            let values = fields.iter().map(|&value| match value {
                Value::Text(text) if odd(&value) => Value::Blob(text),
                value => value,
            });
            let cast = fields.iter().map(|value| match value {
                Value::Text(text) => odd(value) && text.len().is_multiple_of(2),
                _ => false,
            });
            let sql = insert_sql(&self.name, cast);
            let mut insert = Statement::prepare(connection, encoding, &sql)?;
            insert.run(head.into_iter().chain(values))?;
        } else {
            if self.inserts.len() <= fields.len() {
                self.inserts.resize_with(fields.len() + 1, || None);
            }
            let name = &self.name;
            if let Some(place) = self.inserts.get_mut(fields.len()) {
                let insert = match place {
                    Some(insert) => insert,
                    None => {
                        let sql = insert_sql(name, iter::repeat_n(false, fields.len()));
                        place.insert(Statement::prepare(connection, encoding, &sql)?)
                    }
                };
                insert.run(head.into_iter().chain(fields.iter().copied()))?;
            }
        }
        self.rows += 1;
        Ok(())
    }

    /// Makes the table, or gives it the columns that it lacks.
    fn widen(&mut self, connection: &Connection, fields: usize) -> Result<()> {
        if self.exists && fields <= self.width {
            return Ok(());
        }
        let name = quoted(&self.name);
        let mut sql = String::new();
        if self.exists {
            for field in self.width..fields {
                sql += &format!("ALTER TABLE main.{name} ADD COLUMN c{field};");
            }
        } else {
            sql = format!(
                "CREATE TABLE main.{name}(rootpgno INTEGER, pgno INTEGER, nfield INTEGER, id INTEGER, reason TEXT"
            );
            for field in 0..self.width.max(fields) {
                sql += &format!(", c{field}");
            }
            sql += ")";
        }
        connection.sql()?.execute_batch(&sql).map_err(Error::from)?;
        self.width = self.width.max(fields);
        self.exists = true;
        Ok(())
    }

    /// Runs `work`, which may add rows, in a transaction of its own. If it fails, the table is
    /// unchanged.
    ///
    /// # Errors
    /// `work`'s; SQLite's.
    pub(super) fn in_transaction<R>(
        &mut self,
        connection: &Connection,
        work: impl FnOnce(&mut Self) -> Result<R>,
    ) -> Result<R> {
        let (exists, width, rows) = (self.exists, self.width, self.rows);
        let outcome = atomically(connection, || work(self));
        if outcome.is_err() {
            (self.exists, self.width, self.rows) = (exists, width, rows);
            self.forget_statements();
        }
        outcome
    }

    /// Finalizes the statements, so that the connection can be replaced.
    pub(in crate::recovery) fn forget_statements(&mut self) {
        self.inserts.clear();
    }

    /// The table's name, if it has rows.
    pub(in crate::recovery) fn name(&self) -> Option<&str> {
        self.exists.then_some(self.name.as_str())
    }
}

/// An INSERT of a row with a field for each of `cast`: those that are true are bytes to be kept as
/// text.
fn insert_sql(name: &str, cast: impl Iterator<Item = bool>) -> String {
    let mut columns = "rootpgno, pgno, nfield, id, reason".to_owned();
    let mut values = "?, ?, ?, ?, ?".to_owned();
    for (field, cast) in cast.enumerate() {
        columns += &format!(", c{field}");
        values += if cast { ", CAST(? AS TEXT)" } else { ", ?" };
    }
    format!("INSERT INTO main.{}({columns}) VALUES ({values})", quoted(name))
}
