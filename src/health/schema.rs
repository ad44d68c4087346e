//! The schema of a checked database: the table or index of each b-tree.
//!
//! Read from `sqlite_schema` itself, so that it can be had where SQLite refuses the schema as a
//! whole only late. Called on the thread of the check.

use std::collections::HashSet;

use rusqlite::types::ValueRef;

use crate::engine::{Connection, Error, Result};

/// The table that holds the schema. Its root is page 1.
pub(super) const SCHEMA_TABLE: &str = "sqlite_schema";

/// One entry of the schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Object {
    /// `table`, `index`, `view` or `trigger`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// The table that it belongs to; the own name of a table.
    pub table: String,
    /// Root page of its b-tree; 0 if it has no b-tree.
    pub root: u32,
    /// Its `CREATE` statement; empty for an index that SQLite made.
    pub sql: String,
}

impl Object {
    /// Whether it is a virtual table.
    pub fn is_virtual(&self) -> bool {
        self.kind == "table" && self.root == 0
    }
}

/// All entries, the schema's own table first.
#[derive(Debug, Default)]
pub(super) struct Schema {
    objects: Vec<Object>,
}

impl Schema {
    /// A schema of these entries.
    pub fn new(entries: impl IntoIterator<Item = Object>) -> Self {
        let itself = Object {
            kind: "table".to_owned(),
            name: SCHEMA_TABLE.to_owned(),
            table: SCHEMA_TABLE.to_owned(),
            root: 1,
            sql: String::new(),
        };
        Self { objects: std::iter::once(itself).chain(entries).collect() }
    }

    /// The schema that `connection` sees.
    ///
    /// # Errors
    /// SQLite's: `SQLITE_CORRUPT` if the schema is malformed.
    pub fn read(connection: &Connection) -> Result<Self> {
        let at = |error: rusqlite::Error| Error::from(error).at(connection.path());
        let mut statement = connection
            .sql()?
            .prepare("SELECT type, name, tbl_name, rootpage, sql FROM main.sqlite_schema")
            .map_err(at)?;
        let mut rows = statement.query([]).map_err(at)?;
        let mut entries = Vec::new();
        while let Some(row) = rows.next().map_err(at)? {
            let text = |column: usize| match row.get_ref(column) {
                Ok(ValueRef::Text(text)) => String::from_utf8_lossy(text).into_owned(),
                _ => String::new(),
            };
            let root = match row.get_ref(3) {
                Ok(ValueRef::Integer(root)) => u32::try_from(root).unwrap_or(0),
                _ => 0,
            };
            let (kind, name, table, sql) = (text(0), text(1), text(2), text(4));
            entries.push(Object { kind, name, table, root, sql });
        }
        Ok(Self::new(entries))
    }

    /// Tables with a b-tree, the schema's own first.
    pub fn tables(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| object.kind == "table" && object.root != 0)
    }

    /// Virtual tables.
    pub fn virtual_tables(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| object.is_virtual())
    }

    /// Indexes.
    pub fn indexes(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().filter(|object| object.kind == "index" && object.root != 0)
    }

    /// Indexes of this table.
    pub fn indexes_of(&self, table: &str) -> impl Iterator<Item = &Object> {
        self.indexes().filter(move |index| index.table == table)
    }

    /// The statements of these tables, and of their indexes.
    pub fn statements_of(&self, tables: &HashSet<String>) -> impl Iterator<Item = &str> {
        self.objects
            .iter()
            .filter(|it| matches!(it.kind.as_str(), "table" | "index"))
            .filter(|it| tables.contains(&it.table))
            .map(|it| it.sql.as_str())
    }

    /// The entry whose b-tree has this root.
    pub fn by_root(&self, root: u32) -> Option<&Object> {
        self.objects.iter().find(|object| object.root == root && root != 0)
    }

    /// The index of this name.
    pub fn index(&self, name: &str) -> Option<&Object> {
        self.objects.iter().find(|object| object.kind == "index" && object.name == name)
    }

    /// The table, with or without a b-tree, whose name `text` starts with, where what follows the
    /// name satisfies `rest`. The longest, because names may hold any character.
    pub fn table_leading(&self, text: &str, rest: impl Fn(&str) -> bool) -> Option<&Object> {
        self.objects
            .iter()
            .filter(|object| object.kind == "table")
            .filter(|object| text.strip_prefix(object.name.as_str()).is_some_and(&rest))
            .max_by_key(|object| object.name.len())
    }
}
