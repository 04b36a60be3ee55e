//! What the verbs have in common that ask the members of a cluster for something.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bactrian::load::load_cluster;
use bactrian::settings::Environment;
use clap::Args;
use router_core::cluster::Operator;
use router_core::error::{BoxError, Chain};
use router_core::options::parse_duration;

use super::{output, plugin};

/// Which cluster is meant, and how long to wait.
#[derive(Args)]
pub(super) struct Cluster {
    /// The file with the `[cluster]` of the members [default: routes.toml, if there is one]
    #[arg(value_name = "ROUTES.toml")]
    paths: Vec<PathBuf>,
    /// Set a setting, over the file and the environment; can be repeated
    #[arg(long = "set", value_name = "TABLE.KEY=VALUE")]
    set: Vec<String>,
    /// The namespace of the locks [default: `cluster.kubernetes.namespace`, or that of the context]
    #[arg(short, long)]
    namespace: Option<String>,
    /// How long to wait until it is done
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    pub(super) timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

impl Cluster {
    /// Does `work` with an operator, and prints the line that it returns, or why it failed. `file` is one more
    /// file with the settings of the cluster.
    pub(super) fn ask(
        &self,
        file: Option<PathBuf>,
        work: impl AsyncFnOnce(Box<dyn Operator>) -> Result<String, BoxError>,
    ) -> ExitCode {
        let paths = file.into_iter().chain(self.paths.clone()).collect::<Vec<_>>();
        let pairs = plugin::pairs(&self.set, self.namespace.as_deref());
        let loaded = load_cluster(&paths, &pairs, &Environment::of_process(), &bactrian::registry());
        let service = match loaded {
            Ok(service) => service,
            Err(errors) => return output::config_errors(&errors),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let asked = runtime
            .map_err(BoxError::from)
            .and_then(|runtime| runtime.block_on(async { work(service.operator().await?).await }));
        match asked {
            Ok(line) => output::data(&format!("{line}\n")),
            Err(error) => output::failure(&Chain(&*error).to_string()),
        }
    }
}
