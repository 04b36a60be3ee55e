//! [`Poller`]: asks for updates, one batch after the other, and acknowledges what is done.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use router_core::backoff::Backoff;
use router_core::component::{Consumer, RouteHandle};
use router_core::error::BoxError;
use router_core::exchange::Exchange;
use router_core::failure::ErrorKind;
use router_core::metrics::Counter;
use router_core::pipeline::Pipeline;
use router_core::state::{RouteState, StateError};
use router_core::stop::Stop;
use router_core::value::{Json, Object};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::bot::{Bot, CallError};
use super::position::Position;
use crate::metrics::POLL_CONFLICTS;

/// How much longer than the server we wait for the response to a poll.
const GRACE: Duration = Duration::from_secs(10);
/// How long the last acknowledgement may take: the server can make it three seconds.
const LAST_WORD: Duration = Duration::from_secs(5);
/// A poll that waits for so long has reached the server.
const SENT: Duration = Duration::from_millis(250);
/// The pause when a server has nothing to tell, and does not wait for something as it was asked to.
const IDLE: Duration = Duration::from_secs(1);
/// How often a conflict is taken for one that passes.
const QUICK_TRIES: u32 = 3;

/// The options of the consumer.
#[derive(Clone)]
pub(super) struct Poller {
    pub(super) bot: Arc<Bot>,
    pub(super) timeout: Duration,
    pub(super) limit: u64,
    pub(super) allowed: Option<Vec<String>>,
    pub(super) drop_pending: bool,
    pub(super) dedupe: bool,
    pub(super) delete_webhook: bool,
    pub(super) state: Option<PathBuf>,
}

#[async_trait]
impl Consumer for Poller {
    async fn run(self: Box<Self>, route: RouteHandle) -> Result<(), BoxError> {
        let mut session = Session::start(&self, &route).await?;
        let result = session.poll_until(&route.stop).await;
        // Also after a failure: what is done is done.
        session.say_last_word().await;
        result
    }
}

/// One run of a poller.
struct Session<'a> {
    poller: &'a Poller,
    route: &'a RouteHandle,
    pipeline: &'a Pipeline,
    bot_id: String,
    /// `None`: nothing is to be stored.
    state: Option<RouteState>,
    position: Position,
    /// What is asked for next; `None`: whatever there is.
    offset: Option<i64>,
    /// The server knows that everything below `offset` is done.
    acknowledged: bool,
    pauses: Backoff,
    conflicts: Backoff,
    conflict_count: Counter,
}

/// What came of a poll.
enum Polled {
    Response(Result<Vec<Json>, CallError>),
    /// A stop was asked for; whether the poll has reached the server.
    Dropped {
        reached: bool,
    },
}

impl<'a> Session<'a> {
    async fn start(poller: &'a Poller, route: &'a RouteHandle) -> Result<Self, BoxError> {
        let pipeline = &route.pipeline;
        let bot_id = poller.bot.id()?;
        let stores = poller.dedupe || poller.drop_pending;
        let state = stores.then(|| pipeline.state(poller.state.as_deref()));
        let stored = match &state {
            Some(state) => state.load().await?.unwrap_or_default(),
            None => serde_json::Value::Null,
        };
        let position = Position::read(&stored, &bot_id, wall_clock());
        Ok(Self {
            poller,
            route,
            pipeline,
            bot_id,
            state,
            position,
            offset: position.last.filter(|_| poller.dedupe).map(|last| last.saturating_add(1)),
            acknowledged: true,
            pauses: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            conflicts: Backoff::new(Duration::from_secs(5), Duration::from_secs(30)),
            conflict_count: POLL_CONFLICTS.counter(&[pipeline.route_id()]),
        })
    }

    async fn poll_until(&mut self, stop: &Stop) -> Result<(), BoxError> {
        if self.poller.drop_pending && !self.position.started {
            self.drop_pending(stop).await?;
        }
        while !stop.is_requested() {
            let asked = Instant::now();
            let response = match self.poll(stop).await {
                Polled::Response(response) => response,
                Polled::Dropped { reached } => {
                    self.acknowledged |= reached;
                    break;
                }
            };
            let pause = match response {
                Ok(updates) => {
                    self.acknowledged = true;
                    if self.conflicts.failures() > 0 {
                        self.conflicts.reset();
                        self.pipeline.clear_status_message();
                    }
                    if updates.is_empty() {
                        self.pauses.reset();
                        // Not every server of the Bot API is Telegram's.
                        (asked.elapsed() < IDLE).then_some(IDLE)
                    } else {
                        self.process(updates, stop).await?
                    }
                }
                Err(error) => Some(self.pause_after(error).await?),
            };
            // Whatever it was, it was nothing that ends this.
            self.route.ready();
            match pause {
                None => self.pauses.reset(),
                Some(pause) => tokio::select! {
                    biased;
                    () = stop.requested() => {}
                    () = tokio::time::sleep(pause) => {}
                },
            }
        }
        Ok(())
    }

    /// Asks once, unless asked to stop meanwhile.
    async fn poll(&self, stop: &Stop) -> Polled {
        let started = Instant::now();
        let mut polling =
            std::pin::pin!(self.get_updates(self.offset, self.poller.limit, self.poller.timeout));
        let reached = tokio::select! {
            biased;
            () = stop.requested() => {
                // What it would bring is not acknowledged by it: it is safe to drop. It acknowledges what was
                // before, though, if it reaches the server. A moment for that saves the last word, which the
                // server would make three seconds long after a poll for the same.
                let moment = if self.acknowledged { Duration::ZERO } else { SENT };
                let rest = moment.saturating_sub(started.elapsed());
                tokio::time::timeout(rest, &mut polling).await.map_or(true, |response| response.is_ok())
            }
            response = &mut polling => return Polled::Response(response),
        };
        Polled::Dropped { reached }
    }

    async fn get_updates(
        &self,
        offset: Option<i64>,
        limit: u64,
        timeout: Duration,
    ) -> Result<Vec<Json>, CallError> {
        let mut parameters = Object::from_iter([("limit", limit), ("timeout", timeout.as_secs())]);
        if let Some(offset) = offset {
            parameters.insert("offset", offset);
        }
        if let Some(kinds) = &self.poller.allowed {
            parameters.insert("allowed_updates", kinds.clone());
        }
        match self.poller.bot.call("getUpdates", &parameters.into(), timeout + GRACE).await? {
            Json::List(updates) if updates.iter().all(|update| update["update_id"].as_i64().is_some()) => {
                // Asking for the id after it is what acknowledges an update, and after the last number there is none:
                // it would come again at once, without end.
                if updates.iter().any(|update| update["update_id"].as_i64() == Some(i64::MAX)) {
                    let why = format!(
                        "the response to a poll has the update id {}, which cannot be acknowledged",
                        i64::MAX
                    );
                    return Err(CallError::Failed(ErrorKind::Data, why));
                }
                Ok(updates.to_vec())
            }
            _ => {
                let why = "the response to a poll is no list of updates".into();
                Err(CallError::Failed(ErrorKind::Data, why))
            }
        }
    }

    /// Works through a batch, in order; returns the pause after an exchange that failed.
    async fn process(&mut self, updates: Vec<Json>, stop: &Stop) -> Result<Option<Duration>, BoxError> {
        for update in updates {
            // The rest is not acknowledged, and for whoever polls next.
            if stop.is_requested() {
                return Ok(None);
            }
            let id = update["update_id"].as_i64().ok_or("an update has no id")?;
            if self.offset.is_some_and(|offset| id < offset) {
                let route = self.pipeline.route_id();
                info!(route, "route `{route}`: the ids of Telegram's updates start again, at {id}");
            }
            match self.pipeline.process(&mut self.exchange(id, update)).await {
                Ok(_) => {}
                Err(error) if error.is_leadership_lost() => return Err(error.into()),
                Err(_) => {
                    let (route, pause) = (self.pipeline.route_id(), self.pauses.next(None));
                    warn!(
                        route,
                        "route `{route}` tries update {id} again in {pause:.1?}, before all later ones"
                    );
                    return Ok(Some(pause));
                }
            }
            // Not the highest one so far: after ids have started again, that would hide them all.
            self.offset = Some(id.saturating_add(1));
            self.acknowledged = false;
            self.pauses.reset();
            if self.poller.dedupe {
                self.position.last = Some(id);
                self.store().await?;
            }
        }
        Ok(None)
    }

    async fn store(&self) -> Result<(), StateError> {
        match &self.state {
            Some(state) => state.store(&self.position.to_json(&self.bot_id, wall_clock())).await,
            None => Ok(()),
        }
    }

    fn exchange(&self, id: i64, update: Json) -> Exchange {
        let kinds = update.as_object().into_iter().flat_map(Object::iter).map(|(name, _)| name);
        let kind = kinds.into_iter().find(|name| *name != "update_id").unwrap_or_default();
        let content = &update[kind];
        let chats = ["/chat/id", "/message/chat/id", "/from/id"];
        let chat = chats.iter().find_map(|pointer| content.pointer(pointer)?.as_i64());
        let text = ["text", "caption", "data", "query"].iter().find_map(|name| content[*name].as_str());
        let mut exchange = Exchange::new(());
        let headers = &mut exchange.message.headers;
        headers.set("telegram.update_id", id);
        headers.set("telegram.bot_id", &*self.bot_id);
        if let Some(chat) = chat {
            headers.set("telegram.chat_id", chat);
        }
        if let Some(text) = text {
            headers.set("telegram.text", text);
        }
        headers.set("telegram.type", kind);
        exchange.message.body = update.into();
        exchange
    }

    /// How long to wait after a poll that failed; or why there is no point in waiting.
    async fn pause_after(&mut self, error: CallError) -> Result<Duration, BoxError> {
        let (route, bot) = (self.pipeline.route_id(), &self.bot_id);
        if let CallError::Refused { code, description, .. } = &error {
            match code {
                401 | 404 => {
                    return Err(format!("Telegram does not know the token of bot {bot}: {error}").into());
                }
                409 if description.to_ascii_lowercase().contains("webhook") => {
                    return self.end_webhook(error).await;
                }
                409 => {
                    self.conflict_count.increment(1);
                    let tries = self.conflicts.failures();
                    let slow = self.conflicts.next(None);
                    if tries < QUICK_TRIES {
                        debug!(route, "another process polled for bot {bot}, trying again");
                        return Ok(slow / 10);
                    }
                    let note = format!(
                        "another process polls for bot {bot}, and takes its updates: find it, or rotate the token"
                    );
                    warn!(route, "{note}. Trying again in {slow:.1?}");
                    self.pipeline.set_status_message(note);
                    return Ok(slow);
                }
                _ => {}
            }
        }
        let pause = self.pauses.next(error.retry_after());
        warn!(route, "route `{route}` polls Telegram again in {pause:.1?}: {error}");
        Ok(pause)
    }

    async fn end_webhook(&mut self, error: CallError) -> Result<Duration, BoxError> {
        if !self.poller.delete_webhook {
            let bot = &self.bot_id;
            return Err(format!(
                "a webhook of bot {bot} is in the way of polling. Find out whose it is: if nobody knows, somebody \
                 else may have the token. Then delete it with `deleteWebhook`, or let this route do so with \
                 `delete_webhook=true` ({error})"
            )
            .into());
        }
        warn!("deleting the webhook of bot {}, because `delete_webhook` is set", self.bot_id);
        match self.poller.bot.call("deleteWebhook", &Object::default().into(), GRACE).await {
            Ok(_) => Ok(Duration::ZERO),
            Err(error) => Ok(self.pauses.next(error.retry_after())),
        }
    }

    /// Drops what is pending: asks for the last update alone, which lets the server forget all before it,
    /// and then for what comes after that one.
    async fn drop_pending(&mut self, stop: &Stop) -> Result<(), BoxError> {
        loop {
            let pause = match self.get_updates(Some(-1), 1, Duration::ZERO).await {
                Ok(updates) => {
                    let last = updates.last().and_then(|update| update["update_id"].as_i64());
                    self.offset = last.map(|id| id.saturating_add(1));
                    self.acknowledged = self.offset.is_none();
                    // Once in the life of a lock: what is pending at a failover is not dropped.
                    self.position = Position { last, started: true };
                    return Ok(self.store().await?);
                }
                Err(error) => self.pause_after(error).await?,
            };
            self.route.ready();
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Acknowledges what is done, so that the next leader does not get it again.
    async fn say_last_word(&self) {
        if self.acknowledged {
            return;
        }
        let asking = self.get_updates(self.offset, 1, Duration::ZERO);
        let route = self.pipeline.route_id();
        match tokio::time::timeout(LAST_WORD, asking).await {
            Ok(Ok(_)) => debug!(route, "route `{route}` has acknowledged all that is done"),
            Ok(Err(error)) => warn!(route, "the last updates may come again: {error}"),
            Err(_) => warn!(route, "the last updates may come again: Telegram did not respond in time"),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "how old a position is, in days; no authority rests on it")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}
