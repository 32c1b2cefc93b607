//! The service as clients see it, on the in-process coordination backend and the demo provider.

mod connections;
mod requests;
mod streams;
mod world;
