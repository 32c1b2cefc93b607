//! What OpenCode was recorded to do, Flotilla does.

use std::sync::Arc;

use suite::figures::{Draws, rounds};
use suite::recordings::{Comparison, Ignored, compare, damage, fixture, player};
use testkit::{World, WorldSpec};
use tokio::task::JoinSet;

/// How many recordings are played side by side. They wait more than they work.
const AT_ONCE: usize = 6;

/// How often a recording is played until nothing differs. What its clients did at the same moment is done at the same moment
/// by waiting for what they had seen; on a machine that stands still for a while it comes otherwise. What Flotilla does
/// otherwise differs each time.
const TIMES: usize = 3;

/// Plays only the recordings whose names begin with one of these, by comma.
const ONLY: &str = "FLOTILLA_TEST_RECORDINGS";

#[tokio::test]
async fn recordings_of_opencode_are_answered_and_told_as_recorded() {
    // What single recordings need, for all of them.
    let args = ["--webfetch-allow", "127.0.0.0/8", "--cors", "https://example.org"].map(str::to_owned).to_vec();
    let env = vec![("WIRE_USER".to_owned(), "envuser".to_owned())];
    let world = Arc::new(World::start_with(WorldSpec { args, env, ..WorldSpec::default() }).await);
    let ignored = Arc::new(Ignored::read().unwrap());
    let only = std::env::var(ONLY).unwrap_or_default();
    let is_meant = |name: &str| only.split(',').any(|begin| name.starts_with(begin));
    let mut left = fixture::all().unwrap().into_iter().filter(|(name, _)| is_meant(name));
    let mut playing: JoinSet<(String, Comparison)> = JoinSet::new();
    let mut wrong = Vec::new();
    loop {
        while playing.len() < AT_ONCE {
            let Some((name, recording)) = left.next() else { break };
            let (world, ignored) = (world.clone(), ignored.clone());
            playing.spawn(async move {
                let recorded = recording.conversation();
                let mut times = 0;
                loop {
                    let here = player::play(&world, &name, &recording, &ignored, times).await;
                    let comparison = compare(&name, &recorded, &here, &ignored);
                    times += 1;
                    if comparison.differences.is_empty() || times == TIMES {
                        return (name, comparison);
                    }
                    println!("{name}: {} differ, and it is played again", comparison.differences.len());
                }
            });
        }
        let Some(played) = playing.join_next().await else { break };
        let (name, comparison) = played.unwrap();
        let (compared, differences) = (comparison.compared.len(), &comparison.differences);
        println!("{name}: {compared} fields compared, {} ignored, {} differ", comparison.ignored, differences.len());
        let least = ignored.compared.get(&name).copied().unwrap_or(usize::MAX);
        if compared < least {
            wrong.push(format!("{name}: {compared} fields were compared, {least} should be"));
        }
        for difference in differences {
            let of =
                |value: &Option<String>| value.as_deref().unwrap_or("nothing").chars().take(300).collect::<String>();
            wrong.push(format!(
                "{name} {}\n    recorded {}\n    here     {}",
                difference.at,
                of(&difference.recorded),
                of(&difference.here)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn whatever_is_damaged_in_a_recording_is_reported() {
    let ignored = Ignored::read().unwrap();
    let mut draws = Draws::seeded();
    let mut passed = Vec::new();
    for (name, recording) in fixture::all().unwrap() {
        let recorded = recording.conversation();
        let whole = compare(&name, &recorded, &recorded, &ignored);
        assert!(whole.differences.is_empty(), "{name} differs from itself: {:?}", whole.differences);
        let damaged = damage::damaged(&name, &recorded, &ignored, rounds(1), &mut draws);
        println!("{name}: {} kinds of damage", damaged.len());
        for one in damaged {
            if compare(&name, &recorded, &one.conversation, &ignored).differences.is_empty() {
                passed.push(format!("{name}: {}", one.what));
            }
        }
    }
    assert!(passed.is_empty(), "not reported:\n{}", passed.join("\n"));
}

#[test]
fn every_line_of_the_list_says_why_and_names_recordings_that_there_are() {
    let ignored = Ignored::read().unwrap();
    let names: Vec<String> = fixture::all().unwrap().into_iter().map(|(name, _)| name).collect();
    for place in &ignored.ignored {
        assert!(place.reason.len() > 10, "{place:?}");
        for name in &place.within {
            assert!(names.iter().any(|known| known.starts_with(name)), "{place:?}");
        }
    }
    assert!(ignored.apart.iter().all(|apart| apart.reason.len() > 10));
    let counted: Vec<&String> = ignored.compared.keys().collect();
    assert_eq!(counted, names.iter().collect::<Vec<_>>(), "each recording has its number of fields");
}
