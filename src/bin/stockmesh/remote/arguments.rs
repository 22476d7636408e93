//! What the commands have in common: which node, and who asks.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use stockmesh::Identity;
use stockmesh::clients::Goods;

use crate::config::Config;

/// The node to act on.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Node {
    /// The node's address.
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) connect: String,
    /// Take the certificate, key and authority from the configuration file of a node.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["ca", "cert", "key"], required_unless_present_all = ["ca", "cert", "key"])]
    config: Option<PathBuf>,
    /// The authority's certificate, a PEM file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate of whoever asks, a PEM file.
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key, a PEM file.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print JSON, for programs.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Node {
    pub(super) fn identity(&self) -> anyhow::Result<Identity> {
        if let Some(path) = &self.config {
            return Config::read(path)?.identity.read();
        }
        let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) else {
            anyhow::bail!("--ca, --cert and --key are needed, or --config");
        };
        Ok(Identity::from_pem(ca, cert, key)?)
    }
}

/// What a write is about, and under which name it is known.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Named {
    /// The location, if not the node's home.
    #[arg(long, value_name = "LOCATION")]
    at: Option<String>,
    #[command(flatten)]
    reference: Reference,
}

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Reference {
    /// Your own name of this write, such as an order and its line: done once at the most, however often it is asked for.
    /// Without one, a name is drawn by chance.
    #[arg(long, value_name = "TEXT")]
    reference: Option<String>,
}

impl Named {
    pub(super) fn goods(&self, sku: &str) -> Result<(Goods, String), stockmesh::InvalidInput> {
        let (goods, reference) = self.reference.goods(sku)?;
        let goods = match &self.at {
            Some(location) => goods.at(location)?,
            None => goods,
        };
        Ok((goods, reference))
    }
}

impl Reference {
    pub(super) fn goods(&self, sku: &str) -> Result<(Goods, String), stockmesh::InvalidInput> {
        // Drawn here, so that it can be told, and the write be asked for again under it.
        let reference = self.reference.clone().unwrap_or_else(|| format!("cli-{:032x}", rand::random::<u128>()));
        Ok((Goods::of(sku)?.reference(&reference)?, reference))
    }
}

/// Reads a time such as 500ms, 90s, 15m, 2h or 7d.
pub(super) fn duration(text: &str) -> anyhow::Result<Duration> {
    let rule = || format!("{text:?}: must be a number with ms, s, m, h or d behind it, such as 15m");
    let digits = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().with_context(rule)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => anyhow::bail!(rule()),
    };
    Ok(Duration::from_millis(number.checked_mul(unit_ms).with_context(rule)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, ms) in [("500ms", 500), ("90s", 90_000), ("15m", 900_000), ("2h", 7_200_000), ("7d", 604_800_000)] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for text in ["", "15", "m", "-1s", "1.5h", "15 m", "15M", "99999999999999999999s", "9999999999999999999d"] {
            assert!(duration(text).unwrap_err().to_string().contains("such as 15m"), "{text}");
        }
    }
}
