//! A session with very many messages, made as files: copies of what a prompt has left in the store.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::subject::Subject;

/// Makes a session with about so many messages and returns its id. The replicas are started again, so that they know
/// only the files.
pub async fn make(subject: &mut Subject, messages: usize) -> Result<String> {
    let mut to = subject.connections();
    let session = to.create_session().await?;
    to.prompt(&session).await?;
    let storage = subject.data_dir().join("storage");
    let directory = storage.join("message").join(&session);
    let mut originals = Vec::new();
    for name in names(&directory)? {
        let id = name.trim_end_matches(".json").to_string();
        let record: serde_json::Value = serde_json::from_slice(&fs::read(directory.join(&name))?)?;
        let created = record["time"]["created"].as_u64().context("a message has a time")?;
        let parts = storage.join("part").join(&id);
        let texts: Result<Vec<(String, String)>> =
            names(&parts)?.into_iter().map(|name| Ok((name.clone(), fs::read_to_string(parts.join(&name))?))).collect();
        originals.push((id, created, fs::read_to_string(directory.join(&name))?, texts?));
    }
    // Several such sessions may be made: no two have copies of one name.
    let own = &session[session.len().saturating_sub(8)..];
    for number in originals.len()..messages {
        let place = number % originals.len();
        let (_, created, text, parts) = &originals[place];
        // Older than the originals, so that these stay the newest.
        let older = created - 2 * (messages - number) as u64;
        let copy = |place: usize| format!("msg_{own}{:08}", number - number % originals.len() + place);
        // An answer names its prompt: that of the same turn.
        let adapted = |text: &str| {
            let text = text.replace(&created.to_string(), &older.to_string());
            originals.iter().enumerate().fold(text, |text, (place, (id, ..))| text.replace(id.as_str(), &copy(place)))
        };
        fs::write(directory.join(format!("{}.json", copy(place))), adapted(text))?;
        let directory = storage.join("part").join(copy(place));
        fs::create_dir(&directory)?;
        for (name, text) in parts {
            let part = name.trim_end_matches(".json");
            let new = format!("{part}x{number}");
            fs::write(directory.join(format!("{new}.json")), adapted(text).replace(part, &new))?;
        }
    }
    subject.start_again().await;
    Ok(session)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("{}", directory.display()))?;
    let mut names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}
