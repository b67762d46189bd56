//! `net wifi`: the wireless networks of a network domain.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};
use std::path::Path;

use serde_json::{Value, json};

use crate::args::WifiAction;
use crate::bus::{NetworkProxy, network};
use crate::error::Error;
use crate::manage::field;
use crate::output;
use crate::terminal::{INTERRUPT, NoEcho};

/// No passphrase is longer; more is not read.
const MAX_LINE: u64 = 200;

pub async fn wifi(
    name: &str,
    action: Option<WifiAction>,
    scan: bool,
    as_json: bool,
) -> Result<u8, Error> {
    let network = network().await?;
    let (card, networks) = match action {
        None => network.list_wifi(name, scan).await?,
        Some(WifiAction::Connect {
            ssid,
            passphrase_file,
        }) => {
            let passphrase = match passphrase_file {
                Some(file) => from_file(&file)?,
                None => match needs_passphrase(&network, name, &ssid).await? {
                    true => ask(&ssid)?,
                    false => String::new(),
                },
            };
            network.connect_wifi(name, &ssid, &passphrase).await?
        }
        Some(WifiAction::Disconnect) => network.disconnect_wifi(name).await?,
        Some(WifiAction::Forget { ssid }) => network.forget_wifi(name, &ssid).await?,
    };
    let mut card = output::to_json(&card);
    let networks: Vec<Value> = networks.iter().map(output::to_json).collect();
    if as_json {
        card["networks"] = json!(networks);
        output::json(&card)?;
    } else {
        // Names of networks are anybody's words.
        output::untrusted_text(describe(name, &card, &networks).as_bytes())?;
    }
    Ok(0)
}

/// Whether a network is seen that asks for a passphrase which the domain does not have. One that is not
/// seen yet, but may be in a moment, may ask for one as well.
async fn needs_passphrase(
    network: &NetworkProxy<'_>,
    name: &str,
    ssid: &str,
) -> Result<bool, Error> {
    let (_, seen) = network.list_wifi(name, false).await?;
    let mut seen: Vec<Value> = seen.iter().map(output::to_json).collect();
    if !seen.iter().any(|network| network["untrusted_name"] == ssid) {
        let (_, now) = network.list_wifi(name, true).await?;
        seen = now.iter().map(output::to_json).collect();
    }
    let of_name = |network: &&Value| network["untrusted_name"] == ssid;
    Ok(seen
        .iter()
        .filter(of_name)
        .any(|one| one["untrusted_known"] == false && one["untrusted_security"] == "passphrase"))
}

fn from_file(file: &Path) -> Result<String, Error> {
    let open =
        File::open(file).map_err(|error| Error::Other(format!("{}: {error}", file.display())))?;
    first_line(open)
}

/// Asks at the terminal without showing what is typed, or reads standard input.
fn ask(ssid: &str) -> Result<String, Error> {
    if !io::stdin().is_terminal() {
        return first_line(io::stdin().lock());
    }
    let failed = |error| Error::Io("the terminal", error);
    let shown: String = ssid.chars().filter(|c| !c.is_control()).collect();
    eprint!("Passphrase of {shown}: ");
    io::stderr().flush().map_err(failed)?;
    let line = {
        let _hidden = NoEcho::enter().map_err(failed)?;
        first_line(io::stdin().lock())
    };
    eprintln!();
    line
}

fn first_line(read: impl Read) -> Result<String, Error> {
    let mut line = Vec::new();
    let mut read = BufReader::new(read.take(MAX_LINE));
    // A terminal's line may end with the other one.
    let end = |byte: &u8| *byte == b'\n' || *byte == INTERRUPT;
    loop {
        let more = read.fill_buf();
        let more = more.map_err(|error| Error::Io("reading the passphrase", error))?;
        let used = more.iter().position(end).map_or(more.len(), |at| at + 1);
        let is_over = more.is_empty() || more.iter().any(end);
        line.extend(more.iter().take(used));
        read.consume(used);
        if is_over {
            break;
        }
    }
    let line = String::from_utf8(line)
        .map_err(|_| Error::Other("the passphrase is no text".to_owned()))?;
    let line = line.trim_end_matches(['\r', '\n']);
    match line.is_empty() || line.contains(char::from(INTERRUPT)) {
        true => Err(Error::Other("there is no passphrase".to_owned())),
        false => Ok(line.to_owned()),
    }
}

/// The networks, for people.
fn describe(name: &str, card: &Value, networks: &[Value]) -> String {
    let mut text = format!(
        "{name}: {} is {}\n",
        field(card, "untrusted_interface"),
        field(card, "untrusted_link"),
    );
    if networks.is_empty() {
        text.push_str("No network is in reach, and none is known.\n");
        return text;
    }
    let mut rows = vec![
        ["NETWORK", "SIGNAL", "SECURITY", "KNOWN", "JOINED"]
            .map(String::from)
            .to_vec(),
    ];
    for network in networks {
        let yes = |key: &str| match network[key] == true {
            true => "yes".to_owned(),
            false => "-".to_owned(),
        };
        let signal = match network["untrusted_signal_dbm"].as_i64() {
            Some(dbm) => format!("{dbm} dBm"),
            None => "-".to_owned(),
        };
        rows.push(vec![
            field(network, "untrusted_ssid"),
            signal,
            field(network, "untrusted_security"),
            yes("untrusted_known"),
            yes("untrusted_connected"),
        ]);
    }
    text + &output::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_readable() {
        let card = json!({"untrusted_interface": "wlan0", "untrusted_link": "connected"});
        let networks = [
            json!({"untrusted_ssid": "home", "untrusted_signal_dbm": -42, "untrusted_known": true,
                   "untrusted_connected": true, "untrusted_security": "passphrase"}),
            json!({"untrusted_ssid": "far", "untrusted_known": true,
                   "untrusted_connected": false, "untrusted_security": "open"}),
        ];
        let expected = "\
net: wlan0 is connected
NETWORK  SIGNAL   SECURITY    KNOWN  JOINED
home     -42 dBm  passphrase  yes    yes
far      -        open        yes    -
";
        assert_eq!(describe("net", &card, &networks), expected);
        let none = describe("net", &card, &[]);
        assert!(none.contains("none is known"), "{none}");
    }

    #[test]
    fn a_passphrase_is_a_line() {
        assert_eq!(
            first_line(&b"eight let\r\nmore\n"[..]).unwrap(),
            "eight let"
        );
        assert_eq!(first_line(&b"eightlet"[..]).unwrap(), "eightlet");
        assert!(first_line(&b"\n"[..]).is_err() && first_line(&b""[..]).is_err());
        assert!(first_line(&b"\xff\xfe"[..]).is_err());
        assert_eq!(first_line(&[b'x'; 1000][..]).unwrap().len(), 200);
    }
}
