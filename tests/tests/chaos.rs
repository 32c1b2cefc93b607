//! The checker of chaos can see: each of its rules reports a history that was doctored to break it.

#![allow(clippy::unwrap_used, reason = "a test may panic in its helpers, too")]

use serde_json::json;
use std::time::Duration;
use suite::chaos::history::{Asked, Cursor, Deed, End, Fault, Harm, History, Kind, Link, Said, Seen, What};
use suite::chaos::model::{answer_to, said as said_in};
use suite::chaos::{RULES, violations};

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn deed(session: &str, began: u64, ended: u64, what: What) -> Deed {
    Deed { session: session.into(), began: at(began), ended: at(ended), what }
}

fn prompted(text: &str) -> What {
    What::Prompted { text: text.into(), asks: true }
}

fn seen(ms: u64, number: u64) -> Seen {
    Seen { at: at(ms), id: format!("evt_{number}"), cursor: Some(Cursor { number, random: 7 }) }
}

fn said(by_user: bool, text: &str) -> Said {
    Said { by_user, text: text.into(), finished: !by_user, whole: !by_user }
}

/// What nothing is wrong with: a session that was prompted twice, and one that was deleted.
fn sound() -> History {
    let (first, second) = ("prompt 0.1", "prompt 1.1");
    let answered = |prompt: &str| What::Answered { prompt: prompt.into(), text: answer_to(prompt), failed: false };
    History {
        deeds: vec![
            deed("kept", 0, 10, What::Made),
            deed("gone", 0, 10, What::Made),
            deed("kept", 100, 3_000, answered(first)),
            deed("kept", 100, 3_000, prompted(first)),
            deed("kept", 1_000, 1_500, What::Status { busy: true }),
            deed("kept", 3_100, 3_200, What::Titled(1)),
            deed("kept", 3_300, 3_400, What::Titled(2)),
            deed("gone", 3_500, 3_600, prompted("prompt 2.1")),
            deed("gone", 3_700, 3_800, What::Deleted),
            deed("gone", 3_900, 4_000, What::Absent),
            deed("kept", 4_000, 6_000, prompted(second)),
            deed("kept", 7_000, 7_100, What::Read { title: 2, prompts: vec![first.into(), second.into()] }),
            deed("kept", 9_000, 9_100, What::Status { busy: false }),
        ],
        asked: vec![
            Asked { session: "kept".into(), began: at(200), ended: at(2_900) },
            Asked { session: "kept".into(), began: at(4_100), ended: at(5_900) },
        ],
        readers: vec![
            vec![seen(10, 1), seen(20, 2), seen(8_000, 3)],
            vec![seen(10, 1), seen(8_000, 2), seen(8_001, 3)],
        ],
        faults: Vec::new(),
        ends: vec![End {
            session: "kept".into(),
            title: 2,
            busy: false,
            messages: vec![
                said(true, first),
                said(false, &answer_to(first)),
                said(true, second),
                said(false, &answer_to(second)),
            ],
        }],
        left: Vec::new(),
    }
}

/// The rules that a damaged history breaks.
fn broken(damage: impl FnOnce(&mut History)) -> Vec<&'static str> {
    let mut history = sound();
    damage(&mut history);
    let mut rules: Vec<&str> = violations(&history).iter().map(|violation| violation.rule).collect();
    rules.dedup();
    rules
}

/// Where a deed of the sound history is.
fn place(history: &History, what: impl Fn(&What) -> bool) -> usize {
    history.deeds.iter().position(|deed| what(&deed.what)).unwrap()
}

fn fault(kind: Kind, began: u64, ended: u64) -> Fault {
    Fault { kind, began: at(began), ended: at(ended), hit: 1 }
}

#[test]
fn a_sound_history_breaks_no_rule() {
    assert_eq!(violations(&sound()), []);
}

#[test]
fn an_operation_that_never_ends_is_reported() {
    let lost = |history: &mut History| history.deeds.push(deed("kept", 1, 2, What::Failed("no answer".into())));
    assert_eq!(broken(lost), ["operations end"]);
}

#[test]
fn a_prompt_that_is_lost_or_doubled_is_reported() {
    let rule = "acknowledged prompts are stored once";
    assert_eq!(broken(|history| drop(history.ends[0].messages.remove(2))), [rule]);
    let doubled = |history: &mut History| history.ends[0].messages.insert(2, said(true, "prompt 1.1"));
    assert_eq!(broken(doubled), [rule]);
    assert_eq!(broken(|history| history.ends[0].messages[0].text.push('?')), [rule]);
    assert!(broken(|history| history.ends.clear()).contains(&rule), "with its session");
}

#[test]
fn an_answer_that_is_missing_broken_off_or_another_is_reported() {
    let rule = "answers are complete";
    assert_eq!(broken(|history| drop(history.ends[0].messages.pop())), [rule]);
    assert_eq!(broken(|history| history.ends[0].messages[3].finished = false), [rule]);
    assert_eq!(broken(|history| history.ends[0].busy = true), [rule]);
    assert_eq!(broken(|history| history.ends[0].messages[1].text = "half".into()), [rule], "given and not stored");
    let cut = |history: &mut History| {
        let at = place(history, |what| matches!(what, What::Answered { .. }));
        history.deeds[at].what =
            What::Answered { prompt: "prompt 0.1".into(), text: "this is the whole".into(), failed: false };
        history.ends[0].messages[1].text = "this is the whole".into();
    };
    assert_eq!(broken(cut), [rule]);
    let aborted = |history: &mut History| {
        cut(history);
        history.deeds.push(deed("kept", 2_000, 2_100, What::Aborted));
    };
    assert!(broken(aborted).is_empty(), "what an abort leaves");
}

#[test]
fn a_prompt_that_two_runs_answered_is_reported_unless_one_of_them_broke_off() {
    let twice = |whole: bool| {
        move |history: &mut History| {
            let again = Said { whole, ..history.ends[0].messages[1].clone() };
            history.ends[0].messages.insert(2, again);
        }
    };
    assert_eq!(broken(twice(true)), ["a prompt is answered once"]);
    assert!(broken(twice(false)).is_empty());
}

#[test]
fn two_runs_at_once_are_reported_unless_one_of_them_may_not_know_that_it_lost() {
    let early = |history: &mut History| history.asked[1].began = at(1_000);
    assert_eq!(broken(early), ["one run at a time"]);
    assert_eq!(
        broken(|history| (early(history), history.faults.push(fault(Kind::Kill, 500, 900))).1),
        ["one run at a time"]
    );
    let excused = [Kind::Stop, Kind::Between(Link::ReplicasAndModel, Harm::Hold)];
    for kind in excused {
        assert!(broken(|history| (early(history), history.faults.push(fault(kind, 500, 900))).1).is_empty());
    }
}

#[test]
fn what_a_model_said_before_its_connection_broke_is_not_said_twice() {
    let message = |texts: &[&str]| {
        let parts: Vec<_> = texts.iter().map(|text| json!({ "type": "text", "text": text })).collect();
        said_in(&json!({ "parts": parts }))
    };
    assert_eq!(message(&["this is", "", "this is the whole"]), "this is the whole");
    assert_eq!(message(&["this is", "another"]), "this isanother");
    assert_eq!(message(&["the whole", "the"]), "the wholethe");
}

#[test]
fn a_read_that_misses_what_was_acknowledged_is_reported() {
    let rule = "no stale read";
    let read = |title, prompts: &[&str]| {
        let prompts = prompts.iter().map(|prompt| (*prompt).to_owned()).collect();
        move |history: &mut History| {
            let at = place(history, |what| matches!(what, What::Read { .. }));
            history.deeds[at].what = What::Read { title, prompts };
        }
    };
    assert_eq!(broken(read(1, &["prompt 0.1", "prompt 1.1"])), [rule]);
    assert_eq!(broken(read(2, &["prompt 0.1"])), [rule]);
    assert_eq!(broken(|history| history.ends[0].title = 1), [rule]);
}

#[test]
fn a_deleted_session_that_is_back_and_one_that_vanished_are_reported() {
    let rule = "deleted is gone";
    assert_eq!(broken(|history| history.deeds.push(deed("gone", 5_000, 5_100, What::Aborted))), [rule]);
    let back = End { session: "gone".into(), title: 0, busy: false, messages: vec![said(true, "prompt 2.1")] };
    assert!(broken(|history| history.ends.push(back)).contains(&rule));
    assert_eq!(broken(|history| history.deeds.push(deed("kept", 5_000, 5_100, What::Absent))), [rule]);
}

#[test]
fn a_session_that_is_said_to_rest_while_it_runs_is_reported() {
    let rests = |history: &mut History| {
        let at = place(history, |what| matches!(what, What::Status { busy: true }));
        history.deeds[at].what = What::Status { busy: false };
    };
    assert_eq!(broken(rests), ["not idle while running"]);
}

#[test]
fn events_that_are_lost_doubled_or_swapped_are_reported() {
    let rule = "events are gapless";
    assert_eq!(broken(|history| drop(history.readers[0].remove(1))), [rule]);
    assert_eq!(broken(|history| history.readers[1].push(seen(9_000, 3))), [rule]);
    assert_eq!(broken(|history| history.readers[1].swap(1, 2)), [rule]);
    let lost = |history: &mut History| drop(history.readers[0].remove(1));
    assert_eq!(broken(|history| (lost(history), history.faults.push(fault(Kind::RedisPause, 100, 200))).1), [rule]);
    let empty = fault(Kind::RedisEmpty, 100, 200);
    assert!(broken(|history| (lost(history), history.faults.push(empty)).1).is_empty(), "another log");
}

#[test]
fn what_is_left_behind_is_reported() {
    assert_eq!(broken(|history| history.left.push("process 7".into())), ["nothing is left"]);
}

#[test]
fn each_rule_was_broken_above() {
    let broken = [
        "operations end",
        "acknowledged prompts are stored once",
        "answers are complete",
        "a prompt is answered once",
        "one run at a time",
        "no stale read",
        "deleted is gone",
        "not idle while running",
        "events are gapless",
        "nothing is left",
    ];
    assert_eq!(RULES.map(|(rule, _)| rule), broken);
}
