//! What operators ask, as files in the root directory, which members watch anyway.
//!
//! A request is made by renaming a file to its place, and withdrawn by removing it. No lock protects it: who
//! leads does not depend on it, and a request to hand over names the term that it is for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use router_core::cluster::LockName;
use serde_json::{Value, json};

use crate::escape::escape;
use crate::lock_file;
use crate::prepared::Prepared;

const HAND_OVER: &str = ".handover";
const DRAIN: &str = ".drain";

/// Whether a file is a request, by its name.
pub(crate) fn is_one(file_name: &str) -> bool {
    // A hidden one is on its way to its place.
    !file_name.starts_with('.') && (file_name.ends_with(HAND_OVER) || file_name.ends_with(DRAIN))
}

pub(crate) fn hand_over_file(root: &Path, lock: &LockName) -> PathBuf {
    root.join(escape(lock.as_str()) + HAND_OVER)
}

pub(crate) fn drain_file(root: &Path, member: &str) -> PathBuf {
    root.join(escape(member) + DRAIN)
}

/// Asks for the end of a term.
pub(crate) fn ask_to_hand_over(root: &Path, lock: &LockName, term: u64) -> io::Result<()> {
    ask(root, &hand_over_file(root, lock), &json!({ "lock": lock.as_str(), "term": term }))
}

/// The term that is to be ended, if any.
pub(crate) fn hand_over(root: &Path, lock: &LockName) -> Option<u64> {
    // A copy of the request for another lock is none for this one.
    let request = read(&hand_over_file(root, lock))?;
    (request["lock"] == lock.as_str()).then(|| request["term"].as_u64())?
}

/// Withdraws that, unless another operator has asked for the end of the next term by now.
pub(crate) fn withdraw_hand_over(root: &Path, lock: &LockName, term: u64) -> io::Result<()> {
    if hand_over(root, lock) == Some(term) { withdraw(&hand_over_file(root, lock)) } else { Ok(()) }
}

/// Asks a member to hold no lock.
pub(crate) fn ask_to_drain(root: &Path, member: &str) -> io::Result<()> {
    ask(root, &drain_file(root, member), &json!({ "member": member }))
}

/// Several operators may ask for the same at the same time.
fn ask(root: &Path, path: &Path, request: &Value) -> io::Result<()> {
    Prepared::new(root, format!("{request}\n").as_bytes())?.rename(path)
}

pub(crate) fn is_drained(root: &Path, member: &str) -> bool {
    drain_file(root, member).exists()
}

/// The ids of the members that are asked to hold no lock, also of some that have ended; for tools.
///
/// # Errors
/// When the directory cannot be read.
pub fn drained(root: impl AsRef<Path>) -> io::Result<Vec<String>> {
    let root = root.as_ref();
    let mut members = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if is_one(&name) && name.ends_with(DRAIN) {
            // That it is there is what counts. What is in it may have been overwritten.
            let request = read(&path).unwrap_or_default();
            let written = request["member"].as_str().filter(|id| drain_file(root, id) == path);
            let alive =
                || crate::members(root).ok()?.into_iter().find(|member| drain_file(root, &member.id) == path);
            members
                .extend(written.map(str::to_owned).or_else(|| alive().map(|member| member.id.to_string())));
        }
    }
    Ok(members)
}

/// Withdraws a request, if it is still there.
pub(crate) fn withdraw(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Option<Value> {
    serde_json::from_slice(&lock_file::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_that_ask_at_once_are_not_in_each_others_way() {
        let root = tempfile::tempdir().unwrap();
        let lock = "l1".parse().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        ask_to_hand_over(root.path(), &lock, 7).unwrap();
                        ask_to_drain(root.path(), "a").unwrap();
                        assert_eq!(hand_over(root.path(), &lock), Some(7));
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "nothing is left beside the requests");
    }

    #[test]
    fn the_request_of_another_operator_for_the_next_term_stays() {
        let root = tempfile::tempdir().unwrap();
        let lock = "l1".parse().unwrap();
        ask_to_hand_over(root.path(), &lock, 8).unwrap();
        withdraw_hand_over(root.path(), &lock, 7).unwrap();
        assert_eq!(hand_over(root.path(), &lock), Some(8));
        withdraw_hand_over(root.path(), &lock, 8).unwrap();
        assert_eq!(hand_over(root.path(), &lock), None);
    }
}
