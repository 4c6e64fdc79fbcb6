//! PURE: who is next, where several wait. Interactive before batch, but one in five is batch; callers take turns; what
//! one caller asks stays in order.

use std::collections::VecDeque;

use crate::route::Priority;

/// Those who wait.
#[derive(Debug)]
pub(super) struct Turns<T> {
    interactive: Callers<T>,
    batch: Callers<T>,
    /// Interactive turns since the last of batch, while batch waited.
    passed_over: u32,
}

/// The next caller first, each with what it waits for.
type Callers<T> = VecDeque<(String, VecDeque<T>)>;

impl<T> Turns<T> {
    pub(super) fn new() -> Self {
        Self { interactive: VecDeque::new(), batch: VecDeque::new(), passed_over: 0 }
    }

    pub(super) fn push(&mut self, priority: Priority, caller: &str, item: T) {
        let callers = match priority {
            Priority::Interactive => &mut self.interactive,
            Priority::Batch => &mut self.batch,
        };
        match callers.iter_mut().find(|(name, _)| name == caller) {
            Some((_, items)) => items.push_back(item),
            None => callers.push_back((caller.to_owned(), VecDeque::from([item]))),
        }
    }

    pub(super) fn next(&self) -> Option<&T> {
        let callers = if self.is_batch_next() { &self.batch } else { &self.interactive };
        callers.front()?.1.front()
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let is_batch = self.is_batch_next();
        self.passed_over = if is_batch || self.batch.is_empty() { 0 } else { self.passed_over + 1 };
        let callers = if is_batch { &mut self.batch } else { &mut self.interactive };
        let (caller, mut items) = callers.pop_front()?;
        let item = items.pop_front();
        if !items.is_empty() {
            callers.push_back((caller, items));
        }
        item
    }

    /// Whoever is meant leaves, wherever it stands.
    pub(super) fn remove(&mut self, is_meant: impl Fn(&T) -> bool) {
        for callers in [&mut self.interactive, &mut self.batch] {
            callers.iter_mut().for_each(|(_, items)| items.retain(|item| !is_meant(item)));
            callers.retain(|(_, items)| !items.is_empty());
        }
    }

    /// Takes out whoever gives way to one that arrives where no more fit: of batch calls, if there are any, the newest of
    /// the caller with the most of them; else the same of interactive ones. `None`: that is the one that arrives.
    pub(super) fn make_room(&mut self, arriving: Priority, caller: &str) -> Option<T> {
        let is_batch = arriving == Priority::Batch;
        let from_batch = is_batch || !self.batch.is_empty();
        let callers = if from_batch { &mut self.batch } else { &mut self.interactive };
        let own = callers.iter().find(|(name, _)| name == caller).map_or(0, |(_, items)| items.len());
        let own = if from_batch == is_batch { own + 1 } else { 0 };
        let (place, most) = callers.iter().map(|(_, items)| items.len()).enumerate().max_by_key(|(_, count)| *count)?;
        if most <= own {
            return None;
        }
        let (_, items) = callers.get_mut(place)?;
        let item = items.pop_back();
        if items.is_empty() {
            callers.remove(place);
        }
        item
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.interactive.iter().chain(&self.batch).flat_map(|(_, items)| items)
    }

    fn is_batch_next(&self) -> bool {
        !self.batch.is_empty() && (self.interactive.is_empty() || self.passed_over >= PASSED_OVER_MAX)
    }
}

/// Interactive turns before one of batch.
const PASSED_OVER_MAX: u32 = 4;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Priority::{Batch, Interactive};
    use super::*;

    fn order(waiting: &[(Priority, &str, u32)]) -> Vec<u32> {
        let mut turns = Turns::new();
        waiting.iter().for_each(|(priority, caller, item)| turns.push(*priority, caller, *item));
        std::iter::from_fn(|| turns.pop()).collect()
    }

    #[test]
    fn callers_take_turns() {
        let waiting = [("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)];
        assert_eq!(order(&waiting.map(|(caller, item)| (Interactive, caller, item))), [1, 4, 5, 2, 6, 3]);
    }

    #[test]
    fn batch_takes_what_is_left_and_one_in_five() {
        let waiting: Vec<_> = [(Batch, 100), (Batch, 101)]
            .into_iter()
            .chain((0..10).map(|item| (Interactive, item)))
            .map(|(priority, item)| (priority, "a", item))
            .collect();
        assert_eq!(order(&waiting), [0, 1, 2, 3, 100, 4, 5, 6, 7, 101, 8, 9]);
        assert_eq!(order(&[(Batch, "a", 1), (Interactive, "b", 2)]), [2, 1]);
    }

    #[test]
    fn whoever_leaves_is_not_waited_for() {
        let mut turns = Turns::new();
        for item in 0..4 {
            turns.push(Interactive, if item < 2 { "a" } else { "b" }, item);
        }
        turns.remove(|item| *item == 0);
        assert_eq!((turns.next().copied(), turns.iter().count()), (Some(1), 3));
        turns.remove(|item| *item == 1);
        assert_eq!(turns.pop(), Some(2));
    }

    #[test]
    fn whoever_asks_most_gives_way() {
        let check = |waiting: &[(Priority, &str, u32)], priority: Priority, caller: &str, expected: Option<u32>| {
            let mut turns = Turns::new();
            waiting.iter().for_each(|(priority, caller, item)| turns.push(*priority, caller, *item));
            assert_eq!(turns.make_room(priority, caller), expected, "{priority:?} {caller} to {waiting:?}");
            assert_eq!(turns.iter().count(), waiting.len() - usize::from(expected.is_some()));
        };
        let mixed = [(Interactive, "a", 1), (Interactive, "a", 2), (Batch, "b", 3), (Batch, "a", 4), (Batch, "b", 5)];
        check(&mixed, Interactive, "a", Some(5));
        check(&mixed, Interactive, "c", Some(5));
        check(&mixed, Batch, "b", None);
        check(&mixed, Batch, "a", None);
        check(&mixed, Batch, "c", Some(5));
        check(&mixed[..3], Interactive, "a", Some(3));
        check(&mixed[..3], Batch, "c", None);
        check(&mixed[..2], Batch, "c", None);
        check(&mixed[..2], Interactive, "a", None);
        check(&mixed[..2], Interactive, "c", Some(2));
        check(&mixed[..1], Interactive, "c", None);
        check(&[], Interactive, "c", None);
    }

    proptest! {
        #[test]
        fn everybody_gets_a_turn(
            pushes in prop::collection::vec((any::<bool>(), 0_u8..4, any::<bool>()), 0..80),
        ) {
            let mut turns = Turns::new();
            let mut waiting: Vec<(bool, u8, usize)> = Vec::new();
            let mut without_batch = 0;
            let mut take = |turns: &mut Turns<(bool, u8, usize)>, waiting: &mut Vec<(bool, u8, usize)>| {
                let expected = turns.next().copied();
                let taken = turns.pop();
                assert_eq!(taken, expected);
                assert_eq!(taken.is_none(), waiting.is_empty());
                let Some(taken) = taken else { return };
                let place = waiting.iter().position(|item| *item == taken).expect("it waited");
                let before = &waiting[..place];
                assert!(!before.iter().any(|(batch, caller, _)| (*batch, *caller) == (taken.0, taken.1)), "in order");
                waiting.remove(place);
                let is_batch_waiting = waiting.iter().any(|(batch, ..)| *batch);
                without_batch = if taken.0 || !is_batch_waiting { 0 } else { without_batch + 1 };
                assert!(without_batch <= PASSED_OVER_MAX, "batch starves");
            };
            for (item, (is_batch, caller, takes)) in pushes.into_iter().enumerate() {
                turns.push(if is_batch { Batch } else { Interactive }, &caller.to_string(), (is_batch, caller, item));
                waiting.push((is_batch, caller, item));
                if takes {
                    take(&mut turns, &mut waiting);
                }
            }
            while !waiting.is_empty() {
                take(&mut turns, &mut waiting);
            }
            prop_assert!(turns.pop().is_none() && turns.iter().next().is_none());
        }
    }
}
