//! The model at one moment: the store, how far each actor is, and what must never be so.

use super::store::{BACKUPS, GROUP, PINNED, Request, Store};

/// Steps that are left out or exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mutant {
    /// A writer does not say that it begins.
    NoBegun,
    /// It says so only after it has read the tombstones.
    BegunAfterTombstones,
    /// A writer does not read tombstones.
    NoTombstones,
    /// It reads them after it has chosen what it refers to.
    TombstonesAfterChoice,
    /// It does not look whether it still counts.
    NoLookBack,
    /// It looks whether its backup had begun, and not for its manifest.
    NoLookForManifest,
    /// The list of open backups is made before the tombstone.
    OpenBeforeNames,
    /// Nobody is given up.
    NoVoids,
    /// They are given up after the manifests were listed.
    VoidsAfterManifests,
    /// The manifests are not listed anew: what the tombstone names goes.
    NoNewPlan,
    /// A pack goes although a manifest that stays refers to it.
    ReferencesIgnored,
    /// Pins are not listed anew.
    NoPins,
    /// They are listed before `.begun`.
    PinsBeforeBegun,
    /// `pin` does not look for tombstones.
    PinWithoutTombstones,
    /// It looks for the manifest first.
    PinLooksForManifestFirst,
    /// That a backup had begun is forgotten only after its packs went.
    BegunForgottenLast,
    /// Packs go before manifests.
    PacksBeforeManifests,
    /// A tombstone is removed although what it names is there.
    RemovedTooEarly,
    /// `.begun` goes before the tombstone.
    BegunGoesFirst,
    /// The tombstone is read before `.begun` is created, and not after it.
    NamesBeforeBegun,
    /// A run goes on although the tombstone was withdrawn.
    WithdrawnIgnored,
    /// What other tombstones name counts as there.
    OthersIgnored,
    /// Other tombstones are listed after the manifests.
    OthersAfterManifests,
    /// That a backup has begun is forgotten when there is no manifest, be there a void or not.
    ForgottenWithoutVoid,
}

impl Mutant {
    /// All of them.
    pub(super) const ALL: [Self; 24] = [
        Self::NoBegun,
        Self::BegunAfterTombstones,
        Self::NoTombstones,
        Self::TombstonesAfterChoice,
        Self::NoLookBack,
        Self::NoLookForManifest,
        Self::OpenBeforeNames,
        Self::NoVoids,
        Self::VoidsAfterManifests,
        Self::NoNewPlan,
        Self::ReferencesIgnored,
        Self::NoPins,
        Self::PinsBeforeBegun,
        Self::PinWithoutTombstones,
        Self::PinLooksForManifestFirst,
        Self::BegunForgottenLast,
        Self::PacksBeforeManifests,
        Self::RemovedTooEarly,
        Self::BegunGoesFirst,
        Self::NamesBeforeBegun,
        Self::WithdrawnIgnored,
        Self::OthersIgnored,
        Self::OthersAfterManifests,
        Self::ForgottenWithoutVoid,
    ];
}

/// Who takes part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) writers: usize,
    pub(super) runs: usize,
    pub(super) pinner: bool,
    /// Whether backup 3 is there from the beginning, so that all others may go; else the second writer takes it.
    pub(super) newest: bool,
    /// Requests that are sent twice.
    pub(super) repeats: u8,
    pub(super) mutant: Option<Mutant>,
}

impl Setup {
    pub(super) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }
}

/// A writer of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Writer {
    pub(super) backup: usize,
    pub(super) step: Write,
    /// The packs that it refers to, and those that it must not.
    pub(super) refers_to: u8,
    pub(super) avoids: u8,
    /// When it had stored its manifest, and looked for it, the backup could be restored.
    pub(super) saw_it_whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Write {
    Begin,
    ReadTombstones,
    ReadParent,
    ListPacks,
    /// Only of the mutant that reads them after its choice.
    ReadTombstonesLate,
    BeginLate,
    PutPack,
    PutManifest,
    LookForManifest,
    LookForBegun,
    TakeBack,
    End,
}

impl Writer {
    pub(super) fn new(backup: usize, takes_part: bool) -> Self {
        Self { backup, step: if takes_part { Write::Begin } else { Write::End }, refers_to: 0, avoids: 0, saw_it_whole: false }
    }
}

/// A run of expire: it makes its own tombstone, and then deletes by any that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Run {
    pub(super) id: usize,
    pub(super) step: Step,
    /// Of other tombstones.
    pub(super) gone: u8,
    pub(super) is_pinned: bool,
    pub(super) names: (u8, u8),
    /// Backups that had begun, or are open, or are to be given up.
    pub(super) open: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Step {
    // Phase 1.
    ListOthers,
    Plan,
    PutNames,
    ListBegun,
    ListDecided,
    PutOpen,
    // Phase 2.
    Choose,
    ReadOpen,
    Decide,
    ReadNames,
    ReadOpenAgain,
    ListOpen,
    GiveUp,
    ListOthersAnew,
    ListPins,
    PlanAnew,
    Forget,
    DeleteManifests,
    DeletePacks,
    Count,
    RemoveNames,
    RemoveOpen,
    RemoveFate,
    End,
}

impl Run {
    pub(super) fn new(id: usize, takes_part: bool) -> Self {
        let step = if takes_part { Step::ListOthers } else { Step::End };
        Self { id, step, gone: 0, is_pinned: false, names: (0, 0), open: 0 }
    }
}

/// An operator who pins a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Pinner {
    Pin,
    LookForTombstones,
    LookForManifest,
    TakeBack,
    /// The command has ended with 0.
    Holds,
    End,
}

impl Pinner {
    pub(super) fn new(takes_part: bool) -> Self {
        if takes_part { Self::Pin } else { Self::End }
    }

    pub(super) fn holds(self) -> bool {
        self == Self::Holds
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    pub(super) store: Store,
    pub(super) writers: [Writer; 2],
    pub(super) runs: [Run; 2],
    pub(super) pinner: Pinner,
    /// On its way, although its sender has sent it again.
    pub(super) late: Option<Request>,
    pub(super) repeats: u8,
    /// Backups whose writers said that they are good.
    pub(super) good: u8,
    /// Backups that some run let go by its own plan.
    pub(super) let_go: u8,
    /// What went wrong in the step that led here.
    pub(super) broken: Option<&'static str>,
}

impl State {
    pub(super) fn first(setup: &Setup) -> Self {
        Self {
            store: Store::first(setup.newest),
            writers: [Writer::new(2, setup.writers > 0), Writer::new(3, setup.writers > 1 && !setup.newest)],
            runs: [Run::new(0, setup.runs > 0), Run::new(1, setup.runs > 1)],
            pinner: Pinner::new(setup.pinner),
            late: None,
            repeats: setup.repeats,
            good: GROUP | if setup.newest { 0b1000 } else { 0 },
            let_go: 0,
            broken: None,
        }
    }

    /// A request takes effect, and `then` goes on with the answer. Or it is sent twice: once it is on its way for
    /// longer, and the sender is where it was.
    pub(super) fn send(&self, request: Request, next: &mut Vec<Self>, then: impl FnOnce(&mut Self, bool)) {
        let mut state = self.clone();
        let is_new = state.store.apply(request);
        then(&mut state, is_new);
        next.push(state);
        if self.repeats > 0 && self.late.is_none() {
            next.push(Self { late: Some(request), repeats: self.repeats - 1, ..self.clone() });
        }
    }

    /// The writer says that its backup is good.
    pub(super) fn called_good(&mut self, index: usize) {
        let Writer { backup, saw_it_whole, .. } = self.writers[index];
        self.writers[index] = Writer::new(backup, false);
        self.good |= 1 << backup;
        if !saw_it_whole {
            self.broken = Some("a writer calls a backup good that cannot be restored");
        }
    }

    /// What must never be so.
    pub(super) fn wrong(&self) -> Option<&'static str> {
        let counts = |backup: usize| self.store.is_whole(backup);
        if self.broken.is_some() {
            return self.broken;
        }
        if (0..BACKUPS).any(|backup| (self.good & !self.let_go) >> backup & 1 == 1 && !counts(backup)) {
            return Some("a backup that was called good, and that nobody let go, cannot be restored");
        }
        if self.pinner.holds() && !counts(PINNED) {
            return Some("a pinned backup cannot be restored");
        }
        if !(0..BACKUPS).any(|backup| GROUP >> backup & 1 == 1 && counts(backup)) {
            return Some("a rule keeps one of the group, and none is left");
        }
        None
    }
}
