//! Bodies on a link: none, whole, or fed as octets arrive.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::{
    LinkError,
    queue::{End, Feeder, Taker, queue},
};

/// A request's or response's body. Works with [`Link::send`](super::Link::send) and as `axum::body::Body::new(body)`.
#[derive(Debug)]
pub struct LinkBody(Inner);

#[derive(Debug)]
enum Inner {
    Full(Bytes),
    Fed(Taker),
}

impl LinkBody {
    /// Makes a body without octets.
    #[must_use]
    pub fn empty() -> Self {
        Self::full(Bytes::new())
    }

    /// Makes a body of octets at hand; they are not copied.
    #[must_use]
    pub fn full(octets: impl Into<Bytes>) -> Self {
        Self(Inner::Full(octets.into()))
    }

    /// Makes a body that is fed while it is sent; at most `capacity` chunks (at least one) wait to be taken.
    #[must_use]
    pub fn channel(capacity: usize) -> (BodySender, Self) {
        let (feeder, taker) = queue(capacity.max(1));
        (BodySender(feeder), Self(Inner::Fed(taker)))
    }
}

impl Body for LinkBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.0 {
            Inner::Full(octets) if octets.is_empty() => Poll::Ready(None),
            Inner::Full(octets) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(octets))))),
            Inner::Fed(taker) => taker.poll_take(cx).map(|chunk| match chunk {
                Ok(chunk) => Some(Ok(Frame::data(chunk))),
                Err(End::Finished) => None,
                Err(End::Cut) => Some(Err(Cut::Sender)),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Inner::Full(octets) if octets.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Full(octets) => SizeHint::with_exact(octets.len() as u64),
            Inner::Fed(_) => SizeHint::default(),
        }
    }
}

/// Feeds a body. Dropped without [`finish`](Self::finish), it resets the stream: the receiver sees a cut.
#[derive(Debug)]
pub struct BodySender(Feeder);

impl BodySender {
    /// Hands over a chunk, waiting while the receiver is slower. Cancelling the wait sends nothing.
    ///
    /// # Errors
    /// `Gone` when nobody takes the body any more: the stream was reset or answered, or the connection is lost.
    pub async fn send(&self, chunk: Bytes) -> Result<(), Gone> {
        self.0.feed(chunk).await
    }

    /// Ends the body cleanly; what was handed over is still sent.
    pub fn finish(self) {
        self.0.finish();
    }

    /// Waits until nobody takes the body any more. Safe in `select!`.
    pub async fn gone(&self) {
        self.0.gone().await;
    }
}

/// Nobody takes the body any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the receiver no longer takes the stream")]
pub struct Gone;

/// A body that broke off before its end. What came before is not the whole and must not be used as such.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// Our own feeder went away without finishing.
    #[error("the stream was cut by its sender")]
    Sender,
    /// The stream was reset, or the connection was lost.
    #[error("the stream was cut")]
    Stream(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There were more octets than the reader allows.
    #[error("the body is longer than {max} octets")]
    TooLong {
        /// What the reader allows.
        max: usize,
    },
}

/// Gives the next chunk of a body (hyper's `Incoming` and axum's `Body` alike), `None` at its clean end.
///
/// # Errors
/// `LinkError::Cut` when the body ended without a clean end.
pub async fn next_data<B>(body: &mut B) -> Result<Option<Bytes>, LinkError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    while let Some(frame) = body.frame().await {
        // Trailers are not used on a link; an empty frame says nothing.
        if let Ok(chunk) = frame
            .map_err(|error| Cut::Stream(error.into()))?
            .into_data()
            && !chunk.is_empty()
        {
            return Ok(Some(chunk));
        }
    }
    Ok(None)
}

/// Collects a whole body of at most `max` octets.
pub(super) async fn collect<B>(mut body: B, max: usize) -> Result<Bytes, LinkError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Some(first) = next_data(&mut body).await? else {
        return Ok(Bytes::new());
    };
    let mut second = next_data(&mut body).await?;
    if second.is_none() && first.len() <= max {
        return Ok(first);
    }
    let mut whole = BytesMut::from(first);
    loop {
        let Some(chunk) = second else {
            return Ok(whole.freeze());
        };
        if whole.len() + chunk.len() > max {
            return Err(Cut::TooLong { max }.into());
        }
        whole.extend_from_slice(&chunk);
        second = next_data(&mut body).await?;
    }
}
