//! Room among those who wait, by examples.
#![forbid(unsafe_code)]

use super::*;
use crate::machine::input::{Lookup, Path};
use crate::machine::outcome::Outcome;
use crate::peer::PublicKey;
use crate::testing::actor::{Actor, Way, node};

fn us() -> Actor {
    Actor::new(9, 0x11)
}

fn key(seed: u8) -> PublicKey {
    Actor::new(1, seed).public_key()
}

#[test]
fn one_source_fills_its_share_and_another_still_gets_in() {
    let mut us = us();
    us.rules.limits.pending_per_source_max = 2;
    for id in [101, 102] {
        us.is_asked(10, id, 0xAA, "", Way::from_host(1)).unwrap();
    }
    assert_eq!(us.is_asked(10, 103, 0xAA, "", Way::from_host(1)), Err(Rejection::PendingSourceFull));
    assert!(us.is_asked(10, 103, 0xAA, "", Way::from_host(2)).is_ok());
    // Moving its entries elsewhere does not give it room either.
    us.is_asked(20, 101, 0xAA, "", Way::from_host(2)).unwrap();
    assert_eq!(us.is_asked(20, 104, 0xAA, "", Way::from_host(1)), Err(Rejection::PendingSourceFull));
}

#[test]
fn what_a_relay_claims_of_a_node_takes_none_of_the_places_of_that_node() {
    let mut us = us();
    us.rules.limits.pending_per_source_max = 1;
    us.is_asked(10, 101, 0xAA, "", Way::relayed(node(9_000))).unwrap();
    let full = us.is_asked(10, 102, 0xAA, "", Way::relayed(node(9_000)));
    assert_eq!(full, Err(Rejection::PendingSourceFull));
    // Node 9000 itself, which the transport authenticated.
    let itself =
        Way { lookup: Lookup::NotAsked, path: Path::Direct { authenticated: None, source: Source::Node(node(9_000)) } };
    us.is_asked(10, 103, 0xAA, "", itself.clone()).unwrap();
    // And the other way round: what it has used up, a relay may still claim of another.
    assert_eq!(us.is_asked(10, 104, 0xAA, "", itself), Err(Rejection::PendingSourceFull));
    us.is_asked(10, 104, 0xAA, "", Way::relayed(node(9_001))).unwrap();
    let sources = us.tables.pending.values().map(|entry| entry.source).collect::<Vec<_>>();
    assert_eq!(sources, [Source::Relay(node(9_000)), Source::Node(node(9_000)), Source::Relay(node(9_001))]);
    // In a full queue they are apart, too: what relays claim of it does not make a node one that takes more room.
    us.rules.limits.pending_max = 3;
    us.rules.limits.pending_per_source_max = 16;
    assert_eq!(us.is_asked(20, 105, 0xAA, "", Way::from_host(1)), Err(Rejection::PendingFull));
}

#[test]
fn a_full_queue_lets_known_peers_repeat_and_nobody_new_in() {
    let mut us = us();
    us.rules.limits.pending_max = 2;
    for (id, host) in [(101, 1), (102, 2)] {
        us.is_asked(10, id, 0xAA, "", Way::from_host(host)).unwrap();
    }
    assert_eq!(us.is_asked(20, 103, 0xAA, "", Way::from_host(3)), Err(Rejection::PendingFull));
    assert!(us.is_asked(20, 101, 0xAA, "", Way::from_host(1)).is_ok());
}

#[test]
fn a_vouched_for_request_takes_the_place_of_the_oldest_unvouched() {
    let mut us = us();
    us.rules.limits.pending_max = 2;
    us.is_asked(10, 102, 0xAA, "", Way::from_host(1)).unwrap();
    us.is_asked(11, 101, 0xAA, "", Way::from_host(2)).unwrap();
    us.is_asked(20, 103, 0xAA, "", Way::registered(key(0xAA))).unwrap();
    assert_eq!(us.tables.pending.keys().copied().collect::<Vec<_>>(), [node(101), node(103)]);
    us.is_asked(30, 104, 0xAA, "", Way::registered(key(0xAA))).unwrap();
    // Now everyone in it is vouched for: nobody gives way.
    let full = us.is_asked(40, 105, 0xAA, "", Way::registered(key(0xAA))).unwrap();
    assert_eq!(full.outcome, Outcome::Dropped(Rejection::PendingFull));
    assert_eq!(us.tables.pending.keys().copied().collect::<Vec<_>>(), [node(103), node(104)]);
}

#[test]
fn within_a_full_source_the_vouched_for_displaces_its_own_source_only() {
    let mut us = us();
    us.rules.limits.pending_per_source_max = 1;
    us.is_asked(10, 101, 0xAA, "", Way::from_host(2)).unwrap();
    us.is_asked(20, 102, 0xAA, "", Way::from_host(1)).unwrap();
    us.is_asked(30, 103, 0xAA, "", Way::registered(key(0xAA))).unwrap();
    assert_eq!(us.tables.pending.keys().copied().collect::<Vec<_>>(), [node(101), node(103)]);
}

#[test]
fn a_newcomer_takes_the_place_of_the_oldest_of_a_source_that_has_two_more() {
    let mut us = us();
    us.rules.limits.pending_max = 4;
    for (ms, id, host) in [(10, 101, 1), (11, 102, 1), (12, 103, 1), (13, 104, 2)] {
        us.is_asked(ms, id, 0xAA, "", Way::from_host(host)).unwrap();
    }
    // It would have two then, and the other three: one more is not two more.
    assert_eq!(us.is_asked(20, 105, 0xAA, "", Way::from_host(2)), Err(Rejection::PendingFull));
    let ids = |us: &Actor| us.tables.pending.keys().map(|id| id.get()).collect::<Vec<_>>();
    us.is_asked(21, 106, 0xAA, "", Way::from_host(3)).unwrap();
    assert_eq!(ids(&us), [102, 103, 104, 106]);
    // Now nobody has two more than a newcomer would have.
    assert_eq!(us.is_asked(22, 107, 0xAA, "", Way::from_host(4)), Err(Rejection::PendingFull));
    // Who is vouched for does not give way.
    for id in [102, 103] {
        us.tables.pending.get_mut(&node(id)).unwrap().authentic = true;
    }
    us.rules.limits.pending_max = 5;
    us.is_asked(23, 108, 0xAA, "", Way::from_host(1)).unwrap();
    us.is_asked(24, 109, 0xAA, "", Way::from_host(5)).unwrap();
    assert_eq!(ids(&us), [102, 103, 104, 106, 109], "the one of three that nobody vouches for");
    assert_eq!(us.is_asked(25, 110, 0xAA, "", Way::from_host(7)), Err(Rejection::PendingFull));
}

#[test]
fn sixteen_addresses_shut_nobody_out() {
    let mut us = us();
    for id in 1000..1256_u32 {
        us.is_asked(10, id, 0xAA, "", Way::from_host(u8::try_from(id % 16).unwrap())).unwrap();
    }
    for id in 2000..2013_u32 {
        us.is_asked(20, id, 0xAA, "", Way::from_host(u8::try_from(id - 1900).unwrap())).unwrap();
    }
    assert_eq!(us.tables.pending.len(), 256);
}

#[test]
fn an_ipv6_site_has_at_most_sixty_four_however_many_networks_it_has() {
    let mut us = us();
    let way = |network: u32, site: u32| {
        let address = format!("2001:db8:{site:x}:{network:x}::1").parse().unwrap();
        let path = Path::Direct { authenticated: None, source: Source::from_address(address) };
        Way { path, lookup: Lookup::NotAsked }
    };
    for network in 0..64 {
        us.is_asked(10, 1000 + network, 0xAA, "", way(network, 1)).unwrap();
    }
    assert_eq!(us.is_asked(20, 2000, 0xAA, "", way(999, 1)), Err(Rejection::PendingSourceFull));
    assert!(us.is_asked(20, 2000, 0xAA, "", way(999, 2)).is_ok());
    let vouched = Way { lookup: Lookup::Found { key: key(0xAA), networks: vec![] }, ..way(999, 1) };
    us.is_asked(21, 2001, 0xAA, "", vouched).unwrap();
    assert!(us.tables.pending.contains_key(&node(2001)) && !us.tables.pending.contains_key(&node(1000)));
}

#[test]
fn a_newcomer_takes_the_place_of_the_source_that_has_most_whichever_comes_first() {
    for (most, fewer) in [(1, 2), (2, 1)] {
        let mut us = us();
        us.rules.limits.pending_max = 7;
        for id in 101..104 {
            us.is_asked(10, id, 0xAA, "", Way::from_host(fewer)).unwrap();
        }
        for id in 104..108 {
            us.is_asked(20, id, 0xAA, "", Way::from_host(most)).unwrap();
        }
        us.is_asked(30, 108, 0xAA, "", Way::from_host(3)).unwrap();
        let gone = (101..108).find(|id| !us.tables.pending.contains_key(&node(*id)));
        assert_eq!(gone, Some(104), "not 101, which is older, of a source that has fewer");
    }
}

/// From this host of IPv4, or this network of a site of IPv6.
fn from_site(site: u32, network: u32) -> Way {
    let address = format!("2001:db8:{site:x}:{network:x}::1").parse().unwrap();
    let path = Path::Direct { authenticated: None, source: Source::from_address(address) };
    Way { path, lookup: Lookup::NotAsked }
}

#[test]
fn four_sites_with_sixty_four_entries_each_shut_nobody_out() {
    for newcomer in [Way::from_host(1), from_site(9, 1)] {
        let mut us = us();
        for id in 0..256 {
            us.is_asked(10, 1000 + id, 0xAA, "", from_site(id / 64, id % 64)).unwrap();
        }
        assert_eq!(us.tables.pending.len(), 256);
        us.is_asked(20, 2000, 0xBB, "", newcomer.clone()).unwrap();
        assert!(us.tables.pending.contains_key(&node(2000)) && us.tables.pending.len() == 256);
        // The twin: they displace nobody by that, and one another no more than by what they have.
        let full = us.is_asked(30, 3000, 0xAA, "", from_site(3, 999));
        assert_eq!(full, Err(Rejection::PendingSourceFull));
        assert!(us.tables.pending.contains_key(&node(2000)));
    }
}

#[test]
fn within_a_site_its_networks_count_and_between_sites_the_sites() {
    let mut us = us();
    us.rules.limits.pending_max = 6;
    // One network of site 1 has four, two others of it one each.
    for (nth, network) in [1, 1, 1, 1, 2, 3].into_iter().enumerate() {
        us.is_asked(10, 1000 + u32::try_from(nth).unwrap(), 0xAA, "", from_site(1, network)).unwrap();
    }
    us.is_asked(20, 2000, 0xAA, "", from_site(1, 4)).unwrap();
    assert!(!us.tables.pending.contains_key(&node(1000)), "the oldest of the network that has four");
    assert_eq!(us.is_asked(30, 2001, 0xAA, "", from_site(1, 1)), Err(Rejection::PendingFull));
    us.is_asked(40, 2002, 0xAA, "", Way::from_host(1)).unwrap();
    assert!(!us.tables.pending.contains_key(&node(1001)), "the site has six");
}

#[test]
fn addresses_that_stand_for_one_ipv4_address_are_one_source() {
    let mut us = us();
    us.rules.limits.pending_per_source_max = 1;
    let way = |text: &str| {
        let path = Path::Direct { authenticated: None, source: Source::from_address(text.parse().unwrap()) };
        Way { path, lookup: Lookup::NotAsked }
    };
    us.is_asked(10, 101, 0xAA, "", way("192.0.2.9")).unwrap();
    for text in ["::ffff:192.0.2.9", "64:ff9b::192.0.2.9", "2002:c000:0209:7::1"] {
        assert_eq!(us.is_asked(20, 102, 0xAA, "", way(text)), Err(Rejection::PendingSourceFull), "{text}");
    }
    assert!(us.is_asked(20, 102, 0xAA, "", way("64:ff9b::192.0.2.10")).is_ok());
}

/// From the only network of this site, of 256 in a /40, of 256 in a /32.
fn from_block(block: u32, part: u32, site: u32) -> Way {
    let address = format!("2001:{block:x}:{:x}::1", part << 8 | site).parse().unwrap();
    let path = Path::Direct { authenticated: None, source: Source::from_address(address) };
    Way { path, lookup: Lookup::NotAsked }
}

#[test]
fn a_block_that_fills_the_queue_with_one_entry_of_each_site_shuts_nobody_out() {
    let all_of_a_40 = |nth| from_block(1, 0, nth);
    let all_over_a_32 = |nth| from_block(1, nth, 0);
    type Attacker = (&'static str, fn(u32) -> Way, Way);
    let blocks: [Attacker; 2] =
        [("a /40", all_of_a_40, from_block(1, 0, 9)), ("a /32", all_over_a_32, from_block(1, 9, 1))];
    for (what, attacker, of_it) in blocks {
        // From elsewhere, and from another part of the same /32: who has all of that keeps out the others in it.
        let (near, is_near_let_in) = (from_block(1, 7, 1), what == "a /40");
        for (newcomer, comes_in) in [(Way::from_host(1), true), (from_block(2, 0, 0), true), (near, is_near_let_in)] {
            let mut us = us();
            for nth in 0..256 {
                us.is_asked(10 + i64::from(nth), 1000 + nth, 0xAA, "", attacker(nth)).unwrap();
            }
            assert_eq!(us.tables.pending.len(), 256, "{what}");
            // Of its own kind no more comes in.
            assert_eq!(us.is_asked(300, 3000, 0xAA, "", of_it.clone()), Err(Rejection::PendingFull), "{what}");
            let came = us.is_asked(310, 2000, 0xBB, "", newcomer);
            assert_eq!(came.err(), (!comes_in).then_some(Rejection::PendingFull), "{what}");
            assert_eq!(us.tables.pending.contains_key(&node(2000)), comes_in, "{what}");
            assert_eq!(us.tables.pending.contains_key(&node(1000)), !comes_in, "{what}: the oldest of the block");
        }
    }
}

#[test]
fn a_block_gives_way_until_none_has_two_more_and_keeps_nobody_from_what_sites_give() {
    let mut us = us();
    us.rules.limits.pending_max = 8;
    for (block, sites) in [(1, 5), (2, 3)] {
        for site in 0..sites {
            us.is_asked(10 + i64::from(site), 1000 * block + site, 0xAA, "", from_block(block, site, 0)).unwrap();
        }
    }
    // It would make four of three, and five is one more.
    assert_eq!(us.is_asked(20, 3000, 0xAA, "", from_block(2, 9, 0)), Err(Rejection::PendingFull));
    let left = |us: &Actor| us.tables.pending.keys().map(|id| id.get()).filter(|id| *id < 3000).collect::<Vec<_>>();
    for (nth, gone) in (0..).zip([1000, 1001, 1002, 2000]) {
        us.is_asked(30, 4000 + nth, 0xAA, "", Way::from_host(u8::try_from(nth).unwrap())).unwrap();
        assert!(!left(&us).contains(&gone), "{nth}: {:?}", left(&us));
    }
    assert_eq!(left(&us), [1003, 1004, 2001, 2002]);
    assert_eq!(us.is_asked(40, 5000, 0xAA, "", Way::from_host(9)), Err(Rejection::PendingFull));
    // From the fuller block, a new site displaces a source that has three, as ever.
    us.tables.pending.retain(|id, _| id.get() < 3000);
    for nth in 0..3 {
        us.is_asked(50, 6000 + nth, 0xAA, "", Way::from_host(9)).unwrap();
    }
    us.rules.limits.pending_max = 7;
    us.is_asked(60, 7000, 0xAA, "", from_block(1, 9, 0)).unwrap();
    assert!(!us.tables.pending.contains_key(&node(6000)));
    // What is vouched for gives way to nobody.
    us.tables.pending.retain(|id, _| id.get() < 3000);
    us.rules.limits.pending_max = 4;
    us.is_asked(70, 8000, 0xAA, "", from_block(1, 8, 0)).unwrap_err();
    for (nth, site) in (0..).zip(20..24) {
        us.tables.pending.pop_first();
        us.is_asked(80, 9000 + nth, 0xAA, "", from_block(3, site, 0)).unwrap();
    }
    us.tables.pending.values_mut().for_each(|entry| entry.authentic = true);
    assert_eq!(us.is_asked(90, 9999, 0xAA, "", Way::from_host(1)), Err(Rejection::PendingFull));
    us.tables.pending.values_mut().for_each(|entry| entry.authentic = false);
    us.is_asked(90, 9999, 0xAA, "", Way::from_host(1)).unwrap();
}
