//! [`load`]: from files to routes and settings that have no errors. The one loader of `check` and
//! `run`, so that what one accepts, the other accepts.

mod text;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use components::MasterComponent;
use router_core::cluster::backend::Purpose;
use router_core::cluster::{LockName, MemoryCluster};
use router_core::component::Registry;
use router_core::definition::route_ids;
use router_core::directory;
use router_core::error::{ConfigError, ConfigErrors, Severity};
use router_core::router::RouterBuilder;
use router_core::source::SourceFile;
use router_core::toml::RouteFile;

use crate::cluster;
use crate::cluster::Service;
use crate::settings::{Environment, Listen, Resolved, Settings};

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "routes.toml";

/// What was read, all of it checked.
#[derive(Debug)]
pub struct Loaded {
    /// The files, in the order in which they were named.
    pub files: Vec<RouteFile>,
    /// The settings of all layers.
    pub settings: Settings,
    /// The cluster service, where one is configured.
    pub service: Option<Service>,
    /// What keeps nothing from running; still to be shown.
    pub warnings: ConfigErrors,
    registry: Registry,
}

/// Reads files and directories (all `*.toml` in them), the environment and `key=value` pairs, and checks
/// everything: the routes against the components of `registry`, the settings against their list. Nothing
/// is started, opened or created. `missing_secrets` says what it is when the environment variable or the file of a
/// secret is not there: an error where the routes are to run, a warning elsewhere.
///
/// # Errors
/// Every error in all of them.
pub fn load(
    paths: &[PathBuf],
    command_line: &[String],
    environment: &Environment,
    registry: Registry,
    missing_secrets: Severity,
) -> Result<Loaded, ConfigErrors> {
    let mut errors = ConfigErrors::default();
    let mut files = Vec::new();
    let sources = sources(paths, &mut errors);
    // A file that cannot be read may have any route.
    let mut routes_missing = errors.has_errors();
    for source in sources {
        let (file, found) = RouteFile::read(Arc::new(source), &|name| environment.lookup(name));
        routes_missing |= file.routes_missing;
        errors.extend(found);
        files.push(file);
    }
    if files.iter().all(|file| file.routes.is_empty()) && !routes_missing {
        errors.push(no_routes(&files));
    }
    let (resolved, found) = Settings::resolve(&files, environment, command_line, &registry);
    // With an error in the settings, or a table that is not read, a cluster service that is missing may be
    // part of the same error.
    let mut clustered = resolved.settings.cluster.service.is_some() || found.has_errors() || routes_missing;
    errors.extend(found);
    errors.extend(check_bodies(&resolved, missing_secrets));
    let service = cluster::service(&resolved, environment, &registry, Purpose::TakePart, &mut errors);
    clustered |= service.is_some();
    if cfg!(not(feature = "admin")) && matches!(resolved.settings.admin.listen, Some(Listen::At(_))) {
        let error =
            resolved.error("admin.listen", "probes and metrics are not built into this program".into());
        errors.push(error.help(crate::build_with("admin")));
    }
    let settings = resolved.settings;
    let mut loaded = Loaded { files, settings, service, warnings: ConfigErrors::default(), registry };
    let mut checked = loaded.builder().errors(errors, routes_missing).missing_secrets(missing_secrets);
    if clustered {
        // Takes part in no election and creates nothing.
        checked = checked.cluster(MemoryCluster::new(loaded.settings.member()));
    }
    loaded.warnings = checked.build_with_warnings()?.1;
    Ok(loaded)
}

/// What can be said against the settings of bodies. The directory counts where the routes are to run.
fn check_bodies(resolved: &Resolved, severity: Severity) -> ConfigErrors {
    let (body, mut errors) = (&resolved.settings.body, ConfigErrors::default());
    if body.spool_threshold > body.memory_limit {
        let (threshold, limit) = (body.spool_threshold, body.memory_limit);
        let path =
            if resolved.is_set("body.memory_limit") { "body.memory_limit" } else { "body.spool_threshold" };
        let message = format!(
            "`body.spool_threshold` is {threshold} bytes, and no more than the {limit} of `body.memory_limit` belong into memory"
        );
        errors.push(resolved.error(path, message));
    }
    // Most routes have no large bodies: for them, the default need not be usable.
    if resolved.is_set("body.spool_dir")
        && let Err(refused) = directory::check(&body.spool_dir, true)
    {
        errors.push(resolved.error("body.spool_dir", refused).severity(severity));
    }
    errors
}

/// Reads which cluster is meant, from the same files, or from the environment and the command line alone.
/// Routes are not looked at: whoever looks after a cluster need not have what its routes need.
///
/// # Errors
/// Every error in the settings, and that they name no cluster.
pub fn load_cluster(
    paths: &[PathBuf],
    command_line: &[String],
    environment: &Environment,
    registry: &Registry,
) -> Result<Service, ConfigErrors> {
    let mut errors = ConfigErrors::default();
    let mut files = Vec::new();
    let found = if paths.is_empty() && !Path::new(DEFAULT_FILE).exists() {
        Vec::new()
    } else {
        sources(paths, &mut errors)
    };
    for source in found {
        let (file, found) = RouteFile::read(Arc::new(source), &|name| environment.lookup(name));
        if file.routes_missing {
            // It could not be read at all, and so its settings are missing too.
            errors.extend(found);
        }
        files.push(file);
    }
    let (resolved, found) = Settings::resolve(&files, environment, command_line, registry);
    errors.extend(found);
    let service = cluster::service(&resolved, environment, registry, Purpose::Look, &mut errors);
    if service.is_none() && !errors.has_errors() {
        let help = "name the file with the `[cluster]` of the members, or say `--set cluster.service=NAME`";
        errors.push(ConfigError::new("no cluster service is named".to_owned()).help(help));
    }
    errors.into_result()?;
    service.ok_or_else(ConfigErrors::default)
}

impl Loaded {
    /// A builder with all components, settings and routes, still without a cluster service.
    pub fn builder(&self) -> RouterBuilder {
        let Settings { router, master, body, .. } = &self.settings;
        let attempts = u32::try_from(master.attempts).unwrap_or(u32::MAX);
        let master = MasterComponent::default().attempts(attempts).backoff(master.backoff);
        RouterBuilder::with_registry(self.registry.clone())
            .component(master)
            .node(self.settings.member())
            .shutdown_timeout(router.shutdown_timeout)
            .spool(body.spool())
            .routes(self.files.iter().flat_map(|file| file.routes.iter().cloned()))
    }

    /// The locks that the routes use, by name, and the ids of the routes that use each.
    #[must_use]
    pub fn locks(&self) -> Locks {
        locks(&self.files)
    }
}

/// Locks, by name, and the ids of the routes that use each.
pub type Locks = BTreeMap<LockName, Vec<String>>;

/// The locks that the routes of files use; or none where no file is named and there is no [`DEFAULT_FILE`]. What
/// is wrong with them is not looked at: a file that cannot be read has none.
#[must_use]
pub fn locks_of(paths: &[PathBuf], environment: &Environment) -> Locks {
    locks(&unchecked(paths, environment))
}

/// Whether the files, the environment or the command line name a cluster service. What is wrong with them is not
/// looked at.
#[must_use]
pub fn is_clustered(paths: &[PathBuf], command_line: &[String], environment: &Environment) -> bool {
    let files = unchecked(paths, environment);
    let (resolved, _) = Settings::resolve(&files, environment, command_line, &crate::registry());
    resolved.settings.cluster.service.is_some()
}

/// What can be understood of files.
fn unchecked(paths: &[PathBuf], environment: &Environment) -> Vec<RouteFile> {
    let files = sources(paths, &mut ConfigErrors::default()).into_iter();
    files.map(|source| RouteFile::read(Arc::new(source), &|name| environment.lookup(name)).0).collect()
}

fn locks(files: &[RouteFile]) -> Locks {
    let mut locks = Locks::new();
    let routes = files.iter().flat_map(|file| &file.routes);
    for (route, id) in routes.clone().zip(route_ids(routes.map(|route| (route, None)))) {
        for lock in route.from.iter().flat_map(components::master::locks) {
            locks.entry(lock).or_default().push(id.to_string());
        }
    }
    locks
}

/// Reads all files, once each.
fn sources(paths: &[PathBuf], errors: &mut ConfigErrors) -> Vec<SourceFile> {
    let mut found = Vec::new();
    if paths.is_empty() {
        let default = Path::new(DEFAULT_FILE);
        if default.exists() {
            found.push(default.to_owned());
        } else {
            let help = "name a file or a folder: `bactrian run examples/clock.toml`";
            errors.push(ConfigError::new(format!("there is no `{DEFAULT_FILE}` in this folder")).help(help));
        }
    }
    for path in paths {
        if path.is_dir() {
            found.extend(errors.collect(files_in(path)).unwrap_or_default());
        } else {
            found.push(path.clone());
        }
    }
    let mut seen = HashSet::new();
    found.retain(|path| seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone())));
    found.iter().filter_map(|path| errors.collect(text::read(path))).collect()
}

/// The `*.toml` files of a directory, by name. Hidden ones are left out: editors and Kubernetes keep
/// copies under such names.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable = |error| unreadable(directory, &error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") && path.is_file() {
            files.push(path);
        }
    }
    if files.is_empty() {
        return Err(ConfigError::new(format!("there is no `*.toml` in `{}`", directory.display())));
    }
    files.sort();
    Ok(files)
}

fn unreadable(path: &Path, error: &std::io::Error) -> ConfigError {
    ConfigError::new(format!("cannot read `{}`: {error}", path.display()))
}

fn no_routes(files: &[RouteFile]) -> ConfigError {
    let names = files.iter().map(|file| format!("`{}`", file.file.name)).collect::<Vec<_>>();
    let error = ConfigError::new(format!("there is no route in {}", names.join(", ")));
    error.help(
        "the smallest one is `[[route]]` with `from = \"timer:clock\"` and `steps = [{ log = \"Hello\" }]`",
    )
}
