//! A model of the protocol of `docs/RETENTION.md`, and every order of its steps.
//!
//! Each step of an actor is one request to the store, or one look at it. An actor that is not asked to go on was
//! killed, or sleeps for a year: so every order has all of that in it. A request may be sent twice, and one of the
//! two may take effect at any later time. Which backups go is left open: the plan of a run is any that the rules
//! below allow, so no argument about time, clocks or settings is used. Two runs of one protocol, with two plans, are
//! two hosts with different settings.
//!
//! What takes minutes is not tried each time, and held when it was: two writers, a run and a repeated request; a
//! writer, two runs and a repeated request; a writer, two runs and a pin; a writer and two runs where the newest is
//! there.
//!
//! The mutants leave out or exchange one step each; the model has to find what goes wrong then, or the step is not
//! needed.

mod actors;
mod state;
mod store;

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use state::{Mutant, Setup, State};

/// Mixes what it is given, fast: nobody chooses states to collide.
#[derive(Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64((*byte).into()));
    }

    fn write_u8(&mut self, number: u8) {
        self.write_u64(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// Tries every order. The number of states, or what went wrong and the states that led there.
fn explore(setup: &Setup) -> Result<usize, (&'static str, Vec<State>)> {
    let first = State::first(setup);
    let mut seen: HashSet<State, BuildHasherDefault<Mix>> = HashSet::default();
    seen.insert(first.clone());
    // Each state on the way here, with those that follow it and were not gone to yet.
    let mut path = vec![(first.clone(), actors::next(&first, setup))];
    while let Some((_, rest)) = path.last_mut() {
        let Some(state) = rest.pop() else {
            path.pop();
            continue;
        };
        if !seen.insert(state.clone()) {
            continue;
        }
        if let Some(wrong) = state.wrong() {
            return Err((wrong, path.into_iter().map(|(state, _)| state).chain([state]).collect()));
        }
        let next = actors::next(&state, setup);
        path.push((state, next));
    }
    Ok(seen.len())
}

/// As many of each as are named.
fn setup(writers: usize, runs: usize, pinner: bool, newest: bool, repeats: u8) -> Setup {
    Setup { writers, runs, pinner, newest, repeats, mutant: None }
}

/// Small ones: each step is needed in one of them.
fn small() -> [Setup; 5] {
    [
        setup(1, 1, false, false, 1),
        setup(1, 1, true, false, 0),
        setup(1, 1, false, true, 1),
        setup(0, 2, false, true, 0),
        setup(0, 2, true, false, 1),
    ]
}

#[track_caller]
fn holds(setup: &Setup) {
    match explore(setup) {
        Ok(states) => assert!(states > 1000, "{states} states of {setup:?}"),
        Err((wrong, path)) => panic!("{wrong}:\n{}", path.iter().map(|state| format!("{state:?}\n")).collect::<String>()),
    }
}

#[test]
fn nothing_is_lost_in_any_order() {
    small().iter().for_each(holds);
}

#[test]
fn nothing_is_lost_between_two_writers_and_a_run() {
    holds(&setup(2, 1, false, false, 0));
}

#[test]
fn nothing_is_lost_between_a_writer_and_two_runs() {
    holds(&setup(1, 2, false, false, 0));
}

#[test]
fn each_step_that_is_left_out_is_missed() {
    for mutant in Mutant::ALL {
        let found = small().iter().find_map(|setup| explore(&Setup { mutant: Some(mutant), ..*setup }).err());
        assert!(found.is_some(), "without it nothing goes wrong: {mutant:?}");
    }
}
