//! The properties that must hold at every moment, one small type each.
//!
//! | checker | property | guards |
//! |---|---|---|
//! | `committed-prefixes-agree` | one committed content per op, applied in order | hazards I1, I9 |
//! | `committed-on-a-quorum-of-disks` | committed only when a quorum of disks holds it | hazard I2 |
//! | `acknowledged-stays` | what a client was told stays on a quorum of disks | hazard I2 |
//! | `new-view-holds-what-was-committed` | no view begins without an op that was committed before it | hazard I2 |
//! | `monotone-view-log-view-commit` | durable view, log_view and commit number never go back | hazard I3 |
//! | `state-order` | log_view ≤ view, applied ≤ commit ≤ head | hazards I4, I9 |
//! | `primary-holds-its-log` | a primary starts its view with every op of its log | hazard B22 |
//! | `one-primary-per-view` | one replica speaks as primary of a view | hazard I5 |
//! | `one-content-per-view-and-op` | one content per op of a view | hazard I6 |
//! | `acknowledged-is-durable` | a `PrepareOk` only for what the sender's disk holds | hazard I7 |
//! | `nothing-leaves-before-it-is-durable` | no message ahead of its sender's disk | hazard I7 |
//! | `one-do-view-change-per-view` | every `DoViewChange` of a view says the same | hazard I8 |
//! | `equal-state-after-equal-ops` | equal digests after equal ops | hazard I10 |
//! | `exactly-once` | one execution per command and life, at one position | hazard I11 |
//! | `one-reply-per-command` | one reply per command, and the client is told that one | hazard I11 |
//! | `hash-chain` | every header names the one before | hazard I12 |
//! | `views-in-op-order` | views never go back along the log | hazard I12 |
//! | `timestamps-in-op-order` | timestamps go up along the log | hazard I12 |
//! | `nacked-never-acknowledged` | no nack of what was acknowledged | hazard I13 |
//! | `uncertain-head-counts-for-nothing` | no part in a quorum while the log may have had more | hazard I14 |
//! | `view-change-counts-for-nothing` | no acknowledgement between two views | hazard I14 |
//! | `replies-are-committed` | no client hears of an op that is not committed | hazard I2 |
//! | `clients-see-started-views` | no client hears of a view that has not started | hazard D28 |
//! | `queues-are-bounded` | pipeline, queues, sessions, log, ops, replies and messages of repair within their bounds | hazard I17 |
//! | `accounts-are-true` | what is counted is what is held, and within its bound | hazard I17 |
//! | `committed-in-this-view` | committed only when a quorum has acknowledged it in this very view | hazards I2, B8 |
//! | `known-in-no-earlier-view` | nobody knows an op to be committed in a view before that in which it was | hazard D08 |
//! | `reads-are-confirmed` | a query is served, or an index given, only after a quorum confirmed a later round of that view | hazard I16 |
//! | `timestamps-within-the-clocks` | timestamps are not further ahead than the median of a quorum's clocks can be | hazard D24 |
//! | `outcomes-are-kept` | what a client is told instead of a reply is true, and stays true | hazard I11 |
//! | `refusals-have-a-cause` | a client that keeps the rules is refused only for a reason, and times out only when its time is over | hazard I11 |
//! | `clients-keep-their-rule` | numbers within the window, floors above answers only, one content a number | hazard I11 |
//! | `sessions-follow-the-log` | sessions open, execute, refuse and end as the log says, and not otherwise | hazard I11 |
//! | `time-outs-are-kept` | no vote before its time-out is over, none without the back-off; no time-out is longer than that | hazard I18 |
//! | `views-are-left-by-quorums` | a view is left for a later one, or by a quorum that votes to | hazard I18 |
//! | `time-moves-on` | no replica is busy without end while next to no time passes | hazard I18 |
//! | `members-are-believed-again` | a member that says that its log holds what it has acknowledged counts, whatever it said before | hazard I18 |
//! | `dropped-is-covered` | nothing is dropped from a log before checkpoints of a replication quorum have it | hazard CP-02 |
//! | `transfer-counts-for-nothing` | no acknowledgement while a checkpoint is fetched | hazard ST-01 |
//! | `new-disk-counts-for-nothing` | no part in a quorum for a disk that takes the place of a lost one, before it holds what that has acknowledged and is above what that has promised | hazard D08 |
//! | `replica-runs` | no replica stops without a cause, none goes on with a disk that failed it | hazard I7 |
//!
//! The configuration in force (hazard I15) waits for changes of membership. Linearizability (hazard I16) is checked over the whole
//! history in [`linearizability`], liveness (hazard I18) by the run itself.

mod accounts;
mod acknowledged;
mod agreement;
mod bounds;
mod chain;
mod clients;
mod clock;
mod content;
mod drops;
mod durability;
mod exactly_once;
mod honesty;
pub mod linearizability;
mod monotone;
mod observe;
mod outcomes;
pub(crate) mod pace;
mod quorum;
mod refusals;
mod sessions;
mod stops;
pub(crate) mod table;
mod terms;
mod timers;
mod trust;

pub use observe::{Checker, Checkers, ClockRange, Digested, Interests, Observation, Scene, Unheard, Violation};

impl Checkers {
    /// All that ship.
    #[must_use]
    pub fn all() -> Checkers {
        let mut checkers = Checkers::default();
        all().into_iter().for_each(|checker| checkers.add(checker));
        checkers
    }

    /// Only those of the ones that ship whose names are given.
    #[must_use]
    pub fn only(names: &[&str]) -> Checkers {
        let mut checkers = Checkers::default();
        all().into_iter().filter(|checker| names.contains(&checker.name())).for_each(|one| checkers.add(one));
        checkers
    }
}

/// All of them.
fn all() -> Vec<Box<dyn Checker>> {
    vec![
        Box::new(agreement::Agreement::default()),
        Box::new(content::OnePrimary::default()),
        Box::new(content::OneContent::default()),
        Box::new(durability::CommittedOnQuorum::default()),
        Box::new(durability::AcknowledgedIsDurable::default()),
        Box::new(acknowledged::AcknowledgedStays::default()),
        Box::new(acknowledged::NewViewHoldsCommitted::default()),
        Box::new(honesty::NothingBeforeItIsDurable),
        Box::new(honesty::SameDoViewChange::default()),
        Box::new(honesty::NackedNeverAcknowledged::default()),
        Box::new(quorum::UncertainIsSilent::default()),
        Box::new(quorum::ViewChangeIsSilent),
        Box::new(chain::HashChain::default()),
        Box::new(chain::ViewsInOrder::default()),
        Box::new(chain::TimestampsInOrder::default()),
        Box::new(clock::WithinTheClocks::default()),
        Box::new(clients::RepliesAreCommitted::default()),
        Box::new(clients::StartedViewsOnly),
        Box::new(bounds::Bounded::default()),
        Box::new(accounts::TrueAccounts),
        Box::new(terms::CommittedInThisView::default()),
        Box::new(terms::KnownInItsView::default()),
        Box::new(terms::ReadsAreConfirmed::default()),
        Box::new(monotone::Monotone::default()),
        Box::new(monotone::StateOrder),
        Box::new(monotone::PrimaryHoldsItsLog::default()),
        Box::new(exactly_once::ExactlyOnce::default()),
        Box::new(exactly_once::SameReplies::default()),
        Box::new(exactly_once::SameDigests::default()),
        Box::new(outcomes::OutcomesAreKept::default()),
        Box::new(refusals::RefusalsHaveACause::default()),
        Box::new(refusals::ClientsKeepTheirRule::default()),
        Box::new(sessions::SessionsFollowTheLog::default()),
        Box::new(timers::TimeOutsAreKept::default()),
        Box::new(timers::ViewsAreLeftByQuorums::default()),
        Box::new(pace::TimeMovesOn::default()),
        Box::new(trust::BelievedAgain::default()),
        Box::new(drops::DroppedIsCovered::default()),
        Box::new(drops::TransferIsSilent::default()),
        Box::new(drops::NewDiskIsSilent::default()),
        Box::new(stops::ReplicaRuns::default()),
    ]
}
