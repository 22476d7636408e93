//! The program `stockmesh`: tries out, runs and looks into the stores of a cluster.
//!
//! Results go to standard output, progress and logs to standard error. The exit code is 0 if all went as it should,
//! 1 if something failed or disagrees, and 2 if the command line is wrong. Commands that act on a running node have the codes
//! of [`remote`].

mod cert;
mod cluster;
mod config;
mod demo;
mod inspect;
mod joining;
mod node;
mod progress;
mod remote;
mod replay;
mod table;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tracing::Level;

#[derive(Debug, Parser)]
#[command(name = "stockmesh", version, about, max_term_width = 100)]
struct Arguments {
    /// Log more to standard error; twice for every detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show some nodes on this machine sell, lose touch, and agree again.
    Demo(demo::Arguments),
    /// Replay a CSV file of transactions over some nodes on this machine.
    Replay(replay::Arguments),
    /// Run one node until a signal (SIGINT or SIGTERM) ends it.
    Node(node::Arguments),
    /// Make the certificates of a cluster.
    #[command(subcommand)]
    Cert(cert::Command),
    /// Show the contents of a stopped store and check them for damage.
    Inspect(inspect::Arguments),
    #[command(flatten)]
    Remote(remote::Command),
}

/// What the exit code tells. A command prints why before it returns `Failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Good,
    Failed,
    /// What was asked for was not possible: the command line or a file is wrong, or there is no connection.
    Unusable,
    /// A write may be done or not.
    Indeterminate,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    start_log(&arguments);
    match run(arguments.command) {
        Ok(Outcome::Good) => ExitCode::SUCCESS,
        Ok(Outcome::Failed) => ExitCode::FAILURE,
        Ok(Outcome::Unusable) => ExitCode::from(2),
        Ok(Outcome::Indeterminate) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes on one line. A cause is left out if the error above it has told it already.
fn describe(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Demo(arguments) => runtime()?.block_on(interruptible(demo::run(&arguments))),
        Command::Replay(arguments) => runtime()?.block_on(interruptible(replay::run(arguments))),
        Command::Node(arguments) => runtime()?.block_on(node::run(&arguments)),
        Command::Cert(command) => cert::run(&command),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Remote(command) => runtime()?.block_on(remote::run(command)),
    }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the asynchronous runtime cannot be started")
}

/// Ends the work on Ctrl-C by dropping it, which removes its temporary directories.
async fn interruptible(work: impl Future<Output = anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    tokio::select! {
        result = work => result,
        Ok(()) = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
    }
}

fn start_log(arguments: &Arguments) {
    // A node's log is its only voice; the other commands cut links on purpose and would warn of it.
    let quiet = !matches!(arguments.command, Command::Node(_));
    let level = match (arguments.verbose, quiet) {
        (0, true) => Level::ERROR,
        (0, false) | (1, true) => Level::INFO,
        (1, false) | (2, true) => Level::DEBUG,
        _ => Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_cause_is_told_twice() {
        let inner = || anyhow::anyhow!("disk full");
        let told = inner().context("cannot write: disk full").context("node-1");
        assert_eq!(describe(&told), "node-1: cannot write: disk full");
        let untold = inner().context("cannot write");
        assert_eq!(describe(&untold), "cannot write: disk full");
    }
}
