//! The last bytes of an answer come at one moment with its end: whoever reads gets all of them.

use serde_json::Value;

use super::ask;
use super::scripted::{Got, Scripted};
use crate::proxy::recordings;
use crate::support::completion;

/// An answer as it is before it is cut: path, question, media type, body.
type Row = (&'static str, Value, &'static str, String);

const CHAT: &str = "/v1/chat/completions";

const HEAD: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\n";

/// A stream of each API, and an answer in one piece.
fn rows() -> Vec<Row> {
    let streams = recordings().into_iter().map(|(path, asked, stream)| (path, asked, "text/event-stream", stream));
    let plain = (CHAT, ask("In one piece?"), "application/json", completion("Fine.").to_string());
    streams.chain([plain]).collect()
}

/// A head, and a body that is cut after `end` bytes, in three framings; whether the cut shows.
fn framings(media: &str, body: &str, end: usize) -> [(String, String, bool); 3] {
    let (head, part) = (format!("{HEAD}content-type: {media}\r\n"), &body[..end]);
    let chunk = if end == 0 { String::new() } else { format!("{end:x}\r\n{part}\r\n") };
    [
        (format!("{head}\r\n"), part.to_owned(), false),
        (format!("{head}transfer-encoding: chunked\r\n\r\n"), chunk, true),
        (format!("{head}content-length: {}\r\n\r\n", body.len()), part.to_owned(), true),
    ]
}

/// Cuts of a body of so many bytes: both ends, and many between.
fn cuts(length: usize) -> impl Iterator<Item = usize> {
    (0..length).filter(move |end| end % 17 == 0 || *end + 2 >= length)
}

#[track_caller]
fn check(got: &Got, part: &str, shows: bool, row: &str) {
    assert_eq!((got.status, got.text().as_str()), (200, part), "{row}");
    assert_eq!(got.whole, !shows, "{row}: a cut that shows must show at the client");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_with_the_end_comes_through() {
    let setup = Scripted::start("").await;
    let mut seen = 0;
    for (path, asked, media, body) in rows() {
        for end in cuts(body.len()) {
            for (head, rest, shows) in framings(media, &body, end) {
                for resets in [false, true] {
                    let row = format!("{path} {media} {end} {resets} {head}");
                    setup.reset(resets);
                    // All of it at once, then with the head before it.
                    setup.say(format!("{head}{rest}"));
                    check(&setup.call(path, &asked).await, &body[..end], shows || resets, &row);
                    setup.say_in_two(head.as_str(), rest.as_str());
                    for got in setup.call_together(path, &asked, 2).await {
                        check(&got, &body[..end], shows || resets, &format!("joined {row}"));
                    }
                    seen += 3;
                }
            }
        }
    }
    setup.reset(false);
    println!("answers that end with their last bytes: {seen}, every byte of each came through");
    setup.check_unharmed(0).await;
}
