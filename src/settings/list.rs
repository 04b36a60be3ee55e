//! [`SETTINGS`]: the one list of everything that can be set, from which files, the environment and the
//! command line are checked.

use router_core::options::OptionKind;

use super::{Resource, Service};

/// One setting.
#[derive(Debug)]
pub struct SettingDescription {
    /// The table it stands in.
    pub table: &'static str,
    /// Its key in that table.
    pub key: &'static str,
    /// What values it takes.
    pub kind: OptionKind,
    /// The value where none is given, as it would be written; `None`: unset.
    pub default: Option<&'static str>,
    /// What reads it: it is an error to set it for anything else.
    pub used_by: UsedBy,
    /// One sentence.
    pub summary: &'static str,
}

/// What reads a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsedBy {
    /// Every process.
    All,
    /// The cluster service of this name.
    Service(Service),
    /// The cluster service `kubernetes` with `resource = "configmap"`.
    ConfigMap,
}

impl UsedBy {
    /// Why a setting has no effect with this cluster service and resource; `None`: it has one.
    pub(super) fn reason_against(self, service: Option<Service>, resource: Resource) -> Option<&'static str> {
        let wanted = match self {
            Self::All => return None,
            Self::Service(wanted) => wanted,
            Self::ConfigMap => Service::Kubernetes,
        };
        match service {
            None => Some("no cluster service is set"),
            Some(Service::File) if wanted != Service::File => Some("the cluster service is `file`"),
            Some(Service::Kubernetes) if wanted != Service::Kubernetes => {
                Some("the cluster service is `kubernetes`")
            }
            Some(Service::Memory) => Some("the cluster service is `memory`"),
            _ if self == Self::ConfigMap && resource != Resource::ConfigMap => {
                Some("`cluster.resource` is not `configmap`")
            }
            // One file for a laptop and for pods: `auto` has a use for the settings of both.
            _ => None,
        }
    }
}

/// All settings, by table.
pub static SETTINGS: &[SettingDescription] = &[
    SettingDescription {
        table: "cluster",
        key: "service",
        kind: OptionKind::Choice(&["file", "kubernetes", "memory", "auto"]),
        default: None,
        used_by: UsedBy::All,
        summary: "what decides who leads; `auto`: `kubernetes` inside a pod, else `file`",
    },
    SettingDescription {
        table: "cluster",
        key: "root",
        kind: OptionKind::Text,
        default: Some(".bactrian/locks"),
        used_by: UsedBy::Service(Service::File),
        summary: "the directory of the lock files, for `file`",
    },
    SettingDescription {
        table: "cluster",
        key: "member",
        kind: OptionKind::Text,
        default: None,
        used_by: UsedBy::All,
        summary: "the name of this process in the cluster; where unset, its host, process id and, for `file`, a random suffix",
    },
    SettingDescription {
        table: "cluster",
        key: "allow_network_file_system",
        kind: OptionKind::Boolean,
        default: Some("false"),
        used_by: UsedBy::Service(Service::File),
        summary: "whether `root` may be on a file system whose locks may not exclude other hosts",
    },
    SettingDescription {
        table: "cluster",
        key: "share_with_group",
        kind: OptionKind::Boolean,
        default: Some("false"),
        used_by: UsedBy::Service(Service::File),
        summary: "whether other users of the group of `root` take part, for `file`; otherwise `root` is made for this user alone",
    },
    SettingDescription {
        table: "cluster",
        key: "namespace",
        kind: OptionKind::Text,
        default: None,
        used_by: UsedBy::Service(Service::Kubernetes),
        summary: "the namespace of the Leases, for `kubernetes`; where unset, that of the pod or of the context",
    },
    SettingDescription {
        table: "cluster",
        key: "group",
        kind: OptionKind::Text,
        default: Some("bactrian"),
        used_by: UsedBy::Service(Service::Kubernetes),
        summary: "the group of members that share their locks, for `kubernetes`",
    },
    SettingDescription {
        table: "cluster",
        key: "resource",
        kind: OptionKind::Choice(&["lease", "configmap"]),
        default: Some("lease"),
        used_by: UsedBy::Service(Service::Kubernetes),
        summary: "what the locks are kept in, for `kubernetes`; `configmap`: the compatibility mode with Camel",
    },
    SettingDescription {
        table: "cluster",
        key: "resource_name",
        kind: OptionKind::Text,
        default: Some("leaders"),
        used_by: UsedBy::ConfigMap,
        summary: "the name of the ConfigMap, for `configmap`",
    },
    SettingDescription {
        table: "cluster",
        key: "camel_lease_duration",
        kind: OptionKind::Duration,
        default: Some("15s"),
        used_by: UsedBy::ConfigMap,
        summary: "the `leaseDurationMillis` of the members of Camel, for `configmap`",
    },
    SettingDescription {
        table: "cluster",
        key: "camel_renew_deadline",
        kind: OptionKind::Duration,
        default: Some("10s"),
        used_by: UsedBy::ConfigMap,
        summary: "the `renewDeadlineMillis` of the members of Camel, for `configmap`",
    },
    SettingDescription {
        table: "cluster",
        key: "cluster_labels",
        kind: OptionKind::Text,
        default: None,
        used_by: UsedBy::Service(Service::Kubernetes),
        summary: "the labels of the members' pods, for `kubernetes`: with them, a container that has ended is replaced at once, and members that stand by are known; for `configmap`, whose pods are members",
    },
    SettingDescription {
        table: "cluster",
        key: "profile",
        kind: OptionKind::Choice(&["fast", "default", "relaxed", "slewed-clock"]),
        default: Some("default"),
        used_by: UsedBy::Service(Service::Kubernetes),
        summary: "the timing of the election, for `kubernetes`; takeovers take as long as the slowest member says",
    },
    SettingDescription {
        table: "cluster",
        key: "takeover_wait",
        kind: OptionKind::Duration,
        default: None,
        used_by: UsedBy::Service(Service::Kubernetes),
        summary: "instead of the profile's: how long a silent leader is watched before it is replaced",
    },
    SettingDescription {
        table: "cluster",
        key: "deadline",
        kind: OptionKind::Duration,
        default: None,
        used_by: UsedBy::Service(Service::Kubernetes),
        summary: "instead of the profile's: how long after a heartbeat its sender may lead",
    },
    SettingDescription {
        table: "cluster",
        key: "stop",
        kind: OptionKind::Duration,
        default: None,
        used_by: UsedBy::Service(Service::Kubernetes),
        summary: "instead of the profile's: how long after the deadline running exchanges may take to end",
    },
    SettingDescription {
        table: "cluster",
        key: "heartbeat",
        kind: OptionKind::Duration,
        default: None,
        used_by: UsedBy::Service(Service::Kubernetes),
        summary: "instead of the profile's: the period of the heartbeat",
    },
    SettingDescription {
        table: "router",
        key: "shutdown_timeout",
        kind: OptionKind::Duration,
        default: Some("45s"),
        used_by: UsedBy::All,
        summary: "how long exchanges in flight may take when the process is asked to stop",
    },
    SettingDescription {
        table: "master",
        key: "attempts",
        kind: OptionKind::PositiveInteger,
        default: Some("10"),
        used_by: UsedBy::All,
        summary: "how often a delegate that cannot start is tried before this member resigns",
    },
    SettingDescription {
        table: "master",
        key: "backoff",
        kind: OptionKind::Duration,
        default: Some("5s"),
        used_by: UsedBy::All,
        summary: "the pause between two tries",
    },
    SettingDescription {
        table: "body",
        key: "spool_threshold",
        kind: OptionKind::PositiveInteger,
        default: Some("1048576"),
        used_by: UsedBy::All,
        summary: "how many bytes a body has in memory; a larger one is in a file",
    },
    SettingDescription {
        table: "body",
        key: "spool_dir",
        kind: OptionKind::Text,
        default: Some(".bactrian/spool"),
        used_by: UsedBy::All,
        summary: "the directory of the files of large bodies, which have no names in it; not one in memory, like most `/tmp`",
    },
    SettingDescription {
        table: "body",
        key: "max_spooled_bytes",
        kind: OptionKind::PositiveInteger,
        default: Some("4294967296"),
        used_by: UsedBy::All,
        summary: "how many bytes all these files have together; a body for which there is no room waits",
    },
    SettingDescription {
        table: "body",
        key: "max_spooled_files",
        kind: OptionKind::PositiveInteger,
        default: Some("256"),
        used_by: UsedBy::All,
        summary: "how many of these files there are",
    },
    SettingDescription {
        table: "body",
        key: "max_spool_wait",
        kind: OptionKind::Duration,
        default: Some("30s"),
        used_by: UsedBy::All,
        summary: "how long a body waits for room there, before its step fails as `unavailable`",
    },
    SettingDescription {
        table: "body",
        key: "memory_limit",
        kind: OptionKind::PositiveInteger,
        default: Some("67108864"),
        used_by: UsedBy::All,
        summary: "how many bytes of a body in a file are read into memory, for a step that needs all of it",
    },
    SettingDescription {
        table: "log",
        key: "format",
        kind: OptionKind::Choice(&["auto", "human", "json"]),
        default: Some("auto"),
        used_by: UsedBy::All,
        summary: "the form of the log; `auto`: `human` on a terminal, else `json`",
    },
    SettingDescription {
        table: "admin",
        key: "listen",
        kind: OptionKind::Address,
        default: None,
        used_by: UsedBy::All,
        summary: "where probes and metrics are served; port 0 is any free one. Unset: `127.0.0.1:9876` if that is \
                  free, inside a pod port 9876 of all its addresses",
    },
];

impl SettingDescription {
    /// The name on the command line: `cluster.root`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.table, self.key)
    }

    /// The name in the environment: `BACTRIAN_CLUSTER__ROOT`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}__{}", self.table, self.key).to_uppercase()
    }
}

/// All settings as a Markdown table: the one of the guide and of `bactrian doc settings`.
#[must_use]
pub fn settings_table() -> String {
    let mut table = String::from("| setting | takes | default | meaning |\n|---|---|---|---|\n");
    for setting in SETTINGS {
        let default = setting.default.map(|value| format!("`{value}`")).unwrap_or_default();
        let (path, kind, summary) = (setting.path(), setting.kind.name(), setting.summary);
        table.push_str(&format!("| `{path}` | {kind} | {default} | {summary} |\n"));
    }
    table
}

/// What all settings in the environment begin with.
pub const VARIABLE_PREFIX: &str = "BACTRIAN_";

/// The names of all tables.
pub(crate) fn tables() -> Vec<&'static str> {
    let mut tables = SETTINGS.iter().map(|setting| setting.table).collect::<Vec<_>>();
    tables.dedup();
    tables
}
