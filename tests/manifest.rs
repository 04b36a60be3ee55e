//! The promise: `bactrian kubernetes manifest` prints what the example shows, says what is wrong with its
//! input as `bactrian check` does, and writes over no file that it did not make. That what it prints works
//! is tested with an API server (`tests/kubernetes/manifest.rs`).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// The program, in a folder and an environment that say nothing.
fn bactrian(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
    command.current_dir(folder).args(arguments).env_clear().output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[track_caller]
fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = bactrian(folder, &[&["kubernetes", "manifest"], arguments].concat());
    assert!(output.status.success(), "{}", text(output.stderr));
    text(output.stdout)
}

#[track_caller]
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = bactrian(folder, &[&["kubernetes", "manifest"], arguments].concat());
    assert_eq!(output.status.code(), Some(78), "{}", text(output.stdout));
    assert_eq!(output.stdout, b"");
    text(output.stderr)
}

fn folder(routes: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("routes.toml"), routes).unwrap();
    folder
}

fn documents(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

fn of_kind(documents: &[Value], kind: &str) -> Vec<Value> {
    documents.iter().filter(|document| document["kind"] == kind).cloned().collect()
}

fn names(documents: &[Value]) -> Vec<&str> {
    documents.iter().map(|document| document["metadata"]["name"].as_str().unwrap()).collect()
}

const ROUTES: &str = "[cluster]\nservice = 'file'\n[[route]]\nfrom = 'master:Ü 1:timer:a'\n\
    steps = [{ log = 'a' }]\n[[route]]\nid = 'b'\nfrom = 'master:x%3Ay:master:z:timer:b?period=1s'\n\
    steps = [{ log = 'b' }]\n[[route]]\nid = 'c'\nfrom = 'master:z:timer:c'\nsteps = [{ log = 'c' }]\n\
    [[route]]\nid = 'd'\nfrom = 'timer:d'\nsteps = [{ log = 'd' }]\n";

/// `UPDATE_MANIFEST=1` writes the file anew.
#[test]
fn the_manifest_of_the_example_is_what_is_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let arguments =
        ["examples/kubernetes/clock.toml", "--image", "registry.example/clock:1", "--lock", "lock2"];
    let printed = printed(root, &arguments);
    let file = root.join("examples/kubernetes/manifest.yaml");
    if std::env::var_os("UPDATE_MANIFEST").is_some() {
        fs::write(&file, &printed).unwrap();
    }
    let shown = fs::read_to_string(&file).unwrap();
    assert!(printed == shown, "examples/kubernetes/manifest.yaml differs; this is printed:\n{printed}");
    let program = fs::read_to_string(root.join("examples/kubernetes/main.rs")).unwrap();
    assert!(program.contains(&format!("bactrian kubernetes manifest {}", arguments.join(" "))));
}

/// The rules of the security context constraint that every project of OpenShift gets.
#[test]
fn the_pods_fit_restricted_v2_of_openshift() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shown = documents(&fs::read_to_string(root.join("examples/kubernetes/manifest.yaml")).unwrap());
    let pod = &of_kind(&shown, "Deployment")[0]["spec"]["template"]["spec"];
    for key in ["hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers"] {
        assert_eq!(pod[key], Value::Null, "{key}");
    }
    let allowed = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in pod["volumes"].as_array().unwrap() {
        let kinds = volume.as_object().unwrap().keys().filter(|key| *key != "name");
        assert!(kinds.into_iter().all(|kind| allowed.contains(&kind.as_str())), "{volume}");
    }
    let container = &pod["containers"][0];
    // The cluster chooses them; a value of ours would be outside of the project's range.
    for context in [&pod["securityContext"], &container["securityContext"]] {
        for key in [
            "runAsUser",
            "runAsGroup",
            "fsGroup",
            "supplementalGroups",
            "seLinuxOptions",
            "privileged",
            "sysctls",
        ] {
            assert_eq!(context[key], Value::Null, "{key}");
        }
    }
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert_eq!(container["securityContext"]["capabilities"], serde_json::json!({"drop": ["ALL"]}));
    assert!(container["ports"].as_array().unwrap().iter().all(|port| port["hostPort"].is_null()));
}

/// With a builder and a client that note how they are called.
#[test]
fn the_quickstart_is_deployed_by_one_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let note = |name: &str, script: &str| {
        let program = folder.path().join(name);
        fs::write(&program, format!("#!/bin/sh\necho \"{name} $*\" >>\"$NOTES\"\n{script}\n")).unwrap();
        assert!(Command::new("chmod").arg("+x").arg(program).status().unwrap().success());
    };
    note("docker", "");
    note("kubectl", "cat >>\"$NOTES\"");
    let notes = folder.path().join("notes");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let mut command = Command::new(root.join("examples/kubernetes/deploy"));
    command.args(["registry.test/me/clock:2", "time"]).current_dir(folder.path());
    let output = command.env("PATH", path).env("NOTES", &notes).output().unwrap();
    assert!(output.status.success(), "{}", text(output.stderr));
    let manifest = fs::read_to_string(root.join("examples/kubernetes/manifest.yaml")).unwrap();
    let manifest = manifest.replace("registry.example/clock:1", "registry.test/me/clock:2");
    let expected = format!(
        "docker build --tag registry.test/me/clock:2 --build-arg PROGRAM=--example kubernetes .\n\
         docker push registry.test/me/clock:2\nkubectl apply --filename -\n{}",
        manifest.replace("namespace: default", "namespace: time")
    );
    assert_eq!(fs::read_to_string(notes).unwrap(), expected);
}

#[test]
fn all_locks_are_made_also_those_inside_others() {
    let folder = folder(ROUTES);
    let printed = printed(folder.path(), &["--image", "a", "--lock", "own"]);
    let leases = of_kind(&documents(&printed), "Lease");
    let note = |lease: &Value, key: &str| lease["metadata"]["annotations"][key].as_str().map(str::to_owned);
    let locks =
        leases.iter().map(|lease| (note(lease, "bactrian/lock").unwrap(), note(lease, "bactrian/routes")));
    let expected = [("own", None), ("x:y", Some("b")), ("z", Some("b, c")), ("Ü 1", Some("route1"))];
    let expected = expected.map(|(lock, routes)| (lock.to_owned(), routes.map(str::to_owned)));
    assert_eq!(locks.collect::<Vec<_>>(), expected);
    assert!(names(&leases).contains(&"bactrian.lock.z"));
}

#[test]
fn settings_of_the_command_line_are_variables_of_the_pods_and_those_of_this_process_are_not() {
    let folder = folder(ROUTES);
    let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
    command.args(["kubernetes", "manifest", "--image", "a", "--set", "cluster.kubernetes.profile=fast"]);
    command.args([
        "--set",
        "router.shutdown_timeout=2m",
        "--set",
        "cluster.service=file",
        "--namespace",
        "time",
    ]);
    command.current_dir(folder.path()).env("BACTRIAN_CLUSTER__KUBERNETES__GROUP", "laptop");
    let yaml = text(command.output().unwrap().stdout);
    assert!(!yaml.contains("laptop"));
    let documents = documents(&yaml);
    assert!(documents.iter().all(|document| document["metadata"]["namespace"] == "time"));
    let pod = &of_kind(&documents, "Deployment")[0]["spec"]["template"]["spec"];
    assert_eq!(pod["terminationGracePeriodSeconds"], 135);
    assert_eq!(pod["enableServiceLinks"], false);
    let variables = pod["containers"][0]["env"].as_array().unwrap()[3..].iter().map(|variable| {
        format!("{}={}", variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap())
    });
    let expected = [
        "BACTRIAN_BODY__SPOOL_DIR=/var/lib/bactrian/spool",
        "BACTRIAN_CLUSTER__KUBERNETES__PROFILE=fast",
        "BACTRIAN_CLUSTER__SERVICE=kubernetes",
        "BACTRIAN_ROUTER__SHUTDOWN_TIMEOUT=2m",
    ];
    assert_eq!(variables.collect::<Vec<_>>(), expected);
}

#[test]
fn what_belongs_to_a_file_is_called_as_kubernetes_calls_things() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("My_Routes.v2.toml"), ROUTES).unwrap();
    let documents = documents(&printed(folder.path(), &["My_Routes.v2.toml", "--image", "a"]));
    assert_eq!(names(&of_kind(&documents, "Deployment")), ["my-routes"]);
    fs::write(folder.path().join("Ü.toml"), ROUTES).unwrap();
    let refused = refused(folder.path(), &["Ü.toml", "--image", "a"]);
    assert!(refused.contains("`--name`"), "{refused}");
}

/// A probe that nobody answers has every pod killed, again and again.
#[test]
fn probes_are_asked_where_the_members_listen() {
    let folder = folder("[admin]\nlisten = '127.0.0.1:9876'\n[[route]]\nfrom = 'timer:a'\nsteps = []\n");
    let with = |listen: &str| ["--image", "a", "--set", &format!("admin.listen={listen}")].map(str::to_owned);
    let container = |listen: &str| {
        let arguments = with(listen);
        let yaml = printed(folder.path(), &arguments.each_ref().map(String::as_str));
        let deployment = of_kind(&documents(&yaml), "Deployment").remove(0);
        deployment["spec"]["template"]["spec"]["containers"][0].clone()
    };
    for (listen, port) in [("0.0.0.0:8080", 8080), ("[::]:9876", 9876)] {
        let container = container(listen);
        assert_eq!(container["ports"][0]["containerPort"], port);
        assert_eq!(container["livenessProbe"]["httpGet"]["port"], container["ports"][0]["name"]);
    }
    let silent = container("off");
    assert!(
        ["ports", "startupProbe", "readinessProbe", "livenessProbe"].iter().all(|key| silent[key].is_null())
    );
    for listen in ["127.0.0.1:9876", "[::1]:9876", "10.1.2.3:9876", "0.0.0.0:0"] {
        let arguments = with(listen);
        let text = refused(folder.path(), &arguments.each_ref().map(String::as_str));
        assert!(text.contains(listen) && text.contains("--set admin.listen=[::]:9876"), "{text}");
    }
    assert!(refused(folder.path(), &["--image", "a"]).contains("127.0.0.1:9876"));
}

#[test]
fn routes_that_elect_nobody_get_no_rights() {
    let folder = folder("[[route]]\nfrom = 'timer:a'\nsteps = [{ log = 'a' }]\n");
    let documents = documents(&printed(folder.path(), &["--image", "a"]));
    let kinds = documents.iter().map(|document| document["kind"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(kinds, ["ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget"]);
    let refused = refused(folder.path(), &["--image", "a", "--lock", "own"]);
    assert!(refused.contains("service = \"auto\""), "{refused}");
}

#[test]
fn what_the_environment_gives_to_routes_comes_from_a_secret_and_is_not_printed() {
    let folder = folder("[[route]]\nfrom = 'timer:a'\nsteps = [{ to = 'log:${env:WHO}' }]\n");
    let mut command = Command::new(env!("CARGO_BIN_EXE_bactrian"));
    command.args(["kubernetes", "manifest", "--image", "a"]).current_dir(folder.path());
    let yaml = text(command.env("WHO", "hunter2").output().unwrap().stdout);
    assert!(!yaml.contains("hunter2"));
    let pod = &of_kind(&documents(&yaml), "Deployment")[0]["spec"]["template"]["spec"];
    let secret = &pod["containers"][0]["envFrom"][0]["secretRef"];
    assert_eq!((&secret["name"], &secret["optional"]), (&"routes".into(), &true.into()));
}

#[test]
fn errors_are_those_of_check() {
    let folder = folder("[[route]]\nfrom = 'master:l:tmer:a'\nsteps = []\n[cluster]\nprofil = 'fast'\n");
    let check = bactrian(folder.path(), &["check"]);
    assert_eq!(refused(folder.path(), &["--image", "a"]), text(check.stderr));
}

#[test]
fn what_pods_could_not_use_is_refused() {
    let folder = folder(ROUTES);
    let refused = |arguments: &[&str]| refused(folder.path(), &[&["--image", "a"], arguments].concat());
    assert!(
        refused(&["--name", "My_Clock"]).contains(r#"the name (`--name`) "My_Clock" is no label of DNS"#)
    );
    assert!(refused(&["--set", "cluster.member=me"]).contains("give all pods one name"));
    assert!(refused(&["--set", "cluster.kubernetes.group=No"]).contains("a group has 1 to 63"));
    assert!(
        refused(&["--set", "cluster.kubernetes.cluster_labels=a in (b)"]).contains("app=clock,tier=back")
    );
    let differ = refused(&["--set", "cluster.kubernetes.namespace=a", "--namespace", "b"]);
    assert!(differ.contains("`--namespace b` and `cluster.kubernetes.namespace = \"a\"` differ"), "{differ}");
}

#[test]
fn kustomize_gets_files_and_those_of_others_stay() {
    let folder = folder(ROUTES);
    let arguments = ["--image", "a", "--kustomize", "base"];
    printed(folder.path(), &arguments);
    let base = folder.path().join("base");
    let read = |name: &str| fs::read_to_string(base.join(name)).unwrap();
    let kustomization = documents(&read("kustomization.yaml")).remove(0);
    let resources = kustomization["resources"].as_array().unwrap();
    let files = resources.iter().map(|name| read(name.as_str().unwrap())).collect::<Vec<_>>();
    assert_eq!(files.join("---\n"), printed(folder.path(), &arguments[..2]));
    // Its own files are written anew ...
    printed(folder.path(), &["--image", "other", "--kustomize", "base"]);
    assert!(read("deployment.yaml").contains("image: other"));
    // ... and when one of them is somebody else's, none is.
    fs::write(base.join("role.yaml"), "mine").unwrap();
    let output = bactrian(folder.path(), &[&["kubernetes", "manifest"], &arguments[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(text(output.stderr).contains("`base/role.yaml` was not made by this command"));
    assert_eq!(read("role.yaml"), "mine");
    assert!(read("deployment.yaml").contains("image: other"));
}
