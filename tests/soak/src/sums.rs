//! Nothing that was acknowledged is lost, and nothing is oversold: the sums at the end against what callers were told.

use crate::drive::Drive;
use crate::process::Status;
use crate::soaking::{NODES, name};
use crate::told::{Kind, Sums, read};

type Range = (i128, i128);

fn is_in(found: i128, (least, most): Range) -> bool {
    (least..=most).contains(&found)
}

/// Needs the statuses of all nodes, and what one of them told at the end.
pub(crate) fn check(drive: &Drive, hold: &mut dyn FnMut(&str, bool, &str)) {
    let statuses = &drive.statuses;
    let is_equal =
        statuses.len() == NODES && statuses.windows(2).all(|pair| pair[0].fingerprint == pair[1].fingerprint);
    hold("all nodes hold the same", is_equal, &format!("{} nodes", statuses.len()));
    let told: Vec<Sums> = drive.world.nodes.iter().map(|node| read(&node.file("told"))).collect();
    let sum = |kind: Kind| -> Range {
        let bounds = told.iter().map(|sums| sums.of(kind).bounds());
        bounds.fold((0, 0), |sum, bounds| (sum.0 + bounds.0, sum.1 + bounds.1))
    };
    let last: Vec<i128> = drive.last.iter().filter_map(|word| word.parse().ok()).collect();
    let [on_hand, held, oversold, paired, apart, counted @ ..] = last.as_slice() else {
        return hold("the sums are told", false, &format!("{:?}", drive.last));
    };
    own(statuses, &told, hold);
    let (stocked, sold) = (sum(Kind::Stocked), sum(Kind::Sold));
    let left = (stocked.0 - sold.1, stocked.1 - sold.0);
    let found = format!("{on_hand} are left; {stocked:?} came in and {sold:?} were sold, which leaves {left:?}");
    hold("sales and receipts add up", is_in(*on_hand, left), &found);
    let found = format!("{oversold} oversold, {held} held after all holds ran out");
    hold("nothing is oversold, and no hold is left", *oversold == 0 && *held == 0, &found);
    let pairs = sum(Kind::Paired);
    let found = format!("{apart} pairs differ, {paired} units of {pairs:?}");
    hold("batches are whole", *apart == 0 && is_in(*paired, pairs), &found);
    let good = |(found, told): (&i128, &Sums)| *found == told.counted.0.into() || *found == told.counted.1.into();
    let is_good = counted.len() == NODES && counted.iter().zip(&told).all(good);
    hold("the last stocktake counts", is_good, &format!("{counted:?}"));
    hold("nothing odd was told", drive.odd.is_empty(), &format!("{:?}", drive.odd.iter().take(10).collect::<Vec<_>>()));
}

/// What each node counted in alone.
fn own(statuses: &[Status], told: &[Sums], hold: &mut dyn FnMut(&str, bool, &str)) {
    let Some(status) = statuses.first() else { return };
    let mut wrong = Vec::new();
    let mut units = 0;
    for (node, told) in told.iter().enumerate() {
        let found = status.owns.get(&name(node)).copied().unwrap_or_default();
        let bounds = told.of(Kind::Own).bounds();
        units += found;
        if !is_in(found, bounds) {
            wrong.push(format!("{}: {found}, not {bounds:?}", name(node)));
        }
    }
    hold("no acknowledged write is lost", wrong.is_empty(), &format!("{units} units in all; wrong: {wrong:?}"));
}
