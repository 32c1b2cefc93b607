//! `flotilla import`: sessions that `opencode export` wrote, taken into the data directory.

use crate::settings::ImportSettings;
use crate::system::open_store;
use anyhow::{Context, anyhow, bail};
use run_protocol::Head;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use storage::{Imported, Record, StoreError, TenantStore};
use wire::message::Message;
use wire::part::Part;
use wire::session::Session;
use wire::tenant::Tenant;

/// A longer file is refused: all of it is held in memory.
const LARGEST: u64 = 1 << 30;

/// What `opencode export` writes.
#[derive(Deserialize)]
struct Document {
    info: Value,
    messages: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    info: Value,
    parts: Vec<Value>,
}

/// Records and what they hold.
type Records = Vec<(Record, Vec<u8>)>;

/// Takes in one file after the other, and says a line of each, also of those that cannot be taken in.
///
/// Errors: why the only file cannot be taken in, or how many of several.
pub fn run(settings: &ImportSettings, files: &[PathBuf]) -> anyhow::Result<()> {
    let store = open_store(&settings.data_dir, settings.durability.into())?.tenant(&Tenant::default());
    if let [file] = files {
        return take_in(&store, file);
    }
    let mut failed = 0;
    for file in files {
        if let Err(error) = take_in(&store, file) {
            eprintln!("flotilla: {}", format!("{error:#}").replace('\n', " "));
            failed += 1;
        }
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {} files were not taken in", files.len()),
    }
}

fn take_in(store: &TenantStore, file: &Path) -> anyhow::Result<()> {
    let shown = file.display();
    let document = read(file).with_context(|| shown.to_string())?;
    let (session, head, records) = records(document).with_context(|| shown.to_string())?;
    match store.import_session(&session.id, &head, &records) {
        Ok(Imported::New) => println!("{} imported: {}", session.id, session.title),
        Ok(Imported::Known) => println!("{} is here already", session.id),
        Err(StoreError::Exists) => {
            bail!("{shown}: {} is here with another content, or was deleted here", session.id)
        }
        Err(error) => return Err(anyhow!(error).context(shown.to_string())),
    }
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Document> {
    if std::fs::metadata(file)?.len() > LARGEST {
        bail!("it is longer than {LARGEST} bytes");
    }
    let bytes = std::fs::read(file)?;
    // Some editors put a mark before a text.
    let text = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    Ok(serde_json::from_slice(text)?)
}

/// The records of a document, as the store takes them: each as it stands in the file, with the fields that are not known
/// here.
fn records(document: Document) -> anyhow::Result<(Session, Head, Records)> {
    let session: Session = known(&document.info, "the session")?;
    let mut head = Head::new(session.project_id.clone());
    let mut records = Vec::new();
    let mut messages = Vec::new();
    let mut ids = HashSet::new();
    for entry in document.messages {
        let message: Message = known(&entry.info, "a message")?;
        let id = message.id().clone();
        if *message.session_id() != session.id {
            bail!("{id} belongs to another session");
        }
        if !ids.insert(id.to_string()) {
            bail!("{id} stands there twice");
        }
        head.clock = head.clock.max(message.created());
        for value in entry.parts {
            let part: Part = known(&value, "a part")?;
            if part.message_id != id || part.session_id != session.id {
                bail!("{} belongs to another message", part.id);
            }
            if !ids.insert(part.id.to_string()) {
                bail!("{} stands there twice", part.id);
            }
            records.push((Record::Part { message: id.clone(), id: part.id }, serde_json::to_vec(&value)?));
        }
        let record = Record::Message { session: session.id.clone(), id };
        messages.push((record, serde_json::to_vec(&entry.info)?));
    }
    records.append(&mut messages);
    let record = Record::Session { project: session.project_id.clone(), id: session.id.clone() };
    records.push((record, serde_json::to_vec(&document.info)?));
    Ok((session, head, records))
}

fn known<T: DeserializeOwned>(value: &Value, what: &str) -> anyhow::Result<T> {
    serde_json::from_value(value.clone()).with_context(|| format!("{what} cannot be understood"))
}
