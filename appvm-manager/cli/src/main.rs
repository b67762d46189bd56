//! `bulkhead`: the command line of Bulkhead. It speaks D-Bus with `bulkheadd` and holds no logic
//! of domains itself; what it prints on a terminal of a guest's words is cleaned first, except
//! where a guest is given the terminal on purpose (`run --tty`, `console`).
//!
//! Start reading at [`args`] (what a user may say), then [`run`].

mod apply;
mod args;
mod bus;
mod calls;
mod connect;
mod console;
mod desktop;
mod domains;
mod error;
mod firewall;
mod log;
mod manage;
mod net;
mod output;
mod run;
mod session;
mod template;
mod terminal;
mod timings;
mod wifi;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::args::{Args, Command};
use crate::error::Error;

fn main() -> ExitCode {
    let args = Args::parse();
    let failure = match &args.command {
        // As ssh does, so that a caller can tell our failures from the command's.
        Command::Run(_) => 255,
        _ => 1,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => {
            let result = runtime.block_on(dispatch(args));
            // A thread may still wait for the terminal.
            runtime.shutdown_background();
            result
        }
        Err(error) => Err(Error::Io("start", error)),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("bulkhead: {error}");
            ExitCode::from(error.status().unwrap_or(failure))
        }
    }
}

async fn dispatch(args: Args) -> Result<u8, Error> {
    match args.command {
        Command::Create(create) => manage::create(create).await,
        Command::List(list) => manage::list(list).await,
        Command::Info(info) => manage::info(info).await,
        Command::Start(start) => manage::start(start).await,
        Command::Stop(stop) => manage::stop(stop).await,
        Command::Kill(kill) => manage::kill(kill).await,
        Command::Remove(remove) => manage::remove(remove).await,
        Command::Clone(clone) => domains::clone(clone).await,
        Command::Rename(rename) => domains::rename(rename).await,
        Command::Firewall(args) => firewall::firewall(args).await,
        Command::Net(net) => net::net(net).await,
        Command::Prefs(prefs) => domains::prefs(prefs).await,
        Command::Snapshots(snapshots) => domains::snapshots(snapshots).await,
        Command::Revert(revert) => domains::revert(revert).await,
        Command::Apply(apply) => apply::apply(apply).await,
        Command::Run(run) => run::run(run).await,
        Command::Console(console) => console::console(console).await,
        Command::Log(log) => log::log(log).await,
        Command::Apps(apps) => desktop::apps(apps).await,
        Command::Launch(launch) => desktop::launch(launch).await,
        Command::Windows(windows) => desktop::windows(windows).await,
        Command::Power(power) => desktop::power(power).await,
        Command::Ask(ask) => calls::ask(ask).await,
        Command::Transfers(transfers) => calls::transfers(transfers).await,
        Command::Connect(connect) => connect::connect(connect).await,
        Command::Template(template) => template::template(template).await,
        Command::Session(session) => session::session(session).await,
        Command::Completion { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "bulkhead", &mut out);
            output::bytes(&out)?;
            Ok(0)
        }
    }
}
