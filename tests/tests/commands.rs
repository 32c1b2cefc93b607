//! Commands: templates with arguments, outputs of commands and files; what goes with a prompt.

use serde_json::{Value, json};
use testkit::client::{parts_of, text_of};
use testkit::{Answer, BOUND, Client, Reply, World, WorldSpec, transcript};

/// A world with commands from the configuration and from a file.
async fn world() -> World {
    let config = json!({"command": {
        "greet": {"template": "Say hello to $1 then $2 all: $ARGUMENTS"},
        "plain": {"template": "No placeholders here", "description": "plain"},
        "planned": {"template": "Plan $1", "agent": "plan"},
        "tail": {"template": "Ends with !`echo a command`"},
    }});
    let sh = "---\ndescription: runs\n---\nOutput: !`echo run >> trace; echo from-shell` file @README.md";
    let files = vec![
        (".opencode/command/sh.md".into(), sh.into()),
        ("README.md".into(), "# Demo\n\nhello world\n".into()),
        ("docs/notes.txt".into(), (1..=30).map(|n| format!("line {n}\n")).collect()),
    ];
    World::start_with(WorldSpec { config, files, ..WorldSpec::default() }).await
}

async fn command(client: &Client, id: &str, body: Value) -> Reply {
    client.post(&format!("/session/{id}/command"), &body).await
}

fn texts(message: &Value) -> Vec<&str> {
    parts_of(message).iter().filter_map(|part| part["text"].as_str()).collect()
}

#[tokio::test]
async fn a_command_becomes_a_prompt_and_is_told_when_it_is_carried_out() {
    let world = world().await;
    world.model.script(["c1", "c2", "c3", "c4"].map(Answer::say));
    let id = world.session().await;
    let client = world.client();
    let mut events = world.events(2).await;
    let greet = json!({"command": "greet", "arguments": "Ann \"Bob B\" Carl Dan"});
    let answer = command(&client, &id, greet).await.ok();
    assert_eq!((text_of(&answer), &answer["info"]["mode"]), ("c1".into(), &json!("build")));
    let told = events.until_kind(BOUND, "command.executed").await;
    let expected = json!({
        "name": "greet", "sessionID": id, "arguments": "Ann \"Bob B\" Carl Dan", "messageID": answer["info"]["id"],
    });
    assert_eq!(told.properties(), &expected);

    command(&client, &id, json!({"command": "plain", "arguments": "extra args"})).await.ok();
    let planned = command(&client, &id, json!({"command": "planned", "arguments": "it"})).await.ok();
    assert_eq!(planned["info"]["agent"], "plan");
    let own = json!({
        "command": "greet", "arguments": "x", "agent": "plan", "model": "fake/m",
        "messageID": "msg_zzzzzzzzzzzz00000000000001",
    });
    let answer = command(&client, &id, own.clone()).await.ok();
    assert_eq!((&answer["info"]["parentID"], &answer["info"]["agent"]), (&own["messageID"], &json!("plan")));
    assert_eq!(command(&client, &id, own).await.ok(), answer, "sent again it is the same prompt");
    let asked = world.model.main_requests();
    assert_eq!(asked.len(), 4);
    let expected =
        ["Say hello to Ann then Bob B Carl Dan all: Ann \"Bob B\" Carl Dan", "No placeholders here\n\nextra args"];
    let texts = transcript::user_texts(&asked[2].body);
    assert_eq!(texts[..2], expected);
    assert!(texts[2].starts_with("Plan it\n<system-reminder>"), "a planner is reminded: {texts:?}");
}

#[tokio::test]
async fn a_template_is_filled_with_outputs_and_files_once() {
    let world = world().await;
    world.model.script(["done", "done"].map(Answer::say));
    let id = world.session().await;
    let keyed = world.client().with_header("idempotency-key", "command-1");
    let body = json!({"command": "sh", "arguments": ""});
    let answer = command(&keyed, &id, body.clone()).await.ok();
    assert_eq!(command(&keyed, &id, body).await.ok(), answer);
    assert_eq!(std::fs::read_to_string(world.file("trace")).unwrap(), "run\n", "the template's command ran once");
    let prompt = &world.messages(&id).await[0];
    let parts = parts_of(prompt);
    assert_eq!(parts[0]["text"], "Output: from-shell\n file @README.md");
    let path = world.file("README.md").display().to_string();
    let read = format!(
        "<path>{path}</path>\n<type>file</type>\n<content>\n1: # Demo\n2: \n3: hello world\n\n(End of file - total 3 lines)\n</content>"
    );
    assert_eq!((&parts[2]["text"], &parts[2]["synthetic"]), (&json!(read), &json!(true)));
    assert_eq!((&parts[3]["type"], &parts[3]["url"]), (&json!("file"), &json!(format!("file://{path}"))));
    let asked = &world.model.main_requests()[0].body;
    let content = asked["messages"].as_array().unwrap().last().unwrap()["content"].to_string();
    assert!(content.contains("from-shell") && content.contains("hello world"), "{content}");
    command(&world.client(), &id, json!({"command": "tail", "arguments": ""})).await.ok();
    assert_eq!(texts(&world.messages(&id).await[2]), ["Ends with a command"]);
}

#[tokio::test]
async fn bad_commands_are_refused_as_recorded_and_leave_nothing() {
    let world = world().await;
    let id = world.session().await;
    let client = world.client();
    let mut events = world.events(1).await;
    let missing = command(&client, &id, json!({"command": "greet"})).await;
    assert_eq!(
        (missing.status, missing.json()["data"]["message"].clone()),
        (400, json!("Missing key\n  at [\"arguments\"]"))
    );
    for (body, reason) in [
        (
            json!({"command": "nope", "arguments": ""}),
            "Command not found: \"nope\". Available commands: init, review, ",
        ),
        (json!({"command": "greet", "arguments": "x", "model": "fake/nope"}), "Model not found: fake/nope."),
        (json!({"command": "greet", "arguments": "x", "agent": "nope"}), "Agent not found: \"nope\"."),
    ] {
        assert_eq!(command(&client, &id, body).await.status, 500);
        let error = events.until_kind(BOUND, "session.error").await;
        let message = error.properties()["error"]["data"]["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with(reason), "{message}");
    }
    assert_eq!(command(&client, "ses_nope", json!({"command": "greet", "arguments": ""})).await.status, 404);
    assert_eq!(world.messages(&id).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_session_is_initialized_and_not_shared() {
    let world = world().await;
    world.model.push(Answer::say("initialised"));
    let id = world.session().await;
    let client = world.client();
    let path = format!("/session/{id}");
    let body = json!({"providerID": "fake", "modelID": "m", "messageID": "msg_zzzzzzzzzzzz00000000000002"});
    assert_eq!(client.post(&format!("{path}/init"), &body).await.ok(), json!(true));
    assert_eq!(world.messages(&id).await[0]["info"]["id"], body["messageID"]);
    assert_eq!(client.post(&format!("{path}/init"), &json!({})).await.status, 400);

    let refused = client.post(&format!("{path}/share"), &json!({})).await;
    assert_eq!((refused.status, refused.json()["name"].clone()), (400, json!("BadRequest")));
    assert_eq!(client.delete(&format!("{path}/share")).await.ok(), client.get(&path).await.ok());
    assert_eq!(client.post("/session/ses_nope/share", &json!({})).await.status, 404);
}

#[tokio::test]
async fn files_and_agents_that_go_with_a_prompt_become_texts() {
    let world = world().await;
    let id = world.session().await;
    let client = world.client();
    let send = async |part: Value| {
        let body = json!({"noReply": true, "parts": [{"type": "text", "text": "see"}, part]});
        client.post(&format!("/session/{id}/message"), &body).await.ok()
    };
    let url = |path: &str| format!("file://{}", world.file(path).display());
    let file = |mime: &str, url: String| json!({"type": "file", "mime": mime, "filename": "x", "url": url});

    let lines = send(file("text/plain", format!("{}?start=3&end=5", url("docs/notes.txt")))).await;
    assert!(texts(&lines)[2].contains("3: line 3\n4: line 4\n5: line 5\n"), "{lines:#}");
    assert!(!texts(&lines)[2].contains("line 6"));
    let folder = send(file("application/x-directory", url("docs"))).await;
    assert!(texts(&folder)[2].contains("notes.txt"), "{folder:#}");
    let inline = send(file("text/plain", "data:text/plain;base64,aW5saW5lIHRleHQ=".into())).await;
    assert_eq!(texts(&inline)[2], "inline text");
    std::fs::write(world.file("p.png"), b"\x89PNG\r\n\x1a\n and more").unwrap();
    let image = send(file("image/png", url("p.png"))).await;
    assert_eq!(parts_of(&image).last().unwrap()["url"], "data:image/png;base64,iVBORw0KGgogYW5kIG1vcmU=");
    let named = send(file("text/plain", url("docs"))).await;
    assert_eq!(parts_of(&named).last().unwrap()["mime"], "application/x-directory");
    let unreadable = send(json!({"type": "file", "mime": "text/plain", "url": "data:text/plain;base64,@@"})).await;
    assert_eq!((texts(&unreadable)[2], texts(&unreadable)[1].contains("input: {}")), ("", true), "{unreadable:#}");
    for (query, first) in
        [("start=-1&end=2", "1: line 1\n2: line 2\n\n"), ("start=29x", "29: line 29\n30: line 30\n\n")]
    {
        let lines = send(file("text/plain", format!("{}?{query}", url("docs/notes.txt")))).await;
        assert!(texts(&lines)[2].contains(&format!("<content>\n{first}")), "{query}: {lines:#}");
    }
    let agent = send(json!({"type": "agent", "name": "general"})).await;
    assert!(texts(&agent)[1].contains("general"), "{agent:#}");

    let mut events = world.events(1).await;
    let missing = send(file("text/plain", url("nope.txt"))).await;
    assert!(texts(&missing)[2].contains("could not be read"), "{missing:#}");
    assert!(parts_of(&missing).iter().all(|part| part["type"] == "text"), "the file is not there");
    let error = events.until_kind(BOUND, "session.error").await;
    assert!(error.properties()["error"]["data"]["message"].as_str().unwrap().contains("nope.txt"));
    let outside = send(file("text/plain", "file:///etc/hostname".into())).await;
    assert!(texts(&outside)[2].contains("rules"), "nothing outside of the work tree: {outside:#}");
}

#[tokio::test]
async fn a_file_without_an_address_and_an_image_that_is_none_are_refused() {
    let world = world().await;
    let id = world.session().await;
    std::fs::write(world.file("words.png"), "these are words").unwrap();
    let path = format!("/session/{id}/message");
    let words = format!("file://{}", world.file("words.png").display());
    for (mime, url) in [
        ("image/png", "data:image/png;base64,"),
        ("image/png", "data:image/png;base64,@@@notbase64@@@"),
        ("image/png", "data:image/png,iVBORw0KGgogYW5kIG1vcmU="),
        ("image/jpeg", "data:image/jpeg;base64,dGhlc2UgYXJlIHdvcmRz"),
        ("image/png", "http://127.0.0.1:1/x.png"),
        ("image/png", words.as_str()),
        ("text/plain", "README.md"),
        ("text/plain", ""),
        ("application/pdf", "paper.pdf"),
    ] {
        for no_reply in [true, false] {
            let parts = json!([{"type": "text", "text": "see"}, {"type": "file", "mime": mime, "url": url}]);
            let refused = world.client().post(&path, &json!({"noReply": no_reply, "parts": parts})).await;
            assert_eq!((refused.status, refused.json()["name"].clone()), (400, json!("BadRequest")), "{mime} {url}");
        }
    }
    assert_eq!(world.messages(&id).await, Vec::<Value>::new(), "nothing of them is stored");
    assert_eq!(world.status(&id).await, "idle");
}

#[tokio::test]
async fn a_model_is_told_of_the_files_that_it_cannot_read() {
    let eyes = json!({"name": "Eyes", "modalities": {"input": ["text", "image", "pdf"], "output": ["text"]}});
    let config = json!({"provider": {"fake": {"models": {"eyes": eyes}}}});
    let world = World::start_with(WorldSpec { config, ..WorldSpec::default() }).await;
    std::fs::write(world.file("seen.png"), b"\x89PNG\r\n\x1a\n and more").unwrap();
    let data = "iVBORw0KGgogYW5kIG1vcmU=";
    let file = |mime: &str, name: &str| json!({"type": "file", "mime": mime, "filename": name, "url": format!("data:{mime};base64,{data}")});
    let ask = async |id: &str, model: &str, parts: Value| {
        let body = json!({"model": {"providerID": "fake", "modelID": model}, "parts": parts});
        world.client().post(&format!("/session/{id}/message"), &body).await.ok()
    };
    let asked = || world.model.main_requests().pop().unwrap().body["messages"].as_array().unwrap().clone();
    let kinds = |message: &Value| -> Vec<String> {
        let pieces = message["content"].as_array().cloned().unwrap_or_default();
        pieces.iter().map(|piece| piece["type"].as_str().unwrap().to_owned()).collect()
    };
    let id = world.session().await;
    let parts = json!([{"type": "text", "text": "see"}, file("image/png", "p.png"), file("application/pdf", "d.pdf")]);
    world.model.script(["blind", "sees"].map(Answer::say));
    ask(&id, "m", parts).await;
    let prompt = asked().pop().unwrap().to_string();
    for told in ["p.png", "no images", "d.pdf", "no PDF"] {
        assert!(prompt.contains(told), "{told}: {prompt}");
    }
    assert!(!prompt.contains(data), "{prompt}");
    assert_eq!(parts_of(&world.messages(&id).await[0])[1]["type"], "file", "it is stored as it came");
    // A model that can is given them in the same conversation.
    ask(&id, "eyes", json!([{"type": "text", "text": "and you?"}])).await;
    assert_eq!(kinds(&asked()[1]), ["text", "image_url", "file"]);

    // What a tool attaches comes after all outcomes of its step.
    for (model, expected) in [("eyes", ["text", "image_url"]), ("m", ["text", "text"])] {
        let id = world.session().await;
        let path = world.file("seen.png").to_string_lossy().into_owned();
        world.model.script([Answer::call("c1", "read", json!({"filePath": path})), Answer::say("done")]);
        ask(&id, model, json!([{"type": "text", "text": "look"}])).await;
        let messages = asked();
        let [.., outcome, files] = messages.as_slice() else { panic!("{messages:?}") };
        assert_eq!((&outcome["role"], &files["role"]), (&json!("tool"), &json!("user")));
        assert_eq!(kinds(files), expected, "{files}");
        assert_eq!(files.to_string().contains("no images"), model == "m", "{files}");
    }
}
