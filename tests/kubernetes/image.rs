//! The contents of the image are all that its program needs.
//!
//! As root: `image/contents DIR`, then `IMAGE_CONTENTS=DIR cargo test --all-features --test kubernetes --
//! --ignored --nocapture image::`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use super::operator::{Container, Operator};

const ROUTES: &str = r#"
[cluster]
service = "auto"

[cluster.kubernetes]
profile = "fast"

[[route]]
id = "clock"
from = "master:image:timer:clock?delay=0&period=20ms"
steps = [{ log = "Hello World!" }]
"#;

fn write(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join(path.trim_start_matches('/'));
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
#[ignore = "needs an API server, root, and what `image/contents` makes; `tests/run` brings them"]
fn the_contents_of_the_image_run_in_an_empty_root_and_speak_to_the_server() {
    run_as("image", "65532", "65532");
}

/// As `restricted-v2` has it: a user id of the project's range, which no file knows, and group 0.
#[test]
#[ignore = "needs an API server, root, and what `image/contents` makes; `tests/run` brings them"]
fn the_contents_of_the_image_run_as_an_arbitrary_user_of_openshift() {
    run_as("openshift", "1000700000", "0");
}

fn run_as(namespace: &str, user: &str, group: &str) {
    let image = std::env::var_os("IMAGE_CONTENTS");
    let image = image.expect("`image/contents DIR` makes the contents, and IMAGE_CONTENTS=DIR names them");
    let operator = Operator::new(namespace, ROUTES, &[]);
    let manifest = operator.manifest();
    operator.apply(&manifest);
    let Container { name, token, files, arguments, variables } = operator.pod(&manifest, 0);
    let root = operator.stage.path("root");
    let copied = Command::new("cp").arg("-r").args([&image, root.as_os_str()]).status().unwrap();
    assert!(copied.success());
    // What a kubelet mounts.
    for (file, text) in files {
        write(&root, &format!("/etc/bactrian/{file}"), text.as_str().unwrap());
    }
    // An `emptyDir` belongs to root, and every user may write to it.
    for (_, folder) in variables.iter().filter(|(name, _)| name == "BACTRIAN_BODY__SPOOL_DIR") {
        let folder = root.join(folder.trim_start_matches('/'));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    }
    let account = "/var/run/secrets/kubernetes.io/serviceaccount";
    write(&root, &format!("{account}/token"), token);
    write(&root, &format!("{account}/namespace"), &operator.stage.namespace);
    write(&root, &format!("{account}/ca.crt"), std::fs::read(operator.stage.server.authority()).unwrap());
    write(&root, "/etc/hosts", "127.0.0.1 kubernetes.default.svc\n");
    write(&root, "/dev/termination-log", "");
    // Every container has these.
    for (name, minor) in [("random", "8"), ("urandom", "9")] {
        let path = root.join("dev").join(name);
        let made = Command::new("mknod").args(["-m", "666"]).arg(path).args(["c", "1", minor]).status();
        assert!(made.unwrap().success(), "this test is for root");
    }
    // Neither may get rights by what it starts, and neither is in any other group.
    let mut command = Command::new("setpriv");
    command
        .args(["--no-new-privs", "chroot", "--groups=", &format!("--userspec={user}:{group}")])
        .arg(&root)
        .arg("/bactrian")
        .args(arguments)
        .env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    // By a name, so that names are looked up too.
    command.env("KUBERNETES_SERVICE_HOST", "kubernetes.default.svc");
    command.env("KUBERNETES_SERVICE_PORT", operator.stage.server.port().to_string()).envs(variables);
    let replica = operator.run(command, name);
    replica.wait_for("Hello World!");
    let lock = operator.wait_for("image", "a leader", |lock| lock["state"] == "led");
    assert_eq!(lock["holder"], replica.name.as_str());
}
