//! What an operator sees and relies on: words, exit codes, limits of time. Real processes; every test is named after what went wrong.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::{PROGRAM, configure, counter, last_line, metric, start, stderr, timed, until};

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// Refused in words, with this exit code, and without a panic.
fn assert_refused(output: &Output, expected: i32, words: &str) {
    let text = stderr(output);
    assert_eq!(code(output), Some(expected), "{output:?}");
    assert!(text.contains(words) && !text.contains("panicked"), "no {words:?} in {text}");
}

fn formatted() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path());
    let output = counter(&["format", "--config", &config]);
    assert!(output.status.success(), "{output:?}");
    (folder, config)
}

#[test]
fn format_of_a_replica_that_is_no_member_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configure(folder.path());
    for id in ["255", "3"] {
        assert_refused(&counter(&["format", "--config", &config, "--id", id]), 2, "none of the 3 members");
        assert!(!folder.path().join("data").exists(), "nothing was formatted");
    }
    assert_refused(&counter(&["format", "--config", &config, "--id", "256"]), 2, "256");
}

#[test]
fn a_configuration_that_cannot_work_is_refused_by_every_command() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.toml");
    let config = path.to_str().expect("a path");
    let cases = [
        ("[]", "`replicas` is empty"),
        ("[\"127.0.0.1:4000\", \"127.0.0.1:4000\"]", "stands twice"),
        ("[\"127.0.0.1:4000\", \"nonsense\"]", "write host:port"),
        ("[\"0.0.0.0:4000\"]", "every machine"),
        ("[\"192.0.2.1:4000\"]", "allow_insecure"),
    ];
    for (replicas, words) in cases {
        fs::write(&path, format!("cluster = 7\nfolder = \"data\"\nreplicas = {replicas}\n")).expect("the file");
        let commands: [&[&str]; 5] = [&["format"], &["replica", "--id", "0"], &["status"], &["get"], &["add", "1"]];
        for command in commands {
            let output = counter(&[&command[..1], &["--config", config], &command[1..]].concat());
            assert_refused(&output, 2, words);
            assert_refused(&output, 2, "cluster.toml");
        }
    }
}

#[test]
fn a_reader_that_has_gone_is_no_panic() {
    let (_folder, config) = formatted();
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = Command::new(PROGRAM).args(["status", "--config", &config, "--timeout", "1"]).stdout(writer).output();
    let status = status.expect("the program runs");
    assert_eq!(code(&status), Some(141), "{status:?}");
    assert!(!stderr(&status).contains("panicked"), "{status:?}");
    let full = fs::File::options().write(true).open("/dev/full").expect("a device that is full");
    let status = Command::new(PROGRAM).args(["status", "--config", &config, "--timeout", "1"]).stdout(full).output();
    assert_refused(&status.expect("the program runs"), 2, "cannot write the output");
}

#[test]
fn too_few_open_files_are_refused_in_words() {
    let (_folder, config) = formatted();
    for limit in [8, 20] {
        let script = format!("ulimit -n {limit}; exec \"$0\" \"$@\"");
        for command in [["get", "--config", &config, "--timeout=1"], ["replica", "--config", &config, "--id=0"]] {
            let output = Command::new("sh").arg("-c").arg(&script).arg(PROGRAM).args(command).output();
            assert_refused(&output.expect("a shell"), 2, "ulimit -n");
        }
    }
}

#[test]
fn nobody_there_is_said_within_the_time_out() {
    let (_folder, config) = formatted();
    for command in [&["get"][..], &["add", "1"]] {
        let output = counter(&[&command[..1], &["--config", &config, "--timeout", "2"], &command[1..]].concat());
        assert_refused(&output, 3, "waiting for");
        assert_refused(&output, 3, "replica 2: does not answer");
    }
    // One after the other they would take nine seconds.
    let (status, took) = timed(|| counter(&["status", "--config", &config, "--timeout", "3"]));
    assert_refused(&status, 3, "no primary says that commands can commit");
    assert_eq!(String::from_utf8_lossy(&status.stdout).lines().count(), 3, "{status:?}");
    assert!(took < Duration::from_secs(8), "the replicas are asked one after the other: {took:?}");
}

/// A lone replica: status, log and metrics say that nothing can commit, once; and once that it can.
#[test]
fn a_lost_quorum_is_said_in_status_log_and_metrics() {
    let (_folder, config) = formatted();
    let alone = start(&config, "1");
    assert!(alone.is_ready, "{}", alone.log());
    until("the log says so", || alone.log().contains("no quorum"));
    assert_eq!(metric(&alone.metrics, "vsr_quorum"), 0.0);
    assert_eq!(metric(&alone.metrics, "vsr_normal"), 0.0);
    let status = counter(&["status", "--config", &config, "--timeout", "1"]);
    assert_refused(&status, 3, "no primary says that commands can commit");
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("no quorum is heard, 1 of 2") && !text.contains("normal"), "{text}");
    let get = counter(&["get", "--config", &config, "--timeout", "2"]);
    assert_refused(&get, 3, "no quorum is heard");

    let _others = [start(&config, "0"), start(&config, "2")];
    assert_eq!(last_line(&counter(&["add", "--config", &config, "--timeout", "20", "5"])), "5");
    until("the log says that it is over", || alone.log().contains("normal again"));
    until("the metrics, too", || metric(&alone.metrics, "vsr_normal") == 1.0);
    assert_eq!(metric(&alone.metrics, "vsr_quorum"), 1.0);
    until("the primary says so", || counter(&["status", "--config", &config]).status.success());
    let lines = alone.log();
    let told = lines.lines().filter(|line| line.contains("no quorum") && line.contains("why=")).count();
    assert_eq!(told, 1, "said once, and not again and again: {lines}");
    let warned = lines.lines().any(|line| line.contains(" WARN ") && line.contains("no quorum"));
    assert!(warned, "who only looks at warnings sees it: {lines}");
}

/// What was printed before the log was read made operators, and scripts, go on with a replica that was none.
#[test]
fn ready_is_said_only_after_recovery() {
    let (folder, config) = formatted();
    let state = folder.path().join("data/replica-0/state");
    // Everything behind the first sectors: no copy of the vsr state is left.
    let mut bytes = fs::read(&state).expect("the state");
    bytes[4096..].fill(0);
    fs::write(&state, bytes).expect("the state");
    let mut replica = start(&config, "0");
    assert!(!replica.is_ready, "{}", replica.log());
    assert_eq!(replica.wait().code(), Some(4), "{}", replica.log());
    let log = replica.log();
    assert!(!log.contains("panicked"), "{log}");
    // File, and who must do what: not what loses the rest.
    for words in ["replica-0/state", "do not format", "give the replica a new disk (recover)"] {
        assert!(log.contains(words), "no {words:?} in {log}");
    }
}

#[test]
fn a_cluster_id_in_a_message_is_the_one_in_the_file() {
    let (_folder, config) = formatted();
    let text = fs::read_to_string(&config).expect("the file");
    fs::write(&config, text.replace("cluster = 77", "cluster = 78")).expect("the file");
    let mut replica = start(&config, "0");
    assert_eq!(replica.wait().code(), Some(2), "{}", replica.log());
    let log = replica.log();
    assert!(!replica.is_ready && log.contains("cluster 77") && log.contains("cluster 78"), "{log}");
    assert!(log.contains("replica-0") && log.contains("cluster.toml"), "folder and file are named: {log}");
}

/// It looked as if no replica were running.
#[test]
fn a_client_that_is_refused_says_by_whom_and_why() {
    let (folder, config) = formatted();
    let replica = start(&config, "1");
    assert!(replica.is_ready, "{}", replica.log());
    let text = fs::read_to_string(&config).expect("the file");
    let other = folder.path().join("other.toml");
    fs::write(&other, text.replace("cluster = 77", "cluster = 78")).expect("the file");
    let other = other.to_str().expect("a path");
    let get = counter(&["get", "--config", other, "--timeout", "2"]);
    assert_refused(&get, 3, "replica 1: refuses this client: the other side belongs to cluster 77");
    assert_refused(&get, 3, "replica 0: does not answer");
    let status = counter(&["status", "--config", other, "--timeout", "1"]);
    assert_eq!(code(&status), Some(3), "{status:?}");
    let rows = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(rows.contains("replica 1: refuses this client"), "{rows}");
}

/// A disk that was formatted again under its id is known to the others: it says so, ends with a code of its own, and never `ready`.
#[test]
fn a_replica_whose_disk_is_another_one_is_never_ready() {
    let (folder, config) = formatted();
    {
        let replicas = [start(&config, "0"), start(&config, "1"), start(&config, "2")];
        assert_eq!(last_line(&counter(&["add", "--config", &config, "--timeout", "20", "5"])), "5");
        assert!(replicas.iter().all(|replica| replica.is_ready));
        until("all have heard of all", || {
            let status = counter(&["status", "--config", &config]);
            String::from_utf8_lossy(&status.stdout).matches("normal, view").count() == 3
        });
    }
    let data = folder.path().join("data/replica-2");
    fs::rename(&data, folder.path().join("gone")).expect("the folder");
    assert!(counter(&["format", "--config", &config, "--id", "2"]).status.success());
    let _others = [start(&config, "0"), start(&config, "1")];
    let mut again = start(&config, "2");
    assert!(!again.is_ready, "{}", again.log());
    assert_eq!(again.wait().code(), Some(6), "{}", again.log());
    assert!(again.log().contains("give the replica a new disk (recover)"), "{}", again.log());
}

/// A replica whose folder is gone, or must not be used any more, gets a new disk and is as good as before: also for a later loss of another one.
#[test]
fn a_lost_disk_is_replaced_and_its_replica_counts_again() {
    let (folder, config) = formatted();
    let mut replicas: Vec<_> = ["0", "1", "2"].map(|id| Some(start(&config, id))).into();
    assert!(counter(&["add", "--config", &config, "5"]).status.success());
    let in_use = counter(&["recover", "--config", &config, "--id", "1"]);
    assert_refused(&in_use, 4, "in use by another process");
    let serve = || {
        until("all are normal", || {
            let status = counter(&["status", "--config", &config]);
            String::from_utf8_lossy(&status.stdout).matches("normal, view").count() == 3
        });
    };
    serve();
    // One after the other: at the end no disk is left of those that the cluster began with.
    for id in [0, 1, 2] {
        replicas[id] = None;
        let name = id.to_string();
        let recovered = counter(&["recover", "--config", &config, "--id", &name]);
        assert!(recovered.status.success(), "{recovered:?}");
        let aside = folder.path().join(format!("data/replica-{id}.replaced-1"));
        assert!(aside.is_dir(), "what was there is kept: {recovered:?}");
        fs::remove_dir_all(aside).expect("the old folder");
        replicas[id] = Some(start(&config, &name));
        serve();
        assert!(counter(&["add", "--config", &config, "1"]).status.success());
        // Without another one: the new disk is needed.
        let other = (id + 1) % 3;
        replicas[other] = None;
        assert!(counter(&["add", "--config", &config, "1", "--timeout", "20"]).status.success());
        replicas[other] = Some(start(&config, &other.to_string()));
        serve();
    }
    assert_eq!(last_line(&counter(&["get", "--config", &config])), "11");
}

/// Two of two have to acknowledge everything: nobody can put a new disk in the place of a lost one.
#[test]
fn a_disk_of_a_cluster_of_two_is_not_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cluster.toml");
    let text = "cluster = 7\nfolder = \"data\"\nreplicas = [\"127.0.0.1:4000\", \"127.0.0.1:4001\"]\n";
    fs::write(&path, text).expect("the file");
    let config = path.to_str().expect("a path");
    assert_refused(&counter(&["recover", "--config", config, "--id", "1"]), 2, "a cluster of 2 cannot be replaced");
    assert!(!folder.path().join("data").exists());
}

/// An operator wants a checkpoint now.
#[test]
fn a_signal_makes_a_replica_take_a_checkpoint() {
    let (folder, config) = formatted();
    let _replicas: Vec<_> = ["0", "1"].map(|id| start(&config, id)).into();
    let replica = start(&config, "2");
    assert!(counter(&["add", "--config", &config, "5"]).status.success());
    let folder = folder.path().join("data/replica-2");
    let folder = folder.to_str().expect("a path");
    let shown = || String::from_utf8_lossy(&counter(&["inspect", folder]).stdout).into_owned();
    assert!(!shown().contains("checkpoint "), "{}", shown());
    until("it has the op", || metric(&replica.metrics, "vsr_applied_op") > 1.0);
    let told = Command::new("kill").args(["-USR1", &replica.child.id().to_string()]).status();
    assert!(told.expect("kill runs").success());
    until("there is one", || metric(&replica.metrics, "vsr_checkpoint_op") > 1.0);
    assert!(shown().contains("checkpoint "), "{}", shown());
}

/// The configuration of another cluster, beside that of the first one.
fn another(folder: &Path, name: &str, cluster: u64) -> String {
    let home = folder.join(name);
    fs::create_dir(&home).expect("a folder");
    let config = configure(&home);
    let text = fs::read_to_string(&config).expect("the file");
    let line = text.lines().find(|line| line.starts_with("cluster")).expect("its number");
    fs::write(&config, text.replace(line, &format!("cluster = {cluster}"))).expect("the file");
    config
}

/// The state of a replica that stands still, as a file: a new cluster goes on from it, and has nothing to do with the old one.
#[test]
fn a_new_cluster_begins_with_a_backup_of_another() {
    let (folder, config) = formatted();
    let file = folder.path().join("backup");
    let to = file.to_str().expect("a path");
    let mut replicas: Vec<_> = ["0", "1", "2"].map(|id| Some(start(&config, id))).into();
    assert!(counter(&["add", "--config", &config, "5"]).status.success());
    assert_refused(&counter(&["export", "--config", &config, "--id", "1", "--to", to]), 4, "in use by another process");
    until("replica 1 has it", || {
        let status = counter(&["status", "--config", &config]);
        String::from_utf8_lossy(&status.stdout).matches("normal, view").count() == 3
    });
    // It writes down what it knows to be committed as it ends.
    let mut replica = replicas[1].take().expect("it runs");
    let told = Command::new("kill").args(["-TERM", &replica.child.id().to_string()]).status();
    assert!(told.expect("kill runs").success() && replica.wait().success(), "{}", replica.log());
    let exported = counter(&["export", "--config", &config, "--id", "1", "--to", to]);
    assert!(exported.status.success() && last_line(&exported).contains("the state of cluster"), "{exported:?}");
    assert_refused(&counter(&["export", "--config", &config, "--id", "1", "--to", to]), 2, "is there already");
    // Nothing happened to the disk.
    replicas[1] = Some(start(&config, "1"));
    assert!(counter(&["add", "--config", &config, "100"]).status.success());
    let same = counter(&["format", "--config", &config, "--from", to]);
    assert_refused(&same, 2, "give the new cluster another number");
    let new = another(folder.path(), "new", 79);
    let bytes = fs::read(&file).expect("the file");
    let broken = folder.path().join("broken");
    fs::write(&broken, &bytes[..bytes.len() - 1]).expect("the file");
    let damaged = counter(&["format", "--config", &new, "--from", broken.to_str().expect("a path")]);
    assert_refused(&damaged, 4, "no whole backup");
    assert!(!folder.path().join("new/data").exists(), "nothing was formatted");
    let restored = counter(&["format", "--config", &new, "--from", to]);
    assert!(
        restored.status.success() && String::from_utf8_lossy(&restored.stdout).lines().count() == 3,
        "{restored:?}"
    );
    let _new: Vec<_> = ["0", "1", "2"].map(|id| start(&new, id)).into();
    let sum = counter(&["add", "--config", &new, "1", "--timeout", "20"]);
    let exported = last_line(&counter(&["get", "--config", &new]));
    assert!(sum.status.success() && exported == "6", "{sum:?} {exported}");
    assert_eq!(last_line(&counter(&["get", "--config", &config])), "105", "the old cluster goes on as it was");
}

/// The day on which a majority is gone for good.
#[test]
fn a_cluster_that_has_lost_its_majority_is_rescued_from_the_disk_that_is_left() {
    let (folder, config) = formatted();
    let file = folder.path().join("rescued");
    let to = file.to_str().expect("a path");
    let data = |id: usize| folder.path().join(format!("data/replica-{id}"));
    let name = |id: usize| data(id).to_str().expect("a path").to_owned();
    let replicas: Vec<_> = ["0", "1", "2"].map(|id| start(&config, id)).into();
    assert!(counter(&["add", "--config", &config, "5"]).status.success());
    let in_use = counter(&["rescue", &name(2), "--to", to]);
    assert_refused(&in_use, 4, "none of these folders can be read");
    assert!(stderr(&in_use).contains("in use by another process"), "{in_use:?}");
    drop(replicas);
    let enough = counter(&["rescue", &name(0), &name(2), "--to", to]);
    assert_refused(&enough, 2, "start the replicas on them");
    for gone in [0, 1] {
        fs::remove_dir_all(data(gone)).expect("its folder");
    }
    let rescued = counter(&["rescue", &name(2), &name(0), "--to", to]);
    let text = String::from_utf8_lossy(&rescued.stdout).into_owned();
    assert!(rescued.status.success() && text.contains("those of replicas 0, 1 are not here"), "{rescued:?}");
    assert!(stderr(&rescued).contains("left out"), "{rescued:?}");
    let written = fs::read_to_string(folder.path().join("rescued.txt")).expect("the report");
    assert!(written.contains("What else may be lost") && text.contains(written.lines().next().expect("a line")));
    let new = another(folder.path(), "new", 78);
    assert!(counter(&["format", "--config", &new, "--from", to]).status.success());
    let _new: Vec<_> = ["0", "1", "2"].map(|id| start(&new, id)).into();
    assert!(counter(&["add", "--config", &new, "1", "--timeout", "20"]).status.success());
    assert_eq!(last_line(&counter(&["get", "--config", &new])), "6");
    // The old replica comes back under the same address, and is refused.
    let text = fs::read_to_string(&new).expect("the file");
    let line = text.lines().find(|line| line.starts_with("replicas")).expect("the addresses");
    let old = fs::read_to_string(&config).expect("the file");
    let before = old.lines().find(|line| line.starts_with("replicas")).expect("the addresses");
    let mut addresses: Vec<&str> = line.split('"').collect();
    let own = before.split('"').nth(5).expect("its address");
    addresses[5] = own;
    fs::write(&config, old.replace(before, &addresses.join("\""))).expect("the file");
    let mut returned = start(&config, "2");
    assert_eq!(returned.wait().code(), Some(6), "{}", returned.log());
    assert!(returned.log().contains("cluster"), "{}", returned.log());
}

/// A port that is taken has an exit code of its own.
#[test]
fn a_port_that_is_taken_is_named() {
    let (_folder, config) = formatted();
    let text = fs::read_to_string(&config).expect("the file");
    let address = text.split('"').find(|part| part.starts_with("127.")).expect("an address").to_owned();
    let _taken = std::net::TcpListener::bind(&address).expect("the port");
    let mut replica = start(&config, "0");
    assert_eq!(replica.wait().code(), Some(7), "{}", replica.log());
    assert!(replica.log().contains(&address), "{}", replica.log());
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for file in fs::read_dir(from).expect("a folder") {
        let file = file.expect("a file");
        fs::copy(file.path(), to.join(file.file_name())).expect("a copy");
    }
}

/// A folder that was copied is not taken for the original; a command says that it is meant.
#[test]
fn a_copied_folder_is_taken_only_when_it_is_accepted() {
    let (folder, config) = formatted();
    let (place, kept) = (folder.path().join("data/replica-0"), folder.path().join("kept"));
    // The original is still there, so that the file system cannot give its places to the copy.
    fs::rename(&place, &kept).expect("the folder");
    copy(&kept, &place);
    let mut refused = start(&config, "0");
    assert!(!refused.is_ready);
    assert_eq!(refused.wait().code(), Some(4), "{}", refused.log());
    let accepted = counter(&["accept-place", "--data", place.to_str().expect("a path")]);
    assert!(accepted.status.success(), "{accepted:?}");
    let replica = start(&config, "0");
    assert!(replica.is_ready, "{}", replica.log());
}

/// A reader that has gone ended the program, and left its replicas.
#[test]
fn fault_cases_end_their_processes_when_nobody_reads() {
    let temporary = tempfile::tempdir().expect("a folder");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut cases = Command::new(PROGRAM)
        .args(["faults", "--quick", "--only", "message-of-death"])
        .env("TMPDIR", temporary.path())
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()
        .expect("the cases");
    // The headline of the case is read, and nothing after it.
    let mut lines = BufReader::new(reader).lines();
    assert!(lines.next().expect("a line").expect("a line").starts_with("== "));
    drop(lines);
    assert_eq!(cases.wait().expect("its end").code(), Some(141));
    assert!(fs::read_dir(temporary.path()).expect("the folder").next().is_none(), "no file is left");
}

#[test]
fn accept_place_of_nothing_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let nothing = folder.path().join("nothing");
    assert_refused(&counter(&["accept-place", "--data", nothing.to_str().expect("a path")]), 4, "nothing");
}

/// A demo that is told to end leaves neither processes nor files.
#[test]
fn a_demo_that_is_ended_takes_everything_with_it() {
    for (signal, expected) in [("TERM", 143), ("INT", 130)] {
        let temporary = tempfile::tempdir().expect("a folder");
        let mut demo = Command::new(PROGRAM)
            .args(["demo", "--seconds", "600"])
            .env("TMPDIR", temporary.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a demo");
        let mut lines = BufReader::new(demo.stdout.take().expect("its output")).lines();
        let first = lines.next().expect("a line").expect("a line");
        let addresses = first.split("run on ").nth(1).and_then(|rest| rest.split(';').next()).expect("the addresses");
        let addresses: Vec<&str> = addresses.split(", ").collect();
        assert_eq!(addresses.len(), 3, "{first}");
        assert!(addresses.iter().all(|address| TcpStream::connect(address).is_ok()), "{first}");
        assert!(fs::read_dir(temporary.path()).expect("the folder").next().is_some(), "its files are there");
        let killed = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", demo.id())).status();
        assert!(killed.expect("a shell").success());
        assert_eq!(demo.wait().expect("its end").code(), Some(expected));
        assert!(addresses.iter().all(|address| TcpStream::connect(address).is_err()), "no replica is left");
        assert!(fs::read_dir(temporary.path()).expect("the folder").next().is_none(), "no file is left");
    }
}

/// One of the cases of `scripts/accept faults`, in the small: the commands in it ended two replicas of three.
#[test]
fn messages_of_death_are_survived() {
    let output = counter(&["faults", "--quick", "--only", "message-of-death"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(last_line(&output), "accept=faults verdict=pass", "{output:?}");
}
