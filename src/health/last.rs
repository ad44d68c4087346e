//! The newest health of each file that this process has open.
//!
//! A file is checked once, at its first open; later handles use that result. The result is dropped
//! with the file's last connection. Any thread.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::finding::Health;
use crate::engine::{DatabaseFile, FileId};

type Known = (Weak<DatabaseFile>, Health);

static KNOWN: Mutex<Option<HashMap<FileId, Known>>> = Mutex::new(None);

/// Keeps the health of an open file, in place of an older one.
pub fn remember(file: &Arc<DatabaseFile>, health: Health) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_with(HashMap::new);
    known.retain(|_, (file, _)| file.strong_count() > 0);
    known.insert(file.id, (Arc::downgrade(file), health));
}

/// The newest health of a file that has been open since its check.
pub fn last(id: FileId) -> Option<Health> {
    let open = DatabaseFile::opened(id)?;
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let (file, health) = known.as_ref()?.get(&id)?;
    // A deleted file may have had the same inode.
    file.ptr_eq(&Arc::downgrade(&open)).then(|| health.clone())
}
