//! Servers that tests run against: they do what the real ones are known to do, good and bad.

pub mod telegram;

pub use telegram::{Fault, TelegramServer};
