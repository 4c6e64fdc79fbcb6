//! What the tests share: the program as a process, a client, and a provider that does as it is told.
//!
//! Nothing here knows what is tested. Whatever takes a while is polled for, with a deadline that says what was missing.

mod http;
mod process;
mod upstream;

use std::io::Write;
use std::time::Duration;

pub use self::http::{Answer, Client, summary};
pub use self::process::{Finished, Home, Server};
pub use self::upstream::{Call, Live, Reply, Upstream, chunks, completion, completion_with, event_stream};

/// Says why a test cannot run here; where everything must be there ([`NEARHIT_CI`](../../../.ci/run)), it fails.
pub fn skip(reason: &str) {
    say_skipped(reason);
    assert!(std::env::var_os("NEARHIT_CI").is_none(), "with NEARHIT_CI nothing may be skipped: {reason}");
}

/// Says why a test cannot run here, where not every machine is expected to have what it takes.
///
/// Not by `println`, which the test harness keeps to itself when a test passes.
pub fn say_skipped(reason: &str) {
    writeln!(std::io::stderr(), "skipped: {reason}").expect("stderr");
}

/// The environment variable's value, or `None` after having said that a test is skipped without it.
pub fn variable(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    match value.as_deref() {
        None => skip(&format!("{name} is not set")),
        // Not everything can be installed: whoever runs the tests may say that it is not to be had.
        Some("none") => say_skipped(&format!("{name} is \"none\"")),
        Some(_) => return value,
    }
    None
}

/// What `probe` finds, as soon as it finds something.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(POLL).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("waited {PATIENCE:?} in vain: {what}"))
}

/// Longer than anything takes on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

const POLL: Duration = Duration::from_millis(5);
