//! What a store is set up to do about the deletion of objects. Depends on nothing.

/// What a store is set up to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Features {
    /// Whether it keeps what is deleted or replaced.
    pub versioning: Versioning,
    /// Whether it can hold objects.
    pub object_lock: ObjectLocking,
}

/// Whether a store keeps versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versioning {
    /// What is deleted is gone.
    Off,
    /// A deletion hides, a replacement keeps what was.
    On,
    /// It did once: of what was stored then, versions may be there.
    Suspended,
    /// Why that is not known.
    Unknown(String),
}

/// Whether a store can hold objects against deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectLocking {
    /// It cannot.
    Off,
    /// It can, and does for this long where the writer says nothing.
    On {
        /// What it does by itself.
        default: Option<DefaultLock>,
    },
    /// Why that is not known.
    Unknown(String),
}

/// How long new objects are held where the writer says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultLock {
    /// Whether nobody can lift it, the owner of the store included.
    pub is_compliance: bool,
    /// In days.
    pub days: u32,
}

impl Features {
    /// Of a store that has neither.
    pub fn none() -> Self {
        Self { versioning: Versioning::Off, object_lock: ObjectLocking::Off }
    }
}
