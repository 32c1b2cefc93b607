//! What a run makes of what others left: old data, damaged records, steps that their runner did not end. Engines over one
//! store, each with a backend of its own unless a test says otherwise; the provider says what the test wants.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers, too")]

mod support;

use async_trait::async_trait;
use coordination::memory::Memory;
use coordination::{LogLimits, Ports};
use engine::{Accepted, Engine, EngineError, NewSession, Parts, Prompt, Scope, Settings, TicketRef};
use futures_util::{StreamExt, stream};
use models::{ChatRequest, FinishReason, ModelError, ModelEvent, ModelStream, Provider, Usage};
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use storage::{Durability, Store};
use support::{Scrambled, Wall};
use tokio::time::timeout;
use wire::clock::Entropy;
use wire::ids::{IdSource, MessageId, PermissionId, SessionId};
use wire::message::{Message, MessageWithParts, UserModel};
use wire::part::{PartKind, TextPart, ToolState};
use wire::permission::{Action, Reply, Rule};
use wire::session::{Session, SessionStatus};
use wire::tenant::Tenant;

const BOUND: Duration = Duration::from_secs(30);
const TICK: Duration = Duration::from_millis(20);

/// Answers as it was told to, one answer for each request; when that is used up, as the demo model does.
#[derive(Default)]
struct Told {
    answers: Mutex<VecDeque<Result<Vec<ModelEvent>, ModelError>>>,
    asked: AtomicU64,
}

impl Told {
    fn to_say(answers: impl IntoIterator<Item = Result<Vec<ModelEvent>, ModelError>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), asked: AtomicU64::new(0) })
    }
}

#[async_trait]
impl Provider for Told {
    async fn stream(&self, request: ChatRequest) -> Result<ModelStream, ModelError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let told = self.answers.lock().unwrap().pop_front();
        match told {
            Some(events) => Ok(ModelStream::new(stream::iter(events?).map(Ok))),
            None => models::demo::Demo::new(Duration::ZERO).stream(request).await,
        }
    }
}

fn memory() -> Memory {
    Memory::new(Arc::new(Scrambled(AtomicU64::new(1))), LogLimits::default())
}

fn settings(root: &Path) -> Settings {
    let env = HashMap::from([("HOME".to_owned(), root.to_string_lossy().into_owned())]);
    let tools = tools::ToolSettings::new("/bin/false".into(), root.join("out"), sandbox::ChildEnv::default());
    Settings {
        name: "test".into(),
        lease_ttl: Duration::from_secs(10),
        tick: TICK,
        drain_deadline: BOUND,
        attempts: 3,
        queue_limit: 100,
        surroundings: agents::Surroundings::new(env, root.join("data"), true),
        tools: Arc::new(tools),
    }
}

/// An engine; `seed` sets its ids apart from those of others over the same store.
async fn engine(root: &Path, seed: u64, ports: Ports, provider: Arc<dyn Provider>, settings: Settings) -> Engine {
    let entropy: Arc<dyn Entropy> = Arc::new(Scrambled(AtomicU64::new(seed)));
    let ids = Arc::new(IdSource::new(Arc::new(Wall), entropy.clone()));
    let store = Store::open(root.join("data"), Durability::Os, entropy).unwrap();
    let (demo, tools) = (provider.clone(), Arc::new(tools::Registry::builtin()));
    Engine::start(Parts { ports, store, ids, provider, demo, tools, settings }).await.unwrap()
}

async fn demo(root: &Path, seed: u64) -> Engine {
    engine(root, seed, memory().ports(), Told::to_say([]), settings(root)).await
}

fn scope(root: &Path) -> Scope {
    Scope { tenant: Tenant::default(), directory: root.into() }
}

async fn new_session(engine: &Engine, root: &Path) -> SessionId {
    let new = NewSession { title: Some("titled".into()), ..NewSession::default() };
    engine.create_session(&scope(root), new, None).await.unwrap().id
}

fn text(text: &str) -> Prompt {
    let part = TextPart { text: text.into(), ..TextPart::default() };
    Prompt { parts: vec![(None, PartKind::Text(part))], body_hash: text.into(), ..Prompt::default() }
}

async fn send(engine: &Engine, session: &SessionId, prompt: Prompt) -> TicketRef {
    match engine.prompt(&Tenant::default(), session, prompt).await.unwrap() {
        Accepted::Ticket(ticket) => ticket,
        Accepted::Stored(_) => panic!("a prompt takes a ticket"),
    }
}

async fn ended(engine: &Engine, ticket: &TicketRef) -> Result<MessageWithParts, EngineError> {
    timeout(BOUND, engine.wait(ticket)).await.unwrap()
}

async fn answered(engine: &Engine, session: &SessionId, said: &str) -> MessageWithParts {
    let ticket = send(engine, session, text(said)).await;
    ended(engine, &ticket).await.unwrap()
}

fn said(message: &MessageWithParts) -> String {
    message.parts.iter().filter_map(|part| part.text()).map(|part| part.text.as_str()).collect()
}

/// Waits until something is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    timeout(BOUND, async {
        while !is_so().await {
            tokio::time::sleep(TICK / 4).await;
        }
    })
    .await
    .unwrap();
}

/// Rewrites a record as it lies on the disk.
fn rewrite(root: &Path, record: &str, change: impl FnOnce(&mut Value)) {
    let path = root.join("data/storage").join(record);
    let mut value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// A session with an answer in whose midst OpenCode was killed, and that answer. Its text is stored without an end.
async fn cut_off(root: &Path) -> (SessionId, MessageWithParts) {
    let first = demo(root, 7).await;
    let session = new_session(&first, root).await;
    let answer = answered(&first, &session, "one").await;
    first.stop().await;
    rewrite(root, &format!("message/{session}/{}.json", answer.info.id()), |info| {
        info["time"].as_object_mut().unwrap().remove("completed");
        info.as_object_mut().unwrap().remove("finish");
    });
    for part in &answer.parts {
        let record = format!("part/{}/{}.json", answer.info.id(), part.id);
        match &part.kind {
            PartKind::Text(_) => rewrite(root, &record, |part| {
                part["time"].as_object_mut().unwrap().remove("end");
            }),
            PartKind::StepFinish(_) => std::fs::remove_file(root.join("data/storage").join(record)).unwrap(),
            _ => {}
        }
    }
    (session, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_opencode_left_without_an_end_stays_as_it_is_stored() {
    let root = tempfile::tempdir().unwrap();
    let (session, cut) = cut_off(root.path()).await;
    let engine = demo(root.path(), 11).await;
    answered(&engine, &session, "two").await;
    let closed = engine.message(&Tenant::default(), &session, cut.info.id()).await.unwrap();
    let Message::Assistant(info) = &closed.info else { panic!("{closed:?}") };
    assert_eq!(info.finish.as_deref(), Some("unknown"), "it was not closed");
    assert_eq!(said(&closed), said(&cut));
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_odd_metadata_that_was_left_open_is_closed() {
    let root = tempfile::tempdir().unwrap();
    let (session, cut) = cut_off(root.path()).await;
    let id = IdSource::new(Arc::new(Wall), Arc::new(Scrambled(AtomicU64::new(99)))).part();
    let part = json!({
        "id": id, "sessionID": session, "messageID": cut.info.id(), "type": "tool", "callID": "c", "tool": "bash",
        "state": { "status": "running", "input": {}, "metadata": "odd", "time": { "start": 1 } },
    });
    let parts = root.path().join("data/storage/part").join(cut.info.id().as_str());
    std::fs::write(parts.join(format!("{id}.json")), part.to_string()).unwrap();
    let engine = demo(root.path(), 11).await;
    assert!(said(&answered(&engine, &session, "two").await).contains("two"));
    let closed = engine.message(&Tenant::default(), &session, cut.info.id()).await.unwrap();
    let call = closed.parts.iter().find_map(|part| part.tool()).unwrap();
    let ToolState::Error { metadata: Some(metadata), .. } = &call.state else { panic!("{call:?}") };
    assert_eq!(*metadata, json!({ "interrupted": true }));
    engine.stop().await;
}

/// A session whose conversation cannot be read.
async fn damaged(root: &Path) -> SessionId {
    let first = demo(root, 7).await;
    let session = new_session(&first, root).await;
    let answer = answered(&first, &session, "one").await;
    first.stop().await;
    let part = format!("data/storage/part/{}/{}.json", answer.info.id(), answer.parts[0].id);
    std::fs::write(root.join(part), "{").unwrap();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_ends_a_conversation_that_cannot_be_read() {
    let root = tempfile::tempdir().unwrap();
    let session = damaged(root.path()).await;
    let engine = demo(root.path(), 11).await;
    let ticket = send(&engine, &session, text("two")).await;
    engine.abort(&Tenant::default(), &session, None).await.unwrap();
    let _unreadable = ended(&engine, &ticket).await;
    until(async || engine.statuses(&scope(root.path())).await.unwrap().is_empty()).await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_cannot_be_read_is_given_up_though_it_was_to_be_pruned() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("opencode.json"), json!({ "compaction": { "prune": true } }).to_string()).unwrap();
    let session = damaged(root.path()).await;
    let hasty = Settings { attempts: 1, lease_ttl: TICK * 10, ..settings(root.path()) };
    let engine = engine(root.path(), 11, memory().ports(), Told::to_say([]), hasty).await;
    let ticket = send(&engine, &session, text("two")).await;
    let error = ended(&engine, &ticket).await.unwrap_err();
    assert!(error.to_string().contains("again and again"), "{error}");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_that_was_aborted_in_a_wait_is_not_made_by_the_next_prompt() {
    let root = tempfile::tempdir().unwrap();
    let provider = Told::to_say([]);
    let engine = engine(root.path(), 7, memory().ports(), provider.clone(), settings(root.path())).await;
    let (tenant, session) = (Tenant::default(), new_session(&engine, root.path()).await);
    let answer = answered(&engine, &session, "one").await;
    let Message::Assistant(info) = &answer.info else { panic!("{answer:?}") };
    let model = UserModel { provider_id: info.provider_id.clone(), model_id: info.model_id.clone(), variant: None };
    let busy = ModelError::Stream { error: "busy".into(), retryable: true };
    provider.answers.lock().unwrap().extend(vec![Err(busy); 5]);
    let ticket = engine.summarize(&tenant, &session, model, false, "summarize".into(), None).await.unwrap();
    until(async || {
        let statuses = engine.statuses(&scope(root.path())).await.unwrap();
        matches!(statuses.get(&session), Some(SessionStatus::Retry { .. }))
    })
    .await;
    assert!(engine.abort(&tenant, &session, None).await.unwrap());
    let summary = ended(&engine, &ticket).await.unwrap();
    let Message::Assistant(info) = &summary.info else { panic!("{summary:?}") };
    assert_eq!(info.error.as_ref().map(|error| error.name.as_str()), Some("MessageAbortedError"));
    provider.answers.lock().unwrap().clear();
    let before = provider.asked.load(Ordering::SeqCst);
    assert!(said(&answered(&engine, &session, "two").await).contains("two"));
    assert_eq!(provider.asked.load(Ordering::SeqCst), before + 1, "something else was asked, too");
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_sent_again_after_many_others_gets_its_own_answer() {
    let root = tempfile::tempdir().unwrap();
    let engine = demo(root.path(), 7).await;
    let session = new_session(&engine, root.path()).await;
    let named = Prompt { message_id: Some(MessageId::parse("msg_the_first_one").unwrap()), ..text("the first") };
    let ticket = send(&engine, &session, named.clone()).await;
    let first = ended(&engine, &ticket).await.unwrap();
    for number in 0..33 {
        answered(&engine, &session, &format!("other {number}")).await;
    }
    let again = send(&engine, &session, named).await;
    assert_eq!(again, ticket);
    assert_eq!(ended(&engine, &again).await.unwrap().info.id(), first.info.id());
    engine.stop().await;
}

/// So many sessions, one below the other, on a stack on which a call for each of them has no room.
const CHAIN: usize = 400;

#[test]
fn a_long_chain_of_sessions_is_deleted() {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(2).thread_stack_size(512 << 10).enable_all().build().unwrap();
    let root = tempfile::tempdir().unwrap();
    let path: PathBuf = root.path().into();
    let chain = async move {
        let engine = demo(&path, 7).await;
        let (tenant, scope) = (Tenant::default(), scope(&path));
        let mut chain: Vec<SessionId> = Vec::new();
        for _ in 0..CHAIN {
            let new = NewSession { parent_id: chain.last().cloned(), ..NewSession::default() };
            chain.push(engine.create_session(&scope, new, None).await.unwrap().id);
        }
        engine.delete_session(&tenant, &chain[0], None).await.unwrap();
        for id in &chain {
            let gone = engine.session(&tenant, id).await;
            assert!(matches!(gone, Err(EngineError::SessionNotFound(_))), "{gone:?}");
        }
        assert_eq!(std::fs::read_dir(path.join("data/flotilla/open")).unwrap().count(), 0, "markers are left");
        engine.stop().await;
    };
    runtime.block_on(async { timeout(BOUND * 2, tokio::spawn(chain)).await.unwrap().unwrap() });
}

fn question() -> Vec<ModelEvent> {
    let (id, name) = ("call_1".to_owned(), "question".to_owned());
    let choice = json!({ "label": "yes", "description": "do it" });
    let asked = json!({ "questions": [{ "question": "Really?", "header": "really", "options": [choice] }] });
    let usage = Usage { input: 100, output: 10, total: Some(110), ..Usage::default() };
    vec![
        ModelEvent::ToolCallStart { index: 0, id: id.clone(), name: name.clone() },
        ModelEvent::ToolCallEnd { index: 0, id, name, arguments: asked.to_string() },
        ModelEvent::Finish { reason: FinishReason::ToolCalls, usage },
    ]
}

fn done() -> Vec<ModelEvent> {
    let usage = Usage { input: 7, output: 3, total: Some(10), ..Usage::default() };
    let said = [ModelEvent::TextStart, ModelEvent::TextDelta("Done.".into()), ModelEvent::TextEnd];
    said.into_iter().chain([ModelEvent::Finish { reason: FinishReason::Stop, usage }]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_used_is_counted_once_though_it_was_handed_over_while_its_call_waited() {
    let root = tempfile::tempdir().unwrap();
    let (tenant, memory) = (Tenant::default(), memory());
    let provider = Told::to_say([Ok(question()), Ok(done())]);
    let first = engine(root.path(), 7, memory.ports(), provider.clone(), settings(root.path())).await;
    let second = engine(root.path(), 11, memory.ports(), provider, settings(root.path())).await;
    let session = new_session(&first, root.path()).await;
    let ticket = send(&first, &session, text("ask me")).await;
    until(async || !second.questions(&scope(root.path())).await.unwrap().is_empty()).await;
    first.drain().await;
    let asked = second.questions(&scope(root.path())).await.unwrap();
    second.reply_question(&tenant, &asked[0].id, vec![vec!["yes".into()]], None).await.unwrap();
    assert_eq!(said(&ended(&second, &ticket).await.unwrap()), "Done.");
    let messages = second.messages(&tenant, &session, None, None).await.unwrap().items;
    let steps: Vec<_> = messages.iter().filter_map(|message| message.info.assistant()).collect();
    assert_eq!(steps.iter().map(|info| info.tokens.input).collect::<Vec<_>>(), [100, 7]);
    let finish = messages[1].parts.iter().find_map(|part| match &part.kind {
        PartKind::StepFinish(finish) => Some(finish.tokens.clone()),
        _ => None,
    });
    assert_eq!(finish.map(|tokens| (tokens.input, tokens.output, tokens.total)), Some((100, 10, Some(110))));
    let sums = second.session(&tenant, &session).await.unwrap().tokens;
    assert_eq!((sums.input, sums.output), (107, 13));
    first.stop().await;
    second.stop().await;
}

/// A call of `read`, on a file that may be read only by who asks.
fn reading() -> Vec<ModelEvent> {
    let (id, name) = ("call_1".to_owned(), "read".to_owned());
    vec![
        ModelEvent::ToolCallStart { index: 0, id: id.clone(), name: name.clone() },
        ModelEvent::ToolCallEnd { index: 0, id, name, arguments: json!({ "filePath": "a.txt" }).to_string() },
        ModelEvent::Finish { reason: FinishReason::ToolCalls, usage: Usage::default() },
    ]
}

/// A session whose only replica left while a call waited for a permission; what it waits for, and the tickets of the prompt
/// that calls and of `behind`, sent meanwhile.
async fn left_asking(
    root: &Path,
    ports: Ports,
    provider: Arc<Told>,
    behind: &[&str],
) -> (Session, PermissionId, Vec<TicketRef>) {
    std::fs::write(root.join("a.txt"), "what is in it").unwrap();
    let first = engine(root, 7, ports, provider, settings(root)).await;
    let asks = vec![Rule::new("read", "*", Action::Ask)];
    let new = NewSession { title: Some("titled".into()), permission: Some(asks), ..NewSession::default() };
    let session = first.create_session(&scope(root), new, None).await.unwrap();
    let mut tickets = vec![send(&first, &session.id, text("read it")).await];
    until(async || !first.permissions(&scope(root)).await.unwrap().is_empty()).await;
    let asked = first.permissions(&scope(root)).await.unwrap();
    for behind in behind {
        tickets.push(send(&first, &session.id, text(behind)).await);
    }
    first.drain().await;
    first.stop().await;
    (session, asked[0].id.clone(), tickets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_behind_a_call_that_is_rejected_at_its_next_replica_is_answered() {
    let root = tempfile::tempdir().unwrap();
    let (memory, provider) = (memory(), Told::to_say([Ok(reading()), Ok(done())]));
    let (session, ask, tickets) = left_asking(root.path(), memory.ports(), provider.clone(), &["and then?"]).await;
    let second = engine(root.path(), 11, memory.ports(), provider, settings(root.path())).await;
    second.reply_permission(&Tenant::default(), &ask, Reply::Reject, None, None).await.unwrap();
    assert_eq!(said(&ended(&second, &tickets[1]).await.unwrap()), "Done.");
    let messages = second.messages(&Tenant::default(), &session.id, None, None).await.unwrap().items;
    let last = messages.last().and_then(|message| message.info.assistant()).unwrap();
    assert_eq!(
        Some(&last.parent_id),
        messages.iter().filter(|it| it.info.assistant().is_none()).nth(1).map(|it| it.info.id())
    );
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_rejected_is_not_run_though_the_like_was_allowed_since() {
    let root = tempfile::tempdir().unwrap();
    let provider = Told::to_say([Ok(reading())]);
    let (session, ask, tickets) = left_asking(root.path(), memory().ports(), provider.clone(), &[]).await;
    // Said while no replica was there to hear it.
    let record = root.path().join(format!("data/flotilla/ask/{}/{ask}.json", session.id));
    let mut said: Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    said["answer"] = json!({ "type": "reply", "reply": "reject" });
    std::fs::write(record, said.to_string()).unwrap();
    let approvals = root.path().join(format!("data/flotilla/approvals/{}.json", session.project_id));
    std::fs::create_dir_all(approvals.parent().unwrap()).unwrap();
    std::fs::write(approvals, json!([Rule::new("read", "*", Action::Allow)]).to_string()).unwrap();
    let second = engine(root.path(), 11, memory().ports(), provider, settings(root.path())).await;
    let answer = ended(&second, &tickets[0]).await.unwrap();
    let call = answer.parts.iter().find_map(|part| part.tool()).unwrap();
    assert!(matches!(call.state, ToolState::Error { .. }), "{call:?}");
    second.stop().await;
}

#[tokio::test]
async fn what_is_left_of_a_prompt_that_was_never_stored_is_no_part_of_the_same_prompt_sent_again() {
    let root = tempfile::tempdir().unwrap();
    let engine = demo(root.path(), 1).await;
    let session = new_session(&engine, root.path()).await;
    let id = MessageId::parse("msg_again").unwrap();
    let sent = || Prompt { message_id: Some(id.clone()), ..text("once") };
    // As of one under another name whose replica died before the message was stored.
    let left = json!({ "id": "prt_left", "sessionID": session, "messageID": id, "type": "text", "text": "once" });
    let folder = root.path().join("data/storage/part/msg_again");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("prt_left.json"), left.to_string()).unwrap();

    let ticket = send(&engine, &session, sent()).await;
    ended(&engine, &ticket).await.unwrap();
    let stored = engine.message(&Tenant::default(), &session, &id).await.unwrap();
    assert_eq!((stored.parts.len(), said(&stored)), (1, "once".to_owned()));
}
