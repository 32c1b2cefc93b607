//! What the deployment files say is true: they are parsed, compared with the program and the tree, and what they would
//! run is run, on loopback and with other paths.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;
use testkit::install::repository;
use testkit::polling::free_port;
use testkit::process::{Launch, Process};
use testkit::{RedisServer, eventually, flotilla_binary};

const BOUND: Duration = Duration::from_secs(30);
const PASSWORD: &str = "a password for the test";

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose() -> Value {
    serde_yaml_ng::from_str(&read("docker-compose.yml")).expect("docker-compose.yml is YAML")
}

/// A list of words, as `command` and `test` are.
fn words(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

/// The services that run a replica, by name.
fn replicas(compose: &Value) -> BTreeMap<String, Value> {
    let services = compose["services"].as_object().unwrap().iter();
    let ours = services.filter(|(_, service)| service["build"].is_object());
    ours.map(|(name, service)| (name.clone(), service.clone())).collect()
}

/// The value of a flag on a command line.
fn flag<'a>(command: &'a [String], name: &str) -> &'a str {
    let at = command.iter().position(|word| word == name).unwrap_or_else(|| panic!("{name} is not in {command:?}"));
    &command[at + 1]
}

/// The command line with other values of these flags.
fn with_flags(command: &[String], values: &[(&str, &str)]) -> Vec<String> {
    let mut command = command.to_vec();
    for (name, value) in values {
        let at = command.iter().position(|word| word == name).unwrap_or_else(|| panic!("{name} is not in {command:?}"));
        command[at + 1] = (*value).to_owned();
    }
    command
}

/// The instructions of the Dockerfile, one a line, without comments.
fn instructions() -> Vec<(String, String)> {
    let text: Vec<_> =
        read("deploy/Dockerfile").lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect();
    let joined = text.join("\n").replace("\\\n", " ");
    joined
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(word, rest)| (word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

fn instruction(word: &str) -> String {
    let found = instructions().into_iter().rev().find(|(its, _)| its == word);
    found.unwrap_or_else(|| panic!("no {word} in the Dockerfile")).1
}

/// The words of an instruction in its JSON form.
fn json_words(instruction: &str) -> Vec<String> {
    words(&serde_json::from_str(&instruction[instruction.find('[').expect("the JSON form")..]).expect("a JSON list"))
}

/// A run of `flotilla` that ends by itself: whether it succeeded, and what it wrote.
fn flotilla(args: &[String], env: &[(String, String)]) -> (bool, String) {
    let output = Command::new(flotilla_binary())
        .args(args)
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(env.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Each flag of a command line is in the help of its command.
fn assert_flags_exist(command: &[String]) {
    let (_, commands) = flotilla(&owned(&["--help"]), &[]);
    assert!(commands.lines().any(|line| line.trim().starts_with(&command[0])), "{} is no command", command[0]);
    let (_, help) = flotilla(&owned(&[&command[0], "--help"]), &[]);
    let known = |name: &str| help.split_whitespace().any(|word| word == name);
    for name in command.iter().filter(|word| word.starts_with('-')) {
        assert!(known(name), "{} has no {name}", command[0]);
    }
}

/// The environment of a service, with the required password filled in.
fn environment(service: &Value) -> Vec<(String, String)> {
    let variables = service["environment"].as_object().unwrap().iter();
    let value = |value: &Value| match value.as_str().unwrap() {
        text if text.starts_with("${OPENCODE_SERVER_PASSWORD:?") => PASSWORD.to_owned(),
        text => text.to_owned(),
    };
    variables.map(|(name, text)| (name.clone(), value(text))).collect()
}

#[test]
fn the_settings_of_replicas_are_accepted() {
    let compose = compose();
    let replicas = replicas(&compose);
    assert_eq!(replicas.len(), 3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let image = json_words(&instruction("CMD"));
    for (command, env) in replicas
        .values()
        .map(|service| (words(&service["command"]), environment(service)))
        .chain([(image, vec![("OPENCODE_SERVER_PASSWORD".to_owned(), PASSWORD.to_owned())])])
    {
        assert_flags_exist(&command);
        let mut config = with_flags(&command, &[("--data-dir", path), ("--directory", path)]);
        config[0] = "config".to_owned();
        let (accepted, shown) = flotilla(&config, &env);
        assert!(accepted, "{shown}");
        for (name, _) in &env {
            assert!(shown.lines().any(|line| line.ends_with(&format!(" {name}"))), "{name} has no effect:\n{shown}");
        }
        assert!(!flotilla(&config, &[]).0, "it must not start without a password");
    }
}

#[test]
fn compose_requires_a_password_and_shares_what_replicas_share() {
    let compose = compose();
    let volumes = compose["volumes"].as_object().unwrap();
    for (name, service) in replicas(&compose) {
        let password = service["environment"]["OPENCODE_SERVER_PASSWORD"].as_str().unwrap();
        assert!(password.starts_with("${OPENCODE_SERVER_PASSWORD:?"), "{name}");
        let command = words(&service["command"]);
        let mounts = words(&service["volumes"]);
        for path in [flag(&command, "--data-dir"), flag(&command, "--directory")] {
            let mount = mounts.iter().find_map(|mount| mount.strip_suffix(&format!(":{path}")));
            assert!(mount.is_some_and(|volume| volumes.contains_key(volume)), "{name}: {path} is not shared");
            assert!(instruction("RUN").contains(path), "the image has no {path} of its user's");
        }
        let redis = flag(&command, "--redis-url").trim_start_matches("redis://").split(':').next().unwrap();
        assert_eq!(service["depends_on"][redis]["condition"], "service_healthy");
        assert!(compose["services"][redis]["healthcheck"]["test"].is_array());
        let grace: u64 = service["stop_grace_period"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
        assert!(grace > 15, "a replica is killed before its drain is over");
    }
}

#[test]
fn files_that_compose_and_the_image_name_exist() {
    let compose = compose();
    for service in replicas(&compose).values() {
        let context = repository().join(service["build"]["context"].as_str().unwrap());
        assert!(context.join(service["build"]["dockerfile"].as_str().unwrap()).is_file());
    }
    for mount in words(&compose["services"]["balancer"]["volumes"]) {
        assert!(repository().join(mount.split(':').next().unwrap()).is_file(), "{mount}");
    }
    assert!(repository().join("deploy/Dockerfile.dockerignore").is_file());

    let cargo = read("Cargo.toml");
    let build = instructions().into_iter().find(|(word, rest)| word == "RUN" && rest.starts_with("cargo ")).unwrap().1;
    let build: Vec<_> = build.split(' ').map(str::to_owned).collect();
    let profile = flag(&build, "--profile");
    assert!(cargo.contains(&format!("[profile.{profile}]")));
    assert!(repository().join("crates").join(flag(&build, "-p")).is_dir());
    let copied = instruction("COPY");
    assert!(copied.contains(&format!("/src/target/{profile}/flotilla /usr/local/bin/flotilla")), "{copied}");
    let rust = instructions()
        .into_iter()
        .find_map(|(_, rest)| rest.strip_prefix("rust:")?.split('-').next().map(str::to_owned));
    assert!(cargo.contains(&format!("rust-version = \"{}\"", rust.unwrap())));
    assert_eq!(json_words(&instruction("ENTRYPOINT")), ["flotilla"]);
}

#[test]
fn ports_and_names_agree() {
    let compose = compose();
    let replicas = replicas(&compose);
    let balancer = &compose["services"]["balancer"];
    let servers = balancer["environment"]["FLOTILLA_SERVERS"].as_str().unwrap();
    for (name, service) in &replicas {
        let port = flag(&words(&service["command"]), "--port").to_owned();
        assert!(servers.contains(&format!("server {name}:{port} max_fails=0;")), "{servers}");
        assert_eq!(balancer["depends_on"][name]["condition"], "service_healthy");
        assert_eq!(port, instruction("EXPOSE"));
    }
    assert_eq!(servers.matches("server ").count(), replicas.len());
    let port = balancer["environment"]["FLOTILLA_LISTEN"].as_str().unwrap();
    assert!(words(&balancer["ports"])[0].ends_with(&format!(":{port}")));

    let image = json_words(&instruction("CMD"));
    let health = json_words(&instruction("HEALTHCHECK"));
    assert_flags_exist(&health[1..]);
    assert_eq!(flag(&health, "--url"), format!("http://127.0.0.1:{}", flag(&image, "--port")));
}

/// The processes of the compose file, on loopback.
struct Composed {
    replicas: Vec<(u16, Process)>,
    balancer: (u16, Process),
    _folder: TempDir,
}

async fn start(redis: &RedisServer) -> Composed {
    let compose = compose();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(&path).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (home, data, work) = (path("home"), path("data"), path("work"));
    let balancer = &compose["services"]["balancer"];
    let mut servers = balancer["environment"]["FLOTILLA_SERVERS"].as_str().unwrap().to_owned();
    let mut replicas = Vec::new();
    for (name, service) in self::replicas(&compose) {
        let port = free_port();
        let text = port.to_string();
        let command = words(&service["command"]);
        servers = servers.replace(&format!("{name}:{}", flag(&command, "--port")), &format!("127.0.0.1:{port}"));
        let (hostname, url) = ("127.0.0.1", redis.url());
        let here = [
            ("--hostname", hostname),
            ("--port", &text),
            ("--redis-url", &url),
            ("--data-dir", &data),
            ("--directory", &work),
        ];
        let mut launch = Launch::new(name, flotilla_binary()).args(with_flags(&command, &here)).env("HOME", &home);
        launch.env.extend(environment(&service));
        let mut process = launch.start();
        let expected = format!("flotilla listening on http://{hostname}:{port}");
        process.wait_line(BOUND, |line| (line == expected).then_some(())).await.unwrap();
        replicas.push((port, process));
    }
    let port = free_port();
    let prefix = path("nginx");
    let config = format!("{prefix}/nginx.conf");
    let text = read("deploy/nginx.conf")
        .replace("${FLOTILLA_LISTEN}", &format!("127.0.0.1:{port}"))
        .replace("${FLOTILLA_SERVERS}", &servers);
    fs::write(&config, text).unwrap();
    let command = with_flags(&words(&balancer["command"]), &[("-p", &prefix), ("-c", &config)]);
    let mut launch = Launch::new("balancer", &command[0]).args(&command[1..]).env("PATH", search_path());
    launch.death_signal = "TERM";
    Composed { replicas, balancer: (port, launch.start()), _folder: folder }
}

/// Debian keeps nginx where only root's PATH leads.
fn search_path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap())
}

/// The health check of the image, asked of another port.
fn is_healthy(port: u16) -> bool {
    let health = json_words(&instruction("HEALTHCHECK"));
    let url = format!("http://127.0.0.1:{port}");
    flotilla(&with_flags(&health[1..], &[("--url", &url)]), &[]).0
}

#[tokio::test]
async fn the_composed_fleet_runs() {
    let redis = RedisServer::start().await;
    let mut composed = start(&redis).await;
    for (port, _) in &composed.replicas {
        eventually(BOUND, "a replica to be healthy", || async { is_healthy(*port).then_some(()) }).await;
    }
    let balancer = composed.balancer.0;
    eventually(BOUND, "the balancer to answer", || async { is_healthy(balancer).then_some(()) }).await;

    // One replica less costs no request.
    let (_, mut first) = composed.replicas.remove(0);
    first.kill();
    for _ in 0..6 {
        assert!(is_healthy(balancer));
    }
    // A replica that is asked to end does so, with success.
    let (_, mut second) = composed.replicas.remove(0);
    second.signal(rustix::process::Signal::TERM);
    assert!(second.wait_exit(BOUND).await.success());
    drop(composed);
    assert!(!is_healthy(balancer));
}

#[tokio::test]
async fn the_composed_redis_runs() {
    let service = &compose()["services"]["redis"];
    let command = words(&service["command"]);
    let port = free_port().to_string();
    let folder = tempfile::tempdir().unwrap();
    let listen = ["--port", port.as_str(), "--bind", "127.0.0.1"];
    let _server = Launch::new("redis", &command[0])
        .args(command[1..].iter().map(String::as_str).chain(listen))
        .directory(folder.path())
        .start();
    let ask = |args: &[&str]| {
        let output = Command::new("redis-cli").args(["-p", &port]).args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let test = words(&service["healthcheck"]["test"]);
    assert_eq!(test[..2], ["CMD", "redis-cli"]);
    let test: Vec<_> = test[2..].iter().map(String::as_str).collect();
    eventually(BOUND, "Redis to be healthy", || async { (ask(&test) == "PONG\n").then_some(()) }).await;
    assert!(ask(&["config", "get", "maxmemory-policy"]).contains("noeviction"));
    assert!(ask(&["config", "get", "appendonly"]).contains("no"));
    assert_eq!(ask(&["config", "get", "save"]).trim(), "save");
}

#[test]
fn nginx_accepts_the_configuration() {
    let template = read("deploy/nginx.conf");
    let places: Vec<_> = template.match_indices("${").map(|(at, _)| &template[at..]).collect();
    assert_eq!(places.len(), 2, "two places are filled in");
    let folder = tempfile::tempdir().unwrap();
    let config = template
        .replace("${FLOTILLA_LISTEN}", &format!("127.0.0.1:{}", free_port()))
        .replace("${FLOTILLA_SERVERS}", "server 127.0.0.1:9 max_fails=0;");
    fs::write(folder.path().join("nginx.conf"), config).unwrap();
    let output = check(folder.path());
    assert!(output.0, "{}", output.1);
    assert!(!output.1.contains("[emerg]") && !output.1.contains("[warn]"), "{}", output.1);
}

fn check(prefix: &Path) -> (bool, String) {
    let output = Command::new("nginx")
        .env("PATH", search_path())
        .args(["-t", "-e", "stderr", "-c", "nginx.conf", "-p"])
        .arg(prefix)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}
