//! Directories that cannot be used: each is refused with what is wrong and what to do, and nothing is changed.

use std::error::Error;
use std::path::Path;

use stockmesh::{DamagePolicy, InspectError, OpenError, Store, inspect};

use crate::cluster::node;
use crate::model::{Model, add, perform};

async fn open(path: &Path) -> Result<Store, OpenError> {
    Store::builder().data_dir(path).cluster("shops").shards(4).open().await
}

/// The whole text of an error, with its causes.
fn told(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn a_second_open_is_refused_and_disturbs_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await.unwrap();
    for policy in [DamagePolicy::Refuse, DamagePolicy::NewIncarnation] {
        let second = Store::builder().data_dir(root.path()).cluster("shops").shards(4).damage(policy).open().await;
        let error = second.unwrap_err();
        assert!(matches!(&error, OpenError::Locked { path } if path == root.path()), "{error}");
        assert!(error.to_string().contains(&root.path().display().to_string()), "{error}");
    }
    let error = inspect(root.path()).unwrap_err();
    assert!(error.to_string().contains("in use"), "{error}");
    perform(&store, &vec![add("MUG", 1)]).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(Model::of(&open(root.path()).await.unwrap()).on_hand(), 1);
}

#[tokio::test]
async fn a_directory_of_other_settings_is_refused_with_both_values() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path()).await.unwrap();
    perform(&store, &vec![add("MUG", 1)]).await.unwrap();
    let before = store.status();
    store.close().await.unwrap();
    for policy in [DamagePolicy::Refuse, DamagePolicy::NewIncarnation] {
        for (cluster, shards, expected) in
            [("other", 4, ("cluster id", "shops", "other")), ("shops", 8, ("shard count", "4", "8"))]
        {
            let builder = Store::builder().data_dir(root.path()).cluster(cluster).shards(shards).damage(policy);
            let error = builder.open().await.unwrap_err();
            let OpenError::OtherSettings { field, stored, wanted } = &error else { panic!("{error}") };
            assert_eq!((*field, stored.as_str(), wanted.as_str()), expected);
            let text = error.to_string();
            assert!([expected.0, expected.1, expected.2].iter().all(|part| text.contains(part)), "{text}");
        }
    }
    // The home location may change, and nothing else does.
    let builder = Store::builder().data_dir(root.path()).cluster("shops").shards(4).location("paris");
    let store = builder.open().await.unwrap();
    let after = store.status();
    assert_eq!(
        (after.replica, after.fingerprint, after.location.as_str()),
        (before.replica, before.fingerprint, "paris")
    );
}

#[tokio::test]
async fn a_path_that_cannot_be_a_directory_is_named() {
    let root = tempfile::tempdir().unwrap();
    let file = root.path().join("file");
    std::fs::write(&file, "goods").unwrap();
    for path in [file.clone(), file.join("below"), Path::new("/dev/null/below").to_owned()] {
        let error = open(&path).await.unwrap_err();
        assert!(matches!(error, OpenError::Storage(_)), "{error}");
        let text = told(&error);
        assert!(text.contains(&file.display().to_string()) || text.contains("/dev/null"), "{text}");
        assert!(text.contains("create the data directory"), "{text}");
        assert!(text.contains("exists") || text.contains("irectory"), "{text}");
        assert!(matches!(inspect(&path), Err(InspectError::NoStore { .. })));
    }
    assert_eq!(std::fs::read(&file).unwrap(), b"goods");
    let unset = Store::builder().open().await.unwrap_err();
    assert!(unset.to_string().contains("data_dir"), "{unset}");
    // Files of the store whose place is taken by something else.
    for name in ["LOCK", "mark", "store.redb"] {
        let directory = root.path().join(format!("taken-{name}"));
        std::fs::create_dir_all(directory.join(name)).unwrap();
        let text = told(&open(&directory).await.unwrap_err());
        assert!(text.contains(name), "{text}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_may_not_be_written_is_named() {
    use std::os::unix::fs::PermissionsExt;
    let root = tempfile::tempdir().unwrap();
    let read_only = root.path().join("read-only");
    std::fs::create_dir(&read_only).unwrap();
    std::fs::set_permissions(&read_only, PermissionsExt::from_mode(0o500)).unwrap();
    let may_write = std::fs::write(read_only.join("probe"), "").is_ok();
    for path in [read_only.clone(), read_only.join("below")] {
        match open(&path).await {
            // The superuser may write anywhere.
            Ok(_) => assert!(may_write),
            Err(error) => assert!(told(&error).contains("read-only") && told(&error).contains("denied"), "{error}"),
        }
    }
}

#[tokio::test]
async fn an_empty_directory_holds_no_store_and_a_look_into_it_leaves_it_empty() {
    let root = tempfile::tempdir().unwrap();
    assert!(matches!(inspect(root.path()), Err(InspectError::NoStore { .. })));
    assert!(matches!(inspect(root.path().join("missing")), Err(InspectError::NoStore { .. })));
    assert!(!root.path().join("missing").exists());
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0, "a look changes nothing");
}

/// Whoever tries again with another address must not be told that the directory is in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_free_again_after_an_open_that_failed_late() {
    let root = tempfile::tempdir().unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for round in 0..20 {
        let address = taken.local_addr().unwrap();
        let error = node("late").data_dir(root.path()).listen(address).open().await.unwrap_err();
        assert!(matches!(error, OpenError::Listen { .. }), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        let store = node("late").data_dir(root.path()).open().await;
        store.unwrap_or_else(|error| panic!("round {round}: {error}")).close().await.unwrap();
    }
}
