//! The command line: one file per verb.
//!
//! Data goes to stdout, logs and diagnostics go to stderr. Exit codes: 0 done, 1 failed, 2 the command
//! line itself is wrong, 78 the configuration is wrong (`EX_CONFIG` of `sysexits.h`).

mod check;
mod doc;
mod drain;
mod handover;
#[cfg(feature = "cluster-kubernetes")]
mod kubernetes;
mod leaders;
mod list;
mod operator;
mod output;
mod plugin;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use bactrian::load::{Loaded, load};
use bactrian::settings::Environment;
use clap::{Args, Parser, Subcommand};
use router_core::error::{ConfigErrors, Severity};

/// Routes that exactly one replica runs.
#[derive(Parser)]
#[command(name = "bactrian", version, about, long_about = None, after_help = "Example:\n  bactrian run examples/clock.toml", arg_required_else_help = true)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Run(RunArguments),
    Check(CheckArguments),
    /// List the components: scheme, where it can stand, what it is for
    #[command(after_help = "Example:\n  bactrian list")]
    List,
    Doc(doc::Arguments),
    Leaders(leaders::Arguments),
    Handover(handover::Arguments),
    Drain(drain::Arguments),
    #[cfg(feature = "cluster-kubernetes")]
    Kubernetes(kubernetes::Arguments),
    /// Not built into this program
    #[cfg(not(feature = "cluster-kubernetes"))]
    #[command(hide = true, disable_help_flag = true)]
    Kubernetes {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        _arguments: Vec<std::ffi::OsString>,
    },
}

/// Run the routes of files until SIGINT or SIGTERM.
///
/// The first signal lets exchanges in flight finish, the second drops them. SIGHUP reads the routes again.
#[derive(Args)]
#[command(after_help = "Example:\n  bactrian run examples/clock.toml --set router.shutdown_timeout=10s")]
struct RunArguments {
    #[command(flatten)]
    sources: Sources,
}

/// Check the routes and settings of files, without starting anything.
#[derive(Args)]
#[command(after_help = "Example:\n  bactrian check routes/")]
struct CheckArguments {
    #[command(flatten)]
    sources: Sources,
}

/// Where routes and settings come from.
#[derive(Args)]
struct Sources {
    /// Files of routes, or folders of `*.toml` files [default: routes.toml]
    #[arg(value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Set a setting, over the files and the environment; can be repeated
    #[arg(long = "set", value_name = "TABLE.KEY=VALUE")]
    set: Vec<String>,
}

impl Sources {
    /// Everything, checked, or the exit code after all errors were printed. See [`load`] for `missing_secrets`.
    fn load(&self, missing_secrets: Severity) -> Result<Loaded, ExitCode> {
        self.load_in(&plugin::pairs(&self.set, None), &Environment::of_process(), missing_secrets)
    }

    fn load_in(
        &self,
        pairs: &[String],
        environment: &Environment,
        missing_secrets: Severity,
    ) -> Result<Loaded, ExitCode> {
        load(&self.paths, pairs, environment, bactrian::registry(), missing_secrets)
            .map_err(|errors| output::config_errors(&errors))
    }

    /// As [`load`](Self::load), and nothing is printed.
    fn try_load(&self, missing_secrets: Severity) -> Result<Loaded, ConfigErrors> {
        let pairs = plugin::pairs(&self.set, None);
        load(&self.paths, &pairs, &Environment::of_process(), bactrian::registry(), missing_secrets)
    }
}

/// Runs the verb of the command line.
pub(crate) fn main() -> ExitCode {
    // First of all, before the command line is read: the kernel drops a signal for a process with the id 1 that has
    // not asked for it. Until the routes are started, one ends the process at once, whatever it waits for.
    let runs = std::env::args_os().nth(1).is_some_and(|verb| verb == "run");
    if runs && let Err(error) = bactrian::listen_for_signals() {
        return output::failure(&format!("cannot listen for signals: {error}"));
    }
    match plugin::parse::<Command>().verb {
        Verb::Run(RunArguments { sources }) => run::run(&sources),
        Verb::Check(CheckArguments { sources }) => check::run(&sources),
        Verb::List => list::run(),
        Verb::Doc(arguments) => doc::run(&arguments),
        Verb::Leaders(arguments) => leaders::run(&arguments),
        #[cfg(feature = "cluster-kubernetes")]
        Verb::Kubernetes(arguments) => kubernetes::run(&arguments),
        #[cfg(not(feature = "cluster-kubernetes"))]
        Verb::Kubernetes { .. } => {
            let build = bactrian::build_with("cluster-kubernetes");
            output::failure(&format!("`bactrian kubernetes` is not built into this program: {build}"))
        }
        Verb::Handover(arguments) => handover::run(&arguments),
        Verb::Drain(arguments) => drain::run(&arguments),
    }
}
