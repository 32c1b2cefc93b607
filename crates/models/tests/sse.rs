//! The decoder of server-sent events: what it reads, and that the cuts between chunks do not matter.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use models::sse::{Decoder, LineTooLong};
use proptest::prelude::*;

fn decode<'a>(limit: usize, chunks: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<String>, LineTooLong> {
    let mut decoder = Decoder::new(limit);
    let mut events = Vec::new();
    for chunk in chunks {
        decoder.feed(chunk, &mut events)?;
    }
    Ok(events)
}

fn read(text: &str) -> Vec<String> {
    decode(1000, [text.as_bytes()]).unwrap()
}

#[test]
fn lines_end_in_three_ways() {
    assert_eq!(read("data: a\n\ndata: b\r\n\r\ndata: c\r\rdata: d\r\n\n"), ["a", "b", "c", "d"]);
}

#[test]
fn what_is_not_data_is_passed_over() {
    let text = ": hello\nevent: x\nid: 1\nretry: 5\nnonsense\ndatas: no\ndata:a\n\n\n\nid: 2\n\ndata:  b\n\n";
    assert_eq!(read(text), ["a", " b"]);
}

#[test]
fn data_of_many_lines_is_joined() {
    assert_eq!(read("data: a\ndata\ndata: b: c\n\n"), ["a\n\nb: c"]);
    assert_eq!(read("data\n\n"), [""]);
}

#[test]
fn a_byte_order_mark_stands_only_at_the_start() {
    assert_eq!(read("\u{feff}data: a\n\n\u{feff}data: b\n\ndata: \u{feff}c\n\n"), ["a", "\u{feff}c"]);
}

#[test]
fn what_no_empty_line_ended_is_no_event() {
    assert_eq!(read("data: a\n\ndata: b\n"), ["a"]);
    assert_eq!(read("data: a\n\ndata: b"), ["a"]);
}

#[test]
fn bytes_that_are_no_text_are_replaced() {
    assert_eq!(decode(100, [b"data: a\xff\n\n".as_slice()]).unwrap(), ["a\u{fffd}"]);
}

#[test]
fn lines_and_events_are_bounded() {
    assert_eq!(decode(10, [b"data: 6789\n\n".as_slice()]).unwrap(), ["6789"]);
    assert_eq!(decode(10, [b"data: 67890".as_slice()]), Err(LineTooLong));
    assert_eq!(decode(10, [b"data: 6789".as_slice(), b"0"]), Err(LineTooLong));
    assert_eq!(decode(10, [b"data: 1\n".as_slice(); 5]).unwrap(), Vec::<String>::new());
    assert_eq!(decode(10, [b"data: 1\n".as_slice(); 6]), Err(LineTooLong));
    assert_eq!(decode(10, [b"data\n".as_slice(); 30]), Err(LineTooLong));
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("data".to_owned()),
        Just("data:".to_owned()),
        Just("\u{feff}data: x".to_owned()),
        "data: [a-zé:{}\" ]{0,12}",
        "[a-z:]{0,6}",
        ":[ a-z]{0,6}",
    ]
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let ending = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
    prop::collection::vec((line(), ending), 0..20)
        .prop_map(|lines| lines.into_iter().flat_map(|(line, end)| (line + end).into_bytes()).collect())
}

proptest! {
    #[test]
    fn cuts_do_not_matter(
        stream in stream(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        limit in prop_oneof![Just(5usize), Just(15), Just(10_000)],
    ) {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        places.extend([0, stream.len()]);
        places.sort_unstable();
        let cut = decode(limit, places.windows(2).map(|pair| &stream[pair[0]..pair[1]]));
        let bytewise = decode(limit, stream.chunks(1));
        prop_assert_eq!(&cut, &decode(limit, [stream.as_slice()]));
        prop_assert_eq!(&cut, &bytewise);
    }

    #[test]
    fn any_bytes_do_no_harm(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
        let _ = decode(64, chunks.iter().map(Vec::as_slice));
    }

    #[test]
    fn what_was_written_is_read(texts in prop::collection::vec("[^\r\n]{0,20}", 0..8)) {
        let stream: String = texts.iter().map(|text| format!("data: {text}\n\n")).collect();
        prop_assert_eq!(decode(1000, [stream.as_bytes()]).unwrap(), texts);
    }
}
