//! SASL exchanges (RFC 4422), the server's side: PLAIN (RFC 4616) and LOGIN, and the framing of
//! mechanisms that somebody else decides, message by message.

use data_encoding::BASE64;

use crate::login::{Config, Mechanism};
use crate::password::{Password, wipe};

/// Longest response in base64. DESIGN §13.
pub const RESPONSE_MAX: usize = 64 * 1024;
/// Longest user name. DESIGN §13.
pub const USER_MAX: usize = 512;
/// Longest password. DESIGN §13.
pub const PASSWORD_MAX: usize = 1024;

/// Why an exchange failed before anybody was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SaslError {
    /// The client sent `*`.
    #[error("cancelled by the client")]
    Cancelled,
    /// Not base64.
    #[error("not base64")]
    Encoding,
    /// The response has another form than the mechanism says, a control
    /// character in the user name, or an empty part.
    #[error("malformed response")]
    Syntax,
    /// User name or password over their limits.
    #[error("user name or password too long")]
    TooLong,
    /// The client wants to act as somebody else.
    #[error("authorisation identity is not the user")]
    ActingAs,
}

/// An exchange that awaits the client's next response.
#[derive(Debug, PartialEq, Eq)]
pub enum Exchange {
    /// PLAIN.
    AwaitPlain,
    /// LOGIN, user name.
    AwaitUser,
    /// LOGIN, password.
    AwaitPassword {
        /// The user name sent before, decoded and unchecked.
        user: Vec<u8>,
    },
    /// Another mechanism, the client's next message. The client speaks first in all of them.
    AwaitMessage {
        /// Which.
        mechanism: Mechanism,
        /// Whether nothing has been said yet.
        is_first: bool,
    },
}

/// What a response leads to.
#[derive(Debug)]
pub enum Progress {
    /// Send [`Exchange::challenge`] and go on.
    Continue(Exchange),
    /// All is said.
    Done {
        /// User name.
        user: String,
        /// Password.
        password: Password,
        /// By which mechanism.
        mechanism: Mechanism,
    },
    /// Somebody else takes the message.
    Message {
        /// Of which mechanism.
        mechanism: Mechanism,
        /// Whether it is the first one.
        is_first: bool,
        /// Decoded.
        message: Password,
    },
}

impl Exchange {
    /// Begins the mechanism of this name, if it is offered.
    pub fn start(name: &str, config: &Config) -> Option<Self> {
        let mut offered = config.offered();
        let (mechanism, _) = offered.find(|(_, known)| known.eq_ignore_ascii_case(name))?;
        Some(match mechanism {
            Mechanism::Plain => Self::AwaitPlain,
            Mechanism::Login => Self::AwaitUser,
            mechanism => Self::AwaitMessage {
                mechanism,
                is_first: true,
            },
        })
    }

    /// Whether somebody else has taken a message of it, and is to hear when it ends here.
    pub(crate) fn is_passed_on(&self) -> bool {
        matches!(
            self,
            Self::AwaitMessage {
                is_first: false,
                ..
            }
        )
    }

    /// What to send (in base64 already) to get the awaited response.
    pub fn challenge(&self) -> &'static str {
        match self {
            Self::AwaitPlain | Self::AwaitMessage { .. } => "",
            // "Username:" and "Password:", as every client of LOGIN expects.
            Self::AwaitUser => "VXNlcm5hbWU6",
            Self::AwaitPassword { .. } => "UGFzc3dvcmQ6",
        }
    }

    /// Takes an initial response, where `=` stands for an empty one.
    ///
    /// # Errors
    /// As [`Exchange::respond`].
    pub fn respond_initially(self, base64: &[u8]) -> Result<Progress, SaslError> {
        self.respond(if base64 == b"=" { b"" } else { base64 })
    }

    /// Takes a response, a line without its CRLF.
    ///
    /// # Errors
    /// Any [`SaslError`]; the exchange is over then.
    pub fn respond(self, base64: &[u8]) -> Result<Progress, SaslError> {
        if base64 == b"*" {
            return Err(SaslError::Cancelled);
        }
        if base64.len() > RESPONSE_MAX {
            return Err(SaslError::TooLong);
        }
        let mut response = BASE64.decode(base64).map_err(|_| SaslError::Encoding)?;
        if let Self::AwaitMessage {
            mechanism,
            is_first,
        } = self
        {
            return Ok(Progress::Message {
                mechanism,
                is_first,
                message: Password::new(response),
            });
        }
        let progress = self.take(&response);
        wipe(&mut response);
        progress
    }

    fn take(self, response: &[u8]) -> Result<Progress, SaslError> {
        match self {
            Self::AwaitPlain => {
                let mut parts = response.splitn(3, |octet| *octet == 0);
                let (Some(acting_as), Some(user), Some(password)) =
                    (parts.next(), parts.next(), parts.next())
                else {
                    return Err(SaslError::Syntax);
                };
                let (name, password) = checked(user, password)?;
                if !acting_as.is_empty() && acting_as != user {
                    return Err(SaslError::ActingAs);
                }
                Ok(Progress::Done {
                    user: name,
                    password,
                    mechanism: Mechanism::Plain,
                })
            }
            Self::AwaitUser if response.len() > USER_MAX => Err(SaslError::TooLong),
            Self::AwaitUser => Ok(Progress::Continue(Self::AwaitPassword {
                user: response.to_vec(),
            })),
            Self::AwaitPassword { user } => {
                let (user, password) = checked(&user, response)?;
                Ok(Progress::Done {
                    user,
                    password,
                    mechanism: Mechanism::Login,
                })
            }
            Self::AwaitMessage { .. } => unreachable!("it is passed on as it is"),
        }
    }
}

/// Checks a user name and a password, however they were sent. An empty
/// password is refused here: some verifiers (LDAP) take it for an anonymous
/// log-in that succeeds.
pub(crate) fn checked(user: &[u8], password: &[u8]) -> Result<(String, Password), SaslError> {
    if user.len() > USER_MAX || password.len() > PASSWORD_MAX {
        return Err(SaslError::TooLong);
    }
    let user = std::str::from_utf8(user).map_err(|_| SaslError::Syntax)?;
    if user.is_empty()
        || user.chars().any(char::is_control)
        || password.is_empty()
        || password.contains(&0)
    {
        return Err(SaslError::Syntax);
    }
    Ok((user.to_owned(), Password::new(password.to_vec())))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::login::Tls;

    fn plain(response: &[u8]) -> Result<(String, Vec<u8>), SaslError> {
        match Exchange::AwaitPlain.respond(BASE64.encode(response).as_bytes())? {
            Progress::Done { user, password, .. } => Ok((user, password.as_bytes().to_vec())),
            _ => unreachable!("PLAIN has one response"),
        }
    }

    #[test]
    fn plain_allows_nobody_to_act_as_another() {
        let joe = Ok(("joe".to_owned(), b"secret".to_vec()));
        assert_eq!(plain(b"\0joe\0secret"), joe);
        assert_eq!(plain(b"joe\0joe\0secret"), joe);
        assert_eq!(plain(b"root\0joe\0secret"), Err(SaslError::ActingAs));
    }

    #[test]
    fn plain_refuses_what_is_malformed() {
        for response in [
            &b""[..],
            b"joe",
            b"\0joe",
            b"\0\0secret",
            b"\0joe\0",
            b"\0joe\0a\0b",
            b"\0j\xff\0s",
            b"\0j\n\0s",
        ] {
            assert_eq!(plain(response), Err(SaslError::Syntax), "{response:?}");
        }
        assert_eq!(
            Exchange::AwaitPlain.respond(b"?").unwrap_err(),
            SaslError::Encoding
        );
        assert_eq!(
            Exchange::AwaitPlain.respond(b"*").unwrap_err(),
            SaslError::Cancelled
        );
    }

    #[test]
    fn names_and_passwords_are_kept_at_the_limit_and_refused_one_above() {
        let sent = |user: usize, password: usize| {
            plain(
                &[
                    &b"\0"[..],
                    &b"u".repeat(user),
                    b"\0",
                    &b"p".repeat(password),
                ]
                .concat(),
            )
        };
        assert!(sent(511, 1023).is_ok());
        assert!(sent(512, 1024).is_ok());
        assert_eq!(sent(513, 1024).unwrap_err(), SaslError::TooLong);
        assert_eq!(sent(512, 1025).unwrap_err(), SaslError::TooLong);
        assert_eq!(
            Exchange::AwaitPlain
                .respond(&[b'A'; RESPONSE_MAX + 1])
                .unwrap_err(),
            SaslError::TooLong
        );
    }

    #[test]
    fn login_asks_for_the_name_and_then_for_the_password() {
        let config = Config::new("mail.test", Tls::Active);
        let exchange = Exchange::start("login", &config).unwrap();
        let Progress::Continue(exchange) = exchange.respond(b"am9l").unwrap() else {
            unreachable!("LOGIN has two responses")
        };
        assert_eq!(exchange.challenge(), "UGFzc3dvcmQ6");
        let Progress::Done {
            user,
            password,
            mechanism,
        } = exchange.respond(b"c2VjcmV0").unwrap()
        else {
            unreachable!("LOGIN has two responses")
        };
        assert_eq!(
            (user.as_str(), password.as_bytes(), mechanism),
            ("joe", &b"secret"[..], Mechanism::Login)
        );
    }

    #[test]
    fn a_password_never_prints() {
        let shown = format!("{:?}", checked(b"joe", b"secret").unwrap());
        assert!(
            !shown.contains("secret") && !shown.contains("115"),
            "{shown}"
        );
    }
}
