//! The wait between two attempts of a step whose model failed.

use super::{Outcome, Writing};
use crate::api::EngineError;
use crate::commit::Decision;
use crate::run::StopReason;
use models::ModelError;
use run_protocol::{Retry, Spent};
use std::time::Duration;
use wire::message::MessageError;
use wire::session::SessionStatus;

impl Writing<'_> {
    /// The wait before the next attempt.
    pub(super) fn retry(&self, attempt: u32, error: &ModelError) -> Retry {
        let delay = models::retry_delay(attempt, error, self.engine().0.ids.bits());
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        let message = error.to_message_error().data["message"].as_str().unwrap_or_default().to_owned();
        Retry { attempt, message, delay, next: self.engine().now_ms().saturating_add(delay) }
    }

    /// Leaves what a failed attempt wrote as it is, and notes the wait for whoever may have to go on with it.
    pub(super) async fn leave_attempt(&mut self, retry: &Retry) -> Result<(), EngineError> {
        // The next attempt begins new parts in the same message.
        self.text = None;
        self.reasoning = None;
        self.calls.interrupt(self.run).await?;
        let noted = retry.clone();
        let noted = self.run.head_commit(move |head, _| {
            head.retry = Some(noted.clone());
            Ok(Decision::Write(Vec::new(), ()))
        });
        noted.await?;
        self.show_retry(retry).await;
        Ok(())
    }

    pub(super) async fn show_retry(&self, retry: &Retry) {
        let Retry { attempt, message, next, .. } = retry.clone();
        self.publish_status(&SessionStatus::Retry { attempt, message, next }).await;
    }

    /// Waits before the next attempt. False: the step was stopped. A stopping replica does not wait: another one does.
    pub(super) async fn wait_to_retry(&mut self, retry: &Retry) -> bool {
        let left = Duration::from_millis(retry.left(self.engine().now_ms()));
        tokio::select! {
            biased;
            () = self.stop.token.cancelled() => false,
            () = tokio::time::sleep(left) => true,
            () = self.engine().0.draining.cancelled() => {
                self.stop.stop(StopReason::Interrupted);
                false
            }
        }
    }

    /// An abort while waiting for a retry completes the message without an error; a summary's with one, else the next prompt
    /// would make it first. A message in which nothing stands is left to whoever goes on.
    pub(super) async fn stopped_while_waiting(&mut self) -> Result<Outcome, EngineError> {
        match self.stop.reason() {
            Some(StopReason::Aborted { .. }) => {
                self.message.error = self.message.summary.is_some().then(MessageError::aborted);
                self.message.time.completed = Some(self.engine().now_ms());
                self.put_message().await?;
                Ok(self.outcome(Spent::default(), false))
            }
            Some(StopReason::Interrupted | StopReason::Frozen) if !self.begun => {
                Ok(self.outcome(Spent::default(), false))
            }
            _ => self.stopped().await,
        }
    }
}
