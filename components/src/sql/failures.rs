//! Of which kind an error of a database is.

use router_core::failure::{ErrorKind, Failure};
use smol_str::ToSmolStr;
use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

/// A failure with this text, of the kind of `error`, with the code of the database.
pub(super) fn classified(error: &sqlx::Error, text: String) -> Failure {
    use sqlx::Error as Sqlx;
    let kind = match error {
        Sqlx::Database(error) => return of_database(&**error, text),
        Sqlx::Io(_)
        | Sqlx::Tls(_)
        | Sqlx::Protocol(_)
        | Sqlx::PoolTimedOut
        | Sqlx::PoolClosed
        | Sqlx::WorkerCrashed => ErrorKind::Unavailable,
        Sqlx::RowNotFound
        | Sqlx::TypeNotFound { .. }
        | Sqlx::ColumnIndexOutOfBounds { .. }
        | Sqlx::ColumnNotFound(_)
        | Sqlx::ColumnDecode { .. }
        | Sqlx::Encode(_)
        | Sqlx::Decode(_) => ErrorKind::Data,
        _ => ErrorKind::Other,
    };
    Failure::new(kind, text)
}

fn of_database(error: &dyn DatabaseError, text: String) -> Failure {
    let Some(code) = error.code() else { return Failure::new(ErrorKind::Other, text) };
    let kind = match error.try_downcast_ref::<PgDatabaseError>() {
        Some(_) => of_sqlstate(&code),
        None => code.parse().map_or(ErrorKind::Other, of_sqlite),
    };
    Failure::new(kind, text).code(code.to_smolstr())
}

/// By the class of the `SQLSTATE`, which are its first two characters.
fn of_sqlstate(code: &str) -> ErrorKind {
    match code {
        // A statement that was cancelled: by `statement_timeout`, most likely.
        "57014" | "25P03" | "25P04" => ErrorKind::Timeout,
        // Another transaction has the lock; the database is a standby now.
        "55P03" | "55006" | "25006" => ErrorKind::Unavailable,
        _ => match code.get(..2) {
            // A lost connection; a serialization failure or a deadlock; no resources; an operator; the system.
            Some("08" | "40" | "53" | "57" | "58") => ErrorKind::Unavailable,
            Some("21" | "22") => ErrorKind::Data,
            // Constraints; rights; statements that are wrong; errors that a function raises.
            Some("0A" | "23" | "27" | "28" | "2B" | "3D" | "3F" | "42" | "44" | "P0") => ErrorKind::Rejected,
            _ => ErrorKind::Other,
        },
    }
}

/// By the primary result code, which is the low byte.
fn of_sqlite(code: u32) -> ErrorKind {
    match code & 0xff {
        // BUSY, LOCKED, NOMEM, IOERR, FULL, CANTOPEN, PROTOCOL.
        5 | 6 | 7 | 10 | 13 | 14 | 15 => ErrorKind::Unavailable,
        // INTERRUPT.
        9 => ErrorKind::Timeout,
        // TOOBIG, MISMATCH, RANGE.
        18 | 20 | 25 => ErrorKind::Data,
        // ERROR, PERM, READONLY, CONSTRAINT, AUTH.
        1 | 3 | 8 | 19 | 23 => ErrorKind::Rejected,
        _ => ErrorKind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_databases_have_kinds() {
        for (code, kind) in [
            ("40001", ErrorKind::Unavailable),
            ("40P01", ErrorKind::Unavailable),
            ("57P01", ErrorKind::Unavailable),
            ("57014", ErrorKind::Timeout),
            ("23505", ErrorKind::Rejected),
            ("42P01", ErrorKind::Rejected),
            ("22P02", ErrorKind::Data),
            ("XX000", ErrorKind::Other),
        ] {
            assert_eq!(of_sqlstate(code), kind, "{code}");
        }
        // SQLITE_BUSY_SNAPSHOT, SQLITE_CONSTRAINT_UNIQUE, SQLITE_MISMATCH, SQLITE_CORRUPT.
        for (code, kind) in [
            (517, ErrorKind::Unavailable),
            (2067, ErrorKind::Rejected),
            (20, ErrorKind::Data),
            (11, ErrorKind::Other),
        ] {
            assert_eq!(of_sqlite(code), kind, "{code}");
        }
    }
}
