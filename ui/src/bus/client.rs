//! The thread's work: follow the manager's signals, fetch what changed, do what is asked.

use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt, select_all};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;

use super::Interest;
use super::proxy::{CallsProxy, ManagerProxy};
use super::types::{Application, Command, Dict, Domain, Event, Label, Question, Window};

/// A signal, as far as it matters.
enum Signal {
    Domains,
    Applications,
    Windows,
    Focus(Option<Window>),
    Menu { time_us: u64 },
    Asks,
    Crossed(String),
}

/// Works until the session bus is gone.
pub async fn run(
    interest: Interest,
    mut commands: UnboundedReceiver<Command>,
    events: UnboundedSender<Event>,
) -> zbus::Result<()> {
    let connection = zbus::Connection::session().await?;
    let manager = ManagerProxy::builder(&connection)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?;
    let calls = CallsProxy::builder(&connection)
        .cache_properties(zbus::proxy::CacheProperties::No)
        .build()
        .await?;
    let mut signals = select_all(match interest {
        Interest::Panel => panel_signals(&manager).await?,
        Interest::Menu => menu_signals(&manager, &calls).await?,
    });
    // Without the manager there is nothing; when it comes, everything is fetched.
    let mut owners = manager.inner().receive_owner_changed().await?;
    let present = zbus::fdo::DBusProxy::new(&connection)
        .await?
        .name_has_owner("org.bulkhead.Manager".try_into()?)
        .await?;
    let client = Client {
        manager,
        calls,
        events,
        interest,
    };
    client.manager_is(present).await;
    let mut working = JoinSet::new();
    // The list of applications is long. It is fetched beside everything else, so that the menu
    // opens meanwhile, and once for any number of changes.
    let mut fetching = JoinSet::new();
    let mut stale = present && interest == Interest::Menu;
    let mut minute = Box::pin(next_minute());
    loop {
        if stale && fetching.is_empty() {
            stale = false;
            fetching.spawn(client.clone().fetch_applications());
        }
        tokio::select! {
            signal = signals.next() => match signal {
                Some(Signal::Applications) => stale = true,
                Some(signal) => client.take(signal).await,
                None => return Err(zbus::Error::InputOutput(
                    std::io::Error::other("it has closed the connection").into(),
                )),
            },
            Some(owner) = owners.next() => {
                client.manager_is(owner.is_some()).await;
                stale = owner.is_some() && interest == Interest::Menu;
            }
            // What takes long (a domain that starts) must not keep the rest waiting.
            command = commands.recv() => match command {
                Some(command) => drop(working.spawn(client.clone().obey(command))),
                None => return Ok(()),
            },
            Some(_) = working.join_next() => {}
            Some(_) = fetching.join_next() => {}
            () = &mut minute, if interest == Interest::Panel => {
                client.tell(Event::Minute);
                minute = Box::pin(next_minute());
            }
        }
    }
}

type Signals = Vec<BoxStream<'static, Signal>>;

async fn panel_signals(manager: &ManagerProxy<'static>) -> zbus::Result<Signals> {
    let focus = manager.receive_focus_changed().await?;
    let focus = focus.filter_map(|signal| async move {
        let focus = signal.args().ok()?;
        let window = (focus.id != 0).then(|| Window {
            id: focus.id,
            domain: focus.domain.to_owned(),
            label: Label::new(focus.label, focus.colour),
            title: focus.title.to_owned(),
            focused: true,
        });
        Some(Signal::Focus(window))
    });
    Ok(vec![
        focus.boxed(),
        manager
            .receive_windows_changed()
            .await?
            .map(|_| Signal::Windows)
            .boxed(),
        manager
            .receive_domain_state_changed()
            .await?
            .map(|_| Signal::Domains)
            .boxed(),
        manager
            .receive_domain_added()
            .await?
            .map(|_| Signal::Domains)
            .boxed(),
        manager
            .receive_domain_removed()
            .await?
            .map(|_| Signal::Domains)
            .boxed(),
    ])
}

async fn menu_signals(
    manager: &ManagerProxy<'static>,
    calls: &CallsProxy<'static>,
) -> zbus::Result<Signals> {
    let crossed = calls.receive_call_ended().await?;
    let crossed = crossed.filter_map(|signal| async move {
        let notice = signal.args().ok()?.notice.to_owned();
        Some(Signal::Crossed(notice))
    });
    let menu = manager.receive_menu_requested().await?;
    let menu = menu.filter_map(|signal| async move {
        let time_us = signal.args().ok()?.time_us;
        Some(Signal::Menu { time_us })
    });
    let opened = calls.receive_ask_opened().await?;
    let closed = calls.receive_ask_closed().await?;
    Ok(vec![
        menu.boxed(),
        crossed.boxed(),
        opened.map(|_| Signal::Asks).boxed(),
        closed.map(|_| Signal::Asks).boxed(),
        manager
            .receive_applications_changed()
            .await?
            .map(|_| Signal::Applications)
            .boxed(),
    ])
}

/// Sleeps until the clock on the wall shows another minute: one timer, once a minute.
async fn next_minute() {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let into_minute = u64::try_from(now.tv_sec.rem_euclid(60)).unwrap_or(0);
    // A moment later, so that the minute has begun whatever the timer's precision.
    let rest = Duration::from_secs(60 - into_minute) + Duration::from_millis(5);
    let into_second = Duration::from_nanos(u64::try_from(now.tv_nsec).unwrap_or(0));
    tokio::time::sleep(rest.saturating_sub(into_second)).await;
}

#[derive(Clone)]
struct Client {
    manager: ManagerProxy<'static>,
    calls: CallsProxy<'static>,
    events: UnboundedSender<Event>,
    interest: Interest,
}

impl Client {
    fn tell(&self, event: Event) {
        // The window ends only with the process.
        let _ = self.events.send(event);
    }

    async fn manager_is(&self, present: bool) {
        self.tell(Event::Manager(present));
        if !present {
            return;
        }
        if self.interest == Interest::Panel {
            self.take(Signal::Domains).await;
            self.take(Signal::Windows).await;
        } else {
            // Those that were asked before this process was there.
            self.take(Signal::Asks).await;
        }
    }

    async fn take(&self, signal: Signal) {
        match signal {
            Signal::Focus(window) => self.tell(Event::Focus(window)),
            Signal::Menu { time_us } => self.tell(Event::Menu { time_us }),
            Signal::Domains => {
                let list = self.manager.list_domains().await;
                if let Some(list) = self.answered(list) {
                    self.tell(Event::Domains(list.iter().map(Domain::from).collect()));
                }
            }
            Signal::Windows => {
                let list = self.manager.list_windows().await;
                if let Some(list) = self.answered(list) {
                    let windows: Vec<Window> = list.iter().map(Window::from).collect();
                    self.tell(Event::Windows(windows));
                }
            }
            Signal::Asks => {
                let list = self.calls.list_asks().await;
                if let Some(list) = self.answered(list) {
                    self.tell(Event::Asks(list.iter().map(Question::from).collect()));
                }
            }
            Signal::Crossed(notice) => self.tell(Event::Crossed(notice)),
            // Fetched by whoever has taken the signal.
            Signal::Applications => {}
        }
    }

    async fn fetch_applications(self) {
        let list = self.manager.list_applications().await;
        if let Some(list) = self.answered(list) {
            let list = list.iter().map(Application::from).collect();
            self.tell(Event::Applications(list));
        }
    }

    fn answered<T>(&self, answer: zbus::Result<T>) -> Option<T> {
        answer
            .inspect_err(|error| tracing::warn!(%error, "the manager"))
            .ok()
    }

    async fn obey(self, command: Command) {
        let result = match command {
            Command::Launch {
                domain,
                app,
                disposable,
            } => {
                let options = Dict::from([("disposable".into(), disposable.into())]);
                let launched = self
                    .manager
                    .launch_application(&domain, &app, options)
                    .await;
                launched.map(|_| ())
            }
            Command::Icons(names) => {
                for name in names {
                    // An icon that cannot be shown is none; the manager has told its log.
                    if let Ok((48, 48, rgba)) = self.manager.get_icon(&name).await
                        && rgba.len() == 48 * 48 * 4
                    {
                        self.tell(Event::Icon(name, rgba));
                    }
                }
                Ok(())
            }
            Command::Activate(id) => self.manager.activate_window(id).await,
            Command::Close(id) => self.manager.close_window(id).await,
            Command::Stop(name) => self.manager.stop_domain(&name, 0).await,
            Command::Kill(name) => self.manager.kill_domain(&name).await,
            Command::PowerOff => self.manager.power_off().await,
            Command::Reboot => self.manager.reboot().await,
            Command::Menu => self.manager.request_menu().await,
            Command::CopyAcross => self.manager.copy_across().await,
            Command::PasteAcross => self.manager.paste_across().await,
            Command::Allow(id, target) => self.calls.allow_ask(id, &target).await,
            Command::Deny(id) => self.calls.deny_ask(id).await,
            Command::Arm(id, time) => {
                tokio::time::sleep(time).await;
                self.tell(Event::Armed(id));
                Ok(())
            }
            Command::Wake(time) => {
                tokio::time::sleep(time).await;
                self.tell(Event::Elapsed);
                Ok(())
            }
        };
        if let Err(error) = result {
            let text = match &error {
                zbus::Error::MethodError(_, Some(text), _) => text.clone(),
                error => error.to_string(),
            };
            tracing::warn!("{text}");
            self.tell(Event::Failed(text));
        }
    }
}
