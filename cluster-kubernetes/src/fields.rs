//! The text of a record: fields like `epoch=12`, with a space between two.

use std::collections::BTreeMap;

/// The format of the records that are written.
pub(crate) const FORMAT: &str = "2";

/// The values by the names of their fields.
pub(crate) fn fields(text: &str) -> BTreeMap<&str, &str> {
    text.split(' ').filter_map(|field| field.split_once('=')).collect()
}
