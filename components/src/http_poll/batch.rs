//! [`Batch`]: works through responses, item by item, and moves the position.

use reqwest::header::{ETAG, HeaderName, LAST_MODIFIED};
use router_core::error::BoxError;
use router_core::exchange::Exchange;
use router_core::pipeline::Pipeline;
use router_core::state::{RouteState, StateError};
use router_core::stop::Stop;
use router_core::value::{Json, Value};

use super::position::{Position, Version, fingerprint};
use super::{Failure, NewResponse, Poller};

/// Longer names of versions are not sent back: they would take the room of ids.
const MAX_VERSION_BYTES: usize = 1_024;

/// One exchange of a response.
struct Item {
    exchange: Exchange,
    id: Option<String>,
}

/// What works through responses.
pub(super) struct Batch<'a> {
    pub(super) poller: &'a Poller,
    pub(super) pipeline: &'a Pipeline,
    pub(super) state: Option<RouteState>,
    pub(super) position: Position,
}

impl Batch<'_> {
    /// Works through a response, and moves the position; says whether another page may be there already. The outer error
    /// ends the consumer, the inner one only this batch.
    pub(super) async fn process(
        &mut self,
        mut response: NewResponse,
        stop: &Stop,
    ) -> Result<Result<bool, Failure>, BoxError> {
        let poller = self.poller;
        let json = poller.parse(&mut response).await;
        let (end, items) = match json.and_then(|json| {
            let items = poller.items(&response, json.as_ref())?;
            Ok((self.end_of(&response, json.as_ref())?, items))
        }) {
            Ok(read) => read,
            Err(error) => return Ok(Err(error.into())),
        };
        let is_known_page = end.last_page.is_some() && end.last_page == self.position.last_page;
        let items = if is_known_page { Vec::new() } else { items };
        let may_have_more = !items.is_empty() && poller.split.is_some() && end.cursor != self.position.cursor;
        let present = items.iter().filter_map(|item| item.id.clone()).collect::<Vec<_>>();
        // Both: the one until all is done, and the one then.
        if let Err(error) = self.position.check_room(&present).and_then(|()| end.check_room(&present)) {
            return Ok(Err(error.into()));
        }
        for Item { mut exchange, id } in items {
            if id.as_ref().is_some_and(|id| self.position.knows(id)) {
                continue;
            }
            if stop.is_requested() && id.is_some() {
                // The next poll brings the rest. Without ids, that would be the whole response again:
                // then this one is finished.
                return Ok(Ok(false));
            }
            if let Some(id) = &id {
                exchange.message.headers.set("http_poll.id", Value::from(&**id));
            }
            match self.pipeline.process(&mut exchange).await {
                Ok(_) => {}
                Err(error) if error.is_leadership_lost() => return Err(error.into()),
                Err(_) => return Ok(Err("an exchange failed, and is tried again".into())),
            }
            if let Some(id) = &id {
                self.position.note(id);
                self.position.forget(&present, poller.dedupe_max);
                self.store().await?;
            }
        }
        let before = self.position.clone();
        self.position.cursor = end.cursor;
        self.position.version = end.version;
        self.position.last_page = end.last_page;
        self.position.forget(&present, poller.dedupe_max);
        if self.position != before {
            self.store().await?;
        }
        Ok(Ok(may_have_more))
    }

    /// Where the position is, apart from ids, when everything in the response is done.
    fn end_of(&self, response: &NewResponse, json: Option<&Json>) -> Result<Position, BoxError> {
        let cursor = self.poller.cursor.as_ref().zip(json);
        let next = cursor.and_then(|(cursor, json)| json.pointer(&cursor.pointer));
        let next = next.and_then(cursor_text).transpose()?;
        let is_last = cursor.is_some() && next.is_none();
        let restarts = is_last && self.poller.cursor.as_ref().is_some_and(|cursor| cursor.restarts);
        let moved = restarts || next.is_some() && next != self.position.cursor;
        let text = |name: &HeaderName| {
            let text = response.headers.get(name)?.to_str().ok()?;
            (text.len() <= MAX_VERSION_BYTES).then(|| text.to_owned())
        };
        let end = Position {
            cursor: if moved { next } else { self.position.cursor.clone() },
            last_page: match is_last && !restarts {
                true => Some(fingerprint(&response.body.to_bytes()?)),
                false => None,
            },
            // With another cursor, the next response is another thing: this version would hide it.
            version: match moved {
                true => Version::default(),
                false => Version { etag: text(&ETAG), last_modified: text(&LAST_MODIFIED) },
            },
            done: Vec::new(),
        };
        self.poller.check_sendable(&end)?;
        Ok(end)
    }

    async fn store(&self) -> Result<(), StateError> {
        match &self.state {
            Some(state) => state.store(&self.position.to_json()).await,
            None => Ok(()),
        }
    }
}

impl Poller {
    /// What is in a response, as exchanges and their ids, in order.
    fn items(&self, response: &NewResponse, json: Option<&Json>) -> Result<Vec<Item>, BoxError> {
        let exchange = |body| {
            let mut exchange = Exchange::new(());
            exchange.message.headers = response.received.clone();
            exchange.message.body = body;
            exchange
        };
        let (Some(pointer), Some(json)) = (&self.split, json) else {
            let id = json.map(|json| self.id(json)).transpose()?.flatten();
            return Ok(vec![Item { exchange: exchange(response.body.clone()), id }]);
        };
        let array = match json.pointer(pointer) {
            // What some servers write for an empty one.
            Some(Json::Null) => &[],
            found => found.and_then(Json::as_list).ok_or_else(|| {
                let shown = if pointer.is_empty() { "/" } else { pointer };
                format!("there is no array at `{shown}` in the response{}", response.labelled())
            })?,
        };
        let item = |(index, json): (usize, &Json)| {
            let mut exchange = exchange(json.clone().into());
            exchange.message.headers.remove("content-type");
            exchange.message.headers.set("http_poll.index", index as u64);
            Ok(Item { exchange, id: self.id(json)? })
        };
        array.iter().enumerate().map(item).collect()
    }

    /// What the response says, where it is read.
    async fn parse(&self, response: &mut NewResponse) -> Result<Option<Json>, BoxError> {
        if self.cursor.is_none() && self.split.is_none() && self.dedupe.is_none() {
            return Ok(None);
        }
        let label = response.labelled();
        let body = &mut response.body;
        body.load().await?;
        if self.spool.settings().unique_keys {
            body.refuse_duplicate_keys();
        }
        let body = body.clone();
        let is_large = body.len() > Json::LARGE_TEXT;
        let parse = move || body.to_json();
        let parsed = if is_large { tokio::task::spawn_blocking(parse).await? } else { parse() };
        Ok(Some(parsed.map_err(|error| format!("the response{label} is no JSON: {error}"))?))
    }

    /// The id of an item, where there are ids.
    fn id(&self, item: &Json) -> Result<Option<String>, BoxError> {
        let Some(pointer) = &self.dedupe else { return Ok(None) };
        let id = item.pointer(pointer).and_then(scalar);
        Ok(Some(id.ok_or_else(|| {
            format!("there is no text or number at `{pointer}` in an item of the response")
        })?))
    }
}

/// What a response says about the next one; `None`: there is none. An empty text says so too, and would begin anew.
fn cursor_text(json: &Json) -> Option<Result<String, BoxError>> {
    match scalar(json) {
        Some(text) if text.is_empty() => None,
        Some(text) => Some(Ok(text)),
        None if json.is_null() => None,
        None => Some(Err("the cursor in the response is neither a text nor a number nor null".into())),
    }
}

impl NewResponse {
    /// What the server calls it, for errors.
    fn labelled(&self) -> String {
        let label = self.received.get("content-type");
        label.map_or_else(|| " (without a content type)".to_owned(), |label| format!(" ({label})"))
    }
}

/// Text or a number, as text: its digits as the server has written them.
fn scalar(json: &Json) -> Option<String> {
    match json {
        Json::Text(text) => Some(text.to_string()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
