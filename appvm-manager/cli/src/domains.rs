//! `clone`, `rename`, `prefs`, `snapshots`, `revert`.

use std::io::{self, IsTerminal};
use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::args;
use crate::bus::{Dict, domains};
use crate::error::Error;
use crate::manage::{confirmed, text};
use crate::output;

pub async fn clone(args: args::Clone) -> Result<u8, Error> {
    let domains = domains().await?;
    domains
        .clone_domain(args.old.as_str(), args.new.as_str())
        .await?;
    Ok(0)
}

pub async fn rename(args: args::Rename) -> Result<u8, Error> {
    let domains = domains().await?;
    domains
        .rename_domain(args.old.as_str(), args.new.as_str())
        .await?;
    Ok(0)
}

fn value(setting: &Value) -> String {
    match setting {
        Value::Array(_) => output::words(setting),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub async fn prefs(args: args::Prefs) -> Result<u8, Error> {
    let domains = domains().await?;
    let name = args.name.as_str();
    if let (Some(key), Some(value)) = (&args.key, &args.value) {
        let settings = Dict::from([(key.clone(), text(value))]);
        let changes = output::to_json(&domains.set_settings(name, settings).await?);
        if args.json {
            output::json(&changes)?;
        } else {
            changed(&changes).try_for_each(|line| output::line(&line))?;
        }
        return Ok(0);
    }
    let settings = output::to_json(&domains.get_settings(name).await?);
    let Some(key) = &args.key else {
        if args.json {
            output::json(&settings)?;
        } else {
            let rows: Vec<Vec<String>> = settings
                .as_object()
                .into_iter()
                .flatten()
                .map(|(key, setting)| vec![key.clone(), value(setting)])
                .collect();
            output::bytes(output::table(&rows).as_bytes())?;
        }
        return Ok(0);
    };
    let setting = settings.get(key).ok_or_else(|| {
        let known: Vec<&str> = settings
            .as_object()
            .into_iter()
            .flat_map(|all| all.keys())
            .map(String::as_str)
            .collect();
        let known = known.join(", ");
        Error::Other(format!("there is no setting `{key}`; there are {known}"))
    })?;
    if args.json {
        output::json(setting)?;
    } else {
        output::line(&value(setting))?;
    }
    Ok(0)
}

/// What changed or will change, a line each.
pub fn changed(changes: &Value) -> impl Iterator<Item = String> {
    output::strings(&changes["keys"])
        .zip(output::strings(&changes["old"]))
        .zip(output::strings(&changes["new"]))
        .map(|((key, old), new)| format!("{key}: {old} → {new}"))
}

pub async fn snapshots(args: args::Snapshots) -> Result<u8, Error> {
    let snapshots = domains().await?.list_snapshots(args.name.as_str()).await?;
    let snapshots: Vec<Value> = snapshots.iter().map(output::to_json).collect();
    if args.json {
        output::json(&Value::Array(snapshots))?;
        return Ok(0);
    }
    if snapshots.is_empty() {
        output::line(
            "There is no snapshot; one is made at each start once there is something in its home.",
        )?;
        return Ok(0);
    }
    let heading = ["NUMBER", "MADE", "DISK"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for snapshot in &snapshots {
        let taken = Duration::from_secs(snapshot["taken_s"].as_u64().unwrap_or(0));
        let age = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default()
            .saturating_sub(taken);
        rows.push(vec![
            snapshot["number"].to_string(),
            ago(age),
            format!("{} MiB", snapshot["disk_bytes"].as_u64().unwrap_or(0) >> 20),
        ]);
    }
    output::bytes(output::table(&rows).as_bytes())?;
    Ok(0)
}

fn ago(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    match minutes {
        0 => "just now".to_owned(),
        1..120 => format!("{minutes} min ago"),
        120..2880 => format!("{} h ago", minutes / 60),
        _ => format!("{} days ago", minutes / 1440),
    }
}

pub async fn revert(args: args::Revert) -> Result<u8, Error> {
    let domains = domains().await?;
    let name = args.name.as_str();
    if !args.yes {
        // A name that does not exist is said before anything is asked.
        domains.list_snapshots(name).await?;
        if !io::stdin().is_terminal() {
            let text = format!("domain `{name}`: what is in its home now would be lost; say --yes");
            return Err(Error::Other(text));
        }
        if !confirmed(&format!("Lose what is in the home of `{name}` now?"))? {
            return Err(Error::Other(format!("the home of `{name}` stays as it is")));
        }
    }
    let number = domains.revert_domain(name, args.to.unwrap_or(0)).await?;
    output::line(&format!(
        "the home of `{name}` is that of snapshot {number}"
    ))?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_readable() {
        let ago = |seconds| ago(Duration::from_secs(seconds));
        assert_eq!(ago(59), "just now");
        assert_eq!(ago(60), "1 min ago");
        assert_eq!(ago(7199), "119 min ago");
        assert_eq!(ago(7200), "2 h ago");
        assert_eq!(ago(3 * 86400), "3 days ago");
    }
}
