use std::collections::BTreeMap;

use super::*;

fn send(ledger: &Ledger, number: u64, answer: Answer) {
    ledger.begin(number, Instant::now()).expect("in range");
    ledger.record_answer(number, answer);
}

fn deliver(ledger: &Ledger, number: u64) -> DeliveryKind {
    ledger.record_delivery(number, Instant::now())
}

#[test]
fn accepted_and_delivered_leaves_nothing_outstanding() {
    let ledger = Ledger::new(10);
    send(&ledger, 3, Answer::Status(202));
    assert_eq!(ledger.progress().outstanding, 1);
    assert!(matches!(deliver(&ledger, 3), DeliveryKind::First(_)));
    assert_eq!(ledger.progress().outstanding, 0);
    let totals = ledger.totals();
    assert_eq!((totals.sent, totals.accepted, totals.delivered), (1, 1, 1));
    assert_eq!((totals.lost, totals.phantom, totals.unknown_delivered), (0, 0, 0));
}

#[test]
fn a_delivery_that_overtakes_the_answer_is_counted_once() {
    let ledger = Ledger::new(1);
    ledger.begin(0, Instant::now()).expect("in range");
    assert!(matches!(deliver(&ledger, 0), DeliveryKind::First(_)));
    assert_eq!(ledger.progress().outstanding, 0);
    ledger.record_answer(0, Answer::Status(202));
    assert_eq!(ledger.progress().outstanding, 0);
    assert_eq!(deliver(&ledger, 0), DeliveryKind::Again);
    let totals = ledger.totals();
    assert_eq!((totals.duplicate_deliveries, totals.delivered_twice_or_more, totals.phantom), (1, 1, 0));
}

#[test]
fn an_accepted_number_without_a_delivery_is_lost_and_listed() {
    let ledger = Ledger::new(100);
    send(&ledger, 7, Answer::Status(202));
    send(&ledger, 9, Answer::None);
    send(&ledger, 9, Answer::Status(200));
    let totals = ledger.totals();
    assert_eq!((totals.lost, totals.lost_numbers), (2, vec![7, 9]));
    assert_eq!((totals.accepted, totals.duplicates_answered, totals.duplicates_unexplained), (1, 1, 0));
}

#[test]
fn a_duplicate_answer_to_a_first_request_is_unexplained() {
    let ledger = Ledger::new(1);
    send(&ledger, 0, Answer::Status(200));
    assert_eq!(ledger.totals().duplicates_unexplained, 1);
}

#[test]
fn a_delivery_of_a_number_never_sent_or_refused_for_good_is_a_phantom() {
    let ledger = Ledger::new(10_000);
    send(&ledger, 0, Answer::Status(401));
    deliver(&ledger, 0);
    assert_eq!(deliver(&ledger, 9_999), DeliveryKind::Phantom);
    assert_eq!(deliver(&ledger, 10_000), DeliveryKind::Phantom);
    // Delivered before it was sent: no later answer explains that.
    deliver(&ledger, 5_000);
    send(&ledger, 5_000, Answer::Status(202));
    let totals = ledger.totals();
    assert_eq!((totals.phantom, totals.phantom_numbers), (4, vec![0, 5_000, 9_999]));
    assert_eq!((totals.lost, totals.unknown_delivered), (0, 0));
}

#[test]
fn a_number_that_may_have_been_accepted_is_neither_lost_nor_phantom() {
    let ledger = Ledger::new(10);
    send(&ledger, 0, Answer::None);
    deliver(&ledger, 0);
    send(&ledger, 1, Answer::Status(503));
    deliver(&ledger, 1);
    // The first attempt had no answer, so it may have been accepted although the second one was refused.
    send(&ledger, 2, Answer::None);
    send(&ledger, 2, Answer::Status(429));
    deliver(&ledger, 2);
    ledger.begin(3, Instant::now()).expect("in range");
    let totals = ledger.totals();
    assert_eq!((totals.lost, totals.phantom, totals.unknown_delivered), (0, 0, 3));
    assert_eq!((totals.unknown, totals.sent, totals.requests), (2, 4, 5));
    assert_eq!(totals.refused, BTreeMap::from([(429, 1), (503, 1)]));
}

#[test]
fn a_request_that_did_not_leave_was_not_sent() {
    let ledger = Ledger::new(2);
    let before = ledger.begin(0, Instant::now()).expect("in range");
    ledger.undo_begin(0, before);
    send(&ledger, 1, Answer::Status(503));
    let before = ledger.begin(1, Instant::now()).expect("in range");
    ledger.undo_begin(1, before);
    let totals = ledger.totals();
    assert_eq!((totals.sent, totals.requests, totals.unknown), (1, 1, 0));
    assert_eq!(totals.refused, BTreeMap::from([(503, 1)]));
    assert_eq!(ledger.progress().sent, 1);
}

#[test]
fn a_number_is_refused_on_purpose_at_most_once() {
    let ledger = Ledger::new(3);
    assert!(!ledger.refuse_once(0), "never sent: a refusal must not hide a phantom");
    ledger.begin(1, Instant::now()).expect("in range");
    assert!(ledger.refuse_once(1));
    assert!(!ledger.refuse_once(1));
    deliver(&ledger, 1);
    send(&ledger, 2, Answer::Status(202));
    deliver(&ledger, 2);
    assert!(!ledger.refuse_once(2));
    assert_eq!(ledger.totals().failed_on_purpose, 1);
}

#[test]
fn nothing_is_counted_beyond_the_limit() {
    let ledger = Ledger::new(u64::MAX);
    assert!(ledger.begin(MAX_NUMBERS - 1, Instant::now()).is_some());
    assert!(ledger.begin(MAX_NUMBERS, Instant::now()).is_none());
}

#[test]
fn concurrent_sides_agree_on_what_is_fulfilled() {
    let ledger = Ledger::new(20_000);
    std::thread::scope(|scope| {
        let (numbers, due) = std::sync::mpsc::channel();
        let ledger = &ledger;
        scope.spawn(move || {
            for number in 0..20_000 {
                ledger.begin(number, Instant::now()).expect("in range");
                numbers.send(number).expect("the other side listens");
                ledger.record_answer(number, Answer::Status(202));
            }
        });
        scope.spawn(move || {
            for number in due {
                ledger.record_delivery(number, Instant::now());
            }
        });
    });
    let progress = ledger.progress();
    assert_eq!((progress.accepted, progress.delivered, progress.outstanding), (20_000, 20_000, 0));
    assert_eq!(ledger.totals().lost, 0);
}
