//! What a log asks for when it finds its file damaged. Whoever opens the log knows how: repairs
//! are another room's.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::engine::{Error, Result, Task};

/// Repairs damaged files. Called on a log's thread, which has given up its own connection and
/// waits; other connections of this process may have the file open.
pub trait Repair: Send + Sync {
    /// Repairs the database at `path`, and answers the account of it, as JSON. `found` is called
    /// with what was found, as JSON, before anything is done about it; not where nothing is wrong,
    /// or somebody else has repaired it.
    ///
    /// # Errors
    /// Why it could not be repaired. The file is then as it was.
    fn repair(&self, path: &Path, found: &mut dyn FnMut(String), task: &dyn Task)
    -> Result<String>;
}

/// How a log has its file repaired. Any two are equal: which one is not an option of the log, but
/// whether it has one.
#[derive(Clone)]
pub struct Repairer(pub Arc<dyn Repair>);

impl fmt::Debug for Repairer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Repairer")
    }
}

impl PartialEq for Repairer {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Repairer {}

/// The damage that was found, and why it is not repaired.
pub(super) fn unrepaired(damage: Error, failure: &Error) -> Error {
    let message = format!("{}. It could not be repaired: {}", damage.message, failure.message);
    Error { message, ..damage }
}
