//! The content of one file, in pages that its copies share until one of them writes.

use std::sync::Arc;

/// What a disk writes at once, or not at all.
pub const SECTOR: usize = 512;
/// What the operating system reads and keeps at once.
pub const PAGE: usize = 4096;
pub(crate) const SECTORS_PER_PAGE: usize = PAGE / SECTOR;

#[derive(Clone)]
struct Page {
    bytes: [u8; PAGE],
    /// The write that each sector was last written by.
    tags: [u32; SECTORS_PER_PAGE],
}

#[derive(Clone)]
pub(super) struct Pages {
    len: u64,
    pages: Vec<Arc<Page>>,
    /// What a hole reads as.
    hole: Arc<Page>,
}

/// A stretch of a file, cut where sectors end.
pub(super) fn pieces(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = offset + at as u64;
        let take = (SECTOR - (start % SECTOR as u64) as usize).min(bytes.len() - at);
        let piece = &bytes[at..at + take];
        at += take;
        (take > 0).then_some((start, piece))
    })
}

impl Pages {
    pub(super) fn new() -> Pages {
        let hole = Arc::new(Page { bytes: [0; PAGE], tags: [0; SECTORS_PER_PAGE] });
        Pages { len: 0, pages: Vec::new(), hole }
    }

    /// The same content as that of another one. Most of the pages are shared as it is, and stay.
    pub(super) fn become_like(&mut self, other: &Pages) {
        self.pages.truncate(other.pages.len());
        for (own, page) in self.pages.iter_mut().zip(&other.pages) {
            if !Arc::ptr_eq(own, page) {
                *own = page.clone();
            }
        }
        self.pages.extend_from_slice(&other.pages[self.pages.len()..]);
        self.len = other.len;
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Sectors, a last part of one included.
    pub(super) fn sectors(&self) -> u64 {
        self.len.div_ceil(SECTOR as u64)
    }

    /// Fills `buf`; `false`, and nothing, when the file ends before.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> bool {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return false;
        }
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (page, within) = ((at / PAGE as u64) as usize, (at % PAGE as u64) as usize);
            let take = (PAGE - within).min(buf.len() - done);
            buf[done..done + take].copy_from_slice(&self.pages[page].bytes[within..within + take]);
            done += take;
        }
        true
    }

    /// Whether these bytes, of one sector, stand there already.
    pub(super) fn holds(&self, offset: u64, bytes: &[u8]) -> bool {
        let within = (offset % PAGE as u64) as usize;
        let page = self.pages.get((offset / PAGE as u64) as usize);
        offset + bytes.len() as u64 <= self.len
            && page.is_some_and(|page| page.bytes.get(within..within + bytes.len()) == Some(bytes))
    }

    /// Writes, and makes the file longer if it must be.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], tag: u32) {
        self.set_len(self.len.max(offset + bytes.len() as u64));
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (page, within) = ((at / PAGE as u64) as usize, (at % PAGE as u64) as usize);
            let take = (PAGE - within).min(bytes.len() - done);
            let (page, new) = (&mut self.pages[page], &bytes[done..done + take]);
            done += take;
            if let Ok(bytes) = <[u8; PAGE]>::try_from(new)
                && Arc::get_mut(page).is_none()
            {
                // Nothing of the shared one stays.
                *page = Arc::new(Page { bytes, tags: [tag; SECTORS_PER_PAGE] });
                continue;
            }
            let page = Arc::make_mut(page);
            page.bytes[within..within + take].copy_from_slice(new);
            page.tags[within / SECTOR..(within + take).div_ceil(SECTOR)].fill(tag);
        }
    }

    /// Cuts the file off, or appends a hole.
    pub(super) fn set_len(&mut self, len: u64) {
        let pages = len.div_ceil(PAGE as u64) as usize;
        self.pages.resize(pages, self.hole.clone());
        let rest = (len % PAGE as u64) as usize;
        if len < self.len
            && rest > 0
            && let Some(last) = self.pages.last_mut()
        {
            let last = Arc::make_mut(last);
            last.bytes[rest..].fill(0);
            last.tags[rest.div_ceil(SECTOR)..].fill(0);
        }
        self.len = len;
    }

    pub(super) fn tag(&self, sector: u64) -> u32 {
        let page = self.pages.get((sector / SECTORS_PER_PAGE as u64) as usize);
        page.map_or(0, |page| page.tags[(sector % SECTORS_PER_PAGE as u64) as usize])
    }

    /// A sector; zeros behind the end.
    pub(super) fn sector(&self, sector: u64) -> [u8; SECTOR] {
        let mut out = [0; SECTOR];
        if let Some(page) = self.pages.get((sector / SECTORS_PER_PAGE as u64) as usize) {
            let at = (sector % SECTORS_PER_PAGE as u64) as usize * SECTOR;
            out.copy_from_slice(&page.bytes[at..at + SECTOR]);
        }
        out
    }

    /// Puts a sector in place, as far as it lies within the file.
    pub(super) fn put_sector(&mut self, sector: u64, bytes: &[u8], tag: u32) {
        let offset = sector * SECTOR as u64;
        let take = (self.len.saturating_sub(offset) as usize).min(SECTOR).min(bytes.len());
        if take > 0 {
            self.write(offset, &bytes[..take], tag);
        }
    }

    /// The sectors that this write was the last to write.
    pub(super) fn written_by(&self, tag: u32) -> impl Iterator<Item = u64> {
        let pages = self.pages.iter().enumerate().filter(move |(_, page)| page.tags.contains(&tag));
        pages.flat_map(move |(at, page)| {
            let tags = page.tags.iter().enumerate().filter(move |(_, of)| **of == tag);
            tags.map(move |(within, _)| (at * SECTORS_PER_PAGE + within) as u64)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_become_like_others_that_are_longer_shorter_or_differ_in_one_page() {
        let mut first = Pages::new();
        first.write(0, &[1; 3 * PAGE], 1);
        let mut changed = first.clone();
        changed.write(PAGE as u64, &[2; SECTOR], 2);
        let (mut longer, mut shorter) = (first.clone(), first.clone());
        longer.write(3 * PAGE as u64, &[3; PAGE], 3);
        shorter.set_len(PAGE as u64 + 100);
        for other in [&changed, &longer, &shorter] {
            for mut pages in [first.clone(), other.clone(), Pages::new()] {
                pages.become_like(other);
                assert_eq!(pages.len(), other.len());
                for sector in 0..5 * SECTORS_PER_PAGE as u64 {
                    assert_eq!(pages.sector(sector), other.sector(sector), "sector {sector}");
                    assert_eq!(pages.tag(sector), other.tag(sector), "sector {sector}");
                }
            }
        }
        // What is written to one of two that share their pages is not in the other.
        let mut pages = first.clone();
        pages.become_like(&changed);
        pages.write(0, &[4; PAGE], 4);
        assert_eq!((changed.sector(0), changed.tag(0)), ([1; SECTOR], 1));
    }
}
