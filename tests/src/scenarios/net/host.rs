//! Laptop mode: a network domain without a physical card goes out by passt, on a host that keeps its
//! own network. The host's services stay out of its reach.
//!
//! The host has an ordinary card here, on QEMU's user network, which leads nowhere but to a file that
//! the test serves. Its server for names is a program of the test on its loopback.

use std::time::Duration;

use super::link::{PROBE, make_net_domain};
use super::nic::add;
use super::outside::{SERVER, arrives, has_lease_of, keep_state, served};
use crate::check;
use crate::e2e::context::Context;
use crate::e2e::own_host::OwnHostContext;
use crate::e2e::{Outcome, Place, Scenario};
use crate::machine::Machine;

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-host",
    about: "laptop mode: a network domain goes out by passt, and reaches nothing of the host itself",
    run: Place::OwnHost(run),
};

const NET: &str = "sys-host";
/// The host's own address.
const HOST: &str = "10.0.2.15";
/// Where something of the host's listens, at every address.
const HOST_PORT: &str = "7000";
const NAME: &str = "files.test";

fn run(own: &OwnHostContext<'_>) -> Outcome {
    let network = served(own.folder())?;
    let mut options = own.options("host");
    add(&mut options, "-netdev", &network);
    add(&mut options, "-device", "virtio-net-pci,netdev=nic");
    own.in_machine(&options, |machine| in_host(own, machine))
}

fn in_host(own: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let context = &Context::new(machine, own.folder());
    let begin = |arguments: String| {
        format!("setsid /usr/lib/bulkhead/net-probe {arguments} > /dev/null 2>&1 < /dev/null &")
    };
    let names = begin(format!("names {SERVER} 127.0.0.1"));
    let service = begin(format!("serve {HOST_PORT} /etc/passwd"));
    let script = format!(
        "set -e; card=$(basename $(ls -d /sys/class/net/e*)); ip link set $card up; \
         ip address add {HOST}/24 dev $card; ip route add default via 10.0.2.2; \
         echo nameserver 127.0.0.1 > /etc/resolv.conf; {names} {service} sleep 1"
    );
    own.root_ok(machine, "network", &script)?;
    make_net_domain(context, NET, &["--template", "net"])?;
    context.domain("work", "red")?;
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", NET])?;
    refused(own, machine, context)?;

    context.host_ok(&["bulkhead", "start", "work"])?;
    let outcome = outside(context);
    keep_state(context, NET, "nft list ruleset")?;
    outcome
}

/// One way out is enough, and passt must be there.
fn refused(own: &OwnHostContext<'_>, machine: &Machine, context: &Context<'_>) -> Outcome {
    let way_out = |domain| ["bulkhead", "prefs", domain, "host_network", "yes"];
    context.host_fails(&way_out("work"), "is for network domains")?;
    context.host_ok(&way_out(NET))?;
    let hide = "mv $(command -v passt) /tmp/passt-away";
    own.root_ok(machine, "hide", hide)?;
    context.host_fails(&["bulkhead", "start", NET], "the package `passt` has it")?;
    own.root_ok(machine, "show", "mv /tmp/passt-away /usr/bin/passt")
        .map(drop)
}

fn outside(context: &Context<'_>) -> Outcome {
    has_lease_of(context, NET, &format!("{HOST}/24"))?;
    context.install_hostile("work", PROBE)?;
    arrives(context, "work")?;
    let mut told = String::new();
    for _ in 0..20 {
        told = context
            .guest("work", &["getent", "ahostsv4", NAME])?
            .stdout_text();
        if told.starts_with(SERVER) {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    check!(told.starts_with(SERVER), "{NAME} is not found: {told}");
    not_the_host(context)?;

    // passt ends, and is started again; so is what is between it and the card.
    for program in ["passt", "bulkhead-uplink"] {
        // passt may call itself otherwise (passt.avx2).
        context.host_ok(&["sh", "-c", &format!("kill -9 $(pgrep {program})")])?;
        let mut result = Ok(());
        for _ in 0..10 {
            std::thread::sleep(Duration::from_secs(1));
            result = arrives(context, "work");
            if result.is_ok() {
                break;
            }
        }
        result?;
    }
    let running = context.host_ok(&["pgrep", "-c", "passt"])?;
    check!(running.trim() == "1", "{running} passt run");
    context.host_ok(&["bulkhead", "stop", NET, "--force"])?;
    let left = context.host(&["pgrep", "-l", "passt|bulkhead-uplin"])?;
    check!(left.status != 0, "left of {NET}: {}", left.stdout_text());
    Ok(())
}

/// Neither by its address nor by that of its router is a service of the host's reached.
fn not_the_host(context: &Context<'_>) -> Outcome {
    let here = context.host(&["sh", "-c", &format!("ss -ltn | grep -q :{HOST_PORT}")])?;
    check!(here.status == 0, "the host serves nothing at {HOST_PORT}");
    for domain in ["work", NET] {
        let probe = context.install_hostile(domain, PROBE)?;
        for address in [HOST, "10.0.2.2", "169.254.1.1", "127.0.0.1"] {
            let output = context.guest(domain, &[&probe, "fetch", address, HOST_PORT])?;
            check!(
                output.status != 0 || output.stdout.is_empty(),
                "{domain} reaches the host's service at {address}: {}",
                output.stdout_text()
            );
        }
    }
    Ok(())
}
