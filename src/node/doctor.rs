//! What the doctor shows: facts of a file, and its page map.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::engine::{Error, Result, Task};
use crate::health;

#[derive(Deserialize)]
struct Arguments {
    path: PathBuf,
}

/// `fileInfo`: arguments `{ path }`.
///
/// # Errors
/// As [`health::file_info`].
pub fn file_info(arguments: &str, _: &dyn Task) -> Result<String> {
    let Arguments { path } = read(arguments)?;
    write(&health::file_info(&path)?)
}

#[derive(Deserialize)]
struct MapArguments {
    path: PathBuf,
    #[serde(flatten)]
    options: health::page_map::Options,
}

/// `pageMap`: arguments `{ path, resolution, damaged }`.
///
/// # Errors
/// As [`health::page_map()`].
pub fn page_map(arguments: &str, task: &dyn Task) -> Result<String> {
    let MapArguments { path, options } = read(arguments)?;
    write(&health::page_map(&path, &options, task)?)
}

fn read<'a, T: Deserialize<'a>>(arguments: &'a str) -> Result<T> {
    serde_json::from_str(arguments).map_err(internal)
}

fn write(result: &impl Serialize) -> Result<String> {
    serde_json::to_string(result).map_err(internal)
}

fn internal(error: serde_json::Error) -> Error {
    Error::fusion("ERR_FUSION_INTERNAL", error.to_string())
}
