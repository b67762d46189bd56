//! The network domain's address on a network that has a router and a DNS server: its clients' packets
//! take the router's way, their questions are asked there, the lease is renewed, lost and got again.
//! The broker takes the card from the host, keeps it, and gives it back.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::link::{PROBE, make_net_domain, port};
use super::nic::{CARD, with_iommu};
use super::outer::{DNS, GIVEN, LEASE_S, NAMED, Outer, ROUTER};
use super::outside::{NET, has_lease, keep_state};
use crate::check;
use crate::e2e::context::Context;
use crate::e2e::own_host::OwnHostContext;
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::machine::Machine;

/// An address that nobody gives.
const FIXED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "net-lease",
    about: "a network domain takes address, router and DNS server by DHCP, renews them, and loses them with the lease",
    run: Place::OwnHost(run),
};

fn run(own: &OwnHostContext<'_>) -> Outcome {
    let folder = tempfile::tempdir()?;
    let outer = Outer::begin(folder.path())?;
    let options = with_iommu(own, &outer.netdev());
    let outcome = own.in_machine(&options, |machine| in_host(own, machine, &outer));
    own.log("seen.txt", format!("{:#?}\n", outer.seen()).as_bytes())?;
    outcome
}

fn in_host(own: &OwnHostContext<'_>, machine: &Machine, outer: &Outer) -> Outcome {
    let context = &Context::new(machine, own.folder());
    let card = own.root_ok(machine, "card", &format!("{CARD} echo $card"))?;
    let device = ["--template", "net", "--pci", card.trim()];
    begin_broker(own, machine)?;
    make_net_domain(context, NET, &device)?;
    // As soon as it belongs to a domain, and not only while that runs.
    card_of_host(context, false)?;
    context.domain("work", "red")?;
    context.host_ok(&["bulkhead", "prefs", "work", "net_domain", NET])?;
    context.host_ok(&["bulkhead", "start", "work"])?;
    let outcome = leased(context, outer)
        .and_then(|()| fixed(context, outer))
        .and_then(|()| given_back(own, machine, context));
    keep_state(context, NET, "nft list ruleset")?;
    outcome
}

fn begin_broker(own: &OwnHostContext<'_>, machine: &Machine) -> Outcome {
    let script = "setsid /usr/lib/bulkhead/bulkhead-broker --user 1000 >> /tmp/broker.log 2>&1 < /dev/null & \
                  for i in $(seq 50); do test -S /run/bulkhead/broker.sock && exit 0; sleep 0.1; done; \
                  cat /tmp/broker.log >&2; exit 1";
    own.root_ok(machine, "broker", script).map(drop)
}

/// Waits until the host has the card's interface, or has not.
fn card_of_host(context: &Context<'_>, wanted: bool) -> Outcome {
    let mut shown = String::new();
    for _ in 0..40 {
        shown = context.host_ok(&["ls", "/sys/class/net"])?;
        if shown.contains("eth0") == wanted {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    Err(Failure::new(format!("the host's interfaces: {shown}")))
}

/// The broker keeps the card when it starts again, while a guest has it; it is the host's again when no
/// domain has it any more, and the guest has ended.
fn given_back(own: &OwnHostContext<'_>, machine: &Machine, context: &Context<'_>) -> Outcome {
    own.root_ok(
        machine,
        "broker-ends",
        "pkill -x bulkhead-broker; rm -f /run/bulkhead/broker.sock; cat /var/lib/bulkhead/devices.json",
    )?;
    begin_broker(own, machine)?;
    card_of_host(context, false)?;
    context.host_ok(&["bulkhead", "prefs", NET, "pci", "-"])?;
    std::thread::sleep(Duration::from_secs(2));
    // Its guest still has it.
    card_of_host(context, false)?;
    context.host_ok(&["bulkhead", "stop", "--force", NET])?;
    card_of_host(context, true)?;
    let log = own.root_ok(machine, "broker-log", "cat /tmp/broker.log")?;
    for word in ["taken from the host", "given back to the host"] {
        check!(
            log.contains(word),
            "the broker does not say `{word}`: {log}"
        );
    }
    Ok(())
}

fn leased(context: &Context<'_>, outer: &Outer) -> Outcome {
    let given = format!("{GIVEN}/24");
    let state = has_lease(context, &given)?;
    check!(
        state["untrusted_gateway"] == ROUTER.to_string()
            && state["untrusted_servers"] == serde_json::json!([DNS.to_string()]),
        "what {NET} was given: {state}"
    );

    // Names are asked of the server that DHCP named, which is behind the router.
    let found = wait("work finds no name", || {
        let found = context.guest("work", &["getent", "ahostsv4", "files.example"])?;
        Ok(Some(found.stdout_text()).filter(|told| !told.is_empty()))
    })?;
    check!(
        found.starts_with(&NAMED.to_string()) && outer.seen().questions > 0,
        "work finds {found}"
    );
    // What work sends there itself arrives at the router with the network domain's address.
    context.install_hostile("work", PROBE)?;
    let probe = format!("/tmp/{PROBE}");
    context.guest("work", &[&probe, "fetch", &NAMED.to_string(), "80"])?;
    let connections = outer.seen().connections.clone();
    check!(
        connections.contains(&(GIVEN, NAMED)),
        "at the router arrived {connections:?}"
    );

    let renewals = outer.seen().renewals;
    wait("the lease is not renewed", || {
        Ok((outer.seen().renewals > renewals + 1).then_some(()))
    })?;
    let state = port(context, NET, "physical")?;
    let left = state["untrusted_lease_left_s"].as_u64();
    check!(
        state["untrusted_address"] == given && left <= Some(LEASE_S.into()),
        "after it was renewed: {state}"
    );

    outer.seen().silent = true;
    wait("the lease does not end", || {
        let state = port(context, NET, "physical")?;
        Ok(state["untrusted_address"].is_null().then_some(()))
    })?;
    outer.seen().silent = false;
    has_lease(context, &given)?;

    check!(
        !outer.seen().names_software,
        "the DHCP server is told which software asks"
    );
    let sources = outer.seen().sources.clone();
    let is_ours = |source: &std::net::Ipv4Addr| source.is_unspecified() || *source == GIVEN;
    check!(
        sources.iter().all(is_ours),
        "on the cable are packets of {sources:?}"
    );
    Ok(())
}

/// A fixed address counts without any DHCP server.
fn fixed(context: &Context<'_>, outer: &Outer) -> Outcome {
    outer.seen().silent = true;
    let address = format!("{FIXED}/24 gateway={ROUTER} dns={DNS}");
    context.host_ok(&["bulkhead", "prefs", NET, "card_address", &address])?;
    context.host_ok(&["bulkhead", "kill", NET])?;
    context.host_ok(&["bulkhead", "start", NET])?;
    has_lease(context, &format!("{FIXED}/24"))?;
    wait("work finds no name with a fixed address", || {
        let found = context.guest("work", &["getent", "ahostsv4", "fixed.example"])?;
        Ok(found
            .stdout_text()
            .starts_with(&NAMED.to_string())
            .then_some(()))
    })?;
    check!(
        outer.seen().sources.contains(&FIXED),
        "nothing came from {FIXED}"
    );
    Ok(())
}

/// Asks until there is an answer, for two minutes.
fn wait<T>(
    otherwise: &str,
    mut ask: impl FnMut() -> Result<Option<T>, Failure>,
) -> Result<T, Failure> {
    for _ in 0..120 {
        if let Some(found) = ask()? {
            return Ok(found);
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    Err(Failure::new(otherwise))
}
