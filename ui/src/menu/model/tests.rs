use std::time::{Duration, Instant};

use super::*;

fn app(domain: &str, name: &str, generic_name: &str) -> Application {
    Application {
        domain: domain.into(),
        app: name.to_lowercase().replace(' ', "-"),
        name: name.into(),
        generic_name: generic_name.into(),
        disposable: domain == "work",
        ..Application::default()
    }
}

fn model() -> Model {
    let mut model = Model::new(6);
    model.set_applications(vec![
        app("work", "Thunar", "File Manager"),
        app("work", "Foot", "Terminal"),
        app("work", "Foot Client", "Terminal"),
        app("bank", "Firefox", "Web Browser"),
        app("bank", "foot", "Terminal"),
    ]);
    model
}

/// Every row as text.
fn list(model: &Model) -> Vec<String> {
    let name = |index: usize| model.app(index).unwrap();
    model
        .rows
        .iter()
        .map(|row| match row {
            Row::Domain(index) => format!("[{}]", name(*index).domain),
            Row::Application(index) => name(*index).name.clone(),
        })
        .collect()
}

fn typed(text: &str) -> Model {
    let mut model = model();
    model.type_text(text);
    model
}

#[test]
fn everything_is_grouped_by_domain() {
    let model = model();
    let expected = [
        "[bank]",
        "Firefox",
        "foot",
        "[work]",
        "Foot",
        "Foot Client",
        "Thunar",
    ];
    assert_eq!(list(&model), expected);
    assert_eq!(model.chosen_app().unwrap().name, "Firefox");
    assert_eq!(model.counts(), (5, 5));
}

#[test]
fn what_is_typed_is_found_and_the_best_is_chosen() {
    let model = typed("term");
    assert_eq!(
        list(&model),
        ["[bank]", "foot", "[work]", "Foot", "Foot Client"]
    );
    assert_eq!(model.chosen_app().unwrap().domain, "bank");
    assert_eq!(list(&typed("work term")), ["[work]", "Foot", "Foot Client"]);
    // The domain with the better answer stands first.
    assert_eq!(
        list(&typed("fi")),
        ["[bank]", "Firefox", "[work]", "Thunar"]
    );
    assert_eq!(list(&typed("man")), ["[work]", "Thunar"]);
    let none = typed("zzz");
    assert_eq!(
        (list(&none).len(), none.chosen(), none.launch(false)),
        (0, None, None)
    );
}

#[test]
fn typing_and_erasing() {
    let mut model = typed("work ter\u{8}\n");
    assert_eq!(model.query(), "work ter");
    model.erase_word();
    assert_eq!(model.query(), "work ");
    model.erase_word();
    model.erase();
    assert_eq!(model.query(), "");
    assert_eq!(model.counts(), (5, 5));
    model.type_text(&"x".repeat(1000));
    assert_eq!(model.query().len(), MAX_QUERY);
    model.reset();
    assert_eq!(model.counts(), (5, 5));
}

#[test]
fn the_choice_skips_domains_and_goes_round() {
    let mut model = model();
    let mut steps = |step| {
        model.step(step);
        (model.chosen_app().unwrap().name.clone(), model.top)
    };
    assert_eq!(steps(Step::Down), ("foot".into(), 0));
    assert_eq!(steps(Step::Down), ("Foot".into(), 0));
    assert_eq!(steps(Step::Up), ("foot".into(), 0));
    assert_eq!(steps(Step::Up), ("Firefox".into(), 0));
    assert_eq!(steps(Step::Up), ("Thunar".into(), 1));
    assert_eq!(steps(Step::Down), ("Firefox".into(), 0));
    assert_eq!(steps(Step::Last), ("Thunar".into(), 1));
    assert_eq!(steps(Step::PageUp), ("Firefox".into(), 0));
    assert_eq!(steps(Step::PageDown), ("Thunar".into(), 1));
    assert_eq!(steps(Step::First), ("Firefox".into(), 0));
    model.scroll(100);
    assert_eq!(model.top, 1);
    model.scroll(-100);
    assert_eq!(model.top, 0);
    model.choose(3);
    assert_eq!(model.chosen_app().unwrap().name, "Firefox");
    model.choose(5);
    assert_eq!(model.chosen_app().unwrap().name, "Foot Client");
    model.choose(100);
    assert_eq!(model.chosen_app().unwrap().name, "Foot Client");
}

#[test]
fn disposables_only_where_they_are_allowed() {
    let mut model = typed("foot");
    assert_eq!(model.chosen_app().unwrap().domain, "bank");
    assert_eq!(model.launch(true), None);
    model.step(Step::Down);
    let expected = Launch {
        domain: "work".into(),
        app: "foot".into(),
        disposable: true,
    };
    assert_eq!(model.launch(true), Some(expected));
}

#[test]
fn new_applications_do_not_move_the_choice() {
    let mut model = typed("foot");
    model.step(Step::Down);
    model.set_applications(vec![
        app("work", "Foot", "Terminal"),
        app("aaa", "foot", "Terminal"),
        app("aaa", "Football", "Game"),
    ]);
    assert_eq!(model.query(), "foot");
    assert_eq!(model.chosen_app().unwrap().domain, "work");
    model.set_applications(Vec::new());
    assert_eq!(model.chosen(), None);
    model.step(Step::Down);
    model.step(Step::PageUp);
    assert_eq!(model.visible().count(), 0);
}

/// Whatever is done, the choice is an application and is seen.
#[test]
fn the_choice_is_always_an_application_in_sight() {
    let mut seed = 7_u64;
    let mut random = |most: usize| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) as usize % most
    };
    let mut model = Model::new(5);
    let steps = [
        Step::Up,
        Step::Down,
        Step::PageUp,
        Step::PageDown,
        Step::First,
        Step::Last,
    ];
    for _ in 0..5000 {
        match random(10) {
            0 => {
                let count = random(30);
                let apps = (0..count).map(|at| {
                    app(
                        ["a", "b", "c"][random(3)],
                        &format!("App {}", at % 7),
                        "thing",
                    )
                });
                model.set_applications(apps.collect());
            }
            1 => model.type_text(["a", "p", " ", "3", "th"][random(5)]),
            2 => model.erase(),
            3 => model.reset(),
            _ => model.step(steps[random(6)]),
        }
        let apps = model.counts().0;
        assert_eq!(model.chosen().is_some(), apps > 0);
        if let Some(chosen) = model.chosen() {
            assert!(model.chosen_app().is_some());
            assert!(model.visible().any(|(row, _)| row == chosen));
        }
    }
}

/// One frame at 60 Hz, without optimisation and with other tests beside it: the best of three
/// counts.
#[test]
fn two_thousand_entries_are_filtered_within_a_frame() {
    let apps: Vec<Application> = (0..2000)
        .map(|number| {
            let domain = format!("domain{}", number % 20);
            let mut app = app(
                &domain,
                &format!("Application number {number}"),
                "Some Kind of Tool",
            );
            app.keywords = (0..8)
                .map(|word| format!("keyword{word}of{number}"))
                .collect();
            app
        })
        .collect();
    let mut model = Model::new(10);
    model.set_applications(apps);
    let mut slowest = Duration::ZERO;
    for query in ["number 17", "keyword7of1", "tool domain1", "zzzz", "anx"] {
        model.reset();
        for key in query.chars() {
            let times = (0..3).map(|_| {
                let start = Instant::now();
                model.type_text(&key.to_string());
                let took = start.elapsed();
                model.erase();
                took
            });
            slowest = slowest.max(times.min().unwrap());
            model.type_text(&key.to_string());
        }
    }
    eprintln!("slowest keystroke of 2000 entries: {slowest:?}");
    assert!(slowest < Duration::from_micros(16_700), "{slowest:?}");
}
