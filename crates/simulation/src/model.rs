//! A model that answers what it is asked from a script that the dice write: word by word, with pauses.

use crate::dice::Dice;
use crate::mortal::Mortal;
use async_trait::async_trait;
use futures_util::stream;
use models::{
    ChatMessage, ChatRequest, FinishReason, ModelError, ModelEvent, ModelStream, Provider, Usage, UserContent,
};
use std::sync::Arc;
use tokio::time::sleep;

/// What every question begins with.
pub(crate) const QUESTION: &str = "question ";
/// What every answer begins with; what was asked follows.
pub(crate) const ANSWER: &str = "answer to ";

/// The model, as one replica reaches it.
pub(crate) struct Script {
    pub who: Arc<Mortal>,
    pub dice: Arc<Dice>,
}

#[async_trait]
impl Provider for Script {
    async fn stream(&self, request: ChatRequest) -> Result<ModelStream, ModelError> {
        self.who.goes_on().await;
        sleep(self.dice.ms(0, 300)).await;
        if self.dice.chance(30) {
            return Err(ModelError::Cut { url: "the script".into() });
        }
        let mut said: Vec<ModelEvent> = vec![ModelEvent::TextStart];
        let text = format!("{ANSWER}{}", last_asked(&request));
        said.extend(text.split_inclusive(' ').map(|word| ModelEvent::TextDelta(word.to_owned())));
        said.push(ModelEvent::TextEnd);
        said.push(ModelEvent::Finish { reason: FinishReason::Stop, usage: Usage::default() });
        // Now and then it takes longer than a silent replica is waited for.
        let slowest = if self.dice.chance(50) { 6_000 } else { 400 };
        let (who, dice) = (self.who.clone(), self.dice.clone());
        Ok(ModelStream::new(stream::unfold(said.into_iter(), move |mut said| {
            let (who, dice) = (who.clone(), dice.clone());
            async move {
                let event = said.next()?;
                if matches!(event, ModelEvent::TextDelta(_)) {
                    sleep(dice.ms(0, slowest)).await;
                }
                who.goes_on().await;
                Some((Ok(event), said))
            }
        })))
    }
}

/// The newest question; what else is said in its place, such as that an answer broke off, begins with other words.
fn last_asked(request: &ChatRequest) -> &str {
    let texts = request.messages.iter().rev().filter_map(|message| match message {
        ChatMessage::User(contents) => contents.iter().find_map(|content| match content {
            UserContent::Text(text) => Some(text.as_str()),
            _ => None,
        }),
        _ => None,
    });
    texts.into_iter().find(|text| text.starts_with(QUESTION)).unwrap_or_default()
}
