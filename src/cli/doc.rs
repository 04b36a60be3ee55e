//! `bactrian doc`.

use std::process::ExitCode;

use bactrian::settings::settings_table;
use clap::Args;
use router_core::component::Registry;
use router_core::error::ConfigError;
use router_core::source::SourceText;
use router_core::step::StepDescription;
use router_core::steps;

use super::output;

/// Show what a component or a step is for, and its options; or all settings; or all metrics.
#[derive(Args)]
#[command(after_help = "Example:\n  bactrian doc timer")]
pub(super) struct Arguments {
    /// A component of `bactrian list`, a step, `settings`, or `metrics`
    name: String,
}

pub(super) fn run(Arguments { name }: &Arguments) -> ExitCode {
    if name == "settings" {
        return output::data(&settings_table(&bactrian::registry()));
    }
    #[cfg(feature = "admin")]
    if name == "metrics" {
        return output::data(&router_core::metrics::metrics_table(bactrian::admin::metrics()));
    }
    let registry = bactrian::registry();
    // A step and a component may have the same name, as `log` does.
    let found = [steps::find(name).map(step), component(name, &registry)];
    let found = found.into_iter().flatten().collect::<Vec<_>>();
    if !found.is_empty() {
        return output::data(&found.join("\n"));
    }
    let text = SourceText::computed(name.as_str());
    let error = |message: String| ConfigError::at(&text, 0..name.len(), message);
    let error = match registry.remedy(name) {
        Some(remedy) => error(format!("the component `{name}` is not built into this program")).help(remedy),
        None => {
            let names = registry.descriptions().map(|component| component.scheme);
            let steps = steps::ALL.iter().map(|step| step.name);
            let all = steps.clone().collect::<Vec<_>>().join(", ");
            error(format!("unknown component or step `{name}`"))
                .suggest(name, names.chain(steps))
                .help(format!("`bactrian list` shows all components; the steps are {all}"))
        }
    };
    output::diagnostic(&error.to_string());
    ExitCode::from(2)
}

fn step(step: &StepDescription) -> String {
    let StepDescription { name, summary, example, .. } = step;
    format!("# {name} (step)\n\n{summary}\n\nIn TOML: `{example}`\n\n{}", step.key_table())
}

fn component(name: &str, registry: &Registry) -> Option<String> {
    let component = registry.descriptions().find(|component| component.scheme == name)?;
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
    Some(format!(
        "# {scheme}\n\n{summary}\n\nSyntax: `{syntax}`, {used}; as a table, in which nothing is decoded: \
         `{{ {table}OPTION = ... }}`\n\n{}",
        component.option_table()
    ))
}
