//! A port of one domain leads to another's where the policy or the user's command say so. No domain has a
//! network card here, and the host has no part in it but to relay calls.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::check;
use crate::e2e::context::{Background, Context};
use crate::e2e::desktop::Desktop;
use crate::e2e::{Failure, Outcome, Place, Scenario};
use crate::scenarios::net::link::{PROBE, listens, nothing_on_the_host};

pub(in crate::scenarios) const SCENARIO: Scenario = Scenario {
    name: "crossing-connect",
    about: "TCP ports of one domain in another without any network: by policy or by the user's command, and nothing else",
    run: Place::Host(run),
};

const FILE: &str = "/tmp/served";
const BYTES: u64 = 8_000_000;
/// More than a domain may have calls at a time.
const AT_ONCE: usize = 20;
/// A file is served here.
const FILES: u16 = 7000;
/// Bytes are counted here.
const COUNT: u16 = 7001;
/// Everything comes back here.
const ECHO: u16 = 7002;
/// Nothing listens here.
const NOTHING: u16 = 7009;
/// Where the domain's own program listens, which no command of the user's started.
const OWN: u16 = 7100;

fn run(context: &Context<'_>) -> Outcome {
    for (domain, label) in [("work", "red"), ("personal", "green")] {
        context.domain(domain, label)?;
        context.install_hostile(domain, PROBE)?;
        let cards = context.guest_ok(domain, &["ls", "/sys/class/net"])?;
        check!(cards.trim() == "lo", "{domain} has {cards}");
    }
    let make = format!("head -c {BYTES} /dev/urandom > {FILE}; sha256sum < {FILE}");
    let sum = context.guest_ok("personal", &["sh", "-c", &make])?;
    let servers = serve(context)?;
    refused(context)?;
    by_question(context, &sum)?;

    let files = Command::start(context, FILES, FILES)?;
    whole(context, FILES, &sum)?;
    at_once(context)?;
    let count = Command::start(context, COUNT, COUNT)?;
    half_closed(context)?;
    nothing_there(context)?;
    nowhere_else(context)?;
    nothing_on_the_host(context)?;
    no_socket_on_the_host(context)?;
    files.end(context)?;
    ends_with_the_command(context, count)?;

    comes_back(context, servers, &sum)?;
    let told = context.host_ok(&["bulkhead", "transfers"])?;
    context.log("transfers.txt", told.as_bytes())?;
    for words in [
        "95-connect.policy:1",
        "30-user.policy:1",
        "no rule allows it",
    ] {
        check!(told.contains(words), "the log has no `{words}`:\n{told}");
    }
    context.host_ok(&["sh", "-c", "rm -r ~/.config/bulkhead/policy.d"])?;
    Ok(())
}

fn policy(context: &Context<'_>, text: &str) -> Outcome {
    let script = format!(
        "mkdir -p ~/.config/bulkhead/policy.d; echo '{text}' > \
         ~/.config/bulkhead/policy.d/30-user.policy"
    );
    context.host_ok(&["sh", "-c", &script]).map(drop)
}

/// Starts the servers in `personal`.
fn serve(context: &Context<'_>) -> Result<Background, Failure> {
    let script = format!(
        "{PROBE} serve {FILES} {FILE} & {PROBE} count {COUNT} & {PROBE} echo {ECHO} & wait",
        PROBE = format_args!("/tmp/{PROBE}")
    );
    let servers = context.spawn_in("personal", &["sh", "-c", &script])?;
    for port in [FILES, COUNT, ECHO] {
        listens(context, "personal", port)?;
    }
    Ok(servers)
}

/// `bulkhead connect work personal:PORT` on the host.
struct Command {
    pid: String,
    errors: String,
}

impl Command {
    fn start(context: &Context<'_>, port: u16, listen: u16) -> Result<Self, Failure> {
        let (out, errors) = (
            format!("/tmp/connect-{port}.json"),
            format!("/tmp/connect-{port}.txt"),
        );
        let script = format!(
            "rm -f {out}; bulkhead connect work personal:{port} --listen {listen} --json \
                 < /dev/null > {out} 2> {errors} & \
             for i in $(seq 300); do grep -q '}}' {out} && break; kill -0 $! || break; sleep 0.1; done; \
             echo $!; cat {out}; cat {errors} >&2"
        );
        let output = context.host(&["sh", "-c", &script])?;
        let text = output.stdout_text();
        let (pid, json) = text.split_once('\n').unwrap_or_default();
        let told: serde_json::Value = serde_json::from_str(json).map_err(|_| {
            Failure::new(format!(
                "it does not listen: {text} {}",
                output.stderr_text()
            ))
        })?;
        check!(
            told["listen"] == listen
                && told["address"] == "127.0.0.1"
                && told["target"] == "personal",
            "it says {told}"
        );
        Ok(Command {
            pid: pid.to_owned(),
            errors,
        })
    }

    /// What it complained about.
    fn errors(&self, context: &Context<'_>) -> Result<String, Failure> {
        context.host_ok(&["cat", &self.errors])
    }

    /// As by Ctrl-C.
    fn end(self, context: &Context<'_>) -> Outcome {
        let script = format!(
            "kill -INT {pid}; for i in $(seq 100); do kill -0 {pid} 2>/dev/null || exit 0; \
             sleep 0.1; done; exit 1",
            pid = self.pid
        );
        context.host_ok(&["sh", "-c", &script]).map(drop)
    }
}

/// Nobody reaches a port without a rule or the user's command, and a rule against it is stronger.
fn refused(context: &Context<'_>) -> Outcome {
    let refused = |domain: &str, target: &str, port: &str, words: &str| -> Outcome {
        let service = format!("bulkhead.ConnectTcp+{port}");
        let output = context.guest(domain, &["bulkhead-rpc", target, &service])?;
        let told = output.stderr_text();
        check!(
            output.status == 126 && told.contains(words),
            "{domain} to {target}, port {port}: {} {told}",
            output.status
        );
        Ok(())
    };
    refused("work", "personal", "7000", ": refused")?;
    refused("work", "nobody", "7000", ": refused")?;
    refused("work", "@adminvm", "7000", ": refused")?;
    refused("work", "personal", "07000", "is no port")?;
    policy(context, "* * work personal deny")?;
    let output = context.host(&["bulkhead", "connect", "work", "personal:7000"])?;
    let told = output.stderr_text();
    check!(
        output.status == 1
            && told
                .contains("before 30-user.policy:1: bulkhead.ConnectTcp +7000 work personal allow"),
        "a rule against it: {} {told}",
        output.status
    );
    policy(context, "")
}

/// Where the policy says so the user is asked, for each connection.
fn by_question(context: &Context<'_>, sum: &str) -> Outcome {
    policy(context, "bulkhead.ConnectTcp +7000 work personal ask")?;
    let desktop = Desktop::new(context);
    let call = "bulkhead-rpc personal bulkhead.ConnectTcp+7000 < /dev/null > /tmp/asked; \
                sha256sum < /tmp/asked > /tmp/asked-sum";
    let mut calling = context.spawn_in("work", &["sh", "-c", call])?;
    let question = desktop.wait("a question", Duration::from_secs(30), || {
        let text = context.host_ok(&["bulkhead", "ask", "list", "--json"])?;
        let asks: Value = serde_json::from_str(&text)?;
        Ok(asks.as_array().and_then(|all| all.first()).cloned())
    })?;
    check!(
        question["source"] == "work" && question["argument"] == "7000",
        "the question: {question}"
    );
    let before = context.guest_ok("work", &["sh", "-c", "wc -c < /tmp/asked"])?;
    check!(before.trim() == "0", "{before} bytes came before the yes");
    context.host_ok(&["bulkhead", "ask", "allow", &question["id"].to_string()])?;
    desktop.wait("the end of the call", Duration::from_secs(60), || {
        Ok(calling.ended().then_some(()))
    })?;
    let got = context.guest_ok("work", &["cat", "/tmp/asked-sum"])?;
    check!(got == sum, "after the yes came {got}, not {sum}");
    policy(context, "")
}

/// The checksum of what `work` gets at its own port, or nothing.
fn fetch(context: &Context<'_>, port: u16) -> Result<Option<String>, Failure> {
    let script = format!(
        "a=$(date +%s%3N); /tmp/{PROBE} fetch 127.0.0.1 {port} > /tmp/fetched 2> /tmp/why || exit 9; \
         b=$(date +%s%3N); echo $((b - a)) > /tmp/took; sha256sum < /tmp/fetched"
    );
    let output = context.guest("work", &["sh", "-c", &script])?;
    match output.status {
        0 => Ok(Some(output.stdout_text())),
        9 => Ok(None),
        status => Err(Failure::new(format!(
            "status {status}: {}",
            output.stderr_text()
        ))),
    }
}

fn whole(context: &Context<'_>, port: u16, sum: &str) -> Outcome {
    let got = fetch(context, port)?;
    check!(got.as_deref() == Some(sum), "fetched {got:?}, not {sum}");
    let took = context.guest_ok("work", &["cat", "/tmp/took"])?;
    let took_ms: f64 = took.trim().parse().unwrap_or(f64::NAN);
    println!(
        "  {} MB through a port: {took_ms} ms, {:.1} MB/s",
        BYTES / 1_000_000,
        BYTES as f64 / 1e3 / took_ms
    );
    Ok(())
}

/// Many at the same time, one of which takes nothing of what it is sent.
fn at_once(context: &Context<'_>) -> Outcome {
    let stalled = context.spawn_in(
        "work",
        &[
            &format!("/tmp/{PROBE}"),
            "stall",
            "127.0.0.1",
            &FILES.to_string(),
        ],
    )?;
    let small = "head -c 200000 /dev/urandom > /tmp/served; sha256sum < /tmp/served";
    context.guest_ok(
        "personal",
        &["sh", "-c", &format!("cp {FILE} /tmp/kept; {small}")],
    )?;
    let sum = context.guest_ok("personal", &["sh", "-c", &format!("sha256sum < {FILE}")])?;
    let script = format!(
        "for i in $(seq {AT_ONCE}); do /tmp/{PROBE} fetch 127.0.0.1 {FILES} > /tmp/fetched.$i & done; \
         wait; for i in $(seq {AT_ONCE}); do sha256sum < /tmp/fetched.$i; done"
    );
    let begun = Instant::now();
    let sums = context.guest_ok("work", &["sh", "-c", &script])?;
    check!(
        sums == sum.repeat(AT_ONCE),
        "not all {AT_ONCE} have what was served, {sum}:\n{sums}"
    );
    println!("  {AT_ONCE} connections at once: {:?}", begun.elapsed());
    context.guest_ok("personal", &["mv", "/tmp/kept", FILE])?;
    context.guest_ok("work", &["pkill", PROBE])?;
    drop(stalled);
    Ok(())
}

/// The end of one direction is not the end of the other, in which the answer comes.
fn half_closed(context: &Context<'_>) -> Outcome {
    let command = format!("/tmp/{PROBE} send 127.0.0.1 {COUNT} 3000000");
    let counted = context.guest_ok("work", &["sh", "-c", &command])?;
    check!(counted == "3000000", "after its end it was told: {counted}");
    Ok(())
}

/// Where nothing listens the connection breaks, and the user is told why.
fn nothing_there(context: &Context<'_>) -> Outcome {
    let command = Command::start(context, NOTHING, NOTHING)?;
    let fetched = fetch(context, NOTHING)?;
    check!(fetched.is_none(), "from nothing came {fetched:?}");
    let why = context.guest_ok("work", &["cat", "/tmp/why"])?;
    check!(why.contains("reset"), "the client was told: {why}");
    let told = command.errors(context)?;
    check!(
        told.contains("work: nothing listens on port 7009 of personal"),
        "the user was told: {told}"
    );
    let script = format!("bulkhead connect work personal:{COUNT} --listen {NOTHING}");
    let output = context.host(&["sh", "-c", &script])?;
    let told = output.stderr_text();
    check!(
        output.status == 1 && told.contains("port 7009 is in use in this domain"),
        "a port in use: {} {told}",
        output.status
    );
    command.end(context)
}

/// The command is a yes for one port and one direction.
fn nowhere_else(context: &Context<'_>) -> Outcome {
    for (domain, target, port) in [
        ("work", "personal", ECHO),
        ("personal", "work", FILES),
        ("personal", "work", COUNT),
    ] {
        let service = format!("bulkhead.ConnectTcp+{port}");
        let output = context.guest(domain, &["bulkhead-rpc", target, &service])?;
        check!(
            output.status == 126,
            "{domain} reached port {port} of {target}: {output:?}"
        );
    }
    // Nor has the target got a port that leads back.
    let open = context.guest_ok("personal", &["sh", "-c", "grep -c ' 0A ' /proc/net/tcp"])?;
    check!(
        open.trim() == "3",
        "personal listens on {open} ports, not on its servers' 3"
    );
    Ok(())
}

fn no_socket_on_the_host(context: &Context<'_>) -> Outcome {
    let listening = context.host_ok(&[
        "sh",
        "-c",
        "cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | grep -v local_address || true",
    ])?;
    check!(
        listening.is_empty(),
        "the host has TCP sockets:\n{listening}"
    );
    Ok(())
}

/// A connection that another program of the domain made because of the command ends with it, too.
fn ends_with_the_command(context: &Context<'_>, command: Command) -> Outcome {
    let script = format!(
        "mkfifo /tmp/open; bulkhead-rpc personal bulkhead.ConnectTcp+{COUNT} <> /tmp/open \
         > /dev/null 2>&1; echo $? > /tmp/held"
    );
    let held = context.spawn_in("work", &["sh", "-c", &script])?;
    // The server has its connection.
    let wait = format!(
        "for i in $(seq 100); do grep -q ':{COUNT:04X} 0100007F:.... 01' /proc/net/tcp && exit 0; \
         sleep 0.1; done; exit 1"
    );
    context.guest_ok("personal", &["sh", "-c", &wait])?;
    command.end(context)?;
    let script = "for i in $(seq 100); do test -s /tmp/held && exec cat /tmp/held; sleep 0.1; done; \
                  echo still there";
    let status = context.guest_ok("work", &["sh", "-c", script])?;
    drop(held);
    check!(status.trim() == "125", "without its command: {status}");
    let script = format!("/tmp/{PROBE} send 127.0.0.1 {COUNT} 1");
    let output = context.guest("work", &["sh", "-c", &script])?;
    check!(output.status != 0, "the port is still there: {output:?}");
    Ok(())
}

/// By a rule, without any command. The target ends: so do its connections, and nothing starts it again
/// where the rule says so. The port stays, and leads there when it is back.
fn comes_back(context: &Context<'_>, servers: Background, sum: &str) -> Outcome {
    policy(
        context,
        "bulkhead.ConnectTcp * work personal allow autostart=no",
    )?;
    let own = |port: u16, listen: u16| -> Result<Background, Failure> {
        let script = format!(
            "exec bulkhead-connect personal:{port} --listen {listen} > /tmp/own 2> /tmp/own.{port}"
        );
        let own = context.spawn_in("work", &["sh", "-c", &script])?;
        listens(context, "work", listen)?;
        Ok(own)
    };
    let _files = own(FILES, OWN)?;
    let _echo = own(ECHO, OWN + 1)?;
    whole(context, OWN, sum)?;
    let script = format!(
        "/tmp/{PROBE} hold 127.0.0.1 {} /tmp/count 2> /tmp/why; echo $? > /tmp/end",
        OWN + 1
    );
    let _hold = context.spawn_in("work", &["sh", "-c", &script])?;
    let wait = "for i in $(seq 100); do test -s /tmp/count && exit 0; sleep 0.1; done; exit 1";
    context.guest_ok("work", &["sh", "-c", wait])?;

    context.host_ok(&["bulkhead", "kill", "personal"])?;
    // Not before: the end of a server ends its connections in order.
    drop(servers);
    let wait =
        "for i in $(seq 200); do test -s /tmp/end && exec cat /tmp/end /tmp/why; sleep 0.1; done";
    let ended = context.guest_ok("work", &["sh", "-c", wait])?;
    check!(
        ended.starts_with('1') && ended.contains("reset"),
        "the connection to a domain that was killed: {ended}"
    );
    let fetched = fetch(context, OWN)?;
    check!(fetched.is_none(), "from no domain came {fetched:?}");
    let told = context.guest_ok("work", &["cat", &format!("/tmp/own.{FILES}")])?;
    check!(
        told.contains("port 7000 of personal"),
        "it was told: {told}"
    );
    let state = context.state("personal")?;
    check!(state != "running", "personal was started again: {state}");

    context.host_ok(&["bulkhead", "start", "personal"])?;
    context.install_hostile("personal", PROBE)?;
    let make = format!("head -c {BYTES} /dev/urandom > {FILE}; sha256sum < {FILE}");
    let sum = context.guest_ok("personal", &["sh", "-c", &make])?;
    let _servers = serve(context)?;
    whole(context, OWN, &sum)?;
    Ok(())
}
