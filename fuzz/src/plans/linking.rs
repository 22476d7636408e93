//! Whom to link with (rules T1 to T5), and whom a push goes to (rules P3, P4).

use std::collections::BTreeSet;

use arbitrary::{Arbitrary, Result, Unstructured};
use stockmesh_proto::gossip::{choose, note_told};
use stockmesh_proto::limits::PUSH_TOLD_MAX;
use stockmesh_proto::topology::{LinkBudget, Linked, Peer, View, dials_first, reconcile_with};
use stockmesh_proto::wire::Push;
use stockmesh_proto::{Location, ReplicaId};

/// As the fuzzer's bytes have it; when they are used up, always the same.
struct Random<'a, 'b>(&'a mut Unstructured<'b>);

impl Random<'_, '_> {
    fn draw(&mut self) -> u64 {
        u64::arbitrary(self.0).unwrap_or_default()
    }
}

fn replica(number: u8) -> ReplicaId {
    ReplicaId::from_random(1 + u64::from(number))
}

fn different(all: &[ReplicaId]) -> bool {
    all.iter().collect::<BTreeSet<_>>().len() == all.len()
}

pub(super) fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let places = ["here", "there", "far away"].map(|name| Location::new(name).unwrap());
    let own = replica(u8::arbitrary(input)?);
    let budget = LinkBudget::new(usize::from(u8::arbitrary(input)? % 66));
    let Ok(budget) = budget else { return Ok(()) };
    let (mut peers, mut links) = (Vec::new(), Vec::new());
    // Peers are different from each other, as the members of a list are.
    let count = u8::arbitrary(input)?;
    for number in 0..count {
        let bits = u8::arbitrary(input)?;
        let (replica, location) = (replica(number), &places[usize::from(bits % 4) % places.len()]);
        peers.push(Peer { replica, location, may_be_dialled: bits & 4 == 0 });
        if bits & 16 != 0 && replica != own {
            links.push(Linked { replica, location, is_own: bits & 32 != 0, may_be_ended: bits & 64 == 0 });
        }
    }
    let view = View { own, home: &places[0], peers: &peers, links: &links, budget };
    check_view(view, &mut Random(input));
    // Of anybody: a push that is passed on has another origin than this node.
    check_pushes(replica(u8::arbitrary(input)?), &links, input)?;
    let locations: Vec<&Location> = links.iter().map(|link| link.location).collect();
    let picked = reconcile_with(&places[0], &locations, &mut || u64::arbitrary(input).unwrap_or_default());
    assert_eq!(picked.is_some(), !locations.is_empty());
    assert!(picked.is_none_or(|place| place < locations.len()));
    Ok(())
}

fn check_view(view: View<'_>, random: &mut Random<'_, '_>) {
    let linked: Vec<ReplicaId> = view.links.iter().map(|link| link.replica).collect();
    let may_be_dialled =
        |who: &ReplicaId| view.peers.iter().any(|peer| peer.replica == *who && peer.may_be_dialled && *who != view.own);
    let others = view.peers.iter().filter(|peer| peer.replica != view.own);
    let budget = view.budget;
    let plan = view.plan(&mut || random.draw());
    assert!(different(&plan.dial) && different(&plan.end));
    assert!(plan.dial.iter().all(|who| may_be_dialled(who) && !linked.contains(who)), "{plan:?}");
    let may_be_ended = |who: &ReplicaId| view.links.iter().any(|link| link.replica == *who && link.may_be_ended);
    assert!(plan.end.iter().all(may_be_ended), "{plan:?}");
    if others.clone().count() <= budget.links() {
        assert!(plan.end.is_empty(), "no link is ended while all are to be linked");
        let open = others.clone().filter(|peer| peer.may_be_dialled && !linked.contains(&peer.replica));
        assert_eq!(plan.dial.len(), open.count());
    } else {
        assert!(plan.dial.len() <= budget.own());
    }
    assert!(view.far_wanted() <= budget.own());
    if let Some(replacement) = view.refresh(&mut || random.draw()) {
        assert!(may_be_dialled(&replacement.new) && !linked.contains(&replacement.new));
        assert!(view.links.iter().any(|link| link.replica == replacement.old && link.is_own && link.may_be_ended));
    }
    for peer in others {
        assert_ne!(dials_first(view.own, peer.replica), dials_first(peer.replica, view.own), "both, or none");
    }
}

fn check_pushes(origin: ReplicaId, links: &[Linked<'_>], input: &mut Unstructured<'_>) -> Result<()> {
    let told = (0..u8::arbitrary(input)? % 80).map(|_| Ok(replica(u8::arbitrary(input)?))).collect::<Result<_>>()?;
    let mut push = Push { origin, told, shards: Vec::new() };
    let fan_out = usize::from(u8::arbitrary(input)? % 20);
    let linked: Vec<ReplicaId> = links.iter().map(|link| link.replica).collect();
    let chosen = choose(&linked, &push, fan_out, &mut || u64::arbitrary(input).unwrap_or_default());
    let lacks = linked.iter().filter(|who| **who != origin && !push.told.contains(who)).count();
    assert!(different(&chosen) && chosen.len() == lacks.min(fan_out));
    assert!(chosen.iter().all(|who| linked.contains(who) && !push.told.contains(who) && *who != origin));
    let before = push.told.clone();
    note_told(&mut push, &chosen);
    assert!(push.told.starts_with(&before) && push.told.len() <= PUSH_TOLD_MAX.max(before.len()));
    assert!(push.told.len() == PUSH_TOLD_MAX.max(before.len()) || chosen.iter().all(|who| push.told.contains(who)));
    Ok(())
}
