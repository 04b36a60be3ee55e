//! What is promised of bodies that are too large for the memory: they arrive whole or not at all, and go where they belong
//! without being copied more often than needed.

#![cfg(all(feature = "file", feature = "http"))]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may panic, and ends with its tasks"
)]

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;
use components::{
    FileComponent, HttpClients, HttpComponent, HttpPollComponent, LogComponent, MockComponent, SedaComponent,
};
use router_core::builder::{RouteBuilder, Steps, from};
use router_core::definition::ErrorHandlerDefinition;
use router_core::exchange::{Body, BodyKind, Exchange, Region};
use router_core::router::RouterBuilder;
use router_core::spool::SpoolSettings;
use rustix::fs::{XattrFlags, getxattr, setxattr};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Some megabytes of JSON in which no two places look alike.
fn content() -> String {
    let numbers = (0..400_000).map(|number| format!("{number:06}")).collect::<Vec<_>>();
    format!("[\"{}\"]", numbers.join("\",\""))
}

/// A server that reads what it is sent, and responds to every request with these bytes and then closes the connection.
async fn serve(response: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let response = response.clone();
            tokio::spawn(async move {
                let mut request = vec![0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&response).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

fn with_length(content: &str, length: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{content}")
        .into()
}

fn in_chunks(content: &str, end: &str) -> Vec<u8> {
    let mut response = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for chunk in content.as_bytes().chunks(100_000) {
        write!(response, "{:x}\r\n{}\r\n", chunk.len(), std::str::from_utf8(chunk).unwrap()).unwrap();
    }
    (response + end).into()
}

/// Runs routes until `mock:out` has `count` exchanges.
async fn run(
    spool: SpoolSettings,
    routes: impl IntoIterator<Item = RouteBuilder>,
    mock: &MockComponent,
    count: usize,
) {
    let clients = HttpClients::default();
    let router = RouterBuilder::new()
        .component(FileComponent)
        .component(HttpPollComponent::new(clients.clone()))
        .component(HttpComponent::new(clients))
        .component(LogComponent)
        .component(SedaComponent::default())
        .component(mock.clone())
        .spool(spool);
    let router = routes.into_iter().fold(router, RouterBuilder::route).build().unwrap();
    let out = mock.endpoint("out");
    let run = router.run_until(out.wait_for(count));
    let _ = tokio::time::timeout(Duration::from_secs(20), run).await.unwrap();
}

fn spool_in(directory: &Path) -> SpoolSettings {
    SpoolSettings { directory: directory.join("spool"), ..SpoolSettings::default() }
}

/// A route that begins once, with a small file, in a folder with an `out`.
fn begin() -> (TempDir, RouteBuilder) {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("in")).unwrap();
    fs::create_dir(folder.path().join("out")).unwrap();
    fs::write(folder.path().join("in/order.json"), "7").unwrap();
    let from = from(format!("file:{}?initial_delay=0&delay=5ms", folder.path().join("in").display()));
    (folder, from.id("large"))
}

fn out(folder: &TempDir) -> String {
    format!("file:{}", folder.path().join("out").display())
}

fn inode(body: &Body) -> u64 {
    let file = body.as_file().unwrap().as_fd().try_clone_to_owned().unwrap();
    File::from(file).metadata().unwrap().ino()
}

#[tokio::test]
async fn a_large_response_becomes_a_file_without_being_copied_and_the_next_file_is_another_one() {
    let content = content();
    for response in [with_length(&content, content.len()), in_chunks(&content, "0\r\n\r\n")] {
        let (server, mock, (folder, route)) = (serve(response).await, MockComponent::default(), begin());
        let (to, second) = (out(&folder), out(&folder) + "?file_name=second");
        let routes = [
            route
                .to(format!("http:{server}/"))
                .to("mock:in")
                .to(&*to)
                .to("seda:after?wait_for_task_to_complete=never"),
            from("seda:after")
                .to("log:after?max_chars=10")
                .to(&*second)
                .set_header("end", "${body.399999}")
                .to("mock:out"),
        ];
        run(spool_in(folder.path()), routes, &mock, 1).await;
        let received = &mock.endpoint("in").received()[0].message.body;
        assert_eq!((received.kind(), received.len()), (BodyKind::File, content.len()));
        let place = folder.path().join("out/order.json");
        let metadata = fs::metadata(&place).unwrap();
        assert_eq!((metadata.ino(), metadata.nlink()), (inode(received), 1), "it is the spooled file");
        let second = fs::metadata(folder.path().join("out/second")).unwrap();
        assert_ne!(second.ino(), metadata.ino(), "a change of one file must not change the other");
        assert_eq!(second.mode(), metadata.mode(), "it looks like any other file");
        for file in ["order.json", "second"] {
            assert!(fs::read_to_string(folder.path().join("out").join(file)).unwrap() == content, "{file}");
        }
        let last = &mock.endpoint("out").received()[0];
        assert_eq!(last.message.headers.get("end"), Some(&"399999".into()));
        assert!(last.message.body.as_str().unwrap() == content);
        assert_eq!(fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn a_response_that_is_cut_off_is_an_error_and_no_short_body() {
    let content = content();
    let (most, _) = content.split_at(content.len() - 100);
    for response in [with_length(most, content.len()), in_chunks(most, ""), in_chunks(most, "64\r\nshort")] {
        let (server, mock, (folder, route)) = (serve(response).await, MockComponent::default(), begin());
        let handler = ErrorHandlerDefinition::default().dead_letter("mock:out");
        let route = route.error_handler(handler).to(format!("http:{server}/")).to(out(&folder));
        run(spool_in(folder.path()), [route], &mock, 1).await;
        let failed = &mock.endpoint("out").received()[0];
        assert_eq!(failed.exception().unwrap().kind.name(), "unavailable");
        assert_eq!(failed.message.body.as_str(), Some("7"), "the body stays what it was");
        assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(folder.path().join("spool")).unwrap().count(), 0);
    }
}

/// A list of who may use the files in a directory, as the kernel takes it.
fn access_list() -> Vec<u8> {
    const NO_ID: u32 = u32::MAX;
    let owner = (0x1, 7, NO_ID);
    let (user, group, mask, others) = ((0x2, 6, 1234), (0x4, 5, NO_ID), (0x10, 7, NO_ID), (0x20, 0, NO_ID));
    let entry = |(kind, rights, id): (u16, u16, u32)| {
        [&kind.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    let version = 2_u32.to_le_bytes().to_vec();
    std::iter::once(version).chain([owner, user, group, mask, others].map(entry)).flatten().collect()
}

#[tokio::test]
async fn a_response_is_copied_where_a_link_would_be_another_file_than_usual() {
    let content = content();
    let server = serve(with_length(&content, content.len())).await;
    let elsewhere = tempfile::tempdir_in("/dev/shm").unwrap();
    for gives in ["nothing", "a group", "a list"] {
        let (mock, (folder, route)) = (MockComponent::default(), begin());
        let target = folder.path().join("out");
        match gives {
            "a group" => fs::set_permissions(&target, Permissions::from_mode(0o2775)).unwrap(),
            "a list" => {
                let list = access_list();
                setxattr(&target, "system.posix_acl_default", &list, XattrFlags::empty()).unwrap();
            }
            _ => {}
        }
        let spool = if gives == "nothing" { spool_in(elsewhere.path()) } else { spool_in(folder.path()) };
        let route = route.to(format!("http:{server}/")).to(out(&folder)).to("mock:out");
        run(spool, [route], &mock, 1).await;
        let body = &mock.endpoint("out").received()[0].message.body;
        let place = folder.path().join("out/order.json");
        let of_place = fs::metadata(&place).unwrap();
        let of_body =
            File::from(body.as_file().unwrap().as_fd().try_clone_to_owned().unwrap()).metadata().unwrap();
        assert_ne!((of_place.dev(), of_place.ino()), (of_body.dev(), of_body.ino()), "{gives}");
        assert!(fs::read_to_string(&place).unwrap() == content);
        let list = getxattr(&place, "system.posix_acl_access", &mut [0_u8; 64]);
        assert_eq!(list.is_ok(), gives == "a list");
    }
}

#[tokio::test]
async fn a_spooled_response_is_sent_on_with_its_length_and_its_type() {
    let content = content();
    let (first, mock, (folder, route)) =
        (serve(with_length(&content, content.len())).await, MockComponent::default(), begin());
    let app = axum::Router::new().layer(axum::extract::DefaultBodyLimit::disable()).fallback(
        async |request: axum::extract::Request| {
            let (parts, body) = request.into_parts();
            let header = |name: &str| parts.headers[name].to_str().unwrap().to_owned();
            let said = format!("{} {}", header("content-type"), header("content-length"));
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            format!("{said} {}", body.len())
        },
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let route = route.to(format!("http:{first}/")).to(format!("http:{second}/")).to("mock:out");
    run(spool_in(folder.path()), [route], &mock, 1).await;
    let length = content.len();
    let said = mock.endpoint("out").received()[0].message.body.as_str().unwrap().to_owned();
    assert_eq!(said, format!("application/json {length} {length}"));
}

#[tokio::test]
async fn a_spooled_response_is_sent_again_from_its_beginning() {
    let content = content();
    let (first, mock, (folder, route)) =
        (serve(with_length(&content, content.len())).await, MockComponent::default(), begin());
    let (received, response) = (Arc::new(Mutex::new(Vec::new())), content.clone());
    let requests = Arc::clone(&received);
    let app = axum::Router::new().layer(axum::extract::DefaultBodyLimit::disable()).fallback(
        async move |request: axum::extract::Request| {
            let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
            let mut requests = requests.lock().unwrap();
            requests.push(body == response.as_bytes());
            if requests.len() < 3 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
        },
    );
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let handler = ErrorHandlerDefinition { redelivery_delay: Duration::ZERO, ..Default::default() };
    let route = route.error_handler(handler.maximum_redeliveries(2)).to(format!("http:{first}/"));
    let route = route.to("mock:in").to(format!("http:{second}/")).to("mock:out");
    run(spool_in(folder.path()), [route], &mock, 1).await;
    assert_eq!(mock.endpoint("in").received()[0].message.body.kind(), BodyKind::File);
    assert_eq!(*received.lock().unwrap(), [true; 3], "all of it, each time");
}

#[tokio::test]
async fn what_is_larger_than_the_settings_allow_is_an_error_that_names_them() {
    let content = content();
    let server = serve(with_length(&content, content.len())).await;
    for (settings, setting) in [
        (SpoolSettings { max_bytes: 1 << 20, ..SpoolSettings::default() }, "body.max_spooled_bytes"),
        (SpoolSettings { memory_limit: 1 << 20, ..SpoolSettings::default() }, "body.memory_limit"),
    ] {
        let (mock, (folder, route)) = (MockComponent::default(), begin());
        let handler = ErrorHandlerDefinition::default().dead_letter("mock:out");
        let route = route
            .error_handler(handler)
            .to(format!("http:{server}/"))
            .set_header("all", "${body}")
            .to("mock:in");
        let spool = SpoolSettings { directory: folder.path().join("spool"), ..settings };
        run(spool, [route], &mock, 1).await;
        let exception = mock.endpoint("out").received()[0].exception().unwrap().clone();
        assert_eq!(exception.kind.name(), "data");
        assert!(exception.message.contains(setting), "{}", exception.message);
    }
}

#[tokio::test]
async fn a_poll_with_a_large_response_is_spooled_or_split() {
    let content = content();
    let server = serve(with_length(&content, content.len())).await;
    let (mock, (folder, _)) = (MockComponent::default(), begin());
    let poll = |options: &str| from(format!("http-poll:http://{server}/?period=1h{options}")).id("poll");
    run(spool_in(folder.path()), [poll("").to("mock:out")], &mock, 1).await;
    let body = &mock.endpoint("out").received()[0].message.body;
    assert_eq!((body.kind(), body.len()), (BodyKind::File, content.len()));
    let mock = MockComponent::default();
    run(spool_in(folder.path()), [poll("&split=/").to("mock:out")], &mock, 400_000).await;
    let last = &mock.endpoint("out").received()[399_999].message.body;
    assert_eq!(last.as_json().unwrap().as_str(), Some("399999"));
}

#[tokio::test]
async fn the_log_does_not_read_what_it_does_not_show() {
    let (mock, (folder, route)) = (MockComponent::default(), begin());
    // A hole of a tebibyte, which cannot be read in the time of a test.
    let place = folder.path().join("in/order.json");
    let file = File::create(&place).unwrap();
    if file.set_len(1 << 40).is_err() {
        file.set_len(8 << 30).unwrap();
    }
    let route = route.to("log:large?show_all=true&max_chars=10").to("seda:next");
    let next = from("seda:next").to("mock:in").to("mock:out");
    run(spool_in(folder.path()), [route, next], &mock, 1).await;
    assert_eq!(mock.endpoint("in").received()[0].message.body.kind(), BodyKind::File);
}

fn region(folder: &Path, content: &str) -> Region {
    let place = folder.join(&content[..1]);
    fs::write(&place, content).unwrap();
    Region::of(File::open(&place).unwrap()).unwrap()
}

async fn append(folder: &TempDir, spool: SpoolSettings, body: Region) -> Result<(), String> {
    let router = RouterBuilder::new().component(FileComponent).spool(spool).build().unwrap();
    let to = router.producer(format!("{}?file_exist=append&file_name=all", out(folder))).unwrap();
    to.process(&mut Exchange::new(Body::file(body))).await.map_err(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn large_contents_that_are_appended_to_one_file_are_not_mixed() {
    let (folder, _route) = begin();
    let write = async |letter: &str| {
        append(&folder, SpoolSettings::default(), region(folder.path(), &letter.repeat(3 << 20)))
            .await
            .unwrap();
    };
    tokio::join!(write("a"), write("b"), write("c"), write("d"));
    let all = fs::read_to_string(folder.path().join("out/all")).unwrap();
    assert_eq!(all.len(), 4 * (3 << 20));
    for part in all.as_bytes().chunks(3 << 20) {
        assert!(part.iter().all(|byte| *byte == part[0]));
    }
}

/// A disk that becomes full.
#[tokio::test]
#[ignore = "needs root, to mount a small file system"]
async fn a_full_disk_fails_the_exchange_alone_and_leaves_nothing_by_half() {
    let (folder, route) = begin();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&small).status();
    assert!(mount.unwrap().success());
    let content = content();
    let server = serve(with_length(&content, content.len())).await;
    let mock = MockComponent::default();
    let handler = ErrorHandlerDefinition::default().dead_letter("mock:out");
    let route = route.error_handler(handler).to(format!("http:{server}/"));
    run(spool_in(&small), [route], &mock, 1).await;
    let exception = mock.endpoint("out").received()[0].exception().unwrap().clone();
    let free = fs::write(small.join("free"), vec![0; 1 << 20]);
    let _ = fs::remove_file(small.join("free"));
    // What was there before is all that is there after an append that did not fit.
    let target = TempDir::new_in(&small).unwrap();
    fs::create_dir(target.path().join("out")).unwrap();
    fs::write(target.path().join("out/all"), "before").unwrap();
    let appended = append(&target, SpoolSettings::default(), region(folder.path(), &content)).await;
    let after = fs::read_to_string(target.path().join("out/all")).unwrap();
    drop(target);
    assert!(Command::new("umount").arg("-l").arg(&small).status().unwrap().success());
    assert_eq!(exception.kind.name(), "unavailable", "{}", exception.message);
    assert!(exception.message.contains("No space left"), "{}", exception.message);
    free.unwrap();
    assert!(appended.unwrap_err().contains("No space left"));
    assert!(after == "before", "{} bytes are there", after.len());
}
