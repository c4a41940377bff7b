//! What must hold of a replica's numbers, whatever happens. A broken invariant is a defect of this library, or of what
//! drives it: the replica stops and says the numbers, before it spreads what is wrong.

use super::number::BatchNumber;

/// An invariant that does not hold, with the numbers that say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokenInvariant {
    /// A write completed that is not under way.
    #[error("batch {completed} completed, and {flight} is in flight", flight = named(*in_flight))]
    UnknownWrite {
        /// The batch that is said to be durable.
        completed: BatchNumber,
        /// The batch that is being written.
        in_flight: Option<BatchNumber>,
    },
}

fn named(batch: Option<BatchNumber>) -> String {
    batch.map_or_else(|| "none".to_owned(), |batch| batch.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::documented::any_core;
    use super::super::fault::Fault;
    use super::*;

    #[test]
    fn a_write_that_is_not_under_way_halts_the_replica_with_the_numbers() {
        let mut core = any_core();
        let (batch, _) = core.take_batch().expect("a start writes its record");
        let (completed, in_flight) = (batch.next(), Some(batch));
        core.on_written(completed);
        let fault = Fault::Broken(BrokenInvariant::UnknownWrite { completed, in_flight });
        assert_eq!(core.fault(), Some(&fault));
        assert!(fault.to_string().contains("batch b2 completed, and b1 is in flight"), "{fault}");
        assert!(core.take_batch().is_none() && core.outgoing().is_empty(), "it says and writes nothing any more");
    }
}
