//! What a user may say about domains that do not run: copies, names, settings, snapshots, plans.

use std::path::PathBuf;

use bulkhead_protocol::DomainName;

/// Make a domain like another one, with what is in its home.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The domain must not run. Its snapshots are not copied. Where the file system can share blocks
(Btrfs, XFS), the copy takes no time and no room at first.

Examples:
  bulkhead clone work work-test")]
pub struct Clone {
    /// The domain that is copied.
    pub old: DomainName,
    /// The new domain's name.
    pub new: DomainName,
}

/// Give a domain another name.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The domain must not run. Where other domains name it as default_disposable or
net_domain, they follow.

Examples:
  bulkhead rename work job")]
pub struct Rename {
    /// The domain.
    pub old: DomainName,
    /// Its new name.
    pub new: DomainName,
}

/// Show who reaches the network through whom.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A line for each network card: `card` leads to the domain's net_domain, `trunk` is where its clients
are. LINK is off (the domain does not run), plugged, unplugged (the other domain does not run),
next-start (it has this card when it starts again) or gone. SENT and RECEIVED are frames and bytes
as the domain sees them; REFUSED is what it sent and must not (another's address, for example), LOST
what was for it and did not arrive. docs/net.md explains the reasons, which --json has too.

Below are the network domains with physical devices and what they say of their network card: that is
what a guest says, not what the host knows. LINK is off, plugged, unplugged, of a wireless card joined
or no-network, no-card (there is none among the devices) or unknown; LEASE is how long the address still counts.

Examples:
  bulkhead net
  bulkhead net wifi sys-net
  bulkhead net --json | jq '.[] | select(.refused > 0) | .domain, .refused_reasons'")]
pub struct Net {
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Option<NetAction>,
}

/// More about the network.
#[derive(Debug, clap::Subcommand)]
pub enum NetAction {
    /// Show wireless networks, join one, or forget it.
    #[command(after_help = "\
Without a command it shows what is in reach of the domain's wireless card. KNOWN networks are joined
by themselves, also when the domain starts again. All of it is what the domain says, and names are
what anybody near it sends.

A passphrase is asked for at the terminal, or read from standard input if that is none. It is kept by
the domain, in root's part of its volume.

Examples:
  bulkhead net wifi sys-net
  bulkhead net wifi sys-net connect 'Café upstairs'
  bulkhead net wifi sys-net connect home --passphrase-file home.txt")]
    Wifi {
        /// The network domain with the card.
        name: String,
        /// Do not look anew, but show what was seen last.
        #[arg(long)]
        no_scan: bool,
        #[command(subcommand)]
        action: Option<WifiAction>,
    },
}

/// What to do with a wireless network.
#[derive(Debug, clap::Subcommand)]
pub enum WifiAction {
    /// Join a network.
    Connect {
        /// Its name.
        ssid: String,
        /// Read the passphrase from this file: its first line.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<std::path::PathBuf>,
    },
    /// Leave the network; none is joined until the domain starts again, or is told to.
    Disconnect,
    /// Forget a network and its passphrase.
    Forget {
        /// Its name.
        ssid: String,
    },
}

/// Show or change what a domain may reach through its net_domain.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The first rule that fits counts. A rule begins with accept or drop; what it does not name may be
anything:

  dsthost=       an address, a network like 192.0.2.0/24, a name, or *.NAME: everything below it
  proto=         tcp, udp or icmp
  dstports=      a port or two with a `-`; needs proto=tcp or proto=udp
  icmptype=      0 to 255; needs proto=icmp
  specialtarget= dns: questions for names
  expire=        +N with s, min, h or d, or seconds since 1970
  comment=       words, to the end of the rule

What changes counts at once, for connections that are there as well. docs/firewall.md explains what
the rules mean for names and connections.

Examples:
  bulkhead firewall work
  bulkhead firewall work default drop
  bulkhead firewall work add accept dsthost=example.org proto=tcp dstports=443
  bulkhead firewall work add --before 1 accept dsthost=192.0.2.0/24 expire=+2h comment=for today
  bulkhead firewall work remove 2
  bulkhead firewall work log all; bulkhead log sys-net --follow
  bulkhead firewall work reset")]
pub struct Firewall {
    /// The domain.
    pub name: DomainName,
    /// What is to change [default: nothing, show it]
    #[command(subcommand)]
    pub action: Option<FirewallAction>,
    /// Print JSON.
    #[arg(long, global = true)]
    pub json: bool,
}

/// A change of what a domain may reach.
#[derive(Debug, clap::Subcommand)]
pub enum FirewallAction {
    /// Add a rule behind all others.
    Add {
        /// The rule.
        #[arg(required = true)]
        rule: Vec<String>,
        /// Before the rule of this number instead.
        #[arg(long, value_name = "NO", value_parser = clap::value_parser!(u32).range(1..))]
        before: Option<u32>,
    },
    /// Remove rules by their numbers.
    Remove {
        /// The numbers, as they are shown now.
        #[arg(required = true, value_name = "NO")]
        numbers: Vec<u32>,
    },
    /// Remove all rules and accept everything.
    Reset,
    /// Set what becomes of that which fits no rule.
    Default {
        /// accept or drop.
        #[arg(value_parser = ["accept", "drop"])]
        action: String,
    },
    /// Set which connections the net_domain writes into its log.
    Log {
        /// off, dropped or all.
        #[arg(value_parser = ["off", "dropped", "all"])]
        what: String,
    },
}

/// Show or change a domain's settings.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
What changes counts from the domain's next start, except that a domain which runs with a network
card is behind another net_domain at once. docs/domains.md explains each setting. A value of
`-` is nothing, where nothing is possible.

Examples:
  bulkhead prefs work
  bulkhead prefs work memory_mib
  bulkhead prefs work memory_mib 2G
  bulkhead prefs work tags bank,mail
  bulkhead prefs work default_disposable -
  bulkhead prefs work net_domain sys-net
  bulkhead prefs work --json | jq .label")]
pub struct Prefs {
    /// The domain.
    pub name: DomainName,
    /// The setting [default: all]
    pub key: Option<String>,
    /// Its new value: a word, a number, a size with M or G, or words with commas.
    pub value: Option<String>,
    /// Print JSON: the settings, the value, or what changed.
    #[arg(long)]
    pub json: bool,
}

/// Show the snapshots of a domain's home.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
One is made at each start, of the home as it was before; `bulkhead prefs NAME snapshots` says how
many are kept. `bulkhead info NAME` says why, if none could be made.

Examples:
  bulkhead snapshots work
  bulkhead snapshots work --json")]
pub struct Snapshots {
    /// The domain.
    pub name: DomainName,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Put a domain's home back to one of its snapshots.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The domain must not run. What is in its home now is lost; the snapshots stay.

Examples:
  bulkhead revert work                           # as it was before its last start
  bulkhead revert work --to 7 --yes")]
pub struct Revert {
    /// The domain.
    pub name: DomainName,
    /// The snapshot's number, as `bulkhead snapshots` shows it [default: the newest]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub to: Option<u32>,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
}

/// Make the domains as files describe them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A file is a domain's own (as `bulkhead info` names it), or holds a [[domain]] table for each of
several. What it does not say of a domain is left as it is; a new domain gets the default. First
the plan is shown, then it is carried out if you say so. A second time there is nothing to do.

Exit status: 0 done, or nothing to do; 1 not possible, with one line that says why; 2 wrong usage;
3 the plan was only shown: there was nobody to ask and no --yes, or the answer was no.

Examples:
  bulkhead apply domains.toml
  bulkhead apply --yes work.toml bank.toml
  bulkhead apply --prune --yes domains.toml      # and remove all other domains
  bulkhead apply --json domains.toml < /dev/null # only look")]
pub struct Apply {
    /// The descriptions.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Remove domains that no file speaks of, with their homes; disposables stay.
    #[arg(long)]
    pub prune: bool,
    /// Print the plan as JSON.
    #[arg(long)]
    pub json: bool,
}
