//! Cases of the checkers of views, clients, sessions, limits and clocks.

use super::*;

cases! {
    a_confirmation_between_two_views_is_noticed: "view-change-counts-for-nothing", |bench, broken| {
        bench.names(&[&"r1", &"CommitOk of view 0", &"view 1", &"log_view 0"]);
        if broken {
            bench.change_state(1, |state| state.view = view(1));
        }
        bench.sent(1, &Message::CommitOk { view: view(0), number: 1, life: Life::default() })
    };
    a_read_that_is_confirmed_between_two_views_is_noticed: "view-change-counts-for-nothing", |bench, broken| {
        bench.names(&[&"r1", &"ReadIndexOk", &"view 1", &"log_view 0"]);
        bench.change_state(1, |state| (state.view, state.log_view) = (view(1), view(u64::from(!broken))));
        bench.sent(1, &Message::ReadIndexOk { nonce: 1, index: OpNumber(1) })
    };
    a_log_that_is_dropped_before_a_quorum_has_it_in_checkpoints_is_noticed: "dropped-is-covered", |bench, broken| {
        let checkpoint = |op| CheckpointId { op: OpNumber(op), manifest: Checksum(1) };
        bench.names(&[&"r0", &"op 1", &"1 of 2 disks"]);
        bench.change_state(2, |state| state.checkpoints = vec![checkpoint(if broken { 0 } else { 1 })]);
        bench.change_state(0, |state| {
            state.checkpoints = vec![checkpoint(1), checkpoint(2)];
            state.base = Some(first(1));
        });
        bench.written(0)
    };
    an_acknowledgement_in_a_transfer_is_noticed: "transfer-counts-for-nothing", |bench, broken| {
        if broken {
            bench.change_state(1, |state| state.base = Some(first(1)));
        }
        let core = Replica::on(bench.disks[1].clone(), 100).core;
        bench.names(&[&"r1", &"lacks"]);
        bench.turn(1, &core)?;
        bench.sent(1, &Message::CommitOk { view: view(0), number: 1, life: Life::default() })
    };
    an_acknowledgement_with_a_new_disk_is_noticed: "new-disk-counts-for-nothing", |bench, broken| {
        let succession = if broken { Succession::Asking } else { Succession::Whole { op: OpNumber(1) } };
        bench.put(&[1], first(1));
        bench.change_state(1, |state| state.succession = succession);
        bench.names(&[&"r1", &"CommitOk", &"Asking"]);
        bench.sent(1, &Message::CommitOk { view: view(1), number: 1, life: Life::default() })
    };
    a_new_disk_in_a_view_that_the_lost_one_has_promised_is_noticed: "new-disk-counts-for-nothing", |bench, broken| {
        bench.put(&[1], first(1));
        bench.change_state(1, |state| state.view = view(3));
        bench.sent(1, &Message::CommitOk { view: view(3), number: 1, life: Life::default() })?;
        let op = OpNumber(1);
        bench.change_state(1, |state| (state.disk_id, state.succession) = (DiskId(99), Succession::Whole { op }));
        bench.names(&[&"r1", &"CommitOk of view 3", &"promised view 3"]);
        let of = if broken { 3 } else { 4 };
        bench.sent(1, &Message::CommitOk { view: view(of), number: 1, life: Life::default() })
    };
    a_new_disk_that_counts_before_it_holds_the_log_is_noticed: "new-disk-counts-for-nothing", |bench, broken| {
        bench.change_state(1, |state| (state.disk_id, state.succession) = (DiskId(99), Succession::Whole { op: OpNumber(1) }));
        if !broken {
            bench.put(&[1], first(1));
        }
        bench.names(&[&"r1", &"op 1"]);
        bench.written(1)
    };
    what_is_known_in_an_earlier_view_is_noticed: "known-in-no-earlier-view", |bench, broken| {
        let committed = Event::Committed { commit: CommitNumber(1) };
        bench.event(1, &Replica::heir_of(4, 32).core, &committed)?;
        if !broken {
            // The acknowledgements of an earlier view came later.
            bench.event(1, &Replica::heir_of(1, 32).core, &committed)?;
        }
        bench.names(&[&"r2", &"op 1", &"view 1", &"view 4"]);
        bench.event(2, &Replica::heir_of_what_another_has().core, &committed)
    };
    a_prepare_that_does_not_fit_the_one_before_is_noticed: "hash-chain", |bench, broken| {
        let parent = first(if broken { 2 } else { 1 }).checksum();
        bench.names(&[&"r0", &"op 2", &parent, &first(1).checksum()]);
        bench.sent(0, &start_view(0, &[]))?;
        bench.sent(0, &prepare(0, first(1)))?;
        bench.sent(0, &prepare(0, header(2, 0, parent, 1)))
    };
    a_start_view_whose_headers_do_not_fit_is_noticed: "hash-chain", |bench, broken| {
        let parent = first(if broken { 2 } else { 1 }).checksum();
        bench.names(&[&"r1", &"op 2", &parent, &first(1).checksum()]);
        bench.sent(1, &start_view(1, &[first(1), header(2, 0, parent, 1)]))
    };
    an_applied_op_that_does_not_fit_the_root_is_noticed: "hash-chain", |bench, broken| {
        let (core, root) = (Replica::alone(0).core, Header::root(CLUSTER));
        let parent = if broken { Checksum(9 << 96) } else { root };
        let op = header(1, 0, parent, 1);
        bench.put(&[0, 2], op);
        bench.names(&[&"r1", &"op 1", &parent, &root]);
        bench.event(1, &core, &applied(op))
    };
    a_view_that_goes_back_along_the_log_is_noticed: "views-in-op-order", |bench, broken| {
        let before = header(1, 2, Header::root(CLUSTER), 1);
        let of = if broken { 1 } else { 2 };
        bench.names(&[&"r2", &"op 1 of view 2", &"op 2 of view 1"]);
        bench.sent(2, &prepare(2, before))?;
        bench.sent(2, &prepare(2, header(2, of, before.checksum(), 1)))
    };
    a_timestamp_that_stands_still_is_noticed: "timestamps-in-op-order", |bench, broken| {
        let core = Replica::alone(0).core;
        let timestamp = Timestamp(if broken { 10 } else { 11 });
        let second = Header::new(HeaderFields { timestamp, ..fields(2, 0, first(1).checksum(), 1) });
        bench.put(&[0, 1], first(1));
        bench.put(&[0, 1], second);
        bench.names(&[&"r2", &"op 1 with timestamp 10", &"op 2 with timestamp 10"]);
        bench.event(2, &core, &applied(first(1)))?;
        bench.event(2, &core, &applied(second))
    };
    a_reply_before_the_commit_is_noticed: "replies-are-committed", |bench, broken| {
        let core = Replica::alone(u128::from(!broken)).core;
        bench.names(&[&"r0", &"op 1", &"commit number is 0"]);
        bench.sent(0, &reply(0))?;
        bench.turn(0, &core)
    };
    a_client_that_has_a_reply_before_the_commit_is_noticed: "replies-are-committed", |bench, broken| {
        let core = Replica::alone(u128::from(!broken)).core;
        bench.names(&[&"command 5", &"1.0", &"commit number is 0"]);
        bench.turn(0, &core)?;
        bench.acknowledged(1, 5, 0)
    };
    a_client_that_is_told_of_a_view_that_has_not_started_is_noticed: "clients-see-started-views", |bench, broken| {
        bench.change_state(2, |state| state.view = view(2));
        bench.names(&[&"r2", &"view 2", &"is 0"]);
        bench.sent(2, &reply(if broken { 2 } else { 0 }))
    };
    a_pipeline_over_its_bound_is_noticed: "queues-are-bounded", |bench, broken| {
        bench.names(&[&"r1", &"5 uncommitted ops", &"2 are allowed"]);
        bench.turn(1, &Replica::heir(if broken { 2 } else { 5 }).core)
    };
    a_log_over_its_bound_is_noticed: "queues-are-bounded", |bench, broken| {
        bench.names(&[&"r1", &"100 bytes in its log", &"99 are allowed"]);
        let long = Header::new(HeaderFields { body_len: 100, ..fields(1, 0, Header::root(CLUSTER), 1) });
        bench.put(&[1], long);
        let core = Replica::on(bench.disks[1].clone(), if broken { 99 } else { 100 }).core;
        bench.turn(1, &core)
    };
    an_op_over_its_bounds_is_noticed: "queues-are-bounded", |bench, broken| {
        bench.change_state(0, |state| state.membership.constants.batch_requests_max = 2);
        let requests = if broken { 3 } else { 2 };
        let op = Header::new(HeaderFields { requests, ..fields(1, 0, Header::root(CLUSTER), 1) });
        bench.names(&[&"r0", &"op 1 of 3 requests", &"2 and"]);
        bench.sent(0, &prepare(0, op))
    };
    a_count_that_is_not_what_is_there_is_noticed: "accounts-are-true", |bench, broken| {
        bench.names(&[&"r2", &"counts 7 bytes of queued requests", &"there are 5"]);
        bench.audited(2, if broken { 7 } else { 5 }, 5)
    };
    an_account_over_its_bound_is_noticed: "accounts-are-true", |bench, broken| {
        let held = if broken { 11 } else { 10 };
        bench.names(&[&"r2", &"11 bytes of queued requests", &"10 are allowed"]);
        bench.audited(2, held, held)
    };
    a_commit_with_an_acknowledgement_of_another_view_is_noticed: "committed-in-this-view", |bench, broken| {
        // It leads view 4, and may have led view 1.
        let heir = Replica::heir_of(4, 32);
        let op = heir.disk.durable_header(OpNumber(5)).unwrap();
        bench.disks[1] = heir.disk;
        bench.names(&[&"r1", &"op 5", &"view 4", &"1 of 2"]);
        bench.received(1, 2, &prepare_ok(if broken { 1 } else { 4 }, op))?;
        bench.event(1, &heir.core, &Event::Committed { commit: CommitNumber(5) })
    };
    a_commit_without_the_own_copy_is_noticed: "committed-in-this-view", |bench, broken| {
        let heir = Replica::heir_of(4, 32);
        let op = heir.disk.durable_header(OpNumber(5)).unwrap();
        if !broken {
            bench.disks[1] = heir.disk;
        }
        bench.names(&[&"r1", &"op 5", &"view 4", &"1 of 2"]);
        bench.received(1, 2, &prepare_ok(4, op))?;
        bench.event(1, &heir.core, &Event::Committed { commit: CommitNumber(5) })
    };
    an_index_that_a_round_of_an_earlier_term_confirms_is_noticed: "reads-are-confirmed", |bench, broken| {
        let round = |of: u64, number: u64| Message::Commit {
            view: view(of),
            commit: CommitNumber(0),
            head: OpNumber(0),
            number,
        };
        bench.names(&[&"r0", &"index 4", &"view 3", &"1 are not"]);
        bench.sent(0, &round(0, 9))?;
        bench.received(0, 1, &Message::ReadIndex { nonce: 7 })?;
        bench.sent(0, &round(3, 1))?;
        let of = if broken { 0 } else { 3 };
        bench.received(0, 2, &Message::CommitOk { view: view(of), number: 1, life: Life::default() })?;
        bench.sent(0, &Message::ReadIndexOk { nonce: 7, index: OpNumber(4) })
    };
    an_index_from_a_round_that_was_sent_before_the_question_is_noticed: "reads-are-confirmed", |bench, broken| {
        let round = |number: u64| Message::Commit {
            view: view(0),
            commit: CommitNumber(0),
            head: OpNumber(0),
            number,
        };
        bench.names(&[&"r0", &"index 4", &"view 0", &"0 are not"]);
        bench.sent(0, &round(1))?;
        bench.received(0, 1, &Message::ReadIndex { nonce: 7 })?;
        if !broken {
            bench.sent(0, &round(2))?;
        }
        bench.received(0, 2, &Message::CommitOk { view: view(0), number: if broken { 1 } else { 2 }, life: Life::default() })?;
        bench.sent(0, &Message::ReadIndexOk { nonce: 7, index: OpNumber(4) })
    };
    an_answer_to_a_client_that_nobody_confirms_is_noticed: "reads-are-confirmed", |bench, broken| {
        let client = ClientId(7);
        let query = Message::Query { client, nonce: 3, query: Bytes::new() };
        let answer =
            Message::Answer { client, nonce: 3, answer: Ok(Bytes::new()), position: OpNumber(2), view: view(0) };
        bench.names(&[&"r1", &"op 2"]);
        let ask = Message::ReadIndex { nonce: 5 };
        if broken {
            // The ask had left before the query came.
            bench.sent(1, &ask)?;
        }
        bench.see(&Observation::Received { replica: 1, from: Peer::Client(client), message: &query })?;
        bench.sent(1, &ask)?;
        bench.received(1, 0, &Message::ReadIndexOk { nonce: 5, index: OpNumber(2) })?;
        bench.sent(1, &answer)
    };
    a_timestamp_ahead_of_the_median_is_noticed: "timestamps-within-the-clocks", |bench, broken| {
        // One clock of three is mad; with a quorum of two the lower of two counts.
        bench.set_clocks([(0, 5000), (0, 100), (0, 90)]);
        let timestamp = if broken { 101 } else { 100 };
        let op = Header::new(HeaderFields { timestamp: Timestamp(timestamp), ..fields(1, 0, Header::root(CLUSTER), 1) });
        bench.names(&[&"r0", &"op 1", &"101", &"at most 100"]);
        bench.sent(0, &start_view(0, &[]))?;
        bench.sent(0, &prepare(0, op))
    };
    a_timestamp_behind_every_median_is_noticed: "timestamps-within-the-clocks", |bench, broken| {
        bench.set_clocks([(80, 5000), (70, 5000), (90, 5000)]);
        // Every report arrives: the lowest clock is not enough.
        let timestamp = if broken { 79 } else { 80 };
        let op = Header::new(HeaderFields { timestamp: Timestamp(timestamp), ..fields(1, 0, Header::root(CLUSTER), 1) });
        bench.names(&[&"r0", &"op 1", &"79", &"at least 80"]);
        bench.sent(0, &start_view(0, &[]))?;
        bench.sent(0, &prepare(0, op))
    };
    a_commit_number_that_goes_back_is_noticed: "monotone-view-log-view-commit", |bench, broken| {
        bench.names(&[&"r0", &"commit 2", &"back to 1"]);
        bench.turn(0, &Replica::alone(2).core)?;
        if !broken {
            bench.started(0)?;
        }
        bench.turn(0, &Replica::alone(1).core)
    };
    a_durable_view_that_goes_back_is_noticed: "monotone-view-log-view-commit", |bench, broken| {
        bench.names(&[&"r1", &"view 2", &"to 1"]);
        bench.change_state(1, |state| state.view = view(2));
        bench.written(1)?;
        bench.change_state(1, |state| state.view = view(if broken { 1 } else { 3 }));
        bench.started(1)
    };
    a_committed_op_that_is_dropped_is_noticed: "monotone-view-log-view-commit", |bench, broken| {
        let core = Replica::alone(2).core;
        bench.names(&[&"r0", &"ops 2..3", &"op 2"]);
        bench.turn(0, &core)?;
        let above = OpNumber(if broken { 1 } else { 2 });
        bench.event(0, &core, &Event::Truncated { above, head: OpNumber(3) })
    };
    a_log_view_above_the_view_is_noticed: "state-order", |bench, broken| {
        bench.names(&[&"r1", &"log_view 1", &"view 0"]);
        bench.change_state(1, |state| (state.view, state.log_view) = (view(u64::from(!broken)), view(1)));
        let core = Replica::on(bench.disks[1].clone(), 1 << 30).core;
        bench.turn(1, &core)
    };
    a_primary_that_starts_without_an_op_of_its_log_is_noticed: "primary-holds-its-log", |bench, broken| {
        bench.names(&[&"r1", &"view 1", &"op 6"]);
        let heir = if broken { Replica::heir_of_what_another_has() } else { Replica::heir(32) };
        bench.event(1, &heir.core, &Event::ViewStarted { view: view(1), primary: ReplicaId(1) })?;
        bench.turn(1, &heir.core)
    };
    a_command_that_is_executed_at_two_positions_is_noticed: "exactly-once", |bench, broken| {
        bench.names(&[&"r1", &"command 5", &"at 2.0", &"at 1.0"]);
        bench.executed(0, 1, 5, 0)?;
        bench.executed(1, if broken { 2 } else { 1 }, 5, 0)
    };
    a_command_that_is_executed_twice_in_a_life_is_noticed: "exactly-once", |bench, broken| {
        bench.names(&[&"r0", &"command 5", &"at 1.0"]);
        bench.executed(0, 1, 5, 0)?;
        if !broken {
            bench.started(0)?;
        }
        bench.executed(0, 1, 5, 0)
    };
    a_second_reply_to_a_command_is_noticed: "one-reply-per-command", |bench, broken| {
        bench.names(&[&"r1", &"command 5", &Checksum(7 << 96), &"r0", &Checksum(6 << 96)]);
        bench.executed(0, 1, 5, 6)?;
        bench.executed(1, 1, 5, if broken { 7 } else { 6 })
    };
    a_reply_that_nobody_computed_is_noticed: "one-reply-per-command", |bench, broken| {
        bench.names(&[&"command 5", &Checksum(7 << 96), &"r0", &Checksum(6 << 96)]);
        bench.executed(0, 1, 5, 6)?;
        bench.acknowledged(1, 5, if broken { 7 } else { 6 })
    };
    states_that_differ_after_an_op_are_noticed: "equal-state-after-equal-ops", |bench, broken| {
        let digest = |salt: u128| Checksum(salt << 96);
        bench.names(&[&"op 16", &"r1", &digest(2), &"r0", &digest(1)]);
        bench.see(&Observation::Digest { replica: 0, of: Digested::Sessions(OpNumber(16)), digest: digest(1) })?;
        bench.see(&Observation::Digest { replica: 1, of: Digested::Sessions(OpNumber(16)), digest: digest(if broken { 2 } else { 1 }) })
    };
    a_command_that_executes_after_its_client_was_told_that_it_does_not_is_noticed: "outcomes-are-kept", |bench, broken| {
        bench.names(&[&"r0", &"command 5", &"at 1.0"]);
        bench.told(5, false)?;
        bench.executed(0, 1, if broken { 5 } else { 6 }, 0)
    };
    a_client_that_is_told_that_what_was_executed_is_not_is_noticed: "outcomes-are-kept", |bench, broken| {
        bench.names(&[&"command 5", &"these words", &"at 1.0"]);
        bench.executed(0, 1, if broken { 5 } else { 6 }, 0)?;
        bench.told(5, false)
    };
    a_lost_reply_to_what_was_never_executed_is_noticed: "outcomes-are-kept", |bench, broken| {
        bench.names(&[&"command 5", &"these words"]);
        bench.executed(0, 1, if broken { 6 } else { 5 }, 0)?;
        bench.told(5, true)
    };
    a_repeat_that_executes_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"at 3.0"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, 1, 1)], b"a")?;
        if broken {
            bench.executed(0, 3, 6, 0)?;
        }
        bench.applies(3, &[(1, 1, 1)], b"other content")
    };
    a_repeat_that_executes_on_another_replica_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r1", &"command 5", &"at 3.0"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, 1, 1)], b"a")?;
        bench.applies(3, &[(1, 1, 1)], b"a")?;
        bench.executed(1, if broken { 3 } else { 2 }, 5, 0)
    };
    a_new_command_that_is_left_out_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"at 3.0", &"is new"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, 1, 1)], b"a")?;
        if !broken {
            bench.executed(0, 3, 6, 0)?;
        }
        bench.applies(3, &[(1, 2, 1)], b"b")
    };
    a_number_below_the_floor_that_executes_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"at 3.0"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        // A floor above its number takes effect up to the number.
        bench.applies(2, &[(1, 5, 9)], b"a")?;
        bench.executed(0, 3, 6, 0)?;
        bench.applies(3, &[(1, if broken { 4 } else { 6 }, 1)], b"b")
    };
    a_number_beyond_the_window_that_executes_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"at 2.0"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, if broken { 1025 } else { 1024 }, 1)], b"a")
    };
    a_command_over_the_longest_that_gets_into_the_log_is_noticed: "sessions-follow-the-log", |bench, broken| {
        bench.names(&[&"r0", &"262145 bytes", &"262144"]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        bench.executed(0, 2, 5, 0)?;
        bench.applies(2, &[(1, 1, 1)], &vec![0; (256 << 10) + usize::from(broken)])
    };
    an_open_session_that_is_called_gone_is_noticed: "sessions-follow-the-log", |bench, broken| {
        let core = Replica::alone(0).core;
        bench.names(&[&"r1", &ClientId(7), &opened_at(1)]);
        bench.applies(1, &[(0, 7, 0)], b"")?;
        // Another's session is none of that client's business.
        bench.sent(1, &gone(if broken { 7 } else { 8 }))?;
        bench.turn(1, &core)
    };
    a_session_that_has_ended_too_early_is_noticed: "sessions-follow-the-log", |bench, broken| {
        let core = Replica::alone(1).core;
        let both = [(0, 7, 0), (0, 8, 0)];
        bench.names(&[&"r0", &"1 sessions", &"op 1", &"2 are open"]);
        bench.applies(1, if broken { &both } else { &both[..1] }, b"")?;
        bench.turn(0, &core)
    };
    a_replica_that_stops_while_its_disk_is_well_is_noticed: "replica-runs", |bench, broken| {
        bench.names(&[&"r1 stopped", &"without a cause"]);
        bench.see(&Observation::Broke { replica: 1, must: true, how: "its write failed" })?;
        if broken {
            // In an earlier life.
            bench.started(1)?;
        }
        bench.see(&Observation::Stopped { replica: 1, by_storage: true, why: "r1 stopped: the disk is full" })
    };
    a_replica_that_stops_for_another_reason_than_its_disk_is_noticed: "replica-runs", |bench, broken| {
        bench.names(&[&"r1 stopped: two contents"]);
        bench.see(&Observation::Broke { replica: 1, must: false, how: "its disk cannot be used" })?;
        bench.see(&Observation::Stopped { replica: 1, by_storage: !broken, why: "r1 stopped: two contents" })
    };
    a_replica_that_goes_on_after_a_failed_write_is_noticed: "replica-runs", |bench, broken| {
        bench.names(&[&"r1", &"CommitOk", &"its write failed"]);
        bench.see(&Observation::Broke { replica: 1, must: broken, how: "its write failed" })?;
        bench.sent(1, &Message::CommitOk { view: view(0), number: 1, life: Life::default() })
    };
}
