//! `apply`: shows the manager's plan, asks, and lets it be carried out.

use std::io::{self, IsTerminal};
use std::path::Path;

use serde_json::{Value, json};

use crate::args;
use crate::bus::{Dict, domains};
use crate::domains::changed;
use crate::error::Error;
use crate::manage::{confirmed, field};
use crate::output;

/// The plan was only shown.
const ONLY_SHOWN: u8 = 3;
/// What is longer is no description of domains; the manager says the same.
const MAX_BYTES: u64 = 1024 * 1024;

pub async fn apply(args: args::Apply) -> Result<u8, Error> {
    let files: Vec<(String, String)> = args
        .files
        .iter()
        .map(|file| read(file))
        .collect::<Result<_, _>>()?;
    let domains = domains().await?;
    let options = || Dict::from([("prune".into(), args.prune.into())]);
    let (id, steps) = domains.plan(&files, options()).await?;
    let steps: Vec<Value> = steps.iter().map(output::to_json).collect();
    let to_do = steps.iter().any(|step| step["action"] != "unchanged");
    let ask = to_do && !args.yes && io::stdin().is_terminal();
    if !args.json {
        output::bytes(describe(&steps).as_bytes())?;
    }
    let carry_out = to_do && (args.yes || (ask && confirmed("Do this?")?));
    if carry_out {
        domains.apply(&files, options(), &id).await?;
    }
    if args.json {
        output::json(&json!({ "applied": carry_out, "steps": steps }))?;
    }
    match (to_do, carry_out) {
        (true, false) => {
            if !ask {
                eprintln!("bulkhead: nothing was changed; say --yes to do this");
            }
            Ok(ONLY_SHOWN)
        }
        _ => Ok(0),
    }
}

fn read(file: &Path) -> Result<(String, String), Error> {
    let wrong = |reason: String| Error::Other(format!("{}: {reason}", file.display()));
    let length = std::fs::metadata(file)
        .map_err(|error| wrong(error.to_string()))?
        .len();
    if length > MAX_BYTES {
        return Err(wrong(format!(
            "{length} bytes are too many for a description"
        )));
    }
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    Ok((file.display().to_string(), text))
}

/// The plan, for people.
fn describe(steps: &[Value]) -> String {
    let mut rows = Vec::new();
    for step in steps {
        let mut details: Vec<String> = match step["action"].as_str() {
            Some("create") => output::strings(&step["keys"])
                .zip(output::strings(&step["new"]))
                .map(|(key, new)| format!("{key}: {new}"))
                .collect(),
            Some("remove") => vec!["and everything in its home".to_owned()],
            _ => changed(step).collect(),
        };
        if step["running"] == true && step["action"] == "change" {
            details.push("(it runs: from its next start)".to_owned());
        }
        let mut details = details.into_iter();
        rows.push(vec![
            field(step, "action"),
            field(step, "domain"),
            details.next().unwrap_or_default(),
        ]);
        rows.extend(details.map(|detail| vec![String::new(), String::new(), detail]));
    }
    if rows.is_empty() {
        return "The files describe no domain.\n".to_owned();
    }
    output::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_readable() {
        let steps = [
            json!({"action": "create", "domain": "bank", "running": false,
                   "keys": ["label", "cpus"], "old": ["gray", "2"], "new": ["green", "1"]}),
            json!({"action": "change", "domain": "work", "running": true,
                   "keys": ["memory_mib"], "old": ["512"], "new": ["1024"]}),
            json!({"action": "unchanged", "domain": "web", "running": true,
                   "keys": [], "old": [], "new": []}),
            json!({"action": "remove", "domain": "old", "running": false,
                   "keys": [], "old": [], "new": []}),
        ];
        let expected = "\
create     bank  label: green
                 cpus: 1
change     work  memory_mib: 512 → 1024
                 (it runs: from its next start)
unchanged  web
remove     old   and everything in its home
";
        assert_eq!(describe(&steps), expected);
    }
}
