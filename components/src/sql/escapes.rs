//! Escapes of a URI in quoted texts of SQL, where `%` is common and means something else.

use std::ops::Range;

use router_core::error::ConfigError;
use router_core::uri::EndpointUri;

use super::lexer::Dialect;
use super::statement::Statement;

/// Those that are needed in a statement, and so are meant.
const CLEAR: [&str; 6] = ["%25", "%3F", "%26", "%23", "%2B", "%20"];

/// The errors of the path, when it is this statement.
pub(super) fn in_path(uri: &EndpointUri, statement: &Statement) -> Vec<ConfigError> {
    let escapes = uri.path_escapes();
    let escapes = escapes.iter().map(|escape| (&uri.path()[escape.written.clone()], escape.decoded));
    let error = |(written, place)| {
        uri.error_in_decoded_path(place..place + 1, message(written)).help(help(written, "statement"))
    };
    unclear(&statement.quoted, escapes).map(error).collect()
}

/// The errors of the path, when its quotes are those that are written.
pub(super) fn in_path_as_written(uri: &EndpointUri, dialect: Dialect) -> Vec<ConfigError> {
    let Ok(statement) = Statement::parse(uri.path(), dialect) else { return Vec::new() };
    let escapes = uri.path_escapes();
    let escapes = escapes.iter().map(|escape| (&uri.path()[escape.written.clone()], escape.written.start));
    let error = |(written, place): (&str, usize)| {
        uri.error_in_path(place..place + written.len(), message(written)).help(help(written, "statement"))
    };
    unclear(&statement.quoted, escapes).map(error).collect()
}

/// The errors of an option, when it is this statement.
pub(super) fn in_option(uri: &EndpointUri, name: &str, statement: &Statement) -> Vec<ConfigError> {
    let error = |(written, place)| {
        uri.error_in_option(name, place..place + 1, message(written)).help(help(written, name))
    };
    unclear(&statement.quoted, uri.option_escapes(name).into_iter()).map(error).collect()
}

/// The first escape in each quoted text that may not be meant as one: `'%bad%'` contains `%ba`.
fn unclear<'a>(
    quoted: &[Range<usize>],
    escapes: impl Iterator<Item = (&'a str, usize)>,
) -> impl Iterator<Item = (&'a str, usize)> {
    let unclear =
        escapes.filter(|(written, _)| !CLEAR.iter().any(|clear| clear.eq_ignore_ascii_case(written)));
    let unclear = unclear.collect::<Vec<_>>();
    quoted.iter().filter_map(move |range| unclear.iter().find(|(_, place)| range.contains(place)).copied())
}

fn message(written: &str) -> String {
    format!("`{written}` is an escape of the URI, and stands in a quoted text")
}

fn help(written: &str, key: &str) -> String {
    let (meant, other) = match written {
        "+" => ("%2B".to_owned(), " or `%20`"),
        escape => (escape.replace('%', "%25"), ""),
    };
    format!(
        "write `{meant}`{other}, or a table in which nothing is decoded: `{{ uri = \"sql:\", {key} = '...', ... }}`"
    )
}
