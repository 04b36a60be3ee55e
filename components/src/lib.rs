//! The components of Bactrian: one file per scheme, each with its option table in the module docs.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "cron")]
pub mod cron;
pub mod direct;
#[cfg(feature = "file")]
pub mod file;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "http")]
pub mod http_client;
#[cfg(feature = "http")]
pub mod http_poll;
mod in_sum;
mod lateness;
pub mod log;
pub mod master;
mod metrics;
mod missed_ticks;
pub mod mock;
mod patience;
pub mod seda;
#[cfg(feature = "sql")]
pub mod sql;
#[cfg(feature = "http")]
pub mod telegram;
pub mod timer;

#[cfg(feature = "cron")]
pub use cron::CronComponent;
pub use direct::DirectComponent;
#[cfg(feature = "file")]
pub use file::FileComponent;
#[cfg(feature = "http")]
pub use http::HttpComponent;
#[cfg(feature = "http")]
pub use http_client::HttpClients;
#[cfg(feature = "http")]
pub use http_poll::HttpPollComponent;
pub use log::LogComponent;
pub use master::MasterComponent;
pub use metrics::METRICS;
pub use mock::MockComponent;
pub use seda::SedaComponent;
#[cfg(feature = "sql")]
pub use sql::SqlComponent;
#[cfg(feature = "http")]
pub use telegram::TelegramComponent;
pub use timer::TimerComponent;

use router_core::component::Registry;

/// Adds every component of this crate, with its defaults.
pub fn register(registry: &mut Registry) {
    #[cfg(feature = "cron")]
    registry.add_component(CronComponent::default());
    registry.add_component(DirectComponent::default());
    #[cfg(feature = "file")]
    registry.add_component(FileComponent);
    #[cfg(feature = "http")]
    {
        let clients = HttpClients::default();
        registry.add_component(HttpComponent::new(clients.clone()));
        registry.add_component(HttpComponent::with_tls(clients.clone()));
        registry.add_component(HttpPollComponent::new(clients.clone()));
        registry.add_component(TelegramComponent::new(clients));
    }
    registry.add_component(LogComponent);
    registry.add_component(MasterComponent::default());
    registry.add_component(MockComponent::default());
    registry.add_component(SedaComponent::default());
    #[cfg(feature = "sql")]
    registry.add_component(SqlComponent::default());
    registry.add_component(TimerComponent);
}
