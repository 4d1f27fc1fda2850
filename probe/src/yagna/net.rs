//! Asking the network: through the daemon's bridge to its bus, and who the daemon is.
//!
//! Owns `FindNode`, `Sessions`, `/me` and `/version/get`, and noticing that a daemon has no
//! bridge, in which case the command line is asked instead (`command.rs`). Refuses to judge ages:
//! that a node is known to the relay is no proof of life, only the age of `seen` tells.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use uptime_proto::NodeId;

use super::answers::{self, Route, Taken};
use super::client::Yagna;
use super::fault::{CouldNotLook, clean, malformed};
use super::http::{self, Question};
use super::outcome::Found;

impl Yagna {
    /// Asks the relay for a node. Waits for its turn first, see [`super::Limits`]; the time limit
    /// begins with its turn.
    ///
    /// # Errors
    /// When the relay was not asked or did not answer.
    pub async fn find_node(&self, id: NodeId) -> Result<Found, CouldNotLook> {
        let _permit = self.inner.finds.take().await?;
        self.inner.find_limiter.wait().await;
        let body = json!({ "nodeId": id.to_string() });
        let question = Question::post(Route::FindNode, "/_gsb/local/net/FindNode", &body);
        match self.ask_bus(Route::FindNode, question, parse_found).await? {
            Some(found) => Ok(found),
            None => self.find_by_command(id).await,
        }
    }

    /// How long the daemon has had its session with the relay; `None`: it has none.
    ///
    /// # Errors
    /// When the daemon could not be asked.
    pub async fn relay_session_age(&self) -> Result<Option<Duration>, CouldNotLook> {
        let question = Question::post(Route::Sessions, "/_gsb/local/net/Sessions", &json!({}));
        let question = question.at_most(http::SESSIONS_BYTES_MAX);
        match self.ask_bus(Route::Sessions, question, parse_relay_session).await? {
            Some(age) => Ok(age),
            None => self.relay_session_age_by_command().await,
        }
    }

    /// The identity that the application key belongs to. The quickest way to see that daemon and
    /// key are there.
    ///
    /// # Errors
    /// When the daemon could not be asked; [`uptime_proto::Reason::Unauthorised`] when the key is
    /// wrong.
    pub async fn identity(&self) -> Result<NodeId, CouldNotLook> {
        let limit = self.inner.limits.answer_timeout;
        let answer =
            self.inner.http.ask(Question::get(Route::Me, "/me"), limit, parse_identity).await;
        answer.map(|(identity, _)| identity)
    }

    /// The daemon's version, such as `0.17.6`.
    ///
    /// # Errors
    /// When the daemon could not be asked.
    pub async fn version(&self) -> Result<String, CouldNotLook> {
        let limit = self.inner.limits.answer_timeout;
        let question = Question::get(Route::Version, "/version/get");
        let answer = self.inner.http.ask(question, limit, parse_version).await;
        answer.map(|(version, _)| version)
    }

    /// `None`: the daemon has no bridge.
    async fn ask_bus<T>(
        &self,
        route: Route,
        question: Question<'_>,
        parse: impl FnOnce(u16, &[u8]) -> Result<T, CouldNotLook>,
    ) -> Result<Option<T>, CouldNotLook> {
        let inner = &self.inner;
        if inner.bridge.is_absent(&inner.http) {
            return Ok(None);
        }
        let parse = |status, body: &[u8]| match answers::read(route, status, body) {
            Ok(Taken::Absent) => Ok(None),
            _ => parse(status, body).map(Some),
        };
        let limit = inner.limits.answer_timeout;
        let (answer, _) = inner.http.ask(question, limit, parse).await?;
        if answer.is_none() {
            inner.bridge.found_absent(&inner.http);
        }
        Ok(answer)
    }
}

/// The bus's own answer, where the table says that it is one.
pub(super) fn parse_bus<T: DeserializeOwned>(
    route: Route,
    status: u16,
    body: &[u8],
) -> Result<T, CouldNotLook> {
    #[derive(Deserialize)]
    struct Bus<T> {
        #[serde(rename = "Ok")]
        answer: T,
    }
    let body = answers::answer(route, status, body)?;
    let bus: Bus<T> = serde_json::from_slice(body).map_err(malformed)?;
    Ok(bus.answer)
}

pub(super) fn parse_found(status: u16, body: &[u8]) -> Result<Found, CouldNotLook> {
    #[derive(Deserialize)]
    struct Node {
        seen: i64,
        #[serde(default)]
        identities: Vec<String>,
    }
    if answers::read(Route::FindNode, status, body)? == Taken::NotKnown {
        return Ok(Found::NotKnown);
    }
    let node: Node = parse_bus(Route::FindNode, status, body)?;
    Ok(Found::Known {
        seen_unix_s: node.seen,
        identities: node.identities.iter().filter_map(|id| id.parse().ok()).collect(),
    })
}

pub(super) fn parse_relay_session(
    status: u16,
    body: &[u8],
) -> Result<Option<Duration>, CouldNotLook> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Session {
        session_type: String,
        duration: Option<Duration>,
    }
    let sessions: Vec<Session> = parse_bus(Route::Sessions, status, body)?;
    // Should there be two for a moment, the younger one is what counts.
    let relays = sessions.into_iter().filter(|session| session.session_type == "relay");
    let ages: Option<Vec<Duration>> = relays.map(|session| session.duration).collect();
    match ages {
        Some(ages) => Ok(ages.into_iter().min()),
        None => Err(malformed("a relay session without its duration")),
    }
}

pub(super) fn parse_identity(status: u16, body: &[u8]) -> Result<NodeId, CouldNotLook> {
    #[derive(Deserialize)]
    struct Me {
        identity: String,
    }
    let body = answers::answer(Route::Me, status, body)?;
    let me: Me = serde_json::from_slice(body).map_err(malformed)?;
    me.identity.parse().map_err(malformed)
}

pub(super) fn parse_version(status: u16, body: &[u8]) -> Result<String, CouldNotLook> {
    #[derive(Deserialize)]
    struct Versions {
        current: Version,
    }
    #[derive(Deserialize)]
    struct Version {
        version: String,
    }
    let body = answers::answer(Route::Version, status, body)?;
    let versions: Versions = serde_json::from_slice(body).map_err(malformed)?;
    Ok(clean(&versions.current.version, 64))
}
