//! Rules about the files of the repository that a program can check: the structure of the source
//! and the language of everything.

#![allow(clippy::unwrap_used, reason = "a test that fails should panic")]

mod language;
mod structure;

use std::fs;
use std::path::{Path, PathBuf};

/// Directories with files that are built or installed, not written.
const GENERATED_DIRECTORIES: [&str; 5] = ["node_modules", ".venv", "target", ".git", ".usher"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every text file below some directories, as its path from the root and its text.
fn files(dirs: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = dirs.iter().map(|dir| root().join(dir)).collect();
    while let Some(path) = open.pop() {
        if GENERATED_DIRECTORIES.iter().any(|generated| path.ends_with(generated)) {
            continue;
        }
        if path.is_dir() {
            open.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push((path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(), text));
        }
    }
    found.sort();
    found
}
