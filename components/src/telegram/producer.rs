//! [`Sender`]: sends messages, not faster than Telegram wants them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use router_core::component::Processor;
use router_core::error::BoxError;
use router_core::exchange::{BodyKind, Exchange};
use router_core::failure::Failure;
use router_core::value::{Json, Object};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

use super::bot::Bot;

/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often a message is sent again because Telegram asked for a pause.
const RETRIES: u32 = 3;
/// A longer pause is left to the error handler of the route.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The producer.
pub(super) struct Sender {
    bot: Arc<Bot>,
    chat_id: Option<String>,
    pacing: Duration,
    /// When the next message may go to a chat; chats that are not paced any more are forgotten.
    paced: Mutex<HashMap<String, Instant>>,
}

impl Sender {
    pub(super) fn new(bot: Arc<Bot>, chat_id: Option<String>, pacing: Duration) -> Self {
        Self { bot, chat_id, pacing, paced: Mutex::default() }
    }

    /// The method and its parameters.
    fn request(&self, exchange: &Exchange) -> Result<(String, Json), BoxError> {
        let header = |name: &str| exchange.message.headers.get(name).map(ToString::to_string);
        let method = header("telegram.method").unwrap_or_else(|| "sendMessage".into());
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Failure::data("the header `telegram.method` is no name of a method").into());
        }
        let text = |text: String| Object::from_iter([("text", text)]);
        let body = &exchange.message.body;
        let mut parameters = match (body.kind(), body.as_json()) {
            (BodyKind::Json, Some(Json::Object(parameters))) => parameters.clone(),
            _ if method == "sendMessage" => text(body.to_value()?.to_string()),
            (BodyKind::Empty, _) => Object::default(),
            _ => {
                let error = format!("the body for `{method}` is to be a JSON object with its parameters");
                return Err(Failure::data(error).into());
            }
        };
        if parameters.get("chat_id").is_none_or(Json::is_null) {
            match self.chat_id.clone().or_else(|| header("telegram.chat_id")) {
                Some(chat) => drop(parameters.insert("chat_id", chat)),
                None if method == "sendMessage" => {
                    let error = "there is no chat: set the option `chat_id` or the header `telegram.chat_id`";
                    return Err(Failure::data(error).into());
                }
                None => {}
            }
        }
        Ok((method, parameters.into()))
    }

    /// Waits for the turn of a message to this chat.
    async fn pace(&self, chat: &Json) {
        if self.pacing.is_zero() || chat.is_null() {
            return;
        }
        let turn = {
            let now = Instant::now();
            let mut paced = self.paced.lock().unwrap_or_else(PoisonError::into_inner);
            paced.retain(|_, next| *next > now);
            // A number and its text are the same chat.
            let chat = chat.as_str().map_or_else(|| chat.to_string(), str::to_owned);
            let next = paced.entry(chat).or_insert(now);
            let turn = *next;
            *next += self.pacing;
            turn
        };
        sleep_until(turn).await;
    }
}

#[async_trait]
impl Processor for Sender {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        let (method, parameters) = self.request(exchange)?;
        let mut retries = 0;
        let result = loop {
            self.pace(&parameters["chat_id"]).await;
            // A pause may have outlived the term.
            if let Some(term) = &exchange.term {
                term.check()?;
            }
            let error = match self.bot.call(&method, &parameters, TIMEOUT).await {
                Ok(result) => break result,
                Err(error) => error,
            };
            match error.retry_after().filter(|pause| *pause <= LONGEST_PAUSE && retries < RETRIES) {
                Some(pause) => {
                    retries += 1;
                    warn!("Telegram asks for a pause of {pause:?} before `{method}`");
                    sleep(pause).await;
                }
                None => return Err(error.into_failure().into()),
            }
        };
        if let Some(id) = result["message_id"].as_i64() {
            exchange.message.headers.set("telegram.message_id", id);
        }
        exchange.message.body = result.into();
        Ok(())
    }
}
