//! The paths of the admin listener.

use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics_exporter_prometheus::PrometheusHandle;
use router_core::cluster::Leadership;
use router_core::router::Router;
use tokio::runtime::Handle;

use super::report::{self, Report};

/// What the responses are made of.
#[derive(Clone)]
pub(super) struct Admin {
    pub(super) router: Router,
    /// The runtime in which the router runs.
    pub(super) routes_run_in: Handle,
    /// `None`: the program shows its metrics itself.
    pub(super) metrics: Option<PrometheusHandle>,
}

const PATHS: &str = "/livez[?verbose]\n/readyz[?verbose]\n/startupz[?verbose]\n/leaderz/LOCK\n/metrics\n";

pub(super) fn app(admin: Admin) -> axum::Router {
    axum::Router::new()
        .route("/", get(async || PATHS))
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/startupz", get(startup))
        .route("/leaderz/{*lock}", get(leader))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, format!("there is no such path, only\n{PATHS}")))
        .with_state(admin)
}

async fn live(State(admin): State<Admin>, query: RawQuery) -> Response {
    respond(&report::live(&admin.router, &admin.routes_run_in).await, &query)
}

async fn ready(State(admin): State<Admin>, query: RawQuery) -> Response {
    respond(&report::ready(&admin.router), &query)
}

async fn startup(State(admin): State<Admin>, query: RawQuery) -> Response {
    respond(&report::startup(&admin.router), &query)
}

/// What is wrong is always listed.
fn respond(report: &Report, RawQuery(query): &RawQuery) -> Response {
    let asked = |query: &str| query.split('&').any(|part| part.split('=').next() == Some("verbose"));
    let verbose = query.as_deref().is_some_and(asked);
    match report.is_passed() {
        true if verbose => report.to_string().into_response(),
        true => "ok".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, report.to_string()).into_response(),
    }
}

async fn leader(State(admin): State<Admin>, Path(lock): Path<String>) -> Response {
    let leaderships = admin.router.cluster().map(|cluster| cluster.leaderships()).unwrap_or_default();
    let Some((_, leadership)) = leaderships.into_iter().find(|(name, _)| name.as_str() == lock) else {
        return (StatusCode::NOT_FOUND, format!("no route here runs under the lock `{lock}`\n"))
            .into_response();
    };
    // The term is asked now: a deadline may have passed that nobody has noticed yet.
    let leads = matches!(&leadership, Leadership::Leader(term) if term.admits_work());
    let status = if leads { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{}\n", report::describe(&leadership))).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let Some(metrics) = &admin.metrics else {
        let why = "this program has a recorder of its own, which has the metrics\n";
        return (StatusCode::NOT_FOUND, why).into_response();
    };
    admin.router.refresh_gauges();
    #[cfg(feature = "logging")]
    crate::logging::refresh_metrics();
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()).into_response()
}
