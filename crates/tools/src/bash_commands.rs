//! What a shell text would run, found with a grammar and not with patterns.

use std::time::Duration;
use tree_sitter::{Node, Parser};

/// A simple command in a shell text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SimpleCommand {
    /// It, as it stands there, redirections included.
    pub(crate) text: String,
    /// Its words, unquoted. A word that is only known when it runs (`$x`, `$(..)`) is kept as it stands.
    pub(crate) words: Vec<String>,
}

/// A text with more commands than this is refused.
const MAX_COMMANDS: usize = 1000;

/// A text that is nested deeper than this is refused: what is inside is part of each command around it.
const MAX_DEPTH: u32 = 200;

/// A text that cannot be parsed this fast is refused.
const PATIENCE: Duration = Duration::from_secs(2);

/// Commands whose arguments are paths.
const FILE_COMMANDS: [&str; 11] = ["cd", "pushd", "rm", "cp", "mv", "mkdir", "rmdir", "touch", "chmod", "chown", "cat"];

/// How many words name what a command does, by its first words; the longest entry counts. All others: one.
const ARITY: [(&str, usize); 64] = [
    ("apt", 2),
    ("apt-get", 2),
    ("aws", 3),
    ("az", 3),
    ("brew", 2),
    ("bun", 2),
    ("bun run", 3),
    ("bun x", 3),
    ("bundle", 2),
    ("bundle exec", 3),
    ("cargo", 2),
    ("cargo run", 3),
    ("composer", 2),
    ("conda", 2),
    ("consul", 2),
    ("deno", 2),
    ("deno task", 3),
    ("docker", 2),
    ("docker builder", 3),
    ("docker compose", 3),
    ("docker container", 3),
    ("docker image", 3),
    ("docker network", 3),
    ("docker volume", 3),
    ("dotnet", 2),
    ("firebase", 2),
    ("flyctl", 2),
    ("gcloud", 3),
    ("gh", 3),
    ("git", 2),
    ("git config", 3),
    ("git remote", 3),
    ("git stash", 3),
    ("git worktree", 3),
    ("go", 2),
    ("go mod", 3),
    ("gradle", 2),
    ("helm", 2),
    ("helm repo", 3),
    ("heroku", 2),
    ("kubectl", 2),
    ("kubectl config", 3),
    ("kubectl rollout", 3),
    ("make", 2),
    ("mvn", 2),
    ("npm", 2),
    ("npm exec", 3),
    ("npm run", 3),
    ("npx", 2),
    ("pip", 2),
    ("pipenv", 2),
    ("pnpm", 2),
    ("pnpm run", 3),
    ("podman", 2),
    ("poetry", 2),
    ("python -m", 3),
    ("python3 -m", 3),
    ("rustup", 2),
    ("systemctl", 2),
    ("terraform", 2),
    ("uv", 2),
    ("uv run", 3),
    ("yarn", 2),
    ("yarn run", 3),
];

/// All simple commands in a shell text, also those in substitutions, conditions and functions.
///
/// A text that the grammar does not wholly understand stands as a command of its own behind those seen in it, and so does
/// one in which no command is seen, unless it consists of comments and assignments that cannot run any.
/// `None` if there is too much of it to be looked through.
pub(crate) fn commands(text: &str) -> Option<Vec<SimpleCommand>> {
    let mut parser = Parser::new();
    parser.set_language(&tree_sitter_bash::LANGUAGE.into()).ok()?;
    #[allow(deprecated, reason = "its replacement takes a callback for each piece of text, for the same effect")]
    parser.set_timeout_micros(u64::try_from(PATIENCE.as_micros()).unwrap_or(u64::MAX));
    let tree = parser.parse(text, None)?;
    let mut found = Vec::new();
    let mut cursor = tree.walk();
    // By hand, without recursion: a text can be nested deeper than a stack is.
    loop {
        if cursor.node().kind() == "command" {
            found.push(simple_command(cursor.node(), text));
        }
        if found.len() > MAX_COMMANDS || cursor.depth() > MAX_DEPTH {
            return None;
        }
        if cursor.goto_first_child() || cursor.goto_next_sibling() {
            continue;
        }
        loop {
            if !cursor.goto_parent() {
                let is_harmless = found.is_empty() && runs_nothing(tree.root_node(), text);
                if !is_harmless && (found.is_empty() || tree.root_node().has_error()) {
                    found.push(SimpleCommand { text: text.trim().into(), words: vec![text.trim().into()] });
                }
                return Some(found);
            }
            if cursor.goto_next_sibling() {
                break;
            }
        }
    }
}

/// True for a text of comments and assignments of plain values. The shell may run what it finds in a value with a `$` or a
/// back-tick: where it reckons with it, such as in the index of an array.
fn runs_nothing(root: Node<'_>, text: &str) -> bool {
    let is_assignment = |node: &Node<'_>| {
        let value = text.get(node.byte_range()).unwrap_or("$");
        matches!(node.kind(), "variable_assignment" | "variable_assignments") && !value.contains(['$', '`'])
    };
    !root.has_error()
        && root
            .children(&mut root.walk())
            .all(|node| matches!(node.kind(), "comment" | ";" | "\n") || is_assignment(&node))
}

fn simple_command(node: Node<'_>, text: &str) -> SimpleCommand {
    let whole = match node.parent() {
        Some(parent) if parent.kind() == "redirected_statement" => parent,
        _ => node,
    };
    let mut words = Vec::new();
    for child in node.children(&mut node.walk()) {
        match child.kind() {
            "variable_assignment" | "file_redirect" | "heredoc_redirect" | "herestring_redirect" => {}
            _ => words.push(unquoted(text.get(child.byte_range()).unwrap_or_default())),
        }
    }
    SimpleCommand { text: text.get(whole.byte_range()).unwrap_or_default().trim().into(), words }
}

/// Takes quotes and backslashes out of a word.
fn unquoted(word: &str) -> String {
    let mut out = String::new();
    let mut quote = None;
    let mut chars = word.chars();
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\'' | '"', None) => quote = Some(char),
            (_, Some(open)) if char == open => quote = None,
            ('\\', None | Some('"')) => out.extend(chars.next()),
            _ => out.push(char),
        }
    }
    out
}

impl SimpleCommand {
    /// Whether it only changes the directory of the commands behind it.
    pub(crate) fn is_cd(&self) -> bool {
        self.words.first().is_some_and(|name| name == "cd" || name == "pushd" || name == "popd")
    }

    /// The pattern that allows it from now on: the words that name what it does, and anything behind them.
    pub(crate) fn always(&self) -> String {
        let named = (1..=3.min(self.words.len())).rev().find_map(|count| {
            let prefix = self.words[..count].join(" ");
            ARITY.iter().find(|(known, _)| *known == prefix).map(|(_, arity)| *arity)
        });
        let words = &self.words[..named.unwrap_or(1).min(self.words.len())];
        format!("{} *", words.join(" "))
    }

    /// The paths among its arguments, if it is a command for files: as they stand there, without the part behind a
    /// wildcard. `home` stands for `~` and `$HOME`.
    pub(crate) fn paths(&self, home: &str) -> Vec<String> {
        let Some((name, arguments)) = self.words.split_first() else { return Vec::new() };
        if !FILE_COMMANDS.contains(&name.as_str()) {
            return Vec::new();
        }
        let mode = usize::from(name == "chmod" || name == "chown");
        let paths = arguments.iter().filter(|word| !word.starts_with('-')).skip(mode);
        let paths = paths.map(|word| {
            ["~", "$HOME", "${HOME}"].iter().fold(word.clone(), |word, name| match word.strip_prefix(name) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
                _ => word,
            })
        });
        // What only the shell can know cannot be judged here; the command itself is asked for in any case.
        paths
            .filter(|word| !word.contains(['$', '`', '(']) && !word.is_empty())
            .map(|word| before_wildcard(&word).into())
            .collect()
    }
}

/// The folders of a path before the first one with a wildcard in its name.
fn before_wildcard(path: &str) -> &str {
    match path.find(['*', '?', '[', '{']) {
        None => path,
        Some(at) => match path[..at].rfind('/') {
            Some(0) => "/",
            Some(slash) => &path[..slash],
            None => ".",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        commands(text).unwrap().into_iter().map(|command| command.text).collect()
    }

    fn only(text: &str) -> SimpleCommand {
        commands(text).unwrap().remove(0)
    }

    #[test]
    fn every_simple_command_is_found() {
        assert_eq!(texts("git status -b && echo x"), ["git status -b", "echo x"]);
        assert_eq!(texts("echo $(rm -rf /) | cat; (ls)"), ["echo $(rm -rf /)", "rm -rf /", "cat", "ls"]);
        assert_eq!(texts("if true; then rm x; fi"), ["true", "rm x"]);
        assert_eq!(texts("ls > /dev/null 2>&1"), ["ls > /dev/null 2>&1"]);
        assert_eq!(texts("f() { rm x; }; f"), ["rm x", "f"]);
        assert_eq!(texts("for i in 1 2; do echo tick $i; sleep 0.4; done"), ["echo tick $i", "sleep 0.4"]);
        assert_eq!(texts("> emptied"), ["> emptied"]);
        assert_eq!(texts("git log; echo 'open"), ["git log", "echo", "git log; echo 'open"]);
    }

    #[test]
    fn where_nothing_can_run_nothing_is_found() {
        for text in ["", "  \n", "# rm -rf /", "A=b", "A=b B='c d'", "A=\"x\"; B=1 # and so on", "A=b\nB=c\n"] {
            assert_eq!(texts(text), Vec::<String>::new(), "{text}");
        }
        assert_eq!(texts("A=$(rm x)"), ["rm x"]);
        assert_eq!(texts("A=`rm x`"), ["rm x"]);
        assert_eq!(texts("A=b rm x"), ["A=b rm x"]);
        // The shell reckons with these, and runs what stands in an index.
        for text in [
            "RANDOM='x[$(rm y)]'",
            "a='x[$(rm y)]'; b=$((a))",
            "A=b > emptied",
            "export A=b",
            "[[ -v x ]]",
            "((x))",
            "A='",
            "a[0]=1 > x",
        ] {
            assert!(!texts(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn what_is_allowed_for_good_is_the_command_and_not_its_arguments() {
        for (text, always) in [
            ("git status --short", "git status *"),
            ("npm run build --watch", "npm run build *"),
            ("rm -rf x", "rm *"),
            ("A=1 cargo test", "cargo test *"),
            ("git", "git *"),
            ("docker compose up -d", "docker compose up *"),
        ] {
            assert_eq!(only(text).always(), always);
        }
    }

    #[test]
    fn paths_are_the_arguments_of_commands_for_files() {
        assert_eq!(only("cp -r 'a b' \"/etc/x\"").paths("/h"), ["a b", "/etc/x"]);
        assert_eq!(only("chmod 755 /etc/x").paths("/h"), ["/etc/x"]);
        assert_eq!(only("rm ~/x $HOME/y $z /etc/*/x").paths("/h"), ["/h/x", "/h/y", "/etc"]);
        assert!(only("ls /etc").paths("/h").is_empty());
        assert!(only("cd /").is_cd());
    }

    #[test]
    fn what_is_too_deep_or_too_much_is_refused() {
        let nested = |depth| format!("{}rm x{}", "$(".repeat(depth), ")".repeat(depth));
        assert_eq!(commands(&nested(20)).unwrap().last().unwrap().text, "rm x");
        assert_eq!(commands(&nested(20_000)), None);
        assert_eq!(commands(&"rm x;".repeat(1001)), None);
    }
}
