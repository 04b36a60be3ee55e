//! [`init_logging`]: the log on stderr, short lines for people or JSON.

use std::fmt;
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(serde::Deserialize), serde(rename_all = "lowercase"))]
pub enum LogFormat {
    /// For people on a terminal, else JSON.
    #[default]
    Auto,
    /// A short line for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Starts the log of this process. The variable `RUST_LOG` says how much of it, INFO and above where it
/// says nothing. Does nothing where a log was started before.
pub fn init_logging() {
    init_logging_as(LogFormat::Auto);
}

/// As [`init_logging`], in the given form.
pub fn init_logging_as(format: LogFormat) {
    let log = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(std::io::stderr);
    let human = match format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Human => true,
        LogFormat::Json => false,
    };
    // The only error is that there is a log already.
    let _ = if human {
        log.with_ansi(stderr_has_colours()).event_format(HumanFormat).try_init()
    } else {
        log.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init()
    };
}

/// What `RUST_LOG` asks for; INFO and above where it says nothing. The client of Kubernetes logs every request
/// that fails as an error of its own, which the election reports once: only `RUST_LOG=kube_client=error` shows it.
fn filter() -> EnvFilter {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let asked = std::env::var("RUST_LOG").is_ok_and(|asked| asked.contains("kube_client"));
    match "kube_client=off".parse() {
        Ok(quiet) if !asked => filter.add_directive(quiet),
        _ => filter,
    }
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
            write!(writer, "{logger}: ")?;
        }
        writeln!(writer, "{}", line.message)
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
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "logger" => self.logger = Some(value.into()),
            "message" => self.message = value.into(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
