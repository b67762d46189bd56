//! Who answers an access to a BAR that the guest makes through us: the device, or our copy of its
//! MSI-X table.

use std::ops::Range;

use super::capabilities::MsixTable;
use super::layout::BarPlan;

/// What lies at an offset of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The MSI-X table, at this offset.
    Table(u64),
    /// The pending bits, at this offset.
    Pending(u64),
    /// The device's own registers.
    Device,
    /// Nothing, or a bit of both.
    Nowhere,
}

/// Who answers. The device's own table is nobody's but the host's: an access that touches it at all
/// does not reach the device.
pub fn place(
    table: Option<&MsixTable>,
    bar: usize,
    size: u64,
    untrusted_offset: u64,
    length: usize,
) -> Place {
    let end = untrusted_offset.checked_add(length as u64);
    let Some(end) = end.filter(|end| *end <= size && length > 0) else {
        return Place::Nowhere;
    };
    let touched = |(index, range): &(usize, Range<u64>)| {
        *index == bar && untrusted_offset < range.end && end > range.start
    };
    let Some(table) = table else {
        return Place::Device;
    };
    let [entries, pending] = ranges(table);
    let (range, place): (_, fn(u64) -> Place) = if touched(&entries) {
        (entries.1, Place::Table)
    } else if touched(&pending) {
        (pending.1, Place::Pending)
    } else {
        return Place::Device;
    };
    match untrusted_offset.checked_sub(range.start) {
        Some(offset) if end <= range.end => place(offset),
        _ => Place::Nowhere,
    }
}

/// What of a BAR the guest must not reach without us.
pub fn trapped(table: Option<&MsixTable>, bar: usize) -> Vec<Range<u64>> {
    let all = table.map(ranges).into_iter().flatten();
    all.filter(|(index, _)| *index == bar)
        .map(|(_, range)| range)
        .collect()
}

/// Whether table and pending bits lie in these BARs.
pub fn holds<'a>(bars: impl Iterator<Item = &'a BarPlan>, table: &MsixTable) -> bool {
    let bars: Vec<&BarPlan> = bars.collect();
    ranges(table).iter().all(|(index, range)| {
        bars.iter()
            .any(|bar| bar.index == *index && range.end <= bar.size)
    })
}

/// BAR and range of table and pending bits. Offsets have 32 bits, so that no sum overflows.
fn ranges(table: &MsixTable) -> [(usize, Range<u64>); 2] {
    let range = |offset: u64, length: u64| offset..offset.saturating_add(length);
    [
        (
            table.table_bar,
            range(table.table_offset, table.table_length()),
        ),
        (
            table.pending_bar,
            range(table.pending_offset, table.pending_length()),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TABLE: MsixTable = MsixTable {
        entries: 5,
        table_bar: 3,
        table_offset: 0x100,
        pending_bar: 3,
        pending_offset: 0x800,
    };

    #[test]
    fn the_table_is_ours_and_the_rest_the_devices() {
        let place = |offset, length| place(Some(&TABLE), 3, 0x1000, offset, length);
        assert_eq!(place(0xfc, 4), Place::Device);
        assert_eq!(place(0x100, 4), Place::Table(0));
        assert_eq!(place(0x148, 8), Place::Table(0x48));
        assert_eq!(place(0x150, 4), Place::Device);
        assert_eq!(place(0x800, 8), Place::Pending(0));
        assert_eq!(place(0x808, 4), Place::Device);
        for (offset, length) in [
            (0xfe, 4),
            (0x14c, 8),
            (0xffe, 4),
            (0x1000, 1),
            (u64::MAX, 8),
            (0, 0),
        ] {
            assert_eq!(place(offset, length), Place::Nowhere, "{offset:#x}");
        }
        assert_eq!(
            super::place(Some(&TABLE), 0, 0x1000, 0x100, 4),
            Place::Device
        );
        assert_eq!(super::place(None, 3, 0x1000, 0x100, 4), Place::Device);
    }

    #[test]
    fn a_table_outside_of_the_bars_is_noticed() {
        let bar = |index, size| BarPlan {
            index,
            size,
            is_64bit: false,
        };
        assert!(holds([bar(3, 0x1000)].iter(), &TABLE));
        assert!(!holds([bar(3, 0x800)].iter(), &TABLE));
        assert!(!holds([bar(2, 0x1000)].iter(), &TABLE));
        assert_eq!(trapped(Some(&TABLE), 3), [0x100..0x150, 0x800..0x808]);
        assert!(trapped(Some(&TABLE), 2).is_empty());
        assert!(trapped(None, 3).is_empty());
    }

    proptest! {
        /// Whatever the table's place is, no access to the device touches it.
        #[test]
        fn nothing_reaches_the_devices_table(
            entries in 1u16..=2048,
            bars in (0usize..6, 0usize..6),
            offsets in (any::<u32>(), any::<u32>()),
            untrusted_offset in prop_oneof![any::<u64>(), 0u64..0x1_0000],
            length in 0usize..9,
            size in prop::sample::select(vec![0x1000u64, 0x1_0000, 1 << 33]),
        ) {
            let table = MsixTable {
                entries,
                table_bar: bars.0,
                table_offset: u64::from(offsets.0 & 0xfff8),
                pending_bar: bars.1,
                pending_offset: u64::from(offsets.1 & !7),
            };
            if place(Some(&table), bars.0, size, untrusted_offset, length) == Place::Device {
                let end = untrusted_offset + length as u64;
                prop_assert!(end <= size);
                for range in trapped(Some(&table), bars.0) {
                    prop_assert!(end <= range.start || untrusted_offset >= range.end);
                }
            }
        }
    }
}
