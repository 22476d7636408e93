//! The configuration file of `stockmesh node`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use stockmesh::{ClusterId, Location, MembershipTiming};

/// Largest configuration file, in bytes. A thousand peers fit; a file that was meant for something else does not.
const MAX_CONFIG_BYTES: u64 = 256 * 1024;

/// Most peers in a file: each is dialled for ever.
const MAX_PEERS: usize = 1_024;

/// Bounds of `reconcile_every_ms`: shorter would keep links busy with asking, longer is a slip of the keyboard.
const RECONCILE_EVERY_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;

/// A complete file, for `--help`.
pub(crate) const SAMPLE: &str = r#"# berlin.toml; paths are relative to this file
data_dir = "berlin.db"
location = "berlin"                  # home of this node's stock
listen = "0.0.0.0:7400"
peers = ["paris.example:7400", "[2001:db8::7]:7400"]

# These may be left out; the first two must be the same on all nodes.
cluster = "shops"
shards = 256
reconcile_every_ms = 1000
# revocations = "revoked.txt"        # fingerprints of certificates that are not let in; read again when it changes
# advertise = "198.51.100.7:7400"    # where others reach this node, if it is not where it listens
# timing = "wan"                     # how fast failures are noticed: "lan", the default, or "wan"; the same on all nodes

[labels]                             # what others see of this node; up to 8
rack = "7"

[identity]                           # made by `stockmesh cert`
authority = "ca.pem"
certificate = "berlin.pem"
key = "berlin.key"
"#;

/// One node's settings; what is `None` is left to the store.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) location: String,
    listen: String,
    #[serde(default)]
    pub(crate) peers: Vec<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) shards: Option<u32>,
    reconcile_every_ms: Option<u64>,
    /// The list of revoked certificates.
    pub(crate) revocations: Option<PathBuf>,
    advertise: Option<String>,
    timing: Option<String>,
    /// What others see of this node; checked by the store.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) identity: IdentityFiles,
}

/// The three PEM files by which a node is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityFiles {
    pub(crate) authority: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Config {
    /// Reads and checks a file; errors name the file, the field, the value and the rule.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let file = || path.display().to_string();
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_string(&mut text))
            .with_context(|| format!("{}: must be a readable TOML file", path.display()))?;
        let size = u64::try_from(text.len())?;
        ensure!(size <= MAX_CONFIG_BYTES, "{}: must not be longer than {MAX_CONFIG_BYTES} bytes", path.display());
        let mut config = Self::parse(&text).with_context(file)?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        Ok(config)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        Location::new(&self.location)?;
        if let Some(cluster) = &self.cluster {
            ClusterId::new(cluster)?;
        }
        self.listen()?;
        self.advertise()?;
        self.timing()?;
        if let Some(shards) = self.shards {
            ensure!(shards.is_power_of_two(), "shards {shards}: must be a power of two");
        }
        if let Some(every_ms) = self.reconcile_every_ms {
            ensure!(
                RECONCILE_EVERY_MS.contains(&every_ms),
                "reconcile_every_ms {every_ms}: must lie between {} and {}",
                RECONCILE_EVERY_MS.start(),
                RECONCILE_EVERY_MS.end()
            );
        }
        let peers = self.peers.len();
        ensure!(peers <= MAX_PEERS, "peers: must not be more than {MAX_PEERS}, but are {peers}");
        self.peers.iter().try_for_each(|peer| check_peer(peer))
    }

    fn resolve(&mut self, directory: &Path) {
        let identity = &mut self.identity;
        for path in [&mut self.data_dir, &mut identity.authority, &mut identity.certificate, &mut identity.key] {
            *path = directory.join(&*path);
        }
        if let Some(path) = &mut self.revocations {
            *path = directory.join(&*path);
        }
    }

    /// The address to listen on.
    pub(crate) fn listen(&self) -> anyhow::Result<SocketAddr> {
        let listen = &self.listen;
        listen
            .parse()
            .with_context(|| format!("listen {listen:?}: must be an IP address and a port, such as 0.0.0.0:7400"))
    }

    /// Where others reach this node.
    pub(crate) fn advertise(&self) -> anyhow::Result<Option<SocketAddr>> {
        let rule =
            |text: &String| format!("advertise {text:?}: must be an IP address and a port, such as 198.51.100.7:7400");
        self.advertise.as_ref().map(|text| text.parse().with_context(|| rule(text))).transpose()
    }

    /// How fast failures are noticed.
    pub(crate) fn timing(&self) -> anyhow::Result<Option<MembershipTiming>> {
        match self.timing.as_deref() {
            None => Ok(None),
            Some("lan") => Ok(Some(MembershipTiming::Lan)),
            Some("wan") => Ok(Some(MembershipTiming::Wan)),
            Some(other) => bail!("timing {other:?}: must be \"lan\" or \"wan\""),
        }
    }

    /// How often to reconcile with a peer.
    pub(crate) fn reconcile_every(&self) -> Option<Duration> {
        self.reconcile_every_ms.map(Duration::from_millis)
    }
}

fn check_peer(peer: &str) -> anyhow::Result<()> {
    let rule = || format!("peers {peer:?}: must be a host and a port, such as paris.example:7400");
    let (host, port) = peer.rsplit_once(':').with_context(rule)?;
    let port: u16 = port.parse().with_context(rule)?;
    // An IPv6 address needs brackets, or its end would be taken for the port.
    let bare = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
    let clean = !host.is_empty() && !host.contains(|sign: char| sign.is_whitespace() || sign.is_control());
    ensure!(bare && clean && port > 0, rule());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(from: &str, to: &str) -> String {
        assert!(SAMPLE.contains(from), "{from}");
        format!("{:#}", Config::parse(&SAMPLE.replacen(from, to, 1)).unwrap_err())
    }

    #[test]
    fn the_sample_is_taken_and_its_paths_are_relative_to_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("berlin.toml");
        std::fs::write(&path, SAMPLE.replace("# revocations", "revocations")).unwrap();
        let config = Config::read(&path).unwrap();
        assert_eq!(config.data_dir, directory.path().join("berlin.db"));
        assert_eq!(config.identity.key, directory.path().join("berlin.key"));
        assert_eq!(config.revocations, Some(directory.path().join("revoked.txt")));
        assert_eq!(config.reconcile_every(), Some(Duration::from_secs(1)));
        assert_eq!(config.peers.len(), 2);
        assert_eq!(config.labels.get("rack").map(String::as_str), Some("7"));
        assert_eq!((config.advertise().unwrap(), config.timing().unwrap()), (None, None));
    }

    #[test]
    fn membership_is_set_by_address_timing_and_labels() {
        let text = SAMPLE.replace("# advertise", "advertise").replace("# timing", "timing");
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.advertise().unwrap(), Some("198.51.100.7:7400".parse().unwrap()));
        assert_eq!(config.timing().unwrap(), Some(MembershipTiming::Wan));
        for (from, to, expected) in [
            (
                "# advertise = \"198.51.100.7:7400\"",
                "advertise = \"shop.example\"",
                "advertise \"shop.example\": must be an IP",
            ),
            ("# timing = \"wan\"", "timing = \"fast\"", "timing \"fast\": must be \"lan\" or \"wan\""),
        ] {
            let error = refusal(from, to);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn wrong_fields_are_named_with_value_and_rule() {
        let cases = [
            ("\"0.0.0.0:7400\"", "\"localhost\"", "listen \"localhost\": must be an IP address"),
            ("shards = 256", "shards = 3", "shards 3: must be a power of two"),
            ("shards = 256", "shards = 0", "shards 0: must be a power of two"),
            ("= 1000", "= 1", "reconcile_every_ms 1: must lie between 10 and 3600000"),
            ("paris.example:7400", "paris.example", "peers \"paris.example\": must be a host"),
            ("paris.example:7400", ":7400", "peers \":7400\""),
            ("paris.example:7400", "paris:0", "peers \"paris:0\""),
            ("[2001:db8::7]:7400", "2001:db8::7:7400", "peers \"2001:db8::7:7400\""),
            ("location = \"berlin\"", "location = \"\"", "location"),
        ];
        for (from, to, expected) in cases {
            let error = refusal(from, to);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn unknown_missing_and_mistyped_fields_are_named_with_their_line() {
        let unknown = refusal("shards = 256", "shard = 256");
        assert!(unknown.contains("line 9") && unknown.contains("unknown field `shard`"), "{unknown}");
        let missing = refusal("location = \"berlin\"", "");
        assert!(missing.contains("missing field `location`"), "{missing}");
        let mistyped = refusal("shards = 256", "shards = \"many\"");
        assert!(mistyped.contains("shards = \"many\"") && mistyped.contains("u32"), "{mistyped}");
    }

    #[test]
    fn the_number_of_peers_is_bounded() {
        let peer = "\"paris.example:7400\"";
        let peers = |count| vec![peer; count].join(", ");
        let exact = SAMPLE.replacen(peer, &peers(MAX_PEERS - 1), 1);
        assert_eq!(Config::parse(&exact).unwrap().peers.len(), MAX_PEERS);
        let refused = refusal(peer, &peers(MAX_PEERS));
        assert!(refused.starts_with("peers: must not be more than 1024"));
    }

    #[test]
    fn a_file_that_is_missing_or_too_long_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.toml");
        assert!(format!("{:#}", Config::read(&path).unwrap_err()).contains("a.toml: must be a readable"));
        std::fs::write(&path, "#".repeat(300_000)).unwrap();
        assert!(Config::read(&path).unwrap_err().to_string().contains("must not be longer"));
    }
}
