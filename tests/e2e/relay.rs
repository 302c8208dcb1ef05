//! A port in front of a provider that can be closed and opened again.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// A port, not yet in front of anything.
pub(crate) struct Relay {
    listener: TcpListener,
    address: SocketAddr,
}

/// An open port. It closes with this value.
pub(crate) struct OpenRelay {
    address: SocketAddr,
    target: SocketAddr,
    task: JoinHandle<()>,
}

/// A port that refuses connections.
pub(crate) struct ClosedRelay {
    port: ClosedPort,
    target: SocketAddr,
}

/// A port of loopback at which nothing listens. While the value lives, nobody gets it by chance: its
/// socket is bound, and lets those bind it who name it.
pub(crate) struct ClosedPort(TcpSocket);

impl ClosedPort {
    pub(crate) fn new() -> Result<Self> {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    fn at(address: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self(socket))
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.0.local_addr()?)
    }
}

impl Relay {
    pub(crate) async fn listen() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn open(self, target: SocketAddr) -> OpenRelay {
        let Self { listener, address } = self;
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    let mut server = TcpStream::connect(target).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
        OpenRelay { address, target, task }
    }
}

impl OpenRelay {
    /// Closes the port and its connections.
    pub(crate) async fn close(mut self) -> Result<ClosedRelay> {
        self.task.abort();
        let _ = (&mut self.task).await;
        Ok(ClosedRelay { port: ClosedPort::at(self.address)?, target: self.target })
    }
}

impl Drop for OpenRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl ClosedRelay {
    pub(crate) fn open_again(self) -> Result<OpenRelay> {
        let address = self.port.address()?;
        let listener = self.port.0.listen(1024)?;
        Ok(Relay { listener, address }.open(self.target))
    }
}
