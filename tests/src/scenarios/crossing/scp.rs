//! `scp` between two guests. They have no network: its connection is a call of one domain to the
//! other, so that both ways of copying go through the same manager.

use crate::e2e::context::Context;
use crate::e2e::{Failure, Outcome};

/// The service that is the other end, and what it runs.
const SERVICE: &str = "bench.Ssh";
/// Programs that the host has and guests lack, without the libraries that they need.
const PROGRAMS: &str = "/usr/bin/scp /usr/bin/ssh /usr/bin/ssh-keygen /usr/sbin/sshd \
                        /usr/lib/openssh/sshd-session /usr/lib/openssh/sshd-auth \
                        /usr/lib/openssh/sftp-server";

/// The rule that it needs.
pub(super) const RULE: &str = "bench.Ssh * work personal allow user=root\n";

/// Gives both guests what they need of it. What is changed of their roots ends with them.
pub(super) fn prepare(context: &Context<'_>) -> Outcome {
    for domain in ["work", "personal"] {
        // The same release as the guests', so libraries that a guest has are the same there.
        let script = format!(
            "libraries=$(ldd {PROGRAMS} | sed -n 's/.*=> \\(\\/[^ ]*\\) .*/\\1/p' | sort -u); \
             tar --create --dereference --file=- --directory=/ --absolute-names {PROGRAMS} $libraries \
             | bulkhead run --root {domain} -- tar --extract --file=- --directory=/ --absolute-names \
             --skip-old-files"
        );
        context.host_ok(&["sh", "-c", &script])?;
    }
    let key = context.guest_ok(
        "work",
        &[
            "sh",
            "-ec",
            "mkdir -p -m 700 ~/.ssh; rm -f ~/.ssh/id; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id; \
             cat ~/.ssh/id.pub",
        ],
    )?;
    let script = format!(
        "mkdir -p -m 700 ~/.ssh; echo '{}' > ~/.ssh/authorized_keys",
        key.trim()
    );
    context.guest_ok("personal", &["sh", "-ec", &script])?;
    let script = format!(
        "grep -q ^sshd: /etc/passwd \
             || echo sshd:x:990:990::/run/sshd:/usr/sbin/nologin >> /etc/passwd; \
         sed -i 's/^user:!:/user:*:/' /etc/shadow; mkdir -p /run/sshd /etc/ssh; \
         rm -f /etc/ssh/bench_key; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/bench_key; \
         printf '%s\\n' 'HostKey /etc/ssh/bench_key' 'Subsystem sftp /usr/lib/openssh/sftp-server' \
             > /etc/ssh/bench_config; \
         mkdir -p /usr/local/etc/bulkhead/rpc; cd /usr/local/etc/bulkhead/rpc; \
         printf '#!/bin/sh\\nexec /usr/sbin/sshd -i -f /etc/ssh/bench_config\\n' > {SERVICE}; \
         chmod 755 {SERVICE}"
    );
    let command = [
        "bulkhead", "run", "--root", "personal", "--", "sh", "-ec", &script,
    ];
    context.host_ok(&command).map(drop)
}

/// Copies `~/large` of `work` to the same place in `personal`, and tells how many milliseconds it
/// took.
pub(super) fn copy(context: &Context<'_>) -> Result<String, Failure> {
    let script = format!(
        "a=$(date +%s%3N); scp -q -i ~/.ssh/id -o StrictHostKeyChecking=no \
         -o UserKnownHostsFile=/dev/null -o ProxyCommand='bulkhead-rpc personal {SERVICE}' \
         ~/large user@personal:large || exit 1; b=$(date +%s%3N); echo $((b - a))"
    );
    context.guest_ok("work", &["sh", "-c", &script])
}
