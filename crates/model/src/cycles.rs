//! Fair cycles: ways on which something stays open for ever, though faults and clients have ended and everybody goes on.
//!
//! From each world within a bound the faults end, as in [`World::settles`]; but what follows is not one order, in turn: it is every
//! order. The worlds that are reached so, until all is at rest, are nodes; a part of this graph in which each leads to each is a
//! cycle, and it is fair if everybody who has something to do throughout does it somewhere in it. What everybody does is told
//! apart by the replica and by its kind: a replica's runs count as one, so do its tasks.

use crate::bound::Bound;
use crate::fleet::Action;
use crate::world::World;
use std::collections::{HashMap, HashSet, VecDeque};

/// What a search for fair cycles came to.
pub struct Searched {
    /// Different worlds after the end of faults.
    pub worlds: usize,
    /// What leads from one to another, or to itself.
    pub moves: usize,
    /// The worlds of the smallest fair cycle, if there is one.
    pub found: Option<usize>,
}

/// What can happen in worlds without faults and clients.
#[derive(Default)]
struct Graph {
    places: HashMap<u64, usize>,
    /// What can be done in each world, as bits.
    enabled: Vec<u64>,
    /// What it is, and to where it leads.
    moves: Vec<Vec<(u64, usize)>>,
}

impl Graph {
    /// The place of a world; true if it is new.
    fn place(&mut self, world: &World) -> (usize, bool) {
        let next = self.moves.len();
        let place = *self.places.entry(world.own_likeness()).or_insert(next);
        if place == next {
            self.moves.push(Vec::new());
            self.enabled.push(0);
        }
        (place, place == next)
    }

    /// Adds a world and all that can follow it.
    fn add(&mut self, world: World, bound: &Bound) {
        let (place, is_new) = self.place(&world);
        let mut left = Vec::from_iter(is_new.then_some((place, world)));
        let mut actions = Vec::new();
        while let Some((place, world)) = left.pop() {
            if world.is_at_rest() {
                continue;
            }
            world.actions(bound, &mut actions);
            for action in actions.drain(..) {
                let mut next = world.clone();
                if next.act(action, bound.flaw) {
                    let doing = doing(action);
                    let (to, is_new) = self.place(&next);
                    self.enabled[place] |= doing;
                    self.moves[place].push((doing, to));
                    if is_new {
                        left.push((to, next));
                    }
                }
            }
        }
    }

    /// True if whoever has something to do in all these worlds does it between them.
    fn is_fair(&self, part: &[usize]) -> bool {
        let within: HashSet<_> = part.iter().copied().collect();
        let moves = part.iter().flat_map(|place| &self.moves[*place]).filter(|(_, to)| within.contains(to));
        let done = moves.fold(0, |done, (doing, _)| done | doing);
        let throughout = part.iter().fold(u64::MAX, |all, place| all & self.enabled[*place]);
        done != 0 && throughout & !done == 0
    }

    /// The parts in which each world leads to each, by Tarjan's way.
    fn parts(&self) -> Vec<Vec<usize>> {
        let mut numbers = vec![usize::MAX; self.moves.len()];
        let mut lowest = numbers.clone();
        let mut is_open = vec![false; self.moves.len()];
        let (mut open, mut way, mut parts, mut count) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for root in 0..self.moves.len() {
            if numbers[root] == usize::MAX {
                way.push((root, 0));
            }
            while let Some((place, from)) = way.pop() {
                if from == 0 {
                    (numbers[place], lowest[place], is_open[place]) = (count, count, true);
                    open.push(place);
                    count += 1;
                } else {
                    let (_, before) = self.moves[place][from - 1];
                    if is_open[before] {
                        lowest[place] = lowest[place].min(lowest[before]);
                    }
                }
                let next = (from..self.moves[place].len()).find(|index| {
                    let (_, to) = self.moves[place][*index];
                    if is_open[to] {
                        lowest[place] = lowest[place].min(numbers[to]);
                    }
                    numbers[to] == usize::MAX
                });
                if let Some(index) = next {
                    way.push((place, index + 1));
                    way.push((self.moves[place][index].1, 0));
                } else if lowest[place] == numbers[place] {
                    let begin = open.iter().rposition(|other| *other == place).unwrap_or_default();
                    let part = open.split_off(begin);
                    part.iter().for_each(|place| is_open[*place] = false);
                    parts.push(part);
                }
            }
        }
        parts
    }
}

/// What an action is, as a bit. That nobody has anything to do is no action.
fn doing(action: Action) -> u64 {
    let (kind, replica) = match action {
        Action::Run(r, ..) => (0, r),
        Action::Notice(r, _) => (1, r),
        Action::Task(r, ..) => (2, r),
        Action::Chore(r, _) => (3, r),
        Action::Tick(r) => (4, r),
        Action::Claim(r, _) => (5, r),
        Action::Sweep(r) => (6, r),
        Action::Join(r) => (7, r),
        Action::Bury(r, _) => (8, r),
        Action::Follow(r) => (9, r),
        _ => (10, 0),
    };
    1 << (replica * 11 + kind)
}

/// Looks for fair cycles from every world within a bound of at most five replicas.
pub fn search(bound: &Bound) -> Searched {
    let mut graph = Graph::default();
    let first = World::new(bound);
    let mut seen = HashSet::from([first.likeness()]);
    let mut left = VecDeque::from([first]);
    let mut actions = Vec::new();
    while let Some(world) = left.pop_front() {
        graph.add(world.calmed(bound.flaw), bound);
        world.actions(bound, &mut actions);
        for action in actions.drain(..) {
            let mut next = world.clone();
            if next.act(action, bound.flaw) && seen.insert(next.likeness()) {
                left.push_back(next);
            }
        }
    }
    let fair = graph.parts().into_iter().filter(|part| graph.is_fair(part));
    Searched {
        worlds: graph.moves.len(),
        moves: graph.moves.iter().map(Vec::len).sum(),
        found: fair.map(|part| part.len()).min(),
    }
}

#[cfg(test)]
mod tests {
    use super::Graph;

    /// Two worlds that lead to each other, and a way out of the second, taken by who can take it in these.
    fn is_fair(out_of: [u64; 2]) -> bool {
        let graph = Graph {
            enabled: vec![1 | out_of[0], 2 | out_of[1], 0],
            moves: vec![vec![(1, 1)], vec![(2, 0), (4, 2)], Vec::new()],
            ..Graph::default()
        };
        let mut parts = graph.parts();
        parts.iter_mut().for_each(|part| part.sort_unstable());
        assert_eq!(parts, [vec![2], vec![0, 1]]);
        assert!(!graph.is_fair(&[2]), "nobody does anything");
        graph.is_fair(&[0, 1])
    }

    #[test]
    fn a_cycle_is_fair_unless_somebody_could_leave_it_throughout() {
        assert!(is_fair([0, 4]));
        assert!(!is_fair([4, 4]));
    }
}
