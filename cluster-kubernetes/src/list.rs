//! Lists of Leases, which may be long and come slowly.

use std::time::Duration;

use cluster_lease::StoreError;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::client::Body;
use kube::core::ObjectList;
use kube::{Client, Resource as _};
use tokio::time::timeout;

use crate::errors::{self, RequestContext};

/// The Leases with these labels, from a quorum, and the time of the API server where it tells it. It may take as long
/// as it likes, but nothing may be late by `patience`, neither its beginning nor any next piece.
pub(crate) async fn leases(
    client: &Client,
    asked: RequestContext<'_>,
    labels: &str,
    patience: Duration,
) -> Result<(ObjectList<Lease>, Option<Timestamp>), StoreError> {
    let error = |error| errors::error(asked, error);
    let request = kube::core::Request::new(Lease::url_path(&(), Some(asked.namespace)));
    let request = request.list(&ListParams::default().labels(labels));
    let request = request.map_err(|source| error(kube::Error::BuildRequest(source)))?;
    let late = |_| StoreError::unknown("the API server did not respond in time");
    let response = timeout(patience, client.send(request.map(Body::from))).await.map_err(late)?;
    let (head, mut body) = response.map_err(error)?.into_parts();
    let mut text = Vec::new();
    while let Some(piece) = timeout(patience, body.frame()).await.map_err(late)? {
        let piece = piece.map_err(|source| error(kube::Error::Service(source.into())))?;
        text.extend_from_slice(piece.data_ref().map_or(&[], |data| data));
    }
    let odd = |source| error(kube::Error::SerdeError(source));
    if !head.status.is_success() {
        let status = serde_json::from_slice(&text).map_err(odd)?;
        return Err(errors::refusal(asked, &status));
    }
    let date = head.headers.get(http::header::DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
    let leases = serde_json::from_slice(&text).map_err(odd)?;
    Ok((leases, date.map(|date| date.timestamp())))
}
