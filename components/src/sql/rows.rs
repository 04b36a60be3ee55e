//! [`Row`]: what a statement yields, as JSON as far as it can be read.

use std::collections::HashSet;
use std::fmt::Write as _;

use futures_util::{Stream, TryStreamExt};
use router_core::error::BoxError;
use router_core::value::{Json, Object};

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

    /// The row, if all of it could be read.
    pub(super) fn into_json(self) -> Result<Json, BoxError> {
        self.unreadable.map_or(Ok(Json::Object(self.columns)), |error| Err(error.into()))
    }
}

/// Adds rows until `limit` of them can be read. The others take no place from them.
pub(super) async fn collect<R, S>(
    mut stream: S,
    rows: &mut Vec<Row>,
    limit: usize,
    read: impl Fn(&R) -> Row,
) -> Result<(), sqlx::Error>
where
    S: Stream<Item = Result<R, sqlx::Error>> + Unpin,
{
    let mut readable = rows.iter().filter(|row| row.unreadable.is_none()).count();
    while readable < limit
        && let Some(row) = stream.try_next().await?
    {
        let row = read(&row);
        readable += usize::from(row.unreadable.is_none());
        rows.push(row);
    }
    Ok(())
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
