//! Progress and cancellation of long operations.

use super::{Error, Result};

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// What it is doing: one word or two for a person, fixed.
    pub name: &'static str,
    /// Of [`Self::total`], in whatever unit the stage counts (pages, as a rule).
    pub done: u64,
    /// 0 where it is not known.
    pub total: u64,
}

/// The observer of an operation. Called on the operation's thread; must not block.
pub trait Progress: Send + Sync {
    /// Records the progress. Called often: as often as once in a thousand pages.
    fn stage(&self, stage: Stage);

    /// Fails if the operation shall end early (`ERR_FUSION_CANCELLED`, `ERR_FUSION_DEADLINE`).
    /// Called often, so that an operation ends within milliseconds.
    ///
    /// # Errors
    /// The reason.
    fn check_cancelled(&self) -> Result<()>;
}

/// An operation without an observer.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn stage(&self, _: Stage) {}

    fn check_cancelled(&self) -> Result<()> {
        Ok(())
    }
}

impl Error {
    /// The operation's owner asked it to end.
    pub fn cancelled() -> Self {
        Self::fusion("ERR_FUSION_CANCELLED", "the operation was cancelled; nothing was changed")
    }
}
