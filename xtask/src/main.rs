//! The one place for tasks: `cargo xtask` lists them. Thin fronts, one file a task; the work is
//! done by the libraries they call.

mod demo;
mod desktop;
mod e2e;
mod host;
mod image;
mod setup;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of Bulkhead's developers.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Setup(setup::Setup),
    Demo(demo::Demo),
    Test(test::Test),
    E2e(e2e::E2e),
    Image(image::Image),
    Host(host::Host),
    Desktop(desktop::Desktop),
}

/// What goes wrong in a task is shown to a person, and that is the end of it.
type TaskResult = Result<ExitCode, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_target(false)
        .without_time()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
        )
        .init();
    let result = match Arguments::parse().task {
        Task::Setup(task) => task.run(),
        Task::Demo(task) => task.run(),
        Task::Test(task) => task.run(),
        Task::E2e(task) => task.run(),
        Task::Image(task) => task.run(),
        Task::Host(task) => task.run(),
        Task::Desktop(task) => task.run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::from(125)
    })
}
