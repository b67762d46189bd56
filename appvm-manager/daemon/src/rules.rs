//! The user's policy and the domains as they are now: what every decision about a crossing between
//! domains begins with.
//!
//! Both are read afresh for each decision, so that an edited rule counts at once. What cannot be
//! read allows nothing: a policy with one wrong line is none, and a domain whose file is wrong is not
//! in the snapshot, so that it neither calls nor is called.

use std::path::{Path, PathBuf};

use bulkhead_policy::{
    Call, Domain, Folder, Kind, LoadError, Name, Policy, Snapshot, SnapshotError, Verdict,
};
use bulkhead_protocol::DomainName;

use crate::config::{self, DomainConfig};
use crate::dirs::Dirs;
use crate::domain::State;
use crate::manager::Manager;

/// Why nothing can be decided; then everything is denied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RulesError {
    /// A file of the policy is wrong.
    #[error("the policy: {0}")]
    Policy(#[from] LoadError),
    /// The domains' names cannot be listed.
    #[error("the domains: {0}")]
    Domains(#[from] crate::Error),
    /// There can be no snapshot of these domains.
    #[error("the domains: {0}")]
    Snapshot(#[from] SnapshotError),
}

/// Where the user's own rules lie: `policy.d`, beside the folder of the domains' files.
fn user_folder(dirs: &Dirs) -> PathBuf {
    dirs.config.with_file_name("policy.d")
}

/// The user's rules, then those that come with the program, then what the user's commands ask for as long
/// as they run. Warnings go to the log.
pub(crate) fn policy(manager: &Manager) -> Result<Policy, RulesError> {
    load(&user_folder(&manager.dirs), manager.calls.grants.folder())
}

fn load(user: &Path, commands: Option<Folder>) -> Result<Policy, RulesError> {
    let mut folders = Vec::new();
    // Whatever is there has to be readable; only a folder that was never made may be missing. A link
    // to nowhere is a mistake, not an absence.
    if user.symlink_metadata().is_ok() {
        folders.push(Folder::on_disk(user));
    }
    folders.push(Folder::built_in());
    folders.extend(commands);
    let policy = Policy::load(&folders)?;
    for warning in policy.warnings() {
        tracing::warn!(%warning, "the policy");
    }
    Ok(policy)
}

/// What the rules say of a call, now.
pub(crate) fn evaluate(manager: &Manager, call: &Call) -> Result<Verdict, RulesError> {
    Ok(policy(manager)?.evaluate(call, &snapshot(manager)?))
}

/// All domains as they are now.
pub(crate) fn snapshot(manager: &Manager) -> Result<Snapshot, RulesError> {
    let mut domains = Vec::new();
    for name in manager.store.names()? {
        let described = manager.store.load(&name).and_then(|config| {
            let state = manager.domain(&name)?.state.borrow().clone();
            Ok((config, state))
        });
        let (config, state) = match described {
            Ok(described) => described,
            Err(error) => {
                tracing::warn!(domain = %name, %error, "takes no part in the policy");
                continue;
            }
        };
        let folder = manager.images.template_folder(&config.template);
        let disposables = folder.is_some_and(|folder| manager.allows_disposable(&folder));
        domains.extend(domain(&config, &state, disposables));
    }
    Ok(Snapshot::new(domains)?)
}

/// A domain as the policy sees it. `@dispvm` is what its configuration says, or a disposable like the
/// domain itself, where its template allows that.
fn domain(config: &DomainConfig, state: &State, template_disposables: bool) -> Option<Domain> {
    let name = policy_name(&config.name)?;
    let kind = match config.kind {
        config::Kind::App => Kind::App,
        config::Kind::Disposable | config::Kind::NamedDisposable => Kind::Disposable,
        config::Kind::Standalone => Kind::Standalone,
        config::Kind::Service => Kind::Service,
    };
    let makes_disposables =
        template_disposables && config.kind.makes_disposables() && !config.kind.forgets_home();
    let own = makes_disposables.then(|| name.clone());
    let default_disposable = match &config.default_disposable {
        Some(model) => Some(policy_name(model)?),
        None => own,
    };
    let tags = config.tags.iter();
    Some(Domain {
        makes_disposables,
        default_disposable,
        running: *state == State::Running,
        // Every tag that a domain may have is one in a policy, too.
        tags: tags.filter_map(|tag| tag.as_str().parse().ok()).collect(),
        ..Domain::new(name, kind)
    })
}

/// A domain's name in a policy. Every name that a domain may have is one there, too; one that is not
/// matches no rule.
pub(crate) fn policy_name(name: &DomainName) -> Option<Name> {
    Name::parse(name.as_str().as_bytes())
        .inspect_err(|error| tracing::error!(domain = %name, %error, "no name in a policy"))
        .ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bulkhead_protocol::Label;

    use super::*;

    fn call(source: &str, service: &str, target: &str) -> Call {
        Call::parse(
            source.parse().unwrap(),
            service.as_bytes(),
            target.as_bytes(),
        )
        .unwrap()
    }

    fn config(name: &str, kind: config::Kind) -> DomainConfig {
        DomainConfig {
            kind,
            ..DomainConfig::new(name.parse().unwrap(), Label::Red)
        }
    }

    fn two() -> Snapshot {
        let domains = ["work", "personal"]
            .map(|name| domain(&config(name, config::Kind::App), &State::Running, true).unwrap());
        Snapshot::new(domains).unwrap()
    }

    #[test]
    fn the_users_rules_come_first_and_count_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let user = dir.path().join("policy.d");
        let paste = call("work", "qubes.ClipboardPaste", "personal");
        let verdict = load(&user, None).unwrap().evaluate(&paste, &two());
        assert!(matches!(verdict, Verdict::Ask(_)), "{verdict}");

        fs::create_dir(&user).unwrap();
        assert!(load(&user, None).is_ok());
        let rule = "qubes.ClipboardPaste * work personal deny\n";
        fs::write(user.join("30-user.policy"), rule).unwrap();
        let verdict = load(&user, None).unwrap().evaluate(&paste, &two());
        assert_eq!(
            verdict.to_string(),
            "deny: denied by policy (30-user.policy:1)"
        );
    }

    #[test]
    fn what_cannot_be_read_is_an_error_that_says_where() {
        let dir = tempfile::tempdir().unwrap();
        let user = dir.path().join("policy.d");
        std::os::unix::fs::symlink("nowhere", &user).unwrap();
        assert!(load(&user, None).is_err());
        fs::remove_file(&user).unwrap();
        fs::write(&user, "").unwrap();
        assert!(load(&user, None).is_err());
        fs::remove_file(&user).unwrap();
        fs::create_dir(&user).unwrap();
        fs::write(user.join("30-user.policy"), "* * work * permit\n").unwrap();
        let error = load(&user, None).unwrap_err().to_string();
        assert!(error.contains("30-user.policy:1"), "{error}");
    }

    #[test]
    fn a_domain_takes_part_as_it_is_configured_and_runs() {
        let app = config("work", config::Kind::App);
        let seen = domain(&app, &State::Running, true).unwrap();
        assert_eq!((seen.kind, seen.running), (Kind::App, true));
        assert_eq!(seen.default_disposable, Some("work".parse().unwrap()));
        let seen = domain(&app, &State::Halted, false).unwrap();
        assert_eq!((seen.running, seen.makes_disposables), (false, false));
        assert_eq!(seen.default_disposable, None);
        let mut tagged = config("work", config::Kind::App);
        tagged.tags = crate::tags::Tags::from_words(["office", "anon-vm"]).unwrap();
        tagged.default_disposable = Some("personal".parse().unwrap());
        let seen = domain(&tagged, &State::Halted, true).unwrap();
        assert_eq!(seen.tags.len(), 2);
        assert_eq!(seen.default_disposable, Some("personal".parse().unwrap()));
        let named = config("viewer", config::Kind::NamedDisposable);
        let seen = domain(&named, &State::Halted, true).unwrap();
        assert_eq!(
            (seen.kind, seen.makes_disposables),
            (Kind::Disposable, false)
        );
        let disposable = config("disp0001", config::Kind::Disposable);
        let seen = domain(&disposable, &State::Stopping, true).unwrap();
        assert_eq!(seen.kind, Kind::Disposable);
        assert_eq!((seen.running, seen.makes_disposables), (false, false));
    }

    #[test]
    fn the_folder_lies_beside_the_domains_files() {
        let dirs = Dirs {
            config: "/c/bulkhead/domains".into(),
            data: PathBuf::new(),
            logs: PathBuf::new(),
            runtime: PathBuf::new(),
            templates: PathBuf::new(),
            icons: PathBuf::new(),
        };
        assert_eq!(user_folder(&dirs), Path::new("/c/bulkhead/policy.d"));
    }
}
