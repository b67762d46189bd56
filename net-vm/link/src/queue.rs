//! Packets that wait for one port.

use std::collections::VecDeque;

/// Packets in the order in which they came, within a number and an amount. Its memory is reserved
/// once; the kernel gives it where it is used.
#[derive(Debug)]
pub struct Queue {
    bytes: VecDeque<u8>,
    /// Length and cost of each.
    packets: VecDeque<(u32, u32)>,
    max_bytes: usize,
    max_packets: usize,
}

/// A waiting packet, in two parts: the queue goes round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting<'a> {
    /// Its beginning.
    pub first: &'a [u8],
    /// Its rest.
    pub second: &'a [u8],
    /// What it costs on a wire.
    pub wire_bytes: usize,
}

/// There is no room for a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl Queue {
    /// A queue for so many packets of so many bytes together.
    pub fn new(max_packets: usize, max_bytes: usize) -> Self {
        Self {
            bytes: VecDeque::with_capacity(max_bytes),
            packets: VecDeque::with_capacity(max_packets),
            max_bytes,
            max_packets,
        }
    }

    /// Appends a packet.
    pub fn push(&mut self, packet: &[u8], wire_bytes: usize) -> Result<(), Full> {
        let room = self.max_bytes.saturating_sub(self.bytes.len());
        if self.packets.len() >= self.max_packets || packet.len() > room {
            return Err(Full);
        }
        let length = u32::try_from(packet.len()).map_err(|_| Full)?;
        self.bytes.extend(packet);
        let cost = u32::try_from(wire_bytes).unwrap_or(u32::MAX);
        self.packets.push_back((length, cost));
        Ok(())
    }

    /// The packet that came first.
    pub fn front(&self) -> Option<Waiting<'_>> {
        let &(length, cost) = self.packets.front()?;
        let (first, second) = self.bytes.as_slices();
        let length = length as usize;
        let in_first = length.min(first.len());
        Some(Waiting {
            first: first.get(..in_first)?,
            second: second.get(..length - in_first)?,
            wire_bytes: cost as usize,
        })
    }

    /// Removes it.
    pub fn pop(&mut self) {
        if let Some((length, _)) = self.packets.pop_front() {
            let length = (length as usize).min(self.bytes.len());
            self.bytes.drain(..length);
        }
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.packets.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// Bytes of all that wait.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn front(queue: &Queue) -> Option<Vec<u8>> {
        queue
            .front()
            .map(|waiting| [waiting.first, waiting.second].concat())
    }

    #[test]
    fn numbers_and_bytes_are_limited() {
        let mut queue = Queue::new(2, 100);
        assert_eq!(queue.push(&[1; 101], 0), Err(Full));
        assert_eq!(queue.push(&[1; 60], 0), Ok(()));
        assert_eq!(queue.push(&[2; 41], 0), Err(Full));
        assert_eq!(queue.push(&[2; 10], 0), Ok(()));
        assert_eq!(queue.push(&[3; 1], 0), Err(Full));
        assert_eq!((queue.len(), queue.bytes()), (2, 70));
        queue.pop();
        assert_eq!(front(&queue), Some(vec![2; 10]));
        queue.pop();
        queue.pop();
        assert!(queue.is_empty() && queue.front().is_none());
    }

    proptest! {
        #[test]
        fn it_is_a_list_with_limits(steps in proptest::collection::vec(0_usize..90, 1..300)) {
            let mut queue = Queue::new(8, 200);
            let mut list: VecDeque<Vec<u8>> = VecDeque::new();
            let before = queue.bytes.capacity();
            for (number, step) in steps.into_iter().enumerate() {
                if step < 20 {
                    queue.pop();
                    list.pop_front();
                } else {
                    let packet: Vec<u8> = (0..step).map(|at| (at + number) as u8).collect();
                    let bytes: usize = list.iter().map(Vec::len).sum();
                    let fits = list.len() < 8 && bytes + step <= 200;
                    prop_assert_eq!(queue.push(&packet, step * 2).is_ok(), fits);
                    if fits {
                        list.push_back(packet);
                    }
                }
                prop_assert_eq!(front(&queue), list.front().cloned());
                prop_assert_eq!(queue.len(), list.len());
                prop_assert_eq!(
                    queue.front().map(|waiting| waiting.wire_bytes),
                    list.front().map(|packet| packet.len() * 2)
                );
            }
            // No packet made it grow.
            prop_assert_eq!(queue.bytes.capacity(), before);
        }
    }
}
