//! The checker: what may not be seen from outside, whatever went wrong inside.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::history::{Asked, Cursor, End, History, Seen, What};
use super::model::answer_to;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq)]
pub struct Violation {
    /// The rule that it breaks.
    pub rule: &'static str,
    /// What was seen.
    pub what: String,
}

/// A rule: its name, and what breaks it.
pub type Rule = (&'static str, fn(&History) -> Vec<String>);

/// All rules.
pub const RULES: [Rule; 10] = [
    ("operations end", operations_end),
    ("acknowledged prompts are stored once", prompts_are_stored_once),
    ("answers are complete", answers_are_complete),
    ("a prompt is answered once", answered_once),
    ("one run at a time", one_run_at_a_time),
    ("no stale read", no_stale_read),
    ("deleted is gone", deleted_is_gone),
    ("not idle while running", not_idle_while_running),
    ("events are gapless", events_are_gapless),
    ("nothing is left", nothing_is_left),
];

/// Clocks of two observers of the same moment may differ by this much: a request that was sent has yet to be read.
const SLACK: Duration = Duration::from_millis(500);

/// How late an event may be told: connections may be slow, or stand still.
const LAG: Duration = Duration::from_secs(10);

/// Everything in a history that must not be.
pub fn violations(history: &History) -> Vec<Violation> {
    RULES.iter().flat_map(|(rule, found)| found(history).into_iter().map(|what| Violation { rule, what })).collect()
}

fn operations_end(history: &History) -> Vec<String> {
    let failed = history.deeds.iter().filter_map(|deed| match &deed.what {
        What::Failed(how) => Some(format!("{} at {:?}: {how}", deed.session, deed.began)),
        _ => None,
    });
    failed.collect()
}

/// The sessions whose deletion was at least begun.
fn deletions(history: &History) -> HashMap<&str, (Duration, Duration)> {
    let mut found: HashMap<&str, (Duration, Duration)> = HashMap::new();
    for deed in history.deeds.iter().filter(|deed| deed.what == What::Deleted) {
        let times = found.entry(&deed.session).or_insert((deed.began, deed.ended));
        *times = (times.0.min(deed.began), times.1.min(deed.ended));
    }
    found
}

fn prompts_are_stored_once(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let deleted = deletions(history);
    let ends: HashMap<&str, &End> = history.ends.iter().map(|end| (&*end.session, end)).collect();
    for deed in &history.deeds {
        let What::Prompted { text, .. } = &deed.what else { continue };
        let Some(end) = ends.get(&*deed.session) else {
            if !deleted.contains_key(&*deed.session) {
                found.push(format!("{}: {text:?} is gone with its session", deed.session));
            }
            continue;
        };
        let times = end.messages.iter().filter(|said| said.by_user && said.text == *text).count();
        if times != 1 {
            found.push(format!("{}: {text:?} is stored {times} times", deed.session));
        }
    }
    for end in &history.ends {
        let mut known = HashSet::new();
        let doubled = end.messages.iter().filter(|said| said.by_user && !known.insert(&said.text));
        found.extend(doubled.map(|said| format!("{}: {:?} is stored twice", end.session, said.text)));
    }
    found
}

fn answers_are_complete(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let prompts = history.deeds.iter().filter_map(|deed| match &deed.what {
        What::Prompted { text, asks: true } => Some(&**text),
        _ => None,
    });
    let asks: HashSet<&str> = prompts.collect();
    for end in &history.ends {
        let name = &end.session;
        if end.busy {
            found.push(format!("{name} never rests"));
        }
        let last = end.messages.iter().rposition(|said| said.by_user && asks.contains(&*said.text));
        let is_answered = last.is_none_or(|at| end.messages[at..].iter().any(|said| !said.by_user && said.finished));
        if !is_answered {
            found.push(format!("{name}: its last prompt has no answer"));
        }
        let open = end.messages.iter().filter(|said| !said.by_user && !said.finished);
        found.extend(open.map(|said| format!("{name}: {:?} has no end", said.text)));
    }
    let stored: HashSet<(&str, &str)> = history
        .ends
        .iter()
        .flat_map(|end| end.messages.iter().filter(|said| !said.by_user).map(|said| (&*end.session, &*said.text)))
        .collect();
    let alive: HashSet<&str> = history.ends.iter().map(|end| &*end.session).collect();
    for deed in &history.deeds {
        let What::Answered { prompt, text, failed: false } = &deed.what else { continue };
        // A prompt that waited is answered together with those after it, and one that is aborted between two steps with what
        // was said before.
        let mut aborts =
            history.deeds.iter().filter(|other| other.session == deed.session && other.what == What::Aborted);
        let was_aborted = aborts.any(|abort| abort.began <= deed.ended && deed.began <= abort.ended);
        if !was_aborted && !asks.iter().any(|prompt| answer_to(prompt) == *text) {
            found.push(format!("{}: {prompt:?} was answered {text:?}", deed.session));
        }
        if alive.contains(&*deed.session) && !stored.contains(&(&*deed.session, text)) {
            found.push(format!("{}: the answer {text:?} was given and is not stored", deed.session));
        }
    }
    found
}

fn answered_once(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for end in &history.ends {
        let mut known = HashSet::new();
        // Each prompt has an answer of its own words. What broke off may be told again, but says that it broke off.
        let whole = end.messages.iter().filter(|said| !said.by_user && said.whole);
        let doubled = whole.filter(|said| !known.insert(&said.text));
        found.extend(doubled.map(|said| format!("{}: {:?} is there twice", end.session, said.text)));
    }
    found
}

/// Whether something that leaves a listener behind was under way between two moments.
fn leaves_a_listener(history: &History, from: Duration, to: Duration) -> bool {
    let mut faults = history.faults.iter().filter(|fault| fault.kind.leaves_a_listener());
    faults.any(|fault| fault.began <= to + SLACK && from <= fault.ended + SLACK)
}

fn one_run_at_a_time(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let mut sessions: HashMap<&str, Vec<&Asked>> = HashMap::new();
    for asked in &history.asked {
        sessions.entry(&asked.session).or_default().push(asked);
    }
    for (session, mut asked) in sessions {
        asked.sort_by_key(|asked| asked.began);
        for (at, later) in asked.iter().enumerate() {
            let open = asked[..at].iter().filter(|earlier| earlier.ended > later.began + SLACK / 5);
            let unexcused = open.filter(|earlier| !leaves_a_listener(history, earlier.began, later.began));
            found.extend(unexcused.map(|earlier| {
                format!("{session}: asked at {:?} until {:?}, and at {:?}", earlier.began, earlier.ended, later.began)
            }));
        }
    }
    found
}

fn no_stale_read(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for read in &history.deeds {
        let What::Read { title, prompts } = &read.what else { continue };
        for deed in history.deeds.iter().filter(|deed| deed.session == read.session && deed.ended < read.began) {
            match &deed.what {
                What::Titled(number) if number > title => {
                    found.push(format!("{}: title {number} was set, {title} was read", read.session));
                }
                What::Prompted { text, .. } if !prompts.contains(text) => {
                    found.push(format!("{}: {text:?} was taken, and not read at {:?}", read.session, read.began));
                }
                _ => {}
            }
        }
    }
    for end in &history.ends {
        let set = history.deeds.iter().filter(|deed| deed.session == end.session).filter_map(|deed| match deed.what {
            What::Titled(number) => Some(number),
            _ => None,
        });
        if set.max().is_some_and(|set| set != end.title) {
            found.push(format!("{}: its title is {}, not the last that was set", end.session, end.title));
        }
    }
    found
}

fn deleted_is_gone(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    let deleted = deletions(history);
    for deed in &history.deeds {
        let times = deleted.get(&*deed.session);
        match &deed.what {
            What::Absent if times.is_none_or(|(began, _)| *began > deed.ended) => {
                found.push(format!("{} is not there at {:?}, and nobody deleted it", deed.session, deed.began));
            }
            What::Absent | What::Deleted | What::Failed(_) | What::Status { busy: false } => {}
            what if times.is_some_and(|(_, ended)| *ended < deed.began) => {
                found.push(format!("{} was deleted, and then: {what:?}", deed.session));
            }
            _ => {}
        }
    }
    let back = history.ends.iter().filter(|end| deleted.contains_key(&*end.session));
    found.extend(back.map(|end| format!("{} was deleted and is there", end.session)));
    found
}

fn not_idle_while_running(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for deed in history.deeds.iter().filter(|deed| deed.what == What::Status { busy: false }) {
        let (from, to) = (deed.began.saturating_sub(SLACK), deed.ended + SLACK);
        let runs = history.asked.iter().filter(|asked| asked.session == deed.session);
        let through = runs.filter(|asked| asked.began <= from && asked.ended >= to);
        let is_excused = |asked: &&Asked| leaves_a_listener(history, asked.began, deed.ended);
        found.extend(through.filter(|asked| !is_excused(asked)).map(|asked| {
            format!("{} was said to rest at {:?}, and ran from {:?}", deed.session, deed.began, asked.began)
        }));
    }
    found
}

fn events_are_gapless(history: &History) -> Vec<String> {
    let mut found = Vec::new();
    for (reader, seen) in history.readers.iter().enumerate() {
        let mut ids = HashSet::new();
        found.extend(
            seen.iter()
                .filter(|seen| !ids.insert(&seen.id))
                .map(|seen| format!("reader {reader} was told {} twice", seen.id)),
        );
        let placed: Vec<(&Seen, Cursor)> = seen.iter().filter_map(|seen| Some((seen, seen.cursor?))).collect();
        for pair in placed.windows(2) {
            let ((before, from), (after, to)) = (pair[0], pair[1]);
            // A Redis that forgot has another log, and whoever comes with a place of the old one is healed.
            let mut losses = history.faults.iter().filter(|fault| fault.kind.forgets());
            let lost = losses.any(|fault| fault.began <= after.at && before.at <= fault.ended + LAG);
            if to.number != from.number + 1 && !lost {
                found.push(format!("reader {reader} was told {to:?} after {from:?}, at {:?}", after.at));
            }
        }
    }
    found
}

fn nothing_is_left(history: &History) -> Vec<String> {
    history.left.clone()
}
