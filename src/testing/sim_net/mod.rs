//! A network of nodes that is a function of one number.
//!
//! Nodes are the pure rules over the real tables, with the real log on a simulated disk, and without threads. Around them:
//! a network that loses, doubles, delays and reorders, an attacker who records and forges, clocks that jump, crashes,
//! operators of both kinds, registries that know, lie, fail and are slow. After each step the invariants, a comparison of
//! the tables with plain maps, and the laws of `law` must hold; in the end the faults stop, and those who want to trust
//! each other must come to do so.
//!
//! What must hold: nothing here reads a clock, a thread or a random source, so a seed that failed fails again.
#![forbid(unsafe_code)]

use core::fmt;
use std::collections::BTreeMap;

mod actions;
mod attacker;
mod bend;
pub(crate) mod chance;
mod law;
mod node;
mod peace;
mod people;
mod thief;
mod wires;
mod world;

pub use bend::Bend;
use world::World;

/// How often each thing happened, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happened(BTreeMap<String, u64>);

impl Happened {
    fn note(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    /// How often; 0 if never.
    #[must_use]
    pub fn count(&self, what: &str) -> u64 {
        self.0.get(what).copied().unwrap_or(0)
    }

    /// This, and what happened elsewhere.
    pub fn add(&mut self, other: &Self) {
        for (what, count) in &other.0 {
            *self.0.entry(what.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names = self.0.iter();
        names.try_for_each(|(what, count)| write!(f, "\n  {count:>9}  {what}"))
    }
}

/// Something that must not happen did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What the whole run is a function of.
    pub seed: u64,
    /// What does not hold.
    pub law: String,
    /// The last things that happened before.
    pub story: Vec<String>,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.law)?;
        self.story.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

impl core::error::Error for Broken {}

/// Lives the life of the network with this seed.
///
/// # Errors
/// The first law that did not hold.
pub fn run(seed: u64, bend: Option<Bend>) -> Result<Happened, Broken> {
    let mut world = World::new(seed, bend);
    match world.live() {
        Ok(()) => {
            for (rule, count) in &world.laws {
                *world.happened.0.entry(format!("law: {rule}")).or_default() += count;
            }
            Ok(world.happened)
        }
        Err(law) => Err(Broken { seed, law, story: world.story.into_iter().collect() }),
    }
}
