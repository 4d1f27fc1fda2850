//! Reading `text/event-stream`.
//!
//! Owns the cutting of bytes into lines and of lines into events, whatever pieces the bytes come
//! in. Refuses to know what an event means, and to hold more than it was allowed: a line, or an
//! event of many lines, beyond the limit ends the reading.
//!
//! Fields other than `event` and `data` are passed over, as are comments. An event that has a name
//! and no data is told too: that something happened is worth more here than the letter of the
//! standard, which drops it.

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// Its name; empty when it has none.
    pub(super) event: String,
    /// Its data; several lines are joined by line feeds.
    pub(super) data: String,
}

/// A line or an event with more bytes than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event has more than {bytes_max} bytes")]
pub(super) struct TooLong {
    bytes_max: usize,
}

/// What has been read and is no whole event yet.
#[derive(Debug)]
pub(super) struct SseParser {
    bytes_max: usize,
    /// The line under way, without its end.
    line: Vec<u8>,
    event: Vec<u8>,
    data: Vec<u8>,
    /// Whether a field of the event under way was there, be it empty.
    begun: bool,
    has_data: bool,
    /// A line feed that comes next belongs to the line end before it.
    after_return: bool,
    first_line: bool,
}

impl SseParser {
    /// A parser at the beginning of a stream. At most `bytes_max` bytes wait at any time.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            event: Vec::new(),
            data: Vec::new(),
            begun: false,
            has_data: false,
            after_return: false,
            first_line: true,
        }
    }

    /// Takes the next bytes and answers the events that end in them.
    ///
    /// # Errors
    /// When a line or an event is too long; nothing can be read after that, and events of the same
    /// bytes are lost with it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, TooLong> {
        let mut events = Vec::new();
        for &byte in bytes {
            let after_return = std::mem::take(&mut self.after_return);
            match byte {
                b'\n' if after_return => {}
                b'\n' => events.extend(self.end_line()),
                b'\r' => {
                    self.after_return = true;
                    events.extend(self.end_line());
                }
                _ if self.line.len() + self.event.len() + self.data.len() >= self.bytes_max => {
                    return Err(TooLong { bytes_max: self.bytes_max });
                }
                _ => self.line.push(byte),
            }
        }
        Ok(events)
    }

    fn end_line(&mut self) -> Option<SseEvent> {
        let line = std::mem::take(&mut self.line);
        let line = line.as_slice();
        let is_first = std::mem::take(&mut self.first_line);
        let line = line.strip_prefix("\u{feff}".as_bytes()).filter(|_| is_first).unwrap_or(line);
        if line.is_empty() {
            return self.end_event();
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => {
                self.begun = true;
                self.event = value.to_vec();
            }
            b"data" => {
                self.begun = true;
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<SseEvent> {
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        self.has_data = false;
        std::mem::take(&mut self.begun).then(|| SseEvent {
            event: String::from_utf8_lossy(&event).into_owned(),
            data: String::from_utf8_lossy(&data).into_owned(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BYTES_MAX: usize = 64;

    fn read(pieces: &[&[u8]]) -> Result<Vec<SseEvent>, TooLong> {
        let mut parser = SseParser::new(BYTES_MAX);
        let mut events = Vec::new();
        for piece in pieces {
            events.extend(parser.push(piece)?);
        }
        Ok(events)
    }

    fn told(text: &str) -> Vec<(String, String)> {
        let events = read(&[text.as_bytes()]).unwrap();
        events.into_iter().map(|event| (event.event, event.data)).collect()
    }

    fn check(text: &str, expected: &[(&str, &str)]) {
        let expected: Vec<(String, String)> =
            expected.iter().map(|(event, data)| ((*event).into(), (*data).into())).collect();
        assert_eq!(told(text), expected, "{text:?}");
    }

    #[test]
    fn events() {
        check("event: new-node\ndata: 0xab\n\n", &[("new-node", "0xab")]);
        check("event: a\r\ndata: b\r\n\r\nevent: c\r\ndata: d\r\n\r\n", &[("a", "b"), ("c", "d")]);
        check("event: a\rdata: b\r\r", &[("a", "b")]);
        check("data: one\ndata: two\ndata:\n\n", &[("", "one\ntwo\n")]);
        check("data:  kept space\n\n", &[("", " kept space")]);
        check("data:a:b\n\n", &[("", "a:b")]);
        check("event: drop\n\n", &[("drop", "")]);
        check("data\n\n", &[("", "")]);
        check("event: a\nevent: b\ndata\n\n", &[("b", "")]);
        check("\u{feff}data: after a byte order mark\n\n", &[("", "after a byte order mark")]);
    }

    #[test]
    fn what_is_no_event() {
        check("", &[]);
        check("\n\n\r\n\r\n", &[]);
        check(": a comment\n\n:\n\n", &[]);
        check("id: 7\nretry: 100\nnonsense\n\n", &[]);
        check("event: unfinished\ndata: x\n", &[]);
        check(": heartbeat\n\nevent: a\n: between\ndata: b\n\n", &[("a", "b")]);
    }

    #[test]
    fn bytes_that_are_no_text() {
        let events = read(&[b"data: \xff\xfe\n\n"]).unwrap();
        assert_eq!(events, [SseEvent { event: String::new(), data: "\u{fffd}\u{fffd}".into() }]);
    }

    #[test]
    fn a_line_and_an_event_have_a_limit() {
        let fits = format!("data: {}\n\n", "x".repeat(BYTES_MAX - 6));
        assert_eq!(told(&fits).len(), 1);
        let line = "x".repeat(BYTES_MAX + 1);
        assert!(read(&[line.as_bytes()]).is_err());
        assert!(read(&[format!(":{line}").as_bytes()]).is_err());
        let many = "data: x\n".repeat(BYTES_MAX);
        assert!(read(&[many.as_bytes()]).is_err());
        // Events that ended take no room, however many there are.
        let stream = "event: e\ndata: 1\n\n".repeat(1_000);
        assert_eq!(told(&stream).len(), 1_000);
        // Empty lines of data are line feeds, and count.
        assert!(read(&["data\n".repeat(10_000).as_bytes()]).is_err());
    }

    fn streams() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "event: new-node",
            "data: 0x85f0",
            "data:",
            ": comment",
            "id: 1",
            "\n",
            "\n\n",
            "\r\n",
            "\r",
            "\u{feff}",
            "ä",
            "event:",
            "xxxxxxxxxxxxxxxx",
        ]);
        prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat().into_bytes())
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_events(
            bytes in prop_oneof![streams(), prop::collection::vec(any::<u8>(), 0..200)],
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[bytes.as_slice()]));
        }
    }
}
