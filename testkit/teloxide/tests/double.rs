//! What the double does is what teloxide, which is made for the real server, understands: a test for each
//! fact that it can show.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::pin::pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;
use teloxide::payloads::{DeleteWebhookSetters, GetUpdatesSetters};
use teloxide::requests::Requester;
use teloxide::types::{AllowedUpdate, ChatId, Update, UpdateKind};
use teloxide::update_listeners::{AsUpdateStream, Polling, UpdateListener};
use teloxide::{ApiError, Bot, RequestError};
use testkit::{Fault, TelegramServer};

const TOKEN: &str = "123:test";

async fn start() -> (TelegramServer, Bot) {
    let server = TelegramServer::start(TOKEN).await.unwrap();
    let bot = bot(&server, TOKEN);
    (server, bot)
}

fn bot(server: &TelegramServer, token: &str) -> Bot {
    Bot::new(token).set_api_url(server.base_uri().parse().unwrap())
}

fn fill(server: &TelegramServer, count: usize) {
    for number in 0..count {
        server.receive_text(7, &format!("message {number}")).unwrap();
    }
}

fn ids(updates: &[Update]) -> Vec<u32> {
    updates.iter().map(|update| update.id.0).collect()
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, RequestError>) -> String {
    match answer {
        Err(RequestError::Api(error)) => error.to_string(),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn updates_and_answers_are_what_they_are_called() {
    let (server, bot) = start().await;
    fill(&server, 1);
    let from = json!({ "id": 5, "is_bot": false, "first_name": "A" });
    let query = json!({ "id": "9", "from": from, "chat_instance": "1", "data": "yes" });
    server.receive("callback_query", &query).unwrap();
    let updates = bot.get_updates().await.unwrap();
    let UpdateKind::Message(message) = &updates[0].kind else { panic!("{:?}", updates[0]) };
    assert_eq!((message.chat.id, message.text()), (ChatId(7), Some("message 0")));
    let UpdateKind::CallbackQuery(query) = &updates[1].kind else { panic!("{:?}", updates[1]) };
    assert_eq!(query.data.as_deref(), Some("yes"));

    let sent = bot.send_message(ChatId(7), "hello").await.unwrap();
    assert_eq!((sent.chat.id, sent.text()), (ChatId(7), Some("hello")));
    assert_eq!(server.calls("sendMessage")[0].parameters["text"], "hello");
    assert_eq!(bot.get_me().await.unwrap().username(), "double_bot");
}

#[tokio::test]
async fn a_blocked_poll_ends_with_the_first_update() {
    let (server, bot) = start().await;
    let (updates, ()) = tokio::join!(async { bot.get_updates().timeout(20).await.unwrap() }, async {
        server.polled().await;
        fill(&server, 1);
    });
    assert_eq!(ids(&updates), [1]);
}

#[tokio::test]
async fn fact_1_its_listener_acknowledges_by_offset_and_once_more_when_it_stops() {
    let (server, bot) = start().await;
    fill(&server, 5);
    let mut polling = Polling::builder(bot).limit(2).timeout(Duration::from_secs(1)).build();
    let stop = polling.stop_token();
    let mut stream = pin!(polling.as_stream());
    for id in 1..=5 {
        assert_eq!(stream.next().await.unwrap().unwrap().id.0, id);
        // What was asked for last is not acknowledged yet.
        assert_eq!(server.unacknowledged()[0], if id % 2 == 1 { id.into() } else { i64::from(id) - 1 });
    }
    stop.stop();
    assert!(stream.next().await.is_none());
    assert!(server.unacknowledged().is_empty());
    let offsets = server.calls("getUpdates").into_iter().map(|call| call.parameters["offset"].clone());
    assert_eq!(offsets.collect::<Vec<_>>(), [json!(0), json!(3), json!(5), json!(6)]);
}

#[tokio::test]
async fn fact_2_no_poll_brings_more_than_a_hundred() {
    let (server, bot) = start().await;
    fill(&server, 120);
    assert_eq!(bot.get_updates().limit(250).await.unwrap().len(), 100);
}

#[tokio::test]
async fn fact_3_another_poll_ends_the_blocked_one() {
    let (server, bot) = start().await;
    let newer = async {
        server.polled().await;
        bot.get_updates().timeout(20).await.unwrap()
    };
    let older = async {
        let answer = bot.get_updates().timeout(20).await;
        fill(&server, 1);
        answer
    };
    let (older, newer) = tokio::join!(older, newer);
    assert!(
        matches!(older, Err(RequestError::Api(ApiError::TerminatedByOtherGetUpdates))),
        "it was not told that another one polls: {older:?}"
    );
    assert_eq!(ids(&newer), [1]);
}

#[tokio::test]
async fn fact_4_the_same_offset_again_waits_three_seconds() {
    let (server, bot) = start().await;
    let start = Instant::now();
    for _ in 0..2 {
        assert!(bot.get_updates().offset(1).await.unwrap().is_empty());
    }
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    drop(server);
}

#[tokio::test]
async fn fact_5_a_negative_offset_deletes() {
    let (server, bot) = start().await;
    fill(&server, 5);
    assert_eq!(ids(&bot.get_updates().offset(-2).await.unwrap()), [4, 5]);
    assert_eq!(server.unacknowledged(), [4, 5]);
}

#[tokio::test]
async fn fact_6_a_webhook_ends_polls_and_is_in_the_way_of_others() {
    let (server, bot) = start().await;
    let hook = async {
        server.polled().await;
        bot.set_webhook("https://example.com/hook".parse().unwrap()).await.unwrap();
    };
    let (blocked, ()) = tokio::join!(async { bot.get_updates().timeout(20).await }, hook);
    assert!(refusal(blocked).contains("terminated by setWebhook request"));
    let url = bot.get_webhook_info().await.unwrap().url.unwrap();
    assert_eq!(url.as_str(), "https://example.com/hook");
    let refused = refusal(bot.get_updates().await);
    assert!(refused.contains("can't use getUpdates method while webhook is active"), "{refused}");
    fill(&server, 1);
    bot.delete_webhook().drop_pending_updates(true).await.unwrap();
    assert!(bot.get_updates().await.unwrap().is_empty());
}

#[tokio::test]
async fn fact_7_a_listener_follows_ids_that_start_again_lower() {
    let (server, bot) = start().await;
    server.continue_ids_at(900);
    fill(&server, 1);
    let mut polling = Polling::builder(bot).timeout(Duration::from_secs(1)).build();
    let mut stream = pin!(polling.as_stream());
    assert_eq!(stream.next().await.unwrap().unwrap().id.0, 900);
    let feed = async {
        server.polled().await;
        server.continue_ids_at(40);
        fill(&server, 2);
    };
    let (first, ()) = tokio::join!(stream.next(), feed);
    assert_eq!(first.unwrap().unwrap().id.0, 40);
}

#[tokio::test]
async fn fact_8_a_pause_is_asked_for_in_seconds() {
    let (server, bot) = start().await;
    server.fail_next("sendMessage", Fault::TooManyRequests(5));
    let refused = bot.send_message(ChatId(7), "hello").await.unwrap_err();
    assert!(matches!(refused, RequestError::RetryAfter(pause) if pause.seconds() == 5), "{refused:?}");
    // Its listener makes the pause.
    server.fail_next("getUpdates", Fault::TooManyRequests(1));
    fill(&server, 1);
    let mut polling = Polling::builder(bot).timeout(Duration::from_secs(1)).build();
    let mut stream = pin!(polling.as_stream());
    let start = Instant::now();
    while !matches!(stream.next().await.unwrap(), Ok(update) if update.id.0 == 1) {}
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn fact_8_a_wrong_token_and_answers_that_are_none() {
    let (server, good) = start().await;
    for token in ["123:wrong", "wrong"] {
        let refused = bot(&server, token).get_me().await.unwrap_err();
        assert!(matches!(refused, RequestError::Api(ApiError::InvalidToken)), "{refused:?}");
    }
    for fault in [Fault::Broken, Fault::Status(404)] {
        server.fail_next("getUpdates", fault);
        let error = good.get_updates().await.unwrap_err();
        assert!(matches!(error, RequestError::InvalidJson { .. }), "{error:?}");
    }
    let empty = refusal(good.send_message(ChatId(7), "").await);
    assert_eq!(empty, ApiError::MessageTextIsEmpty.to_string());
}

#[tokio::test]
async fn kinds_that_are_not_asked_for_do_not_come() {
    let (server, bot) = start().await;
    bot.get_updates().allowed_updates([AllowedUpdate::CallbackQuery]).await.unwrap();
    assert_eq!(server.receive_text(7, "hello"), None);
}
