//! `file:directory`: reads files out of a directory, and writes exchanges into files.
//!
//! | option | in | takes | default | meaning |
//! |---|---|---|---|---|
//! | `include` | `from` | text |  | a regular expression that the whole name matches, in any case |
//! | `exclude` | `from` | text |  | a regular expression that the name does not match |
//! | `recursive` | `from` | boolean | `false` | whether files of directories below are read too |
//! | `noop` | `from` | boolean | `false` | whether files stay as they are; each is read once |
//! | `delete` | `from` | boolean | `false` | whether a file is deleted when its exchange is done |
//! | `move` | `from` | text |  | the directory, beside the file, where it goes when its exchange is done; `.done` where nothing is said |
//! | `move_failed` | `from` | text |  | the directory where it goes when its exchange failed |
//! | `read_lock` | `from` | none, changed | `none` | `changed`: files that are still being written, because they have just changed, wait for a later poll |
//! | `read_lock_check_interval` | `from` | duration | `1s` | how long a file must not have changed |
//! | `initial_delay` | `from` | duration | `1s` | the time before the first poll |
//! | `delay` | `from` | duration | `500ms` | the time from one poll to the next |
//! | `max_messages_per_poll` | `from` | integer |  | how many files a poll reads; unset or `0` means all |
//! | `sort_by` | `from` | name, modified | `name` | the order in which files are read |
//! | `file_name` | both | text |  | `from`: the only file to read; `to`: the name, whatever the header says |
//! | `done_file_name` | both | text |  | a name with `${file.name}` in it: files are read once that other file exists, which is deleted with them; `to` makes it when the file is complete |
//! | `file_exist` | `to` | override, append, fail, ignore, move, try_rename | `override` | what happens to a file that exists already |
//! | `move_existing` | `to` | text |  | the directory, beside the file, where an existing one goes with `file_exist=move` |
//! | `temp_prefix` | `to` | text | `.tmp-` | how the temporary name begins |
//! | `force_writes` | `to` | boolean | `true` | whether a written file is on the disk before the route goes on |
//! | `allow_null_body` | `to` | boolean | `false` | whether an empty body makes an empty file; without it, it is a failure |
//!
//! An option of `from` is an error in `to`, and the other way round. In a URI, write the `+` of a regular expression as `%2B`.
//!
//! **Reading.** Each regular file becomes an exchange; its body is text when it is UTF-8, bytes otherwise,
//! and a small one is read into memory. The headers are `file.name` (relative to the directory),
//! `file.path`, `file.length`, and `file.last_modified` (milliseconds since 1970-01-01 UTC). Only when the
//! exchange is done, the file is moved (to `.done` beside it; Camel: `.camel`), deleted or
//! remembered. When the exchange fails, it goes to `move_failed`, or stays and is read again. When it ends
//! because the member no longer leads, the file is left as it is, for the next leader. Files and
//! directories whose names begin with a dot are not read. What `noop` remembers is in memory, also for a new version of
//! the route (SIGHUP): another leader, or this process after a restart, reads those files again.
//!
//! *Nothing that was not read is moved, deleted or replaced.* A file that was written to or replaced while it was
//! worked on stays where it is, and is read again. A file that is moved replaces none: the second `a.txt` in
//! `.done` is `a-1.txt`. For the moment in which this is looked at, the file is called `.settling-a.txt`, or is in a
//! directory `.settling` if its name is too long for that; if the process ends just then, the next poll gives the name back and reads the file again. A file whose name is not
//! UTF-8 is not read, with a warning, because `file.name` could not tell it from another one.
//!
//! *One bad file does not stop the others.* A file that fails waits twice the `delay`, then twice as long each
//! time, up to a minute; other files are read meanwhile, also with `max_messages_per_poll`. It is read at once
//! when it is written anew. A file that could not be moved or deleted afterwards (no permission, another file
//! system) is not worked on, as far as that can be known before; otherwise only the moving is tried again. The
//! route has a note that says why.
//!
//! A file of more than 1 MiB (`body.spool_threshold`) is not read into memory: it is the body, as it is. One that is written to while it is worked on
//! is an error of the step that reads it.
//!
//! A writer that has a file open while it is read is not noticed if it writes only later. Write under another name
//! or in another directory and rename, use `done_file_name`, or `read_lock=changed`.
//!
//! **Writing.** The name is the option `file_name`, else the header `file.name`, else the id of the exchange. The
//! content is written under a temporary name and then takes its place in one step, so that no reader sees
//! half a file; `append` alone writes into the file itself. A pipe, a socket or a device is neither written to nor
//! replaced: it is an error. `override` and `try_rename` are the same here,
//! because taking a place does not look whether it is free. With `move`, what exists is kept in `move_existing`
//! under its name, or with a number (`a-1.txt`) where that is taken, and its place is empty at no time. When
//! the step is done, `force_writes` has seen file and directory on the disk, and the header
//! `file.name_produced` holds the path.
//!
//! *Each file goes to one route.* Two routes of a process that consume one directory, however it is written, are a
//! configuration error, unless each has an `include`, an `exclude` or a `file_name`, by which its files are other ones than
//! those of the other route, or leaves the files where they are (`noop=true`).
//!
//! **Nothing outside.** Names that are absolute or contain `..` are refused, and symbolic links below the
//! directory are neither read nor followed. The directory itself may be one, and is made where it does
//! not exist.

mod consumer;
mod jail;
mod memory;
mod producer;
mod settle;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regex::{Regex, RegexBuilder};
use router_core::cluster::Term;
use router_core::component::{BuildContext, Component, Consumer, Endpoint, Processor, Taken};
use router_core::directory;
use router_core::error::{BoxError, ConfigError, ConfigErrors};
use router_core::options::{ComponentDescription, OptionKind, Options, PathKind, Side, flag, option, path};
use router_core::spool::Spool;
use router_core::uri::EndpointUri;

use consumer::FileConsumer;
use jail::Jail;
use producer::FileProducer;

/// The component.
#[derive(Debug)]
pub struct FileComponent;

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "file",
    summary: "reads files out of a directory, and writes exchanges into files",
    syntax: "file:directory",
    path: path("directory", PathKind::Directory),
    consumes: true,
    produces: true,
    options: &[
        option(
            "include",
            OptionKind::Text,
            None,
            "a regular expression that the whole name matches, in any case",
        )
        .of(Side::From),
        option("exclude", OptionKind::Text, None, "a regular expression that the name does not match")
            .of(Side::From),
        flag("recursive", "false", "whether files of directories below are read too").of(Side::From),
        flag("noop", "false", "whether files stay as they are; each is read once").of(Side::From),
        flag("delete", "false", "whether a file is deleted when its exchange is done").of(Side::From),
        option(
            "move",
            OptionKind::Text,
            None,
            "the directory, beside the file, where it goes when its exchange is done; `.done` where \
             nothing is said",
        )
        .of(Side::From),
        option("move_failed", OptionKind::Text, None, "the directory where it goes when its exchange failed")
            .of(Side::From),
        option(
            "read_lock",
            OptionKind::Choice(&["none", "changed"]),
            Some("none"),
            "`changed`: files that are still being written, because they have just changed, wait for a \
             later poll",
        )
        .of(Side::From),
        option(
            "read_lock_check_interval",
            OptionKind::Duration,
            Some("1s"),
            "how long a file must not have changed",
        )
        .of(Side::From),
        option("initial_delay", OptionKind::Duration, Some("1s"), "the time before the first poll")
            .of(Side::From),
        option("delay", OptionKind::Duration, Some("500ms"), "the time from one poll to the next")
            .of(Side::From),
        option(
            "max_messages_per_poll",
            OptionKind::Integer,
            None,
            "how many files a poll reads; unset or `0` means all",
        )
        .of(Side::From),
        option(
            "sort_by",
            OptionKind::Choice(&["name", "modified"]),
            Some("name"),
            "the order in which files are read",
        )
        .of(Side::From),
        option(
            "file_name",
            OptionKind::Text,
            None,
            "`from`: the only file to read; `to`: the name, whatever the header says",
        ),
        option(
            "done_file_name",
            OptionKind::Template(&[NAME]),
            None,
            "a name with `${file.name}` in it: files are read once that other file exists, which is \
             deleted with them; `to` makes it when the file is complete",
        ),
        option(
            "file_exist",
            OptionKind::Choice(&["override", "append", "fail", "ignore", "move", "try_rename"]),
            Some("override"),
            "what happens to a file that exists already",
        )
        .of(Side::To),
        option(
            "move_existing",
            OptionKind::Text,
            None,
            "the directory, beside the file, where an existing one goes with `file_exist=move`",
        )
        .of(Side::To),
        option("temp_prefix", OptionKind::Text, Some(".tmp-"), "how the temporary name begins").of(Side::To),
        flag("force_writes", "true", "whether a written file is on the disk before the route goes on")
            .of(Side::To),
        flag(
            "allow_null_body",
            "false",
            "whether an empty body makes an empty file; without it, it is a failure",
        )
        .of(Side::To),
    ],
};

/// What stands for the name of a file in `done_file_name`.
const NAME: &str = "${file.name}";

impl Component for FileComponent {
    fn description(&self) -> &'static ComponentDescription {
        &DESCRIPTION
    }

    fn endpoint(
        &self,
        uri: &EndpointUri,
        context: &BuildContext<'_>,
    ) -> Result<Box<dyn Endpoint>, ConfigErrors> {
        let mut errors = ConfigErrors::default();
        let options = DESCRIPTION.read_into(uri, &mut errors);
        let directory = errors.collect(uri.required_path("a file endpoint needs a directory: `file:inbox`"));
        let settings = Settings::read(&options, uri, &mut errors);
        if context.side == Side::From {
            errors.extend(unread(uri, &options));
        }
        if let Some(directory) = &directory
            && !options.boolean("noop")
            && directory::belongs_to_kernel(Path::new(directory.as_str()))
        {
            let message = format!("`{directory}` belongs to the kernel, which makes no files there");
            errors.push(uri.error_in_path(0..uri.path().len(), message));
        }
        // One that is not there is made when it is needed.
        if let Some(directory) = &directory
            && std::fs::metadata(directory.as_str()).is_ok_and(|found| !found.is_dir())
        {
            errors.push(uri.error_in_path(0..uri.path().len(), format!("`{directory}` is not a directory")));
        }
        errors.into_result()?;
        let (Some(directory), Some(settings)) = (directory, settings) else {
            unreachable!("what is missing is an error");
        };
        Ok(Box::new(FileEndpoint {
            jail: Jail::new(PathBuf::from(directory.as_str())),
            settings: Arc::new(settings),
            spool: context.spool.clone(),
        }))
    }
}

/// Options by which no file is ever read.
fn unread(uri: &EndpointUri, options: &Options) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    if let Some(name) = options.text("file_name") {
        if name.split('/').any(|part| part.starts_with('.') && part != "." && part != "..") {
            let message = "option `file_name` begins with a dot: such files and directories are not read";
            errors.push(uri.error_at_option("file_name", message));
        } else if name.contains('/') && !options.boolean("recursive") && options.are_right(&["recursive"]) {
            let message = "option `file_name` is in a directory below, which is read with `recursive=true`";
            errors.push(uri.error_at_option("file_name", message));
        }
    }
    if options.text("include").is_some_and(|pattern| pattern.contains('/')) {
        let message = "option `include` is matched with names alone, and none has a slash in it";
        errors.push(uri.error_at_option("include", message));
    }
    errors
}

/// The checked options.
struct Settings {
    include: Option<Regex>,
    exclude: Option<Regex>,
    recursive: bool,
    after: After,
    move_failed: Option<PathBuf>,
    /// How long a file must not have changed, where that is asked for.
    unchanged_for: Option<Duration>,
    initial_delay: Duration,
    delay: Duration,
    max_messages_per_poll: usize,
    by_modified: bool,
    file_name: Option<String>,
    done_file: Option<DoneFile>,
    exist: Exist,
    temp_prefix: String,
    force_writes: bool,
    allow_null_body: bool,
}

/// What happens to a file when its exchange is done.
enum After {
    Remember,
    Delete,
    Move(PathBuf),
}

impl After {
    fn read(options: &Options, uri: &EndpointUri, move_: Option<PathBuf>) -> Result<Self, ConfigError> {
        let (noop, delete, moves) =
            (options.boolean("noop"), options.boolean("delete"), options.text("move").is_some());
        let given =
            [("noop", noop), ("delete", delete), ("move", moves)].map(|(name, given)| given.then_some(name));
        let mut given = given.into_iter().flatten();
        if let (Some(_), Some(second)) = (given.next(), given.next()) {
            let message = "only one of `noop`, `delete` and `move` can decide what happens to a file";
            return Err(uri.error_at_option(second, message));
        }
        Ok(match (noop, delete) {
            (true, _) => Self::Remember,
            (_, true) => Self::Delete,
            _ => Self::Move(move_.unwrap_or_else(|| ".done".into())),
        })
    }
}

/// What happens to a file that a written one would replace.
#[derive(PartialEq, Eq)]
enum Exist {
    Override,
    Append,
    Fail,
    Ignore,
    Move(PathBuf),
}

impl Exist {
    fn read(
        options: &Options,
        uri: &EndpointUri,
        move_existing: Option<PathBuf>,
    ) -> Result<Self, ConfigError> {
        let given = options.text("move_existing").is_some() || !options.are_right(&["move_existing"]);
        Ok(match (options.text("file_exist").as_deref(), move_existing) {
            (Some("move"), Some(directory)) => Self::Move(directory),
            (Some("move"), None) if !given => {
                let message = "`file_exist=move` needs the option `move_existing`, for example `.old`";
                return Err(uri.error_at_option("file_exist", message));
            }
            (Some(other), _) if other != "move" && given && options.are_right(&["file_exist"]) => {
                let message = "option `move_existing` goes with `file_exist=move`";
                return Err(uri.error_at_option("move_existing", message));
            }
            (Some("append"), _) => Self::Append,
            (Some("fail"), _) => Self::Fail,
            (Some("ignore"), _) => Self::Ignore,
            // Also `try_rename`: a rename does not look whether the place is free.
            _ => Self::Override,
        })
    }
}

/// The name of the file that says that another one is complete.
struct DoneFile {
    prefix: String,
    suffix: String,
}

impl DoneFile {
    fn parse(text: &str) -> Result<Self, String> {
        let (prefix, suffix) = text
            .split_once(NAME)
            .filter(|(prefix, suffix)| {
                (*prefix, *suffix) != ("", "") && !text.contains('/') && !suffix.contains(NAME)
            })
            .ok_or_else(|| format!("option `done_file_name` takes a name like `{NAME}.done`"))?;
        Ok(Self { prefix: prefix.into(), suffix: suffix.into() })
    }

    /// The name that belongs to the file `name`.
    fn name(&self, name: &str) -> String {
        format!("{}{name}{}", self.prefix, self.suffix)
    }

    /// Whether `name` is such a name, and so no file to be read.
    fn matches(&self, name: &str) -> bool {
        name.len() > self.prefix.len() + self.suffix.len()
            && name.starts_with(&self.prefix)
            && name.ends_with(&self.suffix)
    }
}

impl Settings {
    /// `None`: something of it is an error.
    fn read(options: &Options, uri: &EndpointUri, errors: &mut ConfigErrors) -> Option<Self> {
        /// It leaves room for the id of an exchange.
        const LONGEST_PREFIX: usize = 100;
        let [_, move_, move_failed, move_existing] = ["file_name", "move", "move_failed", "move_existing"]
            .map(|name| {
                let relative = jail::relative(&options.text(name)?);
                let at_option = |problem| uri.error_at_option(name, format!("option `{name}`: {problem}"));
                errors.collect(relative.map_err(at_option))
            });
        let after = errors.collect(After::read(options, uri, move_));
        let temp_prefix = options.text("temp_prefix").unwrap_or_default();
        if temp_prefix.is_empty() || temp_prefix.contains('/') || temp_prefix.len() > LONGEST_PREFIX {
            let message = "option `temp_prefix` takes the beginning of a name, up to 100 bytes";
            errors.push(uri.error_at_option("temp_prefix", message));
        }
        let [include, exclude] =
            ["include", "exclude"].map(|name| errors.collect(pattern(options, uri, name)).flatten());
        let is_left_out = |path: &str| {
            let name = path.rsplit('/').next().unwrap_or(path);
            include.as_ref().is_some_and(|include| !include.is_match(name))
                || exclude.as_ref().is_some_and(|exclude| exclude.is_match(name))
        };
        if options.text("file_name").is_some_and(|name| is_left_out(&name)) {
            let message =
                "option `file_name` names a file that `include` or `exclude` leaves out: none is read";
            errors.push(uri.error_at_option("file_name", message));
        }
        let done_file = options.text("done_file_name").and_then(|text| {
            let parsed = DoneFile::parse(&text);
            errors.collect(parsed.map_err(|message| uri.error_at_option("done_file_name", message)))
        });
        let exist = errors.collect(Exist::read(options, uri, move_existing));
        let waits_for_changes = options.text("read_lock").as_deref() == Some("changed");
        if !waits_for_changes && options.are_right(&["read_lock"]) {
            errors.collect(uri.refuse_without("read_lock_check_interval", "read_lock=changed"));
        }
        Some(Self {
            include,
            exclude,
            recursive: options.boolean("recursive"),
            after: after?,
            move_failed,
            unchanged_for: waits_for_changes.then(|| options.duration("read_lock_check_interval")),
            initial_delay: options.duration("initial_delay"),
            delay: options.duration("delay"),
            max_messages_per_poll: match options.integer("max_messages_per_poll") {
                None | Some(0) => usize::MAX,
                Some(count) => usize::try_from(count).unwrap_or(usize::MAX),
            },
            by_modified: options.text("sort_by").as_deref() == Some("modified"),
            file_name: options.text("file_name"),
            done_file,
            exist: exist?,
            temp_prefix,
            force_writes: options.boolean("force_writes"),
            allow_null_body: options.boolean("allow_null_body"),
        })
    }
}

/// A regular expression that must match the whole of a name.
fn pattern(options: &Options, uri: &EndpointUri, name: &str) -> Result<Option<Regex>, ConfigError> {
    let Some(text) = options.text(name) else { return Ok(None) };
    let regex = RegexBuilder::new(&format!("^(?:{text})$")).case_insensitive(true).build();
    regex.map(Some).map_err(|error| {
        let error = uri.error_at_option(name, format!("option `{name}` takes a regular expression: {error}"));
        match text.strip_prefix('*') {
            Some(end) => {
                error.help(format!("for names that end with `{end}` write `.*{}`", regex::escape(end)))
            }
            None => error,
        }
    })
}

struct FileEndpoint {
    jail: Jail,
    settings: Arc<Settings>,
    /// It says which files are read into memory. None is spooled.
    spool: Spool,
}

impl Endpoint for FileEndpoint {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        Some(Box::new(FileConsumer {
            jail: self.jail.clone(),
            settings: Arc::clone(&self.settings),
            memory: Arc::default(),
            spool: self.spool.clone(),
        }))
    }

    /// Those that leave the files take none.
    fn takes(&self) -> Option<Taken> {
        let Settings { include, exclude, file_name, after, .. } = &*self.settings;
        let is_part = include.is_some() || exclude.is_some() || file_name.is_some();
        let directory = directory::canonical(&self.jail.place(Path::new("")));
        (!matches!(after, After::Remember)).then_some(Taken { directory, is_part })
    }

    fn processor(&self) -> Option<Arc<dyn Processor>> {
        Some(Arc::new(FileProducer { jail: self.jail.clone(), settings: Arc::clone(&self.settings) }))
    }
}

/// Runs file operations, which block, on a thread that may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    tokio::task::spawn_blocking(work).await?
}

/// As [`blocking`], for work that changes something. The call goes on when the future that waits for it
/// is dropped, so it is counted as work of the term: until it has ended, the lock is not given away.
async fn changing<T: Send + 'static>(
    term: Option<&Term>,
    work: impl FnOnce() -> Result<T, BoxError> + Send + 'static,
) -> Result<T, BoxError> {
    let held = term.map(Term::hold).transpose()?;
    blocking(move || {
        let _held = held;
        work()
    })
    .await
}
