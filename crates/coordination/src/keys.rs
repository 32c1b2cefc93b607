//! The names that the ports speak of.

use serde::{Deserialize, Serialize};
use wire::ids::SessionId;
use wire::tenant::Tenant;

/// A session of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionKey {
    /// The tenant.
    pub tenant: Tenant,
    /// The session.
    pub session: SessionId,
}

impl SessionKey {
    /// Names a session of a tenant.
    pub fn new(tenant: Tenant, session: SessionId) -> Self {
        Self { tenant, session }
    }

    /// Reads what [`Display`](std::fmt::Display) wrote: `tenant/session`.
    pub fn parse(text: &str) -> Option<Self> {
        let (tenant, session) = text.split_once('/')?;
        Some(Self { tenant: Tenant::parse(tenant).ok()?, session: SessionId::parse(session).ok()? })
    }
}

impl std::fmt::Display for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.tenant, self.session)
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(/// A replica: its name and a random incarnation. A buried one never comes back under the same id.
    ReplicaId);
name!(/// A random mark that the backend bears since it began to remember. Another mark: it forgot everything.
    Born);
name!(/// One attempt to become a session's runner; random.
    Attempt);
