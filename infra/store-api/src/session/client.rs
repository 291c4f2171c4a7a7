//! The proxy's end of a session stream.

use std::time::Duration;

use bytes::Bytes;
use daemon::link::{BodySender, CallError, Link, LinkBody, LinkError, Problem, next_data};
use http::{Method, Request};
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::{
    CAPABILITIES, MovedTo, Offsets, PATH, Resume, SHOWN_PATH, SessionOpen, SessionResume,
    SessionShown, Wait, problem,
};
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
    /// The back-end could not verify the password. Temporary.
    #[error("back-end could not verify the password")]
    NotVerified,
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
            problem::NOT_VERIFIED => Self::NotVerified,
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
    capabilities: Option<String>,
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
        Self::begin(link, PATH, json_frame(Kind::Open, open), deadline).await
    }

    /// Opens a session with a password, for the directory is away. No back-end but the user's home may be shown it.
    ///
    /// # Errors
    /// As [`open`](Self::open), and `NotVerified`.
    pub async fn open_shown(
        link: &Link,
        shown: &SessionShown,
        deadline: Duration,
    ) -> Result<Self, OpenError> {
        Self::begin(link, SHOWN_PATH, json_frame(Kind::Open, shown), deadline).await
    }

    /// Goes on with a session that another back-end has handed to this one.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn resume(
        link: &Link,
        resume: &SessionResume,
        deadline: Duration,
    ) -> Result<Self, OpenError> {
        Self::begin(link, PATH, json_frame(Kind::Resume, resume), deadline).await
    }

    async fn begin(
        link: &Link,
        path: &str,
        first: Bytes,
        deadline: Duration,
    ) -> Result<Self, OpenError> {
        let (body, request_body) = LinkBody::channel(WINDOW_PIECES);
        // There is room for the first piece before anybody takes it.
        let _ = body.send(first).await;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .body(request_body)
            .expect("the paths are constants");
        let response = match tokio::time::timeout(deadline, link.accepted(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(CallError::Refused(refusal))) => return Err(refusal.into()),
            Ok(Err(error)) => return Err(OpenError::Away(error)),
            Err(_) => return Err(OpenError::Away(CallError::Deadline(deadline))),
        };
        let capabilities = response.headers().get(CAPABILITIES);
        let capabilities = capabilities.and_then(|told| told.to_str().ok());
        Ok(Self {
            capabilities: capabilities.map(str::to_owned),
            sender: SessionSender { body },
            receiver: SessionReceiver {
                body: response.into_body(),
                decoder: Decoder::default(),
                ended: false,
            },
        })
    }

    /// What the back-end can do in IMAP, in its own words; none in POP3.
    #[must_use]
    pub fn capabilities(&self) -> Option<&str> {
        self.capabilities.as_deref()
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

    /// Tells how far both directions are, and that nothing more is sent before the `resume`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn pause(&self, here: Offsets) -> Result<(), SessionGone> {
        let frame = json_frame(Kind::Pause, &here);
        self.body.send(frame).await.map_err(|_| SessionGone)
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

/// What a back-end says.
#[derive(Debug)]
pub(super) enum Received {
    /// Octets for the user.
    Data(Bytes),
    /// It is at a command's edge and stops there.
    Pause(Offsets),
    /// A paused session goes on.
    Resume(Resume),
    /// It has no more to say.
    End,
}

impl SessionReceiver {
    /// The next octets, or `None` after the back-end's `End`. Safe to cancel.
    ///
    /// # Errors
    /// [`SessionCut`]: what came so far may end anywhere. A session that is handed on is one, too: [`relay`](super::relay)
    /// goes on with it.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SessionCut> {
        match self.event().await? {
            Received::Data(octets) => Ok(Some(octets)),
            Received::End => Ok(None),
            Received::Pause(_) | Received::Resume(_) => Err(SessionCut(None)),
        }
    }

    /// What comes next. Safe to cancel.
    pub(super) async fn event(&mut self) -> Result<Received, SessionCut> {
        loop {
            if self.ended {
                return Ok(Received::End);
            }
            match self.decoder.next() {
                Ok(Some(Event::Data(octets))) => return Ok(Received::Data(octets)),
                Ok(Some(Event::Control(Kind::End, _))) => self.ended = true,
                Ok(Some(Event::Control(Kind::Pause, payload))) => {
                    return json(&payload).map(Received::Pause);
                }
                Ok(Some(Event::Control(Kind::Resume, payload))) => {
                    return json(&payload).map(Received::Resume);
                }
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

fn json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, SessionCut> {
    serde_json::from_slice(payload).map_err(|_| SessionCut(None))
}
