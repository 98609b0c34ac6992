//! Events as callbacks: each sink has a thread of its own, so a sink that blocks, panics or calls back harms itself alone.
//!
//! INVARIANT: a sink is called with no lock held, one event at a time, in the order of publication. What it misses because
//! it is too slow it hears of as a number, in its place.
#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Weak};

use super::shell::Shell;
use crate::foreign;
use crate::machine::event::Event;
use crate::store::Subscription;
use crate::sync::{Condvar, Deadline, Mutex, spawn, thread_token};

/// Whoever wants to be called when something happens. Every `Fn(Event)` that may be shared between threads is one.
///
/// # Ordering
/// Called on a thread of its own, one event at a time and in order, after the change is visible to readers. It may block
/// and may call the manager. When it falls behind by more than the limit
/// ([`subscription_events_max`](crate::config::Limits::subscription_events_max)) it misses events and is given
/// [`Event::Lagged`] with their number instead.
///
/// # Panics
/// A panic costs the event in hand, is counted as `sink_panicked`, and nothing else.
pub trait EventSink: Send + Sync {
    /// One thing happened.
    fn deliver(&self, event: Event);
}

impl<F: Fn(Event) + Send + Sync> EventSink for F {
    fn deliver(&self, event: Event) {
        self(event);
    }
}

/// A sink and the thread that calls it.
pub(crate) struct Delivery {
    subscription: u64,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Default)]
struct State {
    thread: u64,
    discard: bool,
    gone: bool,
}

impl Delivery {
    /// Begins to call the sink with what happens from now on.
    pub(crate) fn start(shell: &Arc<Shell>, sink: Arc<dyn EventSink>) -> io::Result<Self> {
        let events = shell.store.subscribe();
        let shared = Arc::new(Shared { state: Mutex::new(State::default()), left: Condvar::new() });
        let delivery = Self { subscription: events.id(), shared: Arc::clone(&shared) };
        let shell = Arc::downgrade(shell);
        spawn("trustkeep-event", move || {
            shared.state.lock().thread = thread_token();
            run(&events, sink.as_ref(), &shared, &shell);
            // Theirs, and dropped with no lock held like everything of theirs.
            if foreign::run(|| drop(sink)).is_err() {
                tracing::error!("an event sink panicked when it was dropped");
            }
            shared.state.lock().gone = true;
            shared.left.notify_one();
        })?;
        Ok(delivery)
    }

    /// Waits until the sink was given what had happened so far, or the deadline; what is left then is not delivered. The
    /// subscription must have been ended.
    pub(crate) fn close(&self, until: Deadline) -> bool {
        let mut state = self.shared.state.lock();
        // A sink that stops the node waits for itself for ever.
        let own = state.thread == thread_token();
        while !state.gone && !own {
            let (guard, late) = self.shared.left.wait_until(state, until);
            state = guard;
            if late {
                break;
            }
        }
        state.discard = true;
        state.gone || own
    }

    /// Under which the store knows what feeds it.
    pub(crate) fn subscription(&self) -> u64 {
        self.subscription
    }
}

fn run(events: &Subscription, sink: &dyn EventSink, shared: &Shared, shell: &Weak<Shell>) {
    while let Some(event) = events.recv() {
        if shared.state.lock().discard {
            return;
        }
        let topic = event.topic();
        if foreign::run(|| sink.deliver(event)).is_err()
            && let Some(shell) = shell.upgrade()
        {
            shell.count("sink_panicked", &format_args!("an event sink panicked over {topic}"));
        }
    }
}
