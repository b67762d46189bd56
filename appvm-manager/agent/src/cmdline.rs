//! What the kernel's command line says to the agent.

/// Which network cards the guest has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Net {
    /// None.
    #[default]
    None,
    /// One to its network domain.
    Card,
    /// One for its clients, as a network domain; perhaps one of its own too.
    Trunk,
}

/// The words that concern the agent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// `bulkhead.name=`: the domain's name, which becomes the host name.
    pub name: Option<String>,
    /// `bulkhead.root=own`: what is changed of the root is kept, on the volume with the home.
    pub own_root: bool,
    /// `bulkhead.net=card` or `trunk`: it has network cards; a trunk has VLANs as well.
    pub net: Net,
    /// `bulkhead.pci`: it has physical devices.
    pub physical: bool,
    /// `bulkhead.timings`: print each stage with its time.
    pub timings: bool,
}

impl CommandLine {
    /// From the text of `/proc/cmdline`.
    pub fn parse(text: &str) -> Self {
        let mut line = CommandLine::default();
        for word in text.split_whitespace() {
            match word.split_once('=') {
                Some(("bulkhead.name", name)) => line.name = Some(name.to_owned()),
                Some(("bulkhead.root", value)) => line.own_root = value == "own",
                Some(("bulkhead.net", "card")) => line.net = Net::Card,
                Some(("bulkhead.net", "trunk")) => line.net = Net::Trunk,
                None if word == "bulkhead.pci" => line.physical = true,
                None if word == "bulkhead.timings" => line.timings = true,
                Some(("bulkhead.timings", value)) => line.timings = value != "0",
                _ => {}
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_its_words_among_others() {
        let line = CommandLine::parse(
            "quiet bulkhead.name=work-2 console=ttyS0 bulkhead.root=own bulkhead.net=card \
             bulkhead.pci bulkhead.timings\n",
        );
        assert_eq!(
            line,
            CommandLine {
                name: Some("work-2".into()),
                own_root: true,
                net: Net::Card,
                physical: true,
                timings: true
            }
        );
        assert_eq!(
            CommandLine::parse("bulkhead.timings=0 bulkhead.net=none bulkhead.pci=x name=x"),
            CommandLine::default()
        );
    }
}
