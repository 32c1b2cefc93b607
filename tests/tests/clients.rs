//! The real clients, through nginx and HAProxy: the SDK, `opencode run --attach`, the terminal.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use suite::figures::rounds;
use testkit::install::Clients;
use testkit::model::{Gate, Usage};
use testkit::nginx::Nginx;
use testkit::{Answer, CuttingProxy, Mode, Terminal, World, WorldSpec, eventually, transcript};

/// The clients start slowly on a busy machine.
const CLIENT_BOUND: Duration = Duration::from_secs(90);
const ROUNDS: &str = "50";
/// Soon after a cut. It is promised for 5 s, of which the terminal waits up to 4; a busy machine has some more.
const SOON: Duration = Duration::from_secs(15);

async fn play_rounds(version: &str) {
    let Some(clients) = Clients::find() else { return };
    let world = World::start().await;
    world.model.respond_with(|body| {
        let asked = transcript::last_user_text(body);
        match asked.strip_prefix("say ") {
            Some(word) => {
                Answer::new().text_chunks(["you said ", word, ", and ", "that is all"], Duration::ZERO).stop()
            }
            None => Answer::new().text("waiting").hang(),
        }
    });
    let nginx = world.nginx().await;
    let env = [("SERVER_URL", nginx.url()), ("DIRECTORY", world.directory_text())];
    let env = env.each_ref().map(|(key, value)| (*key, value.as_str()));
    let played = clients.node(&["rounds.mjs", version, ROUNDS], &env, Duration::from_secs(300)).await;
    assert_eq!(played.code, Some(0), "{played:#?}\n{}", nginx.stderr());
    assert_eq!(played.stdout.trim(), format!("{version}: {ROUNDS} rounds"));
}

#[tokio::test]
async fn the_first_sdk_client_plays_fifty_rounds() {
    play_rounds("v1").await;
}

#[tokio::test]
async fn the_second_sdk_client_plays_fifty_rounds() {
    play_rounds("v2").await;
}

/// A bash call, then an answer.
fn tool_then(text: &str) -> [Answer; 2] {
    let call = json!({"command": "echo output of the tool", "description": "says something"});
    [Answer::call("call_1", "bash", call), Answer::say(text)]
}

#[tokio::test]
async fn opencode_run_shows_a_tool_and_the_answer_and_continues() {
    let Some(clients) = Clients::find() else { return };
    let world = World::start().await;
    let nginx = world.nginx().await;
    world.model.script(tool_then("the answer of the run"));
    let url = nginx.url();
    let run = clients.opencode(&["run", "--attach", &url, "use the tool"], CLIENT_BOUND).await;
    assert_eq!((run.code, run.stdout.trim()), (Some(0), "the answer of the run"), "{run:#?}");
    assert!(run.stderr.contains("echo output of the tool"), "{run:#?}");

    world.model.push(Answer::say("and it goes on"));
    let run = clients.opencode(&["run", "--attach", &url, "-c", "go on"], CLIENT_BOUND).await;
    assert_eq!((run.code, run.stdout.trim()), (Some(0), "and it goes on"), "{run:#?}");
    let asked = world.model.main_requests().pop().unwrap();
    assert_eq!(transcript::user_texts(&asked.body).len(), 2, "the same session");
    assert_eq!(world.client().get("/session").await.ok().as_array().unwrap().len(), 1);
}

/// It ends with the answer of its POST and prints what events have told by then: a balancer may hold none of them back.
#[tokio::test]
async fn opencode_run_prints_the_whole_answer_behind_haproxy_too() {
    let Some(clients) = Clients::find() else { return };
    let world = World::start().await;
    let haproxy = world.haproxy().await;
    world.model.push(Answer::new().text_chunks(words(0..8), Duration::from_millis(100)).stop());
    let run = clients.opencode(&["run", "--attach", &haproxy.url(), "talk please"], CLIENT_BOUND).await;
    assert_eq!((run.code, run.stdout.trim()), (Some(0), words(0..8).concat().trim()), "{run:#?}");
}

#[tokio::test]
async fn opencode_run_tells_events_as_json_with_a_password() {
    let Some(clients) = Clients::find() else { return };
    let world = World::start_with(WorldSpec { password: Some("sekret".into()), ..WorldSpec::default() }).await;
    let nginx = world.nginx().await;
    world.model.script(tool_then("the answer of the run"));
    let url = nginx.url();
    let run = ["run", "--attach", &url, "--password", "sekret", "--format", "json", "use the tool"];
    let run = clients.opencode(&run, CLIENT_BOUND).await;
    assert_eq!(run.code, Some(0), "{run:#?}");
    let lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<&str> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["step_start", "tool_use", "step_finish", "step_start", "text", "step_finish"]);
    assert_eq!(lines[1]["part"]["state"]["output"], "output of the tool\n");
    assert_eq!(lines[4]["part"]["text"], "the answer of the run");

    let run = clients.opencode(&["run", "--attach", &url, "-p", "wrong", "hello"], CLIENT_BOUND).await;
    assert_ne!(run.code, Some(0), "{run:#?}");
    assert_eq!(world.model.main_requests().len(), 2);
}

/// A world with the terminal client attached to it through nginx.
struct Attached {
    world: World,
    terminal: Terminal,
    /// Between the terminal and nginx.
    network: CuttingProxy,
    _nginx: Nginx,
}

async fn attach(spec: WorldSpec) -> Option<Attached> {
    let clients = Clients::find()?;
    let world = World::start_with(spec).await;
    let nginx = world.nginx().await;
    let network = CuttingProxy::start(nginx.port());
    let terminal = clients.attach(&network.url()).await;
    terminal.until_shows(CLIENT_BOUND, "Ask anything").await;
    Some(Attached { world, terminal, network, _nginx: nginx })
}

impl Attached {
    fn prompt(&self, text: &str) {
        self.terminal.type_text(text);
        self.terminal.press("Enter");
    }
}

#[tokio::test]
async fn the_terminal_shows_an_answer_and_the_output_of_a_tool() {
    let Some(attached) = attach(WorldSpec::default()).await else { return };
    attached.world.model.script(tool_then("the answer on the screen"));
    attached.prompt("use the tool please");
    let screen = attached.terminal.until_shows(CLIENT_BOUND, "the answer on the screen").await;
    assert!(screen.contains("use the tool please") && screen.contains("echo output of the tool"), "{screen}");
    attached.terminal.until(CLIENT_BOUND, "the tool's output", shows_output).await;
}

/// Whether the output stands on the screen by itself, beside the command that made it.
fn shows_output(screen: &str) -> bool {
    screen.matches("output of the tool").count() > screen.matches("echo output of the tool").count()
}

/// Whether the screen no longer offers to interrupt a run.
fn at_rest(screen: &str) -> bool {
    !screen.contains("esc interrupt") && !screen.contains("again to interrupt")
}

#[tokio::test]
async fn escape_in_the_terminal_aborts_the_run() {
    let Some(attached) = attach(WorldSpec::default()).await else { return };
    let gate = Gate::new();
    attached.world.model.push(Answer::new().text("an answer that hangs").wait(&gate));
    attached.prompt("hang please");
    attached.terminal.until_shows(CLIENT_BOUND, "an answer that hangs").await;
    // The first asks for confirmation, the second aborts.
    attached.terminal.press("Escape");
    attached.terminal.until_shows(CLIENT_BOUND, "again to interrupt").await;
    attached.terminal.press("Escape");
    eventually(CLIENT_BOUND, "the model's connection to drop", || async {
        attached.world.model.main_requests()[0].disconnected.then_some(())
    })
    .await;
    attached.terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
    let session = attached.world.client().get("/session").await.ok()[0]["id"].as_str().unwrap().to_string();
    let messages = attached.world.messages(&session).await;
    assert_eq!(messages[1]["info"]["error"]["name"], "MessageAbortedError");
}

/// The answer of the cut terminal, a word at a time.
fn words(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("w{n} ")).collect()
}

#[tokio::test]
async fn a_terminal_that_is_cut_in_mid_answer_shows_the_whole_answer() {
    let Some(attached) = attach(WorldSpec::default()).await else { return };
    let (unseen, end) = (Gate::new(), Gate::new());
    let answer = Answer::new().text_chunks(words(0..10), Duration::ZERO).wait(&unseen);
    let answer = answer.text_chunks(words(10..20), Duration::ZERO).wait(&end);
    attached.world.model.push(answer.text_chunks(words(20..24), Duration::ZERO).stop());
    let mut control = attached.world.global_events(1).await;
    attached.prompt("talk please");
    attached.terminal.until_shows(CLIENT_BOUND, "w9").await;
    attached.network.refuse();
    attached.network.cut();
    unseen.release();
    control.until(CLIENT_BOUND, "the words that the terminal misses", |e| e.properties()["delta"] == "w19 ").await;
    attached.network.heal();
    // Nothing more is said yet: what is on the screen was told to the newcomer.
    attached.terminal.until_shows(CLIENT_BOUND, words(0..20).concat().trim()).await;
    end.release();
    attached.terminal.until_shows(CLIENT_BOUND, words(0..24).concat().trim()).await;
    attached.terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
}

#[tokio::test]
async fn a_terminal_that_is_cut_until_the_answer_has_ended_shows_it_and_rests() {
    let Some(attached) = attach(WorldSpec::default()).await else { return };
    let unseen = Gate::new();
    let answer = Answer::new().text_chunks(words(0..10), Duration::ZERO).wait(&unseen);
    attached.world.model.push(answer.text_chunks(words(10..20), Duration::ZERO).stop());
    let mut control = attached.world.global_events(1).await;
    attached.prompt("talk please");
    attached.terminal.until_shows(CLIENT_BOUND, "w9").await;
    attached.network.refuse();
    attached.network.cut();
    unseen.release();
    control.until_kind(CLIENT_BOUND, "session.idle").await;
    attached.network.heal();
    attached.terminal.until_shows(CLIENT_BOUND, words(0..20).concat().trim()).await;
    attached.terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
}

/// Waits until the screen shows all of it, and prints how long that took.
async fn whole_again(terminal: &Terminal, what: &str, text: &str, since: Instant, times: &mut Vec<Duration>) {
    terminal.until_shows(CLIENT_BOUND, text).await;
    times.push(since.elapsed());
    println!("figure the screen is whole again after {what}: {:.1} s", since.elapsed().as_secs_f64());
}

/// The terminal waits 1, 2, 4 s before it connects again, longer with each cut of its life.
#[tokio::test]
async fn a_terminal_that_is_cut_again_and_again_is_whole_soon_after_each_cut() {
    let Some(attached) = attach(WorldSpec::default()).await else { return };
    let cuts = rounds(2).min(3);
    let gates: Vec<Gate> = (0..=cuts).map(|_| Gate::new()).collect();
    let mut answer = Answer::new();
    for (part, gate) in gates.iter().enumerate() {
        answer = answer.text_chunks(words(part * 8..part * 8 + 8), Duration::ZERO).wait(gate);
    }
    attached.world.model.push(answer.stop());
    let mut control = attached.world.global_events(1).await;
    attached.prompt("talk please");
    attached.terminal.until_shows(CLIENT_BOUND, words(0..8).concat().trim()).await;
    let mut times = Vec::new();
    for cut in 1..=cuts {
        let cut_at = Instant::now();
        attached.network.cut_events();
        gates[cut - 1].release();
        let last = words(cut * 8 + 7..cut * 8 + 8).concat();
        control.until(CLIENT_BOUND, "words that the terminal misses", |e| e.properties()["delta"] == *last).await;
        let shown = words(0..cut * 8 + 8).concat();
        whole_again(&attached.terminal, "a cut", shown.trim(), cut_at, &mut times).await;
    }
    gates[cuts].release();
    attached.terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
    assert!(times.iter().all(|time| *time < SOON), "{times:?}");
}

/// The replica that an event stream of the terminal is on.
async fn stream_of(world: &World) -> usize {
    for number in 0..world.replicas().len() {
        if world.at(number).get("/metrics").await.text().contains("flotilla_event_streams 1\n") {
            return number;
        }
    }
    panic!("no replica has the terminal's stream");
}

/// Kills the replica that tells the terminal in mid-answer. `owner` says which replica runs, given that one.
async fn kill_the_teller(what: &str, owner: impl Fn(usize) -> usize) {
    if !Mode::is_fleet_or_skip() {
        return;
    }
    let Some(mut attached) = attach(WorldSpec::default()).await else { return };
    attached.world.model.push(Answer::say("hello yourself"));
    attached.prompt("hello");
    attached.terminal.until_shows(CLIENT_BOUND, "hello yourself").await;
    attached.terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
    let session = testkit::client::id_of(&attached.world.client().get("/session").await.ok()[0]);
    let teller = stream_of(&attached.world).await;
    let owner = owner(teller);
    let (unseen, end) = (Gate::new(), Gate::new());
    let begun = Answer::new().text_chunks(words(0..10), Duration::ZERO).wait(&unseen);
    attached.world.model.push(begun.text_chunks(words(10..20), Duration::ZERO).wait(&end).stop());
    // Whoever takes the run over is told the rest.
    let rest = Answer::new().text_chunks(words(10..20), Duration::ZERO).wait(&end).stop();
    attached.world.model.respond_with(move |_| rest.clone());
    attached.world.at(owner).prompt_async(&session, "talk please").await;
    attached.terminal.until_shows(CLIENT_BOUND, words(0..10).concat().trim()).await;
    let killed = Instant::now();
    attached.world.replica(teller).kill9();
    unseen.release();
    let mut times = Vec::new();
    let is_whole = |screen: &str| words(0..20).iter().all(|word| screen.contains(word.trim()));
    attached.terminal.until(CLIENT_BOUND, "all words", is_whole).await;
    times.push(killed.elapsed());
    println!("figure the screen is whole again after {what}: {:.1} s", times[0].as_secs_f64());
    end.release();
    attached.terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
    assert!(times[0] < SOON, "{times:?}");
}

#[tokio::test]
async fn a_terminal_whose_replica_is_killed_in_mid_answer_is_whole_soon() {
    kill_the_teller("the death of the replica that tells it", |teller| (teller + 1) % 3).await;
}

#[tokio::test]
async fn a_terminal_whose_replica_is_killed_in_mid_run_is_whole_soon() {
    kill_the_teller("the death of the replica that tells it and runs", |teller| teller).await;
}

#[tokio::test]
async fn opencode_run_whose_events_are_cut_in_mid_answer_prints_the_answer_once() {
    let Some(clients) = Clients::find() else { return };
    let world = World::start().await;
    let nginx = world.nginx().await;
    let network = CuttingProxy::start(nginx.port());
    let cuts = rounds(3).min(6);
    let gates: Vec<Gate> = (0..cuts).map(|_| Gate::new()).collect();
    let mut answer = Answer::new();
    for (part, gate) in gates.iter().enumerate() {
        answer = answer.text_chunks(words(part * 8..part * 8 + 8), Duration::ZERO).wait(gate);
    }
    // It prints a text when it is whole. It comes back after 0.2, 0.4, 0.8 s: the answer lasts until it is there.
    world.model.push(answer.text_chunks(words(cuts * 8..cuts * 8 + 8), Duration::from_millis(500)).stop());
    let whole = words(0..cuts * 8 + 8).concat();
    let url = network.url();
    let cutting = async {
        world.model.wait_main_requests(1, CLIENT_BOUND).await;
        for gate in &gates {
            gate.reached().await;
            network.cut_events();
            gate.release();
        }
    };
    let args = ["run", "--attach", &url, "talk please"];
    let (run, ()) = tokio::join!(clients.opencode(&args, CLIENT_BOUND), cutting);
    assert_eq!((run.code, run.stdout.trim()), (Some(0), whole.trim()), "{run:#?}");
    println!("figure opencode run, its events cut {cuts} times: the answer is printed once");
}

#[tokio::test]
async fn a_permission_is_answered_in_the_terminal() {
    let config = json!({"permission": {"bash": "ask"}});
    let Some(attached) = attach(WorldSpec { config, ..WorldSpec::default() }).await else { return };
    let call = json!({"command": "touch made-by-the-tool", "description": "makes a file"});
    let step = Answer::new().tool_call("call_1", "bash", call).finish("tool_calls", Usage::default());
    attached.world.model.script([step, Answer::say("the file is made")]);
    attached.prompt("make a file");
    attached.terminal.until_shows(CLIENT_BOUND, "Allow once").await;
    assert!(!attached.world.file("made-by-the-tool").exists());
    attached.terminal.press("Enter");
    attached.terminal.until_shows(CLIENT_BOUND, "the file is made").await;
    assert!(attached.world.file("made-by-the-tool").exists());
}

/// A world with a command.
fn with_command() -> WorldSpec {
    let config = json!({"command": {"greet": {"template": "Say hello to $1", "description": "greets"}}});
    WorldSpec { config, ..WorldSpec::default() }
}

#[tokio::test]
async fn opencode_run_carries_out_a_command_and_goes_on_in_a_fork() {
    let Some(clients) = Clients::find() else { return };
    let world = World::start_with(with_command()).await;
    let nginx = world.nginx().await;
    world.model.script([Answer::say("hello Ann"), Answer::say("in the fork")]);
    let url = nginx.url();
    let run = clients.opencode(&["run", "--attach", &url, "--command", "greet", "Ann"], CLIENT_BOUND).await;
    assert_eq!((run.code, run.stdout.trim()), (Some(0), "hello Ann"), "{run:#?}");
    let run = clients.opencode(&["run", "--attach", &url, "-c", "--fork", "go on"], CLIENT_BOUND).await;
    assert_eq!((run.code, run.stdout.trim()), (Some(0), "in the fork"), "{run:#?}");
    let asked = world.model.main_requests().pop().unwrap();
    assert_eq!(transcript::user_texts(&asked.body)[0], "Say hello to Ann");
    assert_eq!(world.client().get("/session").await.ok().as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_command_a_shell_and_a_sub_agent_are_shown_in_the_terminal() {
    let Some(attached) = attach(with_command()).await else { return };
    let task = json!({"description": "look around", "prompt": "find it", "subagent_type": "general"});
    attached.world.model.script([
        Answer::say("hello from the command"),
        Answer::call("call_1", "task", task),
        Answer::say("found it"),
        Answer::say("the sub-agent found it"),
    ]);
    attached.prompt("/greet Ann");
    attached.terminal.until_shows(CLIENT_BOUND, "hello from the command").await;
    attached.terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
    attached.prompt("!echo output of the tool");
    attached.terminal.until(CLIENT_BOUND, "the command's output", shows_output).await;
    attached.prompt("ask somebody");
    let screen = attached.terminal.until_shows(CLIENT_BOUND, "the sub-agent found it").await;
    assert!(screen.contains("look around"), "{screen}");
}

impl Attached {
    /// Carries out a command of the terminal's own: it is offered first.
    async fn choose(&self, command: &str, offered: &str) {
        self.terminal.type_text(command);
        self.terminal.until_shows(CLIENT_BOUND, offered).await;
        self.terminal.press("Enter");
    }
}

#[tokio::test]
async fn a_conversation_is_taken_back_compacted_planned_on_and_forked_in_the_terminal() {
    let Some(attached) = attach(WorldSpec::default()).await else { return };
    let (world, terminal) = (&attached.world, &attached.terminal);
    let answers = ["the first answer", "the second answer", "the SUMMARY text", "the plan", "in the fork"];
    world.model.script(answers.map(Answer::say));
    for (prompt, answer) in [("first question", answers[0]), ("second question", answers[1])] {
        attached.prompt(prompt);
        terminal.until_shows(CLIENT_BOUND, answer).await;
        terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
    }
    attached.choose("/undo", "Undo previous message").await;
    // The prompt that was taken back stands where one types.
    let taken_back = |screen: &str| screen.contains("1 message reverted") && screen.contains("second question");
    let screen = terminal.until(CLIENT_BOUND, "the prompt taken back", taken_back).await;
    assert!(!screen.contains("the second answer"), "{screen}");
    terminal.press("C-c");
    terminal.until(CLIENT_BOUND, "an empty line", |screen| !screen.contains("second question")).await;
    attached.choose("/redo", "Redo").await;
    terminal.until_shows(CLIENT_BOUND, "the second answer").await;

    attached.choose("/compact", "Compact session").await;
    terminal.until_shows(CLIENT_BOUND, "the SUMMARY text").await;
    terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
    terminal.press("Tab");
    terminal.until(CLIENT_BOUND, "the agent plan", |screen| screen.contains("Plan · M Fake")).await;
    attached.prompt("plan something");
    terminal.until_shows(CLIENT_BOUND, "the plan").await;
    terminal.until(CLIENT_BOUND, "end of the spinner", at_rest).await;
    let planned = world.model.main_requests().pop().unwrap().body;
    let texts = transcript::user_texts(&planned);
    assert!(texts.len() == 2 && texts[1].starts_with("plan something"), "{texts:?}");

    attached.choose("/fork", "Fork session").await;
    terminal.until_shows(CLIENT_BOUND, "Full session").await;
    terminal.press("Enter");
    terminal.until_shows(CLIENT_BOUND, "(fork #1)").await;
    attached.prompt("go on");
    terminal.until_shows(CLIENT_BOUND, "in the fork").await;
    assert_eq!(world.client().get("/session").await.ok().as_array().unwrap().len(), 2);
}
