//! Front end two: routes from TOML files.
//!
//! ```toml
//! [[route]]
//! id = "clock"                          # every key but `from` may be left out
//! description = "Says hello"
//! auto_startup = true
//! startup_order = 10
//! from = "timer:clock?period=1s"
//! error_handler = { maximum_redeliveries = 3, redelivery_delay = "1s", back_off_multiplier = 2.0, maximum_redelivery_delay = "1m", dead_letter = "direct:failed" }
//! steps = [
//!   { log = "Hello" },                  # or { log = { message = "Hello", level = "warn" } }
//!   { to = "log:audit" },
//!   { to = { uri = "sql:", statement = "select '50%'", data_source = "sqlite:x.db" } },
//!   { to_dynamic = "http:localhost/orders/${header.id}" },
//!   { to_dynamic = { uri = "direct:${header.target}", allow = ["direct:a", "direct:order-*"] } },
//!   { process = "name" },               # registered with `RouterBuilder::processor`
//!   { set_body = "text ${node}" },      # also a number, a boolean; an array or a table becomes JSON
//!   { set_header = { name = "x", value = 5 } },
//!   { remove_header = "x" },
//!   { set_property = { name = "x", value = "${body}" } },
//!   { filter = "${header.x} > 5" },
//!   { choice = { when = [{ predicate = "${body} == 'a'", steps = ["stop"] }], otherwise = [] } },
//!   { delay = "1s" },                   # or bare milliseconds
//!   "stop",                             # a step without arguments is its name
//! ]
//! ```
//!
//! Wherever a URI stands, a table can: its `uri`, and options beside it, in which nothing is decoded.
//!
//! In every string, `${env:NAME}` and `${env:NAME:-default}` are replaced by environment variables; write
//! `\${env:` where that is not meant. The replaced text is then read as if it had been written in the
//! file: as part of a URI or of an expression.
//!
//! All errors of a file are reported at once, each at its exact characters. A route with errors is
//! still returned without them, so that whoever compiles it finds the errors inside its URIs and
//! expressions as well.

mod endpoint;
mod reader;
mod route;
mod step;
mod string_spans;
mod syntax;
#[cfg(test)]
mod tests;
mod tree;
mod variables;

use std::env::VarError;
use std::sync::Arc;

pub use tree::{Entry, Node, NodeValue, Table};
pub use variables::Lookup;

use crate::definition::RouteDefinition;
use crate::error::ConfigErrors;
use crate::source::SourceFile;
use reader::Reader;

/// What is written in a file of routes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RouteFile {
    /// The file itself.
    pub file: Arc<SourceFile>,
    /// Its routes, in order.
    pub routes: Vec<RouteDefinition>,
    /// All other tables: the settings.
    pub tables: Table,
    /// Whether there are routes in the file that are not in `routes`, because they cannot be told from
    /// what is written: one without `from`, or a table that is not TOML.
    pub routes_missing: bool,
}

impl RouteFile {
    /// Reads a file and returns what can be understood of it, and every error.
    #[must_use]
    pub fn read(file: Arc<SourceFile>, lookup: Lookup<'_>) -> (Self, ConfigErrors) {
        let (table, errors, broken) = syntax::parse(&file, lookup);
        let mut read = Self {
            file: Arc::clone(&file),
            routes: Vec::new(),
            tables: Table::default(),
            routes_missing: broken,
        };
        let mut reader = Reader { file: &file, errors };
        for entry in table.entries {
            match entry.name.as_str() {
                "route" | "routes" => reader.routes(&entry, &mut read),
                _ => read.tables.entries.push(entry),
            }
        }
        (read, reader.errors)
    }
}

/// Reads a file of routes. Warnings are written to the log.
///
/// # Errors
/// Every error in it.
pub fn parse(file: Arc<SourceFile>, lookup: Lookup<'_>) -> Result<RouteFile, ConfigErrors> {
    let (read, errors) = RouteFile::read(file, lookup);
    errors.into_warnings()?.log_warnings();
    Ok(read)
}

/// The lookup of the environment of this process.
///
/// # Errors
/// When the variable is not set, or not text.
pub fn process_environment(name: &str) -> Result<String, VarError> {
    std::env::var(name)
}
