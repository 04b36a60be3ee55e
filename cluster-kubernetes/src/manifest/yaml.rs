//! Objects as YAML text.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use k8s_openapi::serde::Serialize;

use super::InvalidManifest;
use crate::rules::Rule;

pub(super) fn text(object: &impl Serialize) -> Result<String, InvalidManifest> {
    let text = serde_saphyr::to_string(object);
    text.map_err(|error| InvalidManifest(format!("it cannot be written as YAML: {error}")))
}

/// A Role, with a comment at each of its rules.
pub(super) fn role_text<'a>(
    role: &Role,
    rules: impl Iterator<Item = &'a Rule>,
) -> Result<String, InvalidManifest> {
    let mut yaml = text(role)?;
    yaml.push_str("rules:\n");
    for rule in rules {
        for line in rule.why.lines() {
            yaml.push_str(&format!("# {line}\n"));
        }
        let written = PolicyRule {
            api_groups: Some(vec![rule.api_group.into()]),
            resources: Some(vec![rule.resource.into()]),
            verbs: rule.verbs.iter().map(ToString::to_string).collect(),
            ..PolicyRule::default()
        };
        yaml.push_str(&text(&[written])?);
    }
    Ok(yaml)
}
