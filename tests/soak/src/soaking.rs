//! The process that is a node of the soak: told what to do line by line, it tells what it did.
//!
//! In: `fill`, `load on`, `load off`, `status`, `figures`, `final`, `close`.
//! Out: `open …`; `filled`; `idle` after `load off`; `status …`; and all that begins with `soak`: `figures NUMBERS`,
//! `probed NUMBER MICROSECONDS`, `seen NODE NUMBER MICROSECONDS`, `final NUMBERS`, `oversold …`, `odd …`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stockmesh::{LinkState, Store};

use crate::HEAP;
use crate::load::{Load, SHARED, shared};
use crate::node::{ROOT, commands, settings, status, tell};
use crate::recorder::Counts;
use crate::told::{Told, is_done};

pub(crate) const NODES: usize = 8;
/// What a reference is good for here is a retry within seconds, and the ledger serves nobody: so that both are full, and
/// as large as they get, a few minutes after the start. Kept as by default, they would grow for days, as they are meant to.
const REMEMBERED: Duration = Duration::from_secs(30);
/// How often a node writes what the others look for …
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// … and how often they look: what a lag is known to.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The length at which a journal is folded, less what is written between two looks.
const JOURNAL_BYTES: u64 = 14 << 20;
/// Much shorter than a journal takes to fill.
const FOLD_LOOK_EVERY: Duration = Duration::from_millis(200);
/// About what one movement takes in the ledger, names included.
const MOVEMENT_BYTES: usize = 64;

pub(crate) fn name(number: usize) -> String {
    format!("n{number}")
}

fn probe(name: &str) -> String {
    format!("probe-{name}")
}

/// All processes are on one machine, so that they have one clock.
pub(crate) fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

pub(crate) async fn run(own: String) {
    let counts = Counts::install();
    let store = settings(&own).reference_window(REMEMBERED).ledger_retention(REMEMBERED).open().await.unwrap();
    let me = (0..NODES).find(|number| name(*number) == own).unwrap();
    let told = Told::open(&PathBuf::from(std::env::var(ROOT).unwrap()).join(format!("{own}.told")));
    let load = Load::start(&store, &own, (me, NODES), told);
    tokio::spawn(look(store.clone(), me));
    let has_folded = Arc::new(AtomicBool::new(false));
    tokio::spawn(await_fold(store.clone(), Arc::clone(&has_folded)));
    tell(&format!("open {} {}", store.replica_id(), store.local_addr().unwrap()));
    let mut probing = None;
    let mut commands = commands();
    while let Some(line) = commands.recv().await {
        match line.as_str() {
            "fill" => {
                load.fill().await;
                tell("soak filled");
            }
            "load on" => {
                load.begin();
                probing = Some(tokio::spawn(write_probes(store.clone(), own.clone())));
            }
            "load off" => {
                drop(probing.take().inspect(tokio::task::JoinHandle::abort));
                load.end().await;
                tell("idle");
            }
            "status" => status(&store),
            "figures" => drop(tokio::spawn(figures(store.clone(), counts.clone(), has_folded.load(Ordering::SeqCst)))),
            "final" => tell_final(&store),
            "close" => {
                store.close().await.unwrap();
                tell("closed");
                return;
            }
            other => panic!("{other}"),
        }
    }
}

async fn write_probes(store: Store, own: String) {
    let product = store.product(&probe(&own)).unwrap();
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        let result = product.receive(1).await;
        let told_at = now_us();
        if is_done(&result) {
            let number = store.get(product.sku().as_str()).map_or(0, |view| view.on_hand());
            tell(&format!("soak probed {number} {told_at}"));
        }
    }
}

/// Looks for others' probes.
async fn look(store: Store, me: usize) {
    let mut seen = [0; NODES];
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for (other, seen) in seen.iter_mut().enumerate().filter(|(other, _)| *other != me) {
            let number = store.get(&probe(&name(other))).map_or(0, |view| view.on_hand());
            if number > *seen {
                *seen = number;
                tell(&format!("soak seen {} {number} {}", name(other), now_us()));
            }
        }
    }
}

/// Waits until a whole journal was written and folded since the process began: one that is started again finds its journal
/// half full, and its engine's cache empty. A journal only grows but when it is folded.
async fn await_fold(store: Store, has_folded: Arc<AtomicBool>) {
    let (mut before, mut written) = (store.status().journal_bytes, 0);
    loop {
        tokio::time::sleep(FOLD_LOOK_EVERY).await;
        let bytes = store.status().journal_bytes;
        written += bytes.saturating_sub(before);
        if bytes < before && written >= JOURNAL_BYTES {
            return has_folded.store(true, Ordering::SeqCst);
        }
        before = bytes;
    }
}

async fn figures(store: Store, counts: Counts, has_folded: bool) {
    let mut movements = 0;
    let mut ledger = store.ledger();
    while let Some(movement) = ledger.next().await {
        movements += usize::from(movement.is_ok());
    }
    let status = store.status();
    let links = status.peers.iter().filter(|peer| peer.state == LinkState::Up).count();
    tell(&format!(
        "soak figures {} {} {} {} {} {links} {} {} {} {} {has_folded}",
        store.state_bytes(),
        movements * MOVEMENT_BYTES,
        status.journal_bytes,
        status.slots,
        status.holds,
        counts.of("stockmesh_operations_total"),
        counts.of("stockmesh_pushes_dropped_total"),
        counts.of("stockmesh_reconciliations_total"),
        HEAP.current_usage(),
    ));
}

/// Sums over all products: of what is sold by all, what is there, what is held, what is oversold; of pairs, what is there,
/// and in how many pairs the two differ; at last what each node counted.
fn tell_final(store: &Store) {
    let (mut on_hand, mut held, mut oversold) = (0, 0, 0);
    for view in (0..SHARED).filter_map(|number| store.get(&shared(number)).ok()) {
        (on_hand, held) = (on_hand + view.on_hand(), held + view.held());
        oversold += view.oversold() + (-view.on_hand()).max(0);
    }
    let (mut paired, mut apart) = (0, 0);
    for view in store.query().prefix("pair-a-").iter() {
        let other = store.get(&view.sku().as_str().replace("pair-a-", "pair-b-"));
        paired += view.on_hand();
        apart += usize::from(other.map_or(0, |other| other.on_hand()) != view.on_hand());
    }
    let counted =
        (0..NODES).map(|number| store.get(&format!("count-{}", name(number))).map_or(0, |view| view.on_hand()));
    let counted: Vec<String> = counted.map(|units| units.to_string()).collect();
    tell(&format!("soak final {on_hand} {held} {oversold} {paired} {apart} {}", counted.join(" ")));
}
