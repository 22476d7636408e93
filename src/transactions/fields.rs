//! Cuts one line into fields.
//!
//! Written by hand, because a general CSV reader holds a whole record however long it is, and takes everything
//! after a quote that is never closed, to the end of the file, for one field.

use super::error::RejectReason;

/// The fields of one line. Kept and refilled, so that a row costs no allocation here.
#[derive(Debug, Default)]
pub(super) struct Fields {
    text: String,
    ends: Vec<usize>,
}

impl Fields {
    /// The field of this column; empty beyond the last one.
    pub(super) fn get(&self, index: usize) -> &str {
        let end = self.ends.get(index).copied().unwrap_or_default();
        let start = match index.checked_sub(1) {
            Some(previous) => self.ends.get(previous).copied().unwrap_or_default(),
            None => 0,
        };
        self.text.get(start..end).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Cuts a line that must have exactly `expected` fields.
    pub(super) fn split(&mut self, line: &str, expected: usize) -> Result<(), RejectReason> {
        self.split_up_to(line, expected)?;
        if self.ends.len() < expected {
            return Err(RejectReason::TooFewFields { found: self.ends.len(), expected });
        }
        Ok(())
    }

    /// Cuts a line that may have at most `most` fields.
    pub(super) fn split_up_to(&mut self, line: &str, most: usize) -> Result<(), RejectReason> {
        self.text.clear();
        self.ends.clear();
        let mut rest = Some(line);
        while let Some(field) = rest {
            if self.ends.len() >= most {
                return Err(RejectReason::TooManyFields { expected: most });
            }
            rest = match field.strip_prefix('"') {
                Some(quoted) => self.take_quoted(quoted)?,
                None => self.take_plain(field),
            };
            self.ends.push(self.text.len());
        }
        Ok(())
    }

    /// Takes a field without quotes; returns what follows its comma. A quote in the middle is just a character.
    fn take_plain<'a>(&mut self, field: &'a str) -> Option<&'a str> {
        let (value, rest) = match field.split_once(',') {
            Some((value, rest)) => (value, Some(rest)),
            None => (field, None),
        };
        self.text.push_str(value);
        rest
    }

    /// Takes a field whose opening quote is already gone; returns what follows its comma.
    fn take_quoted<'a>(&mut self, mut field: &'a str) -> Result<Option<&'a str>, RejectReason> {
        let column = self.ends.len() + 1;
        loop {
            let (value, rest) = field.split_once('"').ok_or(RejectReason::UnclosedQuote { column })?;
            self.text.push_str(value);
            if rest.is_empty() {
                return Ok(None);
            }
            if let Some(next) = rest.strip_prefix(',') {
                return Ok(Some(next));
            }
            // A doubled quote stands for one.
            field = rest.strip_prefix('"').ok_or(RejectReason::TextAfterQuote { column })?;
            self.text.push('"');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(line: &str) -> Result<Vec<String>, RejectReason> {
        let mut fields = Fields::default();
        fields.split_up_to(line, 8)?;
        Ok((0..fields.len()).map(|index| fields.get(index).to_owned()).collect())
    }

    #[test]
    fn fields_are_cut_at_commas_outside_quotes() {
        assert_eq!(split("a,b,,c").unwrap(), ["a", "b", "", "c"]);
        assert_eq!(split("").unwrap(), [""]);
        assert_eq!(split(",").unwrap(), ["", ""]);
        assert_eq!(split(r#""a,b","say ""hi""",5" nail"#).unwrap(), ["a,b", r#"say "hi""#, r#"5" nail"#]);
        assert_eq!(split(r#"""",""""#).unwrap(), [r#"",""#]);
    }

    #[test]
    fn broken_quotes_and_counts_are_refused() {
        assert_eq!(split(r#"a,"b"#), Err(RejectReason::UnclosedQuote { column: 2 }));
        assert_eq!(split(r#""a"b,c"#), Err(RejectReason::TextAfterQuote { column: 1 }));
        assert_eq!(split("1,2,3,4,5,6,7,8,9"), Err(RejectReason::TooManyFields { expected: 8 }));
        let short = Fields::default().split("1,2", 3);
        assert_eq!(short, Err(RejectReason::TooFewFields { found: 2, expected: 3 }));
    }
}
