//! What the manager may ask for.

use std::os::fd::OwnedFd;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{error, ok};
use crate::{
    domain::{Colour, DomainError},
    layout::WindowId,
    selection::{Decision, Ends},
    server::SharedDisplay,
    state::State,
};

#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    AddDomain {
        name: String,
        label: String,
        colour: String,
    },
    SetDomain {
        name: String,
        label: String,
        colour: String,
    },
    RemoveDomain {
        name: String,
    },
    Windows {},
    CloseWindow {
        id: u64,
    },
    ActivateWindow {
        id: u64,
    },
    CopyAcross {},
    PasteAcross {},
    AnswerPaste {
        id: u64,
        allow: bool,
        #[serde(default)]
        reason: String,
        /// Where the files are now, as addresses in the target.
        #[serde(default)]
        files: Vec<String>,
    },
    AnswerDragOver {
        id: u64,
        allow: bool,
        #[serde(default)]
        reason: String,
    },
    AnswerDrop {
        id: u64,
        allow: bool,
        #[serde(default)]
        reason: String,
        /// Where the files are now, as addresses in the target.
        #[serde(default)]
        files: Vec<String>,
    },
    Subscribe {},
    Stop {},
}

/// What the manager says of a paste or a drop. A yes to a picture has two descriptors.
fn decision(
    allow: bool,
    fds: Vec<OwnedFd>,
    reason: String,
    files: Vec<String>,
) -> Result<Decision, Value> {
    match (allow, <[OwnedFd; 2]>::try_from(fds)) {
        (false, _) => Ok(Decision::Refuse(reason)),
        (true, Ok([picture, pixels])) => Ok(Decision::Redraw(Ends { picture, pixels })),
        (true, Err(fds)) if fds.is_empty() => Ok(Decision::Give(files)),
        (true, Err(_)) => Err(error(
            "an answer has no descriptors, or two for a picture: a pipe that takes it and one that \
             gives its pixels",
        )),
    }
}

impl State {
    pub(super) fn manager_request(
        &mut self,
        connection: u64,
        request: Value,
        fds: Vec<OwnedFd>,
        display: &SharedDisplay,
    ) -> Value {
        let request = match serde_json::from_value::<Request>(request) {
            Ok(request) => request,
            Err(wrong) => return error(wrong),
        };
        match request {
            Request::AddDomain {
                name,
                label,
                colour,
            } => {
                let Ok([socket]) = <[OwnedFd; 1]>::try_from(fds) else {
                    return error("add_domain needs one descriptor, the domain's listening socket");
                };
                match self.add_domain(&name, &label, &colour, socket, display) {
                    Ok(id) => json!({ "ok": true, "id": id.0 }),
                    Err(wrong) => error(wrong),
                }
            }
            Request::SetDomain {
                name,
                label,
                colour,
            } => self
                .set_domain(&name, label, &colour)
                .map_or_else(error, |()| ok()),
            Request::RemoveDomain { name } => {
                self.remove_domain(&name).map_or_else(error, |()| ok())
            }
            Request::Windows {} => self.window_list(),
            Request::CloseWindow { id } => {
                if self.close(WindowId(id)) {
                    ok()
                } else {
                    error(format!("no window {id}"))
                }
            }
            Request::ActivateWindow { id } => {
                if self.activate(WindowId(id)) {
                    ok()
                } else {
                    error(format!("no window {id} is shown"))
                }
            }
            Request::CopyAcross {} => {
                self.copy_across();
                ok()
            }
            Request::PasteAcross {} => {
                self.paste_across();
                ok()
            }
            Request::AnswerPaste {
                id,
                allow,
                reason,
                files,
            } => {
                let decision = match decision(allow, fds, reason, files) {
                    Ok(decision) => decision,
                    Err(wrong) => return wrong,
                };
                if self.decide_paste(id, decision) {
                    ok()
                } else {
                    error(format!("no paste {id} waits for an answer"))
                }
            }
            Request::AnswerDragOver { id, allow, reason } => {
                let decision = if allow { Ok(()) } else { Err(reason) };
                if self.decide_drag_over(id, decision) {
                    ok()
                } else {
                    error(format!("no drag {id} waits for an answer"))
                }
            }
            Request::AnswerDrop {
                id,
                allow,
                reason,
                files,
            } => {
                let decision = match decision(allow, fds, reason, files) {
                    Ok(decision) => decision,
                    Err(wrong) => return wrong,
                };
                if self.decide_drop(id, decision) {
                    ok()
                } else {
                    error(format!("no drop {id} waits for an answer"))
                }
            }
            Request::Subscribe {} => {
                let own = self
                    .control
                    .connections
                    .iter_mut()
                    .find(|c| c.id == connection);
                if let Some(own) = own {
                    own.subscribed = true;
                }
                self.announce_kept_power();
                ok()
            }
            Request::Stop {} => {
                self.stop.stop();
                ok()
            }
        }
    }

    fn set_domain(&mut self, name: &str, label: String, colour: &str) -> Result<(), DomainError> {
        let colour: Colour = colour.parse()?;
        let id = self
            .domains
            .by_name(name)
            .ok_or_else(|| DomainError::Unknown(name.into()))?;
        if let Some(domain) = self.domains.get_mut(id) {
            domain.label = label;
            domain.colour = colour;
        }
        self.dirty = true;
        Ok(())
    }
}
