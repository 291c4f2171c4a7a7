//! The front-end's end of one delivery stream.

use std::time::Duration;

use bytes::Bytes;
use daemon::link::{BodySender, CallError, Link, LinkBody, Problem};
use http::{Method, Request, StatusCode};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use super::{DeliverCommit, DeliverOpen, DeliverReply, PATH};
use crate::frame::{Kind, data_frames, json_frame};

/// Why a delivery stream gave no result.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// The commit was not sent: nothing can have been kept.
    #[error("back-end cannot be reached")]
    Away(#[source] CallError),
    /// The back-end refused the whole stream; nothing was kept.
    #[error("back-end refused the delivery: {0}")]
    Refused(Problem),
    /// The commit was sent and no answer came: it may or may not have been done. Ask again with
    /// the same transaction (P2).
    #[error("back-end took the commit and gave no answer")]
    CommitUnknown(#[source] CallError),
    /// The stream was given up because this back-end did not take octets in time; nothing was kept.
    #[error("back-end took no octets for {} ms", .0.as_millis())]
    Stalled(Duration),
}

impl DeliverError {
    /// Whether the back-end has judged the message itself: it will never take it. Everything else may pass (P6).
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.status() == Some(StatusCode::PAYLOAD_TOO_LARGE)
    }

    /// Whether the back-end does not understand us: another version, or our mistake. It would not understand it the next time
    /// either, nor would another one; the message may be right.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        self.status() == Some(StatusCode::BAD_REQUEST)
    }

    /// The status of a refusal.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(problem) => Some(problem.status),
            Self::Away(_) | Self::CommitUnknown(_) | Self::Stalled(_) => None,
        }
    }
}

/// One transaction on its way to one back-end. Dropped before [`commit`](Self::commit), the stream
/// is reset and the back-end keeps nothing.
#[derive(Debug)]
pub struct DeliverClient {
    body: BodySender,
    answer: Answer,
}

/// The task that sends the request; it dies with its stream.
#[derive(Debug)]
struct Answer(JoinHandle<Result<DeliverReply, CallError>>);

impl Drop for Answer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Pieces on their way inside this process: with the 64 KiB that a front-end reads at once this
/// and the stream's window bound what one delivery holds.
const WINDOW_PIECES: usize = 4;

impl DeliverClient {
    /// Opens the stream and returns at once. Connecting and sending go on in a task; a failure
    /// shows at the next [`write`](Self::write) or at [`commit`](Self::commit).
    pub async fn open(link: &Link, open: &DeliverOpen) -> Self {
        let (body, request_body) = LinkBody::channel(WINDOW_PIECES);
        // There is room for the first piece before anybody takes it.
        let _ = body.send(json_frame(Kind::Open, open)).await;
        let link = link.clone();
        let answer = tokio::spawn(async move {
            let request = Request::builder()
                .method(Method::POST)
                .uri(PATH)
                .body(request_body)
                .expect("the path is a constant");
            link.answer(request).await
        });
        Self {
            body,
            answer: Answer(answer),
        }
    }

    /// Whether the back-end has ended the stream already: before the commit that is a refusal.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.answer.0.is_finished()
    }

    /// Sends octets of the blob, waiting while the back-end is slower. Cancelled, the stream is
    /// of no further use: part of the octets may have been sent.
    ///
    /// # Errors
    /// `Away` or `Refused`: the back-end takes no more of this stream; drop it.
    pub async fn write(&mut self, octets: Bytes) -> Result<(), DeliverError> {
        for piece in data_frames(octets) {
            if self.body.send(piece).await.is_err() {
                return Err(self.why().await);
            }
        }
        Ok(())
    }

    /// Sends the commit and waits for the result of every recipient. A `Committed` is durable.
    ///
    /// # Errors
    /// [`DeliverError`]; after `deadline` `Stalled` when there was no room for the commit until
    /// then, else `CommitUnknown`.
    pub async fn commit(
        mut self,
        commit: &DeliverCommit,
        deadline: Duration,
    ) -> Result<DeliverReply, DeliverError> {
        let until = Instant::now() + deadline;
        match timeout_at(until, self.body.send(json_frame(Kind::Commit, commit))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(self.why().await),
            Err(_) => return Err(DeliverError::Stalled(deadline)),
        }
        self.body.finish();
        match timeout_at(until, &mut self.answer.0).await {
            Ok(Ok(Ok(reply))) => Ok(reply),
            Ok(Ok(Err(CallError::Refused(problem)))) => Err(DeliverError::Refused(problem)),
            Ok(Ok(Err(error))) if error.never_sent() => Err(DeliverError::Away(error)),
            Ok(Ok(Err(error))) => Err(DeliverError::CommitUnknown(error)),
            Ok(Err(_)) | Err(_) => Err(DeliverError::CommitUnknown(CallError::Deadline(deadline))),
        }
    }

    /// Why the request's task takes no more of the body.
    pub(super) async fn why(&mut self) -> DeliverError {
        match tokio::time::timeout(WHY_TIMEOUT, &mut self.answer.0).await {
            Ok(Ok(Err(CallError::Refused(problem)))) => DeliverError::Refused(problem),
            Ok(Ok(Err(error))) => DeliverError::Away(error),
            Ok(Ok(Ok(_)) | Err(_)) | Err(_) => DeliverError::Away(CallError::Deadline(WHY_TIMEOUT)),
        }
    }
}

/// A stream that takes no more has its answer already, or never will.
const WHY_TIMEOUT: Duration = Duration::from_millis(200);
