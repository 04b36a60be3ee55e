//! `getUpdates` and webhooks: the acknowledgement, the limits and the conflicts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Bot, Shared};

/// A failure as Telegram tells it.
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) description: &'static str,
}

const OTHER_POLL: &str =
    "Conflict: terminated by other getUpdates request; make sure that only one bot instance is running";
const NEW_WEBHOOK: &str = "Conflict: terminated by setWebhook request";
const WEBHOOK: &str = "Conflict: can't use getUpdates method while webhook is active; use deleteWebhook to delete the \
                       webhook first";

/// How long an answer 409 is held back when there was another one.
const CONFLICT_PAUSE: Duration = Duration::from_secs(3);

pub(super) fn id(update: &Value) -> i64 {
    update["update_id"].as_i64().unwrap_or_default()
}

/// What a poll asks for.
struct Poll {
    number: u64,
    offset: i64,
    limit: usize,
    timeout: Duration,
}

pub(super) async fn get_updates(shared: Arc<Shared>, parameters: &Value) -> Result<Value, Refusal> {
    let (mut conflict, poll) = {
        let mut bot = shared.bot();
        if !bot.webhook.is_empty() {
            return Err(Refusal { code: 409, description: WEBHOOK });
        }
        let poll = bot.read_poll(parameters);
        bot.acknowledge(poll.offset);
        let updates = bot.updates(poll.limit);
        if !updates.is_empty() || poll.timeout.is_zero() {
            return Ok(updates.into());
        }
        // Only a poll that blocks itself ends another.
        let (sender, conflict) = oneshot::channel();
        let number = poll.number;
        if let Some((_, older)) = bot.blocked.replace((number, sender)) {
            let _ = older.send(OTHER_POLL);
        }
        (conflict, poll)
    };
    let ended = Unblock { shared: Arc::clone(&shared), number: poll.number };
    let deadline = tokio::time::Instant::now() + poll.timeout;
    loop {
        let news = shared.news.notified();
        let updates = shared.bot().updates(poll.limit);
        if !updates.is_empty() {
            return Ok(updates.into());
        }
        tokio::select! {
            biased;
            why = &mut conflict => {
                let description = why.unwrap_or(OTHER_POLL);
                drop(ended);
                let pause = shared.bot().conflict_pause();
                tokio::time::sleep(pause).await;
                return Err(Refusal { code: 409, description });
            }
            () = news => {}
            () = tokio::time::sleep_until(deadline) => return Ok(json!([])),
        }
    }
}

/// A poll does not block any more when its connection is gone, too.
struct Unblock {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Unblock {
    fn drop(&mut self) {
        let mut bot = self.shared.bot();
        if bot.blocked.as_ref().is_some_and(|(number, _)| *number == self.number) {
            bot.blocked = None;
        }
    }
}

impl Bot {
    fn read_poll(&mut self, parameters: &Value) -> Poll {
        let number =
            |name: &str| parameters[name].as_i64().or_else(|| parameters[name].as_str()?.parse().ok());
        let offset = number("offset").unwrap_or(0);
        let mut limit = usize::try_from(number("limit").unwrap_or(100).clamp(1, 100)).unwrap_or(100);
        let mut timeout = Duration::from_secs(number("timeout").unwrap_or(0).clamp(0, 50).unsigned_abs());
        let now = Instant::now();
        if let Some((_, at)) = self.previous_poll.filter(|(previous, _)| *previous == offset) {
            let since = now - at;
            if since < Duration::from_secs(3) {
                timeout = timeout.max(Duration::from_secs(3));
            }
            if since < Duration::from_millis(500) {
                limit = 1;
            }
        }
        self.previous_poll = Some((offset, now));
        let allowed = match &parameters["allowed_updates"] {
            // In a query it is the text of the list.
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            other => other.clone(),
        };
        if let Some(kinds) = allowed.as_array() {
            let kinds = kinds.iter().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
            self.allowed = Some(kinds).filter(|kinds| !kinds.is_empty());
        }
        self.polls += 1;
        Poll { number: self.polls, offset, limit, timeout }
    }

    /// Forgets what is below the offset.
    fn acknowledge(&mut self, offset: i64) {
        if offset < 0 {
            let keep = usize::try_from(offset.unsigned_abs()).unwrap_or(usize::MAX);
            let surplus = self.queue.len().saturating_sub(keep);
            self.queue.drain(..surplus);
        } else if offset <= self.next_id {
            // After ids started again, the queue may hold both kinds: it ends at the first that is not below.
            while self.queue.front().is_some_and(|update| id(update) < offset) {
                self.queue.pop_front();
            }
        }
    }

    fn updates(&self, limit: usize) -> Vec<Value> {
        self.queue.iter().take(limit).cloned().collect()
    }

    /// How long the next 409 is held back.
    fn conflict_pause(&mut self) -> Duration {
        let now = Instant::now();
        if self.next_conflict.is_some_and(|next| now < next) {
            return CONFLICT_PAUSE;
        }
        self.next_conflict = Some(now + CONFLICT_PAUSE);
        Duration::ZERO
    }

    pub(super) fn set_webhook(&mut self, url: &str) {
        url.clone_into(&mut self.webhook);
        if !url.is_empty()
            && let Some((_, poll)) = self.blocked.take()
        {
            let _ = poll.send(NEW_WEBHOOK);
        }
    }
}
