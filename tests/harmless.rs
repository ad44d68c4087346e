//! First, do no harm: whatever a repair is given, what SQLite itself can read of it is there
//! afterwards.
//!
//! * Databases as applications have them, which need functions, collations and tokenizers that a
//!   repair does not have: with one page of an unrelated table destroyed, everything else is as
//!   it was.
//! * What is sound comes out of a salvage equal.
//! * Whatever the damage, no version of a row that SQLite reads is nowhere afterwards.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod damage;
mod harmless {
    pub mod application;
    pub mod contents;
    pub mod databases;
    pub mod oracle;
}

use std::fs;
use std::path::{Path, PathBuf};

use damage::anything::Anything;
use damage::cases::CASES;
use damage::random::Random;
use damage::schemas::SCHEMAS;
use damage::sound::{Plan, Sound};
use fusion_sqlite::engine::{self, Class, NoProgress, PrivateFile};
use fusion_sqlite::recovery::repair::{RepairOptions, repair};
use fusion_sqlite::recovery::salvage::{self, Source, salvage};
use fusion_sqlite::recovery::{RepairOutcome, Report, StepKind};
use harmless::contents::{Contents, pages_of};
use harmless::databases::{APPLICATIONS, Database, FORMATS};
use harmless::oracle;
use rusqlite::Connection;

/// Whether a repair may leave a file as it is with the error: it is typed, or says what is damaged
/// and that nothing was changed.
fn may_leave(error: &engine::Error) -> bool {
    ["ERR_FUSION_LOSS", "ERR_FUSION_UNRECOVERABLE", "ERR_FUSION_IN_USE"].contains(&error.code)
        || (matches!(error.class(), Class::Corrupt | Class::Index) && error.message != error.errstr)
}

fn all() -> impl Iterator<Item = &'static Database> {
    APPLICATIONS.iter().chain(FORMATS)
}

fn repaired(path: &Path) -> engine::Result<Report> {
    repair(path, &RepairOptions::default(), &mut |_| (), &NoProgress)
}

/// Removes a database and everything next to it.
fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
}

/// What is done to a page.
#[derive(Debug, Clone, Copy)]
enum Harm {
    Zeroed,
    Random,
    Flipped,
    Swapped,
}

/// Pages of `log` and of its index, each in turn, and what is done to them.
fn harms(path: &Path) -> Vec<(&'static str, u32, Harm, u32)> {
    let mut found = Vec::new();
    let kinds = [Harm::Zeroed, Harm::Random, Harm::Flipped, Harm::Swapped];
    for tree in ["log", "log_task"] {
        let pages = pages_of(path, tree);
        let root = pages[0].1;
        let of = |kind: &str| -> Vec<u32> {
            pages.iter().filter(|it| it.0 == kind && it.1 != root).map(|it| it.1).collect()
        };
        let (leaves, interior, overflow) = (of("leaf"), of("internal"), of("overflow"));
        assert!(leaves.len() >= 4, "{tree} has {} leaves", leaves.len());
        let other = leaves[leaves.len() - 2];
        let mut targets = vec![root, leaves[0], leaves[leaves.len() / 2]];
        targets.extend(interior.first());
        targets.extend(overflow.get(overflow.len() / 2));
        for (at, &page) in targets.iter().enumerate() {
            // Each page in two of the ways, each way at several of the pages.
            found.push((tree, page, kinds[at % 4], other));
            found.push((tree, page, kinds[(at + 2) % 4], other));
        }
    }
    found
}

fn harm(file: &mut [u8], page_size: usize, page: u32, how: Harm, other: u32, random: &mut Random) {
    let start = |page: u32| (page as usize - 1) * page_size;
    let range = start(page)..start(page) + page_size;
    match how {
        Harm::Zeroed => file[range].fill(0),
        Harm::Random => {
            let bytes = random.bytes(page_size);
            file[range].copy_from_slice(&bytes);
        }
        // In the head of the page, where it hurts.
        Harm::Flipped => file[start(page) + random.below(24)] ^= 1 << random.below(8),
        Harm::Swapped => {
            for at in 0..page_size {
                file.swap(start(page) + at, start(other) + at);
            }
        }
    }
}

/// Destroys pages of `log`, one in each copy of the database, and has each repaired.
fn one_page(database: &Database) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made.db");
    database.make(&made).unwrap();
    let before = Contents::of(&made, database.queries, "log");
    before.assert_sound();
    let sound = fs::read(&made).unwrap();
    let mut random = Random::named(database.name, 1);
    let mut failures = Vec::new();
    let mut written = 0;
    for (tree, page, how, other) in harms(&made) {
        let case = format!("{}: page {page} of {tree} {how:?}", database.name);
        let work = folder.path().join("work");
        fs::create_dir_all(&work).unwrap();
        let path = work.join("damaged.db");
        let mut bytes = sound.clone();
        harm(&mut bytes, database.page_size, page, how, other, &mut random);
        fs::write(&path, &bytes).unwrap();
        let copy = folder.path().join("copy.db");
        fs::write(&copy, &bytes).unwrap();
        let read = oracle::versions(&copy);
        let log = read.into_iter().filter(|(table, _)| table == "log").collect();
        match repaired(&path) {
            Ok(report) => {
                written += usize::from(report.outcome != RepairOutcome::Healthy);
                let after = Contents::of(&path, database.queries, "log");
                let mut wrong = before.differences(&after);
                wrong.extend(oracle::nowhere(&log, &path));
                if !wrong.is_empty() {
                    let outcome = report.outcome;
                    failures.push(format!("{case}, {outcome:?}:\n    {}", wrong.join("\n    ")));
                }
            }
            Err(error) => failures.push(format!("{case}: {error}")),
        }
        clear(&work);
    }
    assert!(!failures.is_empty() || written > 8, "{}: {written} repairs", database.name);
    failures
}

/// Fails with all of `failures`.
fn assert_none(failures: &[String]) {
    let first = &failures[..failures.len().min(40)];
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), first.join("\n"));
}

macro_rules! one_page {
    ($($name:ident: $database:literal,)*) => {$(
        #[test]
        fn $name() {
            let database = all().find(|it| it.name == $database).unwrap();
            assert_none(&one_page(database));
        }
    )*
        /// The databases that have a test.
        const TESTED: &[&str] = &[$($database),*];
    };
}

/// One page of an unrelated table is destroyed.
mod one_page_of_another_table {
    use super::*;

    one_page! {
        library: "library",
        geography: "geography",
        cards: "cards",
        tokenizers: "tokenizers",
        full_text: "full text",
        computed: "computed",
        marked: "marked",
        cards_utf_16le: "cards utf-16le",
        tokenizers_utf_16be: "tokenizers utf-16be",
        computed_utf_16le: "computed utf-16le",
        geography_wal: "geography wal",
        keys: "keys",
        keys_full: "keys full",
        keys_incremental: "keys incremental",
        keys_utf_16be: "keys utf-16be",
        keys_512: "keys 512",
        keys_65536: "keys 65536",
        keys_wal: "keys wal",
    }

    #[test]
    fn every_database_has_a_test() {
        let names: Vec<_> = all().map(|it| it.name).collect();
        assert_eq!(names, TESTED);
    }
}

/// A salvage of the database at `path` into `to`.
fn salvaged(path: &Path, to: &Path) {
    let database = PrivateFile::open(path).unwrap();
    let source = Source { database: &database, wal: None };
    salvage(source, &salvage::SalvageOptions::default(), to, &NoProgress).unwrap();
}

#[test]
fn what_is_sound_comes_out_equal() {
    let mut failures = Vec::new();
    for database in all() {
        let folder = tempfile::tempdir().unwrap();
        let (made, to) = (folder.path().join("made.db"), folder.path().join("to.db"));
        database.make(&made).unwrap();
        let before = Contents::of(&made, database.queries, "");
        salvaged(&made, &to);
        // What no salvage decides.
        if database.journal == "WAL" {
            let result = Connection::open(&to).unwrap();
            result.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
            result.close().unwrap();
        }
        let wrong = before.differences(&Contents::of(&to, database.queries, ""));
        if !wrong.is_empty() {
            failures.push(format!("{}:\n    {}", database.name, wrong.join("\n    ")));
        }
    }
    assert_none(&failures);
}

#[test]
fn whatever_is_sound_comes_out_equal() {
    let mut failures = Vec::new();
    for seed in 1000..1060 {
        let plan = Anything::of(seed);
        let folder = tempfile::tempdir().unwrap();
        let sound = Sound::make(&plan, plan.rows.min(120), folder.path()).unwrap();
        let (made, to) = (folder.path().join("made.db"), folder.path().join("to.db"));
        fs::write(&made, &sound.file).unwrap();
        let before = Contents::of(&made, &[], "");
        salvaged(&made, &to);
        let result = Connection::open(&to).unwrap();
        result.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
        result.close().unwrap();
        let wrong = before.differences(&Contents::of(&to, &[], ""));
        if !wrong.is_empty() {
            failures.push(format!("seed {seed}:\n    {}", wrong.join("\n    ")));
        }
    }
    assert_none(&failures);
}

/// A damaged database that is repaired.
struct Trial {
    folder: tempfile::TempDir,
    path: PathBuf,
}

/// What a repair did.
#[derive(Debug, PartialEq, Eq)]
enum Did {
    Nothing,
    Wrote,
}

impl Trial {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("work/damaged.db");
        Self { folder, path }
    }

    fn put(path: &Path, file: &[u8], wal: Option<&[u8]>) {
        fs::write(path, file).unwrap();
        if let Some(wal) = wal {
            fs::write(path.with_extension("db-wal"), wal).unwrap();
        }
    }

    /// What SQLite reads of a file and its WAL.
    fn read(&self, file: &[u8], wal: Option<&[u8]>) -> oracle::Versions {
        let folder = self.folder.path().join("read");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("read.db");
        Self::put(&path, file, wal);
        let read = oracle::versions(&path);
        clear(&folder);
        read
    }

    /// Has the file repaired; the failures, and whether anything was written.
    fn run(
        &self,
        file: &[u8],
        wal: Option<&[u8]>,
        truth: Option<&oracle::Versions>,
    ) -> (Vec<String>, Did) {
        let work = self.path.parent().unwrap();
        fs::create_dir_all(work).unwrap();
        Self::put(&self.path, file, wal);
        let outcome = repaired(&self.path);
        let mut wal_after = fs::read(self.path.with_extension("db-wal")).unwrap_or_default();
        // Less than a WAL's header is no WAL.
        wal_after.truncate(if wal_after.len() < 32 { 0 } else { wal_after.len() });
        let is_same = fs::read(&self.path).unwrap() == file && wal_after == wal.unwrap_or_default();
        let mut wrong = Vec::new();
        match &outcome {
            Err(error) if !may_leave(error) => wrong.push(format!("error {error:?}")),
            Err(error) if !is_same => wrong.push(format!("written in spite of {error}")),
            Err(_) => {}
            Ok(_) if is_same => {}
            Ok(report) => {
                // One that is put aside is kept.
                let aside = report.steps.iter().any(|step| step.step == StepKind::StaleWal);
                let read = self.read(file, wal.filter(|_| !aside));
                wrong.extend(oracle::nowhere(&read, &self.path));
                if let Some(truth) = truth {
                    wrong.extend(oracle::invented(truth, &self.path));
                }
                if !wrong.is_empty() {
                    wrong.push(format!("{:?} {:?}", report.outcome, report.steps));
                }
            }
        }
        clear(work);
        (wrong, if is_same { Did::Nothing } else { Did::Wrote })
    }
}

/// Every damage of the suites, on a database.
fn every_damage(plan: &dyn Plan, rows: i64) {
    let trial = Trial::new();
    let sound = Sound::make(plan, rows, trial.folder.path()).unwrap();
    let (mut failures, mut written) = (Vec::new(), 0);
    for case in CASES {
        let Some(damaged) = case.damage(&sound, 7) else { continue };
        let (wrong, did) = trial.run(&damaged.file, damaged.wal.as_deref(), None);
        written += usize::from(did == Did::Wrote);
        if !wrong.is_empty() {
            let done = damaged.done[..damaged.done.len().min(12)].join(", ");
            let wrong = wrong.join("\n    ");
            failures.push(format!("{}, {}:\n    {wrong}\n    {done}", sound.name, case.name));
        }
    }
    assert_none(&failures);
    assert!(written > 12, "{written} repairs");
}

fn every_damage_of(name: &str) {
    every_damage(SCHEMAS.iter().find(|schema| schema.name == name).unwrap(), 240);
}

/// No version of a row that SQLite reads is nowhere, whatever the damage.
mod every_damage {
    use super::*;

    #[test]
    fn of_rowids() {
        every_damage_of("rowids");
    }

    #[test]
    fn of_tables_without_rowid() {
        every_damage_of("without_rowid");
    }

    #[test]
    fn of_stored_columns() {
        every_damage_of("stored");
    }

    #[test]
    fn of_anything() {
        for seed in [3, 11] {
            every_damage(&Anything::of(seed), 120);
        }
    }
}

/// A file of at most 20 KiB with tables of both kinds, indexes, overflow and free pages.
fn small(path: &Path) -> Vec<u8> {
    engine::init().unwrap();
    let connection = Connection::open(path).unwrap();
    connection
        .execute_batch(
            "PRAGMA page_size = 512; PRAGMA auto_vacuum = NONE;
             CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT, b REAL, c INT);
             CREATE INDEX t_a ON t(a);
             CREATE TABLE w(k TEXT, n INT, v BLOB, PRIMARY KEY(k, n)) WITHOUT ROWID;
             CREATE TABLE p(x, y TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60)
             INSERT INTO t SELECT i * 3, 'größe ' || i * 7919 % 101, i / 4.0, i FROM n;
             INSERT INTO w SELECT 'key ' || c, c % 5, zeroblob(c % 9 * 3) FROM t;
             INSERT INTO p SELECT c, printf('%.*c', iif(c % 20, 20, 900), 'y') FROM t WHERE c % 2 = 0;
             DELETE FROM t WHERE c BETWEEN 20 AND 32;",
        )
        .unwrap();
    connection.close().unwrap();
    let bytes = fs::read(path).unwrap();
    assert!(bytes.len() <= 20 << 10, "{} bytes", bytes.len());
    bytes
}

/// Damages of the small file: none loses what SQLite reads, none makes up a row.
fn sweep(damages: impl Iterator<Item = (String, Vec<u8>)>) {
    let trial = Trial::new();
    let truth = {
        let file = small(&trial.folder.path().join("small.db"));
        trial.read(&file, None)
    };
    assert_eq!(truth.values().map(|rows| rows.len()).sum::<usize>(), 47 + 60 + 30);
    let (mut failures, mut written) = (Vec::new(), 0);
    for (name, file) in damages {
        let (wrong, did) = trial.run(&file, None, Some(&truth));
        written += usize::from(did == Did::Wrote);
        if !wrong.is_empty() {
            failures.push(format!("{name}:\n    {}", wrong.join("\n    ")));
        }
    }
    assert_none(&failures);
    assert!(written > 8, "{written} repairs");
}

fn small_file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    small(&folder.path().join("small.db"))
}

fn header_bits(bits: std::ops::Range<usize>) {
    let file = small_file();
    sweep(bits.map(|bit| {
        let mut damaged = file.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        (format!("bit {} of byte {}", bit % 8, bit / 8), damaged)
    }));
}

#[test]
fn every_bit_of_the_first_half_of_the_header() {
    header_bits(0..400);
}

#[test]
fn every_bit_of_the_second_half_of_the_header() {
    header_bits(400..800);
}

#[test]
fn every_cut() {
    let file = small_file();
    // Next to every boundary of pages, and between them.
    let cuts = (0..file.len()).filter(|cut| cut % 37 == 0 || [0, 1, 511].contains(&(cut % 512)));
    sweep(cuts.map(|cut| (format!("cut at {cut} of {}", file.len()), file[..cut].to_vec())));
}
