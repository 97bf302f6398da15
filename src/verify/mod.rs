//! Verification: whether what is stored is all there and right, and what damage costs. `docs/VERIFICATION.md` has the
//! design.
//!
//! Lives here: the quick, full and rolling looks, findings and their cost, repair. May not live here: the form of
//! stored objects (`repo`), where recovery would stop (`recovery`). Depends on layers below it only.
