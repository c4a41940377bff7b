//! `docs/messages.md` says what the code does: which message waits for which write. And the ways through the code in the guide of
//! the crate go through functions that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;

use super::core::Core;
use crate::protocol::health::halt::Halt;
use crate::protocol::normal::apply::{ApplyContext, Machine};
use crate::protocol::types::membership::Membership;
use crate::protocol::types::message::Message;
use crate::protocol::types::number::{BatchNumber, ClientId, ClusterId, DiskId, Monotonic, ReplicaId, Timestamp};
use crate::protocol::types::options::{Options, Timing};
use crate::protocol::types::vsr_state::{Recovered, VsrState};
use crate::wire::tests::messages;

/// Of the second of three members, whose disk was just formatted.
pub(super) fn any_state() -> VsrState {
    let membership = Membership::new(["a", "b", "c"]).unwrap();
    VsrState::formatted(ClusterId(1), ReplicaId(1), DiskId(1), membership)
}

pub(super) fn any_core() -> Core {
    start(any_state())
}

/// A replica on a disk that holds no op.
pub(super) fn start(state: VsrState) -> Core {
    try_start(state).unwrap()
}

/// As [`start`], if the replica does not refuse.
pub(super) fn try_start(state: VsrState) -> Result<Core, Halt> {
    let options = Options {
        timing: Timing::default(),
        seed: 1,
        local_client: ClientId(1),
        machine_version: 1,
        log_bytes_max: 1 << 30,
        cache_bytes: 0,
        queue_bytes_max: 1 << 20,
        checkpoints: false,
    };
    let recovered = Recovered { state, slots: Vec::new(), head_certain: true };
    Core::recover(options, recovered, Monotonic(0), Timestamp(0))
}

/// A state machine that does nothing and answers nothing.
pub(super) struct Nothing;

impl Machine for Nothing {
    fn can_decode(&self, _: &Bytes) -> bool {
        true
    }

    fn apply(&mut self, _: &ApplyContext, _: Bytes, _: &mut Vec<u8>) -> Result<(), Halt> {
        Ok(())
    }
}

/// The writes that the code makes a message wait for.
fn awaited(core: &mut Core, message: &Message) -> BTreeSet<&'static str> {
    let mut batch = |view: u64, log_view: u64| {
        core.writes.view_batch = BatchNumber(view);
        core.writes.log_view_batch = BatchNumber(log_view);
        core.writes.needs(message)
    };
    // The start is the first batch; the others are made later ones here, one at a time.
    let is_awaited = [
        ("start", batch(0, 0) == BatchNumber(1)),
        ("view", batch(5, 0) == BatchNumber(5)),
        ("log_view", batch(0, 5) == BatchNumber(5)),
    ];
    let mut words: BTreeSet<_> = is_awaited.iter().filter(|(_, is)| *is).map(|(word, _)| *word).collect();
    if words.is_empty() {
        words.insert("nothing");
    }
    words
}

/// Of each row of the table, what stands in code in the column of what must be durable.
fn documented(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut rows = BTreeMap::new();
    for line in text.lines().take_while(|line| !line.starts_with("## ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if let ["", name, _, _, durable, ..] = cells[..]
            && let Some(name) = name.strip_prefix('`')
        {
            rows.insert(name.trim_end_matches('`'), durable.split('`').skip(1).step_by(2).collect());
        }
    }
    rows
}

#[test]
fn the_table_of_messages_says_what_each_waits_for() {
    let path = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../docs/messages.md");
    let text = std::fs::read_to_string(&path).expect("docs/messages.md");
    let mut rows = documented(&text);
    let mut core = any_core();
    for message in messages() {
        let row = rows.remove(message.name());
        assert_eq!(row, Some(awaited(&mut core, &message)), "{}", message.name());
    }
    assert!(rows.is_empty(), "no sample of these is looked at: {rows:?}");
}

/// Of each row of a table that begins with a source file: the file, and the functions in the second column.
fn ways(guide: &str) -> Vec<(&str, Vec<&str>)> {
    let mut ways = Vec::new();
    for line in guide.lines() {
        if let Some((file, rest)) = line.strip_prefix("//! | `").and_then(|row| row.split_once('`'))
            && file.ends_with(".rs")
        {
            let functions = rest.split('|').nth(1).unwrap_or_default();
            ways.push((file, functions.split('`').skip(1).step_by(2).collect()));
        }
    }
    ways
}

#[test]
fn the_ways_through_the_code_go_through_functions_that_are_there() {
    let folder = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("src");
    let guide = std::fs::read_to_string(folder.join("lib.rs")).expect("the guide");
    let (mut rows, mut wrong) = (0, Vec::new());
    for (file, functions) in ways(&guide) {
        let source = std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        rows += 1;
        if functions.is_empty() {
            wrong.push(format!("no function of {file} is named"));
        }
        for name in functions {
            if !source.contains(&format!("fn {name}(")) && !source.contains(&format!("fn {name}<")) {
                wrong.push(format!("{file} has no function {name}"));
            }
        }
    }
    assert!(rows > 40, "{rows} rows");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
