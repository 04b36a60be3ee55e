//! How servers really are: what they ask of requests, and what they send, against a real server.

#![cfg(feature = "http")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use components::{HttpClients, HttpComponent};
use router_core::error::BoxError;
use router_core::exchange::{BodyKind, Exchange};
use router_core::failure::{ErrorKind, Failure};
use router_core::router::RouterBuilder;
use router_core::value::Value;

/// What a server was sent.
#[derive(Clone, Debug)]
struct Sent {
    line: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

struct Server {
    address: String,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Server {
    /// Each request gets what `response` makes.
    async fn start(response: impl Fn() -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&sent);
        let app = Router::new().fallback(async move |request: Request| {
            let (parts, body) = request.into_parts();
            let body = to_bytes(body, 1 << 20).await.unwrap().to_vec();
            let line = format!("{} {}", parts.method, parts.uri);
            noted.lock().unwrap().push(Sent { line, headers: parts.headers, body });
            response()
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, sent }
    }

    async fn call(&self, rest: &str, exchange: &mut Exchange) -> Result<(), BoxError> {
        let http = HttpComponent::new(HttpClients::default());
        let router = RouterBuilder::new().component(http).build().unwrap();
        let producer = router.producer(format!("http:{}{rest}", self.address).as_str()).unwrap();
        producer.process(exchange).await
    }

    fn last(&self) -> Sent {
        self.sent.lock().unwrap().last().unwrap().clone()
    }
}

fn response(label: &'static str, body: &'static [u8]) -> Response {
    Response::builder().header("content-type", label).body(Body::from(body)).unwrap()
}

#[tokio::test]
async fn a_method_with_content_says_that_there_is_none() {
    let server = Server::start(|| response("text/plain", b"")).await;
    for method in ["POST", "PUT", "PATCH"] {
        server.call(&format!("/?http_method={method}"), &mut Exchange::new(())).await.unwrap();
        assert_eq!(server.last().headers.get("content-length").unwrap(), "0", "{method}");
        assert_eq!(server.last().headers.get("content-type"), None, "{method}");
    }
    for method in ["GET", "DELETE", "OPTIONS"] {
        server.call(&format!("/?http_method={method}"), &mut Exchange::new(())).await.unwrap();
        assert_eq!(server.last().headers.get("content-length"), None, "{method}");
    }
}

#[tokio::test]
async fn delete_carries_a_body_where_it_is_asked_to() {
    let server = Server::start(|| response("text/plain", b"")).await;
    for (options, body) in [("", ""), ("&delete_with_body=true", "ids"), ("&delete_with_body=false", "")] {
        server.call(&format!("/?http_method=DELETE{options}"), &mut Exchange::new("ids")).await.unwrap();
        assert_eq!(server.last().body, body.as_bytes(), "{options}");
    }
}

#[tokio::test]
async fn a_path_of_a_message_arrives_as_it_is() {
    let server = Server::start(|| response("text/plain", b"")).await;
    for (path, line) in [
        ("100%", "/a/100%25"),
        ("a%2fb", "/a/a%252fb"),
        ("a b?c#d", "/a/a%20b%3Fc%23d"),
        ("a\\b", "/a/a%5Cb"),
        ("/x//y/", "/a/x//y/"),
        ("grün", "/a/gr%C3%BCn"),
    ] {
        let mut exchange = Exchange::new(());
        exchange.message.headers.set("http.path", path);
        server.call("/a", &mut exchange).await.unwrap();
        assert_eq!(server.last().line, format!("GET {line}"));
    }
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_fails_the_exchange_and_nothing_is_sent() {
    let server = Server::start(|| response("text/plain", b"")).await;
    for (name, value) in [("order id", "7"), ("x-order", "7\r\nhost: evil")] {
        let mut exchange = Exchange::new(());
        exchange.message.headers.set(name, value);
        let error = server.call("/", &mut exchange).await.unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(Failure::of(error).kind, ErrorKind::Data);
    }
    assert!(server.sent.lock().unwrap().is_empty());
    let mut exchange = Exchange::new(());
    exchange.message.headers.set("x-name", "grün");
    server.call("/", &mut exchange).await.unwrap();
    assert_eq!(server.last().headers["x-name"].as_bytes(), "grün".as_bytes());
}

/// `café ` three times.
const GZIP: &[u8] = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03KNL;\xbcR!\x19\x89\x04\0G\x9d\\8\x12\0\0\0";

fn compressed(content: &'static [u8]) -> Response {
    let mut response = response("text/plain", content);
    response.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    response
}

#[tokio::test]
async fn what_is_compressed_is_decompressed_also_where_it_was_not_asked_for() {
    let server = Server::start(|| compressed(GZIP)).await;
    for accepts in [None, Some("identity")] {
        let mut exchange = Exchange::new(());
        if let Some(accepts) = accepts {
            exchange.message.headers.set("accept-encoding", accepts);
        }
        server.call("/", &mut exchange).await.unwrap();
        assert_eq!(exchange.message.body.to_string(), "café café café ");
        assert_eq!(exchange.message.headers.get("content-encoding"), None);
        assert_eq!(server.last().headers["accept-encoding"], accepts.unwrap_or("gzip"));
    }
    let error = server.call("/?max_response_size=17", &mut Exchange::new("kept")).await.unwrap_err();
    assert!(error.to_string().contains("max_response_size"), "the size is that of the content: {error}");
}

#[tokio::test]
async fn what_is_cut_off_inside_of_its_compression_is_an_error_and_no_shorter_body() {
    let server = Server::start(|| compressed(&GZIP[..22])).await;
    let mut exchange = Exchange::new("kept");
    server.call("/", &mut exchange).await.unwrap_err();
    assert_eq!(exchange.message.body.to_string(), "kept");
}

#[tokio::test]
async fn text_in_another_charset_is_sent_on_as_utf_8() {
    let server = Server::start(|| response("text/plain; charset=iso-8859-1", b"caf\xe9")).await;
    let mut exchange = Exchange::new(());
    server.call("/", &mut exchange).await.unwrap();
    assert_eq!(
        (exchange.message.body.kind(), exchange.message.body.to_string()),
        (BodyKind::Text, "café".into())
    );
    server.call("/?http_method=POST", &mut exchange).await.unwrap();
    let sent = server.last();
    assert_eq!(
        (sent.headers["content-type"].to_str().unwrap(), sent.body),
        ("text/plain; charset=utf-8", "café".into())
    );
}

#[tokio::test]
async fn what_a_server_says_about_a_refusal_is_there_for_the_error_handler() {
    let refusal = || {
        Response::builder()
            .status(422)
            .header("content-type", "application/json")
            .header("x-request-id", "r7")
            .body(Body::from("{\"error\":\n  \"no such customer\"}"))
            .unwrap()
    };
    let server = Server::start(refusal).await;
    let mut exchange = Exchange::new("order 7");
    let error = server.call("/", &mut exchange).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the response was 422 Unprocessable Entity: {\"error\": \"no such customer\"}"
    );
    assert_eq!(exchange.message.body.to_string(), "order 7");
    let property = |name: &str| exchange.properties.get(name).unwrap();
    assert_eq!(property("http.response_body"), &Value::from("{\"error\":\n  \"no such customer\"}"));
    let headers = property("http.response_headers").to_string();
    assert!(headers.contains(r#""x-request-id":"r7""#), "{headers}");
}

#[tokio::test]
async fn a_refusal_of_any_length_is_bounded_and_a_page_is_not_shown() {
    static PAGE: [u8; 1 << 20] = [b'x'; 1 << 20];
    for (label, shown) in [("text/html", ""), ("text/plain", "xxx")] {
        let refusal = move || {
            let mut refusal = response(label, &PAGE);
            *refusal.status_mut() = axum::http::StatusCode::BAD_GATEWAY;
            refusal
        };
        let (server, mut exchange) = (Server::start(refusal).await, Exchange::new(()));
        let error = server.call("/", &mut exchange).await.unwrap_err().to_string();
        assert_eq!(error.contains("xxx"), !shown.is_empty());
        assert!(error.len() < 300, "{}", error.len());
        assert_eq!(exchange.properties.get("http.response_body").unwrap().to_string().len(), 64 << 10);
    }
}

#[tokio::test]
async fn what_is_compressed_in_another_way_stays_as_it_came_and_says_so() {
    let twice = || {
        let mut response = compressed(b"abc");
        response.headers_mut().append("content-encoding", HeaderValue::from_static("gzip"));
        response
    };
    let other = || {
        let mut response = response("text/plain", b"abc");
        response.headers_mut().insert("content-encoding", HeaderValue::from_static("br"));
        response
    };
    for (server, left) in [(Server::start(twice).await, "gzip, gzip"), (Server::start(other).await, "br")] {
        let mut exchange = Exchange::new(());
        server.call("/", &mut exchange).await.unwrap();
        assert_eq!(exchange.message.body.kind(), BodyKind::Bytes);
        assert_eq!(exchange.message.headers.get("content-encoding"), Some(&left.into()));
    }
}
