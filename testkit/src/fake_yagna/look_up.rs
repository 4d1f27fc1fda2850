//! A look-up: the daemon asks the relay where an identity is.
//!
//! Owns how long that takes over a bad link and the daemon's words for every failure.

use tokio::time::sleep;

use super::core::Core;
use super::link::LOOK_UP_ATTEMPTS;
use super::registry::Registration;

const NOT_FOUND: &str = "Request failed: Request failed with code 404";
const RELAY_SILENT: &str = "Request failed: Request timed out after 3000 ms";
const REFUSED: &str = "Network error: Request failed: Request failed with code 400";

/// Asks the relay where an identity is: its newest session, or the daemon's words for why not.
pub(crate) async fn look_up(core: &Core, id: &str) -> Result<Registration, String> {
    core.lock().relay_queries += 1;
    if let Some(down) = core.world.relay_down_for() {
        sleep(core.limits.relay_down).await;
        let lost = down > core.world.timing().session_lost_after;
        return Err(format!("{}{RELAY_SILENT}", if lost { "Network error: " } else { "" }));
    }
    if !reaches_relay(core, id).await {
        return Err(RELAY_SILENT.to_owned());
    }
    sleep(core.limits.look_up).await;
    let (refused, blind) = {
        let memory = core.lock();
        (memory.relay_refuses, memory.blind_until > core.world.now())
    };
    if refused {
        return Err(REFUSED.to_owned());
    }
    let (mut sessions, _) = core.world.registrations(id);
    let newest = sessions.pop().filter(|_| !blind);
    newest.ok_or_else(|| NOT_FOUND.to_owned())
}

/// Waits as long as a query to the relay waits over a bad link, and tells whether it got through.
async fn reaches_relay(core: &Core, id: &str) -> bool {
    let link = core.world.relay_link().then(core.world.link_of(&core.identity));
    if link.loss > 0.0 {
        let sent = link.look_up([(); LOOK_UP_ATTEMPTS].map(|()| core.chance(id)));
        let waited = sent.map_or(1.0, |times| f64::from(times) / LOOK_UP_ATTEMPTS as f64);
        sleep(core.limits.relay_down.mul_f64(waited)).await;
        if sent.is_none() {
            return false;
        }
    }
    sleep(link.delay * 2).await;
    true
}
