//! Whether links may go on: this node's identity may change while they are open.

use metrics::{counter, gauge};
use quinn::Connection;
use stockmesh_proto::ReplicaId;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::certificate::CertificateFingerprint;
use super::identity::Identity;
use super::link::Link;
use super::refusal::{CloseCode, NEW_CERTIFICATE};
use super::revocation::{RevocationFile, Revoked};
use super::shared::Shared;
use crate::limits::{REVOCATIONS_LOOK_EVERY, ROTATION_TIME};

/// Uses another identity from now on: for new links at once, and open ones are looked at again.
pub(super) fn rotate(shared: &Shared, identity: Identity) {
    let server = (*shared.server(&identity)).clone();
    if shared.current.borrow().identity.uses_raw_keys() != identity.uses_raw_keys() {
        shared.registry.forget_nodes();
    }
    if shared.is_read_only() != identity.is_read_only() {
        shared.stranded.begin_anew();
    }
    shared.committer.set_read_only(identity.is_read_only());
    shared.current.send_modify(|current| {
        if !current.identity.has_same_certificate(&identity) {
            current.rotated = Some(Instant::now());
        }
        current.identity = identity.clone();
    });
    shared.endpoint.set_server_config(Some(server));
    info!(certificate = %identity.fingerprint(), "the identity was reloaded");
    review_all(shared);
}

/// Whether this node changed its certificate lately. A peer may then not have learnt yet that the link under the former
/// one was closed, and take this node for an impostor of itself.
pub(super) fn rotated_lately(shared: &Shared) -> bool {
    shared.current.borrow().rotated.is_some_and(|since| since.elapsed() < ROTATION_TIME)
}

/// Closes those links that may not go on.
pub(super) fn review_all(shared: &Shared) {
    shared.registry.links().iter().for_each(|link| review(link, shared));
    #[cfg(feature = "clients")]
    shared.clients.review(|entry| untrusted_client(entry, shared));
}

/// Closes the link if it may not go on.
pub(super) fn review(link: &Link, shared: &Shared) {
    if let Some(reason) = revoked(link.fingerprint, shared) {
        return link.close(CloseCode::NotTrusted, &reason);
    }
    let current = shared.current.borrow().identity.clone();
    if current.is_same(&link.identity) {
        return;
    }
    if !current.has_same_certificate(&link.identity) {
        return link.close(CloseCode::NewCertificate, NEW_CERTIFICATE);
    }
    if let Err(error) = current.trusts(&link.chain, link.dialled_by == link.replica) {
        let reason = format!(
            "the node does not trust the peer's certificate {} any more ({error}): both need certificates of an \
             authority that the other trusts",
            link.fingerprint
        );
        return link.close(CloseCode::NotTrusted, &reason);
    }
    // With raw keys the role is on this node's list, and may change.
    if current.certified(&link.chain).map_or(true, |certified| certified.read_only != link.read_only) {
        link.close(CloseCode::NotTrusted, "the peer has another role now, and links anew");
    }
}

/// Looks at the file now and then. What cannot be read changes nothing: a slip of the pen must not let anybody in.
pub(super) async fn watch_revocations(mut file: RevocationFile, shared: Shared) {
    gauge!("stockmesh_revocations").set(count(&file.list()));
    loop {
        tokio::time::sleep(REVOCATIONS_LOOK_EVERY).await;
        let looking = crate::blocking::run(move || {
            let looked = file.look();
            (file, looked)
        });
        let Ok((same, looked)) = looking.await else { return };
        file = same;
        match looked {
            None => {}
            Some(Ok(list)) => {
                info!(certificates = list.len(), "the list of revoked certificates was read again");
                gauge!("stockmesh_revocations").set(count(&list));
                shared.revoked.send_replace(list);
                review_all(&shared);
            }
            Some(Err(error)) => {
                counter!("stockmesh_revocations_errors_total").increment(1);
                error!(%error, "the list of revoked certificates is not used; the one from before counts on");
            }
        }
    }
}

fn count(list: &Revoked) -> f64 {
    u32::try_from(list.len()).map_or(f64::MAX, f64::from)
}

/// Why a certificate is not let in, if it is revoked.
pub(super) fn revoked(certificate: CertificateFingerprint, shared: &Shared) -> Option<String> {
    shared.revoked.borrow().contains(&certificate).then(|| {
        format!(
            "certificate {certificate} is on a list of revoked certificates: its node needs a new one, or must be \
             taken off the list of the node that refuses it"
        )
    })
}

/// Why a client is not served any more, if it is not trusted.
#[cfg(feature = "clients")]
pub(super) fn untrusted_client(entry: &super::client_links::Entry, shared: &Shared) -> Option<String> {
    let identity = shared.current.borrow().identity.clone();
    let of_authority = || {
        let error = identity.trusts(&entry.chain, true).err()?;
        Some(format!("the node does not trust the certificate {} any more ({error})", entry.fingerprint))
    };
    revoked(entry.fingerprint, shared).or_else(of_authority)
}

/// Whether this node gives up its replica id at the word of the peer: not of a read-only member (rule K2).
pub(super) fn may_take_ids(connection: &Connection, shared: &Shared) -> bool {
    let identity = shared.current.borrow().identity.clone();
    let may = identity.certified(&Identity::chain_of_peer(connection)).is_ok_and(|certified| !certified.read_only);
    if !may {
        warn!(address = %connection.remote_address(), "a peer that may not write wants this node to give up its replica id");
    }
    may
}

/// Why a replica is not linked with any more, if it was retired (rule Q2).
pub(super) fn retired(replica: ReplicaId, shared: &Shared) -> Option<String> {
    let heir = shared.committer.retired(|retired| retired.get(&replica).map(|retirement| retirement.heir))?;
    if heir == replica {
        return Some(format!("replica {replica} was retired: its node goes on under a new replica id"));
    }
    Some(format!(
        "replica {replica} was retired, and replica {heir} took over for it: its node goes on under a new replica id"
    ))
}
