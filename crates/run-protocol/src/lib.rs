//! The decisions of the run protocol as a pure core: state and input in, state and effects out.
