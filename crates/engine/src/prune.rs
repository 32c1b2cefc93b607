//! Pruning: old outputs of tools are taken out of the model's sight when a run ends. They stay stored.

use crate::api::EngineError;
use crate::commit::{Decision, body};
use crate::compaction;
use crate::engine::blocking;
use crate::run::Run;
use run_protocol::RecordVersion;
use std::sync::Arc;
use storage::{Record, Write};
use wire::ids::{MessageId, PartId};
use wire::message::MessageWithParts;
use wire::part::{Part, PartKind, ToolState};

/// The newest turns keep their outputs.
const KEPT_TURNS: usize = 2;
/// So many tokens of outputs before them are kept, too.
const KEPT_TOKENS: usize = 40_000;
/// Less is not worth it: what providers have cached of the conversation is lost by it.
const WORTH_TOKENS: usize = 20_000;
/// Tools whose outputs are instructions, not findings.
const KEPT_TOOLS: [&str; 1] = ["skill"];

impl Run {
    /// Takes old outputs of tools out of the model's sight where the configuration wants it (`compaction.prune`).
    ///
    /// It comes before the tickets are settled: whoever takes the run over before that does it again. Where it cannot be done
    /// the outputs stay in sight: a conversation that cannot be read must not keep its callers waiting.
    pub(crate) async fn prune(&self) -> Result<(), EngineError> {
        match self.prune_old().await {
            Err(EngineError::Lost) => Err(EngineError::Lost),
            Err(error) => {
                tracing::warn!(session = %self.handle.key.session, %error, "old outputs are not taken out of sight");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    async fn prune_old(&self) -> Result<(), EngineError> {
        let engine = &self.engine;
        let Ok(instance) = engine.0.instances.get(self.known().session.directory.as_ref()).await else { return Ok(()) };
        if instance.config["compaction"]["prune"] != true {
            return Ok(());
        }
        let (store, session) = (engine.tenant_store(&self.handle.key.tenant), self.handle.key.session.clone());
        let old = blocking(move || {
            let messages = store.shared_messages_under(&session, None, None, &store.head(&session)?)?.items;
            Ok(old_outputs(&messages))
        });
        let old = old.await?;
        if old.is_empty() {
            return Ok(());
        }
        let now = engine.now_ms();
        let (head, pruned) = self
            .head_commit(move |_, at| {
                // As they stand now: others may have changed or removed them.
                let mut pruned = Vec::new();
                let mut messages: Vec<&MessageId> = old.iter().rev().map(|(message, _)| message).collect();
                messages.dedup();
                for id in messages {
                    let there = at.message(id)?.map(|message| message.parts).unwrap_or_default();
                    let wanted = |part: &Part| old.iter().any(|(_, wanted)| *wanted == part.id);
                    pruned.extend(there.into_iter().filter(wanted).filter_map(|part| without_output(part, now)));
                }
                let mut writes = Vec::with_capacity(pruned.len());
                for part in &pruned {
                    let record = Record::Part { message: part.message_id.clone(), id: part.id.clone() };
                    writes.push(Write::Put(record, body(part)?));
                }
                Ok(Decision::Write(writes, pruned))
            })
            .await?;
        for part in &pruned {
            let version = Some((part.id.to_string(), RecordVersion::head(head.rev)));
            engine.publish(&self.origin, wire::event::part_updated(part, now), version).await;
        }
        Ok(())
    }
}

/// The part marked as out of sight, unless it is so already or has no output.
fn without_output(mut part: Part, now: u64) -> Option<Part> {
    match &mut part.kind {
        PartKind::Tool(call) => match &mut call.state {
            ToolState::Completed { time, .. } if time.compacted.is_none() => time.compacted = Some(now),
            _ => return None,
        },
        _ => return None,
    }
    Some(part)
}

/// The outputs that shall go: those behind the newest turns and behind so many tokens of newer outputs, back to a summary
/// or to what is out of sight already; none where they come to too little.
fn old_outputs(messages: &[Arc<MessageWithParts>]) -> Vec<(MessageId, PartId)> {
    let (mut turns, mut tokens, mut won) = (0, 0, 0);
    let mut old = Vec::new();
    'all: for message in messages.iter().rev() {
        if message.info.user().is_some() {
            turns += 1;
        }
        if turns < KEPT_TURNS {
            continue;
        }
        if message.info.assistant().is_some_and(compaction::is_summary_message) {
            break;
        }
        for part in message.parts.iter().rev() {
            let Some(call) = part.tool().filter(|call| !KEPT_TOOLS.contains(&call.tool.as_str())) else { continue };
            let ToolState::Completed { output, time, .. } = &call.state else { continue };
            if time.compacted.is_some() {
                break 'all;
            }
            let size = compaction::tokens(output);
            tokens += size;
            if tokens > KEPT_TOKENS {
                won += size;
                old.push((message.info.id().clone(), part.id.clone()));
            }
        }
    }
    if won > WORTH_TOKENS { old } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn message(number: usize, info: Value, parts: Value) -> Arc<MessageWithParts> {
        let (id, model) = (format!("msg_{number}"), json!({ "providerID": "p", "modelID": "m" }));
        let mut info = info;
        let common = json!({
            "id": id, "sessionID": "ses_1", "time": { "created": number, "completed": number }, "agent": "build",
            "model": model, "parentID": "msg_0", "mode": "build", "providerID": "p", "modelID": "m", "cost": 0.0,
            "path": { "cwd": "/", "root": "/" },
            "tokens": { "input": 0, "output": 0, "reasoning": 0, "cache": { "read": 0, "write": 0 } },
        });
        for (key, value) in common.as_object().unwrap() {
            info[key] = value.clone();
        }
        Arc::new(serde_json::from_value(json!({ "info": info, "parts": parts })).unwrap())
    }

    fn asked(number: usize) -> Arc<MessageWithParts> {
        message(number, json!({ "role": "user" }), json!([]))
    }

    fn call(number: usize, tool: &str, tokens: usize, time: Value) -> Arc<MessageWithParts> {
        let state = json!({
            "status": "completed", "input": {}, "output": "x".repeat(4 * tokens), "title": "", "metadata": {},
            "time": time,
        });
        let part = json!({
            "id": format!("prt_{number}"), "sessionID": "ses_1", "messageID": format!("msg_{number}"), "type": "tool",
            "callID": "c", "tool": tool, "state": state,
        });
        message(number, json!({ "role": "assistant" }), json!([part]))
    }

    fn old(messages: &[Arc<MessageWithParts>]) -> Vec<String> {
        old_outputs(messages).into_iter().map(|(_, part)| part.to_string()).collect()
    }

    #[test]
    fn outputs_behind_two_turns_and_forty_thousand_tokens_are_old() {
        let ended = || json!({ "start": 1, "end": 2 });
        let of = |number, tokens| call(number, "bash", tokens, ended());
        let newest = [asked(10), of(11, 90_000), asked(20), of(21, 90_000)];
        let with = |older: &[Arc<MessageWithParts>]| [older, &newest].concat();
        assert_eq!(old(&newest), Vec::<String>::new(), "two turns are kept");
        assert_eq!(old(&[&newest[..], &[asked(30)]].concat()), ["prt_11"]);
        assert_eq!(old(&with(&[asked(1), of(2, 21_000), of(3, 40_000)])), ["prt_2"]);
        assert_eq!(
            old(&[asked(1), of(2, 20_000), of(3, 40_000), asked(4), asked(5)]),
            Vec::<String>::new(),
            "too little"
        );
        assert_eq!(old(&[asked(1), of(2, 20_001), of(3, 40_000), asked(4), asked(5)]), ["prt_2"]);
    }

    #[test]
    fn nothing_behind_a_summary_or_an_earlier_pruning_is_looked_at_and_skills_stay() {
        let ended = json!({ "start": 1, "end": 2 });
        let pruned = json!({ "start": 1, "end": 2, "compacted": 3 });
        let tail = [asked(8), asked(9)];
        let with = |older: &[Arc<MessageWithParts>]| [older, &tail].concat();
        let summary = message(3, json!({ "role": "assistant", "summary": true }), json!([]));
        assert_eq!(old(&with(&[call(2, "bash", 90_000, ended.clone()), summary])), Vec::<String>::new());
        let before = [call(2, "bash", 90_000, ended.clone()), call(3, "bash", 10, pruned)];
        assert_eq!(old(&with(&before)), Vec::<String>::new());
        let skill = [call(2, "bash", 61_000, ended.clone()), call(3, "skill", 90_000, ended)];
        assert_eq!(old(&with(&skill)), ["prt_2"]);
    }
}
