//! Reads from and writes to the socket without a buffer of the session's own.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use daemon::stream::UserStream;
use mail_proto::smtp::Server;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};

/// One read's worth; a thread has one, so that ten thousand silent connections have none.
const SCRATCH_BYTES: usize = 32 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// Hands the next octets to the core; 0 when the client has closed. Cancelling it loses nothing:
/// octets are taken from the socket and given to the core within one poll.
pub(super) async fn read_into(stream: &mut UserStream, core: &mut Server) -> io::Result<usize> {
    poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let room = core.room().min(scratch.len());
            let mut buffer = ReadBuf::new(&mut scratch[..room]);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            let taken = core.receive(buffer.filled());
            debug_assert_eq!(taken, buffer.filled().len());
            Poll::Ready(Ok(taken))
        })
    })
    .await
}

/// Hands the core what has come already, without waiting for more. Whether nothing comes any more; who reads on is told again.
pub(super) async fn read_waiting(stream: &mut UserStream, core: &mut Server) -> bool {
    let room = core.room();
    let mut read = pin!(read_into(stream, core));
    let come = poll_fn(|context| Poll::Ready(read.as_mut().poll(context)));
    match come.await {
        Poll::Pending => false,
        Poll::Ready(Ok(octets)) => octets == 0 && room > 0,
        Poll::Ready(Err(_)) => true,
    }
}

/// Writes and flushes all of it.
pub(super) async fn write_all(stream: &mut UserStream, octets: &[u8]) -> io::Result<()> {
    stream.write_all(octets).await?;
    stream.flush().await
}
