//! The in-process backend does what every backend must.

use async_trait::async_trait;
use coordination::conformance::World;
use coordination::memory::Memory;
use coordination::{LogLimits, Ports};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wire::clock::Entropy;

struct InProcess(Memory);

#[async_trait]
impl World for InProcess {
    async fn ports(&self) -> Ports {
        self.0.ports()
    }

    async fn forget(&self) {
        self.0.forget_everything();
    }
}

/// Numbers that are all different, the same in every run.
#[derive(Default)]
struct Different(AtomicU64);

impl Entropy for Different {
    fn bits(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

async fn world(limits: LogLimits) -> InProcess {
    InProcess(Memory::new(Arc::new(Different::default()), limits))
}

coordination::conformance_tests!(crate::world);
