//! Commands: templates that become prompts.

use crate::api::{Accepted, Command, EngineError, Prompt, Scope, TicketRef};
use crate::by_user::ByUser;
use crate::engine::Engine;
use agents::{AgentMode, Instance, ModelRef};
use coordination::SessionKey;
use run_protocol::RecordVersion;
use serde_json::json;
use std::path::{Path, PathBuf};
use tracing::Instrument;
use wire::ids::{PartId, SessionId};
use wire::message::{MessageError, UserModel};
use wire::part::{FilePart, PartKind, TextPart};
use wire::session::Session;
use wire::tenant::Tenant;

/// How long a command in a template may take, in milliseconds.
const PATIENCE_MS: u64 = 120_000;
/// References in one template that are looked up.
const MOST_REFERENCES: usize = 100;

impl Engine {
    /// Prompts with what a command's template says, and tells when it was carried out. Durable when it returns; sent again
    /// under the same name or message id it joins what it stored.
    ///
    /// Errors: `Unknown` when there is no such command, agent or model, which the events tell, too; those of
    /// [`Engine::prompt`].
    pub async fn command(&self, tenant: &Tenant, id: &SessionId, command: Command) -> Result<TicketRef, EngineError> {
        let session = self.session(tenant, id).await?;
        let key = SessionKey::new(tenant.clone(), id.clone());
        let scope = Scope { tenant: tenant.clone(), directory: session.directory.clone().into() };
        let instance = self.instance(&scope).await?;
        let (name, arguments) = (command.command.clone(), command.arguments.clone());
        let skeleton = Prompt {
            message_id: command.message_id.clone(),
            variant: command.variant.clone(),
            body_hash: command.body_hash.clone(),
            name: command.name.clone(),
            ..Prompt::default()
        };
        // Sent again, the commands in the template do not run again.
        let ticket = match self.stored_before(&key, &skeleton).await? {
            Some(ticket) => ticket,
            None => {
                let prompt = self.expand_command(&key, &session, &instance, command, skeleton).await?;
                match self.prompt(tenant, id, prompt).await? {
                    Accepted::Ticket(ticket) => ticket,
                    Accepted::Stored(message) => {
                        return Err(EngineError::Conflict(format!("{} asks for no answer", message.info.id())));
                    }
                }
            }
        };
        let (engine, told) = (self.clone(), ticket.clone());
        let tell = async move {
            let Ok(answer) = engine.wait(&told).await else { return };
            let happened = wire::event::command_executed(&name, &told.session, &arguments, answer.info.id());
            // Whoever waits tells it; it is published once.
            let version = (format!("{} executed", told.message), RecordVersion::head(0));
            engine.publish(&engine.origin(&key, &session, None), happened, Some(version)).await;
        };
        self.0.tasks.spawn(tell.in_current_span());
        Ok(ticket)
    }

    async fn expand_command(
        &self,
        key: &SessionKey,
        session: &Session,
        instance: &Instance,
        asked: Command,
        skeleton: Prompt,
    ) -> Result<Prompt, EngineError> {
        let Some(command) = instance.command(&asked.command) else {
            let names: Vec<&str> = instance.commands.iter().map(|command| command.name.as_str()).collect();
            let message = format!("Command not found: \"{}\". Available commands: {}", asked.command, names.join(", "));
            return Err(self.refuse(key, session, message).await);
        };
        let agent = command.agent.clone().or(asked.agent.clone()).unwrap_or_else(|| instance.default_agent.clone());
        let Some(known) = instance.agent(&agent) else {
            return Err(self.refuse_agent(&key.tenant, session, instance, &agent).await);
        };
        let own = command.model.as_deref().map(ModelRef::parse).or_else(|| known.model.clone());
        let model = own.or_else(|| asked.model.as_deref().map(ModelRef::parse));
        if let Some(model) = &model
            && let Err(missing) = instance.model(&model.provider_id, &model.model_id)
        {
            return Err(self.refuse(key, session, missing.to_string()).await);
        }
        let model = model.map(|model| UserModel {
            provider_id: model.provider_id,
            model_id: model.model_id,
            variant: command.variant.clone(),
        });
        let by = ByUser { engine: self, key, session, instance, rules: None };
        let text = agents::commands::expand(&command.template, &asked.arguments);
        let text = run_commands(&by, &text).await.trim().to_owned();
        let as_subtask = match command.subtask {
            Some(wanted) => wanted,
            None => known.mode == AgentMode::Subagent,
        };
        let mut parts: Vec<(Option<PartId>, PartKind)> = Vec::new();
        if as_subtask {
            let mut subtask = json!({
                "type": "subtask", "agent": agent, "prompt": text, "command": command.name,
                "description": command.description.clone().unwrap_or_default(),
            });
            let of_task = Prompt { model: model.clone(), ..Prompt::default() };
            let of_task = self.choose_model(instance, &agent, session, &of_task)?;
            subtask["model"] = json!({ "providerID": of_task.provider_id, "modelID": of_task.model_id });
            let kind = serde_json::from_value(subtask).map_err(|error| EngineError::Store(error.to_string()))?;
            parts.push((None, kind));
        } else {
            parts.push((None, PartKind::Text(TextPart { text: text.clone(), ..TextPart::default() })));
            parts.extend(references(instance, &text).await.into_iter().map(|kind| (None, kind)));
        }
        parts.extend(asked.parts);
        // A subtask is asked for by the agent of the conversation.
        let agent = if as_subtask { asked.agent } else { Some(agent) };
        Ok(Prompt { agent, model, parts, ..skeleton })
    }

    /// Tells that a request cannot be carried out at all.
    pub(crate) async fn refuse(&self, key: &SessionKey, session: &Session, message: String) -> EngineError {
        let error = MessageError::unknown(message.clone());
        let happened = wire::event::session_error(&session.id, &error);
        self.publish(&self.origin(key, session, None), happened, None).await;
        EngineError::Unknown(message)
    }
}

/// The text with each !`command` replaced by what it prints.
async fn run_commands(by: &ByUser<'_>, text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, command, after)) = next_command(rest) {
        result.push_str(before);
        let input = json!({ "command": command, "timeout": PATIENCE_MS });
        match by.run("bash", input).await {
            Ok(output) if output.output == "(no output)" => {}
            Ok(output) => result.push_str(&output.output),
            Err(error) => result.push_str(&error.to_string()),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}

/// What stands before the next !`command`, the command, and what follows.
fn next_command(text: &str) -> Option<(&str, &str, &str)> {
    let mut from = 0;
    loop {
        let start = from + text[from..].find("!`")?;
        let body = &text[start + 2..];
        let end = body.find('`')?;
        if end > 0 {
            return Some((&text[..start], &body[..end], &body[end + 1..]));
        }
        from = start + 2;
    }
}

/// The parts that the `@` references in a text stand for: files and directories of the work tree, else agents.
async fn references(instance: &Instance, text: &str) -> Vec<PartKind> {
    let mut parts = Vec::new();
    for name in referred(text).into_iter().take(MOST_REFERENCES) {
        let path = located(&instance.worktree, name);
        match tokio::fs::metadata(&path).await {
            Ok(metadata) => {
                let mime = if metadata.is_dir() { "application/x-directory" } else { "text/plain" };
                parts.push(PartKind::File(FilePart {
                    mime: mime.into(),
                    filename: Some(name.to_owned()),
                    url: file_url(&path),
                    extra: wire::Extra::new(),
                }));
            }
            Err(_) if instance.agent(name).is_some() => {
                parts.extend(serde_json::from_value(json!({ "type": "agent", "name": name })));
            }
            Err(_) => {}
        }
    }
    parts
}

fn located(worktree: &Path, name: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for component in worktree.join(name).components() {
        match component {
            std::path::Component::ParentDir => drop(path.pop()),
            std::path::Component::CurDir => {}
            other => path.push(other),
        }
    }
    path
}

fn file_url(path: &Path) -> String {
    // What stands in a path as it is; everything else would be taken for a query, or for another character.
    const KEPT: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    format!("file://{}", percent_encoding::utf8_percent_encode(&path.to_string_lossy(), KEPT))
}

/// The names that stand behind an `@`, each once: to the next space, back-tick, comma or dot at a word's end.
fn referred(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in text.match_indices('@') {
        let follows_word = text[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '`');
        if follows_word {
            continue;
        }
        let rest = &text[at + 1..];
        let end = rest.find(|c: char| c.is_whitespace() || c == '`' || c == ',').unwrap_or(rest.len());
        let name = rest[..end].trim_end_matches('.');
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_end_where_a_word_does() {
        assert_eq!(referred("see @README.md, @src/lib.rs. mail a@b.c `@no` @README.md"), ["README.md", "src/lib.rs"]);
        assert_eq!(referred("@.env @../x @"), [".env", "../x"]);
    }

    #[test]
    fn commands_stand_in_back_ticks() {
        assert_eq!(next_command("a !`echo x` b"), Some(("a ", "echo x", " b")));
        assert_eq!(next_command("!`` !`y`"), Some(("!`` ", "y", "")));
        assert_eq!(next_command("`echo x` !x"), None);
    }
}
