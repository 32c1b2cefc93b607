//! The tools beside those of `tools.rs`, as clients and models see them (recordings 14 to 19 and 35).

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use testkit::client::{id_of, text_prompt};
use testkit::model::Usage;
use testkit::outline::spine;
use testkit::{Answer, BOUND, Mode, Shape, World, WorldSpec, eventually, transcript};

/// A completed part of a tool, as recorded.
fn part(session: &str, call: &str, tool: &str, state: Value) -> Shape {
    let mut shape = json!({
        "id": "<prt>", "sessionID": session, "messageID": "<msg>", "type": "tool", "callID": call, "tool": tool,
        "state": { "status": "completed", "time": { "start": "<time>", "end": "<time>" } },
    });
    for (key, value) in state.as_object().unwrap() {
        shape["state"][key] = value.clone();
    }
    Shape::new(&shape.to_string())
}

fn spec(files: &[(&str, &str)]) -> WorldSpec {
    let files = files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
    WorldSpec { files, ..WorldSpec::default() }
}

#[tokio::test]
async fn names_and_lines_are_found() {
    let world = World::start_with(spec(&[
        ("src/main.rs", "fn main() {}\n"),
        (".gitignore", "target\n"),
        ("target/x.rs", "fn"),
    ]))
    .await;
    let glob = json!({"pattern": "**/*.rs"});
    let grep = json!({"pattern": "main", "include": "*.rs"});
    world.model.script([
        Answer::call("call_1", "glob", glob.clone()),
        Answer::call("call_2", "grep", grep.clone()),
        Answer::call("call_3", "grep", json!({"pattern": "("})),
        Answer::say("done"),
    ]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let parts = world.client().tool_parts(&id).await;
    let main = world.file("src/main.rs").to_string_lossy().into_owned();
    let state = json!({"input": glob, "output": main, "title": "", "metadata": {"count": 1, "truncated": false}});
    part(&id, "call_1", "glob", state).check(&parts[0]);
    let found = format!("Found 1 matches\n{main}:\n  Line 1: fn main() {{}}\n");
    let state =
        json!({"input": grep, "output": found, "title": "main", "metadata": {"matches": 1, "truncated": false}});
    part(&id, "call_2", "grep", state).check(&parts[1]);
    assert_eq!(parts[2]["state"]["status"], "error");
    let told = transcript::tool_texts(&world.model.main_requests()[3].body);
    assert_eq!(told, [main, found, "regex parse error:\n    (\n    ^\nerror: unclosed group".into()]);
}

#[tokio::test]
async fn a_list_of_things_to_do_is_told_and_read_on_every_replica() {
    let world = World::start().await;
    let todo = |content: &str, status: &str| json!({"content": content, "status": status, "priority": "high"});
    let lists = [json!([todo("A", "in_progress"), todo("B", "pending")]), json!([todo("A", "completed")])];
    world.model.script([
        Answer::call("call_1", "todowrite", json!({"todos": lists[0]})),
        Answer::call("call_2", "todowrite", json!({"todos": lists[1]})),
        Answer::say("done"),
    ]);
    let mut events = world.events(2).await;
    let id = world.session().await;
    assert_eq!(world.client().get(&format!("/session/{id}/todo")).await.ok(), json!([]));
    world.prompt(&id, "go").await;
    let parts = world.client().tool_parts(&id).await;
    for (at, title) in [(0, "2 todos"), (1, "0 todos")] {
        let state = json!({
            "input": {"todos": lists[at]},
            "output": serde_json::to_string_pretty(&lists[at]).unwrap(),
            "title": title,
            "metadata": {"todos": lists[at], "truncated": false},
        });
        part(&id, &format!("call_{}", at + 1), "todowrite", state).check(&parts[at]);
    }
    for number in 0..3 {
        let read = world.at(number).get(&format!("/session/{id}/todo")).await.ok();
        assert_eq!(read, lists[1], "replica {number}");
    }
    events.until_idle(BOUND, &id).await;
    let of_session = events.of_session(&id);
    let updates: Vec<&Value> =
        of_session.iter().filter(|e| e.kind() == "todo.updated").map(|e| &e.properties()["todos"]).collect();
    assert_eq!(updates, [&lists[0], &lists[1]]);
    let told = spine(&of_session);
    let place = |wanted: &str| told.iter().position(|line| line == wanted).unwrap();
    assert!(place("todo.updated") < place("message.part.updated tool todowrite completed"), "{told:#?}");
    world.client().delete(&format!("/session/{id}")).await.ok();
    let stored = world.data_dir().join(format!("storage/todo/{id}.json"));
    eventually(BOUND, "the list goes with its session", || async { (!stored.exists()).then_some(()) }).await;
}

#[tokio::test]
async fn some_models_patch_in_the_place_of_editing() {
    let config = json!({"provider": {"fake": {"models": {"gpt-5": {"name": "G", "tool_call": true}}}}});
    let world = World::start_with(WorldSpec { config, ..spec(&[("old.txt", "one\ntwo\n")]) }).await;
    let patch =
        "*** Begin Patch\n*** Add File: new.txt\n+x\n*** Update File: old.txt\n@@\n one\n-two\n+2\n*** End Patch";
    world.model.script([
        Answer::call("call_1", "apply_patch", json!({"patchText": patch})),
        Answer::call("call_2", "apply_patch", json!({"patchText": "garbage"})),
        Answer::call("call_3", "edit", json!({"filePath": "old.txt", "oldString": "one", "newString": "1"})),
        Answer::say("done"),
    ]);
    let id = world.session().await;
    let mut prompt = text_prompt("go");
    prompt["model"] = json!({"providerID": "fake", "modelID": "gpt-5"});
    world.client().post(&format!("/session/{id}/message"), &prompt).await.ok();
    let file = |path: &str, relative: &str, kind: &str, additions: u32, deletions: u32| {
        json!({
            "filePath": world.file(path), "relativePath": relative, "type": kind, "patch": "<string>",
            "additions": additions, "deletions": deletions,
        })
    };
    let text = "Success. Updated the following files:\nA new.txt\nM old.txt";
    let files = json!([file("new.txt", "new.txt", "add", 1, 0), file("old.txt", "old.txt", "update", 1, 1)]);
    let state = json!({
        "input": {"patchText": patch},
        "output": text,
        "title": text,
        "metadata": {"diff": "<string>", "files": files, "diagnostics": {}, "truncated": false},
    });
    let parts = world.client().tool_parts(&id).await;
    part(&id, "call_1", "apply_patch", state).check(&parts[0]);
    assert_eq!(std::fs::read_to_string(world.file("old.txt")).unwrap(), "one\n2\n");
    let error = parts[1]["state"]["error"].as_str().unwrap();
    assert!(error.starts_with("apply_patch verification failed: "), "{error}");
    // What a model was not offered it cannot call.
    assert_eq!((&parts[2]["tool"], &parts[2]["state"]["status"]), (&json!("invalid"), &json!("completed")));
    let offered = transcript::offered_tools(&world.model.main_requests()[0].body);
    let recorded = ["apply_patch", "bash", "glob", "grep", "question", "read", "skill", "todowrite", "webfetch"];
    assert!(recorded.iter().all(|name| offered.iter().any(|tool| tool == name)), "{offered:?}");
    assert!(!offered.iter().any(|tool| tool == "edit" || tool == "write") && offered.is_sorted(), "{offered:?}");
    let unavailable = transcript::tool_texts(&world.model.main_requests()[3].body)[2].clone();
    assert!(unavailable.contains("unavailable tool 'edit'") && unavailable.contains("apply_patch"), "{unavailable}");
}

#[tokio::test]
async fn a_skill_is_listed_told_of_and_loaded() {
    let text = "---\nname: demo\ndescription: A demo skill\n---\nDemo skill body.\n";
    let files = [(".opencode/skill/demo/SKILL.md", text), (".opencode/skill/demo/extra.txt", "extra\n")];
    let world = World::start_with(spec(&files)).await;
    world.model.script([
        Answer::call("call_1", "skill", json!({"name": "demo"})),
        Answer::call("call_2", "skill", json!({"name": "nope"})),
        Answer::say("done"),
    ]);
    let folder = world.file(".opencode/skill/demo");
    let listed = world.client().get("/skill").await.ok();
    let demo = listed.as_array().unwrap().iter().find(|skill| skill["name"] == "demo");
    let location = folder.join("SKILL.md");
    let shape =
        json!({"name": "demo", "description": "A demo skill", "location": location, "content": "Demo skill body.\n"});
    assert_eq!(demo, Some(&shape));
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let parts = world.client().tool_parts(&id).await;
    let state = json!({
        "input": {"name": "demo"},
        "output": "<string>",
        "title": "Loaded skill: demo",
        "metadata": {"name": "demo", "dir": folder, "truncated": false},
    });
    part(&id, "call_1", "skill", state).check(&parts[0]);
    let output = parts[0]["state"]["output"].as_str().unwrap();
    assert!(output.contains("\nDemo skill body.\n") && output.contains("demo/extra.txt</file>"), "{output}");
    let error = parts[1]["state"]["error"].as_str().unwrap();
    assert!(error.starts_with("Skill \"nope\" not found. Available skills: "), "{error}");
    let system = world.model.main_requests()[0].body["messages"][0]["content"].as_str().unwrap().to_owned();
    assert!(system.contains("<available_skills>") && system.contains("A demo skill"), "{system}");
}

#[tokio::test]
async fn a_page_of_this_machine_is_fetched_only_where_the_server_allows_it() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/page", listener.local_addr().unwrap());
    let site = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let page = "<html><head><title>T</title></head><body><h1>Head</h1><p>para <b>bold</b></p></body></html>";
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\nconnection: close\r\n";
            let _ = stream.write_all(format!("{head}content-length: {}\r\n\r\n{page}", page.len()).as_bytes()).await;
        }
    });
    // The first replica allows it, the others do not.
    let allow = ["--webfetch-allow", "127.0.0.0/8"].map(str::to_owned).to_vec();
    let world = World::start_with(WorldSpec { own_args: vec![allow], ..WorldSpec::default() }).await;
    let input = json!({"url": url, "format": "markdown"});
    let id = world.session().await;
    world.model.script([Answer::call("call_1", "webfetch", input.clone()), Answer::say("done")]);
    world.at(0).prompt(&id, "go").await;
    let parts = world.client().tool_parts(&id).await;
    let state = json!({
        "input": input,
        "output": "T\n\n# Head\n\npara **bold**",
        "title": format!("{url} (text/html; charset=utf-8)"),
        "metadata": {"truncated": false},
    });
    part(&id, "call_1", "webfetch", state).check(&parts[0]);
    if world.mode() == Mode::ThreeReplicas {
        world.model.script([Answer::call("call_2", "webfetch", input), Answer::say("done")]);
        world.at(1).prompt(&id, "again").await;
        let error = world.client().tool_parts(&id).await[1]["state"]["error"].clone();
        assert!(error.as_str().unwrap().contains("may not be fetched here"), "{error}");
    }
    site.abort();
}

fn question() -> (Value, Answer) {
    let option = |label: &str| json!({"label": label, "description": "d"});
    let questions = json!([
        {"question": "Which one?", "header": "Pick", "options": [option("A"), option("B")]},
        {"question": "Many?", "header": "Multi", "options": [option("X"), option("Y")], "multiple": true},
    ]);
    (questions.clone(), Answer::call("c1", "question", json!({"questions": questions})))
}

#[tokio::test]
async fn a_question_is_asked_on_one_replica_and_answered_on_another() {
    let world = World::start().await;
    let (questions, asking) = question();
    world.model.script([asking, Answer::say("done")]);
    let mut events = world.events(2).await;
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "ask me");
    let asked = events.until_kind(BOUND, "question.asked").await;
    let shape = json!({
        "id": "<que>", "sessionID": id, "questions": questions, "tool": {"messageID": "<msg>", "callID": "c1"},
    });
    Shape::new(&shape.to_string()).check(asked.properties());
    for number in 0..3 {
        assert_eq!(world.at(number).get("/question").await.ok(), json!([asked.properties()]), "replica {number}");
    }
    let reply = format!("/question/{}/reply", id_of(asked.properties()));
    assert_eq!(world.at(1).post(&reply, &json!({"answers": "x"})).await.status, 400);
    let answers = json!([["A"], ["X", "custom text"]]);
    assert_eq!(world.at(1).post(&reply, &json!({"answers": answers})).await.ok(), json!(true));
    assert_eq!(world.at(2).post(&reply, &json!({"answers": answers})).await.status, 404);
    assert_eq!(prompt.await.unwrap()["parts"][1]["text"], "done");
    let state = json!({
        "input": {"questions": questions},
        "output": "<string>",
        "title": "Asked 2 questions",
        "metadata": {"answers": answers, "truncated": false},
    });
    let parts = world.client().tool_parts(&id).await;
    part(&id, "c1", "question", state).check(&parts[0]);
    let told = transcript::tool_texts(&world.model.main_requests()[1].body).remove(0);
    assert!(told.contains(r#""Which one?"="A", "Many?"="X, custom text""#), "{told}");
}

#[tokio::test]
async fn a_question_that_is_dismissed_ends_the_turn_and_an_abort_withdraws_it() {
    let world = World::start().await;
    world.model.script([question().1, question().1]);
    let mut events = world.events(1).await;
    let id = world.session().await;
    let prompt = world.spawn_prompt(0, &id, "ask me");
    let asked = events.until_kind(BOUND, "question.asked").await;
    world.at(2).post(&format!("/question/{}/reject", id_of(asked.properties())), &json!({})).await.ok();
    let answer = prompt.await.unwrap();
    assert_eq!((&answer["info"]["finish"], answer["info"].get("error")), (&json!("tool-calls"), None));
    assert_eq!(world.client().tool_parts(&id).await[0]["state"]["error"], "The user dismissed this question");
    let rejected = events.until_kind(BOUND, "question.rejected").await;
    assert_eq!(rejected.properties(), &json!({"sessionID": id, "requestID": asked.properties()["id"]}));

    let prompt = world.spawn_prompt(0, &id, "ask again");
    events.until_kind(BOUND, "question.asked").await;
    world.at(1).abort(&id).await;
    assert_eq!(prompt.await.unwrap()["info"]["error"]["name"], "MessageAbortedError");
    let state = world.client().tool_parts(&id).await[1]["state"].clone();
    assert_eq!((&state["error"], &state["metadata"]["interrupted"]), (&json!("Tool execution aborted"), &json!(true)));
    assert_eq!(world.client().get("/question").await.ok(), json!([]));
}

#[tokio::test]
async fn a_question_outlives_the_replica_that_asked_it() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--lease-ttl", "2s", "--tick", "300ms"].map(str::to_owned).to_vec();
    let mut world = World::start_with(WorldSpec { args, ..WorldSpec::default() }).await;
    world.model.script([question().1, Answer::say("done")]);
    let mut events = world.events(1).await;
    let id = world.session().await;
    world.at(0).prompt_async(&id, "ask me").await;
    let asked = events.until_kind(BOUND, "question.asked").await;
    world.replica(0).kill9();
    let reply = format!("/question/{}/reply", id_of(asked.properties()));
    // Nobody need own the session yet: the answer waits for whoever goes on.
    assert_eq!(world.at(2).post(&reply, &json!({"answers": [["A"], []]})).await.ok(), json!(true));
    events.until_idle(BOUND, &id).await;
    let parts = world.at(1).tool_parts(&id).await;
    assert_eq!(parts[0]["state"]["metadata"]["answers"], json!([["A"], []]));
    assert_eq!(events.collected().iter().filter(|e| e.kind() == "question.asked").count(), 1, "it is asked once");
}

#[tokio::test]
async fn a_file_that_two_replicas_edit_at_once_loses_no_edit() {
    const EDITS: usize = 12;
    let line = |session: &str, edit: usize| format!("{session} {edit}: old\n");
    let lines: String =
        ["one", "two"].iter().flat_map(|session| (0..EDITS).map(move |edit| line(session, edit))).collect();
    let world = World::start_with(spec(&[("shared.txt", &lines)])).await;
    world.model.respond_with(|body| {
        if !transcript::tool_texts(body).is_empty() {
            return Answer::say("done");
        }
        let session = transcript::last_user_text(body);
        let edit = |edit: usize| {
            let text = |state: &str| format!("{session} {edit}: {state}\n");
            json!({"filePath": "shared.txt", "oldString": text("old"), "newString": text("new")})
        };
        let calls =
            (0..EDITS).fold(Answer::new(), |answer, at| answer.tool_call(&format!("call_{at}"), "edit", edit(at)));
        calls.finish("tool_calls", Usage::default())
    });
    let (one, two) = (world.session().await, world.session().await);
    let prompts = [world.spawn_prompt(0, &one, "one"), world.spawn_prompt(1, &two, "two")];
    for prompt in prompts {
        prompt.await.unwrap();
    }
    for id in [&one, &two] {
        for part in world.client().tool_parts(id).await {
            assert_eq!(part["state"]["status"], "completed", "{part}");
        }
    }
    assert_eq!(std::fs::read_to_string(world.file("shared.txt")).unwrap(), lines.replace("old", "new"));
}

#[tokio::test]
async fn an_output_is_as_long_as_the_configuration_says() {
    let config = json!({"tool_output": {"max_lines": 2}});
    let text = "---\nname: long\ndescription: d\n---\none\ntwo\nthree\n";
    let world = World::start_with(WorldSpec { config, ..spec(&[(".opencode/skill/long/SKILL.md", text)]) }).await;
    world.model.script([Answer::call("call_1", "skill", json!({"name": "long"})), Answer::say("done")]);
    let id = world.session().await;
    world.prompt(&id, "go").await;
    let state = world.client().tool_parts(&id).await[0]["state"].clone();
    assert_eq!(state["metadata"]["truncated"], true);
    let kept = state["metadata"]["outputPath"].as_str().unwrap();
    assert!(std::path::Path::new(kept).starts_with(world.data_dir().join("tool-output")), "{kept}");
    assert!(std::fs::read_to_string(kept).unwrap().contains("three"));
    let output = state["output"].as_str().unwrap();
    assert!(
        output.starts_with("<skill_content name=\"long\">\n# Skill: long\n") && !output.contains("three"),
        "{output}"
    );
}
