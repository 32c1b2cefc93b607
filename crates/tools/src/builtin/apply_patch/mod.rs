//! `apply_patch`: changes several files by one patch.

mod apply;
mod parse;

use crate::patch::Patch;
use crate::paths::Target;
use crate::{Ask, Call, Output, Tool, ToolError, Writes, arguments, replace};
use async_trait::async_trait;
use parse::Change;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use wire::event::{file_edited, file_watcher_updated};

/// The tool `apply_patch`.
pub(crate) struct ApplyPatch;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arguments {
    patch_text: String,
}

/// A change, and where its paths lead.
struct Located {
    change: Change,
    target: Target,
    to: Option<Target>,
}

/// What becomes of a file.
struct Planned<'a> {
    located: &'a Located,
    /// Its text, `None` if it goes away.
    new: Option<String>,
    /// The file that gets the text was there before.
    existed: bool,
    patch: Patch,
}

#[async_trait]
impl Tool for ApplyPatch {
    fn name(&self) -> &'static str {
        "apply_patch"
    }

    fn description(&self) -> String {
        "Changes files by a patch. Nothing is changed unless all of it fits.\n\
         The patch begins with the line `*** Begin Patch` and ends with `*** End Patch`. Between them each file has a \
         section:\n\
         - `*** Add File: PATH`, then each line of its content behind a `+`;\n\
         - `*** Delete File: PATH`, with nothing below it;\n\
         - `*** Update File: PATH`, then optionally `*** Move to: PATH`, then the changes. A change begins with `@@`, \
         which may be followed by a line of the file above it that tells places apart. Lines that stay begin with a \
         space, lines that go with `-`, lines that come with `+`. Give about three lines that stay around each \
         change.\n\
         For example:\n\
         *** Begin Patch\n\
         *** Update File: src/app.py\n\
         @@ def greet():\n\
         -    print(\"Hi\")\n\
         +    print(\"Hello\")\n\
         *** End Patch"
            .into()
    }

    fn parameters(&self) -> Value {
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": { "patchText": { "type": "string", "description": "The whole patch" } },
            "required": ["patchText"],
        })
    }

    fn writes(&self) -> Writes {
        Writes::Locked
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let Arguments { patch_text } = arguments::parse(self.name(), input)?;
        let mut changes = Vec::new();
        for change in parse::parse(&patch_text).map_err(refused)? {
            changes.push(Located::find(call, change).await?);
        }
        let planned = plan(&changes).await?;
        ask(call, &planned).await?;

        call.host.begin().await?;
        // As with `edit`, what is changed is what is there now. All files are locked, always in the same order, so that
        // two patches cannot wait for each other, and nothing is written before everything is known to fit.
        let mut locks = Vec::new();
        for path in changes.iter().flat_map(Located::real_paths).collect::<BTreeSet<&Path>>() {
            locks.push(call.host.file_lock(path).await?);
        }
        let planned = plan(&changes).await?;
        let mut done: Vec<String> = Vec::new();
        for one in &planned {
            if let Err(error) = one.write(call).await {
                return Err(match (error, done.is_empty()) {
                    (ToolError::Failed(text), false) => {
                        ToolError::Failed(format!("{text}\nThese were changed before:\n{}", done.join("\n")))
                    }
                    (error, _) => error,
                });
            }
            done.push(one.line(call));
        }
        drop(locks);
        publish(call, &planned).await;
        let output = format!("Success. Updated the following files:\n{}", done.join("\n"));
        let metadata = json!({ "diff": diff(&planned), "files": files(call, &planned), "diagnostics": {} });
        Ok(Output { title: output.clone(), output, metadata, attachments: None })
    }
}

fn refused(text: String) -> ToolError {
    ToolError::Failed(format!("apply_patch verification failed: {text}"))
}

impl Located {
    /// Finds the paths of a change, and asks for those that lie outside.
    async fn find(call: &Call, change: Change) -> Result<Self, ToolError> {
        let (path, to) = match &change {
            Change::Add { path, .. } | Change::Delete { path } => (path, None),
            Change::Update { path, to, .. } => (path, to.as_ref()),
        };
        let target = Target::locate(call, path).await?;
        target.ask_if_external(call, false).await?;
        let to = match to {
            Some(to) => {
                let to = Target::locate(call, to).await?;
                to.ask_if_external(call, false).await?;
                // To itself is nowhere.
                Some(to).filter(|to| to.real != target.real)
            }
            None => None,
        };
        Ok(Self { change, target, to })
    }

    /// Where the new text goes.
    fn destination(&self) -> &Target {
        self.to.as_ref().unwrap_or(&self.target)
    }

    fn real_paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.target), self.to.as_ref()].into_iter().flatten().map(|target| target.real.as_path())
    }
}

/// What the changes make of the files as they are now, one after the other: a file may be changed twice.
async fn plan(changes: &[Located]) -> Result<Vec<Planned<'_>>, ToolError> {
    let mut texts: HashMap<PathBuf, Option<String>> = HashMap::new();
    for path in changes.iter().flat_map(Located::real_paths) {
        if !texts.contains_key(path) {
            texts.insert(path.to_owned(), replace::read_text(path).await.map_err(|error| refused(error.to_string()))?);
        }
    }
    let mut planned = Vec::new();
    for located in changes {
        let (target, destination) = (&located.target, located.destination());
        let old = texts.get(&target.real).cloned().flatten();
        let missing = || refused(format!("{} is not there.", target.shown.display()));
        let new =
            match &located.change {
                Change::Add { content, .. } => Some(content.clone()),
                Change::Delete { .. } => old.as_ref().map(|_| None).ok_or_else(missing)?,
                Change::Update { chunks, .. } => {
                    let applied = apply::apply(old.as_deref().ok_or_else(missing)?, chunks);
                    Some(applied.map_err(|lines| {
                        refused(format!("These lines are not in {}:\n{lines}", target.shown.display()))
                    })?)
                }
            };
        let patch =
            Patch::between(&target.shown, old.as_deref().unwrap_or_default(), new.as_deref().unwrap_or_default());
        let existed = texts.get(&destination.real).is_some_and(Option::is_some);
        if located.to.is_some() {
            texts.insert(target.real.clone(), None);
        }
        texts.insert(destination.real.clone(), new.clone());
        planned.push(Planned { located, new, existed, patch });
    }
    Ok(planned)
}

async fn ask(call: &Call, planned: &[Planned<'_>]) -> Result<(), ToolError> {
    let (mut patterns, mut names) = (Vec::new(), Vec::new());
    for located in planned.iter().map(|one| one.located) {
        names.push(located.target.relative(call));
        for target in [Some(&located.target), located.to.as_ref()].into_iter().flatten() {
            for pattern in target.patterns(call).await? {
                if !patterns.contains(&pattern) {
                    patterns.push(pattern);
                }
            }
        }
    }
    let metadata = json!({ "filepath": names.join(", "), "diff": diff(planned), "files": files(call, planned) });
    call.host.ask(Ask { permission: "edit".into(), patterns, always: vec!["*".into()], metadata }).await
}

async fn publish(call: &Call, planned: &[Planned<'_>]) {
    let shown = |target: &Target| target.shown.display().to_string();
    for one in planned.iter().filter(|one| one.new.is_some()) {
        call.host.publish(file_edited(&shown(one.located.destination()))).await;
    }
    for one in planned {
        let located = one.located;
        if one.new.is_none() || located.to.is_some() {
            call.host.publish(file_watcher_updated(&shown(&located.target), "unlink")).await;
        }
        if one.new.is_some() {
            let event = if one.existed { "change" } else { "add" };
            call.host.publish(file_watcher_updated(&shown(located.destination()), event)).await;
        }
    }
}

impl Planned<'_> {
    async fn write(&self, call: &Call) -> Result<(), ToolError> {
        let Located { target, to, .. } = self.located;
        if let Some(text) = &self.new {
            let unique = call.host.new_output_id();
            replace::write_text(&self.located.destination().real, text.clone(), unique.as_str()).await?;
        }
        if self.new.is_none() || to.is_some() { replace::remove(&target.real).await } else { Ok(()) }
    }

    /// What became of it, for the model.
    fn line(&self, call: &Call) -> String {
        let letter = match self.located.change {
            Change::Add { .. } => 'A',
            Change::Delete { .. } => 'D',
            Change::Update { .. } => 'M',
        };
        format!("{letter} {}", self.located.destination().relative(call))
    }
}

fn diff(planned: &[Planned<'_>]) -> String {
    planned.iter().map(|one| format!("{}\n", one.patch.text)).collect()
}

fn files(call: &Call, planned: &[Planned<'_>]) -> Vec<Value> {
    let file = |one: &Planned<'_>| {
        let Located { change, target, to } = one.located;
        let kind = match change {
            Change::Add { .. } => "add",
            Change::Delete { .. } => "delete",
            Change::Update { .. } if to.is_some() => "move",
            Change::Update { .. } => "update",
        };
        let mut file = json!({
            "filePath": target.shown,
            "relativePath": one.located.destination().relative(call),
            "type": kind,
            "patch": one.patch.text,
            "additions": one.patch.additions,
            "deletions": one.patch.deletions,
        });
        if let Some(to) = to {
            file["movePath"] = json!(to.shown);
        }
        file
    };
    planned.iter().map(file).collect()
}
