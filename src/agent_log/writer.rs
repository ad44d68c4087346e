//! The writer: the thread that commits a file's log entries and cares for its WAL.
//!
//! | state | leaves it when |
//! |---|---|
//! | waiting | a batch is due, a checkpoint is due or asked for, the last handle is gone |
//! | committing | the transaction is committed, or failed |
//! | pausing | SQLite's lock is released in this process, or a jittered pause is over |
//! | healing | a fresh connection has found the file sound, or damaged |
//! | repairing (damaged file) | it is repaired, by whomever, or cannot be |
//! | stopped (replaced file, or one that is not repaired) | never, unless the damaged file is repaired or restored: entries are kept to be taken back |
//! | ending | the queue is empty, or has failed for the whole retry deadline |
//!
//! A failure is answered by its class (`engine::Class`): transient ones are retried at once and
//! then with growing pauses, disk ones slowly on a fresh connection. Where an error says that the
//! file is damaged and a fresh connection finds it sound, the writer's connection was merely
//! wedged ([`DatabaseFile::heal`]): it is opened anew, and the batch, which never left the queue,
//! is written on that. Damage is repaired where [`Options::repair`] says so: entries wait
//! meanwhile, and go on being accepted. Otherwise damage, like replacement, stops the writer with
//! everything kept. Before and after each transaction the writer makes sure that the `-wal` and
//! `-shm` it has open are still the file's, since a commit in others is seen by nobody. A panic in
//! here is caught, puts the batch back and stops the writer: nothing dies quietly.
//!
//! It never waits inside SQLite (its busy timeout is 0): waiting is done on the file's turn,
//! where a release in this process wakes it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rusqlite::OpenFlags;

use super::batch::{Outcomes, Statements, Written, complete};
use super::entry::Entries;
use super::queue::{Batch, CheckpointReply, Next, Queue, RowOutcome, Settled, Unknown};
use super::registry::{self, END_DEADLINE};
use crate::checkpoint::{self, Mode, Policy, Situation};
use crate::engine::{
    self, Class, Connection, DatabaseFile, Error, Profile, Remedy, Result, Stage, Task, Unwatched,
    Wal,
};
use crate::health::{self, Health};
use crate::recovery::snapshot_file::Keeper;
use crate::recovery::{Outcome, Report, repair};

/// How often in a row the file may be found damaged without a commit in between.
const REPAIR_ATTEMPTS: u32 = 3;

/// The pause between two repairs, where the first has failed for want of room or of a lock, or
/// found nothing. Each begins with a check of the whole file.
const REPAIR_PAUSE: Duration = Duration::from_secs(15);

/// How long a repair waits for a lock at a time. Then the writer looks after those who wait for
/// it, and repairs again after [`REPAIR_PAUSE`].
const REPAIR_PATIENCE: Duration = Duration::from_secs(10);

/// How often a checkpoint that needs the write lock tries for it before it counts as prevented.
const RESET_ATTEMPTS: u32 = 8;

/// The shortest pause before a check that could not be carried out is tried again.
const SOON: Duration = Duration::from_millis(10);

/// How often connections that are to be opened anew are told so, while they are waited for.
const TELL_AGAIN: Duration = Duration::from_millis(50);

/// How a log writes. The first handle of a file decides for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Settings of the writer's connection.
    pub profile: Profile,
    /// Rows that close a batch.
    pub batch_rows: usize,
    /// Bytes that close a batch.
    pub batch_bytes: usize,
    /// How long an entry that nobody waits for may wait for company.
    pub linger: Duration,
    /// The same once somebody waits.
    pub awaited_linger: Duration,
    /// Bytes that may be queued.
    pub queue_bytes: usize,
    /// How long a call that waits is kept waiting by failures.
    pub retry_deadline: Duration,
    /// Key in `__meta` of the counter that each transaction increases; none: no counter.
    pub change_counter: Option<String>,
    /// When to checkpoint.
    pub checkpoints: Policy,
    /// Whether the file is repaired when it is found damaged.
    pub repair: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            batch_rows: 1000,
            batch_bytes: 1 << 20,
            linger: Duration::from_millis(500),
            awaited_linger: Duration::from_millis(5),
            queue_bytes: 64 << 20,
            retry_deadline: Duration::from_secs(60),
            change_counter: Some("lastModified".to_owned()),
            checkpoints: Policy::default(),
            repair: true,
        }
    }
}

/// What a log tells its listeners.
#[derive(Debug)]
pub enum Event {
    /// Writing failed; the entries are kept and it is tried again.
    Error(Error),
    /// The file is damaged and is not repaired; writing has stopped, the entries are kept.
    Corrupt(Error),
    /// The file is damaged and is about to be repaired: what was found.
    Recovering(Health),
    /// The file is repaired, and writing goes on: the account of it.
    Recovered(Box<Report>),
    /// Connections to the file were wedged, by this error, and work again.
    Healed(Error, Remedy),
    /// Connections of this process to the file are to be opened anew: those that are in no
    /// transaction are to be closed at once, because the others wait for it.
    Reopen,
    /// The path leads to another file, or to none; writing has stopped, the entries are kept.
    Replaced(Error),
    /// A checkpoint reset the WAL, or was prevented.
    Checkpoint(checkpoint::Outcome),
    /// A row that nobody waits for was rejected.
    Rejected(Entries, Error),
    /// The queue refused entries (`true`), or has room again (`false`).
    Backpressure(bool),
}

/// Takes events. Called on any thread, never with a lock held; must not wait.
pub trait Listener: Send + Sync {
    /// Takes one event.
    fn event(&self, event: &Event);
}

/// What is known of the WAL and its checkpoints.
#[derive(Debug, Clone, Default)]
pub struct WalStatus {
    /// Frames after the last commit or checkpoint.
    pub frames: u32,
    /// How many of them the last checkpoint found in the database.
    pub backfilled: u32,
    /// Size of the file, in bytes.
    pub bytes: u64,
    /// Largest size seen.
    pub peak_bytes: u64,
    /// Checkpoints carried out, by [`Mode`].
    pub completed: [u64; 4],
    /// Checkpoints that a reader, a writer or another checkpointer prevented.
    pub prevented: u64,
    /// Since when they have been, without one that completed.
    pub prevented_since: Option<SystemTime>,
    /// Checkpoints that failed.
    pub failed: u64,
}

/// A log as its handles and its writer share it.
pub(super) struct Shared {
    pub file: Arc<DatabaseFile>,
    pub options: Options,
    pub queue: Queue,
    wal: Mutex<WalStatus>,
    listeners: Mutex<Vec<(u64, Arc<dyn Listener>)>>,
}

impl Shared {
    pub fn new(file: Arc<DatabaseFile>, options: Options) -> Self {
        Self {
            file,
            options,
            queue: Queue::new(),
            wal: Mutex::default(),
            listeners: Mutex::default(),
        }
    }

    pub fn wal(&self) -> MutexGuard<'_, WalStatus> {
        self.wal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<(u64, Arc<dyn Listener>)>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn listen(&self, id: u64, listener: Arc<dyn Listener>) {
        self.listeners().push((id, listener));
    }

    pub fn unlisten(&self, id: u64) {
        self.listeners().retain(|(listener, _)| *listener != id);
    }

    pub fn emit(&self, event: &Event) {
        let listeners: Vec<_> =
            self.listeners().iter().map(|(_, listener)| Arc::clone(listener)).collect();
        for listener in listeners {
            listener.event(event);
        }
    }

    /// Tells what a settled batch left to be told. Rejections first: a flush that resolves has
    /// told of them, and once it has, nothing may keep the process alive to hear more.
    pub fn tell(&self, mut settled: Settled) {
        for (entries, error) in std::mem::take(&mut settled.unawaited) {
            self.emit(&Event::Rejected(entries, error));
        }
        let relieved = settled.relieved;
        settled.reply();
        if relieved {
            self.emit(&Event::Backpressure(false));
        }
    }

    /// Ends writing for good: entries stay, whoever waits is told.
    fn stop(&self, error: &Error) {
        self.queue.lock().stopped = Some(error.clone());
        // The event first, so that whoever is told of a failed append knows the reason.
        self.emit(&match error.class() {
            Class::Replaced => Event::Replaced(error.clone()),
            Class::Corrupt => Event::Corrupt(error.clone()),
            _ => Event::Error(error.clone()),
        });
        self.tell(self.queue.fail_waiting(error, None));
        for reply in self.queue.take_checkpoints() {
            reply(Err(error.clone()));
        }
    }
}

/// A repair goes on while somebody needs it: the log is open, or was closed only just now with
/// entries in its queue.
struct WhileNeeded<'a> {
    shared: &'a Shared,
    closing_since: OnceLock<Instant>,
}

impl Task for WhileNeeded<'_> {
    fn stage(&self, _: Stage) {}

    fn go_on(&self) -> Result<()> {
        let state = self.shared.queue.lock();
        if !state.closing {
            return Ok(());
        }
        let since = self.closing_since.get_or_init(Instant::now);
        if state.rows > 0 && since.elapsed() < END_DEADLINE {
            return Ok(());
        }
        Err(Error::fusion("ERR_FUSION_CANCELLED", "the database was closed before it was repaired"))
    }
}

/// Starts the writer of `shared`.
///
/// # Errors
/// `ERR_FUSION_THREAD` where the system gives no thread.
pub(super) fn start(shared: &Arc<Shared>) -> Result<()> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new()
        .name("fusion-sqlite".to_owned())
        .spawn(move || supervise(&shared))
        .map(drop)
        .map_err(|error| {
            Error::fusion(
                "ERR_FUSION_THREAD",
                format!("the system refused to start the log's writer thread: {error}"),
            )
        })
}

fn supervise(shared: &Arc<Shared>) {
    let weak = Arc::downgrade(shared);
    shared.file.wal.set_wake(
        shared.options.checkpoints.due_frames,
        Some(Arc::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.queue.lock().look_at_wal = true;
                shared.queue.work.notify_one();
            }
        })),
    );
    let weak = Arc::downgrade(shared);
    shared.file.members.observe(Some(Arc::new(move |error, remedy| {
        if let Some(shared) = weak.upgrade() {
            if remedy == Remedy::Lost {
                shared.emit(&Event::Error(engine::commits_lost().at(&shared.file.path)));
            }
            shared.emit(&Event::Healed(error, remedy));
        }
    })));
    let mut writer = Writer::new(shared);
    while catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
        // The transaction, if one was open, goes with the connection.
        drop(catch_unwind(AssertUnwindSafe(|| writer.open = None)));
        if let Some(batch) = writer.batch.take() {
            shared.queue.give_back(batch);
        }
        shared.stop(&Error::fusion(
            "ERR_FUSION_WRITER_PANIC",
            "the log's writer met a defect of fusion-sqlite and has stopped; entries are kept, \
             takePending() takes them back. Please report it with the process's standard error.",
        ));
    }
    shared.file.wal.set_wake(0, None);
    shared.file.members.observe(None);
    registry::forget(shared);
    let mut state = shared.queue.lock();
    state.ended = true;
    let waiting = std::mem::take(&mut state.when_ended);
    let stopped = state.stopped.clone();
    drop(state);
    shared.queue.progress.notify_all();
    for reply in waiting {
        reply(stopped.clone().map_or(Ok(()), Err));
    }
    // Asked for between the writer's last look at the queue and its end.
    for reply in shared.queue.take_checkpoints() {
        reply(Err(Error::fusion("ERR_INVALID_STATE", "database is not open")));
    }
}

/// The writer's connection. Fields drop in order: statements before their connection.
struct Open {
    statements: Option<Statements>,
    connection: Connection,
}

struct Writer<'a> {
    shared: &'a Shared,
    open: Option<Open>,
    /// The batch of the transaction under way: here, so that a panic does not lose it.
    batch: Option<Batch>,
    /// So many rows are still to be written one by one, because together they failed at COMMIT.
    alone: usize,
    /// Failures in a row.
    attempts: u32,
    /// Repairs since the last commit.
    repairs: u32,
    /// The last repair that may yet succeed, and why it did not.
    failed_repair: Option<(Instant, Error)>,
    /// When damage that another connection met was last looked into.
    heeded: Option<Instant>,
    /// The last failure has been waited out already.
    waited: bool,
    /// The failure that was last told; told once until something else happens.
    told: Option<i32>,
    /// A wedge was seen to, and nothing written or checkpointed since.
    healing: bool,
    /// The same for checkpoints: a full disk fails each of them, many times a second.
    told_checkpoint: Option<i32>,
    last_commit: Instant,
    seen_commits: u32,
    /// The WAL was restarted when the file had seen so many commits.
    restarted_at: Option<u32>,
    last_truncate: Instant,
    last_prevented: Option<Instant>,
    frames_at_last: u32,
    told_prevented: Option<Instant>,
    look_at_wal: Option<Instant>,
    /// Of the schema that is kept for a repair.
    schema: Keeper,
    random: u64,
}

/// What woke the writer.
enum Step {
    Next(Next),
    LookAtWal,
}

impl<'a> Writer<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = Instant::now();
        Self {
            shared,
            open: None,
            batch: None,
            alone: 0,
            attempts: 0,
            repairs: 0,
            failed_repair: None,
            heeded: None,
            waited: false,
            told: None,
            healing: false,
            told_checkpoint: None,
            last_commit: now,
            seen_commits: 0,
            restarted_at: None,
            last_truncate: now,
            last_prevented: None,
            frames_at_last: 0,
            told_prevented: None,
            // A WAL left by an earlier process is looked at soon.
            look_at_wal: Some(now),
            schema: Keeper::default(),
            random: u64::from(std::process::id()) << 32 | shared.file.id.inode | 1,
        }
    }

    fn run(&mut self) {
        loop {
            match self.wait() {
                Step::LookAtWal => self.care_for_wal(),
                Step::Next(Next::Commit) => {
                    if let Err(error) = self.commit() {
                        self.failed(error);
                    }
                    self.care_for_wal();
                }
                Step::Next(Next::Checkpoint(mode, reply)) => self.checkpoint_for(mode, reply),
                Step::Next(Next::Wait(_)) => {}
                Step::Next(Next::Stop) => return self.end(),
            }
        }
    }

    fn wait(&mut self) -> Step {
        let queue = &self.shared.queue;
        let mut state = queue.lock();
        loop {
            let now = Instant::now();
            if std::mem::take(&mut state.look_at_wal) {
                return Step::LookAtWal;
            }
            let due = match state.next(now, &self.shared.options) {
                Next::Wait(due) => due,
                next => return Step::Next(next),
            };
            // Nothing is done to a file that is damaged or replaced.
            let look = self.look_at_wal.filter(|_| state.stopped.is_none());
            if look.is_some_and(|look| look <= now) {
                return Step::LookAtWal;
            }
            state = match [due, look].into_iter().flatten().min() {
                Some(until) => {
                    let time = until.saturating_duration_since(now);
                    queue.work.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0
                }
                None => queue.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn connection(&mut self) -> Result<&Connection> {
        if self.open.is_none() {
            let file = &self.shared.file;
            // No CREATE: a file that has vanished must not come back empty.
            let connection = self.open_in_turn()?;
            if connection.file().is_none_or(|opened| opened.id != file.id) {
                return Err(Error::fusion(
                    "ERR_FUSION_REPLACED",
                    "the path leads to another file than the one that is open: it was replaced, \
                     by a checkout or a restore. Writing has stopped; close the database and \
                     open it again.",
                )
                .at(&file.path));
            }
            connection.sql()?.busy_timeout(Duration::ZERO)?;
            engine::watch_wal(&connection);
            self.open = Some(Open { statements: None, connection });
        }
        match &self.open {
            Some(open) => Ok(&open.connection),
            None => Err(Error::fusion("ERR_INVALID_STATE", "database is not open")),
        }
    }

    /// Opens the file, and waits as long as the profile says for those of this process's
    /// connections that are stale. One in a transaction could not be closed when all were told: it
    /// is told again and again, because the end of a transaction tells nobody.
    fn open_in_turn(&self) -> Result<Connection> {
        let file = &self.shared.file;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE;
        let profile = &self.shared.options.profile;
        let deadline = Instant::now() + profile.busy_timeout.min(engine::PATIENCE);
        let briefly = Profile { busy_timeout: TELL_AGAIN, ..profile.clone() };
        while file.is_being_reopened() {
            match Connection::open_hardened(&file.path, flags, &briefly) {
                Err(error) if error.code == "ERR_FUSION_WEDGED" && Instant::now() < deadline => {
                    self.shared.emit(&Event::Reopen);
                }
                opened => return opened,
            }
        }
        Connection::open_hardened(&file.path, flags, profile)
    }

    /// Closes a connection that is stale: a JavaScript thread noticed the wedge first. Others of
    /// this process wait for that, and for one another.
    fn let_go(&mut self) {
        if self.open.as_ref().is_some_and(|open| open.connection.is_stale()) {
            self.open = None;
            self.shared.emit(&Event::Reopen);
        }
    }

    /// The connection, if the file may be written to and checkpointed: its path still leads to
    /// it, and where there was reason to doubt it, it has been checked.
    fn sound_connection(&mut self) -> Result<&Connection> {
        let file = &self.shared.file;
        self.let_go();
        if self.open.is_none() {
            // Opening makes a -wal where one was deleted under others, who have it open still.
            file.check_beside()?;
        }
        let connection = self.connection()?;
        connection.check_identity()?;
        file.check_beside()?;
        settle_doubt(file)?;
        Ok(connection)
    }

    /// One transaction. `Ok` also where nothing was left to write.
    fn commit(&mut self) -> Result<()> {
        let started = Instant::now();
        self.sound_connection()?;
        if let Some(open) = self.open.as_mut().filter(|open| open.statements.is_none()) {
            let counter = self.shared.options.change_counter.as_deref();
            open.statements = Some(Statements::prepare(&open.connection, counter)?);
        }
        let shared = self.shared;
        let expectation = shared.file.turn.expect_release();
        let turn = shared.file.turn.take();
        if let Err(error) = self.execute("BEGIN IMMEDIATE") {
            turn.abandon();
            if error.class() == Class::Transient {
                let pause = self.pause(Duration::from_millis(1), Duration::from_millis(100));
                expectation.wait(pause);
                self.waited = true;
            }
            return Err(error);
        }
        drop(expectation);
        let rows = if self.alone > 0 { 1 } else { shared.options.batch_rows };
        self.batch = Some(shared.queue.take_batch(rows, shared.options.batch_bytes));
        let written = self.write_batch();
        if self.open.as_ref().is_some_and(|open| !open.connection.is_autocommit()) {
            // Only after a failure; SQLite may have rolled back by itself already.
            drop(self.execute("ROLLBACK"));
        }
        drop(turn);
        let batch = self.batch.take().unwrap_or_default();
        match written {
            Ok(outcomes) => {
                if !outcomes.is_empty() {
                    self.alone = self.alone.saturating_sub(outcomes.len());
                    let mut state = shared.queue.lock();
                    state.stats.batches += 1;
                    state.stats.commit.record(started.elapsed(), 1);
                }
                let settled = shared.queue.settle(batch, outcomes, &shared.options);
                // Before anybody who waits can ask for the state.
                self.succeeded();
                self.is_healed();
                shared.tell(settled);
                Ok(())
            }
            Err(error) => {
                shared.queue.give_back(batch);
                Err(error)
            }
        }
    }

    /// Writes `self.batch` and commits. On an error a transaction may still be open.
    fn write_batch(&mut self) -> Result<Vec<RowOutcome>> {
        let mut outcomes = Outcomes::new();
        loop {
            let (Some(batch), Some(Open { statements: Some(statements), connection })) =
                (&self.batch, &self.open)
            else {
                return Ok(Vec::new());
            };
            match statements.write(connection, batch, &mut outcomes)? {
                Written::TransactionEnded => self.execute("BEGIN IMMEDIATE")?,
                Written::All => break,
            }
        }
        match self.execute("COMMIT").and_then(|()| self.is_kept()) {
            Ok(()) => Ok(complete(outcomes)),
            Err(error) if error.class() != Class::Transient && error.class() != Class::Row => {
                self.doubt(outcomes, &error);
                Err(error)
            }
            // A deferred constraint speaks up only now, and does not say which row broke it.
            Err(error) if error.class() == Class::Row => {
                self.execute("ROLLBACK")?;
                if outcomes.len() == 1 {
                    return Ok(vec![RowOutcome::Rejected(error)]);
                }
                self.alone = outcomes.len();
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// That what was just committed is in the file's own WAL.
    fn is_kept(&self) -> Result<()> {
        if self.open.as_ref().is_some_and(|open| open.connection.is_stale()) {
            return Err(Error::stale().at(&self.shared.file.path));
        }
        self.shared.file.check_beside()
    }

    /// The COMMIT of the rows in `self.batch` failed, and may have taken place all the same: they
    /// are looked for before they are written again.
    fn doubt(&mut self, outcomes: Outcomes, error: &Error) {
        if let Some(batch) = &mut self.batch {
            let outcomes = complete(outcomes);
            if !outcomes.is_empty() {
                batch.unknown = Some(Unknown { outcomes, error: error.clone() });
            }
        }
    }

    fn execute(&mut self, sql: &str) -> Result<()> {
        let path = &self.shared.file.path;
        self.connection()?.sql()?.execute_batch(sql).map_err(|error| Error::from(error).at(path))
    }

    fn succeeded(&mut self) {
        self.attempts = 0;
        self.repairs = 0;
        self.told = None;
        self.last_commit = Instant::now();
        let mut state = self.shared.queue.lock();
        state.failing = None;
        state.retry_at = None;
    }

    fn failed(&mut self, error: Error) {
        self.attempts = self.attempts.saturating_add(1);
        if let Err(error) = self.heal(error).or_else(|error| self.repair(error)) {
            self.answer(error);
        }
    }

    /// Answers for an error that could neither be healed nor repaired.
    fn answer(&mut self, error: Error) {
        let class = error.class();
        if matches!(class, Class::Corrupt | Class::Replaced)
            || error.code == "ERR_FUSION_COMMIT_UNKNOWN"
        {
            return self.shared.stop(&error);
        }
        let now = Instant::now();
        let deadline = self.shared.options.retry_deadline;
        let waited = std::mem::take(&mut self.waited);
        let retry_at = if class != Class::Transient {
            // A fresh connection next time: whatever made this one fail is not carried along.
            // Unless it has a WAL open that nobody else can open any more.
            if error.code != "ERR_FUSION_WAL_LOST" {
                self.open = None;
            }
            Some(now + self.pause(Duration::from_millis(50), Duration::from_secs(5)))
        } else if waited {
            None
        } else {
            Some(now + self.pause(Duration::from_millis(1), Duration::from_millis(100)))
        };
        let retry_at = retry_at.max(self.failed_repair.as_ref().map(|(at, _)| *at + REPAIR_PAUSE));
        let mut state = self.shared.queue.lock();
        if class == Class::Transient {
            state.stats.retries += 1
        } else {
            state.stats.failures += 1
        }
        let since = state.failing.take().map_or(now, |(since, _)| since);
        state.failing = Some((since, error.clone()));
        state.retry_at = retry_at;
        let overdue = now.duration_since(since) >= deadline;
        if overdue && state.closing {
            state.stopped = Some(error.clone());
        }
        drop(state);
        if (class != Class::Transient || overdue) && self.told != Some(error.errcode) {
            self.told = Some(error.errcode);
            self.shared.emit(&Event::Error(error.clone()));
        }
        if overdue {
            let before = now.checked_sub(deadline);
            self.shared.tell(self.shared.queue.fail_waiting(&error, before));
        }
    }

    /// Repairs the file, if `error` says that it is damaged and the options say so.
    ///
    /// # Errors
    /// What is left to be answered: `error`, or why the repair has to be tried again.
    fn repair(&mut self, error: Error) -> Result<()> {
        let shared = self.shared;
        if !shared.options.repair || error.class() != Class::Corrupt {
            return Err(error);
        }
        if self.repairs >= REPAIR_ATTEMPTS {
            return Err(error);
        }
        if let Some((at, failure)) = &self.failed_repair
            && at.elapsed() < REPAIR_PAUSE
        {
            return Err(failure.clone());
        }
        self.failed_repair = None;
        // Its locks would be in the way, and what it knows of the file is of no use.
        self.open = None;
        let mut told = false;
        let mut tell = |found: &Health| {
            told = true;
            shared.emit(&Event::Recovering(found.clone()));
        };
        let options = repair::Options { patience: REPAIR_PATIENCE, ..repair::Options::default() };
        let task = WhileNeeded { shared, closing_since: OnceLock::new() };
        let repaired = repair::repair(&shared.file.path, &options, &mut tell, &task);
        match repaired {
            Ok(report) => {
                self.repairs += 1;
                // Whatever was doubted has been looked at.
                shared.file.take_damage_met();
                shared.file.take_suspicion();
                if report.outcome == Outcome::Healthy {
                    self.is_healed();
                } else {
                    self.healing = false;
                    shared.file.members.dismiss();
                }
                self.look_at_wal = Some(Instant::now());
                // Where nothing was wrong it was the connection, which is opened anew.
                if told {
                    shared.emit(&Event::Recovered(Box::new(report)));
                }
                Ok(())
            }
            // In use, or no room: the file is as it was, and the next attempt repairs it.
            Err(failure) if matches!(failure.class(), Class::Transient | Class::Disk) => {
                self.failed_repair = Some((Instant::now(), failure.clone()));
                Err(failure)
            }
            Err(failure) if failure.class() == Class::Replaced => Err(failure),
            Err(failure) => Err(Error {
                message: format!(
                    "{}. It could not be repaired: {}",
                    error.message, failure.message
                ),
                ..error
            }),
        }
    }

    /// Sees to a wedge, if `error` may come from one: drops the connection, and has the next one
    /// checked before anything is written. `Ok`: try again.
    ///
    /// # Errors
    /// What is left to be answered for: `error`, where there was no wedge, or this did not help.
    fn heal(&mut self, error: Error) -> Result<()> {
        if !error.may_be_wedge() {
            return Err(error);
        }
        if self.healing {
            // Seen to already, without a commit since.
            self.shared.file.members.give_up();
            return Err(error);
        }
        let file = &self.shared.file;
        // What is prepared stands in the way of closing, but of nothing else.
        let connection = self.open.as_ref().map(|open| &open.connection);
        match file.heal(connection, engine::PATIENCE) {
            Ok(remedy) => {
                self.open = None;
                // The whole file is looked through before anything is written.
                file.suspect();
                if remedy != Remedy::IndexRebuilt {
                    self.shared.emit(&Event::Reopen);
                }
                file.members.hope(error, remedy);
                self.healing = true;
                Ok(())
            }
            // It is another file, or a busy one: that is to be said then.
            Err(other) if other.class() != Class::Corrupt => {
                if other.code == "ERR_FUSION_WAL_LOST" {
                    // A JavaScript thread may have the connection that can save it.
                    self.shared.emit(&Event::Reopen);
                }
                Err(other)
            }
            Err(_) => Err(error),
        }
    }

    /// The connection works: a wedge that was seen to is healed.
    fn is_healed(&mut self) {
        if std::mem::take(&mut self.healing) {
            self.shared.file.members.confirm();
        }
    }

    /// A pause that doubles with each failure in a row, from `first` to `longest`, and is drawn
    /// from its upper half, so that processes which collided once do not collide again.
    fn pause(&mut self, first: Duration, longest: Duration) -> Duration {
        // xorshift64: any spread will do.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let full = first.saturating_mul(1 << self.attempts.min(16)).min(longest);
        full.mul_f64(0.5 + (self.random % 1000) as f64 / 2000.0)
    }

    /// Looks at the WAL, and checkpoints if the policy says so.
    fn care_for_wal(&mut self) {
        let shared = self.shared;
        let now = Instant::now();
        self.look_at_wal = None;
        self.let_go();
        if shared.queue.lock().stopped.is_some() {
            return;
        }
        let heed_again = self.heed_damage(now);
        if shared.queue.lock().stopped.is_some() {
            return;
        }
        if let Err(error) = settle_doubt(&shared.file) {
            // Nothing is done to the file until the doubt is settled.
            self.look_at_wal = Some(now + self.pause(SOON, Duration::from_secs(5)));
            return self.doubted(error);
        }
        let commits = shared.file.wal.commits();
        if commits != self.seen_commits {
            self.seen_commits = commits;
            self.last_commit = now;
        }
        let bytes = wal_size(&shared.file.path);
        let situation = {
            let mut wal = shared.wal();
            wal.frames = shared.file.wal.frames();
            wal.backfilled = wal.backfilled.min(wal.frames);
            wal.bytes = bytes;
            wal.peak_bytes = wal.peak_bytes.max(bytes);
            Situation {
                frames: wal.frames,
                backfilled: wal.backfilled,
                frames_at_last: self.frames_at_last,
                wal_bytes: bytes,
                restarted: self.restarted_at == Some(commits),
                idle: now.duration_since(self.last_commit),
                since_truncate: now.duration_since(self.last_truncate),
                since_prevented: self.last_prevented.map(|at| now.duration_since(at)),
            }
        };
        match checkpoint::decide(&shared.options.checkpoints, &situation) {
            Ok(mode) => {
                drop(self.checkpoint(mode));
                // What remains to be done, if anything, is decided afresh.
                self.look_at_wal = Some(now + Duration::from_millis(1));
            }
            Err(look_again) => {
                // The file has just been used, or checkpointed, without a complaint.
                self.keep_schema(self.schema.is_due(commits, now));
                shared.file.wal.set_asleep(look_again.is_none());
                self.look_at_wal = look_again.map(|time| now + time);
            }
        }
        self.look_at_wal = [self.look_at_wal, heed_again].into_iter().flatten().min();
    }

    /// The file could not be checked, or did not pass.
    fn doubted(&mut self, error: Error) {
        match error.class() {
            Class::Corrupt | Class::Replaced => self.failed(error),
            // Told with the batch or the checkpoint that it is in the way of.
            _ => self.attempts = self.attempts.saturating_add(1),
        }
    }

    /// Has the schema kept for a repair, of a file that nobody doubts. On a connection of its own
    /// where there is no other: one that stays would be in the way of a change of journal mode.
    fn keep_schema(&mut self, is_due: bool) {
        let file = &self.shared.file;
        if !is_due || file.is_suspect() {
            return;
        }
        let commits = file.wal.commits();
        if let Some(open) = &self.open {
            return self.schema.look(&open.connection, commits);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        let profile =
            Profile { busy_timeout: Duration::ZERO, ..self.shared.options.profile.clone() };
        if let Ok(connection) = Connection::open_hardened(&file.path, flags, &profile) {
            self.schema.look(&connection, commits);
        }
    }

    /// Has the file looked through, and repaired, where another connection of this process met
    /// damage. It need not be this file that is damaged: that connection may have attached another
    /// one. Where it may be a wedge, that is seen to first, so that the repair sees what is in the
    /// file.
    /// Answers when to look again, if that was only just done.
    fn heed_damage(&mut self, now: Instant) -> Option<Instant> {
        let file = &self.shared.file;
        if !self.shared.options.repair {
            return None;
        }
        if let Some(again) = self.heeded.map(|at| at + REPAIR_PAUSE).filter(|again| now < *again) {
            return Some(again);
        }
        if file.take_damage_met() {
            self.heeded = Some(now);
            let repairs = self.repairs;
            let met = "a connection of this process found it damaged";
            let error = Error::sqlite(rusqlite::ffi::SQLITE_CORRUPT, met).at(&file.path);
            // An index of a virtual table is damaged in the file, or not at all.
            let healed = if file.is_suspect() { self.heal(error.clone()) } else { Ok(()) };
            let seen_to = match healed {
                Err(error) if error.class() != Class::Corrupt => Err(error),
                Ok(()) | Err(_) => self.repair(error),
            };
            if let Err(error) = seen_to {
                if matches!(error.class(), Class::Transient | Class::Disk) {
                    // Nobody else looks again where only an index is damaged.
                    file.index_damage_met();
                }
                self.attempts = self.attempts.saturating_add(1);
                self.answer(error);
            }
            // It may have been nothing, and says nothing of this connection's next commit.
            self.repairs = repairs;
        }
        None
    }

    fn checkpoint_for(&mut self, mode: Mode, reply: CheckpointReply) {
        reply(self.checkpoint(mode));
    }

    fn checkpoint(&mut self, mode: Mode) -> Result<checkpoint::Outcome> {
        let shared = self.shared;
        // Counted before: a commit during the checkpoint may be what the restart is undone by.
        let commits = shared.file.wal.commits();
        let mut outcome = self.run_checkpoint(mode);
        if let Err(error) = outcome {
            outcome = self
                .heal(error)
                .or_else(|error| self.repair(error))
                .and_then(|()| self.run_checkpoint(mode));
        }
        if outcome.is_ok() {
            self.is_healed();
            // The file was written to: what is known of it is brought up to date.
            drop(shared.file.check_beside());
        }
        let now = Instant::now();
        let mut wal = shared.wal();
        match &outcome {
            Ok(outcome) => {
                wal.frames = outcome.frames;
                wal.backfilled = outcome.backfilled;
                self.frames_at_last = outcome.frames;
                wal.bytes = wal_size(&shared.file.path);
                if outcome.busy {
                    wal.prevented += 1;
                    wal.prevented_since.get_or_insert_with(SystemTime::now);
                    self.last_prevented = Some(now);
                } else {
                    if let Some(count) = wal.completed.get_mut(mode as usize) {
                        *count += 1;
                    }
                    wal.prevented_since = None;
                    self.last_prevented = None;
                    if mode == Mode::Truncate {
                        self.last_truncate = now;
                    }
                    if mode == Mode::Restart {
                        self.restarted_at = Some(commits);
                    }
                }
                shared.file.wal.set_frames(outcome.frames);
            }
            Err(_) => {
                wal.failed += 1;
                self.last_prevented = Some(now);
            }
        }
        drop(wal);
        match &outcome {
            Ok(outcome) => {
                self.repairs = 0;
                self.told_checkpoint = None;
                self.tell_checkpoint(*outcome, now);
            }
            Err(error) if matches!(error.class(), Class::Corrupt | Class::Replaced) => {
                shared.stop(error);
            }
            Err(error) if self.told_checkpoint.replace(error.errcode) != Some(error.errcode) => {
                shared.emit(&Event::Error(error.clone()));
            }
            Err(_) => {}
        }
        outcome
    }

    fn run_checkpoint(&mut self, mode: Mode) -> Result<checkpoint::Outcome> {
        let turns = &self.shared.file.turn;
        // A checkpoint is what makes damage by a replaced file, or by a WAL that is not its own,
        // permanent.
        let connection = self.sound_connection()?;
        if mode == Mode::Passive {
            return checkpoint::run(connection, mode);
        }
        let mut attempts = 0;
        loop {
            let expectation = turns.expect_release();
            let turn = turns.take();
            let outcome = checkpoint::run(connection, mode)?;
            attempts += 1;
            if !outcome.busy || attempts == RESET_ATTEMPTS {
                return Ok(outcome);
            }
            // Perhaps a commit of this process was under way, which is over in a moment.
            turn.abandon();
            expectation.wait(Duration::from_millis(1));
        }
    }

    /// Tells of resets, and of prevented checkpoints at most once a second.
    fn tell_checkpoint(&mut self, outcome: checkpoint::Outcome, now: Instant) {
        if outcome.busy {
            let recent = self
                .told_prevented
                .is_some_and(|told| now.duration_since(told) < Duration::from_secs(1));
            if recent {
                return;
            }
            self.told_prevented = Some(now);
        } else {
            let was_prevented = self.told_prevented.take().is_some();
            if outcome.mode == Mode::Passive && !was_prevented {
                return;
            }
        }
        self.shared.emit(&Event::Checkpoint(outcome));
    }

    /// Leaves the file as a clean shutdown should: WAL in the database, connection closed.
    fn end(&mut self) {
        let is_stopped = |shared: &Shared| shared.queue.lock().stopped.is_some();
        if !is_stopped(self.shared) && wal_size(&self.shared.file.path) > 0 {
            drop(self.checkpoint(Mode::Truncate));
        }
        // The checkpoint may have found damage.
        let stopped = is_stopped(self.shared);
        self.keep_schema(!stopped && self.schema.is_stale(self.shared.file.wal.commits()));
        if let Some(mut open) = self.open.take() {
            open.statements = None;
            if !stopped {
                open.connection.checkpoint_on_close(true);
            }
            drop(open.connection);
        }
    }
}

/// Checks the file, if there is reason to doubt it.
fn settle_doubt(file: &DatabaseFile) -> Result<()> {
    if !file.take_suspicion() {
        return Ok(());
    }
    match file.check_identity().and_then(|()| check(&file.path)) {
        Ok(()) => file.members.confirm(),
        Err(error) => {
            // Not answered, or answered badly: either way the doubt remains.
            file.keep_suspecting();
            return Err(error);
        }
    }
    Ok(())
}

/// Looks through the whole file, but does not compare indexes with tables. A check of the file
/// that is under way for somebody else answers for this one.
fn check(path: &Path) -> Result<()> {
    let health = health::check_within(path, health::Kind::Quick, Duration::ZERO, &Unwatched)?;
    if health.is_locked() {
        return Err(
            Error::sqlite(rusqlite::ffi::SQLITE_BUSY, "the file could not be checked").at(path)
        );
    }
    if !health::is_unsafe_to_write(&health) {
        return Ok(());
    }
    Err(Error::sqlite(
        rusqlite::ffi::SQLITE_CORRUPT,
        format!(
            "the file is damaged, or the -wal beside it belongs to another one. Nothing has been \
             written to it: {}",
            health.summary()
        ),
    )
    .at(path))
}

/// Size of the file's WAL, by `stat`; 0 where there is none.
fn wal_size(database: &Path) -> u64 {
    std::fs::metadata(Wal::path(database)).map_or(0, |metadata| metadata.len())
}
