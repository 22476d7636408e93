//! The list of revoked certificates: a file that the operator changes while the node runs.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::certificate::CertificateFingerprint;
use crate::error::RevocationsError;
use crate::limits::{REVOCATION_SHOWN_MAX, REVOCATIONS_BYTES_MAX};

/// Certificates that are not let in.
pub(super) type Revoked = Arc<BTreeSet<CertificateFingerprint>>;

/// The file, as it was last seen.
#[derive(Debug)]
pub(crate) struct RevocationFile {
    path: PathBuf,
    list: Revoked,
    /// `None` if it was not there.
    seen: Option<(SystemTime, u64)>,
}

impl RevocationFile {
    /// Reads the file for the first time.
    ///
    /// # Errors
    /// If it cannot be read, is too long, or a line is no fingerprint.
    pub(crate) fn open(path: PathBuf) -> Result<Self, RevocationsError> {
        // Before the content, so that a change in between is seen as one.
        let seen = stamp(&path);
        let list = read(&path)?;
        Ok(Self { path, list, seen })
    }

    pub(super) fn list(&self) -> Revoked {
        Arc::clone(&self.list)
    }

    /// Reads the file again if it changed. `None` if it did not.
    pub(super) fn look(&mut self) -> Option<Result<Revoked, RevocationsError>> {
        let seen = stamp(&self.path);
        if seen == self.seen {
            return None;
        }
        self.seen = seen;
        let read = read(&self.path);
        if let Ok(list) = &read {
            self.list = Arc::clone(list);
        }
        Some(read)
    }
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn read(path: &Path) -> Result<Revoked, RevocationsError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(REVOCATIONS_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|cause| RevocationsError::Read { path: path.to_owned(), cause })?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > REVOCATIONS_BYTES_MAX) {
        return Err(RevocationsError::TooLong { path: path.to_owned() });
    }
    parse(&bytes).map(Arc::new).map_err(|(line, value, rule)| {
        let value = value.chars().take(REVOCATION_SHOWN_MAX).collect();
        RevocationsError::Line { path: path.to_owned(), line, value, rule }
    })
}

/// One fingerprint per line; `#` begins a comment. An error has the line's number, what stands there, and the rule.
fn parse(bytes: &[u8]) -> Result<BTreeSet<CertificateFingerprint>, (usize, String, String)> {
    let mut list = BTreeSet::new();
    for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
        let content = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
        if content.is_empty() {
            continue;
        }
        let text = String::from_utf8_lossy(content);
        list.insert(text.parse().map_err(|rule| (number, text.into_owned(), format!("{rule}")))?);
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_line_by_line() {
        let (small, large) = ("0a".repeat(32), "FF".repeat(32));
        let text = format!("# stolen\r\n\r\n  {small}  # the till in Berlin\r\n{large}\n{small}\n");
        let list = parse(text.as_bytes()).unwrap();
        assert_eq!(list.iter().map(ToString::to_string).collect::<Vec<_>>(), [small.clone(), large.to_lowercase()]);
        assert!(parse(b"").unwrap().is_empty());
        assert_eq!(parse(format!("{small}\nberlin\n").as_bytes()).unwrap_err().0, 2);
        let (line, value, rule) = parse(format!("#\n\n{small} {large}").as_bytes()).unwrap_err();
        assert_eq!((line, value), (3, format!("{small} {large}")));
        assert!(rule.contains("64 hexadecimal digits"), "{rule}");
        assert_eq!(parse(b"\xff\xfe").unwrap_err().0, 1);
    }

    #[test]
    fn a_file_is_read_again_when_it_changed_and_kept_when_it_is_bad() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("revoked.txt");
        assert!(matches!(RevocationFile::open(path.clone()), Err(RevocationsError::Read { .. })));
        std::fs::write(&path, "").unwrap();
        let mut file = RevocationFile::open(path.clone()).unwrap();
        assert!(file.look().is_none());
        std::fs::write(&path, "ab".repeat(32)).unwrap();
        assert_eq!(file.look().unwrap().unwrap().len(), 1);
        assert!(file.look().is_none());
        std::fs::write(&path, "no fingerprint").unwrap();
        let error = file.look().unwrap().unwrap_err().to_string();
        assert!(error.contains("line 1: \"no fingerprint\" must be"), "{error}");
        assert!(file.look().is_none(), "told once");
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(file.look(), Some(Err(RevocationsError::Read { .. }))));
        assert_eq!(file.list().len(), 1);
        let length = usize::try_from(REVOCATIONS_BYTES_MAX).unwrap();
        std::fs::write(&path, "\n".repeat(length)).unwrap();
        assert!(file.look().unwrap().unwrap().is_empty());
        std::fs::write(&path, "\n".repeat(length + 1)).unwrap();
        assert!(matches!(file.look(), Some(Err(RevocationsError::TooLong { .. }))));
    }
}
