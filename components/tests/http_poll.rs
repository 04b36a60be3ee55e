//! What `http-poll:` promises, against a server that plays a script.

#![cfg(feature = "http")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use components::{HttpComponent, HttpPollComponent, MasterComponent, MockComponent};
use router_core::builder::{RouteBuilder, Steps, dynamic, from};
use router_core::cluster::{ClusterService, MemoryCluster};
use router_core::router::RouterBuilder;
use router_core::spool::SpoolSettings;
use serde_json::{Value, json};
use tokio::time::Instant;

/// A server whose response to the n-th request, from 0, is that of `response`, and notes all requests.
struct Server {
    address: String,
    requests: Arc<Mutex<Vec<(String, Instant)>>>,
}

impl Server {
    async fn start(response: impl Fn(usize, &Request) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&requests);
        let app = Router::new().fallback(async move |request: Request| {
            let header = |name: &str| {
                let value = request.headers().get(name).and_then(|value| value.to_str().ok());
                value.map(|value| format!(" {name}={value}")).unwrap_or_default()
            };
            let line = format!(
                "{}{}{}{}",
                request.uri(),
                header("if-none-match"),
                header("if-modified-since"),
                header("x-cursor")
            );
            let number = {
                let mut noted = noted.lock().unwrap();
                noted.push((line, Instant::now()));
                noted.len() - 1
            };
            response(number, &request)
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
    }

    /// How long the server was left in peace after the first request.
    fn first_pause(&self) -> Duration {
        let requests = self.requests.lock().unwrap();
        requests[1].1 - requests[0].1
    }

    async fn wait_for(&self, count: usize) {
        while self.requests.lock().unwrap().len() < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

fn json(value: &Value) -> Response {
    Response::builder()
        .header("content-type", "application/json")
        .body(Body::from(value.to_string()))
        .unwrap()
}

fn status(status: u16) -> Response {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

fn poll(server: &Server, options: &str) -> RouteBuilder {
    from(format!("http-poll:http://{}/items?period=5ms&{options}", server.address)).id("poll")
}

fn builder(mock: &MockComponent) -> RouterBuilder {
    RouterBuilder::new()
        .component(HttpPollComponent::default())
        .component(HttpComponent::default())
        .component(mock.clone())
}

fn build(route: RouteBuilder, mock: &MockComponent) -> router_core::router::Router {
    builder(mock).route(route.to("mock:out")).build().unwrap()
}

async fn run(route: RouteBuilder, mock: &MockComponent, until: impl Future<Output = ()>) {
    let router = build(route, mock);
    let _ = tokio::time::timeout(Duration::from_secs(20), router.run_until(until)).await.unwrap();
}

fn bodies(mock: &MockComponent) -> Vec<String> {
    mock.endpoint("out").received().iter().map(|exchange| exchange.message.body.to_string()).collect()
}

#[tokio::test]
async fn a_response_that_has_not_changed_makes_no_exchange() {
    let server = Server::start(|_, request| match request.headers().get("if-none-match") {
        Some(_) => status(304),
        None => Response::builder().header("etag", "\"v1\"").body(Body::from("hello")).unwrap(),
    })
    .await;
    let mock = MockComponent::default();
    run(poll(&server, "query=a=b"), &mock, server.wait_for(4)).await;
    assert_eq!(bodies(&mock), ["hello"]);
    assert_eq!(server.requests()[..2], ["/items?a=b", "/items?a=b if-none-match=\"v1\""]);
}

#[tokio::test]
async fn items_come_one_by_one_and_the_cursor_goes_back_when_they_are_done() {
    let response = |number: usize, _: &Request| {
        json(&match number {
            0 => json!({ "items": [1, 2], "next": 2 }),
            1 => json!({ "items": [3], "next": "3 & more" }),
            _ => json!({ "items": [] }),
        })
    };
    for (place, expected) in [
        ("cursor_parameter=after", ["?after=start", "?after=2", "?after=3+%26+more", "?after=3+%26+more"]),
        (
            "cursor_header=x-cursor",
            [" x-cursor=start", " x-cursor=2", " x-cursor=3 & more", " x-cursor=3 & more"],
        ),
    ] {
        let (server, mock) = (Server::start(response).await, MockComponent::default());
        let options = format!("split=/items&cursor=/next&cursor_start=start&{place}");
        run(poll(&server, &options), &mock, server.wait_for(4)).await;
        assert_eq!(bodies(&mock), ["1", "2", "3"]);
        assert_eq!(server.requests()[..4], expected.map(|rest| format!("/items{rest}")));
    }
}

#[tokio::test]
async fn a_version_of_one_cursor_is_not_sent_with_another() {
    let server = Server::start(|number, _| {
        let mut response = json(&json!({ "next": number.min(1) }));
        response.headers_mut().insert("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
        response
    });
    let (server, mock) = (server.await, MockComponent::default());
    run(poll(&server, "cursor=/next&cursor_parameter=c"), &mock, server.wait_for(4)).await;
    let since = " if-modified-since=Sun, 06 Nov 1994 08:49:37 GMT";
    let expected = ["/items", "/items?c=0", "/items?c=1", &format!("/items?c=1{since}")];
    assert_eq!(server.requests()[..4], expected);
}

#[tokio::test]
async fn ids_that_were_done_are_left_out_even_if_the_response_shows_them_for_ever() {
    let server = Server::start(|number, _| {
        let items = (0..5 + number.min(3)).map(|id| json!({ "id": id, "text": format!("item {id}") }));
        json(&items.collect())
    });
    let (server, mock) = (server.await, MockComponent::default());
    run(poll(&server, "split=/&dedupe=/id&dedupe_max=2"), &mock, server.wait_for(7)).await;
    let ids = mock.endpoint("out").received();
    let ids = ids.iter().map(|exchange| exchange.message.headers.get("http_poll.id").unwrap().to_string());
    assert_eq!(ids.collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
}

#[tokio::test]
async fn a_response_whose_ids_do_not_fit_is_refused_before_anything_is_done() {
    let page = |from: usize, to: usize| {
        let items = (from..to).map(|id| json!({ "id": format!("{id:020}") })).collect::<Vec<_>>();
        json!({ "items": items, "next": to })
    };
    // Two pages of which each fits, but not both, and one that does not.
    let server = Server::start(move |number, _| match number {
        0 => json(&page(0, 500)),
        1 => json(&page(500, 1_000)),
        _ => json(&page(1_000, 2_000)),
    })
    .await;
    let mock = MockComponent::default();
    let options = "split=/items&dedupe=/id&dedupe_max=900&cursor=/next&cursor_parameter=after";
    run(poll(&server, options), &mock, server.wait_for(4)).await;
    assert_eq!(bodies(&mock).len(), 1_000);
    assert_eq!(server.requests()[2..4], ["/items?after=1000", "/items?after=1000"]);
}

#[tokio::test]
async fn an_empty_cursor_does_not_begin_anew() {
    let server = Server::start(|number, _| json(&json!({ "next": if number == 0 { "7" } else { "" } })));
    let (server, mock) = (server.await, MockComponent::default());
    run(poll(&server, "cursor=/next&cursor_parameter=after"), &mock, server.wait_for(4)).await;
    assert_eq!(server.requests()[..4], ["/items", "/items?after=7", "/items?after=7", "/items?after=7"]);
}

#[tokio::test]
async fn numbers_of_any_length_go_on_as_they_were_written() {
    const ITEMS: &str = r#"{"next": 123456789012345678901234567890, "items": [
        {"id": 123456789012345678901234, "amount": 123456789012345678901234567890.10},
        {"id": 123456789012345678901235, "amount": 0.1000000000000000055511151231257827},
        {"id": 1E2, "amount": 1E2}]}"#;
    let server = Server::start(|_, _| Response::new(Body::from(ITEMS))).await;
    let receiver = Server::start(|_, request| {
        assert_eq!(
            request.headers()["x-amount"].to_str().unwrap(),
            request.uri().path().rsplit('/').next().unwrap()
        );
        status(204)
    })
    .await;
    let route = poll(&server, "split=/items&dedupe=/id&cursor=/next&cursor_parameter=after")
        .to("mock:in")
        .set_header("x-amount", "${body.amount}")
        .to_dynamic(dynamic(format!(
            "http:{}/${{header.http_poll.id}}/${{body.amount}}?http_method=PUT",
            receiver.address
        )));
    let mock = MockComponent::default();
    let out = mock.endpoint("out");
    run(route, &mock, async {
        tokio::join!(out.wait_for(3), server.wait_for(2));
    })
    .await;
    let bodies = mock.endpoint("in").received();
    let bodies = bodies.iter().map(|exchange| exchange.message.body.to_string()).collect::<Vec<_>>();
    assert_eq!(
        bodies,
        [
            r#"{"id":123456789012345678901234,"amount":123456789012345678901234567890.10}"#,
            r#"{"id":123456789012345678901235,"amount":0.1000000000000000055511151231257827}"#,
            r#"{"id":1E2,"amount":1E2}"#,
        ]
    );
    let paths = receiver.requests();
    assert_eq!(
        paths,
        [
            "/123456789012345678901234/123456789012345678901234567890.10",
            "/123456789012345678901235/0.1000000000000000055511151231257827",
            "/1E2/1E2",
        ]
    );
    assert_eq!(server.requests()[1], "/items?after=123456789012345678901234567890");
}

#[tokio::test]
async fn a_key_that_stands_twice_is_refused_where_that_is_asked_for() {
    for (unique_keys, expected) in [(true, r#"{"a":3}"#), (false, r#"{"a":2}"#)] {
        let server = Server::start(|number, _| {
            Response::new(Body::from(if number == 0 { r#"[{"a": 1, "a": 2}]"# } else { r#"[{"a": 3}]"# }))
        });
        let (server, mock) = (server.await, MockComponent::default());
        let router = builder(&mock)
            .spool(SpoolSettings { unique_keys, ..SpoolSettings::default() })
            .route(poll(&server, "split=/").to("mock:out"))
            .build()
            .unwrap();
        let out = mock.endpoint("out");
        let end = router.run_until(out.wait_for(1));
        let _ = tokio::time::timeout(Duration::from_secs(20), end).await.unwrap();
        assert_eq!(bodies(&mock)[0], expected);
    }
}

#[tokio::test]
async fn nothing_is_done_where_it_cannot_be_noted() {
    let server = Server::start(|_, _| json(&json!([{ "id": 1 }]))).await;
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("kept");
    std::fs::create_dir(&directory).unwrap();
    let options = format!("split=/&dedupe=/id&state={}", directory.join("state").display());
    let mock = MockComponent::default();
    let router = build(poll(&server, &options), &mock);
    std::fs::remove_dir(&directory).unwrap();
    // Longer than the first pause before the consumer is tried again.
    let _ = router.run_until(tokio::time::sleep(Duration::from_secs(2))).await;
    assert_eq!(bodies(&mock), [] as [String; 0]);
}

#[tokio::test]
async fn the_id_of_an_item_goes_on_as_an_idempotency_key() {
    let server = Server::start(|_, _| json(&json!([{ "id": 7 }]))).await;
    let keys = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&keys);
    let receiver = Server::start(move |_, request| {
        noted.lock().unwrap().push(request.headers()["idempotency-key"].to_str().unwrap().to_owned());
        status(204)
    })
    .await;
    let route = poll(&server, "split=/&dedupe=/id")
        .set_header("idempotency-key", "orders-${header.http_poll.id}")
        .to(format!("http:{}/orders", receiver.address));
    let mock = MockComponent::default();
    run(route, &mock, mock.endpoint("out").wait_for(1)).await;
    assert_eq!(*keys.lock().unwrap(), ["orders-7"]);
}

#[tokio::test]
async fn a_failed_exchange_moves_nothing_and_comes_again() {
    let server =
        Server::start(|_, _| json(&json!({ "items": [{ "id": 1 }, { "id": 2 }, { "id": 3 }], "next": 3 })));
    let (server, mock, fails) = (server.await, MockComponent::default(), Arc::new(AtomicBool::new(true)));
    let route =
        poll(&server, "split=/items&dedupe=/id&cursor=/next&cursor_parameter=c").process(move |exchange| {
            let second = exchange.message.headers.get("http_poll.id").unwrap().to_string() == "2";
            if second && fails.swap(false, Ordering::Relaxed) { Err("not now".into()) } else { Ok(()) }
        });
    run(route, &mock, server.wait_for(3)).await;
    assert_eq!(bodies(&mock), [r#"{"id":1}"#, r#"{"id":2}"#, r#"{"id":3}"#]);
    assert_eq!(server.requests()[..3], ["/items", "/items", "/items?c=3"]);
    assert!(server.first_pause() >= Duration::from_millis(500), "{:?}", server.first_pause());
}

#[tokio::test]
async fn a_server_that_asks_for_peace_gets_it() {
    let response = |number: usize, _: &Request| match number {
        0 => Response::builder().status(429).header("retry-after", "2").body(Body::empty()).unwrap(),
        _ => json(&json!(1)),
    };
    let (server, mock) = (Server::start(response).await, MockComponent::default());
    run(poll(&server, ""), &mock, server.wait_for(2)).await;
    assert!(server.first_pause() >= Duration::from_secs(2), "{:?}", server.first_pause());
}

#[tokio::test]
async fn what_is_no_response_is_asked_for_again() {
    let response = |number: usize, _: &Request| match number {
        0 => Response::new(Body::from("{")),
        1 => json(&json!({ "no items": [] })),
        _ => json(&json!({ "items": ["a"] })),
    };
    let (server, mock) = (Server::start(response).await, MockComponent::default());
    let route = poll(&server, "split=/items&max_backoff=20ms");
    run(route, &mock, mock.endpoint("out").wait_for(1)).await;
    assert_eq!(bodies(&mock)[0], "a");
}

#[tokio::test]
async fn the_next_leader_goes_on_where_the_last_one_was() {
    let response = |_: usize, request: &Request| {
        let after: u64 =
            request.uri().query().map_or(0, |query| query.trim_start_matches("c=").parse().unwrap());
        json(&json!({ "items": [after + 1, after + 2], "next": after + 2 }))
    };
    let (server, mock, first) =
        (Server::start(response).await, MockComponent::default(), MemoryCluster::new("a"));
    let mut expected = 0;
    for cluster in [Arc::clone(&first), first.join("b"), first.join("c")] {
        let uri = format!(
            "master:lock1:http-poll:http://{}/?period=1ms&split=/items&cursor=/next&cursor_parameter=c",
            server.address
        );
        let router = RouterBuilder::new()
            .component(HttpPollComponent::default())
            .component(MasterComponent::default())
            .component(mock.clone())
            .cluster(cluster as Arc<dyn ClusterService>)
            .route(from(uri).id("poll").to("mock:out"))
            .build()
            .unwrap();
        expected += 5;
        let _ = router.run_until(mock.endpoint("out").wait_for(expected)).await;
        expected = bodies(&mock).len();
    }
    let numbers = bodies(&mock).iter().map(|body| body.parse::<u64>().unwrap()).collect::<Vec<_>>();
    assert!(numbers.len() >= 15);
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "each once, in order: {numbers:?}");
}

#[tokio::test]
async fn a_cursor_that_cannot_be_sent_is_refused_before_the_position_moves() {
    for unfit in ["8\r\nx: y", " 8", "8\t"] {
        let response = move |number: usize, _: &Request| {
            json(&match number {
                0 => json!({ "items": [1], "next": "7" }),
                1 => json!({ "items": [2], "next": unfit }),
                2 => json!({ "items": [2], "next": "8" }),
                _ => json!({ "items": [] }),
            })
        };
        let server = Server::start(response).await;
        let (mock, folder) = (MockComponent::default(), tempfile::tempdir().unwrap());
        let state = folder.path().join("state");
        let options = format!("split=/items&cursor=/next&cursor_header=x-after&state={}", state.display());
        let is_stored = async {
            while !std::fs::read_to_string(&state).unwrap_or_default().contains("\"8\"") {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        run(poll(&server, &options), &mock, is_stored).await;
        assert_eq!(bodies(&mock), ["1", "2"], "what came with {unfit:?} was not begun");
        assert!(!std::fs::read_to_string(&state).unwrap().contains("x: y"));
    }
    let long = "x".repeat(15_000);
    let server = Server::start(move |number, _| match number {
        0 => json(&json!({ "next": "\u{2603}".repeat(5_000) })),
        _ => json(&json!({ "next": "9" })),
    });
    let (server, mock) = (server.await, MockComponent::default());
    let options = format!("query=a={long}%26b={long}&cursor=/next&cursor_parameter=after");
    run(poll(&server, &options), &mock, server.wait_for(3)).await;
    assert!(server.requests()[2].ends_with("after=9"), "the URL would have been too long");
}

#[test]
fn errors_are_found_before_anything_runs() {
    let errors = |uri: &'static str| {
        let built = RouterBuilder::new().component(HttpPollComponent::default()).route(from(uri)).build();
        built.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    assert!(errors("http-poll:localhost/x").contains("a URL that starts with `http://` or `https://`"));
    assert!(errors("http-poll:http://h/?split=items").contains("takes a JSON pointer"));
    assert!(errors("http-poll:http://h/?cursor=/next").contains("goes with `cursor_parameter` or"));
    assert!(errors("http-poll:http://h/?cursor_parameter=a").contains("option `cursor` goes with"));
    // An option with another error is not missing as well.
    for uri in ["cursor=%ff&cursor_parameter=a", "cursor=/a&cursor_header=${x}", "cursor_start=%ff&cursor=/a"]
    {
        let found = errors(Box::leak(format!("http-poll:http://h/?{uri}").into_boxed_str()));
        assert_eq!(found.matches("error:").count(), 1, "{uri}: {found}");
    }
    for uri in [
        "http-poll:http://h/?cursor=/next&cursor_header=x-after&cursor_start=a%0Ab",
        "http-poll:http://h/?cursor=/next&cursor_header=x-after&cursor_start=%20a",
    ] {
        let start = errors(uri);
        assert!(start.contains("option `cursor_start` is no value of the header `x-after`"), "{start}");
    }
    for uri in [
        "http-poll:http://me:hunter2@h/?perod=1s",
        "http-poll:https:/me:hunter2@h/?perod=1s",
        "http-poll:https:me:hunter2@h/?perod=1s",
        "http-poll:me:hunter2@h/?perod=1s",
    ] {
        let secret = errors(uri);
        assert!(
            secret.contains("cannot contain a user or password") && !secret.contains("hunter2"),
            "{secret}"
        );
    }
    assert_eq!(errors("http-poll:https://h/x?cursor=/a/0/b&cursor_header=X-After&split=/"), "");
}

#[tokio::test]
async fn null_is_an_empty_list_and_what_has_no_content_is_no_item() {
    let server = Server::start(|number, _| match number {
        0 => json(&json!({ "items": null })),
        1 => status(200),
        2 => status(204),
        _ => json(&json!({ "items": [number] })),
    });
    let (server, mock) = (server.await, MockComponent::default());
    run(poll(&server, "split=/items"), &mock, mock.endpoint("out").wait_for(1)).await;
    assert_eq!(bodies(&mock), ["3"]);
    // None of these was a failure.
    assert!(server.first_pause() < Duration::from_millis(500), "{:?}", server.first_pause());
    let server = Server::start(|number, _| if number == 0 { status(200) } else { json(&json!(1)) }).await;
    let mock = MockComponent::default();
    run(poll(&server, ""), &mock, mock.endpoint("out").wait_for(1)).await;
    assert_eq!(bodies(&mock), ["1"]);
}

#[tokio::test]
async fn the_last_page_is_worked_on_once_until_it_changes() {
    let server = Server::start(|number, request| {
        json(&match (request.uri().query(), number) {
            (None, _) => json!({ "items": [1], "next": 2 }),
            (_, 0..5) => json!({ "items": [2], "next": null }),
            (_, 5..8) => json!({ "items": [2, 3] }),
            (Some("after=2"), _) => json!({ "items": [2, 3], "next": 3 }),
            _ => json!({ "items": [] }),
        })
    });
    let (server, mock) = (server.await, MockComponent::default());
    run(poll(&server, "split=/items&cursor=/next&cursor_parameter=after"), &mock, server.wait_for(11)).await;
    assert_eq!(bodies(&mock), ["1", "2", "2", "3", "2", "3"], "each form of the page once");
    let requests = server.requests();
    assert_eq!(
        (&*requests[0], &*requests[1], &*requests[10]),
        ("/items", "/items?after=2", "/items?after=3")
    );
}

#[tokio::test]
async fn all_pages_are_read_again_after_the_last_one_where_that_is_asked_for() {
    let server = Server::start(|_, request| {
        json(&match request.uri().query() {
            Some("after=2") => json!({ "items": [2], "next": null }),
            _ => json!({ "items": [1], "next": 2 }),
        })
    });
    let (server, mock) = (server.await, MockComponent::default());
    let options = "split=/items&cursor=/next&cursor_parameter=after&cursor_start=0&cursor_end=restart";
    run(poll(&server, options), &mock, mock.endpoint("out").wait_for(4)).await;
    assert_eq!(
        server.requests()[..4],
        ["/items?after=0", "/items?after=2", "/items?after=0", "/items?after=2"]
    );
    assert_eq!(bodies(&mock)[..4], ["1", "2", "1", "2"]);
}

#[tokio::test]
async fn pages_that_are_there_are_read_without_the_pause_of_a_period() {
    let response = |number: usize, _: &Request| match number {
        0..9 => json(&json!({ "items": [number], "next": number })),
        _ => json(&json!({ "items": [], "next": number })),
    };
    for (most, asked_at_once) in [(100, 10), (4, 4)] {
        let (server, mock) = (Server::start(response).await, MockComponent::default());
        let options = format!("split=/items&cursor=/next&cursor_parameter=after&max_pages_per_poll={most}");
        let route = from(format!("http-poll:http://{}/items?period=1h&{options}", server.address)).id("poll");
        run(route, &mock, server.wait_for(asked_at_once)).await;
        assert_eq!(server.requests().len(), asked_at_once, "a page without items is followed by a pause");
    }
}

#[test]
fn a_cursor_without_ids_is_a_warning_and_without_an_end_an_error() {
    let mock = MockComponent::default();
    let built = |options: &str| {
        builder(&mock)
            .route(from(format!("http-poll:http://localhost/?{options}")).id("poll").to("mock:out"))
            .build_with_warnings()
    };
    let warned = |options: &str| {
        built(options).unwrap().1.warnings().any(|warning| warning.to_string().contains("dedupe"))
    };
    assert!(warned("cursor=/next&cursor_parameter=after"));
    assert!(!warned("cursor=/next&cursor_parameter=after&dedupe=/id"));
    assert!(built("cursor_end=restart").err().unwrap().to_string().contains("cursor_end"));
}
