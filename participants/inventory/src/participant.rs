//! Inventory's handlers, for one operation and for many: from the wire's payload to the decisions and back. Decides nothing itself.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicBool, Ordering},
};

use sqlx::migrate::Migrator;
use tcc_participant::{
    Batch, BatchParticipant, BranchContext, ConnectionOf, Database, HandlerError, Participant, Store, Tried,
};
use tcc_proto::inventory::v1::{ReserveStock, ReservedShare, ReservedStock, StockLine};
use tcc_types::Invalid;

use crate::{
    Aim, Line, Lines, Operations, Reservation, Reserved, Split, StockBooks, StockStore, Taken, aim::Aims, release, reserve,
    run_batch, spend,
};

/// A database that stock can be kept in.
pub trait StockDatabase: Database {
    /// The rows inside a local transaction.
    type Stock<'c>: StockStore<Error = sqlx::Error>;
    /// The keeper's view.
    type Books: StockBooks;

    /// What makes the tables.
    fn migrator() -> Migrator;

    /// The rows, on a connection that is in a transaction.
    fn stock(connection: &mut Self::Connection) -> Self::Stock<'_>;

    /// The keeper's view of an opened database.
    fn books(store: Store<Self>) -> Self::Books;
}

/// The participant `inventory`.
#[derive(Debug)]
pub struct Inventory<D> {
    /// Nothing was refused in the latest batch with tries, so that it is likely that nothing is in the next one. Only a hint: where something is
    /// sold out, batches need not try each time whether everything can be had.
    all_had: AtomicBool,
    /// Where tries look first. Only hints, too.
    aims: Aims,
    database: PhantomData<fn() -> D>,
}

impl<D> Inventory<D> {
    /// It keeps nothing beside its database.
    #[must_use]
    pub fn new() -> Self {
        Self { all_had: AtomicBool::new(true), aims: Aims::default(), database: PhantomData }
    }
}

impl<D> Default for Inventory<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: StockDatabase> Participant for Inventory<D> {
    type Db = D;
    type Payload = ReserveStock;
    type Reserved = ReservedStock;

    async fn on_try(
        &self,
        conn: &mut ConnectionOf<Self>,
        branch: &BranchContext,
        payload: ReserveStock,
    ) -> Result<Tried<ReservedStock>, HandlerError> {
        let lines = match lines_from_proto(payload.lines) {
            Ok(lines) => lines,
            Err(bad) => return Ok(Tried::bad_request(&bad)),
        };
        let mut aim = self.aims.of_one(&branch.key, lines.iter().map(Line::sku));
        let reservation = reserve(&mut D::stock(conn), &lines, &mut aim).await;
        // Also if it failed: it may run anew, and then knows where to look.
        self.aims.remember(aim);
        Ok(tried(reservation?, &lines))
    }

    async fn on_confirm(
        &self,
        conn: &mut ConnectionOf<Self>,
        _branch: &BranchContext,
        reserved: ReservedStock,
    ) -> Result<(), HandlerError> {
        Ok(spend(&mut D::stock(conn), &stored(reserved)?).await?)
    }

    async fn on_cancel(
        &self,
        conn: &mut ConnectionOf<Self>,
        _branch: &BranchContext,
        reserved: ReservedStock,
    ) -> Result<(), HandlerError> {
        Ok(release(&mut D::stock(conn), &stored(reserved)?).await?)
    }
}

impl<D: StockDatabase> BatchParticipant for Inventory<D> {
    /// All of it from the first bucket, which is the only one of most SKUs.
    fn foresee(&self, payload: &ReserveStock) -> Option<Tried<ReservedStock>> {
        let lines = lines_from_proto(payload.lines.clone()).ok()?;
        Some(Tried::reserved(ReservedStock { lines: lines_to_proto(&lines), shares: Vec::new() }))
    }

    async fn on_batch(
        &self,
        conn: &mut ConnectionOf<Self>,
        batch: Batch<Self>,
    ) -> Result<Vec<Tried<ReservedStock>>, HandlerError> {
        let stored = |(_, reserved)| stored(reserved);
        let mut operations = Operations {
            spends: batch.confirms.into_iter().map(stored).collect::<Result<_, _>>()?,
            releases: batch.cancels.into_iter().map(stored).collect::<Result<_, _>>()?,
            tries: Vec::with_capacity(batch.tries.len()),
        };
        let mut outcomes: Vec<Option<Tried<_>>> = Vec::with_capacity(batch.tries.len());
        let keys: Vec<_> = batch.tries.iter().take(2).map(|(branch, _)| branch.key.clone()).collect();
        for (_, payload) in batch.tries {
            match lines_from_proto(payload.lines) {
                Ok(lines) => {
                    operations.tries.push(lines);
                    outcomes.push(None);
                }
                Err(bad) => outcomes.push(Some(Tried::bad_request(&bad))),
            }
        }
        // What is only settled can always be had.
        let likely = operations.tries.is_empty() || self.all_had.load(Ordering::Relaxed);
        let skus = operations.tries.iter().flatten().map(Line::sku);
        let mut aim = match &keys[..] {
            [] => Aim::default(),
            [only] => self.aims.of_one(only, skus),
            [first, ..] => self.aims.of_batch(first, skus),
        };
        let reservations = run_batch(&mut D::stock(conn), &operations, &mut aim, likely).await;
        self.aims.remember(aim);
        match &reservations {
            Ok(none) if none.is_empty() => {}
            Ok(reservations) => {
                let all_had = reservations.iter().all(|reservation| matches!(reservation, Reservation::Frozen(_)));
                self.all_had.store(all_had, Ordering::Relaxed);
            }
            // It may have to run anew: then without hoping.
            Err(_) => self.all_had.store(false, Ordering::Relaxed),
        }
        let reservations = reservations?;
        let mut decided = reservations.into_iter().zip(&operations.tries).map(|(reservation, lines)| tried(reservation, lines));
        Ok(outcomes.into_iter().filter_map(|outcome| outcome.or_else(|| decided.next())).collect())
    }
}

fn tried(reservation: Reservation, lines: &Lines) -> Tried<ReservedStock> {
    match reservation {
        Reservation::Frozen(split) => {
            Tried::reserved(ReservedStock { lines: lines_to_proto(lines), shares: shares_to_proto(&split) })
        }
        Reservation::Refused(refusal) => Tried::Refused(refusal),
    }
}

fn lines_from_proto(lines: Vec<StockLine>) -> Result<Lines, Vec<Invalid>> {
    Lines::new(lines.into_iter().map(|line| (line.sku, line.quantity)))
}

fn lines_to_proto(lines: &Lines) -> Vec<StockLine> {
    lines.iter().map(|line| StockLine { sku: line.sku().to_owned(), quantity: line.quantity() }).collect()
}

fn shares_to_proto(split: &Split) -> Vec<ReservedShare> {
    let mut shares = Vec::new();
    for (line, taken) in split.iter() {
        let Ok(line) = u32::try_from(line) else { continue };
        shares.extend(taken.iter().map(|Taken { bucket, quantity }| ReservedShare {
            line,
            bucket: (*bucket).into(),
            quantity: *quantity,
        }));
    }
    shares
}

/// What a branch's row keeps of its reservation, read back.
#[cfg(feature = "memory")]
pub(crate) fn reserved_from_bytes(bytes: bytes::Bytes) -> Result<Reserved, HandlerError> {
    stored(prost::Message::decode(bytes)?)
}

/// A row that was written before there were buckets has no shares: all of it is from bucket 0, as it was.
fn stored(reserved: ReservedStock) -> Result<Reserved, HandlerError> {
    let ReservedStock { lines, shares } = reserved;
    // They are stored in order, and their places are by it.
    if !lines.is_sorted_by(|one, other| one.sku < other.sku) {
        return Err(HandlerError::from("the lines of the stored reservation are out of order"));
    }
    let lines = lines_from_proto(lines).map_err(|bad| match bad.into_iter().next() {
        Some(bad) => HandlerError::from(bad),
        None => HandlerError::from("the stored reservation is malformed"),
    })?;
    if shares.is_empty() {
        return Ok(lines.into());
    }
    let malformed = || HandlerError::from("the shares of the stored reservation are malformed");
    let mut taken: Vec<Vec<Taken>> = vec![Vec::new(); lines.iter().len()];
    for ReservedShare { line, bucket, quantity } in shares {
        let of_line = usize::try_from(line).ok().and_then(|line| taken.get_mut(line)).ok_or_else(malformed)?;
        of_line.push(Taken { bucket: u8::try_from(bucket).map_err(|_| malformed())?, quantity });
    }
    let mut split = Split::new();
    taken.into_iter().enumerate().for_each(|(line, taken)| split.set(line, taken));
    Ok(Reserved::new(lines, split)?)
}
