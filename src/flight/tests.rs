//! Readers that come, go, lag and stall, over answers that end or break off.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use futures_util::task::noop_waker;
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use proptest::prelude::*;
use tokio::time::{Instant, sleep};

use super::live::STALL_TIME_MAX;
use super::*;
use crate::body::BoxError;

/// Gives a piece at every second poll, so that readers wait too; says when it is dropped.
struct Pieces {
    pieces: VecDeque<Result<Bytes, &'static str>>,
    is_ready: bool,
    dropped: Arc<AtomicUsize>,
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.is_ready = !self.is_ready;
        if !self.is_ready {
            return Poll::Pending;
        }
        Poll::Ready(self.pieces.pop_front().map(|piece| piece.map(Frame::data).map_err(Into::into)))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a reader got so far, and whether that is all.
type Got = (Vec<u8>, Option<bool>);

fn poll(body: &mut Body, (bytes, end): &mut Got) {
    match Pin::new(body).poll_frame(&mut Context::from_waker(&noop_waker())) {
        Poll::Pending => {}
        Poll::Ready(Some(Ok(frame))) => bytes.extend(frame.into_data().expect("data")),
        Poll::Ready(Some(Err(_))) => *end = Some(false),
        Poll::Ready(None) => *end = Some(true),
    }
}

fn board(flights: &Arc<Flights>, pieces: Vec<Result<Bytes, &'static str>>, dropped: &Arc<AtomicUsize>) -> Option<Body> {
    let body = Pieces { pieces: pieces.into(), is_ready: false, dropped: Arc::clone(dropped) };
    let call = |landing| async move {
        // As a recorder does: until its end.
        let body = body.map_frame(move |frame| {
            let _held = &landing;
            frame
        });
        Some(Response::new(Body::new(body)))
    };
    let flight = match flights.board([0; 32], 8, call) {
        Boarding::Leads(flight) | Boarding::Joins(flight, _) => flight,
    };
    flight.answer().now_or_never().expect("an answer at once").map(Response::into_body)
}

/// Time that stands still until nobody has anything to do.
fn clock() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

proptest! {
    /// Whoever joins, whenever, and whoever leaves: all get all of the answer, in order, from one call.
    #[test]
    fn every_reader_gets_the_whole_answer(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..6),
        steps in prop::collection::vec((0usize..4, 0u8..8), 0..60),
        is_cut: bool,
    ) {
        let runtime = clock();
        let _context = runtime.enter();
        let whole: Vec<u8> = pieces.concat();
        let mut sent: Vec<_> = pieces.into_iter().map(|piece| Ok(Bytes::from(piece))).collect();
        if is_cut {
            sent.push(Err("cut"));
        }
        let (flights, dropped) = (Arc::new(Flights::default()), Arc::new(AtomicUsize::new(0)));
        let mut readers: Vec<(Body, Got)> = Vec::new();
        let mut calls = 0;
        for (who, what) in steps {
            let is_new = flights.get(&[0; 32]).is_none();
            match what {
                0 => {
                    calls += usize::from(is_new);
                    let body = board(&flights, sent.clone(), &dropped).expect("an answer");
                    readers.push((body, Got::default()));
                }
                1 if who < readers.len() => drop(readers.remove(who)),
                _ => if let Some((body, got)) = readers.get_mut(who) { poll(body, got) },
            }
        }
        // In turn: of an answer that is too long to be kept, whoever is ahead waits for the others.
        for _ in 0..80 {
            readers.iter_mut().filter(|(_, got)| got.1.is_none()).for_each(|(body, got)| poll(body, got));
        }
        for (_, got) in &readers {
            prop_assert_eq!(&got.0, &whole);
            prop_assert_eq!(got.1, Some(!is_cut));
        }
        drop(readers);
        prop_assert!(flights.is_empty());
        prop_assert_eq!(flights.metrics.read(), (0, 0, 0));
        // Calls that were not made never had a body that was asked for.
        prop_assert!(dropped.load(Ordering::SeqCst) >= calls);
    }
}

#[test]
fn an_answer_too_long_to_keep_is_not_joined_and_not_held() {
    let (flights, dropped) = (Arc::new(Flights::default()), Arc::new(AtomicUsize::new(0)));
    let pieces = (0..4).map(|_| Ok(Bytes::from_static(b"four"))).collect();
    let mut body = board(&flights, pieces, &dropped).expect("an answer");
    let mut got = Got::default();
    while got.0.len() <= 8 {
        assert!(flights.get(&[0; 32]).is_some(), "{} bytes", got.0.len());
        poll(&mut body, &mut got);
    }
    assert!(flights.get(&[0; 32]).is_none());
    while got.1.is_none() {
        poll(&mut body, &mut got);
    }
    assert_eq!((got.0.len(), got.1), (16, Some(true)));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn a_call_that_panics_is_no_answer_and_nobody_elses_panic() {
    let flights = Arc::new(Flights::default());
    let call = |_| async { panic!("on purpose") };
    let Boarding::Leads(flight) = flights.board([1; 32], 8, call) else { panic!("nobody else is there") };
    let joins = flights.get(&[1; 32]).expect("it is on its way");
    assert!(flight.answer().now_or_never().expect("at once").is_none());
    assert!(joins.answer().now_or_never().expect("at once").is_none());
    assert!(flights.is_empty());
}

const PIECE: usize = 64 << 10;

const KEPT: usize = 1 << 20;

/// So many numbered pieces, all there.
struct Numbered(std::ops::Range<u64>);

impl http_body::Body for Numbered {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let piece = |number: u64| Bytes::from(number.to_le_bytes().repeat(PIECE / 8));
        Poll::Ready(self.0.next().map(|number| Ok(Frame::data(piece(number)))))
    }
}

/// A flight whose answer has so many pieces, and so many readers of it.
fn numbered(pieces: u64, readers: usize) -> (Arc<Flights>, Vec<Body>) {
    let flights = Arc::new(Flights::default());
    let board = || match flights.board([0; 32], KEPT, move |landing| async move {
        let body = Numbered(0..pieces).map_frame(move |frame| {
            let _held = &landing;
            frame
        });
        Some(Response::new(Body::new(body)))
    }) {
        Boarding::Leads(seat) | Boarding::Joins(seat, _) => seat,
    };
    let seats: Vec<Seat> = (0..readers).map(|_| board()).collect();
    let open = |seat: Seat| seat.answer().now_or_never().expect("at once").expect("an answer").into_body();
    let bodies = seats.into_iter().map(open).collect();
    (flights, bodies)
}

/// The next piece's number.
async fn next(body: &mut Body) -> Option<u64> {
    let data = body.frame().await?.expect("no error").into_data().expect("data");
    assert_eq!(data.len(), PIECE);
    Some(u64::from_le_bytes(data[..8].try_into().expect("eight bytes")))
}

#[tokio::test(start_paused = true)]
async fn readers_of_a_long_answer_hold_no_more_than_is_kept() {
    const PIECES: u64 = 1024;
    let (flights, bodies) = numbered(PIECES, 3);
    let most = std::cell::Cell::new(0);
    let read = async |mut body: Body, every: u64| {
        for expected in 0..PIECES {
            // Some are slower, and each stops now and then.
            if expected % every == 0 {
                sleep(Duration::from_secs(20)).await;
            }
            assert_eq!(next(&mut body).await, Some(expected));
            most.set(most.get().max(flights.metrics.read().2));
        }
        assert_eq!(next(&mut body).await, None);
    };
    let mut bodies = bodies.into_iter();
    let mut reader = |every| read(bodies.next().expect("a reader"), every);
    let (fast, slow, steady) = (reader(200), reader(7), reader(1));
    join(fast, join(slow, steady)).await;
    let most = usize::try_from(most.get()).expect("bytes");
    assert!((KEPT..=KEPT + PIECE).contains(&most), "{most} bytes of {}", PIECES as usize * PIECE);
    assert_eq!(flights.metrics.read(), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_stands_still_is_left_behind() {
    const PIECES: u64 = 100;
    let (flights, mut bodies) = numbered(PIECES, 2);
    let (mut stalled, mut reads) = (bodies.pop().expect("a reader"), bodies.pop().expect("a reader"));
    assert_eq!(next(&mut stalled).await, Some(0));
    let started = Instant::now();
    for expected in 0..PIECES {
        assert_eq!(next(&mut reads).await, Some(expected));
    }
    assert_eq!(next(&mut reads).await, None);
    let waited = started.elapsed();
    assert!(waited >= STALL_TIME_MAX && waited < 2 * STALL_TIME_MAX, "{waited:?}");
    let error = stalled.frame().await.expect("not its end").expect_err("it was left behind").to_string();
    assert_eq!(error, "others read the same answer, and had waited 120 s for this reader");
    assert_eq!(flights.metrics.read(), (1, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_slow_is_waited_for() {
    const PIECES: u64 = 40;
    let (_flights, mut bodies) = numbered(PIECES, 2);
    let (mut slow, mut fast) = (bodies.pop().expect("a reader"), bodies.pop().expect("a reader"));
    let slow = async {
        for expected in 0..PIECES {
            sleep(STALL_TIME_MAX - Duration::from_secs(1)).await;
            assert_eq!(next(&mut slow).await, Some(expected));
        }
    };
    let fast = async {
        for expected in 0..PIECES {
            assert_eq!(next(&mut fast).await, Some(expected));
        }
    };
    join(slow, fast).await;
}

#[test]
fn whoever_boarded_has_time_to_begin() {
    const PIECES: u64 = 100;
    let runtime = clock();
    let _context = runtime.enter();
    for leaves in [false, true] {
        let (flights, mut bodies) = numbered(PIECES, 1);
        let mut leader = bodies.pop().expect("a reader");
        let seat = flights.get(&[0; 32]).expect("it is on its way");
        let mut read = 0;
        while let Some(number) = next(&mut leader).now_or_never() {
            assert_eq!(number, Some(read));
            read += 1;
        }
        assert!(read > (KEPT / PIECE) as u64 && read < PIECES, "{read}: the leader waits");
        if leaves {
            drop(seat);
        } else {
            let mut follower = seat.answer().now_or_never().expect("at once").expect("an answer").into_body();
            for expected in 0..read {
                assert_eq!(next(&mut follower).now_or_never(), Some(Some(expected)));
            }
        }
        assert_eq!(next(&mut leader).now_or_never(), Some(Some(read)), "and goes on");
    }
}
