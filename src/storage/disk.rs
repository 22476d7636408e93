//! The seam between the engine and the medium.
//!
//! Everything the engine writes goes through [`Disk`], so that tests can put a disk there that fails, tears and forgets.

use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// A flat, growable array of bytes that survives the process once [`sync`](Disk::sync) has returned.
///
/// Until then a loss of power may keep, drop or tear each write on its own and in any order.
pub trait Disk: Debug + Send + Sync + 'static {
    /// The present length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Fills `out` from `offset`. Reading past the end is an error of kind `UnexpectedEof`.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    /// Cuts or lengthens the content; new bytes read as zero.
    fn set_len(&self, length_bytes: u64) -> io::Result<()>;

    /// Returns only when everything written before is durable. After an error nothing may be assumed of those writes.
    fn sync(&self) -> io::Result<()>;

    /// Writes all of `data` at `offset`. After an error any part of it may have been written.
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Whether the length is zero.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A disk in an ordinary file. It takes no lock: the lock of the data directory covers it.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    // Without positioned reads a seek and its read must not be torn apart by another thread.
    #[cfg(not(unix))]
    cursor: Mutex<()>,
}

impl FileDisk {
    /// Wraps a file that was opened for reading and writing.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self {
            file,
            #[cfg(not(unix))]
            cursor: Mutex::new(()),
        }
    }
}

impl Disk for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    #[cfg(unix)]
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, out, offset)
    }

    #[cfg(not(unix))]
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let _guard = self.cursor.lock();
        (&self.file).seek(SeekFrom::Start(offset))?;
        (&self.file).read_exact(out)
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.file.set_len(length_bytes)
    }

    fn sync(&self) -> io::Result<()> {
        // Of the metadata only the length matters for reading the file back, and this flushes it too.
        self.file.sync_data()
    }

    #[cfg(unix)]
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(&self.file, data, offset)
    }

    #[cfg(not(unix))]
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        use std::io::{Seek, SeekFrom, Write};
        let _guard = self.cursor.lock();
        (&self.file).seek(SeekFrom::Start(offset))?;
        (&self.file).write_all(data)
    }
}

/// A disk in memory. Clones share their content, so that a test can close a store and open it again.
#[derive(Clone, Debug, Default)]
pub struct MemoryDisk {
    content: Arc<Mutex<Vec<u8>>>,
}

impl MemoryDisk {
    /// An empty disk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A disk that holds these bytes.
    #[must_use]
    pub fn from_image(image: Vec<u8>) -> Self {
        Self { content: Arc::new(Mutex::new(image)) }
    }

    /// A copy of the present content.
    #[must_use]
    pub fn image(&self) -> Vec<u8> {
        self.content.lock().clone()
    }
}

impl Disk for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        to_u64(self.content.lock().len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        read_image(&self.content.lock(), offset, out)
    }

    fn set_len(&self, length_bytes: u64) -> io::Result<()> {
        self.content.lock().resize(to_usize(length_bytes)?, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        write_image(&mut self.content.lock(), offset, data)
    }
}

/// Reads from a disk image in memory.
pub(super) fn read_image(image: &[u8], offset: u64, out: &mut [u8]) -> io::Result<()> {
    let start = to_usize(offset)?;
    let source =
        start.checked_add(out.len()).and_then(|end| image.get(start..end)).ok_or(io::ErrorKind::UnexpectedEof)?;
    out.copy_from_slice(source);
    Ok(())
}

/// Writes into a disk image in memory and lengthens it where needed, as a file does.
pub(super) fn write_image(image: &mut Vec<u8>, offset: u64, data: &[u8]) -> io::Result<()> {
    let start = to_usize(offset)?;
    let end = start.checked_add(data.len()).ok_or(io::ErrorKind::FileTooLarge)?;
    if image.len() < end {
        image.resize(end, 0);
    }
    if let Some(target) = image.get_mut(start..end) {
        target.copy_from_slice(data);
    }
    Ok(())
}

pub(super) fn to_usize(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

pub(super) fn to_u64(value: usize) -> io::Result<u64> {
    u64::try_from(value).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// Once set, no byte of the disk changes any more: a damaged file stays as it was found, for whoever examines it, and an
/// engine whose own state is in doubt after a failure cannot write that state out when it closes.
#[derive(Clone, Debug, Default)]
pub(super) struct Seal(Arc<AtomicBool>);

impl Seal {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> io::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "sealed after damage or a failure"));
        }
        Ok(())
    }
}

/// What the engine sees of a [`Disk`].
#[derive(Debug)]
pub(super) struct Backend {
    disk: Arc<dyn Disk>,
    seal: Seal,
}

impl Backend {
    pub(super) fn new(disk: Arc<dyn Disk>, seal: Seal) -> Self {
        Self { disk, seal }
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.disk.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.seal.check()?;
        self.disk.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.seal.check()?;
        self.disk.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.seal.check()?;
        self.disk.write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behaves_like_a_disk(disk: &dyn Disk) {
        assert!(disk.is_empty().unwrap());
        disk.write(3, b"abc").unwrap();
        assert_eq!(disk.len().unwrap(), 6);
        let mut found = [9; 6];
        disk.read(0, &mut found).unwrap();
        assert_eq!(&found, b"\0\0\0abc");
        let error = disk.read(1, &mut found).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        disk.set_len(4).unwrap();
        disk.set_len(5).unwrap();
        disk.read(0, &mut found[..5]).unwrap();
        assert_eq!(&found[..5], b"\0\0\0a\0", "lengthening fills with zeros");
        disk.sync().unwrap();
    }

    #[test]
    fn every_disk_behaves_alike() {
        behaves_like_a_disk(&MemoryDisk::new());
        behaves_like_a_disk(&FileDisk::new(tempfile::tempfile().unwrap()));
        behaves_like_a_disk(&crate::storage::fault::FaultyDisk::new());
    }

    #[test]
    fn a_sealed_backend_changes_nothing() {
        use redb::StorageBackend;
        let disk = MemoryDisk::from_image(vec![1, 2, 3]);
        let seal = Seal::default();
        let backend = Backend::new(Arc::new(disk.clone()), seal.clone());
        backend.write(0, &[7]).unwrap();
        seal.set();
        assert!(backend.write(0, &[8]).is_err());
        assert!(backend.set_len(0).is_err());
        assert!(backend.sync_data().is_err());
        assert_eq!(disk.image(), [7, 2, 3]);
    }
}
