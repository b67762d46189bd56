//! `create`, `list`, `info`, `start`, `stop`, `kill`, `remove`.

use std::io::{self, BufRead, IsTerminal, Write};

use serde_json::Value;
use zbus::{OwnedVariant, Str};

use crate::args;
use crate::bus::{Dict, manager};
use crate::error::Error;
use crate::output;

pub fn text(value: &str) -> OwnedVariant {
    OwnedVariant::from(Str::from(value.to_owned()))
}

pub async fn create(args: args::Create) -> Result<u8, Error> {
    let manager = manager().await?;
    let name = args.name.as_str();
    let mut settings = Dict::from([
        ("label".into(), text(args.label.name())),
        ("template".into(), text(args.template.as_str())),
        ("kind".into(), text(&args.kind)),
    ]);
    if args.autostart {
        settings.insert("autostart".into(), text("yes"));
    }
    if !args.tag.is_empty() {
        settings.insert("tags".into(), text(&args.tag.join(",")));
    }
    if let Some(model) = &args.default_disposable {
        settings.insert("default_disposable".into(), text(model.as_str()));
    }
    if args.provides_network {
        settings.insert("provides_network".into(), text("yes"));
    }
    if let Some(net) = &args.net_domain {
        settings.insert("net_domain".into(), text(net.as_str()));
    }
    if !args.pci.is_empty() {
        settings.insert("pci".into(), text(&args.pci.join(",")));
    }
    let numbers = [
        ("memory_mib", args.memory),
        ("cpus", args.cpus),
        ("home_size_mib", args.home_size),
    ];
    for (key, value) in numbers {
        if let Some(value) = value {
            settings.insert(key.into(), value.into());
        }
    }
    manager.create_domain(name, settings).await?;
    if args.json {
        output::json(&output::to_json(&manager.get_domain(name).await?))?;
    }
    Ok(0)
}

fn snapshots_kept(domain: &Value) -> String {
    match domain["snapshot_problem"].as_str() {
        Some(problem) => format!("none at the last start: {problem}"),
        None => format!("the last {}", field(domain, "snapshots")),
    }
}

fn network(domain: &Value) -> String {
    let through = match field(domain, "net_domain").as_str() {
        "-" => "none".to_owned(),
        net => format!("through {net}"),
    };
    match field(domain, "provides_network").as_str() {
        "yes" => format!("{through}; it provides network for others"),
        _ => through,
    }
}

/// A value for people.
pub fn field(domain: &Value, key: &str) -> String {
    match &domain[key] {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() && key != "detail" => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub async fn list(args: args::List) -> Result<u8, Error> {
    let domains = manager().await?.list_domains().await?;
    let domains: Vec<Value> = domains.iter().map(output::to_json).collect();
    if args.json {
        output::json(&Value::Array(domains))?;
        return Ok(0);
    }
    if domains.is_empty() {
        output::line("There is no domain yet; `bulkhead create work --label red` makes one.")?;
        return Ok(0);
    }
    let heading = [
        "NAME", "LABEL", "STATE", "TEMPLATE", "MEMORY", "CPUS", "DISK",
    ];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for domain in &domains {
        let memory = domain["memory_mib"]
            .as_u64()
            .map_or("-".into(), |mib| format!("{mib} MiB"));
        let disk = domain["disk_bytes"].as_u64().unwrap_or(0) >> 20;
        let broken = domain["error"].is_string();
        rows.push(vec![
            field(domain, "name"),
            output::label(&field(domain, "label"), &field(domain, "colour")),
            if broken {
                "broken file".to_owned()
            } else {
                field(domain, "state")
            },
            field(domain, "template"),
            memory,
            field(domain, "cpus"),
            format!("{disk} MiB"),
        ]);
    }
    output::bytes(output::table(&rows).as_bytes())?;
    Ok(0)
}

pub async fn info(args: args::Info) -> Result<u8, Error> {
    let domain = output::to_json(&manager().await?.get_domain(args.name.as_str()).await?);
    if args.json {
        output::json(&domain)?;
        return Ok(0);
    }
    let mib = |key: &str| {
        domain[key]
            .as_u64()
            .map_or("-".to_owned(), |mib| format!("{mib} MiB"))
    };
    let state = match field(&domain, "detail").as_str() {
        "" | "-" => field(&domain, "state"),
        detail => format!("{} ({detail})", field(&domain, "state")),
    };
    let mut rows = vec![
        ("Name", field(&domain, "name")),
        (
            "Label",
            output::label(&field(&domain, "label"), &field(&domain, "colour")),
        ),
        ("State", state),
        ("Kind", field(&domain, "kind")),
        ("Template", field(&domain, "template")),
        ("Autostart", field(&domain, "autostart")),
        ("Memory", mib("memory_mib")),
        ("Processors", field(&domain, "cpus")),
        (
            "Home",
            match domain["kind"].as_str() {
                Some("disposable" | "named-disposable") => {
                    format!("{}, forgotten at the end", mib("home_size_mib"))
                }
                _ => format!(
                    "{}, {} MiB on disk",
                    mib("home_size_mib"),
                    domain["disk_bytes"].as_u64().unwrap_or(0) >> 20
                ),
            },
        ),
        ("Snapshots", snapshots_kept(&domain)),
        ("Tags", output::words(&domain["tags"])),
        ("Disposables of", field(&domain, "default_disposable")),
        ("Network", network(&domain)),
        ("PCI devices", output::words(&domain["pci"])),
        ("File", field(&domain, "file")),
    ];
    if domain["pid"].is_i64() || domain["pid"].is_u64() {
        rows.push(("Process", field(&domain, "pid")));
    }
    if domain["error"].is_string() {
        rows.push(("Error", field(&domain, "error")));
    }
    let rows: Vec<_> = rows
        .into_iter()
        .map(|(key, value)| vec![format!("{key}:"), value])
        .collect();
    output::bytes(output::table(&rows).as_bytes())?;
    Ok(0)
}

pub async fn start(args: args::Start) -> Result<u8, Error> {
    manager().await?.start_domain(args.name.as_str()).await?;
    Ok(0)
}

pub async fn stop(args: args::Stop) -> Result<u8, Error> {
    let timeout_ms = args.timeout.unwrap_or(0) * 1000;
    let (manager, name) = (manager().await?, args.name.as_str());
    match args.force {
        true => manager.force_stop_domain(name, timeout_ms).await?,
        false => manager.stop_domain(name, timeout_ms).await?,
    }
    Ok(0)
}

pub async fn kill(args: args::Kill) -> Result<u8, Error> {
    manager().await?.kill_domain(args.name.as_str()).await?;
    Ok(0)
}

/// Asks the person at the terminal.
pub fn confirmed(question: &str) -> Result<bool, Error> {
    eprint!("{question} [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Error::Io("read", error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

pub async fn remove(args: args::Remove) -> Result<u8, Error> {
    let manager = manager().await?;
    let name = args.name.as_str();
    // A name that does not exist is said before anything is asked.
    manager.get_domain(name).await?;
    if !args.yes {
        if !io::stdin().is_terminal() {
            let text = format!("domain `{name}`: removing deletes its home; say --yes");
            return Err(Error::Other(text));
        }
        if !confirmed(&format!(
            "Remove domain `{name}` and everything in its home?"
        ))? {
            return Err(Error::Other(format!("domain `{name}` stays")));
        }
    }
    if args.force {
        match manager.kill_domain(name).await.map_err(Error::from) {
            Err(Error::Manager { name, .. }) if name.ends_with(".NotRunning") => {}
            result => result?,
        }
    }
    manager.remove_domain(name).await?;
    Ok(0)
}
