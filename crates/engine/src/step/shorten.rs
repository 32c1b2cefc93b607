//! Steps that shorten a conversation, and those that find that it must be.

use super::{Outcome, Scene, Writing};
use crate::api::EngineError;
use crate::compaction::Compaction;
use crate::run::Run;
use crate::turn::Transcript;
use models::FinishReason;
use wire::message::{MessageError, UserMessage};
use wire::session::SessionStatus;

/// The scene of a summary: another agent makes it, with its own model if it has one.
pub(super) async fn scene(
    run: &Run,
    transcript: &Transcript,
    user: UserMessage,
) -> Result<Result<Scene, MessageError>, EngineError> {
    let mut scene = match super::scene(run, transcript, user).await? {
        Ok(scene) => scene,
        Err(error) => return Ok(Err(error)),
    };
    if let Some(agent) = scene.instance.agent(agents::agent::COMPACTION).cloned() {
        if let Some(own) = &agent.model {
            match scene.instance.model(&own.provider_id, &own.model_id) {
                Ok(model) => scene.model = model,
                Err(missing) => return Ok(Err(MessageError::unknown(missing.to_string()))),
            }
            scene.user.model.provider_id = own.provider_id.clone();
            scene.user.model.model_id = own.model_id.clone();
        }
        scene.agent = agent;
    }
    Ok(Ok(scene))
}

impl Writing<'_> {
    /// Makes the summary that the conversation goes on from.
    pub(super) async fn shorten(
        &mut self,
        request: models::ChatRequest,
        asked: &Compaction,
        first: bool,
    ) -> Result<Outcome, EngineError> {
        if !first {
            self.publish_status(&SessionStatus::Busy).await;
        }
        self.put_message().await?;
        let mut outcome = self.ask_model(request, false, None).await?;
        if self.message.finish.is_some() && self.message.error.is_none() && self.stop.reason().is_none() {
            if !matches!(self.message.finish.as_deref(), Some("stop" | "length")) {
                // Whatever the model wants beside: this is its summary.
                self.message.finish = Some(FinishReason::Stop.as_str().to_owned());
                self.put_message().await?;
            }
            if !asked.goes_on() {
                self.run.publish(wire::event::session_compacted(&self.scene.session.id)).await;
            }
            // What follows is seen by the next look at the conversation.
            outcome.ends_with = None;
        }
        Ok(outcome)
    }

    /// The conversation is too long for the model: the step is closed without an answer, the next one shortens.
    pub(super) async fn overflowed(&mut self, error: MessageError) -> Result<Outcome, EngineError> {
        self.run.publish(wire::event::session_error(&self.scene.session.id, &error)).await;
        self.calls.interrupt(self.run).await?;
        self.close_reasoning().await?;
        self.close_text().await?;
        self.message.time.completed = Some(self.engine().now_ms());
        self.put_message().await?;
        self.run.reserve().await?;
        let mut outcome = crate::compaction::ask(self.run, &self.scene.user, true).await?;
        outcome.message = Some(self.message.id.clone());
        Ok(outcome)
    }
}
