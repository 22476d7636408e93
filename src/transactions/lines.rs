//! Cuts an input into lines, in bounded memory whatever the input.

use std::io::{self, Read};

/// Longest line, in bytes without its end. Real rows take some hundred bytes; the limit is what an input without
/// line breaks can make us hold.
pub const MAX_LINE_BYTES: usize = 64 * 1024;

/// How much is read at once, in bytes.
const BUFFER_BYTES: usize = 64 * 1024;

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it is in [`Lines::bytes`].
    Whole,
    /// It was longer than [`MAX_LINE_BYTES`] and is passed over.
    TooLong,
}

/// Lines of an input; ends are `\n` or `\r\n`, the last one may be missing.
pub(super) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    /// How many bytes of the buffer are input.
    filled: usize,
    position: usize,
    line: Vec<u8>,
    number: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, buffer: vec![0; BUFFER_BYTES], filled: 0, position: 0, line: Vec::new(), number: 0 }
    }

    /// Number of the line read last; the first is 1.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The line read last, without its end.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.line
    }

    /// Reads the next line; `None` at the end of the input.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Line>> {
        self.line.clear();
        self.number = self.number.saturating_add(1);
        let mut started = false;
        let mut too_long = false;
        loop {
            if self.position >= self.filled && !self.fill()? {
                if !started {
                    return Ok(None);
                }
                break;
            }
            started = true;
            let rest = self.buffer.get(self.position..self.filled).unwrap_or_default();
            let end = rest.iter().position(|&byte| byte == b'\n');
            let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            // One byte more than the limit may be the `\r` of the line's end.
            if self.line.len() + part.len() > MAX_LINE_BYTES + 1 {
                too_long = true;
                self.line.clear();
            }
            if !too_long {
                self.line.extend_from_slice(part);
            }
            self.position += part.len() + usize::from(end.is_some());
            if end.is_some() {
                break;
            }
        }
        if self.line.last() == Some(&b'\r') {
            self.line.pop();
        }
        too_long |= self.line.len() > MAX_LINE_BYTES;
        Ok(Some(if too_long { Line::TooLong } else { Line::Whole }))
    }

    /// Replaces the used-up buffer; `false` at the end of the input.
    fn fill(&mut self) -> io::Result<bool> {
        // Should the read fail, nothing stale may be taken for input.
        self.filled = 0;
        self.position = 0;
        self.filled = loop {
            match self.input.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        Ok(self.filled > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(input: impl Read) -> Vec<(u64, Line, usize)> {
        let mut lines = Lines::new(input);
        let mut seen = Vec::new();
        while let Some(state) = lines.next_line().unwrap() {
            seen.push((lines.number(), state, lines.bytes().len()));
        }
        seen
    }

    #[test]
    fn ends_may_be_of_either_kind_or_missing() {
        let expected = vec![(1, Line::Whole, 1), (2, Line::Whole, 0), (3, Line::Whole, 2)];
        assert_eq!(lines(&b"a\r\n\nbc"[..]), expected);
        assert_eq!(lines(&b"a\n\r\nbc\n"[..]), expected);
        assert_eq!(lines(&b""[..]), vec![]);
    }

    #[test]
    fn the_limit_is_exact_and_counts_no_line_end() {
        for end in ["\n", "\r\n"] {
            let fits = format!("{}{end}x", "a".repeat(MAX_LINE_BYTES));
            let seen = lines(fits.as_bytes());
            assert_eq!(seen, vec![(1, Line::Whole, MAX_LINE_BYTES), (2, Line::Whole, 1)]);
            let exceeds = format!("{}{end}x", "a".repeat(MAX_LINE_BYTES + 1));
            let seen = lines(exceeds.as_bytes());
            assert_eq!(seen.first().map(|line| line.1), Some(Line::TooLong));
            assert_eq!(seen.get(1), Some(&(2, Line::Whole, 1)));
        }
    }

    #[test]
    fn an_endless_line_is_not_held() {
        let mut lines = Lines::new(io::repeat(b'x').take(100 << 20));
        assert_eq!(lines.next_line().unwrap(), Some(Line::TooLong));
        assert!(lines.line.capacity() <= 4 * MAX_LINE_BYTES, "{}", lines.line.capacity());
        assert_eq!(lines.next_line().unwrap(), None);
    }
}
