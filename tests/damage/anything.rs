//! Databases that nobody made by hand: from a seed, tables of any declared types, keys and
//! constraints, with whatever SQLite allows on top, and rows of any sizes and rowids.
//!
//! What SQLite refuses, a statement of the schema or a row, is left out: it refuses it in every run.

use std::ops::Range;

use rusqlite::types::{Null, Value};
use rusqlite::{Connection, Error, ErrorCode, Result, Statement, ToSql};

use super::random::Random;
use super::sound::{Format, Plan};

/// The database of a seed.
pub struct Anything {
    name: String,
    seed: u64,
    format: Format,
    /// Rows that [`Plan::fill`] is asked for.
    pub rows: i64,
    create: Vec<String>,
    change: Vec<String>,
    free: Vec<String>,
    virtual_tables: Vec<Virtual>,
}

/// A virtual table.
struct Virtual {
    insert: String,
    kind: VirtualKind,
    /// Of a full-text index: a count, and the query that gives it from the rows themselves.
    query: Option<(String, String)>,
}

enum VirtualKind {
    /// Two columns of text.
    FullText,
    /// An id, and two limits for each of so many dimensions; then, of some, a text.
    RTree { dimensions: usize, text: bool },
}

/// A column that rows give a value.
struct Column {
    name: String,
    declared: String,
    not_null: bool,
    rowid_alias: bool,
}

/// Which rowids a table's rows have.
#[derive(Clone, Copy)]
enum Rowids {
    Next,
    Sparse,
    Negative,
    Extreme,
    Any,
}

const TYPES: &[&str] = &[
    "",
    "",
    "INTEGER",
    "INTEGER",
    "INT",
    "BIGINT",
    "UNSIGNED BIG INT",
    "TEXT",
    "TEXT",
    "TEXT",
    "VARCHAR(20)",
    "NVARCHAR(100)",
    "CLOB",
    "BLOB",
    "REAL",
    "DOUBLE PRECISION",
    "FLOAT",
    "FLOATING POINT",
    "NUMERIC",
    "DECIMAL(10,5)",
    "BOOLEAN",
    "DATE",
    "DATETIME",
    "STRING",
    "JSON",
    "anything at all",
];

const STRICT_TYPES: &[&str] = &["INT", "INTEGER", "REAL", "TEXT", "TEXT", "BLOB", "ANY"];

const NAMES: &[&str] = &[
    "id",
    "name",
    "value",
    "a",
    "b",
    "c",
    "select",
    "a b",
    "größe",
    "x'y",
    "q\"r",
    "order",
    "[x]",
    "as",
    "n%",
    "_",
    "oid",
    "text",
    "Generated",
    "kind",
];

const WORDS: &[&str] = &[
    "common",
    "agent",
    "née",
    "查询",
    "🚀",
    "\n",
    "it's",
    "0x1f",
    "12",
    "-7",
    "1e3",
    "пока",
    "\t",
    "done.",
    "Größe",
    "null",
    "SELECT 1;",
    "x",
];

impl Anything {
    /// The database of `seed`.
    pub fn of(seed: u64) -> Self {
        let mut random = Random::named("anything", seed);
        let page_size = *random
            .pick(&[512, 512, 1024, 1024, 1024, 2048, 4096, 4096, 8192, 16_384, 32_768, 65_536]);
        let encoding = *random.pick(&["UTF-8", "UTF-8", "UTF-8", "UTF-16le", "UTF-16be"]);
        let auto_vacuum = *random.pick(&["NONE", "NONE", "NONE", "FULL", "INCREMENTAL"]);
        let reserved = *random.pick(&[0, 0, 0, 0, 0, 8, 12, 32]);
        let mut made = Self {
            name: format!("anything {seed}"),
            seed,
            format: Format { page_size, encoding, auto_vacuum, reserved },
            rows: [60, 120, 200, 300, 400, 900][random.below(6)],
            create: Vec::new(),
            change: Vec::new(),
            free: Vec::new(),
            virtual_tables: Vec::new(),
        };
        // Whatever a random table refuses, this one takes: every transaction changes something.
        made.create.push("CREATE TABLE t0(n, word TEXT)".into());
        let tables = 1 + random.below(8);
        for number in 1..=tables {
            made.table(number, &mut random);
        }
        if random.below(4) == 0 {
            made.virtual_table(&mut random);
        }
        made
    }

    fn table(&mut self, number: usize, random: &mut Random) {
        let odd = random.below(3) == 0;
        let name = quoted(&if odd {
            format!("{} {number}", random.pick(NAMES))
        } else {
            format!("t{number}")
        });
        let strict = random.below(7) == 0;
        let without_rowid = random.below(5) == 0;
        // Tables of one shape are told apart by nothing but their b-trees.
        let columns = match random.below(4) {
            0 => 1 + random.below(3),
            1 | 2 => 2 + random.below(6),
            _ => 1 + random.below(20),
        };
        let mut names = Vec::new();
        for column in 0..columns {
            let name = *random.pick(NAMES);
            let taken = names.iter().any(|other: &String| other.eq_ignore_ascii_case(name));
            names.push(if taken { format!("{name}{column}") } else { name.to_owned() });
        }
        let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
        let mut definitions: Vec<String> = Vec::new();
        let key = random.below(if without_rowid { 2 } else { 6 });
        let place = random.below(columns);
        for (column, name) in names.iter().enumerate() {
            let declared = *random.pick(if strict { STRICT_TYPES } else { TYPES });
            let mut definition = format!("{name} {declared}");
            match (without_rowid, key) {
                (true, 0) if column == place => definition += " PRIMARY KEY",
                (false, 0 | 1) if column == place => {
                    definition = format!("{name} INTEGER PRIMARY KEY");
                    definition += *random.pick(&["", "", " AUTOINCREMENT", " ASC"]);
                }
                (false, 2) if column == place => {
                    definition += *random.pick(&[" PRIMARY KEY", " PRIMARY KEY DESC"]);
                }
                _ => {
                    if column > 0 && random.below(14) == 0 {
                        let kind = if random.below(5) == 0 { "VIRTUAL" } else { "STORED" };
                        let of = &names[random.below(column)];
                        let expression = random.pick(&[
                            "length(_)",
                            "typeof(_)",
                            "substr(hex(_), 1, 9)",
                            "coalesce(_, 'none')",
                        ]);
                        let expression = expression.replace('_', of);
                        definition += &format!(" GENERATED ALWAYS AS ({expression}) {kind}");
                        definitions.push(definition);
                        continue;
                    }
                    constraints(&mut definition, name, random);
                }
            }
            definitions.push(definition);
        }
        let some = |random: &mut Random| {
            let count = 1 + random.below(3);
            let some = random.sample(&names, count);
            let parts = some.into_iter().map(|name| match random.below(6) {
                0 => format!("{name} DESC"),
                1 => format!("{name} COLLATE NOCASE"),
                _ => name,
            });
            parts.collect::<Vec<_>>().join(", ")
        };
        match (without_rowid, key) {
            (true, 1) | (false, 3) => definitions.push(format!("PRIMARY KEY({})", some(random))),
            (false, 4) => definitions.push(format!("UNIQUE({})", some(random))),
            _ => {}
        }
        if number > 1 && random.below(6) == 0 {
            let of = &names[random.below(columns)];
            definitions.push(format!("FOREIGN KEY({of}) REFERENCES t{}(id)", random.below(number)));
        }
        let options = match (without_rowid, strict) {
            (true, true) => " STRICT, WITHOUT ROWID",
            (true, false) => " WITHOUT ROWID",
            (false, true) => " STRICT",
            (false, false) => "",
        };
        self.create.push(format!("CREATE TABLE {name}({}){options}", definitions.join(", ")));
        let short = number.to_string();
        for index in 0..[0, 0, 1, 1, 2, 3][random.below(6)] {
            let unique = if random.below(6) == 0 { "UNIQUE " } else { "" };
            let mut on = some(random);
            if random.below(6) == 0 {
                on += &format!(", {}", expression(&names, random));
            }
            let partial = if random.below(5) == 0 {
                format!(" WHERE {}", condition(&names, random))
            } else {
                String::new()
            };
            self.create
                .push(format!("CREATE {unique}INDEX i{short}_{index} ON {name}({on}){partial}"));
        }
        if random.below(6) == 0 {
            let condition = condition(&names, random);
            self.create
                .push(format!("CREATE VIEW v{short} AS SELECT * FROM {name} WHERE {condition}"));
        }
        if random.below(8) == 0 {
            self.create.push(format!("CREATE TABLE log{short}(id INTEGER PRIMARY KEY, what TEXT)"));
            let of = &names[random.below(columns)];
            self.create.push(format!(
                "CREATE TRIGGER g{short} AFTER INSERT ON {name} BEGIN
                   INSERT INTO log{short}(what) VALUES ('new ' || typeof(new.{of}));
                 END"
            ));
        }
        self.changes(&name, &names, &short, random);
    }

    fn changes(&mut self, name: &str, names: &[String], short: &str, random: &mut Random) {
        for _ in 0..random.below(4) {
            let of = &names[random.below(names.len())];
            let every = 2 + random.below(9);
            self.change.push(match random.below(9) {
                0 => format!("ALTER TABLE {name} ADD COLUMN added{every} {}", random.pick(TYPES)),
                1 => format!("ALTER TABLE {name} ADD COLUMN also{every} TEXT DEFAULT 'some text'"),
                2 => format!("ALTER TABLE {name} ADD COLUMN more{every} INTEGER NOT NULL DEFAULT 5"),
                3 => format!("ALTER TABLE {name} DROP COLUMN {of}"),
                4 => format!("ALTER TABLE {name} RENAME COLUMN {of} TO \"renamed {every}\""),
                5 => format!("UPDATE OR IGNORE {name} SET {of} = NULL WHERE length({of}) % {every} = 1"),
                6 => format!("UPDATE OR IGNORE {name} SET {of} = {of} || ' and more' WHERE length({of}) % {every} = 1"),
                7 => format!("DELETE FROM {name} WHERE length({of}) % {every} = 1"),
                _ => format!("DELETE FROM {name} WHERE rowid % {every} = 1"),
            });
        }
        match random.below(16) {
            0 | 1 => self.free.push(format!("DELETE FROM {name}")),
            2 => self.free.push(format!("DROP TABLE {name}")),
            3..=5 => self.free.push(format!(
                "DELETE FROM {name} WHERE rowid IN (SELECT rowid FROM {name} LIMIT 200 OFFSET 20)"
            )),
            6 => self.free.push(format!("DROP INDEX i{short}_0")),
            7 => self.change.push(format!("ALTER TABLE {name} RENAME TO \"renamed {short}\"")),
            8 => self.free.push(format!("CREATE INDEX late{short} ON {name}({})", names[0])),
            _ => {}
        }
    }

    fn virtual_table(&mut self, random: &mut Random) {
        let full_text = |sql: &str| Virtual {
            insert: "INSERT INTO ft VALUES (?, ?)".into(),
            kind: VirtualKind::FullText,
            query: (!sql.contains("content=''")).then(|| {
                let found = "SELECT count(*) FROM ft WHERE ft MATCH 'common'";
                (found.into(), "SELECT count(*) FROM ft_content".into())
            }),
        };
        let sql = match random.below(3) {
            0 => {
                let options = random.pick(&[
                    "",
                    ", prefix='2 3'",
                    ", detail=none",
                    ", columnsize=0",
                    ", content=''",
                    ", tokenize='trigram'",
                ]);
                format!("CREATE VIRTUAL TABLE ft USING fts5(title, body{options})")
            }
            1 => {
                let options =
                    random.pick(&["", ", prefix='2'", ", tokenize=porter", ", notindexed=body"]);
                format!("CREATE VIRTUAL TABLE ft USING fts4(title, body{options})")
            }
            _ => {
                let dimensions = 1 + random.below(3);
                let text = random.below(2) == 0;
                let limits: Vec<String> =
                    (0..dimensions).map(|it| format!("low{it}, high{it}")).collect();
                let module = random.pick(&["rtree", "rtree_i32"]);
                let more = if text { ", +label TEXT" } else { "" };
                let values = vec!["?"; 1 + 2 * dimensions + usize::from(text)].join(", ");
                self.virtual_tables.push(Virtual {
                    insert: format!("INSERT INTO rt VALUES ({values})"),
                    kind: VirtualKind::RTree { dimensions, text },
                    query: None,
                });
                self.create.push(format!(
                    "CREATE VIRTUAL TABLE rt USING {module}(id, {}{more})",
                    limits.join(", ")
                ));
                self.change.push("DELETE FROM rt WHERE id % 7 = 3".into());
                return;
            }
        };
        self.virtual_tables.push(full_text(&sql));
        self.create.push(sql);
        self.change.push("DELETE FROM ft WHERE rowid % 7 = 3".into());
    }

    /// Inserts a row into a table, if it is one of those that get this one.
    fn insert(&self, connection: &Connection, table: &Table, row: i64) -> Result<()> {
        let mut of_table = Random::named(&table.name, self.seed);
        let every = *of_table.pick(&[1, 1, 1, 2, 3, 7, 40]);
        let rowids = *of_table.pick(&[
            Rowids::Next,
            Rowids::Next,
            Rowids::Next,
            Rowids::Next,
            Rowids::Sparse,
            Rowids::Negative,
            Rowids::Extreme,
            Rowids::Any,
        ]);
        if row % every != 0 {
            return Ok(());
        }
        let mut random = Random::named(&table.name, self.seed ^ (row as u64 + 1) << 20);
        let rowid = match rowids {
            Rowids::Next => None,
            Rowids::Sparse => Some(row * 1009 + random.below(1000) as i64),
            Rowids::Negative => Some(-row - 1),
            // After the greatest of all, AUTOINCREMENT has none to give.
            Rowids::Extreme => {
                Some([i64::MAX - 10_000 - row, i64::MIN + row, row][random.below(3)])
            }
            Rowids::Any => Some(random.next() as i64),
        };
        let mut columns = Vec::new();
        let mut values = Vec::new();
        let alias = table.columns.iter().any(|column| column.rowid_alias);
        if let Some(rowid) = rowid.filter(|_| table.has_rowid && !alias) {
            columns.push("_rowid_".to_owned());
            values.push(Value::Integer(rowid));
        }
        for column in &table.columns {
            // Some leave what has a default to it.
            if random.below(60) == 0 {
                continue;
            }
            let mut style = Random::named(&column.name, self.seed);
            columns.push(quoted(&column.name));
            values.push(match rowid {
                Some(rowid) if column.rowid_alias => Value::Integer(rowid),
                None if column.rowid_alias => Value::Null,
                _ => self.value(column, &mut style, &mut random, row),
            });
        }
        if columns.is_empty() {
            return Ok(());
        }
        let places = vec!["?"; columns.len()].join(", ");
        let name = quoted(&table.name);
        let sql = format!("INSERT OR IGNORE INTO {name}({}) VALUES ({places})", columns.join(", "));
        let mut statement = connection.prepare(&sql)?;
        statement.execute(rusqlite::params_from_iter(values)).map(drop).or_else(refused)
    }

    /// A value of a column: `style` is the same for all of the column's, `random` is the row's.
    fn value(&self, column: &Column, style: &mut Random, random: &mut Random, row: i64) -> Value {
        let nulls = [0, 0, 1, 4, 9][style.below(5)];
        let odd = [0, 0, 0, 0, 3][style.below(5)];
        if !column.not_null && random.below(10) < nulls {
            return Value::Null;
        }
        let declared = column.declared.to_ascii_uppercase();
        let kind = if random.below(100) < odd || declared.is_empty() || declared == "ANY" {
            // One kind for all rows of a column without a type, in most.
            let kind = style.below(4);
            if random.below(8) == 0 { random.below(4) } else { kind }
        } else if declared.contains("INT") || declared == "BOOLEAN" {
            0
        } else if ["CHAR", "CLOB", "TEXT", "JSON", "DATE"].iter().any(|it| declared.contains(it)) {
            1
        } else if declared == "BLOB" {
            2
        } else {
            3
        };
        let size = match style.below(6) {
            0 => 3,
            1..=3 => 20,
            4 => 90,
            _ => self.format.page_size.min(2048) / 2,
        };
        // Some are longer than a page, or than several.
        let size = match random.below(400) {
            0 => self.format.page_size.min(16_384) * (1 + random.below(4)),
            1 => self.format.page_size,
            _ => size,
        };
        match kind {
            0 => Value::Integer(match style.below(6) {
                0 => row,
                1 => random.below(2) as i64,
                2 => random.below(1000) as i64,
                3 => row * 1_000_003 % 65_537,
                4 => 1_790_000_000_000 + row * 1000 + random.below(1000) as i64,
                _ => random.next() as i64 >> random.below(64),
            }),
            1 => {
                let mut text = String::new();
                if random.below(12) > 0 {
                    text += &format!("{row} ");
                    while text.len() < size {
                        text += random.pick::<&str>(WORDS);
                        text.push(' ');
                        if random.below(6) == 0 {
                            break;
                        }
                    }
                }
                if random.below(300) == 0 {
                    text.push_str("\0behind");
                }
                Value::Text(text)
            }
            2 => {
                let count = random.below(size + 1);
                Value::Blob(if random.below(10) == 0 {
                    vec![0; count]
                } else {
                    random.bytes(count)
                })
            }
            _ => match style.below(3) {
                0 => Value::Real(row as f64 / 4.0),
                1 => Value::Real(random.next() as f64 / 1e9),
                _ => Value::Real(random.below(100) as f64),
            },
        }
    }

    fn insert_virtual(&self, connection: &Connection, table: &Virtual, row: i64) -> Result<()> {
        let mut random = Random::named("virtual", self.seed ^ (row as u64 + 1) << 20);
        let mut statement = connection.prepare(&table.insert)?;
        let mut values: Vec<Box<dyn ToSql>> = Vec::new();
        match table.kind {
            VirtualKind::FullText => {
                values.push(Box::new(format!("common {row}")));
                let words = (0..random.below(30))
                    .map(|_| *random.pick(&["one", "two", "née", "查询", "x1"]));
                let words: Vec<&str> = words.collect();
                match random.below(9) {
                    0 => values.push(Box::new(Null)),
                    _ => values.push(Box::new(words.join(" "))),
                }
            }
            VirtualKind::RTree { dimensions, text } => {
                values.push(Box::new(row));
                for _ in 0..dimensions {
                    let low = random.below(5000) as i64;
                    values.push(Box::new(low));
                    values.push(Box::new(low + 7));
                }
                if text {
                    values.push(Box::new(format!("place {row}")));
                }
            }
        }
        execute(&mut statement, values)
    }

    /// Carries out what SQLite takes of some statements.
    fn run(&self, connection: &Connection, statements: &[String]) -> Result<()> {
        for sql in statements {
            connection.execute_batch(sql).or_else(|error| match error {
                Error::SqliteFailure(error, _) if error.code == ErrorCode::Unknown => Ok(()),
                Error::SqlInputError { .. } => Ok(()),
                error => refused(error),
            })?;
        }
        Ok(())
    }
}

impl Plan for Anything {
    fn name(&self) -> &str {
        &self.name
    }

    fn format(&self) -> Format {
        Format { ..self.format }
    }

    fn create(&self, connection: &Connection) -> Result<()> {
        // Rows that refer to none are a part of it.
        self.run(connection, &self.create)
    }

    fn fill(&self, connection: &Connection, rows: Range<i64>) -> Result<()> {
        let tables = Table::all(connection)?;
        for row in rows {
            for table in &tables {
                self.insert(connection, table, row)?;
            }
            for table in &self.virtual_tables {
                self.insert_virtual(connection, table, row)?;
            }
        }
        Ok(())
    }

    fn change(&self, connection: &Connection) -> Result<()> {
        self.run(connection, &self.change)
    }

    fn free(&self, connection: &Connection) -> Result<()> {
        self.run(connection, &self.free)
    }

    fn queries(&self) -> Vec<(String, String)> {
        self.virtual_tables.iter().filter_map(|table| table.query.clone()).collect()
    }
}

/// A table as it is by now.
struct Table {
    name: String,
    has_rowid: bool,
    columns: Vec<Column>,
}

impl Table {
    fn all(connection: &Connection) -> Result<Vec<Self>> {
        let mut list = connection.prepare(
            "SELECT name, wr FROM pragma_table_list WHERE schema = 'main' AND type = 'table'
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE 'log%' ORDER BY name",
        )?;
        let mut tables = Vec::new();
        let mut found = list.query([])?;
        while let Some(row) = found.next()? {
            let (name, without): (String, bool) = (row.get(0)?, row.get(1)?);
            let mut columns = connection.prepare(
                "SELECT name, type, \"notnull\", pk, (SELECT count(*) FROM pragma_table_info(?1) WHERE pk > 0)
                 FROM pragma_table_xinfo(?1) WHERE hidden = 0 ORDER BY cid",
            )?;
            let columns = columns.query_map([&name], |row| {
                let declared: String = row.get(1)?;
                let (key, keys): (bool, i64) = (row.get(3)?, row.get(4)?);
                Ok(Column {
                    name: row.get(0)?,
                    rowid_alias: declared == "INTEGER" && key && keys == 1 && !without,
                    declared,
                    not_null: row.get(2)?,
                })
            })?;
            tables.push(Self {
                columns: columns.collect::<Result<_>>()?,
                name,
                has_rowid: !without,
            });
        }
        Ok(tables)
    }
}

fn constraints(definition: &mut String, name: &str, random: &mut Random) {
    if random.below(5) == 0 {
        *definition += " NOT NULL";
    }
    if random.below(9) == 0 {
        *definition +=
            *random.pick(&[" DEFAULT 0", " DEFAULT 'none'", " DEFAULT (1 + 1)", " DEFAULT NULL"]);
    }
    if random.below(16) == 0 {
        *definition += " UNIQUE";
    }
    if random.below(12) == 0 {
        *definition += *random.pick(&[" COLLATE NOCASE", " COLLATE RTRIM"]);
    }
    if random.below(12) == 0 {
        *definition += &format!(" CHECK (length({name}) <> 5)");
    }
}

fn expression(names: &[String], random: &mut Random) -> String {
    let of = random.pick(names);
    random.pick(&["length(_)", "typeof(_)", "substr(_, 1, 3)", "coalesce(_, 0)"]).replace('_', of)
}

fn condition(names: &[String], random: &mut Random) -> String {
    let of = random.pick(names);
    random
        .pick(&["_ IS NOT NULL", "_ > 5", "typeof(_) = 'integer'", "length(_) > 10"])
        .replace('_', of)
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn execute(statement: &mut Statement<'_>, values: Vec<Box<dyn ToSql>>) -> Result<()> {
    statement.execute(rusqlite::params_from_iter(values)).map(drop).or_else(refused)
}

/// A refusal of a row is no error.
fn refused(error: Error) -> Result<()> {
    match &error {
        Error::SqliteFailure(code, _)
            if matches!(code.code, ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) =>
        {
            Ok(())
        }
        _ => Err(error),
    }
}
