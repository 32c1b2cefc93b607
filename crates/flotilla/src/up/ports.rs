//! Free ports on loopback.

use anyhow::Context;
use rand::Rng;
use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};

/// Below the ports that the kernel gives to outgoing connections, so that none of these takes a port while its owner is
/// being started again.
const RANGE: std::ops::Range<u16> = 16_384..32_768;

/// How many ports are looked at.
const ATTEMPTS: usize = 1_000;

/// `count` different ports on which nobody listens now.
pub fn free(count: usize) -> anyhow::Result<Vec<u16>> {
    let mut ports = BTreeSet::new();
    for _ in 0..ATTEMPTS {
        let port = rand::rng().random_range(RANGE);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports.insert(port);
        }
        if ports.len() == count {
            return Ok(ports.into_iter().collect());
        }
    }
    None.context("there are no free ports on 127.0.0.1")
}
