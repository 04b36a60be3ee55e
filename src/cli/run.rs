//! `bactrian run`.

use std::process::ExitCode;

use bactrian::cluster;
use bactrian::load::Loaded;
use bactrian::logging::init_logging_as;
use router_core::error::{BoxError, Chain};
use router_core::router::Shutdown;

use super::{Sources, output};

/// Exit codes: 0 after all exchanges in flight were finished, 1 when some were dropped (after a second
/// signal, or because draining took too long) or the cluster service could not be opened.
pub(super) fn run(sources: &Sources) -> ExitCode {
    let loaded = match sources.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    init_logging_as(loaded.settings.log.format);
    let ended = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(BoxError::from)
        .and_then(|runtime| runtime.block_on(route(&loaded)));
    match ended {
        Ok(Shutdown::Drained) => ExitCode::SUCCESS,
        Ok(Shutdown::Aborted) => ExitCode::FAILURE,
        Err(error) => output::failure(&Chain(&*error).to_string()),
    }
}

async fn route(loaded: &Loaded) -> Result<Shutdown, BoxError> {
    let mut builder = loaded.builder();
    if let Some(service) = loaded.service {
        builder = builder.cluster(cluster::open(service, &loaded.settings).await?);
    }
    let router = builder.build()?;
    Ok(bactrian::run(&router).await)
}
