//! BDAT in the dialogue: whose octets a chunk's are, and what is said at its end. RFC 3030 §2.

use super::super::chunk::{Chunk, ChunkReader};
use super::super::config::Mode;
use super::super::data;
use super::super::reply::Reply;
use super::{CloseReason, MAIL_FIRST, Question, Server, State, Step, Transaction};

/// A body that comes in chunks.
pub(super) enum Chunks {
    Taken(ChunkReader),
    /// It was refused so at a chunk before, and all of its others are.
    Failed(Reply),
}

impl Transaction {
    /// Nothing can come of it any more.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.chunks, Some(Chunks::Failed(_)))
    }
}

/// Whether a line that is no command was to be a BDAT.
pub(super) fn is_bdat(line: &[u8]) -> bool {
    line.get(..4)
        .is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT"))
}

impl Server {
    pub(super) fn on_bdat(&mut self, arguments: &str) -> Option<Step<'static>> {
        let Some(chunk) = Chunk::parse(arguments) else {
            return self.unknown_chunk();
        };
        if chunk.length == 0 && !chunk.is_last {
            self.count_junk();
            if let State::Closing(_) = self.state {
                return None;
            }
        }
        let refusal = match &self.transaction {
            None => Some(MAIL_FIRST),
            Some(Transaction {
                accepted_count: 0, ..
            }) => Some(data::no_recipients(self.config.mode)),
            Some(Transaction { chunks: None, .. }) => {
                return self.ask(Question::FirstChunk(chunk), Step::BodyStart);
            }
            Some(Transaction {
                chunks: Some(Chunks::Failed(refusal)),
                ..
            }) => Some(refusal.clone()),
            Some(_) => None,
        };
        if let Some(refusal) = &refusal
            && chunk.length > self.config.size_max_bytes
        {
            // Nobody paces what is only read over.
            refusal.write_to(self.out.octets_mut());
            return self.unread_chunk();
        }
        self.state = State::Chunk { chunk, refusal };
        None
    }

    /// What follows such a BDAT may be mail or commands: nobody knows.
    pub(super) fn unknown_chunk(&mut self) -> Option<Step<'static>> {
        SYNTAX.write_to(self.out.octets_mut());
        self.unread_chunk()
    }

    fn unread_chunk(&mut self) -> Option<Step<'static>> {
        CLOSING.write_to(self.out.octets_mut());
        self.close(CloseReason::UnreadChunk);
        None
    }

    /// The shell has said whether there is a body. What is refused is read all the same.
    pub(super) fn first_chunk(&mut self, chunk: Chunk, refusal: Option<Reply>) {
        let config = &self.config;
        let reader = ChunkReader::new(config.text_line_max_bytes, config.size_max_bytes);
        if let Some(transaction) = &mut self.transaction {
            transaction.chunks = Some(Chunks::Taken(reader));
        }
        self.state = State::Chunk { chunk, refusal };
    }

    /// All octets of a chunk were read.
    pub(super) fn end_chunk(
        &mut self,
        is_last: bool,
        refusal: Option<Reply>,
    ) -> Option<Step<'static>> {
        self.state = State::AwaitCommand;
        let chunks = super::chunks_of(&mut self.transaction);
        let (reader, refusal) = match (chunks, refusal) {
            // Nothing has begun: there is no transaction, or nobody in it.
            (None, refusal) => {
                // RFC 2033 §4.3: the last chunk has a reply for each recipient, here none.
                let has_none = is_last && self.transaction.is_some();
                if self.config.mode == Mode::Smtp || !has_none {
                    self.say_unless_deferred(&refusal.unwrap_or(MAIL_FIRST));
                }
                return None;
            }
            (Some(Chunks::Taken(reader)), None) => (reader, None),
            // One body is one mistake, however many chunks of it come.
            (Some(Chunks::Failed(refusal)), _) => {
                let refusal = refusal.clone();
                if is_last {
                    self.end_body(&[], &refusal, false);
                } else {
                    refusal.write_to(self.out.octets_mut());
                }
                return None;
            }
            (Some(chunks), Some(refusal)) if !is_last => {
                *chunks = Chunks::Failed(refusal.clone());
                self.say(&refusal);
                return None;
            }
            (Some(Chunks::Taken(reader)), refusal) => (reader, refusal),
        };
        if let Some(refusal) = refusal {
            self.end_body(&[], &refusal, true);
            return None;
        }
        if !is_last {
            self.say(&TAKEN);
            return None;
        }
        let chunk = Chunk { length: 0, is_last };
        match reader.end() {
            Ok([]) => {
                let size = reader.size();
                self.ask(Question::BodyEnd, Step::BodyEnd { size })
            }
            // And then this end is met once more.
            Ok(missing) => {
                self.state = State::Chunk {
                    chunk,
                    refusal: None,
                };
                Some(Step::BodyChunk(missing))
            }
            Err(fault) => {
                let refusal = Some(data::broken(fault));
                self.state = State::Chunk { chunk, refusal };
                Some(Step::BodyBroken(fault))
            }
        }
    }
}

const SYNTAX: Reply = Reply::new(501, (5, 5, 4), "syntax: BDAT size [LAST]");
const TAKEN: Reply = Reply::new(250, (2, 0, 0), "chunk taken");
const CLOSING: Reply = Reply::new(421, (4, 5, 4), "what follows cannot be read, closing");
