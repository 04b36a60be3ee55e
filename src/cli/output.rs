//! What the verbs print, and how they end.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use bactrian::logging::stderr_has_colours;
use router_core::error::ConfigErrors;

/// `EX_CONFIG` of `sysexits.h`.
pub(super) const BAD_CONFIGURATION: u8 = 78;

/// Writes data to stdout. A reader that has gone away (`bactrian list | head -1`) is no failure.
pub(super) fn data(text: &str) -> ExitCode {
    try_data(text).err().unwrap_or(ExitCode::SUCCESS)
}

/// The same for verbs that go on: `Err` is how to end when nothing more can be written.
pub(super) fn try_data(text: &str) -> Result<(), ExitCode> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(ExitCode::SUCCESS),
        Err(error) => Err(failure(&format!("cannot write: {error}"))),
    }
}

/// Prints all errors.
pub(super) fn config_errors(errors: &ConfigErrors) -> ExitCode {
    let count = errors.warnings().count();
    let beside = if count > 0 { format!(", {}", warnings(count)) } else { String::new() };
    let count = errors.iter().len() - count;
    let counted = if count == 1 { "error" } else { "errors" };
    diagnostic(&format!("{}\n\n{count} {counted}{beside}, nothing was started", printed(errors)));
    ExitCode::from(BAD_CONFIGURATION)
}

/// Prints all warnings, if there are any.
pub(super) fn config_warnings(errors: &ConfigErrors) {
    if errors.warnings().next().is_some() {
        diagnostic(&printed(errors));
    }
}

/// So many warnings, in words.
pub(super) fn warnings(count: usize) -> String {
    format!("{count} {}", if count == 1 { "warning" } else { "warnings" })
}

fn printed(errors: &ConfigErrors) -> String {
    if stderr_has_colours() { errors.styled() } else { errors.to_string() }
}

/// Says why a verb failed.
pub(super) fn failure(message: &str) -> ExitCode {
    diagnostic(&format!("error: {message}"));
    ExitCode::FAILURE
}

/// Writes to stderr, as far as there is one.
pub(super) fn diagnostic(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
