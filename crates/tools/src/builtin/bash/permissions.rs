//! What a command needs to be allowed.

use crate::bash_commands::{self, SimpleCommand};
use crate::{Ask, Call, ToolError, paths};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Asks for the directories that the command goes to, then for its simple commands.
pub(super) async fn ask(call: &Call, command: &str, cwd: &Path) -> Result<(), ToolError> {
    let text = command.to_owned();
    let commands = tokio::task::spawn_blocking(move || bash_commands::commands(&text)).await;
    let Some(commands) = commands.ok().flatten() else {
        return Err(ToolError::Failed("The command is too long to be checked; put it into a script.".into()));
    };
    ask_for_directories(call, command, cwd, &commands).await?;

    let asked = || commands.iter().filter(|command| !command.is_cd());
    let patterns = unique(asked().map(|command| command.text.clone()));
    if patterns.is_empty() {
        return Ok(());
    }
    call.host
        .ask(Ask {
            permission: "bash".into(),
            patterns,
            always: unique(asked().map(SimpleCommand::always)),
            metadata: json!({ "command": command }),
        })
        .await
}

async fn ask_for_directories(
    call: &Call,
    command: &str,
    cwd: &Path,
    commands: &[SimpleCommand],
) -> Result<(), ToolError> {
    let home = call.settings.env.get("HOME").and_then(|home| home.to_str()).unwrap_or("/");
    let named = commands.iter().flat_map(|command| command.paths(home));
    let targets = named.map(|path| paths::normalized(&cwd.join(path))).chain([cwd.to_owned()]);
    let mut directories: Vec<PathBuf> = Vec::new();
    for target in targets {
        let real = paths::real(target.clone()).await?;
        for outside in paths::outside(call, [&target, &real]).await? {
            let is_directory = tokio::fs::metadata(outside).await.is_ok_and(|metadata| metadata.is_dir());
            let directory = if is_directory { outside } else { outside.parent().unwrap_or(outside) };
            if !directories.iter().any(|known| known == directory) {
                directories.push(directory.into());
            }
        }
    }
    if directories.is_empty() {
        return Ok(());
    }
    let patterns: Vec<String> = directories.iter().map(|directory| paths::below(directory)).collect();
    call.host
        .ask(Ask {
            permission: "external_directory".into(),
            always: patterns.clone(),
            metadata: json!({ "command": command, "directories": directories, "patterns": patterns }),
            patterns,
        })
        .await
}

/// Each once, in the order of their first.
fn unique(texts: impl Iterator<Item = String>) -> Vec<String> {
    let mut unique = Vec::new();
    for text in texts {
        if !unique.contains(&text) {
            unique.push(text);
        }
    }
    unique
}
