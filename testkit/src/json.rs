//! [`JsonServer`]: answers every request with JSON.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use serde_json::Value;

/// A server on a free port of this host. It ends when it is dropped.
#[derive(Debug)]
pub struct JsonServer {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl JsonServer {
    /// Starts a server that answers as `answer` says, which gets the path and the query.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start(answer: impl Fn(&str) -> Value + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let answer = Arc::new(answer);
        let app = Router::new().fallback(async move |request: Request| {
            let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
            let mut response = Response::new(answer(&path).to_string());
            let json = axum::http::HeaderValue::from_static("application/json");
            response.headers_mut().insert("content-type", json);
            response
        });
        #[expect(clippy::disallowed_methods, reason = "the task ends with the server that owns it")]
        let task = tokio::spawn(async move {
            // It ends with its task.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, task })
    }

    /// Where it is: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for JsonServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
