//! `bactrian check`.

use std::fmt::Write as _;
use std::process::ExitCode;

use router_core::error::{ConfigError, Severity};

use super::{Sources, output};

pub(super) fn run(sources: &Sources) -> ExitCode {
    let loaded = match sources.load(Severity::Warning) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let mut report = String::new();
    for file in &loaded.files {
        let count = file.routes.len();
        let routes = if count == 1 { "route" } else { "routes" };
        // Writing into a string cannot fail.
        let _ = write!(report, "{}: {count} {routes}, 0 errors", file.file.name);
        let here = |warning: &&ConfigError| warning.file() == Some(&file.file.name);
        match loaded.warnings.warnings().filter(here).count() {
            0 => report.push('\n'),
            count => {
                let _ = writeln!(report, ", {}", output::warnings(count));
            }
        }
    }
    output::config_warnings(&loaded.warnings);
    output::data(&report)
}
