//! Reads settings from a file and the environment, and lists everything that is wrong with them at once.

use std::{fmt, fs, path::Path};

use config::{Environment, File, FileFormat, Map, Value as Given, ValueKind};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Fields, Problem, Secret, Settings};

/// Everything that keeps a settings file from being used, one line each: `file: key: what is wrong: what to do`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    lines: Vec<String>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines.join("\n"))
    }
}

/// Reads settings from a TOML file; variables `<env_prefix>__<SECTION>__<KEY>` win over it.
///
/// # Errors
/// The file cannot be read or is no TOML; otherwise every unknown key, wrong type and [`Settings::problems`] together.
pub fn load<T: Settings>(path: &Path, env_prefix: &str) -> Result<T, ConfigError> {
    // Read by hand, as a variable that is not UTF-8 and not ours must not stop the process.
    let prefix = format!("{env_prefix}__");
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with(&prefix))
        .collect();
    load_with(path, env_prefix, environment)
}

fn load_with<T: Settings>(
    path: &Path,
    env_prefix: &str,
    environment: Map<String, String>,
) -> Result<T, ConfigError> {
    let file = path.display();
    let one = |line: String| ConfigError { lines: vec![line] };
    let text = fs::read_to_string(path).map_err(|error| {
        one(format!(
            "{file}: cannot be read: {error}: name the right file with --config, or write one with --print-sample-config"
        ))
    })?;
    let merged = config::Config::builder()
        .add_source(File::from_str(&text, FileFormat::Toml))
        .add_source(
            Environment::with_prefix(env_prefix)
                .prefix_separator("__")
                .separator("__")
                .source(Some(environment)),
        )
        .build()
        .map_err(|error| {
            one(format!(
                "{file}: is not TOML: {}: correct that line",
                error.to_string().trim()
            ))
        })?;
    let all = merged.cache;
    let table = all.clone().into_table().unwrap_or_default();

    let mut problems = Vec::new();
    let mut reader = FieldReader {
        table,
        prefix: String::new(),
        problems: &mut problems,
    };
    let settings = T::read(&mut reader, T::default());
    reader.finish::<T>();
    problems.extend(settings.problems());
    if problems.is_empty() {
        return Ok(settings);
    }
    let location = |key: &str| {
        if written_in_environment(&all, key) {
            let variable = key.replace('.', "__").to_uppercase();
            format!("environment: {env_prefix}__{variable}")
        } else {
            format!("{file}: {key}")
        }
    };
    let lines = problems.iter().map(|p| {
        let value = if p.value.is_empty() {
            String::new()
        } else {
            format!(" ({})", p.value)
        };
        format!("{}: {}{value}: {}", location(&p.key), p.problem, p.remedy)
    });
    Err(ConfigError {
        lines: lines.collect(),
    })
}

/// Follows a dotted key as far as it goes and tells where that value came from.
fn written_in_environment(all: &Given, key: &str) -> bool {
    let mut at = all;
    for part in key.split('.') {
        match &at.kind {
            ValueKind::Table(table) => match table.get(part) {
                Some(inner) => at = inner,
                None => return false,
            },
            _ => break,
        }
    }
    from_environment(at)
}

fn from_environment(given: &Given) -> bool {
    match &given.kind {
        // A section that only variables have made carries no origin itself.
        ValueKind::Table(table) => !table.is_empty() && table.values().all(from_environment),
        _ => given.origin() == Some("the environment"),
    }
}

/// Takes the fields of one section out of what was given and remembers everything that is wrong.
#[doc(hidden)]
pub struct FieldReader<'a> {
    table: Map<String, Given>,
    prefix: String,
    problems: &'a mut Vec<Problem>,
}

impl FieldReader<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn plain<T: DeserializeOwned + Serialize>(&mut self, name: &str, default: T) -> T {
        let Some(given) = self.table.remove(name) else {
            return default;
        };
        let typeless = from_environment(&given);
        let value = to_json(given);
        let as_text = value.as_str().map(ToOwned::to_owned);
        let error = match serde_json::from_value(value) {
            Ok(read) => return read,
            Err(error) => error,
        };
        if let Some(text) = as_text.filter(|_| typeless)
            && let Ok(read) = serde_json::from_str(&text)
        {
            return read;
        }
        let secret = std::any::type_name::<T>().contains(std::any::type_name::<Secret>());
        let problem = if secret {
            "is not a text in quotes".into()
        } else {
            error.to_string()
        };
        let remedy = match serde_json::to_value(&default) {
            Ok(example) if !secret && !example.is_null() => format!("write it like {example}"),
            _ => "see --print-sample-config".to_owned(),
        };
        self.problems
            .push(Problem::new(self.key(name), "", problem, remedy));
        default
    }

    pub(super) fn section<T: Settings>(&mut self, name: &str, default: T) -> T {
        let prefix = format!("{}{name}.", self.prefix);
        let read = match self.table.remove(name).map(|given| given.kind) {
            None => default,
            Some(ValueKind::Table(table)) => {
                let mut inner = FieldReader {
                    table,
                    prefix: prefix.clone(),
                    problems: self.problems,
                };
                let read = T::read(&mut inner, default);
                inner.finish::<T>();
                read
            }
            Some(_) => {
                let key = self.key(name);
                let remedy = format!("write it as a section [{key}]");
                self.problems
                    .push(Problem::new(key, "", "is a section, not one value", remedy));
                default
            }
        };
        self.problems
            .extend(read.problems().into_iter().map(|problem| Problem {
                key: format!("{prefix}{}", problem.key),
                ..problem
            }));
        read
    }

    /// Complains about every key that no field has taken.
    fn finish<T: Fields>(self) {
        let known: Vec<_> = T::fields().iter().map(|field| field.name).collect();
        let mut unknown: Vec<_> = self.table.keys().cloned().collect();
        unknown.sort();
        for name in unknown {
            let near = known.iter().min_by_key(|known| distance(known, &name));
            let remedy = match near {
                Some(near) if distance(near, &name) <= 2 => format!("did you mean {near}?"),
                _ => format!("remove it; known here: {}", known.join(", ")),
            };
            let key = format!("{}{name}", self.prefix);
            self.problems
                .push(Problem::new(key, "", "is not a setting", remedy));
        }
    }
}

fn to_json(given: Given) -> Value {
    match given.kind {
        ValueKind::Nil => Value::Null,
        ValueKind::Boolean(value) => value.into(),
        ValueKind::I64(value) => value.into(),
        ValueKind::U64(value) => value.into(),
        // Beyond 64 bits nothing of ours is in range: the text makes the type check fail with the number in it.
        ValueKind::I128(value) => value.to_string().into(),
        ValueKind::U128(value) => value.to_string().into(),
        ValueKind::Float(value) => value.into(),
        ValueKind::String(value) => value.into(),
        ValueKind::Table(table) => Value::Object(
            table
                .into_iter()
                .map(|(key, inner)| (key, to_json(inner)))
                .collect(),
        ),
        ValueKind::Array(items) => items.into_iter().map(to_json).collect(),
    }
}

/// Counts the single-letter edits between two names (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    daemon::settings! {
        /// One listener.
        struct Listener {
            /// Where it listens.
            address: std::net::SocketAddr = ([127, 0, 0, 1], 25).into(),
            /// Connections at most.
            ///
            /// 1 to 1000.
            connections_max: u32 = 50,
        }
    }
    impl Settings for Listener {
        fn problems(&self) -> Vec<Problem> {
            Problem::outside("connections_max", &self.connections_max, 1..=1000)
                .into_iter()
                .collect()
        }
    }

    daemon::settings! {
        /// A process.
        struct Config {
            /// Its name, "quoted" in places.
            name: String = "a \"b\"\n".into(),
            /// SMTP for strangers.
            smtp: Listener = Listener { connections_max: 7, ..Listener::default() },
            /// Left out by default.
            relay: Option<String> = None,
            /// Exempt networks.
            exempt: Vec<String> = vec!["127.0.0.0/8".into()],
            /// A share.
            share: f64 = 0.5,
            /// Verbose.
            verbose: bool = false,
            /// Shared with the other side.
            password: Secret = Secret::default(),
        }
    }
    impl Settings for Config {
        fn problems(&self) -> Vec<Problem> {
            Problem::outside("share", &self.share, 0.0..=1.0)
                .into_iter()
                .collect()
        }
    }

    fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.toml");
        fs::write(&path, text).unwrap();
        let environment = variables
            .iter()
            .map(|(k, v)| ((*k).into(), (*v).into()))
            .collect();
        load_with(&path, "TIER", environment).map_err(|error| {
            error
                .to_string()
                .replace(&folder.path().display().to_string(), "")
        })
    }

    #[test]
    fn the_sample_is_read_back_as_the_default() {
        let sample = Config::sample();
        let read = read(&sample, &[]).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", Config::default()));
        for expected in [
            "# Its name, \"quoted\" in places.",
            "[smtp]",
            "# relay =",
            "#\n# 1 to 1000.\nconnections_max = 7",
        ] {
            assert!(sample.contains(expected), "{expected} in\n{sample}");
        }
    }

    #[test]
    fn everything_wrong_is_listed_with_file_and_key() {
        let text = "name = 3\nshare = 2\nverbos = true\npassword = 77\nzzzzzz = 1\n\
                    [smtp]\naddress = \"nowhere\"\nconnections_max = 0\nconections_max = 4\n";
        let errors = read(text, &[]).unwrap_err();
        let lines: Vec<_> = errors.lines().collect();
        assert_eq!(
            lines,
            [
                "/t.toml: name: invalid type: integer `3`, expected a string: write it like \"a \\\"b\\\"\\n\"",
                "/t.toml: smtp.address: invalid socket address syntax: write it like \"127.0.0.1:25\"",
                "/t.toml: smtp.conections_max: is not a setting: did you mean connections_max?",
                "/t.toml: smtp.connections_max: out of range (0): choose 1 to 1000",
                "/t.toml: password: is not a text in quotes: see --print-sample-config",
                "/t.toml: verbos: is not a setting: did you mean verbose?",
                "/t.toml: zzzzzz: is not a setting: remove it; known here: name, smtp, relay, exempt, share, verbose, password",
                "/t.toml: share: out of range (2): choose 0 to 1",
            ]
        );
    }

    #[test]
    fn a_number_in_quotes_is_refused_in_the_file_and_taken_from_the_environment() {
        let errors = read("[smtp]\nconnections_max = \"25\"\n", &[]).unwrap_err();
        assert_eq!(
            errors,
            "/t.toml: smtp.connections_max: invalid type: string \"25\", expected u32: write it like 7"
        );
        let config = read(
            "name = \"x\"\n",
            &[
                ("TIER__SMTP__CONNECTIONS_MAX", "25"),
                ("TIER__NAME", "42"),
                ("TIER__VERBOSE", "true"),
                ("TIER__EXEMPT", "[\"::1/128\"]"),
                ("TIER__RELAY", "smart:25"),
            ],
        )
        .unwrap();
        assert_eq!(config.smtp.connections_max, 25);
        assert_eq!(config.name, "42");
        assert!(config.verbose);
        assert_eq!(config.exempt, ["::1/128"]);
        assert_eq!(config.relay.as_deref(), Some("smart:25"));
    }

    #[test]
    fn a_wrong_variable_is_named_as_a_variable() {
        let errors = read(
            "",
            &[
                ("TIER__SMTP__CONNECTIONS_MAX", "5000"),
                ("TIER__SMPT__X", "1"),
            ],
        )
        .unwrap_err();
        let lines: Vec<_> = errors.lines().collect();
        assert_eq!(
            lines,
            [
                "environment: TIER__SMTP__CONNECTIONS_MAX: out of range (5000): choose 1 to 1000",
                "environment: TIER__SMPT: is not a setting: did you mean smtp?",
            ]
        );
    }

    #[test]
    fn a_section_given_as_a_value_and_a_file_that_is_no_toml_are_refused() {
        assert_eq!(
            read("smtp = 1\n", &[]).unwrap_err(),
            "/t.toml: smtp: is a section, not one value: write it as a section [smtp]"
        );
        let errors = read("name = \n", &[]).unwrap_err();
        assert!(errors.starts_with("/t.toml: is not TOML: "), "{errors}");
        let error = load::<Config>(Path::new("/nonexistent/t.toml"), "TIER")
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("/nonexistent/t.toml: cannot be read: "),
            "{error}"
        );
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret::new("hunter2".into());
        assert_eq!(
            format!("{secret:?} {}", secret.reveal()),
            "(secret) hunter2"
        );
    }
}
