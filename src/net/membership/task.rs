//! The one task that owns the core's state machine. It awaits nothing but what it is told, and the next time something is
//! due: whatever takes time is done by tasks of its own, which tell it when they are done.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use quinn::ConnectionError;
use stockmesh_proto::ReplicaId;
use stockmesh_proto::limits::MEMBER_DOWN_LISTED_S;
use stockmesh_proto::member::{Generation, Labels, MemberRecord, Software};
use stockmesh_proto::membership::{Effect, Membership, Timing};
use stockmesh_proto::reconcile::StateView;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::MembershipSettings;
use super::address::OwnAddress;
use super::effects::{note_change, note_figures, note_forgotten, tell_subscribers};
use super::exchange::exchange_lists;
use super::post::Post;
use super::rows::{KeptMember, MemberRows, first_generation, generation_row};
use crate::commit::Event;
use crate::limits::{LISTS_AGAIN, LISTS_EVERY, MEMBER_ROWS_EVERY};
use crate::member::{Member, MemberState};
use crate::net::handshake::SOFTWARE;
use crate::net::link::Link;
use crate::net::refusal::{CloseCode, closed_with};
use crate::net::shared::Shared;
use crate::net::sightings::Sighting;
use crate::net::verdict::{judge, punish};

/// Shows at once who was known before; then finds out who lives, for as long as the node lives.
pub(in crate::net) fn find_out_who_lives(
    settings: MembershipSettings,
    sightings: mpsc::Receiver<Sighting>,
    shared: &Shared,
) -> impl Future<Output = ()> + Send + use<> {
    let mut task = Task::new(settings, shared.clone());
    task.begin();
    find_out(task, sightings)
}

async fn find_out(mut task: Task, mut sightings: mpsc::Receiver<Sighting>) {
    let shared = task.shared.clone();
    let (mut links, mut offline) = (shared.registry.changes(), shared.offline.subscribe());
    let mut events = shared.committer.events();
    let mut identity = shared.current.subscribe();
    task.compare_links();
    task.compare_role();
    loop {
        tokio::select! {
            biased;
            _ = offline.changed() => task.toggle(),
            _ = links.changed() => task.compare_links(),
            _ = identity.changed() => task.compare_role(),
            event = events.recv() => match event {
                Ok(Event::NewIncarnation) | Err(RecvError::Lagged(_)) => task.take_new_id(),
                Ok(Event::Retired(_)) => {}
                Err(RecvError::Closed) => return,
            },
            sighting = sightings.recv() => match sighting {
                Some(sighting) => task.take(sighting),
                None => return,
            },
            () = tokio::time::sleep_until(task.due()) => task.tick(),
        }
    }
}

struct Task {
    shared: Shared,
    core: Membership,
    timing: Timing,
    labels: Labels,
    /// The core's clock stands still while the node is offline, so that it takes nobody for dead meanwhile.
    begun: Instant,
    paused: Duration,
    offline_since: Option<Instant>,
    links: BTreeMap<ReplicaId, Arc<Link>>,
    address: OwnAddress,
    post: Post,
    rows: MemberRows,
    is_writing: bool,
    has_changed: bool,
    next_write: Instant,
    next_exchange: Instant,
    /// Members of the last time that were not heard of yet, and where they were.
    unheard: BTreeMap<ReplicaId, KeptMember>,
}

impl Task {
    fn new(settings: MembershipSettings, shared: Shared) -> Self {
        let MembershipSettings { advertise, labels, timing, rows } = settings;
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = OwnAddress::new(advertise, shared.endpoint.local_addr().unwrap_or(unknown));
        let generation = first_generation(&rows);
        let own = own_record(&shared, generation, address.present(), labels.clone());
        let now = Instant::now();
        Self {
            core: Membership::new(own, timing, crate::chance::random(), Duration::ZERO),
            timing,
            labels,
            begun: now,
            paused: Duration::ZERO,
            offline_since: None,
            links: BTreeMap::new(),
            address,
            post: Post::default(),
            rows: MemberRows::load(&rows),
            is_writing: false,
            has_changed: false,
            next_write: now,
            next_exchange: now + jittered(LISTS_EVERY),
            unheard: BTreeMap::new(),
            shared,
        }
    }

    /// Shows those who were known the last time, until they are heard of.
    fn begin(&mut self) {
        let now_ms = self.shared.wall.now_ms();
        let own = self.shared.table.own();
        let mut gone = Vec::new();
        for kept in self.rows.kept().filter(|kept| kept.listed.record.replica != own) {
            if kept.listed.standing.is_up() {
                self.shared.members.set(Member::new(&kept.listed.record, MemberState::Down));
                self.unheard.insert(kept.listed.record.replica, kept.clone());
            } else {
                gone.push(kept.aged(now_ms));
            }
        }
        let effects = self.core.restore(&gone, Duration::ZERO);
        self.carry_out(effects);
    }

    /// Time of the core: that of this process, without what was spent offline.
    fn now(&self) -> Duration {
        let until = self.offline_since.unwrap_or_else(Instant::now);
        until.duration_since(self.begun).saturating_sub(self.paused)
    }

    fn due(&self) -> Instant {
        let write = if self.has_changed && !self.is_writing { Some(self.next_write) } else { None };
        let core = self.offline_since.is_none().then(|| self.begun + self.paused + self.core.next_due());
        let due = [write, core].into_iter().flatten().min();
        // No sooner than the timer can tell apart, so that what is due all but now is no busy loop.
        due.unwrap_or(self.next_exchange).min(self.next_exchange).max(Instant::now() + Duration::from_millis(1))
    }

    fn tick(&mut self) {
        let effects = self.core.advance(self.now());
        self.carry_out(effects);
        let now = Instant::now();
        if self.next_exchange <= now {
            self.next_exchange = now + jittered(LISTS_EVERY);
            self.forget_unheard();
            let candidates: Vec<_> = self.links.values().filter(|link| link.knows_membership).collect();
            if !candidates.is_empty() {
                let link = Arc::clone(candidates[crate::chance::random_range(0..candidates.len())]);
                self.exchange(link);
            }
        }
        if self.has_changed && !self.is_writing && self.next_write <= now {
            self.write_rows(None);
        }
    }

    fn take(&mut self, sighting: Sighting) {
        let now = self.now();
        match sighting {
            Sighting::Datagram { link, bytes } => self.take_datagram(&link, &bytes),
            Sighting::Reserved(Some(through)) => {
                let effects = self.core.reserved(through, now);
                self.carry_out(effects);
            }
            // The disk failed, and with it the store: this node falls silent with its next generation.
            Sighting::Reserved(None) => {}
            Sighting::RowsWritten => self.is_writing = false,
            Sighting::Exchanged(0) => {}
            Sighting::Exchanged(_) => self.next_exchange = Instant::now() + jittered(LISTS_AGAIN),
            Sighting::Digest(reply) => _ = reply.send(self.core.digest()),
            Sighting::List(reply) => _ = reply.send(self.core.list()),
            Sighting::Learn { from, list, reply } => {
                let lacking = self.core.lacking(&list);
                let (effects, news) = self.core.learn(from, &list, now);
                self.carry_out(effects);
                let _ = reply.send((news, lacking));
            }
            Sighting::Flush(reply) => self.write_rows(Some(reply)),
            Sighting::Leave(reply) => {
                let effects = self.core.leave(now);
                self.carry_out(effects);
                let _ = reply.send(());
            }
        }
    }

    fn take_datagram(&mut self, link: &Arc<Link>, bytes: &[u8]) {
        if self.offline_since.is_some() {
            return;
        }
        match self.core.datagram(link.replica, bytes, self.now()) {
            Ok(effects) => self.carry_out(effects),
            Err(breach) => {
                counter!("stockmesh_datagrams_refused_total").increment(1);
                punish(&breach.to_string(), link, &self.shared);
            }
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let (mut is_news, mut told) = (false, Vec::new());
        for effect in effects {
            match effect {
                Effect::Send { to, bytes } if self.offline_since.is_none() => {
                    self.send(to, bytes);
                }
                Effect::Changed { record, standing, before } => {
                    is_news = true;
                    self.heard_of(&record);
                    told.extend(note_change(&record, standing, before, &self.shared));
                }
                Effect::Forgotten(replica) => {
                    is_news = true;
                    note_forgotten(replica, &self.shared);
                }
                Effect::Reserve(through) => self.reserve(through),
                Effect::Renewed(generation) => debug!(%generation, "this member goes on in a new generation"),
                _ => {}
            }
        }
        if is_news {
            self.has_changed = true;
            note_figures(&self.shared);
        }
        tell_subscribers(told, &self.shared);
    }

    /// Sends a datagram. A link is made for it if there is none, but not for gossip, which goes to a linked member then.
    fn send(&mut self, to: ReplicaId, bytes: Vec<u8>) {
        let is_linked = |replica| self.shared.registry.link(replica).is_some();
        let sent = if is_linked(to) || !Membership::is_gossip(&bytes) {
            Some((to, bytes))
        } else {
            self.core.stand_in_for(&bytes).filter(|(stand_in, _)| is_linked(*stand_in))
        };
        match sent {
            Some((to, bytes)) => self.post.send(self.core.own().replica, to, bytes, &self.shared),
            None => counter!("stockmesh_datagrams_dropped_total").increment(1),
        }
    }

    /// Who was heard of is known by the core from here on. Who lived at the same address before is forgotten.
    fn heard_of(&mut self, record: &MemberRecord) {
        self.unheard.remove(&record.replica);
        let is_replaced = |kept: &KeptMember| kept.listed.record.address == record.address;
        let replaced = self.unheard.iter().filter(|(_, kept)| is_replaced(kept)).map(|(replica, _)| *replica);
        for replica in replaced.collect::<Vec<_>>() {
            self.unheard.remove(&replica);
            note_forgotten(replica, &self.shared);
        }
    }

    /// Forgets those who were not heard of for as long as who is down is listed.
    fn forget_unheard(&mut self) {
        if self.now() >= Duration::from_secs(u64::from(MEMBER_DOWN_LISTED_S)) {
            for (replica, _) in std::mem::take(&mut self.unheard) {
                note_forgotten(replica, &self.shared);
                self.has_changed = true;
            }
        }
    }

    fn reserve(&self, through: Generation) {
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            let stored = shared.committer.store_settings(generation_row(through)).await;
            if let Err(error) = &stored {
                warn!(%error, "no generation can be reserved: other nodes will take this one for dead");
            }
            shared.sightings.tell(Sighting::Reserved(stored.is_ok().then_some(through))).await;
        });
    }

    /// Writes down who is known, and tells whoever waits for it.
    fn write_rows(&mut self, waiting: Option<oneshot::Sender<()>>) {
        self.has_changed = false;
        self.next_write = Instant::now() + MEMBER_ROWS_EVERY;
        let (now_ms, own) = (self.shared.wall.now_ms(), self.shared.table.own());
        let list = self.core.list();
        let known =
            list.iter().filter(|listed| listed.record.replica != own).map(|listed| KeptMember::new(listed, now_ms));
        let stored = self.rows.changes(known.chain(self.unheard.values().cloned()));
        if stored.is_empty() {
            return;
        }
        self.is_writing = true;
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            if let Err(error) = shared.committer.store_settings(stored).await {
                debug!(%error, "the members cannot be written to disk");
            }
            let _ = waiting.map(|waiting| waiting.send(()));
            shared.sightings.tell(Sighting::RowsWritten).await;
        });
    }

    fn exchange(&self, link: Arc<Link>) {
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            let news = match exchange_lists(&link, &shared).await {
                Ok(exchanged) => exchanged.news,
                Err(error) => {
                    judge(&error, error.violation(), &link, &shared);
                    0
                }
            };
            shared.sightings.tell(Sighting::Exchanged(news)).await;
        });
    }

    /// Tells the core which links there are now.
    fn compare_links(&mut self) {
        let open: BTreeMap<_, _> = self.shared.registry.links().into_iter().map(|link| (link.replica, link)).collect();
        let ended = self.links.keys().filter(|replica| !open.contains_key(replica)).copied();
        for replica in ended.collect::<Vec<_>>() {
            let Some(link) = self.links.remove(&replica) else { continue };
            let effects = self.core.unlinked(replica, is_hint(&link), self.now());
            self.carry_out(effects);
            self.address.note(replica, None);
        }
        for (replica, link) in open {
            let is_known = self.links.get(&replica).is_some_and(|known| Arc::ptr_eq(known, &link));
            if is_known || !link.knows_membership {
                continue;
            }
            self.address.note(replica, link.observed);
            self.links.insert(replica, Arc::clone(&link));
            self.post.linked(self.core.own().replica, &link);
            let effects = self.core.linked(replica, self.now());
            self.carry_out(effects);
            // The dialler asks; with both sides at it, the work would be done twice.
            if link.dialled_by != replica {
                self.exchange(link);
            }
        }
        let effects = self.core.set_address(self.address.present(), self.now());
        self.carry_out(effects);
    }

    /// Tells the core whether this node only reads now, as its identity says.
    fn compare_role(&mut self) {
        let effects = self.core.set_read_only(self.shared.is_read_only(), self.now());
        self.carry_out(effects);
    }

    /// The node goes offline, or comes back: then others may have taken it for dead.
    fn toggle(&mut self) {
        match (self.shared.is_offline(), self.offline_since) {
            (true, None) => self.offline_since = Some(Instant::now()),
            (false, Some(since)) => {
                self.offline_since = None;
                self.paused += since.elapsed();
                let effects = self.core.resume(self.now());
                self.carry_out(effects);
            }
            _ => {}
        }
    }

    /// This node has another replica id from now on: another member, which knows what the former knew.
    fn take_new_id(&mut self) {
        if self.core.own().replica == self.shared.table.own() {
            return;
        }
        let (list, former) = (self.core.list(), Arc::clone(self.core.own()));
        let generation = former.generation.next().unwrap_or(former.generation);
        let own = own_record(&self.shared, generation, self.address.present(), self.labels.clone());
        let now = self.now();
        self.core = Membership::new(own, self.timing, crate::chance::random(), now);
        self.shared.members.remove(self.shared.table.own());
        let others: Vec<_> = list.into_iter().filter(|listed| listed.record.replica != former.replica).collect();
        let (mut effects, _) = self.core.learn(former.replica, &others, now);
        for replica in self.links.keys() {
            effects.append(&mut self.core.linked(*replica, now));
        }
        self.carry_out(effects);
    }
}

fn own_record(shared: &Shared, generation: Generation, address: SocketAddr, labels: Labels) -> MemberRecord {
    MemberRecord {
        replica: shared.table.own(),
        generation,
        address,
        location: shared.location.clone(),
        labels,
        // Both are far below the limit.
        software: Software::new(SOFTWARE).unwrap_or_else(|_| Software::default()),
        read_only: shared.is_read_only(),
        left: false,
    }
}

/// Whether the end of a link hints that the node behind it may be gone: it closed, or time ran out. Not if this side
/// closed it, or the peer for a reason that says that it lives.
fn is_hint(link: &Link) -> bool {
    match link.connection.close_reason() {
        Some(ConnectionError::TimedOut | ConnectionError::Reset | ConnectionError::ConnectionClosed(_)) => true,
        Some(reason) => closed_with(&reason, CloseCode::Closing),
        None => false,
    }
}

fn jittered(time: Duration) -> Duration {
    time.mul_f64(crate::chance::random_range(0.75..=1.25))
}
