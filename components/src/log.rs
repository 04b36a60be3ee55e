//! `log:name`: writes each exchange to the log.
//!
//! | option | takes | default | meaning |
//! |---|---|---|---|
//! | `level` | TRACE, DEBUG, INFO, WARN, ERROR | `INFO` | how important the line is |
//! | `show_all` | boolean | `false` | show everything |
//! | `show_body` | boolean | `true` | whether the body is shown |
//! | `show_body_type` | boolean | `true` | whether the kind of the body is shown |
//! | `show_exchange_id` | boolean | `false` | whether the exchange's id is shown |
//! | `show_headers` | boolean | `false` | whether the headers are shown |
//! | `show_properties` | boolean | `false` | whether the properties are shown |
//! | `show_term` | boolean | `false` | whether the number of the term is shown |
//! | `max_chars` | integer | `10000` | how much of the body is shown, in characters |
//! | `multiline` | boolean | `false` | whether each part stands on a line of its own |
//!
//! The lines look like Camel's: `Exchange[BodyType: Text, Body: hello]`. The name is the field `logger`
//! of the line. In a log for people, characters that would begin a line or control a terminal are shown as
//! `\n` or `\u{1b}`; with `multiline`, the lines of a body stay lines, and are indented.

use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use router_core::component::{BuildContext, Component, Endpoint, Processor};
use router_core::definition::LogLevel;
use router_core::error::{BoxError, ConfigErrors};
use router_core::exchange::{Exchange, Region};
use router_core::log::{log_line, log_lines};
use router_core::options::{ComponentDescription, OptionKind, PathKind, flag, option, path};
use router_core::uri::EndpointUri;
use router_core::value::ValueMap;
use smol_str::SmolStr;

/// The component.
#[derive(Debug)]
pub struct LogComponent;

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "log",
    summary: "writes each exchange to the log",
    syntax: "log:name",
    path: path("name", PathKind::Name),
    consumes: false,
    produces: true,
    options: &[
        option("level", OptionKind::Choice(LogLevel::NAMES), Some("INFO"), "how important the line is"),
        flag("show_all", "false", "show everything"),
        flag("show_body", "true", "whether the body is shown"),
        flag("show_body_type", "true", "whether the kind of the body is shown"),
        flag("show_exchange_id", "false", "whether the exchange's id is shown"),
        flag("show_headers", "false", "whether the headers are shown"),
        flag("show_properties", "false", "whether the properties are shown"),
        flag("show_term", "false", "whether the number of the term is shown"),
        option(
            "max_chars",
            OptionKind::Integer,
            Some("10000"),
            "how much of the body is shown, in characters",
        ),
        flag("multiline", "false", "whether each part stands on a line of its own"),
    ],
};

impl Component for LogComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(&self, uri: &EndpointUri, _: &BuildContext<'_>) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = DESCRIPTION.read_into(uri, &mut errors);
        let name = errors.collect(uri.required_path("a logger needs a name: `log:audit`"));
        errors.into_result()?;
        let name = name.unwrap_or_default();
        let all = options.boolean("show_all");
        let level = options.text("level").and_then(|name| LogLevel::from_name(&name));
        Ok(Box::new(Log(Arc::new(Logger {
            name,
            level: level.unwrap_or_default(),
            body: all || options.boolean("show_body"),
            body_type: all || options.boolean("show_body_type"),
            exchange_id: all || options.boolean("show_exchange_id"),
            headers: all || options.boolean("show_headers"),
            properties: all || options.boolean("show_properties"),
            term: all || options.boolean("show_term"),
            max_chars: options.integer("max_chars").and_then(|max| max.try_into().ok()).unwrap_or(usize::MAX),
            multiline: options.boolean("multiline"),
        }))))
    }
}

struct Log(Arc<Logger>);

impl Endpoint for Log {
    fn processor(&self) -> Option<Arc<dyn Processor>> {
        Some(self.0.clone())
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is an option of the URI")]
struct Logger {
    name: SmolStr,
    level: LogLevel,
    body: bool,
    body_type: bool,
    exchange_id: bool,
    headers: bool,
    properties: bool,
    term: bool,
    max_chars: usize,
    multiline: bool,
}

#[async_trait]
impl Processor for Logger {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let write = if self.multiline { log_lines } else { log_line };
        let body = match exchange.message.body.as_file().filter(|_| self.body) {
            Some(region) => self.beginning(region.clone()).await?,
            None => exchange.message.body.to_string(),
        };
        write(&self.name, &self.format(exchange, &body), self.level);
        Ok(())
    }

    fn takes_files(&self) -> bool {
        true
    }
}

impl Logger {
    /// What is shown of a file: the rest of it is not read.
    async fn beginning(&self, region: Region) -> Result<String, BoxError> {
        /// One character more than is shown, and all of them of the longest kind.
        const LONGEST_CHARACTER: u64 = 4;
        let most = (self.max_chars as u64).saturating_add(1).saturating_mul(LONGEST_CHARACTER);
        let most = usize::try_from(most.min(region.memory_limit())).unwrap_or(usize::MAX);
        let read = tokio::task::spawn_blocking(move || region.read(0, most)).await??;
        Ok(String::from_utf8_lossy(&read).into_owned())
    }

    fn format(&self, exchange: &Exchange, body: &str) -> String {
        let mut parts = Vec::new();
        if self.exchange_id {
            parts.push(format!("Id: {}", exchange.id));
        }
        if let Some(term) = exchange.term.as_ref().filter(|_| self.term) {
            parts.push(format!("Term: {}", term.number()));
        }
        if self.headers {
            parts.push(format!("Headers: {}", entries(&exchange.message.headers)));
        }
        if self.properties {
            parts.push(format!("Properties: {}", entries(&exchange.properties)));
        }
        if self.body_type {
            parts.push(format!("BodyType: {:?}", exchange.message.body.kind()));
        }
        if self.body {
            parts.push(format!("Body: {}", cut(body, self.max_chars)));
        }
        if self.multiline {
            // The lines of a body are a part of its part: they cannot look like another one, or another line
            // of the log.
            let parts = parts.iter().map(|part| part.replace('\n', "\n    ")).collect::<Vec<_>>();
            format!("Exchange[\n  {}]", parts.join("\n  "))
        } else {
            format!("Exchange[{}]", parts.join(", "))
        }
    }
}

fn entries(map: &ValueMap) -> String {
    let pairs = map.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>();
    format!("{{{}}}", pairs.join(", "))
}

fn cut(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some((end, _)) => {
            let mut shown = text[..end].to_owned();
            // Writing into a string cannot fail.
            let _ = write!(shown, "... [cut after {max_chars} characters]");
            shown
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_body_is_cut_between_characters() {
        assert_eq!(cut("häuser", 2), "hä... [cut after 2 characters]");
        assert_eq!(cut("häuser", 6), "häuser");
    }
}
