//! Inserts records into a table, with every value and the rowid unchanged, or not at all.

use std::iter;
use std::sync::Arc;

use rusqlite::ffi;

use super::Inserted;
use super::shape::Described;
use super::statement::{Encoding, Row, Statement, quoted};
use crate::engine::{Class, Connection, Error, Result};
use crate::format::{Owned, Value, record};

/// A table of the new database, being filled.
#[derive(Debug)]
pub(super) struct Fill {
    /// The table's temporary name.
    pub(super) name: String,
    pub(super) table: Arc<Described>,
    encoding: Encoding,
    insert: Option<Statement>,
    lookup: Option<Statement>,
}

impl Fill {
    pub(super) fn new(name: String, table: Described, encoding: Encoding) -> Self {
        Self { name, table: Arc::new(table), encoding, insert: None, lookup: None }
    }

    /// Inserts a record. A record that is older than a column gets the value that SQLite reads
    /// there.
    ///
    /// # Errors
    /// Those of writing the file.
    pub(super) fn insert(
        &mut self,
        connection: &Connection,
        rowid: Option<i64>,
        fields: &[Value<'_>],
    ) -> Result<Inserted> {
        let table = Arc::clone(&self.table);
        if fields.len() > table.fields.len() || fields.len() < table.least_fields {
            return Ok(Inserted::Refused(format!(
                "{} fields instead of {} to {}",
                fields.len(),
                table.least_fields,
                table.fields.len()
            )));
        }
        if rowid.is_some() == table.without_rowid {
            return Ok(Inserted::Refused("of another kind of table".to_owned()));
        }
        let absent = table.absent.iter().skip(fields.len()).map(Owned::value);
        let all: Vec<Value<'_>>;
        let fields = if fields.len() == table.fields.len() {
            fields
        } else {
            all = fields.iter().copied().chain(absent).collect();
            &all
        };
        let mut plain = true;
        for ((value, field), &derived) in fields.iter().zip(&table.fields).zip(&table.derived) {
            if derived || field.rowid_alias {
                continue;
            }
            if !field.affinity.keeps(*value, self.encoding) {
                return Ok(Inserted::Refused(format!(
                    "column {} would not keep the value",
                    field.name
                )));
            }
            if let Value::Text(text) = value
                && !self.encoding.binds_as_is(text)
            {
                if !text.len().is_multiple_of(2) {
                    return Ok(Inserted::Refused(format!(
                        "column {} has half a character at its end",
                        field.name
                    )));
                }
                plain = false;
            }
        }
        let inserted = if plain {
            let insert = match &mut self.insert {
                Some(insert) => insert,
                place => {
                    let sql = insert_sql(&self.name, &table, fields, None);
                    match Statement::prepare(connection, self.encoding, &sql) {
                        Ok(insert) => place.insert(insert),
                        Err(error) => return refusal(error),
                    }
                }
            };
            insert.run(parameters(&table, rowid, fields))
        } else {
            // Binding as a BLOB and CAST keep bytes that binding as text would change.
            let sql = insert_sql(&self.name, &table, fields, Some(self.encoding));
            let encoding = self.encoding;
            let bytes = parameters(&table, rowid, fields).map(|value| match value {
                Value::Text(text) if !encoding.binds_as_is(text) => Value::Blob(text),
                value => value,
            });
            Statement::prepare(connection, self.encoding, &sql)
                .and_then(|mut insert| insert.run(bytes))
        };
        match inserted {
            Ok(()) => Ok(Inserted::Yes),
            Err(error) if self.is_duplicate(&error) => {
                Ok(Inserted::Duplicate { same: self.has_same(connection, rowid, fields)? })
            }
            Err(error) => refusal(error),
        }
    }

    /// Inserts a repaired record. Only the stored bytes are known of its field number `odd`. The
    /// record is refused if a generated column is computed to another value than the record has.
    ///
    /// # Errors
    /// Those of writing the file.
    pub(super) fn insert_mended(
        &mut self,
        connection: &Connection,
        rowid: Option<i64>,
        fields: &[Value<'_>],
        odd: Option<(usize, &[u8])>,
    ) -> Result<Inserted> {
        let inserted = self.insert(connection, rowid, fields)?;
        if inserted != Inserted::Yes {
            return Ok(inserted);
        }
        let table = Arc::clone(&self.table);
        let mut right = true;
        self.look_up(connection, rowid, fields, &mut |row| {
            right =
                fields.iter().zip(&table.derived).enumerate().all(|(at, (&field, &derived))| {
                    !derived
                        || match odd {
                            Some((odd, content)) if odd == at => {
                                record::is_content_of(content, row.value(at))
                            }
                            _ => is_same(row.value(at), field),
                        }
                });
        })?;
        if right {
            return Ok(Inserted::Yes);
        }
        let delete =
            format!("DELETE FROM main.{} WHERE {}", quoted(&self.name), self.table.is_identified());
        let key = rowid.map(Value::Integer).into_iter();
        let fields = fields.iter().take(self.table.key_fields).copied();
        Statement::prepare(connection, self.encoding, &delete)?.run(key.chain(fields))?;
        Ok(Inserted::Refused("a generated column was something else".to_owned()))
    }

    /// Whether an error reports a duplicate rowid or WITHOUT ROWID key. A rowid table's primary key
    /// that is not the rowid alias is a constraint like any other.
    fn is_duplicate(&self, error: &Error) -> bool {
        match error.errcode {
            ffi::SQLITE_CONSTRAINT_ROWID => true,
            ffi::SQLITE_CONSTRAINT_PRIMARYKEY => {
                self.table.without_rowid || self.table.rowid_alias.is_some()
            }
            _ => false,
        }
    }

    /// Whether the existing row with that rowid or key has the same values. If the record is older
    /// than a column, only the fields that it has are compared.
    fn has_same(
        &mut self,
        connection: &Connection,
        rowid: Option<i64>,
        fields: &[Value<'_>],
    ) -> Result<bool> {
        let (table, mut same) = (Arc::clone(&self.table), false);
        self.look_up(connection, rowid, fields, &mut |row| {
            same = fields.iter().zip(&table.fields).zip(&table.derived).enumerate().all(
                |(at, ((&value, field), &derived))| {
                    derived || field.rowid_alias || is_same(row.value(at), value)
                },
            );
        })?;
        Ok(same)
    }

    /// Calls `look` with the row that has that rowid or key, if there is one.
    fn look_up(
        &mut self,
        connection: &Connection,
        rowid: Option<i64>,
        fields: &[Value<'_>],
        look: &mut dyn FnMut(&Row<'_>),
    ) -> Result<()> {
        let lookup = match &mut self.lookup {
            Some(lookup) => lookup,
            place => {
                let sql = lookup_sql(&self.name, &self.table);
                place.insert(Statement::prepare(connection, self.encoding, &sql)?)
            }
        };
        let mut look = |row: &Row<'_>| {
            look(row);
            Ok(false)
        };
        let key = fields.iter().take(self.table.key_fields);
        match rowid {
            Some(rowid) => lookup.each(iter::once(Value::Integer(rowid)), &mut look),
            // A key that cannot be bound unchanged cannot be looked up, and counts as different.
            None if key.clone().any(
                |value| matches!(value, Value::Text(text) if !self.encoding.binds_as_is(text)),
            ) =>
            {
                Ok(())
            }
            None => lookup.each(key.copied(), &mut look),
        }
    }
}

/// The values to bind: the rowid, then the fields that are not derived.
fn parameters<'v>(
    table: &Described,
    rowid: Option<i64>,
    fields: &'v [Value<'v>],
) -> impl Iterator<Item = Value<'v>> {
    let given = fields
        .iter()
        .zip(&table.fields)
        .zip(&table.derived)
        .filter(|((_, field), derived)| !**derived && !field.rowid_alias)
        .map(|((&value, _), _)| value);
    rowid.map(Value::Integer).into_iter().chain(given)
}

/// The INSERT statement. `OR ABORT` overrides the table's own conflict clauses, which could replace
/// a row or roll back.
fn insert_sql(
    name: &str,
    table: &Described,
    fields: &[Value<'_>],
    cast: Option<Encoding>,
) -> String {
    let mut columns: Vec<String> = table.rowid.as_deref().map(quoted).into_iter().collect();
    let mut values = vec!["?"; columns.len()];
    for ((value, field), &derived) in fields.iter().zip(&table.fields).zip(&table.derived) {
        if derived || field.rowid_alias {
            continue;
        }
        columns.push(quoted(&field.name));
        let cast = match (value, cast) {
            (Value::Text(text), Some(encoding)) => !encoding.binds_as_is(text),
            _ => false,
        };
        values.push(if cast { "CAST(? AS TEXT)" } else { "?" });
    }
    format!(
        "INSERT OR ABORT INTO main.{}({}) VALUES ({})",
        quoted(name),
        columns.join(", "),
        values.join(", ")
    )
}

/// Selects the stored fields of the row with a rowid or key. The key's own collations apply: a row
/// that is equal by them is the one that conflicts.
pub(super) fn lookup_sql(name: &str, table: &Described) -> String {
    let columns: Vec<String> = table.fields.iter().map(|field| quoted(&field.name)).collect();
    format!(
        "SELECT {} FROM main.{} WHERE {}",
        columns.join(", "),
        quoted(name),
        table.is_identified()
    )
}

/// Whether two values are identical. A REAL column stores whole numbers as integers.
pub(in crate::recovery) fn is_same(stored: Value<'_>, given: Value<'_>) -> bool {
    match (stored, given) {
        (Value::Real(stored), Value::Real(given)) => stored.to_bits() == given.to_bits(),
        #[expect(clippy::cast_precision_loss, reason = "as SQLite reads a REAL column")]
        (Value::Real(stored), Value::Integer(given)) => stored == given as f64,
        // SQLite has no NaN: it reads one as NULL.
        (Value::Null, Value::Real(given)) => given.is_nan(),
        (stored, given) => stored == given,
    }
}

/// If the table refuses the row, only that row is lost. Any other error ends the salvage.
fn refusal(error: Error) -> Result<Inserted> {
    match error.class() {
        Class::Row => Ok(Inserted::Refused(error.message)),
        _ if error.errcode & 0xff == ffi::SQLITE_ERROR => Ok(Inserted::Refused(error.message)),
        _ => Err(error),
    }
}
