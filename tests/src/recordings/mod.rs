//! What OpenCode 1.18.34 answered and told, recorded, and the same done to Flotilla.
//!
//! A [`Recording`] is a fixture: files of a work tree, what the model says, requests with their answers, events.
//! [`play`](player::play) sends the requests and collects what comes. [`compare`](compare::compare) tells every difference;
//! what it passes over stands in one list, [`Ignored`], with a reason each.

pub mod align;
pub mod compare;
pub mod damage;
pub mod events;
pub mod fixture;
pub mod ignored;
pub mod player;
pub mod script;
pub mod text;

pub use compare::{Comparison, Difference, compare};
pub use fixture::{Conversation, Recording, Step};
pub use ignored::Ignored;
