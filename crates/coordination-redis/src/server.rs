//! Which server is to be connected to: always the same, or the one that sentinels name at the moment.

use crate::address::{Address, Service};
use crate::backoff::between;
use crate::connection::LinkSettings;
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{Client, ErrorKind, RedisError, RedisResult};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::watch;

/// A server that connections are made to.
#[derive(Clone)]
pub enum Server {
    /// Always the same.
    Fixed(Box<Client>),
    /// The master of a service, as the sentinels name it.
    Master(watch::Receiver<Master>),
}

/// The master of a service.
#[derive(Clone)]
pub struct Master {
    client: Client,
    address: (String, u16),
    /// Grows with each failover.
    epoch: u64,
}

/// What to connect to now.
pub struct Target {
    /// Its client.
    pub client: Client,
    master: Option<watch::Receiver<Master>>,
}

impl Server {
    /// Looks up what the address names. A task goes on asking the sentinels, if there are any, until the last server,
    /// target and link are gone.
    ///
    /// Errors: no sentinel told; why.
    pub async fn find(address: Address, settings: &LinkSettings) -> RedisResult<Self> {
        let service = match address {
            Address::Server(client) => return Ok(Self::Fixed(Box::new(client))),
            Address::Service(service) => service,
        };
        let mut sentinels = Sentinels::new(service, settings);
        let (master, _) = sentinels.ask().await?;
        let (found, current) = watch::channel(master);
        tokio::spawn(sentinels.watch(found));
        Ok(Self::Master(current))
    }

    /// What to connect to now.
    pub fn target(&self) -> Target {
        match self {
            Self::Fixed(client) => Target { client: (**client).clone(), master: None },
            Self::Master(current) => {
                let mut current = current.clone();
                let client = current.borrow_and_update().client.clone();
                Target { client, master: Some(current) }
            }
        }
    }
}

impl Target {
    /// True if sentinels named it: then it may say itself that it is no master.
    pub fn is_behind_sentinels(&self) -> bool {
        self.master.is_some()
    }

    /// Returns when another server is to be connected to. Cancellation-safe.
    pub async fn moved(&mut self) {
        let moved = match &mut self.master {
            Some(current) => current.changed().await.is_ok(),
            None => false,
        };
        if !moved {
            std::future::pending::<()>().await;
        }
    }
}

/// The sentinels of a service.
struct Sentinels {
    service: Service,
    each: Vec<Sentinel>,
    settings: LinkSettings,
}

struct Sentinel {
    client: Client,
    connection: Option<MultiplexedConnection>,
}

impl Sentinels {
    fn new(service: Service, settings: &LinkSettings) -> Self {
        let each = service.sentinels.iter().map(|client| Sentinel { client: client.clone(), connection: None });
        Self { each: each.collect(), service, settings: settings.clone() }
    }

    /// Asks all at once, and takes the word of the one that has seen the newest failover. Returns how many answered, too.
    async fn ask(&mut self) -> RedisResult<(Master, usize)> {
        // One that hangs must not use up the time of whoever waits for the master.
        let limit = self.settings.answer_within / 2;
        let service = &self.service;
        let answers = join_all(self.each.iter_mut().map(|sentinel| sentinel.ask(service, limit))).await;
        let mut reason = RedisError::from((ErrorKind::Io, "no sentinel answered"));
        let (mut newest, mut heard) = (None::<Master>, 0);
        for answer in answers {
            match answer {
                Ok(master) => {
                    heard += 1;
                    if newest.as_ref().is_none_or(|newest| newest.epoch < master.epoch) {
                        newest = Some(master);
                    }
                }
                Err(error) => reason = error,
            }
        }
        newest.map(|newest| (newest, heard)).ok_or(reason)
    }

    /// The task `sentinels`: asks again and again, until nobody wants to know.
    async fn watch(mut self, found: watch::Sender<Master>) {
        let heartbeat = self.settings.heartbeat;
        let mut was_told = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(between(&*self.settings.entropy, heartbeat / 2, heartbeat)) => {}
                () = found.closed() => return,
            }
            match self.ask().await {
                Ok((master, heard)) => {
                    was_told = false;
                    // A minority that has not heard of the failover says where the master was.
                    let is_late = master.epoch < found.borrow().epoch && heard * 2 <= self.each.len();
                    if !is_late {
                        self.take(master, &found);
                    }
                }
                Err(error) => {
                    if !std::mem::replace(&mut was_told, true) {
                        tracing::warn!(service = self.service.name, %error, "no sentinel tells where the master is");
                    }
                }
            }
        }
    }

    fn take(&self, master: Master, found: &watch::Sender<Master>) {
        found.send_if_modified(|known| {
            let moved = known.address != master.address;
            if moved {
                let (host, port) = &master.address;
                tracing::info!(
                    service = self.service.name,
                    master = format!("{host}:{port}"),
                    "there is another master"
                );
            }
            *known = master;
            moved
        });
    }
}

impl Sentinel {
    async fn ask(&mut self, service: &Service, limit: Duration) -> RedisResult<Master> {
        let kept = self.connection.take();
        let ask = async {
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.client.get_multiplexed_async_connection().await?,
            };
            let mut command = redis::cmd("SENTINEL");
            let answer = command.arg("MASTER").arg(&service.name).query_async(&mut connection).await;
            answer.map(|answer: HashMap<String, String>| (connection, answer))
        };
        // Only what answered is kept; else the next question goes over a new connection.
        let Ok(answered) = tokio::time::timeout(limit, ask).await else {
            return Err(RedisError::from((ErrorKind::Io, "a sentinel did not answer in time")));
        };
        let (connection, answer) = answered?;
        self.connection = Some(connection);
        let number = |name| answer.get(name).and_then(|text| text.parse::<u64>().ok());
        let host = answer.get("ip").filter(|host| !host.is_empty());
        let port = number("port").and_then(|port| u16::try_from(port).ok());
        let (Some(host), Some(port), Some(epoch)) = (host, port, number("config-epoch")) else {
            return Err(RedisError::from((ErrorKind::UnexpectedReturnType, "a sentinel's answer is not understood")));
        };
        Ok(Master { client: service.client(host, port)?, address: (host.clone(), port), epoch })
    }
}
