//! Why the order is as it is: the keeper's protocol in its smallest form, in the right order and in three wrong ones.
//! The checker must find the right one clean and each wrong one wanting, or its other verdicts would mean nothing (C-1).
#![forbid(unsafe_code)]

use super::{outcomes, wrong};
use crate::sync::{Arc, Deadline, Doorbell, Mutex, spawn};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Publish under the lock, then ring; listen, then take state and end in one critical section.
    Right,
    RingFirst,
    /// The keeper looks at the end in a critical section of its own, after the state.
    EndAfterState,
    /// The keeper looks at the state before it listens.
    LookFirst,
}

#[derive(Default)]
struct State {
    generation: u64,
    closed: bool,
}

/// A writer makes two changes and ends; the keeper saves. Returns what it saved last. A wake-up that is lost is a
/// deadlock, which the checker reports.
fn run(order: Order) -> u64 {
    let shared = Arc::new((Mutex::new(State::default()), Doorbell::new()));
    let keeper = {
        let shared = Arc::clone(&shared);
        spawn("keeper", move || {
            let (state, bell) = &*shared;
            let mut saved = 0;
            loop {
                let before = if order == Order::LookFirst { state.lock().generation } else { 0 };
                bell.wait(Deadline::NEVER);
                let (generation, closed) = match order {
                    Order::Right | Order::RingFirst => {
                        let state = state.lock();
                        (state.generation, state.closed)
                    }
                    Order::EndAfterState => {
                        let generation = state.lock().generation;
                        (generation, state.lock().closed)
                    }
                    Order::LookFirst => (before, state.lock().closed),
                };
                saved = generation.max(saved);
                if closed {
                    return saved;
                }
            }
        })
        .unwrap()
    };
    let (state, bell) = &*shared;
    let change = |change: fn(&mut State)| {
        if order == Order::RingFirst {
            bell.ring();
        }
        change(&mut state.lock());
        if order != Order::RingFirst {
            bell.ring();
        }
    };
    change(|state| state.generation = 1);
    change(|state| state.generation = 2);
    change(|state| state.closed = true);
    keeper.join().unwrap()
}

fn check(order: Order) {
    let seen = outcomes(move || {
        let saved = run(order);
        assert_eq!(saved, 2, "an accepted change was not saved");
        saved
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [2]);
}

#[test]
fn the_right_order_saves_everything() {
    check(Order::Right);
}

/// The body of the three tests below, which run it in a process of its own: a deadlock that the checker finds ends the
/// process, not only the test.
#[test]
fn wrong_order_in_a_process_of_its_own() {
    match wrong().as_deref() {
        Some("ring first") => check(Order::RingFirst),
        Some("end after state") => check(Order::EndAfterState),
        Some("look first") => check(Order::LookFirst),
        _ => {}
    }
}

fn verdict(order: &str) -> Option<String> {
    super::verdict("loom_tests::order::wrong_order_in_a_process_of_its_own", order)
}

#[test]
fn ringing_before_publishing_is_found() {
    assert!(verdict("ring first").unwrap().contains("deadlock"));
}

#[test]
fn looking_at_the_end_apart_from_the_state_is_found() {
    assert!(verdict("end after state").unwrap().contains("an accepted change was not saved"));
}

#[test]
fn looking_before_listening_is_found() {
    assert!(verdict("look first").unwrap().contains("an accepted change was not saved"));
}

#[test]
fn an_order_that_is_not_wrong_is_not_found() {
    assert_eq!(verdict("none"), None);
}
