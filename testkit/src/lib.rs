//! Servers that tests run against: they do what the real ones are known to do, good and bad.

pub mod fuzz;
pub mod json;
pub mod telegram;

pub use json::JsonServer;
pub use telegram::{Fault, TelegramServer};
