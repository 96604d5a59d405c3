//! The database: SQLite by default, PostgreSQL by URL, behind one set of SQL statements.
//!
//! sqlx's `Any` driver runs the same text on both; what differs (row-id tables, locks for id allocation) is named here and
//! nowhere else. SQLite gets one writing connection, because it has one writer anyway and waiting in our own queue is
//! fair where its busy handler is not. The migrations are ours, not sqlx's, because `platform.db` is shared with other
//! crates and sqlx keeps one table of versions a database.

use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{Any, AnyArguments, AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{AnyPool, AssertSqlSafe, Executor, Transaction};

use crate::error::{Doing, Error, Result};

/// In order; a migration is never edited once released.
const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/0001_tracking.sql"),
    include_str!("../migrations/0002_models.sql"),
    include_str!("../migrations/0003_lineage.sql"),
];

/// Serialises id allocation on PostgreSQL; any constant that nobody else in the database uses.
const ALLOCATION_LOCK: i64 = 0x51_1b_77_a1;

/// Which of the two databases this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
}

/// Pools and dialect; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    read: AnyPool,
    write: AnyPool,
    dialect: Dialect,
}

impl Db {
    /// Opens `sqlite:///path/platform.db` or `postgres://…`, creating the file and bringing the schema up to date.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let sqlite = url.starts_with("sqlite:");
        let dialect = if sqlite { Dialect::Sqlite } else { Dialect::Postgres };
        let url = if sqlite && !url.contains('?') { format!("{url}?mode=rwc") } else { url.to_owned() };
        let options = AnyConnectOptions::from_str(&url).doing("read the database URL")?;
        let write = pool(dialect, if sqlite { 1 } else { 8 })
            .connect_with(options.clone())
            .await
            .doing("open the database")?;
        let read = if sqlite {
            pool(dialect, 4).connect_with(options).await.doing("open the database")?
        } else {
            write.clone()
        };
        let db = Self { read, write, dialect };
        db.migrate().await?;
        Ok(db)
    }

    /// Connections for statements that change nothing.
    pub(crate) fn read(&self) -> &AnyPool {
        &self.read
    }

    /// A transaction that may write.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>> {
        // A deferred SQLite transaction that turns into a writer fails at once when another process wrote in between.
        let begin = if self.dialect == Dialect::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.write.begin_with(begin).await.doing("begin a transaction")
    }

    /// As [`Db::begin`], and alone in allocating ids until it ends.
    pub(crate) async fn begin_allocating(&self) -> Result<Transaction<'static, Any>> {
        let mut tx = self.begin().await?;
        if self.dialect == Dialect::Postgres {
            sqlx::query("SELECT CAST(pg_advisory_xact_lock($1) AS TEXT)")
                .bind(ALLOCATION_LOCK)
                .execute(&mut *tx)
                .await
                .doing("lock id allocation")?;
        }
        Ok(tx)
    }

    async fn migrate(&self) -> Result<()> {
        let mut tx = self.begin().await?;
        tx.execute("CREATE TABLE IF NOT EXISTS ml_schema (version BIGINT NOT NULL PRIMARY KEY)")
            .await
            .doing("create the table of schema versions")?;
        let (found,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(version), 0) FROM ml_schema")
            .fetch_one(&mut *tx)
            .await
            .doing("read the schema version")?;
        let known = MIGRATIONS.len() as i64;
        if found > known {
            return Err(Error::SchemaTooNew { found, known });
        }
        let without_rowid = if self.dialect == Dialect::Sqlite { " WITHOUT ROWID" } else { "" };
        for (index, text) in MIGRATIONS.iter().enumerate().skip(found as usize) {
            let text = strip_comments(text).replace("{without_rowid}", without_rowid);
            for statement in text.split(';').map(str::trim).filter(|s| !s.is_empty()) {
                sqlx::query(AssertSqlSafe(statement.to_owned()))
                    .execute(&mut *tx)
                    .await
                    .doing("migrate the schema")?;
            }
            sqlx::query("INSERT INTO ml_schema (version) VALUES ($1)")
                .bind(index as i64 + 1)
                .execute(&mut *tx)
                .await
                .doing("record the schema version")?;
        }
        tx.commit().await.doing("commit the migration")
    }
}

fn strip_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n")
}

fn pool(dialect: Dialect, connections: u32) -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(30)).after_connect(
        move |connection, _| {
            Box::pin(async move {
                if dialect == Dialect::Sqlite {
                    for pragma in [
                        "PRAGMA busy_timeout = 30000",
                        "PRAGMA journal_mode = WAL",
                        "PRAGMA synchronous = FULL",
                        "PRAGMA foreign_keys = ON",
                        "PRAGMA case_sensitive_like = ON",
                    ] {
                        connection.execute(pragma).await?;
                    }
                }
                Ok(())
            })
        },
    )
}

/// A value for a placeholder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bind {
    Text(String),
    Int(i64),
    IntOpt(Option<i64>),
    Real(f64),
}

impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Bind {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Bind {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<Option<i64>> for Bind {
    fn from(number: Option<i64>) -> Self {
        Self::IntOpt(number)
    }
}

impl From<f64> for Bind {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

/// A statement that grows: the text holds only our own words and `$n`, every value is bound.
#[derive(Debug, Default)]
pub(crate) struct Sql {
    text: String,
    binds: Vec<Bind>,
}

impl Sql {
    /// Starts with `text`.
    pub(crate) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), binds: Vec::new() }
    }

    /// Appends text of ours.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a placeholder for `value`.
    pub(crate) fn bind(&mut self, value: impl Into<Bind>) -> &mut Self {
        self.binds.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.binds.len().to_string());
        self
    }

    /// Appends `(v1, v2, …)`; an empty list matches nothing.
    pub(crate) fn bind_list<B: Into<Bind>>(&mut self, values: impl IntoIterator<Item = B>) -> &mut Self {
        self.push("(");
        let mut first = true;
        for value in values {
            if !first {
                self.push(", ");
            }
            first = false;
            self.bind(value);
        }
        if first {
            self.push("NULL");
        }
        self.push(")")
    }

    /// Ends a chain of calls.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// `text` with each `?` bound to the next of `values`; the text has no `?` of its own.
    pub(crate) fn of(text: &'static str, values: Vec<Bind>) -> Self {
        debug_assert_eq!(text.matches('?').count(), values.len(), "a value for each ? of: {text}");
        let mut sql = Self::default();
        let mut values = values.into_iter();
        for (at, part) in text.split('?').enumerate() {
            if at > 0 {
                sql.bind(values.next().unwrap_or(Bind::IntOpt(None)));
            }
            sql.push(part);
        }
        sql
    }

    /// The text so far.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn query(self) -> Query<'static, Any, AnyArguments> {
        // The text is ours: `push` is only given literals and column names from closed lists.
        let mut query = sqlx::query(AssertSqlSafe(self.text));
        for bind in self.binds {
            query = match bind {
                Bind::Text(text) => query.bind(text),
                Bind::Int(number) => query.bind(number),
                Bind::IntOpt(number) => query.bind(number),
                Bind::Real(number) => query.bind(number),
            };
        }
        query
    }

    /// All rows.
    pub(crate) async fn rows<'c, E>(self, on: E, doing: &'static str) -> Result<Vec<AnyRow>>
    where
        E: Executor<'c, Database = Any>,
    {
        self.query().fetch_all(on).await.doing(doing)
    }

    /// Runs it and tells how many rows changed.
    pub(crate) async fn run<'c, E>(self, on: E, doing: &'static str) -> Result<u64>
    where
        E: Executor<'c, Database = Any>,
    {
        Ok(self.query().execute(on).await.doing(doing)?.rows_affected())
    }
}

/// A statement with its values: `sql!("SELECT a FROM t WHERE b = ?", b)`.
macro_rules! sql {
    ($text:expr $(, $value:expr)* $(,)?) => {
        $crate::db::Sql::of($text, vec![$($crate::db::Bind::from($value)),*])
    };
}
pub(crate) use sql;
