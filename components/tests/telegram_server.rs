//! `telegram:` and a server that somebody else made, the npm package telegram-test-api: what we send and
//! read has the form that others expect. It knows no offsets, no long polls and no conflicts; for those
//! there is the double.
//!
//! `tests/telegram/server cargo test -p bactrian-components --features http --test telegram_server -- --ignored`

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use components::{MockComponent, TelegramComponent};
use router_core::builder::{Steps, from};
use router_core::router::RouterBuilder;
use serde_json::{Value, json};
use tokio::time::timeout;

const TOKEN: &str = "123:hush-hush_TOKEN";

/// The side of the person who writes to the bot.
struct Person {
    client: reqwest::Client,
    server: String,
}

impl Person {
    fn new() -> Self {
        // The builder wants one, although nothing is encrypted here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            client: reqwest::Client::builder().tls_certs_only([]).build().unwrap(),
            server: std::env::var("BACTRIAN_TELEGRAM").expect("run by tests/telegram/server"),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.client.post(format!("{}/{path}", self.server));
        let response = request.header("content-type", "application/json").body(body.to_string()).send();
        let response = response.await.unwrap();
        assert!(response.status().is_success(), "{path}: {}", response.status());
        serde_json::from_str(&response.text().await.unwrap()).unwrap()
    }

    /// Sends a message, a command or a press of a button, with what all of them have.
    async fn send(&self, path: &str, content: &str, more: Value) {
        let from = json!({ "id": 5, "first_name": "A", "username": "a", "is_bot": false });
        let chat = json!({ "id": 7, "title": "A", "first_name": "A", "type": "private" });
        let mut body = json!({ "botToken": TOKEN, "date": 1_767_225_600, "from": from });
        let fields = body.as_object_mut().unwrap();
        if path == "sendCallback" {
            fields.insert("data".into(), content.into());
            fields.insert("message".into(), json!({ "from": from, "chat": chat }));
        } else {
            fields.insert("text".into(), content.into());
            fields.insert("chat".into(), chat);
        }
        fields.extend(more.as_object().unwrap().clone());
        self.post(path, body).await;
    }
}

#[tokio::test]
#[ignore = "needs a server out of an npm package, which tests/run starts"]
async fn a_bot_talks_with_somebody_on_a_server_of_others() {
    let person = Person::new();
    person.send("sendMessage", "hello", json!({})).await;
    let entity = json!({ "offset": 0, "length": 6, "type": "bot_command" });
    person.send("sendCommand", "/start", json!({ "entities": [entity] })).await;
    person.send("sendCallback", "yes", json!({})).await;

    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, TOKEN).unwrap();
    let bot =
        format!("telegram:bots?authorization_token=file:{}&base_uri={}", token.display(), person.server);
    let mock = MockComponent::default();
    let route = from(&*bot)
        .to("mock:in")
        .set_body("${header.telegram.type}: ${header.telegram.text}")
        .to(format!("{bot}&pacing=0"))
        .to("mock:out");
    let builder = RouterBuilder::new().component(TelegramComponent::default()).component(mock.clone());
    let router = builder.route(route).build().unwrap();
    let out = mock.endpoint("out");
    let running = router.run_until(out.wait_for(3));
    let _ = timeout(Duration::from_secs(30), running).await.unwrap();

    let received = mock.endpoint("in").received();
    let headers = received.iter().map(|exchange| {
        let text = |name: &str| exchange.message.headers.get(name).unwrap().to_string();
        ["telegram.update_id", "telegram.type", "telegram.chat_id", "telegram.text"].map(text)
    });
    let expected = [
        ["1", "message", "7", "hello"],
        ["2", "message", "7", "/start"],
        ["3", "callback_query", "7", "yes"],
    ];
    assert_eq!(headers.collect::<Vec<_>>(), expected);

    let responses = person.post("getUpdates", json!({ "token": TOKEN, "chatId": 7 })).await;
    let texts = responses["result"].as_array().unwrap().iter().map(|response| &response["message"]["text"]);
    assert_eq!(texts.collect::<Vec<_>>(), ["message: hello", "message: /start", "callback_query: yes"]);
    let numbers = out.received();
    let numbers = numbers.iter().map(|exchange| exchange.message.headers.get("telegram.message_id"));
    assert!(numbers.into_iter().all(|number| number.is_some()));
}
