//! Events, from the writer's critical section to subscribers: in order, bounded, and without waiting for a slow one.
//!
//! INVARIANT: a subscriber receives every event since it subscribed, in order, if each [`Event::Lagged`] is counted as the
//! events that it stands for. A loss is a number beside the events, at its place. So it needs no room in the queue, and no
//! later event to be told.
#![forbid(unsafe_code)]

use core::time::Duration;
use std::collections::VecDeque;

use crate::event::Event;
use crate::sync::{Arc, Condvar, Deadline, Mutex, Process};

/// All subscribers. Lives under the writer lock, so there is one sender at a time.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    subscribers: Vec<Subscriber>,
    next: u64,
}

/// The sending end of one subscription. Dropping it ends the subscription.
#[derive(Debug)]
struct Subscriber {
    id: u64,
    queue: Arc<Queue>,
}

/// Events sent to one subscriber and not received yet.
#[derive(Debug)]
struct Queue {
    buffer: Mutex<Buffer>,
    changed: Condvar,
}

#[derive(Debug)]
struct Buffer {
    entries: VecDeque<Entry>,
    /// The most events that `entries` may hold.
    capacity: usize,
    /// Number of events lost since the newest entry. The receiver has not been told of them yet.
    lost: u64,
    /// The sender is gone.
    ended: bool,
    /// The receiver is gone.
    unheard: bool,
}

#[derive(Debug)]
struct Entry {
    /// Number of events lost between the entry before and this one. The receiver has not been told of them yet.
    lost_before: u64,
    event: Event,
}

impl Buffer {
    fn take(&mut self) -> Option<Event> {
        let lost = match self.entries.front_mut() {
            Some(entry) => &mut entry.lost_before,
            None => &mut self.lost,
        };
        match core::mem::take(lost) {
            0 => self.entries.pop_front().map(|entry| entry.event),
            lost => Some(Event::Lagged { lost }),
        }
    }

    /// Whether a thread that waits in `receive` must wake up.
    fn is_news(&self) -> bool {
        !self.entries.is_empty() || self.lost > 0 || self.ended
    }
}

impl Queue {
    fn new(capacity: usize, ended: bool) -> Arc<Self> {
        let entries = VecDeque::with_capacity(capacity.min(RESERVED_MAX));
        let buffer = Mutex::new(Buffer { entries, capacity, lost: 0, ended, unheard: false });
        Arc::new(Self { buffer, changed: Condvar::new() })
    }

    /// False if the receiver is gone.
    fn send(&self, event: &Event) -> bool {
        let mut buffer = self.buffer.lock();
        if buffer.unheard {
            return false;
        }
        if buffer.entries.len() >= buffer.capacity {
            // No receiver sleeps beside a full queue, so there is none to wake.
            buffer.lost = buffer.lost.saturating_add(1);
            return true;
        }
        let lost_before = core::mem::take(&mut buffer.lost);
        buffer.entries.push_back(Entry { lost_before, event: event.clone() });
        drop(buffer);
        self.changed.notify_one();
        true
    }

    /// Takes the next event or loss. Waits for one until the deadline, or not at all without a deadline.
    fn receive(&self, deadline: Option<Deadline>) -> Option<Event> {
        let mut buffer = self.buffer.lock();
        let mut late = deadline.is_none();
        loop {
            let event = buffer.take();
            if event.is_some() || buffer.ended || late {
                // Each event wakes one thread. If threads share the subscription, this one wakes the next.
                let is_news = buffer.is_news();
                drop(buffer);
                if is_news {
                    self.changed.notify_one();
                }
                return event;
            }
            let until = deadline.unwrap_or(Deadline::NEVER);
            (buffer, late) = self.changed.wait_until(buffer, until);
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        self.queue.buffer.lock().ended = true;
        self.queue.changed.notify_one();
    }
}

impl Hub {
    pub(crate) fn subscribe(&mut self, capacity: usize) -> Subscription {
        let queue = Queue::new(capacity.max(1), false);
        let id = self.next;
        self.next += 1;
        self.subscribers.push(Subscriber { id, queue: Arc::clone(&queue) });
        Subscription { queue, id, process: Process::this() }
    }

    /// Whether there is anybody to send events to.
    pub(super) fn is_heard(&self) -> bool {
        !self.subscribers.is_empty()
    }

    pub(crate) fn send(&mut self, events: Vec<Event>) {
        if !self.is_heard() {
            return;
        }
        for event in events {
            self.subscribers.retain(|subscriber| subscriber.queue.send(&event));
        }
    }

    /// No more events will come.
    pub(crate) fn end(&mut self) {
        self.subscribers.clear();
    }

    /// No more events will come to this one.
    pub(super) fn end_one(&mut self, id: u64) {
        self.subscribers.retain(|subscriber| subscriber.id != id);
    }
}

/// Events in the order of publication, for one consumer.
///
/// A consumer that falls behind by more than the limit (`Limits::subscription_events_max`) misses events. It receives
/// [`Event::Lagged`] with their number in their place, directly after the event before them. It receives it at once, also
/// if nothing else happens or the store was closed. `Lagged` does not take the place of an event. Threads may share a
/// subscription; each event or loss then goes to one of them.
#[derive(Debug)]
pub struct Subscription {
    queue: Arc<Queue>,
    id: u64,
    /// That of the store.
    process: Process,
}

impl Subscription {
    pub(super) fn ended() -> Self {
        Self { queue: Queue::new(0, true), id: u64::MAX, process: Process::this() }
    }

    /// Under which the store knows it.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The next event or loss, if there is one. None in a process that was forked from the store's.
    ///
    /// # Ordering
    /// Never waits for anything that happens later. A writer holds the lock of the queue only while it puts one event in.
    /// What an event tells of is visible to readers when the event is there. The event of a change is there when the call that
    /// made the change returns; another thread may see the change before.
    #[must_use]
    pub fn try_recv(&self) -> Option<Event> {
        self.receive(None)
    }

    /// The next event; blocks until there is one. `None` once the store is closed and every event was received, and at once
    /// in a process that was forked from the store's.
    #[must_use]
    pub fn recv(&self) -> Option<Event> {
        self.receive(Some(Deadline::NEVER))
    }

    /// The next event; blocks at most this long. `None` also when the store is closed and every event was received.
    #[must_use]
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Event> {
        self.receive(Some(Deadline::after(timeout)))
    }

    fn receive(&self, deadline: Option<Deadline>) -> Option<Event> {
        // No thread of this process sends anything, and the lock may be held by a thread that does not exist here.
        if self.process.is_this() { self.queue.receive(deadline) } else { None }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.process.is_this() {
            return;
        }
        let mut buffer = self.queue.buffer.lock();
        buffer.unheard = true;
        let unread = core::mem::take(&mut buffer.entries);
        drop(buffer);
        drop(unread);
    }
}

impl Iterator for Subscription {
    type Item = Event;

    /// As [`Subscription::recv`].
    fn next(&mut self) -> Option<Event> {
        self.recv()
    }
}

/// Room for so many events is reserved when a subscription begins. A larger queue grows when it needs to.
const RESERVED_MAX: usize = 1024;
