//! Two sessions that change one work tree at the same time.

use serde_json::json;
use testkit::{Answer, BOUND, World, eventually, transcript};

/// An answer that runs a command.
pub fn bash(id: &str, command: &str) -> Answer {
    Answer::call(id, "bash", json!({"command": command, "description": "d"}))
}

/// An answer that writes a file.
pub fn write(id: &str, file: &str, content: &str) -> Answer {
    Answer::call(id, "write", json!({"filePath": file, "content": content}))
}

/// A command of one session makes `a.txt`, and lasts until a tool of the other, on another replica, has written `b.txt`.
/// Returns the sessions.
///
/// # Panics
/// When it does not come to that.
pub async fn side_by_side(world: &World) -> (String, String) {
    let command = "touch begun; until [ -e b.txt ]; do sleep 0.02; done; rm begun; echo a > a.txt";
    world.model.respond_with(move |request| {
        let (ours, is_first) = (request.to_string(), transcript::tool_texts(request).is_empty());
        match (ours.contains("first session"), is_first) {
            (_, false) => Answer::say("done"),
            (true, true) => bash("call_a", command),
            (false, true) => write("call_b", "b.txt", "b\n"),
        }
    });
    let (a, b) = (world.session().await, world.session().await);
    let first = world.spawn_prompt(0, &a, "first session");
    eventually(BOUND, "the command to begin", || async { world.file("begun").exists().then_some(()) }).await;
    world.at(1).prompt(&b, "second session").await;
    first.await.unwrap_or_else(|error| panic!("a caller broke off: {error}"));
    (a, b)
}
