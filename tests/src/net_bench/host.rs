//! On the host, as its administrator: starts all guests, and measures in turns.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use super::cable::{self, Link, Process};
use super::fail;
use super::machine::{self, Card, Guest, Plan};
use super::traffic::{self, Done, Kind};

/// The numbers of the three in a row, from which their addresses and VLANs come (docs/net.md).
const CLIENT: u8 = 5;
const FORWARDER: u8 = 6;
const SERVER: u8 = 7;
/// The host itself, for the guest behind `passt`.
const HOST: u8 = 8;
const BEHIND_PASST: u8 = 9;
const MTU: u16 = 1500;
/// What `passt` tells its guest to use.
const PASST_MTU: u16 = 65520;
/// Between two measurements.
const PAUSE: Duration = Duration::from_millis(150);

const OURS: &str = "ours";

/// A way to connect guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Ours,
    Tap,
    Vhost,
    Passt,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Ours => OURS,
            Way::Tap => "tap",
            Way::Vhost => "vhost",
            Way::Passt => "passt",
        }
    }
}

/// Guests that are connected one way, and whose processor time it is.
struct Row {
    way: Way,
    /// From the server on.
    guests: Vec<Guest>,
    others: Vec<u32>,
    /// Ends with the row.
    _link: Option<Link>,
    _passt: Option<Process>,
}

/// From where to where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Route {
    Neighbour,
    Forwarded,
}

impl Route {
    fn name(self) -> &'static str {
        match self {
            Route::Neighbour => "neighbour",
            Route::Forwarded => "forwarded",
        }
    }
}

/// One measurement.
struct Sample {
    way: Way,
    path: Route,
    kind: Kind,
    /// How much was done, and how long that took.
    done: Done,
    /// What the processes that take part did meanwhile, QEMU's threads in the kernel included.
    busy: Duration,
    /// By thread.
    threads: BTreeMap<String, u64>,
}

/// `WAYS ROUNDS MILLISECONDS [PROCESSOR]`: the other ways (`tap,vhost,passt`), how often each thing is
/// done, and for how long. The last one is for emulated hosts, where the processors of all guests must
/// share one (docs/testing.md).
pub fn run(arguments: impl Iterator<Item = String>) -> io::Result<Value> {
    let words: Vec<String> = arguments.collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| {
        let number: Result<u64, _> = text.parse();
        number.map_err(|_| fail(format!("`{text}` is no number")))
    };
    let (ways, rounds, time, processor) = match *words.as_slice() {
        [ways, rounds, time] => (ways, rounds, time, None),
        [ways, rounds, time, processor] => (ways, rounds, time, Some(processor)),
        _ => return Err(fail("WAYS ROUNDS MILLISECONDS [PROCESSOR]")),
    };
    let processor = processor.map(number).transpose()?;
    let time = Duration::from_millis(number(time)?);
    // The guests' processor is theirs alone. Else the scheduler puts a device's thread now here and now there,
    // and where it takes the guests' time, that is most of what differs from round to round.
    if let Some(processor) = processor {
        machine::stay_off(processor as usize)?;
    }
    let folder = std::env::temp_dir().join("net-bench");
    std::fs::create_dir_all(&folder)?;
    let maker = Maker {
        initramfs: machine::initramfs(&folder)?,
        folder,
        processor: processor.map(|processor| processor as usize),
    };
    traffic::serve(Ipv4Addr::LOCALHOST)?;
    let mut rows = vec![maker.ours()?];
    for way in ways.split(',') {
        rows.push(match way {
            "tap" => maker.taps(Way::Tap)?,
            "vhost" => maker.taps(Way::Vhost)?,
            "passt" => maker.passt()?,
            _ => return Err(fail(format!("no way `{way}`"))),
        });
        eprintln!("{way}: ready");
    }

    let mut samples = Vec::new();
    // The first connections fill the guests' caches and find their ways.
    let mut ignored = Vec::new();
    for kind in [Kind::Ping, Kind::Up] {
        measure(&mut rows, kind, time / 4, &mut ignored)?;
    }
    for _ in 0..number(rounds)? {
        for kind in [Kind::Up, Kind::Down, Kind::Ping] {
            measure(&mut rows, kind, time, &mut samples)?;
        }
    }
    Ok(figures(&samples))
}

/// One measurement of each row.
fn measure(
    rows: &mut [Row],
    kind: Kind,
    time: Duration,
    samples: &mut Vec<Sample>,
) -> io::Result<()> {
    for path in [Route::Neighbour, Route::Forwarded] {
        for row in &mut *rows {
            if let Some(sample) = row.measure(path, kind, time)? {
                eprintln!("{}", sample.json());
                samples.push(sample);
            }
            // What was on its way when time was up.
            sleep(PAUSE);
        }
    }
    Ok(())
}

impl Row {
    /// None where there is no such path.
    fn measure(&mut self, path: Route, kind: Kind, time: Duration) -> io::Result<Option<Sample>> {
        let (from, to) = match (self.way, path) {
            (Way::Passt, Route::Neighbour) => (0, HOST),
            (Way::Passt, Route::Forwarded) => return Ok(None),
            (_, Route::Neighbour) => (1, SERVER),
            (_, Route::Forwarded) => (2, SERVER),
        };
        let before = self.threads();
        let Some(guest) = self.guests.get_mut(from) else {
            return Ok(None);
        };
        let (kind_name, time) = (kind.name(), time.as_millis());
        let told = guest.tell(&format!("ask {kind_name} {} {time}", address(to)))?;
        let numbers: Vec<u64> = told.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [count @ 1..=u64::MAX, nanoseconds] = *numbers.as_slice() else {
            return Err(fail(format!("{} {kind_name}: {told}", self.way.name())));
        };
        let mut threads = self.threads();
        for (name, time) in &mut threads {
            *time -= before.get(name).copied().unwrap_or_default().min(*time);
        }
        // The third guest has no part in it.
        let takes_part = |name: &str| path == Route::Forwarded || !name.starts_with("client:");
        let busy = threads.iter().filter(|(name, _)| takes_part(name));
        let busy = busy.map(|(_, time)| time).sum();
        Ok(Some(Sample {
            way: self.way,
            path,
            kind,
            done: Done {
                count,
                took: Duration::from_nanos(nanoseconds),
            },
            busy: Duration::from_nanos(busy),
            threads,
        }))
    }

    /// Nanoseconds of each thread.
    fn threads(&self) -> BTreeMap<String, u64> {
        let names = ["server", "forwarder", "client"];
        let guests = self.guests.iter().zip(names);
        let guests = guests.map(|(guest, name)| (guest.process(), name));
        let others = self.others.iter().map(|process| (*process, "cable"));
        let mut times = BTreeMap::new();
        for (process, name) in guests.chain(others) {
            let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
            for task in tasks.into_iter().flatten().flatten() {
                let read = |file| std::fs::read_to_string(task.path().join(file));
                let thread = read("comm").unwrap_or_default();
                let time = read("schedstat").unwrap_or_default();
                let time = time.split(' ').next().and_then(|time| time.parse().ok());
                *times
                    .entry(format!("{name}: {}", thread.trim()))
                    .or_default() += time.unwrap_or(0_u64);
            }
        }
        times
    }
}

/// Starts rows.
struct Maker {
    folder: PathBuf,
    initramfs: PathBuf,
    processor: Option<usize>,
}

impl Maker {
    fn plan<'a>(&'a self, name: &'a str, cards: Vec<(String, Card, u16)>) -> Plan<'a> {
        Plan {
            name,
            initramfs: &self.initramfs,
            cards,
            processor: self.processor,
        }
    }

    fn ours(&self) -> io::Result<Row> {
        let link = Link::start()?;
        let trunk = |name: &str, number| {
            let mac = mac(1, number);
            let request = json!({"op": "add_trunk", "name": name, "mac": mac, "mtu": MTU});
            io::Result::Ok((mac, Card::Cable(link.plug(&request)?), MTU))
        };
        let client = |name: &str, trunk: &str, number| {
            let mac = mac(0, number);
            let request = json!({
                "op": "add_client", "name": name, "trunk": trunk, "vlan": number,
                "mac": mac, "address": address(number),
            });
            io::Result::Ok((mac, Card::Cable(link.plug(&request)?), MTU))
        };
        let server = vec![trunk("server", SERVER)?];
        let forwarder = vec![
            client("forwarder-out", "server", FORWARDER)?,
            trunk("forwarder", FORWARDER)?,
        ];
        let client = vec![client("client", "forwarder", CLIENT)?];
        let mut guests = Vec::new();
        for (name, cards) in [
            ("ours-server", server),
            ("ours-forwarder", forwarder),
            ("ours-client", client),
        ] {
            guests.push(Guest::ours(self.plan(name, cards), &self.folder)?);
        }
        set_up(&mut guests)?;
        Ok(Row {
            way: Way::Ours,
            guests,
            others: vec![link.process()],
            _link: Some(link),
            _passt: None,
        })
    }

    fn taps(&self, way: Way) -> io::Result<Row> {
        let vhost = if way == Way::Vhost { "on" } else { "off" };
        let tap = |name: &str| format!("{}-{name}", way.name());
        let card = |kind, number, name| {
            let netdev = format!(
                "tap,ifname={},script=no,downscript=no,vhost={vhost}",
                tap(name)
            );
            (mac(kind, number), Card::Netdev(netdev), MTU)
        };
        cable::bridge(&tap("br0"), &tap("out"), &tap("server"), FORWARDER.into())?;
        cable::bridge(&tap("br1"), &tap("client"), &tap("trunk"), CLIENT.into())?;
        let server = vec![card(1, SERVER, "server")];
        let forwarder = vec![card(0, FORWARDER, "out"), card(1, FORWARDER, "trunk")];
        let client = vec![card(0, CLIENT, "client")];
        let mut guests = Vec::new();
        for (name, cards) in [
            ("server", server),
            ("forwarder", forwarder),
            ("client", client),
        ] {
            guests.push(Guest::qemu(self.plan(&tap(name), cards), &self.folder)?);
        }
        set_up(&mut guests)?;
        Ok(Row {
            way,
            guests,
            others: Vec::new(),
            _link: None,
            _passt: None,
        })
    }

    fn passt(&self) -> io::Result<Row> {
        let (passt, socket) = cable::passt(&self.folder, &address(BEHIND_PASST), &address(HOST))?;
        let netdev = format!(
            "stream,server=off,addr.type=unix,addr.path={}",
            socket.display()
        );
        let cards = vec![(mac(0, BEHIND_PASST), Card::Netdev(netdev), PASST_MTU)];
        let mut guest = Guest::qemu(self.plan("passt-guest", cards), &self.folder)?;
        guest.wait()?;
        guest.tell(&format!(
            "net {}",
            json!({"card": card(BEHIND_PASST, HOST, PASST_MTU)})
        ))?;
        Ok(Row {
            way: Way::Passt,
            guests: vec![guest],
            others: vec![passt.process()],
            _link: None,
            _passt: Some(passt),
        })
    }
}

/// Tells the three of a row what they are, from the server on.
fn set_up(guests: &mut [Guest]) -> io::Result<()> {
    let [server, forwarder, client] = guests else {
        return Err(fail("a row has three guests"));
    };
    server.wait()?;
    server.tell(&format!(
        "net {}",
        json!({"trunk": trunk(SERVER, FORWARDER)})
    ))?;
    server.tell("serve")?;
    forwarder.wait()?;
    let both = json!({
        "card": card(FORWARDER, SERVER, MTU),
        "trunk": trunk(FORWARDER, CLIENT),
    });
    forwarder.tell(&format!("firewall {both}"))?;
    client.wait()?;
    client.tell(&format!(
        "net {}",
        json!({"card": card(CLIENT, FORWARDER, MTU)})
    ))?;
    Ok(())
}

fn card(number: u8, gateway: u8, mtu: u16) -> Value {
    let gateway = address(gateway);
    json!({"mac": mac(0, number), "address": address(number), "gateway": gateway, "mtu": mtu})
}

fn trunk(number: u8, client: u8) -> Value {
    json!({
        "mac": mac(1, number), "address": address(number), "mtu": MTU,
        "clients": [{"vlan": client, "address": address(client)}],
    })
}

fn address(number: u8) -> String {
    format!("10.137.0.{number}")
}

fn mac(kind: u8, number: u8) -> String {
    format!("02:b0:1c:{kind:02x}:00:{number:02x}")
}

/// Medians, ratios, and every sample.
fn figures(samples: &[Sample]) -> Value {
    let mut lists: BTreeMap<(&str, &str, String), Vec<f64>> = BTreeMap::new();
    for sample in samples {
        for (name, value) in sample.values() {
            let key = (sample.path.name(), sample.way.name(), name);
            lists.entry(key).or_default().push(value);
        }
    }
    let mut figures: BTreeMap<&str, BTreeMap<&str, BTreeMap<&str, f64>>> = BTreeMap::new();
    for ((path, way, name), values) in &lists {
        let entry = figures.entry(path).or_default().entry(way).or_default();
        entry.insert(name, median(values.clone()).unwrap_or(f64::NAN));
    }
    let mut ratios: BTreeMap<&str, BTreeMap<&str, BTreeMap<&str, Value>>> = BTreeMap::new();
    for ((path, way, name), theirs) in lists.iter().filter(|((_, way, _), _)| *way != OURS) {
        // The same thing in the same round: what else the machine does changes from round to round.
        let Some(ours) = lists.get(&(*path, OURS, name.clone())) else {
            continue;
        };
        let mut each: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
        each.sort_by(f64::total_cmp);
        let ratio = json!({
            "median": median(each.clone()), "least": each.first(), "most": each.last(),
        });
        let entry = ratios.entry(path).or_default().entry(way).or_default();
        entry.insert(name, ratio);
    }
    let samples: Vec<Value> = samples.iter().map(Sample::json).collect();
    json!({
        "figures": figures, "ratios": ratios, "samples": samples,
    })
}

impl Sample {
    /// What it says, by name.
    fn values(&self) -> Vec<(String, f64)> {
        let (count, took) = (self.done.count as f64, self.done.took.as_secs_f64());
        let cpu = self.busy.as_secs_f64() / count;
        let name = self.kind.name();
        match self.kind {
            Kind::Ping => vec![
                ("ping_us".into(), took * 1e6),
                ("ping_cpu_us".into(), cpu * 1e6),
            ],
            Kind::Up | Kind::Down => vec![
                (format!("{name}_mib_s"), count / took / 1_048_576.0),
                (format!("{name}_cpu_ns_per_byte"), cpu * 1e9),
            ],
        }
    }

    fn json(&self) -> Value {
        let threads: BTreeMap<&String, u64> = self
            .threads
            .iter()
            .map(|(name, time)| (name, time / 1_000_000))
            .filter(|(_, ms)| *ms > 0)
            .collect();
        let values: BTreeMap<String, f64> = self.values().into_iter().collect();
        json!({
            "path": self.path.name(), "way": self.way.name(), "values": values,
            "busy_ms": self.busy.as_millis() as u64, "threads_ms": threads,
        })
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
