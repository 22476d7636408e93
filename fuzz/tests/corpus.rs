//! Replays every target's corpus on stable.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use stockmesh_fuzz::{TARGETS, files};

#[test]
fn every_corpus_is_there_and_passes() {
    for &(name, run) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let paths = files(&folder);
        assert!(
            !paths.is_empty(),
            "{} is empty: `cargo run -p stockmesh-fuzz --example seeds` fills it",
            folder.display()
        );
        for path in paths {
            println!("{}", path.display());
            run(&fs::read(&path).unwrap());
        }
    }
}
