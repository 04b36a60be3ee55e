//! `bactrian check`.

use std::fmt::Write as _;
use std::process::ExitCode;

use bactrian::settings::Environment;

use super::{Sources, output};

pub(super) fn run(sources: &Sources) -> ExitCode {
    let loaded = match sources.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let mut report = String::new();
    for file in &loaded.files {
        let count = file.routes.len();
        let routes = if count == 1 { "route" } else { "routes" };
        // Writing into a string cannot fail.
        let _ = writeln!(report, "{}: {count} {routes}, 0 problems", file.file.name);
    }
    for note in Environment::of_process().notes() {
        output::diagnostic(&format!("note: {note}"));
    }
    output::data(&report)
}
