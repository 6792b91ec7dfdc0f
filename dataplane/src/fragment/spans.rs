//! Which bytes of a datagram have come.

/// Stretches without a gap that are told apart. Pieces in order, or in reverse order, make one.
pub const MAX_SPANS: usize = 8;

/// Why a piece does not fit those that came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// It came before.
    Duplicate,
    /// Some of its bytes came before, or it contradicts where the datagram ends.
    Overlap,
    /// It would be one stretch too many.
    Scattered,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    start: u16,
    end: u16,
}

/// The bytes that have come, as stretches in ascending order that do not overlap.
///
/// Adjacent ones are joined only when there are too many, so that a piece that comes twice is recognised for
/// as long as possible; later it looks like an overlap.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spans {
    /// One more than there may be: a new one may turn out to join its neighbours.
    spans: [Span; MAX_SPANS + 1],
    count: usize,
    received: u16,
    /// Where the datagram ends; 0 until its last piece has come.
    end: u16,
}

impl Spans {
    /// Adds the bytes from `start` up to, but not with, `end`; the piece is the last one if no `more` follow.
    /// There is at least one byte.
    ///
    /// # Errors
    /// [`Misfit`] says why it does not fit; nothing is changed then.
    pub fn insert(&mut self, start: u16, end: u16, more: bool) -> Result<(), Misfit> {
        let at = self.known().partition_point(|span| span.end <= start);
        if let Some(span) = self.known().get(at)
            && span.start < end
        {
            let same = *span == Span { start, end } && more == (self.end != end);
            return Err(if same { Misfit::Duplicate } else { Misfit::Overlap });
        }
        if self.contradicts(end, more) {
            return Err(Misfit::Overlap);
        }
        self.spans.copy_within(at..self.count, at + 1);
        self.spans[at] = Span { start, end };
        self.count += 1;
        if self.count > MAX_SPANS {
            self.join();
        }
        if self.count > MAX_SPANS {
            // Nothing was joined, so the new one is still where it was put.
            self.spans.copy_within(at + 1.., at);
            self.count -= 1;
            return Err(Misfit::Scattered);
        }
        // Bytes that do not overlap and end below 2^16.
        self.received += end - start;
        if !more {
            self.end = end;
        }
        Ok(())
    }

    /// Whether all of the datagram has come.
    pub fn complete(&self) -> bool {
        self.end != 0 && self.received == self.end
    }

    fn known(&self) -> &[Span] {
        &self.spans[..self.count]
    }

    /// Whether a piece up to `end` is at odds with where the datagram ends.
    fn contradicts(&self, end: u16, more: bool) -> bool {
        let highest = self.known().last().map_or(0, |span| span.end);
        if more { self.end != 0 && end >= self.end } else { self.end != 0 || end < highest }
    }

    fn join(&mut self) {
        let mut last = 0;
        for at in 1..self.count {
            if self.spans[last].end == self.spans[at].start {
                self.spans[last].end = self.spans[at].end;
            } else {
                last += 1;
                self.spans[last] = self.spans[at];
            }
        }
        self.count = last + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_in_any_order_make_the_whole() {
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1]] {
            let mut spans = Spans::default();
            for (place, number) in order.into_iter().enumerate() {
                assert!(!spans.complete() || place == 0);
                spans.insert(number * 8, number * 8 + 8, number != 2).unwrap();
            }
            assert!(spans.complete());
        }
    }

    #[test]
    fn overlaps_and_two_ends_do_not_fit() {
        let mut spans = Spans::default();
        spans.insert(16, 32, true).unwrap();
        assert_eq!(spans.insert(16, 32, true), Err(Misfit::Duplicate));
        for (start, end) in [(8, 24), (24, 40), (16, 24), (24, 32), (8, 40), (31, 32)] {
            assert_eq!(spans.insert(start, end, true), Err(Misfit::Overlap), "{start}..{end}");
        }
        assert_eq!(spans.insert(16, 32, false), Err(Misfit::Overlap), "the same bytes, but the last ones");
        assert_eq!(spans.insert(0, 16, false), Err(Misfit::Overlap), "an end before what has come");
        spans.insert(40, 50, false).unwrap();
        assert_eq!(spans.insert(40, 50, false), Err(Misfit::Duplicate));
        assert_eq!(spans.insert(40, 50, true), Err(Misfit::Overlap), "the last one, but more follow");
        for (end, more) in [(64, true), (64, false), (56, true)] {
            assert_eq!(spans.insert(50, end, more), Err(Misfit::Overlap), "beyond the end");
        }
        spans.insert(32, 40, true).unwrap();
        assert!(!spans.complete());
        spans.insert(0, 16, true).unwrap();
        assert!(spans.complete());
    }

    #[test]
    fn scattered_pieces_are_limited_until_they_touch() {
        let mut spans = Spans::default();
        for number in 0..8 {
            spans.insert(number * 16, number * 16 + 8, true).unwrap();
        }
        assert_eq!(spans.insert(1000, 1008, true), Err(Misfit::Scattered));
        assert_eq!(spans.insert(1000, 1008, false), Err(Misfit::Scattered));
        for number in 0..7 {
            spans.insert(number * 16 + 8, number * 16 + 16, true).unwrap();
        }
        assert_eq!(spans.insert(120, 121, false), Ok(()));
        assert!(spans.complete());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn agrees_with_a_set_of_bytes(pieces in prop::collection::vec((0u16..40, 1u16..8, any::<bool>()), 0..60)) {
            let mut spans = Spans::default();
            let mut bytes = [false; 48];
            let mut end = None;
            for (start, len, more) in pieces {
                let range = usize::from(start)..usize::from(start + len);
                let highest = bytes.iter().rposition(|known| *known).map_or(0, |last| last + 1);
                let at_odds = match end {
                    Some(end) => !more || range.end >= end,
                    None => !more && range.end < highest,
                };
                let fits = !at_odds && !bytes[range.clone()].contains(&true);
                match spans.insert(start, start + len, more) {
                    Ok(()) => {
                        prop_assert!(fits);
                        bytes[range.clone()].fill(true);
                        end = if more { end } else { Some(range.end) };
                    }
                    Err(Misfit::Scattered) => {
                        let begins = |at: usize| bytes[at] && (at == 0 || !bytes[at - 1]);
                        prop_assert!(fits && (0..bytes.len()).filter(|at| begins(*at)).count() == MAX_SPANS);
                    }
                    Err(_) => prop_assert!(!fits),
                }
                prop_assert_eq!(spans.complete(), end.is_some_and(|end| !bytes[..end].contains(&false)));
            }
        }
    }
}
