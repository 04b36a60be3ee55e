//! The steps: one file for each, and the list of all of them.

pub(crate) mod choice;
pub(crate) mod convert_body;
pub(crate) mod delay;
pub(crate) mod do_try;
pub(crate) mod dynamic_router;
pub(crate) mod enrich;
pub(crate) mod filter;
pub(crate) mod forks;
pub(crate) mod load_balance;
pub(crate) mod log;
pub(crate) mod loop_;
pub(crate) mod multicast;
pub(crate) mod process;
pub(crate) mod recipient_list;
pub(crate) mod recipients;
pub(crate) mod remove_header;
pub(crate) mod remove_headers;
pub(crate) mod remove_property;
pub(crate) mod routing_slip;
pub(crate) mod sample;
pub(crate) mod set_body;
pub(crate) mod set_header;
pub(crate) mod set_headers;
pub(crate) mod set_property;
pub(crate) mod split;
pub(crate) mod stop;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod throw;
pub(crate) mod to;
pub(crate) mod to_dynamic;
pub(crate) mod transform;
pub(crate) mod validate;
pub(crate) mod wire_tap;

use std::fmt::Write as _;

use crate::step::{KeyDescription, KeyKind, Need, StepDescription};

/// All steps, in the order in which they are documented.
pub static ALL: &[&StepDescription] = &[
    &to::DESCRIPTION,
    &to_dynamic::DESCRIPTION,
    &log::DESCRIPTION,
    &process::DESCRIPTION,
    &set_body::DESCRIPTION,
    &transform::DESCRIPTION,
    &convert_body::DESCRIPTION,
    &set_header::DESCRIPTION,
    &set_headers::DESCRIPTION,
    &remove_header::DESCRIPTION,
    &remove_headers::DESCRIPTION,
    &set_property::DESCRIPTION,
    &remove_property::DESCRIPTION,
    &validate::DESCRIPTION,
    &filter::DESCRIPTION,
    &choice::DESCRIPTION,
    &loop_::DESCRIPTION,
    &split::DESCRIPTION,
    &multicast::DESCRIPTION,
    &recipient_list::DESCRIPTION,
    &routing_slip::DESCRIPTION,
    &dynamic_router::DESCRIPTION,
    &wire_tap::DESCRIPTION,
    &enrich::DESCRIPTION,
    &load_balance::DESCRIPTION,
    &do_try::DESCRIPTION,
    &throw::DESCRIPTION,
    &sample::DESCRIPTION,
    &delay::DESCRIPTION,
    &stop::DESCRIPTION,
];

/// The step of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static StepDescription> {
    ALL.iter().copied().find(|step| step.name == name)
}

impl StepDescription {
    /// The keys as a Markdown table: the one of `bactrian doc`.
    #[must_use]
    pub fn key_table(&self) -> String {
        if self.keys.is_empty() {
            return "No keys.\n".into();
        }
        let mut table = String::from("| key | takes | default | meaning |\n|---|---|---|---|\n");
        add_keys("", self.keys, &mut table);
        table
    }
}

/// Adds a row for each key, and for those of tables in it.
fn add_keys(prefix: &str, keys: &[KeyDescription], table: &mut String) {
    for KeyDescription { name, kind, need, summary } in keys {
        let default = match need {
            Need::Required => "required".into(),
            Need::Optional | Need::OneOf(_) => String::new(),
            Need::Default(value) => format!("`{value}`"),
        };
        let takes = kind.name();
        // Writing into a string cannot fail.
        let _ = writeln!(table, "| `{prefix}{name}` | {takes} | {default} | {summary} |");
        if let KeyKind::Tables(keys) = kind {
            add_keys(&format!("{prefix}{name}."), keys, table);
        }
    }
}

/// The steps as a Markdown table: the one of the guide.
#[must_use]
pub fn steps_table() -> String {
    let mut table = String::from("| step | TOML | meaning |\n|---|---|---|\n");
    for StepDescription { name, summary, example, .. } in ALL {
        // Writing into a string cannot fail.
        let _ = writeln!(table, "| {name} | `{example}` | {summary} |");
    }
    table
}
