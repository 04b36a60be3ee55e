//! What `sql:` promises, against `SQLite` in a file and `PostgreSQL` on a server.

#![cfg(feature = "sql")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

#[macro_use]
mod support;

mod consumer;
mod field;
mod kinds;
mod limits;
mod lists;
mod login;
mod statements;
mod types;
mod values;
