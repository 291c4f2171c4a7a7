//! Where the database is and how it is spoken with.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use daemon::config::{Problem, Settings};
use daemon::{dial, identity};
use rustls::RootCertStore;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::PostgresError;

daemon::settings! {
    /// PostgreSQL (15 or newer) as the database, for more than one directory server. Whoever reads it can log in as
    /// anybody: its keys sign grants.
    pub struct PostgresSettings {
        /// Where it is, such as "postgresql://posthouse@db1,db2/posthouse" (of several hosts the one that can be written to)
        /// or "postgresql://posthouse@/posthouse?host=/run/postgresql", without a password. It must be durable: with a
        /// standby that may take over, a synchronous one. Without it the database is LMDB, in the data folder.
        pub url: Option<String> = None,
        /// A file with the password in one line.
        pub password_file: Option<PathBuf> = None,
        /// The certificates (PEM) of who signed the server's. Needed for a server on another machine, and spoken with in TLS on
        /// loopback too if given; on a socket there is no TLS.
        pub tls_ca: Option<PathBuf> = None,
        /// Connections at most; each serves one request at a time. Others wait, reads up to 5 s, writes 1.5 s, imports 10 s.
        pub connections_max: usize = 16,
    }
}

impl Settings for PostgresSettings {
    fn problems(&self) -> Vec<Problem> {
        let Some(url) = &self.url else {
            return Vec::new();
        };
        // What may be a secret is not shown.
        let problem = |problem, remedy| Problem::new("url", "", problem, remedy);
        let url = match url.parse::<Config>() {
            Err(_) => Some(problem(
                "it is no URL of a PostgreSQL database",
                "write it like \"postgresql://posthouse@db1/posthouse\"",
            )),
            Ok(url) if url.get_password().is_some() => Some(problem(
                "it bears a password, which is shown where settings are",
                "write the password into a file and name that as password_file",
            )),
            Ok(url) if url.get_hosts().is_empty() && url.get_hostaddrs().is_empty() => {
                Some(problem(
                    "it names no host",
                    "name one, or the folder of the server's socket: \"postgresql://posthouse@/posthouse?host=/run/postgresql\"",
                ))
            }
            Ok(url) if self.tls_ca.is_none() && !is_near(&url) => Some(problem(
                "the database is on another machine, and there is no tls_ca",
                "name the certificate of who signed the database's",
            )),
            Ok(_) => None,
        };
        // Each is used from a thread, of which there are 512.
        let connections = Problem::outside("connections_max", &self.connections_max, 1..=256);
        url.into_iter().chain(connections).collect()
    }
}

/// Whether nobody else can listen on the way there.
fn is_near(url: &Config) -> bool {
    let near = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
        }
    };
    url.get_hosts().iter().all(near) && url.get_hostaddrs().iter().all(IpAddr::is_loopback)
}

/// How to connect to each host. Blocking.
pub(super) fn prepare(
    settings: &PostgresSettings,
) -> Result<(Vec<Config>, MakeRustlsConnect), PostgresError> {
    let url = settings.url.as_deref().unwrap_or_default();
    let mut config: Config = url.parse().map_err(|_| PostgresError::Url)?;
    if let Some(path) = &settings.password_file {
        let text = fs::read_to_string(path).map_err(|source| PostgresError::File {
            path: path.clone(),
            source: source.into(),
        })?;
        config.password(text.trim_end_matches(['\r', '\n']));
    }
    let tls = tls(settings)?;
    let count = config.get_hosts().len().max(config.get_hostaddrs().len());
    let hosts = (0..count).map(|number| one_host(&config, number, settings.tls_ca.is_some()));
    Ok((hosts.collect(), tls))
}

fn one_host(config: &Config, number: usize, has_tls: bool) -> Config {
    let mut one = Config::new();
    let host = config.get_hosts().get(number);
    match host {
        Some(Host::Tcp(name)) => one.host(name),
        Some(Host::Unix(path)) => one.host_path(path),
        None => &mut one,
    };
    if let Some(ip) = config.get_hostaddrs().get(number) {
        one.hostaddr(*ip);
    }
    let ports = config.get_ports();
    if let Some(port) = ports.get(number).or(ports.first()) {
        one.port(*port);
    }
    if let Some(user) = config.get_user() {
        one.user(user);
    }
    if let Some(password) = config.get_password() {
        one.password(password);
    }
    if let Some(name) = config.get_dbname() {
        one.dbname(name);
    }
    // The server has no TLS on a socket.
    let ssl_mode = match has_tls && !matches!(host, Some(Host::Unix(_))) {
        true => SslMode::Require,
        false => SslMode::Disable,
    };
    let options = [config.get_options().unwrap_or_default(), OPTIONS].join(" ");
    one.options(options.trim())
        .application_name("posthouse directory")
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .channel_binding(config.get_channel_binding())
        .tcp_user_timeout(SILENCE_MAX)
        .keepalives_idle(SILENCE_MAX / 2)
        .keepalives_interval(SILENCE_MAX / 4)
        .keepalives_retries(2)
        .ssl_mode(ssl_mode);
    one
}

fn tls(settings: &PostgresSettings) -> Result<MakeRustlsConnect, PostgresError> {
    let roots = match &settings.tls_ca {
        Some(path) => identity::authorities(path).map_err(|error| PostgresError::File {
            path: path.clone(),
            source: error.into(),
        })?,
        None => RootCertStore::empty(),
    };
    Ok(MakeRustlsConnect::new(dial::config(roots)))
}

/// Everything is asked for by its key: a plan that reads a whole table is never right, whatever the statistics of a
/// table that has just been filled say. The price at which that is forbidden would have every statement on a small table
/// compiled (some 50 ms). A writer that hangs lets the others go on after a while; who waits for it is refused before
/// its caller gives up (2 s).
const OPTIONS: &str = "-c enable_seqscan=off -c jit=off -c lock_timeout=1500ms -c statement_timeout=15s \
    -c idle_in_transaction_session_timeout=15s -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 \
    -c tcp_keepalives_count=2";

/// A server that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn problems(url: &str, tls_ca: Option<&str>) -> Vec<String> {
        let settings = PostgresSettings {
            url: Some(url.to_owned()),
            tls_ca: tls_ca.map(PathBuf::from),
            ..PostgresSettings::default()
        };
        let problems = settings.problems();
        assert!(!format!("{problems:?}").contains("secret"));
        problems
            .into_iter()
            .map(|one| one.problem.into_owned())
            .collect()
    }

    #[test]
    fn a_password_in_the_url_and_an_open_way_to_another_machine_are_refused() {
        for near in [
            "postgresql://posthouse@127.0.0.1/posthouse",
            "postgresql://posthouse@localhost:5433,[::1]/posthouse",
            "postgresql://posthouse@/posthouse?host=/run/postgresql",
        ] {
            assert_eq!(problems(near, None), [""; 0], "{near}");
        }
        let far = "postgresql://posthouse@db1,db2/posthouse";
        assert!(problems(far, None)[0].contains("another machine"));
        assert_eq!(problems(far, Some("ca.pem")), [""; 0]);
        let one_far = "postgresql://posthouse@localhost,db2/posthouse";
        assert!(problems(one_far, None)[0].contains("another machine"));
        let told = "postgresql://posthouse:secret@localhost/posthouse";
        assert!(problems(told, None)[0].contains("password"));
        assert!(problems("secret://x", None)[0].contains("no URL"));
        assert!(problems("postgresql:///posthouse", None)[0].contains("no host"));
    }

    #[test]
    fn of_several_hosts_each_is_spoken_with_in_its_own_way() {
        let several = "postgresql://posthouse@db1:1,%2Frun%2Fpostgresql:2,db3:3/posthouse".parse();
        let several = several.unwrap();
        let each: Vec<_> = (0..3)
            .map(|number| one_host(&several, number, true))
            .collect();
        let of = |get: fn(&Config) -> String| each.iter().map(get).collect::<Vec<_>>();
        assert_eq!(
            of(|one| format!("{:?}", one.get_ports())),
            ["[1]", "[2]", "[3]"]
        );
        assert_eq!(
            each.iter().map(Config::get_ssl_mode).collect::<Vec<_>>(),
            [SslMode::Require, SslMode::Disable, SslMode::Require]
        );
        assert!(each.iter().all(|one| one.get_hosts().len() == 1));
        assert!(each.iter().all(|one| one.get_dbname() == Some("posthouse")));
    }

    #[test]
    fn the_password_is_the_files_line_and_is_not_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "secret word\n").unwrap();
        let settings = PostgresSettings {
            url: Some("postgresql://posthouse@localhost/posthouse".to_owned()),
            password_file: Some(file.path().to_owned()),
            ..PostgresSettings::default()
        };
        let (hosts, _) = prepare(&settings).unwrap();
        let [config] = hosts.as_slice() else {
            panic!("{} hosts", hosts.len());
        };
        assert_eq!(config.get_password(), Some(b"secret word".as_slice()));
        assert!(!format!("{config:?}").contains("secret"));
        assert_eq!(config.get_ssl_mode(), SslMode::Disable);
    }
}
