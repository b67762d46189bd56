//! Loads the kernel modules that the initramfs lists, in its order.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::cmdline::{CommandLine, Net};
use crate::console::{boot_ms, say};
use crate::files::check;

/// One path per line, in load order; `#` begins a comment.
const LIST: &str = "/etc/bulkhead/modules";
/// Before the path of a module that is for wireless cards.
const WIRELESS: &str = "wireless ";
/// The devices of the PCI bus.
const PCI: &str = "/sys/bus/pci/devices";
/// "Network controller: other", as which wireless cards count (PCI Code and ID Assignment).
const WIRELESS_CLASS: &str = "0x0280";
/// The drivers of wireless cards by the folder they lie in, what only they need among it, and the
/// makers whose cards they drive.
const MAKERS: [(&str, &[&str]); 8] = [
    ("/wireless/ath/", &["0x168c", "0x17cb"]),
    ("/drivers/bus/mhi/", &["0x168c", "0x17cb"]),
    ("/drivers/soc/qcom/", &["0x168c", "0x17cb"]),
    ("/net/qrtr/", &["0x168c", "0x17cb"]),
    ("/wireless/broadcom/", &["0x14e4"]),
    ("/wireless/intel/", &["0x8086"]),
    ("/wireless/mediatek/", &["0x14c3", "0x0b48"]),
    ("/wireless/realtek/", &["0x10ec"]),
];
/// The nice value of who comes last (`setpriority(2)`).
const LAST: libc::c_int = 19;
/// `MODULE_INIT_COMPRESSED_FILE`: the kernel decompresses.
const COMPRESSED: libc::c_long = 4;

/// Modules that are open: the initramfs is out of reach when the root has been switched.
type Open = Vec<(String, io::Result<File>)>;

/// What is not loaded when the boot goes on.
#[derive(Default)]
pub struct Rest {
    /// The display's modules, which take long and which only windows need.
    pub display: Option<Aside>,
    wireless: Open,
    timings: bool,
}

/// Loads what the boot needs. What fails is reported and left out.
pub fn load_all(line: &CommandLine) -> Rest {
    let timings = line.timings;
    let list = match fs::read_to_string(LIST) {
        Ok(list) => list,
        Err(error) => {
            say(&format!("{LIST}: {error}"));
            return Rest::default();
        }
    };
    let makers = match line.physical {
        true => wireless_makers(Path::new(PCI)),
        false => Vec::new(),
    };
    let wireless = open(wireless(&list).filter(|path| is_of_makers(path, &makers)));
    let (late, first): (Vec<_>, Vec<_>) = paths(&list)
        .filter(|path| is_wanted(path, line.net, line.physical))
        .partition(|path| is_for_display(path));
    let display = aside(open(late.into_iter()), timings);
    for path in first {
        let file = File::open(path);
        report(
            path,
            file.and_then(|file| load(Path::new(path), &file)),
            timings,
        );
    }
    Rest {
        display,
        wireless,
        timings,
    }
}

impl Rest {
    /// Loads the drivers of wireless cards. They ask for firmware at once, which the root has.
    pub fn in_root(&mut self) {
        if !self.wireless.is_empty() {
            let (wireless, timings) = (std::mem::take(&mut self.wireless), self.timings);
            in_thread(move || load_each(wireless, timings));
        }
    }
}

fn open<'a>(paths: impl Iterator<Item = &'a str>) -> Open {
    paths
        .map(|path| (path.to_owned(), File::open(path)))
        .collect()
}

/// Modules that load while the boot goes on, with what it leaves of the processor: on a guest's only one
/// they would hold up what everything else waits for.
pub struct Aside {
    thread: JoinHandle<()>,
    /// The thread's number in the kernel.
    started: mpsc::Receiver<libc::pid_t>,
}

impl Aside {
    /// Waits until they are loaded, which has no reason to take second place any more.
    pub fn wait(self) {
        if let Ok(id) = self.started.recv() {
            prefer(id, 0);
        }
        let _ = self.thread.join();
    }
}

fn aside(modules: Open, timings: bool) -> Option<Aside> {
    let (tell, started) = mpsc::channel();
    let thread = in_thread(move || {
        // SAFETY: no pointers.
        let id = unsafe { libc::gettid() };
        prefer(id, LAST);
        let _ = tell.send(id);
        load_each(modules, timings);
    });
    thread.map(|thread| Aside { thread, started })
}

/// Gives one thread a nice value. What comes of that is only time.
fn prefer(thread: libc::pid_t, nice: libc::c_int) {
    let thread = libc::id_t::try_from(thread).unwrap_or(0);
    // SAFETY: no pointers. Linux takes a thread's number here.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, nice) };
}

fn in_thread(body: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let thread = thread::Builder::new().name("modules".into()).spawn(body);
    thread
        .inspect_err(|error| say(&format!("thread: {error}")))
        .ok()
}

fn load_each(modules: Open, timings: bool) {
    for (path, file) in modules {
        let loaded = file.and_then(|file| load(Path::new(&path), &file));
        report(&path, loaded, timings);
    }
}

/// The makers of the wireless cards among a bus's devices.
fn wireless_makers(bus: &Path) -> Vec<String> {
    let devices = fs::read_dir(bus).into_iter().flatten().flatten();
    devices
        .filter_map(|device| {
            let read = |name: &str| fs::read_to_string(device.path().join(name)).ok();
            let is_wireless = read("class")?.starts_with(WIRELESS_CLASS);
            is_wireless.then(|| read("vendor").unwrap_or_default().trim().to_owned())
        })
        .collect()
}

/// Whether a module for wireless cards is one for these: a maker's driver, or what all need.
fn is_of_makers(path: &str, makers: &[String]) -> bool {
    let driver = MAKERS.iter().find(|(folder, _)| path.contains(folder));
    match driver {
        Some((_, own)) => makers.iter().any(|maker| own.contains(&maker.as_str())),
        None => !makers.is_empty(),
    }
}

/// What a guest has no use for is not there to be attacked, and takes no time.
fn is_wanted(path: &str, net: Net, physical: bool) -> bool {
    let is_of = |folders: &[&str]| folders.iter().any(|folder| path.contains(folder));
    // Drivers of physical network cards, and what they need.
    if is_of(&[
        "/drivers/net/ethernet/",
        "/drivers/net/phy/",
        "/drivers/net/mdio/",
        "/drivers/ptp/",
        "/drivers/pps/",
        "/drivers/dca/",
        "/drivers/i2c/",
    ]) {
        return physical;
    }
    // 8021q and what it needs.
    let vlans = ["/net/8021q/", "/net/802/", "/net/llc/"];
    // A network domain's firewall, and the translation of its clients' addresses.
    let firewall = ["/netfilter/"];
    // A gateway's tunnel, and its ciphers. Which template it is nobody knows yet.
    let tunnel = [
        "/drivers/net/wireguard/",
        "/udp_tunnel.",
        "/ip6_udp_tunnel.",
        "/arch/x86/crypto/",
        "/lib/crypto/",
    ];
    if is_of(&vlans) || is_of(&firewall) || is_of(&tunnel) {
        return net == Net::Trunk;
    }
    // All other cards are virtio; a physical one may be as well.
    let has_cards = net != Net::None || physical;
    has_cards || !is_of(&["/drivers/net/", "/net/core/"])
}

/// Modules of the display depend on each other only.
fn is_for_display(path: &str) -> bool {
    path.contains("/drm/") || path.contains("/virtio_dma_buf.")
}

fn report(path: &str, result: io::Result<()>, timings: bool) {
    match result {
        Ok(()) if timings => say(&format!("timing module {path} {}", boot_ms())),
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {}
        // Drivers for hardware that this machine lacks say so.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        Err(error) => say(&format!("module {path}: {error}")),
    }
}

/// Frees the memory that the module files hold in the initramfs.
pub fn forget() {
    let _ = fs::remove_dir_all("/lib/modules");
    let _ = fs::remove_dir_all("/usr/lib/modules");
}

fn paths(list: &str) -> impl Iterator<Item = &str> {
    lines(list).filter(|line| !line.starts_with(WIRELESS))
}

/// Those for wireless cards.
fn wireless(list: &str) -> impl Iterator<Item = &str> {
    lines(list).filter_map(|line| line.strip_prefix(WIRELESS))
}

fn lines(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn load(path: &Path, file: &File) -> io::Result<()> {
    let compressed = path.extension().is_some_and(|ending| ending != "ko");
    let flags = if compressed { COMPRESSED } else { 0 };
    // SAFETY: the descriptor is open and the parameters are an empty C string.
    let result = unsafe {
        libc::syscall(
            libc::SYS_finit_module,
            file.as_raw_fd(),
            c"".as_ptr(),
            flags,
        )
    };
    check(result).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_preferred_and_no_other() {
        // SAFETY: no pointers.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        let patient = std::thread::spawn(move || {
            // SAFETY: no pointers.
            prefer(unsafe { libc::gettid() }, LAST);
            nice()
        });
        assert_eq!(patient.join().unwrap(), LAST);
        assert_eq!(nice(), before);
    }

    #[test]
    fn only_the_display_waits() {
        assert!(is_for_display(
            "/lib/modules/6.12/kernel/drivers/gpu/drm/drm.ko"
        ));
        assert!(is_for_display(
            "/lib/modules/6.12/kernel/drivers/virtio/virtio_dma_buf.ko"
        ));
        assert!(!is_for_display(
            "/lib/modules/6.12/kernel/drivers/block/virtio_blk.ko"
        ));
    }

    #[test]
    fn network_modules_are_for_guests_with_cards() {
        let names = [
            "drivers/net/virtio_net",
            "net/core/failover",
            "net/8021q/8021q",
            "net/llc/llc",
            "net/ipv4/netfilter/nf_defrag_ipv4",
            "net/netfilter/nft_masq",
            "drivers/net/wireguard/wireguard",
            "lib/crypto/libchacha",
            "drivers/net/ethernet/intel/e1000e/e1000e",
            "drivers/pps/pps_core",
            "net/vmw_vsock/vsock",
        ];
        let [
            card,
            failover,
            vlan,
            llc,
            defrag,
            masq,
            tunnel,
            cipher,
            nic,
            pps,
            vsock,
        ] = names;
        let cards = [card, failover];
        let trunk = [vlan, llc, defrag, masq, tunnel, cipher];
        let physical = [nic, pps];
        for (net, has_physical, wanted) in [
            (Net::None, false, [&[][..], &[vsock]]),
            (Net::None, true, [&cards[..], &[nic, pps, vsock]]),
            (Net::Card, false, [&cards[..], &[vsock]]),
            (
                Net::Trunk,
                false,
                [&[&cards[..], &trunk].concat(), &[vsock]],
            ),
            (
                Net::Trunk,
                true,
                [&[&cards[..], &trunk, &physical].concat(), &[vsock]],
            ),
        ] {
            let found: Vec<_> = names
                .into_iter()
                .filter(|name| {
                    let path = format!("/lib/modules/6.12/kernel/{name}.ko.xz");
                    is_wanted(&path, net, has_physical)
                })
                .collect();
            assert_eq!(found, wanted.concat(), "{net:?} {has_physical}");
        }
    }

    #[test]
    fn lists_have_comments_and_empty_lines() {
        let list = "# first\n/lib/modules/a.ko\n\n  /lib/modules/b.ko  \nwireless /w.ko\n";
        assert_eq!(
            paths(list).collect::<Vec<_>>(),
            ["/lib/modules/a.ko", "/lib/modules/b.ko"]
        );
        assert_eq!(wireless(list).collect::<Vec<_>>(), ["/w.ko"]);
    }

    #[test]
    fn drivers_of_wireless_cards_are_for_those_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        for (device, class, vendor) in [
            ("0000:00:01.0", "0x028000", "0x8086"),
            ("0000:00:02.0", "0x020000", "0x10ec"),
            ("0000:00:03.0", "0x030000", "0x14e4"),
        ] {
            let device = folder.path().join(device);
            fs::create_dir(&device).unwrap();
            fs::write(device.join("class"), format!("{class}\n")).unwrap();
            fs::write(device.join("vendor"), format!("{vendor}\n")).unwrap();
        }
        let makers = wireless_makers(folder.path());
        assert_eq!(makers, ["0x8086"]);
        for (path, is_wanted) in [
            ("drivers/net/wireless/intel/iwlwifi/mvm/iwlmvm.ko", true),
            ("net/mac80211/mac80211.ko", true),
            ("crypto/ccm.ko", true),
            ("drivers/net/wireless/realtek/rtw88/rtw88_pci.ko", false),
            ("drivers/bus/mhi/host/mhi.ko", false),
        ] {
            let path = format!("/lib/modules/6.12/kernel/{path}");
            assert_eq!(is_of_makers(&path, &makers), is_wanted, "{path}");
            assert!(!is_of_makers(&path, &[]), "{path}");
        }
        assert!(wireless_makers(Path::new("/nowhere")).is_empty());
    }
}
