//! What the store knows, in the form in which clients are told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stockmesh_proto::Location;
use stockmesh_proto::limits::{CLIENT_LOCATIONS_MAX, CLIENT_NOTES_MAX, CLIENT_PEERS_MAX};
use stockmesh_proto::wire::client::{
    Amount, Change as ChangeInfo, ChangeKind, DurabilityInfo, DurabilityState, Failure, FailureCode, HoldInfo,
    HoldStanding, Label, LocationStock, MemberCounts, MemberInfo, MemberStanding, PeerInfo, PeerState, ProductInfo,
    RefusalInfo, Shown, StatusInfo, Text, Welcome,
};

use crate::error::WriteError;
use crate::hold::{Hold, HoldState};
use crate::member::{Member, MemberState};
use crate::net::{LinkState, PeerStatus};
use crate::status::{Durability, Status};
use crate::store::Store;
use crate::subscribe::Change;
use crate::view::{ProductView, StockView};

/// Name and version of this software.
pub(super) fn software() -> Text {
    Text::new(concat!("stockmesh ", env!("CARGO_PKG_VERSION")))
}

pub(super) fn welcome(store: &Store) -> Welcome {
    let replica = store.replica();
    Welcome {
        cluster: replica.cluster.clone(),
        replica: Shown(store.replica_id()),
        location: replica.location.clone(),
        software: software(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn since_1970_ms(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map(milliseconds).unwrap_or_default()
}

fn stock(location: Location, stock: StockView) -> LocationStock {
    LocationStock {
        location,
        on_hand: Shown(stock.on_hand),
        held: Shown(stock.held),
        available: Shown(stock.available()),
        oversold: Shown(stock.oversold),
    }
}

/// A product, with the figures of one location or of all.
pub(super) fn product(view: &ProductView, at: Option<&Location>) -> ProductInfo {
    let mut by_location = view.by_location();
    by_location.retain(|(location, _)| at.is_none_or(|at| at == location));
    let all = match at {
        Some(_) => by_location.first().map(|(_, stock)| *stock).unwrap_or_default(),
        None => StockView { on_hand: view.on_hand(), held: view.held(), oversold: view.oversold() },
    };
    let locations_total = u64::try_from(by_location.len()).unwrap_or(u64::MAX);
    ProductInfo {
        sku: view.sku().clone(),
        on_hand: Shown(all.on_hand),
        held: Shown(all.held),
        available: Shown(all.available()),
        oversold: Shown(all.oversold),
        price: view.price().map(Amount),
        listed: view.listed(),
        locations: by_location.into_iter().take(CLIENT_LOCATIONS_MAX).map(|(at, view)| stock(at, view)).collect(),
        locations_total,
    }
}

/// What a product takes in a frame, by an estimate that is never too low.
pub(super) fn product_bytes(product: &ProductInfo) -> usize {
    512 + 320 * product.locations.len()
}

pub(super) fn change(change: Change, at: Option<&Location>) -> ChangeInfo {
    let of = |kind, view: &ProductView| ChangeInfo { product: Some(product(view, at)), ..ChangeInfo::new(kind) };
    match change {
        Change::Product(view) => of(ChangeKind::Product, &view),
        Change::LowStock { product, available, below } => ChangeInfo {
            available: Some(Shown(available)),
            below: Some(Shown(below)),
            ..of(ChangeKind::LowStock, &product)
        },
        Change::OutOfStock(view) => of(ChangeKind::OutOfStock, &view),
        Change::BackInStock(view) => of(ChangeKind::BackInStock, &view),
        Change::NewIncarnation { former, own, .. } => ChangeInfo {
            former: Some(Shown(former)),
            replica: Some(Shown(own)),
            ..ChangeInfo::new(ChangeKind::NewIncarnation)
        },
        Change::IdentityExpires { at } => {
            ChangeInfo { at_ms: Some(since_1970_ms(at)), ..ChangeInfo::new(ChangeKind::IdentityExpires) }
        }
        Change::Member(of) => ChangeInfo { member: Some(Box::new(member(of))), ..ChangeInfo::new(ChangeKind::Member) },
        Change::Lagged { missed } => ChangeInfo { missed: Some(missed), ..ChangeInfo::new(ChangeKind::Lagged) },
    }
}

pub(super) fn hold(hold: &Hold) -> HoldInfo {
    HoldInfo {
        id: Shown(hold.id()),
        sku: hold.sku().clone(),
        location: hold.location().clone(),
        units: hold.units(),
        expires_ms: since_1970_ms(hold.expires_at()),
        reference: hold.reference().cloned(),
        state: match hold.state() {
            HoldState::Active => HoldStanding::Active,
            HoldState::Committed { .. } => HoldStanding::Committed,
            HoldState::Released { .. } => HoldStanding::Released,
            HoldState::Expired { .. } => HoldStanding::Expired,
        },
    }
}

pub(super) fn member(member: Member) -> MemberInfo {
    let label = |(name, value): (String, String)| Label { name: Text::new(name), value: Text::new(value) };
    MemberInfo {
        replica: Shown(member.replica),
        address: Text::new(member.address),
        location: member.location,
        labels: member.labels.into_iter().take(CLIENT_NOTES_MAX).map(label).collect(),
        version: Text::new(member.version),
        read_only: member.read_only,
        state: match member.state {
            MemberState::Alive => MemberStanding::Alive,
            MemberState::Suspect => MemberStanding::Suspect,
            MemberState::Down => MemberStanding::Down,
            MemberState::Left => MemberStanding::Left,
        },
    }
}

fn count(members: &[Member]) -> MemberCounts {
    let of = |state| u64::try_from(members.iter().filter(|member| member.state == state).count()).unwrap_or(u64::MAX);
    MemberCounts {
        alive: of(MemberState::Alive),
        suspect: of(MemberState::Suspect),
        down: of(MemberState::Down),
        left: of(MemberState::Left),
    }
}

fn peer(peer: PeerStatus) -> PeerInfo {
    PeerInfo {
        address: Text::new(peer.address),
        replica: peer.replica.map(Shown),
        location: peer.location,
        certificate: peer.certificate.map(Text::new),
        state: match peer.state {
            LinkState::Connecting => PeerState::Connecting,
            LinkState::Up => PeerState::Up,
            LinkState::BackingOff => PeerState::BackingOff,
        },
        skew_ms: peer.skew_ms,
        lag_writes: peer.lag_writes,
        reconciled_ago_ms: peer.reconciled_ago.map(milliseconds),
        round_trip_us: peer.round_trip.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX)),
        last_error: peer.last_error.map(Text::new),
    }
}

pub(super) fn status(status: Status, members: &[Member]) -> StatusInfo {
    let former = status.former_replicas.len().saturating_sub(CLIENT_NOTES_MAX);
    let durability = match status.durability {
        Durability::Synced => DurabilityInfo { state: DurabilityState::Synced, cause: None },
        Durability::Poisoned { cause } => {
            DurabilityInfo { state: DurabilityState::Poisoned, cause: Some(Text::new(cause)) }
        }
        Durability::Closed => DurabilityInfo { state: DurabilityState::Closed, cause: None },
    };
    let refusal = |refused: crate::net::Refused| RefusalInfo {
        address: Text::new(refused.address),
        reason: Text::new(refused.reason),
    };
    StatusInfo {
        replica: Shown(status.replica),
        former_replicas: status.former_replicas.into_iter().skip(former).map(Shown).collect(),
        cluster: status.cluster,
        location: status.location,
        software: software(),
        fingerprint: Text::new(status.fingerprint),
        products: status.products,
        slots: status.slots,
        holds: status.holds,
        durability,
        last_batch: status.last_batch,
        journal_bytes: status.journal_bytes,
        shards_in_doubt: status.shards_in_doubt,
        offline: status.offline,
        listen: status.listen.map(Text::new),
        identity_expires_ms: status.identity_expires.map(since_1970_ms),
        members: count(members),
        peers_total: u64::try_from(status.peers.len()).unwrap_or(u64::MAX),
        peers: status.peers.into_iter().take(CLIENT_PEERS_MAX).map(peer).collect(),
        refusals: status.refusals.into_iter().take(CLIENT_NOTES_MAX).map(refusal).collect(),
        bytes_sent: status.bytes_sent,
        bytes_received: status.bytes_received,
    }
}

/// A failed write, with what it means for the data.
pub(super) fn failure(error: &WriteError) -> Failure {
    match error {
        WriteError::Invalid(_) => Failure::new(FailureCode::Invalid, error),
        WriteError::ReadOnly => Failure::new(FailureCode::ReadOnly, error),
        WriteError::Refused(_) => Failure::new(FailureCode::Refused, error),
        WriteError::Insufficient { wanted, here, elsewhere, unreachable, .. } => Failure {
            wanted: Some(*wanted),
            here: Some(*here),
            elsewhere: Some(*elsewhere),
            unreachable: Some(*unreachable),
            ..Failure::new(FailureCode::Insufficient, error)
        },
        WriteError::HoldForgotten { .. } => Failure::new(FailureCode::HoldForgotten, error),
        WriteError::Closed | WriteError::Leaving => Failure::new(FailureCode::Closed, error),
        WriteError::Poisoned { .. } => Failure::new(FailureCode::Poisoned, error),
        WriteError::Indeterminate { .. } => Failure::indeterminate(FailureCode::Indeterminate, error),
    }
}
