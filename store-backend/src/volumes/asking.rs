//! Questions to a volume whose disk may give no answer at all, rather than an error.
//!
//! Users of the other volumes ask it too, and each that waits keeps a thread: so a question has its time, and while one that
//! is late has no answer, no other is put (P7).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{error, info};

use super::Mounted;
use crate::volume::{ReadError, Volume};

impl Mounted {
    /// What the volume answers.
    ///
    /// # Errors
    /// [`ReadError::Silent`]: it has not answered within [`ANSWER_WITHIN`], or was asked before by somebody who has no
    /// answer until now.
    pub(crate) async fn ask<T, A>(
        self: &Arc<Self>,
        question: impl FnOnce(Volume) -> A,
    ) -> Result<T, ReadError>
    where
        T: Send + 'static,
        A: Future<Output = Result<T, ReadError>> + Send + 'static,
    {
        if self.is_silent() {
            return Err(ReadError::Silent);
        }
        let mut answer = Box::pin(question(self.volume.clone()));
        if let Ok(answer) = timeout(ANSWER_WITHIN, &mut answer).await {
            return answer;
        }
        if self.late.fetch_add(1, Ordering::Relaxed) == 0 {
            error!(volume = %self.name, "volume's disk does not answer: it is not asked again until it does");
        }
        let asked = Arc::clone(self);
        tokio::spawn(async move {
            // Whatever it is, it says that the disk answers again.
            let _ = answer.await;
            if asked.late.fetch_sub(1, Ordering::Relaxed) == 1 {
                info!(volume = %asked.name, "volume's disk answers again");
            }
        });
        Err(ReadError::Silent)
    }

    /// Whether somebody has waited too long for an answer, and has none until now.
    pub(super) fn is_silent(&self) -> bool {
        self.late.load(Ordering::Relaxed) > 0
    }
}

/// A row of the index is read in microseconds, and in some hundred milliseconds where a busy disk has to look for its pages;
/// clients and front-ends wait for half a minute and more.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
