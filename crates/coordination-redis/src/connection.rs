//! The one multiplexed connection to a Redis, and its replacement.
//!
//! A server that hangs keeps its sockets open: commands time out, and nothing tells the library to connect anew. So a
//! heartbeat watches the connection and replaces it when no answer comes.

use crate::backoff::Backoff;
use crate::scripts::Scripts;
use coordination::{CoordinationError, Result};
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisError};
use redis::{RedisResult, ScriptInvocation, ServerErrorKind};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use wire::clock::Entropy;

/// Opens a client whose sockets send at once and notice a peer that is gone.
///
/// Errors: the URL is none. The error does not repeat it, for it may hold a password.
pub fn client(url: &str) -> RedisResult<Client> {
    let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(2));
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive.with_retries(3))
        .set_user_timeout(Duration::from_secs(10));
    Client::open(url.into_connection_info()?.set_tcp_settings(tcp))
}

/// What a link needs to know.
#[derive(Clone)]
pub struct LinkSettings {
    /// How long one command may take, the wait for a connection included.
    pub answer_within: Duration,
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

/// A connection that comes back by itself. Its task ends with the last reference to the link.
pub struct Link {
    current: watch::Receiver<Option<MultiplexedConnection>>,
    doubts: mpsc::Sender<Doubt>,
    settings: LinkSettings,
}

impl Link {
    /// Begins to connect in the background. The scripts are loaded into each server that is connected to.
    pub fn open(client: Client, scripts: Arc<Scripts>, settings: LinkSettings) -> Arc<Self> {
        let (connected, current) = watch::channel(None);
        let (doubts, doubted) = mpsc::channel(1);
        let keeper = Keeper { client, scripts, settings: settings.clone(), connected, doubted };
        tokio::spawn(keeper.run());
        Arc::new(Self { current, doubts, settings })
    }

    /// Sends a command. Errors: `Unavailable` within the time-out.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        let work = async { command.query_async(&mut self.connection().await?).await };
        self.bounded(work).await
    }

    /// Runs a script; loads it first where the server does not know it. Errors: `Unavailable` within the time-out.
    pub async fn invoke<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Result<T> {
        let work = async { script.invoke_async(&mut self.connection().await?).await };
        self.bounded(work).await
    }

    async fn connection(&self) -> RedisResult<MultiplexedConnection> {
        let gone = || RedisError::from((ErrorKind::Io, "the connection is closed"));
        let mut current = self.current.clone();
        let connection = current.wait_for(Option::is_some).await.map_err(|_| gone())?.clone();
        connection.ok_or_else(gone)
    }

    async fn bounded<T>(&self, work: impl Future<Output = RedisResult<T>>) -> Result<T> {
        self.settings.round_trips.fetch_add(1, Ordering::Relaxed);
        let limit = self.settings.answer_within;
        let (doubt, reason) = match tokio::time::timeout(limit, work).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => (doubt(&error), error.to_string()),
            Err(_) => (Some(Doubt::Check), format!("Redis did not answer within {} ms", limit.as_millis())),
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
    client: Client,
    scripts: Arc<Scripts>,
    settings: LinkSettings,
    connected: watch::Sender<Option<MultiplexedConnection>>,
    doubted: mpsc::Receiver<Doubt>,
}

impl Keeper {
    async fn run(mut self) {
        let mut backoff = Backoff::new(self.settings.entropy.clone());
        let mut was_told = false;
        while !self.connected.is_closed() {
            match self.connect().await {
                Ok(connection) => {
                    if std::mem::take(&mut was_told) {
                        tracing::info!("Redis is back");
                    }
                    backoff.reset();
                    self.connected.send_replace(Some(connection.clone()));
                    self.watch(connection).await;
                    self.connected.send_replace(None);
                }
                Err(error) => {
                    if !std::mem::replace(&mut was_told, true) {
                        tracing::warn!(%error, "Redis can't be reached; trying on");
                    }
                }
            }
            tokio::select! {
                () = backoff.wait() => {}
                () = self.connected.closed() => {}
            }
        }
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let limit = self.settings.answer_within;
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(Some(limit));
        let connect = async {
            let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            let scripts = self.scripts.all().into_iter();
            let load = scripts.map(|script| {
                let mut connection = connection.clone();
                async move { script.load_async(&mut connection).await }
            });
            try_join_all(load).await?;
            Ok(connection)
        };
        match tokio::time::timeout(limit * 2, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(RedisError::from((ErrorKind::Io, "no answer while connecting"))),
        }
    }

    /// Returns when the connection is to be replaced, or when nobody needs it any more.
    async fn watch(&mut self, mut connection: MultiplexedConnection) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.settings.heartbeat) => {}
                doubt = self.doubted.recv() => if !matches!(doubt, Some(Doubt::Check)) { return },
            }
            let ping = redis::cmd("PING");
            let answer = tokio::time::timeout(self.settings.answer_within, ping.exec_async(&mut connection)).await;
            if !matches!(answer, Ok(Ok(()))) {
                return;
            }
        }
    }
}
