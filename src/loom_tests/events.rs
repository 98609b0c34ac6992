//! A subscriber receives every event or hears that it was lost, at its place, and sleeps through neither.
#![forbid(unsafe_code)]

use super::{outcomes, peer};
use crate::event::Event;
use crate::store::{Hub, Subscription};
use crate::sync::{Arc, spawn};

fn event(number: u32) -> Event {
    Event::Revoked { peer: peer(number) }
}

/// The number of an event; of a loss, how many were lost, negative.
fn told(event: &Event) -> i64 {
    match event {
        Event::Revoked { peer } => peer.get().into(),
        Event::Lagged { lost } => -i64::try_from(*lost).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// How many events this one stands for.
fn stands_for(told: i64) -> i64 {
    if told < 0 { -told } else { 1 }
}

/// Sends the events 1 to `last`, one by one.
fn send(hub: &mut Hub, last: u32) {
    for number in 1..=last {
        hub.send(vec![event(number)]);
    }
}

/// Receives until so many events were received or told as lost, or the subscription ends.
fn receive(events: &Subscription, last: i64) -> Vec<i64> {
    let (mut all, mut accounted) = (Vec::new(), 0);
    while accounted < last {
        let Some(event) = events.recv() else { break };
        let told = told(&event);
        if told > 0 {
            assert_eq!(told, accounted + 1, "{all:?}");
        }
        accounted += stands_for(told);
        all.push(told);
    }
    all
}

/// Three events for a subscriber that keeps one.
const THREE: [&[i64]; 4] = [&[1, -2], &[1, -1, 3], &[1, 2, -1], &[1, 2, 3]];

#[test]
fn a_loss_is_told_without_another_event() {
    // The hub stays: a receiver that slept through the loss would sleep for ever, which the checker finds.
    let seen = outcomes(|| {
        let mut hub = Hub::default();
        let events = hub.subscribe(1);
        let reader = spawn("reader", move || receive(&events, 3)).unwrap();
        send(&mut hub, 3);
        let all = reader.join().unwrap();
        drop(hub);
        all
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), THREE);
}

#[test]
fn a_loss_is_told_before_the_end() {
    let seen = outcomes(|| {
        let mut hub = Hub::default();
        let events = hub.subscribe(1);
        let reader = spawn("reader", move || receive(&events, i64::MAX)).unwrap();
        send(&mut hub, 3);
        hub.end();
        reader.join().unwrap()
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), THREE);
}

#[test]
fn threads_that_share_a_subscription_sleep_through_nothing() {
    let seen = outcomes(|| {
        let mut hub = Hub::default();
        let events = Arc::new(hub.subscribe(1));
        let readers = [(); 2].map(|()| {
            let events = Arc::clone(&events);
            // Each takes one thing only, so neither may rely on the other to go on.
            spawn("reader", move || events.recv().map_or(0, |event| told(&event))).unwrap()
        });
        send(&mut hub, 2);
        let mut all = readers.map(|reader| reader.join().unwrap());
        all.sort_unstable();
        drop(hub);
        all
    });
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [[-1, 1], [1, 2]]);
}
