//! Renames: the one place that gives a file another name. Any thread.
//!
//! On Windows a virus scanner, the indexer or a sync tool opens each new file for a moment, and a
//! rename fails as long as it does. It is tried again then, as SQLite does with its own calls
//! (`winIoerrRetry`), for [`PATIENCE`]. Elsewhere a rename asks for no such patience: it is one call.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How long a rename that another program holds up is tried again, at most.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first pause; each one is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Windows' `ERROR_ACCESS_DENIED`.
pub(super) const ACCESS_DENIED: i32 = 5;

/// Windows' `ERROR_SHARING_VIOLATION`: a handle that does not share the file as it is needed.
pub(super) const SHARING_VIOLATION: i32 = 32;

/// Windows' `ERROR_LOCK_VIOLATION`.
pub(super) const LOCK_VIOLATION: i32 = 33;

/// Gives the file at `from` the name `to`. A file that is there is replaced, by one step.
///
/// # Errors
/// The system's.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    if cfg!(windows) {
        let passing = [ACCESS_DENIED, SHARING_VIOLATION, LOCK_VIOLATION];
        patiently(PATIENCE, &passing, std::thread::sleep, || fs::rename(from, to))
    } else {
        fs::rename(from, to)
    }
}

/// Whether Windows refused a rename because a program has the file open. Never elsewhere, where the
/// numbers mean something else.
pub(super) fn is_in_use(error: &io::Error) -> bool {
    cfg!(windows) && error.raw_os_error().is_some_and(is_sharing)
}

fn is_sharing(code: i32) -> bool {
    matches!(code, SHARING_VIOLATION | LOCK_VIOLATION)
}

/// `attempt`, and again as long as its error is one of `passing` and the pauses do not add up to
/// `patience`. Returns the last answer.
pub(super) fn patiently<T>(
    patience: Duration,
    passing: &[i32],
    mut pause: impl FnMut(Duration),
    mut attempt: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let (mut waited, mut next) = (Duration::ZERO, FIRST_PAUSE);
    loop {
        let answer = attempt();
        let passes = match &answer {
            Ok(_) => false,
            Err(error) => error.raw_os_error().is_some_and(|code| passing.contains(&code)),
        };
        if !passes || waited >= patience {
            return answer;
        }
        let length = next.min(patience.saturating_sub(waited));
        pause(length);
        waited = waited.saturating_add(length);
        next = next.saturating_mul(2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSING: [i32; 3] = [5, 32, 33];

    /// The answer and the pauses of a call that fails with these errors, one after another, and
    /// then succeeds.
    fn play(errors: &[i32]) -> (io::Result<usize>, Vec<Duration>) {
        let (mut pauses, mut calls) = (Vec::new(), 0);
        let answer = patiently(
            PATIENCE,
            &PASSING,
            |length| pauses.push(length),
            || {
                calls += 1;
                match errors.get(calls - 1) {
                    Some(code) => Err(io::Error::from_raw_os_error(*code)),
                    None => Ok(calls),
                }
            },
        );
        (answer, pauses)
    }

    #[test]
    fn what_holds_a_file_for_a_moment_is_waited_for() {
        let (answer, pauses) = play(&[5, 32, 33]);
        assert_eq!(answer.unwrap(), 4);
        assert_eq!(pauses.len(), 3);
        let (answer, pauses) = play(&[]);
        assert_eq!((answer.unwrap(), pauses.len()), (1, 0));
    }

    #[test]
    fn what_holds_it_for_good_is_the_answer_after_two_seconds() {
        let (answer, pauses) = play(&[32; 1000]);
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(32));
        assert_eq!(pauses.iter().sum::<Duration>(), PATIENCE);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE));
    }

    #[test]
    fn another_error_is_the_answer_at_once() {
        let (answer, pauses) = play(&[32, 2, 32]);
        assert_eq!(answer.unwrap_err().raw_os_error(), Some(2));
        assert_eq!(pauses.len(), 1);
    }

    #[test]
    fn only_a_handle_that_does_not_share_means_in_use() {
        assert!(is_sharing(32) && is_sharing(33) && !is_sharing(5) && !is_sharing(2));
        assert_eq!(is_in_use(&io::Error::from_raw_os_error(32)), cfg!(windows));
    }

    #[test]
    fn a_rename_replaces_what_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("new"), folder.path().join("old"));
        fs::write(&from, "new").unwrap();
        fs::write(&to, "old").unwrap();
        rename(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "new");
        assert!(!from.exists());
        let missing = rename(&from, &to).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
