//! The boot file: systemd's EFI stub with kernel, initramfs and command line added as sections
//! (UAPI group's specification "Unified Kernel Image"; Microsoft's "PE Format" for the tables).
//!
//! The sections are appended here and not by objcopy, which leaves a time stamp of its own.

/// A section's characteristics: initialised data, readable.
const DATA: u32 = 0x4000_0040;
const SECTION_HEADER: usize = 40;

/// Why the stub cannot carry sections.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this is not an EFI program that sections can be added to: {0}")]
pub struct NotAStub(&'static str);

/// The stub with these sections: name and content.
pub fn add_sections(stub: &[u8], sections: &[(&str, Vec<u8>)]) -> Result<Vec<u8>, NotAStub> {
    let mut file = Pe::open(stub.to_vec())?;
    for (name, content) in sections {
        file.add(name, content)?;
    }
    Ok(file.finish())
}

struct Pe {
    bytes: Vec<u8>,
    /// Where the COFF header's fields start, after "PE\0\0".
    coff: usize,
    /// Where the optional header starts.
    optional: usize,
    section_alignment: usize,
    file_alignment: usize,
}

impl Pe {
    fn open(bytes: Vec<u8>) -> Result<Self, NotAStub> {
        let pe = word(&bytes, 0x3c).ok_or(NotAStub("it is too short"))?;
        let signature = pe.checked_add(4).and_then(|end| bytes.get(pe..end));
        if bytes.get(..2) != Some(b"MZ") || signature != Some(b"PE\0\0") {
            return Err(NotAStub("it has no PE header"));
        }
        let coff = pe + 4;
        let optional = coff + 20;
        // PE32+, the 64-bit form.
        if half(&bytes, optional) != Some(0x20b) {
            return Err(NotAStub("it is not a 64-bit program"));
        }
        let alignment = |at| {
            word(&bytes, optional + at)
                .filter(|value| value.is_power_of_two() && *value <= 1 << 16)
                .ok_or(NotAStub("its alignment is odd"))
        };
        let (section_alignment, file_alignment) = (alignment(32)?, alignment(36)?);
        Ok(Self {
            bytes,
            coff,
            optional,
            section_alignment,
            file_alignment,
        })
    }

    fn count(&self) -> usize {
        half(&self.bytes, self.coff + 2).unwrap_or(0)
    }

    /// Where the header of section `index` is.
    fn header(&self, index: usize) -> usize {
        let optional_size = half(&self.bytes, self.coff + 16).unwrap_or(0);
        self.optional + optional_size + index * SECTION_HEADER
    }

    fn add(&mut self, name: &str, content: &[u8]) -> Result<(), NotAStub> {
        let count = self.count();
        let header = self.header(count);
        let room = word(&self.bytes, self.optional + 60).unwrap_or(0);
        if header + SECTION_HEADER > room || name.len() > 8 {
            return Err(NotAStub("its section table is full"));
        }
        let end = (0..count)
            .filter_map(|index| {
                let header = self.header(index);
                word(&self.bytes, header + 12)?.checked_add(word(&self.bytes, header + 8)?)
            })
            .max()
            .ok_or(NotAStub("it has no sections"))?;
        let address = end.next_multiple_of(self.section_alignment);
        let place = self.bytes.len().next_multiple_of(self.file_alignment);
        let too_large = NotAStub("the sections are too large");
        let number = |value: usize| u32::try_from(value).map_err(|_| too_large.clone());
        let stored = content.len().next_multiple_of(self.file_alignment);
        let mut entry = [0_u8; SECTION_HEADER];
        entry[..name.len()].copy_from_slice(name.as_bytes());
        for (at, value) in [
            (8, number(content.len())?),
            (12, number(address)?),
            (16, number(stored)?),
            (20, number(place)?),
            (36, DATA),
        ] {
            entry[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        let image_end = (address + content.len()).next_multiple_of(self.section_alignment);
        self.put(header, &entry);
        let count = u16::try_from(count + 1).map_err(|_| NotAStub("its section table is full"))?;
        self.put(self.coff + 2, &count.to_le_bytes());
        self.put(self.optional + 56, &number(image_end)?.to_le_bytes());
        self.bytes.resize(place, 0);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(place + stored, 0);
        Ok(())
    }

    /// Without time stamp and checksum: the one differs from build to build, the other would have
    /// to be computed, and firmware reads neither.
    fn finish(mut self) -> Vec<u8> {
        self.put(self.coff + 4, &[0; 4]);
        self.put(self.optional + 64, &[0; 4]);
        self.bytes
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    let part = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes(part.try_into().ok()?)))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes(part.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stub of one section with room in its headers for two more.
    fn stub() -> Vec<u8> {
        let mut bytes = vec![0_u8; 0x600];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        let mut put = |at: usize, value: u32| {
            bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        };
        put(0x46, 1);
        put(0x48, 0x1234_5678);
        put(0x54, 240);
        put(0x58, 0x20b);
        put(0x58 + 32, 0x1000);
        put(0x58 + 36, 0x200);
        put(0x58 + 56, 0x3000);
        put(0x58 + 60, (0x58 + 240 + 3 * 40) as u32);
        put(0x58 + 64, 0xdead);
        let section = 0x58 + 240;
        put(section + 8, 0x1001);
        put(section + 12, 0x1000);
        put(section + 16, 0x200);
        put(section + 20, 0x400);
        bytes
    }

    #[test]
    fn sections_are_appended_and_aligned() {
        let content = vec![0xaa; 0x201];
        let made = add_sections(
            &stub(),
            &[(".cmdline", b"quiet".to_vec()), (".linux", content.clone())],
        )
        .unwrap();
        assert_eq!(half(&made, 0x46), Some(3));
        let header = 0x58 + 240 + 2 * 40;
        assert_eq!(&made[header..header + 7], b".linux\0");
        assert_eq!(word(&made, header + 8), Some(0x201));
        assert_eq!(word(&made, header + 12), Some(0x4000));
        let place = word(&made, header + 20).unwrap();
        assert_eq!(place % 0x200, 0);
        assert_eq!(made[place..place + 0x201], content);
        assert_eq!(word(&made, 0x58 + 56), Some(0x5000));
        // No time and no checksum.
        assert_eq!(
            (word(&made, 0x48), word(&made, 0x58 + 64)),
            (Some(0), Some(0))
        );
    }

    #[test]
    fn a_full_table_and_other_files_are_refused() {
        let three: Vec<(&str, Vec<u8>)> = vec![(".a", vec![1]); 3];
        assert!(add_sections(&stub(), &three).is_err());
        assert!(add_sections(b"#!/bin/sh", &[]).is_err());
        assert!(add_sections(&[], &[]).is_err());
        let whole = stub();
        for length in 0..whole.len() {
            let _ = add_sections(&whole[..length], &three);
        }
    }
}
