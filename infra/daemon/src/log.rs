//! Writes the process's log to stderr, one line an event.

use std::{
    error::Error,
    io::{self, IsTerminal},
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people: time, level, target, message, fields.
    #[default]
    Text,
    /// For machines: one JSON object a line.
    Json,
}

crate::settings! {
    /// How a process logs.
    pub struct LogSettings {
        /// What is logged: a level, or `target=level` pairs separated by commas. The variable RUST_LOG wins over it.
        pub filter: String = "info".into(),
        /// "text" for people, "json" for machines.
        pub format: Format = Format::Text,
    }
}

impl crate::config::Settings for LogSettings {
    fn problems(&self) -> Vec<crate::config::Problem> {
        let error = EnvFilter::try_new(&self.filter).err();
        let problem = |error: tracing_subscriber::filter::ParseError| {
            crate::config::Problem::new(
                "filter",
                &self.filter,
                error.to_string(),
                "write it like \"info\"",
            )
        };
        error.map(problem).into_iter().collect()
    }
}

/// Starts logging. Only the first call in a process counts; later ones change nothing.
pub fn init(settings: &LogSettings) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&settings.filter))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // An error here means that a log is set up already, by a test or the process around us.
    _ = match settings.format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
}

/// Writes an error with all of its causes on one line, for the log and for people.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    #[test]
    fn starting_twice_is_harmless_and_a_bad_filter_is_a_problem() {
        init(&LogSettings::default());
        init(&LogSettings {
            format: Format::Json,
            ..LogSettings::default()
        });
        let bad = LogSettings {
            filter: "x=loudly".into(),
            ..LogSettings::default()
        };
        assert_eq!(bad.problems().len(), 1);
    }
}
