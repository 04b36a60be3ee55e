//! What `http:` and `https:` promise, against a real server.

#![cfg(feature = "http")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router as Server;
use axum::body::{Body as ServerBody, to_bytes};
use axum::extract::{ConnectInfo, Path, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::any;
use components::{HttpClients, HttpComponent, MasterComponent, MockComponent, TimerComponent};
use router_core::builder::{Steps, from};
use router_core::cluster::{ClusterService, MemoryCluster};
use router_core::component::Processor;
use router_core::error::{BoxError, Chain, Severity};
use router_core::exchange::{Body, BodyKind, Exchange, Region};
use router_core::failure::{ErrorKind, Failure};
use router_core::router::RouterBuilder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

/// Answers with what it was sent: the request line, the headers, the body.
async fn echo(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let mut text = format!("{} {}\npeer: {}\n", parts.method, parts.uri, peer.port());
    for (name, value) in &parts.headers {
        writeln!(text, "{name}: {}", String::from_utf8_lossy(value.as_bytes())).unwrap();
    }
    text.push_str(&String::from_utf8_lossy(&to_bytes(body, 1 << 20).await.unwrap()));
    ([("x-response", "42"), ("set-cookie", "session=1"), ("file.name", "/etc/passwd")], text).into_response()
}

/// Answers with the status of the path, and asks for a pause of a minute.
async fn status(Path(status): Path<u16>) -> Response {
    (StatusCode::from_u16(status).unwrap(), [("retry-after", "60")]).into_response()
}

/// A server on a free port.
async fn serve() -> SocketAddr {
    let server = Server::new()
        .route("/missing", any(|| async { (StatusCode::NOT_FOUND, "no such order") }))
        .route("/moved", any(|| async { Redirect::temporary("/echo/moved") }))
        .route("/json", any(|| async { ([(header::CONTENT_TYPE, "application/json")], "{\"a\":1}") }))
        .route("/bytes", any(|| async { vec![0_u8, 159, 146, 150] }))
        .route("/status/{status}", any(status))
        .route("/large", any(|| async { ServerBody::from(vec![b'x'; 5000]) }))
        .fallback(echo);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = server.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    address
}

fn builder() -> RouterBuilder {
    let clients = HttpClients::default();
    RouterBuilder::new()
        .component(HttpComponent::with_tls(clients.clone()))
        .component(HttpComponent::new(clients))
}

fn producer(uri: impl Into<String>) -> Arc<dyn Processor> {
    let uri: String = uri.into();
    builder().build().unwrap().producer(uri.as_str()).unwrap_or_else(|errors| panic!("{errors}"))
}

async fn call(uri: impl Into<String>, exchange: &mut Exchange) -> Result<String, BoxError> {
    producer(uri).process(exchange).await?;
    Ok(exchange.message.body.to_string())
}

/// The line of the echo that starts with `name`.
fn line<'a>(echo: &'a str, name: &str) -> Option<&'a str> {
    echo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn the_response_becomes_the_message() {
    let server = serve().await;
    let mut exchange = Exchange::new("an order");
    exchange.message.headers.set("x-kept", "yes");
    let echo = call(format!("http://{server}/orders"), &mut exchange).await.unwrap();
    assert!(echo.starts_with("POST /orders\n"), "{echo}");
    assert!(echo.ends_with("an order"), "{echo}");
    assert_eq!(line(&echo, "content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(line(&echo, "user-agent"), Some(concat!("bactrian/", env!("CARGO_PKG_VERSION"))));
    let headers = &exchange.message.headers;
    assert_eq!(headers.get("http.response_code"), Some(&200.into()));
    assert_eq!(headers.get("x-response"), Some(&"42".into()));
    assert_eq!(headers.get("x-kept"), Some(&"yes".into()));
    assert_eq!((headers.get("set-cookie"), headers.get("file.name")), (None, None));
    call(format!("http:{server}/json"), &mut exchange).await.unwrap();
    assert_eq!(exchange.message.body.json::<serde_json::Value>().unwrap(), serde_json::json!({"a": 1}));
    call(format!("http:{server}/bytes"), &mut exchange).await.unwrap();
    let body = &exchange.message.body;
    assert_eq!((body.kind(), body.len()), (BodyKind::Bytes, 4));
}

#[tokio::test]
async fn options_and_headers_decide_method_path_and_query() {
    let server = serve().await;
    let first = async |options: &str, headers: &[(&'static str, &'static str)], body: Body| {
        let mut exchange = Exchange::new(body);
        for (name, value) in headers {
            exchange.message.headers.set(*name, *value);
        }
        let echo = call(format!("http:{server}/api{options}"), &mut exchange).await.unwrap();
        echo.lines().next().unwrap().to_owned()
    };
    assert_eq!(first("", &[], Body::empty()).await, "GET /api");
    assert_eq!(first("", &[], Body::from("x")).await, "POST /api");
    assert_eq!(first("?query=a=1%26b=2", &[], Body::from("x")).await, "GET /api?a=1&b=2");
    assert_eq!(first("?query=a=1", &[("http.query", "c=3")], Body::empty()).await, "GET /api?c=3");
    assert_eq!(
        first("", &[("http.method", "put"), ("http.path", "7/a b")], "x".into()).await,
        "PUT /api/7/a%20b"
    );
    assert_eq!(first("?http_method=delete", &[("http.method", "PUT")], "x".into()).await, "DELETE /api");
    let mut exchange = Exchange::new(());
    exchange.message.headers.set("http.method", "BREW");
    assert!(call(format!("http:{server}/api"), &mut exchange).await.is_err());
}

#[tokio::test]
async fn headers_travel_unless_they_belong_to_a_connection_or_a_component() {
    let server = serve().await;
    let mut exchange = Exchange::new(serde_json::json!({"n": 1}));
    let headers = &mut exchange.message.headers;
    for (name, value) in [("X-Order", "7"), ("Host", "evil"), ("timer.counter", "1"), ("Connection", "close")]
    {
        headers.set(name, value);
    }
    headers.set("bactrian-term", 99);
    let echo = call(format!("http:{server}/"), &mut exchange.clone()).await.unwrap();
    assert_eq!(line(&echo, "x-order"), Some("7"));
    assert_eq!(line(&echo, "host"), Some(&*server.to_string()));
    assert_eq!(line(&echo, "content-type"), Some("application/json"));
    for name in ["timer.counter", "connection", "bactrian-term"] {
        assert_eq!(line(&echo, name), None, "{name}");
    }
    let skipping = format!("http:{server}/?skip_request_headers=true&skip_response_headers=true");
    let echo = call(skipping, &mut exchange).await.unwrap();
    assert_eq!((line(&echo, "x-order"), exchange.message.headers.get("x-response")), (None, None));
}

#[tokio::test]
async fn a_status_out_of_range_is_a_failure_that_keeps_the_body() {
    let server = serve().await;
    let mut exchange = Exchange::new("order 7");
    let error = call(format!("http:{server}/missing"), &mut exchange).await.unwrap_err();
    assert_eq!(error.to_string(), "the response was 404 Not Found: no such order");
    assert_eq!(Failure::of(error).code.as_deref(), Some("404"));
    assert_eq!(exchange.message.body.to_string(), "order 7");
    assert_eq!(exchange.message.headers.get("http.response_code"), Some(&404.into()));
    for options in ["throw_exception_on_failure=false", "ok_status_code_range=200,400-404"] {
        let uri = format!("http:{server}/missing?{options}");
        assert_eq!(call(uri, &mut exchange).await.unwrap(), "no such order");
    }
}

#[tokio::test]
async fn failures_of_requests_have_kinds_codes_and_pauses() {
    use ErrorKind::{Data, Rejected, Timeout, Unavailable};
    let server = serve().await;
    for (status, kind) in [
        (400, Rejected),
        (401, Rejected),
        (408, Unavailable),
        (409, Rejected),
        (425, Unavailable),
        (429, Unavailable),
        (500, Unavailable),
        (501, Rejected),
        (503, Unavailable),
        (505, Rejected),
        (599, Unavailable),
    ] {
        let uri = format!("http:{server}/status/{status}");
        let failure = Failure::of(call(uri, &mut Exchange::new(())).await.unwrap_err());
        assert_eq!(failure.kind, kind, "{status}");
        assert_eq!(failure.code, Some(status.to_string().into()));
        assert_eq!(failure.retry_after, Some(Duration::from_secs(60)));
    }
    let closing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = closing.local_addr().unwrap();
    let kind = async |uri: String| {
        let mut exchange = Exchange::new("x");
        exchange.message.headers.set("http.path", "a");
        Failure::of(call(uri, &mut exchange).await.unwrap_err()).kind
    };
    assert_eq!(kind(format!("http:{gone}/?response_timeout=50ms")).await, Timeout);
    let accepted = tokio::spawn(async move {
        loop {
            drop(closing.accept().await);
        }
    });
    assert_eq!(kind(format!("http:{gone}/")).await, Unavailable, "the connection is closed");
    accepted.abort();
    let _ = accepted.await;
    assert_eq!(kind(format!("http:{gone}/")).await, Unavailable, "nothing listens there");
    assert_eq!(kind("http:host.invalid/".into()).await, Unavailable, "there is no such host");
    assert_eq!(kind(format!("http:{server}/large?max_response_size=10")).await, Data);
    let mut exchange = Exchange::new(());
    exchange.message.headers.set("http.path", "../b");
    let error = call(format!("http:{server}/a"), &mut exchange).await.unwrap_err();
    assert_eq!(Failure::of(error).kind, Data);
}

#[tokio::test]
async fn redirects_are_followed_only_when_asked() {
    let server = serve().await;
    let error = call(format!("http:{server}/moved"), &mut Exchange::new(())).await.unwrap_err();
    assert_eq!(error.to_string(), "the response was 307 Temporary Redirect");
    let echo =
        call(format!("http:{server}/moved?follow_redirects=true"), &mut Exchange::new(())).await.unwrap();
    assert!(echo.starts_with("GET /echo/moved\n"), "{echo}");
}

#[tokio::test]
async fn a_response_that_is_too_large_or_too_slow_is_a_failure() {
    let server = serve().await;
    let uri = format!("http:{server}/large?max_response_size=4999");
    let error = call(uri, &mut Exchange::new("kept")).await.unwrap_err();
    assert_eq!(error.to_string(), "the response is larger than 4999 bytes (`max_response_size`)");
    let uri = format!("http:{server}/large?max_response_size=5000");
    assert_eq!(call(uri, &mut Exchange::new(())).await.unwrap().len(), 5000);

    // One byte every 50 ms, for ever: each read is in time, the response is not.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 1000]).await;
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await.unwrap();
        while connection.write_all(b"x").await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    });
    let start = Instant::now();
    let uri = format!("http:{address}/?response_timeout=500ms");
    let error = call(uri, &mut Exchange::new(())).await.unwrap_err();
    assert_eq!(error.to_string(), "there was no complete response within 500ms");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn endpoints_with_the_same_settings_share_a_connection() {
    let server = serve().await;
    let router = builder().build().unwrap();
    let mut peers = Vec::new();
    for uri in ["a", "b", "b?connect_timeout=9s"] {
        let mut exchange = Exchange::new(());
        router.producer(format!("http:{server}/{uri}")).unwrap().process(&mut exchange).await.unwrap();
        peers.push(line(&exchange.message.body.to_string(), "peer").unwrap().to_owned());
    }
    assert_eq!(peers[0], peers[1]);
    assert_ne!(peers[1], peers[2]);
}

#[tokio::test]
async fn secrets_come_from_files_and_variables_and_are_read_for_each_request() {
    let server = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let bearer = producer(format!("http:{server}/?auth_bearer_token=file:{}", file.display()));
    let authorization = async |producer: &Arc<dyn Processor>| {
        let mut exchange = Exchange::new(());
        producer.process(&mut exchange).await.unwrap();
        line(&exchange.message.body.to_string(), "authorization").map(str::to_owned)
    };
    assert_eq!(authorization(&bearer).await.as_deref(), Some("Bearer first"));
    std::fs::write(&file, "second").unwrap();
    assert_eq!(authorization(&bearer).await.as_deref(), Some("Bearer second"));
    std::fs::write(&file, "Ann:secret").unwrap();
    // Cargo sets this variable for tests.
    let basic = producer(format!("http:{server}/?auth_username=ann&auth_password=env:CARGO_PKG_NAME"));
    assert_eq!(authorization(&basic).await.as_deref(), Some("Basic YW5uOmJhY3RyaWFuLWNvbXBvbmVudHM="));
    let router = builder().missing_secrets(Severity::Warning).build().unwrap();
    let unset = format!("http:{server}/?auth_bearer_token=env:BACTRIAN_NOT_SET");
    let unset = router.producer(unset).unwrap();
    let error = unset.process(&mut Exchange::new(())).await.unwrap_err();
    assert_eq!(error.to_string(), "the environment variable `BACTRIAN_NOT_SET` is not set");
}

#[test]
fn secrets_in_a_uri_and_other_errors_are_refused_without_showing_the_secret() {
    let errors = |uri: &str| {
        let route = from("timer:t").to(uri.to_owned());
        let built = builder().component(TimerComponent).route(route).build();
        built.err().map(|errors| errors.to_string()).unwrap_or_default()
    };
    for (uri, expected) in [
        ("http:ann:hunter2@host/", "cannot contain a user or password"),
        ("https://ann:hunter2@host/?unknown=1", "cannot contain a user or password"),
        ("http:ann%40hunter2@host\\@/", "cannot contain a user or password"),
        ("http:/ann:hunter2@host/?unknown=1", "cannot contain a user or password"),
        ("http:////ann:hunter2@host/?unknown=1", "cannot contain a user or password"),
        ("http:\\\\ann:hunter2@host/?unknown=1", "cannot contain a user or password"),
        ("https:https://ann:hunter2@host/?unknown=1", "cannot contain a user or password"),
        ("http:ann:hunter2%40host/?unknown=1", "cannot contain a user or password"),
        ("http:host/?auth_bearer_token=hunter2", "option `auth_bearer_token` takes `env:NAME`"),
        ("http:host/?auth_username=ann", "authentication takes either"),
        ("http:", "needs a host"),
        ("http:host/?user_agent=a%0d%0aX: y", "no value of a header"),
        ("http:host/?ok_status_code_range=many", "`ok_status_code_range` takes"),
        ("http:host/?limit=10", "unknown option `limit`"),
    ] {
        let shown = errors(uri);
        assert!(shown.contains(expected), "{uri}: {shown}");
        assert!(!shown.contains("hunter2"), "{uri}: {shown}");
    }
    let both = errors("https://ann:hunter2@host/?unknown=1");
    assert!(both.contains("unknown option `unknown`"), "{both}");
    assert!(
        both.contains(&format!(
            "| https://{}?unknown=1\n  | {}{}",
            "*".repeat(17),
            " ".repeat(8),
            "^".repeat(17)
        )),
        "{both}"
    );
}

#[test]
fn the_rules_of_a_component_are_checked_beside_the_kinds_of_its_options() {
    let router = builder().build().unwrap();
    let uri =
        "http:?connect_timeout=x&ok_status_code_range=abc&auth_username=a:b&auth_password=env:CARGO_PKG_NAME";
    let errors = router.producer(uri).err().unwrap();
    let messages = errors.iter().map(|error| error.message()).collect::<Vec<_>>();
    assert_eq!(messages.len(), 4, "{messages:#?}");
    let printed = errors.to_string();
    // At the option, not at the URI.
    assert!(printed.contains(&format!("{}^^^\n", " ".repeat(46))), "{printed}");
    let errors =
        router.producer("http:h?auth_username=a&auth_password=hunter2&skip_request_headers=1").err().unwrap();
    assert_eq!(errors.iter().len(), 2, "nothing about what goes together: {errors}");
    assert!(!errors.to_string().contains("hunter2"), "{errors}");
    for (uri, help) in [
        ("http:h?query=RAW(a)", "`RAW(...)` has no meaning here"),
        ("http:h?query=a&b", "nothing is decoded in a table"),
        ("http:h?query=a&b c=1", "nothing is decoded in a table"),
        ("http:http://h/x", "stands before a host"),
    ] {
        let errors = router.producer(uri).err().unwrap().to_string();
        assert!(errors.contains(help), "{uri}: {errors}");
    }
}

#[tokio::test]
async fn an_error_does_not_show_the_url() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Reads a little and hangs up.
    tokio::spawn(async move {
        loop {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 10]).await;
        }
    });
    for uri in [format!("http:{address}/bot123:TOKEN"), "http:127.0.0.1:1/bot123:TOKEN".into()] {
        let error = call(uri, &mut Exchange::new(())).await.unwrap_err();
        let shown = format!("{} {error:?}", Chain(&*error));
        assert!(!shown.contains("TOKEN"), "{shown}");
        assert!(shown.contains("error sending request"), "{shown}");
    }
}

#[tokio::test]
async fn a_leader_sends_its_lock_and_term() {
    let server = serve().await;
    let (cluster, mock) = (MemoryCluster::new("a"), MockComponent::default());
    let router = builder()
        .component(MasterComponent::default())
        .component(mock.clone())
        .component(TimerComponent)
        .cluster(cluster as Arc<dyn ClusterService>)
        .route(
            from("master:Sperre-%C3%BC:timer:t?delay=0&repeat_count=1")
                .to(format!("http:{server}/"))
                .to("mock:out"),
        )
        .build()
        .unwrap();
    let _ = router.run_until(mock.endpoint("out").wait_for(1)).await;
    let echo = mock.endpoint("out").received()[0].message.body.to_string();
    assert_eq!(line(&echo, "bactrian-lock"), Some("Sperre-%C3%BC"));
    assert_eq!(line(&echo, "bactrian-term"), Some("1"));
    let echo = call(format!("http:{server}/"), &mut Exchange::new(())).await.unwrap();
    assert_eq!(line(&echo, "bactrian-term"), None);
}

/// Set for the child process that has no CA certificates.
const WITHOUT_CERTIFICATES: &str = "BACTRIAN_TEST_WITHOUT_CERTIFICATES";

#[tokio::test]
async fn plain_http_works_without_ca_certificates() {
    if std::env::var_os(WITHOUT_CERTIFICATES).is_none() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "plain_http_works_without_ca_certificates"])
            .envs([(WITHOUT_CERTIFICATES, "1"), ("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", "/nowhere")])
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let server = serve().await;
    assert!(call(format!("http:{server}/"), &mut Exchange::new(())).await.is_ok());
    let error = call(format!("https:{server}/"), &mut Exchange::new(())).await.unwrap_err();
    assert!(Chain(&*error).to_string().contains("No CA certificates"), "{}", Chain(&*error));
}

/// Set for the child process that has a proxy in its environment.
const WITH_PROXY: &str = "BACTRIAN_TEST_WITH_PROXY";

#[tokio::test]
async fn a_proxy_in_the_environment_is_not_used() {
    if std::env::var_os(WITH_PROXY).is_none() {
        // Nobody listens on this port.
        let proxy = "http://127.0.0.1:1";
        let variables = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"].map(|name| (name, proxy));
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_proxy_in_the_environment_is_not_used"])
            .env(WITH_PROXY, "1")
            .envs(variables)
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let server = serve().await;
    assert!(call(format!("http:{server}/"), &mut Exchange::new(())).await.is_ok());
}

/// Answers one request after the other over TLS, with a certificate for `localhost`; returns it as PEM.
async fn serve_tls() -> (SocketAddr, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, key) = (certified.cert.der().clone(), certified.signing_key.serialize_der());
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let settings = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.try_into().unwrap())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(settings));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let Ok(mut connection) = acceptor.accept(connection).await else { continue };
            let _ = connection.read(&mut [0; 1000]).await;
            let response = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\nsecure";
            let _ = connection.write_all(response).await;
            let _ = connection.shutdown().await;
        }
    });
    (address, certified.cert.pem())
}

/// Set for the child process that trusts one certificate: the port of its server.
const TRUSTING: &str = "BACTRIAN_TEST_TRUSTING";

#[tokio::test(flavor = "multi_thread")]
async fn https_trusts_the_certificates_of_the_system_and_no_others() {
    if let Ok(port) = std::env::var(TRUSTING) {
        let body = call(format!("https:localhost:{port}/"), &mut Exchange::new(())).await.unwrap();
        assert_eq!(body, "secure");
        // The certificate is for another name.
        assert!(call(format!("https:127.0.0.1:{port}/"), &mut Exchange::new(())).await.is_err());
        return;
    }
    let (address, certificate) = serve_tls().await;
    let untrusted = call(format!("https:localhost:{}/", address.port()), &mut Exchange::new(())).await;
    assert!(untrusted.is_err());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, certificate).unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "https_trusts_the_certificates_of_the_system_and_no_others"])
        .env(TRUSTING, address.port().to_string())
        .env("SSL_CERT_FILE", &file)
        .env_remove("SSL_CERT_DIR");
    let output = tokio::task::spawn_blocking(move || child.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[tokio::test]
async fn https_does_not_fall_back_to_plain_text() {
    let server = serve().await;
    let error = call(format!("https:{server}/"), &mut Exchange::new(())).await.unwrap_err();
    assert!(error.to_string().contains("error sending request"), "{error}");
}

#[tokio::test]
async fn a_file_that_was_changed_fails_its_upload_as_data() {
    let (server, folder) = (serve().await, tempfile::tempdir().unwrap());
    let place = folder.path().join("f");
    std::fs::write(&place, vec![b'x'; 1 << 20]).unwrap();
    let region = Region::of(std::fs::File::open(&place).unwrap()).unwrap();
    std::fs::write(&place, b"short").unwrap();
    let mut exchange = Exchange::new(Body::file(region));
    let failure = Failure::of(call(format!("http:{server}/"), &mut exchange).await.unwrap_err());
    assert_eq!(failure.kind, ErrorKind::Data, "{}", Chain(&*failure));
    assert!(Chain(&*failure).to_string().contains("was changed while it was read"));
}
