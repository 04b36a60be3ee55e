//! [`settings`]: the one list of everything that can be set, from which files, the environment and the
//! command line are checked.

use router_core::cluster::backend::{OptionDescription, OptionKind, option};
use router_core::component::Registry;

use crate::backends::{AUTO, SERVICE};

/// One setting.
#[derive(Debug)]
pub struct SettingDescription {
    /// The table it stands in: `cluster`, or `cluster.file` for the cluster service `file`.
    pub table: String,
    /// Its key in that table, what it takes, and what it is for.
    pub option: OptionDescription,
    /// The cluster service that reads it; `None`: every process does.
    pub service: Option<&'static str>,
    /// The words that it takes, where they are known at run time alone.
    words: Vec<&'static str>,
}

/// Those of every process, by table.
const COMMON: &[(&str, OptionDescription)] = &[
    ("cluster", SERVICE),
    (
        "cluster",
        option(
            "member",
            OptionKind::Text,
            None,
            "the name of this process in the cluster; where unset, one that the service makes of its host or pod and \
             process id",
        ),
    ),
    (
        "router",
        option(
            "shutdown_timeout",
            OptionKind::Duration,
            Some("45s"),
            "how long exchanges in flight may take when the process is asked to stop",
        ),
    ),
    (
        "master",
        option(
            "attempts",
            OptionKind::PositiveInteger,
            Some("10"),
            "how often a delegate that cannot start is tried before this member resigns",
        ),
    ),
    ("master", option("backoff", OptionKind::Duration, Some("5s"), "the pause between two tries")),
    (
        "body",
        option(
            "spool_threshold",
            OptionKind::PositiveInteger,
            Some("1048576"),
            "how many bytes a body has in memory; a larger one is in a file",
        ),
    ),
    (
        "body",
        option(
            "spool_dir",
            OptionKind::Text,
            Some(".bactrian/spool"),
            "the directory of the files of large bodies, which have no names in it; not one in memory, like most `/tmp`",
        ),
    ),
    (
        "body",
        option(
            "max_spooled_bytes",
            OptionKind::PositiveInteger,
            Some("4294967296"),
            "how many bytes all these files have together; a body for which there is no room waits",
        ),
    ),
    (
        "body",
        option(
            "max_spooled_files",
            OptionKind::PositiveInteger,
            Some("256"),
            "how many of these files there are",
        ),
    ),
    (
        "body",
        option(
            "max_spool_wait",
            OptionKind::Duration,
            Some("30s"),
            "how long a body waits for room there, before its step fails as `unavailable`",
        ),
    ),
    (
        "body",
        option(
            "memory_limit",
            OptionKind::PositiveInteger,
            Some("67108864"),
            "how many bytes a body has that is read from a file, put together by an expression, or made of the rows of `sql:`",
        ),
    ),
    (
        "body",
        option(
            "duplicate_keys",
            OptionKind::Choice(&["last", "error"]),
            Some("last"),
            "what is done with JSON in which an object has a key twice: its last value counts, or it is an error",
        ),
    ),
    (
        "log",
        option(
            "format",
            OptionKind::Choice(&["auto", "human", "json"]),
            Some("auto"),
            "the form of the log; `auto`: `human` on a terminal, else `json`",
        ),
    ),
    (
        "admin",
        option(
            "listen",
            OptionKind::Address,
            None,
            "where probes and metrics are served; port 0 is any free one. Unset: `127.0.0.1:9876` if that is free, \
             inside a pod port 9876 of all its addresses",
        ),
    ),
];

/// All settings, by table: those of every process, and those of the cluster backends of `registry`.
#[must_use]
pub fn settings(registry: &Registry) -> Vec<SettingDescription> {
    let common = |(table, option): &(&str, OptionDescription)| {
        let words = if option.name == SERVICE.name { services(registry) } else { Vec::new() };
        SettingDescription { table: (*table).to_owned(), option: *option, service: None, words }
    };
    // The tables of the services stand behind that of what they have in common.
    let (of_cluster, others) = COMMON.iter().partition::<Vec<_>, _>(|(table, _)| *table == "cluster");
    let mut settings = of_cluster.into_iter().map(common).collect::<Vec<_>>();
    for backend in registry.backends() {
        let (name, options) = (backend.description().name, backend.description().options);
        settings.extend(options.iter().map(|option| SettingDescription {
            table: format!("cluster.{name}"),
            option: *option,
            service: Some(name),
            words: Vec::new(),
        }));
    }
    settings.extend(others.into_iter().map(common));
    settings
}

/// The names of all cluster services, and the one that stands for several.
fn services(registry: &Registry) -> Vec<&'static str> {
    let built_in = registry.backends().iter().map(|backend| backend.description().name);
    let mut names = built_in.chain(registry.missing_backends().map(|(name, _)| name)).collect::<Vec<_>>();
    names.sort_unstable();
    names.push(AUTO);
    names
}

impl SettingDescription {
    /// Its key in its table.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.option.name
    }

    /// The name on the command line: `cluster.file.root`.
    #[must_use]
    pub fn path(&self) -> String {
        format!("{}.{}", self.table, self.key())
    }

    /// The name in the environment: `BACTRIAN_CLUSTER__FILE__ROOT`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.path().replace('.', "__")).to_uppercase()
    }

    /// The value as the list spells it, or what would have been one.
    pub(super) fn check(&self, text: &str) -> Result<String, String> {
        if self.words.is_empty() {
            return self.option.kind.check(text);
        }
        let word = self.words.iter().find(|word| word.eq_ignore_ascii_case(text));
        word.map(ToString::to_string).ok_or_else(|| format!("one of {}", self.words.join(", ")))
    }

    /// The words that it takes; none: it takes other values too.
    pub(super) fn words(&self) -> &[&'static str] {
        match self.option.kind {
            OptionKind::Choice(words) => words,
            _ => &self.words,
        }
    }
}

/// All settings as a Markdown table: the one of the guide and of `bactrian doc settings`.
#[must_use]
pub fn settings_table(registry: &Registry) -> String {
    let mut table = String::from("| setting | takes | default | meaning |\n|---|---|---|---|\n");
    for setting in settings(registry) {
        let OptionDescription { kind, default, summary, .. } = setting.option;
        let default = default.map(|value| format!("`{value}`")).unwrap_or_default();
        let takes = if setting.words.is_empty() { kind.name() } else { setting.words.join(", ") };
        table.push_str(&format!("| `{}` | {takes} | {default} | {summary} |\n", setting.path()));
    }
    table
}

/// What all settings in the environment begin with.
pub const VARIABLE_PREFIX: &str = "BACTRIAN_";
