//! An IMAP session after its login. RFC 3501, RFC 9051.
//!
//! ```text
//! user ─▶ Framer ─▶ Frame ─▶ parse ─▶ Command ─▶ a verb's run() ─▶ Reply
//!                                                  │ untagged        │
//!                                  updates::tell ──┴──▶ session.out ◀┘ ─▶ user
//! ```
//!
//! The grammar is `mail_proto`'s; the shell here reads, writes and waits; each verb is a file of
//! its own. What a session is between two commands is one value, [`state::State`].
//!
//! # How a verb is written
//!
//! ```text
//! pub(super) async fn run(session: &mut Session<'_>, request: Request) -> Result<Reply, Failure>
//! ```
//!
//! - It writes untagged responses with `session.encoder()` or a `FetchWriter` into `session.out`,
//!   and calls `session.flush_if_full().await?` after each response or piece of a literal, so
//!   that memory stays bounded and a client that does not read stops it (P7).
//! - It returns the tagged answer. NO for reasons of the verb's own is `Ok(Reply::no(…))`; what any verb may
//!   meet (the volume's refusals, no mailbox selected, a sequence number too large) is a [`Failure`], by `?`.
//! - `session.selected()?` is the open mailbox, `session.selected_writable()?` one that may be
//!   changed. Whose it is, under which epoch it is written and with which rights stands in its `place`, never in the
//!   session; `place.need(Rights::…)?` before what a right permits. Writes name `place.writer(…)`, so that the volume asks
//!   again; who reads in pieces asks [`place::check_open`] between them. A name becomes a place in [`place`] alone. `selected.resolve(&set, by)?` gives the UIDs a set names; a message may be gone by
//!   the time it is read, then nothing is said of it. Sequence numbers come from `selected.view`, which does
//!   not change while a command runs.
//! - What others and the command itself changed is told by [`updates::tell`], which the shell calls between
//!   the verb and its tagged answer: EXISTS, EXPUNGE or VANISHED where the command allows it, FETCH with
//!   flags. A verb that has told the new flags of its own change itself (or was asked to be silent) says so
//!   with `session.told(modseq)`; one that has removed or added messages, with `session.removed` or `session.arrived`.
//!   The volume answers a change before the index has it, so what is not told that way must set `has_changed`. A verb
//!   that tells MODSEQs says with `session.saw(modseq)` how far it has seen the index: the bell may ring later.
//! - Whatever awaits takes `&mut Session`: a proxy's stream cannot be shared between threads.
//! - Capabilities are added in `capability.rs` when their verbs work, not before.

mod acl;
mod append;
mod binary;
pub(crate) mod capability;
mod carry;
mod close;
mod collect;
mod compress;
mod copy;
mod create;
mod delete;
mod expunge;
mod fetch;
mod flags;
mod id;
mod idle;
mod limit;
mod list;
mod message;
mod metadata;
mod r#move;
mod name;
mod namespace;
mod noop;
mod notify;
mod pattern;
mod place;
mod quota;
mod rename;
mod reply;
mod search;
mod select;
mod sort;
mod state;
mod status;
mod store;
mod subscribe;
mod text;
mod thread;
mod transfer;
mod updates;
mod view;
mod wait;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use directory_api::{AccountId, Epoch, LoginName};
use mail_proto::imap::command::{Command, Tagged};
use mail_proto::imap::encode::{Code, Condition, Encoder};
use mail_proto::imap::framing::{Fault, FaultKind, Frame, Framer, Limits, Step};
use mail_proto::imap::mailbox::MailboxName;
use mail_proto::imap::parse;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::error;

use crate::config::About;
use crate::session::SessionEnd;
use crate::sessions::Registration;
use crate::user::{Cut, User, WRITE_MAX_OCTETS};
use crate::volume::{APPEND_MESSAGES_MAX, MailboxId, Turns, Volume, Watch};
use crate::volumes::{Mounted, Volumes};
use append::Upload;
pub(crate) use collect::SORTING_MAX_MIB;
pub(crate) use limit::MessageLimit;
use notify::News;
use reply::{Failure, Reply};
use state::{Selected, State};
use updates::MayTell;

/// What a session stands on.
pub(crate) struct Service<'a> {
    /// The volume that the user lives on.
    pub(crate) home: &'a Mounted,
    /// Others may share mailboxes who live on another one.
    pub(crate) volumes: &'a Volumes,
    /// How long a client may be silent between commands and in IDLE.
    pub(crate) idle: Duration,
    /// How long it may be silent within a command.
    pub(crate) stall: Duration,
    /// The largest message that APPEND takes.
    pub(crate) message_size_max_bytes: u64,
    /// How much of a quota may be used before the client is told, in per cent; none when nothing was limited at the login.
    pub(crate) quota_warning_percent: Option<u8>,
    /// How many messages a command may be about.
    pub(crate) message_limit: MessageLimit,
    /// Whether the volume may be changed.
    pub(crate) may_write: bool,
    /// What the server says of itself.
    pub(crate) about: &'a About,
    /// A permit for each session that may use COMPRESS.
    pub(crate) compressions: &'a Arc<Semaphore>,
    /// A permit for each MiB that a session keeps to sort.
    pub(crate) sorting: &'a Arc<Semaphore>,
}

/// One session and its shell.
pub(crate) struct Session<'a> {
    service: Service<'a>,
    user: &'a mut User,
    /// Tells when the session shall end.
    registration: &'a mut Registration,
    state: State,
    /// Responses that are not written yet.
    out: Vec<u8>,
    /// Where in them the answer to the command that runs begins; [`WRITTEN`] once some of it was written. As short as it is,
    /// it costs a session that waits nothing.
    answer_begins: u32,
    /// Of the command that runs.
    tag: String,
    /// MODSEQs of changes whose flags the command that runs has told itself.
    told: Vec<u64>,
    /// Rings when something in the account changes.
    watch: Watch,
    /// The same in other accounts whose mailboxes are open or watched.
    owner_watches: BTreeMap<AccountId, Watch>,
    /// Whether the open mailbox may have changed since the client was last told.
    has_changed: bool,
    /// What may have changed outside of it.
    news: News,
    /// Whether the command that runs changes the open mailbox: then what has changed is told in any case.
    acts: bool,
    /// UIDs of messages that the command that runs has added to the open mailbox.
    made: Vec<u32>,
    /// In a box of its own, for few commands have any of it, and a session that waits has none.
    own: Option<Box<Own>>,
    /// When the client last sent something.
    heard: Instant,
    /// The command that is arriving: when it began, and its octets so far.
    arriving: (Instant, u64),
}

/// What the command that runs does itself, outside of the open mailbox.
#[derive(Default)]
struct Own {
    /// Names that it has changed.
    names: Vec<String>,
    /// A name in it that stands for another one, and the name as it was sent.
    sent_name: Option<(MailboxName, MailboxName)>,
    /// Annotations that it has changed.
    entries: Vec<(notify::Of, String)>,
}

/// Beyond the end of all responses.
const WRITTEN: u32 = u32::MAX;

/// A client that makes only mistakes is no mail client: after so many without a good command between
/// them the session ends, as other servers do it.
const BAD_MAX: u32 = 20;

impl<'a> Session<'a> {
    /// A session that has just logged in.
    pub(crate) fn new(
        service: Service<'a>,
        user: &'a mut User,
        registration: &'a mut Registration,
        account: AccountId,
        epoch: Epoch,
        login_name: LoginName,
    ) -> Self {
        Self {
            watch: service.home.volume.watch(account),
            has_changed: false,
            news: News::default(),
            acts: false,
            made: Vec::new(),
            own: None,
            service,
            user,
            registration,
            owner_watches: BTreeMap::new(),
            state: State::new(account, epoch, login_name),
            out: Vec::new(),
            answer_begins: WRITTEN,
            tag: String::new(),
            told: Vec::new(),
            heard: Instant::now(),
            arriving: (Instant::now(), 0),
        }
    }

    /// The volume of an account of which this session has found a mailbox. One that has moved away since is not there.
    fn volume_of(
        &self,
        account: AccountId,
    ) -> impl Future<Output = Result<Volume, Failure>> + Send + use<'a> {
        let is_own = account == self.state.account;
        let (home, volumes) = (self.service.home, self.service.volumes);
        async move {
            if is_own {
                return Ok(home.volume.clone());
            }
            let live = volumes.live(account).await;
            Ok(live.ok_or(Failure::VolumeAway)?.volume.clone())
        }
    }

    /// Where what takes long is done, at the cost of the one who is logged in.
    fn turns(&self) -> Turns {
        self.service.home.volume.turns_of(self.state.account)
    }

    /// The same of one that this command has asked for before.
    fn volume_asked(&self, account: AccountId) -> Option<Volume> {
        if account == self.state.account {
            return Some(self.service.home.volume.clone());
        }
        let known = self.service.volumes.known(account)?;
        Some(known.volume.clone())
    }

    /// Answers the login and serves the session to its end.
    pub(crate) async fn run(&mut self, tag: &str) -> SessionEnd {
        capability::tell_login(self, tag);
        match self.drive().await {
            Ok(end) => end,
            Err(cut) => SessionEnd::Cut(cut),
        }
    }

    async fn drive(&mut self) -> Result<SessionEnd, Cut> {
        let mut framer = self.framer();
        let mut upload = None;
        loop {
            let arrived = self.user.pending_bytes();
            let mut unread = &arrived[..];
            let step = framer.next(&mut unread);
            self.user.took(arrived.len() - unread.len());
            let end = match step {
                Step::NeedInput => {
                    // Only when something was said, or an idle session would look for ever.
                    if framer.is_between_commands() && !self.out.is_empty() {
                        self.renew(&mut framer);
                    }
                    // Nothing is kept of what was read while there is no more to read.
                    drop(arrived);
                    self.wait(&framer).await?
                }
                // Apart, so that a session that waits does not hold the room of every verb.
                step => {
                    let (home, account) = (self.service.home, self.state.account);
                    let doing = Box::pin(self.on_step(step, &mut framer, &mut upload));
                    home.volume.metered(account, doing).await?
                }
            };
            if let Some(end) = end {
                // What the client does not take now, it does not get.
                Box::pin(self.flush()).await?;
                return Ok(end);
            }
        }
    }

    /// Does what the framer has found.
    async fn on_step(
        &mut self,
        step: Step<'_>,
        framer: &mut Framer,
        upload: &mut Option<Box<Upload>>,
    ) -> Result<Option<SessionEnd>, Cut> {
        match step {
            Step::NeedInput | Step::AwaitAnswer => {
                unreachable!("the shell waits, and answers every message when it is announced")
            }
            Step::Continue => {
                self.encoder().continuation("go ahead");
                Ok(None)
            }
            Step::Command(frame) => {
                let end = self.on_command(frame).await?;
                if self.state.idle.is_some() {
                    framer.expect_line();
                }
                Ok(end)
            }
            Step::Line(frame) => self.on_idle_line(&frame).await,
            Step::Message { frame, size } => {
                match append::on_message(self, upload.take(), &frame, size).await {
                    Ok(next) => {
                        framer.accept_message();
                        *upload = Some(next);
                        Ok(None)
                    }
                    Err(answer) => {
                        framer.refuse_message();
                        self.answer(answer, MayTell::All).await
                    }
                }
            }
            Step::MessageOctets(octets) => {
                let taken = match upload.as_mut() {
                    Some(upload) => upload.write(octets).await,
                    None => Ok(()),
                };
                self.on_taken(taken, framer, upload).await
            }
            Step::MessageEnd => {
                let taken = match upload.as_mut() {
                    Some(upload) => match self.volume_of(upload.owner()).await {
                        Ok(volume) => upload.end_message(&volume).await,
                        Err(failure) => Err(failure),
                    },
                    None => Ok(()),
                };
                self.on_taken(taken, framer, upload).await
            }
            Step::AppendEnd(frame) => match upload.take() {
                Some(upload) => {
                    let answer = append::on_end(self, *upload, &frame).await;
                    self.answer(answer, MayTell::All).await
                }
                None => Ok(None),
            },
            Step::Fault(fault) => {
                let is_append = upload.take().is_some();
                self.on_fault(fault, is_append).await
            }
            Step::HangUp(fault) => {
                let text = fault.kind.text();
                self.encoder().untagged(Condition::Bye, None, text);
                Ok(Some(SessionEnd::Errors))
            }
        }
    }

    /// Octets of a message were taken, or it must be given up.
    async fn on_taken(
        &mut self,
        taken: Result<(), Failure>,
        framer: &mut Framer,
        upload: &mut Option<Box<Upload>>,
    ) -> Result<Option<SessionEnd>, Cut> {
        match taken {
            Ok(()) => Ok(None),
            Err(failure) => {
                *upload = None;
                framer.refuse_message();
                self.answer(Err(failure), MayTell::All).await
            }
        }
    }

    /// One command that is whole.
    async fn on_command(&mut self, frame: Frame) -> Result<Option<SessionEnd>, Cut> {
        let parsed = parse::command(&frame, self.state.form());
        // A megabyte of literals, perhaps.
        drop(frame);
        self.answer_begins = u32::try_from(self.out.len()).unwrap_or(WRITTEN);
        match parsed {
            Ok(Tagged { tag, command }) => {
                self.tag = tag;
                let may_tell = updates::may_tell(&command);
                self.acts = matches!(
                    command,
                    Command::Expunge(_) | Command::Copy(..) | Command::Move(..)
                );
                let answer = match command {
                    command if self.state.enabled.uid_only && command.uses_sequence_numbers() => {
                        Ok(Reply::uid_required())
                    }
                    Command::Logout => {
                        self.encoder().untagged(Condition::Bye, None, "good-bye");
                        let tag = std::mem::take(&mut self.tag);
                        Reply::ok("logged out").encode(&tag, &mut self.out);
                        return Ok(Some(SessionEnd::Quit));
                    }
                    Command::Idle => match idle::begin(self).await {
                        Ok(()) => return Ok(None),
                        Err(failure) => {
                            self.tag = self.state.idle.take().unwrap_or_default();
                            Err(failure)
                        }
                    },
                    Command::Compress => return compress::run(self).await,
                    command => self.dispatch(command).await,
                };
                self.answer(answer, may_tell).await
            }
            Err(bad) => {
                let reply = Reply::unreadable(&bad.error);
                self.tag = bad.tag.unwrap_or_else(|| "*".to_owned());
                // It may have been a FETCH.
                self.answer(Ok(reply), MayTell::NoExpunge).await
            }
        }
    }

    /// One line a verb.
    async fn dispatch(&mut self, mut command: Command) -> Result<Reply, Failure> {
        if !command_changes_messages(&command) {
            self.settle().await;
        }
        // Before the verb, or a mailbox that is shared no more would be served once again.
        place::check_open(self).await?;
        name::settle_all(self, &mut command).await?;
        match command {
            Command::Capability => capability::run(self),
            Command::Enable(wanted) => capability::enable(self, &wanted),
            Command::Noop => Ok(noop::noop()),
            Command::Check => noop::check(self),
            Command::Id(client) => id::run(self, &client),
            Command::Namespace => namespace::run(self),
            Command::List(request) => list::run(self, request).await,
            Command::Lsub(reference, pattern) => list::lsub(self, &reference, &pattern).await,
            Command::Status(name, items) => status::run(self, &name, &items).await,
            Command::Create(name, uses) => create::run(self, &name, &uses).await,
            Command::Delete(name) => delete::run(self, &name).await,
            Command::Rename(from, to) => rename::run(self, &from, &to).await,
            Command::Subscribe(name) => subscribe::run(self, &name, true).await,
            Command::Unsubscribe(name) => subscribe::run(self, &name, false).await,
            Command::Select(request) => select::run(self, request, false).await,
            Command::Examine(request) => select::run(self, request, true).await,
            Command::Close => close::run(self).await,
            Command::Unselect => close::unselect(self),
            Command::Expunge(set) => expunge::run(self, set).await,
            Command::Fetch(request) => fetch::run(self, request).await,
            Command::Store(request) => store::run(self, request).await,
            Command::Copy(by, set, target) => copy::run(self, by, set, target).await,
            Command::Move(by, set, target) => r#move::run(self, by, set, target).await,
            Command::Search(request) => search::run(self, request).await,
            Command::Sort(request) => sort::run(self, request).await,
            Command::Thread(request) => thread::run(self, request).await,
            Command::GetAcl(name) => acl::get(self, &name).await,
            Command::SetAcl(name, who, change) => acl::set(self, &name, &who, change).await,
            Command::DeleteAcl(name, who) => acl::delete(self, &name, &who).await,
            Command::ListRights(name, who) => acl::list(self, &name, &who).await,
            Command::MyRights(name) => acl::mine(self, &name).await,
            Command::GetMetadata(request) => metadata::get(self, request).await,
            Command::SetMetadata(request) => metadata::set(self, request).await,
            Command::GetQuota(root) => quota::run(self, &root).await,
            Command::GetQuotaRoot(name) => quota::root_of(self, &name).await,
            Command::SetQuota(..) => Ok(quota::set()),
            Command::Notify(set) => notify::run(self, set).await,
            Command::LoginAgain => Ok(Reply::bad("you are logged in already")),
            Command::Logout | Command::Idle | Command::Compress => unreachable!("the shell's own"),
        }
    }

    /// Waits until all that was answered can be told: a client that has heard the answer to a change in one session finds
    /// it in another, also by NOOP.
    async fn settle(&mut self) {
        let selected = self.state.selected.as_ref();
        let place = selected.map_or(self.state.account, |selected| selected.place.account);
        // What cannot be told now is told, or refused, when it is read.
        if let Ok(volume) = self.volume_of(place).await {
            let _ = volume.settled(place).await;
        }
    }

    /// Tells what has changed, then ends the command.
    async fn answer(
        &mut self,
        answer: Result<Reply, Failure>,
        may_tell: MayTell,
    ) -> Result<Option<SessionEnd>, Cut> {
        let mut told = match may_tell {
            MayTell::Nothing => Ok(()),
            _ => updates::tell(self, may_tell == MayTell::All).await,
        };
        if told.is_ok() {
            told = notify::tell(self).await;
        }
        self.tell_held_back();
        let begins = std::mem::replace(&mut self.answer_begins, WRITTEN);
        self.told.clear();
        self.made.clear();
        self.own = None;
        self.acts = false;
        for failure in [answer.as_ref().err(), told.as_ref().err()] {
            match failure {
                Some(Failure::Cut(cut)) => return Err(*cut),
                Some(Failure::MailboxGone) => {
                    // It may have been read when it was not his to read any more.
                    self.out.truncate(begins as usize);
                    return Ok(Some(self.mailbox_gone()));
                }
                Some(Failure::Ending | Failure::OwnerAway) => return Ok(Some(self.going_down())),
                Some(failure @ (Failure::Read(_) | Failure::Write(_))) => {
                    error!(account = %self.state.account, error = %Causes(failure), "imap command failed");
                }
                _ => {}
            }
        }
        let reply = match answer {
            Ok(reply) => reply,
            Err(failure) => failure.reply().unwrap_or_else(|| Reply::bad("failed")),
        };
        let tag = std::mem::take(&mut self.tag);
        reply.encode(&tag, &mut self.out);
        if self.out.len() >= WRITE_MAX_OCTETS {
            self.flush().await?;
        }
        Ok(self.count(reply.condition))
    }

    fn count(&mut self, condition: Condition) -> Option<SessionEnd> {
        if condition != Condition::Bad {
            self.state.bad_count = 0;
            return None;
        }
        self.state.bad_count += 1;
        if self.state.bad_count < BAD_MAX {
            return None;
        }
        self.encoder()
            .untagged(Condition::Bye, None, "too many errors");
        Some(SessionEnd::Errors)
    }

    /// Something that is no command; it ends IDLE too.
    async fn on_fault(&mut self, fault: Fault, is_append: bool) -> Result<Option<SessionEnd>, Cut> {
        self.tag = match (fault.tag, self.state.idle.take()) {
            (_, Some(tag)) | (Some(tag), None) => tag,
            (None, None) => "*".to_owned(),
        };
        let reply = match fault.kind {
            FaultKind::TooManyLiterals if is_append => {
                limit::refused(self, APPEND_MESSAGES_MAX, None)
            }
            kind => Reply::bad(kind.text()),
        };
        // It may have been a FETCH.
        self.answer(Ok(reply), MayTell::NoExpunge).await
    }

    /// The line that ends IDLE.
    async fn on_idle_line(&mut self, frame: &Frame) -> Result<Option<SessionEnd>, Cut> {
        self.tag = self.state.idle.take().unwrap_or_else(|| "*".to_owned());
        let reply = match parse::is_done(frame) {
            true => Reply::ok("idle has ended"),
            false => Reply::bad("expected DONE"),
        };
        self.settle().await;
        self.answer(Ok(reply), MayTell::All).await
    }

    /// A command makes the client one that knows MODSEQ; if it was none, it has not looked at what SELECT told.
    /// RFC 7162 §3.1.
    fn use_modseq(&mut self) {
        if !std::mem::replace(&mut self.state.enabled.condstore, true) {
            self.tell_modseq();
        }
    }

    /// The client was told of later MODSEQs than what is held back has. It must not ask for what came after them when it
    /// comes back (RFC 7162 §3.2.5), or it would never hear of that.
    fn tell_held_back(&mut self) {
        let selected = self.state.selected.as_ref();
        let holds_back = selected.is_some_and(|selected| !selected.gone.is_empty());
        if holds_back && self.state.enabled.qresync {
            self.tell_modseq();
        }
    }

    /// Up to where the client knows all of the open mailbox.
    fn tell_modseq(&mut self) {
        if let Some(selected) = &self.state.selected {
            let code = Code::HighestModSeq(selected.modseq_of_all());
            self.encoder()
                .untagged(Condition::Ok, Some(&code), "highest MODSEQ");
        }
    }

    /// The index was seen as it is with this MODSEQ. Where the client knows less, the rest is told before the answer, for it
    /// may take the MODSEQs it hears for how far it is.
    fn saw(&mut self, modseq: u64) {
        let selected = self.state.selected.as_ref();
        self.has_changed |= selected.is_some_and(|selected| selected.modseq < modseq);
    }

    /// Where untagged responses are written.
    fn encoder(&mut self) -> Encoder<'_> {
        let form = self.state.form();
        Encoder::new(&mut self.out, form)
    }

    /// The open mailbox.
    fn selected(&self) -> Result<&Selected, Failure> {
        self.state.selected.as_ref().ok_or(Failure::NotSelected)
    }

    /// The open mailbox, if it may be changed.
    fn selected_writable(&self) -> Result<&Selected, Failure> {
        let selected = self.selected()?;
        match selected.read_only {
            true => Err(Failure::ReadOnly),
            false => self.writable().map(|()| selected),
        }
    }

    /// Whether the account may be changed.
    fn writable(&self) -> Result<(), Failure> {
        match self.service.may_write {
            true => Ok(()),
            false => Err(Failure::NotAdopted),
        }
    }

    /// The client knows the flags that a change of its own with this MODSEQ left.
    fn told(&mut self, modseq: u64) {
        // A mailbox's MODSEQs have no gaps: when it is the next one, nothing else has happened, and nothing needs
        // to be looked for in a large mailbox.
        match &mut self.state.selected {
            Some(selected) if selected.modseq + 1 == modseq => selected.modseq = modseq,
            _ => {
                self.told.push(modseq);
                self.has_changed = true;
            }
        }
    }

    /// The session's own command has removed messages of the open mailbox: they are told with its answer.
    fn removed(&mut self, modseq: u64, uids: &[u32]) {
        match &mut self.state.selected {
            Some(selected) if selected.modseq + 1 == modseq => {
                selected.note_gone(uids.iter().copied());
                selected.modseq = modseq;
            }
            _ => self.has_changed = true,
        }
    }

    /// The session's own command has added messages, without keywords, to a mailbox.
    fn arrived(&mut self, account: AccountId, mailbox: MailboxId, modseq: u64, uids: &[u32]) {
        let Some(selected) = &mut self.state.selected else {
            return;
        };
        if (selected.place.account, selected.place.mailbox) != (account, mailbox) {
            return;
        }
        let (Some(first), Some(last)) = (uids.first(), uids.last()) else {
            return;
        };
        if selected.modseq + 1 != modseq || selected.uid_next != *first {
            self.has_changed = true;
            return;
        }
        selected.modseq = modseq;
        updates::tell_arrived(self, uids.iter().copied(), last + 1);
    }

    /// For a command of many steps, between two of them: whether it may take the next one.
    fn may_go_on(&mut self) -> Result<(), Failure> {
        match self.registration.is_overdue() {
            true => Err(Failure::Ending),
            false => Ok(()),
        }
    }

    /// Where a verb notes what it does.
    fn own(&mut self) -> &mut Own {
        self.own.get_or_insert_default()
    }

    /// Writes what there is once it is worth a write. The client may take minutes for it: whoever may not read the open mailbox
    /// any more then gets no further.
    async fn flush_if_full(&mut self) -> Result<(), Failure> {
        if self.out.len() < WRITE_MAX_OCTETS {
            return Ok(());
        }
        self.flush().await?;
        place::check_open(self).await
    }

    /// Writes what there is, and keeps no memory of it.
    async fn flush(&mut self) -> Result<(), Cut> {
        let written = self.write_out().await;
        self.out = Vec::new();
        written
    }

    /// Writes what there is; its memory stays, for a command that has more to write.
    async fn write_out(&mut self) -> Result<(), Cut> {
        if !self.out.is_empty() {
            // Taken out first: whatever interrupts this, nothing is written twice.
            let mut out = std::mem::take(&mut self.out);
            self.answer_begins = WRITTEN;
            self.user.write_until(&out, self.registration).await?;
            out.clear();
            self.out = out;
        }
        Ok(())
    }

    /// A framer as it is between two commands, or in IDLE.
    fn framer(&self) -> Framer {
        let mut framer = Framer::new(Limits {
            swallow_max_bytes: self.service.message_size_max_bytes,
            ..Limits::default()
        });
        if self.state.idle.is_some() {
            framer.expect_line();
        }
        framer
    }

    /// Carries the session over to itself, in a build with debug assertions: what the state does not hold is lost.
    fn renew(&mut self, framer: &mut Framer) {
        if !cfg!(debug_assertions) {
            return;
        }
        // Whoever hands sessions over waits for the client's next octets here, or ends this one.
        let Ok(carried) = self.user.carried() else {
            return;
        };
        self.state.compressed = carried;
        let mut state = State::read(&self.state.write()).expect("what was written can be read");
        assert_eq!(state, self.state, "a session's state is one value");
        if let Some(carried) = state.compressed.take() {
            let carried_on = self.user.carry_on(&carried);
            carried_on.expect("what was carried over can be gone on from");
        }
        self.state = state;
        self.tag.clear();
        *framer = self.framer();
        // Not every time, for then nothing would show that the old watch rings.
        if self.user.offsets().0.is_multiple_of(2) {
            self.watch = self.service.home.volume.watch(self.state.account);
            self.owner_watches.clear();
        }
    }
}

/// Whether the volume decides the command by what it is about to write: then nothing needs to be read before.
fn command_changes_messages(command: &Command) -> bool {
    matches!(
        command,
        Command::Store(_) | Command::Expunge(_) | Command::Copy(..) | Command::Move(..)
    )
}

/// An error with what caused it, for the log.
struct Causes<'a>(&'a Failure);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
