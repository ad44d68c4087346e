//! What the doctor shows: facts of a file, and its page map.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::task::{Work, arguments};
use crate::engine::{Error, Result, Task};
use crate::health;

/// Tasks by name.
pub const WORKS: &[(&str, Work)] = &[("fileInfo", file_info), ("pageMap", page_map)];

#[derive(Deserialize)]
struct Arguments {
    path: PathBuf,
}

fn file_info(text: &str, _: &dyn Task) -> Result<String> {
    let Arguments { path } = arguments(text)?;
    write(&health::file_info(&path)?)
}

#[derive(Deserialize)]
struct MapArguments {
    path: PathBuf,
    #[serde(flatten)]
    options: health::page_map::Options,
}

fn page_map(text: &str, task: &dyn Task) -> Result<String> {
    let MapArguments { path, options } = arguments(text)?;
    write(&health::page_map(&path, &options, task)?)
}

fn write(result: &impl Serialize) -> Result<String> {
    serde_json::to_string(result)
        .map_err(|error| Error::fusion("ERR_FUSION_INTERNAL", error.to_string()))
}
