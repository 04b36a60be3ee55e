//! The objects of a manifest.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
    EnvFromSource, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretEnvSource, SecurityContext,
    ServiceAccount, TopologySpreadConstraint, Volume, VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::Labels;
use super::{Election, Manifest};
use crate::codec::bare_lock;
use crate::names::{ROUTES_ANNOTATION, hash};
use crate::settings::Resource;
use crate::termination_message::TERMINATION_LOG;

/// Where the route files are in the container.
const FOLDER: &str = "/etc/bactrian";
/// The name of the port of the admin listener.
const ADMIN_PORT: &str = "admin";
const RBAC: &str = "rbac.authorization.k8s.io";
/// What a member needs beside its drain: to give its locks up, and to say goodbye.
const GRACE_SECONDS: u64 = 15;

pub(super) struct Objects<'a> {
    pub(super) manifest: &'a Manifest,
    pub(super) labels: Labels,
    pub(super) pod_labels: Labels,
}

impl Objects<'_> {
    fn metadata(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(self.manifest.namespace.clone()),
            labels: Some(self.labels.clone()),
            ..ObjectMeta::default()
        }
    }

    /// Each Deployment has an account of its own, so that no other pod of the namespace has its rights.
    pub(super) fn service_account(&self) -> ServiceAccount {
        ServiceAccount { metadata: self.metadata(&self.manifest.name), ..ServiceAccount::default() }
    }

    /// Without its rules.
    pub(super) fn role(&self) -> Role {
        Role { metadata: self.metadata(&self.manifest.name), rules: None }
    }

    pub(super) fn role_binding(&self) -> RoleBinding {
        let name = &self.manifest.name;
        RoleBinding {
            metadata: self.metadata(name),
            role_ref: RoleRef { api_group: RBAC.into(), kind: "Role".into(), name: name.clone() },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".into(),
                name: name.clone(),
                namespace: Some(self.manifest.namespace.clone()),
                api_group: None,
            }]),
        }
    }

    /// Other files are another ConfigMap, so that a change of them rolls the Deployment, and a roll-back of
    /// the Deployment brings them back.
    fn config_map_name(&self) -> String {
        let texts = self.manifest.files.iter().map(|(name, text)| format!("{name}\n{}\n{text}", text.len()));
        format!("{}-routes-{}", self.manifest.name, hash(&texts.collect::<String>(), 8))
    }

    pub(super) fn config_map(&self) -> ConfigMap {
        ConfigMap {
            metadata: self.metadata(&self.config_map_name()),
            data: Some(self.manifest.files.iter().cloned().collect()),
            immutable: Some(true),
            ..ConfigMap::default()
        }
    }

    /// They have no label of this Deployment: nothing that deletes what carries its labels may delete a lock
    /// that somebody holds.
    pub(super) fn locks(&self) -> Vec<Lease> {
        let with_leases = |election: &&Election| election.resource == Resource::Lease;
        let Some(election) = self.manifest.election.as_ref().filter(with_leases) else { return Vec::new() };
        let lease = |(lock, routes): &(_, Vec<String>)| {
            let mut lease = bare_lock(&election.group, lock);
            lease.metadata.namespace = Some(self.manifest.namespace.clone());
            if !routes.is_empty() {
                let annotations = lease.metadata.annotations.get_or_insert_default();
                annotations.insert(ROUTES_ANNOTATION.into(), routes.join(", "));
            }
            lease
        };
        election.locks.iter().map(lease).collect()
    }

    fn selector(&self) -> LabelSelector {
        let name = self.labels.iter().filter(|(key, _)| key.ends_with("/name"));
        let labels = name.map(|(key, value)| (key.clone(), value.clone())).collect();
        LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
    }

    pub(super) fn deployment(&self) -> Deployment {
        let strategy = DeploymentStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDeployment {
                max_surge: Some(IntOrString::Int(1)),
                max_unavailable: Some(IntOrString::Int(0)),
            }),
        };
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta { labels: Some(self.pod_labels.clone()), ..ObjectMeta::default() }),
            spec: Some(self.pod()),
        };
        Deployment {
            metadata: self.metadata(&self.manifest.name),
            spec: Some(DeploymentSpec {
                replicas: Some(self.manifest.replicas.into()),
                selector: self.selector(),
                strategy: Some(strategy),
                template,
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }

    fn pod(&self) -> PodSpec {
        let drain = self.manifest.drain;
        let seconds = drain.as_secs() + u64::from(drain.subsec_nanos() > 0) + GRACE_SECONDS;
        PodSpec {
            service_account_name: Some(self.manifest.name.clone()),
            // Who elects nothing has nothing to say to the API server.
            automount_service_account_token: Some(self.manifest.election.is_some()),
            // Variables for each service of the namespace, which say nothing to routes, and may begin as settings do.
            enable_service_links: Some(false),
            termination_grace_period_seconds: Some(i64::try_from(seconds).unwrap_or(i64::MAX)),
            security_context: Some(PodSecurityContext {
                run_as_non_root: Some(true),
                seccomp_profile: Some(SeccompProfile {
                    type_: "RuntimeDefault".into(),
                    ..SeccompProfile::default()
                }),
                ..PodSecurityContext::default()
            }),
            topology_spread_constraints: Some(vec![TopologySpreadConstraint {
                max_skew: 1,
                topology_key: "kubernetes.io/hostname".into(),
                when_unsatisfiable: "ScheduleAnyway".into(),
                label_selector: Some(self.selector()),
                ..TopologySpreadConstraint::default()
            }]),
            containers: vec![self.container()],
            volumes: Some(self.volumes()),
            ..PodSpec::default()
        }
    }

    /// The route files, and the place of large bodies on the disk of the node.
    fn volumes(&self) -> Vec<Volume> {
        /// A pod that has more on its disk than the limit is evicted. The program keeps to its own limit, and what files take
        /// beside their content must not matter.
        const MARGIN: u64 = 64;
        let mebibytes = self.manifest.spool.1.div_ceil(1 << 20);
        let limit = mebibytes.saturating_add(mebibytes / 8).saturating_add(MARGIN);
        let routes =
            ConfigMapVolumeSource { name: self.config_map_name(), ..ConfigMapVolumeSource::default() };
        let spool = EmptyDirVolumeSource { medium: None, size_limit: Some(Quantity(format!("{limit}Mi"))) };
        vec![
            Volume { name: "routes".into(), config_map: Some(routes), ..Volume::default() },
            Volume { name: "spool".into(), empty_dir: Some(spool), ..Volume::default() },
        ]
    }

    fn container(&self) -> Container {
        let manifest = self.manifest;
        let paths = manifest.files.iter().map(|(name, _)| format!("{FOLDER}/{name}"));
        let requests = [("cpu", "10m"), ("memory", "16Mi")];
        let requests = requests.map(|(what, much)| (what.to_owned(), Quantity(much.into())));
        Container {
            name: manifest.name.clone(),
            image: Some(manifest.image.clone()),
            args: Some(std::iter::once("run".to_owned()).chain(paths).collect()),
            env: Some(self.variables()),
            env_from: manifest.secret.then(|| {
                let secret = SecretEnvSource { name: manifest.name.clone(), optional: Some(true) };
                vec![EnvFromSource { secret_ref: Some(secret), ..EnvFromSource::default() }]
            }),
            ports: manifest.probes.map(|port| {
                let name = Some(ADMIN_PORT.into());
                vec![ContainerPort { name, container_port: port.into(), ..ContainerPort::default() }]
            }),
            // Half a minute to start, then out of service after 15 s, and started anew after 30 s.
            startup_probe: manifest.probes.map(|_| probe("/startupz", 1, 300)),
            readiness_probe: manifest.probes.map(|_| probe("/readyz", 5, 3)),
            liveness_probe: manifest.probes.map(|_| probe("/livez", 10, 3)),
            resources: Some(ResourceRequirements {
                requests: Some(requests.into()),
                ..ResourceRequirements::default()
            }),
            security_context: Some(SecurityContext {
                allow_privilege_escalation: Some(false),
                capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
                read_only_root_filesystem: Some(true),
                ..SecurityContext::default()
            }),
            // A member leaves there what proves, once its container has ended, that it has.
            termination_message_path: Some(TERMINATION_LOG.into()),
            termination_message_policy: Some("File".into()),
            volume_mounts: Some(vec![
                VolumeMount {
                    name: "routes".into(),
                    mount_path: FOLDER.into(),
                    read_only: Some(true),
                    ..VolumeMount::default()
                },
                VolumeMount {
                    name: "spool".into(),
                    mount_path: self.manifest.spool.0.clone(),
                    ..VolumeMount::default()
                },
            ]),
            ..Container::default()
        }
    }

    /// Who the pod is, from the downward API, and the settings.
    fn variables(&self) -> Vec<EnvVar> {
        let field = |(name, path): (&str, &str)| EnvVar {
            name: name.into(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector { field_path: path.into(), api_version: None }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        };
        let identity = [
            ("POD_NAME", "metadata.name"),
            ("POD_NAMESPACE", "metadata.namespace"),
            ("POD_UID", "metadata.uid"),
        ];
        let settings = self.manifest.variables.iter().map(|(name, value)| EnvVar {
            name: name.clone(),
            // `$(NAME)` would be replaced by Kubernetes.
            value: Some(value.replace("$(", "$$(")),
            ..EnvVar::default()
        });
        identity.into_iter().map(field).chain(settings).collect()
    }

    pub(super) fn pod_disruption_budget(&self) -> PodDisruptionBudget {
        PodDisruptionBudget {
            metadata: self.metadata(&self.manifest.name),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: Some(IntOrString::Int(1)),
                selector: Some(self.selector()),
                ..PodDisruptionBudgetSpec::default()
            }),
            status: None,
        }
    }
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String(ADMIN_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        // `/livez` asks all loops, and gives them two.
        timeout_seconds: Some(3),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
