//! `bactrian run`.

use std::process::ExitCode;
use std::time::Duration;

use bactrian::cluster;
use bactrian::load::Loaded;
use bactrian::logging::init_logging_as;
#[cfg(feature = "admin")]
use bactrian::settings::Environment;
use router_core::error::{BoxError, Chain};
use router_core::router::Shutdown;

use super::{Sources, output};

/// Exit codes: 0 after all exchanges were finished, 1 when some were dropped (after a second signal, because
/// draining took too long, or because a term had ended), or the admin listener or the cluster service could not
/// be opened.
pub(super) fn run(sources: &Sources) -> ExitCode {
    let loaded = match sources.load() {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    init_logging_as(loaded.settings.log.format);
    allow_many_files();
    let ended = end_at_second_signal().and_then(|()| {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(route(&loaded));
        // A call that blocks in the kernel, on a disk that hangs for example, is not waited for.
        runtime.shutdown_background();
        ended
    });
    match ended {
        Ok(Shutdown::Drained) => ExitCode::SUCCESS,
        Ok(Shutdown::Aborted) => ExitCode::FAILURE,
        Err(error) => output::failure(&Chain(&*error).to_string()),
    }
}

/// How long the router may take to abort after the second signal.
const ABORT: Duration = Duration::from_secs(3);

/// Ends the process after the second signal, also if the router cannot: threads may be blocked in the kernel.
/// Hence a thread and a runtime of its own.
fn end_at_second_signal() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let wait = async {
        bactrian::shutdown_signal().await;
        bactrian::shutdown_signal().await;
        tokio::time::sleep(ABORT).await;
        tracing::error!(
            "this process ends without having aborted everything, {ABORT:?} after the second signal"
        );
        std::process::exit(1);
    };
    std::thread::Builder::new().name("second-signal".into()).spawn(move || runtime.block_on(wait))?;
    Ok(())
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
    let router = builder.build()?;
    #[cfg(feature = "admin")]
    let _admin = admin.map(|listener| listener.serve(&router)).transpose()?;
    Ok(bactrian::run(&router).await)
}
