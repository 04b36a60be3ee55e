//! [`Content`]: takes off what a server has put around the content of a response (`Content-Encoding`).

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, Entry, HeaderMap, HeaderValue};
use router_core::failure::Failure;

/// How the content of one response is read.
pub(crate) enum Content {
    /// As it comes.
    Plain,
    /// Decompressed; `None`: nothing has come.
    Gzip(Option<Box<MultiGzDecoder<Vec<u8>>>>),
}

/// So many compressed bytes are taken at a time: they become some megabytes at most, and then the limit is looked at.
const PART: usize = 4 << 10;

/// Asks for what this can read, where the request does not say what it accepts.
pub(crate) fn accept(headers: &mut HeaderMap) {
    if let Entry::Vacant(place) = headers.entry(ACCEPT_ENCODING) {
        place.insert(HeaderValue::from_static("gzip"));
    }
}

/// Whether what is read is what the server calls it: there is nothing around it that stays.
pub(crate) fn is_bare(headers: &HeaderMap) -> bool {
    let around = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    is_gzip(headers) || headers.get_all(CONTENT_ENCODING).iter().all(around)
}

/// Whether the content is compressed once, with gzip.
pub(crate) fn is_gzip(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let is_gzip = |value: &HeaderValue| {
        [&b"gzip"[..], b"x-gzip"].iter().any(|name| value.as_bytes().eq_ignore_ascii_case(name))
    };
    values.next().is_some_and(is_gzip) && values.next().is_none()
}

impl Content {
    /// That of the response with these headers.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if is_gzip(headers) { Self::Gzip(None) } else { Self::Plain }
    }

    /// A chunk as it came, in the parts in which it is read.
    pub(crate) fn parts(&self, chunk: &Bytes) -> impl Iterator<Item = Bytes> {
        let size = match self {
            Self::Plain => chunk.len(),
            Self::Gzip(_) => PART,
        };
        (0..chunk.len())
            .step_by(size.max(1))
            .map(move |start| chunk.slice(start..chunk.len().min(start + size)))
    }

    /// What is in a part.
    pub(crate) fn read(&mut self, part: Bytes) -> Result<Bytes, Failure> {
        match self {
            Self::Plain => Ok(part),
            Self::Gzip(decoder) => {
                let decoder = decoder.get_or_insert_with(|| Box::new(MultiGzDecoder::new(Vec::new())));
                decoder.write_all(&part).map_err(broken)?;
                Ok(std::mem::take(decoder.get_mut()).into())
            }
        }
    }

    /// What is in the rest, when all has come.
    ///
    /// # Errors
    /// When something is missing.
    pub(crate) fn finish(self) -> Result<Bytes, Failure> {
        match self {
            Self::Gzip(Some(decoder)) => Ok(decoder.finish().map_err(broken)?.into()),
            _ => Ok(Bytes::new()),
        }
    }
}

fn broken(error: io::Error) -> Failure {
    Failure::data(format!("the response cannot be decompressed: {error}"))
}
