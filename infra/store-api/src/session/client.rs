//! The proxy's end of a session stream.

use std::time::Duration;

use bytes::Bytes;
use daemon::link::{BodySender, CallError, Link, LinkBody, LinkError, Problem, next_data};
use http::{Method, Request};
use hyper::body::Incoming;

use super::{MovedTo, PATH, SessionOpen, Wait, problem};
use crate::frame::{Decoder, Event, Kind, data_frames, frame, json_frame};

/// Why a session did not open. Every variant is another thing to do next.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The back-end gave no answer. Temporary (P6).
    #[error("back-end cannot be reached")]
    Away(#[source] CallError),
    /// The account lives elsewhere: log in again there.
    #[error("account has moved to {}", .0.backend)]
    Moved(MovedTo),
    /// The directory's answer was older than the back-end: log in again.
    #[error("grant is for an older epoch")]
    StaleEpoch,
    /// The account is being moved right now. Temporary.
    #[error("account is being moved")]
    Frozen,
    /// The account logged in a moment ago: so many seconds are to wait.
    #[error("account must wait for {0} s before it logs in again")]
    LoginDelay(u64),
    /// The back-end did not accept the grant. A fault of ours: clocks, keys, or a replay.
    #[error("back-end refused the grant: {0}")]
    GrantRefused(Problem),
    /// Anything else. Temporary.
    #[error("back-end refused the session: {0}")]
    Refused(Problem),
}

impl From<Problem> for OpenError {
    fn from(refusal: Problem) -> Self {
        match refusal.code.as_ref() {
            problem::MOVED => {
                let detail = refusal.detail.clone().unwrap_or_default();
                serde_json::from_value(detail).map_or(Self::Refused(refusal), Self::Moved)
            }
            problem::LOGIN_DELAY => {
                let detail = refusal.detail.clone().unwrap_or_default();
                let wait = serde_json::from_value(detail);
                wait.map_or(Self::Refused(refusal), |Wait { wait_s }| {
                    Self::LoginDelay(wait_s)
                })
            }
            problem::STALE_EPOCH => Self::StaleEpoch,
            problem::FROZEN => Self::Frozen,
            problem::GRANT_REFUSED => Self::GrantRefused(refusal),
            _ => Self::Refused(refusal),
        }
    }
}

/// An open session stream. Dropped, both directions are reset: the back-end sees a cut.
#[derive(Debug)]
pub struct Session {
    sender: SessionSender,
    receiver: SessionReceiver,
}

/// Pieces on their way inside this process; a piece is at most one read from the user.
const WINDOW_PIECES: usize = 2;

impl Session {
    /// Opens a session with a grant. The back-end's answer to the user's login is its first data.
    ///
    /// # Errors
    /// [`OpenError`]. `Away` also after `deadline` without an answer.
    pub async fn open(
        link: &Link,
        open: &SessionOpen,
        deadline: Duration,
    ) -> Result<Self, OpenError> {
        let (body, request_body) = LinkBody::channel(WINDOW_PIECES);
        // There is room for the first piece before anybody takes it.
        let _ = body.send(json_frame(Kind::Open, open)).await;
        let request = Request::builder()
            .method(Method::POST)
            .uri(PATH)
            .body(request_body)
            .expect("the path is a constant");
        let response = match tokio::time::timeout(deadline, link.accepted(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(CallError::Refused(refusal))) => return Err(refusal.into()),
            Ok(Err(error)) => return Err(OpenError::Away(error)),
            Err(_) => return Err(OpenError::Away(CallError::Deadline(deadline))),
        };
        Ok(Self {
            sender: SessionSender { body },
            receiver: SessionReceiver {
                body: response.into_body(),
                decoder: Decoder::default(),
                ended: false,
            },
        })
    }

    /// The two directions, to be driven apart.
    #[must_use]
    pub fn split(self) -> (SessionSender, SessionReceiver) {
        (self.sender, self.receiver)
    }
}

/// Octets from the user to the back-end.
#[derive(Debug)]
pub struct SessionSender {
    body: BodySender,
}

/// The back-end takes no more octets of this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("back-end takes no more of the session")]
pub struct SessionGone;

impl SessionSender {
    /// Sends octets, waiting while the back-end is slower.
    ///
    /// # Errors
    /// [`SessionGone`]: the stream was answered or reset.
    pub async fn send(&self, octets: Bytes) -> Result<(), SessionGone> {
        for piece in data_frames(octets) {
            self.body.send(piece).await.map_err(|_| SessionGone)?;
        }
        Ok(())
    }

    /// Says that the user has no more to send.
    pub async fn end(self) {
        if self.body.send(frame(Kind::End, &[])).await.is_ok() {
            self.body.finish();
        }
    }
}

/// Octets from the back-end to the user.
#[derive(Debug)]
pub struct SessionReceiver {
    body: Incoming,
    decoder: Decoder,
    ended: bool,
}

/// The session's stream stopped without `End`, or carried what version 1 does not know.
#[derive(Debug, thiserror::Error)]
#[error("session stream was cut")]
pub struct SessionCut(#[source] Option<LinkError>);

impl SessionReceiver {
    /// The next octets, or `None` after the back-end's `End`. Safe to cancel.
    ///
    /// # Errors
    /// [`SessionCut`]: what came so far may end anywhere.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SessionCut> {
        loop {
            if self.ended {
                return Ok(None);
            }
            match self.decoder.next() {
                Ok(Some(Event::Data(octets))) => return Ok(Some(octets)),
                Ok(Some(Event::Control(Kind::End, _))) => self.ended = true,
                Ok(Some(Event::Control(..))) | Err(_) => return Err(SessionCut(None)),
                Ok(None) => match next_data(&mut self.body).await {
                    Ok(Some(piece)) => self.decoder.push(piece),
                    Ok(None) => return Err(SessionCut(None)),
                    Err(_) => return Err(SessionCut(None)),
                },
            }
        }
    }
}
