//! What a user may say about calls between domains.

use clap::Subcommand;

/// Answer what domains want of each other, where the policy leaves it to you.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
A question that nobody answers within two minutes is answered with no.

Examples:
  bulkhead ask list
  bulkhead ask allow 3 --target personal
  bulkhead ask deny 3"
)]
pub struct Ask {
    #[command(subcommand)]
    pub command: AskCommand,
}

#[derive(Debug, Subcommand)]
pub enum AskCommand {
    /// Show the open questions.
    #[command(
        visible_alias = "ls",
        after_help = "\
Examples:
  bulkhead ask list
  bulkhead ask list --json"
    )]
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Say yes.
    #[command(after_help = "\
Examples:
  bulkhead ask allow 3
  bulkhead ask allow 3 --target personal")]
    Allow {
        /// The question's number.
        id: u64,
        /// Where to [default: the only target, or the one that the policy suggests]
        #[arg(long, short)]
        target: Option<String>,
    },
    /// Say no.
    #[command(after_help = "\
Examples:
  bulkhead ask deny 3")]
    Deny {
        /// The question's number.
        id: u64,
    },
}

/// Show what crossed between domains, or was refused: when, from, to, what, how much, by which rule.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The log itself is $XDG_STATE_HOME/bulkhead/transfers.jsonl, one JSON object a line.

Examples:
  bulkhead transfers
  bulkhead transfers -n 3
  bulkhead transfers --json | jq '.[] | select(.verdict == \"refused\")'")]
pub struct Transfers {
    /// Only so many from the end.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    pub lines: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}
