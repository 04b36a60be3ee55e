//! `bactrian run`.

use std::process::{ExitCode, Termination as _};
use std::time::Duration;

use bactrian::Hangups;
use bactrian::load::Loaded;
use bactrian::logging::{self, init_logging_as};
#[cfg(feature = "admin")]
use bactrian::settings::Environment;
use router_core::error::{BoxError, Chain, ConfigErrors, Severity};
use router_core::router::{Router, RouterError, ShutdownOutcome};
use tracing::{error, info, warn};

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
                let ended = runtime.block_on(route(sources, &loaded));
                // Dropping it would wait for calls that block, for as long as they do.
                runtime.shutdown_timeout(END_TIMEOUT);
                ended
            },
        );
    let code = match ended {
        Ok(outcome) => outcome.report(),
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

async fn route(sources: &Sources, loaded: &Loaded) -> Result<ShutdownOutcome, BoxError> {
    // Before this process takes part in anything.
    #[cfg(feature = "admin")]
    let admin = bactrian::admin::listen(&loaded.settings.admin, &Environment::of_process())?;
    let mut builder = loaded.builder();
    if let Some(service) = &loaded.service {
        builder = builder.cluster(service.open().await?);
    }
    // The warnings are in the log already.
    let (router, _) = builder.build_with_warnings()?;
    #[cfg(feature = "admin")]
    let _admin = admin.map(|listener| listener.serve(&router)).transpose()?;
    let mut hangups = Hangups::listen()?;
    let reloading = async {
        loop {
            hangups.next().await;
            reload(sources, &router, loaded).await;
        }
    };
    tokio::select! {
        biased;
        ended = bactrian::run(&router) => Ok(ended),
        () = reloading => unreachable!("it waits for the next signal"),
    }
}

/// Reads the files again, and makes their routes those of the router. After an error, everything stays as it is.
async fn reload(sources: &Sources, router: &Router, running: &Loaded) {
    info!("SIGHUP: reading the routes again");
    let loaded = match tokio::task::block_in_place(|| sources.try_load(Severity::Error)) {
        Ok(loaded) => loaded,
        Err(errors) => return refuse(&errors),
    };
    loaded.warnings.log_warnings();
    if loaded.settings != running.settings {
        warn!("settings have changed, which are read at the start alone: restart the process for them");
    }
    let routes = loaded.files.iter().flat_map(|file| file.routes.iter().cloned());
    match router.apply(routes).await {
        Ok(changes) => info!("the routes were read again: {changes}"),
        Err(RouterError::Config(errors)) => refuse(&errors),
        Err(error) => warn!("the routes were not changed: {}", Chain(&error)),
    }
}

fn refuse(errors: &ConfigErrors) {
    error!(multiline = true, "the routes were not changed, because the files have errors. {errors}");
}
