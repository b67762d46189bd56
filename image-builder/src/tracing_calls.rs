//! Calls of the function tracer (ftrace) in a module's code.
//!
//! A distribution's modules call `__fentry__` at the head of each function, and list these places
//! (`__mcount_loc`). As the kernel loads a module it puts an instruction that does nothing at each of
//! them, and for each looks through all names of the module, to leave out functions that were replaced
//! at link time (`test_for_valid_rec` in kernel/trace/ftrace.c). For the modules that each of our guests
//! loads that took 0.08 s of its start in the emulated host. What can be done once, when the initramfs is
//! made, is done here; then the list is of no use.

use std::ops::Range;

use object::LittleEndian;
use object::elf::{FileHeader64, R_X86_64_PC32, R_X86_64_PLT32, SHF_EXECINSTR, SHT_SYMTAB};
use object::read::Error;
use object::read::elf::{FileHeader as _, SectionHeader as _, Sym as _};

/// The section that lists the places.
pub const LIST: &str = "__mcount_loc";
/// What is called there.
const TRACER: &[u8] = b"__fentry__";
/// CALL rel32.
const CALL: u8 = 0xe8;
/// The kernel's own five bytes that do nothing (`P6_NOP5`, arch/x86/include/asm/nops.h).
const NOTHING: [u8; 5] = [0x0f, 0x1f, 0x44, 0x00, 0x00];
/// Bytes of an `Elf64_Rela`.
const RELOCATION_BYTES: u64 = 24;

/// One call.
struct Call {
    code: Range<usize>,
    relocation: Range<usize>,
}

/// Takes all of them out, with the relocations that would have them point somewhere. Answers whether
/// none is left: if one has another form than the known one, nothing is changed, and the list is needed.
pub fn take_out(module: &mut [u8]) -> Result<bool, Error> {
    let Some(calls) = find(module)? else {
        return Ok(false);
    };
    for Call { code, relocation } in calls {
        if let Some(code) = module.get_mut(code) {
            code.copy_from_slice(&NOTHING);
        }
        // R_X86_64_NONE.
        if let Some(relocation) = module.get_mut(relocation) {
            relocation.fill(0);
        }
    }
    Ok(true)
}

/// All calls; none if there is a use of the tracer that is none of the known form.
fn find(module: &[u8]) -> Result<Option<Vec<Call>>, Error> {
    let header = FileHeader64::<LittleEndian>::parse(module)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, module)?;
    let symbols = sections.symbols(endian, module, SHT_SYMTAB)?;
    let is_tracer = |symbol: u32| -> Result<bool, Error> {
        let symbol = symbols.symbol(object::SymbolIndex(symbol as usize))?;
        Ok(symbol.name(endian, symbols.strings())? == TRACER)
    };
    let mut calls = Vec::new();
    for section in sections.iter() {
        let Some((relocations, _)) = section.rela(endian, module)? else {
            continue;
        };
        let target = sections.section(section.info_link(endian))?;
        let is_code = target.sh_flags(endian).contains(SHF_EXECINSTR);
        for (at, relocation) in (0..).zip(relocations) {
            let symbol = relocation.r_sym(endian, false);
            if symbol == 0 || !is_tracer(symbol)? {
                continue;
            }
            let kind = relocation.r_type(endian, false);
            let is_relative = matches!(kind, R_X86_64_PC32 | R_X86_64_PLT32);
            // The place of the distance, one byte behind the instruction's first.
            let start = relocation.r_offset.get(endian).checked_sub(1);
            let code = start.and_then(|start| place(target.file_range(endian)?, start, 5));
            let table = section.file_range(endian);
            let relocation =
                table.and_then(|table| place(table, at * RELOCATION_BYTES, RELOCATION_BYTES));
            match (code, relocation) {
                (Some(code), Some(relocation))
                    if is_code && is_relative && module.get(code.start) == Some(&CALL) =>
                {
                    calls.push(Call { code, relocation });
                }
                _ => return Ok(None),
            }
        }
    }
    Ok(Some(calls))
}

/// Where in the file the bytes of a section (its offset and size) are.
fn place((offset, size): (u64, u64), start: u64, length: u64) -> Option<Range<usize>> {
    let end = start.checked_add(length).filter(|end| *end <= size)?;
    let start = usize::try_from(offset.checked_add(start)?).ok()?;
    let end = usize::try_from(offset.checked_add(end)?).ok()?;
    Some(start..end)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use object::elf::R_X86_64_NONE;

    use super::*;

    /// What GNU as makes of this, as a module's file.
    fn assemble(source: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("a.s"), folder.path().join("a.o"));
        std::fs::write(&from, source).unwrap();
        let status = Command::new("as").arg("-o").args([&to, &from]).status();
        assert!(status.unwrap().success());
        std::fs::read(&to).unwrap()
    }

    const TWO: &str = "
        .text
        one: nop; call __fentry__; ret
        two: call __fentry__; call other; ret
        .section __mcount_loc, \"a\"
        .quad one + 1
        .quad two
    ";

    /// What is between the sections' headers and the symbols does not matter here.
    fn text(module: &[u8]) -> Vec<u8> {
        let header = FileHeader64::<LittleEndian>::parse(module).unwrap();
        let sections = header.sections(LittleEndian, module).unwrap();
        let (_, text) = sections.section_by_name(LittleEndian, b".text").unwrap();
        text.data(LittleEndian, module).unwrap().to_vec()
    }

    #[test]
    fn calls_of_the_tracer_do_nothing_and_others_stay() {
        let mut module = assemble(TWO);
        let before = text(&module);
        assert!(take_out(&mut module).unwrap());
        let after = text(&module);
        assert_eq!(after[1..6], NOTHING);
        assert_eq!(after[7..12], NOTHING);
        assert_eq!(after[12..], before[12..]);
        assert_eq!((after[0], after[6]), (before[0], before[6]));
        // Nothing is left, and the other call still is to be pointed somewhere.
        assert!(find(&module).unwrap().unwrap().is_empty());
        let readable = module.clone();
        let header = FileHeader64::<LittleEndian>::parse(&*readable).unwrap();
        let sections = header.sections(LittleEndian, &*readable).unwrap();
        let relocations = sections
            .iter()
            .filter_map(|s| s.rela(LittleEndian, &*readable).unwrap())
            .flat_map(|(relocations, _)| relocations)
            .filter(|r| r.r_type(LittleEndian, false) != R_X86_64_NONE)
            .count();
        // That call, and the two of the list.
        assert_eq!(relocations, 3);
    }

    #[test]
    fn what_is_not_known_is_left_alone() {
        for source in [
            "call *__fentry__@GOTPCREL(%rip)",
            "jmp __fentry__",
            ".data; .quad __fentry__",
            "call __fentry__; .data; .long __fentry__ - .",
        ] {
            let mut module = assemble(&format!("{source}\n"));
            let before = module.clone();
            assert!(!take_out(&mut module).unwrap(), "{source}");
            assert!(module == before, "{source}");
        }
        assert!(take_out(&mut assemble("nop\n")).unwrap());
    }

    #[test]
    fn broken_files_are_errors_or_left_alone() {
        let whole = assemble(TWO);
        for length in 0..whole.len() {
            let _ = take_out(&mut whole[..length].to_vec());
        }
        for at in 0..whole.len() {
            let mut module = whole.clone();
            module[at] = !module[at];
            let _ = take_out(&mut module);
        }
        assert!(take_out(&mut b"text".to_vec()).is_err());
    }
}
