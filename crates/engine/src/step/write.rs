//! What a step writes down: what the model says, what its tools bring, and how it ended.

use super::{Outcome, Writing};
use crate::api::EngineError;
use crate::call;
use crate::commit::body;
use crate::run::{Run, StopReason, message_record};
use crate::settle::Settled;
use crate::trace;
use agents::Model;
use models::{FinishReason, ModelEvent, Usage};
use run_protocol::{Spent, TicketAnswer};
use std::time::Duration;
use storage::{Record, Write};
use wire::message::{CacheTokens, Message, MessageError, Tokens};
use wire::part::{Part, PartKind, ReasoningPart, Span, StepFinishPart, TextPart};
use wire::session::SessionStatus;

/// After so long a run that only waits for people is taken for harmless.
const HARMLESS: Duration = Duration::from_secs(2);

impl Writing<'_> {
    pub(super) async fn put_message(&self) -> Result<(), EngineError> {
        let message = Message::Assistant(self.message.clone());
        self.run.commit(vec![Write::Put(message_record(&message), body(&message)?)]).await?;
        self.run.publish_record(self.message.id.as_str(), wire::event::message_updated(&message)).await;
        Ok(())
    }

    pub(super) fn part(&self, kind: PartKind) -> Part {
        Part {
            id: self.engine().0.ids.part(),
            session_id: self.scene.session.id.clone(),
            message_id: self.message.id.clone(),
            kind,
        }
    }

    pub(super) async fn put_part(&mut self, part: &Part) -> Result<(), EngineError> {
        match self.opening.take() {
            Some(opening) => put_parts(self.run, &[&opening, part]).await,
            None => put_part(self.run, part).await,
        }
    }

    pub(super) async fn take(&mut self, event: ModelEvent) -> Result<(), EngineError> {
        let now = self.engine().now_ms();
        match event {
            ModelEvent::TextStart => {
                let text = TextPart { time: Some(Span::from(now)), ..TextPart::default() };
                let part = self.part(PartKind::Text(text));
                self.put_part(&part).await?;
                self.text = Some(part);
            }
            ModelEvent::TextDelta(delta) => {
                if let Some(part) = &mut self.text {
                    let happened = wire::event::part_delta(part, &delta);
                    if let PartKind::Text(text) = &mut part.kind {
                        text.text.push_str(&delta);
                    }
                    self.run.publish(happened).await;
                }
            }
            ModelEvent::ReasoningStart => {
                let reasoning = ReasoningPart { text: String::new(), time: Span::from(now), extra: wire::Extra::new() };
                let part = self.part(PartKind::Reasoning(reasoning));
                self.put_part(&part).await?;
                self.reasoning = Some(part);
            }
            ModelEvent::ReasoningDelta(delta) => {
                if let Some(part) = &mut self.reasoning {
                    let happened = wire::event::part_delta(part, &delta);
                    if let PartKind::Reasoning(reasoning) = &mut part.kind {
                        reasoning.text.push_str(&delta);
                    }
                    self.run.publish(happened).await;
                }
            }
            ModelEvent::ReasoningEnd => self.close_reasoning().await?,
            ModelEvent::ToolCallStart { id, name, .. } => {
                let part = self.part(call::pending(self.run, &self.scene, &id, &name));
                self.put_part(&part).await?;
                self.calls.announce(id, part);
            }
            ModelEvent::ToolCallEnd { id, name, arguments, .. } => {
                let part = self.calls.announced(&id);
                let part = part.unwrap_or_else(|| self.part(call::pending(self.run, &self.scene, &id, &name)));
                call::start(self.run, &self.scene, &self.stop, &mut self.calls, part, &name, &arguments).await?;
            }
            // Its end and the answer's are seen to by the caller.
            ModelEvent::TextEnd | ModelEvent::Finish { .. } => {}
        }
        Ok(())
    }

    pub(super) async fn close_text(&mut self) -> Result<(), EngineError> {
        match self.end_text() {
            Some(part) => self.put_part(&part).await,
            None => Ok(()),
        }
    }

    /// The text that was open, with its end; not stored yet.
    fn end_text(&mut self) -> Option<Part> {
        let mut part = self.text.take()?;
        if let PartKind::Text(TextPart { time: Some(time), .. }) = &mut part.kind {
            time.end = Some(self.engine().now_ms());
        }
        Some(part)
    }

    pub(super) async fn close_reasoning(&mut self) -> Result<(), EngineError> {
        let Some(mut part) = self.reasoning.take() else { return Ok(()) };
        if let PartKind::Reasoning(reasoning) = &mut part.kind {
            reasoning.time.end = Some(self.engine().now_ms());
        }
        self.put_part(&part).await
    }

    /// The model has said all; the step ends with the last of its tools.
    pub(super) async fn finish(&mut self, reason: FinishReason) -> Result<Outcome, EngineError> {
        self.close_reasoning().await?;
        if self.calls.are_running() {
            self.close_text().await?;
        }
        let stop = self.stop.clone();
        let draining = self.engine().0.draining.clone();
        let (only_wait, no_trial) = (self.calls.only_wait(Duration::ZERO), self.calls.only_wait(HARMLESS));
        let run = self.run.clone();
        let blocked = tokio::select! {
            biased;
            blocked = self.calls.wait() => blocked?,
            () = stop.token.cancelled() => return self.stopped().await,
            // A stopping replica does not wait for people: whoever goes on waits on the same asks.
            () = async { draining.cancelled().await; only_wait.await } => {
                stop.stop(StopReason::Interrupted);
                return self.stopped().await;
            }
            // What only waits for people harms nobody: others may be tried.
            never = async { no_trial.await; run.end_trial(); std::future::pending().await } => never,
        };
        if let Some(error) = blocked.fatal {
            return self.fail(error).await;
        }
        if self.stop.token.is_cancelled() {
            return self.stopped().await;
        }
        let (after, patch) = self.snapshot_after().await;
        let Spent { cost, tokens } = self.spent.clone();
        let finish = reason.as_str().to_owned();
        let part = self.part(PartKind::StepFinish(StepFinishPart {
            reason: finish.clone(),
            snapshot: after.map(|after| after.to_string()),
            cost,
            tokens: tokens.clone(),
            extra: wire::Extra::new(),
        }));
        let patch = patch.map(|kind| self.part(kind));
        trace::end(&tracing::Span::current(), &finish);
        self.message.finish = Some(finish);
        self.show_spent();
        let finished = Message::Assistant(self.message.clone());
        let filtered = (reason == FinishReason::ContentFilter).then(models::content_filter_error);
        // Some providers say of a step that calls tools that it is the last one.
        let goes_on = matches!(reason, FinishReason::ToolCalls | FinishReason::Unknown) || self.calls.were_begun();
        self.message.structured = self.structured().await;
        let is_missing = self.wants_structure() && self.message.structured.is_none() && !goes_on;
        self.message.error = filtered.clone().or_else(|| is_missing.then(crate::structured::missing));
        self.message.time.completed = Some(self.engine().now_ms());
        let completed = Message::Assistant(self.message.clone());
        std::iter::once(&part).chain(&patch).for_each(|part| self.changes.add(part));
        // The message is last: its completion makes the step's end visible.
        let ended: Vec<Part> = self.end_text().into_iter().chain([part]).collect();
        let mut writes = ended.iter().chain(&patch).map(put).collect::<Result<Vec<_>, _>>()?;
        writes.push(Write::Put(message_record(&completed), body(&completed)?));
        self.run.commit(writes).await?;
        for part in &ended {
            publish_part(self.run, part).await;
        }
        let id = self.message.id.clone();
        self.run.publish_record(id.as_str(), wire::event::message_updated(&finished)).await;
        if let Some(patch) = &patch {
            publish_part(self.run, patch).await;
        }
        self.run.publish_record(id.as_str(), wire::event::message_updated(&completed)).await;
        if let Some(error) = &filtered {
            self.run.publish(wire::event::session_error(&self.scene.session.id, error)).await;
        }
        let ends = !goes_on || blocked.rejected || filtered.is_some() || self.message.structured.is_some();
        let mut outcome = self.outcome(Spent { cost, tokens }, ends);
        let breaks_off = blocked.rejected || self.message.structured.is_some();
        if let Some(settled) = outcome.ends_with.as_mut().filter(|_| breaks_off) {
            // A rejection breaks the loop off, and so does an answer in the wanted form.
            settled.looked_again = false;
        }
        let is_final = ends && !breaks_off && self.message.error.is_none();
        if is_final && self.may_be_shortened && crate::compaction::fills(&self.scene, &self.message) {
            // Whoever dies before leaves it to the next prompt.
            self.run.reserve().await?;
            crate::compaction::ask(self.run, &self.scene.user, false).await?;
            outcome.ends_with = None;
        }
        Ok(outcome)
    }

    /// Shows in the message what the model call used.
    fn show_spent(&mut self) {
        (self.message.cost, self.message.tokens) = (self.spent.cost, self.spent.tokens.clone());
    }

    /// Whether the answer must have the form that the prompt brings. A summary is no answer.
    fn wants_structure(&self) -> bool {
        self.message.summary.is_none() && crate::structured::schema(&self.scene.user).is_some()
    }

    /// The answer in that form, once the model gave it.
    pub(super) async fn structured(&self) -> Option<serde_json::Value> {
        if self.wants_structure() { self.calls.structured().await.or_else(|| self.structured.clone()) } else { None }
    }

    pub(super) fn outcome(&self, spent: Spent, ends: bool) -> Outcome {
        let id = self.message.id.clone();
        let ends_with = (ends && !self.is_overtaken).then(|| Settled {
            answer: TicketAnswer::Message { id: id.to_string() },
            user: Some(self.scene.user.id.clone()),
            changes: self.changes.clone(),
            spent: spent.clone(),
            looked_again: self.message.error.is_none(),
            alone: None,
        });
        Outcome { message: Some(id), spent, ends_with }
    }

    /// The step failed for good: the turn ends with the error.
    pub(super) async fn fail(&mut self, error: MessageError) -> Result<Outcome, EngineError> {
        trace::fail(&tracing::Span::current(), &error.name);
        self.calls.interrupt(self.run).await?;
        let session = self.scene.session.id.clone();
        self.run.publish(wire::event::session_error(&session, &error)).await;
        for entry in [wire::event::session_status(&session, &SessionStatus::Idle), wire::event::session_idle(&session)]
        {
            self.run.publish(entry).await;
        }
        self.close_reasoning().await?;
        self.close_text().await?;
        self.put_patch().await?;
        self.message.error = Some(error);
        self.message.time.completed = Some(self.engine().now_ms());
        self.put_message().await?;
        Ok(self.outcome(Spent::default(), true))
    }

    /// The step was stopped: its records are closed as the reason demands.
    pub(super) async fn stopped(&mut self) -> Result<Outcome, EngineError> {
        let session = self.scene.session.id.clone();
        let error = match self.stop.reason() {
            Some(StopReason::Aborted { .. }) => MessageError::aborted(),
            Some(StopReason::Interrupted | StopReason::Frozen) => {
                let waiting = self.calls.settle_or_leave(self.run, Duration::from_millis(500)).await?;
                self.message.structured = self.structured().await;
                self.close_reasoning().await?;
                self.close_text().await?;
                // Whoever goes on counts it.
                self.show_spent();
                if !waiting {
                    self.put_patch().await?;
                    self.message.finish = Some("unknown".into());
                    self.message.time.completed = Some(self.engine().now_ms());
                }
                self.put_message().await?;
                return Ok(self.outcome(Spent::default(), false));
            }
            _ => {
                self.calls.drop_all();
                return Err(EngineError::Lost);
            }
        };
        self.run.publish(wire::event::session_error(&session, &error)).await;
        for entry in [wire::event::session_status(&session, &SessionStatus::Idle), wire::event::session_idle(&session)]
        {
            self.run.publish(entry).await;
        }
        self.close_reasoning().await?;
        self.close_text().await?;
        self.calls.settle_or_interrupt(self.run, Duration::from_millis(250)).await?;
        self.put_patch().await?;
        self.message.error = Some(error);
        self.message.time.completed = Some(self.engine().now_ms());
        self.put_message().await?;
        Ok(self.outcome(Spent::default(), false))
    }
}

/// Commits a part and publishes it.
pub(crate) async fn put_part(run: &Run, part: &Part) -> Result<(), EngineError> {
    put_parts(run, &[part]).await
}

async fn put_parts(run: &Run, parts: &[&Part]) -> Result<(), EngineError> {
    let writes: Result<_, EngineError> = parts.iter().map(|part| put(part)).collect();
    run.commit_lightly(writes?).await?;
    for part in parts {
        publish_part(run, part).await;
    }
    Ok(())
}

pub(super) fn put(part: &Part) -> Result<Write, EngineError> {
    Ok(Write::Put(Record::Part { message: part.message_id.clone(), id: part.id.clone() }, body(part)?))
}

pub(super) async fn publish_part(run: &Run, part: &Part) {
    let now = run.engine.now_ms();
    run.publish_record(part.id.as_str(), wire::event::part_updated(part, now)).await;
}

/// What a model call used.
pub(super) fn spent(model: &Model, usage: &Usage) -> Spent {
    let tokens = tokens(usage);
    Spent { cost: cost(model, &tokens), tokens }
}

/// OpenCode's count: input without the cached tokens, output without reasoning.
fn tokens(usage: &Usage) -> Tokens {
    Tokens {
        // A provider that tells nothing has no total.
        total: usage.total.or(Some(usage.input.saturating_add(usage.output)).filter(|sum| *sum > 0)),
        input: usage.input.saturating_sub(usage.cache_read).saturating_sub(usage.cache_write),
        output: usage.output.saturating_sub(usage.reasoning),
        reasoning: usage.reasoning,
        cache: CacheTokens { read: usage.cache_read, write: usage.cache_write },
    }
}

/// Dollars; reasoning costs what output costs.
fn cost(model: &Model, tokens: &Tokens) -> f64 {
    let context = tokens.input.saturating_add(tokens.cache.read).saturating_add(tokens.cache.write);
    let price = model.cost.over_200k.as_deref().filter(|_| context > 200_000).unwrap_or(&model.cost);
    let sum = tokens.input as f64 * price.input
        + tokens.output.saturating_add(tokens.reasoning) as f64 * price.output
        + tokens.cache.read as f64 * price.cache.read
        + tokens.cache.write as f64 * price.cache.write;
    // Summed in micro-dollars: what people read has no rounding noise.
    (sum * 1e3).round() / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_may_say_any_number() {
        let most = u64::MAX;
        let usage = Usage { input: most, output: most, reasoning: 1, cache_read: most, cache_write: most, total: None };
        let expected = Tokens {
            total: Some(most),
            input: 0,
            output: most - 1,
            reasoning: 1,
            cache: CacheTokens { read: most, write: most },
        };
        assert_eq!(tokens(&usage), expected);
    }
}
