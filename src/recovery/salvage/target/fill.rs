//! Puts records into a table as they are: every value exactly, the rowid too, or not at all.

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
    /// The table's name for now.
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

    /// Inserts a record; one that is older than a column gets what SQLite reads there.
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
            // Bound as bytes and cast, which keeps what binding it as text would not.
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

    /// Inserts a record that is known, but for its field number `odd` of which there is the
    /// content; not if a generated column is not computed to what the record has of it.
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

    /// Whether an error says that the rowid or the WITHOUT ROWID key is taken. The primary key of
    /// a rowid table that is not the rowid's alias is a constraint like any other.
    fn is_duplicate(&self, error: &Error) -> bool {
        match error.errcode {
            ffi::SQLITE_CONSTRAINT_ROWID => true,
            ffi::SQLITE_CONSTRAINT_PRIMARYKEY => {
                self.table.without_rowid || self.table.rowid_alias.is_some()
            }
            _ => false,
        }
    }

    /// Whether the row with that rowid or key has the same values. Of a row from before a column
    /// was added only the fields that it has are compared.
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
            // A key that cannot be bound as it is cannot be looked up: it counts as another.
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

/// What is bound: the rowid, then the fields that are not derived.
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

/// `OR ABORT` overrides what the table's own constraints ask for: one could replace or roll back.
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

/// The stored fields of a row that is told by its rowid or key. A key's own collations apply: a
/// row that they call the same is the one in the way.
pub(super) fn lookup_sql(name: &str, table: &Described) -> String {
    let columns: Vec<String> = table.fields.iter().map(|field| quoted(&field.name)).collect();
    format!(
        "SELECT {} FROM main.{} WHERE {}",
        columns.join(", "),
        quoted(name),
        table.is_identified()
    )
}

/// The same value byte for byte. A REAL column's whole numbers are stored as integers.
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

/// A row that the table does not take costs that row; anything else ends the salvage.
fn refusal(error: Error) -> Result<Inserted> {
    match error.class() {
        Class::Row => Ok(Inserted::Refused(error.message)),
        _ if error.errcode & 0xff == ffi::SQLITE_ERROR => Ok(Inserted::Refused(error.message)),
        _ => Err(error),
    }
}
