//! [`load`]: from files to routes and settings that have no mistakes. The one loader of `check` and
//! `run`, so that what one accepts, the other accepts.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use components::MasterComponent;
use router_core::cluster::MemoryCluster;
use router_core::error::{ConfigError, ConfigErrors};
use router_core::registry::Registry;
use router_core::router::RouterBuilder;
use router_core::source::SourceFile;
use router_core::toml::RouteFile;

use crate::cluster;
use crate::settings::{Environment, Listen, Service, Settings};

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "routes.toml";

/// What was read, all of it checked.
pub struct Loaded {
    /// The files, in the order in which they were named.
    pub files: Vec<RouteFile>,
    /// The settings of all layers.
    pub settings: Settings,
    /// The cluster service, where one is configured; [`cluster::open`] opens it.
    pub service: Option<Service>,
    registry: Registry,
}

/// Reads files and directories (all `*.toml` in them), the environment and `key=value` pairs, and checks
/// everything: the routes against the components of `registry`, the settings against their list. Nothing
/// is started, opened or created.
///
/// # Errors
/// Every mistake in all of them.
pub fn load(
    paths: &[PathBuf],
    command_line: &[String],
    environment: &Environment,
    registry: Registry,
) -> Result<Loaded, ConfigErrors> {
    let mut errors = ConfigErrors::default();
    let mut files = Vec::new();
    // A file that cannot be read may have any route.
    let mut routes_missing = false;
    for source in sources(paths, &mut errors) {
        let lookup = |name: &str| environment.get(name).map(Into::into);
        let (file, found) = RouteFile::read(Arc::new(source), &lookup);
        routes_missing |= file.routes_missing;
        errors.extend(found);
        files.push(file);
    }
    routes_missing |= errors.iter().len() > 0 && files.is_empty();
    if files.iter().all(|file| file.routes.is_empty()) && !routes_missing {
        errors.push(no_routes(&files));
    }
    let (resolved, mistakes) = Settings::resolve(&files, environment, command_line);
    // With a mistake in the settings, a cluster service that is missing may be part of the same mistake.
    let mut clustered = resolved.settings.cluster.service.is_some() || mistakes.iter().len() > 0;
    errors.extend(mistakes);
    let service = errors.collect(cluster::service(&resolved, environment)).flatten();
    clustered |= service.is_some();
    if cfg!(not(feature = "admin")) && matches!(resolved.settings.admin.listen, Some(Listen::At(_))) {
        let error =
            resolved.error("admin.listen", "probes and metrics are not built into this program".into());
        errors.push(error.help("build it with the feature `admin`"));
    }
    let loaded = Loaded { files, settings: resolved.settings, service, registry };
    let mut checked = loaded.builder().mistakes(errors, routes_missing);
    if clustered {
        // Takes part in no election and creates nothing.
        checked = checked.cluster(MemoryCluster::new(loaded.settings.member()));
    }
    checked.build()?;
    Ok(loaded)
}

impl Loaded {
    /// A builder with all components, settings and routes, still without a cluster service.
    pub fn builder(&self) -> RouterBuilder {
        let Settings { router, master, .. } = &self.settings;
        let attempts = u32::try_from(master.attempts).unwrap_or(u32::MAX);
        let master = MasterComponent::default().attempts(attempts).backoff(master.backoff);
        RouterBuilder::with_registry(self.registry.clone())
            .component(master)
            .node(self.settings.member())
            .shutdown_timeout(router.shutdown_timeout)
            .routes(self.files.iter().flat_map(|file| file.routes.iter().cloned()))
    }
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
    found.iter().filter_map(|path| errors.collect(read(path))).collect()
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

fn read(path: &Path) -> Result<SourceFile, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Ok(SourceFile { name: path.display().to_string(), text })
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
