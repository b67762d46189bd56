//! `net`: who reaches the network through whom.

use serde_json::Value;

use crate::args;
use crate::args::NetAction;
use crate::bus::network;
use crate::error::Error;
use crate::manage::field;
use crate::{output, wifi};

pub async fn net(args: args::Net) -> Result<u8, Error> {
    if let Some(NetAction::Wifi {
        name,
        no_scan,
        action,
    }) = args.action
    {
        return wifi::wifi(&name, action, !no_scan, args.json).await;
    }
    let network = network().await?;
    let ports = network.list_ports().await?;
    let ports: Vec<Value> = ports.iter().map(output::to_json).collect();
    let cards = network.list_physical_cards().await?;
    let mut cards: Vec<Value> = cards.iter().map(output::to_json).collect();
    for card in &mut cards {
        card["kind"] = "physical".into();
    }
    if args.json {
        output::json(&Value::Array([ports, cards].concat()))?;
        return Ok(0);
    }
    if ports.is_empty() {
        output::line(
            "No domain has a network; `bulkhead create sys-net --provides-network` makes one that \
             others may have as net_domain.",
        )?;
        return Ok(0);
    }
    output::bytes(describe(&ports).as_bytes())?;
    if !cards.is_empty() {
        output::bytes(describe_physical(&cards).as_bytes())?;
    }
    Ok(0)
}

/// The ports, for people, and below what is wrong with them.
fn describe(ports: &[Value]) -> String {
    let heading = [
        "DOMAIN", "CARD", "THROUGH", "ADDRESS", "LINK", "SENT", "RECEIVED", "REFUSED", "LOST",
    ];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for port in ports {
        let count = |name: &str| {
            let number = |of: &str| port[format!("{name}_{of}")].as_u64().unwrap_or(0);
            format!("{} ({})", number("frames"), size(number("bytes")))
        };
        rows.push(vec![
            field(port, "domain"),
            field(port, "kind"),
            field(port, "net_domain"),
            field(port, "address"),
            field(port, "state"),
            count("sent"),
            count("received"),
            field(port, "refused"),
            field(port, "lost"),
        ]);
    }
    let mut text = output::table(&rows);
    for port in ports {
        let domain = field(port, "domain");
        for (what, key) in [("refused", "refused_reasons"), ("lost", "lost_reasons")] {
            if output::strings(&port[key]).next().is_some() {
                let reasons = output::words(&port[key]);
                text.push_str(&format!("{domain}: {what}: {reasons}\n"));
            }
        }
        if let Some(problem) = port["problem"].as_str() {
            text.push_str(&format!("{domain}: {problem}\n"));
        }
    }
    text
}

/// The physical cards of network domains, as these say.
fn describe_physical(cards: &[Value]) -> String {
    let heading = [
        "DOMAIN", "DEVICES", "DRIVER", "LINK", "ADDRESS", "GATEWAY", "DNS", "LEASE",
    ];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for card in cards {
        let link = match (&card["runs"], &card["untrusted_carrier"]) {
            (Value::Bool(false), _) => "off",
            (_, Value::Bool(is_up)) if card["untrusted_wireless"] == true => match is_up {
                true => "joined",
                false => "no-network",
            },
            (_, Value::Bool(true)) => "plugged",
            (_, Value::Bool(false)) if card["untrusted_interface"].is_string() => "unplugged",
            (_, Value::Bool(false)) => "no-card",
            _ => "unknown",
        };
        let lease = match card["untrusted_lease_left_s"].as_u64() {
            Some(seconds) if card["untrusted_address"].is_string() => time(seconds),
            _ => "-".to_owned(),
        };
        rows.push(vec![
            field(card, "domain"),
            output::words(&card["devices"]),
            field(card, "untrusted_driver"),
            link.to_owned(),
            field(card, "untrusted_address"),
            field(card, "untrusted_gateway"),
            output::words(&card["untrusted_servers"]),
            lease,
        ]);
    }
    let mut text = format!(
        "\nPhysical cards, as their domains say:\n{}",
        output::table(&rows)
    );
    for card in cards {
        for problem in output::strings(&card["untrusted_problems"]) {
            text.push_str(&format!("{}: {problem}\n", field(card, "domain")));
        }
        if let Some(problem) = card["problem"].as_str() {
            text.push_str(&format!("{}: {problem}\n", field(card, "domain")));
        }
    }
    text
}

/// A time for people.
pub fn time(seconds: u64) -> String {
    match seconds {
        // A lease without an end (RFC 2131, 3.3).
        0xffff_ffff.. => "no end".to_owned(),
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_readable() {
        let ports = [
            json!({"domain": "net", "kind": "trunk", "state": "plugged", "address": "10.137.0.1",
                   "sent_frames": 3, "sent_bytes": 300, "received_frames": 2,
                   "received_bytes": 20_000, "refused": 0, "lost": 0, "refused_reasons": [],
                   "lost_reasons": []}),
            json!({"domain": "work", "kind": "card", "state": "off", "net_domain": "net",
                   "sent_frames": 0, "sent_bytes": 0, "received_frames": 0, "received_bytes": 0,
                   "refused": 4, "lost": 0, "refused_reasons": ["ipv6 1", "source_mac 3"],
                   "lost_reasons": [], "problem": "its network is not set up"}),
        ];
        let expected = "\
DOMAIN  CARD   THROUGH  ADDRESS     LINK     SENT       RECEIVED   REFUSED  LOST
net     trunk  -        10.137.0.1  plugged  3 (300 B)  2 (20 kB)  0        0
work    card   net      -           off      0 (0 B)    0 (0 B)    4        0
work: refused: ipv6 1, source_mac 3
work: its network is not set up
";
        assert_eq!(describe(&ports), expected);
    }

    #[test]
    fn physical_cards_are_readable() {
        let cards = [
            json!({"domain": "net", "devices": ["0000:01:00.0"], "runs": true,
                   "untrusted_interface": "eth1", "untrusted_driver": "e1000e",
                   "untrusted_carrier": true, "untrusted_address": "192.0.2.15/24",
                   "untrusted_gateway": "192.0.2.2", "untrusted_servers": ["192.0.2.3"],
                   "untrusted_lease_left_s": 86_400}),
            json!({"domain": "odd", "devices": ["0000:02:00.0"], "runs": true,
                   "problem": "it says nothing"}),
            json!({"domain": "usb", "devices": ["0000:03:00.0"], "runs": true,
                   "untrusted_carrier": false, "untrusted_servers": [],
                   "untrusted_problems": ["the firmware of 0000:00:05.0 is missing: a.bin"],
                   "untrusted_lease_left_s": 0}),
            json!({"domain": "wifi", "devices": ["0000:04:00.0"], "runs": true,
                   "untrusted_interface": "wlan0", "untrusted_driver": "iwlwifi",
                   "untrusted_wireless": true, "untrusted_carrier": false,
                   "untrusted_servers": [], "untrusted_lease_left_s": 0}),
        ];
        let expected = "
Physical cards, as their domains say:
DOMAIN  DEVICES       DRIVER   LINK        ADDRESS        GATEWAY    DNS        LEASE
net     0000:01:00.0  e1000e   plugged     192.0.2.15/24  192.0.2.2  192.0.2.3  24 h
odd     0000:02:00.0  -        unknown     -              -          -          -
usb     0000:03:00.0  -        no-card     -              -          -          -
wifi    0000:04:00.0  iwlwifi  no-network  -              -          -          -
odd: it says nothing
usb: the firmware of 0000:00:05.0 is missing: a.bin
";
        assert_eq!(describe_physical(&cards), expected);
    }
}
