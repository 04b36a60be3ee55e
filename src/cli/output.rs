//! What the verbs print, and how they end.

use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use bactrian::logging::stderr_has_colours;
use router_core::error::ConfigErrors;

/// `EX_CONFIG` of `sysexits.h`.
const BAD_CONFIGURATION: u8 = 78;

/// Writes data to stdout. A reader that has gone away (`bactrian list | head -1`) is no failure.
pub(super) fn data(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failure(&format!("cannot write: {error}")),
    }
}

/// Prints all mistakes.
pub(super) fn config_errors(errors: &ConfigErrors) -> ExitCode {
    let printed = if stderr_has_colours() { errors.styled() } else { errors.to_string() };
    let count = errors.iter().len();
    let problems = if count == 1 { "problem" } else { "problems" };
    diagnostic(&format!("{printed}\n\n{count} {problems}, nothing was started"));
    ExitCode::from(BAD_CONFIGURATION)
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
