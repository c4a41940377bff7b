//! The log file as a ring: what is behind its end stands at its beginning, where something was that is not needed any more.

use std::io;
use std::ops::Range;

use crate::medium::Medium;

/// Offsets go on for ever; the file does not.
#[derive(Debug)]
pub(crate) struct Ring<M> {
    medium: M,
    /// Bytes of the file, at most. Whole pages, so that each is one of the file.
    size: u64,
}

impl<M> Ring<M> {
    pub(crate) fn new(medium: M, size: u64) -> Ring<M> {
        Ring { medium, size: size.max(1) }
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The pieces of a stretch: where in the file each begins, and which bytes of the stretch it is.
    fn pieces(&self, offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> + use<M> {
        let (size, mut done) = (self.size, 0);
        std::iter::from_fn(move || {
            let at = (offset + done as u64) % size;
            let take = (size - at).min((len - done) as u64) as usize;
            let piece = (at, done..done + take);
            done += take;
            (take > 0).then_some(piece)
        })
    }
}

impl<M: Medium> Medium for Ring<M> {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut pieces = self.pieces(offset, buf.len());
        pieces.try_for_each(|(at, of)| self.medium.read_at(&mut buf[of], at))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut pieces = self.pieces(offset, bytes.len());
        pieces.try_for_each(|(at, of)| self.medium.write_at(&bytes[of], at))
    }

    fn sync(&self) -> io::Result<()> {
        self.medium.sync()
    }

    fn len(&self) -> io::Result<u64> {
        self.medium.len()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len.min(self.size)).unwrap_or(usize::MAX);
        let mut pieces = self.pieces(offset, len);
        pieces.try_for_each(|(at, of)| self.medium.discard(at, of.len() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_over_the_end_goes_on_at_the_beginning() {
        let ring = Ring::new((), 100);
        let pieces = |offset, len| ring.pieces(offset, len).collect::<Vec<_>>();
        assert_eq!(pieces(10, 20), [(10, 0..20)]);
        assert_eq!(pieces(90, 20), [(90, 0..10), (0, 10..20)]);
        assert_eq!(pieces(1000, 100), [(0, 0..100)]);
        assert_eq!(pieces(1290, 110), [(90, 0..10), (0, 10..110)]);
        assert_eq!(pieces(5, 0), []);
    }
}
