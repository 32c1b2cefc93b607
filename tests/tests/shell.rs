//! Commands that a person runs in a session.

use serde_json::{Value, json};
use testkit::client::{parts_of, text_of};
use testkit::outline::outline;
use testkit::{Answer, BOUND, Client, Mode, Reply, World, WorldSpec, eventually, transcript};

async fn shell(client: &Client, id: &str, command: &str) -> Reply {
    client.post(&format!("/session/{id}/shell"), &json!({"agent": "build", "command": command})).await
}

fn spawn_shell(world: &World, number: usize, id: &str, command: &str) -> tokio::task::JoinHandle<Reply> {
    let (client, id, command) = (world.at(number), id.to_owned(), command.to_owned());
    tokio::spawn(async move { shell(&client, &id, &command).await })
}

fn state(message: &Value) -> &Value {
    &parts_of(message)[0]["state"]
}

#[tokio::test]
async fn a_command_is_run_and_shown_as_recorded() {
    let world = World::start().await;
    let mut events = world.events(2).await;
    let id = world.session().await;
    let answer = shell(&world.client(), &id, "echo hello; echo err >&2").await.ok();
    let info = &answer["info"];
    assert_eq!((&info["role"], &info["mode"], &info["modelID"]), (&json!("assistant"), &json!("build"), &json!("m")));
    assert!(info.get("finish").is_none() && info["time"]["completed"].is_number());
    let expected = json!({
        "status": "completed", "input": {"command": "echo hello; echo err >&2"}, "title": "", "output": "hello\nerr\n",
        "metadata": {"output": "hello\nerr\n"}, "time": state(&answer)["time"],
    });
    assert_eq!((parts_of(&answer).len(), state(&answer)), (1, &expected));
    events.until_idle(BOUND, &id).await;
    let mut told = outline(&events.of_session(&id));
    told.dedup_by(|a, b| a == b && a.ends_with("bash running"));
    let recorded = [
        "session.created",
        "session.status busy",
        "message.updated user",
        "message.part.updated text full",
        "message.updated assistant",
        "message.part.updated tool bash running",
        "message.updated assistant completed",
        "message.part.updated tool bash completed",
        "session.status idle",
        "session.idle",
    ];
    assert_eq!(told, recorded);

    let failed = shell(&world.client(), &id, "exit 4").await.ok();
    assert_eq!((&state(&failed)["status"], &state(&failed)["output"]), (&json!("completed"), &json!("")));
    let session = world.client().get(&format!("/session/{id}")).await.ok();
    assert!(session.get("summary").is_none() && session.get("agent").is_none(), "{session}");

    // The next prompt's model sees what was run.
    world.model.push(Answer::say("saw it"));
    assert_eq!(text_of(&world.prompt(&id, "look").await), "saw it");
    let asked = &world.model.main_requests()[0].body;
    assert_eq!(transcript::tool_texts(asked)[0], "hello\nerr\n");
    assert_eq!(transcript::user_texts(asked).last().unwrap(), "look");
}

#[tokio::test]
async fn bad_shell_requests_are_refused_as_recorded() {
    let world = World::start().await;
    let id = world.session().await;
    let client = world.client();
    let path = format!("/session/{id}/shell");
    let missing = client.post(&path, &json!({"command": "echo"})).await;
    let message = "Missing key\n  at [\"agent\"]";
    let expected = json!({"name": "BadRequest", "data": {"message": message, "kind": "Payload"}});
    assert_eq!((missing.status, missing.json()), (400, expected));
    let mut events = world.events(1).await;
    let unknown = client.post(&path, &json!({"agent": "nope", "command": "echo x"})).await;
    assert_eq!((unknown.status, &unknown.json()["name"]), (500, &json!("UnknownError")));
    let error = events.until_kind(BOUND, "session.error").await;
    let message = "Agent not found: \"nope\". Available agents: build, explore, general, plan";
    assert_eq!(error.properties()["error"]["data"]["message"], message);
    assert_eq!(shell(&client, "ses_nope", "echo x").await.status, 404);
    assert_eq!(world.messages(&id).await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_session_is_busy_while_a_command_runs_and_prompts_wait_for_it() {
    let world = World::start().await;
    world.model.push(Answer::say("after the shell"));
    let id = world.session().await;
    let running = spawn_shell(&world, 0, &id, "touch begun; until [ -e go ]; do sleep 0.02; done; echo two");
    eventually(BOUND, "the command to begin", || async { world.file("begun").exists().then_some(()) }).await;
    assert_eq!(world.at(1).status(&id).await, "busy");
    let busy = shell(&world.at(1), &id, "echo second").await;
    let expected = json!({"_tag": "SessionBusyError", "sessionID": id, "message": format!("Session is busy: {id}")});
    assert_eq!((busy.status, busy.json()), (409, expected));
    let mut events = world.events(2).await;
    let prompt = world.spawn_prompt(2, &id, "prompt while the shell runs");
    events.until_kind(BOUND, "message.part.updated").await;
    std::fs::write(world.file("go"), "").unwrap();
    assert_eq!(state(&running.await.unwrap().ok())["output"], "two\n", "the command is answered by itself");
    assert_eq!(text_of(&prompt.await.unwrap()), "after the shell");
    assert_eq!(world.model.concurrent_runs(&id), 1);
    let asked = &world.model.main_requests()[0].body;
    assert_eq!(transcript::tool_texts(asked), ["two\n"]);
}

#[tokio::test]
async fn an_abort_anywhere_ends_a_command_and_drops_the_prompt_behind_it() {
    let world = World::start().await;
    let id = world.session().await;
    let running = spawn_shell(&world, 0, &id, "echo one; touch begun; sleep 615; echo two");
    eventually(BOUND, "the command to begin", || async { world.file("begun").exists().then_some(()) }).await;
    let mut events = world.events(2).await;
    let prompt = world.spawn_prompt(2, &id, "prompt while the shell runs");
    events.until_kind(BOUND, "message.part.updated").await;
    world.at(1).abort(&id).await;
    let answer = running.await.unwrap().ok();
    assert_eq!(state(&answer)["status"], "completed");
    let output = state(&answer)["output"].as_str().unwrap();
    assert!(output.starts_with("one\n") && output.contains("User aborted the command"), "{output}");
    assert_eq!(prompt.await.unwrap()["info"]["id"], answer["info"]["id"], "the newest answer is the command's");
    assert_eq!(world.status(&id).await, "idle");
    assert!(world.model.main_requests().is_empty());
}

#[tokio::test]
async fn a_command_of_a_killed_replica_ends_and_is_not_run_again() {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let args = ["--lease-ttl", "3s", "--tick", "500ms"].map(str::to_owned).to_vec();
    let mut world = World::start_with(WorldSpec { args, ..WorldSpec::default() }).await;
    let id = world.session().await;
    let lost = tokio::spawn({
        let (client, path) = (world.at(0), format!("/session/{id}/shell"));
        let body = json!({"agent": "build", "command": "echo begun >> trace; sleep 616"}).to_string().into_bytes();
        let json = [("content-type", "application/json"), ("idempotency-key", "shell-1")];
        async move { client.try_send(reqwest::Method::POST, &path, &json, Some(body)).await }
    });
    eventually(BOUND, "the command to begin", || async { world.file("trace").exists().then_some(()) }).await;
    world.replica(0).kill9();
    assert!(lost.await.unwrap().is_err());
    let again = world.at(1).with_header("idempotency-key", "shell-1");
    let answer = shell(&again, &id, "echo begun >> trace; sleep 616").await.ok();
    assert_eq!(
        (&state(&answer)["status"], &state(&answer)["metadata"]["interrupted"]),
        (&json!("error"), &json!(true))
    );
    assert_eq!(std::fs::read_to_string(world.file("trace")).unwrap(), "begun\n", "run once");
    assert_eq!(world.at(2).status(&id).await, "idle");
}
