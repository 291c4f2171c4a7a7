//! Settings of a process: declared once with their documentation, read from a file and the environment, checked whole.
//!
//! ```
//! daemon::settings! {
//!     /// The MX front-end.
//!     pub struct Config {
//!         /// Where SMTP is listened for.
//!         pub smtp_listen: String = "127.0.0.1:2525".into(),
//!         /// Certificates of this process.
//!         pub identity: daemon::identity::IdentityFiles = Default::default(),
//!     }
//! }
//! impl daemon::config::Settings for Config {}
//! ```
//!
//! A field whose type was itself made by [`settings!`](crate::settings) is a section of the file. An `Option` that is
//! `None` by default may be left out. Values from the file keep their type (`"25"` is no number); a value from the
//! environment has none, so it is taken as text first and then as a number, truth value or JSON list.

mod declare;
mod read;
mod sample;

#[doc(hidden)]
pub use declare::{AsPlain, AsSection, Field, Fields, Probe};
#[doc(hidden)]
pub use read::FieldReader;
pub use read::{ConfigError, load};
#[doc(hidden)]
pub use serde;

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// All settings of one process, or one section of them.
pub trait Settings: Fields + DeserializeOwned + Default + Serialize {
    /// Gives a complete settings file with every setting's documentation and default.
    #[must_use]
    fn sample() -> String {
        sample::sample::<Self>()
    }

    /// Lists what is wrong with values that have the right type: ranges, contradictions. Keys are relative to this section.
    fn problems(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Gives how this process wants to log. [`tier::main`](crate::tier::main) asks for it.
    fn log(&self) -> crate::log::LogSettings {
        crate::log::LogSettings::default()
    }

    /// Gives how many threads serve connections, of a machine with so many cores: one at least.
    fn connection_threads(&self, cores: usize) -> usize {
        cores
    }
}

/// One setting that is wrong, for the person who edits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The dotted name of the setting.
    pub key: String,
    /// The value as given; leave it empty for secrets.
    pub value: String,
    /// What is wrong with it.
    pub problem: Cow<'static, str>,
    /// What to do.
    pub remedy: Cow<'static, str>,
}

impl Problem {
    /// Describes one wrong value.
    pub fn new(
        key: impl Into<String>,
        value: impl fmt::Display,
        problem: impl Into<Cow<'static, str>>,
        remedy: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            key: key.into(),
            value: value.to_string(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// Complains when `value` is outside `range`, both ends allowed.
    pub fn outside<T: PartialOrd + fmt::Display>(
        key: &str,
        value: &T,
        range: std::ops::RangeInclusive<T>,
    ) -> Option<Self> {
        (!range.contains(value)).then(|| {
            let (low, high) = range.into_inner();
            Self::new(
                key,
                value,
                "out of range",
                format!("choose {low} to {high}"),
            )
        })
    }
}

/// A password or key among the settings: never printed, not even by `Debug`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// Shows the text to the code that needs it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
