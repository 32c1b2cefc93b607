//! Who a request belongs to. Every key, channel, path and cache entry carries the tenant.

use serde::{Deserialize, Serialize};

/// A tenant's name: 1 to 64 characters of `a-z 0-9 _ -`, so that it is safe in a path and in a Redis key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(std::sync::Arc<str>);

/// The name is not a tenant's.
#[derive(Debug, thiserror::Error)]
#[error("a tenant's name has 1 to 64 characters of a-z 0-9 _ -")]
pub struct InvalidTenant;

impl Tenant {
    /// Parses a tenant's name.
    pub fn parse(name: &str) -> Result<Self, InvalidTenant> {
        let known = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if (1..=64).contains(&name.len()) && name.bytes().all(known) {
            Ok(Self(name.into()))
        } else {
            Err(InvalidTenant)
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for the tenant of an installation that has only one.
    pub fn is_default(&self) -> bool {
        &*self.0 == "default"
    }
}

impl Default for Tenant {
    fn default() -> Self {
        Self("default".into())
    }
}

impl std::fmt::Display for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Tenant {
    type Error = InvalidTenant;
    fn try_from(name: String) -> Result<Self, InvalidTenant> {
        Self::parse(&name)
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> Self {
        tenant.0.to_string()
    }
}
