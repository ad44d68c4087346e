//! Repairs as tasks, and before a file is opened. A log reports its own repairs by its events.

use std::ffi::CStr;
use std::path::PathBuf;
use std::time::Duration;

use napi::sys;
use serde::{Deserialize, Serialize};

use super::argument::{millis, string};
use super::errors::Outcome;
use super::raw_call::{Call, Raw, callback, text};
use super::task::{Work, arguments};
use crate::agent_log::resume;
use crate::engine::{Error, FileId, NoProgress, Progress, Result};
use crate::recovery::Reason;
use crate::recovery::repair::{RepairOptions, recover_to, repair};

/// Raw callbacks by name.
pub const FUNCTIONS: &[(&CStr, Raw)] = &[(c"recoverNow", callback!(recover_now))];

/// Tasks by name.
pub const WORKS: &[(&str, Work)] = &[("recover", recover)];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    path: PathBuf,
    /// The path of a new file; `None`: repairs in place.
    to: Option<PathBuf>,
    backups: Option<Vec<PathBuf>>,
    use_backup: bool,
    /// Milliseconds.
    patience: u64,
    /// A person asked for it; else a database that is about to be opened needs it.
    asked: bool,
    allow_loss: bool,
    keep_copies: u32,
}

/// `recover(arguments)`: the report.
fn recover(given: &str, task: &dyn Progress) -> Result<String> {
    let given: Arguments = arguments(given)?;
    let options = RepairOptions {
        backups: given.backups,
        use_backup: given.use_backup,
        patience: Duration::from_millis(given.patience),
        reason: if given.asked { Reason::Asked } else { Reason::Damage },
        allow_loss: given.allow_loss,
        keep_copies: given.keep_copies,
    };
    let report = match given.to {
        Some(to) => recover_to(&given.path, &to, &options, task)?,
        None => {
            let report = repair(&given.path, &options, &mut |_| (), task)?;
            if let Ok(id) = FileId::of(&given.path) {
                // The writer that the damage stopped goes on.
                resume(id);
            }
            report
        }
    };
    json(&report)
}

/// `recoverNow(path, patience, keepCopies)`: repairs a file on this thread, which is about to open
/// it, and answers the report.
fn recover_now(call: &Call<'_>) -> Outcome<sys::napi_value> {
    let path = PathBuf::from(string(call, 0)?.unwrap_or_default());
    let options = RepairOptions {
        patience: millis(call, 1)?,
        keep_copies: call.number(2)?,
        ..RepairOptions::default()
    };
    let report = repair(&path, &options, &mut |_| (), &NoProgress)?;
    text(call.env, json(&report)?.as_bytes())
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| {
        Error::fusion("ERR_FUSION_INTERNAL", format!("the result has no form in JSON: {error}"))
    })
}
