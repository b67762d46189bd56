//! The applications of all domains, and launching one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bulkhead_apps::{Application, Picture, Template};
use bulkhead_protocol::{DomainName, ExecRequest, Label};
use tokio::sync::oneshot;

use crate::config::DomainConfig;
use crate::manager::Manager;
use crate::rpc::quota::Place;
use crate::session::{self, Handle, Stdio};
use crate::{Error, Result};

/// An application in a domain.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Where it would run.
    pub domain: DomainName,
    /// The domain's label.
    pub label: Label,
    /// The template that it comes from.
    pub template: DomainName,
    /// Whether it may be launched in a new disposable.
    pub disposable: bool,
    /// What the template says of it.
    pub application: Application,
}

/// What tells one state of a template's files from another.
type Stamp = Vec<(u64, u64, i64, i64)>;

/// What each template's files said when they were read last.
#[derive(Debug, Default)]
pub struct Catalog(Mutex<BTreeMap<PathBuf, (Stamp, Arc<Template>)>>);

impl Catalog {
    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, (Stamp, Arc<Template>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A template's applications, read again only where its folders changed.
    pub async fn template(&self, folder: &Path, name: &DomainName) -> Arc<Template> {
        let stamp = stamp(folder);
        if let Some((known, template)) = self.locked().get(folder)
            && *known == stamp
        {
            return template.clone();
        }
        let (path, name) = (folder.to_owned(), name.clone());
        let read = tokio::task::spawn_blocking(move || {
            bulkhead_apps::template::read(&path, name.as_str())
        });
        let template = Arc::new(read.await.unwrap_or_default());
        self.locked()
            .insert(folder.to_owned(), (stamp, template.clone()));
        template
    }

    /// The folder and file of an icon.
    fn icon(&self, sha: &str) -> Option<(PathBuf, bulkhead_apps::IconFile)> {
        self.locked().iter().find_map(|(folder, (_, template))| {
            let file = template.icons.get(sha)?;
            Some((folder.clone(), file.clone()))
        })
    }
}

fn stamp(folder: &Path) -> Stamp {
    ["", "apps/applications", "apps/icons"]
        .iter()
        .map(|part| match fs::symlink_metadata(folder.join(part)) {
            Ok(data) => (data.dev(), data.ino(), data.mtime(), data.mtime_nsec()),
            Err(_) => (0, 0, 0, 0),
        })
        .collect()
}

impl Manager {
    /// The applications of every domain, domain by domain.
    pub async fn applications(&self) -> Result<Vec<Listed>> {
        let mut all = Vec::new();
        for name in self.store.names()? {
            // A domain whose file is wrong has none; `bulkhead list` says what is wrong with it.
            let Ok(config) = self.store.load(&name) else {
                continue;
            };
            if !config.kind.has_windows() {
                continue;
            }
            let Some(folder) = self.root_folder(&config) else {
                continue;
            };
            let template = self.catalog.template(&folder, &config.template).await;
            let disposable = config.kind.makes_disposables() && self.allows_disposable(&folder);
            all.extend(template.applications.iter().map(|application| Listed {
                domain: name.clone(),
                label: config.label,
                template: config.template.clone(),
                disposable,
                application: application.clone(),
            }));
        }
        Ok(all)
    }

    /// Where a domain's root lies, with what it says of its applications.
    fn root_folder(&self, config: &DomainConfig) -> Option<PathBuf> {
        self.store
            .own_root(config)
            .or_else(|| self.images.template_folder(&config.template))
    }

    /// An icon's pixels.
    pub async fn icon(&self, sha: &str) -> Result<Picture> {
        let mut found = self.catalog.icon(sha);
        if found.is_none() {
            // After a restart nothing has been read yet.
            self.applications().await?;
            found = self.catalog.icon(sha);
        }
        let load = || match &found {
            Some((folder, file)) => bulkhead_apps::template::icon_bytes(folder, file, sha),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        Ok(self.icons.picture(sha, load).await?)
    }

    /// Launches an application in its domain, or in a new disposable like it. Gives the domain
    /// that it runs in, once it runs.
    pub async fn launch(
        self: &Arc<Self>,
        name: &DomainName,
        app: &str,
        disposable: bool,
    ) -> Result<DomainName> {
        self.launch_with(name, app, disposable, None).await
    }

    /// The same; `place` is held as long as the disposable exists.
    pub(crate) async fn launch_with(
        self: &Arc<Self>,
        name: &DomainName,
        app: &str,
        disposable: bool,
        place: Option<Place>,
    ) -> Result<DomainName> {
        self.domain(name)?;
        let config = self.store.load(name)?;
        let missing = || Error::NoSuchApplication {
            domain: name.clone(),
            app: crate::text::clean(app, 80),
        };
        let folder = self.root_folder(&config).ok_or_else(missing)?;
        let template = self.catalog.template(&folder, &config.template).await;
        let application = template
            .applications
            .iter()
            .find(|application| application.id == app)
            .ok_or_else(missing)?;
        if !disposable {
            let running = self.run_detached(name, application.command.clone()).await?;
            // Nobody waits for its end.
            drop(running);
            return Ok(name.clone());
        }
        if !config.kind.makes_disposables() || !self.allows_disposable(&folder) {
            return Err(Error::NotDisposable(config.template.clone()));
        }
        self.launch_disposable(&config, application.command.clone(), place)
            .await
    }

    /// Runs a command that outlives its caller, without input or output. Answers when it runs;
    /// what it gives ends with the command.
    pub(crate) async fn run_detached(
        self: &Arc<Self>,
        name: &DomainName,
        argv: Vec<String>,
    ) -> Result<oneshot::Receiver<()>> {
        let machine = self.ensure_running(name).await?;
        let guest = |reason: String| Error::Guest {
            name: name.clone(),
            reason,
        };
        let nothing = || File::options().read(true).write(true).open("/dev/null");
        let open = || -> std::io::Result<Stdio> {
            Ok(Stdio {
                stdin: nothing()?.into(),
                stdout: nothing()?.into(),
                stderr: nothing()?.into(),
            })
        };
        let stdio = open().map_err(|error| guest(error.to_string()))?;
        let request = ExecRequest {
            argv,
            ..ExecRequest::default()
        };
        let (started_sender, started) = oneshot::channel();
        let (outcome_sender, outcome) = oneshot::channel();
        let (ended_sender, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(format!("app {name}"))
            .spawn(move || {
                // The caller may be gone.
                let on_start = |_| _ = started_sender.send(());
                let result =
                    session::run(&machine.vsock, request, stdio, &Handle::default(), on_start);
                // The caller may have had its answer.
                let _ = outcome_sender.send(result);
                let _ = ended_sender.send(());
            })
            .map_err(|error| guest(error.to_string()))?;
        if started.await.is_ok() {
            return Ok(ended);
        }
        match outcome.await {
            Ok(Ok(outcome)) => Err(guest(outcome.message)),
            Ok(Err(error)) => Err(guest(error.to_string())),
            Err(_) => Err(guest("the command's thread ended".to_owned())),
        }
    }
}
