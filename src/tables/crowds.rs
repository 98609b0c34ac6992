//! Who takes how much room among those who wait, by what one party has: a source, an IPv6 network, a block of those.
//!
//! Derived from the pending table, and brought up to date by its difference: a question costs what has changed since the last
//! one, and the logarithm of how many wait.
#![forbid(unsafe_code)]

use core::cmp::Reverse;
use core::mem;
use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::net::IpAddr;

use super::{Pending, Source};
use crate::peer::NodeId;
use crate::time::Tick;

/// Entries that one party may have as easily as one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Crowd {
    /// All that wait.
    All,
    /// The first 48 bits of an IPv6 address: what one customer of a provider has at least.
    Site(u128),
    /// One source.
    Source(Source),
    /// That many first bits of an IPv6 address, less than a site has: a customer of a provider, or a small provider.
    Block(u8, u128),
}

/// Crowds that are compared by how many they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// All that wait have nothing to be compared with.
    All,
    /// IPv6 sites, and each source that is no IPv6 address.
    Sites,
    /// The sources of one IPv6 site.
    SourcesOf(u128),
    /// IPv6 blocks of that many bits.
    Blocks(u8),
}

/// The sizes of IPv6 blocks, the largest first.
pub(crate) const BLOCK_BITS: [u8; 2] = [32, 40];

impl Crowd {
    /// The IPv6 site of this source; any other source is by itself.
    #[must_use]
    pub(crate) fn site(source: Source) -> Self {
        v6(source).map_or(Self::Source(source), |bits| Self::Site(bits >> 80))
    }

    /// The IPv6 block of that many bits that this source is in.
    #[must_use]
    pub(crate) fn block(source: Source, bits: u8) -> Option<Self> {
        Some(Self::Block(bits, v6(source)?.checked_shr(128 - u32::from(bits))?))
    }
}

impl Class {
    /// That of the sources of a site; none of a source that is by itself.
    #[must_use]
    pub(crate) const fn sources_of(site: Crowd) -> Option<Self> {
        match site {
            Crowd::Site(bits) => Some(Self::SourcesOf(bits)),
            _ => None,
        }
    }
}

/// Every crowd that an entry from this source is of, with its class.
fn crowds_of(source: Source) -> impl Iterator<Item = (Class, Crowd)> {
    let site = Crowd::site(source);
    let within = Class::sources_of(site).map(|class| (class, Crowd::Source(source)));
    let blocks =
        BLOCK_BITS.into_iter().filter_map(move |bits| Some((Class::Blocks(bits), Crowd::block(source, bits)?)));
    [(Class::All, Crowd::All), (Class::Sites, site)].into_iter().chain(within).chain(blocks)
}

fn v6(source: Source) -> Option<u128> {
    match source {
        Source::Address(IpAddr::V6(v6)) => Some(u128::from(v6)),
        _ => None,
    }
}

/// The crowds of one version of the pending table.
#[derive(Clone, Debug, Default)]
#[cfg_attr(not(feature = "handshake"), allow(unreachable_pub, reason = "the rules' view has it"))]
pub struct Crowds {
    crowds: BTreeMap<Crowd, Members>,
    /// By class, those of which somebody would give way, by how many they have.
    sizes: BTreeSet<(Class, Reverse<usize>, Crowd)>,
}

#[derive(Clone, Debug, Default)]
struct Members {
    len: usize,
    /// Those whom nobody vouches for, by when they last spoke.
    unvouched: BTreeSet<(Tick, NodeId)>,
}

impl Crowds {
    /// How many are in it.
    #[must_use]
    pub(crate) fn count(&self, crowd: Crowd) -> usize {
        self.crowds.get(&crowd).map_or(0, |members| members.len)
    }

    /// Who has been silent longest of those in it whom nobody vouches for.
    #[must_use]
    pub(crate) fn oldest_unvouched(&self, crowd: Crowd) -> Option<NodeId> {
        self.crowds.get(&crowd)?.unvouched.first().map(|(_, peer)| *peer)
    }

    /// The crowds of a class in which there is somebody whom nobody vouches for, the largest first.
    pub(crate) fn largest(&self, class: Class) -> impl Iterator<Item = (usize, Crowd)> {
        let from = (class, Reverse(usize::MAX), Crowd::All);
        let of_class = self.sizes.range(from..).take_while(move |(other, ..)| *other == class);
        of_class.map(|(_, Reverse(len), crowd)| (*len, *crowd))
    }

    /// One more waits.
    pub(crate) fn add(&mut self, peer: NodeId, entry: &Pending) {
        self.change(entry.source, |members| {
            members.len += 1;
            if !entry.is_backed() {
                members.unvouched.insert((entry.received_tick, peer));
            }
        });
    }

    /// One that was added with this entry waits no longer.
    pub(crate) fn remove(&mut self, peer: NodeId, entry: &Pending) {
        self.change(entry.source, |members| {
            members.len = members.len.saturating_sub(1);
            members.unvouched.remove(&(entry.received_tick, peer));
        });
    }

    fn change(&mut self, source: Source, how: impl Fn(&mut Members)) {
        for (class, crowd) in crowds_of(source) {
            let mut members = match self.crowds.entry(crowd) {
                Entry::Vacant(_) => Members::default(),
                Entry::Occupied(mut there) => mem::take(there.get_mut()),
            };
            if !members.unvouched.is_empty() {
                self.sizes.remove(&(class, Reverse(members.len), crowd));
            }
            how(&mut members);
            if !members.unvouched.is_empty() {
                self.sizes.insert((class, Reverse(members.len), crowd));
            }
            if members.len == 0 {
                self.crowds.remove(&crowd);
            } else {
                self.crowds.insert(crowd, members);
            }
        }
    }
}
