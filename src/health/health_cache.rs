//! The latest health of each file that this process has open.
//!
//! A file is checked once, at its first open; later handles use that result. The result is dropped
//! with the file's last connection. Any thread.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::finding::Health;
use crate::engine::{DatabaseFile, FileId};

type Known = (Weak<DatabaseFile>, Health);

static KNOWN: Mutex<Option<HashMap<FileId, Known>>> = Mutex::new(None);

/// Stores the health of an open file, and replaces an earlier one.
pub fn remember(file: &Arc<DatabaseFile>, health: Health) {
    let mut known = KNOWN.lock();
    let known = known.get_or_insert_with(HashMap::new);
    known.retain(|_, (file, _)| file.strong_count() > 0);
    known.insert(file.id, (Arc::downgrade(file), health));
}

/// The latest health of a file that has been open since.
pub fn last(id: FileId) -> Option<Health> {
    let open = DatabaseFile::opened(id)?;
    let known = KNOWN.lock();
    let (file, health) = known.as_ref()?.get(&id)?;
    // The entry may be of a deleted file that had the same inode.
    file.ptr_eq(&Arc::downgrade(&open)).then(|| health.clone())
}
