//! What one node chooses.

use std::collections::BTreeSet;

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use stockmesh_proto::topology::{LinkBudget, Linked, Peer, View, dials_first, reconcile_with};
use stockmesh_proto::{Location, ReplicaId};

use super::graph::Chance;
use crate::support::{config, location, replica_id};

/// A member: its location, whether it may be dialled; and its link: whether it is own and may be ended.
type Member = (usize, bool, Option<(bool, bool)>);

prop_compose! {
    fn member()(place in 0..3_usize, dialled in prop::bool::weighted(0.8), linked in prop::bool::weighted(0.3), own: bool, ended: bool) -> Member {
        (place, dialled, linked.then_some((own, ended)))
    }
}

proptest! {
    #![proptest_config(config(400))]

    #[test]
    fn a_plan_keeps_to_its_bounds(members in btree_map(1..500_u64, member(), 0..120), links in 2..40_usize, seed: u64) {
        let places: Vec<Location> = (0..3).map(|place| location(&place.to_string())).collect();
        let peers: Vec<Peer<'_>> = (members.iter())
            .map(|(id, (place, may, _))| Peer { replica: replica_id(*id), location: &places[*place], may_be_dialled: *may })
            .collect();
        let linked: Vec<Linked<'_>> = (members.iter())
            .filter_map(|(id, (place, _, link))| link.map(|(is_own, may_be_ended)| Linked {
                replica: replica_id(*id), location: &places[*place], is_own, may_be_ended,
            }))
            .collect();
        let own = replica_id(1_000);
        let budget = LinkBudget::new(links).unwrap();
        let view = View { own, home: &places[0], peers: &peers, links: &linked, budget };
        let mut chance = Chance::new(seed);
        let plan = view.plan(&mut || chance.draw());

        let ids: BTreeSet<ReplicaId> = linked.iter().map(|link| link.replica).collect();
        let (dial, end): (BTreeSet<_>, BTreeSet<_>) = (plan.dial.iter().collect(), plan.end.iter().collect());
        prop_assert_eq!((dial.len(), end.len()), (plan.dial.len(), plan.end.len()), "nobody twice");
        for replica in &plan.dial {
            let peer = peers.iter().find(|peer| peer.replica == *replica).unwrap();
            prop_assert!(peer.may_be_dialled && !ids.contains(replica) && *replica != own);
        }
        for replica in &plan.end {
            prop_assert!(linked.iter().any(|link| link.replica == *replica && link.may_be_ended));
        }
        let open = peers.iter().filter(|peer| peer.may_be_dialled && !ids.contains(&peer.replica)).count();
        if peers.len() <= links {
            prop_assert_eq!((plan.dial.len(), plan.end.len()), (open, 0));
            prop_assert_eq!(view.refresh(&mut || chance.draw()), None);
            return Ok(());
        }
        let dialled = linked.iter().filter(|link| link.is_own).count();
        if !plan.dial.is_empty() {
            prop_assert!(dialled + plan.dial.len() <= budget.own().max(4));
            prop_assert!(linked.len() + plan.dial.len() <= links.max(linked.len() + 4));
        }
        // Whoever has fewer links than it should dials as many as there are.
        if linked.len() < links && dialled < budget.own() {
            prop_assert_eq!(plan.dial.len(), open.min(budget.own() - dialled).min((links - linked.len()).max(4_usize.min(budget.own()).saturating_sub(dialled))));
        }
        // Of the own ones it ends as many as are too many, if all links together are.
        let own_ended = linked.iter().filter(|link| link.is_own && end.contains(&link.replica)).count();
        let own_endable = linked.iter().filter(|link| link.is_own && link.may_be_ended).count();
        let own_too_many = dialled.saturating_sub(budget.own()).min(linked.len().saturating_sub(links));
        prop_assert_eq!(own_ended, own_too_many.min(own_endable));
        // Ends nothing while it has no more than it should, and leaves so many.
        prop_assert!(plan.end.is_empty() || linked.len() - plan.end.len() >= links);
        let may_end = linked.iter().filter(|link| link.may_be_ended && !link.is_own).count();
        prop_assert!(linked.len() - plan.end.len() <= budget.kept_max().max(linked.len() - may_end));
    }

    #[test]
    fn a_replacement_is_one_that_was_not_linked_for_the_oldest(
        far in vec(any::<bool>(), 80),
        linked in 1..60_usize,
        seed: u64,
    ) {
        let places = [location("here"), location("there")];
        let at = |number: usize| &places[usize::from(far[number])];
        let id = |number: usize| replica_id(number as u64 + 1);
        let peers: Vec<Peer<'_>> =
            (0..80).map(|number| Peer { replica: id(number), location: at(number), may_be_dialled: true }).collect();
        let links: Vec<Linked<'_>> = (0..linked)
            .map(|number| Linked { replica: id(number), location: at(number), is_own: number % 3 > 0, may_be_ended: number % 5 > 0 })
            .collect();
        let budget = LinkBudget::new(64).unwrap();
        let view = View { own: replica_id(1_000), home: &places[0], peers: &peers, links: &links, budget };
        let mut chance = Chance::new(seed);
        let oldest = links.iter().find(|link| link.is_own && link.may_be_ended);
        let Some(replaced) = view.refresh(&mut || chance.draw()) else {
            prop_assert!(oldest.is_none());
            return Ok(());
        };
        prop_assert_eq!(Some(replaced.old), oldest.map(|link| link.replica));
        let new = (linked..80).find(|number| id(*number) == replaced.new);
        prop_assert!(new.is_some(), "it was linked already");
        let same_kind = (linked..80).any(|number| at(number) == oldest.unwrap().location);
        prop_assert!(!same_kind || at(new.unwrap()) == oldest.unwrap().location, "far for far, near for near");
    }
}

/// Of each pair one dials first, and each member about half of its pairs.
#[test]
fn the_first_to_dial_is_one_of_two_and_nobody_dials_all() {
    let mut chance = Chance::new(3);
    let ids: Vec<ReplicaId> = (0..64).map(|_| ReplicaId::from_random(chance.draw())).collect();
    for one in &ids {
        let others = ids.iter().filter(|other| *other != one);
        assert!(others.clone().all(|other| dials_first(*one, *other) != dials_first(*other, *one)));
        let dialled = others.filter(|other| dials_first(*one, **other)).count();
        assert!((12..=52).contains(&dialled), "{dialled} of 63");
    }
}

/// One reconciliation of four goes elsewhere on purpose; the rest goes to anybody.
#[test]
fn reconciliations_reach_everybody_and_other_locations_now_and_then() {
    let (here, there) = (location("here"), location("there"));
    let mut chance = Chance::new(4);
    assert_eq!(reconcile_with(&here, &[], &mut || chance.draw()), None);
    let mut locations = vec![&here; 99];
    locations.push(&there);
    let mut counts = [0_u32; 100];
    for _ in 0..20_000 {
        counts[reconcile_with(&here, &locations, &mut || chance.draw()).unwrap()] += 1;
    }
    assert!((4_600..5_600).contains(&counts[99]), "a quarter and a hundredth of the rest: {}", counts[99]);
    assert!(counts.iter().all(|count| *count > 80), "{counts:?}");
    let alone = [&here, &here];
    let both: BTreeSet<_> = (0..50).filter_map(|_| reconcile_with(&here, &alone, &mut || chance.draw())).collect();
    assert_eq!(both.len(), 2, "where there is no other location, anybody");
}
