//! Which of a device's BARs the guest gets, and which pages of them it reaches without us.

use std::ops::Range;

/// A page of memory slots.
pub const PAGE: u64 = 4096;
/// The largest BAR that is given to a guest: 1 TiB. Those of network cards are far smaller.
const MAX_BAR: u64 = 1 << 40;
/// The least that a memory BAR can be (PCI 3.0, 6.2.5.1).
const MIN_BAR: u64 = 16;

/// A memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarPlan {
    /// Its number, 0 to 5.
    pub index: usize,
    /// Its size in bytes, a power of two.
    pub size: u64,
    /// Whether it has two registers.
    pub is_64bit: bool,
}

/// The memory BARs of a device, from its six registers and the sizes that the kernel found. I/O ports
/// are not given to guests: drivers of today's cards do not use them.
pub fn plan(registers: [u32; 6], sizes: [u64; 6]) -> Result<Vec<BarPlan>, &'static str> {
    let mut bars = Vec::new();
    let mut index = 0;
    while let (Some(register), Some(size)) = (registers.get(index), sizes.get(index)) {
        let is_port = register & 1 == 1;
        let is_64bit = !is_port && register >> 1 & 3 == 2;
        if *size != 0 && !is_port {
            if !size.is_power_of_two() || !(MIN_BAR..=MAX_BAR).contains(size) {
                return Err("one of its BARs has an impossible size");
            }
            if is_64bit && index == 5 {
                return Err("its last BAR lacks the second half");
            }
            bars.push(BarPlan {
                index,
                size: *size,
                is_64bit,
            });
        }
        index += if is_64bit { 2 } else { 1 };
    }
    Ok(bars)
}

/// The parts of a BAR that are mapped into the guest: what the kernel lets us map, without the pages
/// that hold any of `trapped`. Offset and length, in whole pages.
pub fn mapped_parts(size: u64, mappable: &[(u64, u64)], trapped: &[Range<u64>]) -> Vec<(u64, u64)> {
    let mut holes: Vec<Range<u64>> = trapped
        .iter()
        .filter(|range| !range.is_empty())
        .map(|range| range.start / PAGE * PAGE..range.end.div_ceil(PAGE).saturating_mul(PAGE))
        .collect();
    holes.sort_by_key(|hole| hole.start);
    let mut areas: Vec<(u64, u64)> = mappable.to_vec();
    areas.sort_unstable();
    let mut parts = Vec::new();
    let mut next = 0;
    for (start, length) in areas {
        // Whole pages of the BAR that no earlier area covered.
        let end = start.saturating_add(length).min(size) / PAGE * PAGE;
        let start = start.max(next).div_ceil(PAGE).saturating_mul(PAGE);
        if start >= end {
            continue;
        }
        next = end;
        let mut from = start;
        for hole in &holes {
            if hole.end <= from || hole.start >= end {
                continue;
            }
            if hole.start > from {
                parts.push((from, hole.start - from));
            }
            from = hole.end;
        }
        if from < end {
            parts.push((from, end - from));
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_and_upper_halves_are_no_bars() {
        let registers = [0xe000_0001, 0xfebd_1000, 0, 0, 0xfe00_000c, 0];
        let sizes = [0x20, 0x1000, 0, 0, 0x4000, 0];
        let bars = plan(registers, sizes).unwrap();
        let of = |index, size, is_64bit| BarPlan {
            index,
            size,
            is_64bit,
        };
        assert_eq!(bars, [of(1, 0x1000, false), of(4, 0x4000, true)]);
        assert!(plan([0, 0, 0, 0, 0, 4], [0, 0, 0, 0, 0, 0x1000]).is_err());
        for size in [1, 8, 0x1001, 1 << 41, u64::MAX] {
            assert!(plan([0; 6], [size, 0, 0, 0, 0, 0]).is_err());
        }
    }

    #[test]
    fn the_tables_page_is_cut_out() {
        assert_eq!(
            mapped_parts(0x8000, &[(0, 0x8000)], &[0x2010..0x2050, 0x3000..0x3008]),
            [(0, 0x2000), (0x4000, 0x4000)]
        );
        let table = std::iter::once(0..0x40).collect::<Vec<_>>();
        assert_eq!(mapped_parts(0x1000, &[(0, 0x1000)], &table), []);
        // A BAR smaller than a page shares its page with others.
        assert_eq!(mapped_parts(0x100, &[(0, 0x100)], &[]), []);
        assert_eq!(
            mapped_parts(0x4000, &[(0x2000, 0x1000), (0, 0x1000)], &[]),
            [(0, 0x1000), (0x2000, 0x1000)]
        );
    }

    proptest! {
        #[test]
        fn parts_are_pages_of_the_bar_without_what_is_trapped(
            size in prop::sample::select(vec![16u64, 0x1000, 0x4000, 0x1_0000]),
            mappable in prop::collection::vec((0u64..0x1_2000, any::<u64>()), 0..4),
            trapped in prop::collection::vec((0u64..0x1_2000, 0u64..0x3000), 0..4),
        ) {
            let trapped: Vec<Range<u64>> =
                trapped.into_iter().map(|(at, length)| at..at + length).collect();
            let mut before = 0;
            for (start, length) in mapped_parts(size, &mappable, &trapped) {
                prop_assert!(start % PAGE == 0 && length % PAGE == 0 && length > 0);
                prop_assert!(start >= before && start + length <= size);
                before = start + length;
                for hole in trapped.iter().filter(|hole| !hole.is_empty()) {
                    prop_assert!(hole.end <= start || hole.start >= start + length);
                }
            }
        }
    }
}
