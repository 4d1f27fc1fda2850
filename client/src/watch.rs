//! Watching nodes, through interruptions.
//!
//! Owns going on after an interruption: with the resume token if the state was complete, and from
//! the beginning if it was not or if the aggregator says so. A reset tells the watcher to drop
//! what it knows. Nothing is held here but a token and how fresh the last word was.

use std::time::Duration;

use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Code, Status, Streaming};
use uptime_proto::v1;
use uptime_proto::v1::watch_nodes_response::Event;

use crate::connect::Client;
use crate::error::Error;
use crate::retry::{Backoff, Question};

/// Waits between attempts double from the first to the last of these.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A stream that lasted so long was one: after its end the waits begin short again.
const STABLE_AFTER: Duration = Duration::from_secs(5);
const CALL: &str = <v1::WatchNodesRequest as Question>::CALL;

/// An event of a watch.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Watched {
    /// These nodes are new or changed.
    Changed(Vec<v1::Node>),
    /// Everything there was has come; what follows are changes. Comes again after each
    /// [`Watched::Reset`], and may come again after an interruption.
    Synced,
    /// Drop what came before: everything follows again.
    Reset {
        /// The reason.
        detail: String,
    },
    /// The watch is interrupted and retries by itself. What came before stays valid.
    Interrupted {
        /// The reason.
        error: Error,
        /// The time until the next attempt.
        again_in: Duration,
    },
}

/// A watch on nodes. It goes on by itself after interruptions and ends only with a failure that
/// trying again cannot mend, or that came before the first word.
#[derive(Debug)]
pub struct Watch {
    client: Client,
    filter: v1::NodeFilter,
    token: Vec<u8>,
    freshness: Option<v1::Freshness>,
    state: State,
    backoff: Backoff,
    /// Everything has come since the beginning or the last reset.
    synced: bool,
    /// A word came, ever.
    heard: bool,
    /// Everything will follow again, for this reason.
    anew: Option<String>,
}

#[derive(Debug)]
enum State {
    /// To be opened, not before then.
    Waiting(Instant),
    Open(Session),
    Ended,
}

#[derive(Debug)]
struct Session {
    stream: Box<Streaming<v1::WatchNodesResponse>>,
    since: Instant,
    /// A word came in this one.
    heard: bool,
}

impl Client {
    /// Watches the nodes that pass a filter: everything first, then changes. With the token of an
    /// earlier watch (empty: none) only what changed since, if the aggregator still knows that.
    #[must_use]
    pub fn watch(&self, filter: v1::NodeFilter, resume_token: Vec<u8>) -> Watch {
        Watch {
            client: self.clone(),
            filter,
            // Who has a token had everything.
            synced: !resume_token.is_empty(),
            token: resume_token,
            freshness: None,
            state: State::Waiting(Instant::now()),
            backoff: Backoff::new(BACKOFF_FIRST, BACKOFF_LAST),
            heard: false,
            anew: None,
        }
    }
}

impl Watch {
    /// The next event; `None` after a failure. Cancel-safe.
    ///
    /// # Errors
    /// When the watch cannot go on: the first attempt failed, or the aggregator does not answer
    /// such questions or not this asker.
    pub async fn next(&mut self) -> Option<Result<Watched, Error>> {
        loop {
            match &mut self.state {
                State::Ended => return None,
                State::Waiting(until) => {
                    sleep_until(*until).await;
                    match self.open().await {
                        Ok(stream) => {
                            let (stream, since) = (Box::new(stream), Instant::now());
                            self.state = State::Open(Session { stream, since, heard: false });
                            if let Some(detail) = self.anew.take() {
                                return Some(Ok(Watched::Reset { detail }));
                            }
                        }
                        Err(failure) => return Some(self.interrupted(failure)),
                    }
                }
                State::Open(Session { stream, heard, .. }) => {
                    // Who waits for everything waits for something; changes may take their time.
                    let message = if self.synced {
                        stream.message().await.map_err(Failure::Said)
                    } else {
                        let limit = self.client.bounds.answer_within;
                        match timeout(limit, stream.message()).await {
                            Ok(message) => message.map_err(Failure::Said),
                            Err(_) => Err(Failure::Here(self.client.timed_out(CALL))),
                        }
                    };
                    match message {
                        Ok(Some(message)) => {
                            *heard = true;
                            if let Some(watched) = self.received(message) {
                                return Some(Ok(watched));
                            }
                        }
                        Ok(None) => return Some(self.interrupted(self.ended())),
                        Err(failure) => return Some(self.interrupted(failure)),
                    }
                }
            }
        }
    }

    /// The same as a stream.
    #[must_use]
    pub fn into_stream(self) -> BoxStream<'static, Result<Watched, Error>> {
        Box::pin(stream::unfold(self, |mut watch| async move {
            watch.next().await.map(|watched| (watched, watch))
        }))
    }

    /// A later watch continues from here with this token; empty before everything has come.
    #[must_use]
    pub fn resume_token(&self) -> &[u8] {
        if self.synced { &self.token } else { &[] }
    }

    /// The freshness of the last event.
    #[must_use]
    pub fn freshness(&self) -> Option<&v1::Freshness> {
        self.freshness.as_ref()
    }

    async fn open(&self) -> Result<Streaming<v1::WatchNodesResponse>, Failure> {
        let request = v1::WatchNodesRequest {
            filter: Some(self.filter.clone()),
            resume_token: self.resume_token().to_vec().into(),
        };
        // Before the first word as often as any question; later the waits are this one's own.
        if !self.heard {
            let answer = self.client.put(request).await.map_err(Failure::Here)?;
            return answer.map_err(Failure::Said);
        }
        let limit = self.client.bounds.answer_within;
        let put = request.put(self.client.query.clone(), limit);
        match timeout(limit, put).await {
            Ok(answer) => answer.map(tonic::Response::into_inner).map_err(Failure::Said),
            Err(_) => Err(Failure::Here(self.client.timed_out(CALL))),
        }
    }

    fn received(&mut self, message: v1::WatchNodesResponse) -> Option<Watched> {
        self.heard = true;
        if !message.resume_token.is_empty() {
            self.token = message.resume_token.into();
        }
        if message.freshness.is_some() {
            self.freshness = message.freshness;
        }
        match message.event? {
            Event::Changed(changed) => Some(Watched::Changed(changed.nodes)),
            Event::Synced(_) => {
                self.synced = true;
                Some(Watched::Synced)
            }
            Event::Resume(resume) => {
                self.begin_anew(resume.detail);
                self.wait();
                None
            }
        }
    }

    fn begin_anew(&mut self, detail: String) {
        self.token.clear();
        self.synced = false;
        self.anew = Some(detail);
    }

    /// Lets some time pass before the next attempt.
    fn wait(&mut self) -> Duration {
        if let State::Open(session) = &self.state
            && session.since.elapsed() >= STABLE_AFTER
        {
            self.backoff.reset();
        }
        let again_in = self.backoff.wait();
        self.state = State::Waiting(Instant::now() + again_in);
        again_in
    }

    fn ended(&self) -> Failure {
        let detail = "the aggregator ended the stream".to_owned();
        Failure::Here(Error::Broken { url: self.client.url.clone(), detail })
    }

    fn interrupted(&mut self, failure: Failure) -> Result<Watched, Error> {
        let said_first = !matches!(&self.state, State::Open(session) if session.heard);
        let token_was_sent = !self.resume_token().is_empty();
        let (error, code) = match failure {
            Failure::Here(error) => (error, None),
            Failure::Said(status) => (self.client.failure(CALL, &status), Some(status.code())),
        };
        let token_refused = matches!(
            code,
            Some(Code::InvalidArgument | Code::OutOfRange | Code::FailedPrecondition)
                | Some(Code::Aborted | Code::DataLoss)
        );
        if token_refused && token_was_sent && said_first {
            self.begin_anew(error.to_string());
            let again_in = self.wait();
            return Ok(Watched::Interrupted { error, again_in });
        }
        let final_word = match error {
            Error::NotServed { .. } | Error::Denied { .. } | Error::Refused { .. } => true,
            _ => !self.heard,
        };
        if final_word {
            self.state = State::Ended;
            return Err(error);
        }
        if !self.synced {
            self.begin_anew("it was interrupted before everything had come".to_owned());
        }
        let again_in = self.wait();
        Ok(Watched::Interrupted { error, again_in })
    }
}

/// Why there is no stream.
enum Failure {
    Here(Error),
    Said(Status),
}
