//! Crashes after every call of seeded stories: creation, journals, snapshots, faults, reopenings, crashes before.
//!
//! What must hold: whatever a crash leaves opens with exactly one generation that was published, never older than what
//! was acknowledged; and a disk or a protocol that is broken on purpose is found out by the same stories.
//!
//! `TRUSTKEEP_CRASH_IMAGES` sets how many states are looked at in all (default 50 000), `TRUSTKEEP_CRASH_SEED` the number
//! of the first story.

use std::sync::Arc;

use trustkeep::testing::sim_disk::{Lie, SimDisk};

mod broken;
mod check;
mod story;

use broken::{Broken, Bug};
use check::Looking;
use story::{Acknowledge, Plan, tell};

fn number_from(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

#[test]
fn a_crash_at_any_call_loses_nothing_acknowledged_however_often() {
    let goal = usize::try_from(number_from("TRUSTKEEP_CRASH_IMAGES", 50_000)).unwrap();
    let first = number_from("TRUSTKEEP_CRASH_SEED", 1);
    let (mut looking, mut stories, mut points) = (Looking::new(), 0, 0);
    let mut happened = story::Happened::default();
    // A handful of stories, so that each writes in other portions and other sizes.
    while looking.images() < goal || stories < STORIES_MIN {
        let plan = Plan::new(first + stories);
        let story = tell(&plan, Acknowledge::WhenDurable, &|disk| Arc::new(disk.clone()));
        assert!(story.wrong.is_empty(), "story {}: {:?}", plan.seed, story.wrong);
        points += story.points();
        happened += story.happened;
        looking.look_at(&story, BUDGET);
        stories += 1;
        let wrong = looking.wrong();
        let first = wrong.first().map_or("", String::as_str);
        assert!(
            wrong.is_empty(),
            "story {}: {} of {} images, first: {first}",
            plan.seed,
            wrong.len(),
            looking.images()
        );
    }
    eprintln!("{stories} stories from {first} on, {points} crash points; {looking}; {happened:?}");
    assert!(looking.images() >= goal);
    assert!(looking.images_after(1) > goal / 20 && looking.images_after(2) > goal / 500, "{looking}");
    assert!(happened.is_rich(stories), "{happened:?} in {stories} stories");
}

/// Looks at a few stories of a store that is broken in this way; they must show it.
fn must_be_found(what: &str, acknowledge: Acknowledge, storage: &dyn Fn(&SimDisk) -> Arc<dyn trustkeep::Storage>) {
    let (mut looking, mut stories_wrong) = (Looking::new(), 0);
    for seed in 1..=3 {
        let story = tell(&Plan::new(seed), acknowledge, storage);
        stories_wrong += story.wrong.len();
        looking.look_at(&story, 8);
    }
    let wrong = looking.wrong();
    let first = wrong.first().map_or("-", String::as_str);
    eprintln!(
        "{what}: {} of {} images show it ({stories_wrong} stories broke off); {first}",
        wrong.len(),
        looking.images()
    );
    assert!(!wrong.is_empty(), "{what}: none of {} images showed it", looking.images());
}

#[test]
fn a_disk_that_lies_about_syncs_is_found_out() {
    for lie in [Lie::FileSync, Lie::DataSync, Lie::DirSync] {
        must_be_found(&format!("{lie:?} is a lie"), Acknowledge::WhenDurable, &|disk| {
            disk.set_lie(Some(lie));
            Arc::new(disk.clone())
        });
    }
}

#[test]
fn a_wrong_order_of_calls_is_found_out() {
    for how in Bug::ALL {
        must_be_found(&format!("{how:?}"), Acknowledge::WhenDurable, &|disk| Arc::new(Broken::new(disk, how)));
    }
}

#[test]
fn an_acknowledgement_before_the_save_is_found_out() {
    must_be_found("acknowledged at once", Acknowledge::AtOnce, &|disk| Arc::new(disk.clone()));
}

/// Draws for each crash point.
const BUDGET: usize = 40;
const STORIES_MIN: u64 = 6;
