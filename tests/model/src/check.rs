//! The search: a system of states and actions, made known to the checker, and what became of it.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model, Property};

/// A rule that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Fault {
    /// The rule's number, or what it is about.
    pub(crate) rule: &'static str,
    pub(crate) text: String,
}

impl Fault {
    pub(crate) fn new(rule: &'static str, text: impl Into<String>) -> Self {
        Self { rule, text: text.into() }
    }
}

/// What can be searched. Steps check the rules; the search sees to it that every step is taken from every state.
pub(crate) trait System: Send + Sync + 'static {
    type State: Clone + PartialEq + Hash + Send + Sync + 'static;
    type Action: Clone + Debug + PartialEq + Send + Sync + 'static;

    /// Things that must have happened somewhere in a whole search: else it would show nothing about them.
    const WITNESSES: &'static [&'static str];

    /// Whether the witness of this number can happen in this search.
    fn may_happen(&self, _witness: usize) -> bool {
        true
    }

    fn initial(&self) -> Self::State;
    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>);

    /// The state behind an action; `None` if the action changes nothing or is refused.
    fn step(&self, state: &Self::State, action: &Self::Action, seen: &Seen) -> Result<Option<Self::State>, Fault>;
}

/// What was seen in a search so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Which of the witnesses.
    witnesses: Arc<AtomicU64>,
    /// What was checked already, as hashes.
    checked: Arc<Mutex<HashSet<u64>>>,
}

impl Seen {
    pub(crate) fn note(&self, witness: usize) {
        let bit = 1 << witness;
        // Nearly always it is there already, and a plain read costs the other threads nothing.
        if self.witnesses.load(Ordering::Relaxed) & bit == 0 {
            self.witnesses.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Checks something unless it was checked and found sound before: many states differ only in what a check does not
    /// look at.
    pub(crate) fn once(&self, checked: impl Hash, check: impl FnOnce() -> Result<(), Fault>) -> Result<(), Fault> {
        let mut hasher = DefaultHasher::new();
        checked.hash(&mut hasher);
        let key = hasher.finish();
        if self.checked.lock().unwrap().contains(&key) {
            return Ok(());
        }
        check()?;
        self.checked.lock().unwrap().insert(key);
        Ok(())
    }

    fn has(&self, witness: usize) -> bool {
        self.witnesses.load(Ordering::Relaxed) & (1 << witness) != 0
    }
}

/// A state, or the end of a path that broke a rule.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Reached<S> {
    Sound(S),
    Faulty(Fault),
}

struct Checked<S> {
    system: S,
    seen: Seen,
    /// States whose actions were all tried: in a whole search as many as there are.
    expanded: Arc<AtomicUsize>,
}

const NO_FAULT: &str = "no rule is broken";

impl<S: System> Model for Checked<S> {
    type State = Reached<S::State>;
    type Action = S::Action;

    fn init_states(&self) -> Vec<Self::State> {
        vec![Reached::Sound(self.system.initial())]
    }

    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>) {
        self.expanded.fetch_add(1, Ordering::Relaxed);
        if let Reached::Sound(state) = state {
            self.system.actions(state, actions);
        }
    }

    fn next_state(&self, state: &Self::State, action: Self::Action) -> Option<Self::State> {
        let Reached::Sound(state) = state else { return None };
        match self.system.step(state, &action, &self.seen) {
            Ok(next) => next.map(Reached::Sound),
            Err(fault) => Some(Reached::Faulty(fault)),
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![Property::always(NO_FAULT, |_, state| matches!(state, Reached::Sound(_)))]
    }
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// In depth, which needs the least memory, with so many threads.
    Depth(usize),
    /// In breadth, so that the first counter-example is a shortest one.
    Breadth,
}

#[derive(Clone, Debug)]
pub(crate) struct CounterExample {
    pub(crate) fault: Fault,
    pub(crate) path: Vec<String>,
}

/// What a search found.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    pub(crate) unique: usize,
    pub(crate) generated: usize,
    pub(crate) expanded: usize,
    pub(crate) depth: usize,
    pub(crate) time: Duration,
    pub(crate) counter_example: Option<CounterExample>,
    /// Witnesses that were not seen.
    pub(crate) unseen: Vec<&'static str>,
}

impl Report {
    /// Whether every state that can be reached was reached and left by each of its actions. The checker's own word is not
    /// enough: it also calls itself done when it was stopped.
    pub(crate) fn is_complete(&self) -> bool {
        self.counter_example.is_none() && self.expanded == self.unique && self.unseen.is_empty()
    }
}

/// Searches all of a system. No time-out, no target: it ends with all states, or with a broken rule.
pub(crate) fn check<S: System>(system: S, search: Search) -> Report {
    let begun = Instant::now();
    let (seen, expanded) = (Seen::default(), Arc::new(AtomicUsize::new(0)));
    let expected: Vec<_> = (0..).zip(S::WITNESSES).filter(|(witness, _)| system.may_happen(*witness)).collect();
    let model = Checked { system, seen: seen.clone(), expanded: expanded.clone() };
    let builder = model.checker().finish_when(HasDiscoveries::AnyFailures);
    let report = match search {
        Search::Depth(threads) => report_of(&builder.threads(threads).spawn_dfs().join(), &expanded),
        Search::Breadth => report_of(&builder.spawn_bfs().join(), &expanded),
    };
    let unseen = expected.into_iter().filter(|(witness, _)| !seen.has(*witness)).map(|(_, name)| *name);
    Report { unseen: unseen.collect(), time: begun.elapsed(), ..report }
}

fn report_of<S: System>(checker: &impl Checker<Checked<S>>, expanded: &AtomicUsize) -> Report {
    // Before the path is read, which asks for the actions of its states once more.
    let expanded = expanded.load(Ordering::Relaxed);
    let counter_example = checker.discovery(NO_FAULT).map(|path| {
        let fault = match path.last_state() {
            Reached::Faulty(fault) => fault.clone(),
            Reached::Sound(_) => Fault::new("checker", "the path ends in a sound state"),
        };
        CounterExample { fault, path: path.into_actions().iter().map(|action| format!("{action:?}")).collect() }
    });
    Report {
        unique: checker.unique_state_count(),
        generated: checker.state_count(),
        expanded,
        depth: checker.max_depth(),
        time: Duration::ZERO,
        counter_example,
        unseen: Vec::new(),
    }
}
