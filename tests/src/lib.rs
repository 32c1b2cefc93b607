//! What the tests in `tests/` share.

pub mod figures;
pub mod load;
pub mod mutants;
