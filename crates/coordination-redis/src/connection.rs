//! The one multiplexed connection to a Redis, and its replacement.
//!
//! A server that hangs keeps its sockets open: commands time out, and nothing tells the library to connect anew. So a
//! heartbeat watches the connection and replaces it when no answer comes.

use crate::backoff::Backoff;
use crate::scripts::Scripts;
use crate::server::{Server, Target};
use coordination::CoordinationError;
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ErrorKind, FromRedisValue, RedisError, RedisResult, Role};
use redis::{ScriptInvocation, ServerErrorKind};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use wire::clock::Entropy;

/// What a link needs to know.
#[derive(Clone)]
pub struct LinkSettings {
    /// How long one command may take, the wait for a connection included.
    pub answer_within: Duration,
    /// How long a connection may take to be made. Certificates take longer than any command.
    pub connect_within: Duration,
    /// How often a quiet connection is tried.
    pub heartbeat: Duration,
    /// Jitter.
    pub entropy: Arc<dyn Entropy>,
    /// Counts each command that is sent.
    pub round_trips: Arc<AtomicU64>,
}

/// Why a connection is looked at before its next heartbeat.
enum Doubt {
    /// A command got no answer.
    Check,
    /// The server can't serve us though it answers.
    Replace,
}

/// The connection, or why there is none.
type Current = Result<MultiplexedConnection, String>;

/// A connection that comes back by itself. Its task ends with the last reference to the link.
pub struct Link {
    current: watch::Receiver<Current>,
    doubts: mpsc::Sender<Doubt>,
    settings: LinkSettings,
}

impl Link {
    /// Begins to connect in the background. The scripts are loaded into each server that is connected to.
    pub fn open(server: Server, scripts: Arc<Scripts>, settings: LinkSettings) -> Arc<Self> {
        let (connected, current) = watch::channel(Err("it is not connected yet".to_owned()));
        let (doubts, doubted) = mpsc::channel(1);
        let keeper = Keeper { server, scripts, settings: settings.clone(), connected, doubted };
        tokio::spawn(keeper.run());
        Arc::new(Self { current, doubts, settings })
    }

    /// Sends a command. Errors: `Unavailable` within the time-out.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> coordination::Result<T> {
        let work = async { command.query_async(&mut self.connection().await?).await };
        self.bounded(work).await
    }

    /// Runs a script; loads it first where the server does not know it. Errors: `Unavailable` within the time-out.
    pub async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> coordination::Result<T> {
        let work = async { script.invoke_async(&mut self.connection().await?).await };
        self.bounded(work).await
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let mut current = self.current.clone();
        match current.wait_for(Result::is_ok).await.as_deref() {
            Ok(Ok(connection)) => Ok(connection.clone()),
            _ => Err(RedisError::from((ErrorKind::Io, "the connection is closed"))),
        }
    }

    async fn bounded<T>(&self, work: impl Future<Output = RedisResult<T>>) -> coordination::Result<T> {
        self.settings.round_trips.fetch_add(1, Ordering::Relaxed);
        let limit = self.settings.answer_within;
        let (doubt, reason) = match tokio::time::timeout(limit, work).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => (doubt(&error), error.to_string()),
            Err(_) => {
                let silence = format!("Redis did not answer within {} ms", limit.as_millis());
                let why = self.current.borrow().as_ref().err().map(|why| format!("{silence}: {why}"));
                (Some(Doubt::Check), why.unwrap_or(silence))
            }
        };
        if let Some(doubt) = doubt {
            // A full channel means that somebody else's doubt is about to be looked into.
            let _ = self.doubts.try_send(doubt);
        }
        Err(CoordinationError::Unavailable(reason))
    }
}

/// What an error says about the connection, if anything. A replica that was a master refuses writes, though it answers.
fn doubt(error: &RedisError) -> Option<Doubt> {
    match error.kind() {
        ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown) => Some(Doubt::Replace),
        ErrorKind::Server(_) => None,
        _ => Some(Doubt::Check),
    }
}

/// Connects, watches, and connects again.
struct Keeper {
    server: Server,
    scripts: Arc<Scripts>,
    settings: LinkSettings,
    connected: watch::Sender<Current>,
    doubted: mpsc::Receiver<Doubt>,
}

impl Keeper {
    async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.entropy.clone());
        let mut was_told = false;
        while !self.connected.is_closed() {
            let mut target = self.server.target();
            match self.connect(&mut target).await {
                Ok(connection) => {
                    if std::mem::take(&mut was_told) {
                        tracing::info!("Redis is back");
                    }
                    backoff.reset();
                    self.tell(Ok(connection.clone()));
                    self.watch(connection, target).await;
                    self.tell(Err("the connection was lost".to_owned()));
                }
                Err(error) => {
                    if !std::mem::replace(&mut was_told, true) {
                        tracing::warn!(%error, "Redis can't be reached; trying on");
                    }
                    self.tell(Err(error.to_string()));
                }
            }
            tokio::select! {
                () = backoff.wait() => {}
                () = self.connected.closed() => {}
            }
        }
    }

    fn tell(&self, current: Current) {
        self.connected.send_modify(|before| *before = current);
    }

    async fn connect(&self, target: &mut Target) -> RedisResult<MultiplexedConnection> {
        let limit = self.settings.connect_within;
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(Some(limit));
        let (client, is_behind_sentinels) = (target.client.clone(), target.is_behind_sentinels());
        let connect = async {
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            // Right after a failover a server may not know yet that it is the master, or that it is none any more.
            if is_behind_sentinels
                && !matches!(redis::cmd("ROLE").query_async(&mut connection).await?, Role::Primary { .. })
            {
                return Err(RedisError::from((ErrorKind::Io, "the server is no master")));
            }
            let scripts = self.scripts.all().into_iter();
            let load = scripts.map(|script| {
                let mut connection = connection.clone();
                async move { script.load_async(&mut connection).await }
            });
            try_join_all(load).await?;
            Ok(connection)
        };
        tokio::select! {
            connected = tokio::time::timeout(limit * 2, connect) => match connected {
                Ok(connected) => connected,
                Err(_) => Err(RedisError::from((ErrorKind::Io, "no answer while connecting"))),
            },
            () = target.moved() => Err(RedisError::from((ErrorKind::Io, "there is another master"))),
        }
    }

    /// Returns when the connection is to be replaced, or when nobody needs it any more.
    async fn watch(&mut self, mut connection: MultiplexedConnection, mut target: Target) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.settings.heartbeat) => {}
                doubt = self.doubted.recv() => if !matches!(doubt, Some(Doubt::Check)) { return },
                () = target.moved() => return,
            }
            let ping = redis::cmd("PING");
            let answer = tokio::time::timeout(self.settings.answer_within, ping.exec_async(&mut connection)).await;
            if !matches!(answer, Ok(Ok(()))) {
                return;
            }
        }
    }
}
