//! `bactrian list`.

use std::fmt::Write as _;
use std::process::ExitCode;

use super::output;

pub(super) fn run() -> ExitCode {
    let registry = bactrian::registry();
    let width = registry.descriptions().map(|component| component.scheme.len()).max().unwrap_or_default();
    let mut table = String::new();
    for component in registry.descriptions() {
        let from = if component.consumes { "from" } else { "" };
        let to = if component.produces { "to" } else { "" };
        // Writing into a string cannot fail.
        let _ = writeln!(table, "{:width$}  {from:4}  {to:2}  {}", component.scheme, component.summary);
    }
    output::data(&table)
}
