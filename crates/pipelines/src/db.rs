//! The tables of this crate in the platform's database: SQLite by default, PostgreSQL by URL, one set of statements.
//!
//! The file is shared with the registry, so the migrations are ours (table `kfp_schema`), and every transaction that writes
//! on SQLite takes its lock at the start: it then waits its turn instead of failing in the middle.

use std::str::FromStr;
use std::time::Duration;

use sqlx::any::{Any, AnyArguments, AnyConnectOptions, AnyPoolOptions, AnyRow};
use sqlx::query::Query;
use sqlx::{AnyPool, AssertSqlSafe, Executor, Transaction};

use crate::error::{Doing, Error, Result};

/// In order; a migration is never edited once released.
const MIGRATIONS: &[&str] = &[include_str!("../migrations/0001_pipelines.sql")];

/// Connection pools; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Db {
    read: AnyPool,
    write: AnyPool,
    sqlite: bool,
}

/// A value for a placeholder.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bind {
    Text(String),
    Int(i64),
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

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl Db {
    /// Opens the database and brings the tables up to date.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        sqlx::any::install_default_drivers();
        let sqlite = url.starts_with("sqlite:");
        let url = if sqlite && !url.contains('?') { format!("{url}?mode=rwc") } else { url.to_owned() };
        let options = AnyConnectOptions::from_str(&url).doing("read the database URL")?;
        let connect = async |connections| {
            pool(sqlite, connections).connect_with(options.clone()).await.doing("open the database")
        };
        let write = connect(if sqlite { 1 } else { 8 }).await?;
        let read = if sqlite { connect(4).await? } else { write.clone() };
        let db = Self { read, write, sqlite };
        db.migrate().await?;
        Ok(db)
    }

    /// A transaction that may write.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Any>> {
        let begin = if self.sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" };
        self.write.begin_with(begin).await.doing("begin a transaction")
    }

    /// Rows of a statement that changes nothing.
    pub(crate) async fn rows(&self, sql: String, binds: &[Bind], doing: &'static str) -> Result<Vec<AnyRow>> {
        bound(&sql, binds).fetch_all(&self.read).await.doing(doing)
    }

    /// At most one row.
    pub(crate) async fn row(
        &self,
        sql: String,
        binds: &[Bind],
        doing: &'static str,
    ) -> Result<Option<AnyRow>> {
        bound(&sql, binds).fetch_optional(&self.read).await.doing(doing)
    }

    /// One statement that writes; the number of rows it touched.
    pub(crate) async fn write(&self, sql: &str, binds: &[Bind], doing: &'static str) -> Result<u64> {
        let mut tx = self.begin().await?;
        let touched = execute(&mut tx, sql, binds, doing).await?;
        tx.commit().await.doing(doing)?;
        Ok(touched)
    }

    async fn migrate(&self) -> Result<()> {
        let mut tx = self.begin().await?;
        let table = "CREATE TABLE IF NOT EXISTS kfp_schema (version BIGINT NOT NULL PRIMARY KEY)";
        tx.execute(table).await.doing("create the table of schema versions")?;
        let (found,): (i64,) = sqlx::query_as("SELECT COALESCE(MAX(version), 0) FROM kfp_schema")
            .fetch_one(&mut *tx)
            .await
            .doing("read the schema version")?;
        let known = MIGRATIONS.len() as i64;
        if found > known {
            return Err(Error::SchemaTooNew { found, known });
        }
        for (index, text) in MIGRATIONS.iter().enumerate().skip(found as usize) {
            let plain: String =
                text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n");
            for statement in plain.split(';').map(str::trim).filter(|s| !s.is_empty()) {
                execute(&mut tx, statement, &[], "migrate the schema").await?;
            }
            let record = "INSERT INTO kfp_schema (version) VALUES ($1)";
            execute(&mut tx, record, &[Bind::Int(index as i64 + 1)], "record the schema version").await?;
        }
        tx.commit().await.doing("commit the migration")
    }
}

/// A statement inside a transaction.
pub(crate) async fn execute(
    tx: &mut Transaction<'static, Any>,
    sql: &str,
    binds: &[Bind],
    doing: &'static str,
) -> Result<u64> {
    Ok(bound(sql, binds).execute(&mut **tx).await.doing(doing)?.rows_affected())
}

/// A row inside a transaction.
pub(crate) async fn row_in(
    tx: &mut Transaction<'static, Any>,
    sql: &str,
    binds: &[Bind],
    doing: &'static str,
) -> Result<Option<AnyRow>> {
    bound(sql, binds).fetch_optional(&mut **tx).await.doing(doing)
}

/// Safe: every statement is put together from constants of this crate; values are bound.
fn bound<'q>(sql: &str, binds: &[Bind]) -> Query<'q, Any, AnyArguments> {
    let mut query = sqlx::query(AssertSqlSafe(sql.to_owned()));
    for bind in binds {
        query = match bind {
            Bind::Text(text) => query.bind(text.clone()),
            Bind::Int(number) => query.bind(*number),
        };
    }
    query
}

/// Whether an error says that a unique constraint was hit.
pub(crate) fn is_taken(error: &Error) -> bool {
    matches!(error, Error::Database { source: sqlx::Error::Database(inner), .. } if inner.is_unique_violation())
}

fn pool(sqlite: bool, connections: u32) -> AnyPoolOptions {
    let options = AnyPoolOptions::new().max_connections(connections).acquire_timeout(Duration::from_secs(30));
    options.after_connect(move |connection, _| {
        Box::pin(async move {
            if sqlite {
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
    })
}
