//! What may go wrong before a link is up (rules H1, H2).

use std::collections::BTreeMap;

use stockmesh_proto::wire::Message;
use tokio::task::{Id, JoinSet};

use super::{Stage, case};
use crate::support::raw::{Raw, frame, hello, read, write};

pub(super) fn spawn(stage: &Stage, cases: &mut JoinSet<&'static str>, names: &mut BTreeMap<Id, &'static str>) {
    case!(stage, cases, names, garbage_instead_of_a_hello);
    case!(stage, cases, names, a_hello_without_a_field);
    case!(stage, cases, names, a_hello_that_is_too_long);
    case!(stage, cases, names, another_frame_than_a_hello);
    case!(stage, cases, names, a_hello_that_never_comes);
    case!(stage, cases, names, a_hello_that_drips);
    case!(stage, cases, names, a_push_before_the_hello);
    case!(stage, cases, names, a_hello_with_unknown_fields);
    case!(stage, cases, names, an_unknown_feature_that_is_required);
}

async fn silent(stage: &Stage) -> Raw {
    Raw::silent(&stage.mesh, stage.victim.local_addr().unwrap()).await
}

async fn assert_refused(stage: &Stage, first: &[u8], word: &str) {
    let raw = silent(stage).await;
    let _streams = raw.session_bytes(first, false).await;
    stage.assert_closed(&raw, word).await;
}

async fn garbage_instead_of_a_hello(stage: Stage) {
    assert_refused(&stage, &frame(1, b"\xc1garbage"), "cannot be read").await;
}

/// Rule W5: a missing key is refused.
async fn a_hello_without_a_field(stage: Stage) {
    #[derive(serde::Serialize)]
    struct Short {
        cluster: &'static str,
        shards: u32,
    }
    let body = rmp_serde::to_vec_named(&Short { cluster: "stockmesh", shards: 16 }).unwrap();
    assert_refused(&stage, &frame(1, &body), "missing field").await;
}

async fn a_hello_that_is_too_long(stage: Stage) {
    assert_refused(&stage, &1025_u32.to_be_bytes(), "exceeds the limit of 1024").await;
}

async fn another_frame_than_a_hello(stage: Stage) {
    assert_refused(&stage, &Message::End.encode().unwrap(), "something else than a hello").await;
}

async fn a_hello_that_never_comes(stage: Stage) {
    let raw = silent(&stage).await;
    stage.assert_closed(&raw, "no hello within 5 s").await;
}

async fn a_hello_that_drips(stage: Stage) {
    assert_refused(&stage, &[0, 0], "no hello within 5 s").await;
}

/// Rule H1: no other frame is handled before the hello.
async fn a_push_before_the_hello(stage: Stage) {
    let raw = silent(&stage).await;
    let push = Message::Push(super::push_of(raw.replica, "TOO-EARLY", 1, 1)).encode().unwrap();
    let _stream = raw.push_bytes(&push, true).await;
    stage.assert_closed(&raw, "no hello within 5 s").await;
    assert!(stage.victim.get("TOO-EARLY").is_err());
}

/// Rule W5: keys that the reader does not know are skipped, so that a later version can add one.
async fn a_hello_with_unknown_fields(stage: Stage) {
    #[derive(serde::Serialize)]
    struct Newer {
        invented_later: Vec<u32>,
        #[serde(flatten)]
        known: stockmesh_proto::wire::Hello,
        also_new: &'static str,
    }
    let raw = silent(&stage).await;
    let newer = Newer { invented_later: vec![1, 2, 3], known: hello(raw.replica), also_new: "text" };
    let body = rmp_serde::to_vec_named(&newer).unwrap();
    let (_send, mut receive) = raw.session_bytes(&frame(1, &body), false).await;
    assert!(matches!(read(&mut receive).await, Some(Message::Hello(_))));
    stage.assert_alive(&raw).await;
}

async fn an_unknown_feature_that_is_required(stage: Stage) {
    let raw = silent(&stage).await;
    let mut newer = hello(raw.replica);
    newer.features_required = 1 << 40;
    let (mut send, mut receive) = raw.connection.open_bi().await.unwrap();
    write(&mut send, &Message::Hello(newer)).await;
    match read(&mut receive).await {
        Some(Message::Refuse(refusal)) => assert!(refusal.reason.contains("update the older one"), "{refusal:?}"),
        other => panic!("answered with {other:?}"),
    }
    drop(receive);
    stage.assert_closed(&raw, "0x10000000000").await;
}
