//! Sends recorded requests to a fake server and compares the answers with the recorded ones.
//!
//! Compared always: status, the set of headers, their values but for the date, and the body as
//! the row says. Ids that the daemon draws are mapped onto the recorded ones.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use uptime_testkit::fake_yagna::recording::{Exchange, Recording, Response};

/// How the body is compared.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// Byte for byte, after mapping ids.
    Exact,
    /// As JSON; of these fields, wherever they stand, only the type.
    Except(&'static [&'static str]),
    /// As `Except`, and arrays of objects or of ids in any order.
    Unordered(&'static [&'static str]),
    /// A fresh id: compared by shape, and mapped onto the recorded one from here on.
    FreshId,
    /// Status and headers only.
    Any,
}

/// One line of a table of recordings.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub number: &'a str,
    /// Which exchange of the file; all of them if `None`.
    pub only: Option<usize>,
    pub body: Body,
    /// The minimum time of the answer here, and in the recording before scaling.
    pub waits_ms: u64,
}

/// The exchanges of a file, in order.
pub const fn row(number: &str, body: Body) -> Row<'_> {
    Row { number, only: None, body, waits_ms: 0 }
}

/// One exchange of a file.
pub const fn one(number: &str, only: usize, body: Body) -> Row<'_> {
    Row { number, only: Some(only), body, waits_ms: 0 }
}

/// The exchanges of a file, whose waits are scaled to this.
pub const fn waits(number: &str, body: Body, waits_ms: u64) -> Row<'_> {
    Row { number, only: None, body, waits_ms }
}

/// A fake server under comparison.
pub struct Scene {
    pub address: SocketAddr,
    /// Recorded id and ours.
    ids: Vec<(String, String)>,
}

impl Scene {
    pub fn of(base_url: &str) -> Scene {
        let address = base_url.trim_start_matches("http://").parse().unwrap();
        Scene { address, ids: Vec::new() }
    }

    /// The same ids at another fake server.
    pub fn at(&self, base_url: &str) -> Scene {
        Scene { ids: self.ids.clone(), ..Scene::of(base_url) }
    }

    pub fn map(&mut self, recorded: &str, ours: &str) {
        self.ids.retain(|(theirs, _)| theirs != recorded);
        self.ids.push((recorded.to_owned(), ours.to_owned()));
    }

    /// Our id in place of a recorded one.
    pub fn ours(&self, recorded: &str) -> String {
        let found = self.ids.iter().find(|(theirs, _)| theirs == recorded);
        found.map(|(_, ours)| ours.clone()).unwrap()
    }

    /// Makes a demand as in this recording, in place of one whose request was not recorded.
    pub async fn demand_for(&mut self, number: &str, recorded: &str) {
        self.table(&[row(number, Body::FreshId)]).await;
        let made = Recording::load(number).unwrap().exchanges[0].response.clone().unwrap();
        let ours = self.ours(made.body.trim_matches('"'));
        self.map(recorded, &ours);
    }

    pub async fn table(&mut self, rows: &[Row<'_>]) {
        for row in rows {
            let recording = Recording::load(row.number).unwrap();
            for (at, exchange) in recording.exchanges.iter().enumerate() {
                if row.only.is_none_or(|only| only == at) {
                    self.check(&format!("{} [{at}]", recording.name), exchange, row).await;
                }
            }
        }
    }

    async fn check(&mut self, name: &str, exchange: &Exchange, row: &Row<'_>) {
        let waits = Duration::from_millis(row.waits_ms);
        let (answer, elapsed) = self.send(exchange).await;
        self.judge(name, exchange, answer.as_ref(), row.body);
        assert!(exchange.elapsed >= waits, "{name}: recorded {:?}", exchange.elapsed);
        assert!(elapsed >= waits, "{name}: answered after {elapsed:?}");
    }

    /// Sends an exchange's request with our ids in place of the recorded ones.
    pub async fn send(&self, exchange: &Exchange) -> (Option<Response>, Duration) {
        let ours = |text: &str| {
            self.ids.iter().fold(text.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
        };
        let mut request = exchange.to(&ours(&exchange.target));
        request.body = exchange.body.as_deref().map(ours);
        let streams = exchange.response.as_ref().and_then(|it| it.header("content-type"));
        let patience = match streams {
            Some("text/event-stream") => Duration::from_millis(300),
            _ => Duration::from_secs(20),
        };
        request.replay(self.address, patience).await.unwrap()
    }

    /// Compares an answer with the recorded one.
    pub fn judge(&mut self, name: &str, asked: &Exchange, answer: Option<&Response>, how: Body) {
        let (Some(theirs), Some(ours)) = (asked.response.as_ref(), answer) else {
            assert!(asked.response.is_none() && answer.is_none(), "{name}: {answer:?}");
            return;
        };
        assert_eq!(ours.status, theirs.status, "{name}: {}", ours.body);
        assert_eq!(headers(ours), headers(theirs), "{name}");
        // One of our ids may stand for several recorded ones.
        let meant = self.ids.iter().filter(|(id, _)| theirs.body.contains(id));
        let body = meant.fold(ours.body.clone(), |body, (id, ours)| body.replace(ours, id));
        match how {
            Body::Any => {}
            Body::Exact => {
                assert_eq!(body, theirs.body, "{name}");
                assert_eq!(ours.header("content-length"), theirs.header("content-length"));
            }
            Body::FreshId => {
                let shape = |body: &str| {
                    body.chars().map(|c| if c.is_ascii_hexdigit() { 'h' } else { c }).collect()
                };
                let (mine, recorded): (String, String) = (shape(&ours.body), shape(&theirs.body));
                assert_eq!(mine, recorded, "{name}");
                self.map(theirs.body.trim_matches('"'), ours.body.trim_matches('"'));
            }
            Body::Except(fields) | Body::Unordered(fields) => {
                let sorted = matches!(how, Body::Unordered(_));
                let canonical = |body: &str| {
                    let value = serde_json::from_str(body);
                    blank(value.unwrap_or_else(|_| json!(body)), fields, sorted)
                };
                assert_eq!(canonical(&body), canonical(&theirs.body), "{name}");
            }
        }
    }
}

/// Everything but the date and the length, which goes with the body. The order is no matter: the
/// daemon's own differs from one run to the next [10, 37].
fn headers(response: &Response) -> Vec<(String, String)> {
    let value = |name: &str, value: &str| match name {
        "date" => format!("{} characters", value.len()),
        "content-length" => String::new(),
        _ => value.to_owned(),
    };
    let pairs = response.headers.iter().map(|(name, text)| (name.clone(), value(name, text)));
    let mut pairs: Vec<(String, String)> = pairs.collect();
    pairs.sort();
    pairs
}

/// Volatile fields become the name of their type, and durations are as good as each other.
pub fn blank(value: Value, fields: &[&str], sorted: bool) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, member)| {
                let volatile = fields.contains(&name.as_str());
                let member = if volatile { kind(&member) } else { blank(member, fields, sorted) };
                (name, member)
            })
            .collect(),
        Value::Array(items) => {
            let mut items: Vec<Value> =
                items.into_iter().map(|item| blank(item, fields, sorted)).collect();
            let lists = items.iter().all(|item| item.is_object() || is_id(item));
            if sorted && lists {
                items.sort_by_key(Value::to_string);
            }
            Value::Array(items)
        }
        other => other,
    }
}

fn is_id(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() == 42 && text.starts_with("0x"))
}

/// What is left of a volatile value: its type, for texts the letters that are no hex digits, for
/// objects their members' kinds.
fn kind(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("boolean"),
        Value::Number(number) => json!(if number.is_f64() { "float" } else { "integer" }),
        Value::String(text) => {
            let mut shape = String::new();
            for c in text.chars() {
                let c = if c.is_ascii_hexdigit() { '#' } else { c };
                if !(c == '#' && shape.ends_with('#')) {
                    shape.push(c);
                }
            }
            // Rust prints as many decimals of a duration as it needs, small ones in ms or µs.
            json!(shape.replace("ms", "s").replace("µs", "s").replace("#.#s", "#s"))
        }
        Value::Array(items) => items.iter().map(kind).collect(),
        Value::Object(members) => {
            members.iter().map(|(name, member)| (name.clone(), kind(member))).collect()
        }
    }
}
