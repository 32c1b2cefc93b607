//! What OpenCode left behind: a data directory of 1.1, and what 1.18 exports.

#![allow(clippy::unwrap_used, reason = "a test that fails says where")]

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use testkit::client::{parts_of, text_of};
use testkit::install::{flotilla_binary, repository};
use testkit::{Answer, BOUND, Client, Failpoint, Mode, Shape, World, eventually, transcript};

const OLD: &str = "ses_dfcb02e31ffeHuq4U4ccQNDTGY";
const OLD_TREE: &str = "/srv/demo/ws11";
const OLD_PROJECT: &str = "f39972edc8eaee060f83c0de0d11c55c6530bff9";
const EXPORT: &str = include_str!("../fixtures/export-1.18.34.json");
const EXPORTED: &str = "ses_de71b8ec5ffelRDLE41mj2Sze7";
const EXPORTED_PROJECT: &str = "a5642ca8a3b5f42627419c1648db24ea790744bf";

/// All files below a directory and what they hold.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                found.insert(path.clone(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

async fn project(world: &World) -> String {
    world.client().get("/project/current").await.ok()["id"].as_str().unwrap().to_owned()
}

/// A world whose data directory OpenCode 1.1 wrote, moved to the world's work tree. Returns the old files, too.
async fn old_world() -> (World, BTreeMap<PathBuf, Vec<u8>>) {
    let world = World::start().await;
    let (project, tree) = (project(&world).await, world.directory_text());
    let from = repository().join("tests/fixtures/data-1.1/storage");
    let mut old = BTreeMap::new();
    for (path, bytes) in files(&from) {
        let moved = |text: &str| text.replace(OLD_TREE, &tree).replace(OLD_PROJECT, &project);
        let name = moved(path.strip_prefix(&from).unwrap().to_str().unwrap());
        let to = world.data_dir().join("storage").join(name);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let text = moved(std::str::from_utf8(&bytes).unwrap());
        std::fs::write(&to, &text).unwrap();
        old.insert(to, text.into_bytes());
    }
    (world, old)
}

/// Those of the files that hold something else now, or are gone.
fn changed(old: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<&PathBuf> {
    old.iter().filter(|(path, bytes)| std::fs::read(path).ok().as_ref() != Some(bytes)).map(|(path, _)| path).collect()
}

#[tokio::test]
async fn a_session_of_1_1_is_listed_and_read_on_every_replica_and_stays_byte_for_byte() {
    let (world, old) = old_world().await;
    let session = r#"{"id": "<session>", "slug": "eager-sailor", "version": "1.1.65", "projectID": "<project>",
        "directory": "<directory>", "path": "", "title": "t", "cost": 0,
        "tokens": {"input": 0, "output": 0, "reasoning": 0, "cache": {"read": 0, "write": 0}},
        "summary": {"additions": 0, "deletions": 0, "files": 0},
        "time": {"created": 1795351892431, "updated": 1795351893737}}"#;
    let session = Shape::new(session)
        .with("session", OLD)
        .with("project", project(&world).await)
        .with("directory", world.directory_text());
    for number in 0..3 {
        let client = world.at(number);
        let listed = client.get("/session").await.ok();
        assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
        session.check(&listed[0]);
        session.check(&client.get(&format!("/session/{OLD}")).await.ok());
        let messages = client.messages(OLD).await;
        let roles: Vec<&str> = messages.iter().map(|message| message["info"]["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["user", "assistant", "assistant"]);
        let finishes: Vec<&Value> = messages.iter().map(|message| &message["info"]["finish"]).collect();
        assert_eq!(finishes, [&Value::Null, &json!("tool-calls"), &json!("stop")]);
        assert!(messages[0]["info"]["summary"]["title"].as_str().unwrap().starts_with("word0 "), "unknown fields stay");
        assert_eq!(parts_of(&messages[1])[1]["state"]["output"], "hi\nopencode.json\n");
        assert_eq!(client.get(&format!("/session/{OLD}/todo")).await.ok(), json!([]));
        assert_eq!(client.get(&format!("/session/{OLD}/diff")).await.ok(), json!([]));
        let page = client.get(&format!("/session/{OLD}/message?limit=1")).await;
        assert_eq!(page.ok()[0]["info"]["id"], messages[2]["info"]["id"]);
        assert_eq!(client.status(OLD).await, "idle");
    }
    assert!(changed(&old).is_empty(), "{:?}", changed(&old));
}

#[tokio::test]
async fn a_session_of_1_1_goes_on_where_it_was_and_nothing_is_rewritten_but_its_own_record() {
    let (world, old) = old_world().await;
    let record =
        old.keys().find(|path| path.ends_with(format!("{OLD}.json")) && path.to_string_lossy().contains("/session/"));
    let record = record.unwrap();
    let mut with_more: Value = serde_json::from_slice(&old[record]).unwrap();
    with_more["later"] = json!({"kept": [1, null]});
    std::fs::write(record, with_more.to_string()).unwrap();
    world.model.push(Answer::say("and on"));
    assert_eq!(text_of(&world.prompt(OLD, "go on").await), "and on");
    let asked = &world.model.main_requests()[0].body;
    assert_eq!(transcript::user_texts(asked), ["hello usebash", "go on"]);
    assert_eq!(transcript::tool_texts(asked), ["hi\nopencode.json\n"]);
    for number in 0..3 {
        let messages = world.at(number).messages(OLD).await;
        assert_eq!(messages.len(), 5, "the new ones come after the old ones");
        assert_eq!(text_of(&messages[4]), "and on");
        // Not held against the contract: it knows no such field.
        let session = Client::new([world.url(number)]).get(&format!("/session/{OLD}")).await.ok();
        assert_eq!((&session["agent"], &session["version"]), (&json!("build"), &json!("1.1.65")));
    }
    assert_eq!(changed(&old), [record]);
    let rewritten: Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(rewritten["later"], with_more["later"], "unknown fields survive a rewrite");
}

#[tokio::test]
async fn a_session_of_1_1_is_forked_and_stays_byte_for_byte() {
    let (world, old) = old_world().await;
    let fork = world.at(1).post(&format!("/session/{OLD}/fork"), &json!({})).await.ok();
    assert_eq!(fork["title"], "t (fork #1)");
    let id = fork["id"].as_str().unwrap().to_owned();
    let texts = |messages: Vec<Value>| messages.iter().map(text_of).collect::<Vec<String>>();
    let original = texts(world.client().messages(OLD).await);
    for number in 0..3 {
        assert_eq!(texts(world.at(number).messages(&id).await), original);
    }
    world.model.push(Answer::say("on its own"));
    assert_eq!(text_of(&world.prompt(&id, "go on").await), "on its own");
    assert_eq!(texts(world.client().messages(OLD).await), original);
    assert!(changed(&old).is_empty(), "{:?}", changed(&old));
}

#[tokio::test]
async fn a_session_of_1_1_is_deleted_for_good() {
    let (world, _) = old_world().await;
    assert_eq!(world.at(1).delete(&format!("/session/{OLD}")).await.ok(), json!(true));
    for number in 0..3 {
        assert_eq!(world.at(number).get(&format!("/session/{OLD}")).await.status, 404);
        assert_eq!(world.at(number).get("/session").await.ok(), json!([]));
    }
    eventually(BOUND, "its files to go", || async {
        let left = files(&world.data_dir().join("storage"));
        let left: Vec<_> = left.keys().filter(|path| !path.ends_with("migration")).collect();
        let of_session =
            |path: &&&PathBuf| path.to_string_lossy().contains("_2034fd") || path.to_string_lossy().contains(OLD);
        (left.iter().filter(of_session).count() == 0).then_some(())
    })
    .await;
}

/// OpenCode died in the midst of a command: whether it took effect is unknown.
#[tokio::test]
async fn a_command_that_1_1_left_running_is_never_run_again() {
    let (world, old) = old_world().await;
    let part = old.keys().find(|path| path.to_string_lossy().contains("prt_2034fd4db0018tqwSjhwu9f0HH")).unwrap();
    let mut value: Value = serde_json::from_slice(&old[part]).unwrap();
    let input = json!({"command": "touch ran-again", "description": "d"});
    value["state"] = json!({"status": "running", "input": input, "time": {"start": 1_795_351_893_214_u64}});
    std::fs::write(part, value.to_string()).unwrap();
    let message = |id: &str| old.keys().find(|path| path.ends_with(format!("{id}.json"))).unwrap();
    let open = message("msg_2034fd4410016Q8kz8lJCHAI7l");
    let mut value: Value = serde_json::from_slice(&old[open]).unwrap();
    value.as_object_mut().unwrap().retain(|key, _| key != "finish");
    value["time"] = json!({"created": 1_795_351_893_057_u64});
    std::fs::write(open, value.to_string()).unwrap();
    std::fs::remove_file(message("msg_2034fd523001lxNzjBgLTtiwMd")).unwrap();
    world.model.push(Answer::say("and on"));
    assert_eq!(text_of(&world.prompt(OLD, "go on").await), "and on");
    assert!(!world.file("ran-again").exists());
    let left = &world.messages(OLD).await[1];
    assert_eq!(left["info"]["finish"], "unknown");
    let state = &parts_of(left)[1]["state"];
    assert_eq!((&state["status"], &state["metadata"]["interrupted"]), (&json!("error"), &json!(true)), "{state}");
}

/// Runs `flotilla import` on a file with this text.
fn import(world: &World, text: &str) -> Output {
    import_with(world, text, &[])
}

fn import_with(world: &World, text: &str, env: &[(&str, &Path)]) -> Output {
    let file = world.file("export.json");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(flotilla_binary());
    command.arg("import").arg(&file).arg("--data-dir").arg(world.data_dir());
    command.env_clear().env("HOME", world.directory()).envs(env.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8(text).unwrap()
}

/// The export of the fixture, as of this world's work tree.
async fn export(world: &World) -> String {
    EXPORT.replace("/srv/demo/ws", &world.directory_text()).replace(EXPORTED_PROJECT, &project(world).await)
}

async fn an_export_is_taken_in(world: World) {
    let text = export(&world).await;
    let document: Value = serde_json::from_str(&text).unwrap();
    let done = import(&world, &text);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(said(&done), format!("{EXPORTED} imported: An exported title\n"));
    for number in 0..3 {
        let client = world.at(number);
        assert_eq!(client.get("/session").await.ok(), json!([document["info"]]));
        assert_eq!(json!(client.messages(EXPORTED).await), document["messages"], "replica {number}");
    }
    let before = files(&world.data_dir().join("storage"));
    let again = import(&world, &text);
    assert!(again.status.success());
    assert_eq!(said(&again), format!("{EXPORTED} is here already\n"));
    assert_eq!(files(&world.data_dir().join("storage")), before, "twice is harmless");

    world.model.push(Answer::say("and on"));
    assert_eq!(text_of(&world.prompt(EXPORTED, "go on").await), "and on");
    let asked = &world.model.main_requests()[0].body;
    assert_eq!(transcript::user_texts(asked).len(), 3);
    let session = world.client().get(&format!("/session/{EXPORTED}")).await.ok();
    assert_eq!(session["tokens"]["input"], 590, "the sums go on from those of the export");

    // It has another content now.
    let refused = import(&world, &text);
    let words = format!("{EXPORTED} is here with another content, or was deleted here\n");
    assert!(!refused.status.success() && said(&refused).ends_with(&words), "{}", said(&refused));
    assert_eq!(said(&refused).lines().count(), 1);
    assert_eq!(world.messages(EXPORTED).await.len(), 8);
    world.client().delete(&format!("/session/{EXPORTED}")).await.ok();
    assert!(said(&import(&world, &text)).ends_with(&words), "nothing that was deleted comes back");
}

#[tokio::test]
async fn an_export_of_1_18_is_taken_in_beside_a_fleet() {
    an_export_is_taken_in(World::start().await).await;
}

#[tokio::test]
async fn an_export_of_1_18_is_taken_in_beside_a_single_replica() {
    an_export_is_taken_in(World::start_in(Mode::Embedded, Default::default()).await).await;
}

#[tokio::test]
async fn an_import_that_would_take_what_is_another_sessions_is_refused_in_one_line() {
    let world = World::start().await;
    let text = export(&world).await;
    assert!(import(&world, &text).status.success());
    let other = "ses_de71b8ec5ffelRDLE41mj2Sze8";
    let cases = [
        // The same messages under another session.
        (text.replace(EXPORTED, other), format!("{other} is here with another content, or was deleted here")),
        (text.replacen(EXPORTED, other, 1), "belongs to another session".to_owned()),
        (text.replace("\"assistant\"", "\"nobody\""), "a message cannot be understood".to_owned()),
        (text.replace(EXPORTED, "ses_../../x"), "the session cannot be understood".to_owned()),
        (text.replace(&project(&world).await, "../.."), "no name for a record".to_owned()),
        ("{".to_owned(), "export.json".to_owned()),
    ];
    for (text, words) in cases {
        let refused = import(&world, &text);
        let said = said(&refused);
        assert!(!refused.status.success() && said.contains(&words) && said.lines().count() == 1, "{words}: {said}");
    }
    assert_eq!(world.client().get("/session").await.ok().as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_import_of_several_files_takes_in_all_that_it_can() {
    let world = World::start_in(Mode::Embedded, Default::default()).await;
    let text = export(&world).await;
    let (bad, good) = (world.file("bad.json"), world.file("good.json"));
    std::fs::write(&bad, "{").unwrap();
    std::fs::write(&good, format!("\u{feff}{text}")).unwrap();
    let mut command = Command::new(flotilla_binary());
    command.arg("import").args([&bad, &good]).arg("--data-dir").arg(world.data_dir());
    let done = command.env_clear().env("HOME", world.directory()).output().unwrap();
    assert!(!done.status.success(), "one of them was not taken in");
    let words = String::from_utf8(done.stderr).unwrap();
    assert!(words.contains("bad.json") && words.ends_with("1 of 2 files were not taken in\n"), "{words}");
    assert_eq!(String::from_utf8(done.stdout).unwrap(), format!("{EXPORTED} imported: An exported title\n"));
    assert_eq!(world.messages(EXPORTED).await.len(), 6);
}

#[tokio::test]
async fn many_imports_of_the_same_at_once_are_one() {
    let world = World::start().await;
    let text = export(&world).await;
    let file = world.file("export.json");
    std::fs::write(&file, &text).unwrap();
    let start = || {
        let mut command = Command::new(flotilla_binary());
        command
            .arg("import")
            .arg(&file)
            .arg("--data-dir")
            .arg(world.data_dir())
            .env_clear()
            .env("HOME", world.directory());
        command.stdout(std::process::Stdio::piped()).spawn().unwrap()
    };
    let started: Vec<_> = (0..6).map(|_| start()).collect();
    let said: Vec<String> = started.into_iter().map(|child| said(&child.wait_with_output().unwrap())).collect();
    let new = said.iter().filter(|said| said.contains("imported")).count();
    let known = said.iter().filter(|said| said.contains("is here already")).count();
    // Whoever is overtaken between the session's record and the head finds its own session, as the others do.
    assert!(new <= 1 && new + known == 6, "{said:?}");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json!(world.messages(EXPORTED).await), document["messages"]);
}

/// An import that is killed in its midst has shown nobody anything, and the same import again finishes it.
#[tokio::test]
async fn an_import_that_is_killed_anywhere_shows_nothing_and_is_finished_by_the_same_again() {
    let world = World::start().await;
    let text = export(&world).await;
    let document: Value = serde_json::from_str(&text).unwrap();
    let list = async || world.client().get("/session").await.ok();
    let points = [
        Failpoint::before("rename", "/flotilla/guard/"),
        Failpoint::after("rename", "/flotilla/guard/"),
        Failpoint::after("create", "/flotilla/guard/").skip(3),
        Failpoint::after("rename", "/storage/part/"),
        Failpoint::before("rename", "/storage/message/"),
        Failpoint::after("rename", "/storage/message/").skip(2),
        Failpoint::before("rename", "/storage/session/"),
    ];
    let armed = tempfile::tempdir().unwrap();
    for point in points {
        let killed = point.arm(armed.path(), "kill");
        let died = import_with(&world, &text, &[("FAILPOINTS", armed.path())]);
        assert_eq!(died.status.signal(), Some(9), "{point:?}: {}", said(&died));
        killed.reached(BOUND).await;
        assert_eq!(list().await, json!([]), "{point:?}");
        for path in [format!("/session/{EXPORTED}"), format!("/session/{EXPORTED}/message")] {
            assert_eq!(world.client().get(&path).await.status, 404, "{point:?}");
        }
    }
    // Its record is there from here on: the last death takes nothing with it but the head's count.
    let killed = Failpoint::after("rename", "/storage/session/").arm(armed.path(), "kill");
    let died = import_with(&world, &text, &[("FAILPOINTS", armed.path())]);
    assert_eq!(died.status.signal(), Some(9), "{}", said(&died));
    killed.reached(BOUND).await;
    let again = import(&world, &text);
    assert!(again.status.success(), "{}", said(&again));
    for number in 0..3 {
        assert_eq!(world.at(number).get("/session").await.ok(), json!([document["info"]]));
        assert_eq!(json!(world.at(number).messages(EXPORTED).await), document["messages"], "replica {number}");
    }
    world.model.push(Answer::say("and on"));
    assert_eq!(text_of(&world.prompt(EXPORTED, "go on").await), "and on");
}
