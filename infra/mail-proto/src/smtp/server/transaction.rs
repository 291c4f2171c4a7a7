//! A transaction, and whose fault it is when nothing comes of it.

use super::super::reply::Reply;
use super::chunks::Chunks;
use super::{OK, Question, Server, State, Step};
use crate::address::Letters;

pub(super) struct Transaction {
    pub(super) letters: Letters,
    /// Recipients asked for, accepted or not.
    pub(super) asked_count: usize,
    pub(super) accepted_count: usize,
    /// Those refused for now.
    pub(super) deferred_count: usize,
    /// Whether one of them was refused because they come too often.
    is_too_often: bool,
    /// The body, when it comes in chunks.
    pub(super) chunks: Option<Chunks>,
}

impl Transaction {
    pub(super) fn new(letters: Letters) -> Self {
        Self {
            letters,
            asked_count: 0,
            accepted_count: 0,
            deferred_count: 0,
            is_too_often: false,
            chunks: None,
        }
    }

    /// Nobody is accepted, and that is no fault of the client's.
    fn is_deferred(&self) -> bool {
        self.deferred_count > 0 && self.deferred_count == self.asked_count
    }
}

impl Server {
    /// Answers as [`Server::refuse`], because the client asks too often: that counts as a command that brings no mail, the
    /// recipients of one transaction together as one.
    ///
    /// # Panics
    /// When none of these was asked: the shell is wrong.
    pub fn refuse_too_often(&mut self, reply: Reply) {
        let was_told = match (&self.state, &mut self.transaction) {
            (State::AwaitAnswer(Question::Recipient), Some(transaction)) => {
                std::mem::replace(&mut transaction.is_too_often, true)
            }
            _ => false,
        };
        self.refuse(reply);
        if !was_told {
            self.count_junk();
        }
    }

    /// Says this to a command that cannot do without what was refused for now, if it was: a client that pipelines its
    /// commands has sent it already.
    pub(super) fn say_unless_deferred(&mut self, reply: &Reply) {
        let is_deferred = match &self.transaction {
            Some(transaction) => transaction.is_deferred(),
            None => self.is_deferred,
        };
        self.say_of(reply, reply.is_permanent() && !is_deferred);
    }

    pub(super) fn on_rset(&mut self) -> Option<Step<'static>> {
        self.say(&OK);
        self.is_deferred = false;
        let transaction = self.transaction.take();
        // Else MAIL and RSET in turn would hold a connection for ever; but nobody is to blame for giving up what is refused for now.
        if !transaction.as_ref().is_some_and(Transaction::is_deferred) {
            self.count_junk();
        }
        transaction.map(|_| Step::Reset)
    }
}
