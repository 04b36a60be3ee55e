//! [`LogLevel`], and the lines that routes write to the log.

/// The level of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Trace,
    Debug,
    #[default]
    Info,
    Warn,
    Error,
}

impl LogLevel {
    /// The levels as they are written, least important first.
    pub const NAMES: &[&str] = &["TRACE", "DEBUG", "INFO", "WARN", "ERROR"];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// The level of that name, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let levels = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];
        let index = Self::NAMES.iter().position(|known| known.eq_ignore_ascii_case(name))?;
        Some(levels[index])
    }
}

/// Writes a line to the log, for the `log` step and the `log:` component alike.
pub fn log_line(logger: &str, message: &str, level: LogLevel) {
    match level {
        LogLevel::Trace => tracing::trace!(logger, "{message}"),
        LogLevel::Debug => tracing::debug!(logger, "{message}"),
        LogLevel::Info => tracing::info!(logger, "{message}"),
        LogLevel::Warn => tracing::warn!(logger, "{message}"),
        LogLevel::Error => tracing::error!(logger, "{message}"),
    }
}

/// As [`log_line`], for a message that is laid out in lines. What comes from an exchange must not be able to
/// begin one: indent it.
pub fn log_lines(logger: &str, message: &str, level: LogLevel) {
    match level {
        LogLevel::Trace => tracing::trace!(logger, multiline = true, "{message}"),
        LogLevel::Debug => tracing::debug!(logger, multiline = true, "{message}"),
        LogLevel::Info => tracing::info!(logger, multiline = true, "{message}"),
        LogLevel::Warn => tracing::warn!(logger, multiline = true, "{message}"),
        LogLevel::Error => tracing::error!(logger, multiline = true, "{message}"),
    }
}
