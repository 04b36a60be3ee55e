//! The promise: the `rust-version` of the packages is what their dependencies ask for, no more and no less. That our own
//! code keeps to it is checked by clippy (`incompatible_msrv`), and by a compiler of that version where there is one
//! (`tests/minimum-rust`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Dependencies that ask for more, and belong to one feature that is not a default one.
const OF_A_FEATURE: [(&str, &str); 1] = [("sqlx", "component-sql")];

/// `1.89` and `1.89.0` as numbers.
fn version(text: &str) -> Vec<u32> {
    let mut parts = text.split('.').map(|part| part.parse().unwrap()).collect::<Vec<_>>();
    parts.resize(3, 0);
    parts
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap()
}

#[test]
fn the_rust_version_is_as_low_as_the_dependencies_allow() {
    let mut command = Command::new(env!("CARGO"));
    command.args(["metadata", "--format-version=1", "--all-features", "--locked", "--offline"]);
    // What other systems need is not built where this runs.
    command.args(["--filter-platform", "x86_64-unknown-linux-gnu"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let metadata = serde_json::from_slice::<Value>(&command.output().unwrap().stdout).unwrap();
    let packages = list(&metadata["packages"]).iter();
    let packages = packages.map(|package| (&package["id"], package)).collect::<Vec<_>>();
    let package = |id: &Value| packages.iter().find(|(other, _)| *other == id).unwrap().1;
    let nodes = list(&metadata["resolve"]["nodes"]);
    let nodes = nodes.iter().map(|node| (node["id"].as_str().unwrap(), node)).collect::<BTreeMap<_, _>>();
    let members = list(&metadata["workspace_members"]);
    let published = members.iter().filter(|id| package(id)["publish"].is_null());

    let mut waiting = published.map(|id| id.as_str().unwrap()).collect::<Vec<_>>();
    let mut known = BTreeSet::new();
    let (mut highest, mut too_high) = (vec![0], Vec::new());
    let ours = version(env!("CARGO_PKG_RUST_VERSION"));
    while let Some(id) = waiting.pop() {
        let found = package(&id.into());
        let name = found["name"].as_str().unwrap();
        if !known.insert(id) || OF_A_FEATURE.iter().any(|(other, _)| *other == name) {
            continue;
        }
        if let (Some(needed), false) = (found["rust_version"].as_str(), members.contains(&id.into())) {
            if version(needed) > ours {
                too_high.push(format!("{name} {needed}"));
            }
            highest = highest.max(version(needed));
        }
        // Those for tests do not count: no user builds them.
        let used = list(&nodes[id]["deps"]).iter();
        let used = used.filter(|used| list(&used["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev"));
        waiting.extend(used.map(|used| used["pkg"].as_str().unwrap()));
    }
    assert!(known.len() > 100, "{} packages: the search no longer finds them", known.len());
    assert!(too_high.is_empty(), "these need a later Rust than {ours:?}: {too_high:?}");
    assert_eq!(highest, ours, "no dependency needs Rust {ours:?}");
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    assert!(readme.contains(&format!("You need Rust {} ", env!("CARGO_PKG_RUST_VERSION"))));
    for (name, feature) in OF_A_FEATURE {
        let needed = packages.iter().find(|(_, package)| package["name"] == name).unwrap().1;
        let needed = needed["rust_version"].as_str().unwrap().trim_end_matches(".0");
        assert!(
            readme.contains(&format!("feature `{feature}` Rust {needed}")),
            "README.md: {name} needs {needed}"
        );
    }
}
