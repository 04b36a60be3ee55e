//! Objects as YAML text.

use k8s_openapi::api::rbac::v1::Role;
use k8s_openapi::serde::Serialize;

use super::InvalidManifest;
use crate::rules::{CONFIG_MAPS, Rule};

pub(super) fn text(object: &impl Serialize) -> Result<String, InvalidManifest> {
    let text = serde_saphyr::to_string(object);
    text.map_err(|error| InvalidManifest(format!("it cannot be written as YAML: {error}")))
}

/// A Role, with a comment at each of its rules. Of ConfigMaps it names this one.
pub(super) fn role_text<'a>(
    role: &Role,
    rules: impl Iterator<Item = &'a Rule>,
    config_map: Option<&str>,
) -> Result<String, InvalidManifest> {
    let mut yaml = text(role)?;
    yaml.push_str("rules:\n");
    for rule in rules {
        for line in rule.why.lines() {
            yaml.push_str(&format!("# {line}\n"));
        }
        let object = config_map.filter(|_| rule.resource == CONFIG_MAPS.resource);
        yaml.push_str(&text(&rule.policy_rules(object))?);
    }
    Ok(yaml)
}
