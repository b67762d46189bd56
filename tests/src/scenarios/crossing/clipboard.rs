//! What is copied with Ctrl+Shift+C in one domain comes with Ctrl+Shift+V to another one, whole,
//! where the policy allows it, and a third one never sees anything of it.

use std::time::Duration;

use serde_json::json;

use super::picture;
use crate::check;
use crate::e2e::context::Context;
use crate::e2e::desktop::Desktop;
use crate::e2e::picture::{Area, Picture};
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "crossing-clipboard",
    about: "text crosses by the user's keys, a picture only as its pixels; a watcher sees nothing",
    run: Place::Host(run),
};

/// Codes of linux/input-event-codes.h.
const KEY_LEFTCTRL: u32 = 29;
const KEY_LEFTSHIFT: u32 = 42;
const KEY_C: u32 = 46;
const KEY_V: u32 = 47;

/// The border colour of `work`.
const RED: [u8; 3] = [0xcc, 0, 0];
const DOMAINS: [(&str, &str); 3] = [("work", "red"), ("personal", "green"), ("watcher", "blue")];

fn run(context: &Context<'_>) -> Outcome {
    let desktop = Desktop::new(context);
    let mut windows = Vec::new();
    for (name, label) in DOMAINS {
        context.domain(name, label)?;
        windows.push(context.spawn_in(name, &["foot", "-W", "40x8"])?);
        desktop.wait_window("a window", Duration::from_secs(180), |w| w.domain == name)?;
    }
    let crossing = Crossing { context, desktop };
    crossing.text()?;
    crossing.files()?;
    crossing.picture()?;
    crossing.broken_picture()?;
    crossing.refused()
}

struct Crossing<'a> {
    context: &'a Context<'a>,
    desktop: Desktop<'a>,
}

impl Crossing<'_> {
    fn shell(&self, domain: &str, script: &str) -> Result<String, Failure> {
        self.context.guest_ok(domain, &["sh", "-c", script])
    }

    /// What the user was told so far, as often as it was.
    fn told(&self, what: &str) -> Result<usize, Failure> {
        let pattern = format!("notice.*{what}");
        let counted = self
            .context
            .host(&["grep", "-c", &pattern, "/out/session.log"])?;
        Ok(counted.stdout_text().trim().parse().unwrap_or(0))
    }

    /// Presses the keys in a domain's window until the user is told something; keeps a picture.
    fn press(&self, domain: &str, key: u32, notice: &str) -> Result<Picture, Failure> {
        let window = self
            .desktop
            .windows_of(domain)?
            .into_iter()
            .find(|window| window.app_id == "foot")
            .ok_or_else(|| Failure::new(format!("{domain} has no window")))?;
        let before = self.told(notice)?;
        let name = format!("{domain}-{}", notice.split(' ').next().unwrap_or_default());
        let keys = [KEY_LEFTCTRL, KEY_LEFTSHIFT, key];
        let press = |code: &u32, pressed| json!({"op": "key", "code": code, "pressed": pressed});
        let mut requests = vec![
            json!({"op": "pointer_move", "x": window.x + 60, "y": window.y - 10}),
            json!({"op": "pointer_button", "button": 0x110, "pressed": true}),
            json!({"op": "pointer_button", "button": 0x110, "pressed": false}),
            json!({"op": "sleep", "ms": 100}),
        ];
        requests.extend(keys.iter().map(|code| press(code, true)));
        requests.extend(keys.iter().rev().map(|code| press(code, false)));
        self.desktop.ask_all(&requests)?;
        self.desktop.wait(notice, Duration::from_secs(100), || {
            Ok((self.told(notice)? > before).then_some(()))
        })?;
        self.desktop.screenshot(&name)
    }

    fn copy(&self, domain: &str, notice: &str) -> Result<Picture, Failure> {
        self.press(domain, KEY_C, notice)
    }

    fn paste(&self, domain: &str, notice: &str) -> Result<Picture, Failure> {
        self.press(domain, KEY_V, notice)
    }

    fn sees_nothing(&self, domain: &str) -> Outcome {
        let seen = self.shell(domain, "timeout 15 wl-paste -l 2>&1 || true")?;
        check!(
            seen.contains("Nothing is copied") || seen.contains("No selection"),
            "{domain} sees a clipboard: {seen}"
        );
        Ok(())
    }

    /// 16 MiB, exactly as much as may cross.
    fn text(&self) -> Outcome {
        // Base64 of random bytes: nothing compresses or repeats, so a lost piece shows.
        let expected = self.shell(
            "work",
            "head -c 12582912 /dev/urandom | base64 -w0 > /tmp/big; \
             wl-copy -t text/plain < /tmp/big > /dev/null 2>&1; sha256sum < /tmp/big",
        )?;
        self.copy("work", "copied 16.0 MiB of text from work")?;
        self.sees_nothing("personal")?;
        self.sees_nothing("watcher")?;

        let notice = "pasted 16.0 MiB of text from work into personal";
        let picture = self.paste("personal", notice)?;
        // The name of the domain stands on its colour in the middle of the lower edge.
        let middle = picture.area();
        let place = Area {
            x: middle.width / 4,
            y: middle.height - 60,
            width: middle.width / 2,
            height: 60,
        };
        check!(
            picture.share_of(place, RED, 2) > 0.01,
            "no notice is seen: {}",
            picture.share_of(place, RED, 2)
        );
        let pasted = self.shell(
            "personal",
            "timeout 120 wl-paste -n -t text/plain | sha256sum",
        )?;
        check!(pasted == expected, "16 MiB arrived changed or short");
        self.paste("watcher", "not pasted: nothing was copied")?;
        self.sees_nothing("watcher")
    }

    /// A file of `work` becomes one of `personal`, and that is what it can paste.
    fn files(&self) -> Outcome {
        self.shell(
            "work",
            "mkdir -p ~/out; printf words > ~/out/a\\ note; \
             printf 'file:///home/user/out/a%%20note\\r\\n' | wl-copy -t text/uri-list > /dev/null 2>&1",
        )?;
        self.copy("work", "copied files from work")?;
        let folder = "$HOME/.config/bulkhead/policy.d";
        let rule = "qubes.Filecopy * work personal allow";
        let write = format!("mkdir -p {folder}; echo '{rule}' > {folder}/30-user.policy");
        self.context.host_ok(&["sh", "-c", &write])?;
        self.paste("personal", "pasted files from work into personal")?;
        self.context
            .host_ok(&["sh", "-c", &format!("rm -r {folder}")])?;
        let found = self.shell(
            "personal",
            "cat ~/Incoming/work/a\\ note; for type in text/uri-list x-special/gnome-copied-files; do \
             echo; timeout 15 wl-paste -n -t $type; done",
        )?;
        let place = "file:///home/user/Incoming/work/a%20note";
        check!(
            found == format!("words\n{place}\r\n\ncopy\n{place}"),
            "the file, and what can be pasted: {found:?}"
        );
        self.sees_nothing("watcher")
    }

    /// In `work`, a file becomes the clipboard.
    fn copy_picture(&self, file: &[u8]) -> Result<Picture, Failure> {
        let encoded: String = file.iter().map(|byte| format!("\\\\{byte:03o}")).collect();
        let script = format!(
            "printf {encoded} > /tmp/p.png; test $(wc -c < /tmp/p.png) = {}; \
             wl-copy -t image/png < /tmp/p.png > /dev/null 2>&1",
            file.len()
        );
        self.shell("work", &script)?;
        self.copy("work", "copied an image of .* from work")
    }

    /// What `personal` has in its clipboard.
    fn pasted_picture(&self) -> Result<Vec<u8>, Failure> {
        let script = "timeout 60 wl-paste -n -t image/png | od -An -v -tu1";
        let numbers = self.shell("personal", script)?;
        let bytes = numbers.split_whitespace().map(str::parse::<u8>);
        bytes
            .collect::<Result<_, _>>()
            .map_err(|error| Failure::new(format!("no bytes: {error}")))
    }

    /// The pixels arrive, and nothing else that the source has written into its file.
    fn picture(&self) -> Outcome {
        let pixels = picture::pixels();
        let sent = picture::file(&pixels).map_err(Failure::new)?;
        check!(
            picture::contains(&sent, picture::TEXT) && picture::contains(&sent, picture::HIDDEN),
            "the picture has nothing to lose"
        );
        self.copy_picture(&sent)?;
        self.paste("personal", "pasting a picture from work into personal")?;
        self.told_of("pasted an image of .* from work into personal")?;
        let pasted = self.pasted_picture()?;
        for (what, rest) in [
            ("its text", picture::TEXT),
            ("what is hidden in it", picture::HIDDEN),
        ] {
            check!(
                !picture::contains(&pasted, rest),
                "{what} arrived with a picture"
            );
        }
        let decoded = picture::decode(&pasted).map_err(Failure::new)?;
        check!(decoded == pixels, "the picture arrived changed");
        self.sees_nothing("watcher")?;
        self.no_disposable_is_left()
    }

    /// A picture that has the shape of one, with garbage for pixels.
    fn broken_picture(&self) -> Outcome {
        let mut sent = picture::file(&picture::pixels()).map_err(Failure::new)?;
        let data = sent.windows(4).position(|w| w == b"IDAT");
        let data = data.ok_or_else(|| Failure::new("a picture without pixels"))?;
        sent.iter_mut()
            .skip(data + 4)
            .take(40)
            .for_each(|b| *b ^= 0x5a);
        let before = self.pasted_picture()?;
        self.copy_picture(&sent)?;
        let notice = "not pasted from work into personal: it cannot be decoded";
        self.paste("personal", notice)?;
        check!(
            self.pasted_picture()? == before,
            "a broken picture changed the target's clipboard"
        );
        self.no_disposable_is_left()
    }

    fn told_of(&self, notice: &str) -> Outcome {
        self.desktop.wait(notice, Duration::from_secs(100), || {
            Ok((self.told(notice)? > 0).then_some(()))
        })
    }

    fn no_disposable_is_left(&self) -> Outcome {
        self.desktop
            .wait("the disposable's end", Duration::from_secs(20), || {
                let all = self.context.host_ok(&["bulkhead", "list", "--json"])?;
                let all: serde_json::Value = serde_json::from_str(&all)?;
                let names = all.as_array().into_iter().flatten();
                let left = names.filter_map(|domain| domain["name"].as_str());
                Ok((left.filter(|name| name.starts_with("disp")).count() == 0).then_some(()))
            })
    }

    /// What is too much is cut off, and what a rule denies changes nothing.
    fn refused(&self) -> Outcome {
        self.shell(
            "work",
            "echo x >> /tmp/big; wl-copy -t text/plain < /tmp/big > /dev/null 2>&1",
        )?;
        self.copy("work", "not copied: work offers more than 16.0 MiB")?;
        self.context.copy_text("work", "secret")?;
        self.copy("work", "copied 6 bytes of text from work")?;
        let folder = "$HOME/.config/bulkhead/policy.d";
        let rule = "qubes.ClipboardPaste * work personal deny";
        self.context.host_ok(&[
            "sh",
            "-c",
            &format!("mkdir -p {folder}; echo '{rule}' > {folder}/30-user.policy"),
        ])?;
        let denied = "not pasted from work into personal: the rule 30-user.policy:1 denies it";
        let pressed = self.paste("personal", denied);
        self.context
            .host_ok(&["sh", "-c", &format!("rm -r {folder}")])?;
        pressed?;
        let types = self.shell("personal", "timeout 15 wl-paste -l")?;
        check!(
            types.trim() == "image/png",
            "a denied paste changed the target's clipboard: {types}"
        );
        self.sees_nothing("watcher")?;
        let log = self.context.host_ok(&["bulkhead", "transfers"])?;
        let pastes = |end: &str| {
            let wanted = |line: &&str| line.contains("qubes.ClipboardPaste") && line.contains(end);
            log.lines().filter(wanted).count()
        };
        check!(
            pastes("") >= 3 && pastes("30-user.policy:1") >= 1,
            "the log of what crossed lacks the pastes: {log}"
        );
        Ok(())
    }
}
