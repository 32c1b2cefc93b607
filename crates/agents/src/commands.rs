//! Commands: templates of prompts.

use crate::prompts;
use crate::skills::Skill;
use serde::Serialize;
use serde_json::{Map, Value};

/// A command, in the shape of `GET /command`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Command {
    /// Its name.
    pub name: String,
    /// What it is good for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The agent that carries it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The model, as `provider/model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The variant of the model.
    #[serde(skip)]
    pub variant: Option<String>,
    /// Where it comes from: `command` or `skill`.
    pub source: &'static str,
    /// The prompt, with placeholders.
    pub template: String,
    /// It runs in a session of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subtask: Option<bool>,
    /// The placeholders of the template: `$1`, `$2`, ..., `$ARGUMENTS`.
    pub hints: Vec<String>,
}

/// The built-in commands, those of a merged configuration, which may replace them, and the skills of other names.
pub(crate) fn all(config: &Map<String, Value>, skills: &[Skill]) -> Vec<Command> {
    let mut commands = vec![
        command("init", Some(prompts::INIT_USE), prompts::INIT),
        Command { subtask: Some(true), ..command("review", Some(prompts::REVIEW_USE), prompts::REVIEW) },
    ];
    for (name, value) in config.get("command").and_then(Value::as_object).into_iter().flatten() {
        let text = |key: &str| value.get(key).and_then(Value::as_str);
        let own = Command {
            agent: text("agent").map(str::to_owned),
            model: text("model").map(str::to_owned),
            variant: text("variant").map(str::to_owned),
            subtask: value.get("subtask").and_then(Value::as_bool),
            ..command(name, text("description"), text("template").unwrap_or_default())
        };
        match commands.iter_mut().find(|command| command.name == *name) {
            Some(command) => *command = own,
            None => commands.push(own),
        }
    }
    for skill in skills {
        if !commands.iter().any(|command| command.name == skill.name) {
            commands.push(of_skill(skill));
        }
    }
    commands
}

/// Loads a skill by hand.
fn of_skill(skill: &Skill) -> Command {
    let template = format!("{}\n\nRelative paths above start at {}.", skill.content, skill.folder().display());
    let source = "skill";
    Command { source, hints: Vec::new(), ..command(&skill.name, skill.description.as_deref(), &template) }
}

fn command(name: &str, description: Option<&str>, template: &str) -> Command {
    Command {
        name: name.to_owned(),
        description: description.map(str::to_owned),
        agent: None,
        model: None,
        variant: None,
        source: "command",
        template: template.to_owned(),
        subtask: None,
        hints: hints(template),
    }
}

/// The placeholders of a template: the numbered ones in order, then `$ARGUMENTS`.
pub fn hints(template: &str) -> Vec<String> {
    let mut numbers: Vec<u32> = pieces(template).into_iter().filter_map(|piece| piece.number()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut hints: Vec<String> = numbers.into_iter().map(|number| format!("${number}")).collect();
    if template.contains(ARGUMENTS) {
        hints.push(ARGUMENTS.to_owned());
    }
    hints
}

const ARGUMENTS: &str = "$ARGUMENTS";

/// Fills in a template. `$1`, `$2`, ... are the arguments, of which the highest takes all that is left; quotes hold an
/// argument together. `$ARGUMENTS` is all of them as they were typed. Without any placeholder they are appended.
///
/// What is filled in is not looked at again: a `$1` in an argument stays what it is.
pub fn expand(template: &str, arguments: &str) -> String {
    let pieces = pieces(template);
    let words = words(arguments);
    let highest = pieces.iter().filter_map(Piece::number).max();
    let mut result = String::new();
    for piece in &pieces {
        match *piece {
            Piece::Text(text) => result.push_str(text),
            Piece::All => result.push_str(arguments),
            Piece::Number(number) => {
                let rest = words.get((number as usize).saturating_sub(1)..).unwrap_or_default();
                let taken = if Some(number) == highest { rest } else { &rest[..rest.len().min(1)] };
                result.push_str(&taken.join(" "));
            }
        }
    }
    if pieces.iter().all(|piece| matches!(piece, Piece::Text(_))) && !arguments.trim().is_empty() {
        result.push_str("\n\n");
        result.push_str(arguments);
    }
    result.trim().to_owned()
}

enum Piece<'a> {
    Text(&'a str),
    Number(u32),
    All,
}

impl Piece<'_> {
    fn number(&self) -> Option<u32> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }
}

fn pieces(template: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut text = 0;
    for (at, _) in template.match_indices('$') {
        let rest = &template[at..];
        let digits = rest[1..].bytes().take_while(u8::is_ascii_digit).count();
        let (piece, length) = match rest[1..=digits].parse() {
            Ok(number) if number > 0 => (Piece::Number(number), 1 + digits),
            _ if rest.starts_with(ARGUMENTS) => (Piece::All, ARGUMENTS.len()),
            _ => continue,
        };
        pieces.push(Piece::Text(&template[text..at]));
        pieces.push(piece);
        text = at + length;
    }
    pieces.push(Piece::Text(&template[text..]));
    pieces
}

/// The arguments: runs without spaces, or what stands in quotes of either kind. A quote without an end is a character.
fn words(arguments: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = arguments.trim_start();
    while let Some(first) = rest.chars().next() {
        let quoted = matches!(first, '"' | '\'').then(|| rest[1..].find(first)).flatten();
        let (word, used) = match quoted {
            Some(length) => (&rest[1..=length], length + 2),
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                (&rest[..end], end)
            }
        };
        words.push(word);
        rest = rest[used..].trim_start();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::{expand, hints};

    #[test]
    fn the_highest_number_takes_the_rest() {
        // As recorded: R51.
        assert_eq!(
            expand("Say hello to $1 then $2 all: $ARGUMENTS\n", "Ann \"Bob B\" Carl Dan"),
            "Say hello to Ann then Bob B Carl Dan all: Ann \"Bob B\" Carl Dan"
        );
        assert_eq!(expand("Say hello to $1 then $2 all: $ARGUMENTS", "x"), "Say hello to x then  all: x");
        assert_eq!(expand("No placeholders here", "extra args"), "No placeholders here\n\nextra args");
        assert_eq!(expand("No placeholders here", ""), "No placeholders here");
    }

    #[test]
    fn what_is_filled_in_is_not_a_template() {
        assert_eq!(expand("$2 $1", "'$2' $ARGUMENTS"), "$ARGUMENTS $2");
        assert_eq!(expand("costs $ 5, $0, $x", ""), "costs $ 5, $0, $x");
        assert_eq!(expand("$1|", "don't 'é ü'"), "don't é ü|");
    }

    #[test]
    fn hints_are_the_placeholders() {
        assert_eq!(hints("Say hello to $1 and also $ARGUMENTS"), ["$1", "$ARGUMENTS"]);
        assert_eq!(hints("$10 $2 $2"), ["$2", "$10"]);
        assert!(hints("none").is_empty());
    }
}
