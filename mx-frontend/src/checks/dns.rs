//! Look-ups in the DNS, for all sessions: bounded in time, in number and in memory.
//!
//! The library keeps answers, positive and negative, for as long as they say. Above it, whoever asks the same at the same time asks
//! once, and what nobody could say is not asked again for a moment, so that a dead server costs each name one wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use moka::future::Cache;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::config::DnsSettings;
use crate::meter;

/// What the DNS says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    /// Records of the type asked for; some at least, and only so many.
    Found(Arc<[RData]>),
    /// There is none.
    Nothing,
    /// Nobody can say now.
    Unknown,
}

/// Asks the servers of the settings, or those of this machine.
pub(super) struct Dns {
    /// None: there is nobody to be asked.
    resolver: Option<TokioResolver>,
    asked: Cache<(Name, RecordType), Answer>,
    turns: Semaphore,
    timeout: Duration,
}

impl Dns {
    pub(super) fn new(settings: &DnsSettings) -> Self {
        let mut options = ResolverOpts::default();
        // An answer that is lost is asked for once more in the same time.
        options.timeout = settings.lookup_timeout() / 2;
        options.attempts = 1;
        options.cache_size = settings.cache_entries_max;
        options.positive_max_ttl = Some(Duration::from_secs(settings.ttl_max_s));
        options.negative_max_ttl = Some(Duration::from_secs(settings.negative_ttl_max_s));
        options.use_hosts_file = ResolveHosts::Never;
        let built = config(&settings.servers).and_then(|config| {
            let provider = TokioRuntimeProvider::default();
            let builder = TokioResolver::builder_with_config(config, provider);
            builder.with_options(options).build()
        });
        if let Err(error) = &built {
            warn!(%error, "no DNS server is known: checks that need one find nothing; set `checks.dns.servers`");
        }
        Self {
            resolver: built.ok(),
            asked: Cache::builder()
                .max_capacity(settings.cache_entries_max)
                .time_to_live(ASKED_ONCE)
                .build(),
            turns: Semaphore::new(LOOKUPS_MAX),
            timeout: settings.lookup_timeout(),
        }
    }

    /// Looks a name up. It is taken for a full one, whether it ends with a dot or not.
    pub(super) async fn ask(&self, name: &str, kind: RecordType) -> Answer {
        let Ok(mut name) = Name::from_ascii(name) else {
            return Answer::Nothing;
        };
        name.set_fqdn(true);
        self.ask_name(name.to_lowercase(), kind).await
    }

    /// The same of a name that is one.
    pub(super) async fn ask_name(&self, name: Name, kind: RecordType) -> Answer {
        let look_up = Box::pin(self.look_up(name.clone(), kind));
        self.asked.get_with((name, kind), look_up).await
    }

    /// The resolver for what takes several look-ups, one after the other; they count as one.
    pub(super) async fn for_several(&self) -> Option<(&TokioResolver, SemaphorePermit<'_>)> {
        let resolver = self.resolver.as_ref()?;
        Some((resolver, self.turns.acquire().await.ok()?))
    }

    async fn look_up(&self, name: Name, kind: RecordType) -> Answer {
        let Some(resolver) = &self.resolver else {
            return Answer::Unknown;
        };
        let began = Instant::now();
        let looking = async {
            let _turn = self.turns.acquire().await;
            resolver.lookup(name.clone(), kind).await
        };
        let looked = match timeout(self.timeout, looking).await {
            Ok(looked) => looked,
            Err(_) => Err(NetError::Timeout),
        };
        let answer = match looked {
            Ok(lookup) => {
                let records = lookup.answers().iter().map(|record| &record.data);
                let wanted = records.filter(|data| data.record_type() == kind);
                let found: Arc<[RData]> = wanted.take(RECORDS_MAX).cloned().collect();
                if found.is_empty() {
                    Answer::Nothing
                } else {
                    Answer::Found(found)
                }
            }
            Err(error) if is_none(&error) => Answer::Nothing,
            Err(error) => {
                debug!(%name, ?kind, %error, "DNS gives no answer");
                Answer::Unknown
            }
        };
        let result = match &answer {
            Answer::Found(_) => "found",
            Answer::Nothing => "nothing",
            Answer::Unknown => "unknown",
        };
        meter::dns_lookup(result, began.elapsed());
        answer
    }
}

impl std::fmt::Debug for Dns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dns").finish_non_exhaustive()
    }
}

/// Whether a server that may say so says that there is nothing.
fn is_none(error: &NetError) -> bool {
    let NetError::Dns(DnsError::NoRecordsFound(none)) = error else {
        return false;
    };
    matches!(
        none.response_code,
        ResponseCode::NXDomain | ResponseCode::NoError
    )
}

fn config(servers: &[SocketAddr]) -> Result<ResolverConfig, NetError> {
    if servers.is_empty() {
        return read_system_conf().map(|(config, _)| config);
    }
    let servers = servers.iter().map(|address| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = address.port();
        }
        NameServerConfig::new(address.ip(), true, connections)
    });
    Ok(ResolverConfig::from_name_servers(servers.collect()))
}

/// How long an answer is given again without asking the library, which knows how long it is good.
const ASKED_ONCE: Duration = Duration::from_secs(1);
/// Look-ups at once; each takes a file descriptor. Those beyond wait within their time.
const LOOKUPS_MAX: usize = 256;
/// What is looked at of one answer. RFC 1035 sets no limit, and no list or host name needs as many.
const RECORDS_MAX: usize = 32;
