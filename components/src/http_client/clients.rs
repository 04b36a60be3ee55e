//! [`HttpClients`]: one pool of connections for each distinct set of connection options.

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use router_core::error::BoxError;
use router_core::exchange::{Body, BodyKind};
use router_core::failure::{ErrorKind, Failure};
use router_core::spool::{SpoolWriter, Written};
use router_core::value::{Value, ValueMap};
use smol_str::ToSmolStr;

use super::content::Content;
use super::headers;
use super::retry_after::{retry_after, wall_clock};

/// What makes one client different from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientSettings {
    pub(crate) connect_timeout: Duration,
    pub(crate) follow_redirects: bool,
    pub(crate) user_agent: String,
    /// Whether the client works without CA certificates; it can then speak plain HTTP alone.
    pub(crate) without_ca_roots: bool,
}

/// The HTTP clients, and so the connections, that components share. Clones share them; a client is made when it is needed
/// first.
#[derive(Clone, Default, Debug)]
pub struct HttpClients {
    clients: Arc<Mutex<HashMap<ClientSettings, Client>>>,
}

impl HttpClients {
    /// How many clients are kept; one more makes all anew.
    const MOST: usize = 100;

    /// The client with these settings. The first call makes it, which loads the CA certificates where
    /// they are needed; a failure is not kept, so that the next call tries again.
    pub(crate) fn get(&self, settings: &ClientSettings) -> Result<Client, BoxError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(settings) {
            return Ok(client.clone());
        }
        let client = settings.build()?;
        // A `user_agent` that depends on the exchange would fill the memory.
        if clients.len() >= Self::MOST {
            clients.clear();
        }
        clients.insert(settings.clone(), client.clone());
        Ok(client)
    }
}

impl ClientSettings {
    fn build(&self) -> Result<Client, reqwest::Error> {
        // Without a provider the builder would panic. When somebody else has installed one, that one
        // serves as well: the refusal of ours is no failure.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let redirects = if self.follow_redirects { Policy::limited(10) } else { Policy::none() };
        let builder = Client::builder()
            .connect_timeout(self.connect_timeout)
            .redirect(redirects)
            // A variable that was set for other programs would show requests and tokens to somebody else.
            .no_proxy()
            // It would tell one host the query that was meant for another.
            .referer(false)
            .user_agent(&*self.user_agent);
        let builder = if self.without_ca_roots { builder.tls_certs_only([]) } else { builder };
        builder.build()
    }
}

/// An error of a request, without its URL: there may be a secret in it.
pub(crate) fn failed(error: reqwest::Error) -> Failure {
    // What the body of the request says.
    let mut causes = std::iter::successors(error.source(), |&cause| cause.source());
    let said = causes.find_map(|cause| cause.downcast_ref::<Failure>());
    let kind = match &error {
        _ if said.is_some() => said.map_or(ErrorKind::Other, |said| said.kind),
        // Nothing was asked for yet.
        error if error.is_connect() => ErrorKind::Unavailable,
        error if error.is_timeout() => ErrorKind::Timeout,
        error if error.is_builder() => ErrorKind::Data,
        error if error.is_redirect() => ErrorKind::Rejected,
        // Of the way to the server, or of the connection while it responds.
        _ => ErrorKind::Unavailable,
    };
    Failure::new(kind, error.without_url())
}

/// The kind of a status that is no success.
pub(crate) fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        // The server does not know the method or the version of HTTP, and will not learn them.
        501 | 505 => ErrorKind::Rejected,
        408 | 425 | 429 | 500..600 => ErrorKind::Unavailable,
        _ => ErrorKind::Rejected,
    }
}

/// A response that is no success.
pub(crate) struct Refusal {
    /// The failure that it is, with the beginning of what the server says.
    pub(crate) failure: Failure,
    /// The body, or as much of it as is kept.
    pub(crate) body: Value,
    /// Its headers, without those that never travel.
    pub(crate) headers: ValueMap,
}

impl Refusal {
    /// More of a body is not kept.
    pub(crate) const BODY_BYTES: usize = 64 << 10;
    /// More of a text is not shown in an error.
    const SHOWN: usize = 200;

    /// Reads it. That the body is cut off, or does not come, changes nothing about the refusal.
    pub(crate) async fn read(mut response: Response) -> Self {
        let mut bytes = BytesMut::new();
        let mut content = Content::of(response.headers());
        'reading: while let Ok(Some(chunk)) = response.chunk().await {
            for part in content.parts(&chunk).collect::<Vec<_>>() {
                let Ok(part) = content.read(part) else { break 'reading };
                bytes.extend_from_slice(&part);
                if bytes.len() >= Self::BODY_BYTES {
                    break 'reading;
                }
            }
        }
        if let Ok(rest) = content.finish() {
            bytes.extend_from_slice(&rest);
        }
        bytes.truncate(Self::BODY_BYTES);
        // A letter of which only a part is kept would make bytes of the text.
        if let Err(error) = str::from_utf8(&bytes)
            && error.error_len().is_none()
        {
            bytes.truncate(error.valid_up_to());
        }
        let bytes = bytes.freeze();
        let mut headers = ValueMap::default();
        headers::copy_from_response(response.headers(), &mut headers);
        let body = headers::body(Written::Memory(bytes.clone()), response.headers(), &mut headers);
        let status = response.status();
        let said = Self::shown(&body, &headers);
        let failure =
            Failure::new(kind_of_status(status.as_u16()), format!("the response was {status}{said}"))
                .code(status.as_u16().to_smolstr())
                .retry_after(retry_after(response.headers(), wall_clock()));
        let body = match body.kind() {
            BodyKind::Text => Value::from(body.to_string()),
            _ => Value::from(bytes),
        };
        Self { failure, body, headers }
    }

    /// The beginning of a text, on one line, behind a colon. A page for a browser says little in its first lines.
    fn shown(body: &Body, headers: &ValueMap) -> String {
        let label = headers.get("content-type").map(ToString::to_string).unwrap_or_default();
        if body.kind() != BodyKind::Text || label.contains("html") {
            return String::new();
        }
        let text = body.to_string();
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let shown = line.chars().take(Self::SHOWN).collect::<String>();
        let more = if shown.len() < line.len() { "..." } else { "" };
        if shown.is_empty() { shown } else { format!(": {shown}{more}") }
    }
}

/// The whole body of a response in memory, if it is not larger than `limit`.
pub(crate) async fn read_body(response: &mut Response, limit: usize) -> Result<Bytes, BoxError> {
    let limit = limit as u64;
    check_length(response.content_length(), limit)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        check_length(Some((body.len() + chunk.len()) as u64), limit)?;
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

/// The whole body of a response, in memory or spooled, if it is not larger than `limit`. One that ends before its length, or
/// before its last chunk, is an error of the client.
pub(crate) async fn spool_body(
    response: &mut Response,
    limit: u64,
    mut body: SpoolWriter,
) -> Result<Written, BoxError> {
    let mut content = Content::of(response.headers());
    if matches!(content, Content::Plain) {
        let length = response.content_length();
        check_length(length, limit)?;
        body.expect(length.unwrap_or(0)).await?;
    }
    let mut read = 0;
    let mut check = |part: &Bytes| {
        read += part.len() as u64;
        check_length(Some(read), limit)
    };
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        for part in content.parts(&chunk).collect::<Vec<_>>() {
            let part = content.read(part)?;
            check(&part)?;
            body.write(&part).await?;
        }
    }
    let rest = content.finish()?;
    check(&rest)?;
    body.write(&rest).await?;
    Ok(body.finish().await?)
}

fn check_length(length: Option<u64>, limit: u64) -> Result<(), Failure> {
    match length.is_some_and(|length| length > limit) {
        true => {
            Err(Failure::data(format!("the response is larger than {limit} bytes (`max_response_size`)")))
        }
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_settings_share_a_client_and_different_ones_do_not() {
        let (clients, seconds) = (HttpClients::default(), Duration::from_secs);
        let settings = |timeout| ClientSettings {
            connect_timeout: timeout,
            follow_redirects: false,
            user_agent: "test".into(),
            without_ca_roots: true,
        };
        for timeout in [seconds(1), seconds(2), seconds(1)] {
            clients.clone().get(&settings(timeout)).unwrap();
        }
        assert_eq!(clients.clients.lock().unwrap().len(), 2);
    }
}
