//! What tests share: servers that do what the real ones are known to do, good and bad, random texts, and the log.

pub mod fuzz;
pub mod json;
pub mod log;
pub mod telegram;

pub use json::JsonServer;
pub use log::Log;
pub use telegram::{Fault, TelegramServer};
