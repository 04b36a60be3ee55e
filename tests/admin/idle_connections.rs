//! Connections that nobody needs.

use std::time::Duration;

use bactrian::admin::AdminListener;
use bactrian::prelude::*;
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::process::status;

#[tokio::test]
async fn who_connects_and_says_nothing_is_in_nobodys_way() {
    let router = bactrian::router().route(from("direct:a").log("a")).build().unwrap();
    let admin = AdminListener::bind("127.0.0.1:0").unwrap().serve(&router).unwrap();
    let at = admin.address();
    let mut crowd = Vec::new();
    for _ in 0..200 {
        let mut connection = TcpStream::connect(at).await.unwrap();
        connection.write_all(b"GET /livez HT").await.unwrap();
        crowd.push(connection);
    }
    assert_eq!(status(at, "livez").await, StatusCode::OK);
    // Sooner than a connection is closed that is alone: the oldest made room.
    let mut byte = [0];
    let closed = timeout(Duration::from_secs(20), crowd[0].read(&mut byte)).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    // The youngest is answered as soon as it has asked.
    let youngest = crowd.last_mut().unwrap();
    youngest.write_all(b"TP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    youngest.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}
