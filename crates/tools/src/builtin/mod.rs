//! The built-in tools, a file each.

pub(crate) mod apply_patch;
pub(crate) mod bash;
pub(crate) mod edit;
pub(crate) mod glob;
pub(crate) mod grep;
pub(crate) mod invalid;
pub(crate) mod question;
pub(crate) mod read;
pub(crate) mod skill;
pub(crate) mod structured_output;
pub(crate) mod task;
pub(crate) mod todowrite;
pub(crate) mod webfetch;
pub(crate) mod write;
