//! The page map of real files, sound and damaged. Of sound ones SQLite's own `dbstat` is the
//! oracle; of damaged ones the truth is what was done to them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fusion_sqlite::engine::{self, NoProgress, PageSnapshot, PageSource, PrivateFile, Result};
use fusion_sqlite::health::page_map::{
    self, Known, MapOptions, Names, OwnerKind, PageMap, Role, map,
};
use fusion_sqlite::health::{file_info, info::BesideKind};
use second_process::SecondProcess;
use tempfile::TempDir;

mod second_process;

#[test]
fn serve() {
    second_process::serve();
}

/// Everything that a file can have: overflow chains, an index with them, WITHOUT ROWID, full text,
/// names that are not ASCII, free pages.
const CONTENT: &str = "
    CREATE TABLE logs (id INTEGER PRIMARY KEY, task TEXT NOT NULL, text TEXT);
    CREATE INDEX logs_by_task ON logs (task, text);
    CREATE TABLE \"naïve ☃ <&>\" (a TEXT PRIMARY KEY, b) WITHOUT ROWID;
    CREATE TABLE gone (x);
    CREATE VIRTUAL TABLE words USING fts5(text, content='logs', content_rowid='id');
    CREATE VIEW v AS SELECT 1;
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
    INSERT INTO logs SELECT i, 'FN-' || i % 17,
      'entry ' || i || hex(zeroblob(CASE WHEN i % 50 = 0 THEN 9000 ELSE i % 90 END)) FROM n;
    INSERT INTO \"naïve ☃ <&>\" SELECT 'key ' || id, zeroblob(id % 300) FROM logs;
    INSERT INTO gone SELECT zeroblob(3000) FROM logs LIMIT 200;
    INSERT INTO words(words) VALUES ('rebuild');
    DELETE FROM gone WHERE rowid % 3 <> 0;
";

fn make(path: &Path, settings: &str) -> rusqlite::Connection {
    engine::init().unwrap();
    let sql = rusqlite::Connection::open(path).unwrap();
    sql.execute_batch(settings).unwrap();
    sql.execute_batch(CONTENT).unwrap();
    sql
}

fn fixture(settings: &str) -> (TempDir, PathBuf) {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("fusion.db");
    drop(make(&path, settings));
    (directory, path)
}

fn mapped(path: &Path) -> PageMap {
    page_map::page_map(path, &MapOptions::default(), &NoProgress).unwrap()
}

/// Owner and role of each page, from the runs, which must be without a gap.
fn by_page(map: &PageMap) -> Vec<(Option<String>, Role, bool)> {
    let mut pages = Vec::new();
    for run in &map.runs {
        assert_eq!(run.first, pages.len() as u64 + 1);
        let owner = run.owner.map(|owner| map.owners[usize::from(owner)].name.clone());
        pages.extend((0..run.pages).map(|_| (owner.clone(), run.role, run.damaged)));
    }
    assert_eq!(pages.len() as u64, map.pages);
    pages
}

/// What SQLite says of each page that belongs to a b-tree.
fn dbstat(sql: &rusqlite::Connection) -> BTreeMap<u64, (String, Role)> {
    let mut statement = sql.prepare("SELECT pageno, name, pagetype FROM dbstat").unwrap();
    let rows = statement.query_map([], |row| {
        let role = match row.get::<_, String>(2)?.as_str() {
            "internal" => Role::Interior,
            "leaf" => Role::Leaf,
            "overflow" => Role::Overflow,
            other => panic!("{other}"),
        };
        Ok((row.get::<_, i64>(0)? as u64, (row.get(1)?, role)))
    });
    rows.unwrap().map(|row| row.unwrap()).collect()
}

fn agrees_with_sqlite(map: &PageMap, sql: &rusqlite::Connection) {
    let (pages, known) = (by_page(map), dbstat(sql));
    assert_eq!(map.damaged, []);
    for (index, (owner, role, _)) in pages.iter().enumerate() {
        let number = index as u64 + 1;
        match known.get(&number) {
            Some((name, told)) => {
                assert_eq!((owner.as_ref(), role), (Some(name), told), "page {number}");
            }
            None => assert!(
                matches!(role, Role::FreeTrunk | Role::FreeLeaf | Role::PointerMap),
                "page {number} is {role:?}"
            ),
        }
    }
    let free: i64 = sql.query_row("PRAGMA freelist_count", [], |row| row.get(0)).unwrap();
    let counted = |role| map.roles.get(&role).copied().unwrap_or(0);
    assert_eq!(counted(Role::FreeTrunk) + counted(Role::FreeLeaf), free as u64);
    assert!(free > 0 && counted(Role::Overflow) > 0 && counted(Role::Interior) > 0);
}

#[test]
fn of_a_sound_file_it_says_what_sqlite_says() {
    for settings in [
        "",
        "PRAGMA page_size = 512",
        "PRAGMA page_size = 65536",
        "PRAGMA encoding = 'UTF-16le'; PRAGMA page_size = 1024",
        "PRAGMA encoding = 'UTF-16be'; PRAGMA auto_vacuum = 2",
        "PRAGMA auto_vacuum = 2; PRAGMA page_size = 512",
        "PRAGMA journal_mode = WAL",
    ] {
        let (_directory, path) = fixture(settings);
        let map = mapped(&path);
        let sql = rusqlite::Connection::open(&path).unwrap();
        agrees_with_sqlite(&map, &sql);
        assert_eq!(map.roles.contains_key(&Role::PointerMap), settings.contains("auto_vacuum"));
        let owner = |name: &str| map.owners.iter().find(|owner| owner.name == name).unwrap();
        assert_eq!(owner("logs_by_task").table, "logs");
        assert_eq!(owner("logs_by_task").kind, OwnerKind::Index);
        assert_eq!(owner("naïve ☃ <&>").kind, OwnerKind::Table);
    }
}

#[test]
fn pages_in_the_wal_are_seen_and_a_reader_sees_one_moment_while_others_write() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("fusion.db");
    let sql = make(&path, "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0");
    let map = mapped(&path);
    assert!(map.pages_from_wal > 10);
    agrees_with_sqlite(&map, &sql);

    // Another process rewrites everything and checkpoints as far as the view lets it.
    let view = PageSnapshot::open(&path, std::time::Instant::now(), &NoProgress).unwrap();
    assert!(view.is_consistent());
    let mut other = SecondProcess::start();
    other.open("w", &path);
    other.sql("w", "DELETE FROM logs").unwrap();
    other.sql("w", "PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    other.sql("w", "DROP TABLE gone").unwrap();
    other.sql("w", "PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    let wal = view.wal().map(|wal| wal as &dyn PageSource);
    let before = mapped_from(view.database(), wal);
    assert!(before.file_bytes > map.file_bytes, "nothing was checkpointed");
    let sound = PageMap { path: String::new(), file_bytes: before.file_bytes, ..map };
    assert!(before == sound, "the view changed");
    drop(view);
    agrees_with_sqlite_without_free_pages(&mapped(&path), &sql);
}

fn mapped_from(database: &dyn PageSource, wal: Option<&dyn PageSource>) -> PageMap {
    map(database, wal, &MapOptions::default(), &NoProgress).unwrap()
}

fn agrees_with_sqlite_without_free_pages(map: &PageMap, sql: &rusqlite::Connection) {
    let pages = by_page(map);
    assert_eq!(map.damaged, []);
    for (page, (name, role)) in dbstat(sql) {
        assert_eq!(pages[page as usize - 1], (Some(name), role, false), "page {page}");
    }
}

#[test]
fn it_leaves_no_file_behind() {
    let (directory, path) = fixture("PRAGMA journal_mode = WAL");
    mapped(&path);
    file_info(&path, 3).unwrap();
    let left: Vec<_> = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["fusion.db"]);
}

/// A file in memory.
struct Bytes<'a>(&'a [u8]);

impl PageSource for Bytes<'_> {
    fn size(&self) -> Result<u64> {
        self.0.size()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.0.read_at(buffer, offset)
    }
}

/// A fixture's bytes, to be damaged, and what it was like before.
struct Patient {
    bytes: Vec<u8>,
    sound: PageMap,
    pages: Vec<(Option<String>, Role, bool)>,
}

impl Patient {
    fn new(settings: &str) -> Self {
        let (_directory, path) = fixture(settings);
        let sound = mapped(&path);
        let pages = by_page(&sound);
        Self { bytes: std::fs::read(&path).unwrap(), sound, pages }
    }

    fn size(&self) -> usize {
        self.sound.page_size as usize
    }

    fn page(&mut self, number: u64) -> &mut [u8] {
        let size = self.size();
        let start = (number as usize - 1) * size;
        &mut self.bytes[start..start + size]
    }

    /// The pages of `owner` with that role, in the file's order.
    fn pages(&self, owner: Option<&str>, role: Role) -> Vec<u64> {
        let wanted = (owner.map(str::to_owned), role, false);
        (1..=self.sound.pages).filter(|page| self.pages[*page as usize - 1] == wanted).collect()
    }

    fn map(&self) -> PageMap {
        let map = mapped_from(&Bytes(&self.bytes), None);
        by_page(&map);
        map
    }
}

fn damaged(map: &PageMap) -> Vec<u64> {
    map.damaged.iter().map(|damage| u64::from(damage.page)).collect()
}

#[test]
fn a_page_that_is_none_is_marked_with_the_table_that_leads_to_it() {
    let mut patient = Patient::new("");
    let leaves = patient.pages(Some("logs"), Role::Leaf);
    let (zeroed, garbage) = (leaves[3], leaves[7]);
    patient.page(zeroed).fill(0);
    patient.page(garbage).fill(0xa5);
    let map = patient.map();
    assert_eq!(damaged(&map), [zeroed, garbage]);
    let owner = map.owners.iter().find(|owner| owner.name == "logs").unwrap();
    assert_eq!(owner.damaged_pages, 2);
    for damage in &map.damaged {
        assert_eq!(map.owners[usize::from(damage.owner.unwrap())].name, "logs");
        assert_eq!(damage.reason, "it is not a b-tree page");
    }
}

#[test]
fn rows_in_the_wrong_place_are_marked() {
    let mut patient = Patient::new("");
    let leaves = patient.pages(Some("logs"), Role::Leaf);
    let (one, two) = (leaves[2], leaves[9]);
    let first = patient.page(one).to_vec();
    let second = patient.page(two).to_vec();
    patient.page(one).copy_from_slice(&second);
    patient.page(two).copy_from_slice(&first);
    let map = patient.map();
    assert_eq!(damaged(&map), [one, two]);
    assert!(
        map.damaged
            .iter()
            .all(|it| it.reason == "its rowids are outside the range that its parent pages allow")
    );

    // A leaf of an index in a table's place is no page of the table.
    let mut patient = Patient::new("");
    let foreign = patient.pages(Some("logs_by_task"), Role::Leaf)[1];
    let bytes = patient.page(foreign).to_vec();
    patient.page(one).copy_from_slice(&bytes);
    let map = patient.map();
    // Its cells lead to overflow pages that belong to the page that was copied.
    assert!(map.damaged.iter().any(|it| u64::from(it.page) == one
        && it.reason == "it belongs to the other kind of b-tree (table or index)"));
}

#[test]
fn what_nothing_leads_to_any_more_is_told() {
    let mut patient = Patient::new("");
    let root = u64::from(patient.sound.owners.iter().find(|it| it.name == "logs").unwrap().root);
    let below = patient.sound.owners.iter().find(|it| it.name == "logs").unwrap().pages - 1;
    patient.page(root).fill(0);
    let map = patient.map();
    assert_eq!(damaged(&map), [root]);
    assert_eq!(map.roles[&Role::Orphan], below);
    assert_eq!(map.names_from, Names::Schema);
}

#[test]
fn chains_that_break_and_lists_that_loop_end() {
    let mut patient = Patient::new("");
    let overflow = patient.pages(Some("logs"), Role::Overflow);
    patient.page(overflow[0])[..4].copy_from_slice(&0_u32.to_be_bytes());
    let map = patient.map();
    assert_eq!(damaged(&map), [overflow[0]]);
    assert!(map.roles[&Role::Orphan] > 0);

    let mut patient = Patient::new("");
    let trunk = patient.pages(None, Role::FreeTrunk)[0];
    let own = (trunk as u32).to_be_bytes();
    patient.page(trunk)[..4].copy_from_slice(&own);
    assert_eq!(damaged(&patient.map()), [trunk]);

    let mut patient = Patient::new("");
    let interior = patient.pages(Some("logs"), Role::Interior)[0];
    let own = (interior as u32).to_be_bytes();
    patient.page(interior)[8..12].copy_from_slice(&own);
    assert_eq!(damaged(&patient.map()), [interior]);

    let mut patient = Patient::new("");
    patient.page(interior)[8..12].copy_from_slice(&0x7fff_fff0_u32.to_be_bytes());
    assert_eq!(damaged(&patient.map()), [interior]);
}

#[test]
fn what_is_cut_off_is_missing_and_keeps_its_owner() {
    let mut patient = Patient::new("");
    let size = patient.size();
    let pages = patient.sound.pages as usize;
    let kept = pages * 6 / 10;
    patient.bytes.truncate(kept * size);
    let map = patient.map();
    assert_eq!(map.pages, pages as u64);
    assert_eq!(map.roles[&Role::Missing], (pages - kept) as u64);
    let lost = map.owners.iter().filter(|owner| owner.missing_pages > 0);
    let lost: Vec<_> = lost.map(|it| (&it.name, it.pages + it.missing_pages)).collect();
    assert!(!lost.is_empty());
    for (name, pages) in lost {
        let before = patient.sound.owners.iter().find(|owner| owner.name == *name).unwrap();
        assert!(pages <= before.pages, "{name}");
    }
}

#[test]
fn without_its_first_page_the_size_of_a_page_is_told_by_the_others() {
    for settings in ["", "PRAGMA page_size = 1024", "PRAGMA page_size = 16384"] {
        let mut patient = Patient::new(settings);
        patient.page(1).fill(0);
        let map = patient.map();
        assert_eq!(map.page_size, patient.sound.page_size);
        assert_eq!(damaged(&map), [1]);
        assert_eq!(map.names_from, Names::Nothing);
        // B-trees with more than one page are told apart all the same, with all of their pages.
        let logs = patient.sound.owners.iter().find(|it| it.name == "logs").unwrap();
        let found = map.owners.iter().find(|it| it.root == logs.root).unwrap();
        assert_eq!(found.name, format!("(b-tree at page {})", logs.root));
        assert_eq!((found.pages, found.overflow_pages), (logs.pages, logs.overflow_pages));

        // With what was known of them before they have their names.
        let known = patient.sound.owners.iter().skip(1).map(|owner| Known {
            name: owner.name.clone(),
            kind: owner.kind,
            table: owner.table.clone(),
            root: owner.root,
        });
        let options = MapOptions { known: known.collect(), ..MapOptions::default() };
        let map = page_map::map(&Bytes(&patient.bytes), None, &options, &NoProgress).unwrap();
        assert_eq!(map.names_from, Names::Known);
        assert_eq!(map.owners[1..], patient.sound.owners[1..]);
    }
}

#[test]
fn a_file_that_is_no_database_has_no_map() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("notes.txt");
    std::fs::write(&path, "no database ".repeat(2000)).unwrap();
    let error = page_map::page_map(&path, &MapOptions::default(), &NoProgress).unwrap_err();
    assert_eq!(error.errcode, 26);
    assert_eq!(error.path, Some(path));
}

#[test]
fn pages_that_a_check_names_are_marked_and_squares_stand_for_several_pages() {
    let (_directory, path) = fixture("");
    let options =
        MapOptions { resolution: 20, damaged: vec![50, 1_000_000], ..MapOptions::default() };
    let file = PrivateFile::open(&path).unwrap();
    let map = map(&file, None, &options, &NoProgress).unwrap();
    assert_eq!(damaged(&map), [50]);
    assert_eq!(map.pages_per_cell, map.pages.div_ceil(20));
    let run = map.runs.iter().find(|run| run.damaged).unwrap();
    assert!((run.first..run.first + run.pages).contains(&50));
    assert_eq!(run.pages, map.pages_per_cell);
    assert!(map.runs.len() <= 20);
}

/// xorshift64: the same damage in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

#[test]
fn whatever_the_bytes_are_there_is_a_map_of_all_of_them() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for settings in ["PRAGMA page_size = 512", "PRAGMA auto_vacuum = 2"] {
        let patient = Patient::new(settings);
        for _ in 0..300 {
            let mut bytes = patient.bytes.clone();
            for _ in 0..=dice.below(40) {
                let at = dice.below(bytes.len());
                match dice.below(3) {
                    0 => bytes[at] = dice.below(256) as u8,
                    1 => {
                        let end = (at + dice.below(5000)).min(bytes.len());
                        bytes[at..end].fill(dice.below(256) as u8);
                    }
                    _ => {
                        // Pointers to pages that exist are the worst.
                        let page = (dice.below(patient.sound.pages as usize) as u32).to_be_bytes();
                        let end = (at + 4).min(bytes.len());
                        bytes[at..end].copy_from_slice(&page[..end - at]);
                    }
                }
            }
            if dice.below(4) == 0 {
                let length = dice.below(bytes.len());
                bytes.truncate(length);
            }
            match map(&Bytes(&bytes), None, &MapOptions::default(), &NoProgress) {
                Ok(map) => assert_eq!(by_page(&map).len() as u64, map.pages),
                Err(error) => assert_eq!(error.errcode, 26),
            }
        }
    }
}

#[test]
fn a_files_facts_are_told_and_who_has_it_open() {
    let (directory, path) = fixture("PRAGMA journal_mode = WAL");
    for name in
        ["fusion.db.backup", "fusion.db.backup.1", "fusion.db-schema", "fusion.db.damaged-x-wal"]
    {
        std::fs::write(directory.path().join(name), "").unwrap();
    }
    std::fs::write(directory.path().join("fusion.db.backup.old"), "").unwrap();
    let mut other = SecondProcess::start();
    other.open("w", &path);
    other.sql("w", "BEGIN IMMEDIATE").unwrap();

    let info = file_info(&path, 3).unwrap();
    let database = info.database.unwrap();
    assert_eq!((database.journal_mode.as_str(), database.page_size), ("wal", 4096));
    assert_eq!(database.last_writer.as_deref(), Some(rusqlite::version()));
    let kinds: Vec<_> = info.sidecars.iter().map(|it| it.kind).collect();
    let expected =
        [BesideKind::Backup, BesideKind::Backup, BesideKind::Snapshot, BesideKind::Preserved];
    assert_eq!(kinds, expected);
    if cfg!(target_os = "linux") {
        let holder = info.holders.processes.unwrap();
        let holder = holder.iter().find(|it| it.pid == other.pid()).unwrap();
        assert!(holder.command.contains("page_map"), "{}", holder.command);
        let locks = info.holders.locks.unwrap();
        assert!(locks.iter().any(|lock| lock.stands_for == ["write"] && lock.exclusive));
    }
}
