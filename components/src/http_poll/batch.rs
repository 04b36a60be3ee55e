//! [`Batch`]: works through responses, item by item, and moves the position.

use reqwest::header::{ETAG, HeaderName, LAST_MODIFIED};
use router_core::error::BoxError;
use router_core::exchange::{Body, Exchange};
use router_core::pipeline::Pipeline;
use router_core::state::{RouteState, StateError};
use router_core::stop::Stop;
use router_core::value::{Json, Value};

use super::position::{Position, Version};
use super::{Failure, NewResponse, Poller};
use crate::http_client::headers;

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
    /// Works through a response, and moves the position. The outer error ends the consumer, the inner one
    /// only this batch.
    pub(super) async fn process(
        &mut self,
        mut response: NewResponse,
        stop: &Stop,
    ) -> Result<Result<(), Failure>, BoxError> {
        let poller = self.poller;
        let json = poller.parse(&mut response.body).await;
        let (end, items) = match json.and_then(|json| {
            let items = poller.items(&response, json.as_ref())?;
            Ok((self.end_of(&response, json.as_ref())?, items))
        }) {
            Ok(read) => read,
            Err(error) => return Ok(Err(error.into())),
        };
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
                return Ok(Ok(()));
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
        self.position.forget(&present, poller.dedupe_max);
        if self.position != before {
            self.store().await?;
        }
        Ok(Ok(()))
    }

    /// Where the position is, apart from ids, when everything in the response is done.
    fn end_of(&self, response: &NewResponse, json: Option<&Json>) -> Result<Position, BoxError> {
        let cursor = self.poller.cursor.as_ref().zip(json);
        let next = cursor.and_then(|(cursor, json)| json.pointer(&cursor.pointer));
        // An empty one says that there is no more, and would begin anew.
        let next = next.and_then(scalar).filter(|next| !next.is_empty());
        let moved = next.is_some() && next != self.position.cursor;
        let text = |name: &HeaderName| {
            let text = response.headers.get(name)?.to_str().ok()?;
            (text.len() <= MAX_VERSION_BYTES).then(|| text.to_owned())
        };
        let end = Position {
            cursor: if moved { next } else { self.position.cursor.clone() },
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
            let received = &mut exchange.message.headers;
            headers::copy_from_response(&response.headers, received);
            received.set("http.response_code", i64::from(response.status.as_u16()));
            exchange.message.body = body;
            exchange
        };
        let (Some(pointer), Some(json)) = (&self.split, json) else {
            let id = json.map(|json| self.id(json)).transpose()?.flatten();
            return Ok(vec![Item { exchange: exchange(response.body.clone()), id }]);
        };
        let array = json.pointer(pointer).and_then(Json::as_list);
        let array = array.ok_or_else(|| format!("there is no array at `{pointer}` in the response"))?;
        let item = |(index, json): (usize, &Json)| {
            let mut exchange = exchange(json.clone().into());
            exchange.message.headers.remove("content-type");
            exchange.message.headers.set("http_poll.index", index as u64);
            Ok(Item { exchange, id: self.id(json)? })
        };
        array.iter().enumerate().map(item).collect()
    }

    /// What the response says, where it is read.
    async fn parse(&self, body: &mut Body) -> Result<Option<Json>, BoxError> {
        if self.cursor.is_none() && self.split.is_none() && self.dedupe.is_none() {
            return Ok(None);
        }
        body.load().await?;
        if self.spool.settings().unique_keys {
            body.refuse_duplicate_keys();
        }
        let body = body.clone();
        let is_large = body.len() > Json::LARGE_TEXT;
        // A response without content is no JSON, though a body without content is `null`.
        let parse = move || if body.is_empty() { Json::parse("") } else { body.to_json() };
        let parsed = if is_large { tokio::task::spawn_blocking(parse).await? } else { parse() };
        Ok(Some(parsed?))
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

/// Text or a number, as text: its digits as the server has written them.
fn scalar(json: &Json) -> Option<String> {
    match json {
        Json::Text(text) => Some(text.to_string()),
        Json::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
