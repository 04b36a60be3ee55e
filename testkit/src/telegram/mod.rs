//! [`TelegramServer`]: a double of the Bot API, with the traits of the real server that matter to a poller.
//!
//! 1. `getUpdates` with an offset is the acknowledgement: what is below is forgotten.
//! 2. `timeout` is at most 50 seconds, `limit` 1 to 100.
//! 3. A poll that would block ends an older one that does, with 409. When there are updates, both get the
//!    same ones and nobody a 409. A second 409 within three seconds is held back for three seconds.
//! 4. The same offset again within three seconds makes a shorter timeout three seconds, within half a second
//!    the limit 1.
//! 5. A negative offset deletes all updates but the last ones. An offset that is beyond the end counts as none.
//! 6. With a webhook there is no polling: 409. Setting one ends a poll, with 409.
//! 7. Ids of updates can start again anywhere ([`TelegramServer::continue_ids_at`]).
//! 8. 429 and everything else that goes wrong is what a test asks for: [`Fault`].

mod http;
mod polls;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

/// When all messages were sent, in seconds since 1970.
const DATE: u64 = 1_767_225_600;

/// A server on a free port of this host, for one bot. It ends when it is dropped.
pub struct TelegramServer {
    address: String,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl fmt::Debug for TelegramServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelegramServer").finish_non_exhaustive()
    }
}

/// What goes wrong with one request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// 429 with `parameters.retry_after` in seconds.
    TooManyRequests(u64),
    /// This status, with a body that is not Telegram's.
    Status(u16),
    /// The answer is right, but comes so much later.
    Slow(Duration),
    /// 200 with half of a JSON text.
    Broken,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Call {
    /// The method, in the spelling of the caller.
    pub method: String,
    /// Its parameters, from the query and the body.
    pub parameters: Value,
    /// When it came.
    pub at: Instant,
}

struct Shared {
    token: String,
    bot: Mutex<Bot>,
    /// Wakes blocked polls when there is an update.
    news: Notify,
}

/// Everything that the server knows.
struct Bot {
    /// Updates that are not acknowledged.
    queue: VecDeque<Value>,
    next_id: i64,
    allowed: Option<Vec<String>>,
    webhook: String,
    /// The poll that blocks, and its number.
    blocked: Option<(u64, oneshot::Sender<&'static str>)>,
    polls: u64,
    previous_poll: Option<(i64, Instant)>,
    next_conflict: Option<Instant>,
    next_message: i64,
    calls: Vec<Call>,
    faults: VecDeque<(String, Fault)>,
}

impl TelegramServer {
    /// Starts a server for the bot with this token.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(token: &str) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let bot = Bot {
            queue: VecDeque::new(),
            next_id: 1,
            allowed: None,
            webhook: String::new(),
            blocked: None,
            polls: 0,
            previous_poll: None,
            next_conflict: None,
            next_message: 1,
            calls: Vec::new(),
            faults: VecDeque::new(),
        };
        let shared = Arc::new(Shared { token: token.to_owned(), bot: Mutex::new(bot), news: Notify::new() });
        #[expect(clippy::disallowed_methods, reason = "the task ends with the server that owns it")]
        let task = tokio::spawn(http::serve(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, task })
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn base_uri(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Somebody writes to the bot. Returns the id of the update, or `None` when the bot wants no messages.
    pub fn receive_text(&self, chat: i64, text: &str) -> Option<i64> {
        let number = {
            let mut bot = self.shared.bot();
            bot.next_message += 1;
            bot.next_message - 1
        };
        let person = json!({ "id": chat, "is_bot": false, "first_name": "Somebody" });
        let chat = json!({ "id": chat, "type": "private", "first_name": "Somebody" });
        let message =
            json!({ "message_id": number, "date": DATE, "from": person, "chat": chat, "text": text });
        self.receive("message", &message)
    }

    /// Something of this kind happens. Returns the id of the update, or `None` when the bot does not want to
    /// know.
    pub fn receive(&self, kind: &str, content: &Value) -> Option<i64> {
        let id = {
            let mut bot = self.shared.bot();
            let wanted = bot.allowed.as_ref().is_none_or(|kinds| kinds.iter().any(|allowed| allowed == kind));
            if !wanted {
                return None;
            }
            let id = bot.next_id;
            bot.next_id += 1;
            bot.queue.push_back(json!({ "update_id": id, kind: content }));
            id
        };
        self.shared.news.notify_waiters();
        Some(id)
    }

    /// From now on, ids of updates count from `id`, as after a week of silence.
    pub fn continue_ids_at(&self, id: i64) {
        self.shared.bot().next_id = id;
    }

    /// The ids of the updates that are not acknowledged.
    #[must_use]
    pub fn unacknowledged(&self) -> Vec<i64> {
        self.shared.bot().queue.iter().map(polls::id).collect()
    }

    /// Lets the next request of `method` go wrong; further ones wait for their turn.
    pub fn fail_next(&self, method: &str, fault: Fault) {
        self.shared.bot().faults.push_back((method.to_owned(), fault));
    }

    /// All requests so far of `method`, in any case.
    #[must_use]
    pub fn calls(&self, method: &str) -> Vec<Call> {
        let bot = self.shared.bot();
        bot.calls.iter().filter(|call| call.method.eq_ignore_ascii_case(method)).cloned().collect()
    }

    /// Sets a webhook, as anybody can who has the token; an empty one is none.
    pub fn set_webhook(&self, url: &str) {
        self.shared.bot().set_webhook(url);
    }

    /// Whether a webhook is set.
    #[must_use]
    pub fn has_webhook(&self) -> bool {
        !self.shared.bot().webhook.is_empty()
    }

    /// Completes when a poll is blocked, waiting for updates.
    ///
    /// # Panics
    /// When there is none for half a minute: a test is to end.
    pub async fn polled(&self) {
        let patience = Instant::now() + Duration::from_secs(30);
        while self.shared.bot().blocked.is_none() {
            assert!(Instant::now() < patience, "nobody polls");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for TelegramServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    fn bot(&self) -> MutexGuard<'_, Bot> {
        self.bot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
