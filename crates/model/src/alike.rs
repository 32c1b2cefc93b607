//! Which worlds are alike: those of which one becomes the other if replicas change places and names are given anew. What can
//! happen in one can happen in the other, with the same names given anew, and a property holds in both or in neither; so one of
//! them is explored for all.
//!
//! - Names of replicas and of attempts are only ever compared for being the same: each is taken for its place in the order
//!   in which it appears.
//! - Numbers of the run guard, and fences, are compared for which is newer, too, and a taken guard bears the number after the newest:
//!   each is taken for its place among those that somebody still remembers.
//! - Replicas are the same program. Of all orders of them, the one with the least hash counts.
//!
//! Nothing is renamed in the worlds themselves, so that a way to a broken property reads as it went. Names and numbers are told apart
//! from other values by the type or the size in which they are hashed, so nothing has to be known of the core's own states. If
//! two worlds that are alike were taken for different ones, that would cost time only.

use crate::world::{AttemptName, FIRST_NUMBER, ReplicaName, Small, World};
use coordination::table::Table;
use std::cell::RefCell;
use std::hash::{Hash, Hasher};

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.likeness());
    }
}

impl World {
    /// The same for all worlds that are alike.
    pub fn likeness(&self) -> u64 {
        let mut order: Vec<_> = (0..self.replicas.len()).collect();
        let mut least = u64::MAX;
        SAID.with_borrow_mut(|said| {
            each_order(&mut order, 0, &mut |order| {
                said.clear();
                self.say(order, said);
                least = least.min(said.hash());
            });
        });
        least
    }

    /// The same for worlds that are alike with each replica in its place.
    pub fn own_likeness(&self) -> u64 {
        let order: Vec<_> = (0..self.replicas.len()).collect();
        SAID.with_borrow_mut(|said| {
            said.clear();
            self.say(&order, said);
            said.hash()
        })
    }

    fn say(&self, order: &[usize], said: &mut Said) {
        let Self { store, redis, copy, log, late, replicas, left, seen } = self;
        for index in order {
            replicas[*index].hash(said);
        }
        let place = |name: &ReplicaName| order.iter().position(|index| replicas[*index].id == Some(*name));
        say_table(redis, place, said);
        copy.is_some().hash(said);
        if let Some(copy) = copy {
            say_table(copy, place, said);
        }
        (store, log, late, left, seen).hash(said);
    }
}

/// What Redis knows of replicas comes in their order, not in that of their names.
fn say_table(table: &Table<Small>, place: impl Fn(&ReplicaName) -> Option<usize>, said: &mut Said) {
    (table.born(), table.leases(), table.begun()).hash(said);
    let (beats, pokes) = (table.beats(), table.pokes());
    let poked = |name: &ReplicaName| pokes.get(name).filter(|pokes| !pokes.is_empty());
    let mut names: Vec<_> = pokes.keys().filter(|name| poked(name).is_some()).chain(beats.keys()).copied().collect();
    names.sort_unstable_by_key(|name| (place(name).unwrap_or(usize::MAX), *name));
    names.dedup();
    names.len().hash(said);
    for name in names {
        (name, beats.get(&name), poked(&name)).hash(said);
    }
}

/// Every order of what comes at `from` and after it.
fn each_order(order: &mut [usize], from: usize, then: &mut impl FnMut(&[usize])) {
    if from + 1 >= order.len() {
        return then(order);
    }
    for next in from..order.len() {
        order.swap(from, next);
        each_order(order, from + 1, then);
        order.swap(from, next);
    }
}

thread_local! {
    /// Used over and over: what it holds is larger than what is allocated in no time.
    static SAID: RefCell<Said> = RefCell::default();
}

/// All that a world says of itself, in which names are replaced by their places, and numbers will be.
#[derive(Default)]
struct Said {
    words: Vec<u64>,
    numbers: Vec<u64>,
    replicas: Vec<ReplicaName>,
    attempts: Vec<AttemptName>,
}

/// Set in a word that is a number.
const IS_NUMBER: u64 = 1 << 63;

impl Said {
    fn clear(&mut self) {
        self.words.clear();
        self.numbers.clear();
        self.replicas.clear();
        self.attempts.clear();
    }

    /// The hash of all words.
    fn hash(&self) -> u64 {
        let mut numbers = self.numbers.clone();
        numbers.sort_unstable();
        numbers.dedup();
        let mut mixed = Mixed::default();
        for word in &self.words {
            mixed.add(match word & IS_NUMBER {
                0 => *word,
                _ => FIRST_NUMBER + numbers.partition_point(|other| *other < word ^ IS_NUMBER) as u64,
            });
        }
        mixed.end()
    }
}

/// The place of a name in the order in which names appeared.
fn appeared<T: PartialEq>(names: &mut Vec<T>, name: T) -> u64 {
    let place = names.iter().position(|known| *known == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    });
    place as u64
}

/// What derived hashing says; the hash itself is taken at the end.
impl Hasher for Said {
    fn write(&mut self, bytes: &[u8]) {
        self.words.extend(bytes.iter().map(|byte| u64::from(*byte)));
    }

    fn write_u8(&mut self, value: u8) {
        self.words.push(value.into());
    }

    fn write_u16(&mut self, value: u16) {
        let place = appeared(&mut self.attempts, value);
        self.words.push(place);
    }

    fn write_i16(&mut self, value: i16) {
        let place = appeared(&mut self.replicas, value);
        self.words.push(place);
    }

    fn write_u32(&mut self, value: u32) {
        self.words.push(value.into());
    }

    fn write_u64(&mut self, value: u64) {
        if value < FIRST_NUMBER {
            self.words.push(value);
        } else {
            self.numbers.push(value);
            self.words.push(value | IS_NUMBER);
        }
    }

    fn write_usize(&mut self, value: usize) {
        self.words.push(value as u64);
    }

    fn write_isize(&mut self, value: isize) {
        self.words.push(value as u64);
    }

    fn finish(&self) -> u64 {
        self.hash()
    }
}

/// Two halves of 64 bits, each mixed by a multiplication to 128: worlds are told apart by their hashes alone, so these must not
/// meet by chance. Words are mixed in by sevens where they are small, as most are.
struct Mixed {
    halves: (u64, u64),
    /// Words that wait, a byte each.
    packed: u64,
    /// How many wait.
    count: u32,
}

impl Default for Mixed {
    fn default() -> Self {
        Self { halves: (0x243f_6a88_85a3_08d3, 0x1319_8a2e_0370_7344), packed: 0, count: 0 }
    }
}

impl Mixed {
    fn add(&mut self, word: u64) {
        if word > u64::from(u8::MAX) {
            self.unpack();
            return self.mix(word);
        }
        self.packed = self.packed << 8 | word;
        self.count += 1;
        if self.count == 7 {
            self.unpack();
        }
    }

    fn unpack(&mut self) {
        self.mix(u64::from(self.count) << 56 | self.packed);
        (self.packed, self.count) = (0, 0);
    }

    fn mix(&mut self, word: u64) {
        self.halves.0 = fold(self.halves.0 ^ word, 0x9e37_79b9_7f4a_7c15);
        self.halves.1 = fold(self.halves.1.rotate_left(23) ^ word, 0xbf58_476d_1ce4_e5b9);
    }

    fn end(mut self) -> u64 {
        self.unpack();
        fold(self.halves.0 ^ 0x94d0_49bb_1331_11eb, self.halves.1 | 1)
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use crate::bound::{Bound, Fault};
    use crate::fleet::Action;
    use crate::redis::How;
    use crate::world::World;

    fn after(actions: &[Action]) -> World {
        let bound = Bound { aborts: 1, ..Bound::small() };
        let mut world = World::new(&bound);
        for action in actions {
            assert!(world.act(*action, None));
        }
        world
    }

    #[test]
    fn worlds_are_alike_if_replicas_changed_places_and_only_then() {
        let enter = |r| Action::Task(r, 0, How::Well);
        let way = |r| [Action::Prompt(r), enter(r), Action::Run(r, 0, How::Well)];
        assert_eq!(after(&way(0)).likeness(), after(&way(1)).likeness());
        let cut = |r, at| [&way(r)[..], &[Action::Befall(Fault::Cut, at)]].concat();
        assert_eq!(after(&cut(0, 1)).likeness(), after(&cut(1, 0)).likeness());
        assert_ne!(after(&cut(0, 1)).likeness(), after(&cut(0, 0)).likeness());
    }

    #[test]
    fn worlds_are_alike_if_only_a_name_differs() {
        let rejoined = |r| {
            let join = [Action::Restart(r), Action::Join(r)];
            let bury = Action::Bury(1 - r, r as i16);
            let crash = Action::Befall(Fault::Crash, r);
            (after(&[&[crash, bury], &join[..]].concat()), after(&[&[crash], &join[..], &[bury]].concat()))
        };
        // Buried before it joined again, a replica is given its old name.
        let (old, new) = rejoined(1);
        assert_ne!(old, new);
        assert_eq!(old.likeness(), new.likeness());
    }
}
