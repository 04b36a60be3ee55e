//! `sql:statement`: runs a statement for each exchange, or makes one exchange of each row.
//!
//! | option | in | takes | default | meaning |
//! |---|---|---|---|---|
//! | `data_source` | both | URL |  | required: `sqlite:path`, `sqlite::memory:`, or `postgres://user@host:port/database` |
//! | `password` | both | secret |  | the password of the user in the URL of the data source |
//! | `output_type` | `to` | list, one | `list` | `list`: the body becomes an array of all rows; `one`: it becomes the only row, or empty |
//! | `initial_delay` | `from` | duration | `1s` | the time before the first poll |
//! | `delay` | `from` | duration | `500ms` | the time from the end of one poll to the next |
//! | `max_messages_per_poll` | `from` | integer |  | how many rows of a poll become exchanges; unset or `0` means all |
//! | `on_consume` | `from` | text |  | the statement that is run for a row when its exchange is done |
//! | `on_consume_failed` | `from` | text |  | the statement that is run for a row when its exchange failed |
//!
//! An option of `from` is an error in `to`, and the other way round.
//!
//! For example, in a table of a TOML file, where everything stands as it is:
//!
//! ```toml
//! to = { uri = "sql:", data_source = "sqlite:people.db", statement = "select * from person where id = :id" }
//! ```
//!
//! Or as a URI, `sql:select * from person where id = :id?data_source=sqlite:people.db&output_type=one`. There,
//! `?` is written `%3F`, and `%` as `%25` where two hexadecimal digits follow; in an option, also `&` as `%26` and
//! `+` as `%2B`. Since `'%bad%'` contains an escape that is hardly meant, others than these, `%20` and `%23` are
//! errors in quoted texts. A file of `SQLite` is made where it does not exist. Dots in the path of the file are
//! taken from the current directory.
//!
//! **Encryption.** With `PostgreSQL`, `sslmode` in the URL says what is asked for, as for its own tools:
//! `prefer`, which is the default, and `require` check no certificate; `verify-ca` and `verify-full` do, against
//! those of the system or the file in `sslrootcert`. For example
//! `data_source=postgres://user@host/database?sslmode=verify-full%26sslrootcert=/etc/ca.crt`.
//!
//! **Parameters** are `:name`, outside of texts, quoted names and comments; they are never put into the
//! text of the statement. A value comes from the field of that name when the body is a JSON object (also
//! as text; `:address.city` is a field of a field), else from the header of that name; `:body` is the
//! whole body. `:term` and `:lock` are those of the `master:` route, whatever fields and headers say. A
//! parameter that is not found is a failure; JSON `null` is a null. With `PostgreSQL` a value is read as
//! the type that the parameter has where it stands; where that is not clear, say so: `:since::timestamptz`.
//! In the bounds of a slice of an array, `a[1:n]`, a colon begins no parameter; at the first one it does,
//! `a[:index]`. A colon that begins none elsewhere is written `\:`.
//!
//! **Lists.** `in (:ids)` and `not in (:ids)` take a JSON list as its elements: with an empty one, `in` finds
//! no row, and `not in` finds all. A null in it is an error for `not in`, which would hold for no row. With
//! `PostgreSQL`, a list is also an array where one is expected, as in `any(:ids)`; with `SQLite`, it is the JSON of
//! `json_each(:ids)` and its like, whose values are compared as texts alone: `cast(value as text)`. `cast(:ids as text)` is
//! the JSON as text. Anywhere else, a list is an error.
//!
//! **Types.** `PostgreSQL` knows the type of a parameter from its place. `SQLite` converts between texts and numbers
//! for columns with a declared type and for casts, and for nothing else: `length(name) > '5'` holds for no row. So
//! with `SQLite` a parameter is compared with a column, or one of the two sides is a cast:
//! `length(name) > cast(:size as integer)`. Anywhere else a comparison is an error before anything runs. A value that
//! the column does not compare as what it is, such as `abc` with an integer, fails the exchange, and so does one in a cast
//! that is no such number.
//! The guide has the table, in `docs/src/sql.md`.
//!
//! **In `to`.** A statement that yields rows (also one with `returning`) replaces the body and sets the
//! header `sql.row_count`. Any other leaves the body as it is and sets `sql.update_count`: how many rows it
//! has changed.
//!
//! **In `from`.** Each poll is one transaction. It reads the rows, sends them through the route one after
//! the other, each as a JSON object, runs `on_consume` or `on_consume_failed` after each with its columns as
//! parameters, and commits at the end. Without such a statement a row is read again by the next poll, and so
//! is one whose exchange failed, if there is no `on_consume_failed`. Steps `sql:` of such an exchange with the
//! same data source and password take part in the transaction: what they write is there when the row is
//! done, is not there when it is not, and is undone when the exchange fails. So do those of routes that it
//! passes through `direct:`. What is sent to `seda:` is another exchange, which takes no part: it writes on its own
//! and, in `SQLite`, waits until the poll is over.
//!
//! `max_messages_per_poll` limits how many rows are read. Without it a poll reads all, as they were when it began, a
//! hundred at a time: with `PostgreSQL` from a cursor, with `SQLite` from a copy in a temporary table. In memory at once are
//! the rows of a statement that changes them (`update ... returning`), and those of a statement in `to`: limit them in the
//! statement. Where the server fails to read on, what was done is committed. A row of which a column cannot be read
//! makes no exchange: `on_consume_failed` is run with its other columns, an error is logged, and the rows behind
//! it are worked on. So it is with a row for which `on_consume` fails, after what its exchange wrote in the transaction
//! is undone, and with one for which `on_consume_failed` fails.
//!
//! A row that has failed and is still there is left alone for twice the `delay`, then for twice as long each time, up to a
//! minute; other rows are worked on meanwhile, also with `max_messages_per_poll`. It is known by all of its columns: one that was
//! changed is tried at once. What the statement itself leaves out (`limit 1`) nothing can bring back: mark such rows with
//! `on_consume_failed`.
//!
//! When a stop is asked for, what is done is committed, and the rest left. When the member does not lead any
//! more, or crashes, all rows of the poll are rolled back, and read again by the next leader: at least once,
//! for steps outside of the database. `max_messages_per_poll=1` makes that one row. To share the rows among
//! consumers that work at the same time, without `master:`, let the statement claim them:
//! `select ... order by id limit 10 for update skip locked` in `PostgreSQL`.
//!
//! A transaction of `SQLite` locks the whole database for all others that write, for as long as the
//! exchanges take; they wait five seconds and then fail. Keep polls short there.
//!
//! Statements share a pool of connections: one that begins or ends a transaction, or sets up its connection, is an
//! error. So is what a connection would keep beyond its statement with `PostgreSQL`: `set_config(...)` that does not
//! end in `true`, temporary tables without `on commit drop`, `prepare`, and locks such as `pg_advisory_lock`, in whose
//! place `pg_advisory_xact_lock` ends with the transaction. Foreign keys of `SQLite` are checked, which other programs
//! do only after `pragma foreign_keys = on`; `?foreign_keys` is no parameter of the URL. Statements are prepared:
//! `PgBouncer` has to run in its mode `session`, or keep prepared statements (`max_prepared_statements`); else they
//! fail.
//!
//! **Values** of columns become numbers, texts, booleans and JSON as far as JSON has them, and arrays of
//! `PostgreSQL` lists. Times become text in the form of ISO 8601, or `infinity`; `numeric` becomes text so that
//! nothing is lost, and so do `NaN` and `Infinity`; bytes become text like `\x00ff`; JSON keeps the digits of its
//! numbers. Other types of `PostgreSQL` and years beyond 9999 are errors that say so: cast the column to text in the
//! statement. Two columns of one name are an error.
//!
//! A number of JSON comes into a parameter with all its digits. `SQLite` has integers of 64 bits and floats: one that is
//! neither is an error, unless it is stored as a text, `cast(:amount as text)`, in a column of the type text.
//!
//! **Refusing older leaders.** A statement can compare the term, so that a leader that was held up
//! somewhere writes nothing any more once the next one has written:
//!
//! ```sql
//! update job set last_run = :cron.scheduled_time, term = :term where name = 'nightly' and term <= :term
//! ```

mod affinity;
mod consumer;
mod cursor;
mod database;
mod escapes;
mod failures;
mod lexer;
mod parameters;
mod position;
mod postgres;
mod postgres_parameters;
mod postgres_values;
mod producer;
mod rows;
mod sqlite;
mod statement;
mod waiting;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use router_core::component::{BuildContext, Component, Consumer, Endpoint, Processor};
use router_core::error::{ConfigError, ConfigErrors};
use router_core::options::{ComponentDescription, OptionKind, Options, PathKind, Side, option, path};
use router_core::spool::SpoolSettings;
use router_core::uri::EndpointUri;

use consumer::SqlConsumer;
use database::{DataSource, Databases};
use lexer::Dialect;
use parameters::{is_of_term, unknown_in_source};
use producer::SqlProducer;
use statement::{Kind, Statement};
use waiting::Waiting;

/// The component. Its routes share the connections to each database.
#[derive(Default)]
pub struct SqlComponent {
    databases: Databases,
}

impl fmt::Debug for SqlComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlComponent").finish_non_exhaustive()
    }
}

static DESCRIPTION: ComponentDescription = ComponentDescription {
    scheme: "sql",
    summary: "runs a statement for each exchange, or makes one exchange of each row",
    syntax: "sql:statement",
    path: path("statement", PathKind::Code),
    consumes: true,
    produces: true,
    options: &[
        option(
            "data_source",
            OptionKind::Url,
            None,
            "required: `sqlite:path`, `sqlite::memory:`, or `postgres://user@host:port/database`",
        ),
        option(
            "password",
            OptionKind::Secret,
            None,
            "the password of the user in the URL of the data source",
        ),
        option(
            "output_type",
            OptionKind::Choice(&["list", "one"]),
            Some("list"),
            "`list`: the body becomes an array of all rows; `one`: it becomes the only row, or empty",
        )
        .of(Side::To),
        option("initial_delay", OptionKind::Duration, Some("1s"), "the time before the first poll")
            .of(Side::From),
        option("delay", OptionKind::Duration, Some("500ms"), "the time from the end of one poll to the next")
            .of(Side::From),
        option(
            "max_messages_per_poll",
            OptionKind::Integer,
            None,
            "how many rows of a poll become exchanges; unset or `0` means all",
        )
        .of(Side::From),
        option(
            "on_consume",
            OptionKind::Text,
            None,
            "the statement that is run for a row when its exchange is done",
        )
        .of(Side::From),
        option(
            "on_consume_failed",
            OptionKind::Text,
            None,
            "the statement that is run for a row when its exchange failed",
        )
        .of(Side::From),
    ],
};

impl Component for SqlComponent {
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
        let settings = Arc::new(Settings::read(&options, uri, context, errors)?);
        Ok(Box::new(SqlEndpoint { databases: self.databases.clone(), settings }))
    }
}

/// The checked options.
struct Settings {
    statement: Statement,
    data_source: DataSource,
    one: bool,
    initial_delay: Duration,
    delay: Duration,
    max_messages_per_poll: usize,
    /// What bodies may be.
    bodies: SpoolSettings,
    on_consume: Option<Statement>,
    on_consume_failed: Option<Statement>,
}

impl Settings {
    fn read(
        options: &Options,
        uri: &EndpointUri,
        context: &BuildContext<'_>,
        mut errors: ConfigErrors,
    ) -> Result<Self, ConfigErrors> {
        let Some(data_source) = options.text("data_source") else {
            if options.are_right(&["data_source"]) {
                errors.push(uri.error_in_whole("a sql endpoint needs a database: `data_source=sqlite:path`"));
            }
            errors.extend(Statements::errors_in_any_dialect(options, uri));
            return Err(errors);
        };
        let data_source = match DataSource::parse(&data_source, options.secret("password")) {
            Ok(data_source) => data_source,
            Err(message) => {
                let may_have_password = data_source.contains('@') || data_source.contains("password");
                errors.push(match may_have_password {
                    true => uri.error_at_secret("data_source", message),
                    false => uri.error_at_option("data_source", message),
                });
                errors.extend(Statements::errors_in_any_dialect(options, uri));
                return Err(errors);
            }
        };
        if let Err(message) = data_source.check_place() {
            errors.push(uri.error_at_option("data_source", message));
        }
        let Statements { statement, on_consume, on_consume_failed } =
            Statements::read(options, uri, data_source.dialect(), &mut errors);
        let max_messages_per_poll = options.integer("max_messages_per_poll").unwrap_or(0);
        let changes =
            statement.as_ref().is_some_and(|statement| matches!(statement.kind, Kind::Change { .. }));
        if changes && max_messages_per_poll > 0 {
            errors.push(uri.error_at_option(
                "max_messages_per_poll",
                "rows above this number would be changed, and make no exchange: limit them in the statement",
            ));
        }
        let Some(statement) = statement else { return Err(errors) };
        if context.side == Side::From {
            errors.extend(source_errors(&statement, uri));
        }
        errors.into_result()?;
        Ok(Self {
            statement,
            data_source,
            one: options.text("output_type").as_deref() == Some("one"),
            initial_delay: options.duration("initial_delay"),
            delay: options.duration("delay"),
            max_messages_per_poll: match max_messages_per_poll {
                0 => usize::MAX,
                count => usize::try_from(count).unwrap_or(usize::MAX),
            },
            bodies: context.spool.settings().clone(),
            on_consume,
            on_consume_failed,
        })
    }
}

/// The statements of an endpoint; one that is wrong is none.
struct Statements {
    statement: Option<Statement>,
    on_consume: Option<Statement>,
    on_consume_failed: Option<Statement>,
}

impl Statements {
    fn read(options: &Options, uri: &EndpointUri, dialect: Dialect, errors: &mut ConfigErrors) -> Self {
        let statement = errors.collect(statement_of(uri, dialect));
        let mut after = |name| match Statement::parse(&options.text(name)?, dialect) {
            Ok(statement) => {
                escapes::in_option(uri, name, &statement).into_iter().for_each(|error| errors.push(error));
                Some(statement)
            }
            Err((range, message)) => {
                errors.push(uri.error_in_option(name, range, message));
                None
            }
        };
        let (on_consume, on_consume_failed) = (after("on_consume"), after("on_consume_failed"));
        Self { statement, on_consume, on_consume_failed }
    }

    /// What is wrong with them in whichever SQL they are.
    fn errors_in_any_dialect(options: &Options, uri: &EndpointUri) -> ConfigErrors {
        let [postgres, sqlite] = [Dialect::Postgres, Dialect::Sqlite].map(|dialect| {
            let mut errors = ConfigErrors::default();
            Self::read(options, uri, dialect, &mut errors);
            errors.iter().cloned().collect::<Vec<_>>()
        });
        let mut errors = ConfigErrors::default();
        let in_both = postgres
            .into_iter()
            .filter(|error| sqlite.iter().any(|other| other.to_string() == error.to_string()));
        in_both.for_each(|error| errors.push(error));
        errors
    }
}

/// What a statement cannot be that a consumer polls with.
fn source_errors(statement: &Statement, uri: &EndpointUri) -> ConfigErrors {
    let mut errors = ConfigErrors::default();
    if matches!(statement.kind, Kind::Change { yields: false }) {
        let error =
            uri.error_in_whole("the statement of `from` yields no rows, of which each would be an exchange");
        errors.push(error.help("`select`, or `insert`, `update` or `delete` with `returning`"));
    }
    for parameter in statement.parameters.iter().filter(|parameter| !is_of_term(&parameter.name)) {
        errors.push(uri.error_in_whole(unknown_in_source(&parameter.name)));
    }
    errors
}

fn statement_of(uri: &EndpointUri, dialect: Dialect) -> Result<Statement, ConfigErrors> {
    let all = |found: Vec<ConfigError>| {
        let mut errors = ConfigErrors::default();
        found.into_iter().for_each(|error| errors.push(error));
        errors.into_result()
    };
    // `where id = ?&data_source=...`: what was meant as a parameter has ended the statement.
    let ended_by_mark = uri.as_str().split_once('?').is_some_and(|(statement, rest)| {
        statement.ends_with(uri.path()) && (rest.is_empty() || rest.starts_with('&'))
    });
    if ended_by_mark && !uri.path().is_empty() {
        let end = uri.path().len();
        let error = uri.error_in_path(end..end + 1, "a `?` ends the statement, and no option follows it");
        return Err(error.help("a parameter is written `:name`, a `?` of SQL `%3F`").into());
    }
    // Before it is decoded: that may give no text, or another end to a quoted one.
    all(escapes::in_path_as_written(uri, dialect))?;
    let path = uri.required_path("a sql endpoint needs a statement: `sql:select * from x`")?;
    let statement = Statement::parse(&path, dialect)
        .map_err(|(range, message)| uri.error_in_decoded_path(range, message))?;
    all(escapes::in_path(uri, &statement))?;
    Ok(statement)
}

struct SqlEndpoint {
    databases: Databases,
    settings: Arc<Settings>,
}

impl Endpoint for SqlEndpoint {
    fn consumer(&self) -> Option<Box<dyn Consumer>> {
        let (databases, settings) = (self.databases.clone(), Arc::clone(&self.settings));
        let waiting = Mutex::new(Waiting::new(settings.delay));
        Some(Box::new(SqlConsumer { databases, settings, waiting, unchanged: Mutex::default() }))
    }

    fn processor(&self) -> Option<Arc<dyn Processor>> {
        let (databases, settings) = (self.databases.clone(), Arc::clone(&self.settings));
        Some(Arc::new(SqlProducer { databases, settings }))
    }
}
