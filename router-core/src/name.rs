//! [`check`]: names that the author of a route gives: of routes, steps, headers and queues.

/// Why a text is no name: as the end of a sentence, if it is none. One with white space at its ends is another name than
/// the one that is seen, and one with control characters could pretend to be several.
pub(crate) fn check(name: &str) -> Option<&'static str> {
    match () {
        () if name.trim().is_empty() => Some("cannot be empty"),
        () if name.contains(char::is_control) => Some("has no control characters"),
        () if name.trim().len() < name.len() => Some("has no white space at its ends"),
        () => None,
    }
}
