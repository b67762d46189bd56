//! What a user may say.

mod calls;
mod connect;
mod domains;

use std::path::PathBuf;

use bulkhead_protocol::{DomainName, Label};
use clap::{Parser, Subcommand};
use clap_complete::Shell;

pub use calls::{Ask, AskCommand, Transfers};
pub use connect::Connect;
pub use domains::{
    Apply, Clone, Firewall, FirewallAction, Net, NetAction, Prefs, Rename, Revert, Snapshots,
    WifiAction,
};

/// Run applications in domains: virtual machines that show their windows on your desktop, in the
/// colour of your trust.
#[derive(Debug, Parser)]
#[command(
    name = "bulkhead",
    version,
    arg_required_else_help = true,
    after_help = "\
Exit status: 0 done; 1 not done, with one line that says why; 2 wrong usage. `bulkhead run` has
its own, see `bulkhead run --help`.

Examples:
  bulkhead create work --label red
  bulkhead run work -- foot
  bulkhead list"
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Create(Create),
    List(List),
    Info(Info),
    Start(Start),
    Stop(Stop),
    Kill(Kill),
    Run(Run),
    Console(Console),
    Remove(Remove),
    Clone(Clone),
    Rename(Rename),
    Prefs(Prefs),
    Net(Net),
    Firewall(Firewall),
    Snapshots(Snapshots),
    Revert(Revert),
    Apply(Apply),
    Log(Log),
    Apps(Apps),
    Launch(Launch),
    Windows(Windows),
    Template(Template),
    Power(Power),
    Ask(Ask),
    Transfers(Transfers),
    Connect(Connect),
    Session(Session),
    /// Print the completion script of a shell.
    #[command(after_help = "\
Examples:
  bulkhead completion bash > ~/.local/share/bash-completion/completions/bulkhead
  bulkhead completion fish > ~/.config/fish/completions/bulkhead.fish")]
    Completion {
        /// Which shell.
        shell: Shell,
    },
}

/// Make a domain.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The domain is described by $XDG_CONFIG_HOME/bulkhead/domains/NAME.toml, which you may edit; the
changes count from the next start. docs/domains.md explains kinds and settings.

Examples:
  bulkhead create work --label red
  bulkhead create bank --label green --memory 1G --cpus 1 --home-size 2G
  bulkhead create web --label orange --kind named-disposable --tag untrusted
  bulkhead create lab --label gray --kind standalone --home-size 20G
  bulkhead create sys-net --label red --kind service --provides-network
  bulkhead create mail --label blue --net-domain sys-net")]
pub struct Create {
    /// Its name: a-z, 0-9 and -, beginning with a letter, at most 31 characters.
    pub name: DomainName,
    /// Your trust: red, orange, yellow, green, gray, blue, purple or black.
    #[arg(long, short, default_value = "gray")]
    pub label: Label,
    /// The template that its programs come from.
    #[arg(long, short, default_value = "apps")]
    pub template: DomainName,
    /// Its memory: MiB, or with M or G.
    #[arg(long, value_name = "SIZE", value_parser = size_mib)]
    pub memory: Option<u32>,
    /// Its processors.
    #[arg(long, value_name = "N")]
    pub cpus: Option<u32>,
    /// The size of its home: MiB, or with M or G. It takes only what is used.
    #[arg(long, value_name = "SIZE", value_parser = size_mib)]
    pub home_size: Option<u32>,
    /// What it is for: app (its home stays), named-disposable (its home is forgotten at each end),
    /// standalone (its root is a copy of the template's that it may change) or service (it works
    /// for others and has no windows).
    #[arg(long, default_value = "app",
          value_parser = ["app", "named-disposable", "standalone", "service"])]
    pub kind: String,
    /// Start it with the desktop.
    #[arg(long)]
    pub autostart: bool,
    /// A tag, by which rules speak of it; may be repeated.
    #[arg(long, value_name = "TAG")]
    pub tag: Vec<String>,
    /// The domain whose disposables its calls get.
    #[arg(long, value_name = "NAME")]
    pub default_disposable: Option<DomainName>,
    /// Let other domains reach the network through it.
    #[arg(long)]
    pub provides_network: bool,
    /// The domain through which it reaches the network [default: none, it has no network]
    #[arg(long, value_name = "NAME")]
    pub net_domain: Option<DomainName>,
    /// A PCI device of the host that belongs to it, like 0000:01:00.0; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    pub pci: Vec<String>,
    /// Print the new domain as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Show all domains.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  bulkhead list
  bulkhead list --json | jq -r '.[] | select(.state == \"running\") | .name'"
)]
pub struct List {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Show one domain: its settings, state and files.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulkhead info work
  bulkhead info work --json")]
pub struct Info {
    /// The domain.
    pub name: DomainName,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Start a domain and wait until commands can be run in it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Its net_domain is started first.

Examples:
  bulkhead start work")]
pub struct Start {
    /// The domain.
    pub name: DomainName,
}

/// Stop a domain in order: its programs may save, its home is written to disk.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A domain through which others that run reach the network is not stopped, unless you say --force.

Examples:
  bulkhead stop work
  bulkhead stop work --timeout 60
  bulkhead stop sys-net --force")]
pub struct Stop {
    /// The domain.
    pub name: DomainName,
    /// After so many seconds it is killed [default: stop_timeout_s of its file]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub timeout: Option<u32>,
    /// Also when others that run reach the network through it.
    #[arg(long, short)]
    pub force: bool,
}

/// End a domain at once, as if its power were cut.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulkhead kill work")]
pub struct Kill {
    /// The domain.
    pub name: DomainName,
}

/// Run a command in a domain, which is started if need be.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The command's input, output and exit status are this program's. Signals (Ctrl-C) are passed on.
Options of the command stand after `--`.

Exit status: the command's own; 128 + N when signal N ended it; 126 when it cannot be executed and
127 when it does not exist in the domain; 254 when the domain ended while it ran; 255 when it could
not be run at all (no manager, no such domain, the domain did not start).

Examples:
  bulkhead run work -- foot
  bulkhead run work -- ls -l Documents
  tar c photos | bulkhead run work -- tar x
  bulkhead run --tty work -- top
  bulkhead run --root work -- dmesg
  bulkhead run work                              # a shell")]
pub struct Run {
    /// The domain.
    pub name: DomainName,
    /// The command and its arguments [default: a login shell]
    #[arg(trailing_var_arg = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// Give the command a terminal.
    #[arg(long, short)]
    pub tty: bool,
    /// Run it as the domain's root instead of its user.
    #[arg(long)]
    pub root: bool,
    /// Run it in this folder of the domain [default: the user's home]
    #[arg(long, value_name = "DIR")]
    pub cwd: Option<String>,
    /// Set a variable of its environment; may be repeated.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// Fail when the domain does not run, instead of starting it.
    #[arg(long)]
    pub no_start: bool,
    /// Print on standard error how long each stage took, down to the first window.
    #[arg(long)]
    pub timings: bool,
    /// With --timings: as JSON.
    #[arg(long, requires = "timings")]
    pub json: bool,
}

/// Use a domain's console, a root shell that works without the manager's agent.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ctrl-] leaves the console. What the domain writes reaches your terminal as it is: use it with
domains whose programs you would let draw on your terminal.

Examples:
  bulkhead console work")]
pub struct Console {
    /// The domain.
    pub name: DomainName,
}

/// Remove a domain and everything in its home.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "rm",
    after_help = "\
Examples:
  bulkhead remove work
  bulkhead remove work --yes --force"
)]
pub struct Remove {
    /// The domain.
    pub name: DomainName,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
    /// Kill it first if it runs.
    #[arg(long, short)]
    pub force: bool,
}

/// Show what a domain's kernel and agent said, or its VMM.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulkhead log work
  bulkhead log work --vmm
  bulkhead log work --follow")]
pub struct Log {
    /// The domain.
    pub name: DomainName,
    /// Show the VMM's log instead of the guest's.
    #[arg(long)]
    pub vmm: bool,
    /// Go on with what is added.
    #[arg(long, short, conflicts_with = "json")]
    pub follow: bool,
    /// Only so many lines from the end.
    #[arg(long, short = 'n', value_name = "N")]
    pub lines: Option<usize>,
    /// Print JSON: {"domain": …, "log": …, "lines": […]}.
    #[arg(long)]
    pub json: bool,
}

/// Show the applications of all domains.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulkhead apps
  bulkhead apps --json | jq -r '.[] | .domain + \"  \" + .name'")]
pub struct Apps {
    /// Only this domain's.
    pub name: Option<DomainName>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Launch an application as the menu does.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It prints the domain that the application runs in, and does not wait for its end.

Examples:
  bulkhead launch work foot
  bulkhead launch work firefox-esr --disposable")]
pub struct Launch {
    /// The domain.
    pub name: DomainName,
    /// The application, as `bulkhead apps` shows it.
    pub app: String,
    /// In a new domain of the same template and label that goes with the last window.
    #[arg(long, short)]
    pub disposable: bool,
}

/// Show the windows on the desktop.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulkhead windows
  bulkhead windows --activate 7
  bulkhead windows --json | jq '.[] | select(.focused)'")]
pub struct Windows {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
    /// Raise this window and give it the keyboard.
    #[arg(long, value_name = "ID", conflicts_with_all = ["json", "close"])]
    pub activate: Option<u64>,
    /// Ask this window's program to close it.
    #[arg(long, value_name = "ID", conflicts_with = "json")]
    pub close: Option<u64>,
}

/// Work with templates, the roots that domains' programs come from.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Your own templates lie in $XDG_DATA_HOME/bulkhead/templates, beside those of the system.

Examples:
  bulkhead template list
  bulkhead template build office.toml
  bulkhead template import ~/Downloads/office"
)]
pub struct Template {
    #[command(subcommand)]
    pub command: TemplateCommand,
}

#[derive(Debug, Subcommand)]
pub enum TemplateCommand {
    /// Show all templates.
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  bulkhead template list
  bulkhead template list --json"
    )]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Build a template from its description, and take it in.
    #[command(after_help = "\
The description is a TOML file (docs/templates.md explains it); its name is the template's. The
packages come from the Debian mirror of this machine's apt configuration. Nothing of the host is
changed.

Examples:
  bulkhead template build office.toml
  bulkhead template build office.toml --name office-2 --replace")]
    Build {
        /// The description.
        file: PathBuf,
        /// The template's name [default: the file's]
        #[arg(long)]
        name: Option<DomainName>,
        /// Put it in the place of one of the same name.
        #[arg(long)]
        replace: bool,
    },
    /// Take in a template that was built elsewhere.
    #[command(after_help = "\
A template is a folder with root.erofs, template.toml and apps/, or a root image alone. It is copied
whole or not at all.

Examples:
  bulkhead template import ~/Downloads/office
  bulkhead template import root.erofs --name office --replace")]
    Import {
        /// The folder, or the root image.
        path: PathBuf,
        /// The template's name [default: the folder's or file's]
        #[arg(long)]
        name: Option<DomainName>,
        /// Put it in the place of one of the same name.
        #[arg(long)]
        replace: bool,
    },
    /// Remove one of your own templates that no domain uses.
    #[command(
        visible_alias = "rm",
        after_help = "\
Examples:
  bulkhead template remove office"
    )]
    Remove {
        /// The template.
        name: DomainName,
    },
}

/// Switch the machine off or restart it, when all domains have stopped.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  bulkhead power off
  bulkhead power reboot")]
pub struct Power {
    /// What is to become of the machine.
    pub what: PowerAction,
}

#[derive(Debug, ::core::clone::Clone, Copy, clap::ValueEnum)]
pub enum PowerAction {
    /// Switch it off.
    Off,
    /// Restart it.
    Reboot,
}

/// Open the desktop: starts the compositor, the manager, the panel and the menu, and keeps them
/// running.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
It needs a session bus. Where there is none (DBUS_SESSION_BUS_ADDRESS is not set) start it by
`dbus-run-session -- bulkhead session`. It ends all of them on SIGTERM or Ctrl-C, and stops all
domains.

Examples:
  bulkhead session                               # a window on your desktop
  bulkhead session --backend drm                 # the whole screen of a machine without desktop
  bulkhead session --backend headless --size 1280x800")]
pub struct Session {
    /// How the compositor shows its output: winit (a window), drm (the machine's own screens) or
    /// headless (nowhere).
    #[arg(long, default_value = "winit", value_parser = ["winit", "drm", "headless"])]
    pub backend: String,
    /// The output's size [default: 1280x800; with drm, what the screen prefers]
    #[arg(long, value_name = "WxH", value_parser = output_size)]
    pub size: Option<String>,
    /// Without the panel and the menu.
    #[arg(long)]
    pub no_ui: bool,
    /// Let tests take screenshots and inject input at this socket.
    #[arg(long, value_name = "SOCKET")]
    pub test_socket: Option<PathBuf>,
    /// The folder of images [default: the manager's]
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// The VMM's program [default: the manager's]
    #[arg(long, value_name = "FILE")]
    pub vmm: Option<PathBuf>,
    /// Words added to every guest's kernel command line.
    #[arg(long, value_name = "WORDS")]
    pub guest_cmdline: Option<String>,
}

fn size_mib(text: &str) -> Result<u32, String> {
    let (digits, factor) = match text.strip_suffix(['G', 'g']) {
        Some(digits) => (digits, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let number: u32 = digits
        .parse()
        .map_err(|_| "use a number, with M or G".to_owned())?;
    number
        .checked_mul(factor)
        .ok_or_else(|| "too large".to_owned())
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("use NAME=VALUE".to_owned()),
    }
}

fn output_size(text: &str) -> Result<String, String> {
    let number = |text: &str| text.parse::<u16>().is_ok_and(|number| number > 0);
    match text.split_once('x') {
        Some((width, height)) if number(width) && number(height) => Ok(text.to_owned()),
        _ => Err("use WIDTHxHEIGHT".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_sound_and_every_command_has_examples() {
        let mut command = Args::command();
        command.clone().debug_assert();
        for subcommand in command.get_subcommands_mut() {
            let help = subcommand.render_long_help().to_string();
            assert!(help.contains("Examples:"), "{}", subcommand.get_name());
        }
    }

    #[test]
    fn commands_keep_their_own_options() {
        let args = Args::parse_from(["bulkhead", "run", "work", "ls", "-l", "--json"]);
        let Command::Run(run) = args.command else {
            panic!("{args:?}")
        };
        assert_eq!(run.command, ["ls", "-l", "--json"]);
        let args = Args::parse_from(["bulkhead", "run", "--tty", "work", "--", "top", "-b"]);
        let Command::Run(run) = args.command else {
            panic!("{args:?}")
        };
        assert!(run.tty);
        assert_eq!(run.command, ["top", "-b"]);
    }

    #[test]
    fn sizes() {
        assert_eq!(size_mib("512"), Ok(512));
        assert_eq!(size_mib("512M"), Ok(512));
        assert_eq!(size_mib("2G"), Ok(2048));
        assert!(size_mib("2T").is_err());
        assert!(size_mib("9999999G").is_err());
        assert!(output_size("1280x800").is_ok());
        assert!(output_size("1280").is_err());
        assert!(output_size("0x5").is_err());
    }
}
