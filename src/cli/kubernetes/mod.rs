//! `bactrian kubernetes`: what is for clusters of pods only.

mod kustomize;
mod manifest;

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::output;

/// Prepare a cluster of Kubernetes for routes.
#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Manifest(manifest::Arguments),
}

pub(super) fn run(Arguments { verb }: &Arguments) -> ExitCode {
    match verb {
        Verb::Manifest(arguments) => manifest::run(arguments),
    }
}

/// Says what is wrong with the configuration as a whole.
fn misconfigured(message: &str) -> ExitCode {
    output::diagnostic(&format!("error: {message}"));
    ExitCode::from(output::BAD_CONFIGURATION)
}
