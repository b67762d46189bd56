//! `ask` and `transfers`: calls between domains.

use bulkhead_transfer::meter::size;
use serde_json::Value;

use crate::args::{self, AskCommand};
use crate::bus::calls;
use crate::error::Error;
use crate::manage::field;
use crate::output;

pub async fn ask(args: args::Ask) -> Result<u8, Error> {
    let calls = calls().await?;
    match args.command {
        AskCommand::Allow { id, target } => {
            calls.allow_ask(id, &target.unwrap_or_default()).await?;
        }
        AskCommand::Deny { id } => calls.deny_ask(id).await?,
        AskCommand::List { json } => {
            let asks = calls.list_asks().await?;
            let asks: Vec<Value> = asks.iter().map(output::to_json).collect();
            if json {
                output::json(&Value::Array(asks))?;
            } else if asks.is_empty() {
                output::line("No domain waits for an answer.")?;
            } else {
                for ask in &asks {
                    output::bytes(question(ask).as_bytes())?;
                }
            }
        }
    }
    Ok(0)
}

/// A question with all that belongs to it.
fn question(ask: &Value) -> String {
    let (id, source) = (number(ask, "id"), field(ask, "source"));
    let service = field(ask, "service");
    let mut text = format!("{id}: {source} wants {service}\n");
    let files = words(ask, "files");
    if !files.is_empty() {
        text += &format!("   of {} in all:\n", size(number(ask, "bytes")));
        for file in files {
            text += &format!("     {file}\n");
        }
    }
    let (targets, default) = (words(ask, "targets"), field(ask, "default"));
    text += &format!("   to one of: {}", targets.join(", "));
    if !default.is_empty() {
        text += &format!(" (suggested: {default})");
    }
    text += &format!("\n   bulkhead ask allow {id} --target TARGET, or bulkhead ask deny {id}\n");
    text
}

pub async fn transfers(args: args::Transfers) -> Result<u8, Error> {
    let records = calls().await?.list_calls(args.lines).await?;
    let records: Vec<Value> = records.iter().map(output::to_json).collect();
    if args.json {
        output::json(&Value::Array(records))?;
        return Ok(0);
    }
    if records.is_empty() {
        output::line("Nothing has crossed between domains yet.")?;
        return Ok(0);
    }
    let heading = [
        "WHEN", "FROM", "TO", "SERVICE", "SENT", "VERDICT", "WHAT", "RULE",
    ];
    let mut rows = vec![heading.map(String::from).to_vec()];
    rows.extend(records.iter().map(|record| {
        let target = match field(record, "target") {
            target if target.is_empty() => field(record, "wanted"),
            target => target,
        };
        let files = words(record, "files").join(", ");
        let what = match (files, field(record, "detail")) {
            (files, detail) if detail.is_empty() => files,
            (files, detail) if files.is_empty() => detail,
            (files, detail) => format!("{files}: {detail}"),
        };
        vec![
            field(record, "time"),
            field(record, "source"),
            target,
            field(record, "service"),
            size(number(record, "sent_bytes")),
            field(record, "verdict"),
            what,
            field(record, "rule"),
        ]
    }));
    output::bytes(output::table(&rows).as_bytes())?;
    Ok(0)
}

fn number(dict: &Value, key: &str) -> u64 {
    dict.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn words(dict: &Value, key: &str) -> Vec<String> {
    let words = dict.get(key).and_then(Value::as_array);
    let words = words.into_iter().flatten().filter_map(Value::as_str);
    words.map(str::to_owned).collect()
}
