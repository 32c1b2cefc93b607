//! Waiting for a condition, with a bound.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long [`eventually`] lets pass between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The bound of waits that have no reason for another: far more than anything takes, so that only a failure meets it.
pub const BOUND: Duration = Duration::from_secs(30);

/// Calls `look` until it returns a value, and returns that.
///
/// # Panics
/// When `bound` has passed; `what` names what was waited for.
pub async fn eventually<T, F, Fut>(bound: Duration, what: &str, mut look: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let began = Instant::now();
    loop {
        if let Some(value) = look().await {
            return value;
        }
        assert!(began.elapsed() < bound, "waited {bound:?} in vain for {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A loopback port that was free a moment ago. Another process may take it meanwhile, so that whoever uses it tries again.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).and_then(|l| l.local_addr()).expect("a free loopback port").port()
}

/// The clock, in milliseconds since 1970.
pub fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    u64::try_from(since.as_millis()).expect("it is before the year 500,000,000")
}
