//! A network domain with a wireless card: its user sees networks, joins one with its passphrase, and
//! other domains reach the outside through it, also after it has started again.
//!
//! The radios are the kernel's own in software (mac80211_hwsim), inside the network domain: one is its
//! card, the other an access point of the test, in a network of its own. The physical device that such
//! a domain must have is one that has nothing to do with it.

use std::fmt::Write;
use std::time::Duration;

use bulkhead_image::Layout;
use bulkhead_image::modules::{ModuleTree, resolve};
use bulkhead_image::recipe::{self, GuestRecipe};
use serde_json::Value;

use super::capture::as_root;
use super::link::{PORT, PROBE, fetch, make_net_domain, port};
use super::nic::{add, with_port};
use super::outside::keep_state;
use crate::check;
use crate::e2e::context::{Context, Output};
use crate::e2e::own_host::OwnHostContext;
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::Machine;

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-wifi",
    about: "a network domain joins a wireless network with its passphrase, and others reach the outside through it",
    run: Place::OwnHost(run),
};

const NET: &str = "sys-net";
const SSID: &str = "Bulkhead upstairs";
const PASSPHRASE: &str = "right as rain";
/// A second network, whose name would change a terminal's colour: for hostapd, and as it is shown.
const ODD: &str = "\\x1b[31mred";
const ODD_NAME: &str = "\u{1b}[31mred";
/// Where a file is served, behind the access point.
const SERVER: &str = "198.51.100.7";
/// What kernels load for wireless cards whoever made them, and the radios.
const MODULES: [&str; 8] = [
    "ccm",
    "cmac",
    "des_generic",
    "gcm",
    "ghash-generic",
    "algif_hash",
    "algif_skcipher",
    "mac80211",
];
const RADIOS: &str = "mac80211_hwsim";
/// Shell words: the device that is given away, which the host has no use for.
const GIVE: &str = "set -e; device=$(for d in /sys/bus/pci/devices/*; do \
        test \"$(cat $d/vendor $d/device | tr -d '\\n')\" = 0x1af40x1048 && echo $d || true; done); \
    test -n \"$device\"; card=$(basename $device); echo vfio-pci > $device/driver_override; \
    echo $card > $device/driver/unbind; echo $card > /sys/bus/pci/drivers_probe; \
    chown 1000 /dev/vfio/$(basename $(readlink $device/iommu_group)); echo $card";

fn run(own: &OwnHostContext<'_>) -> Outcome {
    let mut options = with_port(own);
    let device = "virtio-scsi-pci,bus=nicport,disable-legacy=on,iommu_platform=on";
    add(&mut options, "-device", device);
    own.in_machine(&options, |machine| in_host(own, machine))
}

fn in_host(own: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let context = &Context::new(machine, own.folder());
    let card = own.root_ok(machine, "give", GIVE)?;
    let device = ["--template", "net-wifi", "--pci", card.trim()];
    make_net_domain(context, NET, &device)?;
    context.domain("work", "red")?;
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", NET])?;
    bring_radios(machine)?;
    context.host_ok(&["bulkhead", "start", "work"])?;
    context.install_hostile("work", PROBE)?;
    let outcome = wireless(context);
    let more =
        "ls -l /home/iwd; ps ax; cat /tmp/radio/access-point.log /run/bulkhead-net/wanted.json";
    keep_state(context, NET, more)?;
    outcome
}

/// Puts the modules of the guests' kernel that make radios where the host has them.
fn bring_radios(machine: &Machine) -> Outcome {
    let layout = Layout::of_this_workspace();
    let recipe: GuestRecipe = recipe::read(&layout.recipes().join("guest.toml")).map_err(wrong)?;
    let mut names: Vec<String> = MODULES.map(str::to_owned).to_vec();
    for name in &names {
        check!(
            recipe.wireless_modules.contains(name),
            "{name} is none of the guests' modules"
        );
    }
    names.push(RADIOS.to_owned());
    let kernels = layout
        .cache()
        .join(format!("kernel-{}/modules", recipe.suite));
    let kernel = std::fs::read_dir(&kernels)?
        .next()
        .ok_or_else(|| Failure::new(format!("no kernel in {}", kernels.display())))??;
    let tree = ModuleTree::open(&kernel.path()).map_err(wrong)?;
    let folder = machine.out().join("radio");
    std::fs::create_dir_all(&folder)?;
    let modules = resolve(&tree, &names).map_err(wrong)?;
    for (number, module) in modules.iter().enumerate() {
        // As a guest's initramfs has them.
        let (path, content) = tree.as_it_is(&module.path).map_err(wrong)?;
        let name = path.rsplit('/').next().unwrap_or_default();
        std::fs::write(folder.join(format!("{number:03}-{name}")), content)?;
    }
    Ok(())
}

/// Makes the radios and the access point in the network domain, which has just started, and lets it
/// look for its card. The checksum of what is served behind it.
fn radios(context: &Context<'_>) -> Result<String, Failure> {
    context.install_hostile(NET, PROBE)?;
    let mut bring = String::from(
        "mkdir -p /tmp/radio && cd /tmp/radio && cp /out/radio/* . && for f in /usr/sbin/hostapd /usr/sbin/iw",
    );
    let _ = write!(
        bring,
        " /usr/lib/*/libnl-*.so.* /usr/lib/*/libssl.so.3 /usr/lib/*/libcrypto.so.3; do \
         cp -L $f . || exit 1; done; tar -c . | bulkhead run --root {NET} -- sh -c \
         'mkdir -p /tmp/radio && tar -x -C /tmp/radio --no-same-owner'"
    );
    context.host_ok(&["sh", "-c", &bring])?;
    let script = include_str!("access-point.sh")
        .replace("@SSID@", SSID)
        .replace("@PASSPHRASE@", PASSPHRASE)
        .replace("@ODD@", ODD)
        .replace("@SERVER@", SERVER)
        .replace("@PORT@", PORT);
    let sum = as_root(context, NET, &script)?;
    let sum = sum.lines().last().unwrap_or_default();
    // It is told of its network anew, and finds its card.
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", "-"])?;
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", NET])?;
    for _ in 0..60 {
        if port(context, NET, "physical")?["untrusted_wireless"] == true {
            return Ok(format!("{sum}\n"));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    let state = port(context, NET, "physical")?;
    Err(Failure::new(format!("{NET} finds no card: {state}")))
}

/// `bulkhead net wifi` with this passphrase on its standard input.
fn wifi(context: &Context<'_>, words: &[&str], passphrase: &str) -> Result<Output, Failure> {
    let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
    let command = format!(
        "printf '{passphrase}\\n' | bulkhead net wifi {NET} --json {}",
        words.join(" ")
    );
    context.host(&["sh", "-c", &command])
}

fn wifi_ok(context: &Context<'_>, words: &[&str], passphrase: &str) -> Result<Value, Failure> {
    let output = wifi(context, words, passphrase)?;
    check!(
        output.status == 0,
        "{words:?} says: {}",
        output.stderr_text()
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn wrong(error: impl std::fmt::Display) -> Failure {
    Failure::new(error.to_string())
}

fn network<'a>(state: &'a Value, name: &str) -> Result<&'a Value, Failure> {
    let found = state["networks"].as_array().into_iter().flatten();
    let mut found = found.filter(|network| network["untrusted_name"] == name);
    found
        .next()
        .ok_or_else(|| Failure::new(format!("{name:?} is not among them: {state}")))
}

fn refused(context: &Context<'_>, words: &[&str], passphrase: &str, expected: &str) -> Outcome {
    let output = wifi(context, words, passphrase)?;
    let told = output.stderr_text();
    check!(
        output.status == 1 && told.contains(expected),
        "{words:?} says (status {}): {told}",
        output.status
    );
    Ok(())
}

/// Waits until the domain says that it has an address, or none.
fn leased(context: &Context<'_>, is_leased: bool) -> Result<Value, Failure> {
    let mut state = Value::Null;
    for _ in 0..80 {
        state = port(context, NET, "physical")?;
        let address = state["untrusted_address"].as_str().unwrap_or_default();
        if address.starts_with("192.0.2.") == is_leased {
            return Ok(state);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    Err(Failure::new(format!("leased is not {is_leased}: {state}")))
}

fn arrives(context: &Context<'_>, sum: &str) -> Outcome {
    for _ in 0..10 {
        if let Some(found) = fetch(context, "work", SERVER)? {
            check!(found == sum, "work got something else");
            return Ok(());
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Err(Failure::new(format!("work does not reach {SERVER}")))
}

fn wireless(context: &Context<'_>) -> Outcome {
    refused(context, &[], "", "no wireless card that works")?;
    let sum = radios(context)?;

    let state = wifi_ok(context, &[], "")?;
    let seen = network(&state, SSID)?;
    check!(
        state["untrusted_link"] == "disconnected"
            && seen["untrusted_security"] == "passphrase"
            && seen["untrusted_known"] == false
            && seen["untrusted_signal_dbm"]
                .as_i64()
                .is_some_and(|dbm| dbm < 0),
        "what is in reach: {state}"
    );
    // What is shown has nothing that a terminal would obey.
    let odd = network(&state, ODD_NAME)?;
    let shown = odd["untrusted_ssid"].as_str().unwrap_or_default();
    check!(
        odd["untrusted_security"] == "open" && !shown.is_empty() && !shown.contains('\u{1b}'),
        "a network's odd name is shown as {odd}"
    );

    let connect = ["connect", SSID];
    refused(
        context,
        &connect,
        "wrong as rain",
        "the passphrase is wrong",
    )?;
    refused(context, &connect, "short", "a passphrase has 8 to 63")?;
    let nowhere = ["connect", "nowhere", "--passphrase-file", "/dev/stdin"];
    refused(context, &nowhere, PASSPHRASE, "in reach")?;
    let state = wifi_ok(context, &["--no-scan"], "")?;
    check!(
        network(&state, SSID)?["untrusted_known"] == false,
        "a network is known by a wrong passphrase: {state}"
    );

    let state = wifi_ok(context, &connect, PASSPHRASE)?;
    let joined = network(&state, SSID)?;
    check!(
        joined["untrusted_connected"] == true && joined["untrusted_known"] == true,
        "after joining: {state}"
    );
    let state = leased(context, true)?;
    check!(
        state["untrusted_driver"] == RADIOS
            && state["untrusted_wireless"] == true
            && state["untrusted_carrier"] == true
            && state["untrusted_gateway"] == "192.0.2.1",
        "the card's state: {state}"
    );
    arrives(context, &sum)?;
    let told = context.host_ok(&["bulkhead", "net", "wifi", NET, "--no-scan"])?;
    context.log("wifi.txt", told.as_bytes())?;

    // It leaves, and comes back with what it knows.
    wifi_ok(context, &["disconnect"], "")?;
    leased(context, false)?;
    wifi_ok(context, &connect, "")?;
    leased(context, true)?;

    // It starts again, and joins by itself.
    context.host_ok(&["bulkhead", "stop", NET, "--force"])?;
    context.host_ok(&["bulkhead", "start", NET])?;
    let sum = radios(context)?;
    leased(context, true)?;
    arrives(context, &sum)?;

    let state = wifi_ok(context, &["forget", SSID], "")?;
    leased(context, false)?;
    check!(
        network(&state, SSID)?["untrusted_known"] == false,
        "a forgotten network is known: {state}"
    );
    at_a_terminal(context)?;
    firmware(context)?;
    secret(context)
}

/// A person is asked for the passphrase, which the terminal does not show.
fn at_a_terminal(context: &Context<'_>) -> Outcome {
    let script = format!(
        "cd /tmp; (for i in $(seq 300); do grep -qs 'Passphrase of' shown && break; sleep 0.1; done; \
         sleep 0.5; printf '{PASSPHRASE}\\r') | \
         script -qefc \"bulkhead net wifi {NET} connect '{SSID}'\" shown > /dev/null; \
         status=$?; cat shown; exit $status"
    );
    let shown = context.host_ok(&["sh", "-c", &script])?;
    check!(
        shown.contains(&format!("Passphrase of {SSID}:")) && !shown.contains(PASSPHRASE),
        "the terminal shows: {shown}"
    );
    leased(context, true).map(drop)
}

/// A driver that asks for firmware in vain is told of, by its own words in the kernel's log.
fn firmware(context: &Context<'_>) -> Outcome {
    let message = "<4>iwlwifi 0000:00:05.0: Direct firmware load for iwlwifi-cc-a0-77.ucode failed with error -2";
    as_root(context, NET, &format!("echo '{message}' > /dev/kmsg"))?;
    let told = context.host_ok(&["bulkhead", "net"])?;
    let expected =
        format!("{NET}: the firmware of 0000:00:05.0 is missing: iwlwifi-cc-a0-77.ucode");
    check!(told.contains(&expected), "missing firmware: {told}");
    Ok(())
}

/// Nobody wrote the passphrase into a log.
fn secret(context: &Context<'_>) -> Outcome {
    let log = context.host_ok(&["bulkhead", "log", NET])?;
    let session = context.host_ok(&["cat", "/out/session.log"])?;
    check!(
        !log.contains(PASSPHRASE) && !session.contains(PASSPHRASE),
        "the passphrase is in a log"
    );
    Ok(())
}
