//! How much memory this process has taken, as the operating system counts it.
//!
//! What must hold: a figure is of the whole process, and nothing is told as 0 that the system did not say.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a measurement: it waits, and stops when something does not hold"
)]

use std::time::Duration;

use trustkeep::TrustStore;

/// Bytes of anonymous resident memory (`RssAnon`): no files, mapped or cached.
#[must_use]
pub fn anonymous() -> u64 {
    bytes("RssAnon:")
}

/// Bytes of the most that was ever resident (`VmHWM`), mapped files included.
#[must_use]
pub fn peak() -> u64 {
    bytes("VmHWM:")
}

/// Waits until everything is durable, and all memory given back that the store gives back by itself: it looks once a second.
pub fn settle(store: &TrustStore) {
    store.flush().unwrap();
    let (mut least, mut still) = (anonymous(), 0);
    while still < 30 {
        std::thread::sleep(Duration::from_millis(100));
        let now = anonymous();
        still = if now < least { 0 } else { still + 1 };
        least = least.min(now);
    }
}

fn bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    field_bytes(&status, field).unwrap()
}

fn field_bytes(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hint::black_box;

    #[test]
    fn memory_is_read_as_the_system_writes_it() {
        let status = "VmHWM:\t  77 kB\nVmRSS:\t   9 kB\nRssAnon:\t    1234 kB\nRssFile:\t   5 kB\n";
        assert_eq!(field_bytes(status, "RssAnon:"), Some(1234 * 1024));
        assert_eq!(field_bytes(status, "VmHWM:"), Some(77 * 1024));
        assert_eq!(field_bytes("VmRSS:\t 9 kB\n", "RssAnon:"), None);
        // Other tests take memory and give it back meanwhile, but not as much.
        let before = anonymous();
        let taken = black_box(vec![1u8; 512 << 20]);
        let grown = anonymous().saturating_sub(before);
        assert!((256 << 20..768 << 20).contains(&grown), "{grown}");
        assert!(peak() >= 512 << 20);
        drop(taken);
        assert!(peak() >= 512 << 20, "the peak went down");
    }
}
