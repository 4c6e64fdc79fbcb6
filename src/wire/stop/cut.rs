//! Where the events of a stream end, found in one pass however its bytes come.

use std::ops::Range;

/// How far the bytes that are held were looked at.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cutter {
    /// Where the next event begins.
    event: usize,
    /// Where the line begins whose end was not found yet.
    line: usize,
    /// Before this, no line ends that was not found.
    seen: usize,
}

/// What is next in the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cut {
    /// A whole event with the empty line that ends it.
    Event(Range<usize>),
    /// No whole event.
    More,
    /// Lines that end in another way than those of any provider.
    Odd,
}

impl Cutter {
    /// `bytes` are those of the last call, with or without more behind them.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Cut {
        while let Some(length) = bytes[self.seen..].iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let end = self.seen + length;
            let next = match &bytes[end..] {
                [b'\n', ..] => end + 1,
                [b'\r', b'\n', ..] => end + 2,
                [b'\r'] => {
                    self.seen = end;
                    return Cut::More;
                }
                _ => return Cut::Odd,
            };
            let is_empty = self.line == end;
            (self.line, self.seen) = (next, next);
            if is_empty {
                let begin = std::mem::replace(&mut self.event, next);
                return Cut::Event(begin..next);
            }
        }
        self.seen = bytes.len();
        Cut::More
    }

    /// Starts anew with the event that is not whole. Returns how many bytes are before it, which must go.
    pub(super) fn forget(&mut self) -> usize {
        let Self { event, line, seen } = *self;
        *self = Self { event: 0, line: line - event, seen: seen - event };
        event
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The events in bytes that come in these pieces, and what comes then.
    fn cut(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Cut) {
        let (mut cutter, mut held, mut events) = (Cutter::default(), Vec::new(), Vec::new());
        for piece in pieces {
            held.extend_from_slice(piece);
            loop {
                match cutter.next(&held) {
                    Cut::Event(event) => events.push(held[event].to_vec()),
                    Cut::More => break,
                    Cut::Odd => return (events, Cut::Odd),
                }
            }
            held.drain(..cutter.forget());
        }
        (events, Cut::More)
    }

    #[test]
    fn events_end_with_an_empty_line() {
        let check = |bytes: &str, expected: &[&str], then: Cut| {
            let expected = expected.iter().map(|event| event.as_bytes().to_vec()).collect();
            assert_eq!(cut(&[bytes.as_bytes()]), (expected, then), "{bytes:?}");
        };
        check("", &[], Cut::More);
        check("a", &[], Cut::More);
        check("a\nb\n\nc\n", &["a\nb\n\n"], Cut::More);
        check("a\r\n\r\nb\n\r\n", &["a\r\n\r\n", "b\n\r\n"], Cut::More);
        check("\n\n\r\n", &["\n", "\n", "\r\n"], Cut::More);
        check("a\n\nb\r", &["a\n\n"], Cut::More);
        check("a\n\nb\rc\n\n", &["a\n\n"], Cut::Odd);
        check("a\r\r", &[], Cut::Odd);
    }

    /// What was looked at is not looked at again: only what is new, and a line's end whose second half is to come.
    #[test]
    fn no_byte_is_seen_twice() {
        let mut cutter = Cutter::default();
        for (bytes, seen) in [("data: a", 7), ("data: ab\r", 8), ("data: ab\r\nc", 11), ("data: ab\r\ncd", 12)] {
            assert_eq!(cutter.next(bytes.as_bytes()), Cut::More);
            assert_eq!(cutter.seen, seen, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(bytes in "[ab\n\r]{0,12}", cuts in prop::collection::vec(0_usize..12, 0..4)) {
            let bytes = bytes.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(cut(&pieces), cut(&[bytes]));
        }
    }
}
