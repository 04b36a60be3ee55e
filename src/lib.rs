//! Bactrian: routes that exactly one replica runs.
//!
//! ```no_run
//! use bactrian::prelude::*;
//!
//! # async fn example() -> Result<(), BoxError> {
//! let router = bactrian::router()
//!     .cluster(MemoryCluster::new("only-me"))
//!     .route(from("master:lock1:timer:clock?period=1s").log("Hello World!"))
//!     .build()?;
//! let _ = bactrian::run(&router).await;
//! # Ok(())
//! # }
//! ```
//!
//! Start it in several processes, with a cluster service that they share: exactly one prints. When that
//! one dies, is stopped or loses its authority, another takes over, and the old one has stopped before
//! the new one starts.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "admin")]
pub mod admin;
mod backends;
#[cfg(feature = "cli")]
pub mod cluster;
#[cfg(feature = "cli")]
pub mod load;
#[cfg(feature = "logging")]
pub mod logging;
#[cfg(feature = "cli")]
pub mod settings;
mod shutdown;

pub use backends::crates::*;
pub use components;
#[cfg(feature = "logging")]
pub use logging::init_logging;
pub use shutdown::{Hangups, listen_for_signals, run, shutdown_signal};

use router_core::component::Registry;
use router_core::router::RouterBuilder;

/// A router that knows every component that is compiled in.
pub fn router() -> RouterBuilder {
    RouterBuilder::with_registry(registry())
}

/// Every component and cluster backend that is compiled in. Those that are not are known by name, so that an error can
/// say how to get them.
#[must_use]
pub fn registry() -> Registry {
    const OPTIONAL: [(&str, &str); 7] = [
        ("cron", "component-cron"),
        ("file", "component-file"),
        ("http", "component-http"),
        ("http-poll", "component-http"),
        ("https", "component-http"),
        ("sql", "component-sql"),
        ("telegram", "component-http"),
    ];
    let mut registry = Registry::default();
    for (scheme, feature) in OPTIONAL {
        registry.add_missing(scheme, build_with(feature));
    }
    for (schemes, instead) in FROM_CAMEL {
        schemes.split(' ').for_each(|scheme| registry.add_foreign(scheme, instead));
    }
    components::register(&mut registry);
    backends::register(&mut registry);
    registry
}

/// What there is instead of components of Camel that are not here.
const FROM_CAMEL: [(&str, &str); 9] = [
    (
        "kafka jms activemq activemq6 amqp rabbitmq spring-rabbitmq sjms sjms2 nats paho paho-mqtt5 pulsar \
         aws2-sqs aws2-sns aws2-kinesis azure-servicebus google-pubsub",
        "there is no component for message brokers: between routes of one process there are `direct:` and `seda:`, \
         between processes a table with `sql:`; or write a component in Rust, with the trait `Component`",
    ),
    (
        "quartz scheduler spring-scheduler",
        "write `cron:name?schedule=...` for times of the day, `timer:name?period=...` for periods",
    ),
    ("jdbc jpa mybatis sql-stored", "write `sql:statement?data_source=...`"),
    (
        "ftp ftps sftp smb aws2-s3 azure-storage-blob minio google-storage",
        "there are local files, `file:directory`, and `http:` and `http-poll:`",
    ),
    (
        "rest platform-http jetty undertow servlet netty netty-http websocket",
        "there is no server for requests: `http-poll:` polls one, `http:` sends to one",
    ),
    ("vm disruptor disruptor-vm", "write `seda:name`"),
    ("vertx-http ahc http4 http-client", "write `http:host/path` or `https:host/path`"),
    (
        "bean class language script groovy",
        "steps that are code are Rust: `{ process = \"name\" }`, registered with `RouterBuilder::processor`",
    ),
    ("file-watch stream", "write `file:directory`"),
];

/// How to get what is not built into this program.
#[must_use]
pub fn build_with(feature: &str) -> String {
    format!(
        "build it with the feature `{feature}`: `cargo install bactrian --features {feature}`, or name it in Cargo.toml"
    )
}

/// What most programs need.
pub mod prelude {
    pub use crate::backends::prelude::*;
    pub use components::{MasterComponent, MockComponent};
    pub use router_core::builder::*;
    pub use router_core::cluster::{
        ClusterService, ClusterView, LeaderScope, Leadership, LockName, Member, Term,
    };
    pub use router_core::component::Processor;
    pub use router_core::definition::{ErrorHandlerDefinition, LogLevel, RouteDefinition};
    pub use router_core::error::{BoxError, ConfigErrors};
    pub use router_core::exchange::{Body, Exchange, Message};
    pub use router_core::failure::{ErrorKind, Failure};
    pub use router_core::outcome::{Outcome, RouteError};
    pub use router_core::router::{RouteStatus, Router, RouterBuilder, ShutdownOutcome};
    pub use router_core::value::Value;
}

/// The Rust of the guide, as tests of the documentation: `cargo test --doc guide`.
#[cfg(all(doctest, feature = "component-sql", feature = "cluster-kubernetes"))]
mod guide {
    #[doc = include_str!("../docs/src/patterns.md")]
    mod patterns {}
    #[doc = include_str!("../docs/src/errors.md")]
    mod errors {}
    #[doc = include_str!("../docs/src/fencing.md")]
    mod fencing {}
    #[doc = include_str!("../docs/src/handover.md")]
    mod handover {}
    #[doc = include_str!("../docs/src/one-leader.md")]
    mod one_leader {}
    #[doc = include_str!("../docs/src/positions.md")]
    mod positions {}
    #[doc = include_str!("../docs/src/routes.md")]
    mod routes {}
}
