//! Which program this is, by the name that it was called by.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::connect::{self, Wanted};
use crate::serve::{self, Request};
use crate::{Failure, call, copy, help, open, services};

/// Whom a copy goes to if nobody is named: the policy or the user choose.
const ANYONE: &str = "@default";
/// Where something is opened if nobody is named.
const DISPOSABLE: &str = "@dispvm";

/// What a program was asked to do.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help(&'static str),
    Call {
        target: String,
        service: String,
    },
    Serve(Request),
    Drop {
        drop: u64,
        target: String,
        uris: Vec<String>,
    },
    Copy {
        to: String,
        files: Vec<PathBuf>,
        and_remove: bool,
    },
    Open {
        to: String,
        what: String,
    },
    Notify {
        text: String,
    },
    Connect(Wanted),
}

/// Runs the program that `name` means, with its arguments: its exit status.
pub fn run(name: &OsStr, arguments: Vec<OsString>) -> Result<u8, Failure> {
    match task(name, arguments)? {
        Task::Help(text) => {
            print!("{text}");
            Ok(0)
        }
        Task::Call { target, service } => {
            let streams = call::own_streams().map_err(|e| Failure::new(1, e.to_string()))?;
            call::call(&target, &service, streams)
        }
        Task::Serve(request) => serve::serve(&request),
        Task::Drop { drop, target, uris } => copy::send_dropped(drop, &target, &uris).map(|()| 0),
        Task::Copy {
            to,
            files,
            and_remove,
        } => {
            copy::send(&to, services::COPY, &files)?;
            if and_remove {
                copy::remove(&files)?;
            }
            Ok(0)
        }
        Task::Open { to, what } => open::open(&to, &what).map(|()| 0),
        Task::Notify { text } => open::notify(&text).map(|()| 0),
        Task::Connect(wanted) => connect::listen(&wanted),
    }
}

fn task(name: &OsStr, arguments: Vec<OsString>) -> Result<Task, Failure> {
    let name = Path::new(name)
        .file_name()
        .unwrap_or(name)
        .to_string_lossy();
    match name.as_ref() {
        "bulkhead-connect" => connect_task(&arguments),
        "bulkhead-copy" => copy_task(arguments, help::COPY, false),
        "bulkhead-move" => copy_task(arguments, help::MOVE, true),
        "bulkhead-open" => open_task(arguments),
        "bulkhead-notify" => notify_task(arguments),
        _ => rpc_task(&arguments),
    }
}

fn rpc_task(arguments: &[OsString]) -> Result<Task, Failure> {
    let words = texts(arguments)?;
    match words.as_slice() {
        ["--help" | "-h"] => Ok(Task::Help(help::RPC)),
        ["--serve", service, argument, source] => {
            Ok(Task::Serve(Request::new(service, argument, source)?))
        }
        ["--drop", drop, target, uris @ ..] if !uris.is_empty() => Ok(Task::Drop {
            drop: drop
                .parse()
                .map_err(|_| Failure::usage("a drop has a number"))?,
            target: (*target).to_owned(),
            uris: uris.iter().map(|&uri| uri.to_owned()).collect(),
        }),
        [target, service] if !target.starts_with('-') => Ok(Task::Call {
            target: (*target).to_owned(),
            service: (*service).to_owned(),
        }),
        _ => Err(Failure::usage("give a target and a service")),
    }
}

fn connect_task(arguments: &[OsString]) -> Result<Task, Failure> {
    let words = texts(arguments)?;
    let (there, listen) = match words.as_slice() {
        ["--help" | "-h"] => return Ok(Task::Help(help::CONNECT)),
        [there] => (there, None),
        [there, "--listen", port] | ["--listen", port, there] => (there, Some(*port)),
        _ => return Err(Failure::usage("give a DOMAIN:PORT")),
    };
    Ok(Task::Connect(Wanted::new(there, listen)?))
}

fn texts(arguments: &[OsString]) -> Result<Vec<&str>, Failure> {
    arguments
        .iter()
        .map(|word| {
            word.to_str()
                .ok_or_else(|| Failure::usage("an argument is no text"))
        })
        .collect()
}

fn copy_task(
    arguments: Vec<OsString>,
    help: &'static str,
    and_remove: bool,
) -> Result<Task, Failure> {
    Ok(match words(arguments)? {
        None => Task::Help(help),
        Some((_, words)) if words.is_empty() => {
            return Err(Failure::usage("name at least one file or folder"));
        }
        Some((to, words)) => Task::Copy {
            to: to.unwrap_or_else(|| ANYONE.to_owned()),
            files: words.into_iter().map(PathBuf::from).collect(),
            and_remove,
        },
    })
}

fn open_task(arguments: Vec<OsString>) -> Result<Task, Failure> {
    let Some((to, words)) = words(arguments)? else {
        return Ok(Task::Help(help::OPEN));
    };
    match <[OsString; 1]>::try_from(words) {
        Ok([what]) => Ok(Task::Open {
            to: to.unwrap_or_else(|| DISPOSABLE.to_owned()),
            what: what
                .into_string()
                .map_err(|_| Failure::usage("the name is no text"))?,
        }),
        Err(_) => Err(Failure::usage("name one file or address")),
    }
}

fn notify_task(arguments: Vec<OsString>) -> Result<Task, Failure> {
    match words(arguments)? {
        None => Ok(Task::Help(help::NOTIFY)),
        Some((None, words)) if !words.is_empty() => {
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            Ok(Task::Notify {
                text: words.join(" "),
            })
        }
        Some(_) => Err(Failure::usage("give the text")),
    }
}

type Words = (Option<String>, Vec<OsString>);

/// `--to NAME` and the rest; `None`: help is wanted.
fn words(arguments: Vec<OsString>) -> Result<Option<Words>, Failure> {
    let mut to = None;
    let mut words = Vec::new();
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--") => {
                words.extend(arguments);
                break;
            }
            Some("--help" | "-h") => return Ok(None),
            Some("--to") => {
                let name = arguments.next().and_then(|name| name.into_string().ok());
                to = Some(name.ok_or_else(|| Failure::usage("`--to` needs a domain's name"))?);
            }
            Some(option) if option.starts_with('-') => {
                return Err(Failure::usage(format!(
                    "there is no option `{option}` (a file? then `./{option}`)"
                )));
            }
            _ => words.push(argument),
        }
    }
    Ok(Some((to, words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Task, Failure> {
        let mut words = line.split(' ').map(OsString::from);
        let name = words.next().unwrap();
        task(&name, words.collect())
    }

    #[test]
    fn each_name_has_its_own_arguments() {
        assert_eq!(
            parsed("/run/bulkhead/bin/bulkhead-rpc work x.Y+a").unwrap(),
            Task::Call {
                target: "work".into(),
                service: "x.Y+a".into()
            }
        );
        assert_eq!(
            parsed("bulkhead-copy a b/c").unwrap(),
            Task::Copy {
                to: "@default".into(),
                files: vec!["a".into(), "b/c".into()],
                and_remove: false
            }
        );
        assert_eq!(
            parsed("bulkhead-move --to work -- -a").unwrap(),
            Task::Copy {
                to: "work".into(),
                files: vec!["-a".into()],
                and_remove: true
            }
        );
        assert_eq!(
            parsed("bulkhead-open https://a.example").unwrap(),
            Task::Open {
                to: "@dispvm".into(),
                what: "https://a.example".into()
            }
        );
        for line in [
            "bulkhead-connect personal:80 --listen 8080",
            "bulkhead-connect --listen 8080 personal:80",
        ] {
            let wanted = Wanted::new("personal:80", Some("8080")).unwrap();
            assert_eq!(parsed(line).unwrap(), Task::Connect(wanted));
        }
        assert_eq!(
            parsed("bulkhead-copy --help").unwrap(),
            Task::Help(help::COPY)
        );
    }

    #[test]
    fn the_manager_has_a_drop_sent_by_its_addresses() {
        assert_eq!(
            parsed("bulkhead-rpc --drop 7 personal file:///a%20b").unwrap(),
            Task::Drop {
                drop: 7,
                target: "personal".into(),
                uris: vec!["file:///a%20b".into()]
            }
        );
        for line in [
            "bulkhead-rpc --drop 7 work",
            "bulkhead-rpc --drop x work file:///a",
        ] {
            assert_eq!(parsed(line).unwrap_err().status, 2, "{line}");
        }
    }

    #[test]
    fn wrong_arguments_say_what_is_wrong() {
        for line in [
            "bulkhead-rpc work",
            "bulkhead-rpc --to work x",
            "bulkhead-copy --to",
            "bulkhead-copy --to work",
            "bulkhead-copy -r a",
            "bulkhead-open a b",
            "bulkhead-connect personal",
            "bulkhead-connect personal:80 81",
            "bulkhead-connect personal:80 --listen",
            "bulkhead-notify",
            "bulkhead-notify --to work x",
            "bulkhead-rpc --serve ../x  work",
        ] {
            let failure = parsed(line).unwrap_err();
            assert_eq!(failure.status, 2, "{line}");
            assert!(failure.message.ends_with("see --help"), "{failure}");
        }
    }
}
