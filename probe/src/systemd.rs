//! Telling the service manager how things stand.
//!
//! Owns the socket. Refuses to wait: a manager that does not read must not stop the probe it was
//! meant to watch over, so what it has no room for is not said. Everything but the end is said
//! again before long.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// Whom to tell, if there is anybody.
#[derive(Debug)]
pub(crate) struct Systemd {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Systemd {
    /// The manager that this process was started by; without one nothing is told, and that is fine.
    pub(crate) fn of_this_process() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| {
            open(&address)
                .inspect_err(|error| {
                    tracing::warn!(%error, ?address, "the service manager cannot be told anything");
                })
                .ok()
        });
        Self { socket }
    }

    /// Says this, all at once.
    pub(crate) fn tell(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        match socket.send_to_addr(text.as_bytes(), address) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::debug!("the service manager does not listen now");
            }
            Err(error) => tracing::warn!(%error, "the service manager was not told"),
        }
    }
}

fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        // What Linux calls abstract: a name that is in no directory.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let systemd = Systemd { socket: Some(open(path.as_os_str()).unwrap()) };
        // Far more than any queue holds.
        for number in 0..10_000 {
            systemd.tell(&[NotifyState::Ready, NotifyState::Status(&number.to_string())]);
        }
        assert_eq!(heard(&socket), "READY=1\nSTATUS=0\n");
        systemd.tell(&[NotifyState::Stopping]);
        drop(socket);
        systemd.tell(&[NotifyState::Watchdog]);
    }

    #[test]
    fn a_name_that_is_in_no_directory() {
        let name = format!("uptime-probe-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let systemd = Systemd { socket: Some(open(format!("@{name}").as_ref()).unwrap()) };
        systemd.tell(&[NotifyState::Watchdog]);
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
    }
}
