use std::os::unix::fs::FileExt;

use bulkhead_protocol::Label;

use super::steps::{Stop, stop_at};
use super::*;
use crate::config::Kind;
use crate::volumes::snapshots::Taken;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let sub = |name: &str| dir.path().join(name);
    let dirs = Dirs {
        config: sub("config"),
        data: sub("data"),
        logs: sub("logs"),
        runtime: sub("runtime"),
        templates: sub("templates"),
        icons: sub("icons"),
    };
    let store = Store::open(dirs).unwrap();
    (dir, store)
}

fn name(text: &str) -> DomainName {
    text.parse().unwrap()
}

fn config(text: &str) -> DomainConfig {
    let mut config = DomainConfig::new(name(text), Label::Red);
    config.home_size_mib = 16;
    config
}

/// A domain with something in its home and a log.
fn make(store: &Store, domain: &str) {
    store.create(&config(domain), None).unwrap();
    let home = store.open_home(&config(domain)).unwrap();
    home.write_all_at(domain.as_bytes(), 5000).unwrap();
    let logs = store.dirs.logs_of(&name(domain));
    private_dir(&logs).unwrap();
    fs::write(logs.join("serial.log"), domain).unwrap();
}

fn home_of(store: &Store, domain: &str) -> String {
    let home = File::open(store.home_file(&name(domain))).unwrap();
    let mut text = [0; 16];
    home.read_exact_at(&mut text, 5000).unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    text.trim_end_matches('\0').to_owned()
}

/// Everything that is there, hidden or not.
fn everything(store: &Store) -> Vec<String> {
    fn list(dir: &Path, into: &mut Vec<String>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let mut text = path.display().to_string();
            if path.is_dir() {
                list(&path, into);
            } else if path.extension().is_some_and(|ending| ending == "toml") {
                text += &fs::read_to_string(&path).unwrap();
            } else {
                let mut data = [0; 8192];
                let file = File::open(&path).unwrap();
                let _ = file.read_at(&mut data, 0).unwrap();
                text += &format!(" {} ", file.metadata().unwrap().len());
                let begin = data.iter().position(|&byte| byte != 0);
                let end = data.iter().rposition(|&byte| byte != 0);
                if let (Some(begin), Some(end)) = (begin, end) {
                    text += &String::from_utf8_lossy(&data[begin..=end]);
                }
            }
            into.push(text);
        }
    }
    let mut all = Vec::new();
    for dir in [&store.dirs.config, &store.dirs.data, &store.dirs.logs] {
        list(dir, &mut all);
    }
    all.sort();
    all
}

/// Stops `change` at every one of its steps, by power cuts and by failures, each time on a fresh
/// store that `prepare` fills. What is found afterwards is always all of the old or all of the new.
fn never_half(prepare: impl Fn(&Store), change: impl Fn(&Store) -> Result<()>) {
    let (before, after) = {
        let (dir, store) = store();
        prepare(&store);
        let before = everything(&store);
        change(&store).unwrap();
        // The temporary folder's name differs each time.
        let base = dir.path().display().to_string();
        let relative = |all: Vec<String>| -> Vec<String> {
            all.into_iter()
                .map(|text| text.replace(&base, ""))
                .collect()
        };
        (relative(before), relative(everything(&store)))
    };
    assert_ne!(before, after);
    for stop in [Stop::PowerCut, Stop::Failure] {
        let mut steps = 0;
        loop {
            let (dir, store) = store();
            prepare(&store);
            let base = dir.path().display().to_string();
            let look = |store: &Store| -> Vec<String> {
                let all = everything(store);
                all.into_iter()
                    .map(|text| text.replace(&base, ""))
                    .collect()
            };
            let (result, decided, unstopped) = stop_at(stop, steps, || change(&store));
            match &result {
                // Without a restart: a failure leaves nothing behind, and success means success.
                Some(Err(_)) => assert_eq!(look(&store), before, "{stop:?} at {steps}"),
                Some(Ok(())) => assert_eq!(look(&store), after, "{stop:?} at {steps}"),
                None => {
                    // Whoever looks sees only whole domains.
                    for name in store.names().unwrap() {
                        store.load(&name).unwrap();
                    }
                }
            }
            let store = Store::open(store.dirs).unwrap();
            let found = look(&store);
            let expected = match result {
                Some(Ok(())) => &after,
                Some(Err(_)) => &before,
                None if decided => &after,
                // Changes of one rename have no decision: either is right, nothing else.
                None if found == after => &after,
                None => &before,
            };
            assert_eq!(&found, expected, "{stop:?} at step {steps}");
            if unstopped {
                break;
            }
            steps += 1;
        }
        assert!(steps >= 2, "{steps}");
    }
}

#[test]
fn create_list_load_remove() {
    let (_dir, store) = store();
    let config = DomainConfig::new(name("work"), Label::Red);
    store.create(&config, None).unwrap();
    assert_eq!(store.names().unwrap(), std::slice::from_ref(&config.name));
    assert_eq!(store.load(&config.name).unwrap(), config);
    let home = fs::metadata(store.home_file(&config.name)).unwrap();
    assert_eq!(home.len(), 4096 << 20);
    assert!(matches!(store.create(&config, None), Err(Error::Exists(_))));
    store.remove(&config.name).unwrap();
    assert!(matches!(
        store.remove(&config.name),
        Err(Error::NoSuchDomain(_))
    ));
    assert_eq!(everything(&store), [""; 0]);
}

#[test]
fn a_domain_is_made_whole_or_not_at_all() {
    never_half(|_| {}, |store| store.create(&config("work"), None));
    never_half(
        |store| make(store, "other"),
        |store| {
            let mut config = config("work");
            config.kind = Kind::NamedDisposable;
            store.create(&config, None)
        },
    );
}

#[test]
fn a_domain_is_removed_whole_or_not_at_all() {
    let prepare = |store: &Store| ["other", "work"].iter().for_each(|name| make(store, name));
    never_half(prepare, |store| store.remove(&name("work")));
}

#[test]
fn a_domain_is_copied_whole_or_not_at_all() {
    let copy = |store: &Store| store.clone_domain(&name("work"), &name("copy"));
    never_half(|store| make(store, "work"), copy);
    let (_dir, store) = store();
    make(&store, "work");
    copy(&store).unwrap();
    assert_eq!(home_of(&store, "copy"), "work");
    assert_eq!(store.load(&name("copy")).unwrap(), config("copy"));
    assert!(matches!(copy(&store), Err(Error::Exists(_))));
    let missing = store.clone_domain(&name("nothing"), &name("x"));
    assert!(matches!(missing, Err(Error::NoSuchDomain(_))));
}

#[test]
fn a_domain_is_renamed_whole_or_not_at_all_and_so_is_what_others_say_of_it() {
    let prepare = |store: &Store| {
        make(store, "work");
        for other in ["one", "two"] {
            let mut config = config(other);
            config.default_disposable = Some(name("work"));
            store.create(&config, None).unwrap();
        }
        store.create(&config("three"), None).unwrap();
    };
    let rename = |store: &Store| store.rename(&name("work"), &name("job"));
    never_half(prepare, rename);
    let (_dir, store) = store();
    prepare(&store);
    rename(&store).unwrap();
    assert_eq!(home_of(&store, "job"), "work");
    let of = |domain| store.load(&name(domain)).unwrap().default_disposable;
    assert_eq!(
        [of("one"), of("two")],
        [Some(name("job")), Some(name("job"))]
    );
    assert_eq!(of("three"), None);
    assert!(!store.exists(&name("work")));
    let log = store.dirs.logs_of(&name("job")).join("serial.log");
    assert_eq!(fs::read_to_string(log).unwrap(), "work");
    let taken = store.rename(&name("job"), &name("one"));
    assert!(matches!(taken, Err(Error::Exists(_))));
}

#[test]
fn settings_are_saved_whole_or_not_at_all() {
    never_half(
        |store| make(store, "work"),
        |store| {
            let mut config = config("work");
            config.memory_mib = 2048;
            store.save(&config)
        },
    );
}

#[test]
fn a_home_goes_back_whole_or_not_at_all() {
    let prepare = |store: &Store| {
        make(store, "work");
        let home = store.open_home(&config("work")).unwrap();
        let taken = store.take_snapshot(&name("work"), &home, 2).unwrap();
        assert_eq!(taken, Taken::Made(1));
        home.write_all_at(b"later", 5000).unwrap();
        assert_eq!(home_of(store, "work"), "later");
    };
    let revert = |store: &Store| store.revert(&name("work"), None).map(drop);
    never_half(prepare, revert);
    let (_dir, store) = store();
    prepare(&store);
    revert(&store).unwrap();
    assert_eq!(home_of(&store, "work"), "work");
}

#[test]
fn as_many_snapshots_as_wanted_are_kept() {
    let (_dir, store) = store();
    let work = name("work");
    store.create(&config("work"), None).unwrap();
    let home = store.open_home(&config("work")).unwrap();
    // Nothing is in it yet.
    let take = |keep| store.take_snapshot(&work, &home, keep).unwrap();
    assert_eq!(take(2), Taken::NotNeeded);
    let error = store.revert(&work, None).unwrap_err().to_string();
    assert!(
        error.contains("there is no snapshot of its home"),
        "{error}"
    );
    for round in 1..=4 {
        home.write_all_at(&[b'0' + round], 5000).unwrap();
        assert_eq!(take(2), Taken::Made(round.into()));
    }
    let numbers = |store: &Store| -> Vec<u32> {
        let snapshots = store.snapshots(&work).unwrap();
        assert!(snapshots.iter().all(|s| s.taken_s > 0 && s.disk_bytes > 0));
        snapshots.iter().map(|snapshot| snapshot.number).collect()
    };
    assert_eq!(numbers(&store), [4, 3]);
    assert_eq!(store.revert(&work, Some(3)).unwrap(), 3);
    assert_eq!(home_of(&store, "work"), "3");
    let error = store.revert(&work, Some(2)).unwrap_err().to_string();
    assert!(
        error.contains("no snapshot 2 of its home; there are 4, 3"),
        "{error}"
    );
    assert_eq!(take(0), Taken::NotNeeded);
    assert_eq!(numbers(&store), [0; 0]);
}

#[test]
fn a_home_grows_but_does_not_shrink() {
    let (_dir, store) = store();
    make(&store, "work");
    let mut larger = config("work");
    larger.home_size_mib = 20;
    store.check_home_size(&larger).unwrap();
    let home = store.open_home(&larger).unwrap();
    assert_eq!(home.metadata().unwrap().len(), 20 << 20);
    assert_eq!(home_of(&store, "work"), "work");
    let error = store.check_home_size(&config("work")).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("has 20 MiB and cannot shrink to 16"),
        "{error}"
    );
    // A file that was edited by hand cuts nothing off.
    let home = store.open_home(&config("work")).unwrap();
    assert_eq!(home.metadata().unwrap().len(), 20 << 20);
}

#[test]
fn a_home_that_is_forgotten_has_no_name() {
    let (_dir, store) = store();
    let mut config = config("work");
    config.kind = Kind::NamedDisposable;
    store.create(&config, None).unwrap();
    let before = everything(&store);
    let home = store.open_home(&config).unwrap();
    home.write_all_at(b"secret", 5000).unwrap();
    assert_eq!(home.metadata().unwrap().len(), 16 << 20);
    assert_eq!(everything(&store), before);
    drop(home);
    let mut text = [0; 6];
    let again = store.open_home(&config).unwrap();
    again.read_exact_at(&mut text, 5000).unwrap();
    assert_eq!(text, [0; 6]);
}

#[test]
fn one_name_is_made_once_at_a_time() {
    let (_dir, store) = store();
    let claim = store.claim(&name("work")).unwrap();
    let second = store.clone().create(&config("work"), None);
    assert!(matches!(second, Err(Error::Busy(_))));
    drop(claim);
    store.create(&config("work"), None).unwrap();
    store.remove(&name("work")).unwrap();
    fs::create_dir(store.data_dir(&name("work"))).unwrap();
    let leftover = store.create(&config("work"), None);
    assert!(matches!(leftover, Err(Error::Leftover { .. })));
}

#[test]
fn a_list_of_renames_that_someone_changed_is_not_followed() {
    let (_dir, store) = store();
    make(&store, "work");
    let file = store.dirs.data.join(".bulkhead-change-work");
    for text in [
        "[[move]]\nfolder = \"data\"\nfrom = \"work\"\nto = \"../gone\"\n",
        "[[move]]\nfolder = \"home\"\nfrom = \"work\"\nto = \"x\"\n",
        "nonsense",
    ] {
        fs::write(&file, text).unwrap();
        let before = everything(&store);
        let store = Store::open(store.dirs.clone()).unwrap();
        assert_eq!(everything(&store), before);
    }
}

/// A template's folder, with nothing in its root that a guest could start from.
fn template(dir: &Path) -> PathBuf {
    let folder = dir.join("templates/apps");
    fs::create_dir_all(folder.join("apps/applications")).unwrap();
    fs::write(folder.join("root.erofs"), crate::images::tests::erofs(1)).unwrap();
    fs::write(folder.join("template.toml"), "name = \"apps\"\n").unwrap();
    fs::write(
        folder.join("apps/applications/foot.desktop"),
        "[Desktop Entry]",
    )
    .unwrap();
    folder
}

#[test]
fn a_standalone_domain_owns_a_copy_of_its_template_whole_or_not_at_all() {
    let standalone = |domain: &str| {
        let mut config = config(domain);
        config.kind = Kind::Standalone;
        config
    };
    let create = |store: &Store| {
        let template = template(store.dirs.config.parent().unwrap());
        store.create(&standalone("lab"), Some(&template))
    };
    never_half(|_| {}, create);
    never_half(
        |store| create(store).unwrap(),
        |store| store.clone_domain(&name("lab"), &name("copy")),
    );
    never_half(
        |store| create(store).unwrap(),
        |store| store.remove(&name("lab")),
    );
    let (_dir, store) = store();
    create(&store).unwrap();
    // Whatever becomes of the template, the domain keeps what it was made from.
    let own = store.own_root(&standalone("lab")).unwrap();
    fs::remove_dir_all(store.dirs.config.parent().unwrap().join("templates")).unwrap();
    store.clone_domain(&name("lab"), &name("copy")).unwrap();
    for root in [own, store.own_root(&standalone("copy")).unwrap()] {
        assert_eq!(fs::metadata(root.join("root.erofs")).unwrap().len(), 4096);
        assert!(root.join("apps/applications/foot.desktop").exists());
    }
    assert_eq!(store.own_root(&config("lab")), None);
    let error = store.create(&standalone("other"), None).unwrap_err();
    assert!(error.to_string().contains("no template `apps`"), "{error}");
}
