//! What is dragged from a window of one domain to a window of another arrives where the user says
//! yes, and of what the user or a rule denies the target learns nothing.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::picture;
use crate::check;
use crate::e2e::context::{Background, Context, GREEN};
use crate::e2e::desktop::{BTN_LEFT, Desktop, Window};
use crate::e2e::picture::{Area, Picture};
use crate::e2e::{Failure, Outcome, Place, Scenario};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "crossing-drag",
    about: "a file, text and a picture are dragged to another domain, by the user's answer and the policy",
    run: Place::Host(run),
};

const PATIENCE: Duration = Duration::from_secs(120);
/// The border of a green window on which something may be dropped: two parts of white.
const LIT: [u8; 3] = [0xd0, 0xf0, 0xb0];
/// The crossed circle.
const FORBIDDEN: [u8; 3] = [0xd0, 0x1a, 0x1a];
/// A file's picture in a new window of Thunar, from the corner of the window.
const FIRST_FILE: (i32, i32) = (230, 110);
/// In the first line of Mousepad's text.
const FIRST_LINE: (i32, i32) = (60, 45);
/// What `take` wrote down so far, and where it puts what it gets.
const TAKEN: &str = "/tmp/taken";

fn run(context: &Context<'_>) -> Outcome {
    context.domain("work", "red")?;
    context.domain("personal", "green")?;
    let drag = Drag {
        context,
        desktop: Desktop::new(context),
        notices: RefCell::default(),
    };
    for domain in ["work", "personal"] {
        context.install_hostile(domain, "drag-client")?;
    }
    drag.shell(
        "work",
        "mkdir -p ~/out && cd ~/out && head -c 3000 /dev/urandom | base64 > 'a note.txt'",
    )?;
    let from = drag.open("work", &["thunar", "/home/user/out"], "thunar", (20, 60))?;
    drag.file_to_an_editor(&from.1)?;
    drag.file_to_a_file_manager(&from.1)?;
    let taker = drag.open(
        "personal",
        &["/tmp/drag-client", "take", TAKEN],
        "drag-client",
        (760, 400),
    )?;
    drag.file_refused(&from.1, &taker.1)?;
    drop(from);
    let giver = drag.giver()?;
    drag.picture(&giver.1, &taker.1)?;
    drag.denied(&giver.1, &taker.1)?;
    drop((giver, taker));
    drag.text()?;
    drag.log()?;
    for domain in ["work", "personal"] {
        drag.shell(domain, "rm -rf ~/Incoming ~/in ~/out")?;
    }
    Ok(())
}

struct Drag<'a> {
    context: &'a Context<'a>,
    desktop: Desktop<'a>,
    /// How often the user was told what.
    notices: RefCell<BTreeMap<String, usize>>,
}

impl Drag<'_> {
    fn shell(&self, domain: &str, script: &str) -> Result<String, Failure> {
        self.context.guest_ok(domain, &["sh", "-c", script])
    }

    /// Starts a program and puts its window at a place of the screen.
    fn open(
        &self,
        domain: &str,
        command: &[&str],
        app: &str,
        place: (i32, i32),
    ) -> Result<(Background, Window), Failure> {
        let program = self.context.spawn_in(domain, command)?;
        let mine = |w: &Window| w.domain == domain && w.app_id.to_lowercase().contains(app);
        let window = self.desktop.wait_window(app, PATIENCE, mine)?;
        self.desktop.settle(500)?;
        let grip = (window.x + 150, window.y - 12);
        let (dx, dy) = (place.0 - window.x, place.1 - window.y);
        self.desktop.drag(grip, (grip.0 + dx, grip.1 + dy), &[])?;
        let window = self.desktop.wait_window(app, PATIENCE, mine)?;
        Ok((program, window))
    }

    /// Drags from one place to another and lets go there; gives a picture of the moment before.
    fn drag(&self, from: (i32, i32), to: (i32, i32), name: &str) -> Result<Picture, Failure> {
        let step = |x: i32, y: i32| json!({"op": "pointer_move", "x": x, "y": y});
        let pause = |ms: u32| json!({"op": "sleep", "ms": ms});
        let button =
            |down: bool| json!({"op": "pointer_button", "button": BTN_LEFT, "pressed": down});
        let mut requests = vec![step(from.0, from.1), pause(300), button(true), pause(200)];
        // GTK begins a drag after a few pixels, and only when it has seen them.
        for pixels in 1..=8 {
            requests.extend([step(from.0 + pixels * 3, from.1 + pixels), pause(60)]);
        }
        requests.push(pause(600));
        for part in 1..=10 {
            let at = |from: i32, to: i32| from + (to - from) * part / 10;
            requests.extend([step(at(from.0, to.0), at(from.1, to.1)), pause(40)]);
        }
        requests.extend([pause(600), step(to.0 + 1, to.1), pause(300)]);
        self.desktop.ask_all(&requests)?;
        let picture = self.desktop.screenshot(name)?;
        self.desktop.ask_all(&[button(false)])?;
        Ok(picture)
    }

    /// The only open question.
    fn question(&self, service: &str) -> Result<Value, Failure> {
        let question = self
            .desktop
            .wait("a question", Duration::from_secs(30), || {
                let text = self
                    .context
                    .host_ok(&["bulkhead", "ask", "list", "--json"])?;
                let asks: Value = serde_json::from_str(&text)?;
                Ok(asks.as_array().and_then(|all| all.first()).cloned())
            });
        if question.is_err() {
            let _ = self.desktop.screenshot("failed");
        }
        let question = question?;
        check!(
            question["source"] == "work"
                && question["service"] == service
                && question["targets"].to_string().matches("personal").count() == 1
                && !question["targets"].to_string().contains("dispvm"),
            "the question: {question}"
        );
        Ok(question)
    }

    fn answer(&self, question: &Value, answer: &str) -> Outcome {
        let id = question["id"].to_string();
        self.context
            .host_ok(&["bulkhead", "ask", answer, &id])
            .map(drop)
    }

    /// Waits until the user has been told so once more than the last time.
    fn told(&self, what: &str) -> Outcome {
        let pattern = format!("notice.*{what}");
        let before = self.notices.borrow().get(what).copied().unwrap_or(0);
        let count = self.desktop.wait(what, Duration::from_secs(40), || {
            let found = self
                .context
                .host(&["grep", "-c", &pattern, "/out/session.log"])?;
            let count: usize = found.stdout_text().trim().parse().unwrap_or(0);
            Ok((count > before).then_some(count))
        })?;
        self.notices.borrow_mut().insert(what.to_owned(), count);
        Ok(())
    }

    fn arrived(&self, name: &str) -> Outcome {
        let sent = self.shell("work", "sha256sum < ~/out/'a note.txt'")?;
        let arrived = self.shell("personal", &format!("sha256sum < '{name}'"))?;
        check!(sent == arrived, "{name} arrived changed or short");
        Ok(())
    }

    /// The border of the target lights up; after the yes it opens its own copy.
    fn file_to_an_editor(&self, from: &Window) -> Outcome {
        let (_editor, target) = self.open("personal", &["mousepad"], "mousepad", (760, 60))?;
        let picture = self.drag(at(from, FIRST_FILE), middle(&target), "over-an-editor")?;
        let lit = picture.share_of(left_of(&target), LIT, 12);
        check!(lit > 0.9, "the border of the target is not lit: {lit}");
        let question = self.question("qubes.Filecopy")?;
        self.desktop.screenshot("question")?;
        check!(
            question["files"].to_string().contains("a note.txt"),
            "the question: {question}"
        );
        let before = self
            .context
            .guest("personal", &["ls", "/home/user/Incoming/work"])?;
        check!(before.stdout.is_empty(), "something arrived before the yes");
        self.answer(&question, "allow")?;
        self.told("dropped files from work into personal")?;
        self.arrived("/home/user/Incoming/work/a note.txt")?;
        self.desktop.wait_window("the opened copy", PATIENCE, |w| {
            w.domain == "personal" && w.title.contains("a note.txt")
        })?;
        let picture = self.desktop.screenshot("opened")?;
        let dark = picture.share_of(left_of(&target), GREEN, 12);
        check!(dark > 0.3, "the border is still lit: {dark}");
        Ok(())
    }

    /// Thunar copies what it got into the folder that it shows.
    fn file_to_a_file_manager(&self, from: &Window) -> Outcome {
        self.shell("personal", "mkdir -p ~/in")?;
        let command = ["thunar", "/home/user/in"];
        let (_manager, target) = self.open("personal", &command, "thunar", (760, 60))?;
        let to = at(&target, (400, 300));
        self.drag(at(from, FIRST_FILE), to, "over-a-file-manager")?;
        self.answer(&self.question("qubes.Filecopy")?, "allow")?;
        self.desktop.wait("the copy of the copy", PATIENCE, || {
            let found = self.context.guest("personal", &["sh", "-c", "ls ~/in"])?;
            Ok(found.stdout_text().contains("a note").then_some(()))
        })?;
        self.arrived("/home/user/in/a note (1).txt")
    }

    /// After a no the target has not been told a thing.
    fn file_refused(&self, from: &Window, taker: &Window) -> Outcome {
        let list = "ls -A ~/Incoming/work ~/in";
        let before = self.shell("personal", list)?;
        self.drag(at(from, FIRST_FILE), middle(taker), "over-a-watcher")?;
        let question = self.question("qubes.Filecopy")?;
        self.sees_nothing()?;
        self.answer(&question, "deny")?;
        self.told("not dropped from work into personal: refused by the user")?;
        self.sees_nothing()?;
        check!(
            before == self.shell("personal", list)?,
            "after a no something arrived"
        );
        Ok(())
    }

    fn sees_nothing(&self) -> Outcome {
        let seen = self.shell("personal", &format!("cat {TAKEN}/log"))?;
        check!(seen.is_empty(), "the target was told: {seen}");
        Ok(())
    }

    fn picture(&self, from: &Window, taker: &Window) -> Outcome {
        self.drag(middle(from), middle(taker), "over-with-a-picture")?;
        self.answer(&self.question("bulkhead.Drop")?, "deny")?;
        self.told("not dropped from work into personal: refused by the user")?;
        self.sees_nothing()?;
        self.drag(middle(from), middle(taker), "over-with-a-picture-again")?;
        let question = self.question("bulkhead.Drop")?;
        self.sees_nothing()?;
        self.answer(&question, "allow")?;
        self.told("dropped an image of .* from work into personal")?;
        self.desktop.wait("the picture", PATIENCE, || {
            let log = self.shell("personal", &format!("cat {TAKEN}/log"))?;
            Ok(log.contains("took").then_some(()))
        })?;
        let log = self.shell("personal", &format!("cat {TAKEN}/log"))?;
        check!(
            log.contains("data_offer\noffer image/png\nenter\n"),
            "the picture: {log}"
        );
        // Its pixels, and nothing else of its file: a disposable has decoded it.
        let numbers = self.shell("personal", &format!("od -An -v -tu1 {TAKEN}/data"))?;
        let taken: Result<Vec<u8>, _> = numbers.split_whitespace().map(str::parse).collect();
        let taken = taken.map_err(|error| Failure::new(format!("no bytes: {error}")))?;
        for rest in [picture::TEXT, picture::HIDDEN] {
            check!(!picture::contains(&taken, rest), "more than pixels arrived");
        }
        let pixels = picture::decode(&taken).map_err(Failure::new)?;
        check!(pixels == picture::pixels(), "the picture arrived changed");
        Ok(())
    }

    /// A window in `work` from which a picture can be dragged.
    fn giver(&self) -> Result<(Background, Window), Failure> {
        let file = picture::file(&picture::pixels()).map_err(Failure::new)?;
        let bytes = file.len();
        let encoded: String = file.iter().map(|byte| format!("\\\\{byte:03o}")).collect();
        let script = format!("printf {encoded} > /tmp/p.png; test $(wc -c < /tmp/p.png) = {bytes}");
        self.shell("work", &script)?;
        let command = ["/tmp/drag-client", "give", "image/png", "/tmp/p.png"];
        self.open("work", &command, "drag-client", (60, 400))
    }

    /// A rule denies it: the pointer says so, and nobody is asked.
    fn denied(&self, from: &Window, taker: &Window) -> Outcome {
        let folder = "$HOME/.config/bulkhead/policy.d";
        let rule = "bulkhead.Drop * work personal deny";
        let write = format!("mkdir -p {folder}; echo '{rule}' > {folder}/30-user.policy");
        self.context.host_ok(&["sh", "-c", &write])?;
        self.shell("personal", &format!(": > {TAKEN}/log"))?;
        let picture = self.drag(middle(from), middle(taker), "forbidden")?;
        let told =
            self.told("not dropped from work into personal: the rule 30-user.policy:1 denies it");
        let asked = self.context.host_ok(&["bulkhead", "ask", "list"])?;
        self.context
            .host_ok(&["sh", "-c", &format!("rm -r {folder}")])?;
        told?;
        let (x, y) = middle(taker);
        let mark = Area {
            x: x + 12,
            y: y + 12,
            width: 32,
            height: 32,
        };
        let share = picture.share_of(mark, FORBIDDEN, 12);
        check!(share > 0.2, "no mark at the pointer: {share}");
        let lit = picture.share_of(left_of(taker), LIT, 12);
        check!(lit < 0.01, "the border of a forbidden target is lit: {lit}");
        check!(
            asked.contains("No domain waits"),
            "somebody was asked: {asked}"
        );
        self.sees_nothing()
    }

    /// From editor to editor; the target saves what it has then.
    fn text(&self) -> Outcome {
        self.shell("work", "printf 'dragged words' > ~/out/words.txt")?;
        self.shell("personal", "printf 'home: ' > ~/in/home.txt")?;
        let command = ["mousepad", "/home/user/out/words.txt"];
        let (_from, from) = self.open("work", &command, "mousepad", (20, 60))?;
        let command = ["mousepad", "/home/user/in/home.txt"];
        let (_to, to) = self.open("personal", &command, "mousepad", (760, 60))?;
        let (x, y) = at(&from, FIRST_LINE);
        self.desktop.click(x, y + 100)?;
        self.desktop.chord(&[KEY_LEFTCTRL, KEY_A])?;
        self.desktop.settle(300)?;
        self.drag((x, y), middle(&to), "over-with-text")?;
        self.answer(&self.question("bulkhead.Drop")?, "deny")?;
        self.told("not dropped from work into personal: refused by the user")?;
        // An editor whose text has changed says so by a star.
        let untouched = self.desktop.windows_of("personal")?;
        check!(
            untouched.iter().all(|w| !w.title.starts_with('*')),
            "after a no the target has changed: {untouched:?}"
        );
        self.drag((x, y), middle(&to), "over-with-text-again")?;
        self.answer(&self.question("bulkhead.Drop")?, "allow")?;
        self.told("dropped 13 bytes of text from work into personal")?;
        self.desktop.settle(500)?;
        let (x, y) = middle(&to);
        self.desktop.click(x, y)?;
        self.desktop.chord(&[KEY_LEFTCTRL, KEY_S])?;
        self.desktop
            .wait("the saved text", Duration::from_secs(30), || {
                let saved = self.shell("personal", "cat ~/in/home.txt")?;
                Ok(saved.contains("dragged words").then_some(()))
            })?;
        let kept = self.shell("work", "cat ~/out/words.txt")?;
        check!(kept == "dragged words", "the source lost its text: {kept}");
        self.desktop.screenshot("text-arrived").map(drop)
    }

    fn log(&self) -> Outcome {
        let log = self.context.host_ok(&["bulkhead", "transfers"])?;
        self.context.log("transfers.txt", log.as_bytes())?;
        for line in [
            "a note.txt",
            "bulkhead.Drop+image",
            "bulkhead.Drop+text",
            "refused by the user",
        ] {
            check!(
                log.contains(line),
                "the log of what crossed lacks {line}: {log}"
            );
        }
        Ok(())
    }
}

/// Codes of linux/input-event-codes.h.
const KEY_LEFTCTRL: u32 = 29;
const KEY_A: u32 = 30;
const KEY_S: u32 = 31;

fn at(window: &Window, place: (i32, i32)) -> (i32, i32) {
    (window.x + place.0, window.y + place.1)
}

/// The middle of what is seen of a window on the screen.
fn middle(window: &Window) -> (i32, i32) {
    (
        window.x + window.width.min(400) / 2,
        window.y + window.height.min(300) / 2,
    )
}

/// A piece of the border left of a window.
fn left_of(window: &Window) -> Area {
    Area {
        x: window.x - 4,
        y: window.y + 20,
        width: 4,
        height: 60,
    }
}
