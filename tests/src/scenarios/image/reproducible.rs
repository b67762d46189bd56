//! The same inputs give the same image, byte by byte.

use std::fs;
use std::os::unix::fs::symlink;

use bulkhead_image::recipe::Firmware;
use bulkhead_image::{Builder, Layout, Options};

use crate::check;
use crate::e2e::disk::DiskContext;
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "image-reproducible",
    about: "a second build from the same inputs gives the same root, boot file and disk",
    run: Place::Disk(run),
};

fn run(context: &DiskContext<'_>) -> Outcome {
    let first = Layout::of_this_workspace();
    // A target folder of its own: nothing that the first build made is there, but for the programs,
    // which are inputs.
    let second = context.folder().join("second");
    fs::create_dir_all(&second)?;
    for name in ["release", "x86_64-unknown-linux-gnu"] {
        symlink(first.target().join(name), second.join(name))?;
    }
    let options = Options {
        build_programs: false,
        ..Options::default()
    };
    let build = |layout| Builder::open(layout, options)?.desktop(Firmware::Virtual);
    let image = build(first.with_target(&second)).map_err(|e| Failure::new(e.to_string()))?;
    check!(
        image.disk != context.image().disk,
        "the second build went to the place of the first"
    );
    let sums = |layout: &Layout| fs::read_to_string(layout.disk_image().join("SHA256SUMS"));
    let (one, two) = (sums(&first)?, sums(&first.with_target(&second))?);
    context.log("first.txt", one.as_bytes())?;
    context.log("second.txt", two.as_bytes())?;
    for file in ["bulkhead.raw", "root.erofs", "root.verity", "bulkhead.efi"] {
        let line = |sums: &str| sums.lines().find(|l| l.ends_with(file)).map(str::to_owned);
        check!(line(&one).is_some(), "{file} has no checksum: {one}");
        check!(
            line(&one) == line(&two),
            "{file} differs between two builds:\n{one}\n{two}"
        );
    }
    Ok(fs::remove_dir_all(&second)?)
}
