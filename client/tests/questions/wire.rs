//! A line to an aggregator that can be cut and frozen.

use std::net::SocketAddr;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How the line is.
#[derive(Debug, Clone, Copy, Default)]
struct Mode {
    /// Nothing is read and nothing written.
    frozen: bool,
    /// How often everything that ran over it was cut.
    cuts: u64,
}

/// A line; connections to it lead to the aggregator.
pub(crate) struct Wire {
    address: SocketAddr,
    mode: watch::Sender<Mode>,
    // Ends with this.
    _running: JoinSet<()>,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, seen) = watch::channel(Mode::default());
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut lines = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let far = TcpStream::connect(target).await.unwrap();
                lines.spawn(line(near, far, seen.clone()));
            }
        });
        Self { address, mode, _running: running }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends every connection there is, in the middle of whatever runs over it.
    pub(crate) fn cut(&self) {
        self.mode.send_modify(|mode| mode.cuts += 1);
    }

    /// From now on nothing is read any more.
    pub(crate) fn freeze(&self) {
        self.mode.send_modify(|mode| mode.frozen = true);
    }

    pub(crate) fn thaw(&self) {
        self.mode.send_modify(|mode| mode.frozen = false);
    }
}

async fn line(mut near: TcpStream, mut far: TcpStream, mut mode: watch::Receiver<Mode>) {
    let cuts = mode.borrow_and_update().cuts;
    let mut flow = std::pin::pin!(copy_bidirectional(&mut near, &mut far));
    loop {
        let now = *mode.borrow_and_update();
        if now.cuts != cuts {
            return;
        }
        tokio::select! {
            ended = &mut flow, if !now.frozen => {
                // However it ended, both ends are gone.
                drop(ended);
                return;
            }
            changed = mode.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}
