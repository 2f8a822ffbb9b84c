//! Who is connected to whom, and whose mesh peer. Drawn once for a world; the mesh does not heal around a node that is away.

use std::collections::BTreeSet;

use crate::{geography, market::Dice};

/// Mesh peers that each node looks for itself: half of gossipsub's `mesh_n` of 6, as a link counts at both ends.
const SOUGHT: usize = 3;
/// Of gossipsub's configuration in `node/network`.
const MESH_LOW: usize = 4;
const MESH_HIGH: usize = 12;
/// Other connections that each node looks for itself: 14 in all.
const OTHERS: usize = 7;

/// Links by node, with their latency in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Links {
    start: Vec<u32>,
    to: Vec<(u32, u16)>,
}

impl Links {
    fn new(peers: &[BTreeSet<u32>], regions: &[u8]) -> Self {
        let mut links = Self { start: vec![0], to: Vec::new() };
        for (n, peers) in peers.iter().enumerate() {
            let me = (n as u32, regions[n]);
            links.to.extend(peers.iter().map(|p| (*p, geography::one_way(me, (*p, regions[*p as usize])))));
            links.start.push(links.to.len() as u32);
        }
        links
    }

    /// Those of a node.
    pub(crate) fn of(&self, node: u32) -> &[(u32, u16)] {
        let n = node as usize;
        &self.to[self.start[n] as usize..self.start[n + 1] as usize]
    }
}

/// The connections of a world.
#[derive(Debug, Default)]
pub(crate) struct Mesh {
    /// Offers are forwarded along these.
    pub(crate) mesh: Links,
    /// These are told of what a node has.
    pub(crate) others: Links,
    /// When in each half second a node's heartbeat is, in milliseconds.
    pub(crate) beat: Vec<u16>,
}

impl Mesh {
    /// Connections between nodes in these regions.
    pub(crate) fn new(regions: &[u8], dice: &mut Dice) -> Self {
        let n = regions.len();
        let mut mesh = vec![BTreeSet::new(); n];
        for node in 0..n {
            seek(&mut mesh, node, SOUGHT, MESH_HIGH, &[], dice);
        }
        for node in 0..n {
            let lacks = MESH_LOW.saturating_sub(mesh[node].len());
            seek(&mut mesh, node, lacks, MESH_HIGH, &[], dice);
        }
        let mut others = vec![BTreeSet::new(); n];
        for node in 0..n {
            seek(&mut others, node, OTHERS, 6 * OTHERS, &mesh, dice);
        }
        Self {
            mesh: Links::new(&mesh, regions),
            others: Links::new(&others, regions),
            beat: (0..n).map(|_| dice.below(crate::flood::HEARTBEAT.into()) as u16).collect(),
        }
    }

    /// All peers of a node.
    pub(crate) fn peers(&self, node: u32) -> impl Iterator<Item = (u32, u16)> {
        self.mesh.of(node).iter().chain(self.others.of(node)).copied()
    }

    /// One way to a peer; of a stranger, a long way.
    pub(crate) fn latency(&self, from: u32, to: u32) -> u64 {
        self.peers(from).find(|(peer, _)| *peer == to).map_or(100, |(_, ms)| ms.into())
    }
}

/// Links a node to so many more, none of them in `not` and none with `most` links already, as far as there are such.
fn seek(peers: &mut [BTreeSet<u32>], node: usize, more: usize, most: usize, not: &[BTreeSet<u32>], dice: &mut Dice) {
    let (mut found, mut tries) = (0, 0);
    while found < more && tries < 200 {
        tries += 1;
        let other = dice.below(peers.len() as u64) as usize;
        let known = |sets: &[BTreeSet<u32>]| sets.get(node).is_some_and(|s| s.contains(&(other as u32)));
        if other == node || peers[other].len() >= most || known(peers) || known(not) {
            continue;
        }
        peers[node].insert(other as u32);
        peers[other].insert(node as u32);
        found += 1;
    }
}
