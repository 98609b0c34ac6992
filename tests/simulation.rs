//! Seeded networks of nodes, with faults and an attacker: what must hold is in `trustkeep::testing::sim_net`.
//!
//! `TRUSTKEEP_SIM_SEEDS` sets how many networks are lived through at least (default 500): more follow until everything that
//! matters has happened often enough. `TRUSTKEEP_SIM_SEED` runs that one alone, with a story of what happened in it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what must hold by panicking")]

use trustkeep::testing::sim_net::{Bend, Happened, run};

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}: a number")))
}

/// Lives through these seeds; shows the first that fails, and how to see it again.
fn live(seeds: impl IntoIterator<Item = u64>) -> Happened {
    let mut happened = Happened::default();
    for seed in seeds {
        match run(seed, None) {
            Ok(here) => happened.add(&here),
            Err(broken) => {
                panic!("{broken}\n  again: TRUSTKEEP_SIM_SEED={seed} cargo test --all-features --test simulation")
            }
        }
    }
    happened
}

#[test]
fn whatever_happens_to_a_network_the_promises_hold() {
    if let Some(seed) = number_from("TRUSTKEEP_SIM_SEED") {
        eprintln!("{}", live([seed]));
        return;
    }
    let seeds = number_from("TRUSTKEEP_SIM_SEEDS").unwrap_or(500);
    let (mut happened, mut lived) = (live(1..=seeds), seeds);
    assert_eq!(happened.count("networks"), seeds);
    // However few networks were asked for, and however rare an occasion is: what it takes is more of them, not luck.
    loop {
        let wanting = wanting(&happened, lived);
        if wanting.is_empty() {
            break;
        }
        assert!(lived < seeds + MORE_MAX, "too seldom in {lived} networks: {wanting:?}");
        happened.add(&live(lived + 1..=lived + MORE));
        lived += MORE;
    }
    eprintln!("{happened}");
}

/// What happened too seldom in so many networks, and how often.
fn wanting(happened: &Happened, networks: u64) -> Vec<(&'static str, u64)> {
    let counts = MUST_HAPPEN.iter().map(|(what, per_thousand)| (*what, happened.count(what), *per_thousand));
    counts
        .filter(|(_, count, per_thousand)| count * 1000 < per_thousand * networks.max(1))
        .map(|(what, count, _)| (what, count))
        .collect()
}

#[test]
fn what_never_happens_is_found_wanting() {
    for networks in [0, 1, 250, 10_000] {
        assert_eq!(wanting(&Happened::default(), networks).len(), MUST_HAPPEN.len());
    }
    let happened = live(1..=3);
    let counts = |what: &str| wanting(&happened, 3).iter().any(|(wanting, _)| *wanting == what);
    for (what, _) in MUST_HAPPEN {
        assert!(happened.count(what) > 0 || counts(what), "{what}");
    }
    assert!(!counts("message: lost"), "{happened}");
}

/// Networks that are lived through at a time while something has happened too seldom, and at most.
const MORE: u64 = 25;
const MORE_MAX: u64 = 3000;

/// How often each of these must happen in a thousand networks, so that the laws are not kept for want of occasions:
/// less than half as often as it does.
const MUST_HAPPEN: [(&str, u64); 98] = [
    ("grant: Accepted", 550),
    ("grant: Approved", 1300),
    ("grant: Auto(AllowListed)", 100),
    ("grant: Auto(AutoApprove)", 70),
    ("grant: Auto(Mutual)", 280),
    ("grant: Auto(SameNetwork)", 50),
    ("grant: Direct", 200),
    ("grant: FirstUse", 10),
    ("grant: KeyAdopted", 20),
    ("grant: KeyRotated", 3),
    ("loss: KeyChanged", 4),
    ("loss: KeyRevoked", 10),
    ("loss: Removed", 12),
    ("loss: Revoked", 930),
    ("loss: RevokedByPeer", 540),
    ("a stamp moved back", 240),
    ("an entry was too old", 500),
    ("an answer waits unvouched", 50),
    ("a new key waits, proven", 30),
    ("a thief visits", 250),
    ("an old release speaks", 1200),
    ("attacker: damaged", 371),
    ("attacker: flooded", 1587),
    ("attacker: forged", 1474),
    ("attacker: forged in version 1", 293),
    ("attacker: misdirected", 372),
    ("attacker: named a successor with a stolen key", 401),
    ("attacker: named a successor again", 180),
    ("attacker: named another successor", 180),
    ("attacker: re-dated", 371),
    ("attacker: re-typed", 376),
    ("attacker: replayed", 1100),
    ("attacker: spoke for itself", 398),
    ("clock: back by less", 1000),
    ("clock: back by years", 360),
    ("clock: forwards by less", 1000),
    ("clock: forwards by years", 350),
    ("clock: stolen", 200),
    ("crash: between saves", 890),
    ("crash: during a save", 70),
    ("crash: during recovery", 460),
    ("shut down", 250),
    ("save: failed", 540),
    ("message: doubled", 800),
    ("message: lost", 1600),
    ("message: relayed", 1300),
    ("news of a grant: left once durable", 4300),
    ("news of a grant: taken back before it left", 60),
    ("a new key is told", 110),
    ("a refusal", 20),
    ("a refusal that was owed is told", 3),
    ("law: R-231", 30),
    ("law: R-271", 1),
    ("law: R-273", 2),
    ("a refusal that nobody vouches for", 5),
    ("owed no longer", 100),
    ("owed: Accept", 100),
    ("owed: Reject", 50),
    ("owed: Revoke", 50),
    ("tried again: Accept", 50),
    ("tried again: Request", 300),
    ("tried again: Revoke", 20),
    ("peace: parted", 190),
    ("peace: parted though the farewell was lost", 200),
    ("peace: trust", 190),
    ("peace: trust though an accept was lost", 200),
    ("refused: fingerprint_required", 140),
    ("refused: other_entry", 130),
    ("refused: ignored_not_asked", 5),
    ("refused: key_revoked_needs_lift", 12),
    ("refused: registry_contradicts", 6),
    ("refused: revoked_needs_lift", 280),
    ("refused: revoked_needs_operator", 100),
    ("refused: store_full", 6),
    ("refused: wrong_fingerprint", 260),
    ("rejected: already_refused", 12),
    ("rejected: bad_key", 10),
    ("rejected: bad_signature", 430),
    ("rejected: below_former_floor", 2),
    ("relay: answers itself", 200),
    ("rejected: downgrade", 200),
    ("rejected: from_future", 1900),
    ("rejected: ignored", 20),
    ("rejected: key_mismatch", 280),
    ("rejected: key_replaced", 2),
    ("rejected: rotation_refused", 9),
    ("rejected: key_revoked", 12),
    ("rejected: not_asked", 560),
    ("rejected: not_authentic", 890),
    ("rejected: not_relayable", 160),
    ("rejected: peer_revoked", 60),
    ("rejected: pending_full", 35),
    ("rejected: pending_source_full", 12),
    ("rejected: replayed", 20),
    ("rejected: stale", 890),
    ("rejected: too_old", 2100),
    ("rejected: version_1", 710),
    ("rejected: wrong_answer", 100),
];

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 1..=3 {
        assert_eq!(run(seed, None).unwrap(), run(seed, None).unwrap());
    }
}

#[test]
fn rules_that_are_bent_are_found_out() {
    for bend in Bend::ALL {
        let found = (1..=BEND_SEEDS).find_map(|seed| run(seed, Some(bend)).err());
        match found {
            Some(broken) => eprintln!("{bend:?}: seed {}: {}", broken.seed, broken.law),
            None => panic!("{bend:?}: not found in {BEND_SEEDS} networks"),
        }
    }
}

/// In so many networks each bent rule must show.
const BEND_SEEDS: u64 = 800;
