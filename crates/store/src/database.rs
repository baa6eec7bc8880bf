//! The database handle: a pool whose every use has a deadline.

use std::str::FromStr;
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection, Postgres, Transaction};
use thiserror::Error;
use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::sessions::Sessions;

/// The wait for a connection after which the database counts as unavailable.
pub(crate) const ACQUIRE_DEADLINE: Duration = Duration::from_secs(5);

/// The time after which a use of the database counts as hanging: the server's machine may be gone, and TCP alone would wait
/// for a quarter of an hour or longer. Reading transactions set the same `statement_timeout`, so that the server stops
/// working for a client that was already answered.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The time within which a connection that returns to the pool must answer, or it is closed.
pub(crate) const PING_DEADLINE: Duration = Duration::from_secs(2);

/// No statement takes this long unless it is stuck, and a stuck one must not hold locks.
const STATEMENT_TIMEOUT: &str = "30s";

/// A URL that is not one of PostgreSQL. The message does not repeat it, since it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("DATABASE_URL: not a PostgreSQL URL")]
pub struct InvalidUrl;

/// The pooled connections of one purpose. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Database {
    pool: PgPool,
    sessions: Sessions,
}

impl Database {
    /// Makes a pool that connects on first use, so that a process starts and waits while PostgreSQL is away. The role
    /// shows in `pg_stat_activity`.
    pub fn new(
        url: &SecretString,
        role: &str,
        max_connections: u32,
    ) -> std::result::Result<Self, InvalidUrl> {
        Ok(Self::connecting(options(url, role)?, max_connections, Sessions::default()))
    }

    /// Makes a pool for another purpose of the same process. The pools share what is found out about their sessions.
    pub fn beside(&self, role: &str, max_connections: u32) -> Self {
        let options = self.options().application_name(&application_name(role));
        Self::connecting(options, max_connections, self.sessions.clone())
    }

    /// Makes a pool for claims alone: their commits do not wait for the disk. A claim that a crash of PostgreSQL loses is
    /// only made again, and its result is refused.
    pub(crate) fn for_claims(&self, max_connections: u32) -> Self {
        let options = self.options().application_name(&application_name("claim"));
        let options = options.options([("synchronous_commit", "off")]);
        Self::connecting(options, max_connections, self.sessions.clone())
    }

    fn connecting(options: PgConnectOptions, max_connections: u32, sessions: Sessions) -> Self {
        Self { pool: connect_lazily(options, max_connections, sessions.clone()), sessions }
    }

    fn options(&self) -> PgConnectOptions {
        PgConnectOptions::clone(&self.pool.connect_options())
    }

    /// Checks that the database answers and accepts writes. A session that accepts none is replaced by a new one, and only that
    /// one counts.
    pub async fn ping(&self) -> Result<()> {
        match self.try_ping().await {
            Err(Error::ReadOnly) => self.try_ping().await,
            answered => answered,
        }
    }

    async fn try_ping(&self) -> Result<()> {
        self.bounded(async {
            let is_read_only: bool = sqlx::query_scalar(
                "/* database::ping */ SELECT current_setting('transaction_read_only')::boolean",
            )
            .fetch_one(&self.pool)
            .await?;
            if is_read_only { Err(Error::ReadOnly) } else { Ok(()) }
        })
        .await?;
        self.sessions.confirm();
        Ok(())
    }

    /// Returns the host and the port of the server.
    pub fn server(&self) -> (String, u16) {
        let options = self.pool.connect_options();
        (options.get_host().to_owned(), options.get_port())
    }

    /// Returns whether the last session that was looked at accepts no writes.
    pub fn is_read_only(&self) -> bool {
        self.sessions.are_read_only()
    }

    /// Returns how many uses of the database, by this process, ended without an answer. What they were to write may be written all the same.
    pub fn unanswered(&self) -> u64 {
        self.sessions.unanswered()
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Bounds a use of the database. When its connection was lost or is read-only, closes the idle ones too.
    pub(crate) async fn bounded<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match timeout(DEADLINE, work).await {
            Ok(Err(error)) => {
                if matches!(error, Error::ReadOnly) {
                    self.sessions.distrust();
                }
                if error.is_connection_lost() {
                    self.forget_idle();
                    self.sessions.note_unanswered();
                }
                Err(error)
            }
            Ok(done) => done,
            Err(_elapsed) => {
                self.forget_idle();
                self.sessions.note_unanswered();
                Err(Error::Deadline)
            }
        }
    }

    /// Begins a transaction with this statement. Waits a bounded time for a connection.
    pub(crate) async fn begin(&self, statement: &'static str) -> Result<Transaction<'static, Postgres>> {
        match timeout(ACQUIRE_DEADLINE, self.pool.begin_with(statement)).await {
            Ok(begun) => Ok(begun?),
            Err(_elapsed) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Closes the idle connections of the pool. The event that broke one (a restart, a failover, a network that forgot
    /// them) broke the others too, and each would fail its next user.
    pub(crate) fn forget_idle(&self) {
        while let Some(idle) = self.pool.try_acquire() {
            drop(idle.detach());
        }
    }
}

fn options(url: &SecretString, role: &str) -> std::result::Result<PgConnectOptions, InvalidUrl> {
    let options = PgConnectOptions::from_str(url.expose_secret())
        .map_err(|_| InvalidUrl)?
        .application_name(&application_name(role))
        // Tables are planned while their partitions are nearly empty, and a sequential scan chosen then is ruinous an
        // hour later; every statement has an index. A generic plan prunes partitions when it runs, and saves
        // planning over all of them each time.
        .options([
            ("enable_seqscan", "off"),
            ("plan_cache_mode", "force_generic_plan"),
            // Compiling a statement costs more than running it.
            ("jit", "off"),
            ("statement_timeout", STATEMENT_TIMEOUT),
        ]);
    Ok(options)
}

fn application_name(role: &str) -> String {
    format!("grapnel-{role}")
}

fn connect_lazily(options: PgConnectOptions, max_connections: u32, sessions: Sessions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_DEADLINE)
        .max_lifetime(Duration::from_secs(1800))
        // A ping before each use costs a round trip; a dead connection fails its user, which tries again.
        .test_before_acquire(false)
        .before_acquire(move |_, metadata| {
            let is_trusted = Instant::now()
                .checked_sub(metadata.age)
                .is_some_and(|began| sessions.are_trusted_since(began));
            Box::pin(std::future::ready(Ok(is_trusted)))
        })
        // The pool itself pings a connection that returns, but without a deadline, and a connection that hangs would take
        // its place in the pool with it.
        .after_release(|connection, _| {
            Box::pin(async {
                timeout(PING_DEADLINE, connection.ping()).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
                Ok(true)
            })
        })
        .connect_lazy_with(options)
}
