//! Disposables leave nothing: neither those that the daemon names nor those with a name.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use support::{Machine, programs};

/// Everything below the manager's folders, but for what an application's folder of the test holds.
fn files(machine: &Machine) -> Vec<PathBuf> {
    fn list(dir: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if fs::symlink_metadata(&path).is_ok_and(|data| data.is_dir()) {
                list(&path, into);
            }
            into.push(path);
        }
    }
    let mut all = Vec::new();
    for folder in ["config", "data", "state", "run", "cache"] {
        list(&machine.path(folder), &mut all);
    }
    all.sort();
    all
}

/// What each descriptor of the daemon is, and how many there are of it.
fn descriptors(machine: &Machine) -> BTreeMap<String, usize> {
    let pid = machine.daemon.as_ref().unwrap().id();
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let target = target.to_string_lossy().into_owned();
        // Numbers of sockets and pipes differ.
        let kind = match target.split_once(":[") {
            Some((kind, _)) => kind.to_owned(),
            None => target,
        };
        *all.entry(kind).or_insert(0) += 1;
    }
    all
}

/// The programs that belong to this test's daemon.
fn processes(machine: &Machine) -> Vec<String> {
    let folder = machine.path("");
    let folder = folder.to_string_lossy().trim_end_matches('/').to_owned();
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let ours = environment
            .split(|&byte| byte == 0)
            .any(|variable| variable == format!("TMPDIR={folder}").as_bytes());
        if ours {
            let program = fs::read_to_string(entry.path().join("comm"));
            all.push(program.unwrap_or_default().trim().to_owned());
        }
    }
    all.sort();
    all
}

/// Waits until `look` sees what it saw before.
fn settles<T: PartialEq + std::fmt::Debug>(before: &T, look: impl Fn() -> T) {
    let end = Instant::now() + support::PATIENCE;
    loop {
        let now = look();
        if now == *before {
            return;
        }
        assert!(Instant::now() < end, "before: {before:#?}\nnow: {now:#?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn with_application() -> Machine {
    let machine = Machine::new();
    let applications = machine.path("images/templates/apps/apps/applications");
    fs::create_dir_all(&applications).unwrap();
    let text = "[Desktop Entry]\nType=Application\nName=Short\nExec=true\n";
    fs::write(applications.join("short.desktop"), text).unwrap();
    let description = machine.path("images/templates/apps/template.toml");
    fs::write(description, "name = \"apps\"\ndisposable = true\n").unwrap();
    machine
}

#[test]
fn fifty_disposables_leave_nothing() {
    programs();
    let machine = with_application();
    machine.ok(&["create", "work", "--label", "red", "--tag", "bank"]);
    let one = || {
        let name = machine.ok(&["launch", "work", "short", "--disposable"]);
        let name = name.trim().to_owned();
        let pid = machine.vmm_pid(&name);
        machine.ok(&["kill", &name]);
        let end = Instant::now() + support::PATIENCE;
        while machine.run(&["info", &name]).status.success() {
            assert!(Instant::now() < end, "{name} stays");
            thread::sleep(Duration::from_millis(10));
        }
        support::wait_until_dead(pid);
        name
    };
    // The first one warms up what is made once.
    one();
    let files_before = files(&machine);
    let descriptors_before = descriptors(&machine);
    let processes_before = processes(&machine);
    assert_eq!(processes_before, ["bulkheadd"]);
    let mut names: Vec<String> = (0..50).map(|_| one()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 50, "a name that was used comes again");
    settles(&files_before, || files(&machine));
    settles(&descriptors_before, || descriptors(&machine));
    settles(&processes_before, || processes(&machine));
    assert_eq!(machine.sockets(), 0);
}

#[test]
fn a_named_disposable_keeps_its_settings_and_forgets_its_home() {
    let machine = Machine::new();
    machine.ok(&[
        "create",
        "web",
        "--kind",
        "named-disposable",
        "--tag",
        "untrusted",
    ]);
    let data = machine.path("data/bulkhead/domains/web");
    let files = || fs::read_dir(&data).unwrap().count();
    assert_eq!(files(), 0);
    let descriptors_before = descriptors(&machine);
    for _ in 0..2 {
        machine.ok(&["start", "web"]);
        // The home has no name even while the domain runs.
        assert_eq!(files(), 0);
        let pid = machine.vmm_pid("web");
        let homes = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let homes = homes
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .filter(|target| target.starts_with(&data))
            .collect::<Vec<_>>();
        assert_eq!(homes.len(), 1, "{homes:?}");
        assert!(
            homes[0].to_string_lossy().ends_with(" (deleted)"),
            "{homes:?}"
        );
        machine.ok(&["stop", "web"]);
    }
    assert_eq!(files(), 0);
    settles(&descriptors_before, || descriptors(&machine));
    let info = machine.ok(&["info", "web"]);
    assert!(info.contains("named-disposable"), "{info}");
    assert!(info.contains("forgotten at the end"), "{info}");
    assert!(info.contains("untrusted"), "{info}");
    machine.ok(&["remove", "web", "--yes"]);
    assert!(!data.exists());
}
