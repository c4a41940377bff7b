//! The store's program as people use it.

use std::process::Command;

const PROGRAM: &str = env!("CARGO_BIN_EXE_kv");

#[test]
fn the_demo_survives_the_death_of_its_primary() {
    let output = Command::new(PROGRAM).args(["demo", "--seconds", "1"]).output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.trim_end().ends_with("verdict=pass"), "{output:?}");
}

#[test]
#[cfg(feature = "rocksdb")]
fn the_demo_passes_on_rocksdb() {
    let args = ["demo", "--seconds", "1", "--storage", "rocksdb"];
    let output = Command::new(PROGRAM).args(args).output().expect("the program runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.trim_end().ends_with("verdict=pass"), "{output:?}");
}
