//! Which headers travel between an exchange and HTTP, and how bodies are labelled.

use encoding_rs::{Encoding, UTF_8};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, SET_COOKIE,
};
use router_core::cluster::Term;
use router_core::error::BoxError;
use router_core::exchange::{Body, BodyKind};
use router_core::failure::Failure;
use router_core::spool::Written;
use router_core::value::{Json, Value, ValueMap};
use smol_str::SmolStr;

use super::content;

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

/// Copies what may travel. Null, bytes, lists and objects are no header values and stay.
///
/// # Errors
/// A header that would travel and cannot be sent, because of its name or because of what is in it, is named.
pub(crate) fn copy_to_request(from: &ValueMap, to: &mut HeaderMap) -> Result<(), Failure> {
    for (name, value) in from.iter() {
        let name = name.to_ascii_lowercase();
        let scalar =
            !matches!(value, Value::Null | Value::Bytes(_) | Value::Json(Json::List(_) | Json::Object(_)));
        // The content type follows the body: a request without one has none.
        if !scalar || !travels(&name) || ANSWER_ONLY.contains(&&*name) || name == CONTENT_TYPE.as_str() {
            continue;
        }
        let value = header_value(&name, value)?;
        let name = HeaderName::try_from(&*name).map_err(|_| {
            Failure::data(format!(
                "the header {name:?} cannot be sent: a name has letters, digits and `-`, `_` and the like; rename or remove it \
                 before this step"
            ))
        })?;
        to.insert(name, value);
    }
    Ok(())
}

fn header_value(name: &str, value: &Value) -> Result<HeaderValue, Failure> {
    HeaderValue::try_from(value.to_string()).map_err(|_| {
        Failure::data(format!(
            "the header `{name}` cannot be sent: there is a line end or another control character in it"
        ))
    })
}

/// Copies what may travel. Values of one name are joined, except cookies, which cannot be and are
/// credentials: they stay. What is not UTF-8 is read as Latin-1, as RFC 9110 says of old headers.
pub(crate) fn copy_from_response(from: &HeaderMap, to: &mut ValueMap) {
    let travels = |name: &&HeaderName| {
        // What was around the content was taken off.
        let gone = **name == CONTENT_ENCODING && content::is_gzip(from);
        travels(name.as_str()) && **name != SET_COOKIE && !gone
    };
    for name in from.keys().filter(travels) {
        let values = from.get_all(name).iter().map(|value| match str::from_utf8(value.as_bytes()) {
            Ok(text) => text.into(),
            Err(_) => encoding_rs::mem::decode_latin1(value.as_bytes()),
        });
        to.set(SmolStr::from(name.as_str()), values.collect::<Vec<_>>().join(", "));
    }
}

/// Labels the body of a request: with the header of the exchange, else by its kind.
pub(crate) fn set_content_type(from: &ValueMap, body: &Body, to: &mut HeaderMap) -> Result<(), Failure> {
    let name = CONTENT_TYPE;
    let value = match from.get(name.as_str()) {
        Some(given) => header_value(name.as_str(), given)?,
        None => HeaderValue::from_static(match body.kind() {
            BodyKind::Json => "application/json",
            BodyKind::Text => "text/plain; charset=utf-8",
            _ => "application/octet-stream",
        }),
    };
    to.insert(name, value);
    Ok(())
}

/// The body of a response: text where its label says so and it is in the charset of that label, bytes otherwise. A spooled
/// one is neither before it is read. Text is UTF-8 from then on, and the label of `received` says so.
pub(crate) fn body(written: Written, headers: &HeaderMap, received: &mut ValueMap) -> Body {
    let bytes = match written {
        Written::Memory(bytes) => bytes,
        Written::File(region) => return Body::file(region),
    };
    if bytes.is_empty() {
        return Body::empty();
    }
    let label = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, parameters) = label.split_once(';').unwrap_or((label, ""));
    let (kind, charset) = (kind.trim().to_ascii_lowercase(), charset(parameters));
    let is_text = kind.starts_with("text/")
        || ["json", "xml", "x-www-form-urlencoded"].iter().any(|ending| kind.ends_with(ending));
    if !is_text || !content::is_bare(headers) {
        return Body::bytes(bytes);
    }
    // A label that is not known: what is in it is not known either.
    let Some(encoding) = charset.map_or(Some(UTF_8), |name| Encoding::for_label(name.as_bytes())) else {
        return Body::bytes(bytes);
    };
    if encoding == UTF_8 {
        return match str::from_utf8(&bytes) {
            Ok(text) => Body::text(text),
            Err(_) => Body::bytes(bytes),
        };
    }
    let (encoding, bom) = Encoding::for_bom(&bytes).unwrap_or((encoding, 0));
    let text =
        encoding.decode_without_bom_handling_and_without_replacement(bytes.get(bom..).unwrap_or_default());
    let Some(text) = text else { return Body::bytes(bytes) };
    if received.get(CONTENT_TYPE.as_str()).is_some() {
        received.set(CONTENT_TYPE.as_str(), format!("{kind}; charset=utf-8"));
    }
    Body::text(text)
}

/// The parameter `charset` of a content type.
fn charset(parameters: &str) -> Option<&str> {
    let values = parameters.split(';').filter_map(|parameter| parameter.split_once('='));
    let charset = values.into_iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"));
    charset.map(|(_, value)| value.trim().trim_matches('"'))
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
    use bytes::Bytes;
    use router_core::failure::ErrorKind;

    use super::*;

    #[test]
    fn base64_pads_to_groups_of_four() {
        let encoded = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes()));
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }

    #[test]
    fn headers_of_components_and_connections_do_not_travel() {
        let mut from = ValueMap::default();
        for name in ["X-Order", "timer.counter", "Host", "Bactrian-Term", "Date", "bad name.x"] {
            from.set(name, "7");
        }
        let mut to = HeaderMap::new();
        copy_to_request(&from, &mut to).unwrap();
        assert_eq!(to.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-order"]);
    }

    #[test]
    fn a_header_that_cannot_be_sent_is_an_error_that_names_it() {
        for (name, value) in
            [("bad name", "7"), ("", "7"), ("X-Injected", "a\r\nb: c"), ("naïve", "7"), ("x", "\0")]
        {
            let mut from = ValueMap::default();
            from.set(name, value);
            let error = copy_to_request(&from, &mut HeaderMap::new()).unwrap_err();
            assert!(error.to_string().contains(&name.to_ascii_lowercase()), "{error}");
            assert_eq!(error.kind, ErrorKind::Data);
        }
        let mut from = ValueMap::default();
        from.set("content-type", "a\nb");
        assert!(set_content_type(&from, &Body::text("x"), &mut HeaderMap::new()).is_err());
    }

    #[test]
    fn text_in_another_charset_is_text_and_what_is_not_in_it_is_bytes() {
        let body = |label: &'static str, bytes: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(label));
            let mut received = ValueMap::default();
            copy_from_response(&headers, &mut received);
            let body = body(Written::Memory(Bytes::from_static(bytes)), &headers, &mut received);
            (body.kind(), body.to_string(), received.get("content-type").unwrap().to_string())
        };
        let text = |text: &str, label: &str| (BodyKind::Text, text.to_owned(), label.to_owned());
        let latin = "text/plain; charset=ISO-8859-1";
        assert_eq!(body(latin, b"caf\xe9"), text("café", "text/plain; charset=utf-8"));
        let utf_16 = "application/json;charset=\"utf-16le\"";
        assert_eq!(body(utf_16, b"[\x001\0]\0"), text("[1]", "application/json; charset=utf-8"));
        assert_eq!(body("text/xml; charset=Shift_JIS", b"\x83e"), text("テ", "text/xml; charset=utf-8"));
        assert_eq!(body("text/plain", "é".as_bytes()), text("é", "text/plain"));
        for (label, bytes) in [
            ("text/plain", &b"caf\xe9"[..]),
            ("text/plain; charset=utf-16le", b"[\0\0"),
            ("text/plain; charset=unheard-of", b"cafe"),
            ("image/png; charset=iso-8859-1", b"cafe"),
        ] {
            assert_eq!((body(label, bytes).0, body(label, bytes).2), (BodyKind::Bytes, label.to_owned()));
        }
    }

    #[test]
    fn a_header_of_a_response_that_is_not_ascii_is_kept() {
        let mut from = HeaderMap::new();
        from.append("x-name", HeaderValue::from_bytes("é".as_bytes()).unwrap());
        from.append("x-name", HeaderValue::from_bytes(b"\xe9").unwrap());
        let mut to = ValueMap::default();
        copy_from_response(&from, &mut to);
        assert_eq!(to.get("x-name").unwrap().to_string(), "é, é");
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
