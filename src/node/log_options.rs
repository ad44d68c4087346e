//! The options of a log and of a connection, out of a callback's arguments.

use super::argument::{integer, millis, string};
use super::errors::{Outcome, Thrown};
use super::raw_call::Call;
use crate::agent_log::{ChangeCounter, LogOptions};
use crate::checkpoint;
use crate::engine::{JournalMode, Profile, Synchronous};

/// The profile that arguments from `first` on describe.
pub(super) fn profile(call: &Call<'_>, first: usize) -> Outcome<Profile> {
    let synchronous = match string(call, first + 1)?.as_deref() {
        Some("FULL") => Synchronous::Full,
        Some("EXTRA") => Synchronous::Extra,
        _ => Synchronous::Normal,
    };
    let switches = call.number(first + 5)?;
    let set = |bit: u32| switches & bit != 0;
    Ok(Profile {
        busy_timeout: millis(call, first)?,
        synchronous,
        journal_size_limit: integer(call, first + 2)?.cast_signed(),
        allow_hard_links: call.flag(first + 3),
        allow_network_file_system: call.flag(first + 4),
        foreign_keys: set(switch::FOREIGN_KEYS),
        double_quoted_strings: set(switch::DOUBLE_QUOTED_STRINGS),
        defensive: set(switch::DEFENSIVE),
        journal_mode: if set(switch::KEEP) { JournalMode::Keep } else { JournalMode::Wal },
        ..Profile::default()
    })
}

/// Switches of the profile, as bits.
mod switch {
    pub const FOREIGN_KEYS: u32 = 1;
    pub const DOUBLE_QUOTED_STRINGS: u32 = 2;
    pub const DEFENSIVE: u32 = 4;
    pub const KEEP: u32 = 8;
}

/// The log's, from argument 4 on, in the order of lib/options.js.
pub(super) fn options(call: &Call<'_>) -> Outcome<LogOptions> {
    let size = |index| Ok::<usize, Thrown>(usize::try_from(integer(call, index)?).unwrap_or(0));
    Ok(LogOptions {
        batch_rows: size(4)?.max(1),
        batch_bytes: size(5)?.max(1),
        linger: millis(call, 6)?,
        awaited_linger: millis(call, 7)?,
        queue_bytes: size(8)?,
        retry_deadline: millis(call, 9)?,
        change_counter: string(call, 10)?.map(|key| ChangeCounter { key, required: call.flag(21) }),
        checkpoints: checkpoint::Policy {
            due_frames: u32::try_from(integer(call, 11)?).unwrap_or(u32::MAX),
            idle: millis(call, 12)?,
            interval: millis(call, 13)?,
            limit_bytes: integer(call, 16)?,
        },
        // Each connection has its own patience, and its own SQL to be defended against; the
        // writer's waits are not SQLite's.
        profile: Profile {
            busy_timeout: Profile::default().busy_timeout,
            defensive: Profile::default().defensive,
            ..profile(call, 14)?
        },
        repair: call.flag(20),
        create_table: call.flag(22),
        keep_copies: u32::try_from(integer(call, 24)?).unwrap_or(u32::MAX),
        // NUL is in no name.
        columns: string(call, 23)?
            .unwrap_or_default()
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}
