//! Bad input: each gives one clear error that names the file or domain, and leaves nothing half made.

use crate::check;
use crate::e2e::context::Context;
use crate::e2e::{Outcome, Place, Scenario};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "path-bad-input",
    about: "missing kernel, truncated image, malformed file, unknown label, second start, full disk",
    run: Place::Host(run),
};

/// One bad input: how it is made, what is run, and the words its error must hold.
struct Case {
    name: &'static str,
    prepare: &'static str,
    command: &'static [&'static str],
    words: &'static [&'static str],
    clean: &'static str,
}

const CASES: &[Case] = &[
    Case {
        name: "unknown-label",
        prepare: "true",
        command: &[
            "bulkhead",
            "create",
            "odd",
            "--label",
            "pink",
            "--template",
            "apps",
        ],
        words: &["pink", "red"],
        clean: "true",
    },
    Case {
        name: "bad-name",
        prepare: "true",
        command: &[
            "bulkhead",
            "create",
            "../odd",
            "--label",
            "red",
            "--template",
            "apps",
        ],
        words: &["../odd"],
        clean: "true",
    },
    Case {
        name: "unknown-template",
        prepare: "true",
        command: &[
            "bulkhead",
            "create",
            "odd",
            "--label",
            "red",
            "--template",
            "nosuch",
        ],
        words: &["nosuch"],
        clean: "true",
    },
    Case {
        name: "unknown-domain",
        prepare: "true",
        command: &["bulkhead", "start", "nosuch"],
        words: &["nosuch"],
        clean: "true",
    },
    Case {
        name: "malformed-domain-file",
        prepare: "mkdir -p ~/.config/bulkhead/domains; \
                  printf 'label = \"red\"\\ntemplate = [\\n' > ~/.config/bulkhead/domains/broken.toml",
        command: &["bulkhead", "start", "broken"],
        words: &["broken.toml", "line"],
        clean: "rm ~/.config/bulkhead/domains/broken.toml",
    },
    Case {
        name: "unknown-label-in-file",
        prepare: "mkdir -p ~/.config/bulkhead/domains; \
                  printf 'label = \"pink\"\\ntemplate = \"apps\"\\n' > ~/.config/bulkhead/domains/broken.toml",
        command: &["bulkhead", "start", "broken"],
        words: &["broken", "pink"],
        clean: "rm ~/.config/bulkhead/domains/broken.toml",
    },
    Case {
        name: "second-start",
        prepare: "bulkhead start bystander",
        command: &["bulkhead", "start", "bystander"],
        words: &["bystander", "running"],
        clean: "true",
    },
    Case {
        name: "missing-kernel",
        prepare: "true",
        command: &[
            "bulkhead-vmm",
            "run",
            "--kernel",
            "/nonexistent/vmlinux",
            "--memory",
            "128M",
        ],
        words: &["/nonexistent/vmlinux"],
        clean: "true",
    },
    Case {
        name: "not-a-kernel",
        prepare: "echo hello > /tmp/not-a-kernel",
        command: &[
            "bulkhead-vmm",
            "run",
            "--kernel",
            "/tmp/not-a-kernel",
            "--memory",
            "128M",
        ],
        words: &["/tmp/not-a-kernel"],
        clean: "rm /tmp/not-a-kernel",
    },
    Case {
        name: "odd-disk",
        prepare: "head -c 1000 /dev/zero > /tmp/odd.img",
        command: &[
            "bulkhead-vmm",
            "run",
            "--kernel",
            "/usr/share/bulkhead/images/guest/vmlinux",
            "--memory",
            "128M",
            "--disk",
            "/tmp/odd.img,ro,id=root",
        ],
        words: &["/tmp/odd.img"],
        clean: "rm /tmp/odd.img",
    },
];

fn run(context: &Context<'_>) -> Outcome {
    context.domain("bystander", "gray")?;
    for case in CASES {
        context.host_ok(&["sh", "-c", case.prepare])?;
        let before = snapshot(context)?;
        let output = context.host(case.command)?;
        let told = output.stderr_text();
        context.log(&format!("{}.txt", case.name), told.as_bytes())?;
        let name = case.name;
        check!(output.status != 0, "{name}: the exit status was 0");
        for word in case.words {
            check!(
                told.contains(word),
                "{name}: the error does not say {word:?}: {told}"
            );
        }
        let lines = told.lines().filter(|line| !line.trim().is_empty()).count();
        check!(
            lines <= 4,
            "{name}: the error is not clear, {lines} lines: {told}"
        );
        check!(
            !told.contains("panicked"),
            "{name}: a panic instead of an error: {told}"
        );
        let after = snapshot(context)?;
        check!(
            before == after,
            "{name}: something is left over:\n{before}\nbecame\n{after}"
        );
        context.host_ok(&["sh", "-c", case.clean])?;
    }
    truncated_image(context)?;
    full_disk(context)?;
    context.host_ok(&["bulkhead", "stop", "bystander"])?;
    Ok(())
}

/// A template whose root image lost its end (an interrupted copy) is refused by name.
fn truncated_image(context: &Context<'_>) -> Outcome {
    let told = context.with_images(
        "cut",
        "for f in root.erofs template.toml; do cp /usr/share/bulkhead/images/templates/apps/$f \
         $IMAGES/templates/apps/$f; done; truncate -s -5M $IMAGES/templates/apps/root.erofs",
        &["run", "cut", "--", "true"],
    )?;
    context.log("truncated-image.txt", told.as_bytes())?;
    check!(
        told.contains("root.erofs"),
        "a truncated image is not named: {told}"
    );
    // A missing kernel under the manager is named as well.
    let told = context.with_images(
        "nokernel",
        "for f in root.erofs template.toml; do ln -s /usr/share/bulkhead/images/templates/apps/$f \
         $IMAGES/templates/apps/$f; done; rm -f $IMAGES/guest/vmlinux",
        &["run", "nokernel", "--", "true"],
    )?;
    context.log("missing-kernel-manager.txt", told.as_bytes())?;
    check!(
        told.contains("vmlinux"),
        "a missing kernel is not named: {told}"
    );
    Ok(())
}

/// A full disk while a domain is created leaves no domain behind.
fn full_disk(context: &Context<'_>) -> Outcome {
    let told =
        context.with_full_disk(&["create", "toobig", "--label", "red", "--template", "apps"])?;
    context.log("full-disk.txt", told.as_bytes())?;
    let lowered = told.to_lowercase();
    check!(
        lowered.contains("space") || lowered.contains("full"),
        "a full disk is not named: {told}"
    );
    Ok(())
}

/// Everything a failed command could leave behind: domains, files, processes, sockets. (How much of
/// its disk the running bystander uses is its own affair.)
fn snapshot(context: &Context<'_>) -> Result<String, crate::e2e::Failure> {
    context.host_ok(&[
        "sh",
        "-c",
        "bulkhead list --json | grep -v disk_bytes; \
         find ~/.config/bulkhead ~/.local/share/bulkhead /run/user/1000/bulkhead \
           -not -name '*.log*' 2>/dev/null | sort; pgrep -c bulkhead-vmm || true",
    ])
}
