//! What a run tells readers of events in the place of others.

use super::Transcript;
use crate::api::EngineError;
use crate::feed::Feed;
use crate::run::Run;
use run_protocol::TicketKind;
use std::sync::Arc;
use wire::message::{Message, MessageWithParts};

impl Transcript {
    /// Tells what others stored and could not tell any more, since they died or were cut off: the prompts and the ended
    /// answers after the first message that readers were told of lately, the prompts whose answers they were told of, and what
    /// this run goes on with. What others told just now is read before, if there `may_be` anything untold.
    pub(crate) async fn tell_untold(&self, run: &Run, may_be: bool) -> Result<(), EngineError> {
        let key = &run.handle.key;
        let feed = run.engine.feed(&key.tenant).await?;
        if !may_be && self.untold(run, &feed).is_empty() {
            return Ok(());
        }
        run.engine.catch_up(&key.tenant).await;
        for message in self.untold(run, &feed) {
            // What is told by another meanwhile is not told again: its version is a head commit's.
            let whole = wire::event::message_updated(&message.info);
            let id = message.info.id().as_str();
            match &message.info {
                Message::User(_) => {
                    run.publish_record(id, whole).await;
                    self.tell_parts(run, message).await;
                }
                Message::Assistant(_) => {
                    self.tell_parts(run, message).await;
                    run.publish_record(id, whole).await;
                }
            }
        }
        Ok(())
    }

    /// What readers of this replica were not told, as far as it is known.
    fn untold(&self, run: &Run, feed: &Feed) -> Vec<&Arc<MessageWithParts>> {
        let heard = feed.heard(&run.handle.key.session);
        let first = self.messages.iter().position(|message| heard.knows(message.info.id()));
        let answers = self.messages.iter().filter_map(|message| message.info.assistant());
        let answered: Vec<_> =
            answers.filter(|answer| heard.knows(&answer.id)).map(|answer| &answer.parent_id).collect();
        let is_untold = |(index, message): &(usize, &Arc<MessageWithParts>)| {
            let is_known = first.is_some_and(|first| *index >= first);
            let may_be_untold = match &message.info {
                Message::User(_) if self.waits_for_its_command(message) => false,
                Message::User(user) => {
                    is_known || answered.contains(&&user.id) || run.goes_on && self.is_unanswered(message)
                }
                Message::Assistant(answer) => answer.time.completed.is_some() && (is_known || heard.waits_for(message)),
            };
            may_be_untold && heard.misses(message)
        };
        self.messages.iter().enumerate().filter(is_untold).map(|(_, message)| message).collect()
    }

    /// The prompts that this conversation answers.
    pub(crate) fn prompts(&self) -> impl Iterator<Item = &Arc<MessageWithParts>> {
        self.messages.iter().filter(|message| self.tickets.contains_key(message.info.id()))
    }

    async fn tell_parts(&self, run: &Run, message: &MessageWithParts) {
        for part in &message.parts {
            run.publish_record(part.id.as_str(), wire::event::part_updated(part, run.engine.now_ms())).await;
        }
    }

    /// True for what a person wants run and nobody has: whoever runs it tells it, as OpenCode does.
    fn waits_for_its_command(&self, message: &MessageWithParts) -> bool {
        let ticket = self.tickets.get(message.info.id());
        ticket.is_some_and(|ticket| ticket.kind == TicketKind::Shell) && self.is_unanswered(message)
    }

    /// True for a prompt with a ticket to which there is no answer.
    fn is_unanswered(&self, message: &MessageWithParts) -> bool {
        let id = message.info.id();
        self.tickets.contains_key(id) && self.answer_to(id).is_none()
    }
}
