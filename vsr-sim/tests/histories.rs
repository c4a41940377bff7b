//! The checker of histories: recorded ones with known verdicts, and small ones against every possible order.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use vsr::protocol::Random;
use vsr_sim::history::{
    Completion, Keyed, Linearizability, Model, Operation, Problem, Register, RegisterInput, RegisterOutput,
    SearchLimits, Text, TextInput, TextOutput, check, check_file, check_files, check_text,
};

fn folder(name: &str) -> PathBuf {
    let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
    Path::new(&root).join("tests/histories").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(name)).expect("a folder of histories");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// Checks each file of a folder.
fn expect(name: &str, linearizable: impl Fn(&str) -> bool) {
    for file in files(name) {
        let name = file.file_stem().expect("a name").to_string_lossy();
        let verdict = check_file(&file).unwrap_or_else(|error| panic!("{error}"));
        match verdict {
            Linearizability::Linearizable => assert!(linearizable(&name), "{name} should not be linearizable"),
            Linearizability::NotLinearizable { why, .. } => assert!(!linearizable(&name), "{name}: {why}"),
            Linearizability::Unknown { why } => panic!("{name}: {why}"),
        }
    }
}

#[test]
fn logs_of_etcd_have_their_known_verdicts() {
    let good = ["002", "005", "007", "018", "025", "031", "038", "045", "048", "049"];
    assert_eq!(files("etcd").len(), 50);
    expect("etcd", |name| good.iter().any(|number| name.ends_with(number)));
}

#[test]
fn texts_under_keys_have_their_known_verdicts() {
    assert_eq!(files("kv").len(), 2);
    expect("kv", |name| name.ends_with("ok"));
}

#[test]
fn maps_of_registers_have_their_known_verdicts() {
    assert_eq!((files("maps/good").len(), files("maps/bad").len()), (8, 6));
    expect("maps/good", |_| true);
    expect("maps/bad", |_| false);
}

#[test]
fn one_line_a_file_says_what_and_why() {
    let run = |files: &[PathBuf]| {
        let mut out = Vec::new();
        let code = check_files(files, &mut out);
        (code, String::from_utf8(out).expect("text"))
    };
    let (good, bad) = (folder("etcd/etcd_002.log"), folder("maps/bad/stale-read.edn"));
    let missing = folder("missing.edn");
    assert_eq!(run(std::slice::from_ref(&good)), (0, format!("{}: linearizable\n", good.display())));
    let why = "lines 5 to 7: process 2: read 0 fits nowhere; up to it the history has an order, with 2 of 3 operations";
    let (code, lines) = run(&[good.clone(), bad.clone()]);
    assert_eq!(code, 1);
    assert_eq!(lines, format!("{}: linearizable\n{}: not linearizable: {why}\n", good.display(), bad.display()));
    assert_eq!(run(&[missing.clone(), good.clone()]).0, 2);
    assert_eq!(run(&[missing, bad]).0, 1);
    assert_eq!(run(&[]), (0, String::new()));
}

#[test]
fn a_history_beyond_the_limits_is_unknown() {
    let text = std::fs::read_to_string(folder("etcd/etcd_000.log")).expect("a log");
    for limits in
        [SearchLimits { steps: 20, ..SearchLimits::default() }, SearchLimits { bytes: 200, ..SearchLimits::default() }]
    {
        let verdict = check_text(&text, &limits).expect("a history");
        assert!(matches!(verdict, Linearizability::Unknown { .. }), "{verdict:?}");
    }
}

#[test]
fn a_refutation_names_an_operation_even_at_the_limit() {
    let text = std::fs::read_to_string(folder("etcd/etcd_000.log")).expect("a log");
    let enough = (1..).map(|steps| 1 << steps).find_map(|steps| {
        match check_text(&text, &SearchLimits { steps, ..SearchLimits::default() }).expect("a history") {
            Linearizability::NotLinearizable { why, .. } => Some(why),
            _ => None,
        }
    });
    assert!(enough.expect("a verdict").contains("process 11: read 2 fits nowhere"));
}

fn problem(text: &str) -> (usize, String) {
    let (line, problem) = check_text(text, &SearchLimits::default()).expect_err(text);
    (line, problem.to_string())
}

#[test]
fn damaged_histories_are_refused_with_line_and_reason() {
    let write = "{:process 0 :type :invoke :f :write :value 1}\n";
    for (text, line, reason) in [
        (String::new(), 0, "neither"),
        ("some other log\n".to_owned(), 0, "neither"),
        (format!("[{write}"), 2, "the text ends before its ']'"),
        (format!("{write}{{:process 1"), 2, "the text ends before the '}' of what line 2 opens"),
        (format!("{write}]"), 2, "']' closes nothing"),
        (format!("({write}]"), 2, "']' closes nothing"),
        (format!("{write}{{:process 1 :type}}"), 2, ":type has no value in its map"),
        (format!("{write}\n17"), 3, "an event is a map, not 17"),
        (format!("[[{write}]]"), 1, "an event is a map"),
        (format!("{write}{{:process 1 :type :invoke :f :write :value \"a"), 2, "within the string of line 2"),
        (format!("{write}{{:process 1 :type :invoke :f :write :value \"\\q\"}}"), 2, "'q' after a backslash"),
        (format!("{write}{{:process 1 :type :invoke :f :write :value \"\\uD800\"}}"), 2, "four digits"),
        (format!("{write}{{:type :invoke :f :write :value 1}}"), 2, "no :process"),
        (format!("{write}{{:process 1 :f :write :value 1}}"), 2, "no :type"),
        (format!("{write}{{:process 1 :type :invoke}}"), 2, "no :f"),
        (format!("{write}{{:process \"1\" :type :invoke :f :read}}"), 2, "\"1\" is not a process"),
        (format!("{write}{{:process -1 :type :invoke :f :read}}"), 2, "-1 is not a process"),
        (format!("{write}{{:process 1 :type :done :f :read}}"), 2, "the type :done"),
        (format!("{write}{{:process 1 :type :invoke :f :add}}"), 2, "the function :add"),
        (format!("{write}{write}"), 2, "process 0 still has the operation in flight that it invoked in line 1"),
        (
            format!("{write}{{:process 1 :type :ok :f :write :value 1}}"),
            2,
            "process 1 completes what it did not invoke",
        ),
        (format!("{write}{{:process 0 :type :ok :f :read :value 1}}"), 2, "something else than what line 1 invoked"),
        (format!("{write}{{:process 0 :type :ok :f :write :value 2}}"), 2, "something else than what line 1 invoked"),
        (format!("{write}{{:process 0 :type :ok :f :write :key 1}}"), 2, "something else than what line 1 invoked"),
        (format!("{write}{{:process 1 :type :invoke :f :cas :value 3}}"), 2, "has to be [expected new], not 3"),
        (format!("{write}{{:process 1 :type :invoke :f :put :key 1 :value \"a\"}}"), 2, "not both"),
        ("{:process 1 :type :invoke :f :put :value \"a\"}".to_owned(), 1, "no :key"),
        ("{:process 1 :type :invoke :f :append :key 1 :value 2}".to_owned(), 1, "has to be a string, not 2"),
        (format!("{write}{}", "[".repeat(100_000)), 2, "within each other"),
        (format!("{write}{}", "#_".repeat(100_000)), 2, "within each other"),
        ("INFO  jepsen.util - 3\t:invoke\n".to_owned(), 1, "the text ends where a value should be"),
        ("INFO  jepsen.util - 3\t:invoke\t:cas\tnil\n".to_owned(), 1, "has to be [expected new], not nil"),
        ("INFO  jepsen.util - 3\t:ok\t:read\t1\n".to_owned(), 1, "process 3 completes what it did not invoke"),
        ("INFO  jepsen.core - hello\nINFO  jepsen.util - 3\t:invoke\t:fly\t1\n".to_owned(), 2, "the function :fly"),
    ] {
        let (found_line, found) = problem(&text);
        let start: String = text.chars().take(200).collect();
        assert_eq!(found_line, line, "{start}: {found}");
        assert!(found.contains(reason), "{start}: {found}");
    }
}

#[test]
fn an_error_names_the_file_and_the_line() {
    let missing = check_file(folder("missing.edn")).expect_err("no such file");
    assert!(matches!(missing.problem, Problem::Unreadable(_)));
    assert!(missing.to_string().contains("missing.edn: cannot be read"), "{missing}");
    let folder = check_file(folder("maps")).expect_err("a folder is no file");
    assert!(matches!(folder.problem, Problem::Unreadable(_)));
}

/// Every prefix and every missing or changed line of a history has an answer.
#[test]
fn no_damage_makes_the_reader_panic() {
    let limits = SearchLimits { steps: 1_000, ..SearchLimits::default() };
    let mut random = Random::new(7);
    for file in ["etcd/etcd_002.log", "kv/c01-bad.txt", "maps/good/tagged.edn", "maps/bad/stale-read.edn"] {
        let text = std::fs::read_to_string(folder(file)).expect("a history");
        for _ in 0..500 {
            let mut bytes = text.clone().into_bytes();
            for _ in 0..=random.below(3) {
                let at = random.below(bytes.len() as u64) as usize;
                match random.below(3) {
                    0 => bytes.truncate(at),
                    1 => drop(bytes.remove(at)),
                    _ => bytes[at] = b"\"\\[](){}:;#_ 09ainkx\n\t^,"[random.below(24) as usize],
                }
                if bytes.is_empty() {
                    break;
                }
            }
            let _ = check_text(&String::from_utf8_lossy(&bytes), &limits);
        }
    }
}

/// Whether there is any order at all, found by trying them all.
fn brute_force<M: Model>(model: &M, history: &[Operation<M::Input, M::Output>], state: &M::State, placed: u32) -> bool {
    let known = |index: usize| matches!(history[index].outcome, Completion::Returned { .. });
    let open = |index: &usize| placed & 1 << index == 0;
    if (0..history.len()).filter(open).all(|index| !known(index)) {
        return true;
    }
    let deadline = history.iter().enumerate().filter(|(index, _)| open(index)).filter_map(|(_, operation)| {
        let Completion::Returned { at, .. } = operation.outcome else { return None };
        Some(at)
    });
    let deadline = deadline.min().unwrap_or(u64::MAX);
    (0..history.len()).filter(open).filter(|index| history[*index].invoked <= deadline).any(|index| {
        let output = match &history[index].outcome {
            Completion::Returned { output, .. } => Some(output),
            Completion::Unknown => None,
        };
        let next = model.step(state, &history[index].input, output);
        next.is_some_and(|next| brute_force(model, history, &next, placed | 1 << index))
    })
}

/// A model without any of the hints that make the search fast.
struct Plain<M>(M);

impl<M: Model> Model for Plain<M> {
    type Input = M::Input;
    type Output = M::Output;
    type State = M::State;
    type Key = M::Key;

    fn key(&self, input: &M::Input) -> M::Key {
        self.0.key(input)
    }

    fn initial(&self, key: &M::Key) -> M::State {
        self.0.initial(key)
    }

    fn step(&self, state: &M::State, input: &M::Input, output: Option<&M::Output>) -> Option<M::State> {
        self.0.step(state, input, output)
    }
}

/// A model with all hints but other words.
struct Unrephrased;

impl Model for Unrephrased {
    type Input = TextInput;
    type Output = TextOutput;
    type State = String;
    type Key = ();

    fn key(&self, _: &TextInput) {}

    fn initial(&self, (): &()) -> String {
        String::new()
    }

    fn step(&self, state: &String, input: &TextInput, output: Option<&TextOutput>) -> Option<String> {
        Text.step(state, input, output)
    }

    fn effect(&self, input: &TextInput, output: Option<&TextOutput>) -> vsr_sim::history::Effect<String> {
        Text.effect(input, output)
    }

    fn leads(&self, from: &String, to: &String) -> bool {
        Text.leads(from, to)
    }
}

/// What clients see of an object that is linearizable. Each of so many processes does one thing at a time;
/// one operation in `unknown` loses its answer, and then may never happen.
fn simulate<M: Model>(
    model: &M,
    random: &mut Random,
    (processes, operations, unknown): (u64, u64, u64),
    mut ask: impl FnMut(&mut Random) -> M::Input,
    answer: impl Fn(&M::State, &M::Input) -> M::Output,
) -> Vec<Operation<M::Input, M::Output>>
where
    M::Key: Default,
{
    // Of each operation: when it is invoked, happens and returns.
    let mut free = vec![0; processes as usize];
    let mut plan = Vec::new();
    for _ in 0..operations {
        let process = random.below(processes);
        let invoked = free[process as usize] + random.below(3);
        let happens = invoked + random.below(2 * processes);
        let returned = happens + random.below(2 * processes);
        let lost = random.chance(1, unknown);
        free[process as usize] = returned + 1;
        let happens = if lost { invoked + random.below(20 * processes) } else { happens };
        plan.push((happens, random.next_u64(), process, invoked, returned, lost));
    }
    plan.sort_unstable();
    let mut state = model.initial(&M::Key::default());
    let mut history = Vec::new();
    for (_, _, process, invoked, returned, lost) in plan {
        let input = ask(random);
        if lost {
            if random.chance(1, 2) {
                state = model.step(&state, &input, None).expect("an unknown outcome is always possible");
            }
            history.push(Operation::unknown(process, input, invoked));
            continue;
        }
        let output = answer(&state, &input);
        state = model.step(&state, &input, Some(&output)).expect("its own answer");
        history.push(Operation::returned(process, input, invoked, output, returned));
    }
    history
}

fn ask_register(random: &mut Random, values: u64) -> RegisterInput<u64> {
    match random.below(3) {
        0 => RegisterInput::Read,
        1 => RegisterInput::Write(random.below(values)),
        _ => RegisterInput::CompareAndSet(random.below(values), random.below(values)),
    }
}

fn answer_register(state: &u64, input: &RegisterInput<u64>) -> RegisterOutput<u64> {
    match input {
        RegisterInput::Read => RegisterOutput::Value(*state),
        RegisterInput::CompareAndSet(expected, _) if expected != state => RegisterOutput::NotEqual,
        _ => RegisterOutput::Done,
    }
}

#[allow(clippy::ptr_arg, reason = "a state of the model")]
fn answer_text(state: &String, input: &TextInput) -> TextOutput {
    if *input == TextInput::Get { TextOutput::Value(state.clone()) } else { TextOutput::Done }
}

/// The history at the moment at which an operation returns, or just before that.
fn cut<I: Clone, O: Clone>(history: &[Operation<I, O>], last: usize, with: bool) -> Vec<Operation<I, O>> {
    let moment = |index: usize| match history[index].outcome {
        Completion::Returned { at, .. } => (at, index),
        Completion::Unknown => (u64::MAX, index),
    };
    let keep = |(index, operation): (usize, &Operation<I, O>)| {
        let mut operation = operation.clone();
        if moment(index) > moment(last) || (index == last && !with) {
            operation.outcome = Completion::Unknown;
        }
        operation
    };
    history.iter().enumerate().filter(|(_, operation)| operation.invoked <= moment(last).0).map(keep).collect()
}

type Check<'a, M> = &'a dyn Fn(&[Operation<<M as Model>::Input, <M as Model>::Output>]) -> Linearizability;

/// Compares checks with brute force; true if the history is linearizable.
fn compare<M: Model>(checks: &[Check<'_, M>], model: &M, history: &[Operation<M::Input, M::Output>]) -> bool
where
    M::Input: Clone,
    M::Output: Clone,
    M::Key: Default,
{
    let initial = model.initial(&M::Key::default());
    let linearizable = brute_force(model, history, &initial, 0);
    for check in checks {
        match check(history) {
            Linearizability::Linearizable => assert!(linearizable, "{history:?}"),
            Linearizability::Unknown { why } => panic!("{why}: {history:?}"),
            Linearizability::NotLinearizable { operation, why } => {
                assert!(!linearizable, "{why}: {history:?}");
                assert!(!brute_force(model, &cut(history, operation, true), &initial, 0), "{why}: {history:?}");
                assert!(brute_force(model, &cut(history, operation, false), &initial, 0), "{why}: {history:?}");
            }
        }
    }
    linearizable
}

#[test]
fn small_registers_are_judged_as_by_trying_every_order() {
    let register = Register::new(0);
    let limits = SearchLimits::default();
    let hinted = |history: &[_]| check(&register, history, &limits);
    let plain = |history: &[_]| check(&Plain(Register::new(0)), history, &limits);
    let mut random = Random::new(1);
    let mut good = 0;
    for round in 0..20_000 {
        let mut unique = 0;
        let ask = |random: &mut Random| match round % 4 {
            // No two writes are equal, so there is more to know ahead.
            0 if random.chance(1, 2) => RegisterInput::Read,
            0 => {
                unique += 1;
                RegisterInput::Write(unique)
            }
            values => ask_register(random, values + 1),
        };
        let shape = (2 + random.below(4), 2 + random.below(6), 1 + random.below(6));
        let mut history = simulate(&register, &mut random, shape, ask, answer_register);
        for operation in &mut history {
            if let (Completion::Returned { output, .. }, true) = (&mut operation.outcome, random.chance(1, 6)) {
                *output = match output {
                    RegisterOutput::Value(_) => RegisterOutput::Value(random.below(4)),
                    RegisterOutput::NotEqual => RegisterOutput::Done,
                    RegisterOutput::Done => RegisterOutput::Done,
                };
            }
        }
        good += u32::from(compare(&[&hinted, &plain], &register, &history));
    }
    assert!((5_000..18_000).contains(&good), "{good} of 20,000 are linearizable");
}

#[test]
fn an_unknown_write_of_the_same_value_can_hide_another_write() {
    let done = RegisterOutput::Done;
    let history = [
        Operation::returned(0, RegisterInput::Write(1), 0, done.clone(), 13),
        Operation::returned(1, RegisterInput::CompareAndSet(0, 3), 1, done.clone(), 7),
        Operation::unknown(2, RegisterInput::Write(0), 2),
        Operation::returned(3, RegisterInput::CompareAndSet(3, 2), 14, done, 22),
    ];
    let register = Register::new(0);
    assert!(compare(&[&|history: &[_]| check(&register, history, &SearchLimits::default())], &register, &history));
}

#[test]
fn small_texts_are_judged_as_by_trying_every_order() {
    let limits = SearchLimits::default();
    let hinted = |history: &[_]| check(&Text, history, &limits);
    let plain = |history: &[_]| check(&Plain(Text), history, &limits);
    let unrephrased = |history: &[_]| check(&Unrephrased, history, &limits);
    let mut random = Random::new(2);
    let mut good = 0;
    for round in 0..20_000 {
        let mut unique = 0_u8;
        let mut text = |random: &mut Random| match round % 3 {
            0 => {
                unique += 1;
                char::from(b'a' + unique).to_string()
            }
            1 => ["", "a", "b", "ab"][random.below(4) as usize].to_owned(),
            _ => ["a", "b", "c"][random.below(3) as usize].to_owned(),
        };
        let ask = |random: &mut Random| match random.below(5) {
            0 | 1 => TextInput::Get,
            2 => TextInput::Put(text(random)),
            _ => TextInput::Append(text(random)),
        };
        let shape = (2 + random.below(4), 2 + random.below(6), 1 + random.below(6));
        let mut history = simulate(&Text, &mut random, shape, ask, answer_text);
        let seen: Vec<_> = history.iter().map(|operation| operation.outcome.clone()).collect();
        for operation in &mut history {
            let Completion::Returned { output: TextOutput::Value(text), .. } = &mut operation.outcome else { continue };
            match (random.below(6), &seen[random.below(seen.len() as u64) as usize]) {
                (0, _) => drop(text.pop()),
                (1, Completion::Returned { output: TextOutput::Value(other), .. }) => text.clone_from(other),
                (2, _) => text.push('b'),
                (3, _) => *text = text.chars().rev().collect(),
                _ => {}
            }
        }
        good += u32::from(compare(&[&hinted, &plain, &unrephrased], &Text, &history));
    }
    assert!((5_000..18_000).contains(&good), "{good} of 20,000 are linearizable");
}

#[test]
fn parts_are_judged_each_on_its_own() {
    let keyed = Keyed::new(Register::new(0));
    let mut random = Random::new(3);
    for _ in 0..500 {
        let mut both = Vec::new();
        let mut linearizable = true;
        for key in ["x", "y"] {
            let ask = |random: &mut Random| ask_register(random, 2);
            let mut history = simulate(&Register::new(0), &mut random, (3, 6, 4), ask, answer_register);
            for operation in &mut history {
                if let (Completion::Returned { output: RegisterOutput::Value(value), .. }, true) =
                    (&mut operation.outcome, random.chance(1, 8))
                {
                    *value = 1 - *value;
                }
            }
            linearizable &= brute_force(&Register::new(0), &history, &0, 0);
            both.extend(history.into_iter().map(|Operation { process, input, invoked, outcome }| Operation {
                process,
                input: (key, input),
                invoked,
                outcome,
            }));
        }
        assert_eq!(
            check(&keyed, &both, &SearchLimits::default()) == Linearizability::Linearizable,
            linearizable,
            "{both:?}"
        );
    }
}

#[test]
fn one_impossible_read_is_found_in_any_place() {
    let mut random = Random::new(4);
    for _ in 0..50 {
        let ask = |random: &mut Random| ask_register(random, 5);
        let register = Register::new(0);
        let mut history = simulate(&register, &mut random, (5, 300, 20), ask, answer_register);
        assert_eq!(check(&register, &history, &SearchLimits::default()), Linearizability::Linearizable);
        let read = |operation: &Operation<_, _>| {
            matches!(operation.outcome, Completion::Returned { output: RegisterOutput::Value(_), .. })
        };
        let reads: Vec<_> = (0..history.len()).filter(|index| read(&history[*index])).collect();
        let guilty = reads[random.below(reads.len() as u64) as usize];
        let Completion::Returned { output, .. } = &mut history[guilty].outcome else { unreachable!("a read") };
        *output = RegisterOutput::Value(99);
        match check(&register, &history, &SearchLimits::default()) {
            Linearizability::NotLinearizable { operation, .. } => assert_eq!(operation, guilty),
            verdict => panic!("{verdict:?}"),
        }
    }
}

fn expect_linearizable<M: Model>(what: &str, model: &M, history: &[Operation<M::Input, M::Output>])
where
    M::Input: Debug,
{
    assert_eq!(check(model, history, &SearchLimits::default()), Linearizability::Linearizable, "{what}");
}

#[test]
fn long_histories_of_busy_clients_stay_within_the_limits() {
    let mut random = Random::new(5);
    let register = Register::new(0);
    let small = |random: &mut Random| ask_register(random, 5);
    for (shape, what) in [
        ((10, 100_000, u64::MAX), "100,000 operations of 10 clients"),
        ((30, 5_000, u64::MAX), "5,000 operations of 30 clients"),
        ((5, 2_000, 5), "400 unknown operations of 2,000"),
        ((5, 300, 2), "150 unknown operations of 300"),
    ] {
        expect_linearizable(what, &register, &simulate(&register, &mut random, shape, small, answer_register));
    }
    for (shape, what) in [((50, 5_000, u64::MAX), "texts of 50 clients"), ((50, 5_000, 20), "with unknown operations")]
    {
        let mut count = 0;
        let ask = |random: &mut Random| {
            count += 1;
            match random.below(20) {
                0 => TextInput::Put(format!("x {count} y")),
                1..10 => TextInput::Get,
                _ => TextInput::Append(format!("x {count} y")),
            }
        };
        expect_linearizable(what, &Text, &simulate(&Text, &mut random, shape, ask, answer_text));
    }
}

#[test]
fn a_stale_read_among_unknown_writes_is_found_within_the_limits() {
    // The unknown writes could explain much, but not a value that was never written after it was overwritten.
    let mut history: Vec<_> = (0..150).map(|n| Operation::unknown(100 + n, RegisterInput::Write(n % 5), n)).collect();
    for n in 0..100 {
        let at = 1_000 + 10 * n;
        history.push(Operation::returned(1, RegisterInput::Write(n % 5), at, RegisterOutput::Done, at + 4));
        history.push(Operation::returned(2, RegisterInput::Read, at + 1, RegisterOutput::Value(n % 5), at + 5));
    }
    let register = Register::new(0);
    expect_linearizable("unknown writes that need not be", &register, &history);
    // Each unknown write of 7 happens once, and is read twice with another value between.
    history.push(Operation::unknown(300, RegisterInput::Write(7), 0));
    for (at, value) in [(3_000, 7), (3_010, 1), (3_020, 7)] {
        history.push(Operation::returned(1, RegisterInput::Read, at, RegisterOutput::Value(value), at + 1));
    }
    match check(&register, &history, &SearchLimits::default()) {
        Linearizability::NotLinearizable { operation, .. } => assert_eq!(operation, history.len() - 1),
        verdict => panic!("{verdict:?}"),
    }
}
