//! Several nodes retire the same replica at once: their questions and the answers are lost, late and repeated, and they begin
//! anew; never do two of them take over, and whoever follows what it is told comes to one that can (rule Q1).

use std::collections::BTreeSet;

use stockmesh_proto::ReplicaId;
use stockmesh_proto::retirement::{HeirClaim, Retirement, Retirements, noted};

use crate::check::{Fault, Seen, System};
use crate::replica::replica_id;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Broken {
    #[default]
    Nothing,
    /// Whoever was noted first stays the heir, though another one asks too.
    NobodyGivesWay,
    /// An heir says that all others gave way, and asked none of them.
    RivalsAreNotAsked,
    /// An heir that closed its fence gives way.
    TheClosedGiveWay,
    /// An heir that gave way goes on, and closes its fence.
    GoesOn,
}

/// Which other heirs an heir does not ask, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftOut {
    Nobody,
    Lower,
    Others,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Heirs {
    /// All that must agree; the first of them are heirs, the lowest id first.
    pub(crate) members: usize,
    pub(crate) heirs: usize,
    pub(crate) left_out: LeftOut,
    /// How often one may begin, all of them together.
    pub(crate) attempts: u8,
    pub(crate) broken: Broken,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct State {
    /// By member: what is durable.
    known: Vec<Retirements>,
    /// By heir, while it tries.
    attempts: Vec<Option<Attempt>>,
    /// All that were ever sent: each may come, at any time, any number of times, or never.
    questions: BTreeSet<Question>,
    /// Those that are on their way. They go with the attempt.
    answers: BTreeSet<Answer>,
    /// Heirs that ever closed their fence.
    closed: BTreeSet<usize>,
    attempts_left: u8,
}

/// What an heir knows of how far it is.
#[derive(Clone, Debug, Default, PartialEq, Hash)]
struct Attempt {
    agreed: BTreeSet<usize>,
    /// Other heirs that were named.
    rivals: BTreeSet<ReplicaId>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Question {
    heir: usize,
    member: usize,
    gave_way: Vec<ReplicaId>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Answer {
    to: Question,
    named: ReplicaId,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    Begin(usize),
    Ask {
        heir: usize,
        member: usize,
    },
    /// A question comes to its member.
    Hear(usize),
    /// An answer comes to its heir.
    Learn(usize),
    Close(usize),
    /// A member sees in the state that an heir took over.
    See {
        heir: usize,
        member: usize,
    },
}

const GAVE_WAY: usize = 0;
const FOLLOWED: usize = 1;
const CLOSED: usize = 2;
const REFUSED: usize = 3;

impl System for Heirs {
    type State = State;
    type Action = Action;

    const WITNESSES: &'static [&'static str] =
        &["an heir gave way", "a member followed it", "an heir closed its fence", "an heir was told to give up"];

    fn initial(&self) -> State {
        State {
            known: vec![Retirements::new(); self.members],
            attempts: vec![None; self.heirs],
            questions: BTreeSet::new(),
            answers: BTreeSet::new(),
            closed: BTreeSet::new(),
            attempts_left: self.attempts,
        }
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for heir in 0..self.heirs {
            if state.attempts_left > 0 {
                actions.push(Action::Begin(heir));
            }
            actions.extend((0..self.members).map(|member| Action::Ask { heir, member }));
            actions.extend((0..self.members).map(|member| Action::See { heir, member }));
            actions.push(Action::Close(heir));
        }
        actions.extend((0..state.questions.len()).map(Action::Hear));
        actions.extend((0..state.answers.len()).map(Action::Learn));
    }

    fn step(&self, state: &State, action: &Action, seen: &Seen) -> Result<Option<State>, Fault> {
        let mut next = state.clone();
        match *action {
            Action::Begin(heir) => {
                next.attempts_left -= 1;
                self.begin(&mut next, heir);
            }
            Action::Ask { heir, member } => {
                if let Some(question) = self.question(state, heir, member) {
                    next.questions.insert(question);
                }
            }
            Action::Hear(number) => {
                let question = state.questions.iter().nth(number).unwrap().clone();
                let answer = self.hear(&mut next, question, seen);
                // Of an attempt that is over nobody waits for an answer.
                if next.attempts[answer.to.heir].is_some() {
                    next.answers.insert(answer);
                }
            }
            Action::Learn(number) => {
                let answer = state.answers.iter().nth(number).unwrap().clone();
                next.answers.remove(&answer);
                if self.learn(&mut next, &answer).is_some() {
                    seen.note(REFUSED);
                    next.give_up(answer.to.heir);
                }
            }
            Action::Close(heir) => {
                if self.close(&mut next, heir) {
                    seen.note(CLOSED);
                }
            }
            Action::See { heir, member } => {
                if next.has_closed(heir) {
                    self.note(&mut next, member, &HeirClaim::TookOver { heir: replica_id(heir) });
                }
            }
        }
        if next == *state {
            return Ok(None);
        }
        self.check(&next, seen)?;
        Ok(Some(next))
    }
}

impl Heirs {
    fn retired(&self) -> ReplicaId {
        replica_id(self.members)
    }

    /// What a member notes durably of a claim. Returns whom it knows as the heir.
    fn note(&self, next: &mut State, member: usize, claim: &HeirClaim) -> ReplicaId {
        let (known, retired) = (&mut next.known[member], self.retired());
        let before = known.get(&retired).copied();
        let mut now = noted(known, retired, claim, replica_id(member));
        match (self.broken, before) {
            (Broken::NobodyGivesWay, Some(before)) if before.heir != claim.heir() => now = before,
            (Broken::TheClosedGiveWay, Some(before))
                if before.heir == replica_id(member) && claim.heir() < before.heir =>
            {
                now = Retirement { heir: claim.heir(), is_closed: false };
            }
            _ => {}
        }
        known.insert(retired, now);
        now.heir
    }

    /// The fence of the heir itself comes first. Whether it is the heir.
    fn begin(&self, next: &mut State, heir: usize) -> bool {
        next.give_up(heir);
        let own = replica_id(heir);
        let named = self.note(next, heir, &HeirClaim::Asks { heir: own, gave_way: Vec::new() });
        if named == own {
            next.attempts[heir] = Some(Attempt { agreed: [heir].into(), ..Attempt::default() });
        }
        named == own
    }

    fn is_asked(&self, heir: usize, member: usize) -> bool {
        let is_left_out = match self.left_out {
            LeftOut::Nobody => false,
            LeftOut::Lower => member < heir,
            LeftOut::Others => member != heir,
        };
        member >= self.heirs || !is_left_out
    }

    /// What an heir asks a member that has not agreed yet, unless it gave way itself.
    fn question(&self, state: &State, heir: usize, member: usize) -> Option<Question> {
        let attempt = state.attempts[heir].as_ref().filter(|attempt| !attempt.agreed.contains(&member))?;
        if !self.is_heir(state, heir) || !self.is_asked(heir, member) {
            return None;
        }
        let has_agreed = |rival: &&ReplicaId| attempt.agreed.iter().any(|member| replica_id(*member) == **rival);
        let gave_way = match self.broken {
            Broken::RivalsAreNotAsked => (0..self.heirs).filter(|other| *other != heir).map(replica_id).collect(),
            _ => attempt.rivals.iter().filter(has_agreed).copied().collect(),
        };
        Some(Question { heir, member, gave_way })
    }

    fn hear(&self, next: &mut State, question: Question, seen: &Seen) -> Answer {
        let (heir, member) = (replica_id(question.heir), question.member);
        let before = next.known[member].get(&self.retired()).copied();
        let claim = HeirClaim::Asks { heir, gave_way: question.gave_way.clone() };
        let named = self.note(next, member, &claim);
        if named == heir && before.is_some_and(|before| before.heir != heir) {
            seen.note(if before.is_some_and(|before| before.heir == replica_id(member)) { GAVE_WAY } else { FOLLOWED });
        }
        Answer { to: question, named }
    }

    /// Returns another heir for which the attempt is given up.
    fn learn(&self, next: &mut State, answer: &Answer) -> Option<ReplicaId> {
        let Answer { to: Question { heir, member, gave_way }, named } = answer;
        let attempt = next.attempts[*heir].as_mut()?;
        if *named == replica_id(*heir) {
            attempt.agreed.insert(*member);
            return None;
        }
        let is_asked = (0..self.heirs).any(|rival| replica_id(rival) == *named && self.is_asked(*heir, rival));
        let is_open = is_asked && *named != replica_id(*member) && !gave_way.contains(named);
        if !is_open || self.broken == Broken::NobodyGivesWay {
            return Some(*named);
        }
        attempt.rivals.insert(*named);
        None
    }

    /// Closes the fence if all have agreed. Whether it did.
    fn close(&self, next: &mut State, heir: usize) -> bool {
        let has_all = next.attempts[heir].as_ref().is_some_and(|attempt| {
            (0..self.members)
                .filter(|member| self.is_asked(heir, *member))
                .all(|member| attempt.agreed.contains(&member))
        });
        if !has_all || next.has_closed(heir) || !(self.is_heir(next, heir) || self.broken == Broken::GoesOn) {
            return false;
        }
        let own = replica_id(heir);
        if self.broken == Broken::GoesOn {
            next.known[heir].insert(self.retired(), Retirement { heir: own, is_closed: true });
        }
        self.note(next, heir, &HeirClaim::Closes { heir: own });
        next.closed.extend(next.has_closed(heir).then_some(heir));
        next.has_closed(heir)
    }

    /// Whether an heir is its own heir still, as it knows it.
    fn is_heir(&self, state: &State, heir: usize) -> bool {
        state.known[heir].get(&self.retired()).is_some_and(|noted| noted.heir == replica_id(heir))
    }

    fn check(&self, state: &State, seen: &Seen) -> Result<(), Fault> {
        if state.closed.len() > 1 {
            return Err(Fault::new("Q1", format!("the heirs {:?} take over", state.closed)));
        }
        // Of those that leave each other out none may come to an end, as long as members know of both. And most breaks are to
        // be found by what they lead to.
        let may_block =
            self.left_out == LeftOut::Others || !matches!(self.broken, Broken::Nothing | Broken::NobodyGivesWay);
        if may_block {
            return Ok(());
        }
        // What is on its way does not matter to those who begin anew.
        seen.once(&state.known, || self.check_that_one_can_end(state))
    }

    /// Whoever asks an heir, and the one that it names, and so on, comes to one that can end it.
    fn check_that_one_can_end(&self, state: &State) -> Result<(), Fault> {
        for first in 0..self.heirs {
            let mut next = state.clone();
            let mut heir = first;
            let mut asked = vec![heir];
            while let Err(other) = self.run(&mut next, heir) {
                heir = (0..self.heirs).find(|heir| replica_id(*heir) == other).unwrap();
                if asked.contains(&heir) {
                    return Err(Fault::new("Q1 ends", format!("{asked:?} were asked, and {heir} is named again")));
                }
                asked.push(heir);
            }
        }
        Ok(())
    }

    /// A whole attempt while nothing is lost and nobody else tries. Returns who is the heir if it is not this one.
    fn run(&self, next: &mut State, heir: usize) -> Result<(), ReplicaId> {
        if !self.begin(next, heir) {
            return Err(next.known[heir][&self.retired()].heir);
        }
        // Each that named a rival is asked once more when that one gave way, and the rival may have named one itself.
        for member in (0..self.members).cycle().take(self.members * (self.heirs + 1)) {
            let Some(question) = self.question(next, heir, member) else { continue };
            let answer = self.hear(next, question, &Seen::default());
            if let Some(other) = self.learn(next, &answer) {
                return Err(other);
            }
        }
        let has_closed = next.has_closed(heir) || self.close(next, heir);
        has_closed.then_some(()).ok_or_else(|| replica_id(heir))
    }
}

impl State {
    fn has_closed(&self, heir: usize) -> bool {
        self.known[heir].values().any(|noted| noted.heir == replica_id(heir) && noted.is_closed)
    }

    fn give_up(&mut self, heir: usize) {
        self.attempts[heir] = None;
        self.answers.retain(|answer| answer.to.heir != heir);
    }
}
