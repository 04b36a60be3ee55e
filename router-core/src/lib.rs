//! The language and the engine of Bactrian: [exchanges](exchange), the [routes](definition) they travel,
//! the [router] that runs them, and the [interface of clustering](cluster). It knows no component and no
//! cluster product.
//!
//! Data flows once, left to right: a front end ([`builder`], `toml`) makes a
//! [`RouteDefinition`](definition::RouteDefinition); compiling it against the [registry](component::Registry) makes a
//! route, or [every error at once](error::ConfigErrors); the [`router`] runs its
//! [`Consumer`](component::Consumer), which sends each exchange through a
//! [`Pipeline`](pipeline::Pipeline) to [`Processor`](processor::Processor)s.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backoff;
mod body;
mod bounded_file;
pub mod builder;
pub mod cluster;
pub mod component;
pub mod definition;
pub mod directory;
mod environment;
pub mod error;
mod error_handler;
pub mod exchange;
mod expression;
pub mod failure;
mod flight;
mod links;
mod lock;
pub mod log;
pub mod metrics;
mod name;
mod option_list;
pub mod options;
pub mod outcome;
mod panic;
pub mod pipeline;
pub mod processor;
pub mod readiness;
mod route;
pub mod router;
pub mod secret;
pub mod source;
pub mod spool;
pub mod state;
pub mod step;
pub mod steps;
pub mod stop;
#[cfg(feature = "toml")]
pub mod toml;
pub mod uri;
pub mod value;
mod written;
