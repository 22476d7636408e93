//! File systems of a test's own.

use std::path::{Path, PathBuf};

use crate::process::{PATIENCE, until};
use crate::tools::{attempt, run};

/// A file system that is mounted for as long as this lives.
pub(crate) struct Mount {
    at: PathBuf,
    /// The file that stands for the device.
    image: Option<PathBuf>,
}

impl Mount {
    /// In memory, of so many megabytes.
    pub(crate) fn small(at: &Path, megabytes: u64) -> Result<Self, String> {
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        attempt(&format!("mount -t tmpfs -o size={megabytes}m tmpfs {}", at.display()))?;
        Ok(Self { at: at.to_owned(), image: None })
    }

    /// Makes it so large.
    pub(crate) fn grow(&self, megabytes: u64) {
        run(&format!("mount -o remount,size={megabytes}m {}", self.at.display()));
    }

    /// With a device of its own, whose power can be cut.
    pub(crate) fn on_device(at: &Path, megabytes: u64) -> Result<Self, String> {
        attempt("xfs_io -V")?;
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let image = at.with_extension("image");
        attempt(&format!("truncate -s {megabytes}M {}", image.display()))?;
        attempt(&format!("mkfs.ext4 -q -F {}", image.display()))?;
        attempt(&format!("mount -o loop {} {}", image.display(), at.display()))?;
        Ok(Self { at: at.to_owned(), image: Some(image) })
    }

    /// From now on nothing reaches the device any more: what the file system had not written is lost, its journal included.
    pub(crate) fn cut_power(&self) {
        run(&format!("xfs_io -x -c shutdown {}", self.at.display()));
    }

    /// Mounts anew what is on the device. Nobody may have files open.
    pub(crate) fn restore_power(&self) {
        let image = self.image.as_ref().expect("there is a device");
        run(&format!("umount {}", self.at.display()));
        // Else it would be mounted as it is in memory. Programs that other tests start may hold copies of the mount for a moment.
        let is_free = || run(&format!("losetup --associated {}", image.display())).is_empty();
        until("the device is free", PATIENCE, is_free);
        run(&format!("mount -o loop {} {}", image.display(), self.at.display()));
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Processes may still run if the test failed.
        let _ = attempt(&format!("umount -l {}", self.at.display()));
    }
}
