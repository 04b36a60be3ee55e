//! The double of the Bot API does what is known of the real one: a test for each fact.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::{Fault, TelegramServer};

const TOKEN: &str = "123:secret";

struct Client {
    client: reqwest::Client,
    base: String,
}

impl Client {
    fn new(server: &TelegramServer) -> Self {
        // The builder wants one, although nothing is encrypted here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        Self { client, base: format!("{}/bot{TOKEN}/", server.base_uri()) }
    }

    async fn call(&self, method: &str, parameters: Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{method}", self.base));
        let request = request.header("content-type", "application/json").body(parameters.to_string());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    /// The ids of the updates.
    async fn poll(&self, parameters: Value) -> Vec<i64> {
        let (status, response) = self.call("getUpdates", parameters).await;
        assert_eq!(status, 200, "{response}");
        let updates = response["result"].as_array().unwrap();
        updates.iter().map(|update| update["update_id"].as_i64().unwrap()).collect()
    }
}

async fn start() -> (TelegramServer, Client) {
    let server = TelegramServer::start(TOKEN).await.unwrap();
    let client = Client::new(&server);
    (server, client)
}

fn fill(server: &TelegramServer, count: usize) {
    for number in 0..count {
        server.receive_text(7, &format!("message {number}")).unwrap();
    }
}

#[tokio::test]
async fn fact_1_an_offset_acknowledges_all_below_it() {
    let (server, client) = start().await;
    fill(&server, 3);
    assert_eq!(client.poll(json!({})).await, [1, 2, 3]);
    assert_eq!(client.poll(json!({ "offset": 2 })).await, [2, 3]);
    assert_eq!(server.unacknowledged(), [2, 3]);
    assert_eq!(client.poll(json!({ "offset": 1 })).await, [2, 3], "there is no way back");
}

#[tokio::test]
async fn fact_2_limit_and_timeout_are_clamped() {
    let (server, client) = start().await;
    fill(&server, 120);
    assert_eq!(client.poll(json!({ "limit": 1000 })).await.len(), 100);
    assert_eq!(client.poll(json!({ "offset": 1, "limit": 0 })).await.len(), 1);
    let start = Instant::now();
    assert!(client.poll(json!({ "offset": 121, "timeout": 1 })).await.is_empty());
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn fact_3_a_poll_that_blocks_ends_an_older_one_and_the_next_conflict_is_late() {
    let (server, client) = start().await;
    let poll = || client.call("getUpdates", json!({ "timeout": 20 }));
    let newer = async {
        server.polled().await;
        poll().await
    };
    let last = async {
        // When the first one has got its response, the second one is blocked.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let start = Instant::now();
        let response = poll().await;
        (response, start)
    };
    let feed = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        fill(&server, 1);
    };
    let start = Instant::now();
    let timed = async {
        let response = poll().await;
        (response, start.elapsed())
    };
    let newer = async {
        let response = newer.await;
        (response, start.elapsed())
    };
    let (((first, response), first_took), ((second, _), second_took), ((third, updates), _), ()) =
        tokio::join!(timed, newer, last, feed);
    assert_eq!((first, second, third), (409, 409, 200));
    assert!(response["description"].as_str().unwrap().contains("terminated by other getUpdates request"));
    assert!(first_took < Duration::from_secs(1), "{first_took:?}");
    assert!(second_took >= Duration::from_secs(3), "{second_took:?}");
    assert_eq!(updates["result"][0]["update_id"], 1);
}

#[tokio::test]
async fn fact_3_two_polls_get_the_same_updates_when_there_are_some() {
    let (server, client) = start().await;
    fill(&server, 2);
    let (one, other) =
        tokio::join!(client.poll(json!({ "timeout": 9 })), client.poll(json!({ "limit": 50, "timeout": 9 })));
    // The second one asks for the same within half a second.
    assert_eq!(one.len().max(other.len()), 2);
    assert!(one.contains(&1) && other.contains(&1));
}

#[tokio::test]
async fn fact_4_the_same_offset_again_waits_three_seconds_and_gets_one_update() {
    let (server, client) = start().await;
    let start = Instant::now();
    assert!(client.poll(json!({ "offset": 1 })).await.is_empty());
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(client.poll(json!({ "offset": 1 })).await.is_empty());
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    fill(&server, 5);
    assert_eq!(client.poll(json!({ "offset": 2 })).await.len(), 4);
    assert_eq!(client.poll(json!({ "offset": 2 })).await.len(), 1);
}

#[tokio::test]
async fn fact_5_a_negative_offset_deletes_and_one_beyond_the_end_counts_as_none() {
    let (server, client) = start().await;
    fill(&server, 5);
    assert_eq!(client.poll(json!({ "offset": 1_000_000 })).await, [1, 2, 3, 4, 5]);
    assert_eq!(client.poll(json!({ "offset": -2 })).await, [4, 5]);
    assert_eq!(server.unacknowledged(), [4, 5]);
}

#[tokio::test]
async fn fact_6_a_webhook_is_in_the_way_of_polls() {
    let (server, client) = start().await;
    let blocked = client.call("getUpdates", json!({ "timeout": 20 }));
    let set = async {
        server.polled().await;
        client.call("setWebhook", json!({ "url": "https://example.com" })).await
    };
    let ((status, response), _) = tokio::join!(blocked, set);
    assert_eq!(status, 409);
    assert!(response["description"].as_str().unwrap().contains("terminated by setWebhook request"));
    let (status, response) = client.call("getUpdates", json!({})).await;
    assert_eq!(status, 409);
    assert!(response["description"].as_str().unwrap().contains("while webhook is active"));
    client.call("deleteWebhook", json!({})).await;
    assert_eq!(client.call("getUpdates", json!({})).await.0, 200);
}

#[tokio::test]
async fn fact_7_ids_start_again_lower_and_a_high_offset_does_not_hide_them() {
    let (server, client) = start().await;
    server.continue_ids_at(900);
    fill(&server, 1);
    assert!(client.poll(json!({ "offset": 901 })).await.is_empty());
    server.continue_ids_at(40);
    fill(&server, 2);
    assert_eq!(client.poll(json!({ "offset": 901, "timeout": 1 })).await[0], 40);
    assert_eq!(client.poll(json!({ "offset": 41 })).await, [41]);
}

#[tokio::test]
async fn fact_8_what_goes_wrong_is_told_as_telegram_tells_it() {
    let (server, client) = start().await;
    server.fail_next("getUpdates", Fault::TooManyRequests(5));
    let (status, response) = client.call("getUpdates", json!({})).await;
    assert_eq!((status, &response["parameters"]["retry_after"]), (429, &json!(5)));
    let (status, _) = Client { base: format!("{}/bot123:wrong/", server.base_uri()), ..client }
        .call("getMe", json!({}))
        .await;
    assert_eq!(status, 401);
}
