//! Mechanisms that the directory decides: what the client says goes there step by step, and what the
//! directory answers goes back.
//!
//! ```text
//! client's message ─▶ directory ─ challenge ─▶ client ─ response ─▶ directory ─ grant ─▶ open
//!                                                                                         │
//!                            LoggedIn ◀─ empty response ─ client ◀─ last words ◀─ session ┘
//! ```
//!
//! The session is opened before the client hears the last words: a refusal of the home is still a
//! refusal of the login then, and a grant does not grow old while a client thinks.

use std::sync::Arc;

use daemon::channel_binding::ChannelBinding;
use data_encoding::BASE64;
use mail_proto::login::{Mechanism, Refusal, SaslMessage};

use super::{
    Admission, Entry, FrontOptions, LoginFacts, MoveWait, OpenError, Question, Wait,
    directory_refused, open_at_home, report, until_moved,
};
use crate::client::{DirectoryClient, DirectoryError, LoginError};
use crate::wire::{self, SaslReply, SaslRequest, Secret};

/// What follows from a message.
pub(super) enum Next<T> {
    /// Say this to the client.
    Say(Vec<u8>),
    /// The user is in.
    In { login: Entry, session: T },
}

/// The mechanism that one connection is in, if any.
pub(super) struct Dialogue<'a, T, F> {
    directory: &'a DirectoryClient,
    options: &'a FrontOptions,
    open: &'a F,
    stage: Stage<T>,
}

enum Stage<T> {
    /// Nothing is begun.
    Idle,
    AwaitResponse {
        /// The directory's.
        state: String,
    },
    /// What is wrong was told; the client's response ends it (RFC 7628 §3.2.3).
    AwaitEnd(Refusal),
    /// The user is in as soon as the client has answered the last words with nothing.
    AwaitEmpty { login: Entry, session: T },
}

impl<'a, T, F, Fut> Dialogue<'a, T, F>
where
    F: Fn(Entry, LoginFacts) -> Fut,
    Fut: Future<Output = Result<T, OpenError>>,
{
    pub(super) fn new(
        directory: &'a DirectoryClient,
        options: &'a FrontOptions,
        open: &'a F,
    ) -> Self {
        Self {
            directory,
            options,
            open,
            stage: Stage::Idle,
        }
    }

    /// The client has cancelled it: a session that was opened is closed.
    pub(super) fn give_up(&mut self) {
        self.stage = Stage::Idle;
    }

    /// Takes what the client says.
    pub(super) async fn take(
        &mut self,
        message: &SaslMessage,
        connection: &Connection<'_>,
        facts: &LoginFacts,
        wait: &Wait<'_>,
    ) -> Result<Next<T>, Refusal> {
        if message.is_first {
            self.give_up();
        }
        match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Idle => self.ask(message, connection, facts, wait, None).await,
            Stage::AwaitResponse { state } => {
                self.ask(message, connection, facts, wait, Some(state))
                    .await
            }
            Stage::AwaitEnd(refusal) => Err(refusal),
            Stage::AwaitEmpty { login, session } => {
                let user = Some(login.login_name().as_str());
                if !message.message.as_bytes().is_empty() {
                    let error = LoginError::SaslMalformed;
                    return Err(directory_refused(user, facts, &error));
                }
                report(user, facts, "ok");
                Ok(Next::In { login, session })
            }
        }
    }

    async fn ask(
        &mut self,
        message: &SaslMessage,
        connection: &Connection<'_>,
        facts: &LoginFacts,
        wait: &Wait<'_>,
        state: Option<String>,
    ) -> Result<Next<T>, Refusal> {
        let request = SaslRequest {
            mechanism: message.mechanism.sasl_name().unwrap_or_default().to_owned(),
            message: Secret::new(BASE64.encode(message.message.as_bytes())),
            state,
            bindings: connection.bindings.iter().map(on_the_wire).collect(),
            certificates: match message.mechanism {
                Mechanism::External => connection
                    .certificates
                    .iter()
                    .map(|one| BASE64.encode(one))
                    .collect(),
                _ => Vec::new(),
            },
            service: facts.service,
            client_address: facts.client.ip().to_canonical(),
            secured: facts.tls.is_some(),
            backend: self.options.backend.clone(),
        };
        let ask = || step(self.directory, &request, wait);
        let answer = until_moved(facts, &mut MoveWait::new(wait), ask).await;
        let granted = match answer.map_err(|error| directory_refused(None, facts, &error))? {
            Answer::Granted(granted) => granted,
            Answer::Challenge { message, state } => {
                self.stage = Stage::AwaitResponse { state };
                return Ok(Next::Say(message));
            }
            Answer::Refused { message } => {
                let refusal = directory_refused(None, facts, &LoginError::BadCredentials);
                self.stage = Stage::AwaitEnd(refusal);
                return Ok(Next::Say(message));
            }
        };
        let name = granted.login.login_name().clone();
        let (user, question) = (Some(name.as_str()), Question::Sasl(&request, granted));
        let (granted, session) =
            open_at_home(self.directory, &question, facts, user, wait, self.open).await?;
        let login = granted.login;
        match granted.last_words {
            Some(octets) => {
                self.stage = Stage::AwaitEmpty { login, session };
                Ok(Next::Say(octets))
            }
            None => {
                report(user, facts, "ok");
                Ok(Next::In { login, session })
            }
        }
    }
}

/// What is known of the connection that a mechanism may go by.
pub(super) struct Connection<'a> {
    pub(super) bindings: &'a [ChannelBinding],
    /// Of the client, its own first.
    pub(super) certificates: &'a [Vec<u8>],
}

/// What the directory says to a step, decoded.
pub(super) enum Answer {
    Challenge { message: Vec<u8>, state: String },
    Refused { message: Vec<u8> },
    Granted(Admission),
}

/// Asks the directory to take one step.
pub(super) async fn step(
    directory: &DirectoryClient,
    request: &SaslRequest,
    wait: &Wait<'_>,
) -> Result<Answer, LoginError> {
    let decoded = |text: &str| {
        let octets = BASE64.decode(text.as_bytes());
        octets.map_err(|_| nonsense("a message that is no base64"))
    };
    Ok(match directory.sasl_unless(request, wait.ends()).await? {
        SaslReply::Challenge { message, state } => Answer::Challenge {
            message: decoded(&message)?,
            state,
        },
        SaslReply::Refused { message } => Answer::Refused {
            message: decoded(&message)?,
        },
        SaslReply::LoggedIn { message, login } => Answer::Granted(Admission {
            login: Entry::Granted(Arc::new(*login)),
            last_words: message.as_deref().map(decoded).transpose()?,
        }),
    })
}

/// Those of the directory's mechanisms that are known here, and of use to a client that connects now.
///
/// While the directory is silent SCRAM is not: a mail program that finds it offered would try nothing else, though the home
/// could check its password if that was shown. The others need no password and have nothing in its place; their clients,
/// which would take a server without them for one that never had them, hear at once to come again.
pub(super) fn offered(names: &[String], is_silent: bool) -> Vec<Mechanism> {
    let known = |name: &String| {
        let named = |mechanism: &Mechanism| mechanism.sasl_name() == Some(name);
        PASSED_ON.into_iter().find(named)
    };
    let is_scram = |mechanism: &Mechanism| {
        matches!(
            mechanism,
            Mechanism::ScramSha256 | Mechanism::ScramSha256Plus
        )
    };
    let known = names.iter().filter_map(known);
    known.filter(|one| !is_silent || !is_scram(one)).collect()
}

fn on_the_wire(binding: &ChannelBinding) -> wire::ChannelBinding {
    wire::ChannelBinding {
        kind: binding.kind.to_owned(),
        data: BASE64.encode(&binding.data),
    }
}

pub(super) fn nonsense(what: &'static str) -> LoginError {
    LoginError::Away(DirectoryError::nonsense(what))
}

/// Whose messages the directory takes.
const PASSED_ON: [Mechanism; 5] = [
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha256,
    Mechanism::OauthBearer,
    Mechanism::XOauth2,
    Mechanism::External,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_the_directory_is_silent_what_a_password_can_stand_in_for_is_not_offered() {
        let names = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-256", "OAUTHBEARER", "NEW"];
        let names = names.map(str::to_owned);
        let scram = [Mechanism::ScramSha256Plus, Mechanism::ScramSha256];
        let all: Vec<_> = scram.into_iter().chain([Mechanism::OauthBearer]).collect();
        assert_eq!(offered(&names, false), all);
        assert_eq!(offered(&names, true), [Mechanism::OauthBearer]);
    }
}
