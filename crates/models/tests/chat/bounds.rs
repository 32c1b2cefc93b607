//! Every wait ends and every buffer is bounded; who stops listening closes the connection.

use crate::scripted::*;
use models::{Limits, ModelError, ModelEvent, Provider, Timeouts};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

const SHORT: Duration = Duration::from_millis(500);

async fn limited(limits: Limits, script: Vec<Act>) -> (Vec<ModelEvent>, Option<ModelError>) {
    let model = Model::start(vec![script]).await;
    all(limits, ask(&model.base_url)).await
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let mut model = Model::start(vec![vec![streamed(), text("Hel"), Act::AwaitHangUp]]).await;
    let mut stream = provider(Limits::default()).stream(ask(&model.base_url)).await.unwrap();
    assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextStart)));
    assert_eq!(stream.next().await, Some(Ok(ModelEvent::TextDelta("Hel".into()))));
    model.request().await;
    // A reader that gave up waiting has lost nothing and closed nothing.
    assert!(timeout(SHORT, stream.next()).await.is_err());
    drop(stream);
    assert!(matches!(model.heard().await, Heard::HungUp));
}

#[tokio::test]
async fn dropping_the_request_before_its_answer_closes_the_connection() {
    let mut model = Model::start(vec![vec![Act::AwaitHangUp]]).await;
    let provider = provider(Limits::default());
    let request = ask(&model.base_url);
    let asking = tokio::spawn(async move { provider.stream(request).await.map(drop) });
    model.request().await;
    asking.abort();
    assert!(matches!(model.heard().await, Heard::HungUp));
}

#[tokio::test]
async fn a_provider_that_never_answers() {
    let mut model = Model::start(vec![vec![Act::AwaitHangUp]]).await;
    let limits = Limits { first_byte: SHORT, ..Limits::default() };
    let (_, error) = all(limits, ask(&model.base_url)).await;
    let error = error.unwrap();
    assert!(matches!(error, ModelError::Timeout { limit: SHORT, .. }) && error.is_retryable(), "{error:?}");
    assert_eq!(error.to_string(), "The model provider sent no answer within 0.5 seconds");
    assert_eq!(error.to_message_error().name, "APIError");
    model.request().await;
    assert!(matches!(model.heard().await, Heard::HungUp));
}

#[tokio::test]
async fn a_provider_that_hangs_after_its_headers() {
    let mut model = Model::start(vec![vec![streamed(), text("Hel"), Act::AwaitHangUp]]).await;
    let limits = Limits { silence: SHORT, ..Limits::default() };
    let (events, error) = all(limits, ask(&model.base_url)).await;
    assert_eq!(events.len(), 2);
    let error = error.unwrap();
    assert!(error.is_retryable());
    assert_eq!(error.to_string(), "The model provider sent nothing within 0.5 seconds");
    model.request().await;
    assert!(matches!(model.heard().await, Heard::HungUp));
}

#[tokio::test]
async fn an_endpoint_may_have_time_outs_of_its_own() {
    let own = |first_byte, silence, whole| Timeouts { first_byte, silence, whole };
    let hung = || vec![streamed(), text("Hel"), Act::AwaitHangUp];
    let cases = [
        (own(Some(SHORT), None, None), vec![Act::AwaitHangUp], "sent no answer"),
        (own(None, Some(SHORT), None), hung(), "sent nothing"),
        (own(None, None, Some(SHORT)), vec![Act::AwaitHangUp], "did not end its answer"),
        (own(Some(BOUND), Some(BOUND), Some(SHORT)), hung(), "did not end its answer"),
    ];
    for (timeouts, script, words) in cases {
        let model = Model::start(vec![script]).await;
        let mut request = ask(&model.base_url);
        request.endpoint.timeouts = timeouts;
        let (_, error) = all(Limits::default(), request).await;
        let error = error.unwrap();
        assert_eq!(error.to_string(), format!("The model provider {words} within 0.5 seconds"));
        assert!(error.is_retryable());
    }
}

#[tokio::test]
async fn a_provider_that_hangs_after_its_last_word_has_answered() {
    let limits = Limits { silence: SHORT, ..Limits::default() };
    let (events, error) = limited(limits, vec![streamed(), text("x"), finish("stop"), Act::AwaitHangUp]).await;
    assert!(matches!(events.last(), Some(ModelEvent::Finish { .. })) && error.is_none(), "{events:?} {error:?}");
}

#[tokio::test]
async fn an_error_whose_body_hangs() {
    let head = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 100\r\n\r\npart";
    let limits = Limits { silence: SHORT, ..Limits::default() };
    let (_, error) = limited(limits, vec![Act::Send(head.into()), Act::AwaitHangUp]).await;
    assert_eq!(error.unwrap().to_string(), "Internal Server Error: part");
}

#[tokio::test]
async fn a_connection_that_does_not_open() {
    // Nobody accepts, so that the kernel lets connections hang once its queue is full.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queue = Vec::new();
    while let Ok(connection) = timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
        queue.push(connection.unwrap());
        assert!(queue.len() < 100, "the queue is never full");
    }
    let limits = Limits { connect: SHORT, ..Limits::default() };
    let (_, error) = all(limits, ask(&format!("http://{address}"))).await;
    assert!(matches!(error, Some(ModelError::Connect { .. })), "{error:?}");
}

#[tokio::test]
async fn what_is_too_large() {
    let too_large = |what, limit| Some(ModelError::TooLarge { what, limit });
    let arguments = |text: &str| {
        delta(json!({ "tool_calls": [{ "index": 0, "id": "a", "function": { "name": "t", "arguments": text } }] }))
    };

    let line = Limits { line: 200, ..Limits::default() };
    let (_, error) = limited(line, vec![streamed(), text("fits"), raw(&"x".repeat(300)), Act::AwaitHangUp]).await;
    assert_eq!(error, too_large("one line", 200));
    let (_, error) = limited(line, vec![streamed(), text("fits"), finish("stop"), done()]).await;
    assert_eq!(error, None);

    let answer = Limits { answer: 10, ..Limits::default() };
    let (events, error) = limited(answer, vec![streamed(), text("12345"), text("67890"), text("1"), done()]).await;
    assert_eq!((events.len(), error), (3, too_large("answer", 10)));
    let (_, error) = limited(answer, vec![streamed(), text("1234567890"), finish("stop"), done()]).await;
    assert_eq!(error, None);

    let tool = Limits { tool_arguments: 4, ..Limits::default() };
    let (_, error) = limited(tool, vec![streamed(), arguments("{  "), arguments(" }"), done()]).await;
    assert_eq!(error, too_large("arguments for one tool call", 4));
    let (_, error) = limited(tool, vec![streamed(), arguments("{  "), arguments("}"), finish("stop"), done()]).await;
    assert_eq!(error, None);

    let stream = Limits { stream: 1000, ..Limits::default() };
    let comments = (0..20).map(|_| raw(&format!(": {}\n", "x".repeat(100))));
    let (_, error) = limited(stream, std::iter::once(streamed()).chain(comments).collect()).await;
    assert_eq!(error, too_large("stream", 1000));

    // Many empty calls are not free either.
    let calls = (0..20).map(|n| delta(json!({ "tool_calls": [{ "index": n, "id": n.to_string() }] })));
    let few = Limits { answer: 1024, ..Limits::default() };
    let (_, error) = limited(few, std::iter::once(streamed()).chain(calls).collect()).await;
    assert_eq!(error, too_large("answer", 1024));
}
