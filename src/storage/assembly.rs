//! Puts the parts of a payload back together.

use super::row::{self, RowHeader, RowKind};

/// Collects the rows of one payload after the other, in key order, and keeps one buffer for all of them.
#[derive(Debug)]
pub(super) struct Assembly {
    kind: RowKind,
    number: Option<u64>,
    first: Option<RowHeader>,
    next_part: u16,
    payload: Vec<u8>,
    fault: Option<PartFault>,
}

/// The first thing that is wrong with a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PartFault {
    pub(super) part: u16,
    pub(super) why: String,
}

/// What became of a payload.
#[derive(Debug)]
pub(super) enum Assembled<'a> {
    /// It is as it was written, by this commit.
    Whole { number: u64, commit: u64, payload: &'a [u8] },
    /// It cannot be had any more.
    Lost { number: u64, fault: PartFault },
}

impl Assembly {
    pub(super) fn new(kind: RowKind) -> Self {
        Self { kind, number: None, first: None, next_part: 0, payload: Vec::new(), fault: None }
    }

    /// Whether a row with this number would begin another payload, so that [`finish`](Self::finish) is due.
    pub(super) fn ends_before(&self, number: u64) -> bool {
        self.number.is_some_and(|present| present != number)
    }

    /// Takes the next row, found under this number and part.
    pub(super) fn feed(&mut self, number: u64, part: u16, row: &[u8]) {
        self.number = Some(number);
        if self.fault.is_some() {
            return;
        }
        if let Err(fault) = self.append(number, part, row) {
            self.fault = Some(fault);
        }
    }

    fn append(&mut self, number: u64, part: u16, row: &[u8]) -> Result<(), PartFault> {
        if part != self.next_part {
            return Err(missing(self.next_part));
        }
        let fault = |why: String| PartFault { part, why };
        let (header, payload) = row::decode(row).map_err(|error| fault(error.to_string()))?;
        if (header.kind, header.number, header.part) != (self.kind, number, part) {
            return Err(fault("it is a row that belongs elsewhere".to_owned()));
        }
        let first = *self.first.get_or_insert(header);
        if (header.commit, header.part_count) != (first.commit, first.part_count) {
            return Err(fault("it is of another version than the parts before it".to_owned()));
        }
        self.payload.extend_from_slice(payload);
        // The part is less than the part count, which is a u16, so this cannot overflow.
        self.next_part = part.saturating_add(1);
        Ok(())
    }

    /// Ends the present payload, if there is one, and hands it to `deliver`.
    pub(super) fn finish(&mut self, deliver: impl FnOnce(Assembled<'_>)) {
        let Some(number) = self.number.take() else {
            return;
        };
        let part_count = self.first.map_or(0, |first| first.part_count);
        let mut fault = self.fault.take();
        if fault.is_none() && self.next_part != part_count {
            fault = Some(missing(self.next_part));
        }
        let assembled = match (fault, self.first.take()) {
            (None, Some(first)) => Assembled::Whole { number, commit: first.commit, payload: &self.payload },
            (fault, _) => Assembled::Lost { number, fault: fault.unwrap_or_else(|| missing(0)) },
        };
        deliver(assembled);
        self.payload.clear();
        self.next_part = 0;
    }
}

fn missing(part: u16) -> PartFault {
    PartFault { part, why: "it is missing".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64, commit: u64, part: u16, part_count: u16) -> Vec<u8> {
        let header = RowHeader { kind: RowKind::Journal, number, commit, part, part_count };
        let payload = [u8::try_from(part).unwrap(); 4];
        let mut out = vec![0; row::row_bytes(payload.len())];
        assert!(row::encode(header, &payload, &mut out));
        out
    }

    fn outcome(rows: &[(u16, Vec<u8>)]) -> Result<Vec<u8>, (u16, String)> {
        let mut assembly = Assembly::new(RowKind::Journal);
        for (part, row) in rows {
            assembly.feed(7, *part, row);
        }
        let mut result = None;
        assembly.finish(|assembled| {
            result = Some(match assembled {
                Assembled::Whole { payload, .. } => Ok(payload.to_vec()),
                Assembled::Lost { fault, .. } => Err((fault.part, fault.why)),
            });
        });
        assert!(!assembly.ends_before(8), "nothing is left over");
        result.unwrap()
    }

    #[test]
    fn parts_make_a_whole_or_name_the_fault() {
        let [a, b, c] = [0, 1, 2].map(|part| (part, row(7, 3, part, 3)));
        let whole = vec![0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2];
        assert_eq!(outcome(&[a.clone(), b.clone(), c.clone()]), Ok(whole));
        let fault = |rows: &[_]| outcome(rows).unwrap_err();
        assert_eq!(fault(&[a.clone(), b.clone()]), (2, "it is missing".to_owned()));
        assert_eq!(fault(&[a.clone(), c.clone()]), (1, "it is missing".to_owned()));
        assert_eq!(fault(&[b.clone(), c.clone()]), (0, "it is missing".to_owned()));
        assert_eq!(fault(&[a.clone(), (1, row(7, 4, 1, 3)), c.clone()]).0, 1);
        assert_eq!(fault(&[a.clone(), (1, row(8, 3, 1, 3)), c.clone()]).0, 1);
        assert_eq!(fault(&[a.clone(), b.clone(), c.clone(), (3, c.1.clone())]).0, 3);
        assert_eq!(fault(&[a, (1, vec![1]), c]).0, 1);
    }
}
