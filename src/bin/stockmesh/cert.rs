//! `stockmesh cert`: makes the certificates of a cluster.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::Subcommand;
use stockmesh::certificates::{Authority, MAX_PEM_BYTES, NodeDetails, RawKey, Validity, fingerprint};

use crate::Outcome;

/// Files of the authority in its directory.
const AUTHORITY_CERTIFICATE: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a new authority: writes ca.pem, which every node needs, and ca.key, which none needs.
    Ca {
        /// Directory to write to; made if it does not exist.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Name of the authority, shown in each certificate.
        #[arg(long)]
        name: String,
        /// For how many days it counts.
        #[arg(long, default_value_t = 3_650)]
        days: u32,
    },
    /// Issue a node's certificate: writes NAME.pem and NAME.key.
    #[command(visible_alias = "issue")]
    Node {
        /// Directory of the authority, with ca.pem and ca.key.
        #[arg(long, value_name = "DIR")]
        ca: PathBuf,
        /// Name of the node, which it keeps when its certificate is renewed; also the name of the files.
        #[arg(long)]
        name: String,
        /// Its home location: other nodes then insist on it.
        #[arg(long)]
        location: Option<String>,
        /// Make it a read-only member: it gets all writes, and none are taken from it.
        #[arg(long)]
        read_only: bool,
        /// Directory to write to; made if it does not exist.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// For how many days it counts.
        #[arg(long, default_value_t = 365)]
        days: u32,
        /// A DNS name or IP address to name too, for other tools; stockmesh itself does not look at it.
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,
    },
    /// Make a key pair for a cluster without an authority: writes NAME.key and NAME.pub, and prints the public key, which
    /// the other nodes need on their lists.
    Key {
        /// Name of the files.
        #[arg(long)]
        name: String,
        /// Directory to write to; made if it does not exist.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Print the fingerprint of a certificate or a public key, as a list of revoked certificates names it.
    Fingerprint {
        /// The certificate or public key, a PEM file.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(crate) fn run(command: &Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Ca { out, name, days } => {
            let authority = Authority::new(name, Validity::from_days(*days)?)?;
            let certificate = out.join(AUTHORITY_CERTIFICATE);
            let key = out.join(AUTHORITY_KEY);
            write_pair(&certificate, authority.certificate_pem(), &key, &authority.key_pem())?;
            println!("Keep {} away from the nodes: it decides who belongs to the cluster.", key.display());
        }
        Command::Node { ca, name, location, read_only, out, days, host } => {
            check_file_name(name)?;
            let authority =
                Authority::from_pem(&read_pem(&ca.join(AUTHORITY_CERTIFICATE))?, &read_pem(&ca.join(AUTHORITY_KEY))?)
                    .with_context(|| ca.display().to_string())?;
            let hosts: Vec<&str> = host.iter().map(String::as_str).collect();
            let details = NodeDetails { name, location: location.as_deref(), read_only: *read_only, hosts: &hosts };
            let issued = authority.issue_node(&details, Validity::from_days(*days)?)?;
            let certificate = out.join(format!("{name}.pem"));
            let key = out.join(format!("{name}.key"));
            write_pair(&certificate, &issued.certificate_pem, &key, &issued.key_pem)?;
            println!("fingerprint {}", fingerprint(&issued.certificate_pem)?);
        }
        Command::Key { name, out } => {
            check_file_name(name)?;
            let raw = RawKey::new()?;
            let (public, key) = (out.join(format!("{name}.pub")), out.join(format!("{name}.key")));
            write_pair(&public, &raw.public_key_pem, &key, &raw.key_pem)?;
            println!("fingerprint {}\n{}", fingerprint(&raw.public_key_pem)?, raw.public_key_pem.trim_end());
        }
        Command::Fingerprint { file } => {
            let printed = fingerprint(&read_pem(file)?).with_context(|| file.display().to_string())?;
            println!("{printed}");
        }
    }
    Ok(Outcome::Good)
}

/// The name of a node becomes that of its files, so it must stay in their directory, and not take the authority's.
fn check_file_name(name: &str) -> anyhow::Result<()> {
    let path_sign = |character| matches!(character, '/' | '\\' | ':' | '\0');
    ensure!(
        !name.starts_with(['.', '-']) && !name.contains(path_sign),
        "--name {name:?}: must be fit for a file name: no '/', '\\' or ':', and no '.' or '-' in front"
    );
    ensure!(name != "ca", "--name \"ca\": must not be the name of the authority's files");
    Ok(())
}

fn read_pem(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let limit_bytes = u64::try_from(MAX_PEM_BYTES)?;
    File::open(path)
        .and_then(|file| file.take(limit_bytes + 1).read_to_string(&mut text))
        .with_context(|| format!("{}: must be a readable PEM file", path.display()))?;
    Ok(text)
}

/// Writes both files or none, and never over a file that exists: a lost key cannot be made again.
fn write_pair(certificate: &Path, certificate_pem: &str, key: &Path, key_pem: &str) -> anyhow::Result<()> {
    if let Some(directory) = key.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("{}: must be a directory that can be made", directory.display()))?;
    }
    for path in [certificate, key] {
        if path.exists() {
            bail!("{}: exists already, and is not overwritten", path.display());
        }
    }
    write_new(key, key_pem, true)?;
    if let Err(error) = write_new(certificate, certificate_pem, false) {
        // A key without its certificate would be in the way of the next try.
        let _ = fs::remove_file(key);
        return Err(error);
    }
    println!("{}\n{}", certificate.display(), key.display());
    Ok(())
}

fn write_new(path: &Path, text: &str, secret: bool) -> anyhow::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    restrict(&mut options, secret);
    options
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .with_context(|| format!("{}: must be a new file that can be written", path.display()))
}

/// A key is for its owner alone from the moment the file exists.
#[cfg(unix)]
fn restrict(options: &mut OpenOptions, secret: bool) {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(if secret { 0o600 } else { 0o644 });
}

#[cfg(not(unix))]
fn restrict(_: &mut OpenOptions, _: bool) {}

#[cfg(test)]
mod tests {
    use stockmesh::Identity;

    use super::*;

    fn authority(directory: &Path) -> anyhow::Result<Outcome> {
        run(&Command::Ca { out: directory.to_owned(), name: "test".to_owned(), days: 1 })
    }

    fn node(directory: &Path, name: &str) -> anyhow::Result<Outcome> {
        run(&Command::Node {
            ca: directory.to_owned(),
            name: name.to_owned(),
            location: Some("ulm".to_owned()),
            read_only: true,
            out: directory.join("nodes"),
            days: 1,
            host: vec!["10.0.0.1".to_owned()],
        })
    }

    #[test]
    fn files_are_written_once_and_keys_are_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authority");
        authority(&path).unwrap();
        node(&path, "berlin").unwrap();
        let kept = fs::read(path.join("ca.key")).unwrap();
        assert!(authority(&path).unwrap_err().to_string().contains("not overwritten"));
        assert!(node(&path, "berlin").unwrap_err().to_string().contains("not overwritten"));
        assert_eq!(fs::read(path.join("ca.key")).unwrap(), kept);
        #[cfg(unix)]
        for key in ["ca.key", "nodes/berlin.key"] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(path.join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn what_is_asked_for_stands_in_the_certificate() {
        let directory = tempfile::tempdir().unwrap();
        authority(directory.path()).unwrap();
        node(directory.path(), "berlin").unwrap();
        let path = |name: &str| directory.path().join(name);
        let read =
            |name: &str| Identity::from_pem(path("ca.pem"), path(&format!("{name}.pem")), path(&format!("{name}.key")));
        let identity = read("nodes/berlin").unwrap();
        assert!(identity.is_read_only());
        assert_eq!(identity.location().map(ToString::to_string).as_deref(), Some("ulm"));
        assert_eq!(identity.node_name().map(ToString::to_string).as_deref(), Some("berlin"));
    }

    #[test]
    fn a_key_pair_is_made_once_and_its_fingerprint_told() {
        let directory = tempfile::tempdir().unwrap();
        let command = || Command::Key { name: "berlin".to_owned(), out: directory.path().to_owned() };
        run(&command()).unwrap();
        let (key, public) = (directory.path().join("berlin.key"), directory.path().join("berlin.pub"));
        let identity = Identity::from_raw_key(&key, &public, Some(&public)).unwrap();
        assert!(identity.is_read_only());
        run(&Command::Fingerprint { file: public.clone() }).unwrap();
        assert_eq!(fingerprint(&read_pem(&public).unwrap()).unwrap(), identity.fingerprint());
        assert!(run(&command()).unwrap_err().to_string().contains("not overwritten"));
    }

    #[test]
    fn a_fingerprint_is_told_of_certificates_alone() {
        let directory = tempfile::tempdir().unwrap();
        authority(directory.path()).unwrap();
        run(&Command::Fingerprint { file: directory.path().join("ca.pem") }).unwrap();
        let error = run(&Command::Fingerprint { file: directory.path().join("ca.key") }).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("ca.key") && error.contains("must be an X.509 certificate"), "{error}");
    }

    #[test]
    fn names_cannot_leave_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        authority(directory.path()).unwrap();
        for name in ["../x", "a/b", ".hidden", "-x", "ca", "", "a\0b"] {
            assert!(node(directory.path(), name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_authority_that_is_not_there_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = node(directory.path(), "a").unwrap_err().to_string();
        assert!(error.contains("ca.pem"), "{error}");
    }
}
