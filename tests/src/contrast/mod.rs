//! One black-box suite for any three servers of the API over one store: three OpenCodes that share a home, and Flotilla.
//!
//! A row is something that people do, by HTTP alone, the same steps and the same bounds for both. `make contrast` runs all
//! of them against both and prints who holds what; Flotilla must hold each, and three OpenCodes none: a row that they hold
//! does not test its subject.

mod fleet;
mod rows;

pub use fleet::Fleet;

use std::future::Future;
use std::pin::Pin;

/// Something that people do, and what must come of it.
#[derive(Clone, Copy)]
pub struct Row {
    /// Its subject, in a word or two.
    pub name: &'static str,
    /// What is done, and what is expected.
    pub done: &'static str,
    run: for<'a> fn(&'a Fleet) -> Running<'a>,
}

/// A row at work.
type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

impl Row {
    /// Does it, and ends what it left running.
    ///
    /// # Errors
    /// The harm that was done, as the user sees it.
    ///
    /// # Panics
    /// When its preparations fail, which says nothing of its subject.
    pub async fn run(&self, fleet: &Fleet) -> anyhow::Result<()> {
        let outcome = (self.run)(fleet).await;
        fleet.quiet().await;
        outcome
    }
}

/// All rows.
pub const ROWS: [Row; 11] = [
    Row {
        name: "any-replica",
        done: "a command is allowed for good at A; at B the same command is run and nobody is asked again",
        run: |fleet| Box::pin(rows::any_replica(fleet)),
    },
    Row {
        name: "busy",
        done: "a prompt at B while A answers waits until A has answered",
        run: |fleet| Box::pin(rows::busy(fleet)),
    },
    Row {
        name: "cancel",
        done: "an abort at B ends what A runs: the model's connection drops, the caller is answered",
        run: |fleet| Box::pin(rows::cancel(fleet)),
    },
    Row {
        name: "queued callers",
        done: "a prompt at B while A runs a tool: the model is told what the tool says, both callers get the last answer",
        run: |fleet| Box::pin(rows::queued_callers(fleet)),
    },
    Row {
        name: "events",
        done: "a reader at B sees the answer that A makes, word by word, and its end",
        run: |fleet| Box::pin(rows::events(fleet)),
    },
    Row {
        name: "lost updates",
        done: "rules are added to a session at A, B and C at once: each that was acknowledged is there",
        run: |fleet| Box::pin(rows::lost_updates(fleet)),
    },
    Row {
        name: "status",
        done: "B says that the session is busy while A answers, and idle afterwards",
        run: |fleet| Box::pin(rows::status(fleet)),
    },
    Row {
        name: "one-runner",
        done: "prompts at A, B and C at once: the model is asked by one at a time",
        run: |fleet| Box::pin(rows::one_runner(fleet)),
    },
    Row {
        name: "asks",
        done: "A waits for a permission: B lists it, takes the reply, and A goes on",
        run: |fleet| Box::pin(rows::asks(fleet)),
    },
    Row {
        name: "delete",
        done: "a session that A runs is deleted at B: the run ends",
        run: |fleet| Box::pin(rows::delete(fleet)),
    },
    Row {
        name: "double click",
        done: "a prompt with one message id goes to A and B at once: it is run once, and both callers get the answer",
        run: |fleet| Box::pin(rows::double_click(fleet)),
    },
];
