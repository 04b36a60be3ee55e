//! [`Manifest`]: everything that a cluster needs to run members, as YAML documents.

mod names;
mod objects;
#[cfg(test)]
mod tests;
mod yaml;

use std::time::Duration;

use router_core::cluster::LockName;

use crate::config_map::RESOURCE_NAME;
use crate::names::Group;
use crate::rules::{Purpose, Rule, rules};
use crate::settings::Resource;
pub(crate) use names::selected_labels;
use names::{Labels, check_files, check_image, check_label};
use objects::Objects;
use yaml::{role_text, text};

/// The first line of every document: what begins with it may be written over.
pub const MANIFEST_MARK: &str =
    "# Made by `bactrian kubernetes manifest`; make it anew instead of editing it.";

/// Members of one program, to be run by a Deployment.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The name of the Deployment and of what belongs to it: a label of DNS.
    pub name: String,
    /// The namespace of everything.
    pub namespace: String,
    /// The image.
    pub image: String,
    /// How many members run.
    pub replicas: u16,
    /// The route files, by their names without folders. The program is called with `run` and their paths.
    pub files: Vec<(String, String)>,
    /// Variables of the environment, beside those that tell a pod who it is.
    pub variables: Vec<(String, String)>,
    /// Whether the files ask for variables of the environment. They come from the Secret that is called
    /// as the Deployment is, where there is one.
    pub secret: bool,
    /// The port at which the members answer probes; `None`: they do not.
    pub probes: Option<u16>,
    /// The directory of large bodies, and how many bytes they have there at most.
    pub spool: (String, u64),
    /// How long a member that is asked to stop may take to finish its work.
    pub drain: Duration,
    /// What the members elect; `None`: nothing, and they need no rights.
    pub election: Option<Election>,
}

/// What members elect.
#[derive(Clone, Debug)]
pub struct Election {
    /// The group of the members.
    pub group: Group,
    /// The locks, and the routes that use each.
    pub locks: Vec<(LockName, Vec<String>)>,
    /// The selector by which members find the pods of one another, where they look at them.
    pub cluster_labels: Option<String>,
    /// What the locks are kept in.
    pub resource: Resource,
    /// The name of the ConfigMap, for [`Resource::ConfigMap`]; by default `leaders`.
    pub resource_name: Option<String>,
}

impl Election {
    fn config_map(&self) -> &str {
        self.resource_name.as_deref().unwrap_or(RESOURCE_NAME)
    }

    /// What the features in use need, and nothing more. Sessions are removed with their pods.
    fn rules(&self) -> impl Iterator<Item = &'static Rule> {
        let with_pods = self.cluster_labels.as_ref().is_some_and(|labels| !labels.is_empty());
        rules(self.resource).iter().filter(move |rule| match rule.purpose {
            Purpose::Election | Purpose::Events => true,
            Purpose::Pods => with_pods,
            Purpose::CleanUp => false,
        })
    }
}

/// One YAML document.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Document {
    /// What a file with it would be called.
    pub file_name: &'static str,
    /// The YAML, beginning with [`MANIFEST_MARK`].
    pub text: String,
}

/// What is wrong with a [`Manifest`].
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidManifest(String);

impl Manifest {
    /// The documents, in the order in which they are to be applied.
    ///
    /// Applying them again never touches who holds a lock: the Leases of the locks have neither a holder nor
    /// a record, so neither way of applying (by the client or by the server) takes those away.
    ///
    /// # Errors
    /// When a name, a label or the image is none that Kubernetes takes, or the files do not fit into a
    /// ConfigMap.
    pub fn documents(&self) -> Result<Vec<Document>, InvalidManifest> {
        check_label("the name (`--name`)", &self.name)?;
        check_label("the namespace", &self.namespace)?;
        check_image(&self.image)?;
        check_files(&self.files)?;
        let objects = Objects { manifest: self, labels: self.labels(), pod_labels: self.pod_labels()? };
        let mut documents = vec![document("service-account.yaml", text(&objects.service_account())?)];
        if let Some(election) = &self.election {
            let role = role_text(&objects.role(), election.rules(), Some(election.config_map()))?;
            documents.push(document("role.yaml", role));
            documents.push(document("role-binding.yaml", text(&objects.role_binding())?));
        }
        documents.push(document("routes.yaml", text(&objects.config_map())?));
        for (index, lease) in objects.locks().iter().enumerate() {
            let text = text(lease)?;
            match documents.last_mut().filter(|_| index > 0) {
                Some(locks) => locks.text += &format!("---\n{text}"),
                None => documents.push(document("locks.yaml", text)),
            }
        }
        documents.push(document("deployment.yaml", text(&objects.deployment())?));
        documents.push(document("pod-disruption-budget.yaml", text(&objects.pod_disruption_budget())?));
        Ok(documents)
    }

    fn labels(&self) -> Labels {
        [("app.kubernetes.io/name", self.name.as_str()), (crate::MANAGED_BY_LABEL, crate::MANAGED_BY)]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    /// The labels of the pods: also those by which members and tools find them.
    fn pod_labels(&self) -> Result<Labels, InvalidManifest> {
        let mut labels = self.labels();
        let Some(election) = &self.election else { return Ok(labels) };
        labels.insert(crate::GROUP_LABEL.into(), election.group.to_string());
        for (key, value) in selected_labels(election.cluster_labels.as_deref().unwrap_or_default())? {
            if let Some(ours) = labels.get(&key).filter(|ours| **ours != value) {
                let text = format!(
                    "`cluster.kubernetes.cluster_labels` wants {key}={value}, and the pods have {key}={ours}"
                );
                return Err(InvalidManifest(text));
            }
            labels.insert(key, value);
        }
        Ok(labels)
    }
}

fn document(file_name: &'static str, text: String) -> Document {
    Document { file_name, text: format!("{MANIFEST_MARK}\n{text}") }
}
