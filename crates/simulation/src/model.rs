//! A model that answers what it is asked from a script that the dice write: word by word, with pauses, once it has called as many
//! tools as are wanted.

use crate::acts::ACT;
use crate::dice::Dice;
use crate::mortal::Mortal;
use async_trait::async_trait;
use futures_util::stream;
use models::{
    ChatMessage, ChatRequest, FinishReason, ModelError, ModelEvent, ModelStream, Provider, Usage, UserContent,
};
use serde_json::json;
use std::sync::Arc;
use tokio::time::sleep;
use wire::clock::Entropy;

/// What every question begins with.
const QUESTION: &str = "question ";
/// What every answer begins with; what was asked follows.
pub(crate) const ANSWER: &str = "answer to ";

/// A question of a client's, and how many calls of tools its answer takes.
pub(crate) fn question(turn: u64, by: usize, calls: u64) -> String {
    let asked = format!("{QUESTION}{turn} of {by}");
    if calls == 0 { asked } else { format!("{asked} with {calls} calls") }
}

/// How many calls a question wants.
fn calls_in(question: &str) -> usize {
    let number = question.strip_suffix(" calls").and_then(|question| question.rsplit(' ').next()?.parse().ok());
    number.unwrap_or_default()
}

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
        let (asked, outcomes) = last_asked(&request);
        let said = match calls_in(asked).saturating_sub(outcomes) {
            0 => {
                let mut said = say(&format!("{ANSWER}{asked}"));
                said.push(ModelEvent::Finish { reason: FinishReason::Stop, usage: Usage::default() });
                said
            }
            missing => self.call(missing as u64),
        };
        // Now and then it takes longer than a silent replica is waited for.
        let slowest = if self.dice.chance(50) { 6_000 } else { 400 };
        let (who, dice) = (self.who.clone(), self.dice.clone());
        Ok(ModelStream::new(stream::unfold(said.into_iter(), move |mut said| {
            let (who, dice) = (who.clone(), dice.clone());
            async move {
                let event = said.next()?;
                if matches!(event, ModelEvent::TextDelta(_) | ModelEvent::ToolCallStart { .. }) {
                    sleep(dice.ms(0, slowest)).await;
                }
                who.goes_on().await;
                Some((Ok(event), said))
            }
        })))
    }
}

impl Script {
    /// Some of the calls that are missing.
    fn call(&self, missing: u64) -> Vec<ModelEvent> {
        let dice = &self.dice;
        let mut said = if dice.chance(500) { say("working on it") } else { Vec::new() };
        let calls = 1 + dice.below(missing) as u32;
        let ids: Vec<String> = (0..calls).map(|_| format!("call_{:016x}", dice.bits())).collect();
        for (index, id) in (0..).zip(&ids) {
            said.push(ModelEvent::ToolCallStart { index, id: id.clone(), name: ACT.into() });
        }
        for (index, id) in (0..).zip(ids) {
            let slowest = if dice.chance(100) { 9_000 } else { 800 };
            let on = ["this", "that", "all"][dice.below(3) as usize];
            let arguments = json!({
                "asks": dice.chance(600),
                "on": on,
                "reads": dice.chance(200),
                "before": dice.below(slowest),
                "after": dice.below(slowest),
                "fails": dice.chance(100),
            });
            let arguments = arguments.to_string();
            said.push(ModelEvent::ToolCallEnd { index, id, name: ACT.into(), arguments });
        }
        said.push(ModelEvent::Finish { reason: FinishReason::ToolCalls, usage: Usage::default() });
        said
    }
}

fn say(text: &str) -> Vec<ModelEvent> {
    let words = text.split_inclusive(' ').map(|word| ModelEvent::TextDelta(word.to_owned()));
    [ModelEvent::TextStart].into_iter().chain(words).chain([ModelEvent::TextEnd]).collect()
}

/// The newest question, and how many outcomes of calls follow it; what else is said in its place, such as that an answer broke
/// off, begins with other words.
fn last_asked(request: &ChatRequest) -> (&str, usize) {
    let mut outcomes = 0;
    for message in request.messages.iter().rev() {
        match message {
            ChatMessage::Tool { .. } => outcomes += 1,
            ChatMessage::User(contents) => {
                let text = contents.iter().find_map(|content| match content {
                    UserContent::Text(text) => Some(text.as_str()),
                    _ => None,
                });
                if let Some(question) = text.filter(|text| text.starts_with(QUESTION)) {
                    return (question, outcomes);
                }
            }
            _ => {}
        }
    }
    ("", outcomes)
}
