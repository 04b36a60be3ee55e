//! Which headers travel between an exchange and HTTP, and how bodies are labelled.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use router_core::cluster::Term;
use router_core::error::BoxError;
use router_core::exchange::{Body, BodyKind};
use router_core::spool::Written;
use router_core::value::{Json, Value, ValueMap};
use smol_str::SmolStr;

/// Headers that never travel: those of one connection, and those that HTTP writes itself.
const NEVER: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Headers that describe a response. The exchange keeps them; in a later request they would mislead.
const ANSWER_ONLY: &[&str] =
    &["age", "alt-svc", "content-encoding", "date", "server", "vary", "via", "warning", "www-authenticate"];

/// A number may not be faked: these come from the term of the exchange alone.
const LOCK: HeaderName = HeaderName::from_static("bactrian-lock");
const TERM: HeaderName = HeaderName::from_static("bactrian-term");

fn travels(name: &str) -> bool {
    // Names with a dot belong to components: `timer.counter`, `http.response_code`.
    !name.contains('.') && !name.starts_with("bactrian-") && !NEVER.contains(&name)
}

/// Copies what may travel. Values that are no header values (JSON, bytes, text with line ends) stay.
pub(crate) fn copy_to_request(from: &ValueMap, to: &mut HeaderMap) {
    for (name, value) in from.iter() {
        let name = name.to_ascii_lowercase();
        let scalar =
            !matches!(value, Value::Null | Value::Bytes(_) | Value::Json(Json::List(_) | Json::Object(_)));
        // The content type follows the body: a request without one has none.
        if !scalar || !travels(&name) || ANSWER_ONLY.contains(&&*name) || name == CONTENT_TYPE.as_str() {
            continue;
        }
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value.to_string()))
        {
            to.insert(name, value);
        }
    }
}

/// Copies what may travel. Values of one name are joined, except cookies, which cannot be and are
/// credentials: they stay.
pub(crate) fn copy_from_response(from: &HeaderMap, to: &mut ValueMap) {
    for name in from.keys().filter(|name| travels(name.as_str()) && *name != "set-cookie") {
        let values = from.get_all(name).iter().filter_map(|value| value.to_str().ok());
        to.set(SmolStr::from(name.as_str()), values.collect::<Vec<_>>().join(", "));
    }
}

/// Labels the body of a request: with the header of the exchange, else by its kind.
pub(crate) fn set_content_type(from: &ValueMap, body: &Body, to: &mut HeaderMap) {
    let given =
        from.get(CONTENT_TYPE.as_str()).and_then(|value| HeaderValue::try_from(value.to_string()).ok());
    let value = given.unwrap_or_else(|| {
        HeaderValue::from_static(match body.kind() {
            BodyKind::Json => "application/json",
            BodyKind::Text => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        })
    });
    to.insert(CONTENT_TYPE, value);
}

/// The body of a response: text where its label says so and it is UTF-8, bytes otherwise. A spooled one is neither before
/// it is read.
pub(crate) fn body(written: Written, headers: &HeaderMap) -> Body {
    let bytes = match written {
        Written::Memory(bytes) => bytes,
        Written::File(region) => return Body::file(region),
    };
    if bytes.is_empty() {
        return Body::empty();
    }
    let label = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let label = label.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_text = label.starts_with("text/")
        || ["json", "xml", "x-www-form-urlencoded"].iter().any(|kind| label.ends_with(kind));
    match std::str::from_utf8(&bytes) {
        Ok(text) if is_text => Body::text(text),
        _ => Body::bytes(bytes),
    }
}

/// The fencing token, for receivers that refuse an older one.
pub(crate) fn set_term(term: Option<&Term>, to: &mut HeaderMap) {
    /// Text outside of ASCII is encoded in any case.
    const UNSAFE: &AsciiSet = &CONTROLS.add(b'%').add(b' ');
    let Some(term) = term else { return };
    let lock = utf8_percent_encode(term.lock().as_str(), UNSAFE).to_string();
    if let Ok(lock) = HeaderValue::try_from(lock) {
        to.insert(LOCK, lock);
    }
    to.insert(TERM, term.number().into());
}

/// Adds a user and password.
pub(crate) fn authorize_basic(
    headers: &mut HeaderMap,
    username: &str,
    password: &str,
) -> Result<(), BoxError> {
    authorize(headers, &format!("Basic {}", base64(format!("{username}:{password}").as_bytes())))
}

/// Adds a token.
pub(crate) fn authorize_bearer(headers: &mut HeaderMap, token: &str) -> Result<(), BoxError> {
    authorize(headers, &format!("Bearer {token}"))
}

fn authorize(headers: &mut HeaderMap, value: &str) -> Result<(), BoxError> {
    let mut value = HeaderValue::try_from(value).map_err(|_| "a secret is no header value")?;
    // Its `Debug` output does not show the value.
    value.set_sensitive(true);
    headers.insert(AUTHORIZATION, value);
    Ok(())
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit > chunk.len() { '=' } else { DIGITS[value as usize].into() });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_pads_to_groups_of_four() {
        let encoded = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn headers_of_components_and_connections_do_not_travel() {
        let mut from = ValueMap::default();
        for name in ["X-Order", "timer.counter", "Host", "Bactrian-Term", "Date", "bad name"] {
            from.set(name, "7");
        }
        from.set("X-Injected", "a\r\nb: c");
        let mut to = HeaderMap::new();
        copy_to_request(&from, &mut to);
        assert_eq!(to.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-order"]);
    }

    #[test]
    fn a_response_cannot_set_headers_of_components_or_cookies() {
        let mut from = HeaderMap::new();
        for name in ["etag", "file.name", "set-cookie", "transfer-encoding", "bactrian-term"] {
            from.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        let mut to = ValueMap::default();
        copy_from_response(&from, &mut to);
        assert_eq!(to.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["etag"]);
    }
}
