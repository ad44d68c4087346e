//! Full-text indexes of external content: those that leave rows out on purpose are left as they
//! are, and those that are damaged are found and rebuilt.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[path = "damage/random.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod random;

use std::path::{Path, PathBuf};

use fusion_sqlite::engine::{self, NoProgress};
use fusion_sqlite::health::{self, CheckKind, Finding, Health};
use fusion_sqlite::recovery::repair::{self, RepairOptions};
use fusion_sqlite::recovery::{Reason, RepairOutcome, Report};
use random::Random;
use tempfile::TempDir;

const WORDS: [&str; 12] = [
    "common", "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota",
    "kappa", "lambda",
];

/// How an index is declared, and its module.
#[derive(Debug, Clone, Copy)]
struct Declared {
    sql: &'static str,
    five: bool,
}

const KINDS: [Declared; 6] = [
    Declared { sql: "fts5(b, c, content='a', content_rowid='id')", five: true },
    Declared { sql: "fts5(b, c, content=\"a\", content_rowid=id, detail=none)", five: true },
    Declared { sql: "fts5(b, c, content=a, content_rowid='id', columnsize=0)", five: true },
    Declared { sql: "fts5(b, c, content='a', content_rowid='id', prefix='2')", five: true },
    Declared { sql: "fts4(b, c, content=\"a\")", five: false },
    Declared { sql: "fts4(content='a', b, c, prefix='2,3', order=desc)", five: false },
];

/// Whether rows that are deleted softly leave the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deletes {
    Softly,
    Hardly,
}

fn database(kind: Declared, deletes: Deletes) -> (TempDir, PathBuf) {
    engine::init().unwrap();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("text.db");
    let sql = rusqlite::Connection::open(&path).unwrap();
    let is_in = |row: &str| match deletes {
        Deletes::Softly => format!("{row}.del IS NULL"),
        Deletes::Hardly => "1".to_owned(),
    };
    let (old, new) = (is_in("old"), is_in("new"));
    // Which of two triggers fires first is not defined, and FTS4 reads the row that it deletes.
    let triggers = if kind.five {
        format!(
            "CREATE TRIGGER a_out AFTER DELETE ON a WHEN {old} BEGIN
               INSERT INTO f (f, rowid, b, c) VALUES ('delete', old.id, old.b, old.c); END;
             CREATE TRIGGER a_to AFTER UPDATE ON a BEGIN
               INSERT INTO f (f, rowid, b, c) SELECT 'delete', old.id, old.b, old.c WHERE {old};
               INSERT INTO f (rowid, b, c) SELECT new.id, new.b, new.c WHERE {new}; END;"
        )
    } else {
        format!(
            "CREATE TRIGGER a_out BEFORE DELETE ON a WHEN {old} BEGIN
               DELETE FROM f WHERE docid = old.id; END;
             CREATE TRIGGER a_from BEFORE UPDATE ON a WHEN {old} BEGIN
               DELETE FROM f WHERE docid = old.id; END;
             CREATE TRIGGER a_to AFTER UPDATE ON a WHEN {new} BEGIN
               INSERT INTO f (docid, b, c) VALUES (new.id, new.b, new.c); END;"
        )
    };
    let number = if kind.five { "rowid" } else { "docid" };
    sql.execute_batch(&format!(
        "PRAGMA page_size = 1024;
         CREATE TABLE a (id INTEGER PRIMARY KEY, b TEXT, c TEXT, del INT);
         CREATE TABLE log (id INTEGER PRIMARY KEY, text TEXT);
         CREATE VIRTUAL TABLE f USING {};
         CREATE TRIGGER a_in AFTER INSERT ON a WHEN {new} BEGIN
           INSERT INTO f ({number}, b, c) VALUES (new.id, new.b, new.c); END;
         {triggers}
         WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
         INSERT INTO log SELECT i, hex(randomblob(60)) FROM n;",
        kind.sql
    ))
    .unwrap();
    (directory, path)
}

/// Writes as an application does.
fn write(path: &Path, random: &mut Random, deletes: Deletes) {
    let sql = rusqlite::Connection::open(path).unwrap();
    sql.execute_batch("BEGIN").unwrap();
    let text = |random: &mut Random| {
        let words: Vec<_> = (0..1 + random.below(30)).map(|_| *random.pick(&WORDS)).collect();
        words.join(" ")
    };
    for _ in 0..150 + random.below(250) {
        let id = 1 + random.below(200) as i64;
        let (b, c) = (text(random), text(random));
        match random.below(8) {
            0 if deletes == Deletes::Softly => {
                sql.execute("UPDATE a SET del = 1 WHERE id = ?", [id]).unwrap()
            }
            1 => sql.execute("DELETE FROM a WHERE id = ?", [id]).unwrap(),
            2 => sql.execute("UPDATE a SET b = ? WHERE id = ?", (&b, id)).unwrap(),
            _ => sql
                .execute("INSERT OR IGNORE INTO a (id, b, c) VALUES (?, ?, ?)", (id, b, c))
                .unwrap(),
        };
    }
    if deletes == Deletes::Softly {
        sql.execute("INSERT OR IGNORE INTO a VALUES (500, 'common', 'alpha', 1)", []).unwrap();
    }
    sql.execute_batch("COMMIT").unwrap();
}

/// Which rows match each word.
fn matches(path: &Path) -> Vec<Vec<i64>> {
    let sql = rusqlite::Connection::open(path).unwrap();
    let mut find = sql.prepare("SELECT rowid FROM f WHERE f MATCH ? ORDER BY 1").unwrap();
    WORDS
        .iter()
        .map(|word| {
            find.query_map([word], |row| row.get(0)).unwrap().map(|it| it.unwrap()).collect()
        })
        .collect()
}

fn check(path: &Path, kind: CheckKind) -> Health {
    health::check(path, kind, &NoProgress).unwrap()
}

fn repair(path: &Path, reason: Reason) -> engine::Result<Report> {
    let options = RepairOptions { reason, ..RepairOptions::default() };
    repair::repair(path, &options, &mut |_| (), &NoProgress)
}

fn destroy_page_of(path: &Path, table: &str) {
    let sql = rusqlite::Connection::open(path).unwrap();
    let page: u64 = sql
        .query_row(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = 'leaf' ORDER BY pageno DESC",
            [table],
            |row| row.get::<_, u32>(0),
        )
        .unwrap()
        .into();
    drop(sql);
    let mut bytes = std::fs::read(path).unwrap();
    let at = (page as usize - 1) * 1024;
    bytes[at..at + 1024].fill(0);
    std::fs::write(path, bytes).unwrap();
}

fn run(path: &Path, statements: &str) {
    rusqlite::Connection::open(path).unwrap().execute_batch(statements).unwrap();
}

#[test]
fn an_index_that_leaves_rows_out_is_sound_and_survives_a_repair_of_something_else() {
    for seed in 0..36_u64 {
        let kind = KINDS[seed as usize % KINDS.len()];
        let mut random = Random::named("softly", seed);
        let (directory, path) = database(kind, Deletes::Softly);
        write(&path, &mut random, Deletes::Softly);
        let about = format!("seed {seed}, {kind:?}");
        let truth = matches(&path);
        assert!(!truth[0].is_empty(), "{about}");
        for depth in [CheckKind::Quick, CheckKind::Full] {
            assert_eq!(check(&path, depth).findings, [], "{about}");
        }
        let before = std::fs::read(&path).unwrap();
        for reason in [Reason::Damage, Reason::VirtualTable, Reason::Asked] {
            assert_eq!(repair(&path, reason).unwrap().outcome, RepairOutcome::Healthy, "{about}");
        }
        assert_eq!(std::fs::read(&path).unwrap(), before, "{about}");

        destroy_page_of(&path, "log");
        let report = repair(&path, Reason::Damage).unwrap();
        assert_eq!(report.outcome, RepairOutcome::Salvaged, "{about}");
        assert!(matches(&path) == truth, "{about}: {}", report.text);
        assert_eq!(check(&path, CheckKind::Full).findings, [], "{about}");
        // What was left out can be purged by its own triggers.
        run(&path, "DELETE FROM a WHERE del IS NOT NULL");
        assert!(matches(&path) == truth, "{about}");
        assert_eq!(check(&path, CheckKind::Full).findings, [], "{about}");
        drop(directory);
    }
}

#[test]
fn an_index_that_leaves_rows_out_keeps_doing_so_where_its_content_lost_rows() {
    for seed in 0..12_u64 {
        let kind = KINDS[seed as usize % KINDS.len()];
        if kind.sql.contains("columnsize=0") {
            // It has no list of its rows.
            continue;
        }
        let (_directory, path) = database(kind, Deletes::Softly);
        write(&path, &mut Random::named("content", seed), Deletes::Softly);
        let truth = matches(&path);
        destroy_page_of(&path, "a");
        let report = repair(&path, Reason::Damage).unwrap();
        assert_eq!(report.outcome, RepairOutcome::Salvaged);
        let ids: Vec<i64> = {
            let sql = rusqlite::Connection::open(&path).unwrap();
            let mut ids = sql.prepare("SELECT id FROM a").unwrap();
            ids.query_map([], |row| row.get(0)).unwrap().map(|it| it.unwrap()).collect()
        };
        let mut left = truth.clone();
        left.iter_mut().for_each(|rows| rows.retain(|id| ids.contains(id)));
        assert!(left != truth, "{kind:?}: rows were lost");
        assert!(matches(&path) == left, "{kind:?}: {}", report.text);
        assert_eq!(check(&path, CheckKind::Full).findings, [], "{kind:?}");
    }
}

/// Flips bytes of an index's own records until its module's check fails. That of FTS4 fails for an
/// index that leaves rows out as it is, and reads no interior node.
fn damage_index(path: &Path, kind: Declared, random: &mut Random) {
    let (table, column, key) =
        if kind.five { ("f_data", "block", "id") } else { ("f_segdir", "root", "rowid") };
    let which = if kind.five { "WHERE id > 10" } else { "" };
    for _ in 0..200 {
        let sql = rusqlite::Connection::open(path).unwrap();
        let mut read =
            sql.prepare(&format!("SELECT {key}, {column} FROM {table} {which}")).unwrap();
        let blocks: Vec<(i64, Vec<u8>)> = read
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(|it| it.unwrap())
            .collect();
        let (id, mut block) = random.pick(&blocks).clone();
        for _ in 0..8 {
            let at = random.below(block.len());
            block[at] ^= 1 << random.below(8);
        }
        sql.execute(&format!("UPDATE {table} SET {column} = ? WHERE {key} = ?"), (block, id))
            .unwrap();
        drop(read);
        let verdict: String =
            sql.query_row("PRAGMA integrity_check('f')", [], |row| row.get(0)).unwrap();
        let is_sound = if kind.five {
            verdict == "ok"
        } else {
            check(path, CheckKind::Full).findings.is_empty()
        };
        if !is_sound {
            return;
        }
    }
    panic!("the module does not mind");
}

#[test]
fn a_damaged_index_that_holds_every_row_is_rebuilt() {
    for seed in 0..18_u64 {
        let kind = KINDS[seed as usize % KINDS.len()];
        let mut random = Random::named("damaged", seed);
        let (_directory, path) = database(kind, Deletes::Hardly);
        write(&path, &mut random, Deletes::Hardly);
        let truth = matches(&path);
        damage_index(&path, kind, &mut random);
        let about = format!("seed {seed}, {kind:?}");
        let health = check(&path, CheckKind::Full);
        if kind.sql.contains("columnsize=0") {
            // Which rows it holds is in the damaged index alone.
            let [Finding::FtsDamage { left_out, .. }] = &health.findings[..] else {
                panic!("{about}: {health:?}");
            };
            if *left_out != Some(0) {
                repair(&path, Reason::Damage).unwrap_err();
                assert_eq!(
                    repair(&path, Reason::Asked).unwrap().outcome,
                    RepairOutcome::RebuiltFts
                );
                assert!(matches(&path) == truth, "{about}");
                continue;
            }
        }
        assert!(
            matches!(&health.findings[..], [Finding::FtsDamage { table, left_out: Some(0), .. }] if table == "f"),
            "{about}: {health:?}"
        );
        let report = repair(&path, Reason::Damage).unwrap();
        assert_eq!(report.outcome, RepairOutcome::RebuiltFts, "{about}");
        assert!(matches(&path) == truth, "{about}");
        assert_eq!(check(&path, CheckKind::Full).findings, [], "{about}");
    }
}

#[test]
fn a_damaged_index_that_leaves_rows_out_is_rebuilt_of_its_rows_and_only_if_asked() {
    for seed in 0..12_u64 {
        let kind = KINDS[seed as usize % KINDS.len()];
        if kind.sql.contains("columnsize=0") {
            continue;
        }
        let mut random = Random::named("asked", seed);
        let (_directory, path) = database(kind, Deletes::Softly);
        write(&path, &mut random, Deletes::Softly);
        let truth = matches(&path);
        damage_index(&path, kind, &mut random);
        let about = format!("seed {seed}, {kind:?}");
        let health = check(&path, CheckKind::Full);
        match &health.findings[..] {
            [Finding::FtsDamage { left_out: Some(rows), .. }] => {
                assert!(*rows > 0 && !health.ok, "{about}: {health:?}");
                for reason in [Reason::Damage, Reason::VirtualTable] {
                    let before = std::fs::read(&path).unwrap();
                    let refused = repair(&path, reason).unwrap_err();
                    assert_eq!(refused.errcode, 267, "{about}: {refused}");
                    assert_eq!(std::fs::read(&path).unwrap(), before, "{about}");
                }
            }
            // FTS4 minds every change, and it may be one that makes other entries of it.
            [Finding::FtsStale { left_out: Some(1..), .. }] if !kind.five => {
                assert!(health.ok, "{about}");
                assert_eq!(repair(&path, Reason::Damage).unwrap().outcome, RepairOutcome::Healthy);
            }
            _ => panic!("{about}: {health:?}"),
        }
        let report = repair(&path, Reason::Asked).unwrap();
        assert_eq!(report.outcome, RepairOutcome::RebuiltFts, "{about}");
        assert!(report.text.contains("of the rows that it held"), "{about}: {}", report.text);
        assert!(matches(&path) == truth, "{about}");
        assert_eq!(check(&path, CheckKind::Full).findings, [], "{about}");
    }
}

#[test]
fn an_index_with_entries_of_rows_that_are_gone_is_stale_and_rebuilt_where_a_statement_fails() {
    for kind in KINDS.iter().copied().filter(|kind| kind.five) {
        let (_directory, path) = database(kind, Deletes::Hardly);
        write(&path, &mut Random::named("gone", 1), Deletes::Hardly);
        run(&path, "DROP TRIGGER a_out; DELETE FROM a WHERE id <= 100");
        let health = check(&path, CheckKind::Full);
        let [Finding::FtsStale { gone: 1.., left_out: Some(0), .. }] = &health.findings[..] else {
            panic!("{kind:?}: {health:?}");
        };
        assert!(health.ok);
        assert_eq!(repair(&path, Reason::Damage).unwrap().outcome, RepairOutcome::Healthy);
        let report = repair(&path, Reason::VirtualTable).unwrap();
        assert_eq!(report.outcome, RepairOutcome::RebuiltFts, "{kind:?}");
        assert_eq!(check(&path, CheckKind::Full).findings, [], "{kind:?}");
    }
}
