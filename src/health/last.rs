//! What is known of the files that this process has open: the newest health of each.
//!
//! A file is checked once after its first open; later handles go by what was found then. What is
//! known of a file is forgotten with its last connection. Any thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::finding::Health;
use crate::engine::{DatabaseFile, FileId};

type Known = (Weak<DatabaseFile>, Health);

static KNOWN: Mutex<Option<HashMap<FileId, Known>>> = Mutex::new(None);

/// Keeps what was found in an open file, until something newer is.
pub fn remember(file: &Arc<DatabaseFile>, health: Health) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(HashMap::new);
    known.retain(|_, (file, _)| file.strong_count() > 0);
    known.insert(file.id, (Arc::downgrade(file), health));
}

/// What was found last in a file that has been open since.
pub fn last(id: FileId) -> Option<Health> {
    let open = DatabaseFile::opened(id)?;
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let (file, health) = known.as_ref()?.get(&id)?;
    // Not of a file that is gone and had the inode before.
    file.ptr_eq(&Arc::downgrade(&open)).then(|| health.clone())
}
