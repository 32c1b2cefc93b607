//! A model on loopback that does as it is told, one connection after another.

use models::{
    ChatMessage, ChatRequest, Endpoint, Limits, ModelError, ModelEvent, OpenAiCompatible, Provider, Timeouts,
    ToolChoice, UserContent,
};
use serde_json::{Value, json};
use std::sync::Once;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// No wait of a test is longer.
pub const BOUND: Duration = Duration::from_secs(10);

/// What the model does on a connection.
pub enum Act {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Waits until the other side hangs up, and tells.
    AwaitHangUp,
}

/// What a test hears from the model.
#[derive(Debug)]
pub enum Heard {
    /// A request: its head, in lower case up to the first `:` of a line, and its body.
    Request { head: String, body: Value },
    /// The other side hung up.
    HungUp,
}

pub struct Model {
    pub base_url: String,
    heard: mpsc::UnboundedReceiver<Heard>,
    task: tokio::task::JoinHandle<()>,
}

impl Model {
    /// Serves each script on one connection; a connection ends with its script.
    pub async fn start(scripts: Vec<Vec<Act>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1/", listener.local_addr().unwrap());
        let (tell, heard) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            for script in scripts {
                let (connection, _) = listener.accept().await.unwrap();
                serve(connection, script, &tell).await;
            }
        });
        Self { base_url, heard, task }
    }

    pub async fn heard(&mut self) -> Heard {
        timeout(BOUND, self.heard.recv()).await.expect("the model heard nothing").expect("the model is gone")
    }

    /// The next request's head and body.
    pub async fn request(&mut self) -> (String, Value) {
        match self.heard().await {
            Heard::Request { head, body } => (head, body),
            Heard::HungUp => panic!("hung up"),
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut connection: TcpStream, script: Vec<Act>, tell: &mpsc::UnboundedSender<Heard>) {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if connection.read_buf(&mut bytes).await.unwrap() == 0 {
            return;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let length: usize = length.unwrap();
    while bytes.len() < head_end + length {
        assert_ne!(connection.read_buf(&mut bytes).await.unwrap(), 0);
    }
    let body = serde_json::from_slice(&bytes[head_end..]).unwrap();
    let _ = tell.send(Heard::Request { head, body });
    for act in script {
        match act {
            Act::Send(bytes) => {
                // A client that has seen enough may be gone.
                if connection.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::AwaitHangUp => {
                while !matches!(connection.read(&mut [0; 64]).await, Ok(0) | Err(_)) {}
                let _ = tell.send(Heard::HungUp);
            }
        }
    }
}

/// The head of a streamed answer.
pub fn streamed() -> Act {
    Act::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())
}

/// A chunk of the streamed answer.
pub fn raw(text: &str) -> Act {
    Act::Send(format!("{:x}\r\n{text}\r\n", text.len()).into_bytes())
}

/// An event.
pub fn data(value: Value) -> Act {
    raw(&format!("data: {value}\n\n"))
}

/// A delta of the one choice.
pub fn delta(delta: Value) -> Act {
    data(json!({ "id": "chatcmpl-x", "choices": [{ "index": 0, "delta": delta, "finish_reason": null }] }))
}

pub fn text(text: &str) -> Act {
    delta(json!({ "role": "assistant", "content": text }))
}

pub fn finish(reason: &str) -> Act {
    let usage = json!({ "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110 });
    data(json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": reason }], "usage": usage }))
}

/// The end of a streamed answer.
pub fn done() -> Act {
    Act::Send(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n".to_vec())
}

/// An answer that is not streamed.
pub fn plain(status: &str, headers: &str, body: &str) -> Vec<Act> {
    let length = body.len();
    vec![Act::Send(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}").into_bytes())]
}

pub fn ask(base_url: &str) -> ChatRequest {
    ChatRequest {
        endpoint: Endpoint {
            base_url: base_url.into(),
            api_key: None,
            headers: Vec::new(),
            timeouts: Timeouts::default(),
        },
        model: "m".into(),
        messages: [ChatMessage::User(vec![UserContent::Text("go".into())])].into(),
        tools: Vec::new(),
        tool_choice: ToolChoice::Auto,
        max_tokens: None,
        temperature: None,
        top_p: None,
        options: serde_json::Map::new(),
        headers: Vec::new(),
    }
}

pub fn provider(limits: Limits) -> OpenAiCompatible {
    static TLS: Once = Once::new();
    TLS.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
    OpenAiCompatible::new(limits).unwrap()
}

/// All events of an answer, and the error that ended it, if one did.
pub async fn all(limits: Limits, request: ChatRequest) -> (Vec<ModelEvent>, Option<ModelError>) {
    let collect = async {
        let mut events = Vec::new();
        let mut stream = match provider(limits).stream(request).await {
            Ok(stream) => stream,
            Err(error) => return (events, Some(error)),
        };
        while let Some(event) = stream.next().await {
            match event {
                Ok(event) => events.push(event),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "an error is the last thing");
                    return (events, Some(error));
                }
            }
        }
        (events, None)
    };
    timeout(BOUND, collect).await.expect("the answer never ended")
}

/// What the answer to one script is.
pub async fn answer(script: Vec<Act>) -> (Vec<ModelEvent>, Option<ModelError>) {
    let model = Model::start(vec![script]).await;
    all(Limits::default(), ask(&model.base_url)).await
}
