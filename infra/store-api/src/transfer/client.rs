//! The caller's end of a move: the migrator's steps, and what a target asks of a source.

use std::time::Duration;

use bytes::Bytes;
use daemon::link::{CallError, Link, LinkBody, Problem, next_data};
use http::{Method, Request};
use hyper::body::Incoming;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Activate, Blob, BlockName, Export, Freeze, Offer, Pull, PullProgress, PullStopped, Release,
    Summary, SummaryQuery, SumsHead, SumsQuery, Undo, path,
};
use crate::frame::{Decoder, Event, Kind};

/// Why a step of a move was not done, as far as the caller can know.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// No answer came: the step may or may not have been done. Say it again.
    #[error("back-end cannot be reached")]
    Away(#[source] CallError),
    /// The back-end refused; nothing was changed.
    #[error("back-end refused: {0}")]
    Refused(Problem),
    /// The target stopped, and says why.
    #[error("target stopped: {0}")]
    Stopped(String),
    /// The stream stopped before its end, or carried what version 1 does not know.
    #[error("stream from the back-end was cut")]
    Cut,
}

impl From<CallError> for TransferError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(problem) => Self::Refused(problem),
            error => Self::Away(error),
        }
    }
}

/// Speaks the transfer paths to one back-end.
#[derive(Clone, Debug)]
pub struct TransferClient {
    link: Link,
}

/// A step is a journal record and its sync; a set-hash reads the account's whole index.
const STEP_DEADLINE: Duration = Duration::from_secs(60);

impl TransferClient {
    /// Speaks over `link`.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self { link }
    }

    /// Lets the target read the account at its source, which serves on. Repeatable.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn offer(&self, request: &Offer) -> Result<Summary, TransferError> {
        self.step(path::OFFER, request).await
    }

    /// Stops writers and sessions of the account at its source. Durable when it returns; repeatable.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn freeze(&self, request: &Freeze) -> Result<Summary, TransferError> {
        self.step(path::FREEZE, request).await
    }

    /// Undoes a freeze, before the commit point. Repeatable.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn thaw(&self, request: &Undo) -> Result<Summary, TransferError> {
        self.step(path::THAW, request).await
    }

    /// Throws an import away, before the commit point. Repeatable.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn discard(&self, request: &Undo) -> Result<Summary, TransferError> {
        self.step(path::DISCARD, request).await
    }

    /// What the back-end holds of an account.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn summary(&self, request: &SummaryQuery) -> Result<Summary, TransferError> {
        self.step(path::SUMMARY, request).await
    }

    /// Opens the account at its target, after the commit point. Durable when it returns; repeatable.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn activate(&self, request: &Activate) -> Result<Summary, TransferError> {
        self.step(path::ACTIVATE, request).await
    }

    /// Makes the source answer `moved`, after the commit point. Durable when it returns; repeatable.
    ///
    /// # Errors
    /// [`TransferError`].
    pub async fn release(&self, request: &Release) -> Result<Summary, TransferError> {
        self.step(path::RELEASE, request).await
    }

    /// Has the target fetch the account from its source.
    ///
    /// # Errors
    /// [`TransferError`] when it did not begin.
    pub async fn pull(&self, request: &Pull) -> Result<PullEvents, TransferError> {
        Ok(PullEvents(self.stream(path::PULL, request).await?))
    }

    /// The sums of an account's blocks, from its source.
    ///
    /// # Errors
    /// [`TransferError`] when it did not begin.
    pub async fn sums(&self, request: &SumsQuery) -> Result<SumsOf, TransferError> {
        Ok(SumsOf(self.stream(path::SUMS, request).await?))
    }

    /// The canonical items of some blocks of an account, from its source.
    ///
    /// # Errors
    /// [`TransferError`] when it did not begin.
    pub async fn export(&self, request: &Export) -> Result<Items, TransferError> {
        Ok(Items(self.stream(path::EXPORT, request).await?))
    }

    /// The octets of one blob, from a source.
    ///
    /// # Errors
    /// [`TransferError`] when it did not begin.
    pub async fn blob(&self, request: &Blob) -> Result<BlobOctets, TransferError> {
        let response = self.link.accepted(post(path::BLOB, request)).await?;
        Ok(BlobOctets(response.into_body()))
    }

    async fn step<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        request: &Q,
    ) -> Result<A, TransferError> {
        Ok(self
            .link
            .json(Method::POST, path, request, STEP_DEADLINE)
            .await?)
    }

    async fn stream<Q: Serialize>(&self, path: &str, request: &Q) -> Result<Framed, TransferError> {
        Framed::open(&self.link, path, request).await
    }
}

pub(crate) fn post<Q: Serialize>(path: &str, request: &Q) -> Request<LinkBody> {
    let json = serde_json::to_vec(request).expect("our request types have string keys only");
    Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(LinkBody::full(json))
        .expect("the path is a constant")
}

/// A framed answer without data frames.
#[derive(Debug)]
pub(crate) struct Framed {
    body: Incoming,
    decoder: Decoder,
}

impl Framed {
    pub(crate) async fn open<Q: Serialize>(
        link: &Link,
        path: &str,
        request: &Q,
    ) -> Result<Self, TransferError> {
        let response = link.accepted(post(path, request)).await?;
        Ok(Self {
            body: response.into_body(),
            decoder: Decoder::default(),
        })
    }

    /// The next frame of kind `wanted`, or `None` after `End`.
    async fn next(&mut self, wanted: Kind) -> Result<Option<Bytes>, TransferError> {
        let next = self.next_of(&[wanted]).await?;
        Ok(next.map(|(_, payload)| payload))
    }

    /// The next frame of one of these kinds, or `None` after `End`.
    pub(crate) async fn next_of(
        &mut self,
        wanted: &[Kind],
    ) -> Result<Option<(Kind, Bytes)>, TransferError> {
        loop {
            match self.decoder.next() {
                Ok(Some(Event::Control(kind, payload))) if wanted.contains(&kind) => {
                    return Ok(Some((kind, payload)));
                }
                Ok(Some(Event::Control(Kind::End, _))) => return Ok(None),
                Ok(Some(_)) | Err(_) => return Err(TransferError::Cut),
                Ok(None) => match next_data(&mut self.body).await {
                    Ok(Some(piece)) => self.decoder.push(piece),
                    Ok(None) | Err(_) => return Err(TransferError::Cut),
                },
            }
        }
    }
}

/// The progress of a pull.
#[derive(Debug)]
pub struct PullEvents(Framed);

impl PullEvents {
    /// The next report, or `None` when the target has ended the stream after one with `done`.
    ///
    /// # Errors
    /// `Stopped` or `Cut`: the pull stopped part-way; it may be asked again and goes on.
    pub async fn next(&mut self) -> Result<Option<PullProgress>, TransferError> {
        match self.0.next_of(&[Kind::Progress, Kind::Stopped]).await? {
            Some((Kind::Stopped, json)) => {
                let PullStopped { why } = of_json(&json)?;
                Err(TransferError::Stopped(why))
            }
            Some((_, json)) => of_json(&json).map(Some),
            None => Ok(None),
        }
    }
}

fn of_json<T: DeserializeOwned>(json: &Bytes) -> Result<T, TransferError> {
    serde_json::from_slice(json).map_err(|_| TransferError::Cut)
}

/// The sums of an account's blocks, growing by the blocks' names.
#[derive(Debug)]
pub struct SumsOf(Framed);

impl SumsOf {
    /// What the account has; the first thing to be asked.
    ///
    /// # Errors
    /// `Cut`.
    pub async fn head(&mut self) -> Result<SumsHead, TransferError> {
        let head = self.0.next(Kind::Open).await?;
        of_json(&head.ok_or(TransferError::Cut)?)
    }

    /// The next sums, or `None` after the last.
    ///
    /// # Errors
    /// `Cut`: there are more than came.
    pub async fn next(&mut self) -> Result<Option<Vec<(BlockName, [u8; 32])>>, TransferError> {
        let Some(octets) = self.0.next(Kind::Sums).await? else {
            return Ok(None);
        };
        let mut sums = Vec::with_capacity(octets.len() / SUM_OCTETS);
        for one in octets.chunks(SUM_OCTETS) {
            let (name, sum) = one.split_first_chunk::<9>().ok_or(TransferError::Cut)?;
            let sum = sum.try_into().map_err(|_| TransferError::Cut)?;
            sums.push((BlockName(*name), sum));
        }
        Ok(Some(sums))
    }
}

/// A name and a sum.
const SUM_OCTETS: usize = 9 + 32;

/// The canonical items of some blocks, in their order.
#[derive(Debug)]
pub struct Items(Framed);

impl Items {
    /// The next item, or `None` after the last.
    ///
    /// # Errors
    /// `Cut`: there are more items than came.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        self.0.next(Kind::Item).await
    }
}

/// The octets of a blob as they arrive. Whoever stores them verifies the hash (P9).
#[derive(Debug)]
pub struct BlobOctets(pub(crate) Incoming);

impl BlobOctets {
    /// The next octets, or `None` at the end.
    ///
    /// # Errors
    /// `Cut`: the blob is longer than what came.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransferError> {
        next_data(&mut self.0).await.map_err(|_| TransferError::Cut)
    }
}
