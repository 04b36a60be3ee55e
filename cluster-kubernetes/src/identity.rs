//! Who this member is.

use router_core::cluster::{ClusterError, Member};
use smol_str::{SmolStr, format_smolstr};

/// Where a pod's service account says which namespace it is in.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// What the downward API tells a process of its pod, or what stands for it outside of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// The name of the pod: `POD_NAME`, from `metadata.name`; without it, the host name, which inside a
    /// pod is nearly always the same.
    pub name: Option<SmolStr>,
    /// The namespace of the pod: `POD_NAMESPACE`, from `metadata.namespace`; without it, that of the
    /// service account.
    pub namespace: Option<SmolStr>,
    /// The uid of the pod: `POD_UID`, from `metadata.uid`. With it, the sessions of a pod are deleted
    /// by Kubernetes when the pod is.
    pub uid: Option<SmolStr>,
}

impl PodIdentity {
    /// As the environment of this process says.
    #[must_use]
    pub fn of_process() -> Self {
        let namespace = std::fs::read_to_string(NAMESPACE_FILE).ok();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self::from_environment(|name| std::env::var(name).ok(), namespace, host)
    }

    fn from_environment(
        variable: impl Fn(&str) -> Option<String>,
        namespace: Option<String>,
        host: String,
    ) -> Self {
        Self {
            // An empty variable is an error in the manifest, which is reported and not guessed around.
            name: Some(variable("POD_NAME").unwrap_or(host).into()),
            namespace: variable("POD_NAMESPACE").or(namespace).map(|name| name.trim().into()),
            uid: variable("POD_UID").filter(|uid| !uid.is_empty()).map(Into::into),
        }
    }

    /// The member, as a process of its own: the next process in the same pod is another member.
    ///
    /// # Errors
    /// When the name is missing, or is none that a pod or host could have.
    pub(crate) fn member(&self, incarnation: u128) -> Result<Member, ClusterError> {
        let name = self.name.as_deref().unwrap_or_default();
        let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        if name.is_empty() || name.len() > 253 || !name.bytes().all(sound) {
            let text = format!(
                "this member has no usable name: POD_NAME, or else the host name, is {name:?}; set POD_NAME from \
                 `metadata.name` by the downward API"
            );
            return Err(ClusterError::Unusable(text, None));
        }
        Ok(Member {
            id: format_smolstr!("{name}_{:08x}", incarnation >> 96),
            host: Some(name.into()),
            pid: Some(std::process::id()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(variables: &[(&str, &str)]) -> PodIdentity {
        let find =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        PodIdentity::from_environment(find, Some("shop\n".into()), "node".into())
    }

    #[test]
    fn a_pod_names_itself_and_a_process_names_its_host() {
        let pod = identity(&[("POD_NAME", "clock-0"), ("POD_NAMESPACE", "time"), ("POD_UID", "u")]);
        assert_eq!(pod.namespace.as_deref(), Some("time"));
        assert_eq!(pod.uid.as_deref(), Some("u"));
        assert_eq!(pod.member(0x1a2b_3c4d << 96).unwrap().id, "clock-0_1a2b3c4d");
        let process = identity(&[]);
        assert_eq!(process.namespace.as_deref(), Some("shop"));
        assert_eq!(process.member(0).unwrap().id, "node_00000000");
    }

    #[test]
    fn a_name_that_is_empty_or_odd_is_refused() {
        for name in ["", " ", "$(POD_NAME)", "a b"] {
            let error = identity(&[("POD_NAME", name)]).member(1).unwrap_err();
            assert!(error.to_string().contains("POD_NAME"), "{error}");
        }
        assert!(PodIdentity::default().member(1).is_err());
    }
}
