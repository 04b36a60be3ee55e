//! What is promised of files that are not read into memory: they arrive whole or not at all, and are read as often as
//! wanted.

#![cfg(all(feature = "file", feature = "http"))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use components::{FileComponent, HttpComponent, LogComponent, MockComponent, SedaComponent};
use router_core::builder::{RouteBuilder, Steps, from};
use router_core::component::Processor;
use router_core::definition::ErrorHandlerDefinition;
use router_core::error::BoxError;
use router_core::exchange::{BodyKind, Exchange};
use router_core::router::RouterBuilder;
use tempfile::TempDir;

/// Some megabytes in which no two places look alike, with a word at the end.
fn content() -> Vec<u8> {
    let mut text = (0..400_000).map(|number| format!("{number:x}\n")).collect::<String>();
    text.push_str("needle");
    text.into_bytes()
}

fn inbox(content: &[u8]) -> TempDir {
    let inbox = tempfile::tempdir().unwrap();
    fs::write(inbox.path().join("large.txt"), content).unwrap();
    inbox
}

fn poll(inbox: &Path) -> RouteBuilder {
    from(format!("file:{}?initial_delay=0&delay=5ms", inbox.display())).id("large")
}

async fn run(routes: impl IntoIterator<Item = RouteBuilder>, mock: &MockComponent, count: usize) {
    let router = RouterBuilder::new()
        .component(FileComponent)
        .component(HttpComponent::default())
        .component(LogComponent)
        .component(SedaComponent::default())
        .component(mock.clone());
    let router = routes.into_iter().fold(router, RouterBuilder::route).build().unwrap();
    let out = mock.endpoint("out");
    let run = router.run_until(out.wait_for(count));
    let _ = tokio::time::timeout(Duration::from_secs(20), run).await.unwrap();
}

#[tokio::test]
async fn a_large_file_is_copied_whole_and_can_be_read_when_it_was_moved() {
    let (content, mock, outbox) = (content(), MockComponent::default(), tempfile::tempdir().unwrap());
    let inbox = inbox(&content);
    let to = format!("file:{}", outbox.path().display());
    let routes = [
        poll(inbox.path()).to("mock:in").to(&*to).to("seda:after?wait_for_task_to_complete=never"),
        from("seda:after")
            .to("log:after?max_chars=10")
            .to(format!("{to}?file_exist=append&file_name=twice"))
            .to("mock:out"),
    ];
    run(routes, &mock, 1).await;
    let received = mock.endpoint("in").received();
    let body = &received[0].message.body;
    assert_eq!((body.kind(), body.len()), (BodyKind::File, content.len()));
    // The file is not where it was any more.
    assert!(!inbox.path().join("large.txt").exists() && inbox.path().join(".done/large.txt").exists());
    assert!(body.to_bytes().unwrap() == content);
    for copy in ["large.txt", "twice"] {
        assert!(fs::read(outbox.path().join(copy)).unwrap() == content, "{copy}");
    }
}

#[tokio::test]
async fn a_large_file_is_sent_whole_as_often_as_it_is_redelivered() {
    let (content, mock) = (content(), MockComponent::default());
    let inbox = inbox(&content);
    let requests = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&requests);
    let app =
        axum::Router::new().layer(DefaultBodyLimit::disable()).fallback(async move |request: Request| {
            let length = request.headers()["content-length"].to_str().unwrap().to_owned();
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            let mut noted = noted.lock().unwrap();
            noted.push((length, body));
            axum::http::StatusCode::from_u16(if noted.len() == 1 { 503 } else { 204 }).unwrap()
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let once = ErrorHandlerDefinition { redelivery_delay: Duration::from_millis(1), ..Default::default() };
    let again = once.maximum_redeliveries(1);
    let route = poll(inbox.path()).error_handler(again).to(format!("http:{address}/?http_method=PUT"));
    run([route.to("mock:out")], &mock, 1).await;
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    for (length, body) in &*requests {
        assert_eq!(*length, content.len().to_string());
        assert!(*body == content);
    }
}

#[tokio::test]
async fn a_step_that_needs_all_of_a_file_gets_it_in_memory() {
    let (content, mock) = (content(), MockComponent::default());
    let inbox = inbox(&content);
    let route = poll(inbox.path())
        .to("mock:in")
        .set_header("kind", "large")
        .to("mock:in")
        .choice(|choice| choice.when("${body} contains 'needle'", |then| then.set_header("found", true)))
        .to("mock:in")
        .process(|exchange| {
            assert!(exchange.message.body.as_str().is_some());
            Ok(())
        });
    run([route.to("mock:out")], &mock, 1).await;
    let kinds = mock.endpoint("in").received();
    let kinds = kinds.iter().map(|exchange| exchange.message.body.kind()).collect::<Vec<_>>();
    assert_eq!(kinds, [BodyKind::File, BodyKind::File, BodyKind::Text]);
    let received = mock.endpoint("out").received();
    assert_eq!(received[0].message.headers.get("found"), Some(&true.into()));
    assert!(received[0].message.body.as_bytes().unwrap() == content);
}

#[tokio::test]
async fn a_processor_that_does_not_take_files_gets_the_content() {
    let (content, mock) = (content(), MockComponent::default());
    let inbox = inbox(&content);
    let lengths = Arc::new(Mutex::new(Vec::new()));
    let seen = Length(Arc::clone(&lengths));
    run([poll(inbox.path()).process_with(seen).to("mock:out")], &mock, 1).await;
    assert_eq!(*lengths.lock().unwrap(), [Some(content.len())]);
}

/// Looks at the text of a body, and knows nothing of files.
struct Length(Arc<Mutex<Vec<Option<usize>>>>);

#[async_trait::async_trait]
impl Processor for Length {
    async fn process(&self, exchange: &mut Exchange) -> Result<(), BoxError> {
        self.0.lock().unwrap().push(exchange.message.body.as_str().map(str::len));
        Ok(())
    }
}

#[tokio::test]
async fn a_file_that_is_too_large_for_the_memory_fails_the_step_that_needs_all_of_it() {
    let mock = MockComponent::default();
    let inbox = inbox(b"");
    // A hole, which takes no place on the disk.
    File::create(inbox.path().join("large.txt")).unwrap().set_len((64 << 20) + 1).unwrap();
    let handler = ErrorHandlerDefinition::default().dead_letter("mock:out");
    let route = poll(inbox.path()).error_handler(handler).set_header("first", "${body}").to("mock:sent");
    run([route], &mock, 1).await;
    let failed = mock.endpoint("out").received();
    assert_eq!(failed[0].message.body.len(), (64 << 20) + 1);
    assert_eq!(failed[0].exception().unwrap().kind.name(), "data");
    assert!(failed[0].exception().unwrap().message.contains("takes at most 67108864"));
}

#[tokio::test]
async fn a_file_that_is_written_to_while_it_is_worked_on_is_an_error_and_makes_no_other_file() {
    let (content, mock, outbox) = (content(), MockComponent::default(), tempfile::tempdir().unwrap());
    let inbox = inbox(&content);
    let place = inbox.path().join("large.txt");
    let write = {
        let place = place.clone();
        move || {
            // As long as it was.
            let file = File::options().write(true).open(&place).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, b"changed", 1000).unwrap();
        }
    };
    let handler = ErrorHandlerDefinition::default().dead_letter("mock:out");
    let route = poll(inbox.path())
        .error_handler(handler)
        .to("mock:in")
        .process_with(Write(write))
        .to(format!("file:{}", outbox.path().display()));
    run([route], &mock, 1).await;
    let exception = mock.endpoint("out").received()[0].exception().unwrap().clone();
    assert_eq!(exception.kind.name(), "data", "{}", exception.message);
    assert!(exception.message.contains("was changed while it was read"), "{}", exception.message);
    assert_eq!(fs::read_dir(outbox.path()).unwrap().count(), 0);
    assert!(place.exists(), "it is not the file that was worked on");
}

/// Does something without a look at the body.
struct Write<F>(F);

#[async_trait::async_trait]
impl<F: Fn() + Send + Sync> Processor for Write<F> {
    async fn process(&self, _: &mut Exchange) -> Result<(), BoxError> {
        (self.0)();
        Ok(())
    }

    fn takes_files(&self) -> bool {
        true
    }
}
