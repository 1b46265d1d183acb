use std::time::Duration;

use super::*;

fn told(key: &str, id: &str, status: OrderStatus) -> Told {
    Told {
        order_key: key.to_owned(),
        order_id: id.to_owned(),
        status,
        gateway: 0,
        with_coupon: false,
        sent: Duration::ZERO,
        at: Duration::ZERO,
    }
}

fn stored(key: &str, id: &str, fate: Fate) -> Stored {
    Stored { order_key: key.to_owned(), order_id: id.to_owned(), fate }
}

/// Four orders that ended well: one confirmed, one refused, two held and then decided; and one that nobody was told of.
fn sound() -> (History, Evidence) {
    let told = vec![
        told("k-1", "id-1", OrderStatus::Confirmed),
        told("k-1", "id-1", OrderStatus::Confirmed),
        told("k-2", "id-2", OrderStatus::Cancelled),
        told("k-3", "id-3", OrderStatus::Held),
        told("k-3", "id-3", OrderStatus::Confirmed),
        told("k-4", "id-4", OrderStatus::Held),
        told("k-4", "id-4", OrderStatus::Cancelled),
    ];
    let fates = [
        ("k-1", "id-1", Fate::Confirmed),
        ("k-2", "id-2", Fate::Cancelled),
        ("k-3", "id-3", Fate::Confirmed),
        ("k-4", "id-4", Fate::Cancelled),
        ("k-5", "id-5", Fate::Confirmed),
    ];
    let all: Vec<Stored> = fates.iter().map(|(key, id, fate)| stored(key, id, *fate)).collect();
    let evidence = Evidence {
        transactions: all.clone(),
        // A refused order may have ended before it had a row.
        orders: all.into_iter().filter(|one| one.order_key != "k-2").collect(),
        shelves: [("apple".to_owned(), Shelf { initial: 5, frozen: 0, sold: 5, ordered: 5 })].into(),
        ..Evidence::default()
    };
    (History { told, ..History::default() }, evidence)
}

fn counts(history: &History, evidence: &Evidence) -> [usize; 5] {
    let found = violations(history, evidence);
    let counts = [found.lost.len(), found.doubled.len(), found.oversold.len(), found.leaked.len(), found.contradicted.len()];
    assert_eq!(found.all().count(), counts.iter().sum::<usize>());
    counts
}

fn set(rows: &mut [Stored], id: &str, fate: Fate) {
    rows.iter_mut().filter(|row| row.order_id == id).for_each(|row| row.fate = fate);
}

#[test]
fn a_sound_history_has_no_violation() {
    let (history, evidence) = sound();
    assert_eq!(violations(&history, &evidence), Violations::default());
}

#[test]
fn a_confirmed_order_that_is_not_confirmed_in_both_places_is_lost() {
    for fate in [Some(Fate::Open), Some(Fate::Cancelled), None] {
        for in_log in [true, false] {
            let (history, mut evidence) = sound();
            let rows = if in_log { &mut evidence.transactions } else { &mut evidence.orders };
            match fate {
                Some(fate) => set(rows, "id-1", fate),
                None => rows.retain(|row| row.order_id != "id-1"),
            }
            assert_eq!(counts(&history, &evidence), [1, 0, 0, 0, 0], "{fate:?} {in_log}");
        }
    }
}

#[test]
fn an_acknowledged_confirm_of_a_hold_that_is_not_confirmed_is_lost() {
    let (history, mut evidence) = sound();
    set(&mut evidence.transactions, "id-3", Fate::Cancelled);
    set(&mut evidence.orders, "id-3", Fate::Cancelled);
    assert_eq!(counts(&history, &evidence), [1, 0, 0, 0, 0]);
}

#[test]
fn a_held_order_that_is_not_there_is_lost() {
    let (mut history, mut evidence) = sound();
    history.told.push(told("k-6", "id-6", OrderStatus::Held));
    assert_eq!(counts(&history, &evidence), [1, 0, 0, 0, 0]);
    evidence.transactions.push(stored("k-6", "id-6", Fate::Cancelled));
    evidence.orders.push(stored("k-6", "id-6", Fate::Cancelled));
    assert_eq!(counts(&history, &evidence), [0; 5], "its time may have been over");
}

#[test]
fn two_ids_told_for_one_key_are_doubled() {
    let (mut history, mut evidence) = sound();
    history.told.push(told("k-2", "id-7", OrderStatus::Cancelled));
    evidence.transactions.push(stored("k-2", "id-7", Fate::Cancelled));
    assert_eq!(counts(&history, &evidence), [0, 1, 0, 0, 0]);
}

#[test]
fn two_orders_of_one_key_are_doubled_unless_one_is_cancelled() {
    let (history, evidence) = sound();
    for (fate, doubled) in [(Fate::Open, 1), (Fate::Confirmed, 1), (Fate::Cancelled, 0)] {
        let mut in_log = evidence.clone();
        in_log.transactions.push(stored("k-1", "id-8", fate));
        assert_eq!(counts(&history, &in_log), [0, doubled, 0, 0, 0], "{fate:?}");
        let mut in_orders = evidence.clone();
        in_orders.orders.push(stored("k-5", "id-8", fate));
        assert_eq!(counts(&history, &in_orders), [0, doubled, 0, 0, 0], "{fate:?}");
    }
}

#[test]
fn what_is_still_reserved_is_leaked() {
    let (history, mut evidence) = sound();
    evidence.shelves.insert("pear".to_owned(), Shelf { initial: 2, frozen: 2, ..Shelf::default() });
    evidence.locked_coupons.push("c-1".to_owned());
    evidence.tried_rows.push("order id-9/order".to_owned());
    assert_eq!(counts(&history, &evidence), [0, 0, 0, 3, 0]);
}

#[test]
fn a_cancelled_order_that_is_confirmed_anywhere_is_contradicted() {
    let (history, evidence) = sound();
    let mut in_log = evidence.clone();
    set(&mut in_log.transactions, "id-2", Fate::Confirmed);
    assert_eq!(counts(&history, &in_log), [0, 0, 0, 0, 1]);
    let mut in_orders = evidence;
    set(&mut in_orders.orders, "id-4", Fate::Confirmed);
    assert_eq!(counts(&history, &in_orders), [0, 0, 0, 0, 1]);
}

#[test]
fn an_order_told_as_confirmed_and_as_cancelled_is_contradicted() {
    let (mut history, evidence) = sound();
    history.told.push(told("k-1", "id-1", OrderStatus::Cancelled));
    assert_eq!(counts(&history, &evidence), [0, 0, 0, 0, 1]);
}

#[test]
fn more_sold_or_promised_than_there_was_is_oversold() {
    for shelf in [Shelf { initial: 5, frozen: 0, sold: 6, ordered: 5 }, Shelf { initial: 5, frozen: 0, sold: 5, ordered: 6 }] {
        let (history, mut evidence) = sound();
        evidence.shelves.insert("apple".to_owned(), shelf);
        assert_eq!(counts(&history, &evidence), [0, 0, 1, 0, 0], "{shelf:?}");
    }
}

#[test]
fn a_living_order_beside_the_one_that_clients_were_told_of_is_doubled() {
    let (history, mut evidence) = sound();
    evidence.transactions.push(stored("k-2", "id-9", Fate::Confirmed));
    assert_eq!(counts(&history, &evidence), [0, 1, 0, 0, 0], "clients were told that id-2 is cancelled");
}

#[test]
fn a_cancelled_order_that_the_log_does_not_have_is_lost() {
    let (history, mut evidence) = sound();
    evidence.transactions.retain(|row| row.order_id != "id-2");
    assert_eq!(counts(&history, &evidence), [1, 0, 0, 0, 0]);
}

#[test]
fn what_nobody_asked_for_is_contradicted() {
    let (mut history, evidence) = sound();
    history.never_confirmed.insert("k-2".to_owned());
    history.to_be_confirmed.insert("k-3".to_owned());
    assert_eq!(counts(&history, &evidence), [0; 5]);
    history.never_confirmed.insert("k-3".to_owned());
    assert_eq!(counts(&history, &evidence), [0, 0, 0, 0, 2], "in the log and in the orders");
    history.never_confirmed.clear();
    history.to_be_confirmed.insert("k-4".to_owned());
    assert_eq!(counts(&history, &evidence), [0, 0, 0, 0, 2]);
}

#[test]
fn an_order_that_is_told_as_held_after_it_was_told_as_decided_is_contradicted() {
    let (mut history, evidence) = sound();
    assert_eq!(counts(&history, &evidence), [0; 5]);
    for told in history.told.iter_mut().filter(|told| told.order_id == "id-3") {
        let [sent, at] = if told.status == OrderStatus::Held { [30, 40] } else { [10, 20] };
        (told.sent, told.at) = (Duration::from_millis(sent), Duration::from_millis(at));
    }
    assert_eq!(counts(&history, &evidence), [0, 0, 0, 0, 1]);
}
