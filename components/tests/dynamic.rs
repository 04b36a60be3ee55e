//! A message is data, never a route: what it can do to the target of `to_dynamic`, against a real server and
//! a real file system.

#![cfg(all(feature = "http", feature = "file"))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use components::{
    DirectComponent, FileComponent, HttpComponent, MockComponent, SedaComponent, TimerComponent,
};
use percent_encoding::percent_decode_str;
use router_core::builder::{IntoDynamic, RouteBuilder, Steps, dynamic, endpoint, from};
use router_core::component::Processor;
use router_core::error::Chain;
use router_core::exchange::Exchange;
use router_core::router::{Router, RouterBuilder};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// What a server got: the path and query as they were sent, and whether there were credentials.
type Requests = mpsc::UnboundedReceiver<(String, bool)>;

async fn serve() -> (String, Requests) {
    let (sender, requests) = mpsc::unbounded_channel();
    let record = async |State(sender): State<mpsc::UnboundedSender<_>>, request: Request| {
        let sent = request.uri().path_and_query().unwrap().to_string();
        sender.send((sent, request.headers().contains_key("authorization"))).unwrap();
    };
    let server = axum::Router::new().fallback(record).with_state(sender);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move { axum::serve(listener, server).await });
    (address, requests)
}

fn router(routes: impl IntoIterator<Item = RouteBuilder>) -> Router {
    let builder = RouterBuilder::new()
        .component(DirectComponent::default())
        .component(SedaComponent::default())
        .component(MockComponent::default())
        .component(TimerComponent)
        .component(FileComponent)
        .component(HttpComponent::default());
    let router = builder.routes(routes).build().unwrap_or_else(|errors| panic!("{errors}"));
    let running = router.clone();
    tokio::spawn(async move { running.run_until(std::future::pending()).await });
    router
}

/// What sends a message into a route with this step.
fn step(target: impl IntoDynamic) -> Arc<dyn Processor> {
    router([from("direct:in").to_dynamic(target)]).producer("direct:in").unwrap()
}

async fn send(to: &Arc<dyn Processor>, headers: &[(&'static str, &str)]) -> Result<(), String> {
    let mut exchange = Exchange::new("content");
    for (name, value) in headers {
        exchange.message.headers.set(*name, *value);
    }
    to.process(&mut exchange).await.map_err(|error| Chain(&*error).to_string())
}

/// What has done harm somewhere, and what chance has put together.
fn values() -> Vec<String> {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let letters = "a7/\\.%2fE?&=#+ :;@${}'\"\n\r\t\0ä\u{1F600}".chars().collect::<Vec<_>>();
    let mut letter = || letters[random.usize(..letters.len())];
    let chance = (0..300).map(|index| (0..index % 12).map(|_| letter()).collect());
    let harmful = [
        "7?auth_bearer_token=env:PATH",
        "7&auth_bearer_token=env:PATH",
        "../../..",
        "..%2f..%2fx",
        "..;/x",
        "%2e%2e",
        "%252e%252e/",
        "x#y",
        "7?http_method=DELETE",
        "//evil.example/",
        "@evil.example",
        "a\r\nHost: evil",
        "&file_exist=append",
        "?move=/tmp",
        "RAW(x)",
        "env:PATH",
        "/etc/passwd",
        "~/x",
        "CON",
    ];
    harmful.into_iter().map(str::to_owned).chain(chance).collect()
}

fn decoded(text: &str) -> String {
    percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

#[tokio::test]
async fn a_server_gets_any_value_as_that_value_and_nothing_else() {
    let (address, mut requests) = serve().await;
    // With a dot in its name, because such a header is not sent itself.
    let targets = [
        step(format!(
            "http:{address}/o/${{header.test.x}}/end?query=a=${{header.test.x}}%26b=1&http_method=GET"
        )),
        step(
            dynamic("http:")
                .option("url", format!("{address}/o/${{header.test.x}}/end"))
                .option("query", "a=${header.test.x}&b=1")
                .option("http_method", "GET"),
        ),
    ];
    let (mut arrived, mut refused) = (0, 0);
    for value in values() {
        for target in &targets {
            let headers = [("test.x", value.as_str())];
            if let Err(error) = send(target, &headers).await {
                assert!(value.is_empty() || value.contains('.'), "{value:?}: {error}");
                refused += 1;
                continue;
            }
            let (sent, authorized) = requests.recv().await.unwrap();
            assert!(!authorized, "{value:?}");
            let (path, query) = sent.split_once('?').unwrap();
            let segment = path.strip_prefix("/o/").unwrap().strip_suffix("/end").unwrap();
            assert!(!segment.contains('/'), "{value:?}: {sent}");
            assert_eq!(decoded(segment), value);
            let field = query.strip_prefix("a=").unwrap().strip_suffix("&b=1").unwrap();
            assert!(!field.contains(['&', '+']), "{value:?}: {sent}");
            assert_eq!(decoded(field), value);
            arrived += 1;
        }
    }
    assert!(requests.try_recv().is_err());
    assert!(arrived > 400 && refused > 0, "{arrived} arrived, {refused} were refused");
}

#[tokio::test]
async fn files_are_written_nowhere_else_and_as_the_route_says() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("a/b/out");
    let targets = [
        step(format!("file:{}/${{header.x}}?file_name=f", out.display())),
        step(
            dynamic("file:")
                .option("directory", format!("{}/${{header.x}}", out.display()))
                .option("file_name", "f"),
        ),
    ];
    let mut expected = 0;
    for value in values() {
        for target in &targets {
            let place = out.join(&value).join("f");
            let long = value.len() > 255;
            match send(target, &[("x", &value)]).await {
                // Twice the same: it is replaced, nothing is appended.
                Ok(()) => {
                    assert_eq!(fs::read_to_string(&place).unwrap(), "content", "{value:?}");
                    assert_eq!(place.parent().unwrap().parent().unwrap(), out, "{value:?}");
                }
                Err(error) => {
                    let refused = value.is_empty() || value.contains(['/', '\0', '.']);
                    assert!(refused || long, "{value:?}: {error}");
                }
            }
        }
        expected +=
            usize::from(out.join(&value).join("f").exists() && !value.contains('/') && !value.is_empty());
    }
    assert!(expected > 100, "{expected}");
    let entries = |place: &std::path::Path| fs::read_dir(place).unwrap().count();
    assert_eq!(
        (entries(folder.path()), entries(&folder.path().join("a")), entries(&folder.path().join("a/b"))),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn a_message_names_a_file_but_no_other_place() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let step = step(format!("file:{}?file_name=${{header.x}}.txt", out.display()));
    for value in ["../x", "/etc/x", "a/../../x", "a\0b", "..", "."] {
        let result = send(&step, &[("x", value)]).await;
        // `...txt` is a name like any other.
        assert_eq!(result.is_err(), !["..", "."].contains(&value), "{value:?}");
    }
    send(&step, &[("x", "a&file_exist=append")]).await.unwrap();
    assert!(out.join("a&file_exist=append.txt").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_queue_that_nothing_consumes_swallows_nothing() {
    let target = || dynamic("seda:work-${header.x}").allow(["seda:work-*"]);
    let router = router([from("direct:in").to_dynamic(target()), from("seda:work-a").id("a").to("mock:out")]);
    let into = router.producer("direct:in").unwrap();
    send(&into, &[("x", "a")]).await.unwrap();
    let error = tokio::time::timeout(Duration::from_secs(5), send(&into, &[("x", "b")])).await.unwrap();
    assert!(error.unwrap_err().ends_with("no route consumes `seda:work-b`"));
    let rest = router
        .definitions()
        .into_iter()
        .filter(|route| route.id.as_ref().is_none_or(|id| id.as_str() != "a"));
    router.apply(rest.collect::<Vec<_>>()).await.unwrap();
    assert!(send(&into, &[("x", "a")]).await.is_err());
}

#[test]
fn the_builder_takes_an_endpoint_wherever_a_uri_stands() {
    let handler = router_core::definition::ErrorHandlerDefinition::default();
    let route = from(endpoint("timer:").option("name", "a%41").option("period", "1s"))
        .error_handler(handler.dead_letter(endpoint("mock:").option("name", "dead+letter")))
        .to(endpoint("mock:").option("name", "100%"));
    let builder = RouterBuilder::new().component(TimerComponent).component(MockComponent::default());
    builder.route(route).build().unwrap();
    let wrong = from("timer:t").to(endpoint("mock:").option("nmae", "x").option("expected_count", "many"));
    let builder = RouterBuilder::new().component(TimerComponent).component(MockComponent::default());
    let errors = builder.route(wrong).build().err().unwrap().to_string();
    assert!(errors.contains("components/tests/dynamic.rs:"), "{errors}");
    assert!(errors.contains("^^^^ did you mean `name`?"), "{errors}");
    assert!(errors.contains("option `expected_count` takes a whole number"), "{errors}");
}
