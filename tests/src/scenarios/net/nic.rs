//! A physical network card belongs to a guest: it is there by its driver, its packets pass and its
//! interrupts arrive, the host has no such interface, and gets the card back in the end. What cannot
//! be given away is refused with words that say what to do.
//!
//! The card is QEMU's virtio-net behind a port of its own and an IOMMU, which takes resets and is as
//! physical to the host as any other. Its network is QEMU's user network, which leads nowhere but to an
//! echo server of the test.

use crate::check;
use crate::e2e::own_host::OwnHostContext;
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::{Accelerator, BootOptions, Machine, best_accelerator};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-nic",
    about: "a guest drives a physical network card by VFIO; the host gives it away and gets it back",
    run: Place::OwnHost(run),
};

/// The echo server; the emulator's user network delivers it to a process.
const SERVER: &str = "10.0.2.100:7";
/// What the card's owner calls itself.
const OWN: &str = "10.0.2.15";
/// How much is sent there and back.
const BYTES: u64 = 1 << 20;
const NETWORK: &str = "user,id=nic,restrict=on,guestfwd=tcp:10.0.2.100:7-cmd:cat";
const IMAGES: &str = "/usr/share/bulkhead/images";

/// Shell words that every script begins with: the card's address and its IOMMU group.
pub(super) const CARD: &str = "set -e; cd /tmp; \
    card=$(ls -d /sys/bus/pci/devices/*/ | while read d; do \
        test \"$(cat $d/vendor $d/device | tr -d '\\n')\" = 0x1af40x1041 && basename $d || true; done); \
    test -n \"$card\"; device=/sys/bus/pci/devices/$card; \
    group=$(basename $(readlink $device/iommu_group || echo none)); ";

fn run(context: &OwnHostContext<'_>) -> Outcome {
    let mut options = with_iommu(context, NETWORK);
    behind_one_bridge(&mut options);
    let machine = Machine::boot(&options)?;
    refused_before(context, &machine)?;
    bind(context, &machine)?;
    refused_after(context, &machine)?;
    in_the_guest(context, &machine)?;
    by_descriptors(context, &machine)?;
    given_back(context, &machine)?;
    without_reset(context, &machine)?;
    with_neighbour(context, &machine)?;
    machine.power_off()?;
    without_iommu(context)
}

/// A host with an IOMMU, and a card on this network.
pub(super) fn with_iommu(context: &OwnHostContext<'_>, network: &str) -> BootOptions {
    let mut options = with_port(context);
    add(&mut options, "-netdev", network);
    let card = "virtio-net-pci,bus=nicport,netdev=nic,disable-legacy=on,iommu_platform=on";
    add(&mut options, "-device", card);
    options
}

/// A host with an IOMMU, and a port for a device that can be given away (`bus=nicport`).
pub(super) fn with_port(context: &OwnHostContext<'_>) -> BootOptions {
    let mut options = context.options("host");
    options.command_line = "intel_iommu=on iommu=pt".to_owned();
    if best_accelerator() == Accelerator::Kvm {
        // Interrupt remapping needs the I/O APIC in the emulator.
        add(&mut options, "-machine", "kernel-irqchip=split");
    }
    let iommu = "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on";
    add(&mut options, "-device", iommu);
    let port = "pcie-root-port,id=nicport,chassis=9,addr=0x1a";
    add(&mut options, "-device", port);
    options
}

pub(super) fn add(options: &mut BootOptions, flag: &str, value: &str) {
    let words = [flag.to_owned(), value.to_owned()];
    options.qemu_arguments.extend(words);
}

/// The shell words that run a guest with the card as the desktop user, who may lock `limit` KiB.
fn guest(limit: &str, more: &str) -> String {
    format!(
        "ulimit -l {limit}; exec timeout -s KILL 200 setpriv --reuid=1000 --regid=1000 --init-groups bulkhead-vmm run \
         --name net --memory 256M --kernel {IMAGES}/guest/vmlinux \
         --initramfs {IMAGES}/guest/initramfs-devices.cpio \
         --disk {IMAGES}/templates/apps/root.erofs,ro,id=root \
         --cmdline 'console=ttyS0 quiet panic=-1 cryptomgr.notests bulkhead.name=net bulkhead.pci' \
         --vfio $card {more}"
    )
}

/// Tries to start a guest, which must be refused with these words.
fn refused(
    context: &OwnHostContext<'_>,
    machine: &Machine,
    name: &str,
    prepare: &str,
    limit: &str,
    words: &[&str],
) -> Outcome {
    let script = format!("{CARD} {prepare} {}", guest(limit, ""));
    let output = context.root(machine, name, &script)?;
    let told = output.errors();
    check!(!output.success(), "{name}: the guest was started: {told}");
    for word in words {
        check!(
            told.contains(word),
            "{name}: the error does not say {word:?}: {told}"
        );
    }
    let lines = told.lines().filter(|line| !line.trim().is_empty()).count();
    check!(lines == 1, "{name}: the error is not clear: {told}");
    Ok(())
}

fn refused_before(context: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let words = [
        "in use by the host's driver virtio-pci",
        "bind it to vfio-pci first",
    ];
    refused(context, machine, "not-bound", "", "unlimited", &words)?;
    let nothing = "card=0000:77:00.0;";
    refused(
        context,
        machine,
        "no-device",
        nothing,
        "unlimited",
        &["lspci"],
    )?;
    let odd = "card=eth0;";
    refused(
        context,
        machine,
        "odd-address",
        odd,
        "unlimited",
        &["0000:01:00.0"],
    )
}

/// Takes the card away from the host's driver.
pub(super) fn bind(context: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let script = format!(
        "{CARD} test -e /sys/class/net/eth0; echo vfio-pci > $device/driver_override; \
         echo $card > $device/driver/unbind; echo $card > /sys/bus/pci/drivers_probe; \
         ls -l /dev/vfio; ls /sys/class/net"
    );
    let told = context.root_ok(machine, "bind", &script)?;
    check!(
        !told.contains("eth0"),
        "the host still has the card's interface: {told}"
    );
    Ok(())
}

fn refused_after(context: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    refused(
        context,
        machine,
        "no-access",
        "",
        "unlimited",
        &["/dev/vfio/", "give this user"],
    )?;
    let own = "chown 1000 /dev/vfio/$group;";
    let words = [
        "256 MiB of memory locked",
        "may lock 8 MiB",
        "RLIMIT_MEMLOCK",
    ];
    refused(context, machine, "memory-lock", own, "8192", &words)
}

/// Shell words that start a guest with a shell on its console and wait for that; what is typed goes to
/// descriptor 3.
fn start(guest: &str) -> String {
    format!(
        "cp /usr/lib/bulkhead/nic-probe probe.img; truncate -s %4096 probe.img; \
         rm -f typed console.txt serial.txt; touch console.txt serial.txt; chown 1000 serial.txt; \
         mkfifo typed; exec 3<>typed; \
         (export BULKHEAD_LOG=info; {guest}) < typed > console.txt 2> vmm.txt & vmm=$!; \
         for i in $(seq 600); do \
             test -s console.txt && break; kill -0 $vmm || break; sleep 0.1; done;"
    )
}

/// Shell words that type a command into the guest's shell and wait until it has said `answer`.
fn type_in(command: &str, answer: &str) -> String {
    format!(
        "printf '%s\\n' '{command}' >&3; for i in $(seq 300); do \
             grep -q '{answer}' console.txt && break; kill -0 $vmm || break; sleep 0.1; done;"
    )
}

/// The guest's card sends and receives; another guest cannot have it; what the guest writes into its
/// configuration space does not change the card's own; then the guest switches itself off.
fn in_the_guest(context: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let more = "--disk probe.img,ro,id=probe --serial serial.txt --console stdio";
    let probe = format!(
        "cat /dev/vdb > /tmp/p; chmod +x /tmp/p; /tmp/p {OWN} {SERVER} {BYTES}; cat /proc/interrupts"
    );
    // The interrupt line is a note for software, and shows that the bytes arrived.
    let scribble = "c=/sys/class/net/eth0/device/../config; for o in $(seq 0 255); do \
         printf \"\\377\" | dd bs=1 seek=$o conv=notrunc of=$c 2> /dev/null; done; \
         echo scribbled$(od -An -tx1 -j 60 -N 1 $c)";
    let own = "od -An -tx1 -v -N 64 $device/config | tr -d '\\n'";
    let script = format!(
        "{CARD} {start} {probe} echo HOST: $(ls /sys/class/net) $(basename $(readlink $device/driver)); \
         echo BEFORE: $({own}); ({second}) 2>&1 | sed 's/^/SECOND: /' || true; \
         {scribble} echo AFTER: $({own}); \
         echo 'echo o > /proc/sysrq-trigger' >&3; \
         for i in $(seq 300); do kill -0 $vmm 2>/dev/null || break; sleep 0.1; done; \
         status=0; kill $vmm 2>/dev/null || true; wait $vmm || status=$?; \
         echo STATUS: $status; cat vmm.txt serial.txt console.txt",
        start = start(&guest("400000", more)),
        probe = type_in(&probe, "nic-probe: {"),
        scribble = type_in(scribble, "scribbled ff"),
        second = guest("400000", ""),
    );
    let told = context.root_ok(machine, "guest", &script)?;
    // The shell's own line editing may stand before it.
    let found = told
        .lines()
        .find_map(|line| line.split_once("nic-probe: {"));
    let Some((_, found)) = found else {
        return Err(Failure::new(format!(
            "the guest did not reach the echo server: {told}"
        )));
    };
    let found: serde_json::Value = serde_json::from_str(&format!("{{{}", found.trim()))?;
    eprintln!("  {found}");
    check!(
        found["driver"] == "virtio_net",
        "the guest's driver: {found}"
    );
    check!(found["echoed"] == BYTES, "what came back: {found}");
    let count = |name: &str| found[name].as_u64().unwrap_or(0);
    check!(
        count("interrupts_after") > count("interrupts_before") + 10,
        "its interrupts: {found}"
    );
    check!(
        told.contains("HOST: lo vfio-pci"),
        "the host while the guest has the card: {told}"
    );
    check!(
        told.contains("SECOND: bulkhead-vmm: PCI device") && told.contains("another guest"),
        "a second guest was not refused: {told}"
    );
    check!(told.contains("scribbled ff"), "the guest is gone: {told}");
    let header = |name: &str| {
        let line = told.lines().find_map(|line| line.strip_prefix(name));
        // Without the command register, whose bus mastering is the guest's.
        line.map(|line| [&line[..12], &line[18..]].concat())
    };
    check!(
        header("BEFORE: ").is_some() && header("BEFORE: ") == header("AFTER: "),
        "the guest changed the card: {told}"
    );
    check!(
        told.contains("STATUS: 0"),
        "the guest did not switch itself off: {told}"
    );
    Ok(())
}

/// A guest whose VMM may open nothing and was handed the card's group and a container; it is killed
/// while packets pass.
fn by_descriptors(context: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let config = format!(
        r#"{{"name":"net","memory_mib":256,"kernel":{{"path":"{IMAGES}/guest/vmlinux"}},
        "initramfs":{{"path":"{IMAGES}/guest/initramfs-devices.cpio"}},
        "cmdline":"console=ttyS0 quiet panic=-1 cryptomgr.notests bulkhead.name=net bulkhead.pci",
        "disks":[{{"id":"root","source":{{"path":"{IMAGES}/templates/apps/root.erofs"}},"read_only":true}},
                 {{"id":"probe","source":{{"path":"probe.img"}},"read_only":true}}],
        "console":"stdio",
        "vfio":[{{"address":"CARD","opened":{{"group":8,"container":9}}}}]}}"#
    );
    let guest = "ulimit -l 400000; exec timeout -s KILL 200 setpriv --reuid=1000 --regid=1000 \
         --init-groups bulkhead-vmm run --config config.json";
    let probe = format!("cat /dev/vdb > /tmp/p; chmod +x /tmp/p; /tmp/p {OWN} {SERVER} 65536");
    let script = format!(
        "{CARD} chown 0 /dev/vfio/$group; echo '{config}' | sed s/CARD/$card/ > config.json; \
         exec 8<>/dev/vfio/$group 9<>/dev/vfio/vfio; {start} exec 8>&- 9>&-; {probe} \
         echo '/tmp/p {OWN} {SERVER} 100000000' >&3; sleep 3; pkill -KILL -P $vmm; wait $vmm || true; \
         cat vmm.txt console.txt",
        start = start(guest),
        probe = type_in(&probe, "nic-probe: {"),
    );
    let told = context.root_ok(machine, "descriptors", &script)?;
    check!(
        told.contains("\"echoed\":65536"),
        "the guest did not reach the echo server: {told}"
    );
    Ok(())
}

/// A device of the root bus, which has no way to be reset.
fn without_reset(context: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let rng = "card=$(basename $(readlink -f /sys/bus/virtio/drivers/virtio_rng/virtio*/..)); \
         device=/sys/bus/pci/devices/$card; echo vfio-pci > $device/driver_override; \
         echo $card > $device/driver/unbind; echo $card > /sys/bus/pci/drivers_probe; \
         chown 1000 /dev/vfio/$(basename $(readlink $device/iommu_group));";
    refused(
        context,
        machine,
        "no-reset",
        rng,
        "unlimited",
        &["cannot be reset"],
    )
}

/// Two devices that the IOMMU cannot tell apart, since an old bridge is before them.
fn behind_one_bridge(options: &mut BootOptions) {
    for device in [
        "pcie-root-port,id=oldport,chassis=10,addr=0x1b",
        "pcie-pci-bridge,id=old,bus=oldport",
        "pci-testdev,bus=old,addr=1",
        "pci-testdev,bus=old,addr=2",
    ] {
        add(options, "-device", device);
    }
}

fn with_neighbour(context: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let first = "all=$(grep -l 0x1b36 /sys/bus/pci/devices/*/vendor | xargs -n 1 dirname | \
             while read d; do grep -q 0x0005 $d/device && basename $d || true; done); \
         set -- $all; test $# = 2; card=$1; device=/sys/bus/pci/devices/$card; \
         echo vfio-pci > $device/driver_override; echo $card > /sys/bus/pci/drivers_probe; \
         chown 1000 /dev/vfio/$(basename $(readlink $device/iommu_group));";
    refused(
        context,
        machine,
        "shared-group",
        first,
        "unlimited",
        &["cannot be kept apart from 0000:", "into another slot"],
    )
}

fn given_back(context: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let script = format!(
        "{CARD} echo > $device/driver_override; echo $card > $device/driver/unbind; \
         echo $card > /sys/bus/pci/drivers_probe; nic-probe {OWN} {SERVER} {BYTES}"
    );
    let told = context.root_ok(machine, "given-back", &script)?;
    check!(
        told.contains(&format!("\"echoed\":{BYTES}")),
        "the card on the host again: {told}"
    );
    Ok(())
}

fn without_iommu(context: &OwnHostContext<'_>) -> Outcome {
    let mut options = context.options("no-iommu");
    add(&mut options, "-netdev", NETWORK);
    add(
        &mut options,
        "-device",
        "virtio-net-pci,netdev=nic,disable-legacy=on",
    );
    let machine = Machine::boot(&options)?;
    let words = ["not behind an IOMMU", "intel_iommu=on"];
    refused(context, &machine, "no-iommu", "", "unlimited", &words)?;
    machine.power_off()?;
    Ok(())
}
