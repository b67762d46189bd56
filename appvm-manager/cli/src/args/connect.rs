//! What a user may say about TCP ports of one domain that lead to another.

use std::str::FromStr;

use bulkhead_protocol::{DomainName, TcpPort};

/// Let programs of one domain reach a TCP port of another, as long as this runs.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
In SOURCE, 127.0.0.1 gets a port where each connection goes to 127.0.0.1:PORT of TARGET, as a call
between domains: without any network card, and never over the host's network. SOURCE is started if
need be; TARGET when the first connection is made. Ctrl-C ends it, with all its connections.

This command is your yes for exactly that, while it runs: no rule is needed. A rule of yours that
denies it is stronger; one that asks counts as answered. Every program in SOURCE can use the port.
Other than that, domains reach each other's ports where your policy says so (bulkhead-connect in the
domain; docs/calls.md).

Exit status: 0 ended by Ctrl-C or SIGTERM; 1 not done; 254 SOURCE has ended.

Examples:
  bulkhead connect work personal:8080            # 127.0.0.1:8080 of work
  bulkhead connect work vault:22 --listen 2222   # then, in work: ssh -p 2222 127.0.0.1
  bulkhead connect work data:5432 --listen 0 --json")]
pub struct Connect {
    /// The domain whose programs connect.
    pub source: DomainName,
    /// The domain where something listens on 127.0.0.1, and its port.
    #[arg(value_name = "TARGET:PORT")]
    pub target: Endpoint,
    /// The port of SOURCE; 0: a free one [default: PORT, or a free one if that is below 1024]
    #[arg(long, short, value_name = "PORT")]
    pub listen: Option<u16>,
    /// Print where it listens as JSON, once it does.
    #[arg(long)]
    pub json: bool,
}

/// `DOMAIN:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub domain: DomainName,
    pub port: TcpPort,
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((domain, port)) = text.split_once(':') else {
            return Err("write DOMAIN:PORT, such as personal:8080".to_owned());
        };
        Ok(Endpoint {
            domain: domain
                .parse()
                .map_err(|error: bulkhead_protocol::InvalidName| error.to_string())?,
            port: port
                .parse()
                .map_err(|error: bulkhead_protocol::InvalidPort| error.to_string())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_domain_and_a_port() {
        let fine: Endpoint = "personal:8080".parse().unwrap();
        assert_eq!((fine.domain.as_str(), fine.port.get()), ("personal", 8080));
        for bad in [
            "",
            "personal",
            "personal:",
            ":80",
            "personal:0",
            "personal:080",
            "Personal:80",
            "personal:80:81",
            "@dispvm:80",
            "personal:65536",
            "personal:http",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
