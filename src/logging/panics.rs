//! Panics are lines of the log.
//!
//! What the standard library writes of a panic goes to stderr directly: it is not a line of JSON, and where
//! stderr blocks, the thread that has panicked hangs.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

use tracing::{Level, enabled, error};

use super::say;

/// Reports the panics of this process in its log from now on.
pub(super) fn report_in_log() {
    std::panic::set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let (text, owned) = (panic.payload().downcast_ref::<&str>(), panic.payload().downcast_ref::<String>());
    let text = text.copied().or(owned.map(String::as_str)).unwrap_or("no message");
    let message = format!("thread `{name}` panicked{place}: {text}");
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    if enabled!(Level::ERROR) {
        error!(backtrace, "{message}");
    } else {
        // A log that is switched off says at least this.
        say(&message);
    }
}
