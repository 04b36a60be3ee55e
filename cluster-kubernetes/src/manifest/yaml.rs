//! Objects as YAML text.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role};
use k8s_openapi::serde::Serialize;

use super::InvalidManifest;
use super::rights::Right;

pub(super) fn text(object: &impl Serialize) -> Result<String, InvalidManifest> {
    let text = serde_saphyr::to_string(object);
    text.map_err(|error| InvalidManifest(format!("it cannot be written as YAML: {error}")))
}

/// A Role, with a comment at each of its rules.
pub(super) fn role_text(role: &Role, rights: &[Right]) -> Result<String, InvalidManifest> {
    let mut yaml = text(role)?;
    yaml.push_str("rules:\n");
    for right in rights {
        for line in right.why {
            yaml.push_str(&format!("# {line}\n"));
        }
        let rule = PolicyRule {
            api_groups: Some(vec![right.rule.api_group.into()]),
            resources: Some(vec![right.rule.resource.into()]),
            verbs: right.verbs.iter().map(ToString::to_string).collect(),
            ..PolicyRule::default()
        };
        yaml.push_str(&text(&[rule])?);
    }
    Ok(yaml)
}
