//! The built-in tools, a file each.

pub(crate) mod bash;
pub(crate) mod edit;
pub(crate) mod invalid;
pub(crate) mod read;
pub(crate) mod task;
pub(crate) mod write;
