//! [`Row`]: what a statement yields, as JSON as far as it can be read.

use std::collections::HashSet;
use std::fmt::Write as _;

use futures_util::{Stream, TryStreamExt};
use router_core::error::BoxError;
use router_core::spool::SpoolSettings;
use router_core::value::{Json, Object};

/// What is read of rows at most.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// How many of them that can be read.
    pub(super) rows: usize,
    /// How many bytes one has. A larger one cannot be read.
    pub(super) row_bytes: u64,
    /// How many bytes all of them have.
    pub(super) bytes: u64,
    /// Whether JSON in which an object has a key twice cannot be read.
    pub(super) unique_keys: bool,
}

impl Limit {
    /// Each row becomes a body.
    pub(super) fn of_bodies(rows: usize, bodies: &SpoolSettings) -> Self {
        let SpoolSettings { memory_limit, unique_keys, .. } = *bodies;
        Self { rows, row_bytes: memory_limit, bytes: u64::MAX, unique_keys }
    }

    /// All of them become one body.
    pub(super) fn of_one_body(rows: usize, bodies: &SpoolSettings) -> Self {
        let SpoolSettings { memory_limit, unique_keys, .. } = *bodies;
        Self { rows, row_bytes: u64::MAX, bytes: memory_limit, unique_keys }
    }
}

/// A row. One that cannot be read is an error of that row alone.
#[derive(Debug)]
pub(super) struct Row {
    /// The columns that could be read.
    pub(super) columns: Object,
    /// What is wrong with the first of the others.
    pub(super) unreadable: Option<String>,
}

impl Row {
    /// A row of these columns.
    pub(super) fn new<'a>(columns: impl Iterator<Item = (&'a str, Result<Json, BoxError>)>) -> Self {
        let mut row = Self { columns: Object::default(), unreadable: None };
        for (name, value) in columns {
            match value {
                Ok(value) => {
                    row.columns.insert(name, value);
                }
                Err(error) => {
                    row.unreadable.get_or_insert_with(|| format!("column `{name}` cannot be read: {error}"));
                }
            }
        }
        row
    }

    /// The row, and how many bytes it has. One with more than `most` is not read: it keeps what finds it.
    pub(super) fn within(self, most: u64) -> (Self, u64) {
        let bytes = self.columns.iter().map(|(name, value)| length(name, value)).sum();
        if bytes <= most {
            return (self, bytes);
        }
        let mut left = most;
        let fits = |(name, value): &(&str, &Json)| match left.checked_sub(length(name, value)) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let kept = self.columns.iter().filter(fits).map(|(name, value)| (name, value.clone())).collect();
        let why = || format!("it has more than {most} bytes (`body.memory_limit`)");
        (Self { columns: kept, unreadable: self.unreadable.or_else(|| Some(why())) }, most - left)
    }

    /// The row, if all of it could be read.
    pub(super) fn into_json(self) -> Result<Json, BoxError> {
        self.unreadable.map_or(Ok(Json::Object(self.columns)), |error| Err(error.into()))
    }
}

/// How many bytes a column has in a body, but for what escapes take.
fn length(name: &str, value: &Json) -> u64 {
    /// What is around a name and a value.
    const AROUND: u64 = 6;
    let bytes = match value {
        Json::Null | Json::Boolean(_) => 5,
        Json::Number(number) => number.as_str().len() as u64,
        Json::Text(text) => text.len() as u64,
        Json::List(list) => list.iter().map(|value| length("", value)).sum(),
        Json::Object(object) => object.iter().map(|(name, value)| length(name, value)).sum(),
    };
    name.len() as u64 + bytes + AROUND
}

/// Reads rows until there are as many as the limit says that can be read. The others take no place from them.
pub(super) async fn collect<R, S>(
    mut stream: S,
    limit: Limit,
    read: impl Fn(&R) -> Row,
) -> Result<Vec<Row>, BoxError>
where
    S: Stream<Item = Result<R, sqlx::Error>> + Unpin,
{
    let (mut rows, mut readable, mut bytes) = (Vec::new(), 0, 0);
    while readable < limit.rows
        && let Some(row) = stream.try_next().await?
    {
        let (row, length) = read(&row).within(limit.row_bytes);
        readable += usize::from(row.unreadable.is_none());
        bytes += length;
        if bytes > limit.bytes {
            let most = limit.bytes;
            return Err(format!("the rows have more than {most} bytes (`body.memory_limit`)").into());
        }
        rows.push(row);
    }
    Ok(rows)
}

/// One of two columns of the same name would be lost.
pub(super) fn check_names<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), BoxError> {
    let mut seen = HashSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(
                format!("two columns are called `{name}`: give one of them another name with `as`").into()
            );
        }
    }
    Ok(())
}

/// Bytes as text, in the form of `PostgreSQL`.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("\\x"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
