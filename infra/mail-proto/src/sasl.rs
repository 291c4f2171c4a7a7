//! The SASL mechanisms PLAIN (RFC 4616) and LOGIN, the server's side.

use data_encoding::BASE64;

use crate::login::Mechanism;
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
}

impl Exchange {
    /// Begins the mechanism of this name, if there is one.
    pub fn start(mechanism: &str) -> Option<Self> {
        if mechanism.eq_ignore_ascii_case("PLAIN") {
            Some(Self::AwaitPlain)
        } else if mechanism.eq_ignore_ascii_case("LOGIN") {
            Some(Self::AwaitUser)
        } else {
            None
        }
    }

    /// What to send (in base64 already) to get the awaited response.
    pub fn challenge(&self) -> &'static str {
        match self {
            Self::AwaitPlain => "",
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

    fn plain(response: &[u8]) -> Result<(String, Vec<u8>), SaslError> {
        match Exchange::AwaitPlain.respond(BASE64.encode(response).as_bytes())? {
            Progress::Done { user, password, .. } => Ok((user, password.as_bytes().to_vec())),
            Progress::Continue(_) => unreachable!("PLAIN has one response"),
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
        let Progress::Continue(exchange) =
            Exchange::start("login").unwrap().respond(b"am9l").unwrap()
        else {
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
