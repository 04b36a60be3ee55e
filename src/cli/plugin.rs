//! `kubectl bactrian`: the same program under the name `kubectl-bactrian`. Its cluster service is
//! `kubernetes` unless `--set` says otherwise.

use std::path::Path;

use clap::Parser;

/// kubectl runs the program of this name for `kubectl bactrian`.
const NAME: &str = "kubectl-bactrian";

/// Whether the program was called as a plugin of kubectl.
fn is_plugin() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_stem().is_some_and(|stem| stem == NAME))
}

/// The settings of the command line: those that come with the name of the program, then `--set`, then
/// `--namespace`.
pub(super) fn pairs(set: &[String], namespace: Option<&str>) -> Vec<String> {
    let named = is_plugin().then(|| "cluster.service=kubernetes".to_owned());
    let namespace = namespace.map(|namespace| format!("cluster.kubernetes.namespace={namespace}"));
    named.into_iter().chain(set.iter().cloned()).chain(namespace).collect()
}

/// Parses the command line; the help shows the program as it was called.
pub(super) fn parse<C: Parser>() -> C {
    let mut command = C::command();
    if is_plugin() {
        command = command.name("kubectl bactrian").bin_name("kubectl bactrian");
    }
    let mut matches = command.clone().get_matches();
    C::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.format(&mut command).exit())
}
