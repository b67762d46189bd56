//! What each program says about itself.

/// `bulkhead-rpc --help`
pub const RPC: &str = "\
Usage: bulkhead-rpc TARGET SERVICE[+ARGUMENT]

Calls a service of another domain. The standard streams of this program are those
of the service. The policy of the host decides, and may ask the user.

  TARGET   a domain's name; @default: the policy or the user choose; @dispvm: a new
           disposable; @adminvm: the host
  SERVICE  such as qubes.GetDate

Exit status: the service's own; 125 the call broke; 126 refused; 127 the target has
no such service; 2 wrong arguments.

Examples:
  bulkhead-rpc @adminvm qubes.GetDate
  echo hello | bulkhead-rpc personal my.Print+draft
";

/// `bulkhead-copy --help`
pub const COPY: &str = "\
Usage: bulkhead-copy [--to DOMAIN] [--] FILE...

Copies files and folders to another domain. They appear there in ~/Incoming/, in a
folder that has this domain's name, all of them or none. Without --to the user
chooses the domain.

Links that lead out of a folder, devices, named pipes and sockets are refused, before
anything is sent. Progress is shown if the error stream is a terminal.

Exit status: 0 the other domain has everything; 1 it could not be sent; 2 wrong
arguments; 3 the other domain refused it; 4 sent, but not confirmed; 125 the call
broke; 126 the policy or the user refused.

Examples:
  bulkhead-copy report.pdf
  bulkhead-copy --to personal photos/
";

/// `bulkhead-move --help`
pub const MOVE: &str = "\
Usage: bulkhead-move [--to DOMAIN] [--] FILE...

Like bulkhead-copy; when the other domain has everything, the files are removed here.

Exit status: as bulkhead-copy; 5 copied, but not removed here.

Example:
  bulkhead-move --to personal report.pdf
";

/// `bulkhead-open --help`
pub const OPEN: &str = "\
Usage: bulkhead-open [--to DOMAIN] FILE|ADDRESS

Opens a file or a web address (https:, http:, ftp:, mailto:) in another domain; without
--to in a new disposable. A file is copied: what is done to the copy does not come back.

Exit status: as bulkhead-copy.

Examples:
  bulkhead-open https://example.org
  bulkhead-open --to personal report.pdf
";

/// `bulkhead-notify --help`
pub const NOTIFY: &str = "\
Usage: bulkhead-notify [--] TEXT...

Shows a line of text on the desktop, with this domain's name before it; at most 200
characters of it are seen.

Exit status: 0 it is shown; 125 the call broke; 126 the policy refused.

Example:
  bulkhead-notify the backup is done
";

/// `bulkhead-connect --help`
pub const CONNECT: &str = "\
Usage: bulkhead-connect DOMAIN:PORT [--listen PORT]

Listens on 127.0.0.1 of this domain until it is ended. Each connection that is made
there goes to 127.0.0.1:PORT of the other domain, as a call of bulkhead.ConnectTcp+PORT:
the policy of the host decides about each, and no network card is needed. It prints
where it listens.

  --listen PORT  listen there; 0: at a free port. Without it the same number is used
                 here, and for one below 1024 a free port.

At most 64 connections are open at a time; further ones wait. What is refused or finds
nothing there is reset, and told on the error stream.

Exit status: 1 it cannot listen there; 2 wrong arguments.

Examples:
  bulkhead-connect personal:8080
  bulkhead-connect personal:22 --listen 2222
";
