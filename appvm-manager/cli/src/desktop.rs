//! `apps`, `launch`, `windows`, `power`: what the panel and the menu do, for a terminal.

use serde_json::Value;

use crate::args;
use crate::bus::{Dict, manager};
use crate::error::Error;
use crate::manage::field;
use crate::output;

pub async fn apps(args: args::Apps) -> Result<u8, Error> {
    let manager = manager().await?;
    if let Some(name) = &args.name {
        // A name that does not exist is an error, not an empty list.
        manager.get_domain(name.as_str()).await?;
    }
    let apps: Vec<Value> = manager
        .list_applications()
        .await?
        .iter()
        .map(output::to_json)
        .filter(|app| {
            args.name
                .as_ref()
                .is_none_or(|name| app["domain"] == name.as_str())
        })
        .collect();
    if args.json {
        output::json(&Value::Array(apps))?;
        return Ok(0);
    }
    if apps.is_empty() {
        output::line("No domain has an application; `bulkhead list` shows the domains.")?;
        return Ok(0);
    }
    let heading = ["DOMAIN", "LABEL", "APP", "NAME", "WHAT IT IS"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    rows.extend(apps.iter().map(|app| {
        vec![
            field(app, "domain"),
            output::label(&field(app, "label"), &field(app, "colour")),
            field(app, "app"),
            field(app, "name"),
            field(app, "generic_name"),
        ]
    }));
    output::bytes(output::table(&rows).as_bytes())?;
    Ok(0)
}

pub async fn launch(args: args::Launch) -> Result<u8, Error> {
    let options = Dict::from([("disposable".into(), args.disposable.into())]);
    let domain = manager()
        .await?
        .launch_application(args.name.as_str(), &args.app, options)
        .await?;
    output::line(&domain)?;
    Ok(0)
}

pub async fn windows(args: args::Windows) -> Result<u8, Error> {
    let manager = manager().await?;
    if let Some(id) = args.activate {
        manager.activate_window(id).await?;
        return Ok(0);
    }
    if let Some(id) = args.close {
        manager.close_window(id).await?;
        return Ok(0);
    }
    let windows: Vec<Value> = manager
        .list_windows()
        .await?
        .iter()
        .map(output::to_json)
        .collect();
    if args.json {
        output::json(&Value::Array(windows))?;
        return Ok(0);
    }
    if windows.is_empty() {
        output::line("There is no window; `bulkhead launch DOMAIN APP` opens one.")?;
        return Ok(0);
    }
    let heading = ["ID", "DOMAIN", "LABEL", "FOCUS", "TITLE"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    rows.extend(windows.iter().map(|window| {
        vec![
            field(window, "id"),
            field(window, "domain"),
            output::label(&field(window, "label"), &field(window, "colour")),
            if window["focused"] == true { "yes" } else { "" }.to_owned(),
            field(window, "title"),
        ]
    }));
    output::bytes(output::table(&rows).as_bytes())?;
    Ok(0)
}

pub async fn power(args: args::Power) -> Result<u8, Error> {
    let manager = manager().await?;
    match args.what {
        args::PowerAction::Off => manager.power_off().await?,
        args::PowerAction::Reboot => manager.reboot().await?,
    }
    Ok(0)
}
