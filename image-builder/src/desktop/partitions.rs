//! Where everything lies on the disk.

use bulkhead_host_boot::parameters::{
    BLOCK_BYTES, DATA_TYPE, ROOT_TYPE, SECTOR_BYTES, VERITY_TYPE, VerityParameters,
};

const MIB: u64 = 1 << 20;
/// The data partition as it is in the file; it grows at the first boot.
const DATA_MIB: u64 = 16;
/// The first partition's start, and room for the second table at the end.
const EDGE_MIB: u64 = 1;

const DISK_ID: &str = "7134b99a-5594-4275-b9d6-e8efa60dbc57";
const ESP_ID: &str = "76f14d7a-5e6d-404e-a671-1ffef06d1a7b";
const ROOT_B_ID: &str = "d2fcd318-0ae0-4bab-901c-4d685ef9e905";
const VERITY_B_ID: &str = "410a1943-df1e-4047-bf5f-5df8b70bf618";
const DATA_ID: &str = "b87c02c6-80a7-4950-9738-ffdf183ed8d1";
const ESP_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";

/// The root is larger than its slot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the root has {root_mib} MiB, but a slot has {slot_mib}; raise `slot-mib`")]
pub struct SlotTooSmall {
    root_mib: u64,
    slot_mib: u64,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// For people.
    pub name: &'static str,
    kind: &'static str,
    id: String,
    /// Where it starts.
    pub start_bytes: u64,
    /// How long it is.
    pub size_bytes: u64,
}

/// All partitions, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partitions {
    /// What firmware reads.
    pub esp: Partition,
    /// The root in slot A.
    pub root_a: Partition,
    /// Its hash tree.
    pub verity_a: Partition,
    /// Room for another root.
    pub root_b: Partition,
    /// Room for its hash tree.
    pub verity_b: Partition,
    /// What belongs to the user.
    pub data: Partition,
}

impl Partitions {
    /// The layout for a root of this size.
    pub fn new(
        esp_mib: u64,
        slot_mib: u64,
        verity: &VerityParameters,
        root_bytes: u64,
    ) -> Result<Self, SlotTooSmall> {
        if root_bytes > slot_mib * MIB {
            return Err(SlotTooSmall {
                root_mib: root_bytes.div_ceil(MIB),
                slot_mib,
            });
        }
        let tree_mib = tree_bytes(slot_mib * MIB).div_ceil(MIB);
        let mut next = EDGE_MIB * MIB;
        let mut place = |name, kind, id: String, mib: u64| {
            let start_bytes = next;
            next += mib * MIB;
            Partition {
                name,
                kind,
                id,
                start_bytes,
                size_bytes: mib * MIB,
            }
        };
        Ok(Self {
            esp: place("esp", ESP_TYPE, ESP_ID.to_owned(), esp_mib),
            root_a: place(
                "root-a",
                ROOT_TYPE,
                verity.root_partition().to_string(),
                slot_mib,
            ),
            verity_a: place(
                "verity-a",
                VERITY_TYPE,
                verity.verity_partition().to_string(),
                tree_mib,
            ),
            root_b: place("root-b", ROOT_TYPE, ROOT_B_ID.to_owned(), slot_mib),
            verity_b: place("verity-b", VERITY_TYPE, VERITY_B_ID.to_owned(), tree_mib),
            data: place("data", DATA_TYPE, DATA_ID.to_owned(), DATA_MIB),
        })
    }

    /// In their order.
    #[must_use]
    pub fn all(&self) -> [&Partition; 6] {
        [
            &self.esp,
            &self.root_a,
            &self.verity_a,
            &self.root_b,
            &self.verity_b,
            &self.data,
        ]
    }

    /// The size of the whole file.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.data.start_bytes + self.data.size_bytes + EDGE_MIB * MIB
    }

    /// What sfdisk is told.
    #[must_use]
    pub fn script(&self) -> String {
        let mut script = format!(
            "label: gpt\nlabel-id: {DISK_ID}\nunit: sectors\nfirst-lba: 2048\nsector-size: 512\n"
        );
        for partition in self.all() {
            script.push_str(&format!(
                "start={}, size={}, type={}, uuid={}, name={}\n",
                partition.start_bytes / SECTOR_BYTES,
                partition.size_bytes / SECTOR_BYTES,
                partition.kind,
                partition.id,
                partition.name
            ));
        }
        script
    }
}

/// The most that the hash tree of `bytes` can take: a header, and levels of blocks that hold 128
/// hashes each, until one block is left.
fn tree_bytes(bytes: u64) -> u64 {
    let per_block = BLOCK_BYTES / 32;
    let mut level = bytes.div_ceil(BLOCK_BYTES);
    let mut total = 1;
    while level > 1 {
        level = level.div_ceil(per_block);
        total += level;
    }
    total.max(2) * BLOCK_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verity() -> VerityParameters {
        VerityParameters {
            root_hash: [0x5a; 32],
            salt: vec![1],
            blocks: 10,
        }
    }

    #[test]
    fn partitions_follow_each_other_without_gap_or_overlap() {
        let partitions = Partitions::new(100, 1000, &verity(), 1000 * MIB).unwrap();
        let all = partitions.all();
        assert_eq!(all[0].start_bytes, MIB);
        for pair in all.windows(2) {
            assert_eq!(
                pair[0].start_bytes + pair[0].size_bytes,
                pair[1].start_bytes
            );
            assert_eq!(pair[1].start_bytes % MIB, 0);
        }
        let end = all[5].start_bytes + all[5].size_bytes;
        assert_eq!(partitions.disk_bytes(), end + MIB);
        assert_eq!(partitions.root_a.id, "5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a");
    }

    #[test]
    fn a_root_that_is_too_large_is_refused_with_numbers() {
        let error = Partitions::new(100, 10, &verity(), 10 * MIB + 1).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("11 MiB") && text.contains("slot-mib"),
            "{text}"
        );
    }

    #[test]
    fn the_tree_has_room() {
        // Against veritysetup itself.
        if crate::command::find_program("veritysetup").is_none() {
            eprintln!("SKIPPED: no veritysetup (Debian's package `cryptsetup-bin`)");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for blocks in [1_u64, 2, 128, 129, 16_384, 16_385] {
            let (root, tree) = (folder.path().join("root"), folder.path().join("tree"));
            let file = std::fs::File::create(&root).unwrap();
            file.set_len(blocks * 4096).unwrap();
            crate::desktop::verity::format(&root, &tree).unwrap();
            let made = std::fs::metadata(&tree).unwrap().len();
            assert!(made <= tree_bytes(blocks * 4096), "{blocks}: {made}");
        }
    }
}
