use super::*;
use crate::protocol::types::options::Timing;

const CLIENT: ClientId = ClientId(7);
const OTHER: Origin = Some(Peer::Client(ClientId(9)));

fn at(op: u64) -> Position {
    Position { op: OpNumber(op), index: 0 }
}

/// What a request meets beside the primary. Op 1, which is applied, has opened the session of [`CLIENT`].
struct Setting {
    sessions: SessionTable,
    log: Log,
    writes: Writes,
    constants: Constants,
    options: Options,
}

impl Setting {
    fn new() -> Setting {
        // Small enough for every bound to be met.
        let constants = Constants {
            sessions_max: 1,
            request_max: 100,
            reply_max: 100,
            session_replies_max: 150,
            table_replies_max: 300,
            batch_requests_max: 2,
            batch_bytes_max: 1000,
            ..Constants::default()
        };
        let options = Options {
            timing: Timing::default(),
            seed: 1,
            local_client: CLIENT,
            machine_version: 1,
            log_bytes_max: 1 << 20,
            cache_bytes: 0,
            queue_bytes_max: 1 << 20,
            checkpoints: false,
        };
        let mut sessions = SessionTable::new(constants.clone());
        assert_eq!(sessions.register(at(1), CLIENT), Outcome::Registered(SessionId(at(1))));
        let writes = Writes { room: u64::MAX, ..Writes::default() };
        Setting { sessions, log: Log::new(Checksum(1), None), writes, constants, options }
    }

    fn around(&self) -> Surroundings<'_> {
        Surroundings {
            sessions: &self.sessions,
            log: &self.log,
            writes: &self.writes,
            constants: &self.constants,
            options: &self.options,
            applied: OpNumber(1),
        }
    }

    fn admit(&self, primary: &Primary, request: &Request) -> Admission {
        primary.admit(request, &self.around(), |_| true)
    }

    /// Takes a request in that finds a place.
    fn queue(&self, primary: &mut Primary, request: &Request) {
        match self.admit(primary, request) {
            Admission::Queued(content) => primary.enqueue(request.clone(), None, content),
            other => panic!("{other:?}"),
        }
    }

    fn execute(&mut self, number: u64, command: &'static [u8], reply: &[u8]) {
        let request = request(number, command);
        let content = Checksum::of(&request.command);
        let found = self.sessions.begin(request.session, request.number, request.floor, content);
        assert_eq!(found, Lookup::New);
        assert!(self.sessions.finish(request.session, request.number, content, at(2), reply));
    }
}

/// A request of [`CLIENT`], which waits for all its numbers.
fn request(number: u64, command: &'static [u8]) -> Request {
    Request {
        client: CLIENT,
        session: SessionId(at(1)),
        number: RequestNumber(number),
        floor: RequestNumber(1),
        command: Bytes::from_static(command),
    }
}

fn registration(client: u128) -> Request {
    Request {
        client: ClientId(client),
        session: SessionId::default(),
        number: RequestNumber(0),
        floor: RequestNumber(0),
        command: Bytes::new(),
    }
}

fn joined(admission: &Admission) -> InFlight {
    match admission {
        Admission::Joined(in_flight) => *in_flight,
        other => panic!("{other:?}"),
    }
}

/// Rule 5.2: in the queue and in the pipeline.
#[test]
fn a_request_is_queued_once_and_its_copies_join_it() {
    let (setting, mut primary) = (Setting::new(), Primary::new());
    let first = request(1, b"one");
    setting.queue(&mut primary, &first);
    for origin in [None, OTHER, OTHER] {
        primary.join(joined(&setting.admit(&primary, &first)), &first, origin);
    }
    let key = (first.session, first.number, first.client);
    assert_eq!(primary.queued_extra.get(&key), Some(&vec![OTHER]), "each sender once");
    assert_eq!(setting.admit(&primary, &request(1, b"two")), Admission::Busy(Busy::Queue), "other content waits");
    let (_, requests) = primary.close_batch(OpNumber(2), &setting.constants);
    assert_eq!((requests, primary.queue.len(), primary.queue_bytes), (1, 0, 0));
    let third = Some(Peer::Client(ClientId(11)));
    primary.join(joined(&setting.admit(&primary, &first)), &first, third);
    assert!(primary.queued_extra.is_empty());
    let prepared = &primary.pipeline[0];
    assert_eq!((prepared.op, &prepared.origins), (OpNumber(2), &vec![(CLIENT, None)]));
    assert_eq!(prepared.extra.get(&0), Some(&vec![OTHER, third]));
}

/// Rule 5.3: what was executed is answered, and what may have been is not refused for good.
#[test]
fn the_session_table_answers_what_it_knows() {
    let (mut setting, primary) = (Setting::new(), Primary::new());
    setting.execute(1, b"one", b"reply");
    let reply = Outcome::Reply(Bytes::from_static(b"reply"));
    assert_eq!(setting.admit(&primary, &request(1, b"one")), Admission::Known(reply, at(2)));
    let anothers = Request { client: ClientId(9), ..request(2, b"two") };
    assert_eq!(
        setting.admit(&primary, &anothers),
        Admission::Refused(Refusal::Evicted),
        "session numbers can be guessed"
    );
    let of_session = |op| Request { session: SessionId(at(op)), ..request(2, b"two") };
    assert_eq!(setting.admit(&primary, &of_session(0)), Admission::Refused(Refusal::Evicted));
    assert_eq!(setting.admit(&primary, &of_session(2)), Admission::Busy(Busy::Queue), "op 2 is not applied yet");
}

/// Rule 5.13.
#[test]
fn the_lowest_number_passes_the_bound_on_unseen_replies() {
    let (mut setting, primary) = (Setting::new(), Primary::new());
    setting.execute(2, b"two", &[0; 80]);
    assert_eq!(setting.admit(&primary, &request(3, b"three")), Admission::Busy(Busy::Replies));
    let content = Checksum::of(b"one");
    assert_eq!(setting.admit(&primary, &request(1, b"one")), Admission::Queued(content));
}

/// Rule 5.12: the queue, the log and the disk.
#[test]
fn what_finds_no_room_is_not_queued_and_not_decoded() {
    let (mut setting, mut primary) = (Setting::new(), Primary::new());
    let len = BodyBuilder::encoded_len(3);
    setting.options.queue_bytes_max = 2 * len;
    setting.queue(&mut primary, &request(1, b"one"));
    setting.queue(&mut primary, &request(2, b"two"));
    assert_eq!(primary.queue_bytes, 2 * len);
    let decode = |_: &Bytes| -> bool { panic!("it is not going to be queued") };
    let third = request(3, b"six");
    assert_eq!(primary.admit(&third, &setting.around(), decode), Admission::NoRoom(Busy::Queue));
    setting.options.queue_bytes_max = 3 * len;
    setting.options.log_bytes_max = 3 * len as u64 - 1;
    assert_eq!(
        primary.admit(&third, &setting.around(), decode),
        Admission::NoRoom(Busy::LogFull),
        "with what is queued"
    );
    setting.options.log_bytes_max = 3 * len as u64;
    setting.writes.room = disk_bytes(3 * len as u64) + 4 * disk_bytes(1000) - 1;
    assert_eq!(primary.admit(&third, &setting.around(), decode), Admission::NoRoom(Busy::LogFull), "with the reserve");
    setting.writes.room += 1;
    assert_eq!(setting.admit(&primary, &third), Admission::Queued(Checksum::of(b"six")));
}

/// Rule 5.12: another replica knows how long those ops are, and its log has the same bound.
#[test]
fn an_op_that_is_known_by_its_place_alone_counts_with_the_longest_body() {
    let (mut setting, primary) = (Setting::new(), Primary::new());
    setting.log.extend_blank(OpNumber(2));
    let first = request(1, b"one");
    setting.options.log_bytes_max = 2 * 1000 + BodyBuilder::encoded_len(3) as u64;
    assert_eq!(setting.admit(&primary, &first), Admission::Queued(Checksum::of(b"one")));
    setting.options.log_bytes_max -= 1;
    assert_eq!(setting.admit(&primary, &first), Admission::NoRoom(Busy::LogFull));
}

/// Rule 5.9.
#[test]
fn a_command_that_is_too_long_or_cannot_be_decoded_is_refused() {
    let (setting, primary) = (Setting::new(), Primary::new());
    let around = setting.around();
    assert_eq!(primary.admit(&request(1, &[0; 101]), &around, |_| true), Admission::Refused(Refusal::TooLarge));
    assert_eq!(primary.admit(&request(1, &[0; 100]), &around, |_| false), Admission::Refused(Refusal::Undecodable));
}

/// Rule 5.14: idle sessions age by ops.
#[test]
fn a_register_without_a_place_is_queued_only_by_an_idle_primary() {
    let (setting, mut primary) = (Setting::new(), Primary::new());
    let (own, newcomer) = (registration(7), registration(8));
    assert_eq!(setting.admit(&primary, &newcomer), Admission::Queued(Checksum::default()), "it makes an op");
    setting.queue(&mut primary, &request(1, b"one"));
    assert_eq!(setting.admit(&primary, &newcomer), Admission::NoRoom(Busy::Sessions));
    setting.queue(&mut primary, &own);
    primary.join(joined(&setting.admit(&primary, &own)), &own, OTHER);
    primary.close_batch(OpNumber(2), &setting.constants);
    assert_eq!(primary.pipeline[0].extra.get(&1), Some(&vec![OTHER]));
    assert_eq!(setting.admit(&primary, &newcomer), Admission::NoRoom(Busy::Sessions), "the pipeline is not empty");
}

/// Rule 5.4: an op holds what the constants of the cluster say.
#[test]
fn an_op_takes_as_many_requests_as_fit_and_at_least_one() {
    let (mut setting, mut primary) = (Setting::new(), Primary::new());
    for number in 1..=4 {
        setting.queue(&mut primary, &request(number, b"one"));
    }
    assert_eq!(primary.close_batch(OpNumber(2), &setting.constants).1, 2);
    setting.constants.batch_bytes_max = 1;
    assert_eq!(primary.close_batch(OpNumber(3), &setting.constants).1, 1);
    assert_eq!((primary.queue.len(), primary.queue_bytes), (1, BodyBuilder::encoded_len(3)));
    let again = setting.admit(&primary, &request(3, b"one"));
    assert_eq!((joined(&again).op, joined(&again).index), (OpNumber(3), 0));
}

/// Rule 5.12.
#[test]
fn a_role_that_is_left_keeps_nothing_and_gives_back_its_queue() {
    let (setting, mut primary) = (Setting::new(), Primary::new());
    for number in 1..=3 {
        setting.queue(&mut primary, &request(number, b"one"));
    }
    setting.queue(&mut primary, &registration(7));
    primary.close_batch(OpNumber(2), &setting.constants);
    primary.join(joined(&setting.admit(&primary, &request(3, b"one"))), &request(3, b"one"), OTHER);
    let left: Vec<u64> = primary.leave().iter().map(|queued| queued.request.number.0).collect();
    assert_eq!(left, [3, 0]);
    assert_eq!(primary.queue_bytes, 0);
    assert!(primary.queue.is_empty() && primary.pipeline.is_empty() && primary.queued_extra.is_empty());
    assert!(primary.in_flight.is_empty() && primary.registering.is_empty());
}
