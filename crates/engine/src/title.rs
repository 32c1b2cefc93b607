//! A session's title, asked of a small model beside the first step. A failure is silent: the default title stays.

use crate::commit::{Committer, Decision, body};
use crate::run::{Run, session_record};
use crate::step::{Scene, small_model};
use crate::trace;
use crate::turn::Transcript;
use models::{ChatMessage, ModelEvent, UserContent};
use run_protocol::RecordVersion;
use std::sync::Arc;
use std::time::Duration;
use storage::Write;
use tracing::Instrument;
use wire::part::PartKind;
use wire::session::is_default_title;

/// How long a title may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a text that a title is made of: nobody needs megabytes for that.
const READ: usize = 16 * 1024;
/// The longest title, in characters, and what a longer one is cut to.
const LONGEST: usize = 100;
const CUT: usize = 97;

/// Starts the task `title` if the session wants one: it has no parent, bears a default title, and this is its first
/// prompt. The task ends with the replica, not with the run.
pub(crate) fn spawn(run: &Run, scene: &Arc<Scene>, transcript: &Transcript) {
    let prompts = transcript.messages.iter().filter(|message| {
        let written =
            |part: &wire::part::Part| !matches!(&part.kind, PartKind::Text(text) if text.synthetic == Some(true));
        message.info.user().is_some() && message.parts.iter().any(written)
    });
    let wanted = scene.session.parent_id.is_none() && is_default_title(&scene.session.title) && prompts.count() == 1;
    let (Some(agent), Some(model)) = (scene.instance.agent(agents::agent::TITLE), small_model(scene)) else { return };
    if !wanted {
        return;
    }
    let mut messages = vec![ChatMessage::System(agent.prompt.clone().unwrap_or_default())];
    messages.push(ChatMessage::User(vec![UserContent::Text("Give this conversation a title:\n".into())]));
    for part in transcript.newest_user_parts() {
        if let PartKind::Text(text) = &part.kind {
            let text = text.text.get(..text.text.floor_char_boundary(READ)).unwrap_or_default();
            messages.push(ChatMessage::User(vec![UserContent::Text(text.to_owned())]));
        }
    }
    let mut request = crate::request::base_request(scene, &model, messages);
    let span = trace::model(&run.identity(), &mut request);
    let engine = run.engine.clone();
    let origin = crate::publish::Origin { fence: None, ..run.origin.clone() };
    let key = run.handle.key.clone();
    let provider = if model.demo { engine.0.demo.clone() } else { engine.0.provider.clone() };
    let ended = engine.0.stopped.clone();
    engine.0.tasks.clone().spawn(async move {
        let text = tokio::select! {
            biased;
            text = tokio::time::timeout(PATIENCE, answer(provider, request).instrument(span.clone())) => text,
            () = ended.cancelled() => return,
        };
        match &text {
            Ok(Some(_)) => trace::end(&span, "stop"),
            Ok(None) | Err(_) => trace::fail(&span, "failed"),
        }
        drop(span);
        let Ok(Some(title)) = text.map(|text| text.as_deref().and_then(clean)) else { return };
        let given = engine.head_commit(&key, Committer::Request, move |_, at| {
            let mut session = at.session()?;
            if !is_default_title(&session.title) {
                return Ok(Decision::Leave(None));
            }
            session.title = title.clone();
            let write = Write::Put(session_record(&session), body(&session)?);
            Ok(Decision::Write(vec![write], Some(session)))
        });
        match given.await {
            Ok((head, Some(session))) => {
                let version = (session.id.to_string(), RecordVersion::head(head.rev));
                engine.publish(&origin, wire::event::session_updated(&session), Some(version)).await;
            }
            Ok((_, None)) => {}
            Err(error) => tracing::info!(session = %key.session, %error, "a title was not stored"),
        }
    });
}

async fn answer(provider: Arc<dyn models::Provider>, request: models::ChatRequest) -> Option<String> {
    for attempt in 1..=3 {
        match answer_once(&*provider, request.clone()).await {
            Ok(text) => return Some(text),
            Err(error) if error.is_retryable() && attempt < 3 => {
                tokio::time::sleep(models::retry_delay(attempt, &error, 0)).await;
            }
            Err(_) => return None,
        }
    }
    None
}

async fn answer_once(
    provider: &dyn models::Provider,
    request: models::ChatRequest,
) -> Result<String, models::ModelError> {
    let mut stream = provider.stream(request).await?;
    let mut text = String::new();
    while let Some(event) = stream.next().await {
        if let ModelEvent::TextDelta(delta) = event? {
            text.push_str(&delta);
        }
    }
    Ok(text)
}

/// The first line that says something, without what the model thought aloud.
fn clean(text: &str) -> Option<String> {
    let mut rest = text;
    let mut said = String::new();
    while let Some((before, after)) = rest.split_once("<think>") {
        said.push_str(before);
        rest = after.split_once("</think>").map_or("", |(_, after)| after);
    }
    said.push_str(rest);
    let line = said.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(if line.chars().count() > LONGEST {
        line.chars().take(CUT).chain("...".chars()).collect()
    } else {
        line.to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn a_title_is_the_first_line_that_says_something() {
        assert_eq!(clean("<think>hm\nhm</think>\n\n \"Greeting\" \nmore").as_deref(), Some("\"Greeting\""));
        assert_eq!(clean(" \n"), None);
        let long = clean(&"x".repeat(101)).unwrap();
        assert_eq!(long.len(), 100);
        assert!(long.ends_with("..."));
    }
}
