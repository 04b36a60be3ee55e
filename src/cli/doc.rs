//! `bactrian doc`.

use std::process::ExitCode;

use bactrian::settings::settings_table;
use clap::Args;
use router_core::error::ConfigError;
use router_core::source::SourceText;

use super::output;

/// Show what a component is for, its URI and its options; or all settings; or all metrics.
#[derive(Args)]
#[command(after_help = "Example:\n  bactrian doc timer")]
pub(super) struct Arguments {
    /// A component of `bactrian list`, or `settings`, or `metrics`
    name: String,
}

pub(super) fn run(Arguments { name }: &Arguments) -> ExitCode {
    if name == "settings" {
        return output::data(&settings_table());
    }
    #[cfg(feature = "admin")]
    if name == "metrics" {
        return output::data(&router_core::metrics::metrics_table(bactrian::admin::metrics()));
    }
    let registry = bactrian::registry();
    if let Some(component) = registry.descriptions().find(|component| component.scheme == name) {
        let used = match (component.consumes, component.produces) {
            (true, true) => "in `from` and `to`",
            (true, false) => "in `from`",
            (false, _) => "in `to`",
        };
        let (scheme, syntax, summary) = (component.scheme, component.syntax, component.summary);
        let table = match component.path.key {
            "" => format!("uri = \"{syntax}\", "),
            key => format!("uri = \"{scheme}:\", {key} = \"...\", "),
        };
        return output::data(&format!(
            "# {scheme}\n\n{summary}\n\nSyntax: `{syntax}`, {used}; as a table, in which nothing is decoded: \
             `{{ {table}OPTION = ... }}`\n\n{}",
            component.option_table()
        ));
    }
    let text = SourceText::computed(name.as_str());
    let error = |message: String| ConfigError::at(&text, 0..name.len(), message);
    let error = match registry.remedy(name) {
        Some(remedy) => error(format!("the component `{name}` is not built into this program")).help(remedy),
        None => error(format!("unknown component `{name}`"))
            .suggest(name, registry.descriptions().map(|component| component.scheme))
            .help("`bactrian list` shows all components"),
    };
    output::diagnostic(&error.to_string());
    ExitCode::from(2)
}
