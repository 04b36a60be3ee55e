//! Proof that a process has ended, in the words of the process itself.
//!
//! Kubernetes gives each container a file for its last words (`terminationMessagePath`). When the container
//! has ended, and only then, the kubelet puts them into the status of the pod. So a process writes down, as
//! soon as it starts, which incarnation it is: once other members read that in the status of a container
//! that has terminated, the very process that wrote it is gone. Neither pod names, which are used again,
//! nor container ids, which a process cannot find out for sure, nor clocks are needed.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// Where the last words are kept when nobody has said otherwise.
pub(crate) const TERMINATION_LOG: &str = "/dev/termination-log";
const PREFIX: &str = "bactrian incarnation ";

/// Writes down which incarnation this process is. The file is made by the kubelet; where it is missing,
/// this is no container of Kubernetes.
pub(crate) fn write(path: &Path, incarnation: u128) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.write_all(format!("{PREFIX}{incarnation:032x}\n").as_bytes())
}

/// The incarnations that have ended, according to the status of a pod.
pub(crate) fn ended(pod: &Pod) -> Vec<u128> {
    let Some(status) = &pod.status else { return Vec::new() };
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    containers.flat_map(words).flat_map(|words| parse(&words)).collect()
}

/// The last words of a container that has terminated, and of the one before it in its place.
fn words(status: &ContainerStatus) -> impl Iterator<Item = String> {
    let states = [status.state.as_ref(), status.last_state.as_ref()];
    states
        .into_iter()
        .flatten()
        .filter_map(|state| state.terminated.as_ref()?.message.clone())
        .collect::<Vec<_>>()
        .into_iter()
}

fn parse(words: &str) -> Vec<u128> {
    let incarnations = words.lines().filter_map(|line| line.strip_prefix(PREFIX));
    incarnations
        .filter(|text| text.len() == 32)
        .filter_map(|text| u128::from_str_radix(text, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, PodStatus};

    use super::*;

    fn terminated(message: &str) -> ContainerState {
        let terminated = ContainerStateTerminated { message: Some(message.into()), ..Default::default() };
        ContainerState { terminated: Some(terminated), ..Default::default() }
    }

    fn pod(statuses: Vec<ContainerStatus>, phase: &str) -> Pod {
        let status =
            PodStatus { container_statuses: Some(statuses), phase: Some(phase.into()), ..Default::default() };
        Pod { status: Some(status), ..Default::default() }
    }

    #[test]
    fn what_a_process_wrote_is_found_when_its_container_has_terminated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("termination-log");
        assert!(write(&path, 7).is_err(), "the file is the kubelet's to make");
        std::fs::write(&path, "").unwrap();
        write(&path, 7).unwrap();
        write(&path, u128::MAX).unwrap();
        let message = std::fs::read_to_string(&path).unwrap();
        let now = ContainerStatus { state: Some(terminated(&message)), ..Default::default() };
        assert_eq!(ended(&pod(vec![now], "Running")), [7, u128::MAX]);
        let restarted = ContainerStatus { last_state: Some(terminated(&message)), ..Default::default() };
        assert_eq!(ended(&pod(vec![restarted], "Running")), [7, u128::MAX]);
    }

    #[test]
    fn a_failed_pod_proves_nothing() {
        assert!(ended(&pod(vec![ContainerStatus::default()], "Failed")).is_empty());
        let other = ContainerStatus { state: Some(terminated("out of memory")), ..Default::default() };
        assert!(ended(&pod(vec![other], "Failed")).is_empty());
        assert!(ended(&Pod::default()).is_empty());
    }
}
