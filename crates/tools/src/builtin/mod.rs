//! The built-in tools, a file each.

pub(crate) mod invalid;
