//! A breadth-first explorer: every state within the bound, the shortest way to each, and what must
//! hold of states, of moves and of rests.
//!
//! Ours, because the `stateright` crate brings a web server (`tiny_http`, with `rand`, `dashmap` and
//! some forty more) that no feature turns off, and because its "eventually" properties miss cycles,
//! which is what liveness is about. States are told apart by a 64-bit hash, as there.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What can be explored.
pub(crate) trait Model {
    type State: Hash + fmt::Debug;
    type Action: Copy + fmt::Debug;

    fn initial(&self) -> Self::State;
    /// Every action that `state` allows.
    fn actions(&self, state: &Self::State, actions: &mut Vec<Self::Action>);
    fn step(&self, state: &Self::State, action: Self::Action) -> Self::State;
    /// Whether the system takes the action by itself: no fault, and nobody's wish.
    fn is_progress(&self, action: Self::Action) -> bool;
    /// What must hold in every state.
    fn check(&self, state: &Self::State) -> Result<(), Broken>;
    /// What must hold of every move.
    fn check_move(
        &self,
        before: &Self::State,
        action: Self::Action,
        after: &Self::State,
    ) -> Result<(), Broken>;
    /// What must hold where no progress is possible any more.
    fn check_rest(&self, state: &Self::State) -> Result<(), Broken>;
}

/// The promise that did not hold.
pub(crate) type Broken = &'static str;

/// What an exploration without a counterexample saw.
#[derive(Debug)]
pub(crate) struct Explored {
    pub(crate) states: usize,
    pub(crate) moves: usize,
    /// How many moves the farthest state is away.
    pub(crate) depth: u32,
    /// How many states can only wait for a wish or a fault.
    pub(crate) rests: usize,
    /// The longest way to a rest without a fault and without a wish.
    pub(crate) longest_way_to_rest: u32,
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, moves, depth, rests, longest_way_to_rest } = self;
        write!(f, "{states} states, {moves} moves, depth {depth}, {rests} rests, ")?;
        write!(f, "at most {longest_way_to_rest} moves to a rest")
    }
}

/// The shortest way to a broken promise.
pub(crate) struct Counterexample<M: Model> {
    pub(crate) promise: Broken,
    pub(crate) trace: Vec<M::Action>,
    pub(crate) state: M::State,
}

impl<M: Model> fmt::Debug for Counterexample<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.promise)?;
        for (n, action) in self.trace.iter().enumerate() {
            writeln!(f, "{:4}  {action:?}", n + 1)?;
        }
        write!(f, "{:#?}", self.state)
    }
}

/// How a state was found first.
#[derive(Clone, Copy)]
struct Origin<A> {
    parent: u32,
    action: Option<A>,
}

/// Everything known of the states but the states themselves.
struct Graph<A> {
    numbers: HashMap<u64, u32>,
    origins: Vec<Origin<A>>,
    /// Where each state can go by progress alone, one state after the other.
    progress: Vec<u32>,
    progress_ends: Vec<usize>,
}

impl<A: Copy> Graph<A> {
    /// The number of a state, and whether it is new.
    fn enter<S: Hash>(&mut self, state: &S, origin: Origin<A>) -> (u32, bool) {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let next = u32::try_from(self.origins.len()).expect("fewer than 2^32 states fit anywhere");
        let number = *self.numbers.entry(hasher.finish()).or_insert(next);
        if number == next {
            self.origins.push(origin);
        }
        (number, number == next)
    }

    fn trace(&self, mut number: u32) -> Vec<A> {
        let mut trace = Vec::new();
        while let Origin { parent, action: Some(action) } = self.origins[number as usize] {
            trace.push(action);
            number = parent;
        }
        trace.reverse();
        trace
    }

    fn by_progress(&self, number: usize) -> &[u32] {
        let begin = if number == 0 { 0 } else { self.progress_ends[number - 1] };
        &self.progress[begin..self.progress_ends[number]]
    }

    /// The longest way by progress alone, or a state from which progress runs in a circle.
    fn longest_way(&self) -> Result<u32, u32> {
        let mut entrances = vec![0_u32; self.origins.len()];
        for to in &self.progress {
            entrances[*to as usize] += 1;
        }
        let mut length = vec![0_u32; self.origins.len()];
        let unentered = |(number, count): (usize, &u32)| (*count == 0).then_some(number);
        let mut ready: Vec<usize> = entrances.iter().enumerate().filter_map(unentered).collect();
        let (mut sorted, mut longest) = (0, 0);
        while let Some(number) = ready.pop() {
            sorted += 1;
            longest = longest.max(length[number]);
            for to in self.by_progress(number) {
                let to = *to as usize;
                length[to] = length[to].max(length[number] + 1);
                entrances[to] -= 1;
                if entrances[to] == 0 {
                    ready.push(to);
                }
            }
        }
        if sorted == self.origins.len() {
            return Ok(longest);
        }
        let stuck = entrances.iter().position(|count| *count > 0).unwrap_or_default();
        Err(u32::try_from(stuck).expect("a state's number"))
    }
}

/// Explores every state of `model`, checking as it goes.
pub(crate) fn explore<M: Model>(model: &M) -> Result<Explored, Box<Counterexample<M>>> {
    let mut graph = Graph {
        numbers: HashMap::new(),
        origins: Vec::new(),
        progress: Vec::new(),
        progress_ends: Vec::new(),
    };
    let initial = model.initial();
    graph.enter(&initial, Origin { parent: 0, action: None });
    let mut queue = VecDeque::from([(initial, 0)]);
    let mut actions = Vec::new();
    let (mut moves, mut depth, mut rests) = (0, 0, 0);
    // States are expanded in the order of their numbers.
    for number in 0.. {
        let Some((state, level)) = queue.pop_front() else { break };
        depth = level;
        actions.clear();
        model.actions(&state, &mut actions);
        moves += actions.len();
        let mut at_rest = true;
        for action in &actions {
            let after = model.step(&state, *action);
            let origin = Origin { parent: number, action: Some(*action) };
            let (to, is_new) = graph.enter(&after, origin);
            let checked = model
                .check_move(&state, *action, &after)
                .and_then(|()| if is_new { model.check(&after) } else { Ok(()) });
            if let Err(promise) = checked {
                let mut trace = graph.trace(number);
                trace.push(*action);
                return Err(Box::new(Counterexample { promise, trace, state: after }));
            }
            if model.is_progress(*action) {
                at_rest = false;
                graph.progress.push(to);
            }
            if is_new {
                queue.push_back((after, level + 1));
            }
        }
        graph.progress_ends.push(graph.progress.len());
        if at_rest {
            rests += 1;
            if let Err(promise) = model.check_rest(&state) {
                let trace = graph.trace(number);
                return Err(Box::new(Counterexample { promise, trace, state }));
            }
        }
    }
    let longest_way_to_rest = graph.longest_way().map_err(|number| {
        let trace = graph.trace(number);
        let state = trace.iter().fold(model.initial(), |state, action| model.step(&state, *action));
        Box::new(Counterexample { promise: "progress ends", trace, state })
    })?;
    Ok(Explored { states: graph.origins.len(), moves, depth, rests, longest_way_to_rest })
}
