//! One target: its corpus is replayed, then inputs are generated from it, and what became of them is counted. Decides nothing about the
//! inputs: that is the target's check, which panics where a rule is broken. Used by the tests of this crate.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
    time::Duration,
};

use crate::{Program, message, text};

/// Most bytes of instructions for one input.
const PROGRAM_BYTES_MAX: usize = 96;
/// Longest file that is added to a corpus.
const KEPT_BYTES_MAX: usize = 1_024;
/// Set it to have the corpus completed.
const KEEP: &str = "TCC_FUZZ_KEEP";

/// What became of an input: `accepted`, or `refused` with what was named. A few dozen different ones for each target.
pub type Outcome = Cow<'static, str>;

/// How inputs are changed.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// As bytes and words.
    Text,
    /// As lines with settings.
    Lines,
    /// As the fields of a protobuf message.
    Message,
    /// A byte that says which message it is, and the message.
    Tagged,
}

/// What is tested, and with what.
#[derive(Debug)]
pub struct Target<'a> {
    /// The folder of its corpus.
    pub name: &'static str,
    /// What its inputs are.
    pub shape: Shape,
    /// Texts that mean something to it.
    pub words: &'a [&'a str],
    /// Well-formed inputs, beside the corpus.
    pub seeds: Vec<Vec<u8>>,
    /// Generated inputs of a short run.
    pub rounds: usize,
    /// Outcomes that a run has to meet, so that a target that only looks at the surface fails: each is the beginning of one.
    pub meets: &'a [&'a str],
}

#[derive(Default)]
struct State {
    generated: u64,
    outcomes: BTreeMap<Outcome, u64>,
    smallest: BTreeMap<Outcome, Vec<u8>>,
    failed: Option<Vec<u8>>,
}

impl State {
    fn count(&mut self, outcome: Outcome, input: &[u8]) {
        let smallest = self.smallest.entry(outcome.clone()).or_insert_with(|| input.to_vec());
        if input.len() < smallest.len() {
            *smallest = input.to_vec();
        }
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Before it is checked; the smallest one that fails is what is kept.
    fn fails(&mut self, input: &[u8]) {
        if self.failed.as_ref().is_none_or(|before| input.len() < before.len()) {
            self.failed = Some(input.to_vec());
        }
    }
}

impl Target<'_> {
    /// Replays, generates, checks; then looks whether everything was met that must be.
    ///
    /// # Panics
    /// The check did, or an outcome was not met. An input that the check panicked about is in the corpus from then on.
    pub fn run(self, mut check: impl FnMut(&[u8]) -> Outcome) {
        let mut bases = self.seeds.clone();
        let mut state = State::default();
        let mut known = BTreeSet::new();
        // First, as what they leave behind lets others mean something.
        for seed in &self.seeds {
            state.count(check(seed), seed);
        }
        for (name, input) in self.corpus() {
            match catch_unwind(AssertUnwindSafe(|| check(&input))) {
                Ok(outcome) => drop(known.insert(outcome.clone())),
                Err(panic) => {
                    eprintln!("{}: the kept input {name} fails", self.name);
                    resume_unwind(panic);
                }
            }
            bases.push(input);
        }
        let replayed = bases.len() - self.seeds.len();
        assert!(!bases.is_empty(), "{}: nothing to begin with", self.name);
        let state = self.generate(&bases, check, state);
        let met = |wanted: &str| known.iter().chain(state.outcomes.keys()).any(|outcome| outcome.starts_with(wanted));
        println!("{}: {} kept inputs, {} generated", self.name, replayed, state.generated);
        state.outcomes.iter().for_each(|(outcome, count)| println!("{count:>9}  {outcome}"));
        self.keep(&state, &known);
        let missed: Vec<_> = self.meets.iter().filter(|wanted| !met(wanted)).collect();
        assert!(missed.is_empty(), "{}: never met {missed:?}, only {:?}", self.name, state.outcomes);
    }

    /// Inputs made from the bases, and some that are random from end to end.
    fn generate(&self, bases: &[Vec<u8>], check: impl FnMut(&[u8]) -> Outcome, state: State) -> State {
        let shared = AssertUnwindSafe(RefCell::new((check, state)));
        let run = |program: &[u8], shared: &AssertUnwindSafe<RefCell<_>>| {
            let input = self.input(bases, program);
            let (check, state) = &mut *shared.borrow_mut();
            let check: &mut dyn FnMut(&[u8]) -> Outcome = check;
            let state: &mut State = state;
            state.generated += 1;
            match catch_unwind(AssertUnwindSafe(|| check(&input))) {
                Ok(outcome) => state.count(outcome, &input),
                Err(panic) => {
                    state.fails(&input);
                    resume_unwind(panic);
                }
            }
        };
        let (run, whole) = (AssertUnwindSafe(run), &shared);
        let run = &run;
        let ended = catch_unwind(AssertUnwindSafe(|| explore(self.name, self.rounds, |program| (*run)(program, whole))));
        let (_, state) = shared.0.into_inner();
        if let Err(panic) = ended {
            if let Some(input) = &state.failed {
                eprintln!("{}: fails with {:?}", self.name, String::from_utf8_lossy(input));
                self.write("failed", input);
            }
            resume_unwind(panic);
        }
        state
    }

    fn input(&self, bases: &[Vec<u8>], program: &[u8]) -> Vec<u8> {
        let mut program = Program::new(program);
        if program.once_in(64) {
            return program.rest().to_vec();
        }
        let mut input = program.one_of(bases).cloned().unwrap_or_default();
        match self.shape {
            Shape::Text => text::mutate(&mut input, self.words, bases, &mut program),
            Shape::Lines => text::mutate_lines(&mut input, self.words, bases, &mut program),
            Shape::Message => message::mutate(&mut input, self.words, bases, &mut program),
            Shape::Tagged => {
                let mut tag = if input.is_empty() { 0 } else { input.remove(0) };
                let others: Vec<_> =
                    bases.iter().filter(|base| base.first() == Some(&tag)).map(|base| base[1..].to_vec()).collect();
                message::mutate(&mut input, self.words, &others, &mut program);
                if program.once_in(32) {
                    tag = program.byte();
                }
                input.insert(0, tag);
            }
        }
        input
    }

    fn folder(&self) -> PathBuf {
        [env!("CARGO_MANIFEST_DIR"), "corpus", self.name].iter().collect()
    }

    /// In the order of their names.
    fn corpus(&self) -> Vec<(String, Vec<u8>)> {
        let files = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let mut inputs: Vec<_> = files
            .filter_map(|file| Some((file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).ok()?)))
            .collect();
        inputs.sort();
        inputs
    }

    /// For each outcome that has to be met and that no kept input has, the smallest input that had it.
    fn keep(&self, state: &State, known: &BTreeSet<Outcome>) {
        if env::var_os(KEEP).is_none() {
            return;
        }
        for wanted in self.meets.iter().filter(|wanted| !known.iter().any(|outcome| outcome.starts_with(**wanted))) {
            let met = state.smallest.iter().filter(|(outcome, _)| outcome.starts_with(*wanted)).map(|(_, input)| input);
            if let Some(input) = met.min_by_key(|input| input.len()).filter(|input| input.len() <= KEPT_BYTES_MAX) {
                self.write(wanted, input);
            }
        }
    }

    fn write(&self, what: &str, input: &[u8]) {
        let mut hasher = DefaultHasher::new();
        input.hash(&mut hasher);
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let name: String = what.chars().take(48).map(plain).collect();
        let path = self.folder().join(format!("{name}-{:08x}", hasher.finish() as u32));
        let written = fs::create_dir_all(self.folder()).and_then(|()| fs::write(&path, input));
        match written {
            Ok(()) => eprintln!("{}: kept {}", self.name, path.display()),
            Err(error) => eprintln!("{}: could not keep {}: {error}", self.name, path.display()),
        }
    }
}

/// Runs the engine: so many programs, or for as long as the environment says.
fn explore(name: &'static str, rounds: usize, run: impl Fn(&[u8])) {
    let engine = bolero::check!(name = name).with_max_len(PROGRAM_BYTES_MAX).with_shrink_time(Duration::from_secs(5));
    let engine = match env::var_os("BOLERO_RANDOM_TEST_TIME_MS") {
        Some(_) => engine,
        None => engine.with_iterations(rounds).with_test_time(Duration::MAX),
    };
    let run = AssertUnwindSafe(run);
    let run = &run;
    engine.for_each(|program: &[u8]| (run.0)(program));
}
