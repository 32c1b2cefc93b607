//! The name of every key and channel, and nowhere else: the scripts get theirs from here, too.
//!
//! A name begins with the operator's prefix, the format version and a hash tag. All names share one tag, so that one
//! script may touch them all on a Redis Cluster.

use crate::Agreement;
use coordination::{LogLimits, ReplicaId, SessionKey};
use wire::tenant::Tenant;

/// Grows when what stands under a name changes its meaning: replicas of two versions then don't see each other.
pub const FORMAT: u32 = 1;

/// What a message of a channel carries at most; longer bodies are read from the log.
pub const INLINE_BYTES: usize = 256 << 10;

/// How many records' versions a generation of them holds: two generations of each session are kept.
pub const VERSIONS_OF_A_GENERATION: u32 = 4_096;

/// How long the number of a replica's last batch is kept, in milliseconds. No batch is sent again for so long.
const BATCH_AGE_MS: u32 = 3_600_000;

/// The name of each kind of key, and what follows it.
const BORN: &str = "born";
const ALIVE: &str = "alive";
const FLEET: &str = "fleet";
const DUE: &str = "due";
const WAKE: &str = "wake";
const RUNS: &str = "runs:";
const LEASE: &str = "lease:";
const BUSY: &str = "busy:";
const TRIAL: &str = "trial:";
const POKE: &str = "poke:";
const CONTROL: &str = "ctl:";
const LOG: &str = "log:";
const META: &str = "meta:";
const BATCH: &str = "pub:";
const VERSIONS: &str = "revs:";
const FORMER_VERSIONS: &str = "oldrevs:";
const LOCK: &str = "lock:";

/// Makes the names under one prefix.
#[derive(Clone, Debug)]
pub struct Keys {
    base: String,
    format: String,
}

impl Keys {
    /// Names under a prefix; `None` if it has other characters than `A-Z a-z 0-9 _ - . :`, or none or more than 100.
    pub fn new(prefix: &str) -> Option<Self> {
        let known = |b: u8| b.is_ascii_alphanumeric() || b"_-.:".contains(&b);
        let fits = (1..=100).contains(&prefix.len()) && prefix.bytes().all(known);
        fits.then(|| Self { base: format!("{prefix}:{FORMAT}:{{0}}:"), format: format!("{prefix}:format") })
    }

    fn name(&self, kind: &str, rest: impl std::fmt::Display) -> String {
        format!("{}{kind}{rest}", self.base)
    }

    /// The format of the names under this prefix; its own name bears none.
    pub fn format(&self) -> &str {
        &self.format
    }

    /// The mark that says whether this Redis forgot.
    pub fn born(&self) -> String {
        self.name(BORN, "")
    }

    /// Hash: replica to beat.
    pub fn alive(&self) -> String {
        self.name(ALIVE, "")
    }

    /// String: what the replicas of the fleet agreed on. It expires when none of them beats any more.
    pub fn fleet(&self) -> String {
        self.name(FLEET, "")
    }

    /// Sorted set: leases without an owner, by the time from which on they may be claimed.
    pub fn due(&self) -> String {
        self.name(DUE, "")
    }

    /// Channel: leases are due.
    pub fn wake(&self) -> String {
        self.name(WAKE, "")
    }

    /// Set: the sessions that a replica owns.
    pub fn runs(&self, replica: &ReplicaId) -> String {
        self.name(RUNS, replica)
    }

    /// Hash: a session's lease.
    pub fn lease(&self, key: &SessionKey) -> String {
        self.name(LEASE, key)
    }

    /// Hash: session to status, of each lease of a tenant.
    pub fn busy(&self, tenant: &Tenant) -> String {
        self.name(BUSY, tenant)
    }

    /// Channel: a replica's pokes.
    pub fn control(&self, replica: &ReplicaId) -> String {
        self.name(CONTROL, replica)
    }

    /// Stream: a tenant's event log; and the channel that carries what was appended.
    pub fn log(&self, tenant: &Tenant) -> String {
        self.name(LOG, tenant)
    }

    /// Hash: a log's newest id and size.
    pub fn meta(&self, tenant: &Tenant) -> String {
        self.name(META, tenant)
    }

    /// String: the token of who holds a lock.
    pub fn lock(&self, name: &str) -> String {
        self.name(LOCK, name)
    }

    /// The same names, the limits and the agreement, as Lua functions and constants, to stand before each script.
    pub fn prelude(&self, limits: &LogLimits, agreement: &Agreement) -> String {
        let base = &self.base;
        let whole = |function: &str, kind: &str| format!("local function {function}() return '{base}{kind}' end\n");
        let of = |function: &str, kind: &str| format!("local function {function}(x) return '{base}{kind}' .. x end\n");
        [
            whole("born", BORN),
            whole("alive", ALIVE),
            whole("fleet", FLEET),
            whole("due", DUE),
            whole("wake", WAKE),
            of("runs", RUNS),
            of("lease", LEASE),
            of("busy", BUSY),
            of("trial", TRIAL),
            of("poke", POKE),
            of("control", CONTROL),
            of("log", LOG),
            of("meta", META),
            of("versions", VERSIONS),
            of("former_versions", FORMER_VERSIONS),
            format!("local function batch(t, rid) return '{base}{BATCH}' .. t .. ':' .. rid end\n"),
            format!("local LOG_AGE_MS, LOG_BYTES = {}, {}\n", limits.age.as_millis(), limits.bytes),
            format!("local AGREEMENT, AGREEMENT_MS = '{}', {}\n", agreement.text(), agreement.age.as_millis()),
            format!("local BATCH_AGE_MS, INLINE_BYTES = {BATCH_AGE_MS}, {INLINE_BYTES}\n"),
            format!("local VERSIONS_OF_A_GENERATION = {VERSIONS_OF_A_GENERATION}\n"),
        ]
        .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_cannot_break_out_of_a_script() {
        assert!(Keys::new("flotilla.test-1:a").is_some());
        for prefix in ["", "a'b", "a{b}", "a b", "a\n", &"x".repeat(101)] {
            assert!(Keys::new(prefix).is_none(), "{prefix:?}");
        }
    }

    #[test]
    fn names_bear_prefix_version_and_tag() {
        let keys = Keys::new("flotilla").unwrap();
        assert_eq!(keys.busy(&Tenant::default()), "flotilla:1:{0}:busy:default");
    }
}
