//! Where nodes of the cluster may be found: sources of addresses, several of which may be merged.

mod dns;
#[cfg(feature = "mdns")]
mod mdns;

use std::fmt::Debug;
use std::net::SocketAddr;
use std::pin::Pin;

pub use dns::Dns;
#[cfg(feature = "mdns")]
pub(super) use mdns::LocalNetwork;

/// An address at which a node of the cluster may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Candidate {
    /// Where to dial.
    pub address: SocketAddr,
}

impl Candidate {
    /// A node may be at this address.
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }
}

impl From<SocketAddr> for Candidate {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

/// Why a source found nothing this time. Shown in [`Status::sources`](crate::Status::sources).
pub type DiscoveryError = Box<dyn std::error::Error + Send + Sync>;

/// What a source finds, some time.
pub type Found<'a> = Pin<Box<dyn Future<Output = Result<Vec<Candidate>, DiscoveryError>> + Send + 'a>>;

/// A source of addresses at which nodes of the cluster may be found, such as a service registry or a file.
///
/// Nodes dial candidates that they don't know, and who answers with a certificate of the cluster is linked and tells of
/// all others. So one candidate that answers is enough, and any node will do. Wrong ones cost a dial now and then: they
/// show in [`Status::dials`](crate::Status::dials) with the reason. A candidate that is not named any more stays known, as
/// a node that is missing from a list need not be dead; at most 1,024 are kept of all sources.
///
#[cfg_attr(feature = "certificates", doc = "```")]
#[cfg_attr(not(feature = "certificates"), doc = "```ignore")]
/// use std::path::PathBuf;
/// use std::time::Duration;
/// use stockmesh::discovery::{Candidate, Discovery, Found};
/// # use stockmesh::certificates::{Authority, Validity};
/// # use stockmesh::{Identity, Store};
///
/// /// Addresses from a file, one per line, read again every minute.
/// #[derive(Debug)]
/// struct AddressFile {
///     path: PathBuf,
///     was_read: bool,
/// }
///
/// impl Discovery for AddressFile {
///     fn name(&self) -> String {
///         format!("file {}", self.path.display())
///     }
///
///     fn next(&mut self) -> Found<'_> {
///         Box::pin(async {
///             if std::mem::replace(&mut self.was_read, true) {
///                 tokio::time::sleep(Duration::from_secs(60)).await;
///             }
///             let text = std::fs::read_to_string(&self.path)?;
///             let addresses = text.lines().map(|line| Ok(Candidate::new(line.parse()?)));
///             addresses.collect()
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let authority = Authority::new("shops", Validity::from_days(30)?)?;
/// # let berlin = authority.issue("berlin", &[], Validity::from_days(30)?)?;
/// # let identity = Identity::from_pem_bytes(
/// #     authority.certificate_pem().as_bytes(),
/// #     berlin.certificate_pem.as_bytes(),
/// #     berlin.key_pem.as_bytes(),
/// # )?;
/// let source = AddressFile { path: "nodes.txt".into(), was_read: false };
/// let store = Store::builder().in_memory().identity(identity).discover(source).open().await?;
/// assert_eq!(store.status().sources[0].name, "file nodes.txt");
/// # Ok(())
/// # }
/// ```
pub trait Discovery: Debug + Send {
    /// What the source is called in status and log.
    fn name(&self) -> String;

    /// Waits until there is something to tell, and tells it: all candidates that are known now, or those that are new.
    /// The first time at once, if it can. It is called again when the node has noted what it told, at most once a second, and
    /// after an error with pauses that grow to 10 s. It may be dropped while it waits, when the store is closed.
    ///
    /// # Errors
    /// If the source cannot be read now. What it told before stays known.
    fn next(&mut self) -> Found<'_>;
}
