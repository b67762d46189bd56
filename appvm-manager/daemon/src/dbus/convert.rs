//! Between the manager's types and D-Bus dictionaries.

use std::collections::HashMap;

use bulkhead_protocol::{DomainName, ExecRequest, User, WindowSize};
use zbus::message::Header;
use zbus::names::ErrorName;
use zbus::{Array, DBusError, Message, OwnedVariant, Str, Variant};

use crate::Error;
use crate::apps::Listed;
use crate::manager::Info;
use crate::settings::{self, Setting};
use crate::templates::{ImportOptions, TemplateInfo};
use crate::windows::WindowInfo;

/// An error on its way to a caller.
#[derive(Debug)]
pub struct ApiError {
    name: String,
    text: String,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        ApiError {
            name: format!("org.bulkhead.Manager1.Error.{}", error.kind()),
            text: error.to_string(),
        }
    }
}

impl From<bulkhead_protocol::InvalidName> for ApiError {
    fn from(error: bulkhead_protocol::InvalidName) -> Self {
        Error::from(error).into()
    }
}

impl DBusError for ApiError {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&(self.text.as_str(),))
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::try_from(self.name.as_str()).unwrap_or_else(|_| {
            ErrorName::from_static_str_unchecked("org.freedesktop.DBus.Error.Failed")
        })
    }

    fn description(&self) -> Option<&str> {
        Some(&self.text)
    }
}

pub type Result<T> = std::result::Result<T, ApiError>;
pub type Dict = HashMap<String, OwnedVariant>;

pub fn invalid(text: impl Into<String>) -> ApiError {
    Error::Setting(text.into()).into()
}

pub fn text(value: impl Into<String>) -> OwnedVariant {
    OwnedVariant::from(Str::from(value.into()))
}

pub fn describe(info: &Info) -> Dict {
    let mut dict = Dict::from([
        ("name".into(), text(info.name.as_str())),
        ("state".into(), text(info.state.name())),
        ("detail".into(), text(info.state.detail())),
        ("file".into(), text(info.file.to_string_lossy())),
        ("disk_bytes".into(), info.disk_bytes.into()),
    ]);
    if !info.snapshot_problem.is_empty() {
        let problem = text(info.snapshot_problem.as_str());
        dict.insert("snapshot_problem".into(), problem);
    }
    if let Some(pid) = info.pid {
        dict.insert("pid".into(), pid.into());
    }
    match &info.config {
        Ok(config) => {
            dict.insert("colour".into(), text(config.label.colour()));
            let settings = settings::all(config);
            dict.extend(settings.iter().map(|(k, v)| ((*k).to_owned(), setting(v))));
        }
        Err(error) => {
            dict.insert("error".into(), text(error.as_str()));
        }
    }
    dict
}

/// A setting's value: `s`, `u` or `as`.
pub fn setting(value: &Setting) -> OwnedVariant {
    match value {
        Setting::Text(value) => text(value.as_str()),
        Setting::Number(number) => u32::try_from(*number).unwrap_or(u32::MAX).into(),
        Setting::List(words) => texts(words),
    }
}

pub fn settings(dict: Dict) -> Result<Vec<(String, Setting)>> {
    let convert = |value: &OwnedVariant| {
        if let Ok(Ok(words)) = value.try_clone().map(Vec::<String>::try_from) {
            return Some(Setting::List(words));
        }
        if let Ok(text) = <&str>::try_from(value) {
            return Some(Setting::Text(text.to_owned()));
        }
        let number = u64::try_from(value).ok();
        let number = number.or_else(|| u32::try_from(value).ok().map(u64::from));
        let number = number.or_else(|| u16::try_from(value).ok().map(u64::from));
        let number = number.or_else(|| u8::try_from(value).ok().map(u64::from));
        let number = number.or_else(|| {
            i32::try_from(value)
                .ok()
                .and_then(|n| u64::try_from(n).ok())
        });
        number
            .or_else(|| {
                i64::try_from(value)
                    .ok()
                    .and_then(|n| u64::try_from(n).ok())
            })
            .map(Setting::Number)
    };
    dict.into_iter()
        .map(|(key, value)| match convert(&value) {
            Some(setting) => Ok((key, setting)),
            None => Err(invalid(format!(
                "{key}: neither text nor words nor a number that is not negative"
            ))),
        })
        .collect()
}

/// How `Exec` is to run a command.
pub struct ExecOptions {
    pub request: ExecRequest,
    pub token: String,
    pub start: bool,
}

pub fn exec_options(argv: Vec<String>, options: Dict) -> Result<ExecOptions> {
    let mut parsed = ExecOptions {
        request: ExecRequest {
            argv,
            ..ExecRequest::default()
        },
        token: String::new(),
        start: true,
    };
    let (mut columns, mut rows) = (None, None);
    for (key, value) in options {
        let wrong = |_| invalid(format!("the option `{key}` has the wrong type"));
        match key.as_str() {
            "env" => {
                let env = HashMap::<String, String>::try_from(value).map_err(wrong)?;
                parsed.request.env = env.into_iter().collect();
            }
            "cwd" => parsed.request.cwd = Some(String::try_from(value).map_err(wrong)?),
            "user" => {
                parsed.request.user = match String::try_from(value).map_err(wrong)?.as_str() {
                    "user" => User::User,
                    "root" => User::Root,
                    other => return Err(invalid(format!("no user `{other}`; use user or root"))),
                }
            }
            "token" => parsed.token = String::try_from(value).map_err(wrong)?,
            "start" => parsed.start = bool::try_from(value).map_err(wrong)?,
            "tty_columns" => columns = Some(u16::try_from(value).map_err(wrong)?),
            "tty_rows" => rows = Some(u16::try_from(value).map_err(wrong)?),
            _ => return Err(invalid(format!("there is no option `{key}`"))),
        }
    }
    if let (Some(columns), Some(rows)) = (columns, rows) {
        parsed.request.tty = Some(WindowSize { columns, rows });
    }
    Ok(parsed)
}

/// How `ConnectDomains` is to listen: where, and its token.
pub fn connect_options(options: Dict) -> Result<(Option<u16>, String)> {
    let (mut listen, mut token) = (None, String::new());
    for (key, value) in options {
        let wrong = |_| invalid(format!("the option `{key}` has the wrong type"));
        match key.as_str() {
            "listen" => listen = Some(u16::try_from(value).map_err(wrong)?),
            "token" => token = String::try_from(value).map_err(wrong)?,
            _ => return Err(invalid(format!("there is no option `{key}`"))),
        }
    }
    Ok((listen, token))
}

/// Flags by name, all optional.
pub fn flag_options<const N: usize>(options: Dict, names: [&str; N]) -> Result<[bool; N]> {
    let mut flags = [false; N];
    for (key, value) in options {
        let at = names.iter().position(|name| *name == key);
        let slot = at.and_then(|at| flags.get_mut(at));
        let slot = slot.ok_or_else(|| invalid(format!("there is no option `{key}`")))?;
        *slot = bool::try_from(value)
            .map_err(|_| invalid(format!("the option `{key}` has the wrong type")))?;
    }
    Ok(flags)
}

/// Options of `ImportTemplate`.
pub fn import_options(mut options: Dict) -> Result<ImportOptions> {
    let name = match options.remove("name") {
        Some(name) => {
            let name = String::try_from(name)
                .map_err(|_| invalid("the option `name` has the wrong type"))?;
            Some(name.parse::<DomainName>()?)
        }
        None => None,
    };
    let [replace] = flag_options(options, ["replace"])?;
    Ok(ImportOptions { name, replace })
}

pub fn texts(values: &[String]) -> OwnedVariant {
    let array = Array::from(values.iter().map(String::as_str).collect::<Vec<_>>());
    // Only a descriptor in it could fail.
    Variant::from(array)
        .try_into_owned()
        .unwrap_or_else(|_| text(String::new()))
}

/// One application.
pub fn application(listed: &Listed) -> Dict {
    let app = &listed.application;
    Dict::from([
        ("domain".into(), text(listed.domain.as_str())),
        ("app".into(), text(app.id.as_str())),
        ("name".into(), text(app.entry.name.as_str())),
        ("generic_name".into(), text(app.entry.generic_name.as_str())),
        ("comment".into(), text(app.entry.comment.as_str())),
        ("keywords".into(), texts(&app.entry.keywords)),
        ("categories".into(), texts(&app.entry.categories)),
        ("icon".into(), text(app.icon.as_str())),
        ("label".into(), text(listed.label.name())),
        ("colour".into(), text(listed.label.colour())),
        ("template".into(), text(listed.template.as_str())),
        ("disposable".into(), listed.disposable.into()),
    ])
}

/// One window.
pub fn window(window: &WindowInfo) -> Dict {
    Dict::from([
        ("id".into(), window.id.into()),
        ("domain".into(), text(window.domain.as_str())),
        ("label".into(), text(window.label.name())),
        ("colour".into(), text(window.label.colour())),
        ("title".into(), text(window.title.as_str())),
        ("app_id".into(), text(window.app_id.as_str())),
        ("focused".into(), window.focused.into()),
    ])
}

/// One template.
pub fn template(template: &TemplateInfo) -> Dict {
    let domains: Vec<String> = template.domains.iter().map(ToString::to_string).collect();
    let mut dict = Dict::from([
        ("name".into(), text(template.name.as_str())),
        ("origin".into(), text(template.origin.name())),
        ("folder".into(), text(template.folder.to_string_lossy())),
        ("size_bytes".into(), template.size_bytes.into()),
        ("applications".into(), template.applications.into()),
        ("domains".into(), texts(&domains)),
    ]);
    match &template.description {
        Ok(file) => {
            dict.insert("description".into(), text(file.description.as_str()));
            dict.insert("suite".into(), text(file.suite.as_str()));
            dict.insert("disposable".into(), file.disposable.into());
        }
        Err(error) => {
            dict.insert("error".into(), text(error.as_str()));
        }
    }
    dict
}
