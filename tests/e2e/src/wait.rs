//! Waiting for something to become, or to stay, true.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const POLL: Duration = Duration::from_millis(100);

/// Polls `condition` until it holds and returns how long that took; fails naming `what` after `limit`.
pub fn eventually(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let begun = Instant::now();
    loop {
        if condition()? {
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > limit {
            bail!("after {} s still not so: {what}", limit.as_secs());
        }
        std::thread::sleep(POLL);
    }
}

/// Polls `condition` for all of `period`; fails naming `what` as soon as it does not hold.
pub fn for_a_while(
    what: &str,
    period: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < period {
        if !condition()? {
            bail!(
                "after {} ms no longer so: {what}",
                begun.elapsed().as_millis()
            );
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}
