//! Identifiers: `<prefix>_<12 hex><14 base62>`.
//!
//! The hex digits are the low 48 bits of `milliseconds * 4096 + counter`; sessions bear the complement, so that a plain
//! string sort lists the newest first. The order wraps every 2.18 years: nothing in the server is decided by comparing ids.

use crate::clock::{Clock, Entropy};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex};

/// A string is not an identifier of the kind that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Expected a string starting with \"{prefix}\", got {got:?}")]
pub struct InvalidId {
    /// The prefix that the identifier must begin with, without its underscore.
    pub prefix: &'static str,
    /// What stood there.
    pub got: String,
}

impl InvalidId {
    /// True where it begins as it must, and only what follows is wrong: nothing is called so.
    pub fn has_prefix(&self) -> bool {
        self.got.starts_with(self.prefix)
    }
}

fn parse(prefix: &'static str, text: &str) -> Result<Arc<str>, InvalidId> {
    let tail = text.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_'));
    let known = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    match tail {
        Some(tail) if (1..=64).contains(&tail.len()) && tail.bytes().all(known) => Ok(text.into()),
        _ => Err(InvalidId { prefix, got: text.chars().take(100).collect() }),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// What the identifier begins with, without the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// Parses an identifier. Only what parses is ever joined to a path.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                parse($prefix, text).map(Self)
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.to_string()
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::parse(text)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "_[A-Za-z0-9_-]{1,64}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

id!(/// A session.
    SessionId, "ses");
id!(/// A message.
    MessageId, "msg");
id!(/// A part of a message.
    PartId, "prt");
id!(/// A permission that was asked for.
    PermissionId, "per");
id!(/// A question that was asked.
    QuestionId, "que");
id!(/// A file with the whole of a tool's output.
    ToolOutputId, "tool");

/// Makes identifiers. One per replica; safe to share.
pub struct IdSource {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    last: Mutex<(u64, u64)>,
}

impl IdSource {
    /// A source on the given clock and randomness.
    pub fn new(clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        Self { clock, entropy, last: Mutex::new((0, 0)) }
    }

    /// Milliseconds since the epoch, by the clock that the identifiers bear.
    pub fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// 64 random bits from the source that the identifiers use.
    pub fn bits(&self) -> u64 {
        self.entropy.bits()
    }

    fn stamp(&self) -> u64 {
        let now = self.clock.now_ms();
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *last = if last.0 == now { (now, last.1 + 1) } else { (now, 1) };
        (last.0.wrapping_mul(4096).wrapping_add(last.1)) & 0xffff_ffff_ffff
    }

    fn text(&self, prefix: &str, stamp: u64) -> String {
        const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut text = format!("{prefix}_{stamp:012x}");
        // 62^10 < 2^60: ten characters from one draw, four from a second.
        for (bits, count) in [(self.entropy.bits(), 10), (self.entropy.bits(), 4)] {
            let mut rest = bits;
            for _ in 0..count {
                text.push(char::from(BASE62[(rest % 62) as usize]));
                rest /= 62;
            }
        }
        text
    }

    /// A new session id; a later one sorts before an earlier one.
    pub fn session(&self) -> SessionId {
        SessionId(self.text("ses", !self.stamp() & 0xffff_ffff_ffff).into())
    }

    /// A new message id.
    pub fn message(&self) -> MessageId {
        MessageId(self.text("msg", self.stamp()).into())
    }

    /// A new part id.
    pub fn part(&self) -> PartId {
        PartId(self.text("prt", self.stamp()).into())
    }

    /// A new permission id.
    pub fn permission(&self) -> PermissionId {
        PermissionId(self.text("per", self.stamp()).into())
    }

    /// A new question id.
    pub fn question(&self) -> QuestionId {
        QuestionId(self.text("que", self.stamp()).into())
    }

    /// A new name for a file with a tool's whole output.
    pub fn tool_output(&self) -> ToolOutputId {
        ToolOutputId(self.text("tool", self.stamp()).into())
    }

    /// A new event id.
    pub fn event(&self) -> String {
        self.text("evt", self.stamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct At(u64);
    impl Clock for At {
        fn now_ms(&self) -> u64 {
            self.0
        }
    }
    impl Entropy for At {
        fn bits(&self) -> u64 {
            self.0
        }
    }

    fn source(ms: u64) -> IdSource {
        IdSource::new(Arc::new(At(ms)), Arc::new(At(7)))
    }

    #[test]
    fn an_id_bears_the_low_48_bits_of_its_millisecond() {
        // Taken from a recording: this message was created at 1795353701766.
        assert!(source(1_795_353_701_766).message().as_str().starts_with("msg_2036b6d86001"));
        assert!(source(1_795_353_701_627).session().as_str().starts_with("ses_dfc949304ffe"));
    }

    #[test]
    fn ids_of_one_millisecond_ascend_and_sessions_descend() {
        let ids = source(1_795_353_701_766);
        let (first, second) = (ids.message(), ids.message());
        assert!(first < second);
        let (first, second) = (ids.session(), ids.session());
        assert!(first > second);
        assert_eq!(first.as_str().len(), 30);
    }

    #[test]
    fn what_could_leave_a_directory_is_no_id() {
        for bad in
            ["ses_", "ses", "msg_x", "ses_../x", "ses_a/b", "ses_a.b", "ses_é", &format!("ses_{}", "a".repeat(65))]
        {
            assert!(SessionId::parse(bad).is_err(), "{bad}");
        }
        assert!(SessionId::parse("ses_a-B_9").is_ok());
    }
}
