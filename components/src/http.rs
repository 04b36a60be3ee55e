//! `http:host/path`, and over TLS `https:host/path`: sends each exchange as an HTTP request; the response replaces the
//! message.
//!
//! | option | takes | default | meaning |
//! |---|---|---|---|
//! | `http_method` | GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS |  | the method; unset: the header `http.method`, else GET where there is a query or no body, else POST |
//! | `query` | text |  | the query of the URL, with `&` written as `%26`; the header `http.query` goes before it |
//! | `throw_exception_on_failure` | boolean | `true` | whether a status outside of the range is a failure |
//! | `ok_status_code_range` | text | `200-299` | which statuses are none: numbers and ranges, separated by commas |
//! | `follow_redirects` | boolean | `false` | whether redirects are followed, at most ten |
//! | `connect_timeout` | duration | `10s` | how long connecting may take |
//! | `response_timeout` | duration | `30s` | how long everything may take, from connecting to the last byte of the response |
//! | `max_response_size` | integer |  | how many bytes the body of a response may have; unset: as many as are spooled, `body.max_spooled_bytes` |
//! | `user_agent` | text |  | the header `user-agent`; `bactrian/VERSION` where unset |
//! | `auth_username` | text |  | the name for basic authentication |
//! | `auth_password` | secret |  | the password for basic authentication |
//! | `auth_bearer_token` | secret |  | the token for bearer authentication |
//! | `delete_with_body` | boolean | `false` | whether the method DELETE carries the body too |
//! | `skip_request_headers` | boolean | `false` | whether the headers of the exchange are kept out of the request |
//! | `skip_response_headers` | boolean | `false` | whether the headers of the response are kept out of the exchange |
//!
//! A secret is written as `env:NAME` or `file:/path` and read for each request; user and password inside
//! the URL are a configuration error. Options are those of this table: a query for the other side stands
//! in `query`, which URIs in logs and errors show.
//!
//! **Request.** Headers of the exchange become request headers, except hop-by-hop ones, those that HTTP
//! writes itself, those that only a response has, and names with a dot, which belong to components. Three
//! of these steer the request: `http.method`, `http.query`, and `http.path`, which is appended to the
//! path, as it is and without `.` and `..`. POST, PUT and PATCH carry the body; its `content-type` is the header, or
//! follows from the kind of the body. An exchange with a term carries the headers `bactrian-lock` (the
//! name, percent-encoded) and `bactrian-term` (a number that only grows): a receiver that refuses a
//! smaller term than it has seen is safe from a leader that does not know yet that it was replaced.
//!
//! **Response.** The body becomes text where its content type says so, in the charset of that type, and bytes otherwise;
//! what was compressed with gzip is decompressed. A large one goes to a file (`body.spool_threshold`), and is not text of
//! another charset then. One that is cut off is an error, and never a short body. The header
//! `http.response_code` is the status. Headers of the response become headers of the exchange, with the
//! exceptions above and without cookies. When the status is a failure, the body stays what it was; the error shows
//! the beginning of what the server says, and for error handlers the properties `http.response_body` (64 KiB at most)
//! and `http.response_headers` have the rest.
//!
//! Requests over HTTP/1.1 share one pool of connections per distinct set of connection options. The CA
//! certificates of the system are loaded when the first request needs them: a plain `http:` endpoint
//! that follows no redirects works without any. The certificate of a server must be signed by one of them; the environment
//! variables `SSL_CERT_FILE` and `SSL_CERT_DIR` name others. Proxies in the environment are not used.

mod upload;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use reqwest::header::{CONTENT_LENGTH, HeaderValue};
use reqwest::{Method, Request, Response, Url};
use router_core::component::{BuildContext, Component, Endpoint, Processor};
use router_core::error::{BoxError, ConfigError, ConfigErrors};
use router_core::exchange::Exchange;
use router_core::failure::Failure;
use router_core::options::{
    ComponentDescription, OptionDescription, OptionKind, Options, PathKind, option, path,
};
use router_core::spool::Spool;
use router_core::uri::EndpointUri;
use router_core::value::{Json, Object};

use crate::http_client::credentials::{Authentication, authentication, refuse_credentials};
use crate::http_client::{
    ClientSettings, HttpClients, Refusal, USER_AGENT, content, failed, headers, spool_body,
};
use upload::Upload;

/// The component `http:`, or `https:`.
#[derive(Clone, Debug)]
pub struct HttpComponent {
    description: &'static ComponentDescription,
    clients: HttpClients,
}

impl Default for HttpComponent {
    fn default() -> Self {
        Self::new(HttpClients::default())
    }
}

impl HttpComponent {
    /// The component of `http:`.
    #[must_use]
    pub fn new(clients: HttpClients) -> Self {
        Self { description: &HTTP, clients }
    }

    /// The component of `https:`.
    #[must_use]
    pub fn with_tls(clients: HttpClients) -> Self {
        Self { description: &HTTPS, clients }
    }
}

static HTTP: ComponentDescription = ComponentDescription {
    scheme: "http",
    summary: "sends each exchange as an HTTP request; the response replaces the message",
    syntax: "http:host/path",
    path: path("url", PathKind::Url),
    consumes: false,
    produces: true,
    options: OPTIONS,
};

static HTTPS: ComponentDescription = ComponentDescription {
    scheme: "https",
    summary: "sends each exchange as an HTTP request over TLS; the response replaces the message",
    syntax: "https:host/path",
    path: path("url", PathKind::Url),
    consumes: false,
    produces: true,
    options: OPTIONS,
};

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// The options of `http:` and `https:`.
const OPTIONS: &[OptionDescription] = &[
    option(
        "http_method",
        OptionKind::Choice(METHODS),
        None,
        "the method; unset: the header `http.method`, else GET where there is a query or no body, else POST",
    ),
    option(
        "query",
        OptionKind::Query,
        None,
        "the query of the URL, with `&` written as `%26`; the header `http.query` goes before it",
    ),
    option(
        "throw_exception_on_failure",
        OptionKind::Boolean,
        Some("true"),
        "whether a status outside of the range is a failure",
    ),
    option(
        "ok_status_code_range",
        OptionKind::Text,
        Some("200-299"),
        "which statuses are none: numbers and ranges, separated by commas",
    ),
    option(
        "follow_redirects",
        OptionKind::Boolean,
        Some("false"),
        "whether redirects are followed, at most ten",
    ),
    option("connect_timeout", OptionKind::Duration, Some("10s"), "how long connecting may take"),
    option(
        "response_timeout",
        OptionKind::Duration,
        Some("30s"),
        "how long everything may take, from connecting to the last byte of the response",
    ),
    option(
        "max_response_size",
        OptionKind::Integer,
        None,
        "how many bytes the body of a response may have; unset: as many as are spooled, `body.max_spooled_bytes`",
    ),
    option("user_agent", OptionKind::Text, None, "the header `user-agent`; `bactrian/VERSION` where unset"),
    option("auth_username", OptionKind::Text, None, "the name for basic authentication"),
    option("auth_password", OptionKind::Secret, None, "the password for basic authentication"),
    option("auth_bearer_token", OptionKind::Secret, None, "the token for bearer authentication"),
    option(
        "delete_with_body",
        OptionKind::Boolean,
        Some("false"),
        "whether the method DELETE carries the body too",
    ),
    option(
        "skip_request_headers",
        OptionKind::Boolean,
        Some("false"),
        "whether the headers of the exchange are kept out of the request",
    ),
    option(
        "skip_response_headers",
        OptionKind::Boolean,
        Some("false"),
        "whether the headers of the response are kept out of the exchange",
    ),
];

impl Component for HttpComponent {
    fn description(&self) -> &'static ComponentDescription {
        self.description
    }

    fn endpoint(
        &self,
        uri: &EndpointUri,
        context: &BuildContext<'_>,
    ) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = &self.description.read_into(uri, &mut errors);
        let url = errors.collect(refuse_credentials(uri).and_then(|()| url(uri)));
        let authentication = errors.collect(authentication(uri, options));
        let range = options.text("ok_status_code_range").unwrap_or_default();
        let success = errors.collect(StatusRange::parse(&range).ok_or_else(|| {
            uri.error_at_option(
                "ok_status_code_range",
                "option `ok_status_code_range` takes statuses like `200-299` or `200,404`",
            )
        }));
        errors.collect(check_user_agent(uri, options));
        errors.into_result()?;
        let (Some(url), Some(authentication), Some(success)) = (url, authentication, success) else {
            unreachable!("what is missing is an error");
        };
        let follow_redirects = options.boolean("follow_redirects");
        let client = ClientSettings {
            connect_timeout: options.duration("connect_timeout"),
            follow_redirects,
            user_agent: options.text("user_agent").unwrap_or_else(|| USER_AGENT.into()),
            // A redirect may lead from http to https.
            without_ca_roots: url.scheme() == "http" && !follow_redirects,
        };
        let spool = context.spool.clone();
        context.when_taken(move || spool.expect_use());
        let method = options.text("http_method").and_then(|name| name.parse().ok());
        Ok(Box::new(HttpEndpoint(Arc::new(Http {
            url,
            method,
            query: options.text("query"),
            authentication,
            success: options.boolean("throw_exception_on_failure").then_some(success),
            response_timeout: options.duration("response_timeout"),
            max_response_size: options.integer("max_response_size").unwrap_or(u64::MAX),
            delete_with_body: options.boolean("delete_with_body"),
            skip_request_headers: options.boolean("skip_request_headers"),
            skip_response_headers: options.boolean("skip_response_headers"),
            clients: self.clients.clone(),
            client,
            spool: context.spool.clone(),
        }))))
    }
}

fn url(uri: &EndpointUri) -> Result<Url, ConfigError> {
    let scheme = uri.scheme();
    if uri.path().split_once("://").is_some_and(|(before, _)| !before.contains('/')) {
        let error = uri.error_in_path(0..uri.path().len(), format!("`{scheme}:` stands before a host"));
        return Err(error.help(format!("write `{scheme}:host/path`")));
    }
    let parsed = Url::parse(&format!("{scheme}://{}", uri.path()));
    let wrong = |why: String| {
        let message = format!("an {scheme} endpoint needs a host and a path{why}");
        uri.error_in_whole(message).help(format!("for example `{scheme}:localhost:8080/orders`"))
    };
    let url = parsed.map_err(|error| wrong(format!(": {error}")))?;
    Some(url).filter(|url| url.has_host() && url.fragment().is_none()).ok_or_else(|| wrong(String::new()))
}

/// Checks that the option `user_agent` can be sent.
fn check_user_agent(uri: &EndpointUri, options: &Options) -> Result<(), ConfigError> {
    match options.text("user_agent").map(HeaderValue::try_from) {
        Some(Err(_)) => Err(uri.error_at_option("user_agent", "option `user_agent` is no value of a header")),
        _ => Ok(()),
    }
}

/// The statuses that are a success.
struct StatusRange(Vec<std::ops::RangeInclusive<u16>>);

impl StatusRange {
    fn parse(text: &str) -> Option<Self> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            (100 <= first && first <= last && last <= 599).then_some(first..=last)
        };
        text.split(',').map(range).collect::<Option<Vec<_>>>().map(Self)
    }

    fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

struct HttpEndpoint(Arc<Http>);

impl Endpoint for HttpEndpoint {
    fn processor(&self) -> Option<Arc<dyn Processor>> {
        Some(self.0.clone())
    }
}

struct Http {
    url: Url,
    method: Option<Method>,
    query: Option<String>,
    authentication: Authentication,
    /// `None`: every status is a success.
    success: Option<StatusRange>,
    response_timeout: Duration,
    max_response_size: u64,
    delete_with_body: bool,
    skip_request_headers: bool,
    skip_response_headers: bool,
    clients: HttpClients,
    client: ClientSettings,
    /// Where responses are kept that are too large for the memory.
    spool: Spool,
}

#[async_trait]
impl Processor for Http {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let request = self.request(exchange)?;
        let client = self.clients.get(&self.client)?;
        let conversation = async {
            let response = client.execute(request).await.map_err(failed)?;
            let status = response.status().as_u16();
            if self.success.as_ref().is_some_and(|success| !success.contains(status)) {
                let Refusal { failure, body, headers } = Refusal::read(response).await;
                exchange.message.headers.set("http.response_code", i64::from(status));
                let headers =
                    headers.iter().map(|(name, value)| (name, value.to_string())).collect::<Object>();
                exchange.properties.set("http.response_headers", Json::from(headers));
                exchange.properties.set("http.response_body", body);
                return Err(BoxError::from(failure));
            }
            self.receive(response, exchange).await
        };
        // Around everything: a timeout between reads would let a response drip for ever.
        match tokio::time::timeout(self.response_timeout, conversation).await {
            Ok(result) => result,
            Err(_) => {
                let error = format!("there was no complete response within {:?}", self.response_timeout);
                Err(Failure::timeout(error).into())
            }
        }
    }

    fn takes_files(&self) -> bool {
        true
    }
}

impl Http {
    fn request(&self, exchange: &Exchange) -> Result<Request, BoxError> {
        let message = &exchange.message;
        let text = |name: &str| message.headers.get(name).map(ToString::to_string);
        let mut url = self.url.clone();
        if let Some(path) = text("http.path") {
            append_path(&mut url, &path)?;
        }
        let query = text("http.query").or_else(|| self.query.clone());
        let method = match (&self.method, text("http.method")) {
            (Some(method), _) => method.clone(),
            (None, Some(name)) => METHODS
                .iter()
                .find(|method| method.eq_ignore_ascii_case(&name))
                .and_then(|method| method.parse().ok())
                .ok_or_else(|| {
                    Failure::data(format!("the header `http.method` is not one of {}", METHODS.join(", ")))
                })?,
            (None, None) if query.is_some() || message.body.is_empty() => Method::GET,
            (None, None) => Method::POST,
        };
        url.set_query(query.as_deref());
        let has_content = matches!(method, Method::POST | Method::PUT | Method::PATCH);
        let carries_body = has_content || (self.delete_with_body && method == Method::DELETE);
        let mut request = Request::new(method, url);
        if !self.skip_request_headers {
            headers::copy_to_request(&message.headers, request.headers_mut())?;
        }
        if carries_body && !message.body.is_empty() {
            headers::set_content_type(&message.headers, &message.body, request.headers_mut())?;
            *request.body_mut() = Some(match message.body.as_file() {
                Some(region) => reqwest::Body::wrap(Upload::new(region.clone())),
                None => message.body.to_bytes()?.into(),
            });
        } else if has_content {
            // Without it, some servers respond with 411 Length Required (RFC 9110, section 8.6).
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        content::accept(request.headers_mut());
        self.authentication.apply(request.headers_mut())?;
        headers::set_term(exchange.term.as_ref(), request.headers_mut());
        Ok(request)
    }

    /// Makes the response the message of the exchange; nothing is changed before all of it is there.
    async fn receive(&self, mut response: Response, exchange: &mut Exchange) -> Result<(), BoxError> {
        let body = self.spool.writer(exchange.message.body.held_file());
        let body = spool_body(&mut response, self.max_response_size, body).await?;
        let received = &mut exchange.message.headers;
        // The old one described the old body.
        received.remove("content-type");
        if !self.skip_response_headers {
            headers::copy_from_response(response.headers(), received);
        }
        received.set("http.response_code", i64::from(response.status().as_u16()));
        let body = headers::body(body, response.headers(), &mut exchange.message.headers);
        exchange.message.body = body;
        Ok(())
    }
}

/// Appends `path` to the path of `url`.
fn append_path(url: &mut Url, path: &str) -> Result<(), Failure> {
    let base = format!("{}/", url.path().trim_end_matches('/'));
    let path = path.trim_start_matches('/');
    // These are no names: clients and servers resolve them. Some servers take a backslash, or what is encoded, for a slash.
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    if decoded.split(['/', '\\']).any(|part| matches!(part, "." | "..")) {
        let message =
            format!("the header `http.path` is {path:?}: a part that is `.` or `..` leads to another path");
        return Err(Failure::data(message));
    }
    // A percent sign is one of the text. The other letters that have a meaning are encoded by the URL itself.
    url.set_path(&format!("{base}{}", path.replace('%', "%25").replace('\\', "%5C")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_numbers_and_ranges() {
        let range = StatusRange::parse("200-204, 404").unwrap();
        assert!(range.contains(204) && range.contains(404) && !range.contains(205));
        for text in ["", "abc", "299-200", "200-", "99"] {
            assert!(StatusRange::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn an_appended_path_cannot_leave_the_path_of_the_endpoint() {
        let append = |path: &str| {
            let mut url = Url::parse("http://host/api/").unwrap();
            append_path(&mut url, path).map(|()| url.to_string())
        };
        assert_eq!(append("/orders/7").unwrap(), "http://host/api/orders/7");
        assert_eq!(append("a?b#c").unwrap(), "http://host/api/a%3Fb%23c");
        assert_eq!(append("a%2fb/..c").unwrap(), "http://host/api/a%252fb/..c");
        assert_eq!(append("100%\\x").unwrap(), "http://host/api/100%25%5Cx");
        for path in ["a/../b", "./a", "a/."] {
            assert!(append(path).unwrap_err().to_string().contains(path), "{path}");
        }
        for path in ["../admin", "a/../../admin", "%2e%2e/admin", "..\\admin", "..%2fadmin", "a%2f..%5c%2E."]
        {
            assert!(append(path).is_err(), "{path}");
        }
    }
}
