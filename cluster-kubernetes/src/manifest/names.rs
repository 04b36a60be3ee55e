//! What Kubernetes takes as names, labels, keys and images.

use std::collections::{BTreeMap, HashSet};

use super::InvalidManifest;
use crate::names::is_dns_label;

pub(super) type Labels = BTreeMap<String, String>;

/// The longest label of DNS, and the longest value of a label.
const MAX_LABEL: usize = 63;
/// What a ConfigMap holds, less some room for the rest of it.
const MAX_FILES_BYTES: usize = 1_000_000;

pub(super) fn check_label(what: &str, name: &str) -> Result<(), InvalidManifest> {
    if name.len() <= MAX_LABEL && is_dns_label(name) {
        return Ok(());
    }
    Err(InvalidManifest(format!(
        "{what} {name:?} is no label of DNS (RFC 1123): 1 to {MAX_LABEL} of the characters a-z, 0-9 and `-`, \
         beginning and ending with a letter or digit"
    )))
}

/// What an image may be called is decided by its registry; what can never be one is an error here.
pub(super) fn check_image(image: &str) -> Result<(), InvalidManifest> {
    let sound = |character: char| character.is_ascii_graphic() && !"\"'`\\".contains(character);
    if !image.is_empty() && image.chars().all(sound) && !image.starts_with('-') {
        return Ok(());
    }
    Err(InvalidManifest(format!("{image:?} is no image: write it as `registry.example/clock:1`")))
}

pub(super) fn check_files(files: &[(String, String)]) -> Result<(), InvalidManifest> {
    let mut names = HashSet::new();
    for (name, _) in files {
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > 253 || name.starts_with('.') || !name.bytes().all(sound) {
            let text = "a ConfigMap takes files whose names have letters, digits, `-`, `_` and `.`";
            return Err(InvalidManifest(format!("{text}, and do not begin with `.`: rename `{name}`")));
        }
        if !names.insert(name) {
            let text = format!("there are two files `{name}`, and a ConfigMap has no folders: rename one");
            return Err(InvalidManifest(text));
        }
    }
    let bytes = files.iter().map(|(_, text)| text.len()).sum::<usize>();
    if bytes > MAX_FILES_BYTES {
        let text = format!("the files have {bytes} bytes, and a ConfigMap takes {MAX_FILES_BYTES} of them");
        return Err(InvalidManifest(text));
    }
    Ok(())
}

/// The labels that pods must have to be found by a selector.
pub(crate) fn selected_labels(selector: &str) -> Result<Labels, InvalidManifest> {
    let mut labels = Labels::new();
    for requirement in selector.split(',').filter(|requirement| !requirement.trim().is_empty()) {
        let pair = requirement.split_once("==").or_else(|| requirement.split_once('='));
        let pair = pair.map(|(key, value)| (key.trim(), value.trim()));
        let Some((key, value)) = pair.filter(|(key, value)| is_label_key(key) && is_label_value(value))
        else {
            let text = format!(
                "`cluster.kubernetes.cluster_labels` has {requirement:?}: write labels as `app=clock,tier=back`"
            );
            return Err(InvalidManifest(text));
        };
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').unwrap_or(("prefix", key));
    !name.is_empty() && is_label_value(name) && prefix.len() <= 253 && prefix.split('.').all(is_dns_label)
}

fn is_label_value(value: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [value.bytes().next(), value.bytes().last()];
    value.len() <= MAX_LABEL
        && value.bytes().all(sound)
        && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
}
