//! What the doctor shows: facts of a file and of the system, and a file's page map.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::task::{Work, arguments};
use crate::engine::{self, Error, Progress, Result, canonicalize};
use crate::health;
use crate::health::page_map::{Known, MapOptions, OwnerKind};
use crate::recovery::salvage::SchemaEntry;
use crate::recovery::snapshot_file;

/// Tasks by name.
pub const WORKS: &[(&str, Work)] =
    &[("fileInfo", file_info), ("pageMap", page_map), ("platform", platform)];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    path: PathBuf,
    keep_copies: u32,
}

fn file_info(text: &str, _: &dyn Progress) -> Result<String> {
    let Arguments { path, keep_copies } = arguments(text)?;
    write(&health::file_info(&path, keep_copies)?)
}

#[derive(Deserialize)]
struct PlatformArguments {
    folder: PathBuf,
    topic: String,
}

/// Task `platform`: the [`engine::Answer`]s about a topic.
fn platform(text: &str, _: &dyn Progress) -> Result<String> {
    let PlatformArguments { folder, topic } = arguments(text)?;
    let known = engine::Topic::ALL.iter().find(|(name, _)| *name == topic);
    let (_, topic) = known.ok_or_else(|| {
        Error::fusion("ERR_FUSION_INTERNAL", format!("there is no topic {topic}"))
    })?;
    write(&engine::ask_platform(&folder, *topic)?)
}

#[derive(Deserialize)]
struct MapArguments {
    path: PathBuf,
    resolution: u64,
    damaged: Vec<u32>,
}

fn page_map(text: &str, task: &dyn Progress) -> Result<String> {
    let MapArguments { path, resolution, damaged } = arguments(text)?;
    let options = MapOptions { resolution, damaged, known: known(&path) };
    write(&health::page_map(&path, &options, task)?)
}

/// The b-trees in the saved schema snapshot of the database.
fn known(path: &Path) -> Vec<Known> {
    let path = canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let entries = snapshot_file::load(&path).map(|snapshot| snapshot.schema).unwrap_or_default();
    entries
        .into_iter()
        .filter_map(|SchemaEntry { kind, name, table, root, .. }| {
            let kind = match kind.as_str() {
                "table" => OwnerKind::Table,
                "index" => OwnerKind::Index,
                _ => return None,
            };
            Some(Known { name, kind, table, root })
        })
        .collect()
}

fn write(result: &impl Serialize) -> Result<String> {
    serde_json::to_string(result)
        .map_err(|error| Error::fusion("ERR_FUSION_INTERNAL", error.to_string()))
}
