//! The way to the compositor: introduces each running domain's Wayland socket, hears of windows,
//! and asks for what the user wants done with one. Domains run without a compositor too; when one appears, all are introduced again.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bulkhead_protocol::{DomainName, Label};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::packets::Packets;

/// How often a missing compositor is looked for.
const RETRY: Duration = Duration::from_millis(300);

/// Something that happened to a window, or a window of a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct WindowEvent {
    /// `window_mapped`, `window_closed`, `title`, `focus`, `menu`, `power`, `paste`, `redrawn`,
    /// `drag_over`, `drop`, `notice`.
    pub event: String,
    /// Whose window.
    pub domain: Option<String>,
    /// The compositor's number for it, or for a paste or a drop.
    pub id: Option<u64>,
    /// What the client calls it; untrusted text.
    pub title: Option<String>,
    /// What the client calls itself; untrusted text.
    pub app_id: Option<String>,
    /// `toplevel` or `popup`, in a list; `text`, `image` or `files`, of a paste or a drop.
    pub kind: String,
    /// It has shown something, in a list.
    pub mapped: bool,
    /// It has the keyboard, in a list.
    pub focused: bool,
    /// `CLOCK_MONOTONIC`.
    pub time_us: u64,
    /// From where the user pastes.
    pub source: Option<String>,
    /// Into where.
    pub target: Option<String>,
    /// How much.
    pub bytes: u64,
    /// Addresses of files that were dropped or pasted: the source domain's words.
    pub files: Vec<String>,
    /// What the user is told, of a notice; why a picture was not drawn anew.
    pub text: Option<String>,
    /// The picture was drawn anew, and is where it was to go.
    pub pasted: bool,
}

/// What [`Compositor::follow`] hands on.
#[derive(Debug)]
pub enum News {
    /// The compositor is there, with these windows.
    Came(Vec<WindowEvent>),
    /// Something happened.
    Event(Box<WindowEvent>),
    /// The compositor has gone, and all windows with it.
    Gone,
}

/// Why the compositor did not do something.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There is none.
    #[error("no compositor shows windows; start the desktop with `bulkhead session`")]
    Absent,
    /// It said so.
    #[error("the compositor: {0}")]
    Answer(String),
    /// The connection broke.
    #[error("the compositor: {0}")]
    Io(#[from] io::Error),
}

#[derive(Clone)]
struct Registration {
    label: Label,
    listener: Arc<UnixListener>,
}

/// Handle on the compositor; clones are the same one.
#[derive(Clone)]
pub struct Compositor(Arc<Shared>);

struct Shared {
    path: PathBuf,
    domains: Mutex<BTreeMap<DomainName, Registration>>,
    requests: tokio::sync::Mutex<Option<Packets>>,
    connected: watch::Sender<bool>,
}

impl Compositor {
    /// Whose control socket is, or will be, at `path`.
    pub fn new(path: PathBuf) -> Self {
        Compositor(Arc::new(Shared {
            path,
            domains: Mutex::new(BTreeMap::new()),
            requests: tokio::sync::Mutex::new(None),
            connected: watch::Sender::new(false),
        }))
    }

    /// Whether it is there.
    pub fn is_connected(&self) -> bool {
        *self.0.connected.borrow()
    }

    /// Follows whether it is there.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.0.connected.subscribe()
    }

    fn domains(&self) -> std::sync::MutexGuard<'_, BTreeMap<DomainName, Registration>> {
        self.0
            .domains
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Introduces a domain, now or when a compositor appears.
    pub async fn add(&self, name: &DomainName, label: Label, listener: UnixListener) {
        let registration = Registration {
            label,
            listener: Arc::new(listener),
        };
        self.domains().insert(name.clone(), registration.clone());
        self.introduce(name, &registration).await;
    }

    /// Disconnects a domain; its windows vanish.
    pub async fn remove(&self, name: &DomainName) {
        if self.domains().remove(name).is_some() {
            self.ask(
                name,
                json!({"op": "remove_domain", "name": name.as_str()}),
                &[],
            )
            .await;
        }
    }

    async fn introduce(&self, name: &DomainName, registration: &Registration) {
        let request = json!({
            "op": "add_domain",
            "name": name.as_str(),
            "label": registration.label.name(),
            "colour": registration.label.colour(),
        });
        self.ask(name, request, &[registration.listener.as_fd()])
            .await;
    }

    async fn ask(&self, name: &DomainName, request: Value, fds: &[BorrowedFd<'_>]) {
        match self.request(&request, fds).await {
            Ok(_) => {}
            Err(Refused::Absent) => {
                tracing::warn!(domain = %name, op = %request["op"], "no compositor: no windows");
            }
            Err(error) => {
                tracing::warn!(domain = %name, op = %request["op"], %error, "not done");
            }
        }
    }

    /// Asks for something and gives the answer.
    async fn request(
        &self,
        request: &Value,
        fds: &[BorrowedFd<'_>],
    ) -> std::result::Result<Value, Refused> {
        let mut requests = self.0.requests.lock().await;
        let packets = requests.as_mut().ok_or(Refused::Absent)?;
        match packets.ask(request, fds).await {
            Ok(answer) if answer["ok"] == true => Ok(answer),
            Ok(answer) => {
                let error = answer["error"].as_str().unwrap_or("no reason given");
                Err(Refused::Answer(crate::text::clean(error, 200)))
            }
            Err(error) => {
                *requests = None;
                Err(error.into())
            }
        }
    }

    /// Raises a window and gives it the keyboard.
    pub async fn activate(&self, id: u64) -> std::result::Result<(), Refused> {
        let request = json!({"op": "activate_window", "id": id});
        self.request(&request, &[]).await.map(|_| ())
    }

    /// Asks a window's client to close it.
    pub async fn close(&self, id: u64) -> std::result::Result<(), Refused> {
        let request = json!({"op": "close_window", "id": id});
        self.request(&request, &[]).await.map(|_| ())
    }

    /// The user copies or pastes across domains.
    pub(crate) async fn crossing(&self, op: &'static str) -> std::result::Result<(), Refused> {
        self.request(&json!({ "op": op }), &[]).await.map(|_| ())
    }

    /// Says whether the user may paste. For a picture, a yes has two descriptors: where the picture
    /// goes, and where its pixels come from. A no may follow it.
    pub(crate) async fn answer_paste(
        &self,
        id: u64,
        decision: std::result::Result<&[BorrowedFd<'_>], String>,
    ) -> std::result::Result<(), Refused> {
        self.answer_with("answer_paste", id, decision).await
    }

    /// Says whether what is dragged may be dropped on a domain.
    pub(crate) async fn answer_drag_over(
        &self,
        id: u64,
        decision: std::result::Result<(), String>,
    ) -> std::result::Result<(), Refused> {
        let allow = decision.is_ok();
        let reason = decision.err().unwrap_or_default();
        let request = json!({"op": "answer_drag_over", "id": id, "allow": allow, "reason": reason});
        self.request(&request, &[]).await.map(|_| ())
    }

    /// Says that a picture may be dropped, with two descriptors as for one that is pasted, or why not.
    pub(crate) async fn answer_dropped_picture(
        &self,
        id: u64,
        decision: std::result::Result<&[BorrowedFd<'_>], String>,
    ) -> std::result::Result<(), Refused> {
        self.answer_with("answer_drop", id, decision).await
    }

    async fn answer_with(
        &self,
        op: &str,
        id: u64,
        decision: std::result::Result<&[BorrowedFd<'_>], String>,
    ) -> std::result::Result<(), Refused> {
        let allow = decision.is_ok();
        let (fds, reason) = match decision {
            Ok(fds) => (fds, String::new()),
            Err(reason) => (&[][..], reason),
        };
        let request = json!({"op": op, "id": id, "allow": allow, "reason": reason});
        self.request(&request, fds).await.map(|_| ())
    }

    /// Says that a drop is allowed, with the addresses that its files have in the target, or why not.
    pub(crate) async fn answer_drop(
        &self,
        id: u64,
        decision: std::result::Result<Vec<String>, String>,
    ) -> std::result::Result<(), Refused> {
        self.answer_files("answer_drop", id, decision).await
    }

    /// The same of files that are pasted.
    pub(crate) async fn answer_pasted_files(
        &self,
        id: u64,
        decision: std::result::Result<Vec<String>, String>,
    ) -> std::result::Result<(), Refused> {
        self.answer_files("answer_paste", id, decision).await
    }

    async fn answer_files(
        &self,
        op: &str,
        id: u64,
        decision: std::result::Result<Vec<String>, String>,
    ) -> std::result::Result<(), Refused> {
        let request = match decision {
            Ok(files) => json!({"op": op, "id": id, "allow": true, "files": files}),
            Err(reason) => json!({"op": op, "id": id, "allow": false, "reason": reason}),
        };
        self.request(&request, &[]).await.map(|_| ())
    }

    /// The label under which a domain's windows are shown.
    pub fn label_of(&self, name: &DomainName) -> Option<Label> {
        self.domains()
            .get(name)
            .map(|registration| registration.label)
    }

    /// Stays connected for ever and hands on what happens to windows.
    pub async fn follow(self, mut on_news: impl FnMut(News)) {
        loop {
            match self.session(&mut on_news).await {
                Ok(()) => tracing::info!("the compositor has gone"),
                Err(error) if self.is_connected() => tracing::warn!(%error, "the compositor"),
                Err(_) => {}
            }
            *self.0.requests.lock().await = None;
            if self.0.connected.send_replace(false) {
                on_news(News::Gone);
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn session(&self, on_news: &mut impl FnMut(News)) -> io::Result<()> {
        let mut events = Packets::connect(&self.0.path)?;
        let requests = Packets::connect(&self.0.path)?;
        events.ask(&json!({"op": "subscribe"}), &[]).await?;
        *self.0.requests.lock().await = Some(requests);
        self.0.connected.send_replace(true);
        tracing::info!("connected to the compositor");
        let domains = self.domains().clone();
        for (name, registration) in &domains {
            self.introduce(name, registration).await;
        }
        // It has windows already if only our connection was lost.
        let windows = match self.request(&json!({"op": "windows"}), &[]).await {
            Ok(mut answer) => {
                let list: Vec<WindowEvent> =
                    serde_json::from_value(answer["windows"].take()).unwrap_or_default();
                list.into_iter()
                    .filter(|window| window.kind == "toplevel")
                    .collect()
            }
            Err(error) => {
                tracing::warn!(%error, "its windows are not known");
                Vec::new()
            }
        };
        on_news(News::Came(windows));
        while let Some(packet) = events.receive().await? {
            match serde_json::from_slice(&packet) {
                Ok(event) => on_news(News::Event(event)),
                Err(error) => tracing::debug!(%error, "an event of the compositor"),
            }
        }
        Ok(())
    }
}
