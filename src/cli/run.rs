//! `bactrian run`.

use std::process::ExitCode;
use std::time::Duration;

use bactrian::cluster;
use bactrian::load::Loaded;
use bactrian::logging::{self, init_logging_as};
#[cfg(feature = "admin")]
use bactrian::settings::Environment;
use router_core::error::{BoxError, Chain, Severity};
use router_core::router::Shutdown;

use super::Sources;

/// How long the end of the process waits for a stderr that is slow, and for calls that block.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Exit codes: 0 after all exchanges were finished, 1 when some were dropped (after a second signal, because
/// draining took too long, or because a term had ended), or the admin listener or the cluster service could not
/// be opened.
pub(super) fn run(sources: &Sources) -> ExitCode {
    let loaded = match sources.load(Severity::Error) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    init_logging_as(loaded.settings.log.format);
    loaded.warnings.log_warnings();
    allow_many_files();
    let ended =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(BoxError::from).and_then(
            |runtime| {
                let ended = runtime.block_on(route(&loaded));
                // Dropping it would wait for calls that block, for as long as they do.
                runtime.shutdown_timeout(END_TIMEOUT);
                ended
            },
        );
    let code = match ended {
        Ok(Shutdown::Drained) => ExitCode::SUCCESS,
        Ok(Shutdown::Aborted) => ExitCode::FAILURE,
        Err(error) => {
            logging::say(&format!("error: {}", Chain(&*error)));
            ExitCode::FAILURE
        }
    };
    logging::flush(END_TIMEOUT);
    code
}

/// Each lock that this process leads is two open files. The usual soft limit of 1024 is there for old
/// programs that cannot count further; the hard limit is the administrator's word.
fn allow_many_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        // If it is refused, the limit stays, and reaching it is an error that says so.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

async fn route(loaded: &Loaded) -> Result<Shutdown, BoxError> {
    // Before this process takes part in anything.
    #[cfg(feature = "admin")]
    let admin = bactrian::admin::listen(&loaded.settings.admin, &Environment::of_process())?;
    let mut builder = loaded.builder();
    if let Some(service) = loaded.service {
        builder = builder.cluster(cluster::open(service, &loaded.settings).await?);
    }
    // The warnings are in the log already.
    let (router, _) = builder.build_with_warnings()?;
    #[cfg(feature = "admin")]
    let _admin = admin.map(|listener| listener.serve(&router)).transpose()?;
    Ok(bactrian::run(&router).await)
}
