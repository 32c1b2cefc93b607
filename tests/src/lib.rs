//! What the tests in `tests/` share.

pub mod chaos;
pub mod contrast;
pub mod evidence;
pub mod figures;
pub mod load;
pub mod mutants;
pub mod outage;
pub mod prove;
pub mod recordings;
pub mod screen;
pub mod side_by_side;
pub mod soak;
