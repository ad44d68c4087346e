//! The figures of a log.

use std::ffi::CStr;
use std::time::{SystemTime, UNIX_EPOCH};

use napi::sys;

use super::errors::{Outcome, error_value};
use super::raw_call::text;
use super::value::{new_object, number_value, set};
use crate::agent_log::{Latency, Log};

/// The figures, flat; lib/agent-log.js gives them their shape.
pub(super) fn stats_value(env: sys::napi_env, log: &Log) -> Outcome<sys::napi_value> {
    let (stats, rows, bytes, wal, failure) = log.stats();
    let object = new_object(env)?;
    let quantile = |latency: &Latency, share| latency.quantile(share).as_secs_f64() * 1000.0;
    let [passive, full, restart, truncate] = wal.completed;
    let since =
        wal.prevented_since.and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok());
    let figures: [(&CStr, f64); 32] = [
        (c"queuedRows", rows as f64),
        (c"queuedBytes", bytes as f64),
        (c"limitBytes", log.options().queue_bytes as f64),
        (c"batches", stats.batches as f64),
        (c"rows", stats.rows as f64),
        (c"rejected", stats.rejected as f64),
        (c"bytes", stats.bytes as f64),
        (c"retries", stats.retries as f64),
        (c"failures", stats.failures as f64),
        (c"healed", log.file().recovery.count() as f64),
        (c"refused", stats.refused as f64),
        (c"takenBack", stats.taken_back as f64),
        (c"commitP50", quantile(&stats.commit, 0.5)),
        (c"commitP99", quantile(&stats.commit, 0.99)),
        (c"commitMax", stats.commit.max().as_secs_f64() * 1000.0),
        (c"appendP50", quantile(&stats.append, 0.5)),
        (c"appendP99", quantile(&stats.append, 0.99)),
        (c"appendMax", stats.append.max().as_secs_f64() * 1000.0),
        (c"walFrames", f64::from(wal.frames)),
        (c"walBackfilled", f64::from(wal.backfilled)),
        (c"walBytes", wal.bytes as f64),
        (c"walPeakBytes", wal.peak_bytes as f64),
        (c"passive", passive as f64),
        (c"full", full as f64),
        (c"restart", restart as f64),
        (c"truncate", truncate as f64),
        (c"busy", wal.prevented as f64),
        (c"busySince", since.map_or(f64::NAN, |since| since.as_millis() as f64)),
        (c"checkpointsFailed", wal.failed as f64),
        (c"batchRows", log.options().batch_rows as f64),
        (c"batchBytes", log.options().batch_bytes as f64),
        (c"linger", log.options().linger.as_secs_f64() * 1000.0),
    ];
    for (name, value) in figures {
        set(env, object, name, number_value(env, value)?)?;
    }
    if let Some((stopped, error)) = failure {
        let state = if stopped { "stopped" } else { "retrying" };
        set(env, object, c"state", text(env, state.as_bytes())?)?;
        set(env, object, c"error", error_value(env, &error)?)?;
    }
    Ok(object)
}
