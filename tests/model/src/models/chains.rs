//! Heirs that die themselves: who takes over what they had taken over, from what the members know of it, while others retire
//! the same replicas (rules Q1, Q3, Q4). A question, its answer and the exchange behind it are one step here; what becomes of
//! them when they are lost and late is for the model `heirs`. Left out are trials, replicas that live behind an open fence, and
//! members that come, leave or are left out by name; and all who are retired are dead, or cut off and do nothing but take over
//! and come back.

mod check;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use stockmesh_proto::operation::{Operation, OversellPolicy};
use stockmesh_proto::product::Product;
use stockmesh_proto::retirement::{HeirClaim, Retirement, Retirements, last_heir, living_rival, named_heir, note};
use stockmesh_proto::{ReplicaId, Sku};

use crate::check::{Fault, Seen, System};
use crate::conversation::reconcile;
use crate::replica::{NOW_MS, Replica, place, replica_id, sku, units};

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Broken {
    #[default]
    Nothing,
    /// An heir takes over what a dead heir left though the fence of one of them is open.
    BehindOpenFences,
    /// Once an heir was retired too another one is noted in its place, though it closed its fence.
    TheRetiredAreReplaced,
    /// An heir closes its fence before the members told what they know.
    WithoutExchange,
    /// An heir that waits for one no more asks nobody else what they learnt from it.
    OneRound,
    /// An heir takes over from the one that it retires alone, and not what that one had taken over.
    ItsOwnPlaceAlone,
    /// Who gave its word to another one does not ask it whether it gives it back.
    WordsAreNotAskedBack,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Chains {
    /// How many there are besides the one that is dead from the start.
    pub(crate) members: usize,
    /// Those that may die, one behind the other, in this order. The first has closed its fence around the one that is dead.
    pub(crate) dying: &'static [usize],
    /// How many products there are, of which the dead has one unit each.
    pub(crate) products: usize,
    /// How many of the products the first takes over before it dies.
    pub(crate) first_takes: usize,
    /// How often one may begin to retire another, all of them together.
    pub(crate) attempts: u8,
    /// Whether members learn of single products, too; then nothing is sold, for the number of states.
    pub(crate) in_parts: bool,
    /// Whether the dying were only cut off: they may take over what they are the heirs of, and come back, under other ids.
    pub(crate) returns: bool,
    pub(crate) broken: Broken,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct State {
    replicas: Vec<Arc<Replica>>,
    /// By member: what is durable.
    known: Vec<Retirements>,
    /// By heir and whom it retires, while it tries.
    attempts: BTreeMap<(usize, usize), Attempt>,
    /// How many of the dying are dead.
    deaths: usize,
    /// Those of them that came back.
    returned: BTreeSet<usize>,
    /// By product: whether one that was cut off took it over, and nobody knew when it was. What one alone had done may be done
    /// twice if it comes back (rule E7).
    alone: Vec<bool>,
    /// By product: units that were sold, and those of them that only the dead knew of.
    sold: Vec<u64>,
    lost: Vec<u64>,
    attempts_left: u8,
}

/// How far an heir is with asking all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Attempt {
    /// Who was to be asked as it began.
    asked: BTreeSet<usize>,
    agreed: BTreeSet<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Begin {
        heir: usize,
        retired: usize,
    },
    Ask {
        heir: usize,
        retired: usize,
        member: usize,
    },
    Close {
        heir: usize,
        retired: usize,
    },
    TakeOver {
        heir: usize,
        retired: usize,
        product: usize,
    },
    Sell {
        member: usize,
        product: usize,
    },
    Meet(usize, usize),
    /// A member learns all that another one knows of one product, as by a push or the first chunk of an exchange.
    Tell {
        from: usize,
        to: usize,
        product: usize,
    },
    /// A member learns all that one knows that was cut off, and has come back.
    Return {
        dead: usize,
        member: usize,
    },
    /// A member is shown again what an heir took over, and nothing else.
    See {
        heir: usize,
        retired: usize,
        member: usize,
    },
    Die,
}

const TOOK_OVER: usize = 0;
const GAVE_WAY: usize = 1;
const LATE: usize = 2;
const LOST: usize = 3;
const RETURNED: usize = 4;

fn sku_of(product: usize) -> Sku {
    sku(["A", "B"][product])
}

impl System for Chains {
    type State = State;
    type Action = Action;

    const WITNESSES: &'static [&'static str] = &[
        "an heir of an heir took over",
        "an heir was told of another one",
        "a retired heir was seen to have taken over",
        "the dead alone knew of a sale",
        "what was taken over by one that was cut off is learnt",
    ];

    fn may_happen(&self, witness: usize) -> bool {
        match witness {
            LOST => !self.in_parts,
            RETURNED => self.returns,
            _ => true,
        }
    }

    fn initial(&self) -> State {
        let mut dead = Replica::new(self.members);
        let receive = |product| Operation::Receive { sku: sku_of(product), location: place(), units: units(1) };
        let (_, push) = dead.write((0..self.products).map(receive).collect(), NOW_MS).unwrap();
        let mut replicas: Vec<Replica> = (0..self.members).map(Replica::new).collect();
        replicas.iter_mut().for_each(|replica| assert!(replica.take_push(push.as_ref().unwrap()).unwrap()));
        let noted_by = |member| Retirement { heir: replica_id(self.dying[0]), is_closed: member == self.dying[0] };
        State {
            replicas: replicas.into_iter().map(Arc::new).collect(),
            known: (0..self.members).map(|member| [(dead.id, noted_by(member))].into()).collect(),
            attempts: BTreeMap::new(),
            deaths: 0,
            returned: BTreeSet::new(),
            alone: vec![false; self.products],
            sold: vec![0; self.products],
            lost: vec![0; self.products],
            attempts_left: self.attempts,
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let alive = self.alive(state);
        let dead = self.dead(state);
        for member in alive.iter().copied() {
            for retired in dead.iter().copied().filter(|_| state.attempts_left > 0) {
                actions.push(Action::Begin { heir: member, retired });
            }
            for heir in 0..self.members {
                actions.extend(dead.iter().map(|&retired| Action::See { heir, retired, member }));
            }
            for product in 0..self.products {
                if !self.in_parts {
                    actions.push(Action::Sell { member, product });
                }
                if member != self.dying[0] || product < self.first_takes {
                    actions.extend(dead.iter().map(|&retired| Action::TakeOver { heir: member, retired, product }));
                }
            }
            actions.extend(alive.iter().filter(|other| **other > member).map(|other| Action::Meet(member, *other)));
            let products = if self.in_parts { 0..self.products } else { 0..0 };
            let others = alive.iter().copied().filter(|other| *other != member);
            let pairs = others.flat_map(|to| products.clone().map(move |product| (to, product)));
            actions.extend(pairs.map(|(to, product)| Action::Tell { from: member, to, product }));
        }
        if self.returns {
            for cut_off in self.dying[..state.deaths].iter().copied() {
                let products = if cut_off == self.dying[0] { self.first_takes } else { self.products };
                for (retired, product) in
                    dead.iter().flat_map(|retired| (0..products).map(|product| (*retired, product)))
                {
                    actions.push(Action::TakeOver { heir: cut_off, retired, product });
                }
                actions.extend(alive.iter().map(|&member| Action::Return { dead: cut_off, member }));
            }
        }
        for (heir, retired) in state.attempts.keys().copied() {
            actions.extend(alive.iter().map(|&member| Action::Ask { heir, retired, member }));
            actions.push(Action::Close { heir, retired });
        }
        actions.push(Action::Die);
    }

    fn step(&self, state: &State, action: &Action, seen: &Seen) -> Result<Option<State>, Fault> {
        let mut next = state.clone();
        match *action {
            Action::Begin { heir, retired } => {
                next.attempts_left -= 1;
                self.begin(&mut next, heir, retired);
            }
            Action::Ask { heir, retired, member } => self.ask(&mut next, (heir, retired), member, seen)?,
            Action::Close { heir, retired } => self.close(&mut next, heir, retired),
            Action::TakeOver { heir, retired, product } => {
                if !next.returned.contains(&heir) {
                    self.take_over(&mut next, heir, retired, product, seen)?;
                    next.alone[product] |= self.dead(state).contains(&heir) && next != *state;
                }
            }
            Action::Sell { member, product } => {
                let policy = OversellPolicy::Refuse;
                let sale = Operation::Sell { sku: sku_of(product), location: place(), units: units(1), policy };
                next.sold[product] += u64::from(next.write(member, sale));
            }
            Action::Meet(left, right) => self.meet(&mut next, left, right, seen)?,
            Action::Tell { from, to, product } => self.tell(&mut next, from, to, product, seen),
            Action::Return { dead, member } => self.come_back(&mut next, dead, member, seen),
            Action::See { heir, retired, member } => {
                let (heir, retired) = (replica_id(heir), replica_id(retired));
                let known = |product| next.replicas[member].product(&sku_of(product));
                let shows = |product: Product| {
                    let mut slots = product.inheritances().iter();
                    slots.any(|slot| slot.taken.is_heir && slot.from == retired && slot.to == heir)
                };
                if (0..self.products).map(known).any(shows) {
                    self.note(&mut next, member, retired, &HeirClaim::TookOver { heir });
                }
            }
            Action::Die => {
                if next.deaths == self.dying.len() {
                    return Ok(None);
                }
                self.die(&mut next, seen);
            }
        }
        if next == *state {
            return Ok(None);
        }
        self.check(&next, seen)?;
        Ok(Some(next))
    }
}

impl Chains {
    fn dead(&self, state: &State) -> Vec<usize> {
        self.dying[..state.deaths].iter().copied().chain([self.members]).collect()
    }

    fn alive(&self, state: &State) -> Vec<usize> {
        (0..self.members).filter(|member| !self.dying[..state.deaths].contains(member)).collect()
    }

    fn last_heir(&self, retired: ReplicaId, known: &Retirements) -> Option<ReplicaId> {
        match self.broken {
            Broken::BehindOpenFences => {
                let closed = |noted: &Retirement| Retirement { is_closed: true, ..*noted };
                let own = known.get(&retired).filter(|noted| noted.is_closed).map(closed);
                let all = known.iter().map(|(replica, noted)| (*replica, closed(noted))).collect();
                own.and_then(|_| last_heir(retired, &all))
            }
            _ => last_heir(retired, known),
        }
    }

    /// What a member notes durably of a claim. Returns whom it names as the heir.
    fn note(&self, next: &mut State, member: usize, retired: ReplicaId, claim: &HeirClaim) -> ReplicaId {
        let (known, own) = (&mut next.known[member], replica_id(member));
        if self.broken == Broken::TheRetiredAreReplaced && !matches!(claim, HeirClaim::Closes { .. }) {
            open_if_its_heir_died(known, retired);
        }
        let named = named_heir(known, retired, claim, own);
        note(known, retired, claim, own);
        named
    }

    /// The heir's own fence comes first, but behind the word of a living one to whom it gave its own. It begins only if it is
    /// noted itself then.
    fn begin(&self, next: &mut State, heir: usize, retired: usize) {
        let (own, retired_id) = (replica_id(heir), replica_id(retired));
        let mut gave_way = Vec::new();
        let rival = living_rival(&next.known[heir], retired_id, own);
        if let Some(rival) = rival.filter(|_| self.broken != Broken::WordsAreNotAskedBack) {
            let member = self.alive(next).into_iter().find(|member| replica_id(*member) == rival);
            let asks = HeirClaim::Asks { heir: own, gave_way: Vec::new() };
            gave_way.extend(member.filter(|member| self.note(next, *member, retired_id, &asks) == own).map(replica_id));
        }
        let claim = HeirClaim::Asks { heir: own, gave_way };
        if self.note(next, heir, retired_id, &claim) == own && self.is_heir(next, heir, retired) {
            let attempt = self.attempt(next, heir, retired);
            next.attempts.insert((heir, retired), attempt);
        }
    }

    /// The first round, or the next one.
    fn attempt(&self, state: &State, heir: usize, retired: usize) -> Attempt {
        let dead = self.dead(state);
        let is_asked = |member: &usize| {
            *member != retired && !(dead.contains(member) && state.known[heir].contains_key(&replica_id(*member)))
        };
        Attempt { asked: (0..self.members).filter(is_asked).collect(), agreed: [heir].into() }
    }

    /// A member is asked, fences the replica, and tells what it knows.
    fn ask(&self, next: &mut State, (heir, retired): (usize, usize), member: usize, seen: &Seen) -> Result<(), Fault> {
        let agreed = &next.attempts[&(heir, retired)].agreed;
        if agreed.contains(&member) || !self.is_heir(next, heir, retired) {
            return Ok(());
        }
        let own = replica_id(heir);
        let gave_way = agreed.iter().filter(|other| **other != heir).map(|other| replica_id(*other)).collect();
        let claim = HeirClaim::Asks { heir: own, gave_way };
        if self.note(next, member, replica_id(retired), &claim) != own {
            seen.note(GAVE_WAY);
            return Ok(());
        }
        if self.broken != Broken::WithoutExchange {
            self.meet(next, heir, member, seen)?;
        }
        if let Some(attempt) = next.attempts.get_mut(&(heir, retired)) {
            attempt.agreed.insert(member);
        }
        Ok(())
    }

    /// Whether an heir is the one that its own node notes.
    fn is_heir(&self, state: &State, heir: usize, retired: usize) -> bool {
        state.known[heir].get(&replica_id(retired)).is_some_and(|noted| noted.heir == replica_id(heir))
    }

    /// Behind the exchange with all but those that are known to be retired. Who is dead and was not retired is waited for. If
    /// that ends since it is being retired too, all are asked once more: they may have learnt from it (rule Q3).
    fn close(&self, next: &mut State, heir: usize, retired: usize) {
        let Attempt { asked, agreed } = &next.attempts[&(heir, retired)];
        let round = self.attempt(next, heir, retired);
        if !self.is_heir(next, heir, retired) || !round.asked.is_subset(agreed) {
            return;
        }
        if !asked.is_subset(agreed) && self.broken != Broken::OneRound {
            next.attempts.insert((heir, retired), round);
            return;
        }
        self.note(next, heir, replica_id(retired), &HeirClaim::Closes { heir: replica_id(heir) });
        next.attempts.remove(&(heir, retired));
    }

    /// Takes over what nobody took over yet, or settles what turned up since.
    fn take_over(
        &self,
        next: &mut State,
        heir: usize,
        retired: usize,
        product: usize,
        seen: &Seen,
    ) -> Result<(), Fault> {
        let (own, from, at) = (replica_id(heir), replica_id(retired), place());
        let known = next.replicas[heir].product(&sku_of(product));
        let settles = known.to_settle(own).contains(&(&at, from));
        let is_open = known.heir(&at, from).is_none() && known.estate(from).contains(&(&at, from));
        let is_chain = next.known[heir].get(&from).is_some_and(|noted| noted.heir != own);
        let takes_over = is_open
            && self.last_heir(from, &next.known[heir]) == Some(own)
            && !(is_chain && self.broken == Broken::ItsOwnPlaceAlone);
        if !settles && !takes_over {
            return Ok(());
        }
        if retired == self.members && heir != self.dying[0] {
            seen.note(TOOK_OVER);
        }
        if !next.write(heir, Operation::Inherit { sku: sku_of(product), location: at, from }) {
            return Err(Fault::new("E4", "the heir cannot take over"));
        }
        Ok(())
    }

    /// Two that are linked reconcile: neither knows the other as retired (rule Q2).
    fn meet(&self, next: &mut State, left: usize, right: usize, seen: &Seen) -> Result<(), Fault> {
        let refuses = |here: usize, other: usize| next.known[here].contains_key(&replica_id(other));
        if refuses(left, right) || refuses(right, left) {
            return Ok(());
        }
        let (mut opener, mut replier) = (Replica::clone(&next.replicas[left]), Replica::clone(&next.replicas[right]));
        reconcile(&mut opener, &mut replier)?;
        next.put(left, opener);
        next.put(right, replier);
        let all: Vec<Sku> = (0..self.products).map(sku_of).collect();
        for member in [left, right] {
            self.learn(next, member, &all, seen);
        }
        Ok(())
    }

    /// The same of one product, one way, and nothing is claimed.
    fn tell(&self, next: &mut State, from: usize, to: usize, product: usize, seen: &Seen) {
        if next.known[to].contains_key(&replica_id(from)) || next.known[from].contains_key(&replica_id(to)) {
            return;
        }
        let sku = sku_of(product);
        let mut replica = Replica::clone(&next.replicas[to]);
        replica.merge(&[(sku.clone(), next.replicas[from].product(&sku))]);
        next.put(to, replica);
        self.learn(next, to, &[sku], seen);
    }

    /// It is told first that it was retired, by whoever knows it.
    fn come_back(&self, next: &mut State, dead: usize, member: usize, seen: &Seen) {
        let is_told = self.alive(next).iter().any(|other| next.known[*other].contains_key(&replica_id(dead)));
        if !is_told {
            return;
        }
        next.returned.insert(dead);
        let mut replica = Replica::clone(&next.replicas[member]);
        for product in 0..self.products {
            let sku = sku_of(product);
            let known = next.replicas[dead].product(&sku);
            replica.merge(&[(sku, known)]);
        }
        if replica != *next.replicas[member] && next.alone.contains(&true) {
            seen.note(RETURNED);
        }
        next.put(member, replica);
        let all: Vec<Sku> = (0..self.products).map(sku_of).collect();
        self.learn(next, member, &all, seen);
    }

    /// A member notes who took over, of all that it knows of these products: an answer may show it any of that again.
    fn learn(&self, next: &mut State, member: usize, products: &[Sku], seen: &Seen) {
        let known: Vec<Product> = products.iter().map(|sku| next.replicas[member].product(sku)).collect();
        let slots = known.iter().flat_map(Product::inheritances).filter(|slot| slot.taken.is_heir);
        let learnt: BTreeSet<(ReplicaId, ReplicaId)> = slots.map(|slot| (slot.from, slot.to)).collect();
        for (retired, heir) in learnt {
            if next.known[member].contains_key(&heir) {
                seen.note(LATE);
            }
            self.note(next, member, retired, &HeirClaim::TookOver { heir });
        }
    }

    fn die(&self, next: &mut State, seen: &Seen) {
        let dead = self.dying[next.deaths];
        next.deaths += 1;
        next.attempts.retain(|(heir, _), _| *heir != dead);
        for product in 0..self.products {
            let mut known = Product::default();
            for member in self.alive(next) {
                known.absorb(&next.replicas[member].product(&sku_of(product)));
            }
            let of_dead = next.replicas[dead].product(&sku_of(product));
            next.alone[product] |= self.returns
                && of_dead.inheritances().iter().any(|slot| !known.inheritances().iter().any(|other| other == slot));
            let told: u64 = known.stock().iter().map(|slot| slot.counters.removed).sum();
            next.lost[product] = next.sold[product] - told;
            if next.lost[product] > 0 {
                seen.note(LOST);
            }
        }
    }
}

/// What is open can be replaced.
fn open_if_its_heir_died(known: &mut Retirements, retired: ReplicaId) {
    let heir = known.get(&retired).map(|noted| noted.heir).filter(|heir| known.contains_key(heir));
    if let (Some(noted), Some(_)) = (known.get_mut(&retired), heir) {
        noted.is_closed = false;
    }
}

impl State {
    fn put(&mut self, index: usize, replica: Replica) {
        if replica != *self.replicas[index] {
            self.replicas[index] = Arc::new(replica);
        }
    }

    /// A request, durable at once, and pushed. Whether it was not refused.
    fn write(&mut self, index: usize, operation: Operation) -> bool {
        let mut replica = Replica::clone(&self.replicas[index]);
        if replica.write(vec![operation], NOW_MS).is_err() {
            return false;
        }
        self.put(index, replica);
        true
    }
}
