//! Requests with a deadline, and their retries.
//!
//! Every request only reads, so repeating it is safe. It is repeated only when the aggregator was
//! unavailable or the connection broke before any answer, a bounded number of times, with growing
//! waits of random length, and all of that within the one deadline.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Code, Request, Response, Status, Streaming};
use uptime_proto::v1;

use crate::connect::{Client, Query};
use crate::error::{Error, broke_here};

/// The most attempts for a request.
const ATTEMPTS_MAX: u32 = 3;
/// Before the second attempt; doubled before each later one.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const BACKOFF_LAST: Duration = Duration::from_secs(1);

/// Waits that double up to a last one, each cut by a random share of up to its half, so that many
/// askers do not come back at the same moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Self { first, last, next: first }
    }

    /// Begins with the first wait again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait now; `share` is random, from 0 to 1.
    fn step(&mut self, share: f64) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.last);
        full.mul_f64(1.0 - share.clamp(0.0, 1.0) / 2.0)
    }

    pub(crate) fn wait(&mut self) -> Duration {
        self.step(rand::rng().random())
    }
}

/// A message that is a question, and how it is put.
pub(crate) trait Question: Clone + Send + Sync + 'static {
    type Reply: Send;
    /// Its name, as failures give it.
    const CALL: &'static str;

    /// Sends it once, with the deadline.
    fn put(
        self,
        query: Query,
        within: Duration,
    ) -> impl Future<Output = Result<Response<Self::Reply>, Status>> + Send;
}

macro_rules! questions {
    ($($request:ident => $reply:ident by $method:ident as $call:literal;)+) => {$(
        impl Question for v1::$request {
            type Reply = v1::$reply;
            const CALL: &'static str = $call;

            async fn put(
                self,
                mut query: Query,
                within: Duration,
            ) -> Result<Response<Self::Reply>, Status> {
                let mut request = Request::new(self);
                request.set_timeout(within);
                query.$method(request).await
            }
        }
    )+};
}

questions! {
    GetNodeRequest => GetNodeResponse by get_node as "GetNode";
    ListNodesRequest => ListNodesResponse by list_nodes as "ListNodes";
    GetUptimeRequest => GetUptimeResponse by get_uptime as "GetUptime";
    ListOutagesRequest => ListOutagesResponse by list_outages as "ListOutages";
    ExplainRequest => ExplainResponse by explain as "Explain";
    ListRoundsRequest => ListRoundsResponse by list_rounds as "ListRounds";
    ListProbesRequest => ListProbesResponse by list_probes as "ListProbes";
    GetSummaryRequest => GetSummaryResponse by get_summary as "GetSummary";
}

/// The first piece is the answer, so that asking again is possible until it is there. No time is
/// told: it would be taken for that of the whole stream.
impl Question for v1::ExportCsvRequest {
    type Reply = (Option<v1::ExportCsvResponse>, Streaming<v1::ExportCsvResponse>);
    const CALL: &'static str = "ExportCsv";

    async fn put(self, mut query: Query, _: Duration) -> Result<Response<Self::Reply>, Status> {
        let mut pieces = query.export_csv(self).await?.into_inner();
        let first = pieces.message().await?;
        Ok(Response::new((first, pieces)))
    }
}

/// The stream is the answer; what is wrong with the question is told before it.
impl Question for v1::WatchNodesRequest {
    type Reply = Streaming<v1::WatchNodesResponse>;
    const CALL: &'static str = "WatchNodes";

    async fn put(self, mut query: Query, _: Duration) -> Result<Response<Self::Reply>, Status> {
        query.watch_nodes(self).await
    }
}

/// Whether the same question may be answered a moment later: the aggregator says so, or the
/// connection broke, as in a restart.
fn is_passing(status: &Status) -> bool {
    status.code() == Code::Unavailable || broke_here(status)
}

impl Client {
    /// Puts a question and translates its failure.
    pub(crate) async fn ask<Q: Question>(&self, question: Q) -> Result<Q::Reply, Error> {
        let answer = self.put(question).await?;
        answer.map_err(|status| self.failure(Q::CALL, &status))
    }

    /// Puts a question, again if that may help, all within the limit. The status is left to those
    /// who can do something about it.
    pub(crate) async fn put<Q: Question>(
        &self,
        question: Q,
    ) -> Result<Result<Q::Reply, Status>, Error> {
        let ends = Instant::now() + self.bounds.answer_within;
        let asked = async {
            let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_LAST);
            for _ in 1..ATTEMPTS_MAX {
                let left = ends.saturating_duration_since(Instant::now());
                match question.clone().put(self.query.clone(), left).await {
                    Err(status) if is_passing(&status) => {
                        let wait = backoff.wait();
                        // What went wrong says more than that time is up.
                        if Instant::now() + wait >= ends {
                            return Err(status);
                        }
                        sleep(wait).await;
                    }
                    answer => return answer,
                }
            }
            let left = ends.saturating_duration_since(Instant::now());
            question.clone().put(self.query.clone(), left).await
        };
        match timeout_at(ends, asked).await {
            Ok(answer) => Ok(answer.map(Response::into_inner)),
            Err(_) => Err(self.timed_out(Q::CALL)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::Options;

    #[test]
    fn waits_double_up_to_the_last_and_none_is_shorter_than_half() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let whole: Vec<u128> = (0..4).map(|_| backoff.step(0.0).as_millis()).collect();
        assert_eq!(whole, [100, 200, 350, 350]);
        assert_eq!(backoff.step(1.0).as_millis(), 175);
        backoff.reset();
        assert_eq!(backoff.step(0.5).as_millis(), 75);
        for _ in 0..100 {
            let wait = backoff.wait().as_millis();
            assert!((100..=350).contains(&wait), "{wait}");
        }
    }

    /// Is never answered but with this.
    #[derive(Clone)]
    struct Refused;

    impl Question for Refused {
        type Reply = ();
        const CALL: &'static str = "Refused";

        async fn put(self, _: Query, _: Duration) -> Result<Response<()>, Status> {
            Err(Status::unavailable("starting"))
        }
    }

    #[tokio::test]
    async fn the_last_failure_is_told_rather_than_that_no_time_is_left_to_ask_again() {
        // Shorter than the shortest wait.
        let options = Options::new("http://127.0.0.1:1").answer_within(BACKOFF_FIRST / 4);
        let failure = options.lazily().unwrap().ask(Refused).await.unwrap_err();
        assert!(matches!(failure, Error::Unavailable { .. }), "{failure:?}");
    }

    #[test]
    fn only_what_may_pass_is_put_again() {
        for (status, passing) in [
            (Status::unavailable("starting"), true),
            (Status::internal("a fault"), false),
            (Status::unknown("a fault"), false),
            (Status::resource_exhausted("too many"), false),
            (Status::deadline_exceeded("late"), false),
            (Status::not_found("no such node"), false),
        ] {
            assert_eq!(is_passing(&status), passing, "{status:?}");
        }
    }
}
