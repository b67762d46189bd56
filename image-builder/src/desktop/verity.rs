//! The root's hash tree, made by veritysetup on plain files.

use std::{fs, path::Path};

use bulkhead_host_boot::parameters::{BLOCK_BYTES, VerityParameters, from_hex};
use sha2::{Digest, Sha256};

use crate::{
    command::{program, run},
    error::{Error, io},
};

/// Names the tree's header; nothing reads it back.
const UUID: &str = "7c1f4b86-0e0a-4f6e-8a2b-2f64d5a0c311";

/// Writes the tree of `root` to `tree` and says what must stand on the command line.
pub fn format(root: &Path, tree: &Path) -> Result<VerityParameters, Error> {
    let partial = tree.with_extension("partial");
    let _ = fs::remove_file(&partial);
    // A salt keeps two systems' equal blocks from having equal hashes. It is no secret; a fixed
    // one keeps the image reproducible.
    let salt = Sha256::digest(b"bulkhead root").to_vec();
    let output = run(
        program("veritysetup", "cryptsetup-bin")?
            .arg("format")
            .arg(root)
            .arg(&partial)
            .args(["--hash=sha256", "--format=1", &format!("--uuid={UUID}")])
            .arg(format!("--data-block-size={BLOCK_BYTES}"))
            .arg(format!("--hash-block-size={BLOCK_BYTES}"))
            .arg(format!("--salt={}", crate::stamp::hex(&salt))),
        "making the root's hash tree",
    )?;
    let text = String::from_utf8_lossy(&output).into_owned();
    let strange = |what: &str| Error::Command {
        what: "making the root's hash tree".to_owned(),
        command: "veritysetup format".to_owned(),
        status: format!("its answer has no {what}"),
        output: text.clone(),
    };
    let value = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.trim().strip_prefix(':'))
            .map(str::trim)
    };
    let root_hash = value("Root hash")
        .and_then(from_hex)
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| strange("root hash"))?;
    let blocks = value("Data blocks")
        .and_then(|count| count.parse().ok())
        .ok_or_else(|| strange("number of blocks"))?;
    fs::rename(&partial, tree).map_err(io("moving to", tree))?;
    Ok(VerityParameters {
        root_hash,
        salt,
        blocks,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_makes_another_root() {
        if crate::command::find_program("veritysetup").is_none() {
            eprintln!("SKIPPED: no veritysetup (Debian's package `cryptsetup-bin`)");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (root, tree) = (folder.path().join("root"), folder.path().join("tree"));
        let mut content = vec![7_u8; 300 * 4096];
        fs::write(&root, &content).unwrap();
        let first = format(&root, &tree).unwrap();
        assert_eq!(first.blocks, 300);
        let bytes = fs::read(&tree).unwrap();
        assert_eq!(format(&root, &tree).unwrap(), first);
        assert_eq!(fs::read(&tree).unwrap(), bytes);
        content[123_456] ^= 1;
        fs::write(&root, &content).unwrap();
        assert_ne!(format(&root, &tree).unwrap().root_hash, first.root_hash);
    }
}
