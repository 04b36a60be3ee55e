//! What stands in for the server where it refuses requests: it has a certificate that members trust.

use std::sync::{Arc, LazyLock};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

static GATEWAY: LazyLock<(String, TlsAcceptor)> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    (made.cert.pem(), TlsAcceptor::from(Arc::new(config)))
});

/// Its certificate, as PEM.
pub(crate) fn certificate() -> &'static str {
    &GATEWAY.0
}

/// Answers one request with a status, as the server would say it.
pub(crate) async fn refuse(near: TcpStream, status: u16) {
    let Ok(mut near) = GATEWAY.1.accept(near).await else { return };
    let mut buffer = vec![0; 64 * 1024];
    // The beginning is enough: the answer does not depend on it.
    if near.read(&mut buffer).await.is_err() {
        return;
    }
    let reason = match status {
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "a fault of the test",
        "reason": reason, "details": {"retryAfterSeconds": 1}, "code": status,
    })
    .to_string();
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\nRetry-After: 1\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    // Who does not want to hear it has closed already.
    let _ = near.write_all(answer.as_bytes()).await;
    let _ = near.shutdown().await;
    while near.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
}
