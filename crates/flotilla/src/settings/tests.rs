use super::*;
use std::fs;

fn env(pairs: &[(&str, &str)]) -> Environment {
    let home = [("HOME", "/home/someone")];
    home.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flags(pairs: &[(&'static str, &[&str])]) -> Flags {
    pairs.iter().map(|(name, texts)| (*name, texts.iter().map(|text| (*text).to_owned()).collect())).collect()
}

fn error(pairs: &[(&'static str, &[&str])], variables: &[(&str, &str)]) -> String {
    let error = Settings::load(&flags(pairs), env(variables)).err().expect("the settings are refused");
    let text = error.to_string();
    assert!(!text.contains('\n'), "more than a line: {text}");
    text
}

#[test]
fn defaults() {
    let settings = Settings::load(&Flags::new(), env(&[])).unwrap();
    assert_eq!(settings.hostname, "127.0.0.1");
    assert_eq!(settings.port, Port::Any);
    assert_eq!(settings.data_dir, PathBuf::from("/home/someone/.local/share/flotilla"));
    assert_eq!(settings.directory, std::env::current_dir().unwrap().canonicalize().unwrap());
    assert_eq!(settings.durability, Durability::Disk);
    assert_eq!((settings.lease_ttl, settings.tick), (Duration::from_secs(10), Duration::from_secs(1)));
    assert_eq!(settings.username, "opencode");
    assert!(settings.password.is_none() && settings.redis_url.is_none() && settings.lock_urls.is_empty());
}

#[test]
fn a_flag_comes_before_the_environment_before_the_file_before_the_default() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    fs::write(
        &file,
        "redis_prefix = \"file\"\ndurability = \"os\"\ntick = \"2s\"\ncors = [\"https://a\"]\ndemo = true\nport = 80\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let variables = [("FLOTILLA_CONFIG", file), ("FLOTILLA_TICK", "3s"), ("FLOTILLA_REDIS_PREFIX", "variable")];
    let settings = Settings::load(&flags(&[("redis-prefix", &["flag"])]), env(&variables)).unwrap();
    assert_eq!(settings.redis_prefix, "flag");
    assert_eq!(settings.tick, Duration::from_secs(3));
    assert_eq!(settings.durability, Durability::Os);
    assert_eq!(settings.cors, ["https://a"]);
    assert_eq!(settings.port, Port::Exactly(80));
    assert!(settings.demo);
    assert_eq!(settings.lease_ttl, Duration::from_secs(10));
}

#[test]
fn lists_are_repeated_flags_or_have_commas() {
    let variables = [("FLOTILLA_REDIS_URL", "redis://r"), ("FLOTILLA_LOCK_URL", "redis://a, redis://b,redis://c")];
    let settings = Settings::load(&flags(&[("cors", &["http://x", "http://y"])]), env(&variables)).unwrap();
    assert_eq!(
        settings.lock_urls.iter().map(Secret::expose).collect::<Vec<_>>(),
        ["redis://a", "redis://b", "redis://c"]
    );
    assert_eq!(settings.cors, ["http://x", "http://y"]);
}

#[test]
fn secrets_come_from_files_and_are_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (url, locks) = (
        path("url", "redis://:hidden@h/\n"),
        path("locks", "redis://:hidden@a\nredis://:hidden@b\nredis://:hidden@c\n"),
    );
    let variables = [
        ("FLOTILLA_REDIS_URL_FILE", url.as_str()),
        ("FLOTILLA_LOCK_URL_FILE", locks.as_str()),
        ("OPENCODE_SERVER_PASSWORD_FILE", &path("password", "hidden word\n")),
        ("OPENCODE_CONFIG_CONTENT_FILE", &path("content", "{\"hidden\":1}")),
    ];
    let settings = Settings::load(&Flags::new(), env(&variables)).unwrap();
    assert_eq!(settings.password.unwrap().expose(), "hidden word");
    assert_eq!(settings.environment["OPENCODE_CONFIG_CONTENT"], "{\"hidden\":1}");
    assert_eq!(settings.redis_url.as_ref().unwrap().expose(), "redis://:hidden@h/");
    assert_eq!(settings.lock_urls.len(), 3);
    assert!(!format!("{:?}", settings.redis_url).contains("hidden"));
    let shown = show(&Sources::merge(Scope::Serve, &Flags::new(), &env(&variables)).unwrap());
    assert!(!shown.contains("hidden"), "{shown}");
    assert!(shown.contains("OPENCODE_SERVER_PASSWORD_FILE"), "{shown}");
    let sentinels = [("FLOTILLA_REDIS_URL", "redis+sentinel://:hidden@h/main?sentinel_password=hidden")];
    let shown = show(&Sources::merge(Scope::Serve, &Flags::new(), &env(&sentinels)).unwrap());
    assert!(!shown.contains("hidden"), "{shown}");
    let encoded = [("FLOTILLA_REDIS_URL", "redis+sentinel://:p%40ss%2Fw@h/main?sentinel_password=a%3Ab")];
    let passwords = Settings::load(&Flags::new(), env(&encoded)).unwrap().passwords();
    assert_eq!(passwords, ["p%40ss%2Fw", "p@ss/w", "a%3Ab", "a:b"]);
    let wrong = error(&[("redis-url", &["http://:hidden@h"])], &[]);
    assert!(wrong.starts_with("--redis-url: ") && !wrong.contains("hidden"), "{wrong}");
}

#[test]
fn what_is_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    let path = file.to_str().unwrap();
    let with_file = |text: &str| {
        fs::write(&file, text).unwrap();
        error(&[("config", &[path])], &[])
    };
    assert_eq!(with_file("colour = 1"), format!("colour in {path}: there is no such setting"));
    assert_eq!(with_file("config = \"x\""), format!("config in {path}: there is no such setting"));
    assert_eq!(with_file("tick = [\"1s\"]"), format!("tick in {path}: is of the wrong type"));
    assert_eq!(with_file("port = 70000"), format!("port in {path}: \"70000\" is not a port (0 to 65535)"));
    assert!(with_file("port = 1\nport = 2").starts_with(&format!("{path} line 2: ")));

    let named = |pairs: &[(&'static str, &[&str])], variables: &[(&str, &str)], place: &str| {
        let text = error(pairs, variables);
        assert!(text.starts_with(&format!("{place}: ")), "{text}");
    };
    named(&[], &[("FLOTILLA_COLOUR", "red")], "FLOTILLA_COLOUR");
    named(&[], &[("FLOTILLA_PORT_FILE", "/x")], "FLOTILLA_PORT_FILE");
    named(&[], &[("FLOTILLA_DEMO", "maybe")], "FLOTILLA_DEMO");
    named(&[], &[("FLOTILLA_TICK", "1")], "FLOTILLA_TICK");
    named(&[], &[("FLOTILLA_REDIS_URL", "redis://x"), ("FLOTILLA_REDIS_URL_FILE", "/x")], "FLOTILLA_REDIS_URL");
    named(&[], &[("OPENCODE_SERVER_PASSWORD_FILE", "/nowhere/at/all")], "OPENCODE_SERVER_PASSWORD_FILE");
    named(&[("config", &["/nowhere/at/all"])], &[], "--config");
    named(&[("directory", &["/nowhere/at/all"])], &[], "--directory");
    named(&[("tick", &["4s"])], &[], "--tick");
    named(&[("tick", &["99999999999999999999s"])], &[], "--tick");
    named(&[("lease-ttl", &["25h"])], &[], "--lease-ttl");
    named(&[("lock-url", &["redis://x"])], &[], "--lock-url");
    named(&[("redis-url", &["redis://x"]), ("lock-url", &["redis+sentinel://x/main"])], &[], "--lock-url");
    for locks in [&["redis://a", "redis://a", "redis://b"][..], &["redis://a", "redis://b"]] {
        named(&[("redis-url", &["redis://x"]), ("lock-url", locks)], &[], "--lock-url");
    }
    named(&[("drain-notice", &["10s"]), ("drain-deadline", &["10s"])], &[], "--drain-notice");
    named(&[("redis-url", &["rediss://x"]), ("redis-ca", &["/nowhere/at/all"])], &[], "--redis-ca");
    fs::write(&file, "no certificate").unwrap();
    named(&[("redis-url", &["rediss://x"]), ("redis-ca", &[path])], &[], "--redis-ca");
    fs::write(&file, "-----BEGIN CERTIFICATE-----").unwrap();
    named(&[("redis-url", &["redis://x"]), ("redis-ca", &[path])], &[], "--redis-ca");
    named(&[("redis-prefix", &["a:b"])], &[], "--redis-prefix");
    named(&[("cors", &["example.com"])], &[], "--cors");
    named(&[("webfetch-allow", &["10.0.0.0/8", "10.0.0.0/33"])], &[], "--webfetch-allow");
    named(&[("data-dir", &[""])], &[], "--data-dir");
}

#[test]
fn beyond_loopback_a_password_is_required() {
    for hostname in ["0.0.0.0", "::", "10.0.0.1", "example.com"] {
        assert!(error(&[("hostname", &[hostname])], &[]).starts_with("--hostname: "));
        assert!(
            Settings::load(&flags(&[("hostname", &[hostname])]), env(&[("OPENCODE_SERVER_PASSWORD", "x")])).is_ok()
        );
        let insecure: &[(&str, &[&str])] = &[("hostname", &[hostname]), ("insecure-no-auth", &["true"])];
        assert!(Settings::load(&flags(insecure), env(&[])).is_ok());
    }
    for hostname in ["127.0.0.1", "127.1.2.3", "::1", "localhost"] {
        assert!(Settings::load(&flags(&[("hostname", &[hostname])]), env(&[])).is_ok());
    }
    assert!(error(&[("hostname", &["0.0.0.0"])], &[("OPENCODE_SERVER_PASSWORD", "")]).starts_with("--hostname: "));
}

#[test]
fn a_fleet_checks_what_its_replicas_will_read() {
    assert_eq!(FleetSettings::load(&Flags::new(), env(&[])).unwrap().port, Port::Exactly(4096));
    let settings = FleetSettings::load(&flags(&[("replicas", &["5"])]), env(&[("FLOTILLA_PORT", "0")])).unwrap();
    assert_eq!((settings.replicas, settings.port), (5, Port::Any));
    let refused = |name, value| FleetSettings::load(&Flags::new(), env(&[(name, value)])).err().unwrap().to_string();
    assert!(refused("FLOTILLA_TICK", "x").starts_with("FLOTILLA_TICK: "));
    assert!(refused("FLOTILLA_REPLICAS", "0").starts_with("FLOTILLA_REPLICAS: "));
}
