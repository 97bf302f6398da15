//! The store of the model: the objects of the protocol, and the requests that change them.

/// Backups 0 and 1 are there from the beginning, the writers take 2 and 3. A set of backups is a bit for each.
pub(super) const BACKUPS: usize = 4;
/// One of these two has to be there always: a rule such as "one of each week".
pub(super) const GROUP: u8 = 0b11;
/// The backup that is pinned.
pub(super) const PINNED: usize = 0;

/// What has the name of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Register {
    Free,
    Void,
    /// With the packs that it refers to: each backup stores one, of its own number.
    Manifest(u8),
}

/// What is decided about a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fate {
    Deletes,
    Withdrawn,
}

/// The objects of a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tombstone {
    /// The manifests and the packs that it names.
    pub(super) names: Option<(u8, u8)>,
    pub(super) open: Option<u8>,
    pub(super) fate: Option<Fate>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Store {
    pub(super) registers: [Register; BACKUPS],
    pub(super) packs: u8,
    pub(super) begun: u8,
    pub(super) tombstones: [Tombstone; 2],
    pub(super) is_pinned: bool,
}

/// A request that changes something. What creates changes nothing where the name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Request {
    Begin(usize),
    ForgetBegun(usize),
    PutPack(usize),
    DeletePack(usize),
    PutManifest(usize, u8),
    PutVoid(usize),
    DeleteManifest(usize),
    PutNames(usize, (u8, u8)),
    DeleteNames(usize),
    PutOpen(usize, u8),
    DeleteOpen(usize),
    Decide(usize, Fate),
    DeleteFate(usize),
    Pin(bool),
}

impl Store {
    /// Two whole backups, and perhaps the newest.
    pub(super) fn first(newest: bool) -> Self {
        let (last, more) = if newest { (Register::Manifest(0b1000), 0b1000) } else { (Register::Free, 0) };
        Self {
            registers: [Register::Manifest(0b01), Register::Manifest(0b10), Register::Free, last],
            packs: 0b11 | more,
            begun: 0b11 | more,
            tombstones: [Tombstone { names: None, open: None, fate: None }; 2],
            is_pinned: false,
        }
    }

    /// Whether it changed anything.
    pub(super) fn apply(&mut self, request: Request) -> bool {
        let before = self.clone();
        match request {
            Request::Begin(backup) => self.begun |= 1 << backup,
            Request::ForgetBegun(backup) => self.begun &= !(1 << backup),
            Request::PutPack(backup) => self.packs |= 1 << backup,
            Request::DeletePack(backup) => self.packs &= !(1 << backup),
            Request::PutManifest(backup, refers_to) => self.register(backup, Register::Manifest(refers_to)),
            Request::PutVoid(backup) => self.register(backup, Register::Void),
            Request::DeleteManifest(backup) => self.registers[backup] = Register::Free,
            Request::PutNames(id, names) => drop(self.tombstones[id].names.get_or_insert(names)),
            Request::DeleteNames(id) => self.tombstones[id].names = None,
            Request::PutOpen(id, open) => drop(self.tombstones[id].open.get_or_insert(open)),
            Request::DeleteOpen(id) => self.tombstones[id].open = None,
            Request::Decide(id, fate) => drop(self.tombstones[id].fate.get_or_insert(fate)),
            Request::DeleteFate(id) => self.tombstones[id].fate = None,
            Request::Pin(keep) => self.is_pinned = keep,
        }
        *self != before
    }

    fn register(&mut self, backup: usize, content: Register) {
        if self.registers[backup] == Register::Free {
            self.registers[backup] = content;
        }
    }

    /// The backups with a manifest or a void.
    pub(super) fn decided(&self) -> u8 {
        backups(|backup| self.registers[backup] != Register::Free)
    }

    /// The backups with a manifest.
    pub(super) fn manifests(&self) -> u8 {
        backups(|backup| matches!(self.registers[backup], Register::Manifest(_)))
    }

    /// The packs that the manifests of these backups refer to.
    pub(super) fn referred(&self, of: u8) -> u8 {
        let refers_to = |backup: usize| match self.registers[backup] {
            Register::Manifest(packs) if of >> backup & 1 == 1 => packs,
            _ => 0,
        };
        (0..BACKUPS).map(refers_to).fold(0, |all, packs| all | packs)
    }

    /// Whether a backup can be restored.
    pub(super) fn is_whole(&self, backup: usize) -> bool {
        matches!(self.registers[backup], Register::Manifest(packs) if packs & !self.packs == 0)
    }

    /// The manifests that tombstones name, but one, and but those that were withdrawn.
    pub(super) fn named_by_others(&self, own: usize) -> u8 {
        let others = self.tombstones.iter().enumerate().filter(|(id, _)| *id != own);
        others
            .filter(|(_, other)| other.fate != Some(Fate::Withdrawn))
            .fold(0, |all, (_, other)| all | other.names.unwrap_or_default().0)
    }
}

/// A set of backups.
pub(super) fn backups(is_in: impl Fn(usize) -> bool) -> u8 {
    (0..BACKUPS).filter(|backup| is_in(*backup)).fold(0, |all, backup| all | 1 << backup)
}

/// The first backup of a set.
pub(super) fn first_of(set: u8) -> usize {
    set.trailing_zeros() as usize
}

/// All that a plan may let go: neither what is pinned, nor the newest whole backup, nor the last of the group; where
/// what others may delete is relied on for nothing.
pub(super) fn plans(store: &Store, is_pinned: bool, gone: u8, among: u8) -> Vec<u8> {
    let relied = backups(|backup| store.is_whole(backup)) & !gone;
    let newest = if relied == 0 { 0 } else { 1 << (7 - relied.leading_zeros()) };
    let among = among & store.manifests() & !newest & if is_pinned { !(1 << PINNED) } else { 0xFF };
    let group = relied & GROUP;
    (0..1 << BACKUPS).filter(|goes| goes & !among == 0 && (group == 0 || group & !goes != 0)).collect()
}
