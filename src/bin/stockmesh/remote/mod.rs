//! Commands that act on a running node, as its client.
//!
//! The exit code is 0 if all went well, 1 if the node refused and nothing was changed, 2 if the command line or a file is
//! wrong or there is no connection, so that nothing was changed either, and 3 if a write may be done or not.

mod arguments;
mod show;
mod watch;
mod write;

use std::io::{self, ErrorKind, Write};

use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};
use stockmesh::clients::{Client, ClientError, FailureCode};

use crate::Outcome;
use crate::describe;
use arguments::Node;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show how a running node stands: its links, their lag and clocks, its disk.
    Status(Node),
    /// Show the members of the cluster that a running node knows.
    Members(Node),
    /// Show products as a running node knows them.
    Get(show::Get),
    /// Show changes of products at a running node as they happen, until interrupted.
    Watch(watch::Watch),
    /// Sell units at a running node, never more than there are.
    Sell(write::Sell),
    /// Count units in at a running node.
    Receive(write::Receive),
    /// Set a product's price at a running node, or show it.
    Price(write::PriceOf),
    /// Set units aside at a running node, and sell or release them later.
    Hold(write::Hold),
}

/// Why a command ended before it was done.
enum Stopped {
    Client(ClientError),
    /// The command line or a file is wrong.
    Usage(anyhow::Error),
    /// Standard output cannot be written; whoever reads it may have seen enough.
    Output(io::Error),
}

impl From<ClientError> for Stopped {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<stockmesh::InvalidInput> for Stopped {
    fn from(error: stockmesh::InvalidInput) -> Self {
        Self::Client(error.into())
    }
}

impl From<anyhow::Error> for Stopped {
    fn from(error: anyhow::Error) -> Self {
        Self::Usage(error)
    }
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

pub(crate) async fn run(command: Command) -> anyhow::Result<Outcome> {
    let node = match &command {
        Command::Status(node) | Command::Members(node) => node.clone(),
        Command::Get(get) => get.node.clone(),
        Command::Watch(watch) => watch.node.clone(),
        Command::Sell(sell) => sell.node.clone(),
        Command::Receive(receive) => receive.node.clone(),
        Command::Price(price) => price.node.clone(),
        Command::Hold(hold) => match hold.node() {
            Some(node) => node.clone(),
            None => return Ok(tell(&Stopped::Usage(anyhow::anyhow!("hold: say at which node")), false)),
        },
    };
    let acting = async {
        let client = Client::connect(&node.connect, node.identity()?).await?;
        let done = act(command, &client, node.json).await;
        client.close().await;
        done
    };
    Ok(match acting.await {
        Ok(outcome) => outcome,
        Err(stopped) => tell(&stopped, node.json),
    })
}

async fn act(command: Command, client: &Client, json: bool) -> Result<Outcome, Stopped> {
    match command {
        Command::Status(_) => show::status(client, json).await,
        Command::Members(_) => show::members(client, json).await,
        Command::Get(get) => show::get(&get, client).await,
        Command::Watch(watch) => watch::watch(&watch, client).await,
        Command::Sell(sell) => write::sell(&sell, client).await,
        Command::Receive(receive) => write::receive(&receive, client).await,
        Command::Price(price) => write::price(&price, client).await,
        Command::Hold(hold) => write::hold(hold, client, json).await,
    }
}

/// Prints one document and a line end.
fn print_json(document: &impl Serialize) -> io::Result<()> {
    let mut output = io::stdout().lock();
    serde_json::to_writer_pretty(&mut output, document)?;
    writeln!(output)?;
    output.flush()
}

fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Says why a command failed, for people and, if wanted, for programs.
fn tell(stopped: &Stopped, json: bool) -> Outcome {
    let error = match stopped {
        Stopped::Output(error) if error.kind() == ErrorKind::BrokenPipe => return Outcome::Good,
        Stopped::Output(error) => {
            eprintln!("error: standard output cannot be written ({error}); what was asked for may be done");
            return Outcome::Indeterminate;
        }
        Stopped::Usage(error) => {
            let text = describe(error);
            eprintln!("error: {text}");
            if json {
                // The exit code and standard error have told already.
                let _ = print_json(&document("usage", &text, "unchanged", json!({})));
            }
            return Outcome::Unusable;
        }
        Stopped::Client(error) => error,
    };
    let text = error.to_string();
    eprintln!("error: {text}");
    let (code, data, more, outcome) = match error {
        ClientError::Invalid(_) => ("invalid", "unchanged", json!({}), Outcome::Unusable),
        ClientError::Connect { .. } => ("connection", "unchanged", json!({}), Outcome::Unusable),
        ClientError::Lost { .. } => ("lost", "unchanged", json!({}), Outcome::Unusable),
        ClientError::Insufficient { wanted, here, elsewhere, unreachable, .. } => {
            let more = json!({ "wanted": wanted, "here": here, "elsewhere": elsewhere, "unreachable": unreachable });
            ("insufficient", "unchanged", more, Outcome::Failed)
        }
        ClientError::Indeterminate { reference, .. } => {
            let more = json!({ "reference": reference.as_ref().map(ToString::to_string) });
            ("indeterminate", "indeterminate", more, Outcome::Indeterminate)
        }
        ClientError::Refused { code: FailureCode::Invalid, .. } => {
            ("invalid", "unchanged", json!({}), Outcome::Unusable)
        }
        ClientError::Refused { code, .. } => (label(*code), "unchanged", json!({}), Outcome::Failed),
        _ => ("other", "indeterminate", json!({}), Outcome::Indeterminate),
    };
    if json {
        let _ = print_json(&document(code, &text, data, more));
    }
    outcome
}

fn document(code: &str, text: &str, data: &str, more: Value) -> Value {
    let mut error = json!({ "code": code, "text": text, "data": data });
    if let (Some(fields), Value::Object(more)) = (error.as_object_mut(), more) {
        fields.extend(more);
    }
    json!({ "error": error })
}

fn label(code: FailureCode) -> &'static str {
    match code {
        FailureCode::Invalid => "invalid",
        FailureCode::Unsupported => "unsupported",
        FailureCode::HoldForgotten => "hold_forgotten",
        FailureCode::ReadOnly => "read_only",
        FailureCode::Closed => "closed",
        FailureCode::Poisoned => "poisoned",
        FailureCode::Busy => "busy",
        FailureCode::TimedOut => "timed_out",
        FailureCode::TooLong => "too_long",
        _ => "refused",
    }
}
