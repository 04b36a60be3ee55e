//! [`init_logging`]: the log on stderr, short lines for people or JSON.
//!
//! A log that cannot be written stops nothing: lines are lost and counted, see [`METRICS`].

mod escape;
mod lines;
mod panics;

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use router_core::metrics::{Metric, MetricKind};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use escape::JsonLines;
use lines::Lines;

/// `log_lines_lost_total`.
static LINES_LOST: Metric = Metric {
    name: "bactrian_log_lines_lost_total",
    kind: MetricKind::Counter,
    labels: &[],
    summary: "lines of the log that were lost, because stderr could not be written or was blocked",
};

/// The metrics of the log.
pub static METRICS: &[&Metric] = &[&LINES_LOST];

/// Sets them to what is true now: nothing is measured where lines are written.
#[cfg(feature = "admin")]
pub(crate) fn refresh_metrics() {
    LINES_LOST.counter(&[]).absolute(lines::lost());
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Deserialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum LogFormat {
    /// For people on a terminal, else JSON.
    #[default]
    Auto,
    /// A short line for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Starts the log of this process, in which panics are reported too. The variable `RUST_LOG` sets how much is
/// logged; defaults to INFO and above. Does nothing where a log was started before.
///
/// Logging never fails and waits for stderr for a moment at most. Where stderr cannot be written, lines are lost
/// until it can be written again.
pub fn init_logging() {
    init_logging_as(LogFormat::Auto);
}

/// As [`init_logging`], in the given form.
pub fn init_logging_as(format: LogFormat) {
    // A line that cannot be formatted is reported by `eprintln!` otherwise, which panics.
    let (filter, wrong) = filter(std::env::var_os("RUST_LOG").as_deref());
    let log = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    let human = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    let started = if human {
        log.with_writer(|| Lines).with_ansi(stderr_has_colours()).event_format(HumanFormat).try_init()
    } else {
        let json = log.with_writer(|| JsonLines).json().flatten_event(true);
        json.with_current_span(false).with_span_list(false).try_init()
    };
    // The only error is that there is a log already.
    if started.is_ok() {
        panics::report_in_log();
        for wrong in wrong {
            tracing::error!("a part of RUST_LOG is ignored: {wrong}");
        }
    }
}

/// Writes a line to stderr as the log does: it does not fail, and waits for a moment at most.
pub fn say(line: &str) {
    // Writing cannot fail.
    let _ = Lines.write_all(format!("{line}\n").as_bytes());
}

/// Waits until the log is written, at most this long. Only needed where stderr is slow: whatever is logged is
/// written at once otherwise.
pub fn flush(timeout: Duration) {
    Lines::flush(timeout);
}

/// What `RUST_LOG` asks for, INFO and above where it says nothing; and what of it says nothing. The client of Kubernetes
/// logs every request that fails as an error of its own, which the election reports once: only
/// `RUST_LOG=kube_client=error` shows it.
fn filter(asked: Option<&OsStr>) -> (EnvFilter, Vec<String>) {
    let (mut kept, mut wrong) = (Vec::new(), Vec::new());
    let text = asked.map(OsStr::to_string_lossy).unwrap_or_default();
    if asked.is_some_and(|asked| asked.to_str().is_none()) {
        wrong.push("it is not UTF-8".to_owned());
    }
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty() && wrong.is_empty());
    for part in parts.collect::<Vec<_>>() {
        match part.parse::<Directive>() {
            Err(error) => wrong.push(format!("`{part}`: {error}")),
            Ok(_) if is_misspelt_level(part) => {
                wrong.push(format!("`{part}` is no level: error, warn, info, debug, trace or off"));
            }
            Ok(_) => kept.push(part),
        }
    }
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    let filter = filter.parse_lossy(kept.join(","));
    let filter = match "kube_client=off".parse() {
        Ok(quiet) if !text.contains("kube_client") => filter.add_directive(quiet),
        _ => filter,
    };
    (filter, wrong)
}

/// Whether a word is a level with a slip, and not the name of a crate: of that it would show all, and of others nothing.
fn is_misspelt_level(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    let letters = |word: &str| {
        let mut letters = word.as_bytes().to_vec();
        letters.sort_unstable();
        letters
    };
    let is_near = |level: &&str| {
        let one_more = |long: &str, short: &str| long.starts_with(short) && long.len() == short.len() + 1;
        letters(level) == letters(&word) || one_more(level, &word) || one_more(&word, level)
    };
    let levels = ["error", "warn", "info", "debug", "trace", "off", "warning", "verbose", "fatal", "all"];
    word.parse::<LevelFilter>().is_err() && levels.iter().any(is_near)
}

/// Whether to write colours to stderr: to a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
#[must_use]
pub fn stderr_has_colours() -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !refused && std::io::stderr().is_terminal()
}

/// `12:00:01 INFO clock: message`, in local time. The name before the colon is the field `logger` of the
/// `log` step and component; lines of the router itself have none.
struct HumanFormat;

impl<S, N> FormatEvent<S, N> for HumanFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        let level = event.metadata().level();
        if writer.has_ansi_escapes() {
            write!(writer, "\u{1b}[2m{time}\u{1b}[0m \u{1b}[{}m{level}\u{1b}[0m ", colour(*level))?;
        } else {
            write!(writer, "{time} {level} ")?;
        }
        if let Some(logger) = line.logger {
            write!(writer, "{}: ", escape::one_line(&logger))?;
        }
        if line.multiline {
            writeln!(writer, "{}", escape::lines(&line.message))?;
        } else {
            writeln!(writer, "{}", escape::one_line(&line.message))?;
        }
        write!(writer, "{}", line.backtrace)
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// The fields of an event that people see. The others are for machines: messages name what matters.
#[derive(Default)]
struct Line {
    logger: Option<String>,
    message: String,
    /// Whether the line feeds in the message are the author's, and not data.
    multiline: bool,
    backtrace: String,
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "logger" => self.logger = Some(value.into()),
            "message" => self.message = value.into(),
            "backtrace" => self.backtrace = value.into(),
            _ => {}
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.multiline |= value && field.name() == "multiline";
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // What cannot say what it is must not end what logs it: `format!` would panic.
        let mut text = String::new();
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn what_rust_log_does_not_say_is_told() {
        let read = |text: &[u8]| {
            let (filter, wrong) = filter(Some(OsStr::from_bytes(text)));
            (
                filter.to_string().replace("kube_client=off,", "").replace(",kube_client=off", ""),
                wrong.join("; "),
            )
        };
        for right in ["info", "debug", "WARN", "off", "3", "a::b=trace,warn", "debugger", "my_crate"] {
            assert_eq!(read(right.as_bytes()).1, "", "{right}");
        }
        for (wrong, expected) in [
            (&b"\xff"[..], "it is not UTF-8"),
            (b"nonsense=[=", "`nonsense=[=`: "),
            (b"debgu", "`debgu` is no level"),
            (b"warning", "`warning` is no level"),
            (b"inf", "`inf` is no level"),
        ] {
            let (filter, told) = read(wrong);
            assert!(told.contains(expected), "{told}");
            assert_eq!(filter, "info", "{told}");
        }
        assert_eq!(read(b"nope=loud,error").0, "error");
    }
}
