//! Requests with one answer.
//!
//! Owns what a typed answer is: a value and how fresh it is, or a failure that says what to do.

use futures_util::stream::{self, BoxStream};
use tokio::time::timeout;
use uptime_proto::NodeId;
use uptime_proto::v1::{self, NodeOrder};

use crate::connect::Client;
use crate::error::Error;
use crate::retry::Question;

/// An answer and how fresh it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// Round, method and time of the answer.
    pub freshness: v1::Freshness,
}

/// One page of a listing of nodes.
#[derive(Debug, Clone, PartialEq)]
pub struct Nodes {
    /// The nodes of this page, in the order asked for.
    pub nodes: Vec<v1::Node>,
    /// How many nodes there are on all pages together.
    pub total: u64,
}

/// The order of a listing; by id unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Order {
    /// The sort key.
    pub by: NodeOrder,
    /// The greatest first.
    pub descending: bool,
}

impl Client {
    /// One node.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it was never seen or is not confirmed.
    pub async fn node(&self, id: &NodeId) -> Result<Answer<v1::Node>, Error> {
        self.node_of(id, 0).await
    }

    /// One node as it was when the round that starts then was closed: what is known now of the
    /// rounds up to it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it was never seen or is not confirmed, or was not by then;
    /// [`Error::Refused`] if there is no such round or it is no longer known by itself.
    pub async fn node_at(&self, id: &NodeId, round_unix_s: u64) -> Result<Answer<v1::Node>, Error> {
        self.node_of(id, round_unix_s).await
    }

    async fn node_of(&self, id: &NodeId, round_unix_s: u64) -> Result<Answer<v1::Node>, Error> {
        let answer = self.ask(v1::GetNodeRequest { id: id.to_string(), round_unix_s }).await?;
        let value = answer.node.ok_or_else(|| self.malformed("it has no node"))?;
        Ok(Answer { value, freshness: self.freshness(answer.freshness)? })
    }

    /// Who saw what of a node in the round that starts then (`None`: in the last closed one), and
    /// the rule that decided.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the node was never seen, [`Error::Refused`] if there is no such
    /// round or it is no longer kept in such detail.
    pub async fn explain(
        &self,
        id: &NodeId,
        round_unix_s: Option<u64>,
    ) -> Result<Answer<v1::ExplainResponse>, Error> {
        let round_unix_s = round_unix_s.unwrap_or(0);
        let request = v1::ExplainRequest { id: id.to_string(), round_unix_s };
        let mut value = self.ask(request).await?;
        let freshness = self.freshness(value.freshness.take())?;
        Ok(Answer { value, freshness })
    }

    /// The network in a few numbers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn summary(&self) -> Result<Answer<v1::GetSummaryResponse>, Error> {
        let mut value = self.ask(v1::GetSummaryRequest {}).await?;
        let freshness = self.freshness(value.freshness.take())?;
        Ok(Answer { value, freshness })
    }

    /// The probes and their state.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn probes(&self) -> Result<Answer<Vec<v1::Probe>>, Error> {
        let answer = self.ask(v1::ListProbesRequest {}).await?;
        Ok(Answer { value: answer.probes, freshness: self.freshness(answer.freshness)? })
    }

    /// The canonical CSV, piece by piece, exactly as the aggregator writes it to its file. Whole
    /// only when the stream ends without an error.
    ///
    /// # Errors
    /// When there is no answer. Within the stream, when it broke off.
    pub async fn csv(&self) -> Result<Answer<BoxStream<'static, Result<Vec<u8>, Error>>>, Error> {
        let (first, pieces) = self.ask(v1::ExportCsvRequest {}).await?;
        let first = first.ok_or_else(|| self.malformed("it is empty"))?;
        let freshness = self.freshness(first.freshness)?;
        let begin = (self.clone(), Some(Vec::from(first.data)), pieces, 0);
        let rest = stream::try_unfold(begin, |(client, mut first, mut pieces, seen)| async move {
            let call = v1::ExportCsvRequest::CALL;
            let piece = match first.take() {
                Some(data) => data,
                None => match timeout(client.bounds.answer_within, pieces.message()).await {
                    Ok(Ok(None)) => return Ok(None),
                    Ok(Ok(Some(piece))) => Vec::from(piece.data),
                    Ok(Err(status)) => return Err(client.failure(call, &status)),
                    Err(_) => return Err(client.timed_out(call)),
                },
            };
            let seen = piece.len() as u64 + seen;
            let limit = client.bounds.csv_bytes_max;
            if seen > limit {
                return Err(client.endless(call, limit, "bytes"));
            }
            Ok(Some((piece, (client, None, pieces, seen))))
        });
        Ok(Answer { value: Box::pin(rest), freshness })
    }

    pub(crate) fn freshness(&self, wire: Option<v1::Freshness>) -> Result<v1::Freshness, Error> {
        wire.ok_or_else(|| self.malformed("it does not say how fresh it is"))
    }
}
