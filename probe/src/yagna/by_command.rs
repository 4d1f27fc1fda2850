//! Look-ups through the command line, as methods of the handle.

use std::time::Duration;

use uptime_proto::{NodeId, Reason};

use super::answers::Route;
use super::client::Yagna;
use super::command::{Ended, SESSIONS_BYTES_MAX, parse_find, parse_sessions};
use super::fault::CouldNotLook;
use super::outcome::Found;

impl Yagna {
    pub(super) async fn find_by_command(&self, id: NodeId) -> Result<Found, CouldNotLook> {
        let id = id.to_string();
        self.run(Route::CommandFind, "net find", &["net", "find", &id, "--json"], 0, parse_find)
            .await
    }

    pub(super) async fn relay_session_age_by_command(
        &self,
    ) -> Result<Option<Duration>, CouldNotLook> {
        let arguments = ["net", "sessions", "--json"];
        self.run(
            Route::CommandSessions,
            "net sessions",
            &arguments,
            SESSIONS_BYTES_MAX,
            parse_sessions,
        )
        .await
    }

    /// Runs the program. Each output is limited to `bytes_max`, or to the option if that is larger.
    async fn run<T>(
        &self,
        route: Route,
        what: &str,
        arguments: &[&str],
        bytes_max: usize,
        parse: impl FnOnce(&Ended) -> Result<T, CouldNotLook>,
    ) -> Result<T, CouldNotLook> {
        let Some(command) = &self.command else {
            let detail = "this yagna has no bridge to its bus (/_gsb); set --yagna-command to \
                look nodes up through its command line";
            return Err(CouldNotLook::new(Reason::NetError, detail));
        };
        let ended = command.run(arguments, bytes_max).await;
        let parsed = ended.and_then(|ended| {
            let note = |_: &_| self.inner.http.note_strange(route, ended.status(), &ended.words());
            parse(&ended).inspect_err(note)
        });
        parsed.map_err(|fault| self.inner.http.failed(&format!("yagna {what}"), fault))
    }
}
