//! Both recoveries of one damaged file, side by side.

use std::path::Path;

use fusion_sqlite::engine::{NoProgress, PageSource, PrivateFile};
use fusion_sqlite::recovery::salvage::{self, Salvage, SalvageOptions, Snapshot, Source};
use rusqlite::{Connection, OpenFlags};

use super::cases::{Damaged, Wanted};
use super::clean::Clean;
use super::schemas::{APPLICATION_ID, USER_VERSION};
use super::shell;
use super::sound::Sound;
use super::truth::{self, Tally};

/// What the two made of a file.
pub struct Contest {
    pub theirs: Tally,
    pub ours: Tally,
    /// The salvager's own account, or why there is none.
    pub account: Result<Salvage, String>,
    /// What became of the rows of tables that SQLite finds no fault in.
    pub clean: Clean,
    /// What is wrong with the database that the salvager made.
    pub faults: Vec<String>,
}

/// Writes the damaged file and its WAL to `folder` and answers their paths.
pub fn write(damaged: &Damaged<'_>, folder: &Path) -> (std::path::PathBuf, std::path::PathBuf) {
    let paths = (folder.join("damaged.db"), folder.join("damaged.db-wal"));
    std::fs::write(&paths.0, &damaged.file).expect("the temporary folder can be written");
    match &damaged.wal {
        Some(wal) => std::fs::write(&paths.1, wal).expect("the temporary folder can be written"),
        None => drop(std::fs::remove_file(&paths.1)),
    }
    paths
}

/// The salvager alone: from `database` and its WAL, where it has one, into `target`.
pub fn salvage(
    database: &Path,
    wal: Option<&Path>,
    snapshot: Option<Snapshot>,
    target: &Path,
) -> Result<Salvage, String> {
    let open = |path: &Path| PrivateFile::open(path).map_err(|error| error.to_string());
    let (database, wal) = (open(database)?, wal.map(open).transpose()?);
    let source =
        Source { database: &database, wal: wal.as_ref().map(|wal| wal as &dyn PageSource) };
    let salvaged = salvage::salvage(source, &SalvageOptions { snapshot }, target, &NoProgress);
    salvaged.map_err(|error| error.to_string())
}

/// Recovers `damaged` with both. The salvager has a snapshot where `with_snapshot`.
pub fn hold(sound: &Sound, damaged: &Damaged<'_>, with_snapshot: bool, folder: &Path) -> Contest {
    let (database, wal) = write(damaged, folder);
    let salvaged = folder.join("salvaged.db");
    let snapshot = with_snapshot.then(|| sound.snapshot.clone());
    let wal = damaged.wal.as_ref().map(|_| wal.as_path());
    // Before the shell, which writes to what it opens.
    let account = salvage(&database, wal, snapshot, &salvaged);
    let (ours, faults) = match &account {
        Ok(account) => {
            let (tally, mut faults) = look(&salvaged, sound, damaged, with_snapshot);
            if !faults.is_empty() {
                faults.extend(account.schema_errors.iter().map(|error| format!("schema: {error}")));
            }
            (tally, faults)
        }
        Err(_) => Default::default(),
    };
    // What SQLite reads with a WAL that is not the file's own is no row of the file.
    let with_wal = account.as_ref().is_ok_and(|account| account.pages_from_wal > 0);
    let clean = if wal.is_none() || with_wal {
        Clean::of(&database, &salvaged, &sound.tables, damaged.rows)
    } else {
        Clean::default()
    };
    let recovered = folder.join("recovered.db");
    shell::recover(&database, &recovered);
    let theirs = open(&recovered)
        .and_then(|connection| {
            truth::compare(&connection, &sound.tables, damaged.rows, &sound.former)
        })
        .unwrap_or_default();
    for name in ["damaged.db", "damaged.db-wal", "damaged.db-shm", "salvaged.db", "recovered.db"] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    Contest { theirs, ours, account, clean, faults }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
}

fn look(
    path: &Path,
    sound: &Sound,
    damaged: &Damaged<'_>,
    with_snapshot: bool,
) -> (Tally, Vec<String>) {
    let mut faults = Vec::new();
    let mut tally = Tally::default();
    let looked = open(path).and_then(|connection| {
        tally = truth::compare(&connection, &sound.tables, damaged.rows, &sound.former)?;
        let everything = tally.true_rows == truth::count(damaged.rows) && tally.false_rows == 0;
        let schema_known = damaged.schema_intact || with_snapshot;
        check(&connection, sound, damaged, schema_known, everything, &mut faults)
    });
    if let Err(error) = looked {
        faults.push(format!("the salvaged database cannot be read: {error}"));
    }
    (tally, faults)
}

/// What holds for every salvaged database, whatever the damage was.
fn check(
    connection: &Connection,
    sound: &Sound,
    damaged: &Damaged<'_>,
    schema_known: bool,
    everything: bool,
    faults: &mut Vec<String>,
) -> rusqlite::Result<()> {
    let lines = |sql: &str| -> rusqlite::Result<Vec<String>> {
        connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    };
    let number = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let integrity = lines("PRAGMA integrity_check")?;
    if integrity != ["ok"] {
        faults.push(format!("integrity_check: {}", integrity[..integrity.len().min(3)].join("; ")));
    }
    if !schema_known {
        return Ok(());
    }
    if number("PRAGMA user_version")? != i64::from(USER_VERSION) {
        faults.push(format!("user_version is {}", number("PRAGMA user_version")?));
    }
    if number("PRAGMA application_id")? != i64::from(APPLICATION_ID) {
        faults.push(format!("application_id is {}", number("PRAGMA application_id")?));
    }
    if number("PRAGMA page_size")? != sound.page_size() as i64 {
        faults.push(format!("page_size is {}", number("PRAGMA page_size")?));
    }
    let vacuum = number("PRAGMA auto_vacuum")?;
    if vacuum != i64::from(sound.snapshot.auto_vacuum) {
        faults.push(format!("auto_vacuum is {vacuum}"));
    }
    let encoding: String = connection.query_row("PRAGMA encoding", [], |row| row.get(0))?;
    let expected = ["UTF-8", "UTF-16le", "UTF-16be"][usize::from(sound.snapshot.encoding) - 1];
    if encoding != expected {
        faults.push(format!("encoding is {encoding}"));
    }
    for entry in &sound.snapshot.schema {
        let found = connection.query_row(
            "SELECT count(*) FROM sqlite_schema WHERE type = ?1 AND name = ?2 AND tbl_name = ?3 AND sql IS ?4",
            (&entry.kind, &entry.name, &entry.table, &entry.sql),
            |row| row.get::<_, i64>(0),
        )?;
        if found != 1 {
            faults.push(format!("{} {} is not as it was", entry.kind, entry.name));
        }
    }
    for (table, seq) in damaged.sequences {
        let now = number(&format!(
            "SELECT coalesce(max(seq), -1) FROM sqlite_sequence WHERE name = '{}'",
            table.replace('\'', "''")
        ))?;
        let most = number(&format!(
            "SELECT coalesce(max(rowid), 0) FROM \"{}\"",
            table.replace('"', "\"\"")
        ))?;
        if now < most || (everything && now != *seq) {
            faults.push(format!(
                "the sequence of {table} is {now}: was {seq}, the greatest rowid is {most}"
            ));
        }
    }
    if everything && sound.keeps_foreign_keys {
        let violations =
            connection.prepare("PRAGMA foreign_key_check")?.query_map([], |_| Ok(()))?.count();
        if violations > 0 {
            faults.push(format!("foreign_key_check: {violations} violations"));
        }
    }
    // A changed row may have lost the word that is looked for.
    let changed = if damaged.payload_changed {
        truth::count(damaged.rows) - damaged.in_file.values().sum::<usize>()
    } else {
        0
    };
    for (query, rows) in &sound.queries {
        let (found, wanted) = (number(query), number(rows)?);
        match found {
            Ok(found) if found <= wanted && found + changed as i64 >= wanted => {}
            Ok(found) => faults.push(format!("{query}: {found} instead of {wanted}")),
            Err(error) => faults.push(format!("{query}: {error}")),
        }
    }
    Ok(())
}

impl Contest {
    /// What the salvager was to reach and did not.
    pub fn misses(
        &self,
        damaged: &Damaged<'_>,
        wanted: Wanted,
        with_snapshot: bool,
    ) -> Vec<String> {
        let mut misses = self.faults.clone();
        if let Err(error) = &self.account {
            // Nothing to salvage is no worse than nothing recovered.
            if self.theirs.true_rows > 0 || with_snapshot {
                misses.push(format!("salvage: {error}"));
            }
        }
        if self.clean.lost > 0 {
            let lost = self.clean.lost;
            misses.push(format!("{lost} rows of tables that SQLite finds no fault in are lost"));
        }
        let (ours, theirs) = (&self.ours, &self.theirs);
        if ours.true_rows < theirs.true_rows {
            let tables = theirs.by_table.iter().filter_map(|(table, &count)| {
                let own = ours.by_table.get(table).copied().unwrap_or(0);
                (own < count).then(|| format!("{table} {own} < {count}"))
            });
            let tables: Vec<String> = tables.collect();
            misses.push(format!(
                "{} true rows, .recover has {} ({})",
                ours.true_rows,
                theirs.true_rows,
                tables.join(", ")
            ));
        }
        // A row whose bytes were changed cannot be told from a true one. `.recover` is spared those
        // of the tables that it loses: they are not held against who brings such a table back.
        let spared: usize = damaged
            .in_file
            .iter()
            .filter(|_| damaged.payload_changed)
            .filter(|&(table, &count)| 2 * theirs.by_table.get(table).unwrap_or(&0) < count)
            .map(|(table, &count)| damaged.rows[table].len() - count)
            .sum();
        // What SQLite reads and finds no fault in comes out as it is.
        let most = theirs.false_rows.max(self.clean.not_true) + spared;
        if ours.false_rows > most {
            misses.push(format!("{} false rows, .recover has {most}", ours.false_rows));
        }
        if ours.false_rows > self.clean.not_true && !damaged.payload_changed {
            misses.push(format!(
                "{} false rows ({} stale) with every payload as it was",
                ours.false_rows, ours.stale_rows
            ));
        }
        if ours.false_rows > most
            || (ours.false_rows > self.clean.not_true && !damaged.payload_changed)
        {
            misses.extend(ours.examples.iter().cloned());
        }
        let in_file: usize = damaged.in_file.values().sum();
        let least = match wanted {
            Wanted::NoWorse => 0,
            Wanted::Everything => in_file,
            Wanted::MostBySnapshot if !with_snapshot => 0,
            Wanted::Most | Wanted::MostBySnapshot => in_file - in_file / 100,
        };
        if ours.true_rows < least {
            let tables = damaged.in_file.iter().filter_map(|(table, &count)| {
                let own = ours.by_table.get(table).copied().unwrap_or(0);
                (own < count).then(|| format!("{table} {own} of {count}"))
            });
            let tables: Vec<String> = tables.collect();
            misses.push(format!(
                "{} true rows of {in_file} that are in the file ({})",
                ours.true_rows,
                tables.join(", ")
            ));
        }
        misses
    }
}
