//! What this process has seen of a store: whether it answers. A store that was given up is not waited for again by
//! every request.
//!
//! Lives here: [`Health`], which the [`retry`](super::retry) decorator keeps, and the one of each place. May not live
//! here: what is remembered from one process to the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{ErrorKind, StoreError};
use crate::limits::{ALTERNATIVE_PATIENCE, GIVEN_UP_TIME};

/// Whether a store answers, as far as this process knows.
#[derive(Debug, Default)]
pub struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    answered: Option<Instant>,
    /// What it said, or did not say, since it answered last.
    failure: Option<Failure>,
    given_up: Option<Instant>,
    has_alternative: bool,
}

#[derive(Debug, Clone)]
struct Failure {
    kind: ErrorKind,
    detail: String,
    hint: Option<String>,
}

impl Health {
    /// The one of this place, shared by all that connect to it.
    pub fn of(place: &str) -> Arc<Self> {
        static ALL: Mutex<BTreeMap<String, Arc<Health>>> = Mutex::new(BTreeMap::new());
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(place.to_owned()).or_default())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that another store can be asked instead: until it has answered once, this one is given up sooner.
    pub fn has_alternative(&self) {
        self.lock().has_alternative = true;
    }

    /// Lets requests try it again although it was given up.
    pub fn try_again(&self) {
        self.lock().given_up = None;
    }

    /// When it answered last.
    pub fn answered(&self) -> Option<Instant> {
        self.lock().answered
    }

    /// What went wrong since it answered last.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.as_ref().map(|failure| failure.detail.clone())
    }

    pub(super) fn succeeded(&self) {
        let mut state = self.lock();
        (state.answered, state.failure, state.given_up) = (Some(Instant::now()), None, None);
    }

    /// Notes a failed attempt; whether it is the first since the store answered.
    pub(super) fn failed(&self, error: &StoreError) -> bool {
        let mut state = self.lock();
        let is_first = state.failure.is_none();
        state.failure = Some(Failure { kind: error.kind, detail: error.detail.clone(), hint: error.hint.clone() });
        is_first
    }

    /// A request that failed since this moment is given up. If nothing else was answered meanwhile, nothing will be for
    /// a while.
    pub(super) fn gave_up(&self, kind: ErrorKind, since: Instant) {
        let mut state = self.lock();
        let is_silent = matches!(kind, ErrorKind::Unreachable | ErrorKind::TimedOut | ErrorKind::Busy);
        if is_silent && state.answered.is_none_or(|answered| answered < since) {
            state.given_up = Some(Instant::now());
        }
    }

    /// How long a first answer is waited for, if not as long as any other.
    pub(super) fn first_patience(&self) -> Option<Duration> {
        let state = self.lock();
        (state.has_alternative && state.answered.is_none()).then_some(ALTERNATIVE_PATIENCE)
    }

    /// The error of a store that was given up a short time ago.
    pub(super) fn given_up(&self, location: &str) -> Option<StoreError> {
        let state = self.lock();
        state.given_up.filter(|at| at.elapsed() < GIVEN_UP_TIME)?;
        let failure = state.failure.clone()?;
        let error =
            StoreError::new(failure.kind, "use the store", location, format!("it did not answer before: {}", failure.detail));
        Some(StoreError { hint: failure.hint, ..error }.permanently())
    }
}
