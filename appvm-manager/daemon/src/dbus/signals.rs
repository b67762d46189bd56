//! What the manager says unasked, and what it hears of its callers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::broadcast;
use tokio::time::Instant;
use zbus::Connection;
use zbus::object_server::SignalEmitter;

use super::calls::Calls;
use super::{Api, PATH};
use crate::manager::{Event, Manager};
use crate::windows::WindowInfo;

/// Changes of windows within this time are one signal.
const COALESCE: Duration = Duration::from_millis(30);

/// Turns the manager's events into signals.
pub async fn tell(manager: Arc<Manager>, connection: Connection) {
    let mut events = manager.events();
    let mut connected = manager.compositor.connected();
    let interface = match connection.object_server().interface::<_, Api>(PATH).await {
        Ok(interface) => interface,
        Err(error) => return tracing::error!(%error, "no signals"),
    };
    let emitter = interface.signal_emitter();
    // When the windows' changes are to be told.
    let mut windows_at: Option<Instant> = None;
    loop {
        let result = tokio::select! {
            event = events.recv() => match event {
                Ok(Event::State(name, state)) => {
                    Api::domain_state_changed(emitter, name.as_str(), state.name(), state.detail())
                        .await
                }
                Ok(Event::Added(name)) => Api::domain_added(emitter, name.as_str()).await,
                Ok(Event::Removed(name)) => Api::domain_removed(emitter, name.as_str()).await,
                Ok(Event::Applications) => Api::applications_changed(emitter).await,
                Ok(Event::Mapped { domain, id, title, time_us }) => {
                    Api::window_mapped(emitter, domain.as_str(), id, &title, time_us).await
                }
                Ok(Event::Windows) => {
                    windows_at.get_or_insert_with(|| Instant::now() + COALESCE);
                    Ok(())
                }
                Ok(Event::Focus(focus)) => tell_focus(emitter, focus).await,
                Ok(Event::Menu { time_us }) => Api::menu_requested(emitter, time_us).await,
                Ok(Event::AskOpened(id)) => Calls::ask_opened(emitter, id).await,
                Ok(Event::AskClosed(id)) => Calls::ask_closed(emitter, id).await,
                Ok(Event::Call(notice)) => Calls::call_ended(emitter, &notice).await,
                Ok(Event::Notice(text)) => Api::notice(emitter, &text).await,
                // What was missed is not known: whoever listens looks again.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    windows_at.get_or_insert_with(Instant::now);
                    match Api::applications_changed(emitter).await {
                        Ok(()) => tell_focus(emitter, manager.focused_window()).await,
                        error => error,
                    }
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = until(windows_at) => {
                windows_at = None;
                Api::windows_changed(emitter).await
            }
            Ok(()) = connected.changed() => {
                interface.get().await.compositor_connected_changed(emitter).await
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "signal");
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn tell_focus(emitter: &SignalEmitter<'_>, focus: Option<WindowInfo>) -> zbus::Result<()> {
    match focus {
        Some(window) => {
            let (label, colour) = (window.label.name(), window.label.colour());
            Api::focus_changed(
                emitter,
                window.id,
                window.domain.as_str(),
                label,
                colour,
                &window.title,
            )
            .await
        }
        None => Api::focus_changed(emitter, 0, "", "", "", "").await,
    }
}

/// Ends the commands of callers that leave the bus.
pub async fn watch_callers(manager: Arc<Manager>, connection: Connection) {
    let stream = async {
        zbus::fdo::DBusProxy::new(&connection)
            .await?
            .receive_name_owner_changed()
            .await
    };
    let mut changes = match stream.await {
        Ok(changes) => changes,
        Err(error) => return tracing::error!(%error, "callers that leave are not noticed"),
    };
    while let Some(change) = changes.next().await {
        let Ok(arguments) = change.args() else {
            continue;
        };
        if arguments.new_owner.is_none() && arguments.name.starts_with(':') {
            manager.caller_left(&arguments.name);
        }
    }
}
