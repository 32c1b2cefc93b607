//! Runs: acquire, step, hand over, take over; permissions; configuration of agents.
