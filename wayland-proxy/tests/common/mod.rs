//! A host compositor that records what it is told, the proxy between, and a client that can say
//! anything at all.
#![allow(dead_code, missing_docs)]

pub mod client;
pub mod host;

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bulkhead_wayland_proxy::server::{Host, Server};
use bulkhead_wayland_proxy::stats::Stats;
use host::TestHost;

/// Waits until something is so; fails the test when it does not come to be.
pub fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !check() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A running proxy in front of a running test host.
pub struct Setup {
    pub host: TestHost,
    pub socket: PathBuf,
    stop: Arc<AtomicBool>,
    stats: Arc<Mutex<String>>,
    proxy: Option<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Setup {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host_socket = folder.path().join("host");
        let socket = folder.path().join("guest");
        let host = TestHost::start(&host_socket);
        let stop = Arc::new(AtomicBool::new(false));
        // Whoever asks before the loop's first turn reads zeros, not nothing.
        let stats = Arc::new(Mutex::new(Stats::default().to_json()));
        let proxy = {
            let (socket, stop, stats) = (socket.clone(), stop.clone(), stats.clone());
            std::thread::spawn(move || {
                let mut server = Server::new(&socket, Host::Socket(host_socket), None).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    server.turn(Some(Duration::from_millis(5))).unwrap();
                    *stats.lock().unwrap() = server.stats().to_json();
                }
            })
        };
        eventually("the proxy listens", || UnixStream::connect(&socket).is_ok());
        Self {
            host,
            socket,
            stop,
            stats,
            proxy: Some(proxy),
            _folder: folder,
        }
    }

    pub fn client(&self) -> client::RawClient {
        client::RawClient::connect(&self.socket)
    }

    /// A counter of the proxy. They are published after each turn of its loop.
    pub fn stat(&self, name: &str) -> u64 {
        std::thread::sleep(Duration::from_millis(20));
        let json = self.stats.lock().unwrap().clone();
        let pairs = json.trim().trim_matches(['{', '}']).split(',');
        let all: HashMap<&str, u64> = pairs
            .map(|pair| {
                let (name, value) = pair.split_once(':').unwrap();
                (name.trim_matches('"'), value.parse().unwrap())
            })
            .collect();
        all[name]
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let result = self.proxy.take().unwrap().join();
        if !std::thread::panicking() {
            result.expect("the proxy panicked");
        }
    }
}
