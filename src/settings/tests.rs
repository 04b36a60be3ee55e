//! The four layers, and the errors in each.

use async_trait::async_trait;
use router_core::cluster::ClusterService;
use router_core::cluster::backend::{ClusterBackend, OptionDescription, OptionKind, flag, option};
use router_core::error::BoxError;

use super::*;

/// A cluster service with these options, whatever is built into this program.
struct Backend(&'static BackendDescription);

const fn described(name: &'static str, options: &'static [OptionDescription]) -> BackendDescription {
    BackendDescription { name, summary: "for tests", options, metrics: &[] }
}

static FILE: BackendDescription = described(
    "file",
    &[
        option("root", OptionKind::Text, Some(".bactrian/locks"), "a directory"),
        flag("allow_network_file_system", "false", "a flag"),
    ],
);

static OTHER: BackendDescription =
    described("other", &[option("patience", OptionKind::Duration, None, "a duration")]);

#[async_trait]
impl ClusterBackend for Backend {
    fn description(&self) -> &'static BackendDescription {
        self.0
    }

    async fn open(&self, _: &BackendSettings) -> Result<Arc<dyn ClusterService>, BoxError> {
        Err("it is for tests of settings".into())
    }
}

/// `file` and `other` are built in, `kubernetes` is not.
fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add_backend(Backend(&FILE));
    registry.add_backend(Backend(&OTHER));
    registry.add_missing_backend("kubernetes", "build it");
    registry
}

fn files(texts: &[&str]) -> Vec<RouteFile> {
    let name = |index| if index == 0 { "a.toml" } else { "b.toml" };
    let read = |(index, text): (usize, &&str)| {
        router_core::toml::parse(pseudo_file(name(index), *text), &|_| Err(std::env::VarError::NotPresent))
            .unwrap()
    };
    texts.iter().enumerate().map(read).collect()
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn resolve(texts: &[&str], variables: &[(&str, &str)], set: &[&str]) -> (Settings, ConfigErrors) {
    let set = set.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (resolved, errors) = Settings::resolve(&files(texts), &environment(variables), &set, &registry());
    (resolved.settings, errors)
}

/// What results for the service `file`, and what has no effect.
fn resolve_file(texts: &[&str], variables: &[(&str, &str)], set: &[&str]) -> (BackendSettings, ConfigErrors) {
    let set = set.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (resolved, mut errors) = Settings::resolve(&files(texts), &environment(variables), &set, &registry());
    errors.extend(resolved.ignored());
    (resolved.backend(&FILE), errors)
}

fn root(settings: &Settings) -> &str {
    &settings.cluster.services["file"]["root"]
}

fn printed(errors: ConfigErrors) -> String {
    errors.into_result().unwrap_err().to_string()
}

#[test]
fn every_setting_of_the_list_has_a_field_and_a_default_that_it_takes() {
    // `deny_unknown_fields` and fields without a serde default make this fail for a setting on one side
    // only.
    let (settings, errors) = resolve(&[], &[], &[]);
    assert_eq!(errors.iter().len(), 0);
    assert_eq!(settings.cluster.service, None);
    assert!(settings.cluster.services.is_empty(), "a service has its own defaults");
    let (file, _) = resolve_file(&[], &[], &[]);
    assert_eq!(file.options().text("root").as_deref(), Some(".bactrian/locks"));
    assert!(!file.options().boolean("allow_network_file_system"));
    assert_eq!((file.given_member(), file.member().as_str()), (None, settings.member().as_str()));
    assert_eq!(settings.router.shutdown_timeout, Duration::from_secs(45));
    assert_eq!((settings.master.attempts, settings.master.backoff), (10, Duration::from_secs(5)));
    assert_eq!(settings.body.spool(), SpoolSettings::default());
    let (strict, _) = resolve(&["[body]\nduplicate_keys = 'error'\n"], &[], &[]);
    assert!(strict.body.spool().unique_keys);
    assert_eq!(settings.log.format, LogFormat::Auto);
    assert_eq!(settings.admin.listen, None);
    assert!(settings.member().ends_with(&format!("-{}", std::process::id())));
    for setting in super::settings(&registry()) {
        let value = match setting.option.kind {
            OptionKind::Boolean => "true",
            OptionKind::Address => "off",
            _ => setting.words().first().copied().unwrap_or("70"),
        };
        let (_, errors) =
            resolve(&[], &[(&setting.variable(), value)], &[&format!("{}={value}", setting.path())]);
        assert_eq!(errors.iter().len(), 0, "{}", setting.path());
    }
}

#[test]
fn each_layer_covers_the_one_below() {
    let file = "[cluster]\nservice = 'File'\nmember = 'file'\n[cluster.file]\nroot = 'file'\n[master]\nattempts = 3\n\
                backoff = 200\n";
    let variables =
        [("BACTRIAN_CLUSTER__FILE__ROOT", "environment"), ("BACTRIAN_CLUSTER__MEMBER", "environment")];
    let (settings, errors) =
        resolve(&[file], &variables, &["cluster.member=command line", "cluster.member=last"]);
    assert_eq!(errors.iter().len(), 0);
    assert_eq!(settings.cluster.service.as_deref(), Some("file"));
    assert_eq!(root(&settings), "environment");
    assert_eq!(settings.member(), "last");
    assert_eq!((settings.master.attempts, settings.master.backoff), (3, Duration::from_millis(200)));
}

#[test]
fn a_text_has_no_control_characters() {
    let (settings, errors) = resolve(&["[cluster]\nmember = \"a\\u001B[31m\""], &[], &[]);
    assert_eq!(settings.cluster.member, None);
    assert!(printed(errors).contains("no control characters"));
}

#[test]
fn text_stands_for_any_kind_of_value() {
    let file = "[cluster]\nservice = 'file'\n[cluster.file]\nallow_network_file_system = 'true'\n[master]\nattempts = '12'";
    let (settings, errors) = resolve(&[file], &[], &[]);
    assert_eq!(errors.iter().len(), 0);
    assert!(resolve_file(&[file], &[], &[]).0.options().boolean("allow_network_file_system"));
    assert_eq!(settings.master.attempts, 12);
}

#[test]
fn the_admin_listener_is_at_an_address_or_off() {
    let listen = |text: &str| {
        let (settings, errors) = resolve(&[&format!("[admin]\nlisten = {text}")], &[], &[]);
        (settings.admin.listen, errors.iter().len())
    };
    assert_eq!(listen("'[::1]:0'"), (Some(Listen::At("[::1]:0".parse().unwrap())), 0));
    assert_eq!(
        (listen("'off'"), listen("false"), listen("'false'")),
        ((Some(Listen::Off), 0), (Some(Listen::Off), 0), (Some(Listen::Off), 0))
    );
    for error in ["true", "9876", "':9876'", "'localhost'", "''"] {
        assert_eq!(listen(error), (None, 1), "{error}");
    }
}

#[test]
fn two_files_may_share_a_table_and_a_value_but_not_set_two() {
    let (settings, errors) = resolve(&["[cluster.file]\nroot = 'a'", "[cluster]\nmember = 'b'"], &[], &[]);
    assert_eq!(errors.iter().len(), 0);
    assert_eq!((root(&settings), settings.cluster.member.as_deref()), ("a", Some("b")));

    let (settings, errors) = resolve(&["[cluster.file]\nroot = 'a'", "[cluster.file]\nroot = 'a'"], &[], &[]);
    assert_eq!((root(&settings), errors.iter().len()), ("a", 0));

    let (_, errors) = resolve(&["[cluster.file]\nroot = 'a'", "[cluster.file]\nroot = 'b'"], &[], &[]);
    let expected = "
error: setting `cluster.file.root` is set to two values
 --> b.toml:2:1
  |
2 | root = 'b'
  | ^^^^
  |
  = help: the first one is at a.toml:2:1";
    assert_eq!(printed(errors), expected.trim_start());
}

#[test]
fn errors_in_files_point_at_their_characters() {
    let file = "clustre = 1
log = 5
[cluster]
servce = 'file'
service = 'fil'
[master]
attempts = -1
backoff = true
[[rout]]
";
    let expected = "
error: unknown table `clustre`
 --> a.toml:1:1
  |
1 | clustre = 1
  | ^^^^^^^ did you mean `cluster`?
  |
  = help: a file has tables `[[route]]`, and `[cluster]`, `[cluster.file]`, `[cluster.other]`, `[router]`, `[master]`, `[body]`, `[log]`, `[admin]`

error: `log` is a table, found an integer
 --> a.toml:2:1
  |
2 | log = 5
  | ^^^
  |
  = help: write `[log]`

error: unknown key `servce` in `[cluster]`
 --> a.toml:4:1
  |
4 | servce = 'file'
  | ^^^^^^ did you mean `service`?
  |
  = help: `[cluster]` takes service, member; what is set for a service is in `[cluster.file]`, `[cluster.other]`, `[cluster.kubernetes]`

error: setting `cluster.service` takes one of file, kubernetes, other, auto
 --> a.toml:5:11
  |
5 | service = 'fil'
  |           ^^^^^ did you mean `file`?

error: setting `master.attempts` takes a whole number of at least 1
 --> a.toml:7:12
  |
7 | attempts = -1
  |            ^^

error: setting `master.backoff` takes a duration like `1s` or bare milliseconds, found a boolean
 --> a.toml:8:11
  |
8 | backoff = true
  |           ^^^^

error: unknown table `rout`
 --> a.toml:9:3
  |
9 | [[rout]]
  |   ^^^^ did you mean `route`?
  |
  = help: a file has tables `[[route]]`, and `[cluster]`, `[cluster.file]`, `[cluster.other]`, `[router]`, `[master]`, `[body]`, `[log]`, `[admin]`";
    assert_eq!(printed(resolve(&[file], &[], &[]).1), expected.trim_start());
}

#[test]
fn errors_in_what_is_set_for_a_service_name_its_table() {
    let file = "[cluster]
root = 5
fil = 5
file = 5
[cluster.other]
patiense = 5
patience = 'x'
";
    let expected = "
error: unknown key `root` in `[cluster]`
 --> a.toml:2:1
  |
2 | root = 5
  | ^^^^
  |
  = help: it is a setting of a cluster service: write it in `[cluster.file]`

error: unknown key `fil` in `[cluster]`
 --> a.toml:3:1
  |
3 | fil = 5
  | ^^^ did you mean `file`?
  |
  = help: `[cluster]` takes service, member; what is set for a service is in `[cluster.file]`, `[cluster.other]`, `[cluster.kubernetes]`

error: `cluster.file` is a table, found an integer
 --> a.toml:4:1
  |
4 | file = 5
  | ^^^^
  |
  = help: write `[cluster.file]`

error: unknown key `patiense` in `[cluster.other]`
 --> a.toml:6:1
  |
6 | patiense = 5
  | ^^^^^^^^ did you mean `patience`?
  |
  = help: `[cluster.other]` takes patience

error: setting `cluster.other.patience` takes a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds
 --> a.toml:7:12
  |
7 | patience = 'x'
  |            ^^^";
    assert_eq!(printed(resolve(&[file], &[], &[]).1), expected.trim_start());
}

#[test]
fn errors_in_the_environment_and_on_the_command_line_have_a_place_too() {
    let variables = [
        ("BACTRIAN_CLUSTER__FILE__ROOD", "hidden"),
        ("BACTRIAN_CLUSTER__ROOT", "hidden"),
        ("BACTRIAN_MASTER__ATTEMPTS", "ten"),
        ("OTHER_CLUSTER__ROOT", "x"),
    ];
    let set = ["cluster.file.rot=/x", "cluster.root=/x", "cluster.file.root", "router.shutdown_timeout=soon"];
    let expected = "
error: unknown setting `cluster.file.rot`
 --> --set:1:1
  |
1 | cluster.file.rot=/x
  | ^^^^^^^^^^^^^^^^ did you mean `cluster.file.root`?
  |
  = help: the settings are cluster.service, cluster.member, cluster.file.root, cluster.file.allow_network_file_system, cluster.other.patience, router.shutdown_timeout, master.attempts, master.backoff, body.spool_threshold, body.spool_dir, body.max_spooled_bytes, body.max_spooled_files, body.max_spool_wait, body.memory_limit, body.duplicate_keys, log.format, admin.listen

error: unknown setting `cluster.root`
 --> --set:1:1
  |
1 | cluster.root=/x
  | ^^^^^^^^^^^^
  |
  = help: it is a setting of a cluster service: write `cluster.file.root`

error: setting `cluster.file.root` has no value
 --> --set:1:1
  |
1 | cluster.file.root
  | ^^^^^^^^^^^^^^^^^
  |
  = help: write `--set cluster.file.root=VALUE`

error: setting `router.shutdown_timeout` takes a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds
 --> --set:1:25
  |
1 | router.shutdown_timeout=soon
  |                         ^^^^

error: unknown setting in the environment variable `BACTRIAN_CLUSTER__FILE__ROOD`
 --> environment:1:1
  |
1 | BACTRIAN_CLUSTER__FILE__ROOD
  | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^ did you mean `BACTRIAN_CLUSTER__FILE__ROOT`?
  |
  = help: `BACTRIAN_`, the table, two underscores, the key: `BACTRIAN_ROUTER__SHUTDOWN_TIMEOUT`

error: unknown setting in the environment variable `BACTRIAN_CLUSTER__ROOT`
 --> environment:1:1
  |
1 | BACTRIAN_CLUSTER__ROOT
  | ^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: it is a setting of a cluster service: write `BACTRIAN_CLUSTER__FILE__ROOT`

error: setting `master.attempts` takes a whole number of at least 1
 --> environment:1:27
  |
1 | BACTRIAN_MASTER__ATTEMPTS=ten
  |                           ^^^";
    assert_eq!(printed(resolve(&[], &variables, &set).1), expected.trim_start());
}

#[test]
fn in_a_pod_the_variables_of_kubernetes_are_no_settings() {
    let link = ("BACTRIAN_SERVICE_HOST", "10.0.0.1");
    assert_eq!(resolve(&[], &[link], &[]).1.iter().len(), 0);
    // Of the service `bactrian-a--b`.
    let link = ("BACTRIAN_A__B_PORT_80_TCP_ADDR", "10.0.0.1");
    assert_eq!(resolve(&[], &[link], &[]).1.iter().len(), 1);
    assert_eq!(resolve(&[], &[link, ("KUBERNETES_SERVICE_HOST", "10.0.0.2")], &[]).1.iter().len(), 0);
}

#[test]
fn what_is_set_for_a_service_goes_to_it_with_its_place_and_layer() {
    let (file, errors) = resolve_file(
        &["[cluster]\nservice = 'file'\nmember = 'me'\n[cluster.file]\nroot = 'a'"],
        &[("BACTRIAN_CLUSTER__FILE__ALLOW_NETWORK_FILE_SYSTEM", "true")],
        &[],
    );
    assert_eq!(errors.iter().len(), 0);
    assert_eq!((file.options().text("root").as_deref(), file.member().as_str()), (Some("a"), "me"));
    assert!(file.is_set_beside("allow_network_file_system", "root"), "the environment is above the files");
    assert!(!file.is_set_beside("root", "allow_network_file_system"));
    let error = file.error("root", "it is wrong").to_string();
    assert!(error.contains(" --> a.toml:5:8\n"), "{error}");
}

#[test]
fn the_settings_of_another_service_have_no_effect_unless_its_layer_was_overridden() {
    let messages = |service: &str, set: &[&str]| {
        let file =
            format!("[cluster]\n{service}\n[cluster.other]\npatience = '1s'\n[cluster.kubernetes]\nx = 1");
        let (_, errors) = resolve_file(&[&file], &[], set);
        errors.iter().map(|error| error.message().to_owned()).collect::<Vec<_>>()
    };
    let no_effect = |reason: &str| {
        [
            format!("setting `cluster.other.patience` has no effect: {reason}"),
            format!("the table `[cluster.kubernetes]` has no effect: {reason}"),
        ]
    };
    assert_eq!(messages("", &[]), no_effect("no cluster service is set"));
    assert_eq!(messages("service = 'file'", &[]), no_effect("the cluster service is `file`"));
    assert_eq!(
        messages("service = 'other'", &["cluster.service=file"]),
        [""; 0],
        "they are those of the overridden"
    );
    let beside = messages("service = 'other'", &["cluster.service=file", "cluster.kubernetes.x=1"]);
    assert_eq!(beside, no_effect("the cluster service is `file`")[1..]);
    // `auto` can stand for `kubernetes`, which is not built in, and not for `other`.
    let auto = [
        "setting `cluster.other.patience` has no effect: `auto` never stands for `other`",
        "the settings of the cluster service `kubernetes` are not checked: it is not built into this program",
    ];
    assert_eq!(messages("service = 'auto'", &[]), auto);
}
