//! The library's watch, through interruptions.

use std::time::Duration;

use tonic::Status;
use uptime_client::v1::watch_nodes_response::Event;
use uptime_client::v1::{self, NodeFilter};
use uptime_client::{Client, Error, Options, Watch, Watched};

use crate::contrary::{Contrary, Script, fresh, only, then_silence};
use crate::wire::Wire;
use crate::{DEADLINE, id};

/// A word, with the token that is valid from there on.
pub(crate) fn word(event: Event, token: &str) -> v1::WatchNodesResponse {
    v1::WatchNodesResponse {
        event: Some(event),
        resume_token: token.as_bytes().to_vec().into(),
        freshness: Some(fresh()),
    }
}

fn changed(number: u32) -> Event {
    let node = v1::Node { id: id(number).to_string(), ..v1::Node::default() };
    Event::Changed(v1::NodesChanged { nodes: vec![node] })
}

fn synced() -> Event {
    Event::Synced(v1::Synced {})
}

async fn next(watch: &mut Watch) -> Result<Watched, Error> {
    let next = tokio::time::timeout(DEADLINE, watch.next()).await;
    next.expect("a word in time").expect("the watch goes on")
}

/// The last digits of the nodes a word is about, or what else it is.
async fn told(watch: &mut Watch) -> String {
    match next(watch).await.unwrap() {
        Watched::Changed(nodes) => nodes.iter().map(|node| &node.id[40..]).collect(),
        Watched::Synced => "synced".to_owned(),
        Watched::Reset { detail } => format!("reset: {detail}"),
        Watched::Interrupted { .. } => "interrupted".to_owned(),
        _ => unreachable!("a word this test does not know"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_whose_connection_breaks_goes_on_where_it_was() {
    let script = Script {
        watch: Box::new(|call, request| {
            let token = String::from_utf8(request.resume_token.to_vec()).unwrap();
            Ok(match (call, token.as_str()) {
                (0, "") => then_silence(vec![
                    word(changed(1), "a"),
                    word(synced(), "b"),
                    word(changed(2), "c"),
                ]),
                (1, "c") => only(vec![Ok(word(changed(3), "d")), Err(Status::internal("a fault"))]),
                (2, "d") => only(vec![Ok(word(changed(4), "e"))]),
                (3, "e") => then_silence(vec![word(synced(), "e"), word(changed(5), "f")]),
                other => panic!("unexpected {other:?}"),
            })
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let wire = Wire::to(there.address).await;
    let client = Client::connect(&wire.url()).await.unwrap();
    let mut watch = client.watch(NodeFilter::default(), Vec::new());
    assert_eq!(told(&mut watch).await, "01");
    assert_eq!(watch.resume_token(), b"", "not everything has come");
    assert_eq!(told(&mut watch).await, "synced");
    assert_eq!(told(&mut watch).await, "02");
    assert_eq!(watch.resume_token(), b"c");
    assert_eq!(watch.freshness(), Some(&fresh()));
    // The line, a fault, an end: none of them costs a change or brings one twice.
    wire.cut();
    for wanted in ["interrupted", "03", "interrupted", "04", "interrupted", "synced", "05"] {
        assert_eq!(told(&mut watch).await, wanted);
    }
    assert_eq!(there.calls(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_breaks_before_everything_has_come_begins_anew() {
    let script = Script {
        watch: Box::new(|call, request| {
            assert!(request.resume_token.is_empty());
            Ok(match call {
                0 => only(vec![Ok(word(changed(1), "a"))]),
                _ => then_silence(vec![word(changed(1), "a"), word(synced(), "b")]),
            })
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let mut watch = client.watch(NodeFilter::default(), Vec::new());
    let reset = "reset: it was interrupted before everything had come";
    for wanted in ["01", "interrupted", reset, "01", "synced"] {
        assert_eq!(told(&mut watch).await, wanted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_told_to_begin_anew_does_and_says_so() {
    let script = Script {
        watch: Box::new(|call, request| {
            let resume = || Event::Resume(v1::Resume { detail: "too slow".into() });
            Ok(match (call, request.resume_token.as_ref()) {
                // Of an earlier watch; then each time it fell behind.
                (0, b"old") => only(vec![Ok(word(resume(), ""))]),
                (1, b"") => then_silence(vec![word(synced(), "a"), word(resume(), "")]),
                (2, b"") => only(vec![Ok(word(resume(), "b"))]),
                (3, b"") => then_silence(vec![word(changed(1), ""), word(synced(), "c")]),
                other => panic!("unexpected {other:?}"),
            })
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let mut watch = client.watch(NodeFilter::default(), b"old".to_vec());
    assert_eq!(watch.resume_token(), b"old");
    for wanted in ["reset: too slow", "synced", "reset: too slow", "reset: too slow"] {
        assert_eq!(told(&mut watch).await, wanted);
    }
    assert_eq!(watch.resume_token(), b"");
    assert_eq!((told(&mut watch).await, told(&mut watch).await), ("01".into(), "synced".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_is_put_away() {
    let script = Script {
        watch: Box::new(|call, request| match (call, request.resume_token.as_ref()) {
            (0, b"old") => Err(Status::invalid_argument("resume_token: of another version")),
            (1, b"") => Ok(then_silence(vec![word(synced(), "a")])),
            other => panic!("unexpected {other:?}"),
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let mut watch = client.watch(NodeFilter::default(), b"old".to_vec());
    assert_eq!(told(&mut watch).await, "interrupted");
    assert!(told(&mut watch).await.starts_with("reset: "));
    assert_eq!(told(&mut watch).await, "synced");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_mended_ends_it() {
    for (status, calls) in [
        (Status::unimplemented("no"), 1),
        (Status::permission_denied("no"), 1),
        (Status::invalid_argument("filter.id_prefix: no hex"), 1),
        (Status::resource_exhausted("too many watchers"), 1),
        (Status::unavailable("starting"), 3),
    ] {
        let (code, message) = (status.code(), status.message().to_owned());
        let refusal = move || Status::new(code, message.clone());
        let script = Script { watch: Box::new(move |_, _| Err(refusal())), ..Script::default() };
        let there = Contrary::start(script).await;
        let client = Client::connect(&there.url()).await.unwrap();
        let mut watch = client.watch(NodeFilter::default(), Vec::new());
        assert!(next(&mut watch).await.is_err(), "{code:?}");
        assert!(watch.next().await.is_none(), "{code:?}");
        assert_eq!(there.calls(), calls, "{code:?}");
    }
    // One that worked is tried again for as long as the aggregator may come back, no longer.
    let script = Script {
        watch: Box::new(|call, _| match call {
            0 => Ok(only(vec![Ok(word(synced(), "a"))])),
            1..4 => Err(Status::unavailable("starting")),
            _ => Err(Status::unauthenticated("the token was revoked")),
        }),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let mut watch = client.watch(NodeFilter::default(), Vec::new());
    let heard = [(); 5].map(|()| ());
    let mut words = Vec::new();
    for () in heard {
        words.push(told(&mut watch).await);
    }
    assert_eq!(words, ["synced", "interrupted", "interrupted", "interrupted", "interrupted"]);
    assert!(matches!(next(&mut watch).await, Err(Error::Denied { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_that_stops_reading_and_writing_is_noticed() {
    let script = Script {
        watch: Box::new(|_, _| Ok(then_silence(vec![word(synced(), "a")]))),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let wire = Wire::to(there.address).await;
    let client = Options::new(wire.url())
        .keepalive(Duration::from_secs(1))
        .answer_within(Duration::from_secs(5))
        .connect()
        .await
        .unwrap();
    let mut watch = client.watch(NodeFilter::default(), Vec::new());
    assert_eq!(told(&mut watch).await, "synced");
    wire.freeze();
    assert_eq!(told(&mut watch).await, "interrupted");
    wire.thaw();
    loop {
        match told(&mut watch).await.as_str() {
            "interrupted" => {}
            word => break assert_eq!(word, "synced"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_has_to_come_within_the_limit_from_word_to_word() {
    let script = Script {
        watch: Box::new(|_, _| Ok(then_silence(vec![word(changed(1), "a")]))),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let options = Options::new(there.url()).answer_within(Duration::from_secs(1));
    let client = options.connect().await.unwrap();
    let mut watch = client.watch(NodeFilter::default(), Vec::new());
    assert_eq!(told(&mut watch).await, "01");
    let word = next(&mut watch).await.unwrap();
    let Watched::Interrupted { error, again_in } = word else { panic!("{word:?}") };
    assert!(matches!(error, Error::TimedOut { call: "WatchNodes", .. }), "{error:?}");
    assert!(again_in <= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_is_a_stream_too() {
    use futures_util::StreamExt;

    let script = Script {
        watch: Box::new(|_, _| Ok(then_silence(vec![word(changed(1), ""), word(synced(), "a")]))),
        ..Script::default()
    };
    let there = Contrary::start(script).await;
    let client = Client::connect(&there.url()).await.unwrap();
    let stream = client.watch(NodeFilter::default(), Vec::new()).into_stream();
    let words: Vec<_> = stream.take(2).map(Result::unwrap).collect().await;
    assert!(matches!(&words[..], [Watched::Changed(nodes), Watched::Synced] if nodes.len() == 1));
}
