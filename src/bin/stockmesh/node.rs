//! `stockmesh node`: runs one node until a signal.

use std::path::PathBuf;

use anyhow::Context;
use stockmesh::{Identity, Store};

use crate::Outcome;
use crate::config::{Config, IdentityFiles, SAMPLE};

#[derive(Debug, clap::Args)]
#[command(after_help = format!("A configuration file:\n\n{SAMPLE}"))]
pub(crate) struct Arguments {
    /// The node's configuration, a TOML file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The data directory was restored from a backup, or copied: go on under a new replica id. For one start only.
    #[arg(long)]
    restored: bool,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    let config = Config::read(&arguments.config)?;
    // Before the store is open: a signal that comes early must not kill the process in the middle of recovery.
    let mut signals = Signals::new().context("the signals SIGINT, SIGTERM and SIGHUP cannot be listened for")?;
    let store = open(&config, arguments.restored).await.with_context(|| arguments.config.display().to_string())?;
    let status = store.status();
    tracing::info!(
        replica = %status.replica,
        location = %status.location,
        listen = ?status.listen,
        products = status.products,
        "the node is up"
    );
    let name = loop {
        match signals.next().await {
            Signal::Reload => reload(&store, &config.identity),
            Signal::End(name) => break name,
        }
    };
    tracing::info!(signal = name, "closing");
    store.close().await.context("the store did not close cleanly")?;
    Ok(Outcome::Good)
}

/// Reads the identity's files again. If they are not good, the node goes on as it was.
fn reload(store: &Store, files: &IdentityFiles) {
    let read = Identity::from_pem(&files.authority, &files.certificate, &files.key).map_err(anyhow::Error::from);
    if let Err(error) = read.and_then(|identity| Ok(store.reload_identity(identity)?)) {
        tracing::error!(
            error = format!("{error:#}"),
            "the identity was not reloaded; the node goes on with the one it has"
        );
    }
}

async fn open(config: &Config, restored: bool) -> anyhow::Result<Store> {
    let files = &config.identity;
    let identity = Identity::from_pem(&files.authority, &files.certificate, &files.key)?;
    let mut builder = Store::builder()
        .data_dir(&config.data_dir)
        .location(&config.location)
        .listen(config.listen()?)
        .identity(identity);
    if let Some(cluster) = &config.cluster {
        builder = builder.cluster(cluster);
    }
    if let Some(shards) = config.shards {
        builder = builder.shards(shards);
    }
    if let Some(every) = config.reconcile_every() {
        builder = builder.reconcile_every(every);
    }
    if let Some(address) = config.advertise()? {
        builder = builder.advertise(address);
    }
    if let Some(timing) = config.timing()? {
        builder = builder.timing(timing);
    }
    for (key, value) in &config.labels {
        builder = builder.label(key, value);
    }
    if let Some(path) = &config.revocations {
        builder = builder.revocations(path);
    }
    if restored {
        builder = builder.restored();
    }
    for peer in &config.peers {
        builder = builder.peer(peer);
    }
    Ok(builder.open().await?)
}

/// What a signal asks for.
#[cfg_attr(not(unix), allow(dead_code))]
enum Signal {
    /// Read the identity's files again.
    Reload,
    /// End the node; the signal's name.
    End(&'static str),
}

/// The signals that a node listens to.
#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::End("SIGINT"),
            _ = self.terminate.recv() => Signal::End("SIGTERM"),
            _ = self.hang_up.recv() => Signal::Reload,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        // Without a way to hear of signals the node runs until it is killed, which it survives.
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::End("interrupt"),
            Err(_) => std::future::pending().await,
        }
    }
}
