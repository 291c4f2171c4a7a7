//! The running tiers, as tasks of this process or as processes of their own: watched and drained alike.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use daemon::shutdown::Shutdown;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout_at};

use super::UpError;
use super::children;
use super::deployment::{Deployment, NodeConfig};
use crate::nodes::Node;

/// Process ids by node; grows and changes as processes start.
pub(super) type Pids = BTreeMap<Node, u32>;

/// Every tier, running.
pub(super) struct Tiers {
    running: JoinSet<Result<(), UpError>>,
    /// Which task is which node; those that have ended are taken out.
    nodes: BTreeMap<Node, (Id, Shutdown)>,
    pids: watch::Receiver<Pids>,
    started: Arc<AtomicBool>,
}

impl Tiers {
    /// Starts every tier as a task of this process.
    pub(super) fn tasks(deployment: Deployment) -> Self {
        let own = Node::ALL.map(|node| (node, std::process::id()));
        let (_, pids) = watch::channel(Pids::from(own));
        let mut tiers = Self::none(pids);
        for config in deployment.configs {
            let node = config.node();
            tiers.start(node, |stop| async move {
                run(config, stop)
                    .await
                    .map_err(|source| UpError::Tier { node, source })
            });
        }
        tiers
    }

    /// Starts every tier as a child process.
    pub(super) fn processes(deployment: &Deployment) -> Self {
        let (publish, pids) = watch::channel(Pids::new());
        let mut tiers = Self::none(pids);
        for config in &deployment.configs {
            let node = config.node();
            let child = children::Child {
                node,
                file: deployment.file(node),
                pids: publish.clone(),
                started: Arc::clone(&tiers.started),
            };
            tiers.start(node, |stop| child.supervise(stop));
        }
        tiers
    }

    fn none(pids: watch::Receiver<Pids>) -> Self {
        Self {
            running: JoinSet::new(),
            nodes: BTreeMap::new(),
            pids,
            started: Arc::default(),
        }
    }

    fn start<F>(&mut self, node: Node, run: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = Result<(), UpError>> + Send + 'static,
    {
        let stop = Shutdown::new();
        let task = self.running.spawn(run(stop.clone()));
        self.nodes.insert(node, (task.id(), stop));
    }

    /// Set it once the system was ready: from then on a process that gives up is started again.
    pub(super) fn started(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.started)
    }

    /// The process ids, to read and to follow.
    pub(super) fn pids(&self) -> watch::Receiver<Pids> {
        self.pids.clone()
    }

    /// Waits until a tier ends though nobody asked it to. Safe in `select!`.
    pub(super) async fn ended(&mut self) -> UpError {
        let Some((node, result)) = self.next().await else {
            return std::future::pending().await;
        };
        result.err().unwrap_or(UpError::Ended { node })
    }

    /// Ends all tiers, group by group; gives the names of those that were still busy after `within`.
    pub(super) async fn drain(mut self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        for group in Node::DRAIN_ORDER {
            for node in group {
                if let Some((_, stop)) = self.nodes.get(node) {
                    stop.begin();
                }
            }
            while group.iter().any(|node| self.nodes.contains_key(node)) {
                let Ok(ended) = timeout_at(deadline, self.next()).await else {
                    let left: Vec<&str> = self.nodes.keys().map(|node| node.name()).collect();
                    return Err(left.join(", "));
                };
                if let Some((node, Err(error))) = ended {
                    tracing::warn!(%node, cause = %error, "did not end cleanly");
                }
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Option<(Node, Result<(), UpError>)> {
        let ended = self.running.join_next_with_id().await?;
        let (id, result) = match ended {
            Ok((id, result)) => (id, Some(result)),
            Err(panicked) => (panicked.id(), None),
        };
        let node = self
            .nodes
            .iter()
            .find(|(_, (task, _))| *task == id)
            .map(|(node, _)| *node)?;
        self.nodes.remove(&node);
        Some((node, result.unwrap_or(Err(UpError::Ended { node }))))
    }
}

type Running = Pin<Box<dyn Future<Output = Result<(), Box<dyn StdError + Send + Sync>>> + Send>>;

fn run(config: NodeConfig, stop: Shutdown) -> Running {
    Box::pin(async move {
        let drain = stop.clone();
        let result = match config {
            NodeConfig::Directory(config) => {
                directory::run(*config, stop).await.map_err(Into::into)
            }
            NodeConfig::Mx(config) => mx_frontend::run(*config, stop).await.map_err(Into::into),
            NodeConfig::Proxy(config) => {
                pop_imap_proxy::run(*config, stop).await.map_err(Into::into)
            }
            NodeConfig::Backend(_, config) => {
                store_backend::run(*config, stop).await.map_err(Into::into)
            }
        };
        // The caller bounds this wait.
        drain.begin();
        drain.drained(Duration::MAX).await;
        result
    })
}
