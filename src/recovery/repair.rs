//! Repairs: which one a file needs, the least first, under locks that let one process at a time
//! repair it.
//!
//! | found | repair | outcome |
//! |---|---|---|
//! | a transaction that was cut off | SQLite rolls it back, and the file is checked then | of what is left |
//! | a WAL that is not the file's own | it is put aside, and the file checked again | of what is left |
//! | full-text indexes | rebuilt, in one transaction | `RebuiltFts` |
//! | indexes, and full-text indexes | rebuilt, in one transaction | `Reindexed` |
//! | the same, where that was not enough | rebuilt in a copy, whose content becomes the file's | `Reindexed` |
//! | the same, where a table has lost pages, too | salvaged, as below | `Salvaged` |
//! | the same, where that was not enough | refused; salvaged where it was asked for | |
//! | anything else | salvaged into a new database, whose content becomes the file's | `Salvaged` |
//! | nothing that could be salvaged, but a backup | the backup's content becomes the file's | `Restored` |
//!
//! Each is verified before it is kept: integrity, full-text indexes against their content, foreign
//! keys. The last two rows go through these steps; until the last one nothing of the file is
//! changed, and the last one is a single transaction:
//!
//! 1. the file is held ([`LiveFile::hold`]): nobody commits or checkpoints, in any process, and
//!    nobody else repairs it. It is checked once more: perhaps somebody has repaired it;
//! 2. file and WAL are copied to dated names next to it, and synced, unless a copy of the same is kept
//!    ([`engine::KeptCopy`]);
//! 3. the copy is salvaged into a new database in a folder beside the file;
//! 4. rows of a backup go where the salvage has gaps ([`super::merge`]);
//! 5. the new database is compared with what SQLite itself can read of the copy ([`super::gate`]),
//!    and checked; if anything would be lost, nothing is written;
//! 6. the hold becomes SQLite's own write lock. If somebody committed in between, it begins anew;
//! 7. the new database's content is written into the file and committed ([`super::write_back`]).
//!
//! A process that dies on the way leaves a folder, which the next operation removes, and at most a
//! transaction that SQLite rolls back: a repair begins with that ([`engine::roll_back`]). An error
//! removes what was made, the copies of step 2 included, unless they are kept from an earlier try.
//!
//! Thread: whichever calls; it waits for locks and the disk.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{OpenFlags, ffi};

use super::aftermath::{self, watcher};
use super::backup::{check_distinct, is_sound, resolved, verify};
use super::comparison::Comparison;
use super::copy::copy;
use super::gate::{self, Missing};
use super::merge::{has_gaps, merge};
use super::partial::{Partial, directory, named, system};
use super::preserve::{Original, preserve_from};
use super::rebuild::{Plan, Reason, Rebuilt, Way, rebuild};
use super::reindex::{Reindexed, reindex};
use super::report::{
    Filled, FromBackup, Outcome, Preserved, Report, Step, StepKind, Totals, counted, is_derived,
    recovered, rows,
};
use super::salvage::{self, Salvage, SchemaSource, Snapshot, Source, salvage};
use super::tried::{PAUSE, TRIES, Tried};
use super::write_back::{Written, write_back};
use super::{reader, rotation, snapshot_file};
use crate::engine::{
    self, Access, Class, Connection, Error, Hold, HotJournal, Likeness, LiveFile, PrivateFile,
    Result, Stage, Storage, Task, View, Wal, advise, check_length, free_bytes, refused_side_file,
    sync_folder_of,
};
use crate::format::{Header, header};
use crate::health::{self, Finding, Health, Kind};

/// How often it begins anew because somebody committed meanwhile.
const ATTEMPTS: u32 = 16;

/// How a repair is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Backups, newest first; none: those that [`rotation::newest_backups`] finds.
    pub backups: Option<Vec<PathBuf>>,
    /// Whether rows of a backup go where the salvage has gaps.
    pub use_backup: bool,
    /// How long a lock of other connections is waited for, each time: another process that repairs
    /// the file holds one.
    pub patience: Duration,
    /// Why it is made: what is not certain to be an improvement is done only where it was asked
    /// for ([`super::rebuild`]).
    pub reason: Reason,
    /// Whether a repair is kept that lacks something which SQLite can read of the original.
    pub allow_loss: bool,
    /// How many of the copies that hold nothing which the database does not are kept of each kind
    /// ([`engine::bound`]).
    pub keep_copies: u32,
}

impl Default for Options {
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

/// Told of what was found before anything is done about it.
pub type Found<'a> = &'a mut dyn FnMut(&Health);

/// Repairs the database at `path`. `found` is called once, before the first change, if something
/// is wrong.
///
/// # Errors
/// * `ERR_FUSION_UNRECOVERABLE`: nothing in it is of a database that is known, and there is no
///   backup;
/// * `ERR_FUSION_LOSS`: the repair would lose something that SQLite itself can read of the file, or
///   nothing could be proven; the error's details have the [`Comparison`];
/// * `ERR_FUSION_IN_USE`: the WAL is not the file's own and somebody has it open;
/// * `ERR_FUSION_REPLACED`: the path leads to another file than the one that is open;
/// * `SQLITE_BUSY` where others are in the way for longer than the patience;
/// * `SQLITE_CORRUPT_INDEX`, `SQLITE_CORRUPT_VTAB` where tables are sound, and an index or a
///   full-text index is damaged that is not rebuilt unasked, or cannot be;
/// * `SQLITE_FULL`, saying how much space is needed, and others of the disk; `task`'s.
///
/// The file is then as it was.
pub fn repair(path: &Path, options: &Options, found: Found<'_>, task: &dyn Task) -> Result<Report> {
    let started = Instant::now();
    let path = fs::canonicalize(path)
        .map_err(|error| Error::system(ffi::SQLITE_CANTOPEN, path, &error))?;
    let at = path.clone();
    let mut repair =
        Repair { path, options, started, steps: Vec::new(), before: None, found, task };
    repair.run().map_err(|error| named(error, &at))
}

/// Salvages the database at `path` into a new one at `to`, which must not exist. Nothing is
/// changed at `path`. Where no table is known any more, and there is no backup, all rows are in
/// `lost_and_found`.
///
/// # Errors
/// As [`repair`], but `ERR_FUSION_UNRECOVERABLE` only where there is not even a row;
/// `SQLITE_CANTOPEN` where there is something at `to`.
pub fn recover_to(path: &Path, to: &Path, options: &Options, task: &dyn Task) -> Result<Report> {
    recover(path, to, options, task).map_err(|error| named(error, path))
}

fn recover(path: &Path, to: &Path, options: &Options, task: &dyn Task) -> Result<Report> {
    let started = Instant::now();
    let path = &fs::canonicalize(path)
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
    let partial = Partial::new(to, path)?;
    let until = || Instant::now() + options.patience;
    let make = |source: Source<'_>| make(path, source, options, Least::Rows, &partial, task);
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
        // A hold needs a file that may be written to, and makes a -wal that stays. A transaction that
        // reads keeps one state of the file, too, unless SQLite cannot begin one.
        let marks = engine::Marks::of(path);
        let view = View::open(path, until(), task)?;
        let wal = view.wal().map(|wal| -> &dyn Storage { wal });
        let made = make(Source { database: view.database(), wal })?;
        check_current(view.is_steady() || marks.are_current())?;
        made
    } else {
        let live = LiveFile::open(path, until(), task)?;
        let _hold = live.hold(until(), task)?;
        let source = Source {
            database: live.database(),
            wal: live.wal().map(|wal| -> &dyn Storage { wal }),
        };
        make(source)?
    };
    let after = Health { path: to.clone(), ..made.health };
    give(path, &made.database)?;
    // A rename would replace what was made there meanwhile; a link does not.
    match fs::hard_link(&made.database, to) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Err(taken()),
        Err(_) => fs::rename(&made.database, to)
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
    .told())
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
    options: &'a Options,
    started: Instant,
    steps: Vec<Step>,
    /// What was wrong at first.
    before: Option<Health>,
    found: Found<'a>,
    task: &'a dyn Task,
}

/// What an attempt at a repair came to.
enum Attempt {
    Done(Box<Report>),
    /// Look again: something was changed, by this repair or somebody else.
    Again,
}

impl Repair<'_> {
    fn run(&mut self) -> Result<Report> {
        if let Some(refusal) = refused_side_file(&self.path) {
            return Err(refusal.error(&self.path));
        }
        // Ways to rebuild indexes that were not enough.
        let mut failed = 0;
        for _ in 0..ATTEMPTS {
            self.rescue_wal_of_empty_file()?;
            self.roll_back()?;
            let health = check(&self.path, self.options, self.task)?;
            if health.is_locked() {
                return Err(self.busy("it cannot be told what is wrong with it"));
            }
            let way = Way::of(&health, self.options.reason);
            if health.ok && !way.is_rebuild() {
                return Ok(self.report(Outcome::Healthy, health));
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
        Err(self.busy("somebody committed each time that it was to be written back"))
    }

    /// The end of a wait that begins now.
    fn until(&self) -> Instant {
        Instant::now() + self.options.patience
    }

    fn busy(&self, reason: &str) -> Error {
        let message = format!("the database is in use: {reason}. Nothing was changed");
        Error::sqlite(ffi::SQLITE_BUSY, message).at(&self.path)
    }

    /// Nothing is done unasked about a WAL that may be the file's own.
    fn unclear(&self, health: &Health) -> Error {
        let message = format!(
            "{}. It may hold commits that are nowhere else, so that nothing was changed. Keep both \
             files together. To put the -wal aside and go on without it, have the database \
             repaired: npx fusion-sqlite doctor",
            health.summary()
        );
        Error::sqlite(ffi::SQLITE_CORRUPT, message).at(&self.path)
    }

    /// Tables are sound, and what is damaged besides them could not be rebuilt.
    fn not_rebuilt(&self, health: &Health) -> Error {
        let tried: Vec<_> = self.steps.iter().map(|step| step.detail.as_str()).collect();
        let message = format!(
            "{} ({}). No row of a table is damaged, so that nothing was changed. recover() makes \
             the database anew",
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

    fn report(&mut self, outcome: Outcome, after: Health) -> Report {
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
        .told()
    }

    fn put_wal_aside(&mut self) -> Result<()> {
        let aside =
            health::put_wal_aside(&self.path, self.options.reason.is_asked()).map_err(|error| {
                match error.class() {
                    // Whoever has it open does so for good: nothing to wait for.
                    Class::Transient => {
                        Error::fusion("ERR_FUSION_IN_USE", error.message).at(&self.path)
                    }
                    _ => error,
                }
            })?;
        self.steps.push(Step {
            step: StepKind::StaleWal,
            ok: true,
            detail: told_aside(&self.path, &aside),
        });
        Ok(())
    }

    /// SQLite removes the WAL beside an empty file at the first look at it. All that is left of
    /// the database may be in it, so it gets another name first.
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
            detail: format!("the file is empty; the WAL beside it is now {}", aside.display()),
        });
        Ok(())
    }

    /// Whatever else is wrong with the file, it is wrong with what is left once a transaction that
    /// was cut off is rolled back, as any connection that may write does first.
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

    /// None: it was not enough.
    fn rebuild(&mut self, plan: &Plan) -> Result<Option<Attempt>> {
        match rebuild(&self.path, plan, self.options.reason, self.until(), self.task)? {
            Rebuilt::Overtaken => Ok(Some(Attempt::Again)),
            Rebuilt::NotEnough(steps) => {
                self.steps.extend(steps);
                Ok(None)
            }
            Rebuilt::Yes(steps) => {
                self.steps.extend(steps);
                let outcome =
                    if plan.is_full_text() { Outcome::RebuiltFts } else { Outcome::Reindexed };
                let after = self.finish(None)?;
                Ok(Some(Attempt::Done(Box::new(self.report(outcome, after)))))
            }
        }
    }

    /// Rebuilds indexes in a copy, under the hold that a salvage has. None: it was not enough.
    fn reindex(&mut self, plan: &Plan) -> Result<Option<Attempt>> {
        let live = LiveFile::open(&self.path, self.until(), self.task)?;
        let hold = live.hold(self.until(), self.task)?;
        let health = health::inspect(&watcher(&self.path)?, Kind::Full, self.task)?;
        if !Way::of(&health, self.options.reason).is_rebuild() {
            return Ok(Some(Attempt::Again));
        }
        self.check_space(&live)?;
        let partial = Partial::new(&self.path, &self.path)?;
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
            wal: live.wal().map(|wal| -> &dyn Storage { wal }),
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
        Ok(Some(Attempt::Done(Box::new(self.report(Outcome::Reindexed, after)))))
    }

    fn salvage(&mut self) -> Result<Attempt> {
        let live = LiveFile::open(&self.path, self.until(), self.task)?;
        let hold = live.hold(self.until(), self.task)?;
        if self.is_sound_by_now()? {
            return Ok(Attempt::Again);
        }
        self.check_space(&live)?;
        let partial = Partial::new(&self.path, &self.path)?;
        let asked = self.options.reason.is_asked();
        let (from, wal) =
            (Tried::new(live.database(), asked), live.wal().map(|wal| Tried::new(wal, asked)));
        let wal = wal.as_ref().map(|wal| -> &dyn Storage { wal });
        let mut preserved = preserve_from(live.path(), &from, wal, &partial, self.task)?;
        let files = preserved.files();
        let made = {
            let database = PrivateFile::open(&files.database)?;
            let wal = files.wal.as_deref().map(PrivateFile::open).transpose()?;
            let source = Source {
                database: &database,
                wal: wal.as_ref().map(|wal| -> &dyn Storage { wal }),
            };
            make(&self.path, source, self.options, Least::Tables, &partial, self.task)?
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
        Ok(Attempt::Done(Box::new(report.told())))
    }

    fn write(&self, made: &Made, hold: Hold<'_>, preserved: &mut Original) -> Result<Written> {
        let written = write_back(&made.database, hold, self.until(), self.task);
        if let Err(error) = &written
            && !matches!(error.class(), Class::Transient | Class::Misuse)
        {
            // After an error of the disk the copy may be what is left.
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

    /// Whether somebody has repaired the file before it could be held.
    fn is_sound_by_now(&self) -> Result<bool> {
        if check_length(&self.path).is_err() {
            return Ok(false);
        }
        let connection = watcher(&self.path)?;
        match health::inspect(&connection, Kind::Full, self.task) {
            Err(error) if self.options.reason.is_asked() && error.class() == Class::Io => Ok(false),
            health => Ok(health?.ok),
        }
    }

    /// That there is room for the copies, for the new database, and for it once more in the WAL.
    fn check_space(&self, live: &LiveFile) -> Result<()> {
        let database = live.database().size()?;
        let wal = live.wal().map_or(Ok(0), Storage::size)?;
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
            // Where it cannot be told the disk will say it.
            _ => Ok(()),
        }
    }

    /// Looks at the repaired file, and only then checkpoints it.
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
        let health = aftermath::look(&connection, Kind::Full, passes, failed, self.task)?;
        if let Ok(snapshot) = snapshot_file::take(&connection) {
            // A help for the next time, not a part of this one.
            drop(snapshot_file::write(&self.path, &snapshot));
        }
        aftermath::checkpoint(&connection)?;
        Ok(health)
    }
}

/// What a person should know of a WAL that was put aside. That it is not the file's own is what it
/// looks like, and nothing in a file tells which WAL is: it may also be the file's and hold pages
/// that were damaged before they were written.
fn told_aside(path: &Path, aside: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    format!(
        "with the WAL beside it the database is damaged, and without it it is sound, so that the \
         WAL looks like another file's. It is now {}, as it was. Rows that were only in it are not \
         in the database. To look for them copy the database to copy-of-{name} and the WAL to \
         copy-of-{name}-wal, and have the pair salvaged into a new file: \
         npx fusion-sqlite recover copy-of-{name} rows-of-{name}",
        aside.display()
    )
}

/// A new database, sound, that nobody else knows of.
struct Made {
    database: PathBuf,
    outcome: Outcome,
    steps: Vec<Step>,
    health: Health,
    salvage: Option<Salvage>,
    backup: Option<FromBackup>,
    comparison: Option<Comparison>,
}

/// What a salvage has to find to be worth anything.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Least {
    /// A table: who uses the file needs one, and asks for what is known of it.
    Tables,
    /// A row, of whatever.
    Rows,
}

/// Checks the file. Where a person asked for a repair, and reads fail each time, the pages that
/// cannot be read are what is found.
fn check(path: &Path, options: &Options, task: &dyn Task) -> Result<Health> {
    let mut tries = 1;
    loop {
        match health::check(path, Kind::Full, task) {
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

/// The health of a file of which pages cannot be read.
///
/// # Errors
/// `error`, where every page can be read, or the file cannot even be opened.
fn unreadable(path: &Path, options: &Options, error: Error, task: &dyn Task) -> Result<Health> {
    let live = LiveFile::open(path, Instant::now() + options.patience, task)?;
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
        kind: Kind::Full,
        ok: false,
        findings: vec![Finding::Unreadable { pages, lines: vec![error.message] }],
        pages: size / u64::from(page_size),
        page_size,
        elapsed_ms: 0.0,
    })
}

/// Names the pages that could not be read, if there are some.
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

/// Makes the best database that `source`, of which `path` is the name, and the backups give.
///
/// # Errors
/// A read of the source that failed, unless a person asked: see [`Tried`]; `ERR_FUSION_…` where
/// nothing can be made.
fn make(
    path: &Path,
    source: Source<'_>,
    options: &Options,
    least: Least,
    partial: &Partial,
    task: &dyn Task,
) -> Result<Made> {
    let database = Tried::new(source.database, options.reason.is_asked());
    let wal = source.wal.map(|wal| Tried::new(wal, options.reason.is_asked()));
    let tried =
        Source { database: &database, wal: wal.as_ref().map(|wal| -> &dyn Storage { wal }) };
    let made = make_of(path, tried, options, least, partial, task);
    database.check()?;
    wal.as_ref().map_or(Ok(()), Tried::check)?;
    let mut made = made?;
    made.steps.extend(unreadable_pages(&database.lost_pages(made.health.page_size)));
    Ok(made)
}

/// The same, of a source that says whether reads failed.
fn make_of(
    path: &Path,
    source: Source<'_>,
    options: &Options,
    least: Least,
    partial: &Partial,
    task: &dyn Task,
) -> Result<Made> {
    let mut made = Made {
        database: partial.file("salvaged"),
        outcome: Outcome::Salvaged,
        steps: Vec::new(),
        health: Health {
            path: path.to_path_buf(),
            kind: Kind::Full,
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
    let salvage_options = salvage::Options { snapshot: snapshot.clone() };
    let salvaged = salvage(source, &salvage_options, &made.database, task);
    match salvaged {
        Ok(salvage)
            if is_something(&salvage)
                || (least == Least::Rows && backup.is_none() && salvage.lost_and_found > 0) =>
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
            made.outcome = Outcome::Restored;
        }
    }
    let derived = made.salvage.as_ref().map_or_else(HashSet::new, derived_tables);
    let (result, missing) = (&made.database, Missing::Keep);
    let comparison = gate::compare(source, snapshot.as_ref(), result, &derived, missing, task)?;
    let errors = made.salvage.as_ref().map_or(&[][..], |salvage| &salvage.schema_errors);
    made.comparison = Some(comparison.explained(errors));
    task.stage(Stage { name: "verifying", done: 0, total: 0 });
    made.health = verify(&made.database, Kind::Full, task)?;
    if let Way::Rebuild(plan) = Way::of(&made.health, Reason::Asked) {
        // Of a table that came over whole an index may have been wrong before.
        let rebuilt = rebuild(&made.database, &plan, Reason::Asked, Instant::now(), task)?;
        if let Rebuilt::Yes(steps) = rebuilt {
            made.steps.extend(steps);
            made.health = verify(&made.database, Kind::Full, task)?;
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

/// Whether it is proven that all that the original holds is in `made`: it lost nothing, no row is in a
/// table of rows without one, and SQLite reads nothing of the original that it lacks.
fn is_complete(made: &Made) -> bool {
    let (Some(salvage), Some(comparison)) = (&made.salvage, &made.comparison) else { return false };
    let totals = Totals::of(made.outcome, Some(salvage), None);
    let of_tables: u64 = salvage.tables.iter().map(|table| table.pages_lost).sum();
    made.outcome == Outcome::Salvaged
        && made.backup.is_none()
        && comparison.holds
        && comparison.reason.is_none()
        && totals.known_lost == Some(0)
        && totals.lost_and_found == 0
        && salvage.pages_lost <= of_tables
        && salvage.schema_errors.is_empty()
        && !has_gaps(salvage)
}

/// The tables in which virtual tables that were rebuilt keep their index, in lower case.
fn derived_tables(salvage: &Salvage) -> HashSet<String> {
    let tables = salvage.tables.iter().map(|table| &table.name);
    tables.filter(|name| is_derived(salvage, name)).map(|it| it.to_ascii_lowercase()).collect()
}

/// Whether what was found is of a database: its own schema, or rows that fit a saved one.
fn is_something(salvage: &Salvage) -> bool {
    match salvage.schema_from {
        SchemaSource::File | SchemaSource::Orphans => true,
        SchemaSource::Snapshot => salvage.tables.iter().any(|table| table.rows > 0),
        SchemaSource::None => false,
    }
}

fn unrecoverable(path: &Path, reason: &str, steps: &[Step]) -> Error {
    let backups: Vec<_> = steps.iter().map(|step| step.detail.as_str()).collect();
    let backups = if backups.is_empty() {
        "there is no backup beside it".to_owned()
    } else {
        backups.join("; ")
    };
    Error::fusion(
        "ERR_FUSION_UNRECOVERABLE",
        format!(
            "nothing in the file is of a database that is known ({reason}), and {backups}. \
             Nothing was changed"
        ),
    )
    .at(path)
}

/// The first backup that is there, is another file, and passes a check.
fn newest_sound_backup(
    path: &Path,
    options: &Options,
    steps: &mut Vec<Step>,
    task: &dyn Task,
) -> Result<Option<PathBuf>> {
    if !options.use_backup {
        return Ok(None);
    }
    let backups = options.backups.clone().unwrap_or_else(|| rotation::newest_backups(path));
    for backup in backups {
        task.go_on()?;
        let health = check_distinct(path, &backup).and_then(|()| verify(&backup, Kind::Full, task));
        let unsound = match health {
            Ok(health) if is_sound(&health) => return Ok(Some(backup)),
            Ok(_) => "it is damaged itself".to_owned(),
            Err(error) => {
                task.go_on()?;
                error.message
            }
        };
        let detail = format!("{} is of no use: {unsound}", backup.display());
        steps.push(Step { step: StepKind::Backup, ok: false, detail });
    }
    Ok(None)
}

fn snapshot_of(backup: &Path, task: &dyn Task) -> Option<Snapshot> {
    let connection = reader::open(backup, Instant::now(), task).ok()?;
    snapshot_file::take(&connection).ok()
}

/// Rows of the tables that are not virtual.
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
