//! What a scenario holds: the host it runs on, its folder for pictures and logs, and short words for
//! what nearly every scenario does (make a domain, run something in it, read its state).

use std::path::{Path, PathBuf};

use std::time::Duration;

use crate::machine::{Accelerator, Exec, Exit, Machine, Process};

use super::{Failure, Outcome};

/// The colour of a red domain's border.
pub const RED: [u8; 3] = [0xcc, 0x00, 0x00];
/// The colour of a green domain's border.
pub const GREEN: [u8; 3] = [0x73, 0xd2, 0x16];

/// Where our programs lie in the test host.
const PROGRAMS: &str = "/usr/lib/bulkhead";

/// What the VMM says last when a guest cannot go on.
const GUEST_CRASHED: &str = "the guest crashed";

/// What the manager says then, in its log and on the serial line of a disk image.
pub const GUEST_HAS_CRASHED: &str = "its guest crashed";

/// What it says of a guest whose kernel noticed that its memory or registers were wrong.
pub const GUEST_HAS_PANICKED: &str = "its guest restarted, as kernels do after a panic";

/// No single command of a scenario takes longer, even on a busy emulated machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(240);
/// … at its full size.
const LONG_COMMAND_LIMIT: Duration = Duration::from_secs(3600);

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// Its exit status; 128 and the signal's number when a signal ended it, as a shell says it.
    pub status: i32,
    /// What it wrote to standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Standard output as text.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// What an attack came to.
#[derive(Debug)]
pub struct Attack {
    /// What the attacking program said.
    pub output: Output,
    /// The VM was ended once by the emulated processor: what ran in it before is gone.
    pub own_vm_ended: bool,
}

/// A program that runs while a scenario goes on; it is killed when this is dropped.
pub struct Background(Process);

impl Background {
    /// Whether it has ended by itself.
    pub fn ended(&mut self) -> bool {
        !matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // SIGTERM first: `bulkhead run` passes it on to the program in the guest.
        let _ = self.0.signal(15);
    }
}

/// One running scenario.
pub struct Context<'a> {
    machine: &'a Machine,
    folder: PathBuf,
    long: bool,
}

impl<'a> Context<'a> {
    /// A scenario on a booted host; pictures and logs go to `folder`.
    pub fn new(machine: &'a Machine, folder: &Path) -> Context<'a> {
        Context {
            machine,
            folder: folder.to_owned(),
            long: false,
        }
    }

    /// With scenarios at their full size, if so.
    pub fn at_full_size(self, long: bool) -> Context<'a> {
        Context { long, ..self }
    }

    /// How often to do something: `short` times, or `long` times by `cargo xtask e2e --long`.
    pub fn rounds(&self, short: usize, long: usize) -> usize {
        if self.long { long } else { short }
    }

    /// The scenario's own folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Keeps a file beside the scenario's pictures.
    pub fn log(&self, name: &str, bytes: &[u8]) -> Outcome {
        Ok(std::fs::write(self.folder.join(name), bytes)?)
    }

    /// Copies a file that the host wrote to `/out` into the scenario's folder.
    pub fn bring_back(&self, name: &str) -> Result<PathBuf, Failure> {
        let to = self.folder.join(name);
        std::fs::copy(self.machine.out().join(name), &to)
            .map_err(|error| Failure::new(format!("/out/{name} of the host: {error}")))?;
        Ok(to)
    }

    /// Runs a command in the host as the desktop user.
    pub fn host<S: AsRef<str>>(&self, command: &[S]) -> Result<Output, Failure> {
        self.execute(request(command))
    }

    /// Runs a command in the host as root.
    pub fn root<S: AsRef<str>>(&self, command: &[S]) -> Result<Output, Failure> {
        self.execute(request(command).as_root())
    }

    /// Runs a command in the host and returns its output; any other status than 0 is a failure.
    pub fn host_ok<S: AsRef<str>>(&self, command: &[S]) -> Result<String, Failure> {
        succeed(command, self.host(command)?)
    }

    /// Runs a command on the host that must fail with status 1 and these words.
    pub fn host_fails(&self, command: &[&str], words: &str) -> Outcome {
        let output = self.host(command)?;
        let told = output.stderr_text();
        if output.status == 1 && told.contains(words) {
            return Ok(());
        }
        Err(Failure::new(format!(
            "`{}` says (status {}): {told}",
            command.join(" "),
            output.status
        )))
    }

    /// Runs a program in a domain through `bulkhead run`.
    pub fn guest(&self, domain: &str, command: &[&str]) -> Result<Output, Failure> {
        self.host(&in_domain(domain, command))
    }

    /// Runs a program in a domain; any other status than 0 is a failure.
    pub fn guest_ok(&self, domain: &str, command: &[&str]) -> Result<String, Failure> {
        succeed(command, self.guest(domain, command)?)
    }

    /// Starts an application in a domain; it is ended when the handle is dropped.
    pub fn spawn_in(&self, domain: &str, command: &[&str]) -> Result<Background, Failure> {
        self.start(request(&in_domain(domain, command)))
    }

    /// Makes sure that a domain with this label exists (template `apps`, one processor: kernels that
    /// patch themselves while several emulated processors run are what emulation does worst).
    pub fn domain(&self, name: &str, label: &str) -> Outcome {
        let known = self.host_ok(&["bulkhead", "list", "--json"])?;
        let known: serde_json::Value = serde_json::from_str(&known)?;
        let exists = known
            .as_array()
            .is_some_and(|all| all.iter().any(|domain| domain["name"] == name));
        if !exists {
            self.host_ok(&[
                "bulkhead",
                "create",
                name,
                "--label",
                label,
                "--template",
                "apps",
                "--cpus",
                "1",
            ])?;
        }
        Ok(())
    }

    /// The manager's word for a domain's state.
    pub fn state(&self, domain: &str) -> Result<String, Failure> {
        let info = self.host_ok(&["bulkhead", "info", domain, "--json"])?;
        let info: serde_json::Value = serde_json::from_str(&info)?;
        let state = &info["state"];
        Ok(state
            .as_str()
            .or_else(|| state["name"].as_str())
            .unwrap_or_default()
            .to_owned())
    }

    /// Lets `program` (one of our hostile ones, see [`Context::install_hostile`]) attack from inside
    /// `domain`, with 60 s for it. Its VM must go on.
    ///
    /// QEMU's emulation of SVM sometimes ends a VM whatever its guest does (docs/testing.md), so an
    /// attack after which the VM has crashed is made again in a fresh one: it fails only where that
    /// VM crashes as well. On a processor with virtualization nothing is made twice.
    pub fn attack(&self, domain: &str, program: &str, attack: &str) -> Result<Attack, Failure> {
        let mut own_vm_ended = false;
        loop {
            let path = format!("/tmp/{program}");
            let command = ["timeout", "-s", "KILL", "60", &path, attack];
            let output = self.guest(domain, &command)?;
            if self.state(domain)? == "running" {
                return Ok(Attack {
                    output,
                    own_vm_ended,
                });
            }
            let log = self.host_ok(&["bulkhead", "log", "--vmm", domain])?;
            let why = log.lines().last().unwrap_or_default();
            self.log(&format!("{attack}-ended-its-vm.txt"), why.as_bytes())?;
            let emulated = self.machine.accelerator() == Accelerator::Emulation;
            if own_vm_ended || !emulated || !why.contains(GUEST_CRASHED) {
                return Err(Failure::new(format!("{attack} ended its own VM: {why}")));
            }
            eprintln!("  {attack}: the VM ended ({why}); the attack is made once more");
            own_vm_ended = true;
            self.install_hostile(domain, program)?;
        }
    }

    /// How many guests have crashed or panicked since the host was booted, by the manager's log: a domain may have
    /// been started again since.
    pub fn crashes(&self) -> Result<usize, Failure> {
        let either = format!("{GUEST_HAS_CRASHED}\\|{GUEST_HAS_PANICKED}");
        let count = self.host(&["grep", "-c", &either, "/out/session.log"])?;
        Ok(count.stdout_text().trim().parse().unwrap_or(0))
    }

    /// Copies a text in a domain as `wl-copy` does.
    pub fn copy_text(&self, domain: &str, text: &str) -> Outcome {
        let script = format!("printf %s '{text}' | wl-copy -t text/plain > /dev/null 2>&1");
        self.guest_ok(domain, &["sh", "-c", &script]).map(drop)
    }

    /// Pastes in a domain as `wl-paste` does; empty when there is nothing.
    pub fn paste_text(&self, domain: &str) -> Result<String, Failure> {
        let output = self.guest(
            domain,
            &[
                "sh",
                "-c",
                "timeout 15 wl-paste -n -t text/plain 2>/dev/null",
            ],
        )?;
        Ok(output.stdout_text())
    }

    /// Puts one of our hostile programs into a guest and returns its path there.
    pub fn install_hostile(&self, domain: &str, program: &str) -> Result<String, Failure> {
        let path = format!("/tmp/{program}");
        let script = format!(
            "bulkhead run {domain} -- sh -c 'cat > {path} && chmod +x {path}' \
             < {PROGRAMS}/{program}"
        );
        self.host_ok(&["sh", "-c", &script])?;
        Ok(path)
    }

    /// Makes a domain that exists only for the compositor, as long as the answer is held: its
    /// programs run on the host itself. It is what a program looks like without a guest in between.
    pub fn direct_domain(&self, name: &str, label: &str) -> Result<Background, Failure> {
        let socket = format!("/run/user/1000/{name}.sock");
        let holder = self.start(request(&["direct-socket", name, label, &socket]))?;
        let wait = format!(
            "for i in $(seq 100); do test -S {socket} && exit 0; sleep 0.1; done; \
             echo no {socket} after 10 s >&2; exit 1"
        );
        self.host_ok(&["sh", "-c", &wait])?;
        Ok(holder)
    }

    /// Starts a program of the template `apps` directly on the compositor.
    pub fn spawn_direct(&self, name: &str, command: &[&str]) -> Result<Background, Failure> {
        let request = request(command)
            .in_template("apps")
            .env("WAYLAND_DISPLAY", &format!("/run/user/1000/{name}.sock"))
            .env("GDK_BACKEND", "wayland")
            .env("GSK_RENDERER", "cairo")
            .env("LANG", "C.UTF-8");
        self.start(request)
    }

    /// Runs one of our programs on the host, on a direct domain's socket.
    pub fn host_direct_program(
        &self,
        name: &str,
        program: &str,
        arguments: &[&str],
    ) -> Result<Output, Failure> {
        let path = format!("{PROGRAMS}/{program}");
        let mut command = vec!["timeout", "60", path.as_str()];
        command.extend(arguments);
        self.execute(request(&command).env("WAYLAND_DISPLAY", &format!("{name}.sock")))
    }

    /// Runs the CLI against a second manager whose image folder `$IMAGES` begins as links to the
    /// real one and is then changed by `prepare`; a domain and template named `template` exist in
    /// it. Returns what the command said on standard error; it must have failed.
    pub fn with_images(
        &self,
        template: &str,
        prepare: &str,
        command: &[&str],
    ) -> Result<String, Failure> {
        let script = format!(
            "set -e; base=$(mktemp -d); export IMAGES=$base/images; \
             mkdir -p $IMAGES/guest $IMAGES/templates/{template} $IMAGES/templates/apps; \
             ln -s /usr/share/bulkhead/images/guest/* $IMAGES/guest/; {prepare}; \
             rmdir $IMAGES/templates/{template}; \
             mv $IMAGES/templates/apps $IMAGES/templates/{template}; \
             {second}; bulkhead create {template} --label red --template {template}; \
             status=0; bulkhead {command} 2> $base/told || status=$?; \
             cat $base/told; left=$(ls $base/run/bulkhead/domains 2>/dev/null || true); \
             kill $manager; rm -rf $base; test $status != 0; test -z \"$left\"",
            second = second_manager("$base", "$IMAGES"),
            command = command.join(" "),
        );
        self.host_ok(&["dbus-run-session", "--", "sh", "-c", &script])
    }

    /// Runs the CLI against a second manager whose disk has no room left. Returns what it said;
    /// it must have failed and left no file.
    pub fn with_full_disk(&self, command: &[&str]) -> Result<String, Failure> {
        succeed(
            &["mount"],
            self.root(&[
                "sh",
                "-c",
                "mkdir -p /tmp/full && mount -t tmpfs -o size=64k,mode=0777 tmpfs /tmp/full",
            ])?,
        )?;
        let script = format!(
            "base=/tmp/full; {second}; cat /dev/zero > $base/fill 2>/dev/null; \
             before=$(find $base | sort); status=0; \
             bulkhead {command} 2> /tmp/told || status=$?; cat /tmp/told; \
             after=$(find $base | sort); kill $manager; rm -rf /tmp/told; \
             test $status != 0 || {{ echo the status was 0; exit 1; }}; \
             test \"$before\" = \"$after\" || {{ echo \"left over: $after\"; exit 1; }}",
            second = second_manager("$base", "/usr/share/bulkhead/images"),
            command = command.join(" "),
        );
        let told = self.host_ok(&["dbus-run-session", "--", "sh", "-c", &script]);
        self.root(&["umount", "-l", "/tmp/full"])?;
        told
    }

    fn execute(&self, exec: Exec) -> Result<Output, Failure> {
        let output = self
            .machine
            .exec(
                &exec
                    .with_session(Vec::<String>::new())
                    .timeout(if self.long {
                        LONG_COMMAND_LIMIT
                    } else {
                        COMMAND_LIMIT
                    }),
            )
            .map_err(|error| Failure::new(error.to_string()))?;
        Ok(Output {
            status: match output.exit {
                Exit::Status(status) => status,
                Exit::Signal(signal) => 128 + signal,
            },
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }

    fn start(&self, exec: Exec) -> Result<Background, Failure> {
        self.machine
            .spawn(&exec.with_session(Vec::<String>::new()))
            .map(Background)
            .map_err(|error| Failure::new(error.to_string()))
    }
}

fn request<S: AsRef<str>>(command: &[S]) -> Exec {
    Exec::new(command.iter().map(AsRef::as_ref))
}

/// Shell words that start a manager of its own under `base` and wait until it answers.
fn second_manager(base: &str, images: &str) -> String {
    format!(
        "mkdir -p {base}/run {base}/config/bulkhead/domains {base}/data/bulkhead/domains; \
         chmod 700 {base}/run; export XDG_CONFIG_HOME={base}/config XDG_DATA_HOME={base}/data; \
         XDG_RUNTIME_DIR={base}/run bulkheadd --images {images} > /tmp/second-manager.log 2>&1 & \
         manager=$!; for i in $(seq 100); do bulkhead list > /dev/null 2>&1 && break; \
         sleep 0.1; done"
    )
}

fn in_domain(domain: &str, command: &[&str]) -> Vec<String> {
    let mut whole = vec!["bulkhead", "run", domain, "--"];
    whole.extend(command);
    whole.into_iter().map(str::to_owned).collect()
}

fn succeed<S: AsRef<str>>(command: &[S], output: Output) -> Result<String, Failure> {
    if output.status == 0 {
        return Ok(output.stdout_text());
    }
    let command: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
    Err(Failure::new(format!(
        "`{}` ended with status {}\nstdout: {}\nstderr: {}",
        command.join(" "),
        output.status,
        output.stdout_text(),
        output.stderr_text()
    )))
}
