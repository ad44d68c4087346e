//! Writes the seeds of the `salvage` target: small databases with pages of 512 bytes, each with
//! what the others lack. `cargo run --example seeds -- corpus/salvage`, in this directory.

use std::path::Path;

use rusqlite::Connection;

/// Name, flags (see the target), what is done before the WAL, and in it.
const SEEDS: &[(&str, u8, &str, &str)] = &[
    ("snapshot", 1, T_AND_W, ""),
    ("wal", 2, T_AND_W, "UPDATE t SET b = 'new' WHERE id < 4; DELETE FROM w; INSERT INTO t(a) VALUES ('z')"),
    ("wal-snapshot", 3, T_AND_W, "UPDATE t SET b = 'new' WHERE id < 4"),
    (
        "deep",
        0,
        "CREATE TABLE t(a TEXT, b); CREATE INDEX i ON t(a DESC);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 40)
         INSERT INTO t SELECT 'some text ' || i, i FROM n;",
        "",
    ),
    (
        "chains",
        0,
        "CREATE TABLE c(x); INSERT INTO c VALUES (zeroblob(1500)), (hex(zeroblob(600))); DELETE FROM c WHERE rowid = 1;
         INSERT INTO c VALUES ('abc');",
        "",
    ),
    (
        "constraints",
        0,
        "CREATE TABLE p(id INTEGER PRIMARY KEY AUTOINCREMENT, u TEXT UNIQUE, d DEFAULT (abs(-1)), CHECK (d > 0));
         CREATE UNIQUE INDEX part ON p(lower(u)) WHERE d > 0;
         INSERT INTO p(u) VALUES ('a'), ('b'), ('c');",
        "",
    ),
    (
        "generated",
        0,
        "CREATE TABLE g(a INT, v INT AS (a * 2), s TEXT AS (a || 'x') STORED, UNIQUE(v)) STRICT; INSERT INTO g VALUES (5);",
        "",
    ),
    (
        "generated-lax",
        0,
        "CREATE TABLE g(a INT NOT NULL, v AS (a * 2), s AS (a || 'x') STORED); CREATE INDEX gv ON g(v);
         INSERT INTO g VALUES (1), (2), (3);",
        "",
    ),
    (
        "views",
        0,
        "CREATE TABLE t(a, b REAL); CREATE VIEW v AS SELECT a, count(*) FROM t GROUP BY a;
         CREATE TRIGGER r AFTER INSERT ON t BEGIN UPDATE t SET b = 1; END; INSERT INTO t VALUES (1, 2.5);",
        "",
    ),
    (
        "rowid-names",
        0,
        "CREATE TABLE t(rowid, _rowid_, oid); INSERT INTO t VALUES (1, 2, 3); ANALYZE;",
        "",
    ),
    (
        "rtree",
        0,
        "CREATE VIRTUAL TABLE r USING rtree(id, x0, x1); INSERT INTO r VALUES (1, 0, 1), (2, 3, 4), (3, -1, 9);",
        "",
    ),
    (
        "full-text",
        0,
        "CREATE TABLE t(a); CREATE VIRTUAL TABLE f USING fts5(a, content = t, columnsize = 0);
         INSERT INTO t VALUES ('one two'); INSERT INTO f(f) VALUES ('rebuild');",
        "",
    ),
    (
        "full-text-4",
        0,
        "CREATE VIRTUAL TABLE f USING fts4(a); INSERT INTO f VALUES ('one two');",
        "",
    ),
    (
        "free-pages",
        0,
        "CREATE TABLE t(a); CREATE TABLE u(a); INSERT INTO u VALUES (zeroblob(3000)); INSERT INTO t VALUES (1);
         DROP TABLE u;",
        "",
    ),
    (
        "auto-vacuum-trees",
        0,
        "PRAGMA auto_vacuum = INCREMENTAL; CREATE TABLE t(a UNIQUE); INSERT INTO t VALUES (hex(zeroblob(200))), (2), (x'03');
         CREATE TABLE u(a); INSERT INTO u VALUES (zeroblob(900)); DELETE FROM u;",
        "",
    ),
    (
        "utf-16be",
        0,
        "PRAGMA encoding = 'UTF-16be'; CREATE TABLE t(a TEXT COLLATE NOCASE, b, UNIQUE(a)); INSERT INTO t VALUES ('é', 1), ('Z', 2);",
        "",
    ),
];

/// What the target's snapshot tells of.
const T_AND_W: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b);
    CREATE UNIQUE INDEX t_a ON t(a);
    CREATE TABLE w(k TEXT, n, PRIMARY KEY(k)) WITHOUT ROWID;
    CREATE VIEW v AS SELECT a FROM t;
    INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2.5), (7, 'c', x'00');
    INSERT INTO w VALUES ('k', 1), ('l', NULL);
    PRAGMA user_version = 7;";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let to = std::env::args_os().nth(1).ok_or("say where the seeds go")?;
    let directory = tempfile::tempdir()?;
    for &(name, flags, sql, later) in SEEDS {
        let path = directory.path().join(name);
        let connection = Connection::open(&path)?;
        connection.execute_batch(&format!("PRAGMA page_size = 512; {sql}"))?;
        if !later.is_empty() {
            connection.execute_batch(&format!(
                "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; {later}"
            ))?;
        }
        // Of a file that is still open: closing it would take the WAL away.
        let wal = std::fs::read(directory.path().join(format!("{name}-wal"))).unwrap_or_default();
        let mut seed = (u32::try_from(wal.len())? | u32::from(flags) << 24).to_le_bytes().to_vec();
        seed.extend(std::fs::read(&path)?);
        seed.extend(wal);
        std::fs::write(Path::new(&to).join(name), seed)?;
    }
    Ok(())
}
