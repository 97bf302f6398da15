//! Who does what, one request or one look at a time.

use super::state::{Mutant, Pinner, Run, Setup, State, Step, Write, Writer};
use super::store::{BACKUPS, Fate, PINNED, Register, Request, Tombstone, first_of, plans};

/// One step of a writer.
fn write(state: &State, index: usize, setup: &Setup, next: &mut Vec<State>) {
    let own = state.writers[index];
    let store = &state.store;
    let go = |next: &mut Vec<State>, changed: Writer| {
        let mut state = state.clone();
        state.writers[index] = changed;
        next.push(state);
    };
    let tombstones_first = !setup.is(Mutant::TombstonesAfterChoice);
    match own.step {
        Write::Begin if setup.is(Mutant::NoBegun) || setup.is(Mutant::BegunAfterTombstones) => {
            go(next, Writer { step: Write::ReadTombstones, ..own });
        }
        Write::Begin => state.send(Request::Begin(own.backup), next, |state, _| {
            state.writers[index].step = if tombstones_first { Write::ReadTombstones } else { Write::ReadParent };
        }),
        Write::ReadTombstones | Write::ReadTombstonesLate => {
            let named = |all, other: &Tombstone| match (other.fate, other.names) {
                (Some(Fate::Withdrawn), _) | (_, None) => all,
                (_, Some((_, packs))) => all | packs,
            };
            let avoids = if setup.is(Mutant::NoTombstones) { 0 } else { state.store.tombstones.iter().fold(0, named) };
            let step = match own.step {
                Write::ReadTombstonesLate => Write::PutPack,
                _ if setup.is(Mutant::BegunAfterTombstones) => Write::BeginLate,
                _ => Write::ReadParent,
            };
            // What was chosen before it knew is not chosen again.
            go(next, Writer { step, avoids: if step == Write::PutPack { 0 } else { avoids }, ..own });
        }
        Write::BeginLate => state.send(Request::Begin(own.backup), next, |state, _| {
            state.writers[index].step = Write::ReadParent;
        }),
        Write::ReadParent => {
            let parents = state.store.manifests();
            for parent in (0..BACKUPS).filter(|parent| parents >> parent & 1 == 1) {
                go(next, Writer { step: Write::ListPacks, refers_to: state.store.referred(1 << parent), ..own });
            }
            go(next, Writer { step: Write::PutPack, refers_to: 0, ..own });
        }
        Write::ListPacks => {
            let step = if tombstones_first { Write::PutPack } else { Write::ReadTombstonesLate };
            go(next, Writer { step, refers_to: own.refers_to & state.store.packs & !own.avoids, avoids: 0, ..own });
        }
        Write::PutPack => state.send(Request::PutPack(own.backup), next, |state, _| {
            state.writers[index].step = Write::PutManifest;
        }),
        Write::PutManifest => {
            let content = own.refers_to | 1 << own.backup;
            state.send(Request::PutManifest(own.backup, content), next, |state, _| {
                let is_void = state.store.registers[own.backup] == Register::Void;
                state.writers[index].step = if is_void { Write::End } else { Write::LookForManifest };
                if !is_void && (setup.is(Mutant::NoLookBack) || setup.is(Mutant::NoBegun)) {
                    state.writers[index].saw_it_whole = state.store.is_whole(own.backup);
                    state.called_good(index);
                }
            });
        }
        Write::LookForManifest => {
            let is_there = setup.is(Mutant::NoLookForManifest) || store.manifests() >> own.backup & 1 == 1;
            let step = if is_there { Write::LookForBegun } else { Write::TakeBack };
            go(next, Writer { step, saw_it_whole: store.is_whole(own.backup), ..own });
        }
        Write::LookForBegun if store.begun >> own.backup & 1 == 1 => {
            let mut state = state.clone();
            state.called_good(index);
            next.push(state);
        }
        Write::LookForBegun => go(next, Writer { step: Write::TakeBack, ..own }),
        Write::TakeBack => state.send(Request::DeleteManifest(own.backup), next, |state, _| {
            state.writers[index].step = Write::End;
        }),
        Write::End => {}
    }
}

/// One step of a run.
fn run(state: &State, index: usize, setup: &Setup, next: &mut Vec<State>) {
    let own = state.runs[index];
    let id = own.id;
    let store = &state.store;
    let go = |next: &mut Vec<State>, changed: Run| {
        let mut state = state.clone();
        state.runs[index] = changed;
        next.push(state);
    };
    let to = |step| move |state: &mut State, _: bool| state.runs[index].step = step;
    let others = || if setup.is(Mutant::OthersIgnored) { 0 } else { store.named_by_others(id) };
    match own.step {
        Step::ListOthers => {
            go(next, Run { step: Step::Plan, gone: others(), ..own });
            // It has nothing to name, and goes on with what others named.
            go(next, Run { step: Step::Choose, ..own });
        }
        Step::Plan => {
            for goes in plans(store, store.is_pinned, own.gone, 0xFF).into_iter().filter(|goes| *goes != 0) {
                let packs = store.packs & !store.referred(store.manifests() & !goes);
                let step = if setup.is(Mutant::OpenBeforeNames) { Step::ListBegun } else { Step::PutNames };
                go(next, Run { step, names: (goes, packs), gone: 0, ..own });
            }
        }
        Step::PutNames => state.send(Request::PutNames(id, own.names), next, |state, _| {
            let run = &mut state.runs[index];
            run.names = (0, 0);
            run.step = if setup.is(Mutant::OpenBeforeNames) { Step::PutOpen } else { Step::ListBegun };
        }),
        Step::ListBegun => go(next, Run { step: Step::ListDecided, open: store.begun, ..own }),
        Step::ListDecided => {
            let step = if setup.is(Mutant::OpenBeforeNames) { Step::PutNames } else { Step::PutOpen };
            go(next, Run { step, open: own.open & !store.decided(), ..own });
        }
        Step::PutOpen => state.send(Request::PutOpen(id, own.open), next, |state, _| {
            state.runs[index] = Run { step: Step::Choose, ..Run::new(id, true) };
        }),
        Step::Choose => {
            for id in 0..2 {
                if store.tombstones[id].names.is_some() && store.tombstones[id].open.is_some() {
                    go(next, Run { id, step: Step::ReadOpen, ..own });
                }
            }
        }
        Step::ReadOpen => {
            let early = if setup.is(Mutant::NamesBeforeBegun) { store.tombstones[id].names } else { Some((0, 0)) };
            match (store.tombstones[id].open, early) {
                (Some(open), Some(names)) => {
                    let is_pinned = setup.is(Mutant::PinsBeforeBegun) && store.is_pinned;
                    go(next, Run { step: Step::Decide, open, names, is_pinned, ..own });
                }
                _ => go(next, Run { step: Step::End, ..Run::new(id, true) }),
            }
        }
        Step::Decide => {
            for fate in [Fate::Deletes, Fate::Withdrawn] {
                state.send(Request::Decide(id, fate), next, |state, _| {
                    let goes_on = setup.is(Mutant::WithdrawnIgnored) || state.store.tombstones[id].fate == Some(Fate::Deletes);
                    let run = &mut state.runs[index];
                    run.step = match goes_on {
                        true if setup.is(Mutant::NamesBeforeBegun) => Step::ListOpen,
                        true => Step::ReadNames,
                        // It removes what was withdrawn, at once.
                        false => Step::RemoveNames,
                    };
                });
            }
        }
        Step::ReadNames => match store.tombstones[id].names {
            Some(names) => go(next, Run { step: Step::ReadOpenAgain, names, ..own }),
            None => go(next, Run { step: Step::End, ..Run::new(id, true) }),
        },
        Step::ReadOpenAgain => match store.tombstones[id].open {
            Some(open) => go(next, Run { step: Step::ListOpen, open, ..own }),
            None => go(next, Run { step: Step::End, ..Run::new(id, true) }),
        },
        Step::ListOpen => {
            // Only backups that have begun are open; those of which it names packs may have begun late.
            let open = (own.open | store.begun & own.names.1) & !store.decided();
            let late = setup.is(Mutant::VoidsAfterManifests) || setup.is(Mutant::NoVoids);
            let step = if late { Step::ListOthersAnew } else { Step::GiveUp };
            go(next, Run { step, open: if setup.is(Mutant::NoVoids) { 0 } else { open }, ..own });
        }
        Step::GiveUp if own.open == 0 => match setup.is(Mutant::VoidsAfterManifests) {
            true => go(next, Run { step: Step::Forget, open: own.names.0, ..own }),
            false => go(next, Run { step: Step::ListOthersAnew, ..own }),
        },
        Step::GiveUp => {
            let backup = first_of(own.open);
            state.send(Request::PutVoid(backup), next, |state, _| state.runs[index].open &= !(1 << backup));
        }
        Step::ListOthersAnew => go(next, Run { step: Step::ListPins, gone: others(), ..own }),
        Step::ListPins => {
            let is_pinned = match setup.mutant {
                Some(Mutant::NoPins) => false,
                Some(Mutant::PinsBeforeBegun) => own.is_pinned,
                _ => store.is_pinned,
            };
            go(next, Run { step: Step::PlanAnew, is_pinned, ..own });
        }
        Step::PlanAnew => plan_anew(state, index, setup, next),
        Step::Forget | Step::DeleteManifests | Step::DeletePacks => delete(state, index, setup, next),
        Step::Count => {
            let (manifests, packs) = store.tombstones[id].names.unwrap_or_default();
            let left = manifests & store.manifests() != 0 || packs & store.packs != 0;
            let stays = left && !setup.is(Mutant::RemovedTooEarly);
            go(next, Run { step: if stays { Step::End } else { Step::RemoveNames }, ..Run::new(id, true) });
        }
        Step::RemoveNames if setup.is(Mutant::BegunGoesFirst) && store.tombstones[id].fate.is_some() => {
            state.send(Request::DeleteFate(id), next, to(Step::RemoveNames));
        }
        Step::RemoveNames => state.send(Request::DeleteNames(id), next, |state, _| {
            state.runs[index] = Run { step: Step::RemoveOpen, ..Run::new(id, true) };
        }),
        Step::RemoveOpen => state.send(Request::DeleteOpen(id), next, to(Step::RemoveFate)),
        Step::RemoveFate => state.send(Request::DeleteFate(id), next, to(Step::End)),
        Step::End => {}
    }
}

/// What the tombstone names and one of the possible plans lets go.
fn plan_anew(state: &State, index: usize, setup: &Setup, next: &mut Vec<State>) {
    let own = state.runs[index];
    let store = &state.store;
    let goes_on = |next: &mut Vec<State>, gone: u8, goes: u8| {
        let manifests = goes & own.names.0;
        let needed = if setup.is(Mutant::ReferencesIgnored) { 0 } else { store.referred(store.manifests() & !manifests) };
        let mut state = state.clone();
        state.let_go |= manifests;
        let step = match setup.mutant {
            Some(Mutant::VoidsAfterManifests) => Step::GiveUp,
            Some(Mutant::PacksBeforeManifests) => Step::DeletePacks,
            Some(Mutant::BegunForgottenLast) => Step::DeleteManifests,
            _ => Step::Forget,
        };
        let packs = if setup.is(Mutant::NoNewPlan) { own.names.1 } else { own.names.1 & !needed };
        let open = match step {
            Step::GiveUp => own.open,
            Step::DeletePacks => packs,
            _ => manifests,
        };
        state.runs[index] = Run { step, names: (manifests, packs), open, gone, is_pinned: false, ..own };
        next.push(state);
    };
    if setup.is(Mutant::NoNewPlan) {
        return goes_on(next, 0, own.names.0);
    }
    // Of the mutant, the tombstones are those of a later moment: when this plan was made they were there.
    let gone = if setup.is(Mutant::OthersAfterManifests) { 0 } else { own.gone };
    for goes in plans(store, own.is_pinned, gone, own.names.0) {
        goes_on(next, 0, goes);
    }
}

/// Deletes one object, or goes on to the next kind.
fn delete(state: &State, index: usize, setup: &Setup, next: &mut Vec<State>) {
    let own = state.runs[index];
    let (manifests, packs) = own.names;
    let goes_on = |next: &mut Vec<State>, step, open| {
        let mut state = state.clone();
        state.runs[index] = Run { step, open, ..own };
        next.push(state);
    };
    // `open` holds those of the present kind that are left.
    let request = match own.step {
        Step::Forget => Request::ForgetBegun(first_of(own.open)),
        Step::DeleteManifests => Request::DeleteManifest(first_of(own.open)),
        _ => Request::DeletePack(first_of(own.open)),
    };
    let after = match (own.step, setup.mutant) {
        (Step::Forget, Some(Mutant::BegunForgottenLast)) => (Step::Count, 0),
        (Step::Forget, _) => (Step::DeleteManifests, manifests),
        (Step::DeleteManifests, Some(Mutant::PacksBeforeManifests)) => (Step::Count, 0),
        (Step::DeleteManifests, _) => (Step::DeletePacks, packs),
        (_, Some(Mutant::PacksBeforeManifests | Mutant::BegunForgottenLast)) => (Step::Forget, manifests),
        _ => (Step::Count, 0),
    };
    if own.open == 0 {
        return goes_on(next, after.0, after.1);
    }
    state.send(request, next, |state, _| state.runs[index].open &= own.open - 1);
}

/// One step of the operator.
fn pin(state: &State, setup: &Setup, next: &mut Vec<State>) {
    let go = |next: &mut Vec<State>, pinner| next.push(State { pinner, ..state.clone() });
    let manifest_first = setup.is(Mutant::PinLooksForManifestFirst);
    match state.pinner {
        Pinner::Pin => state.send(Request::Pin(true), next, |state, _| {
            state.pinner = match setup.mutant {
                Some(Mutant::PinLooksForManifestFirst | Mutant::PinWithoutTombstones) => Pinner::LookForManifest,
                _ => Pinner::LookForTombstones,
            };
        }),
        Pinner::LookForTombstones => {
            let goes = state.store.tombstones.iter().any(|tombstone| {
                tombstone.fate == Some(Fate::Deletes)
                    && tombstone.names.is_some_and(|(manifests, _)| manifests >> PINNED & 1 == 1)
            });
            go(
                next,
                match goes {
                    true => Pinner::TakeBack,
                    false if manifest_first => Pinner::Holds,
                    false => Pinner::LookForManifest,
                },
            );
        }
        Pinner::LookForManifest => {
            let is_there = state.store.manifests() >> PINNED & 1 == 1;
            go(
                next,
                match is_there {
                    false => Pinner::TakeBack,
                    true if manifest_first => Pinner::LookForTombstones,
                    true => Pinner::Holds,
                },
            );
        }
        Pinner::TakeBack => state.send(Request::Pin(false), next, |state, _| state.pinner = Pinner::End),
        Pinner::Holds | Pinner::End => {}
    }
}

/// A run forgets that a backup had begun which was given up: it lists that, and looks for the void. As a void never
/// goes, what comes between the look and the request changes nothing.
fn forget(state: &State, setup: &Setup, next: &mut Vec<State>) {
    for backup in 0..BACKUPS {
        let goes = match state.store.registers[backup] {
            Register::Void => true,
            Register::Free => setup.is(Mutant::ForgottenWithoutVoid),
            Register::Manifest(_) => false,
        };
        if goes && state.store.begun >> backup & 1 == 1 {
            state.send(Request::ForgetBegun(backup), next, |_, _| {});
        }
    }
}

/// All that can happen next.
pub(super) fn next(state: &State, setup: &Setup) -> Vec<State> {
    let mut next = Vec::new();
    for index in 0..2 {
        write(state, index, setup, &mut next);
        run(state, index, setup, &mut next);
    }
    pin(state, setup, &mut next);
    forget(state, setup, &mut next);
    if let Some(request) = state.late {
        let mut state = state.clone();
        state.store.apply(request);
        state.late = None;
        next.push(state);
    }
    next
}
