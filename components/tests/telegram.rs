//! What `telegram:` promises, against the double of the Bot API.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use components::{MasterComponent, MockComponent, TelegramComponent, TimerComponent};
use router_core::builder::{RouteBuilder, Steps, from};
use router_core::cluster::{ClusterService, LockName, MemoryCluster};
use router_core::definition::ErrorHandlerDefinition;
use router_core::router::{Router, RouterBuilder};
use router_core::source::SourceText;
use router_core::value::Value as Header;
use serde_json::{Value, json};
use testkit::{Fault, TelegramServer};
use tokio::time::{sleep, timeout};

const TOKEN: &str = "123:hush-hush_TOKEN";

struct Stage {
    server: TelegramServer,
    mock: MockComponent,
    folder: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), TOKEN).unwrap();
        Self { server: TelegramServer::start(TOKEN).await.unwrap(), mock: MockComponent::default(), folder }
    }

    fn uri(&self, options: &str) -> String {
        let token = self.folder.path().join("token");
        let (token, base) = (token.display(), self.server.base_uri());
        format!("telegram:bots?authorization_token=file:{token}&base_uri={base}&{options}")
    }

    fn router(&self, route: RouteBuilder, cluster: Option<Arc<MemoryCluster>>) -> Router {
        let builder = RouterBuilder::new()
            .component(TelegramComponent::default())
            .component(MasterComponent::default())
            .component(TimerComponent)
            .component(self.mock.clone())
            .route(route.id("bot"));
        let builder = match cluster {
            Some(cluster) => builder.cluster(cluster as Arc<dyn ClusterService>),
            None => builder,
        };
        builder.build().unwrap()
    }

    async fn run(&self, options: &str, until: impl Future<Output = ()>) {
        let router = self.router(from(self.uri(options)).to("mock:out"), None);
        let _ = timeout(Duration::from_secs(30), router.run_until(until)).await.unwrap();
    }

    fn receive(&self, count: usize) {
        for number in 0..count {
            self.server.receive_text(7, &format!("message {number}")).unwrap();
        }
    }

    fn ids(&self) -> Vec<i64> {
        let received = self.mock.endpoint("out").received();
        let id = |exchange: &router_core::exchange::Exchange| {
            exchange.message.headers.get("telegram.update_id").unwrap().to_string().parse().unwrap()
        };
        received.iter().map(id).collect()
    }

    async fn received(&self, count: usize) {
        self.mock.endpoint("out").wait_for(count).await;
    }
}

#[tokio::test]
async fn updates_come_in_order_and_all_that_is_done_is_acknowledged_at_the_end() {
    let stage = Stage::new().await;
    stage.receive(5);
    stage.run("limit=2", stage.received(5)).await;
    assert_eq!(stage.ids(), [1, 2, 3, 4, 5]);
    assert!(stage.server.unacknowledged().is_empty());
    let received = stage.mock.endpoint("out").received();
    let headers = &received[0].message.headers;
    let text = |name: &str| headers.get(name).unwrap().to_string();
    assert_eq!(
        ["telegram.type", "telegram.chat_id", "telegram.text", "telegram.bot_id"].map(text),
        ["message", "7", "message 0", "123"]
    );
    assert_eq!(received[0].message.body.json::<serde_json::Value>().unwrap()["message"]["text"], "message 0");
}

#[tokio::test]
async fn a_failed_exchange_is_not_acknowledged_and_comes_again_before_all_later_ones() {
    let stage = Stage::new().await;
    stage.receive(3);
    let fails = AtomicBool::new(true);
    let route = from(stage.uri("")).process(move |exchange| {
        let second = exchange.message.headers.get("telegram.update_id").unwrap().to_string() == "2";
        if second && fails.swap(false, Ordering::Relaxed) { Err("not now".into()) } else { Ok(()) }
    });
    let router = stage.router(route.to("mock:out"), None);
    let _ = router.run_until(stage.received(3)).await;
    assert_eq!(stage.ids(), [1, 2, 3]);
    let offsets = stage
        .server
        .calls("getUpdates")
        .iter()
        .map(|call| call.parameters["offset"].clone())
        .collect::<Vec<_>>();
    assert_eq!(offsets[..2], [Value::Null, json!(2)]);
}

#[tokio::test]
async fn a_stop_drops_the_poll_that_waits_and_does_not_take_three_seconds() {
    let stage = Stage::new().await;
    stage.receive(1);
    let start = Instant::now();
    stage
        .run("", async {
            stage.received(1).await;
            stage.server.polled().await;
            sleep(Duration::from_millis(400)).await;
        })
        .await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!(stage.server.calls("getUpdates").len(), 2, "all was acknowledged by the poll that waited");
    assert!(stage.server.unacknowledged().is_empty());
}

#[tokio::test]
async fn a_hand_over_repeats_nothing_with_and_without_dedupe() {
    for options in ["limit=3", "limit=3&dedupe=true"] {
        let stage = Stage::new().await;
        let first = MemoryCluster::new("a");
        stage.receive(40);
        for (index, cluster) in [Arc::clone(&first), first.join("b"), first.join("c")].into_iter().enumerate()
        {
            let route = from(format!("master:lock1:{}", stage.uri(options))).to("mock:out");
            let wanted = if index == 2 { 40 } else { 10 * (index + 1) };
            let _ = stage.router(route, Some(cluster)).run_until(stage.received(wanted)).await;
        }
        assert_eq!(stage.ids(), (1..=40).collect::<Vec<_>>(), "{options}");
    }
}

#[tokio::test]
async fn after_a_loss_dedupe_repeats_nothing_that_was_done() {
    let stage = Stage::new().await;
    let first = MemoryCluster::new("a");
    let lock: LockName = "lock1".parse().unwrap();
    stage.receive(10);
    for cluster in [Arc::clone(&first), first.join("b")] {
        let route = from(format!("master:lock1:{}", stage.uri("dedupe=true")));
        // The fifth one is held up, and dropped when the term is lost.
        let route = route.to("mock:tried").process_async(|exchange| {
            let held_up = exchange.message.headers.get("telegram.update_id") == Some(&Header::from(5))
                && exchange.term.as_ref().is_some_and(|term| term.number() == 1);
            Box::pin(async move {
                if held_up {
                    sleep(Duration::from_secs(60)).await;
                }
                Ok(())
            })
        });
        let route = route.to("mock:out");
        let lost = async {
            if Arc::ptr_eq(&cluster, &first) {
                stage.mock.endpoint("tried").wait_for(5).await;
                first.revoke(&lock, Duration::ZERO);
                sleep(Duration::from_millis(50)).await;
            } else {
                stage.received(10).await;
            }
        };
        let _ = stage.router(route, Some(Arc::clone(&cluster))).run_until(lost).await;
    }
    assert_eq!(stage.ids(), (1..=10).collect::<Vec<_>>());
}

#[tokio::test]
async fn pending_updates_are_dropped_at_the_very_first_start_only() {
    let stage = Stage::new().await;
    let first = MemoryCluster::new("a");
    stage.receive(3);
    for cluster in [Arc::clone(&first), first.join("b")] {
        let route = from(format!("master:lock1:{}", stage.uri("drop_pending=true"))).to("mock:out");
        let router = stage.router(route, Some(cluster));
        let _ = router
            .run_until(async {
                stage.server.polled().await;
                sleep(Duration::from_millis(300)).await;
            })
            .await;
        stage.receive(2);
    }
    assert_eq!(stage.ids(), [4, 5]);
}

#[tokio::test]
async fn ids_that_start_again_lower_are_new_ones() {
    let stage = Stage::new().await;
    stage.server.continue_ids_at(500);
    stage.receive(1);
    stage
        .run("dedupe=true", async {
            stage.received(1).await;
            stage.server.polled().await;
            stage.server.continue_ids_at(20);
            stage.receive(2);
            stage.received(3).await;
        })
        .await;
    assert_eq!(stage.ids(), [500, 20, 21]);
    assert!(stage.server.unacknowledged().is_empty());
}

#[tokio::test]
async fn a_pause_that_telegram_asks_for_is_made_and_other_failures_are_tried_again() {
    let stage = Stage::new().await;
    stage.server.fail_next("getUpdates", Fault::TooManyRequests(2));
    stage.server.fail_next("getUpdates", Fault::Broken);
    stage.server.fail_next("getUpdates", Fault::Status(502));
    stage.receive(1);
    stage.run("", stage.received(1)).await;
    let calls = stage.server.calls("getUpdates");
    assert!(calls[1].at - calls[0].at >= Duration::from_secs(2), "{calls:?}");
    assert_eq!(stage.ids(), [1]);
}

#[tokio::test]
async fn a_server_that_does_not_wait_is_not_asked_without_a_pause() {
    let (stage, asked) = (Stage::new().await, Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&asked);
    let server = testkit::JsonServer::start(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        json!({ "ok": true, "result": [] })
    });
    let server = server.await.unwrap();
    let uri = stage.uri("").replace(&stage.server.base_uri(), &server.uri());
    let router = stage.router(from(uri).to("mock:out"), None);
    let _ = router.run_until(sleep(Duration::from_millis(1_500))).await;
    let asked = asked.load(Ordering::Relaxed);
    assert!((1..=3).contains(&asked), "asked {asked} times in a second and a half");
}

#[tokio::test]
async fn another_process_that_polls_ends_no_route() {
    let stage = Stage::new().await;
    let intruder = async {
        stage.server.polled().await;
        let rival = TelegramComponent::default();
        let router =
            RouterBuilder::new().component(rival).route(from(stage.uri("timeout=1s"))).build().unwrap();
        let _ = router.run_until(sleep(Duration::from_millis(200))).await;
        stage.receive(1);
        stage.received(1).await;
    };
    stage.run("", intruder).await;
    assert_eq!(stage.ids(), [1]);
}

#[tokio::test]
async fn a_webhook_is_deleted_only_where_that_is_asked_for() {
    let stage = Stage::new().await;
    stage.server.set_webhook("https://example.com/hook");
    stage.receive(1);
    stage.run("", sleep(Duration::from_millis(300))).await;
    assert!(stage.server.has_webhook() && stage.ids().is_empty());
    stage.run("delete_webhook=true", stage.received(1)).await;
    assert!(!stage.server.has_webhook());
    assert_eq!(stage.ids(), [1]);
}

#[tokio::test]
async fn kinds_that_are_not_asked_for_do_not_come() {
    let stage = Stage::new().await;
    stage
        .run("allowed_updates=callback_query,message", async {
            stage.server.polled().await;
            assert_eq!(stage.server.receive("poll", &json!({})), None);
            let message = json!({ "chat": { "id": -9 } });
            stage.server.receive("callback_query", &json!({ "data": "yes", "message": message })).unwrap();
            stage.received(1).await;
        })
        .await;
    let received = stage.mock.endpoint("out").received();
    let text = |name: &str| received[0].message.headers.get(name).unwrap().to_string();
    assert_eq!(
        ["telegram.type", "telegram.chat_id", "telegram.text"].map(text),
        ["callback_query", "-9", "yes"]
    );
}

#[tokio::test]
async fn a_bot_responses_in_the_chat_it_was_asked_in() {
    let stage = Stage::new().await;
    stage.receive(1);
    let route =
        from(stage.uri("")).set_body("You said: ${header.telegram.text}").to(stage.uri("")).to("mock:out");
    let _ = stage.router(route, None).run_until(stage.received(1)).await;
    let calls = stage.server.calls("sendMessage");
    assert_eq!(calls[0].parameters, json!({ "chat_id": "7", "text": "You said: message 0" }));
    let received = stage.mock.endpoint("out").received();
    assert_eq!(received[0].message.headers.get("telegram.message_id").unwrap().to_string(), "2");
}

#[tokio::test]
async fn messages_to_one_chat_keep_their_distance_and_pauses_are_made() {
    let stage = Stage::new().await;
    stage.server.fail_next("sendMessage", Fault::TooManyRequests(1));
    let route = from("timer:t?delay=0&period=1ms&repeat_count=3")
        .set_body("tick")
        .to(stage.uri("chat_id=5&pacing=300ms"));
    let router = stage.router(route.to("mock:out"), None);
    let _ = router.run_until(stage.mock.endpoint("out").wait_for(3)).await;
    let calls = stage.server.calls("sendMessage");
    let pauses = calls.windows(2).map(|pair| pair[1].at - pair[0].at).collect::<Vec<_>>();
    assert!(pauses[0] >= Duration::from_secs(1), "{pauses:?}");
    assert!(pauses[1..].iter().all(|pause| *pause >= Duration::from_millis(280)), "{pauses:?}");
}

#[tokio::test]
async fn other_methods_are_called_by_name_and_the_token_is_in_no_error() {
    let stage = Stage::new().await;
    let route = |uri: String, method: &'static str| {
        from("timer:t?delay=0&repeat_count=1")
            .set_header("telegram.method", method)
            .process(|exchange| {
                exchange.message.body = json!({ "chat_id": 5, "action": "typing" }).into();
                Ok(())
            })
            .error_handler(ErrorHandlerDefinition {
                dead_letter: Some(SourceText::from_code("mock:dead").into()),
                ..ErrorHandlerDefinition::default()
            })
            .to(uri)
            .to("mock:out")
    };
    let _ = stage.router(route(stage.uri(""), "sendChatAction"), None).run_until(stage.received(1)).await;
    assert_eq!(
        stage.server.calls("sendChatAction")[0].parameters,
        json!({ "chat_id": 5, "action": "typing" })
    );
    std::fs::write(stage.folder.path().join("token"), "123:wrong").unwrap();
    let dead = stage.mock.endpoint("dead");
    let _ = stage.router(route(stage.uri(""), "getMe"), None).run_until(dead.wait_for(1)).await;
    // Nobody listens there.
    let uri = stage.uri("").replace(&stage.server.base_uri(), "http://127.0.0.1:1");
    let _ = stage.router(route(uri, "getMe"), None).run_until(dead.wait_for(2)).await;
    let messages = dead.received();
    let messages = messages.iter().map(|exchange| exchange.exception().unwrap().message.to_string());
    let messages = messages.collect::<Vec<_>>().join("\n");
    assert!(messages.contains("401") && messages.contains("connect"), "{messages}");
    assert!(!messages.contains("wrong") && !messages.contains("/bot"), "{messages}");
}

/// A server that responds the n-th request, from 0, to a path, as `response` says. Returns its address.
async fn odd_server(response: impl Fn(usize, &str) -> Value + Clone + Send + Sync + 'static) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let app = axum::Router::new().fallback(async move |request: axum::extract::Request| {
        response(count.fetch_add(1, Ordering::SeqCst), request.uri().path()).to_string()
    });
    #[expect(clippy::disallowed_methods, reason = "ends with the test")]
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

#[tokio::test]
async fn a_server_that_repeats_the_token_in_another_spelling_does_not_get_it_into_an_error() {
    let stage = Stage::new().await;
    let server = odd_server(|_, path| {
        let (_, key) = TOKEN.split_once(':').unwrap();
        let spellings = format!("{path}, {}, key {key}", path.replace(':', "%3A"));
        json!({ "ok": false, "error_code": 500, "description": format!("no upstream for {spellings}") })
    });
    let uri = stage.uri("chat_id=1").replace(&stage.server.base_uri(), &server.await);
    let route =
        from("timer:t?delay=0&repeat_count=1").set_body("hello").error_handler(ErrorHandlerDefinition {
            dead_letter: Some(SourceText::from_code("mock:dead").into()),
            ..ErrorHandlerDefinition::default()
        });
    let dead = stage.mock.endpoint("dead");
    let _ = stage.router(route.to(uri), None).run_until(dead.wait_for(1)).await;
    let message = dead.received()[0].exception().unwrap().message.clone();
    assert!(message.contains("no upstream") && !message.contains("hush-hush"), "{message}");
}

#[tokio::test]
async fn a_response_without_ids_is_asked_for_again() {
    let stage = Stage::new().await;
    let server = odd_server(|number, _| match number {
        0 => json!({ "ok": true, "result": [7] }),
        1 => json!({ "ok": true, "result": [{ "update_id": i64::MAX - 1, "message": {} }] }),
        _ => json!({ "ok": true, "result": [] }),
    });
    let uri = stage.uri("timeout=0s").replace(&stage.server.base_uri(), &server.await);
    let router = stage.router(from(uri).to("mock:out"), None);
    let _ = timeout(Duration::from_secs(20), router.run_until(stage.received(1))).await.unwrap();
    assert_eq!(stage.ids(), [i64::MAX - 1]);
}

#[tokio::test]
async fn an_update_that_cannot_be_acknowledged_is_not_asked_for_without_a_pause() {
    let stage = Stage::new().await;
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let server = odd_server(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        json!({ "ok": true, "result": [{ "update_id": i64::MAX, "message": {} }] })
    });
    let uri = stage.uri("timeout=0s").replace(&stage.server.base_uri(), &server.await);
    let router = stage.router(from(uri).to("mock:out"), None);
    let _ = router.run_until(sleep(Duration::from_secs(2))).await;
    let polls = polls.load(Ordering::Relaxed);
    assert!((1..=3).contains(&polls), "{polls} polls in two seconds");
    assert_eq!(stage.ids(), [] as [i64; 0]);
}

#[test]
fn a_password_in_the_address_of_the_server_gets_the_advice_that_there_is() {
    let build = |uri: &'static str| {
        let built = RouterBuilder::new().component(TelegramComponent::default()).route(from(uri)).build();
        built.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    for uri in [
        "telegram:bots?authorization_token=env:T&base_uri=https://me:hunter2@h/&limt=1",
        "telegram:bots?authorization_token=env:T&base_uri=https:me%3Ahunter2%40h",
    ] {
        let error = build(uri);
        assert!(error.contains("`base_uri` cannot contain a user or password"), "{error}");
        assert!(error.contains("^^^^^^^^\n"), "{error}");
        assert!(error.contains("`authorization_token`") && !error.contains("auth_password"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn nothing_is_done_where_it_cannot_be_noted() {
    let stage = Stage::new().await;
    stage.receive(3);
    let directory = stage.folder.path().join("kept");
    std::fs::create_dir(&directory).unwrap();
    let uri = stage.uri(&format!("dedupe=true&state={}", directory.join("state").display()));
    let router = stage.router(from(uri).to("mock:out"), None);
    std::fs::remove_dir(&directory).unwrap();
    // Longer than the first pause before the consumer is tried again.
    let _ = router.run_until(sleep(Duration::from_secs(2))).await;
    assert_eq!(stage.ids(), [] as [i64; 0]);
}
