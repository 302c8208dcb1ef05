//! Ports at which providers listen, or do not.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use envoy_harness::wait_until;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::history::Name;
use crate::provider::{Scene, serve};

/// A port at which a provider listens, or does not.
pub(crate) struct Port {
    /// The credentials behind it.
    pub(crate) credentials: Vec<Name>,
    pub(crate) address: SocketAddr,
    scene: Scene,
    listening: Option<(JoinHandle<()>, watch::Sender<()>)>,
}

impl Port {
    pub(crate) async fn open(credentials: Vec<Name>, scene: Scene) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let mut port = Self { credentials, address, scene, listening: None };
        port.listen(listener);
        Ok(port)
    }

    /// Refuses connections from now on, and breaks those that there are.
    pub(crate) async fn close(&mut self) {
        if let Some((task, connections)) = self.listening.take() {
            task.abort();
            // Returns when the listener is dropped.
            let _ = task.await;
            drop(connections);
        }
    }

    pub(crate) async fn reopen(&mut self) -> Result<()> {
        // Somebody's connection may have got the port meanwhile.
        let what = "waiting to listen again";
        let bound = async || Ok(TcpListener::bind(self.address).await.ok());
        let listener = wait_until(what, bound).await?;
        self.listen(listener);
        Ok(())
    }

    fn listen(&mut self, listener: TcpListener) {
        let (sender, receiver) = watch::channel(());
        let (scene, credentials) = (self.scene.clone(), self.credentials.clone());
        let port = if credentials.len() == 1 { credentials.first().copied() } else { None };
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (scene, mut closed) = (scene.clone(), receiver.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        // What went wrong on the connection is what its request is judged by.
                        _ = serve(stream, port, &scene) => {}
                        _ = closed.changed() => {}
                    }
                });
            }
        });
        self.listening = Some((task, sender));
    }
}
