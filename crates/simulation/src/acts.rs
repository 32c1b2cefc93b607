//! A tool that takes its time and has an effect, which is kept outside of the store.

use crate::mortal::Mortal;
use crate::trace::Trace;
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::sleep;
use tools::{Ask, Call, Output, Tool, ToolError, Writes};

/// The tool's name, and that of the permission that it asks for.
pub(crate) const ACT: &str = "act";

/// All effects that the tool had.
#[derive(Default)]
pub(crate) struct Acts {
    by_call: Mutex<BTreeMap<String, Vec<u64>>>,
}

impl Acts {
    fn take_effect(&self, call: &str, begun: u64) {
        let mut by_call = self.by_call.lock().unwrap_or_else(PoisonError::into_inner);
        by_call.entry(call.to_owned()).or_default().push(begun);
    }

    /// The effects of a call: when each was begun, in milliseconds since the epoch.
    pub(crate) fn of(&self, call: &str) -> Vec<u64> {
        self.by_call.lock().unwrap_or_else(PoisonError::into_inner).get(call).cloned().unwrap_or_default()
    }
}

/// The tool, as one replica has it. Its arguments say whether it `asks`, `on` what it acts, how many milliseconds go by
/// `before` its effect and `after` that, whether it only `reads`, and whether it `fails` in the end.
pub(crate) struct Act {
    pub who: Arc<Mortal>,
    pub acts: Arc<Acts>,
    pub trace: Arc<Trace>,
}

impl Act {
    async fn wait(&self, ms: &Value, call: &Call) -> Result<(), ToolError> {
        tokio::select! {
            biased;
            () = call.cancel.cancelled() => return Err(ToolError::Aborted),
            () = sleep(Duration::from_millis(ms.as_u64().unwrap_or_default())) => {}
        }
        self.who.goes_on().await;
        Ok(())
    }
}

#[async_trait]
impl Tool for Act {
    fn name(&self) -> &'static str {
        ACT
    }

    fn description(&self) -> String {
        "Acts".into()
    }

    fn parameters(&self) -> Value {
        json!({ "type": "object" })
    }

    fn writes(&self) -> Writes {
        Writes::Nothing
    }

    async fn run(&self, input: Value, call: &Call) -> Result<Output, ToolError> {
        let on = input["on"].as_str().unwrap_or_default().to_owned();
        if input["asks"] == true {
            let (permission, patterns, always) = (ACT.to_owned(), vec![on.clone()], vec![on.clone()]);
            call.host.ask(Ask { permission, patterns, always, metadata: json!({}) }).await?;
        }
        let begun = crate::fleet::EPOCH_MS + self.trace.now_ms();
        let has_effect = input["reads"] != true;
        if has_effect {
            call.host.begin().await?;
        }
        self.wait(&input["before"], call).await?;
        if has_effect {
            self.acts.take_effect(&call.call_id, begun);
        }
        self.trace.note(format_args!("{} acts on {on} for {}", self.who.name, call.call_id));
        self.wait(&input["after"], call).await?;
        if input["fails"] == true {
            return Err(ToolError::Failed("It failed.".into()));
        }
        Ok(Output { title: on.clone(), output: format!("acted on {on}"), metadata: json!({}), attachments: None })
    }
}
