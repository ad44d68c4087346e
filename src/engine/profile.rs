//! The hardened connection profile.

/// `PRAGMA synchronous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// Commits survive a crash of the process.
    Normal,
    /// Commits survive loss of power, too.
    Full,
}

/// Settings of a hardened connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// `PRAGMA synchronous`.
    pub synchronous: Synchronous,
}
