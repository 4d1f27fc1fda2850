//! Notifications to systemd.
//!
//! Owns the socket. Never blocks: a service manager that does not read must not stop the probe, so
//! a message that does not fit is dropped. All but the last one are repeated anyway.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// The notification socket, if there is one.
#[derive(Debug)]
pub(crate) struct Systemd {
    socket: Option<(UnixDatagram, SocketAddr)>,
}

impl Systemd {
    /// The socket that systemd gave this process. Without one, notifications do nothing.
    pub(crate) fn of_this_process() -> Self {
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty());
        let socket = address.and_then(|address| {
            open(&address)
                .inspect_err(|error| {
                    tracing::warn!(%error, ?address, "cannot open the socket of systemd");
                })
                .ok()
        });
        Self { socket }
    }

    /// Sends these states in one message.
    pub(crate) fn tell(&self, states: &[NotifyState<'_>]) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        let text: String = states.iter().map(|state| format!("{state}\n")).collect();
        match socket.send_to_addr(text.as_bytes(), address) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tracing::debug!("systemd does not read its notification socket");
            }
            Err(error) => tracing::warn!(%error, "cannot notify systemd"),
        }
    }
}

fn open(address: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes() {
        // An abstract socket: its name is not in the file system.
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
    fn a_full_socket_does_not_block() {
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
    fn an_abstract_socket() {
        let name = format!("uptime-probe-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        let systemd = Systemd { socket: Some(open(format!("@{name}").as_ref()).unwrap()) };
        systemd.tell(&[NotifyState::Watchdog]);
        assert_eq!(heard(&socket), "WATCHDOG=1\n");
    }
}
