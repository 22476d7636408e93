//! What is broken on purpose, and by which rule it must be found: so the models are known to bite.

use crate::check::{Report, Search, System, check};
use crate::models::chains::{self, Chains};
use crate::models::grants::{self, Grants};
use crate::models::heirs::{self, Heirs, LeftOut};
use crate::models::holds::{self, Holds};
use crate::models::merge::{self, Merge};
use crate::models::push::{self, Pushes};
use crate::models::reconcile::{self, Reconcile};
use crate::models::retire::{self, Retire};

pub(crate) struct Break {
    pub(crate) model: &'static str,
    pub(crate) what: &'static str,
    /// The rule that tells.
    pub(crate) rule: &'static str,
    run: Box<dyn Fn() -> Report>,
}

impl Break {
    /// Searches in breadth, so that the path is a shortest one.
    pub(crate) fn find(&self) -> Report {
        (self.run)()
    }
}

fn entry<S: System + Clone>(model: &'static str, what: &'static str, rule: &'static str, system: S) -> Break {
    Break { model, what, rule, run: Box::new(move || check(system.clone(), Search::Breadth)) }
}

const MERGE: Merge = Merge { replicas: 2, writes: 3, broken: merge::Broken::Nothing };
const RECONCILE: Reconcile =
    Reconcile { replicas: 3, writes: 3, sessions: 1, meetings: 1, deaths: 1, broken: reconcile::Broken::Nothing };
const PUSHES: Pushes = Pushes { replicas: 3, requests: 2, crashes: 1, deaths: 1, broken: push::Broken::Nothing };
const GRANTS: Grants = Grants { replicas: 2, stock: 2, grants: 1, crashes: 1, broken: grants::Broken::Nothing };
const HOLDS: Holds =
    Holds { replicas: 1, stock: 2, holds: 1, sales: 3, ticks: 1, crashes: 1, broken: holds::Broken::Nothing };
const RETIRE: Retire = Retire { replicas: 3, stock: 2, grants: 1, broken: retire::Broken::Nothing };

const HEIRS: Heirs =
    Heirs { members: 3, heirs: 2, left_out: LeftOut::Nobody, attempts: 2, broken: heirs::Broken::Nothing };

const CHAINS: Chains = Chains {
    members: 4,
    dying: &[0, 2],
    products: 1,
    first_takes: 1,
    attempts: 3,
    in_parts: false,
    returns: false,
    broken: chains::Broken::Nothing,
};

pub(crate) fn all() -> Vec<Break> {
    let mut all = of_deltas();
    all.extend(of_rights());
    all.extend(of_heirs());
    all.extend(of_chains());
    all
}

fn of_deltas() -> Vec<Break> {
    use merge::Broken as M;
    use push::Broken as P;
    use reconcile::Broken as R;
    let merge = |what, broken| entry("merge", what, "M1", Merge { broken, ..MERGE });
    let unsound = Reconcile { replicas: 2, writes: 2, meetings: 0, broken: R::ClaimsBeforeWhole, ..RECONCILE };
    let parting = Reconcile { broken: R::ClaimsBeforeWholeUnseen, ..RECONCILE };
    let push = |what, rule, broken| entry("push", what, rule, Pushes { broken, ..PUSHES });
    // A third write keeps the vectors apart, else the shard would be in doubt, and repaired, at once (rule F4).
    let parted = Pushes { requests: 3, broken: P::RebuiltFromStateUnseen, ..PUSHES };
    vec![
        merge("a price that comes overwrites", M::Overwrites),
        merge("a write that comes late is skipped", M::SkipsOlder),
        entry("reconcile", "a delta is claimed before it is whole", "claims", unsound),
        entry("reconcile", "the same, and survivors part", "converged", parting),
        push("a push is rebuilt from the state", "claims", P::RebuiltFromState),
        entry("push", "the same, and survivors part", "converged", parted),
        push("a push claims over a gap", "claims", P::ClaimsOverGaps),
        push("a push leaves before it is durable", "claims", P::SentEarly),
    ]
}

fn of_rights() -> Vec<Break> {
    use grants::Broken as G;
    use holds::Broken as H;
    use retire::Broken as E;
    let grants = |what, broken| entry("grants", what, "oversold", Grants { broken, ..GRANTS });
    let holds = |what, rule, broken| entry("holds", what, rule, Holds { broken, ..HOLDS });
    let retire = |what, rule, broken| entry("retire", what, rule, Retire { broken, ..RETIRE });
    vec![
        grants("a grant is told before it is durable", G::ToldEarly),
        grants("a sale asks for no rights", G::SellsBeyondRights),
        grants("an answer counts beside its grant", G::AnswerCountsTwice),
        holds("a hold expires twice", "O6", H::ExpiresTwice),
        holds("the same, and customers are sold too much", "oversold", H::ExpiresTwiceUnseen),
        holds("holds are written behind their slots", "O6", H::HoldsWrittenLate),
        retire("a fence is closed without an exchange", "oversold", E::FenceWithoutExchange),
        retire("a fence has holes", "oversold", E::FenceWithHoles),
        retire("an heir counts again what it takes over", "E2", E::CountsAgain),
        retire("who returns counts twice", "E2", E::ReappliesTwice),
    ]
}

fn of_heirs() -> Vec<Break> {
    use heirs::Broken as E;
    let heirs = |what, rule, left_out, broken| entry("heirs", what, rule, Heirs { left_out, broken, ..HEIRS });
    vec![
        heirs("nobody gives way", "Q1 ends", LeftOut::Nobody, E::NobodyGivesWay),
        heirs("rivals are not asked", "Q1", LeftOut::Others, E::RivalsAreNotAsked),
        heirs("who closed its fence gives way", "Q1", LeftOut::Lower, E::TheClosedGiveWay),
        heirs("who gave way goes on", "Q1", LeftOut::Lower, E::GoesOn),
    ]
}

fn of_chains() -> Vec<Break> {
    use chains::Broken as C;
    let few = Chains { members: 3, dying: &[0], ..CHAINS };
    let two = Chains { products: 2, first_takes: 2, attempts: 1, broken: C::BehindOpenFences, ..few };
    let units = Chains { products: 2, attempts: 1, broken: C::ItsOwnPlaceAlone, ..few };
    let told = Chains { broken: C::WithoutExchange, ..few };
    let back = Chains { returns: true, attempts: 2, broken: C::WordsAreNotAskedBack, products: 2, ..few };
    let word = Chains { broken: C::TheRetiredAreReplaced, ..few };
    // This one needs four, which takes too long for a test.
    let round = Chains { broken: C::OneRound, ..CHAINS };
    vec![
        entry("chains", "an heir takes over its own place alone", "Q4 units", units),
        entry("chains", "an heir takes over behind open fences", "oversold", two),
        entry("chains", "a fence is closed without an exchange", "oversold", told),
        entry("chains", "heirs that were retired are replaced", "Q4 ends", word),
        entry("returns", "a word that was given is not asked back", "Q4 units", back),
        entry("chains-4", "an heir asks in one round", "oversold", round),
    ]
}
