//! Whose turn it is: packets from the rings of all ports through the rules of the [`switch`], a few each.

use std::time::Instant;

use crate::link::Link;
use crate::ports::{Entry, Id, Side};
use crate::reason::Reason;
use crate::switch::{self, Passed};

/// Packets taken from a client before the next one has its turn.
const CLIENT_TURN: usize = 16;
/// Packets taken from a trunk, which has all its clients to serve.
const TRUNK_TURN: usize = 64;
/// Bytes after which a turn ends as well: cards that sleep are woken between turns, and what they have to
/// make room for must not be all that a ring holds.
const TURN_BYTES: usize = 128 * 1024;

/// What became of a client's turn.
enum Turn {
    /// It may have more.
    More,
    /// It has nothing now, or may send nothing, or is gone.
    Done,
    /// Its trunk is full, after so many packets.
    Blocked(usize),
}

impl Link {
    /// One turn for everyone. True if somebody may have more.
    pub(crate) fn round(&mut self, now: Instant) -> bool {
        let mut more = false;
        for network in 0..self.ports.network_count() {
            more |= self.trunk_turn(network, now);
            more |= self.clients_turn(network, now);
        }
        more
    }

    fn trunk_of(&self, network: usize) -> Option<(Id, &Entry)> {
        let id = self.ports.network(network)?.trunk?;
        Some((id, self.ports.get(id)?))
    }

    fn trunk_turn(&mut self, network: usize, now: Instant) -> bool {
        let Some((id, _)) = self.trunk_of(network) else {
            return false;
        };
        let mut bytes = 0;
        for _ in 0..TRUNK_TURN {
            if bytes >= TURN_BYTES {
                break;
            }
            let Some(entry) = self.ports.get_mut(id).filter(|entry| entry.readable) else {
                return false;
            };
            let Side::Trunk(trunk) = entry.side else {
                return false;
            };
            let length = match entry.port.look(&mut self.buffer) {
                Ok(Some(length)) => length,
                Ok(None) => {
                    self.has_none(id);
                    return false;
                }
                Err(broken) => {
                    self.lose(id, broken, now);
                    return false;
                }
            };
            bytes += length;
            self.touch(id);
            match self.decide_from_trunk(network, trunk, length) {
                Ok((client, passed)) => self.deliver(id, client, passed, now),
                Err(reason) => {
                    if let Some(entry) = self.ports.get_mut(id) {
                        entry.port.refuse(reason);
                    }
                }
            }
            self.done(id, length);
        }
        true
    }

    fn decide_from_trunk(
        &mut self,
        network: usize,
        trunk: switch::Trunk,
        length: usize,
    ) -> Result<(Id, Passed), Reason> {
        let untrusted_vlan = switch::vlan(&self.buffer, length)?;
        let id = self
            .ports
            .network(network)
            .and_then(|network| network.clients.get(&untrusted_vlan).copied())
            .ok_or(Reason::UnknownVlan)?;
        let Some(Side::Client(client)) = self.ports.get(id).map(|entry| entry.side) else {
            return Err(Reason::UnknownVlan);
        };
        let passed = switch::to_client(&client, &trunk, &mut self.buffer, length)?;
        Ok((id, passed))
    }

    /// Sends a port's packet, whose beginning lies in the buffer.
    fn deliver(&mut self, from: Id, to: Id, passed: Passed, now: Instant) {
        let Some((source, target)) = self.ports.pair_mut(from, to) else {
            return;
        };
        let packet = source.port.passing(&mut self.buffer, passed.place);
        let flow = target.port.offer(packet, passed.wire_bytes, now);
        self.follow(to, flow, now);
        self.touch(to);
    }

    /// A port's packet was dealt with.
    fn done(&mut self, id: Id, length: usize) {
        if let Some(entry) = self.ports.get_mut(id) {
            entry.port.done(length);
        }
    }

    fn clients_turn(&mut self, network: usize, now: Instant) -> bool {
        let count = |link: &Self| {
            let network = link.ports.network(network);
            network.map_or(0, |network| network.ready.len())
        };
        for _ in 0..count(self) {
            let next = self.ports.network_mut(network);
            let Some(id) = next.and_then(|network| network.ready.pop_front()) else {
                return false;
            };
            let turn = self.client_turn(network, id, now);
            let again = !matches!(turn, Turn::Done);
            if let Some(entry) = self.ports.get_mut(id) {
                entry.queued = again;
                if let Some(network) = self.ports.network_mut(network) {
                    match turn {
                        // It has had nothing yet: it is the next one as soon as there is room.
                        Turn::Blocked(0) => network.ready.push_front(id),
                        Turn::More | Turn::Blocked(_) => network.ready.push_back(id),
                        Turn::Done => {}
                    }
                }
            }
            if matches!(turn, Turn::Blocked(_)) {
                return false;
            }
        }
        count(self) > 0
    }

    fn client_turn(&mut self, network: usize, id: Id, now: Instant) -> Turn {
        let mut bytes = 0;
        for taken in 0..CLIENT_TURN {
            if bytes >= TURN_BYTES {
                break;
            }
            let trunk = match self.trunk_of(network) {
                Some((_, entry)) if entry.port.is_blocked() => return Turn::Blocked(taken),
                Some((trunk, entry)) => match entry.side {
                    Side::Trunk(rules) => Some((trunk, rules)),
                    Side::Client(_) => None,
                },
                None => None,
            };
            let Some(entry) = self.ports.get_mut(id).filter(|entry| entry.readable) else {
                return Turn::Done;
            };
            let Side::Client(client) = entry.side else {
                return Turn::Done;
            };
            if let Some(later) = entry.port.may_receive(now) {
                self.sleep(id, later);
                return Turn::Done;
            }
            let length = match entry.port.look(&mut self.buffer) {
                Ok(Some(length)) => length,
                Ok(None) => {
                    self.has_none(id);
                    return Turn::Done;
                }
                Err(broken) => {
                    self.lose(id, broken, now);
                    return Turn::Done;
                }
            };
            bytes += length;
            let passed = match &trunk {
                Some((_, rules)) => switch::to_trunk(&client, rules, &mut self.buffer, length),
                None => Err(Reason::NoTrunk),
            };
            match (passed, trunk) {
                (Ok(passed), Some((trunk, _))) => {
                    entry.port.took(passed.wire_bytes);
                    self.deliver(id, trunk, passed, now);
                }
                (Ok(_), None) => {}
                (Err(reason), _) => {
                    entry.port.took(length);
                    entry.port.refuse(reason);
                }
            }
            self.done(id, length);
            self.touch(id);
        }
        Turn::More
    }
}
