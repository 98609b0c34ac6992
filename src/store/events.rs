//! Events, from the writer's critical section to subscribers: in order, bounded, and never waiting for a slow one.
#![forbid(unsafe_code)]

use core::time::Duration;

use crate::event::Event;
use crate::sync::{Deadline, QueueReceiver, QueueSender, TrySendError, queue};

/// All subscribers. Lives under the writer lock, so there is one sender at a time.
#[derive(Debug, Default)]
pub(super) struct Hub {
    subscribers: Vec<Subscriber>,
    next: u64,
}

#[derive(Debug)]
struct Subscriber {
    id: u64,
    queue: QueueSender<Event>,
    /// Events that found the queue full since the last one that did not.
    lost: u64,
}

impl Subscriber {
    /// False if nobody listens any more.
    fn send(&mut self, event: &Event) -> bool {
        if self.lost > 0 {
            match self.queue.try_send(Event::Lagged { lost: self.lost }) {
                Ok(()) => self.lost = 0,
                Err(TrySendError::Full(_)) => {
                    self.lost = self.lost.saturating_add(1);
                    return true;
                }
                Err(TrySendError::Disconnected(_)) => return false,
            }
        }
        match self.queue.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.lost = 1;
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        }
    }
}

impl Hub {
    pub(super) fn subscribe(&mut self, capacity: usize) -> Subscription {
        let (sender, receiver) = queue(capacity);
        let id = self.next;
        self.next += 1;
        self.subscribers.push(Subscriber { id, queue: sender, lost: 0 });
        Subscription { queue: Some(receiver), id }
    }

    /// Whether there is anybody to send events to.
    pub(super) fn is_heard(&self) -> bool {
        !self.subscribers.is_empty()
    }

    pub(super) fn send(&mut self, events: Vec<Event>) {
        if !self.is_heard() {
            return;
        }
        for event in events {
            self.subscribers.retain_mut(|subscriber| subscriber.send(&event));
        }
    }

    /// No more events will come.
    pub(super) fn end(&mut self) {
        self.subscribers.clear();
    }

    /// No more events will come to this one.
    pub(super) fn end_one(&mut self, id: u64) {
        self.subscribers.retain(|subscriber| subscriber.id != id);
    }
}

/// Events in the order of publication, for one consumer.
///
/// A consumer that falls behind by more than the limit (`Limits::subscription_events_max`) misses events and receives
/// [`Event::Lagged`] with their number in their place, as soon as it has made room and something else happens.
#[derive(Debug)]
pub struct Subscription {
    queue: Option<QueueReceiver<Event>>,
    id: u64,
}

impl Subscription {
    pub(super) fn ended() -> Self {
        Self { queue: None, id: u64::MAX }
    }

    /// Under which the store knows it.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The next event, if one is waiting.
    ///
    /// # Ordering
    /// Lock-free. An event is there as soon as the change it tells of is visible to readers.
    #[must_use]
    pub fn try_recv(&self) -> Option<Event> {
        self.queue.as_ref()?.try_recv()
    }

    /// The next event; blocks until there is one. `None` once the store is closed and every event was received.
    #[must_use]
    pub fn recv(&self) -> Option<Event> {
        self.queue.as_ref()?.recv(Deadline::NEVER)
    }

    /// The next event; blocks at most this long. `None` also when the store is closed and every event was received.
    #[must_use]
    pub fn recv_timeout(&self, timeout: Duration) -> Option<Event> {
        self.queue.as_ref()?.recv(Deadline::after(timeout))
    }
}

impl Iterator for Subscription {
    type Item = Event;

    /// As [`Subscription::recv`].
    fn next(&mut self) -> Option<Event> {
        self.recv()
    }
}
