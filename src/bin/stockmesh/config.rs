//! The configuration file of `stockmesh node`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use stockmesh::{ClusterId, Identity, Location, MembershipTiming, PeerLimits};

/// Largest configuration file, in bytes. A thousand peers fit; a file that was meant for something else does not.
const MAX_CONFIG_BYTES: u64 = 256 * 1024;

/// Most peers in a file: each is dialled for ever.
const MAX_PEERS: usize = 1_024;

/// Most names in a file, each a source of its own.
const MAX_DNS_NAMES: usize = 32;

/// Bounds of `links`.
const LINKS: std::ops::RangeInclusive<usize> = 2..=1_024;

/// Bounds of `reconcile_every_ms`: shorter would keep links busy with asking, longer is a slip of the keyboard.
const RECONCILE_EVERY_MS: std::ops::RangeInclusive<u64> = 10..=3_600_000;

/// Which files an identity needs.
const IDENTITY_RULE: &str =
    "identity: must name either `authority`, `certificate` and `key`, or `key`, `pinned` and perhaps `read_only`";

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
links = 64                           # to all nodes while they are not more, else to a random part of them
# clients = false                    # no `stockmesh status`, `sell` and the like may connect
# revocations = "revoked.txt"        # fingerprints of certificates that are not let in; read again when it changes
# advertise = "198.51.100.7:7400"    # where others reach this node, if it is not where it listens
# timing = "wan"                     # how fast failures are noticed: "lan", the default, or "wan"; the same on all nodes

[labels]                             # what others see of this node; up to 8
rack = "7"

[identity]                           # made by `stockmesh cert`
authority = "ca.pem"
certificate = "berlin.pem"
key = "berlin.key"
# Without an authority, all nodes trust each other's public keys instead (`stockmesh cert key`):
# key = "berlin.key"
# pinned = "keys.pem"                # the public keys of all nodes
# read_only = "readers.pem"          # those of nodes that only read

# [limits]                           # what one peer may send per second; what is above is read later
# bytes_per_second = 67108864
# frames_per_second = 50000
# streams_per_second = 10000
# sessions_per_second = 500
# slowed_ms_max = 30000              # so long within a minute it may be held back, then its link is closed

[discovery]                          # besides `peers`; may be left out
dns = ["nodes.example:7400"]         # all addresses of these names, resolved every 30 to 60 s
mdns = false                         # on the local network, if the program was built with it
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
    /// Whether programs may connect.
    #[serde(default = "yes")]
    pub(crate) clients: bool,
    pub(crate) links: Option<usize>,
    #[serde(default)]
    pub(crate) discovery: DiscoverySettings,
    /// The list of revoked certificates.
    pub(crate) revocations: Option<PathBuf>,
    advertise: Option<String>,
    timing: Option<String>,
    /// What others see of this node; checked by the store.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) identity: IdentityFiles,
    limits: Option<Limits>,
}

/// Where other nodes are found.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiscoverySettings {
    #[serde(default)]
    pub(crate) dns: Vec<String>,
    #[serde(default)]
    pub(crate) mdns: bool,
}

/// The PEM files by which a node is known: authority, certificate and key; or key and pinned keys.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IdentityFiles {
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: PathBuf,
    pinned: Option<PathBuf>,
    read_only: Option<PathBuf>,
}

impl IdentityFiles {
    /// Reads the files.
    pub(crate) fn read(&self) -> anyhow::Result<Identity> {
        let Self { authority, certificate, key, pinned, read_only } = self;
        Ok(match (authority, certificate, pinned) {
            (Some(authority), Some(certificate), None) => Identity::from_pem(authority, certificate, key)?,
            (None, None, Some(pinned)) => Identity::from_raw_key(key, pinned, read_only.as_deref())?,
            _ => bail!(IDENTITY_RULE),
        })
    }

    fn check(&self) -> anyhow::Result<()> {
        let Self { authority, certificate, pinned, read_only, .. } = self;
        let by_authority = authority.is_some() && certificate.is_some() && pinned.is_none() && read_only.is_none();
        let by_keys = authority.is_none() && certificate.is_none() && pinned.is_some();
        ensure!(by_authority || by_keys, IDENTITY_RULE);
        Ok(())
    }

    fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let Self { authority, certificate, key, pinned, read_only } = self;
        [authority.as_mut(), certificate.as_mut(), Some(key), pinned.as_mut(), read_only.as_mut()].into_iter().flatten()
    }
}

/// What one peer may send; what is `None` is left to the store, which checks the rest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    bytes_per_second: Option<u64>,
    frames_per_second: Option<u64>,
    streams_per_second: Option<u64>,
    sessions_per_second: Option<u64>,
    slowed_ms_max: Option<u64>,
}

fn yes() -> bool {
    true
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
        self.identity.check()?;
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
        if let Some(links) = self.links {
            let (least, most) = (LINKS.start(), LINKS.end());
            ensure!(LINKS.contains(&links), "links {links}: must lie between {least} and {most}");
        }
        let names = self.discovery.dns.len();
        ensure!(names <= MAX_DNS_NAMES, "dns: must not be more than {MAX_DNS_NAMES} names, but are {names}");
        self.discovery.dns.iter().try_for_each(|name| check_peer("dns", name))?;
        let may_mdns = cfg!(feature = "mdns") || !self.discovery.mdns;
        ensure!(may_mdns, "mdns: this program was built without it; build it with `--features cli,mdns`");
        let peers = self.peers.len();
        ensure!(peers <= MAX_PEERS, "peers: must not be more than {MAX_PEERS}, but are {peers}");
        self.peers.iter().try_for_each(|peer| check_peer("peers", peer))
    }

    fn resolve(&mut self, directory: &Path) {
        self.data_dir = directory.join(&self.data_dir);
        for path in self.identity.paths() {
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

    /// What one peer may send.
    pub(crate) fn peer_limits(&self) -> PeerLimits {
        let mut limits = PeerLimits::default();
        if let Some(set) = &self.limits {
            let keep = |value: &mut u64, set: Option<u64>| *value = set.unwrap_or(*value);
            keep(&mut limits.bytes_per_second, set.bytes_per_second);
            keep(&mut limits.frames_per_second, set.frames_per_second);
            keep(&mut limits.streams_per_second, set.streams_per_second);
            keep(&mut limits.sessions_per_second, set.sessions_per_second);
            limits.slowed_max = set.slowed_ms_max.map_or(limits.slowed_max, Duration::from_millis);
        }
        limits
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

fn check_peer(field: &str, peer: &str) -> anyhow::Result<()> {
    let rule = || format!("{field} {peer:?}: must be a host and a port, such as paris.example:7400");
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
        assert_eq!((config.links, config.discovery.dns.len(), config.discovery.mdns), (Some(64), 1, false));
        assert_eq!(config.labels.get("rack").map(String::as_str), Some("7"));
        assert_eq!((config.advertise().unwrap(), config.timing().unwrap()), (None, None));
        assert!(config.clients, "unless the file says otherwise");
        assert!(!Config::parse(&SAMPLE.replace("# clients", "clients")).unwrap().clients);
    }

    #[test]
    fn an_identity_is_of_one_kind() {
        let keys = |lines: &str| {
            let (head, _) = SAMPLE.split_once("[identity]").unwrap();
            Config::parse(&format!("{head}[identity]\n{lines}"))
        };
        let mut config = keys("key = \"a.key\"\npinned = \"keys.pem\"\nread_only = \"readers.pem\"").unwrap();
        config.resolve(Path::new("/etc"));
        assert_eq!(config.identity.pinned, Some(PathBuf::from("/etc/keys.pem")));
        assert_eq!(config.identity.read_only, Some(PathBuf::from("/etc/readers.pem")));
        let file = "\"x.pem\"";
        for lines in [
            format!("key = {file}"),
            format!("key = {file}\nauthority = {file}"),
            format!("key = {file}\nauthority = {file}\ncertificate = {file}\npinned = {file}"),
            format!("key = {file}\nauthority = {file}\ncertificate = {file}\nread_only = {file}"),
            format!("key = {file}\nread_only = {file}"),
        ] {
            let error = format!("{:#}", keys(&lines).unwrap_err());
            assert!(error.contains("must name either `authority`"), "{lines}: {error}");
        }
    }

    #[test]
    fn limits_of_peers_are_read() {
        let limits = |text: &str| Config::parse(&format!("{SAMPLE}\n[limits]\n{text}"));
        let read = limits("bytes_per_second = 2000000\nslowed_ms_max = 5000").unwrap().peer_limits();
        let expected =
            PeerLimits { bytes_per_second: 2_000_000, slowed_max: Duration::from_secs(5), ..PeerLimits::default() };
        assert_eq!(read, expected);
        assert!(limits("bytes = 1").is_err());
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
            ("links = 64", "links = 1 ", "links 1: must lie between 2 and 1024"),
            ("links = 64", "links = 2000", "links 2000: must lie between 2 and 1024"),
            ("\"nodes.example:7400\"", "\"nodes.example\"", "dns \"nodes.example\": must be a host and a port"),
            #[cfg(not(feature = "mdns"))]
            ("mdns = false", "mdns = true", "mdns: this program was built without it"),
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
