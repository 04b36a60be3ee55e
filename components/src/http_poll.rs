//! `http-poll:https://host/path`: polls an HTTP endpoint, and makes one exchange of each new item.
//!
//! | option | takes | default | meaning |
//! |---|---|---|---|
//! | `period` | duration | `1m` | the time from the end of one poll to the next |
//! | `timeout` | duration | `30s` | how long a poll may take, from connecting to the last byte of the response |
//! | `connect_timeout` | duration | `10s` | how long connecting may take |
//! | `query` | text |  | the query of the URL, with `&` written as `%26` |
//! | `cursor` | text |  | a JSON pointer to the value in the response that the next poll sends back |
//! | `cursor_parameter` | text |  | the parameter of the query in which the cursor is sent |
//! | `cursor_header` | text |  | the header in which the cursor is sent |
//! | `cursor_start` | text |  | the cursor of the first poll |
//! | `cursor_end` | stay, restart | `stay` | what comes after the last page, which has no cursor: `stay`: this page, once it has changed; `restart`: the first one |
//! | `max_pages_per_poll` | integer | `100` | how many pages with items are read without a pause, while each has another cursor |
//! | `split` | text |  | a JSON pointer to an array in the response, `/` for the response itself: one exchange for each item |
//! | `dedupe` | text |  | a JSON pointer to the id in an item (or in the response, without `split`): what was done is not done again |
//! | `dedupe_max` | integer | `200` | how many ids are remembered beside those that the server still shows |
//! | `max_backoff` | duration | `5m` | the longest pause after failures, unless the server asks for a longer one |
//! | `max_response_size` | integer | `10485760` | how many bytes the body of a response may have |
//! | `auth_username` | text |  | the name for basic authentication |
//! | `auth_password` | secret |  | the password for basic authentication |
//! | `auth_bearer_token` | secret |  | the token for bearer authentication |
//! | `state` | text |  | a file for the position of a route without a lock; below `master:` it travels with the lock |
//!
//! For example `http-poll:https://api.example.com/orders?period=10s&split=/orders&cursor=/next&cursor_parameter=after`.
//!
//! **What is new.** A server that names a version of its response (`ETag`, `Last-Modified`) is asked for a
//! newer one; the response 304 makes no exchange, and neither does one without content. With `cursor`, a value of each
//! response is sent with the next poll. Pages that are there already are read one after another; between two polls of the
//! last one there is the `period`. A response without a cursor, or with an empty one or `null`, is the last page: it is asked
//! for again and worked on once it is another one, or with `cursor_end=restart` all begins anew. With
//! `dedupe`, items whose id was seen are left out. Without any of them, every response is new. Cursors and ids are
//! texts, or numbers of any length, as they are written.
//!
//! **Exchanges.** With `split`, one exchange for each item, in order, with the item as a JSON body and the
//! header `http_poll.index`; otherwise one with the whole response, as [`http:`](crate::http) receives it. An
//! item's id is in the header `http_poll.id`. Beside these there are the headers of the response and
//! `http.response_code`.
//!
//! **The position** (cursor, version, ids) moves when the exchange is done: processed, or taken by the dead
//! letter endpoint. An exchange that fails ends the batch, and after a pause everything that is not done is
//! asked for again. Ids are stored after each item, cursor and version after the last item of a response.
//! Below `master:` the position travels with the lock, so the next leader goes on there. That is *at least
//! once*: after a crash the exchange that was under way comes again, and without `dedupe` the others of its
//! response too. A receiver that must not act twice can tell by `http_poll.id`. A position has 16 KiB at most:
//! a response with more ids than fit (several hundred) is refused before any of its items is worked on.
//!
//! **Failures.** After a status that is no success, a broken or late response, or a failed exchange, the pause
//! doubles from a second up to `max_backoff`, with jitter, and is not shorter than `Retry-After` asks for.
//!
//! Secrets are written as `env:NAME` or `file:/path`. Redirects are not followed.

mod batch;
mod position;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use reqwest::{Method, Request, StatusCode, Url};
use router_core::backoff::Backoff;
use router_core::component::{BuildContext, Component, Consumer, Endpoint, RouteHandle};
use router_core::error::{BoxError, Chain, ConfigError, ConfigErrors};
use router_core::exchange::Body;
use router_core::options::{ComponentDescription, OptionKind, Options, PathKind, option, path};
use router_core::spool::Spool;
use router_core::uri::EndpointUri;
use router_core::value::ValueMap;
use tracing::warn;

use crate::http_client::credentials::{Authentication, authentication, refuse_credentials};
use crate::http_client::{ClientSettings, HttpClients, Refusal, USER_AGENT, content, headers, spool_body};
use crate::missed_ticks::{self, STATE_OPTION};
use batch::Batch;
use position::{Position, Version};

/// The component.
#[derive(Clone, Default, Debug)]
pub struct HttpPollComponent {
    clients: HttpClients,
}

impl HttpPollComponent {
    /// The component, which shares the connections of `clients`.
    #[must_use]
    pub fn new(clients: HttpClients) -> Self {
        Self { clients }
    }
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "http-poll",
    summary: "polls an HTTP endpoint, and makes one exchange of each new item",
    syntax: "http-poll:https://host/path",
    path: path("url", PathKind::Url),
    consumes: true,
    produces: false,
    options: &[
        option("period", OptionKind::Duration, Some("1m"), "the time from the end of one poll to the next"),
        option(
            "timeout",
            OptionKind::Duration,
            Some("30s"),
            "how long a poll may take, from connecting to the last byte of the response",
        ),
        option("connect_timeout", OptionKind::Duration, Some("10s"), "how long connecting may take"),
        option("query", OptionKind::Query, None, "the query of the URL, with `&` written as `%26`"),
        option(
            "cursor",
            OptionKind::Text,
            None,
            "a JSON pointer to the value in the response that the next poll sends back",
        ),
        option(
            "cursor_parameter",
            OptionKind::Text,
            None,
            "the parameter of the query in which the cursor is sent",
        ),
        option("cursor_header", OptionKind::Text, None, "the header in which the cursor is sent"),
        option("cursor_start", OptionKind::Text, None, "the cursor of the first poll"),
        option(
            "cursor_end",
            OptionKind::Choice(&[STAY, RESTART]),
            Some(STAY),
            "what comes after the last page, which has no cursor: `stay`: this page, once it has changed; `restart`: the first one",
        ),
        option(
            "max_pages_per_poll",
            OptionKind::Integer,
            Some("100"),
            "how many pages with items are read without a pause, while each has another cursor",
        ),
        option(
            "split",
            OptionKind::Text,
            None,
            "a JSON pointer to an array in the response, `/` for the response itself: one exchange for each item",
        ),
        option(
            "dedupe",
            OptionKind::Text,
            None,
            "a JSON pointer to the id in an item (or in the response, without `split`): what was done is not done again",
        ),
        option(
            "dedupe_max",
            OptionKind::Integer,
            Some("200"),
            "how many ids are remembered beside those that the server still shows",
        ),
        option(
            "max_backoff",
            OptionKind::Duration,
            Some("5m"),
            "the longest pause after failures, unless the server asks for a longer one",
        ),
        option(
            "max_response_size",
            OptionKind::Integer,
            Some("10485760"),
            "how many bytes the body of a response may have",
        ),
        option("auth_username", OptionKind::Text, None, "the name for basic authentication"),
        option("auth_password", OptionKind::Secret, None, "the password for basic authentication"),
        option("auth_bearer_token", OptionKind::Secret, None, "the token for bearer authentication"),
        STATE_OPTION,
    ],
};

impl Component for HttpPollComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(
        &self,
        uri: &EndpointUri,
        context: &BuildContext<'_>,
    ) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = DESCRIPTION.read_into(uri, &mut errors);
        let url = refuse_credentials(uri).and_then(|()| url(uri, options.text("query").as_deref()));
        let url = errors.collect(url);
        let authentication = errors.collect(authentication(uri, &options));
        let cursor = errors.collect(cursor(uri, &options));
        let split = errors.collect(pointer(uri, &options, "split"));
        let dedupe = errors.collect(pointer(uri, &options, "dedupe"));
        errors.into_result()?;
        let (Some(url), Some(authentication), Some(cursor), Some(split), Some(dedupe)) =
            (url, authentication, cursor, split, dedupe)
        else {
            unreachable!("what is missing is an error");
        };
        if cursor.is_some() && dedupe.is_none() {
            let message =
                "without `dedupe`, all items of a response are worked on again when one of them fails";
            let warning = uri.error_at_option("cursor", message);
            context.warn(warning.help("set `dedupe` to a JSON pointer to the id in an item, such as `/id`"));
        }
        let spool = context.spool.clone();
        context.when_taken(move || spool.expect_use());
        let dedupe_max = options.integer("dedupe_max").and_then(|count| count.try_into().ok());
        Ok(Box::new(HttpPoll(Arc::new(Poller {
            client: ClientSettings {
                connect_timeout: options.duration("connect_timeout"),
                follow_redirects: false,
                user_agent: USER_AGENT.into(),
                without_ca_roots: url.scheme() == "http",
            },
            url,
            authentication,
            cursor,
            // `/` is the whole response here; in a JSON pointer that would be the empty text.
            split: split.map(|pointer| if pointer == "/" { String::new() } else { pointer }),
            dedupe,
            dedupe_max: dedupe_max.unwrap_or(usize::MAX),
            max_pages_per_poll: options.integer("max_pages_per_poll").unwrap_or(1),
            period: options.duration("period"),
            timeout: options.duration("timeout"),
            max_backoff: options.duration("max_backoff"),
            max_response_size: options.integer("max_response_size").unwrap_or(u64::MAX),
            state: options.text("state").map(PathBuf::from),
            clients: self.clients.clone(),
            spool: context.spool.clone(),
        }))))
    }
}

fn url(uri: &EndpointUri, query: Option<&str>) -> Result<Url, ConfigError> {
    let parsed = Url::parse(uri.path()).ok();
    let parsed = parsed
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.fragment().is_none());
    let mut url = parsed.ok_or_else(|| {
        let error = uri.error_in_path(
            0..uri.path().len(),
            "an http-poll endpoint needs a URL that starts with `http://` or `https://`",
        );
        error.help("for example `http-poll:https://localhost:8080/orders?period=10s`")
    })?;
    url.set_query(query);
    Ok(url)
}

/// An option that is a JSON pointer (RFC 6901).
fn pointer(uri: &EndpointUri, options: &Options, name: &str) -> Result<Option<String>, ConfigError> {
    match options.text(name) {
        Some(pointer) if !pointer.starts_with('/') => {
            let message = format!("option `{name}` takes a JSON pointer, which starts with `/`");
            Err(uri.error_at_option(name, message).help("for example `/items`, or `/items/0/id`"))
        }
        pointer => Ok(pointer),
    }
}

/// Where the cursor comes from, and where it goes.
struct Cursor {
    pointer: String,
    start: Option<String>,
    place: CursorPlace,
    /// Whether all pages are read again after the last one.
    restarts: bool,
}

/// A cursor as the value of a header; `None`: it cannot be one. White space at its ends is no part of a header, so the
/// server would get another cursor.
fn header_value(cursor: &str) -> Option<HeaderValue> {
    let is_whole = cursor.trim_matches([' ', '\t']) == cursor;
    is_whole.then(|| HeaderValue::try_from(cursor).ok())?
}

enum CursorPlace {
    Parameter(String),
    Header(HeaderName),
}

fn cursor(uri: &EndpointUri, options: &Options) -> Result<Option<Cursor>, ConfigError> {
    // What is written and has no value is an error that was reported: what it goes with is not missing as well.
    let names = ["cursor", "cursor_parameter", "cursor_header", "cursor_start", "cursor_end"];
    if names.iter().any(|name| uri.has_option(name) && options.text(name).is_none()) {
        return Ok(None);
    }
    let place = match (options.text("cursor_parameter"), options.text("cursor_header")) {
        (Some(parameter), None) => Some(CursorPlace::Parameter(parameter)),
        (None, Some(header)) => {
            let header = HeaderName::try_from(header);
            Some(CursorPlace::Header(header.map_err(|_| {
                uri.error_at_option("cursor_header", "option `cursor_header` is no header name")
            })?))
        }
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err(uri.error_at_option(
                "cursor_header",
                "options `cursor_parameter` and `cursor_header` exclude each other",
            ));
        }
    };
    match (pointer(uri, options, "cursor")?, place) {
        (Some(pointer), Some(place)) => {
            let start = options.text("cursor_start");
            if let (CursorPlace::Header(name), Some(start)) = (&place, &start) {
                header_value(start).ok_or_else(|| {
                    let message = format!("option `cursor_start` is no value of the header `{name}`");
                    uri.error_at_option("cursor_start", message)
                })?;
            }
            let restarts = options.text("cursor_end").as_deref() == Some(RESTART);
            Ok(Some(Cursor { pointer, start, place, restarts }))
        }
        (None, None) if !uri.has_option("cursor_start") && !uri.has_option("cursor_end") => Ok(None),
        (pointer, place) => {
            let given = match (pointer, place) {
                (Some(_), _) => "cursor",
                (_, Some(CursorPlace::Parameter(_))) => "cursor_parameter",
                (_, Some(CursorPlace::Header(_))) => "cursor_header",
                (None, None) if uri.has_option("cursor_start") => "cursor_start",
                (None, None) => "cursor_end",
            };
            let message = "option `cursor` goes with `cursor_parameter` or `cursor_header`";
            Err(uri.error_at_option(given, message))
        }
    }
}

/// The values of `cursor_end`.
const STAY: &str = "stay";
const RESTART: &str = "restart";

struct HttpPoll(Arc<Poller>);

impl Endpoint for HttpPoll {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(Self(Arc::clone(&self.0))))
    }

    fn keeps_state(&self, below_lock: bool) -> bool {
        below_lock || self.0.state.is_some()
    }
}

struct Poller {
    url: Url,
    authentication: Authentication,
    cursor: Option<Cursor>,
    split: Option<String>,
    dedupe: Option<String>,
    dedupe_max: usize,
    max_pages_per_poll: u64,
    period: Duration,
    timeout: Duration,
    max_backoff: Duration,
    max_response_size: u64,
    state: Option<PathBuf>,
    clients: HttpClients,
    client: ClientSettings,
    /// Where responses are kept that are too large for the memory.
    spool: Spool,
}

/// A response that is new.
struct NewResponse {
    headers: HeaderMap,
    /// What exchanges have of these.
    received: ValueMap,
    body: Body,
}

/// Why a poll brought nothing.
struct Failure {
    why: BoxError,
    retry_after: Option<Duration>,
}

impl<E: Into<BoxError>> From<E> for Failure {
    fn from(why: E) -> Self {
        Self { why: why.into(), retry_after: None }
    }
}

/// Longer ones are refused by the HTTP client.
const MAX_URL_BYTES: usize = 65_533;

/// The first pause after a failure.
const SHORTEST_BACKOFF: Duration = Duration::from_secs(1);

#[async_trait]
impl Consumer for HttpPoll {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        let (pipeline, stop) = (&route.pipeline, &route.stop);
        let poller = &*self.0;
        let needed = poller.cursor.is_some() || poller.dedupe.is_some();
        let state = pipeline.state(poller.state.as_deref());
        let (state, stored) = missed_ticks::load_if_kept(state, needed).await?;
        // A server that does not respond is no failure of this consumer: it polls again.
        route.ready();
        let mut batch = Batch { poller, pipeline, state, position: Position::read(&stored) };
        let mut backoff = Backoff::new(SHORTEST_BACKOFF, poller.max_backoff);
        // How many were read without a pause.
        let mut pages = 0;
        loop {
            // A poll that is dropped has changed nothing: the position moves below.
            let response = tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                response = poller.poll(&batch.position) => response,
            };
            let done = match response {
                Ok(Some(response)) => batch.process(response, stop).await?,
                Ok(None) => Ok(false),
                Err(failure) => Err(failure),
            };
            let pause = match done {
                Ok(more) => {
                    backoff.reset();
                    pages = if more { pages + 1 } else { 0 };
                    if pages > 0 && pages < poller.max_pages_per_poll {
                        continue;
                    }
                    pages = 0;
                    poller.period
                }
                Err(Failure { why, retry_after }) => {
                    let pause = backoff.next(retry_after);
                    let (route, url) = (pipeline.route_id(), poller.shown_url());
                    warn!(route, "route `{route}` polls `{url}` again in {pause:.1?}: {}", Chain(&*why));
                    pause
                }
            };
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

impl Poller {
    /// The URL without its query, in which there may be a secret or anything else.
    fn shown_url(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.into()
    }

    /// Asks once; `None`: there is nothing new.
    async fn poll(&self, position: &Position) -> Result<Option<NewResponse>, Failure> {
        let request = self.request(position)?;
        let client = self.clients.get(&self.client)?;
        let conversation = async {
            let mut response = client.execute(request).await.map_err(reqwest::Error::without_url)?;
            let status = response.status();
            if matches!(status, StatusCode::NOT_MODIFIED | StatusCode::NO_CONTENT) {
                return Ok(None);
            }
            if !status.is_success() {
                let refused = Refusal::read(response).await.failure;
                return Err(Failure { retry_after: refused.retry_after, why: refused.into() });
            }
            let body = spool_body(&mut response, self.max_response_size, self.spool.writer(None)).await?;
            let headers = std::mem::take(response.headers_mut());
            let mut received = ValueMap::default();
            headers::copy_from_response(&headers, &mut received);
            received.set("http.response_code", i64::from(status.as_u16()));
            let body = headers::body(body, &headers, &mut received);
            // No content is no item, whatever the status says.
            Ok((!body.is_empty()).then_some(NewResponse { received, body, headers }))
        };
        // Around everything: a timeout between reads would let a response drip for ever.
        match tokio::time::timeout(self.timeout, conversation).await {
            Ok(result) => result,
            Err(_) => Err(format!("there was no complete response within {:?}", self.timeout).into()),
        }
    }

    /// Whether the poll after `position` can be sent. Asked before the position is stored: otherwise every later poll
    /// would fail, also those of the next leader.
    fn check_sendable(&self, position: &Position) -> Result<(), BoxError> {
        let bytes = self.request(position)?.url().as_str().len();
        if bytes > MAX_URL_BYTES {
            return Err(format!("with the cursor of the response, the URL would have {bytes} bytes").into());
        }
        Ok(())
    }

    /// The poll that comes after `position`.
    ///
    /// # Errors
    /// When something in the position cannot be sent.
    fn request(&self, position: &Position) -> Result<Request, BoxError> {
        let mut request = Request::new(Method::GET, self.url.clone());
        if let Some(cursor) = &self.cursor
            && let Some(value) = position.cursor.as_ref().or(cursor.start.as_ref())
        {
            match &cursor.place {
                CursorPlace::Parameter(name) => {
                    request.url_mut().query_pairs_mut().append_pair(name, value);
                }
                CursorPlace::Header(name) => {
                    let sent = header_value(value).ok_or_else(|| {
                        format!(
                            "the cursor {value:?} cannot be sent in the header `{name}`; with `cursor_parameter`, any text can"
                        )
                    })?;
                    request.headers_mut().insert(name, sent);
                }
            }
        }
        let Version { etag, last_modified } = &position.version;
        for (name, version) in [(IF_NONE_MATCH, etag), (IF_MODIFIED_SINCE, last_modified)] {
            if let Some(version) = version {
                let version = HeaderValue::try_from(version)
                    .map_err(|_| format!("the version {version:?} cannot be sent in the header `{name}`"))?;
                request.headers_mut().insert(name, version);
            }
        }
        content::accept(request.headers_mut());
        self.authentication.apply(request.headers_mut())?;
        Ok(request)
    }
}
