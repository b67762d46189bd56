//! `bulkhead template …`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use bulkhead_protocol::DomainName;
use serde_json::Value;

use crate::args::{self, TemplateCommand};
use crate::bus::{Dict, ManagerProxy, manager};
use crate::error::Error;
use crate::manage::{field, text};
use crate::output;
use crate::session::program;

/// Builds a template; it comes with the image builder.
const BUILDER: &str = "bulkhead-template-build";

pub async fn template(args: args::Template) -> Result<u8, Error> {
    match args.command {
        TemplateCommand::List { json } => list(json).await?,
        TemplateCommand::Import {
            path,
            name,
            replace,
        } => import(&manager().await?, &path, name.as_ref(), replace).await?,
        TemplateCommand::Build {
            file,
            name,
            replace,
        } => build(&file, name, replace).await?,
        TemplateCommand::Remove { name } => manager().await?.remove_template(name.as_str()).await?,
    }
    Ok(0)
}

async fn list(json: bool) -> Result<(), Error> {
    let templates = manager().await?.list_templates().await?;
    let templates: Vec<Value> = templates.iter().map(output::to_json).collect();
    if json {
        return output::json(&Value::Array(templates));
    }
    if templates.is_empty() {
        return output::line(
            "There is no template; `bulkhead template build FILE.toml` makes one.",
        );
    }
    let heading = ["NAME", "ORIGIN", "SIZE", "APPS", "USED BY", "DESCRIPTION"];
    let mut rows = vec![heading.map(String::from).to_vec()];
    for template in &templates {
        let size = template["size_bytes"].as_u64().unwrap_or(0) >> 20;
        let domains: Vec<&str> = template["domains"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let description = match template["error"].as_str() {
            Some(error) => format!("broken: {error}"),
            None => field(template, "description"),
        };
        rows.push(vec![
            field(template, "name"),
            field(template, "origin"),
            format!("{size} MiB"),
            field(template, "applications"),
            domains.join(", "),
            description,
        ]);
    }
    output::bytes(output::table(&rows).as_bytes())
}

async fn import(
    manager: &ManagerProxy<'_>,
    path: &Path,
    name: Option<&DomainName>,
    replace: bool,
) -> Result<(), Error> {
    let wrong = |error: std::io::Error| Error::Other(format!("{}: {error}", path.display()));
    let absolute = path.canonicalize().map_err(wrong)?;
    let absolute = absolute.to_str().ok_or_else(|| {
        Error::Other(format!(
            "{}: the path is not UTF-8; rename it",
            path.display()
        ))
    })?;
    let mut options = Dict::from([("replace".into(), replace.into())]);
    if let Some(name) = name {
        options.insert("name".into(), text(name.as_str()));
    }
    let name = manager.import_template(absolute, options).await?;
    output::line(&name)
}

async fn build(file: &Path, name: Option<DomainName>, replace: bool) -> Result<(), Error> {
    // What would fail at the end is said at the beginning.
    let manager = manager().await?;
    let name = match name {
        Some(name) => name,
        None => file
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default()
            .parse()
            .map_err(|error| Error::Other(format!("{}: {error}", file.display())))?,
    };
    if !replace {
        let known = manager.list_templates().await?;
        let taken = known
            .iter()
            .map(output::to_json)
            .any(|known| known["name"] == name.as_str());
        if taken {
            return Err(Error::Other(format!(
                "template `{name}` exists already; replace it with --replace, or choose another \
                 name with --name"
            )));
        }
    }
    let folder = Folder::new(&name)?;
    let program = program(BUILDER);
    let status = tokio::process::Command::new(&program)
        .arg(file)
        .arg(&folder.0)
        .stdin(Stdio::null())
        .status()
        .await
        .map_err(|error| {
            Error::Other(format!(
                "{}: {error}; install Bulkhead's image builder",
                program.display()
            ))
        })?;
    if !status.success() {
        // It has said why.
        return Err(Error::Other(format!("template `{name}` was not built")));
    }
    import(&manager, &folder.0, Some(&name), replace).await
}

/// Where the builder puts what it makes; gone again in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &DomainName) -> Result<Self, Error> {
        let folder =
            std::env::temp_dir().join(format!("bulkhead-template-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder)
            .map_err(|error| Error::Other(format!("{}: {error}", folder.display())))?;
        Ok(Folder(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
