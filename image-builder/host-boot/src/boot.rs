//! The way from the kernel's hand-over to systemd, in order.

use std::{
    convert::Infallible,
    fs,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use rustix::mount::MountFlags;

use crate::{
    data,
    disks::{self, Disk},
    dm::Mapped,
    error::{BootError, step},
    home, modules,
    mounts::{NEW_ROOT, mount_at, mount_kernel_folders, switch_root},
    parameters::{self, VerityParameters},
    screen::note,
    watch,
};

/// The headline of every message.
pub const TITLE: &str = "Bulkhead cannot start";

const SYSTEMD: &str = "/usr/lib/systemd/systemd";
/// Settings of this boot, for systemd's units.
const SETTINGS: &str = "/run/bulkhead/boot.env";

/// Goes the whole way; comes back only if something is wrong.
pub fn run() -> Result<Infallible, BootError> {
    mount_kernel_folders()?;
    modules::load_all();
    let line = fs::read_to_string("/proc/cmdline").map_err(step("reading the command line"))?;
    let parameters = VerityParameters::from_command_line(&line)?;
    let mut disk = disks::find(parameters.root_partition())?;
    note(&format!("the system is on {}", disk.name));
    data::check_size(&disk)?;
    // Before the first block is read: no event may be missed.
    let events = watch::socket().map_err(step("listening to the kernel"))?;
    let root = verified_root(&disk, &parameters)?;
    let result = (|| {
        mount_at(root.path(), NEW_ROOT, "erofs", MountFlags::RDONLY, "")
            .map_err(step("mounting the system"))?;
        switch_root()?;
        data::mount(&mut disk)?;
        home::bind()?;
        settings(&line)?;
        try_systemd()?;
        watch::start(events).map_err(step("starting the watcher"))?;
        Err(step("starting systemd")(Command::new(SYSTEMD).exec()))
    })();
    // Whatever failed may have failed because a block was wrong, and then that is the news.
    match result {
        Err(error) if root.is_corrupted().unwrap_or(false) => {
            note(&error.to_string().replace('\n', " "));
            Err(BootError::RootDamaged {
                reason: "a block does not match its hash".to_owned(),
            })
        }
        result => result,
    }
}

fn verified_root(disk: &Disk, parameters: &VerityParameters) -> Result<Mapped, BootError> {
    let number = |id| disk.table.partition(id).map(|(number, _)| number);
    let missing = |what: &str| BootError::RootDamaged {
        reason: format!("the disk {} has no partition for {what}", disk.name),
    };
    let root = number(parameters.root_partition()).ok_or_else(|| missing("the system"))?;
    let tree = number(parameters.verity_partition()).ok_or_else(|| missing("its hashes"))?;
    let (_, root) = disk.partition(root)?;
    let (_, tree) = disk.partition(tree)?;
    let table = parameters.table(&root, &tree);
    Mapped::verity("bulkhead-root", parameters.sectors(), &table).map_err(|error| {
        BootError::RootDamaged {
            reason: format!("it cannot be checked ({error})"),
        }
    })
}

fn settings(line: &str) -> Result<(), BootError> {
    let failed = || step(format!("writing {SETTINGS}"));
    fs::create_dir_all("/run/bulkhead").map_err(failed())?;
    let backend = parameters::backend(line).map(|name| format!("BULKHEAD_BACKEND={name}\n"));
    fs::write(SETTINGS, backend.unwrap_or_default()).map_err(failed())
}

/// Lets systemd start as an ordinary process first. If a block of it or of its libraries is wrong
/// that shows here, where we can still say so; as PID 1 it would end in a panic.
fn try_systemd() -> Result<(), BootError> {
    let failed = || step("trying systemd");
    let status = Command::new(SYSTEMD)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(failed())?;
    if status.success() {
        return Ok(());
    }
    Err(failed()(std::io::Error::other(status.to_string())))
}
