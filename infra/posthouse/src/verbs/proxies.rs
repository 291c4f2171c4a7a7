//! The proxies, for the verbs that speak with all of them.

use std::sync::Arc;

use daemon::identity::{Identity, Role};
use daemon::link::CallError;
use directory_api::DirectoryClient;
use directory_api::operator::DirectorySource;
use pop_imap_proxy::operate::ProxyClient;

use super::VerbError;
use crate::cli::Source;

/// One proxy that has answered.
pub(crate) struct Proxy {
    pub(crate) name: String,
    pub(crate) client: ProxyClient,
}

/// The proxies of the settings or of `posthouse up`, each asked who it is; and the directory.
///
/// One that does not answer ends the verb: what it has open would be missing from every answer.
pub(crate) async fn reach(source: Source) -> Result<(DirectoryClient, Vec<Proxy>), VerbError> {
    let source = DirectorySource::from(source);
    let (directory, identity) = source.connect(Role::Operator)?;
    let addresses = source.proxies(Role::Operator)?;
    if addresses.is_empty() {
        return Err(VerbError::Missing("proxies in the file of --config"));
    }
    let mut proxies = Vec::new();
    for address in addresses {
        proxies.push(meet(address, &identity).await?);
    }
    Ok((directory, proxies))
}

async fn meet(address: String, identity: &Arc<Identity>) -> Result<Proxy, VerbError> {
    let client = ProxyClient::new(&address, identity);
    match client.state().await {
        Ok(state) => Ok(Proxy {
            name: state.proxy,
            client,
        }),
        Err(error) => Err(told(&address, error)),
    }
}

/// Words for a proxy that did not do what it was asked.
pub(crate) fn told(name: &str, error: CallError) -> VerbError {
    VerbError::Proxy {
        name: name.to_owned(),
        error,
    }
}
