//! The parts of a message.

use crate::Extra;
use crate::ids::{MessageId, PartId, SessionId};
use crate::message::Tokens;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A part of a message: what all parts have, and what its type has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Part {
    /// Its identifier. Parts of one message are ordered by it.
    pub id: PartId,
    /// The session.
    #[serde(rename = "sessionID")]
    pub session_id: SessionId,
    /// The message.
    #[serde(rename = "messageID")]
    pub message_id: MessageId,
    /// What it is.
    #[serde(flatten)]
    pub kind: PartKind,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum PartKind {
    /// Text, of a user or of the model.
    Text(TextPart),
    /// What the model thought.
    Reasoning(ReasoningPart),
    /// A call of a tool.
    Tool(ToolPart),
    /// A file that goes with a prompt.
    File(FilePart),
    /// A step began.
    StepStart(StepStartPart),
    /// A step ended.
    StepFinish(StepFinishPart),
    /// What this version only stores and shows: `patch`, `agent`, `subtask`, `compaction`, `snapshot`, `retry`.
    #[serde(untagged)]
    Other(Extra),
}

impl utoipa::PartialSchema for PartKind {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
        let kind =
            ObjectBuilder::new().property("type", ObjectBuilder::new().schema_type(Type::String)).required("type");
        OneOfBuilder::new()
            .item(TextPart::schema())
            .item(ReasoningPart::schema())
            .item(ToolPart::schema())
            .item(FilePart::schema())
            .item(StepStartPart::schema())
            .item(StepFinishPart::schema())
            .item(kind)
            .into()
    }
}

impl ToSchema for PartKind {
    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::schema::Schema>)>) {
        TextPart::schemas(schemas);
        ReasoningPart::schemas(schemas);
        ToolPart::schemas(schemas);
        FilePart::schemas(schemas);
        StepStartPart::schemas(schemas);
        StepFinishPart::schemas(schemas);
    }
}

/// Text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TextPart {
    /// The text; empty while it is still streaming.
    pub text: String,
    /// Not written by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub synthetic: Option<bool>,
    /// Not for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<bool>,
    /// When it began and ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Span>,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// What the model thought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReasoningPart {
    /// The text; empty while it is still streaming.
    pub text: String,
    /// When it began and ended.
    pub time: Span,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ToolPart {
    /// The id that the model gave the call.
    #[serde(rename = "callID")]
    pub call_id: String,
    /// The tool's name.
    pub tool: String,
    /// How far it is.
    pub state: ToolState,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// How far a call of a tool is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "lowercase")]
pub enum ToolState {
    /// Its arguments are still coming.
    Pending {
        /// Empty.
        #[schema(value_type = Object)]
        input: Value,
        /// Empty.
        #[serde(default)]
        raw: String,
    },
    /// At work.
    Running {
        /// The arguments.
        #[schema(value_type = Object)]
        input: Value,
        /// What it does, for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        title: Option<String>,
        /// The tool's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Object)]
        metadata: Option<Value>,
        /// When it began.
        time: Span,
        /// False while the tool had no effect; true is durable before its first one. A call without an outcome is run again
        /// only where this is false.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        begun: Option<bool>,
    },
    /// Done.
    Completed {
        /// The arguments.
        #[schema(value_type = Object)]
        input: Value,
        /// What the model reads.
        output: String,
        /// What it did, for people.
        title: String,
        /// The tool's own.
        #[schema(value_type = Object)]
        metadata: Value,
        /// When it began and ended.
        time: Span,
        /// Files that go with the output.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<Vec<Object>>)]
        attachments: Option<Vec<Value>>,
    },
    /// Failed.
    Error {
        /// The arguments.
        #[schema(value_type = Object)]
        input: Value,
        /// What the model reads.
        error: String,
        /// The tool's own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Object)]
        metadata: Option<Value>,
        /// When it began and ended.
        time: Span,
    },
}

/// A file that goes with a prompt or an output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FilePart {
    /// Its media type.
    pub mime: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    /// Where it is: `data:` or `file:`.
    pub url: String,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// A step began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepStartPart {
    /// The work tree as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// A step ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepFinishPart {
    /// Why, as in the message's `finish`.
    pub reason: String,
    /// The work tree as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Dollars.
    pub cost: f64,
    /// Tokens.
    pub tokens: Tokens,
    /// Fields that this version does not name.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub extra: Extra,
}

/// When something began and ended, in milliseconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Span {
    /// Began.
    pub start: u64,
    /// Ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
    /// The output was taken out of the model's sight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compacted: Option<u64>,
}

impl Span {
    /// Begun and not ended.
    pub fn from(start: u64) -> Self {
        Self { start, ..Self::default() }
    }
}

impl Part {
    /// The text of a text part.
    pub fn text(&self) -> Option<&TextPart> {
        match &self.kind {
            PartKind::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The call of a tool part.
    pub fn tool(&self) -> Option<&ToolPart> {
        match &self.kind {
            PartKind::Tool(tool) => Some(tool),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_comes_back_as_it_went() {
        let own = r#""id":"prt_a","sessionID":"ses_a","messageID":"msg_a""#;
        for rest in [
            r#""type":"text","text":"x","synthetic":true,"time":{"start":1,"end":2},"metadata":{"a":1}"#,
            r#""type":"step-start","snapshot":"abc""#,
            r#""type":"patch","hash":"abc","files":["/a"]"#,
            r#""type":"compaction","auto":true"#,
            r#""type":"tool","callID":"c","tool":"bash","state":{"status":"pending","input":{},"raw":""}"#,
            r#""type":"tool","callID":"c","tool":"bash","state":{"status":"error","input":{"a":1},"error":"no","time":{"start":1,"end":2}},"metadata":{"p":1}"#,
            r#""type":"step-finish","reason":"stop","cost":0.5,"tokens":{"total":5,"input":1,"output":2,"reasoning":0,"cache":{"read":1,"write":1}}"#,
        ] {
            let text = format!("{{{own},{rest}}}");
            let part: Part = serde_json::from_str(&text).unwrap();
            let again = serde_json::to_value(&part).unwrap();
            assert_eq!(again, serde_json::from_str::<Value>(&text).unwrap());
        }
    }
}
