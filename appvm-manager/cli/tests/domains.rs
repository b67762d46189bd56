//! Copies, names, settings, snapshots and plans, with the real daemon and command line.

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::Machine;

fn home(machine: &Machine, name: &str) -> PathBuf {
    machine.path(&format!("data/bulkhead/domains/{name}/home.img"))
}

fn config(machine: &Machine, name: &str) -> PathBuf {
    machine.path(&format!("config/bulkhead/domains/{name}.toml"))
}

/// As if a guest had written it.
fn write_home(machine: &Machine, name: &str, text: &str) {
    let file = fs::File::options()
        .write(true)
        .open(home(machine, name))
        .unwrap();
    file.write_all_at(text.as_bytes(), 1 << 20).unwrap();
}

fn read_home(machine: &Machine, name: &str) -> String {
    let mut text = [0; 5];
    let file = fs::File::open(home(machine, name)).unwrap();
    file.read_exact_at(&mut text, 1 << 20).unwrap();
    String::from_utf8(text.to_vec()).unwrap()
}

fn json_of(machine: &Machine, arguments: &[&str]) -> Value {
    serde_json::from_str(&machine.ok(arguments)).unwrap()
}

/// Nothing hidden is left in any of the manager's folders.
fn nothing_hidden(machine: &Machine) {
    for folder in ["config", "data", "state"] {
        let folder = machine.path(&format!("{folder}/bulkhead/domains"));
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let name = entry.file_name().into_string().unwrap();
            assert!(!name.starts_with('.'), "{name}");
        }
    }
}

#[test]
fn reserved_names_are_refused_everywhere() {
    let machine = Machine::new();
    machine.ok(&["create", "work"]);
    let file = machine.path("d.toml");
    fs::write(&file, "name = \"disp77\"\n").unwrap();
    for (arguments, expected) in [
        (&["create", "dom0"][..], "the name of the host"),
        (&["create", "disp1234"], "names of disposables look so"),
        (&["clone", "work", "disp0"], "names of disposables look so"),
        (&["rename", "work", "dom0"], "the name of the host"),
        (
            &["apply", "--yes", file.to_str().unwrap()],
            "names of disposables look so",
        ),
    ] {
        let error = machine.fails(1, arguments);
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("choose another name"), "{error}");
    }
    machine.ok(&["create", "display"]);
}

#[test]
fn a_clone_has_the_settings_and_the_home_and_a_life_of_its_own() {
    let machine = Machine::new();
    machine.ok(&[
        "create",
        "work",
        "--label",
        "red",
        "--tag",
        "bank",
        "--home-size",
        "64",
    ]);
    let text = fs::read_to_string(config(&machine, "work")).unwrap();
    fs::write(config(&machine, "work"), format!("# Mine.\n{text}")).unwrap();
    write_home(&machine, "work", "hello");
    machine.ok(&["clone", "work", "copy"]);
    assert_eq!(read_home(&machine, "copy"), "hello");
    let text = fs::read_to_string(config(&machine, "copy")).unwrap();
    assert!(
        text.starts_with("# Mine.\n") && text.contains("name = \"copy\""),
        "{text}"
    );
    let info = json_of(&machine, &["info", "copy", "--json"]);
    assert_eq!(
        (&info["label"], &info["tags"]),
        (&json!("red"), &json!(["bank"]))
    );
    write_home(&machine, "copy", "other");
    assert_eq!(read_home(&machine, "work"), "hello");
    let error = machine.fails(1, &["clone", "work", "copy"]);
    assert!(error.contains("`copy` exists already"), "{error}");
    machine.fails(1, &["clone", "nothing", "x"]);
    for arguments in [["clone", "work", "x"], ["rename", "work", "x"]] {
        machine.ok(&["start", "work"]);
        let error = machine.fails(1, &arguments);
        assert!(error.contains("stop it first"), "{error}");
        machine.ok(&["stop", "work"]);
    }
    nothing_hidden(&machine);
}

#[test]
fn a_renamed_domain_takes_everything_with_it() {
    let machine = Machine::new();
    machine.ok(&["create", "web", "--kind", "named-disposable"]);
    machine.ok(&["create", "work", "--default-disposable", "web"]);
    machine.ok(&["start", "work"]);
    machine.ok(&["stop", "work"]);
    write_home(&machine, "work", "hello");
    let error = machine.fails(1, &["remove", "web", "--yes"]);
    assert!(
        error.contains("`web` is the default_disposable of `work`"),
        "{error}"
    );
    machine.ok(&["rename", "work", "job"]);
    machine.ok(&["rename", "web", "net"]);
    assert_eq!(read_home(&machine, "job"), "hello");
    assert_eq!(machine.ok(&["prefs", "job", "default_disposable"]), "net\n");
    assert!(machine.ok(&["log", "job"]).contains("bulkhead.name=work"));
    machine.fails(1, &["info", "work"]);
    assert_eq!(machine.ok(&["run", "job", "echo", "fine"]), "fine\n");
    let error = machine.fails(1, &["rename", "net", "job"]);
    assert!(error.contains("`job` exists already"), "{error}");
    machine.ok(&["prefs", "job", "default_disposable", "-"]);
    machine.ok(&["remove", "net", "--yes"]);
    nothing_hidden(&machine);
}

#[test]
fn settings_are_shown_and_changed() {
    let machine = Machine::new();
    machine.ok(&["create", "work", "--home-size", "64"]);
    let all = machine.ok(&["prefs", "work"]);
    for line in [
        "label               gray",
        "tags                -",
        "snapshots           2",
    ] {
        assert!(all.contains(line), "{all}");
    }
    assert_eq!(machine.ok(&["prefs", "work", "memory_mib"]), "512\n");
    assert_eq!(
        machine.ok(&["prefs", "work", "memory_mib", "2G"]),
        "memory_mib: 512 → 2048\n"
    );
    assert_eq!(machine.ok(&["prefs", "work", "memory_mib", "2048"]), "");
    machine.ok(&["prefs", "work", "tags", "b,a"]);
    let settings = json_of(&machine, &["prefs", "work", "--json"]);
    assert_eq!(settings["tags"], json!(["a", "b"]));
    assert_eq!(settings["memory_mib"], 2048);
    assert_eq!(
        json_of(&machine, &["prefs", "work", "tags", "--json"]),
        json!(["a", "b"])
    );
    let changed = json_of(&machine, &["prefs", "work", "cpus", "1", "--json"]);
    assert_eq!(
        changed,
        json!({"keys": ["cpus"], "old": ["2"], "new": ["1"]})
    );
    for (key, value, expected) in [
        ("ram", "1", "there is no setting `ram`"),
        ("cpus", "0", "cpus = 0 is not possible"),
        (
            "kind",
            "named-disposable",
            "the kind of domain `work` cannot change",
        ),
        ("template", "none", "no template `none`"),
        ("default_disposable", "none", "there is no domain `none`"),
        ("home_size_mib", "32", "has 64 MiB and cannot shrink to 32"),
    ] {
        let error = machine.fails(1, &["prefs", "work", key, value]);
        assert!(error.contains(expected), "{error}");
    }
    machine.fails(1, &["prefs", "work", "ram"]);
    machine.fails(1, &["prefs", "nothing"]);
    // A home grows at the next start.
    machine.ok(&["prefs", "work", "home_size_mib", "96"]);
    assert_eq!(
        fs::metadata(home(&machine, "work")).unwrap().len(),
        64 << 20
    );
    machine.ok(&["start", "work"]);
    assert_eq!(
        fs::metadata(home(&machine, "work")).unwrap().len(),
        96 << 20
    );
    let completion = machine.ok(&["completion", "bash"]);
    for command in ["clone", "rename", "prefs", "snapshots", "revert", "apply"] {
        assert!(
            completion.contains(&format!("bulkhead__subcmd__{command}"))
                || completion.contains(&format!("bulkhead__{command}")),
            "{command}"
        );
    }
}

#[test]
fn a_home_goes_back_to_a_snapshot() {
    let machine = Machine::new();
    machine.ok(&["create", "work", "--home-size", "64"]);
    let error = machine.fails(1, &["revert", "work", "--yes"]);
    assert!(
        error.contains("there is no snapshot of its home"),
        "{error}"
    );
    for text in ["one--", "two--", "three"] {
        write_home(&machine, "work", text);
        machine.ok(&["start", "work"]);
        let error = machine.fails(1, &["revert", "work", "--yes"]);
        assert!(error.contains("stop it first"), "{error}");
        machine.ok(&["stop", "work"]);
    }
    let numbers = |machine: &Machine| -> Vec<u64> {
        let all = json_of(machine, &["snapshots", "work", "--json"]);
        let all = all.as_array().unwrap().clone();
        all.iter()
            .map(|one| one["number"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers(&machine), [3, 2]);
    assert!(machine.ok(&["snapshots", "work"]).contains("just now"));
    let error = machine.fails(1, &["revert", "work"]);
    assert!(error.contains("say --yes"), "{error}");
    write_home(&machine, "work", "four-");
    machine.ok(&["revert", "work", "--yes"]);
    assert_eq!(read_home(&machine, "work"), "three");
    machine.ok(&["revert", "work", "--to", "2", "--yes"]);
    assert_eq!(read_home(&machine, "work"), "two--");
    let error = machine.fails(1, &["revert", "work", "--to", "1", "--yes"]);
    assert!(error.contains("no snapshot 1"), "{error}");
    assert!(machine.ok(&["info", "work"]).contains("the last 2"));

    // Where blocks cannot be shared, a large home has none, and that is said.
    let mut large = vec![0; 4 << 20];
    large.iter_mut().step_by(512).for_each(|byte| *byte = 1);
    machine.ok(&["prefs", "work", "home_size_mib", "256"]);
    machine.ok(&["start", "work"]);
    machine.ok(&["stop", "work"]);
    let file = fs::File::options()
        .write(true)
        .open(home(&machine, "work"))
        .unwrap();
    for part in 0..20 {
        file.write_all_at(&large, part * (4 << 20)).unwrap();
    }
    let newest = numbers(&machine)[0];
    machine.ok(&["start", "work"]);
    if numbers(&machine)[0] == newest {
        let info = machine.ok(&["info", "work"]);
        assert!(
            info.contains("none at the last start: the file system of"),
            "{info}"
        );
        assert!(
            info.contains("MiB are too much to copy at each start"),
            "{info}"
        );
    } else {
        eprintln!("this file system shares blocks: nothing is too large for it");
    }
    nothing_hidden(&machine);
}

#[test]
fn files_are_applied_and_a_second_time_nothing_is_to_do() {
    let machine = Machine::new();
    machine.ok(&["create", "work", "--label", "red"]);
    machine.ok(&["create", "old"]);
    machine.ok(&["start", "work"]);
    let file = machine.path("domains.toml");
    let path = file.to_str().unwrap().to_owned();
    let text = "\
[[domain]]
name = \"work\"
memory_mib = 1024

[[domain]]
name = \"bank\"
label = \"green\"
tags = [\"money\"]
default_disposable = \"web\"

[[domain]]
name = \"web\"
kind = \"named-disposable\"
";
    fs::write(&file, text).unwrap();
    // Nobody can be asked: the plan is only shown.
    let output = machine.run(&["apply", &path]);
    assert_eq!(output.status.code(), Some(3));
    let plan = String::from_utf8(output.stdout).unwrap();
    for line in [
        "change  work  memory_mib: 512 → 1024",
        "from its next start",
        "create  bank  label: green",
        "tags: money",
    ] {
        assert!(plan.contains(line), "{plan}");
    }
    assert!(!plan.contains("old"), "{plan}");
    machine.fails(1, &["info", "bank"]);
    let output = machine.run(&["apply", "--json", &path]);
    assert_eq!(output.status.code(), Some(3));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["applied"], false);
    assert_eq!(plan["steps"][2]["action"], "create");

    machine.ok(&["apply", "--yes", &path]);
    let again = machine.ok(&["apply", &path]);
    assert_eq!(again.matches("unchanged").count(), 3, "{again}");
    assert_eq!(
        machine.ok(&["prefs", "bank", "default_disposable"]),
        "web\n"
    );
    assert_eq!(machine.state("work"), "running");

    // The file of a domain itself.
    let own = config(&machine, "bank");
    let again = machine.ok(&["apply", own.to_str().unwrap()]);
    assert!(again.contains("unchanged  bank"), "{again}");

    // Others go only where that is said.
    let plan = machine.ok(&["apply", "--yes", "--prune", &path]);
    assert!(plan.contains("remove") && plan.contains("old"), "{plan}");
    machine.fails(1, &["info", "old"]);
    fs::write(&file, "domain = []\n").unwrap();
    let error = machine.fails(1, &["apply", "--yes", "--prune", &path]);
    assert!(error.contains("`work` is running"), "{error}");

    machine.ok(&["stop", "work"]);
    fs::write(&file, "name = \"bank\"\n").unwrap();
    let error = machine.fails(1, &["apply", "--yes", "--prune", &path]);
    assert!(
        error.contains("`web` would be removed, but it is the default_disposable of `bank`"),
        "{error}"
    );
    machine.ok(&["info", "work"]);

    // What cannot be done is said before anything is.
    for (text, expected) in [
        (
            "[[domain]]\nname = \"new\"\n[[domain]]\nname = \"x\"\nram = 1\n",
            "domains.toml, line 5: there is no setting `ram`",
        ),
        (
            "[[domain]]\nname = \"new\"\n[[domain]]\nname = \"new\"\n",
            "line 3: domain `new` is described twice",
        ),
        ("name = \"new\"\ntemplate = \"none\"\n", "line 1: "),
        (
            "name = \"bank\"\nhome_size_mib = 64\n",
            "cannot shrink to 64",
        ),
        (
            "name = \"bank\"\nkind = \"named-disposable\"\n",
            "the kind of domain `bank` cannot change",
        ),
        (
            "name = \"new\"\ndefault_disposable = \"none\"\n",
            "there is no domain `none`",
        ),
        ("nonsense", "domains.toml, line 1: "),
    ] {
        fs::write(&file, text).unwrap();
        let error = machine.fails(1, &["apply", "--yes", &path]);
        assert!(error.contains(expected), "{text:?}: {error}");
        machine.fails(1, &["info", "new"]);
    }
    machine.fails(1, &["apply", "/nowhere.toml"]);
    nothing_hidden(&machine);
}

#[test]
fn a_daemon_that_was_killed_leaves_whole_domains() {
    let mut machine = Machine::new();
    machine.ok(&["create", "work", "--home-size", "64"]);
    write_home(&machine, "work", "hello");
    let mut daemon = machine.daemon.take().unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let data = machine.path("data/bulkhead/domains");
    let domains = machine.path("config/bulkhead/domains");
    // A copy that was interrupted, a rename that was decided, and a home that was being put back.
    fs::create_dir(data.join(".bulkhead-new-copy")).unwrap();
    fs::write(domains.join(".bulkhead-new-copy.toml"), "half").unwrap();
    fs::write(data.join("work/.bulkhead-new-home"), "half").unwrap();
    let text = fs::read_to_string(config(&machine, "work")).unwrap();
    let text = text.replace("name = \"work\"", "name = \"job\"");
    fs::write(domains.join(".bulkhead-new-job.toml"), text).unwrap();
    let change = "\
[[move]]
folder = \"config\"
from = \".bulkhead-new-job.toml\"
to = \"job.toml\"
[[move]]
folder = \"config\"
from = \"work.toml\"
to = \".bulkhead-removed-work.toml\"
[[move]]
folder = \"data\"
from = \"work\"
to = \"job\"
";
    fs::write(data.join(".bulkhead-change-job"), change).unwrap();
    machine.start_daemon(&[]);
    let list = json_of(&machine, &["list", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
    assert_eq!(list[0]["name"], "job");
    assert!(list[0]["error"].is_null(), "{list}");
    assert_eq!(read_home(&machine, "job"), "hello");
    assert!(!data.join("job/.bulkhead-new-home").exists());
    nothing_hidden(&machine);
}
