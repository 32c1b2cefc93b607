//! What was seen from outside during a run. All times are since its beginning.

use std::time::Duration;

/// Everything that was seen.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What clients did, as they saw it.
    pub deeds: Vec<Deed>,
    /// What the model was asked.
    pub asked: Vec<Asked>,
    /// What each reader of events was told.
    pub readers: Vec<Vec<Seen>>,
    /// What went wrong on purpose.
    pub faults: Vec<Fault>,
    /// What each session had come to when all was quiet. A session that is missing was not there.
    pub ends: Vec<End>,
    /// What should be gone at the end and is not.
    pub left: Vec<String>,
}

/// One operation of a client that has ended: it was acknowledged, or told that there is no such session.
#[derive(Debug, Clone, PartialEq)]
pub struct Deed {
    /// The session.
    pub session: String,
    /// When it was first sent.
    pub began: Duration,
    /// When its answer had come.
    pub ended: Duration,
    /// What it was.
    pub what: What,
}

/// What a client did, and was told.
#[derive(Debug, Clone, PartialEq)]
pub enum What {
    /// The session was made.
    Made,
    /// A prompt was taken.
    Prompted {
        /// Its text, like no other's.
        text: String,
        /// Whether it asks for an answer.
        asks: bool,
    },
    /// The answer that a prompt's caller was given.
    Answered {
        /// The text of the prompt.
        prompt: String,
        /// The text of the answer.
        text: String,
        /// Whether the answer ended in a recorded error, as an aborted one does.
        failed: bool,
    },
    /// The title was set to this number. One client sets a session's titles, one after the other.
    Titled(u64),
    /// The session and its messages were read.
    Read {
        /// The number in its title.
        title: u64,
        /// The texts of its prompts.
        prompts: Vec<String>,
    },
    /// It was told to be at work, or not.
    Status {
        /// Whether it was at work.
        busy: bool,
    },
    /// What runs was aborted.
    Aborted,
    /// The session was deleted.
    Deleted,
    /// There is no such session.
    Absent,
    /// The operation came to no end, or to one that it must not have.
    Failed(String),
}

/// One request to the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The session that it was for.
    pub session: String,
    /// When it came.
    pub began: Duration,
    /// When it had been answered, or the asker was gone.
    pub ended: Duration,
}

/// One event that a reader was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// When it came.
    pub at: Duration,
    /// Its id.
    pub id: String,
    /// Its place in the log; none of what only a newcomer is told.
    pub cursor: Option<Cursor>,
}

/// A place in the log: a number that grows by one, and a random half that makes it unlike any other log's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The number.
    pub number: u64,
    /// The random half.
    pub random: u64,
}

impl Cursor {
    /// Reads what the `id:` of a frame says.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, random) = text.split_once('-')?;
        Some(Self { number: number.parse().ok()?, random: random.parse().ok()? })
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// What it was.
    pub kind: Kind,
    /// When it began.
    pub began: Duration,
    /// When it was over.
    pub ended: Duration,
    /// How many runs were under way where it struck.
    pub hit: u64,
}

/// The faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A replica is killed (SIGKILL) and started again.
    Kill,
    /// A replica is stopped (SIGSTOP) and goes on.
    Stop,
    /// A replica is asked to end (SIGTERM) and started again.
    Term,
    /// The disk of a replica is full.
    DiskFull,
    /// Redis is killed and started again with nothing in it.
    RedisEmpty,
    /// Redis is stopped (SIGSTOP) and goes on.
    RedisPause,
    /// The connections between two parties come to harm.
    Between(Link, Harm),
}

/// Two parties and what is between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// A replica and Redis.
    ReplicaAndRedis,
    /// nginx and a replica.
    NginxAndReplica,
    /// All clients and nginx.
    ClientsAndNginx,
    /// All replicas and the model.
    ReplicasAndModel,
}

/// What happens to connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Harm {
    /// They are cut.
    Cut,
    /// Nothing passes for a while.
    Hold,
    /// Everything comes late, and what is said on one after what is said on another.
    Slow,
    /// The far side is gone, and the near one is told nothing.
    HalfOpen,
}

impl Link {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::ReplicaAndRedis, Self::NginxAndReplica, Self::ClientsAndNginx, Self::ReplicasAndModel];
}

impl Harm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cut, Self::Hold, Self::Slow, Self::HalfOpen];
}

impl Kind {
    /// All of them.
    pub fn all() -> Vec<Self> {
        let between = Link::ALL.into_iter().flat_map(|link| Harm::ALL.map(|harm| Self::Between(link, harm)));
        [Self::Kill, Self::Stop, Self::Term, Self::DiskFull, Self::RedisEmpty, Self::RedisPause]
            .into_iter()
            .chain(between)
            .collect()
    }

    /// Whether a replica may lose a run by it and not know for a while: then it may still listen to a model that another
    /// one asks as well. What it hears it cannot store. And whether the model may not know for a while that nobody listens.
    pub fn leaves_a_listener(self) -> bool {
        match self {
            Self::Stop | Self::RedisEmpty | Self::RedisPause => true,
            Self::Between(link, _) => matches!(link, Link::ReplicaAndRedis | Link::ReplicasAndModel),
            Self::Kill | Self::Term | Self::DiskFull => false,
        }
    }

    /// Whether Redis forgets what it knew.
    pub fn forgets(self) -> bool {
        self == Self::RedisEmpty
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self::Between(link, harm) = self else { return write!(f, "{self:?}") };
        let parties = match link {
            Link::ReplicaAndRedis => "a replica and Redis",
            Link::NginxAndReplica => "nginx and a replica",
            Link::ClientsAndNginx => "clients and nginx",
            Link::ReplicasAndModel => "replicas and the model",
        };
        write!(f, "{harm:?} between {parties}")
    }
}

/// What a session came to.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// The session.
    pub session: String,
    /// The number in its title.
    pub title: u64,
    /// Whether any replica says that it is at work.
    pub busy: bool,
    /// Its messages.
    pub messages: Vec<Said>,
}

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub struct Said {
    /// Whether a client said it; else a model.
    pub by_user: bool,
    /// Its text.
    pub text: String,
    /// Whether it is finished, with an error or without.
    pub finished: bool,
    /// Whether a model said it to its end, as far as the record tells: not one that broke off, nor one that asks for a tool.
    pub whole: bool,
}
