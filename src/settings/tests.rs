//! The four layers, and the mistakes in each.

use super::*;

fn files(texts: &[&str]) -> Vec<RouteFile> {
    let name = |index| if index == 0 { "a.toml" } else { "b.toml" };
    let read = |(index, text): (usize, &&str)| {
        router_core::toml::parse(pseudo_file(name(index), *text), &|_| None).unwrap()
    };
    texts.iter().enumerate().map(read).collect()
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn resolve(texts: &[&str], variables: &[(&str, &str)], set: &[&str]) -> (Settings, ConfigErrors) {
    let set = set.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (resolved, errors) = Settings::resolve(&files(texts), &environment(variables), &set);
    (resolved.settings, errors)
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
    assert_eq!(settings.cluster.root, PathBuf::from(".bactrian/locks"));
    assert!(!settings.cluster.allow_network_file_system);
    assert_eq!(settings.router.shutdown_timeout, Duration::from_secs(45));
    assert_eq!((settings.master.attempts, settings.master.backoff), (10, Duration::from_secs(5)));
    assert_eq!(settings.body.spool(), SpoolSettings::default());
    assert_eq!(settings.log.format, LogFormat::Auto);
    assert_eq!(settings.admin.listen, None);
    assert!(settings.member().ends_with(&format!("-{}", std::process::id())));
    for setting in SETTINGS {
        let value = match setting.kind {
            router_core::options::OptionKind::Boolean => "true",
            router_core::options::OptionKind::Choice(words) => words[0],
            router_core::options::OptionKind::Address => "off",
            _ => "70",
        };
        let (_, errors) =
            resolve(&[], &[(&setting.variable(), value)], &[&format!("{}={value}", setting.path())]);
        assert_eq!(errors.iter().len(), 0, "{}", setting.path());
    }
}

#[test]
fn each_layer_covers_the_one_below() {
    let file = "[cluster]\nservice = 'File'\nroot = 'file'\nmember = 'file'\n[master]\nattempts = 3\nbackoff = 200\n";
    let variables = [("BACTRIAN_CLUSTER__ROOT", "environment"), ("BACTRIAN_CLUSTER__MEMBER", "environment")];
    let (settings, errors) =
        resolve(&[file], &variables, &["cluster.member=command line", "cluster.member=last"]);
    assert_eq!(errors.iter().len(), 0);
    assert_eq!(settings.cluster.service, Some(Service::File));
    assert_eq!(settings.cluster.root, PathBuf::from("environment"));
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
    let file = "[cluster]\nallow_network_file_system = 'true'\n[master]\nattempts = '12'";
    let (settings, errors) = resolve(&[file], &[], &[]);
    assert_eq!(errors.iter().len(), 0);
    assert!(settings.cluster.allow_network_file_system);
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
    for mistake in ["true", "9876", "':9876'", "'localhost'", "''"] {
        assert_eq!(listen(mistake), (None, 1), "{mistake}");
    }
}

#[test]
fn two_files_may_share_a_table_and_a_value_but_not_set_two() {
    let (settings, errors) = resolve(&["[cluster]\nroot = 'a'", "[cluster]\nmember = 'b'"], &[], &[]);
    assert_eq!(errors.iter().len(), 0);
    assert_eq!((settings.cluster.root, settings.cluster.member), ("a".into(), Some("b".into())));

    let (settings, errors) = resolve(&["[cluster]\nroot = 'a'", "[cluster]\nroot = 'a'"], &[], &[]);
    assert_eq!((settings.cluster.root, errors.iter().len()), ("a".into(), 0));

    let (_, errors) = resolve(&["[cluster]\nroot = 'a'", "[cluster]\nroot = 'b'"], &[], &[]);
    let expected = "
error: setting `cluster.root` is set to two values
 --> b.toml:2:1
  |
2 | root = 'b'
  | ^^^^
  |
  = help: the first one is at a.toml:2:1";
    assert_eq!(printed(errors), expected.trim_start());
}

#[test]
fn mistakes_in_files_point_at_their_characters() {
    let file = "clustre = 1
log = 5
[cluster]
servce = 'file'
service = 'fil'
root = 5
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
  = help: a file has tables `[[route]]`, and `[cluster]`, `[router]`, `[master]`, `[body]`, `[log]`, `[admin]`

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
  = help: `[cluster]` takes service, root, member, allow_network_file_system, share_with_group, namespace, group, resource, resource_name, camel_lease_duration, camel_renew_deadline, cluster_labels, profile, takeover_wait, deadline, stop, heartbeat

error: setting `cluster.service` takes one of file, kubernetes, memory, auto
 --> a.toml:5:11
  |
5 | service = 'fil'
  |           ^^^^^ did you mean `file`?

error: setting `cluster.root` takes text, found an integer
 --> a.toml:6:8
  |
6 | root = 5
  |        ^

error: setting `master.attempts` takes a whole number of at least 1
 --> a.toml:8:12
  |
8 | attempts = -1
  |            ^^

error: setting `master.backoff` takes a duration like `1s` or bare milliseconds, found a boolean
 --> a.toml:9:11
  |
9 | backoff = true
  |           ^^^^

error: unknown table `rout`
  --> a.toml:10:3
   |
10 | [[rout]]
   |   ^^^^ did you mean `route`?
   |
   = help: a file has tables `[[route]]`, and `[cluster]`, `[router]`, `[master]`, `[body]`, `[log]`, `[admin]`";
    assert_eq!(printed(resolve(&[file], &[], &[]).1), expected.trim_start());
}

#[test]
fn mistakes_in_the_environment_and_on_the_command_line_have_a_place_too() {
    let variables = [
        ("BACTRIAN_CLUSTER__ROOD", "hidden"),
        ("BACTRIAN_MASTER__ATTEMPTS", "ten"),
        ("OTHER_CLUSTER__ROOT", "x"),
    ];
    let set = ["cluster.rot=/x", "cluster.root", "router.shutdown_timeout=soon"];
    let expected = "
error: unknown setting `cluster.rot`
 --> --set:1:1
  |
1 | cluster.rot=/x
  | ^^^^^^^^^^^ did you mean `cluster.root`?
  |
  = help: the settings are cluster.service, cluster.root, cluster.member, cluster.allow_network_file_system, cluster.share_with_group, cluster.namespace, cluster.group, cluster.resource, cluster.resource_name, cluster.camel_lease_duration, cluster.camel_renew_deadline, cluster.cluster_labels, cluster.profile, cluster.takeover_wait, cluster.deadline, cluster.stop, cluster.heartbeat, router.shutdown_timeout, master.attempts, master.backoff, body.spool_threshold, body.spool_dir, body.max_spooled_bytes, body.max_spooled_files, body.max_spool_wait, body.memory_limit, log.format, admin.listen

error: setting `cluster.root` has no value
 --> --set:1:1
  |
1 | cluster.root
  | ^^^^^^^^^^^^
  |
  = help: write `--set cluster.root=VALUE`

error: setting `router.shutdown_timeout` takes a duration like `1s`, `500ms`, `1m 30s` or bare milliseconds
 --> --set:1:25
  |
1 | router.shutdown_timeout=soon
  |                         ^^^^

error: unknown setting in the environment variable `BACTRIAN_CLUSTER__ROOD`
 --> environment:1:1
  |
1 | BACTRIAN_CLUSTER__ROOD
  | ^^^^^^^^^^^^^^^^^^^^^^ did you mean `BACTRIAN_CLUSTER__ROOT`?
  |
  = help: `BACTRIAN_`, the table, two underscores, the key: `BACTRIAN_CLUSTER__ROOT`

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
