//! Backups and restores as tasks. [`super::backup_api`] is node:sqlite's function of that name, which
//! copies from a connection of JavaScript's; these open the file themselves.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::task::Work;
use crate::agent_log;
use crate::engine::{Error, FileId, Progress, Result};
use crate::health::{CheckKind, Health};
use crate::recovery::backup_file::{self, BackupOutcome};
use crate::recovery::backup_schedule::BackupDue;
use crate::recovery::restore::{self, RestoreOutcome};

/// Tasks by name.
pub const WORKS: &[(&str, Work)] = &[("backup", make), ("restore", put_back)];

/// How a copy is verified, as JavaScript says it.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Verify {
    Quick,
    Full,
    None,
}

impl Verify {
    const fn kind(self) -> Option<CheckKind> {
        match self {
            Self::Quick => Some(CheckKind::Quick),
            Self::Full => Some(CheckKind::Full),
            Self::None => None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Backup {
    database: PathBuf,
    path: PathBuf,
    verify: Verify,
    keep: u32,
    rate: u32,
    patience: u64,
    /// Milliseconds; none: whatever is there, now.
    interval: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Restore {
    database: PathBuf,
    from: PathBuf,
    verify: Verify,
    patience: u64,
    keep_copies: u32,
}

fn make(arguments: &str, task: &dyn Progress) -> Result<String> {
    let given: Backup = super::task::arguments(arguments)?;
    let options = backup_file::BackupOptions {
        verify: given.verify.kind(),
        keep: given.keep,
        rate: given.rate,
        patience: Duration::from_millis(given.patience),
    };
    let interval = given.interval.map(Duration::from_millis);
    let claim = match interval {
        Some(interval) => match BackupDue::ask(&given.database, &given.path, interval, task)? {
            BackupDue::Now(claim) => Some(claim),
            BackupDue::In(wait) => return answer(&json!({ "dueIn": wait.as_millis() as u64 })),
        },
        None => None,
    };
    match backup_file::backup(&given.database, &given.path, &options, task)? {
        BackupOutcome::Made(made) => {
            if let Some(claim) = claim {
                claim.made();
            }
            answer(&made)
        }
        BackupOutcome::Damaged(health) => damaged(
            "the database did not pass the check of its backup, so that it is damaged itself. No \
             backup was made; the earlier ones are as they were",
            &health,
        ),
    }
}

fn put_back(arguments: &str, task: &dyn Progress) -> Result<String> {
    let given: Restore = super::task::arguments(arguments)?;
    let options = restore::RestoreOptions {
        verify: given.verify.kind(),
        patience: Duration::from_millis(given.patience),
        keep_copies: given.keep_copies,
    };
    match restore::restore(&given.database, &given.from, &options, task)? {
        RestoreOutcome::Restored(restored) => {
            if let Ok(id) = FileId::of(&restored.path) {
                agent_log::resume(id);
            }
            answer(&restored)
        }
        RestoreOutcome::Damaged(health) => {
            damaged("the backup is damaged, and nothing was restored from it", &health)
        }
    }
}

fn answer(result: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(result).map_err(unspeakable)
}

/// The result from which `lib/backup-files.js` makes an `ERR_FUSION_BACKUP_DAMAGED` with its health.
fn damaged(message: &str, health: &Health) -> Result<String> {
    let health: Value = serde_json::to_value(health).map_err(unspeakable)?;
    answer(&json!({ "damaged": { "message": message, "health": health } }))
}

/// A path that JSON has no form for.
fn unspeakable(error: serde_json::Error) -> Error {
    Error::fusion("ERR_FUSION_INTERNAL", format!("the result has no form in JSON: {error}"))
}
