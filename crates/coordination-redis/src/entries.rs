//! How entries go into a script, and how they come out of a log and out of a channel's message.

use bytes::{Buf, Bytes};
use coordination::{Cursor, Entry};
use redis::ScriptInvocation;
use std::collections::HashMap;
use wire::clock::Entropy;

/// Adds the seven values of each entry, as `_append.lua` lists them.
pub fn push(script: &mut ScriptInvocation<'_>, entries: &[Entry], entropy: &dyn Entropy) {
    for entry in entries {
        let (record, version) = match &entry.record {
            Some((record, version)) => (record.as_str(), version.as_str()),
            None => ("", ""),
        };
        script
            .arg(entry.session.as_ref().map_or("", |session| session.as_str()))
            .arg(entry.fence.map_or_else(String::new, |fence| fence.to_string()))
            .arg(record)
            .arg(version)
            .arg(entry.status.as_deref().unwrap_or(""))
            .arg(entropy.bits())
            .arg(entry.body.as_ref());
    }
}

/// Entries as `XRANGE` gives them.
pub type Range = Vec<(String, HashMap<String, Vec<u8>>)>;

/// What stands in an `XRANGE`'s answer.
pub fn from_range(range: Range) -> Vec<(Cursor, Bytes)> {
    let body = |mut fields: HashMap<String, Vec<u8>>| fields.remove("b").unwrap_or_default().into();
    range.into_iter().map(|(id, fields)| (Cursor(id), body(fields))).collect()
}

/// A message of a log's channel.
#[derive(Debug, PartialEq)]
pub struct Message {
    /// The newest cursor before it.
    pub previous: Option<Cursor>,
    /// What was appended; without its body where that has to be read from the log.
    pub entries: Vec<(Cursor, Option<Bytes>)>,
}

impl Message {
    /// Parses what `_append.lua` wrote: the previous id in a line, then for each entry a line `<id> <length>` and the
    /// body, or a line `<id> -` and no body. `None` if it is no such message.
    pub fn parse(mut rest: Bytes) -> Option<Self> {
        let previous = line(&mut rest)?;
        let mut entries = Vec::new();
        while !rest.is_empty() {
            let head = line(&mut rest)?;
            let (id, length) = head.split_once(' ')?;
            let body = match length {
                "-" => None,
                length => {
                    let length = length.parse().ok().filter(|length| *length <= rest.len())?;
                    Some(rest.split_to(length))
                }
            };
            entries.push((Cursor(id.to_owned()), body));
        }
        Some(Self { previous: (!previous.is_empty()).then_some(Cursor(previous)), entries })
    }
}

fn line(rest: &mut Bytes) -> Option<String> {
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let line = rest.split_to(end);
    rest.advance(1);
    String::from_utf8(line.into()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor(id: &str) -> Cursor {
        Cursor(id.into())
    }

    #[test]
    fn a_message_is_read_back() {
        let message = Message::parse(Bytes::from_static(b"3-9\n4-7 5\na\nb\nc5-1 -\n6-2 0\n")).unwrap();
        assert_eq!(message.previous, Some(cursor("3-9")));
        let body = Some(Bytes::from_static(b"a\nb\nc"));
        assert_eq!(
            message.entries,
            [(cursor("4-7"), body), (cursor("5-1"), None), (cursor("6-2"), Some(Bytes::new()))]
        );
        assert_eq!(Message::parse(Bytes::from_static(b"\n")).unwrap().previous, None);
    }

    #[test]
    fn what_is_cut_off_is_no_message() {
        for text in [&b""[..], b"3-9", b"3-9\n4-7 5\nab", b"3-9\n4-7\n", b"3-9\n4-7 x\n"] {
            assert_eq!(Message::parse(Bytes::copy_from_slice(text)), None, "{text:?}");
        }
    }
}
