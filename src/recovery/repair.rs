//! Repairs a file, with the smallest repair that it needs. Locks let one process at a time repair
//! it.
//!
//! | state of the file | repair | outcome |
//! |---|---|---|
//! | a hot journal | rolled back, then checked | by the next check |
//! | a WAL that is not the file's own | put aside, then checked | by the next check |
//! | damaged full-text indexes | rebuilt, in one transaction | `RebuiltFts` |
//! | damaged indexes, also full-text | rebuilt, in one transaction | `Reindexed` |
//! | … where that was not enough | rebuilt in a copy, which is written back | `Reindexed` |
//! | … where a table has lost pages, too | salvaged, as below | `Salvaged` |
//! | … where that was not enough either | refused; salvaged if a person asked | |
//! | any other damage | salvaged into a new database, which is written back | `Salvaged` |
//! | nothing to salvage, and a backup | the backup is written back | `Restored` |
//!
//! Each repair is verified before it is kept: integrity, full-text indexes against their content,
//! foreign keys. The last two repairs take these steps. The file is unchanged until the last step,
//! which is a single transaction:
//!
//! 1. The file is held ([`SqliteFile::hold`]): no connection of any process commits, checkpoints or
//!    repairs it. It is checked again, because another process may have repaired it.
//! 2. File and WAL are copied to dated names in the same directory, and synced, unless an identical
//!    copy exists ([`engine::KeptCopy`]).
//! 3. The copy is salvaged into a new database in a work folder ([`super::work_dir`]).
//! 4. Rows of a backup fill the gaps of the salvage ([`super::fill_from_backup`]).
//! 5. The new database is compared with what SQLite itself can read of the copy ([`super::gate`]),
//!    and checked. If anything would be lost, nothing is written.
//! 6. The hold becomes SQLite's own write lock. If another connection committed in between, the
//!    repair starts over.
//! 7. The new database's content is written into the file and committed ([`super::write_back`]).
//!
//! A process that dies during a repair leaves a work folder, which the next operation removes, and
//! at most a transaction that SQLite rolls back: a repair begins with that ([`engine::roll_back`]).
//! An error removes the files that this repair made, the copies of step 2 included. Only after an
//! error of the disk in step 7 those copies stay.
//!
//! Runs on the caller's thread, and blocks it on locks and on the disk.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::backup_file::{check_distinct, is_sound, resolved, verify};
use super::comparison::Comparison;
use super::copy::copy;
use super::fill_from_backup::{has_gaps, merge};
use super::gate::{self, Missing};
use super::quarantine::{KeptOriginal, preserve_from};
use super::rebuild::{Plan, Reason, Rebuilt, Way, rebuild};
use super::reindex::{Reindexed, reindex};
use super::report::{
    Filled, FromBackup, Preserved, RepairOutcome, Report, Step, StepKind, Totals, counted,
    is_derived, recovered, rows,
};
use super::salvage::{self, Salvage, SchemaSource, Snapshot, Source, salvage};
use super::tried::{PAUSE, TRIES, Tried};
use super::verify_written::{self, watcher};
use super::work_dir::{WorkDir, directory, named, system};
use super::write_back::{Written, write_back};
use super::{reader, rotation, snapshot_file};
use crate::engine::{
    self, Access, Class, CommitLock, Connection, Error, HotJournal, Likeness, PageSnapshot,
    PageSource, PrivateFile, Progress, Result, SqliteFile, Stage, Wal, advise, check_length,
    free_bytes, refused_side_file, sync_folder_of,
};
use crate::format::{Header, header};
use crate::health::{self, CheckKind, Finding, Health};

/// How often a repair starts over because another connection committed meanwhile.
const ATTEMPTS: u32 = 16;

/// How a repair is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepairOptions {
    /// Backups, newest first; `None`: those that [`rotation::newest_backups`] finds.
    pub backups: Option<Vec<PathBuf>>,
    /// Whether rows of a backup fill the gaps of the salvage.
    pub use_backup: bool,
    /// How long each wait for a lock of another connection may last. A process that repairs the
    /// file holds such a lock.
    pub patience: Duration,
    /// Why the repair is made. A repair that may lose something is made only if a person asked for
    /// it ([`super::rebuild`]).
    pub reason: Reason,
    /// Whether a repair is kept that lacks something which SQLite can read of the original.
    pub allow_loss: bool,
    /// How many redundant copies are kept of each kind ([`engine::bound`]). A copy is redundant if
    /// the database holds all of its content.
    pub keep_copies: u32,
}

impl Default for RepairOptions {
    fn default() -> Self {
        Self {
            backups: None,
            use_backup: true,
            patience: Duration::from_secs(300),
            reason: Reason::default(),
            allow_loss: false,
            keep_copies: engine::KEEP,
        }
    }
}

/// Called with what the check found, before the first change.
pub type Found<'a> = &'a mut dyn FnMut(&Health);

/// Repairs the database at `path`. `found` is called once, before the first change, if something
/// is wrong.
///
/// # Errors
/// * `ERR_FUSION_UNRECOVERABLE`: no table of a known schema could be salvaged, and there is no
///   backup;
/// * `ERR_FUSION_LOSS`: the repair would lose something that SQLite itself can read of the file, or
///   nothing could be proven; the error's details have the [`Comparison`];
/// * `ERR_FUSION_IN_USE`: the WAL is not the file's own, and another connection has it open;
/// * `ERR_FUSION_REPLACED`: the path leads to another file than the one that is open;
/// * `SQLITE_BUSY`: locks of other connections outlasted the patience;
/// * `SQLITE_CORRUPT_INDEX`, `SQLITE_CORRUPT_VTAB`: the tables are sound, and an index or full-text
///   index is damaged that cannot be rebuilt, or only if a person asks;
/// * `SQLITE_FULL`, with the space that is needed, and other errors of the disk; `task`'s.
///
/// After an error the file is unchanged.
pub fn repair(
    path: &Path,
    options: &RepairOptions,
    found: Found<'_>,
    task: &dyn Progress,
) -> Result<Report> {
    let started = Instant::now();
    let path = engine::canonicalize(path)
        .map_err(|error| Error::system(ffi::SQLITE_CANTOPEN, path, &error))?;
    let at = path.clone();
    let mut repair =
        Repair { path, options, started, steps: Vec::new(), before: None, found, task };
    repair.run().map_err(|error| named(error, &at))
}

/// Salvages the database at `path` into a new one at `to`, which must not exist. The file at `path`
/// is not changed. If the schema is lost and there is no backup, all rows go to `lost_and_found`.
///
/// # Errors
/// As [`repair`], but `ERR_FUSION_UNRECOVERABLE` only if no row could be read; `SQLITE_CANTOPEN` if
/// a file exists at `to`.
pub fn recover_to(
    path: &Path,
    to: &Path,
    options: &RepairOptions,
    task: &dyn Progress,
) -> Result<Report> {
    recover(path, to, options, task).map_err(|error| named(error, path))
}

fn recover(path: &Path, to: &Path, options: &RepairOptions, task: &dyn Progress) -> Result<Report> {
    let started = Instant::now();
    let path = &engine::canonicalize(path)
        .map_err(|error| Error::system(ffi::SQLITE_CANTOPEN, path, &error))?;
    let to = &resolved(to)?;
    let taken = || {
        let message = "there is a file already, and a recovery replaces none";
        Error::sqlite(ffi::SQLITE_CANTOPEN, message).at(to)
    };
    if fs::symlink_metadata(to).is_ok() || Wal::path(to).exists() {
        return Err(taken());
    }
    let before = check(path, options, task)?;
    let partial = WorkDir::new(to, path)?;
    let until = || Instant::now() + options.patience;
    let make =
        |source: Source<'_>| make(path, source, options, MinimumResult::Rows, &partial, task);
    let check_current = |is_current: bool| {
        let message =
            "another process wrote to the database while it was read. Nothing was changed";
        let error = || Error::sqlite(ffi::SQLITE_BUSY, message).at(path);
        if is_current { Ok(()) } else { Err(error()) }
    };
    let access = Access::of(path)?;
    let made = if let Access::ThroughJournal(rolled_back) = &access {
        // A hold would roll the journal back.
        let made = make(Source { database: &**rolled_back, wal: None })?;
        check_current(rolled_back.is_current())?;
        made
    } else if let Access::Still(still) = &access {
        let made = make(Source { database: still.database(), wal: still.wal() })?;
        check_current(still.is_current())?;
        made
    } else if matches!(access, Access::Alone) || engine::is_read_only(path) {
        // A hold needs a writable file, and makes a -wal that stays. A read transaction keeps one
        // snapshot, too, if SQLite can begin it.
        let marks = engine::Marks::of(path);
        let view = PageSnapshot::open(path, until(), task)?;
        let wal = view.wal().map(|wal| -> &dyn PageSource { wal });
        let made = make(Source { database: view.database(), wal })?;
        check_current(view.is_consistent() || marks.are_current())?;
        made
    } else {
        let live = SqliteFile::open(path, until(), task)?;
        let _hold = live.hold(until(), task)?;
        let source = Source {
            database: live.database(),
            wal: live.wal().map(|wal| -> &dyn PageSource { wal }),
        };
        make(source)?
    };
    let after = Health { path: to.clone(), ..made.health };
    give(path, &made.database)?;
    // A rename would replace a file that was made there meanwhile; a hard link does not.
    match fs::hard_link(&made.database, to) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(taken()),
        Err(_) => engine::rename(&made.database, to)
            .map_err(|error| system(ffi::SQLITE_CANTOPEN, to, &error))?,
    }
    sync_folder_of(to)?;
    Ok(Report {
        path: path.clone(),
        to: Some(to.clone()),
        outcome: made.outcome,
        steps: made.steps,
        before,
        after,
        preserved: None,
        salvage: made.salvage,
        backup: made.backup,
        comparison: made.comparison,
        totals: Totals::default(),
        elapsed_ms: started.elapsed().as_secs_f64() * 1000.0,
        text: String::new(),
    }
    .with_text())
}

/// Gives the file at `made` the mode and owner of the database at `path`.
fn give(path: &Path, made: &Path) -> Result<()> {
    let file = fs::File::options().write(true).open(made);
    let file = file.map_err(|error| system(ffi::SQLITE_CANTOPEN, made, &error))?;
    Likeness::of(path).give(&file);
    Ok(())
}

struct Repair<'a> {
    path: PathBuf,
    options: &'a RepairOptions,
    started: Instant,
    steps: Vec<Step>,
    /// The health before the repair.
    before: Option<Health>,
    found: Found<'a>,
    task: &'a dyn Progress,
}

/// The result of one attempt at a repair.
enum Attempt {
    Done(Box<Report>),
    /// Check the file again: this repair or another connection has changed it.
    Again,
}

impl Repair<'_> {
    fn run(&mut self) -> Result<Report> {
        if let Some(refusal) = refused_side_file(&self.path) {
            return Err(refusal.error(&self.path));
        }
        // The number of rebuilds that were not enough.
        let mut failed = 0;
        for _ in 0..ATTEMPTS {
            self.rescue_wal_of_empty_file()?;
            self.roll_back()?;
            let health = check(&self.path, self.options, self.task)?;
            if health.is_locked() {
                return Err(self.busy("a lock keeps the check from reading it"));
            }
            let way = Way::of(&health, self.options.reason);
            if health.ok && !way.is_rebuild() {
                return Ok(self.report(RepairOutcome::Healthy, health));
            }
            if let Some(Finding::Replaced { lines }) =
                health.findings.iter().find(|finding| matches!(finding, Finding::Replaced { .. }))
            {
                return Err(Error::fusion("ERR_FUSION_REPLACED", lines.join("; ")).at(&self.path));
            }
            let is_unclear = |finding: &Finding| matches!(finding, Finding::UnclearWal { .. });
            if health.findings.iter().any(is_unclear) && !self.options.reason.is_asked() {
                return Err(self.unclear(&health));
            }
            if self.before.is_none() {
                (self.found)(&health);
                self.before = Some(health.clone());
            }
            let is_stale = |finding: &Finding| matches!(finding, Finding::StaleWal { .. });
            if health.findings.iter().any(|it| is_stale(it) || is_unclear(it)) {
                self.put_wal_aside()?;
                continue;
            }
            let attempt = match way {
                Way::Refuse(error) => return Err(error),
                Way::Rebuild(plan) if failed == 0 => self.rebuild(&plan)?,
                Way::Rebuild(plan) if failed == 1 && !plan.is_full_text() => self.reindex(&plan)?,
                Way::Rebuild(_) if self.options.reason != Reason::Asked => {
                    return Err(self.not_rebuilt(&health));
                }
                Way::Rebuild(_) | Way::None => Some(self.salvage()?),
            };
            let Some(attempt) = attempt else {
                failed += 1;
                continue;
            };
            if let Attempt::Done(report) = attempt {
                return Ok(*report);
            }
        }
        Err(self.busy("another connection committed before each attempt to write the repair back"))
    }

    /// The end of a wait that begins now.
    fn until(&self) -> Instant {
        Instant::now() + self.options.patience
    }

    fn busy(&self, reason: &str) -> Error {
        let message = format!("the database is in use: {reason}. Nothing was changed");
        Error::sqlite(ffi::SQLITE_BUSY, message).at(&self.path)
    }

    /// The error for a WAL that may be the file's own: it is put aside only if a person asked.
    fn unclear(&self, health: &Health) -> Error {
        let message = format!(
            "{}. It may hold commits that are nowhere else, so that nothing was changed. Keep both \
             files together. To put the -wal aside and go on without it, have the database \
             repaired: npx fusion-sqlite doctor",
            health.summary()
        );
        Error::sqlite(ffi::SQLITE_CORRUPT, message).at(&self.path)
    }

    /// The error where the tables are sound and the damaged indexes could not be rebuilt.
    fn not_rebuilt(&self, health: &Health) -> Error {
        let tried: Vec<_> = self.steps.iter().map(|step| step.detail.as_str()).collect();
        let message = format!(
            "{} ({}). No row of a table is damaged, so that nothing was changed. recover() \
             rebuilds the whole database",
            health.summary(),
            tried.join("; ")
        );
        let is_index = |it: &Finding| matches!(it, Finding::IndexDamage { .. });
        let code = if health.findings.iter().any(is_index) {
            ffi::SQLITE_CORRUPT_INDEX
        } else {
            ffi::SQLITE_CORRUPT_VTAB
        };
        Error::sqlite(code, message).at(&self.path)
    }

    fn report(&mut self, outcome: RepairOutcome, after: Health) -> Report {
        Report {
            path: self.path.clone(),
            to: None,
            outcome,
            steps: std::mem::take(&mut self.steps),
            before: self.before.take().unwrap_or_else(|| after.clone()),
            after,
            preserved: None,
            salvage: None,
            backup: None,
            comparison: None,
            totals: Totals::default(),
            elapsed_ms: self.started.elapsed().as_secs_f64() * 1000.0,
            text: String::new(),
        }
        .with_text()
    }

    fn put_wal_aside(&mut self) -> Result<()> {
        let aside =
            health::put_wal_aside(&self.path, self.options.reason.is_asked()).map_err(|error| {
                match error.class() {
                    // A connection that has the WAL open keeps it open: waiting does not help.
                    Class::Transient => {
                        Error::fusion("ERR_FUSION_IN_USE", error.message).at(&self.path)
                    }
                    _ => error,
                }
            })?;
        self.steps.push(Step {
            step: StepKind::StaleWal,
            ok: true,
            detail: quarantine_message(&self.path, &aside),
        });
        Ok(())
    }

    /// SQLite deletes the WAL of an empty file when it opens the file. The WAL may hold all that is
    /// left of the database, so it is renamed first.
    fn rescue_wal_of_empty_file(&mut self) -> Result<()> {
        let size = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
        let wal = Wal::path(&self.path);
        if size(&self.path) > 0 || size(&wal) == 0 {
            return Ok(());
        }
        let aside = engine::rescue_wal(&self.path, &wal)?;
        sync_folder_of(&aside)?;
        self.steps.push(Step {
            step: StepKind::StaleWal,
            ok: true,
            detail: format!("the file is empty; its WAL is now {}", aside.display()),
        });
        Ok(())
    }

    /// Rolls a hot journal back, as any writable connection does first. The check of the file is
    /// meaningful only after that.
    fn roll_back(&mut self) -> Result<()> {
        let rolled_back = engine::roll_back(&self.path, self.until(), self.task)
            .map_err(|error| advise(error, &self.path))?;
        if let Some(HotJournal { pages, .. }) = rolled_back {
            let detail = format!(
                "it was rolled back: {} are as they were before it",
                counted(pages, "page")
            );
            self.steps.push(Step { step: StepKind::HotJournal, ok: true, detail });
        }
        Ok(())
    }

    /// Rebuilds indexes inside the file. `None`: that was not enough.
    fn rebuild(&mut self, plan: &Plan) -> Result<Option<Attempt>> {
        match rebuild(&self.path, plan, self.options.reason, self.until(), self.task)? {
            Rebuilt::Overtaken => Ok(Some(Attempt::Again)),
            Rebuilt::NotEnough(steps) => {
                self.steps.extend(steps);
                Ok(None)
            }
            Rebuilt::Yes(steps) => {
                self.steps.extend(steps);
                let outcome = if plan.is_full_text() {
                    RepairOutcome::RebuiltFts
                } else {
                    RepairOutcome::Reindexed
                };
                let after = self.finish(None)?;
                Ok(Some(Attempt::Done(Box::new(self.report(outcome, after)))))
            }
        }
    }

    /// Rebuilds indexes in a copy, while the file is held. `None`: that was not enough.
    fn reindex(&mut self, plan: &Plan) -> Result<Option<Attempt>> {
        let live = SqliteFile::open(&self.path, self.until(), self.task)?;
        let hold = live.hold(self.until(), self.task)?;
        let health = health::inspect(&watcher(&self.path)?, CheckKind::Full, self.task)?;
        if !Way::of(&health, self.options.reason).is_rebuild() {
            return Ok(Some(Attempt::Again));
        }
        self.check_space(&live)?;
        let partial = WorkDir::new(&self.path, &self.path)?;
        let database = partial.file("reindexed");
        let source = reader::open(&self.path, self.until(), self.task)?;
        let made = reindex(&source, &database, plan, self.task)?;
        drop(source);
        match made {
            Reindexed::Yes => {}
            Reindexed::NotEnough(reason) => {
                self.steps.extend(plan.steps(Err(&reason)));
                return Ok(None);
            }
            Reindexed::RowsAreLost => {
                self.steps.extend(plan.steps(Err("a table has lost pages as well")));
                drop((hold, partial));
                return Ok(Some(self.salvage()?));
            }
        }
        let source = Source {
            database: live.database(),
            wal: live.wal().map(|wal| -> &dyn PageSource { wal }),
        };
        let (derived, missing) = (plan.derived(), Missing::Count);
        let comparison = gate::compare(source, None, &database, &derived, missing, self.task)?;
        if !comparison.holds && !self.options.allow_loss {
            return Err(would_lose(&self.path, &comparison));
        }
        match write_back(&database, hold, self.until(), self.task)? {
            Written::Overtaken => return Ok(Some(Attempt::Again)),
            Written::Yes => {}
        }
        drop(partial);
        self.steps.extend(plan.steps(Ok(())));
        let after = self.finish(None)?;
        Ok(Some(Attempt::Done(Box::new(self.report(RepairOutcome::Reindexed, after)))))
    }

    fn salvage(&mut self) -> Result<Attempt> {
        let live = SqliteFile::open(&self.path, self.until(), self.task)?;
        let hold = live.hold(self.until(), self.task)?;
        if self.is_sound_now()? {
            return Ok(Attempt::Again);
        }
        self.check_space(&live)?;
        let partial = WorkDir::new(&self.path, &self.path)?;
        let asked = self.options.reason.is_asked();
        let (from, wal) =
            (Tried::new(live.database(), asked), live.wal().map(|wal| Tried::new(wal, asked)));
        let wal = wal.as_ref().map(|wal| -> &dyn PageSource { wal });
        let mut preserved = preserve_from(live.path(), &from, wal, &partial, self.task)?;
        let files = preserved.files();
        let made = {
            let database = PrivateFile::open(&files.database)?;
            let wal = files.wal.as_deref().map(PrivateFile::open).transpose()?;
            let source = Source {
                database: &database,
                wal: wal.as_ref().map(|wal| -> &dyn PageSource { wal }),
            };
            make(&self.path, source, self.options, MinimumResult::Tables, &partial, self.task)?
        };
        if let Some(comparison) = made.comparison.as_ref().filter(|it| !it.holds)
            && !self.options.allow_loss
        {
            return Err(would_lose(&self.path, comparison));
        }
        match self.write(&made, hold, &mut preserved)? {
            Written::Overtaken => return Ok(Attempt::Again),
            Written::Yes => preserved.stays(),
        }
        drop(partial);
        let unreadable = unreadable_pages(&from.lost_pages(made.health.page_size));
        let is_spare = unreadable.is_none() && is_complete(&made);
        self.steps.extend(unreadable);
        self.steps.extend(made.steps);
        let after = self.finish(Some(&files))?;
        if is_spare && after.ok {
            preserved.is_spare();
        }
        engine::bound(&self.path, self.options.keep_copies);
        let mut report = self.report(made.outcome, after);
        report.preserved = Some(preserved.files());
        report.salvage = made.salvage;
        report.backup = made.backup;
        report.comparison = made.comparison;
        Ok(Attempt::Done(Box::new(report.with_text())))
    }

    fn write(
        &self,
        made: &Salvaged,
        hold: CommitLock<'_>,
        preserved: &mut KeptOriginal,
    ) -> Result<Written> {
        let written = write_back(&made.database, hold, self.until(), self.task);
        if let Err(error) = &written
            && !matches!(error.class(), Class::Transient | Class::Misuse)
        {
            // After an error of the disk the copy may be the only intact one.
            preserved.stays();
            let lead = format!(
                "the repaired database could not be written back. The damaged original is kept as \
                 {}, and the file is the same as before",
                preserved.files().database.display()
            );
            return written.map_err(|error| {
                let code = error.code;
                error.explained(code, &lead)
            });
        }
        written
    }

    /// Whether another process has repaired the file before the hold.
    fn is_sound_now(&self) -> Result<bool> {
        if check_length(&self.path).is_err() {
            return Ok(false);
        }
        let connection = watcher(&self.path)?;
        match health::inspect(&connection, CheckKind::Full, self.task) {
            Err(error) if self.options.reason.is_asked() && error.class() == Class::Io => Ok(false),
            health => Ok(health?.ok),
        }
    }

    /// Checks that the disk has room for the copies, for the new database, and for its content once
    /// more in the WAL.
    fn check_space(&self, live: &SqliteFile) -> Result<()> {
        let database = live.database().size()?;
        let wal = live.wal().map_or(Ok(0), PageSource::size)?;
        let needed = database.saturating_add(wal).saturating_mul(3);
        match free_bytes(directory(&self.path)) {
            Ok(free) if free < needed => Err(Error::sqlite(
                ffi::SQLITE_FULL,
                format!(
                    "the repair needs {} MiB of free space where the database is, and there are \
                     {}: for a copy of the damaged original, for what is read of it, and to write \
                     that back. Nothing was changed",
                    needed.div_ceil(1 << 20),
                    free >> 20
                ),
            )
            .at(&self.path)),
            // If the free space is unknown, a full disk fails the write.
            _ => Ok(()),
        }
    }

    /// Verifies the repaired file, and only then checkpoints it.
    fn finish(&self, preserved: Option<&Preserved>) -> Result<Health> {
        let connection = watcher(&self.path)?;
        let passes = |health: &Health| health.ok;
        let failed = || {
            let kept = preserved.map_or_else(String::new, |preserved| {
                format!(". The damaged original is kept as {}", preserved.database.display())
            });
            format!(
                "the repaired database was sound, but the file into which it was written is not: \
                 the disk does not keep what is written to it{kept}"
            )
        };
        let health = verify_written::verify_written(
            &connection,
            CheckKind::Full,
            passes,
            failed,
            self.task,
        )?;
        if let Ok(snapshot) = snapshot_file::take(&connection) {
            // Only the next repair uses the snapshot: this one does not depend on it.
            drop(snapshot_file::write(&self.path, &snapshot));
        }
        verify_written::checkpoint(&connection)?;
        Ok(health)
    }
}

/// The report's text on a WAL that was put aside. No field in a WAL names its database, so it may
/// also be the file's own, with pages that were damaged before they were written.
fn quarantine_message(path: &Path, aside: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    format!(
        "with its WAL the database is damaged, and without the WAL it is sound, so that the WAL \
         looks like another file's. The WAL is now {}, unchanged. Rows that were only in it are \
         not in the database. To look for them copy the database to copy-of-{name} and the WAL to \
         copy-of-{name}-wal, and have the pair salvaged into a new file: \
         npx fusion-sqlite recover copy-of-{name} rows-of-{name}",
        aside.display()
    )
}

/// A new, sound database in the work folder, and how it was made.
struct Salvaged {
    database: PathBuf,
    outcome: RepairOutcome,
    steps: Vec<Step>,
    health: Health,
    salvage: Option<Salvage>,
    backup: Option<FromBackup>,
    comparison: Option<Comparison>,
}

/// The least that a salvage has to find.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MinimumResult {
    /// A known table: a repair replaces the file's content, and its users need their tables.
    Tables,
    /// A row of any table.
    Rows,
}

/// Checks the file. If a person asked for the repair and each try fails with a read error, the
/// finding lists the pages that cannot be read.
fn check(path: &Path, options: &RepairOptions, task: &dyn Progress) -> Result<Health> {
    let mut tries = 1;
    loop {
        match health::check(path, CheckKind::Full, task) {
            Err(error) if options.reason.is_asked() && error.class() == Class::Io => {
                if tries == TRIES {
                    return unreadable(path, options, error, task);
                }
                tries += 1;
                std::thread::sleep(PAUSE);
            }
            answer => return answer,
        }
    }
}

/// The health of a file with unreadable pages.
///
/// # Errors
/// `error`, if every page can be read, or the header cannot; those of opening the file.
fn unreadable(
    path: &Path,
    options: &RepairOptions,
    error: Error,
    task: &dyn Progress,
) -> Result<Health> {
    let live = SqliteFile::open(path, Instant::now() + options.patience, task)?;
    let mut first = [0; header::SIZE];
    let page_size = match live.database().read_at(&mut first, 0) {
        Ok(_) => Header::parse(&first).map_or(4096, |header| header.page_size),
        Err(_) => return Err(error),
    };
    let size = live.database().size()?;
    let pages = Tried::new(live.database(), true).lost_pages_of_all(page_size, task)?;
    if pages.is_empty() {
        return Err(error);
    }
    Ok(Health {
        path: path.to_path_buf(),
        kind: CheckKind::Full,
        ok: false,
        findings: vec![Finding::Unreadable { pages, lines: vec![error.message] }],
        pages: size / u64::from(page_size),
        page_size,
        elapsed_ms: 0.0,
    })
}

/// The report's step that lists the unreadable pages; `None` if there are none.
fn unreadable_pages(pages: &[u32]) -> Option<Step> {
    const NAMED: usize = 20;
    let numbers: Vec<_> = pages.iter().take(NAMED).map(u32::to_string).collect();
    let more = pages.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    (!pages.is_empty()).then(|| Step {
        step: StepKind::Salvage,
        ok: false,
        detail: format!(
            "the disk failed each of {TRIES} tries to read {} ({}{more}); what was on them counts \
             as lost. Look at the system's log for errors of the disk, and copy what is left to \
             another one",
            counted(pages.len() as u64, "page"),
            numbers.join(", ")
        ),
    })
}

/// Makes the best possible database from `source`, the content of the file at `path`, and the
/// backups.
///
/// # Errors
/// A failed read of the source, unless a person asked for the repair (see [`Tried`]);
/// `ERR_FUSION_UNRECOVERABLE` if there is nothing to make a database from.
fn make(
    path: &Path,
    source: Source<'_>,
    options: &RepairOptions,
    least: MinimumResult,
    partial: &WorkDir,
    task: &dyn Progress,
) -> Result<Salvaged> {
    let database = Tried::new(source.database, options.reason.is_asked());
    let wal = source.wal.map(|wal| Tried::new(wal, options.reason.is_asked()));
    let tried =
        Source { database: &database, wal: wal.as_ref().map(|wal| -> &dyn PageSource { wal }) };
    let made = make_of(path, tried, options, least, partial, task);
    database.check()?;
    wal.as_ref().map_or(Ok(()), Tried::check)?;
    let mut made = made?;
    made.steps.extend(unreadable_pages(&database.lost_pages(made.health.page_size)));
    Ok(made)
}

/// [`make`], from a source that remembers failed reads.
fn make_of(
    path: &Path,
    source: Source<'_>,
    options: &RepairOptions,
    least: MinimumResult,
    partial: &WorkDir,
    task: &dyn Progress,
) -> Result<Salvaged> {
    let mut made = Salvaged {
        database: partial.file("salvaged"),
        outcome: RepairOutcome::Salvaged,
        steps: Vec::new(),
        health: Health {
            path: path.to_path_buf(),
            kind: CheckKind::Full,
            ok: false,
            findings: Vec::new(),
            pages: 0,
            page_size: 0,
            elapsed_ms: 0.0,
        },
        salvage: None,
        backup: None,
        comparison: None,
    };
    let backup = newest_sound_backup(path, options, &mut made.steps, task)?;
    let snapshot = snapshot_file::load(path)
        .or_else(|| backup.as_deref().and_then(|backup| snapshot_of(backup, task)));
    let salvage_options = salvage::SalvageOptions { snapshot: snapshot.clone() };
    let salvaged = salvage(source, &salvage_options, &made.database, task);
    match salvaged {
        Ok(salvage)
            if is_something(&salvage)
                || (least == MinimumResult::Rows
                    && backup.is_none()
                    && salvage.lost_and_found > 0) =>
        {
            let detail = match salvage.schema_from {
                SchemaSource::None => format!("{} of no known table", rows(salvage.lost_and_found)),
                _ => {
                    let (found, tables) = recovered(&salvage);
                    format!("{} in {}", rows(found), counted(tables, "table"))
                }
            };
            made.steps.push(Step { step: StepKind::Salvage, ok: true, detail });
            if let Some(backup) = backup.filter(|_| has_gaps(&salvage)) {
                let tables = merge(&made.database, &salvage, &backup, task)?;
                let from = FromBackup::new(backup, tables);
                let detail = format!("{} of {} fill gaps", rows(from.rows), from.path.display());
                made.steps.push(Step { step: StepKind::Backup, ok: true, detail });
                made.backup = Some(from);
            }
            made.salvage = Some(salvage);
        }
        Err(error) if error.code != "ERR_FUSION_NOTHING_TO_SALVAGE" => return Err(error),
        nothing => {
            let reason = match &nothing {
                Ok(salvage) if salvage.lost_and_found > 0 => format!(
                    "{} can be read, but the schema is gone that says of which tables they are; \
                     recovering into a new file puts them into lost_and_found",
                    rows(salvage.lost_and_found)
                ),
                Ok(_) => "no row of a table that is known".to_owned(),
                Err(error) => error.message.clone(),
            };
            let Some(backup) = backup else {
                return Err(unrecoverable(path, &reason, &made.steps));
            };
            made.steps.push(Step { step: StepKind::Salvage, ok: false, detail: reason });
            drop(fs::remove_file(&made.database));
            let from = reader::open(&backup, Instant::now(), task)?;
            copy(&from, &made.database, 1000, "copying the backup", None, task)?;
            drop(from);
            let tables = count_rows(&made.database)?;
            let detail = format!("everything is from {}", backup.display());
            made.steps.push(Step { step: StepKind::Backup, ok: true, detail });
            made.backup = Some(FromBackup::new(backup, tables));
            made.outcome = RepairOutcome::Restored;
        }
    }
    let derived = made.salvage.as_ref().map_or_else(HashSet::new, derived_tables);
    let (result, missing) = (&made.database, Missing::Keep);
    let comparison = gate::compare(source, snapshot.as_ref(), result, &derived, missing, task)?;
    let errors = made.salvage.as_ref().map_or(&[][..], |salvage| &salvage.schema_errors);
    made.comparison = Some(comparison.explained(errors));
    task.stage(Stage { name: "verifying", done: 0, total: 0 });
    made.health = verify(&made.database, CheckKind::Full, task)?;
    if let Way::Rebuild(plan) = Way::of(&made.health, Reason::Asked) {
        // An index may have disagreed with its table before the damage, and was copied with it.
        let rebuilt = rebuild(&made.database, &plan, Reason::Asked, Instant::now(), task)?;
        if let Rebuilt::Yes(steps) = rebuilt {
            made.steps.extend(steps);
            made.health = verify(&made.database, CheckKind::Full, task)?;
        }
    }
    if !made.health.ok {
        let lines: Vec<_> = made.health.findings.iter().map(|it| format!("{it:?}")).collect();
        return Err(Error::fusion(
            "ERR_FUSION_UNRECOVERABLE",
            format!(
                "the new database did not pass the check, so that nothing was changed. Please \
                 report it, with: {}",
                lines.join("; ")
            ),
        )
        .at(path));
    }
    Ok(made)
}

/// The error for a repair that is not written because of what it would lose.
fn would_lose(path: &Path, comparison: &Comparison) -> Error {
    let message = format!(
        "the repair is not written, and the file is the same as before. {} Recovering into a new \
         file changes nothing here; the option allowLoss has this repair written all the same",
        comparison.text
    );
    let error = Error::fusion("ERR_FUSION_LOSS", message).at(path);
    match serde_json::to_string(&serde_json::json!({ "comparison": comparison })) {
        Ok(details) => error.detailed(details),
        Err(_) => error,
    }
}

/// Whether `made` provably holds all content of the original: nothing was lost, no row is in
/// `lost_and_found`, and SQLite can read nothing of the original that `made` lacks.
fn is_complete(made: &Salvaged) -> bool {
    let (Some(salvage), Some(comparison)) = (&made.salvage, &made.comparison) else { return false };
    let totals = Totals::of(made.outcome, Some(salvage), None);
    let of_tables: u64 = salvage.tables.iter().map(|table| table.pages_lost).sum();
    made.outcome == RepairOutcome::Salvaged
        && made.backup.is_none()
        && comparison.holds
        && comparison.reason.is_none()
        && totals.known_lost == Some(0)
        && totals.lost_and_found == 0
        && salvage.pages_lost <= of_tables
        && salvage.schema_errors.is_empty()
        && !has_gaps(salvage)
}

/// The shadow tables with the index of a rebuilt virtual table, in lower case.
fn derived_tables(salvage: &Salvage) -> HashSet<String> {
    let tables = salvage.tables.iter().map(|table| &table.name);
    tables.filter(|name| is_derived(salvage, name)).map(|it| it.to_ascii_lowercase()).collect()
}

/// Whether the salvage found tables: by the file's own schema, or rows that fit a saved schema.
fn is_something(salvage: &Salvage) -> bool {
    match salvage.schema_from {
        SchemaSource::File | SchemaSource::Orphans => true,
        SchemaSource::Snapshot => salvage.tables.iter().any(|table| table.rows > 0),
        SchemaSource::None => false,
    }
}

fn unrecoverable(path: &Path, reason: &str, steps: &[Step]) -> Error {
    let backups: Vec<_> = steps.iter().map(|step| step.detail.as_str()).collect();
    let backups =
        if backups.is_empty() { "no backup was found".to_owned() } else { backups.join("; ") };
    Error::fusion(
        "ERR_FUSION_UNRECOVERABLE",
        format!(
            "nothing in the file is of a database that is known ({reason}), and {backups}. \
             Nothing was changed"
        ),
    )
    .at(path)
}

/// The first backup that exists, is not the database itself, and passes a check.
fn newest_sound_backup(
    path: &Path,
    options: &RepairOptions,
    steps: &mut Vec<Step>,
    task: &dyn Progress,
) -> Result<Option<PathBuf>> {
    if !options.use_backup {
        return Ok(None);
    }
    let backups = options.backups.clone().unwrap_or_else(|| rotation::newest_backups(path));
    for backup in backups {
        task.check_cancelled()?;
        let health =
            check_distinct(path, &backup).and_then(|()| verify(&backup, CheckKind::Full, task));
        let unsound = match health {
            Ok(health) if is_sound(&health) => return Ok(Some(backup)),
            Ok(_) => "it is damaged itself".to_owned(),
            Err(error) => {
                task.check_cancelled()?;
                error.message
            }
        };
        let detail = format!("{} is of no use: {unsound}", backup.display());
        steps.push(Step { step: StepKind::Backup, ok: false, detail });
    }
    Ok(None)
}

fn snapshot_of(backup: &Path, task: &dyn Progress) -> Option<Snapshot> {
    let connection = reader::open(backup, Instant::now(), task).ok()?;
    snapshot_file::take(&connection).ok()
}

/// The number of rows of each table that is not virtual.
fn count_rows(database: &Path) -> Result<Vec<Filled>> {
    let connection = Connection::open(database, OpenFlags::SQLITE_OPEN_READ_ONLY, Duration::ZERO)?;
    let sql = connection.sql()?;
    let mut statement = sql.prepare(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
         AND name NOT LIKE 'sqlite~_%' ESCAPE '~'",
    )?;
    let tables: Vec<String> =
        statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut counts = Vec::new();
    for name in tables {
        let table = super::rebuild::quoted(&name);
        let rows: i64 =
            sql.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
        counts.push(Filled { name, rows: rows.unsigned_abs(), named: 0 });
    }
    Ok(counts)
}
