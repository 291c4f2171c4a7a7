//! The operator's end of a backup and of a restore.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use daemon::link::{Link, LinkBody};
use http::{Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Append, Appended, Begin, Blob, Finish, Missing, Put, Snapshot, SnapshotEnd, path};
use crate::frame::{Kind, data_frames, frame, json_frame};
use crate::transfer::{
    BlobOctets, Framed, Summary, SummaryQuery, TransferClient, TransferError, post,
};

/// Speaks the backup paths to one back-end.
#[derive(Clone, Debug)]
pub struct BackupClient {
    link: Link,
}

impl BackupClient {
    /// Speaks over `link`.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// The items of an account at one instant.
    ///
    /// # Errors
    /// [`TransferError`] when it did not begin.
    pub async fn snapshot(&self, request: &Snapshot) -> Result<SnapshotItems, TransferError> {
        let framed = within(Framed::open(&self.link, path::SNAPSHOT, request)).await??;
        Ok(SnapshotItems { framed, end: None })
    }

    /// The octets of one blob. Whoever stores them verifies the hash (P9).
    ///
    /// # Errors
    /// [`TransferError`] when it did not begin.
    pub async fn blob(&self, request: &Blob) -> Result<BodyOctets, TransferError> {
        let response = within(self.link.accepted(post(path::BLOB, request))).await??;
        Ok(BodyOctets(BlobOctets(response.into_body())))
    }

    /// Puts one message into a mailbox, its octets piece by piece.
    ///
    /// # Errors
    /// [`TransferError`]; it may have been put when there was no answer.
    pub async fn append(
        &self,
        request: &Append,
        octets: impl AsyncFnMut() -> io::Result<Option<Bytes>>,
    ) -> Result<Appended, TransferError> {
        self.upload(path::APPEND, request, octets).await
    }

    /// What the back-end holds of an account.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn summary(&self, account: &SummaryQuery) -> Result<Summary, TransferError> {
        TransferClient::new(self.link.clone())
            .summary(account)
            .await
    }

    /// Begins to restore an account whole. What an earlier restore of it has left that named another backup goes.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn begin(&self, request: &Begin) -> Result<(), TransferError> {
        self.step(path::BEGIN, request).await
    }

    /// Which of these blobs the volume has not.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn missing(&self, request: &Missing) -> Result<Missing, TransferError> {
        self.step(path::MISSING, request).await
    }

    /// Gives a blob to a volume that is being restored.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn put(
        &self,
        request: &Put,
        octets: impl AsyncFnMut() -> io::Result<Option<Bytes>>,
    ) -> Result<(), TransferError> {
        self.upload(path::PUT, request, octets).await
    }

    /// Gives some hundred items, whose blobs are there.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn items(&self, request: &Begin, items: &[Bytes]) -> Result<(), TransferError> {
        let mut body = json_frame(Kind::Open, request).to_vec();
        for item in items {
            body.extend_from_slice(&frame(Kind::Item, item));
        }
        body.extend_from_slice(&frame(Kind::End, b""));
        let request = request_of(path::ITEMS, LinkBody::full(body));
        Ok(within(self.link.answer(request)).await??)
    }

    /// Opens a restored account.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn finish(&self, request: &Finish) -> Result<(), TransferError> {
        self.step(path::FINISH, request).await
    }

    async fn step<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<A, TransferError> {
        let answer = self.link.json(Method::POST, path, request, DEADLINE);
        Ok(answer.await?)
    }

    async fn upload<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        open: &Q,
        mut octets: impl AsyncFnMut() -> io::Result<Option<Bytes>>,
    ) -> Result<A, TransferError> {
        let (sender, body) = LinkBody::channel(WINDOW_PIECES);
        let open = json_frame(Kind::Open, open);
        let feed = async move {
            sender.send(open).await.map_err(|_| TransferError::Cut)?;
            while let Some(piece) = octets().await.map_err(|_| TransferError::Cut)? {
                for part in data_frames(piece) {
                    sender.send(part).await.map_err(|_| TransferError::Cut)?;
                }
            }
            let end = frame(Kind::End, b"");
            sender.send(end).await.map_err(|_| TransferError::Cut)?;
            sender.finish();
            Ok::<_, TransferError>(())
        };
        // A refusal may come before all was sent, and says more than that the other side took no more.
        let request = request_of(path, body);
        let (fed, answer) = within(async { tokio::join!(feed, self.link.answer(request)) }).await?;
        match answer {
            Ok(answer) => fed.map(|()| answer),
            Err(error) => Err(error.into()),
        }
    }
}

/// The octets of a body as they arrive. Whoever stores them verifies the hash (P9).
#[derive(Debug)]
pub struct BodyOctets(BlobOctets);

impl BodyOctets {
    /// The next octets, or `None` at the end.
    ///
    /// # Errors
    /// `Cut`: the body is longer than what came, or nothing came for too long.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        within(self.0.next()).await?
    }
}

/// The canonical items of an account, in canonical order.
#[derive(Debug)]
pub struct SnapshotItems {
    framed: Framed,
    end: Option<SnapshotEnd>,
}

impl SnapshotItems {
    /// The next item, or `None` after the last; then [`Self::end`] says what they were.
    ///
    /// # Errors
    /// `Cut`: there are more items than came.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        match within(self.framed.next_of(&[Kind::Item, Kind::Commit])).await?? {
            Some((Kind::Item, item)) => Ok(Some(item)),
            Some((_, json)) => {
                self.end = serde_json::from_slice(&json).map_err(|_| TransferError::Cut)?;
                Ok(None)
            }
            None => Err(TransferError::Cut),
        }
    }

    /// What came; `None` before the last item.
    #[must_use]
    pub fn end(&self) -> Option<SnapshotEnd> {
        self.end
    }
}

fn request_of(path: &str, body: LinkBody) -> Request<LinkBody> {
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .body(body)
        .expect("the path is a constant")
}

/// The other side says nothing, or takes nothing, for so long: it is gone.
async fn within<T>(work: impl Future<Output = T>) -> Result<T, TransferError> {
    timeout(DEADLINE, work)
        .await
        .map_err(|_| TransferError::Cut)
}

/// A set-hash reads the account's whole index; the largest message takes less on any line that mail is backed up over.
const DEADLINE: Duration = Duration::from_secs(300);
/// Pieces that wait to be sent.
const WINDOW_PIECES: usize = 4;
