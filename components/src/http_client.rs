//! What the components share that speak HTTP: [`HttpClients`], headers and credentials.

mod clients;
pub(crate) mod content;
pub(crate) mod credentials;
pub(crate) mod headers;
mod retry_after;

pub use clients::HttpClients;
pub(crate) use clients::{ClientSettings, Refusal, failed, kind_of_status, read_body, spool_body};

/// The default of the header `user-agent`.
pub(crate) const USER_AGENT: &str = concat!("bactrian/", env!("CARGO_PKG_VERSION"));
