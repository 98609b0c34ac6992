//! The decision about room against the plain function that counts everything for every newcomer.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::machine::plan::Plan;
use crate::testing::actor::{Actor, Way, at, node};

/// Who takes more room than a newcomer.
enum Larger {
    Site(Site),
    Source(Source),
    Block(Block),
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Site {
    Network(u128),
    Lone(Source),
}

fn site(source: Source) -> Site {
    match source {
        Source::Address(IpAddr::V6(v6)) => Site::Network(u128::from(v6) >> 80),
        lone => Site::Lone(lone),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Block {
    bits: u8,
    network: u128,
}

fn blocks(source: Source) -> impl Iterator<Item = Block> {
    let address = match source {
        Source::Address(IpAddr::V6(v6)) => Some(u128::from(v6)),
        _ => None,
    };
    [40, 32].into_iter().filter_map(move |bits| Some(Block { bits, network: address? >> (128 - bits) }))
}

fn walk_of_all(plan: &Plan<'_>, source: Source, authentic: bool) -> Result<Option<NodeId>, Rejection> {
    let (view, limits, own) = (plan.view, &plan.rules.limits, plan.peer);
    let entries = || view.pending_iter().filter(move |(peer, _)| *peer != own);
    let oldest_unvouched = |of: &dyn Fn(Source) -> bool| {
        let waiting = entries().filter(|(_, entry)| !entry.is_backed() && of(entry.source));
        waiting.min_by_key(|(peer, entry)| (entry.received_tick, *peer)).map(|(peer, _)| peer)
    };
    let (mut of_source, mut of_site) = (BTreeMap::<Source, usize>::new(), BTreeMap::<Site, usize>::new());
    let mut of_block = BTreeMap::<Block, usize>::new();
    for (_, entry) in entries() {
        *of_source.entry(entry.source).or_default() += 1;
        *of_site.entry(site(entry.source)).or_default() += 1;
        for block in blocks(entry.source) {
            *of_block.entry(block).or_default() += 1;
        }
    }
    let own_site = site(source);
    let own_count = of_source.get(&source).copied().unwrap_or_default();
    let own_site_count = of_site.get(&own_site).copied().unwrap_or_default();
    let in_site = |other: Source| self::site(other) == own_site;

    let source_full = Rejection::PendingSourceFull;
    if own_count >= limits.pending_per_source_max {
        let oldest = if authentic { oldest_unvouched(&|other| other == source) } else { None };
        oldest.ok_or(source_full).map(Some)
    } else if matches!(own_site, Site::Network(_)) && own_site_count >= PENDING_PER_SITE_MAX {
        let oldest = if authentic { oldest_unvouched(&in_site) } else { None };
        oldest.ok_or(source_full).map(Some)
    } else if of_source.values().sum::<usize>() < limits.pending_max {
        Ok(None)
    } else if authentic {
        oldest_unvouched(&|_| true).ok_or(Rejection::PendingFull).map(Some)
    } else {
        // With it this source, site or block would have one more, and the other has to have two more than that. Within a site
        // its sources count, between sites the sites, and between blocks the blocks as well.
        let sites = of_site.iter().filter(|(_, count)| **count >= own_site_count + 3);
        let mut larger: Vec<_> = sites.map(|(site, count)| (*count, Larger::Site(*site))).collect();
        let sources = of_source.iter().filter(|(other, count)| in_site(**other) && **count >= own_count + 3);
        larger.extend(sources.map(|(source, count)| (*count, Larger::Source(*source))));
        let own_blocks: Vec<Block> = blocks(source).collect();
        let is_larger = |other: Block, count: usize| {
            let own = own_blocks.iter().find(|own| own.bits == other.bits);
            let held = own.map_or(own_count, |own| of_block.get(own).copied().unwrap_or_default());
            own != Some(&other) && count >= held + 3
        };
        let others = of_block.iter().filter(|(other, count)| is_larger(**other, **count));
        larger.extend(others.map(|(block, count)| (*count, Larger::Block(*block))));
        larger.sort_by_key(|(count, _)| core::cmp::Reverse(*count));
        let mut oldest = larger.into_iter().filter_map(|(_, larger)| match larger {
            Larger::Site(larger) => oldest_unvouched(&|other| self::site(other) == larger),
            Larger::Source(larger) => oldest_unvouched(&|other| other == larger),
            Larger::Block(larger) => oldest_unvouched(&|other| blocks(other).any(|block| block == larger)),
        });
        oldest.next().ok_or(Rejection::PendingFull).map(Some)
    }
}

/// Few hosts, sites and blocks, so that several of them are full, equal or larger than others.
fn any_source() -> impl Strategy<Value = Source> {
    let v4 = (0..4_u8).prop_map(|host| format!("192.0.2.{host}"));
    let v6 = (0..2_u8, 0..3_u8, 0..3_u8, 0..3_u8)
        .prop_map(|(block, part, site, network)| format!("2001:{block:x}:{part:x}{site:02x}:{network:x}::1"));
    let address = prop_oneof![v4, v6].prop_map(|text| Source::from_address(text.parse().unwrap()));
    let claimed = (9_000..9_003_u32).prop_map(|id| Source::Relay(node(id)));
    let itself = (9_000..9_003_u32).prop_map(|id| Source::Node(node(id)));
    prop_oneof![6 => address, 1 => claimed, 1 => itself]
}

proptest! {
    #[test]
    fn who_gives_way_is_who_the_plain_walk_finds(
        waiting in prop::collection::vec((any_source(), 0..5_i64, prop::bool::weighted(0.4)), 0..90),
        source in any_source(),
        authentic in any::<bool>(),
        own in 1_000..1_095_u32,
        per_source in 1..40_usize,
        spare in -3..3_i64,
    ) {
        let mut us = Actor::new(9, 0x11);
        us.is_asked(10, 999, 0xAA, "", Way::from_host(1)).unwrap();
        let entry = us.tables.pending.remove(&node(999)).unwrap();
        for (id, (source, tick, authentic)) in (1_000..).zip(&waiting) {
            let mut entry = entry.clone();
            (entry.source, entry.authentic) = (*source, *authentic);
            entry.received_tick = crate::time::Tick::new(*tick);
            us.tables.pending.insert(node(id), entry);
        }
        us.rules.limits.pending_per_source_max = per_source;
        us.rules.limits.pending_max = usize::try_from(i64::try_from(waiting.len()).unwrap() + spare).unwrap_or(0);
        let plan = Plan::new(&us.rules, &us.tables, at(100), node(own));
        prop_assert_eq!(find_room(&plan, source, authentic), walk_of_all(&plan, source, authentic));
    }
}
