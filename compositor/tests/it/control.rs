//! The manager's socket.

use serde_json::json;

use crate::{clients::Client, fixture::Desk};

#[test]
fn removing_a_domain_takes_its_windows_and_clients_away() {
    let desk = Desk::two();
    let mut work = Client::connect(&desk, "work");
    let mut personal = Client::connect(&desk, "personal");
    work.window(200, 100, 0xff00_00ff);
    personal.window(100, 100, 0xff00_00ff);
    assert_eq!(desk.windows().len(), 2);
    assert_eq!(
        desk.control(json!({"op":"remove_domain","name":"work"}))["ok"],
        true
    );
    assert!(desk.window_of("work").is_none());
    assert_eq!(desk.windows().len(), 1);
    assert_eq!(desk.picture().count([0xcc, 0, 0]), 0);
    work.assert_thrown_out();
    assert!(personal.sync());
    // Nobody can come in through the old socket; the name can be used again.
    assert!(std::os::unix::net::UnixStream::connect(desk.socket("work")).is_err());
    desk.add_domain("work", "red", "#cc0000");
    Client::connect(&desk, "work").window(10, 10, 0xff00_00ff);
}

#[test]
fn subscribers_hear_of_windows() {
    let desk = Desk::two();
    let channel = desk.control_channel();
    assert_eq!(channel.ask(json!({"op":"subscribe"}), &[])["ok"], true);
    let mut client = Client::connect(&desk, "work");
    let window = client.window(200, 100, 0xff00_00ff);
    assert_eq!(channel.receive()["event"], "focus");
    // Told when its first buffer is in a picture.
    let mapped = channel.receive();
    assert_eq!(mapped["event"], "window_mapped");
    assert_eq!(mapped["domain"], "work");
    assert!(mapped["time_us"].as_u64().unwrap() > 0);
    let id = mapped["id"].as_u64().unwrap();
    assert_eq!(
        desk.control(json!({"op":"close_window","id":id}))["ok"],
        true
    );
    client.until("close", |t| t.has("close"));
    window.toplevel.destroy();
    window.xdg.destroy();
    client.sync();
    assert_eq!(channel.receive()["event"], "window_closed");
}

#[test]
fn nonsense_is_answered_with_an_error() {
    let desk = Desk::two();
    let channel = desk.control_channel();
    for (request, word) in [
        (
            json!({"op":"add_domain","name":"x","label":"red","colour":"#cc0000"}),
            "descriptor",
        ),
        (json!({"op":"remove_domain","name":"nobody"}), "nobody"),
        (
            json!({"op":"set_domain","name":"work","label":"red","colour":"red"}),
            "#rrggbb",
        ),
        (json!({"op":"screenshot","path":"/x"}), "screenshot"),
        (json!({"op":"close_window","id":99}), "99"),
        (json!({"op":"windows","extra":1}), "extra"),
    ] {
        let answer = channel.ask(request.clone(), &[]);
        assert_eq!(answer["ok"], false, "{request}");
        assert!(answer["error"].as_str().unwrap().contains(word), "{answer}");
    }
    channel.send(b"not json", &[]);
    assert_eq!(channel.receive()["ok"], false);
    channel.send(&vec![b' '; 65_600], &[]);
    assert!(
        channel.receive()["error"]
            .as_str()
            .unwrap()
            .contains("64 KiB")
    );
    assert_eq!(channel.ask(json!({"op":"windows"}), &[])["ok"], true);
}
