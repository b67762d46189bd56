//! `firewall`: what a domain may reach.

use serde_json::{Value, json};

use crate::args;
use crate::args::FirewallAction;
use crate::bus::{Dict, domains, network};
use crate::error::Error;
use crate::manage::{field, text};
use crate::output;

pub async fn firewall(args: args::Firewall) -> Result<u8, Error> {
    let name = args.name.as_str();
    let is_change = args.action.is_some();
    match args.action {
        None => {}
        Some(FirewallAction::Add { rule, before }) => {
            let network = network().await?;
            let rule = rule.join(" ");
            let before = before.unwrap_or(0);
            let number = network.add_firewall_rule(name, &rule, before).await?;
            warn_of_nothing(&show(name).await?, number);
        }
        Some(FirewallAction::Remove { numbers }) => {
            let network = network().await?;
            network.remove_firewall_rules(name, &numbers).await?;
        }
        Some(FirewallAction::Reset) => {
            let nothing = [("firewall", "-"), ("firewall_default", "accept")];
            set(name, &nothing).await?;
        }
        Some(FirewallAction::Default { action }) => {
            set(name, &[("firewall_default", &action)]).await?;
        }
        Some(FirewallAction::Log { what }) => set(name, &[("firewall_log", &what)]).await?,
    }
    let firewall = show(name).await?;
    if args.json {
        output::json(&firewall)?;
    } else {
        output::bytes(describe(&firewall).as_bytes())?;
    }
    if is_change {
        settle(name).await?;
    }
    Ok(0)
}

/// Waits until what was changed counts.
async fn settle(name: &str) -> Result<(), Error> {
    let (net, problem) = network().await?.settle_firewall(name).await?;
    if problem.is_empty() {
        return Ok(());
    }
    Err(Error::Other(format!(
        "this is written down, but `{net}` does not do so: {problem}; what it did before may still count. \
         Once it can, `bulkhead firewall {name}` with any change tells it again; \
         `bulkhead kill {net}` cuts `{name}` off"
    )))
}

async fn set(name: &str, settings: &[(&str, &str)]) -> Result<(), Error> {
    let settings: Dict = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), text(value)))
        .collect();
    domains().await?.set_settings(name, settings).await?;
    Ok(())
}

async fn show(name: &str) -> Result<Value, Error> {
    let (rules, rest) = network().await?.get_firewall(name).await?;
    let rules: Vec<Value> = rules.iter().map(output::to_json).collect();
    let mut firewall = output::to_json(&rest);
    firewall["rules"] = json!(rules);
    Ok(firewall)
}

/// Says so where a new rule only allows what all others are allowed anyway.
fn warn_of_nothing(firewall: &Value, number: u32) {
    let rules = firewall["rules"].as_array().map_or(&[][..], Vec::as_slice);
    let (mut rest, mut is_accept) = (rules.iter(), false);
    for rule in rest.by_ref() {
        if rule["number"].as_u64() == Some(number.into()) {
            is_accept = rule["action"] == "accept";
            break;
        }
    }
    let is_open = firewall["default"] == "accept" && rest.all(|rule| rule["action"] == "accept");
    if is_accept && is_open {
        eprintln!(
            "bulkhead: everything that no rule drops is accepted, so this rule changes nothing; \
             `bulkhead firewall {} default drop` changes that",
            field(firewall, "domain")
        );
    }
}

/// For people.
fn describe(firewall: &Value) -> String {
    let mut rows = vec![["NO", "ACTION", "WHAT", "ENDS"].map(String::from).to_vec()];
    for rule in firewall["rules"].as_array().into_iter().flatten() {
        let ends = match (rule["ended"].as_bool(), rule["left_s"].as_u64()) {
            (Some(true), _) => "ended".to_owned(),
            (_, Some(seconds)) => format!("in {}", crate::net::time(seconds)),
            _ => "-".to_owned(),
        };
        rows.push(vec![
            field(rule, "number"),
            field(rule, "action"),
            field(rule, "what"),
            ends,
        ]);
    }
    rows.push(vec![
        "-".to_owned(),
        field(firewall, "default"),
        "everything else".to_owned(),
        "-".to_owned(),
    ]);
    let mut table = output::table(&rows);
    let log = match field(firewall, "log").as_str() {
        "off" => "nothing",
        "all" => "every connection",
        _ => "what it drops",
    };
    let through = match field(firewall, "net_domain").as_str() {
        "-" => "it has no net_domain, so it reaches nothing".to_owned(),
        net => format!("`{net}` applies them and logs {log}"),
    };
    table.push_str(&format!("{}: {through}\n", field(firewall, "domain")));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_readable() {
        let firewall = json!({
            "domain": "work", "net_domain": "sys-net", "default": "drop", "log": "dropped",
            "rules": [
                {"number": 1, "action": "accept", "what": "dsthost=a.org proto=tcp", "ended": false},
                {"number": 2, "action": "drop", "what": "", "ended": false, "left_s": 90},
                {"number": 3, "action": "accept", "what": "comment=x", "ended": true},
            ],
        });
        let expected = "\
NO  ACTION  WHAT                     ENDS
1   accept  dsthost=a.org proto=tcp  -
2   drop    -                        in 90 s
3   accept  comment=x                ended
-   drop    everything else          -
work: `sys-net` applies them and logs what it drops
";
        assert_eq!(describe(&firewall), expected);
    }
}
