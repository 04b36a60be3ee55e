//! `bactrian kubernetes manifest`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bactrian::cluster_kubernetes::{Election, KubernetesClusterSettings, Manifest};
use bactrian::load::{Loaded, is_clustered};
use bactrian::settings::{Environment, Listen, settings};
use clap::Args;
use router_core::cluster::LockName;
use router_core::error::Severity;

use super::{kustomize, misconfigured};
use crate::cli::{Sources, output};

/// Print everything that a cluster of Kubernetes needs to run the routes, as YAML.
///
/// That is a service account with the rights that the routes need and no others, the route files, the
/// locks, a Deployment and a disruption budget. The files are checked as by `bactrian check`. Applying it
/// again never takes a lock from who holds it.
#[derive(Args)]
#[command(
    after_help = "Example:\n  bactrian kubernetes manifest routes.toml --image clock:1 | kubectl apply -f -"
)]
pub(super) struct Arguments {
    #[command(flatten)]
    sources: Sources,
    /// The image that runs the routes
    #[arg(long)]
    image: String,
    /// The name of the Deployment and of what belongs to it [default: that of the first file]
    #[arg(long)]
    name: Option<String>,
    /// The namespace [default: `cluster.kubernetes.namespace`, or `default`]
    #[arg(short, long)]
    namespace: Option<String>,
    /// How many pods run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    replicas: u16,
    /// Another lock, for a service of your own in the same image; can be repeated
    #[arg(long = "lock", value_name = "LOCK")]
    locks: Vec<LockName>,
    /// Write files and a kustomization.yaml into this folder instead
    #[arg(long, value_name = "DIR")]
    kustomize: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let manifest = match manifest(arguments) {
        Ok(manifest) => manifest,
        Err(code) => return code,
    };
    let documents = match manifest.documents() {
        Ok(documents) => documents,
        Err(error) => return misconfigured(&error.to_string()),
    };
    match &arguments.kustomize {
        Some(folder) => kustomize::write(folder, &documents),
        None => {
            let texts = documents.into_iter().map(|document| document.text).collect::<Vec<_>>();
            output::data(&texts.join("---\n"))
        }
    }
}

fn manifest(arguments: &Arguments) -> Result<Manifest, ExitCode> {
    let environment = Environment::of_process().for_pod();
    let mut pairs = arguments.sources.set.clone();
    if is_clustered(&arguments.sources.paths, &pairs, &environment) {
        // Whatever the file says for a laptop: lock files in three pods are three leaders.
        pairs.push("cluster.service=kubernetes".into());
    }
    let loaded = arguments.sources.load_in(&pairs, &environment, Severity::Warning)?;
    if loaded.service.is_none() && !arguments.locks.is_empty() {
        let text = "`--lock` needs a cluster service: add a table `[cluster]` with `service = \"auto\"`";
        return Err(misconfigured(text));
    }
    // The directory of the default is beside the program, where a pod cannot write.
    let spool_dir = loaded.settings.body.spool_dir.display().to_string();
    let spool_dir = match Path::new(&spool_dir).is_absolute() {
        true => spool_dir,
        false => {
            pairs.push(format!("body.spool_dir={SPOOL_FOLDER}"));
            SPOOL_FOLDER.to_owned()
        }
    };
    output::config_warnings(&loaded.warnings);
    let files = loaded.files.iter().map(|file| {
        let name = file.file.name.rsplit('/').next().unwrap_or_default();
        (name.to_owned(), file.file.text.clone())
    });
    let files = files.collect::<Vec<_>>();
    let of_file = || files.first().and_then(|(name, _)| name.split('.').next()).unwrap_or_default();
    // Files are often called as Kubernetes calls nothing.
    let of_file = || of_file().to_ascii_lowercase().replace('_', "-");
    Ok(Manifest {
        name: arguments.name.clone().unwrap_or_else(of_file),
        namespace: namespace(arguments, &loaded)?,
        image: arguments.image.clone(),
        replicas: arguments.replicas,
        secret: files.iter().any(|(_, text)| text.contains("env:")),
        files,
        variables: variables(&pairs),
        probes: probes(&loaded)?,
        spool: (spool_dir, loaded.settings.body.max_spooled_bytes),
        drain: loaded.settings.router.shutdown_timeout,
        election: election(arguments, &loaded)?,
    })
}

/// Where large bodies are in a pod if `body.spool_dir` is not set.
const SPOOL_FOLDER: &str = "/var/lib/bactrian/spool";

/// Where the members answer probes if `admin.listen` is not set.
const PROBES: u16 = 9876;

/// The port of the probes, which are asked from outside of the pod.
fn probes(loaded: &Loaded) -> Result<Option<u16>, ExitCode> {
    match loaded.settings.admin.listen {
        None => Ok(Some(PROBES)),
        Some(Listen::Off) => Ok(None),
        Some(Listen::At(address)) if address.ip().is_unspecified() && address.port() != 0 => {
            Ok(Some(address.port()))
        }
        Some(Listen::At(address)) => Err(misconfigured(&format!(
            "no probe of a pod gets an answer with `admin.listen = \"{address}\"`: leave it out, or say `--set \
             admin.listen=[::]:{PROBES}` for all addresses of the pod, or `off` for no probes"
        ))),
    }
}

fn election(arguments: &Arguments, loaded: &Loaded) -> Result<Option<Election>, ExitCode> {
    let Some(kubernetes) = kubernetes(loaded)? else { return Ok(None) };
    if loaded.settings.cluster.member.is_some() {
        let text = "`cluster.member` would give all pods one name: leave it out, each pod has a name already";
        return Err(misconfigured(text));
    }
    let mut locks = loaded.locks();
    for lock in &arguments.locks {
        locks.entry(lock.clone()).or_default();
    }
    let locks = locks.into_iter().collect();
    let KubernetesClusterSettings { group, cluster_labels, resource, resource_name, .. } = kubernetes;
    Ok(Some(Election { group, locks, cluster_labels, resource, resource_name }))
}

/// What is set for the cluster service of the pods, where there is one.
fn kubernetes(loaded: &Loaded) -> Result<Option<KubernetesClusterSettings>, ExitCode> {
    let settings = loaded.service.as_ref().map(|service| KubernetesClusterSettings::of(service.settings()));
    settings.transpose().map_err(|error| misconfigured(&format!("cluster.kubernetes.group: {error}")))
}

/// The Leases are in `cluster.kubernetes.namespace`, and the rights to them must be there too.
fn namespace(arguments: &Arguments, loaded: &Loaded) -> Result<String, ExitCode> {
    let set = kubernetes(loaded)?.and_then(|kubernetes| kubernetes.namespace);
    match (&arguments.namespace, set) {
        (Some(wanted), Some(set)) if *wanted != set => {
            let text = format!(
                "`--namespace {wanted}` and `cluster.kubernetes.namespace = \"{set}\"` differ: members would look for \
                 their locks where they have no rights; leave one of them out"
            );
            Err(misconfigured(&text))
        }
        (wanted, set) => Ok(wanted.clone().or(set).unwrap_or_else(|| "default".into())),
    }
}

/// The settings of the command line as variables of the environment. Of two for one setting, the last
/// counts.
fn variables(pairs: &[String]) -> Vec<(String, String)> {
    let mut variables = BTreeMap::new();
    let list = settings(&bactrian::registry());
    for (path, value) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
        let setting = list.iter().find(|setting| setting.path() == path);
        variables.extend(setting.map(|setting| (setting.variable(), value.to_owned())));
    }
    variables.into_iter().collect()
}
