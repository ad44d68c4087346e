//! The databases: schemas and rows of every kind. Row `i` of a schema is the same in every run.

use std::ops::Range;

use rusqlite::types::Null;
use rusqlite::{Connection, Result, params};

use super::random::Random;
use super::sound::{Format, Plan};

/// A kind of database.
pub struct Schema {
    pub name: &'static str,
    pub page_size: usize,
    /// `PRAGMA encoding`.
    pub encoding: &'static str,
    /// `PRAGMA auto_vacuum`.
    pub auto_vacuum: &'static str,
    /// Rows that [`Part::fill`] is asked for.
    pub rows: i64,
    pub parts: &'static [Part],
}

/// Some tables of a schema.
pub struct Part {
    pub create: &'static str,
    /// Inserts the rows of a range; the last argument is the page size.
    pub fill: fn(&Connection, Range<i64>, usize) -> Result<()>,
    /// Carried out once half of the rows are there: columns added, rows updated and deleted.
    pub change: &'static str,
    /// Carried out before the last twentieth of the rows comes.
    pub free: &'static str,
    /// A count that a query of a full-text index must give, and the query that gives it from the
    /// rows themselves.
    pub queries: &'static [(&'static str, &'static str)],
}

impl Plan for Schema {
    fn name(&self) -> &str {
        self.name
    }

    fn format(&self) -> Format {
        let Self { page_size, encoding, auto_vacuum, .. } = *self;
        Format { page_size, encoding, auto_vacuum, reserved: 0 }
    }

    fn create(&self, connection: &Connection) -> Result<()> {
        self.parts.iter().try_for_each(|part| connection.execute_batch(part.create))
    }

    fn fill(&self, connection: &Connection, rows: Range<i64>) -> Result<()> {
        let part = |part: &Part| (part.fill)(connection, rows.clone(), self.page_size);
        self.parts.iter().try_for_each(part)
    }

    fn change(&self, connection: &Connection) -> Result<()> {
        self.parts.iter().try_for_each(|part| connection.execute_batch(part.change))
    }

    fn free(&self, connection: &Connection) -> Result<()> {
        self.parts.iter().try_for_each(|part| connection.execute_batch(part.free))
    }

    fn queries(&self) -> Vec<(String, String)> {
        let queries = self.parts.iter().flat_map(|part| part.queries);
        queries.map(|(count, wanted)| (count.to_string(), wanted.to_string())).collect()
    }
}

/// As [`SCHEMAS`], with rows of an orchestrator's log: the database that this is all about.
pub const FUSION: Schema = schema("fusion", 4096, 2400, &[AGENT_LOG]);

/// Every kind.
pub const SCHEMAS: &[Schema] = &[
    FUSION,
    schema("rowids", 1024, 700, &[ROWIDS]),
    schema("without_rowid", 1024, 700, &[WITHOUT_ROWID]),
    schema("generated", 1024, 900, &[GENERATED]),
    schema("stored", 1024, 900, &[STORED]),
    schema("overflow", 1024, 160, &[DOCUMENTS]),
    schema("wide", 2048, 500, &[WIDE]),
    schema("twins", 1024, 1400, &[TWINS]),
    schema("full_text", 2048, 500, &[FULL_TEXT]),
    schema("free_pages", 1024, 1000, &[DELETED, ROWIDS]),
    schema("many_tables", 1024, 600, &[MANY]),
    Schema { encoding: "UTF-16le", ..schema("utf_16_le", 2048, 400, MIXED) },
    Schema { encoding: "UTF-16be", ..schema("utf_16_be", 2048, 400, MIXED) },
    Schema { auto_vacuum: "FULL", ..schema("auto_vacuum", 1024, 500, MIXED) },
    Schema {
        auto_vacuum: "INCREMENTAL",
        ..schema("incremental_vacuum", 512, 500, &[DELETED, ROWIDS])
    },
    schema("pages_of_512", 512, 250, MIXED),
    schema("pages_of_8192", 8192, 400, MIXED),
    schema("pages_of_16384", 16_384, 500, MIXED),
    schema("pages_of_32768", 32_768, 700, MIXED),
    schema("pages_of_65536", 65_536, 1000, MIXED),
];

/// What holds for every schema as a whole.
pub const USER_VERSION: i32 = 57;
/// `PRAGMA application_id`.
pub const APPLICATION_ID: i32 = 0x4675_7369;

const MIXED: &[Part] = &[ROWIDS, WITHOUT_ROWID, STORED, DOCUMENTS, FULL_TEXT];

const fn schema(name: &'static str, page_size: usize, rows: i64, parts: &'static [Part]) -> Schema {
    Schema { name, page_size, encoding: "UTF-8", auto_vacuum: "NONE", rows, parts }
}

/// `count` words, as an agent's log has them, some beyond Latin-1.
fn words(random: &mut Random, count: usize) -> String {
    const WORDS: &[&str] = &[
        "the",
        "agent",
        "writes",
        "packages/core/src/store.ts",
        "reviewed",
        "merge",
        "fix(desktop):",
        "née",
        "token",
        "error",
        "M\tREADME.md",
        "verified",
        "查询",
        "dashboard",
        "✓ 312 passed",
        "git show",
        "\n",
        "Größe",
        "retry",
        "0x1f",
        "🚀",
        "task",
        "SELECT 1;",
        "it's",
        "plan",
        "пока",
        "worktree",
        "done.",
    ];
    let mut text = String::new();
    for _ in 0..count {
        text.push_str(random.pick::<&str>(WORDS));
        text.push(' ');
    }
    text
}

const AGENT_LOG: Part = Part {
    create: include_str!("../../examples/fusion-schema.sql"),
    fill: |connection, rows, _| {
        let mut task = connection.prepare(
            "INSERT INTO tasks(id, title, description, createdAt, updatedAt) VALUES (?, ?, ?, ?, ?)",
        )?;
        let mut entry = connection.prepare(
            "INSERT INTO agentLogEntries(taskId, timestamp, text, type, detail, agent) VALUES (?, ?, ?, ?, ?, ?)",
        )?;
        let mut activity = connection
            .prepare("INSERT INTO activityLog(id, timestamp, type, taskId, details) VALUES (?, ?, ?, ?, ?)")?;
        for i in rows {
            let mut random = Random::named("agent log", i as u64);
            let of = format!("FN-{:04}", i / 40);
            let at = format!("2026-07-{:02}T{:02}:{:02}:{:02}.204Z", 1 + i / 9000 % 30, i / 3600 % 24, i / 60 % 60, i % 60);
            if i % 40 == 0 {
                let title = format!("common {}", words(&mut random, 6));
                task.execute(params![of, title, words(&mut random, 40), at, at])?;
            }
            let kind = *random.pick(&["text", "thinking", "tool", "tool_result", "tool_error"]);
            let agent = *random.pick(&["triage", "executor", "reviewer", "merger"]);
            let detail = (kind.starts_with("tool")).then(|| {
                let count = 4 + random.below(12);
                words(&mut random, count)
            });
            let count = 1 + random.below(if i % 50 == 0 { 900 } else { 24 });
            entry.execute(params![of, at, words(&mut random, count), kind, detail, agent])?;
            if i % 10 == 0 {
                let id = format!("{:016x}", random.next());
                activity.execute(params![id, at, kind, of, words(&mut random, 10)])?;
            }
        }
        Ok(())
    },
    change: "UPDATE tasks SET title = title || ' again', updatedAt = '2026-08-01T00:00:00.000Z' WHERE rowid % 7 = 3;
        DELETE FROM agentLogEntries WHERE id % 97 = 13;
        DELETE FROM activityLog WHERE rowid % 31 = 5;
        UPDATE __meta SET value = '1783000000000' WHERE key = 'lastModified';",
    free: "",
    queries: &[(
        "SELECT count(*) FROM tasks_fts WHERE tasks_fts MATCH 'common'",
        "SELECT count(*) FROM tasks WHERE title LIKE 'common%'",
    )],
};

const ROWIDS: Part = Part {
    create: "CREATE TABLE counters(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, value REAL);
        CREATE UNIQUE INDEX counters_name ON counters(name);
        CREATE TABLE plain(a, b TEXT, c BLOB, d INTEGER);
        CREATE INDEX plain_b ON plain(b COLLATE NOCASE, d DESC);
        CREATE INDEX plain_some ON plain(d) WHERE d > 0;
        CREATE TABLE \"signed\"(\"the id\" INTEGER PRIMARY KEY, v NUMERIC CHECK (v IS NOT 'no'));
        CREATE TABLE audit(id INTEGER PRIMARY KEY, what TEXT, at INTEGER DEFAULT 7);
        CREATE VIEW high AS SELECT name, value FROM counters WHERE value > 0.5;
        CREATE TRIGGER counters_ai AFTER INSERT ON counters BEGIN
          INSERT INTO audit(what) VALUES ('new ' || new.name);
        END;
        CREATE TRIGGER high_ii INSTEAD OF INSERT ON high BEGIN
          INSERT INTO counters(name, value) VALUES (new.name, new.value);
        END;",
    fill: |connection, rows, _| {
        let mut counter = connection.prepare("INSERT INTO counters(name, value) VALUES (?, ?)")?;
        let mut plain = connection.prepare("INSERT INTO plain(a, b, c, d) VALUES (?, ?, ?, ?)")?;
        let mut signed = connection.prepare("INSERT INTO \"signed\" VALUES (?, ?)")?;
        for i in rows {
            let mut random = Random::named("rowids", i as u64);
            counter.execute(params![format!("counter {i}"), random.next() as f64 / u64::MAX as f64])?;
            let (text, size) = (words(&mut random, 8), random.below(60));
let number = random.next() as i64;
            let text = if i % 10 == 0 { format!("before\0after NUL {i}") } else { format!("{text}{i}") };
            let blob = random.bytes(size);
            match i % 5 {
                0 => plain.execute(params![i, text, blob, number])?,
                1 => plain.execute(params![i as f64 / 3.0, text, blob, i])?,
                2 => plain.execute(params![blob, text, Null, Null])?,
                3 => plain.execute(params![text, "", "text in a BLOB column", -i])?,
                _ => plain.execute(params![Null, text, vec![0_u8; size], i64::MIN + i])?,
            };
            let rowid = match i % 4 {
                0 => -i - 1,
                1 => i64::MAX - i,
                2 => i64::MIN + i,
                _ => i << (i % 40),
            };
            signed.execute(params![rowid, (i % 3 > 0).then_some(number >> (i % 64))])?;
        }
        Ok(())
    },
    change: "ALTER TABLE audit ADD COLUMN note TEXT DEFAULT 'none';
        DELETE FROM counters WHERE id % 19 = 7;
        UPDATE plain SET b = b || ' and more' WHERE rowid % 23 = 11;
        DELETE FROM \"signed\" WHERE \"the id\" % 29 = 3;",
    free: "",
    queries: &[],
};

const WITHOUT_ROWID: Part = Part {
    create: "CREATE TABLE settings(name TEXT PRIMARY KEY, value BLOB, size INTEGER) WITHOUT ROWID;
        CREATE TABLE edges(src INTEGER, label TEXT, dst INTEGER, weight REAL, PRIMARY KEY(dst, src)) WITHOUT ROWID;
        CREATE INDEX edges_label ON edges(label, weight);
        CREATE INDEX settings_size ON settings(size);",
    fill: |connection, rows, _| {
        let mut setting = connection.prepare("INSERT INTO settings VALUES (?, ?, ?)")?;
        let mut edge = connection.prepare("INSERT INTO edges(src, label, dst, weight) VALUES (?, ?, ?, ?)")?;
        for i in rows {
            let mut random = Random::named("without rowid", i as u64);
            let size = random.below(if i % 40 == 0 { 3000 } else { 80 });
            setting.execute(params![format!("{:04x}/{i}", random.below(65_536)), random.bytes(size), size as i64])?;
            let far = i * 7919 % 10_007;
            edge.execute(params![i / 3, words(&mut random, 5), far, far as f64 / 8.0])?;
        }
        Ok(())
    },
    change: "DELETE FROM edges WHERE src % 17 = 4;
        UPDATE settings SET value = zeroblob(30), size = 30 WHERE size % 13 = 5;",
    free: "",
    queries: &[],
};

/// Apart from the others: of a schema with virtual columns `.recover` makes nothing at all.
const GENERATED: Part = Part {
    create: "CREATE TABLE boxes(
          id INTEGER PRIMARY KEY, w INTEGER, h INTEGER,
          area INTEGER GENERATED ALWAYS AS (w * h) VIRTUAL,
          label TEXT AS ('box ' || w || 'x' || h),
          note TEXT, twice AS (area * 2));
        CREATE INDEX boxes_area ON boxes(area);
        CREATE INDEX boxes_label ON boxes(label);",
    fill: |connection, rows, _| {
        let mut row = connection.prepare("INSERT INTO boxes(w, h, note) VALUES (?, ?, ?)")?;
        for i in rows {
            let mut random = Random::named("generated", i as u64);
            let (w, h) = (random.below(500) as i64, random.below(70_000) as i64);
            let count = random.below(14);
            row.execute(params![w, h, (i % 6 > 0).then(|| words(&mut random, count))])?;
        }
        Ok(())
    },
    change: "DELETE FROM boxes WHERE id % 37 = 1; UPDATE boxes SET w = w + 1000 WHERE id % 41 = 2;",
    free: "",
    queries: &[],
};

const STORED: Part = Part {
    create: "CREATE TABLE crates(
          id INTEGER PRIMARY KEY, w INTEGER, area INTEGER AS (w * w) STORED,
          note TEXT, label TEXT AS ('crate ' || w) STORED, half REAL AS (w / 2.0));
        CREATE INDEX crates_label ON crates(label);",
    fill: |connection, rows, _| {
        let mut row = connection.prepare("INSERT INTO crates(w, note) VALUES (?, ?)")?;
        for i in rows {
            let mut random = Random::named("stored", i as u64);
            row.execute(params![random.below(9000) as i64, words(&mut random, 4)])?;
        }
        Ok(())
    },
    change: "DELETE FROM crates WHERE id % 27 = 1; UPDATE crates SET w = w + 1000 WHERE id % 31 = 2;",
    free: "",
    queries: &[],
};

const DOCUMENTS: Part = Part {
    create: "CREATE TABLE documents(id INTEGER PRIMARY KEY, title TEXT NOT NULL, body TEXT, attachment BLOB);
        CREATE INDEX documents_title ON documents(title);",
    fill: |connection, rows, page_size| {
        let mut row = connection.prepare("INSERT INTO documents(title, body, attachment) VALUES (?, ?, ?)")?;
        for i in rows.step_by(2) {
            let mut random = Random::named("documents", i as u64);
            // From a row that just fits to chains of seven pages; large pages get few long ones.
            let most = if page_size <= 2048 || i % 32 == 0 { page_size * 6 } else { 900 };
            let (text, blob) = (random.below(most / 16 + 2), random.below(most / 2 + 40));
            row.execute(params![format!("document {i}"), words(&mut random, text), random.bytes(blob)])?;
        }
        Ok(())
    },
    change: "DELETE FROM documents WHERE id % 11 = 9; UPDATE documents SET body = 'short' WHERE id % 13 = 6;",
    free: "",
    queries: &[],
};

const WIDE: Part = Part {
    create: "CREATE TABLE wide(
          c00 INTEGER, c01 TEXT, c02 REAL, c03 BLOB, c04 NUMERIC, c05, c06 TEXT, c07 TEXT, c08 INTEGER, c09 REAL,
          c10 INTEGER, c11 TEXT, c12 REAL, c13 BLOB, c14 NUMERIC, c15, c16 TEXT, c17 TEXT, c18 INTEGER, c19 REAL,
          c20 INTEGER, c21 TEXT, c22 REAL, c23 BLOB, c24 NUMERIC, c25, c26 TEXT, c27 TEXT, c28 INTEGER, c29 REAL,
          c30 INTEGER, c31 TEXT, c32 REAL, c33 BLOB, c34 NUMERIC, c35, c36 TEXT, c37 TEXT, c38 INTEGER, c39 REAL,
          c40 INTEGER, c41 TEXT, c42 REAL, c43 BLOB, c44 NUMERIC, c45, c46 TEXT, c47 TEXT, c48 INTEGER, c49 REAL);
        CREATE INDEX wide_text ON wide(c01, c11);
        CREATE TABLE narrow(x);",
    fill: |connection, rows, _| {
        let names: Vec<String> = (0..50).map(|column| format!("c{column:02}")).collect();
        let values = vec!["?"; 50].join(", ");
        let names = names.join(", ");
        let mut wide =
            connection.prepare(&format!("INSERT INTO wide({names}) VALUES ({values})"))?;
        let mut narrow = connection.prepare("INSERT INTO narrow VALUES (?)")?;
        for i in rows {
            let mut random = Random::named("wide", i as u64);
            for column in 0..50 {
                let value = random.next() as i64;
                let place = column + 1;
                match (random.below(9), column % 10) {
                    (0, 1 | 6 | 7) => wide.raw_bind_parameter(place, words(&mut random, 3))?,
                    (0, 3) => wide.raw_bind_parameter(place, random.bytes(9))?,
                    (0, 2 | 9) => wide.raw_bind_parameter(place, value as f64 * 1e-9)?,
                    (0, _) => wide.raw_bind_parameter(place, value >> (value & 63))?,
                    _ => wide.raw_bind_parameter(place, Null)?,
                }
            }
            wide.raw_execute()?;
            narrow.execute([i % 3])?;
        }
        Ok(())
    },
    change: "ALTER TABLE wide ADD COLUMN c50 TEXT;
        ALTER TABLE wide ADD COLUMN c51 INTEGER NOT NULL DEFAULT 5;
        DELETE FROM wide WHERE rowid % 43 = 8;",
    free: "",
    queries: &[],
};

/// Tables of one shape, each with rowids from 1 on: only their b-trees tell them apart.
const TWINS: Part = Part {
    create: "CREATE TABLE queue_a(id INTEGER PRIMARY KEY, payload TEXT NOT NULL, state INTEGER);
        CREATE TABLE queue_b(id INTEGER PRIMARY KEY, payload TEXT NOT NULL, state INTEGER);
        CREATE TABLE queue_c(id INTEGER PRIMARY KEY AUTOINCREMENT, payload TEXT NOT NULL, state INTEGER);
        CREATE TABLE queue_d(id INTEGER PRIMARY KEY, payload TEXT NOT NULL, state INTEGER);
        CREATE INDEX queue_a_state ON queue_a(state);",
    fill: |connection, rows, _| {
        let insert = |table: &str| {
            connection.prepare(&format!("INSERT INTO queue_{table}(payload, state) VALUES (?, ?)"))
        };
        let mut tables = [insert("a")?, insert("b")?, insert("c")?, insert("d")?];
        for i in rows {
            let mut random = Random::named("twins", i as u64);
            // The first is twice as long as the others.
            let table = [0, 1, 0, 2, 3][(i % 5) as usize];
            let count = 2 + random.below(6 + 6 * table);
            let payload = format!("{} {i} {}", ["a", "b", "c", "d"][table], words(&mut random, count));
            tables[table].execute(params![payload, random.below(4) as i64])?;
        }
        Ok(())
    },
    change: "DELETE FROM queue_b WHERE id % 31 = 2; UPDATE queue_d SET state = 9 WHERE id % 10 = 3;",
    free: "",
    queries: &[],
};

const FULL_TEXT: Part = Part {
    create: "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, body TEXT);
        CREATE VIRTUAL TABLE notes_fts USING fts5(title, body, content='notes', content_rowid='id');
        CREATE TRIGGER notes_ai AFTER INSERT ON notes BEGIN
          INSERT INTO notes_fts(rowid, title, body) VALUES (new.id, new.title, new.body);
        END;
        CREATE TRIGGER notes_ad AFTER DELETE ON notes BEGIN
          INSERT INTO notes_fts(notes_fts, rowid, title, body) VALUES ('delete', old.id, old.title, old.body);
        END;
        CREATE VIRTUAL TABLE pages USING fts5(title, body, tokenize = 'porter unicode61');
        CREATE VIRTUAL TABLE mail USING fts4(subject, body);
        CREATE VIRTUAL TABLE places USING rtree(id, minX, maxX, minY, maxY);",
    fill: |connection, rows, _| {
        let mut note = connection.prepare("INSERT INTO notes(title, body) VALUES (?, ?)")?;
        let mut page = connection.prepare("INSERT INTO pages(title, body) VALUES (?, ?)")?;
        let mut mail = connection.prepare("INSERT INTO mail(subject, body) VALUES (?, ?)")?;
        let mut place = connection.prepare("INSERT INTO places VALUES (?, ?, ?, ?, ?)")?;
        for i in rows.step_by(2) {
            let mut random = Random::named("full text", i as u64);
            let (title, count) = (format!("common {i}"), 4 + random.below(14));
            let body = words(&mut random, count);
            note.execute(params![title, body])?;
            page.execute(params![body, title])?;
            if i % 4 == 0 {
                mail.execute(params![title, words(&mut random, 6)])?;
            }
            let (x, y) = (random.below(5000) as f64, random.below(5000) as f64);
            place.execute(params![i, x, x + 10.0, y, y + 10.0])?;
        }
        Ok(())
    },
    change: "DELETE FROM notes WHERE id % 9 = 4; DELETE FROM pages WHERE rowid % 12 = 5;
        DELETE FROM mail WHERE docid % 14 = 6; DELETE FROM places WHERE id % 16 = 8;",
    free: "",
    queries: &[
        ("SELECT count(*) FROM notes_fts WHERE notes_fts MATCH 'common'", "SELECT count(*) FROM notes"),
        ("SELECT count(*) FROM pages WHERE pages MATCH 'common'", "SELECT count(*) FROM pages_content"),
        ("SELECT count(*) FROM mail WHERE mail MATCH 'common'", "SELECT count(*) FROM mail_content"),
    ],
};

/// Half of the rows are deleted again: their images are still on free pages. A table of the
/// same shape as one that stays is dropped.
const DELETED: Part = Part {
    create: "CREATE TABLE events(id INTEGER PRIMARY KEY, name TEXT NOT NULL, at INTEGER, body BLOB);
        CREATE INDEX events_at ON events(at);
        CREATE TABLE former_counters(id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL, value REAL);",
    fill: |connection, rows, _| {
        let mut event = connection.prepare("INSERT INTO events(name, at, body) VALUES (?, ?, ?)")?;
        let former = connection.prepare("INSERT INTO former_counters(name, value) VALUES (?, 0.25)");
        let mut former = former.ok();
        for i in rows {
            let mut random = Random::named("deleted", i as u64);
            let (count, size) = (1 + random.below(9), random.below(100));
            event.execute(params![words(&mut random, count), i, random.bytes(size)])?;
            if let Some(former) = &mut former {
                former.execute([format!("former {i}")])?;
            }
        }
        Ok(())
    },
    change: "DELETE FROM events WHERE id < 200; UPDATE events SET body = NULL WHERE id % 5 = 1;",
    free: "DELETE FROM events WHERE id BETWEEN 300 AND 900; DROP TABLE former_counters;",
    queries: &[],
};

/// So many tables that the schema is a b-tree of its own.
const MANY: Part = Part {
    create: "CREATE TABLE first(a, b);",
    fill: |connection, rows, _| {
        for table in 0..60 {
            // Some have a column more than others.
            let extra = ["", ", extra", ", extra, extra2"][table / 20];
            connection.execute_batch(&format!(
                "CREATE TABLE IF NOT EXISTS table_{table:02}(id INTEGER PRIMARY KEY, name TEXT, n{table} INTEGER{extra});
                 CREATE INDEX IF NOT EXISTS table_{table:02}_name ON table_{table:02}(name);",
            ))?;
        }
        for i in rows {
            let mut random = Random::named("many", i as u64);
            let table = i % 60;
            connection.execute(
                &format!("INSERT INTO table_{table:02}(name, n{table}) VALUES (?, ?)"),
                params![words(&mut random, 5), i],
            )?;
        }
        Ok(())
    },
    change: "DELETE FROM table_07 WHERE id % 3 = 1;",
    free: "",
    queries: &[],
};
