//! Stock movements: what this node did, read from its ledger and exported.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stockmesh_proto::hold::HoldId;
pub use stockmesh_proto::movement::MovementKind;
use stockmesh_proto::movement::{Movement as Record, Reason};
use stockmesh_proto::wire::{LedgerPart, LedgerRecord};
use stockmesh_proto::{Location, Reference, ReplicaId, Sku};

use crate::limits::LEDGER_PAGE_BYTES;
use crate::replica::Replica;
use crate::storage::StorageError;

/// One movement of stock that this node recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Movement {
    /// When it was committed, by this node's wall clock.
    pub time: SystemTime,
    /// The id under which this node wrote then.
    pub replica: ReplicaId,
    /// The product.
    pub sku: Sku,
    /// Where.
    pub location: Location,
    /// What happened.
    pub kind: MovementKind,
    /// Units: never below zero but for an adjustment, a stocktake that found fewer, and what came from a retired replica.
    pub quantity: i64,
    /// The caller's name of the request, if it had one.
    pub reference: Option<Reference>,
}

impl Movement {
    fn new(record: Record, replica: ReplicaId, reference: Option<Reference>, time_ms: u64) -> Self {
        let Record { sku, location, kind, quantity } = record;
        let time = UNIX_EPOCH + Duration::from_millis(time_ms);
        Self { time, replica, sku, location, kind, quantity, reference }
    }

    /// Why, if it was an adjustment.
    pub fn reason(&self) -> Option<Reason> {
        match self.kind {
            MovementKind::Adjusted(reason) => Some(reason),
            _ => None,
        }
    }

    /// The hold that it gave or resolved.
    pub fn hold(&self) -> Option<HoldId> {
        match self.kind {
            MovementKind::Held(id)
            | MovementKind::Committed(id)
            | MovementKind::Released(id)
            | MovementKind::Expired(id) => Some(id),
            _ => None,
        }
    }

    /// By how much it changed the units on hand at its location.
    pub fn on_hand(&self) -> i64 {
        match self.kind {
            MovementKind::Received
            | MovementKind::Adjusted(_)
            | MovementKind::Counted
            | MovementKind::TransferredFrom(_)
            | MovementKind::Reapplied(_) => self.quantity,
            MovementKind::Sold | MovementKind::Committed(_) | MovementKind::TransferredTo(_) => -self.quantity,
            _ => 0,
        }
    }

    /// By how much it changed the units held at its location.
    pub fn held(&self) -> i64 {
        match self.kind {
            MovementKind::Held(_) => self.quantity,
            MovementKind::Committed(_) | MovementKind::Released(_) | MovementKind::Expired(_) => -self.quantity,
            _ => 0,
        }
    }
}

/// The ledger could not be read. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// An entry is damaged. The next call goes on behind it.
    #[error("entry {number} of the ledger is lost: {why}; the next call goes on behind it")]
    Damaged {
        /// The entry: the movements of one group commit.
        number: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The store is closed or its disk failed.
    #[error("the ledger cannot be read: {0}")]
    Storage(#[from] StorageError),
    /// The export could not be written.
    #[error("the export cannot be written: {0}")]
    Write(#[from] std::io::Error),
    /// The runtime ended.
    #[error("the ledger cannot be read: the runtime ended")]
    Ended,
}

/// Movements in the order in which they were committed, made by [`Store::movements`](crate::Store::movements) and
/// [`Store::ledger`](crate::Store::ledger): those that were durable when the first was read.
///
/// They are read from disk, a megabyte at a time: all of the ledger is looked through, whatever is selected of it, at
/// some million movements a second. Nothing of that keeps writers waiting.
///
/// ```
/// use stockmesh::{MovementKind, Reason};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let store = stockmesh::Store::builder().in_memory().location("berlin").open().await?;
/// let mug = store.product("MUG-01")?;
/// mug.receive(10).await?;
/// mug.reference("order-123/1")?.sell(3).await?;
/// mug.adjust(-1, Reason::Damaged).await?;
///
/// let mut movements = store.movements("MUG-01")?;
/// let mut on_hand = 0;
/// while let Some(movement) = movements.next().await {
///     on_hand += movement?.on_hand();
/// }
/// assert_eq!(on_hand, 6);
///
/// let mut csv = Vec::new();
/// let rows = store.movements("MUG-01")?.write_csv(&mut csv).await?;
/// assert_eq!((rows, csv.split(|byte| *byte == b'\n').count()), (3, 5)); // with its header, and the end of the last line
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Movements {
    replica: Arc<Replica>,
    sku: Option<Sku>,
    since: SystemTime,
    next: u64,
    last: Option<u64>,
    page: VecDeque<(u64, Vec<u8>)>,
    ready: VecDeque<Movement>,
}

impl Movements {
    pub(crate) fn new(replica: Arc<Replica>, sku: Option<Sku>) -> Self {
        let (page, ready) = (VecDeque::new(), VecDeque::new());
        Self { replica, sku, since: UNIX_EPOCH, next: 0, last: None, page, ready }
    }

    /// Only those committed at or after `time`.
    #[must_use]
    pub fn since(mut self, time: SystemTime) -> Self {
        self.since = time;
        self
    }

    /// The next movement; `None` at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// If an entry is damaged, which is passed over at the next call, or the ledger cannot be read at all, which ends it.
    pub async fn next(&mut self) -> Option<Result<Movement, LedgerError>> {
        loop {
            if let Some(movement) = self.ready.pop_front() {
                return Some(Ok(movement));
            }
            if let Some((number, payload)) = self.page.pop_front() {
                self.next = number.saturating_add(1);
                match LedgerRecord::decode(&payload) {
                    Ok(record) => self.take(record),
                    Err(error) => return Some(Err(LedgerError::Damaged { number, why: error.to_string() })),
                }
                continue;
            }
            if self.last.is_some_and(|last| self.next > last) {
                return None;
            }
            if let Err(error) = self.read_page().await {
                return Some(Err(self.pass_over(error)));
            }
        }
    }

    /// All that are left, in memory.
    ///
    /// # Errors
    /// At the first that cannot be read.
    pub async fn collect(mut self) -> Result<Vec<Movement>, LedgerError> {
        let mut movements = Vec::new();
        while let Some(movement) = self.next().await {
            movements.push(movement?);
        }
        Ok(movements)
    }

    /// Writes all that are left as CSV (RFC 4180) with a header, and returns their number. Columns: time (UTC), replica,
    /// product, location, kind, quantity, reason, reference, hold, and the other location or replica of a transfer,
    /// grant or inheritance. The writer may block.
    ///
    /// # Errors
    /// At the first movement that cannot be read or written.
    pub async fn write_csv(mut self, writer: &mut (impl Write + Send)) -> Result<u64, LedgerError> {
        writeln!(writer, "time,replica,product,location,kind,quantity,reason,reference,hold,other")?;
        let mut rows = 0;
        while let Some(movement) = self.next().await {
            csv_row(&movement?, writer)?;
            rows += 1;
        }
        writer.flush()?;
        Ok(rows)
    }

    fn take(&mut self, record: LedgerRecord) {
        let time_ms = record.time_ms;
        if UNIX_EPOCH + Duration::from_millis(time_ms) < self.since {
            return;
        }
        for LedgerPart { replica, requests } in record.parts {
            for request in requests {
                let selected = request.movements.into_iter().filter(|movement| self.selects(movement));
                let movements: Vec<Movement> = selected
                    .map(|movement| Movement::new(movement, replica, request.reference.clone(), time_ms))
                    .collect();
                self.ready.extend(movements);
            }
        }
    }

    fn selects(&self, movement: &Record) -> bool {
        self.sku.as_ref().is_none_or(|sku| *sku == movement.sku)
    }

    async fn read_page(&mut self) -> Result<(), StorageError> {
        // A view for each page: one that is kept would make the file grow.
        let view = self.replica.committer.ledger().await?;
        let last = *self.last.get_or_insert(view.last());
        let from = self.next;
        let reading = crate::blocking::run(move || view.read(from, LEDGER_PAGE_BYTES));
        let page = reading.await.map_err(|_| StorageError::Closed)??;
        self.page = page.into_iter().take_while(|(number, _)| *number <= last).collect();
        if self.page.is_empty() {
            self.next = last.saturating_add(1);
        }
        Ok(())
    }

    /// Goes on behind what is lost; anything else ends the reading.
    fn pass_over(&mut self, error: StorageError) -> LedgerError {
        let why = error.to_string();
        match error {
            StorageError::LedgerEntry { number, .. } => {
                self.next = number.saturating_add(1);
                LedgerError::Damaged { number, why }
            }
            StorageError::LedgerGap { from, to } => {
                self.next = to.saturating_add(1);
                LedgerError::Damaged { number: from, why }
            }
            error => {
                (self.last, self.next) = (Some(0), 1);
                error.into()
            }
        }
    }
}

fn csv_row(movement: &Movement, writer: &mut impl Write) -> std::io::Result<()> {
    let Movement { time, replica, sku, location, kind, quantity, reference, .. } = movement;
    let other = match kind {
        MovementKind::TransferredTo(other) | MovementKind::TransferredFrom(other) => other.to_string(),
        MovementKind::Granted(replica) | MovementKind::Inherited(replica) | MovementKind::Reapplied(replica) => {
            replica.to_string()
        }
        _ => String::new(),
    };
    let fields = [
        timestamp(*time),
        replica.to_string(),
        quoted(sku.as_str()),
        quoted(location.as_str()),
        kind.label().to_owned(),
        quantity.to_string(),
        movement.reason().map(|reason| reason.label().to_owned()).unwrap_or_default(),
        quoted(reference.as_ref().map(Reference::as_str).unwrap_or_default()),
        movement.hold().map(|id| id.to_string()).unwrap_or_default(),
        quoted(&other),
    ];
    writeln!(writer, "{}", fields.join(","))
}

/// Names hold no control characters, so only commas and quotes need care; also what a spreadsheet would take for a
/// formula stays as it is, since the field must read back as it was.
fn quoted(field: &str) -> String {
    if field.contains([',', '"']) || field.starts_with(' ') || field.ends_with(' ') {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field.to_owned()
}

/// As in ISO 8601, in UTC, with milliseconds. Days become dates by Hinnant's "chrono-Compatible Low-Level Date
/// Algorithms".
fn timestamp(time: SystemTime) -> String {
    let ms = u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", of_day % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_says() {
        let written = |ms: u64| timestamp(UNIX_EPOCH + Duration::from_millis(ms));
        assert_eq!(written(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(written(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(written(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(written(1_709_164_800_000), "2024-02-29T00:00:00.000Z");
        assert_eq!(written(1_735_689_599_001), "2024-12-31T23:59:59.001Z");
        assert_eq!(written(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn fields_that_need_quotes_get_them() {
        assert_eq!(quoted("MUG-01"), "MUG-01");
        assert_eq!(quoted("a,b"), "\"a,b\"");
        assert_eq!(quoted("5\" plate"), "\"5\"\" plate\"");
    }
}
