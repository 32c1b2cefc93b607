//! The body of a request.

use crate::{ChatMessage, ChatRequest, ModelError, ToolCall, ToolChoice, ToolSpec, UserContent};
use serde::Serialize;
use serde_json::{Map, Value};

/// What no option may override: the conversation, and that the answer is streamed.
const RESERVED: [&str; 6] = ["model", "messages", "tools", "tool_choice", "stream", "stream_options"];

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    #[serde(flatten)]
    options: Map<String, Value>,
    messages: Vec<Message<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
    stream: bool,
    stream_options: StreamOptions,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum Message<'a> {
    System {
        content: &'a str,
    },
    User {
        content: Content<'a>,
    },
    Assistant {
        content: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        reasoning_content: Option<&'a str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<Call<'a>>,
    },
    Tool {
        tool_call_id: &'a str,
        content: &'a str,
    },
}

#[derive(Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Text(&'a str),
    Pieces(Vec<Piece<'a>>),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Piece<'a> {
    Text { text: &'a str },
    ImageUrl { image_url: ImageUrl<'a> },
    InputAudio { input_audio: Audio<'a> },
    File { file: File<'a> },
}

#[derive(Serialize)]
struct ImageUrl<'a> {
    url: &'a str,
}

#[derive(Serialize)]
struct Audio<'a> {
    data: &'a str,
    format: &'static str,
}

#[derive(Serialize)]
struct File<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<&'a str>,
    file_data: &'a str,
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CalledFunction<'a>,
}

#[derive(Serialize)]
struct CalledFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    function: Function<'a>,
}

#[derive(Serialize)]
struct Function<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a Value,
}

/// The request as JSON text.
pub(super) fn body(request: &ChatRequest) -> Result<Vec<u8>, ModelError> {
    let body = Body {
        model: &request.model,
        options: options(request),
        messages: request.messages.iter().map(message).collect(),
        tools: request.tools.iter().map(tool).collect(),
        tool_choice: (!request.tools.is_empty()).then_some(match request.tool_choice {
            ToolChoice::Auto => "auto",
            ToolChoice::Required => "required",
            ToolChoice::None => "none",
        }),
        stream: true,
        stream_options: StreamOptions { include_usage: true },
    };
    // Room for what is large in it, which is text: a body that grows by doubling is there twice.
    let texts = request.messages.iter().map(size).sum::<usize>();
    let mut bytes = Vec::with_capacity(texts + texts / 8 + 64 * 1024);
    serde_json::to_writer(&mut bytes, &body).map_err(|error| ModelError::Invalid { message: error.to_string() })?;
    Ok(bytes)
}

/// The bytes of a message's texts.
fn size(message: &ChatMessage) -> usize {
    match message {
        ChatMessage::System(text) => text.len(),
        ChatMessage::User(contents) => contents
            .iter()
            .map(|content| match content {
                UserContent::Text(text) => text.len(),
                UserContent::Image { url, .. } | UserContent::File { url, .. } => url.len(),
            })
            .sum(),
        ChatMessage::Assistant { text, reasoning, tool_calls } => {
            let said = text.iter().chain(reasoning).map(String::len).sum::<usize>();
            said + tool_calls.iter().map(|call| call.arguments.len()).sum::<usize>()
        }
        ChatMessage::Tool { content, .. } => content.len(),
    }
}

/// The named settings, overridden by the free ones.
fn options(request: &ChatRequest) -> Map<String, Value> {
    let mut options = Map::new();
    let named = [
        ("max_tokens", request.max_tokens.map(Value::from)),
        ("temperature", request.temperature.map(Value::from)),
        ("top_p", request.top_p.map(Value::from)),
    ];
    for (name, value) in named {
        if let Some(value) = value {
            options.insert(name.into(), value);
        }
    }
    for (name, value) in &request.options {
        let name = wire_name(name);
        if !RESERVED.contains(&name.as_str()) {
            options.insert(name, value.clone());
        }
    }
    options
}

/// `reasoningEffort` is `reasoning_effort` on the wire; `textVerbosity` is the one with a name of its own.
fn wire_name(name: &str) -> String {
    if name == "textVerbosity" {
        return "verbosity".into();
    }
    let mut snake = String::with_capacity(name.len() + 2);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn message(message: &ChatMessage) -> Message<'_> {
    match message {
        ChatMessage::System(content) => Message::System { content },
        ChatMessage::User(contents) => Message::User {
            content: match contents.as_slice() {
                [UserContent::Text(text)] => Content::Text(text),
                pieces => Content::Pieces(pieces.iter().map(piece).collect()),
            },
        },
        ChatMessage::Assistant { text, reasoning, tool_calls } => Message::Assistant {
            content: text.as_deref().unwrap_or_default(),
            reasoning_content: reasoning.as_deref(),
            tool_calls: tool_calls.iter().map(call).collect(),
        },
        ChatMessage::Tool { call_id, content } => Message::Tool { tool_call_id: call_id, content },
    }
}

fn piece(content: &UserContent) -> Piece<'_> {
    match content {
        UserContent::Text(text) => Piece::Text { text },
        UserContent::Image { url, .. } => Piece::ImageUrl { image_url: ImageUrl { url } },
        UserContent::File { mime, filename, url } => {
            let format = match mime.as_str() {
                "audio/wav" | "audio/x-wav" => Some("wav"),
                "audio/mpeg" | "audio/mp3" => Some("mp3"),
                _ => None,
            };
            match (format, url.split_once(";base64,")) {
                (Some(format), Some((_, data))) => Piece::InputAudio { input_audio: Audio { data, format } },
                _ => Piece::File { file: File { filename: filename.as_deref(), file_data: url } },
            }
        }
    }
}

fn call(call: &ToolCall) -> Call<'_> {
    let function = CalledFunction { name: &call.name, arguments: &call.arguments };
    Call { id: &call.id, r#type: "function", function }
}

fn tool(tool: &ToolSpec) -> Tool<'_> {
    let function = Function { name: &tool.name, description: &tool.description, parameters: &tool.parameters };
    Tool { r#type: "function", function }
}
