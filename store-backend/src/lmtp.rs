//! LMTP from other mail servers. RFC 2033.
//!
//! The dialogue is `mail_proto`'s; here each of its questions is answered. A message goes into this
//! back-end's volume and to the siblings where its other recipients live at the same time, as it
//! arrives; after the final dot every recipient gets the reply its own home gave.
//!
//! The sending server is one of ours: it is trusted to say who the sender is, and to try again.

mod transaction;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use directory_api::Address;
use directory_api::wire::Verdict;
use mail_proto::smtp::{CloseReason, Config, ForwardPath, Mode, Reply, Server, Step};
use store_api::backends::BackendAway;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::backend::Backend;
use crate::listen::client_of;
use transaction::{Found, Transaction};

/// Serves one connection to its end.
pub(crate) async fn serve(backend: Arc<Backend>, mut stream: TcpStream, peer: SocketAddr) {
    let client = match backend.config.listen.lmtp_behind_balancers {
        true => match client_of(&backend, &mut stream, peer).await {
            Some(client) => client,
            None => return,
        },
        false => peer,
    };
    // Replies are small and awaited; Nagle's algorithm would hold them back.
    let _ = stream.set_nodelay(true);
    let mut connection = Connection {
        server: Server::new(config(&backend)),
        input: vec![0; READ_OCTETS].into_boxed_slice(),
        transaction: None,
        backend,
        stream,
        client,
    };
    match connection.run().await {
        Ok(reason) => debug!(%client, ?reason, "lmtp connection closed"),
        Err(error) => debug!(%client, %error, "lmtp connection broke"),
    }
}

fn config(backend: &Backend) -> Config {
    let limits = &backend.config.limits;
    Config {
        size_max_bytes: limits.message_size_max_bytes,
        recipients_max: limits.recipients_max,
        // Another mail server took the message already: refusing a long line now would make it bounce.
        text_line_max_bytes: TEXT_LINE_MAX_OCTETS,
        ..Config::new(Mode::Lmtp, backend.config.hostname.clone())
    }
}

struct Connection {
    backend: Arc<Backend>,
    server: Server,
    stream: TcpStream,
    client: SocketAddr,
    input: Box<[u8]>,
    /// Between MAIL and its end.
    transaction: Option<Transaction>,
}

/// Why a connection ended without a word.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("peer closed or reset it")]
    Gone,
    #[error("peer did not read our replies")]
    Stalled,
}

impl Connection {
    async fn run(&mut self) -> Result<CloseReason, Broken> {
        loop {
            match self.server.next() {
                Step::NeedInput => self.read().await?,
                Step::Send(octets) => {
                    match timeout(
                        self.backend.config.limits.stall(),
                        self.stream.write_all(octets),
                    )
                    .await
                    {
                        Ok(Ok(())) => {}
                        Ok(Err(_)) => return Err(Broken::Gone),
                        Err(_) => return Err(Broken::Stalled),
                    }
                    if let Some(transaction) = self
                        .transaction
                        .take_if(|transaction| transaction.is_answered())
                    {
                        transaction.report();
                    }
                }
                Step::Mail(mail) => {
                    self.transaction = Some(Transaction::begin(mail));
                    self.server.accept();
                }
                Step::Recipient(path) => match find(&self.backend, path).await {
                    Ok(found) => match &mut self.transaction {
                        // The volume takes so many at once; the sender brings the others in a message of their own.
                        Some(transaction) if !transaction.has_room(&found) => {
                            let full = Reply::new(
                                452,
                                (4, 5, 3),
                                "too many accounts, send the rest again",
                            );
                            self.server.refuse(full);
                        }
                        Some(transaction)
                            if self
                                .backend
                                .are_full(&found.homes, transaction.declared_octets())
                                .await =>
                        {
                            let for_good = self.backend.config.limits.over_quota_is_permanent;
                            self.server.refuse(over_quota(for_good));
                        }
                        transaction => {
                            if let Some(transaction) = transaction {
                                transaction.add(found);
                            }
                            self.server.accept();
                        }
                    },
                    Err(reply) => self.server.refuse(reply),
                },
                Step::BodyStart => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.open(&self.backend).await;
                    }
                    self.server.accept();
                }
                Step::BodyChunk(octets) => {
                    if let Some(transaction) = &mut self.transaction {
                        transaction.write(octets).await;
                    }
                }
                Step::BodyBroken(_) | Step::Reset => self.transaction = None,
                Step::BodyEnd { size } => {
                    let facts = transaction::Facts {
                        client_name: self.server.client_name(),
                        client_address: self.client.ip(),
                        protocol: self.server.protocol(),
                    };
                    let replies = match &mut self.transaction {
                        Some(transaction) => transaction.commit(&self.backend, size, &facts).await,
                        None => Vec::new(),
                    };
                    self.server.finish(&replies);
                }
                Step::Close(reason) => {
                    // What cannot be said any more is not worth waiting for.
                    let _ = timeout(CLOSE_WITHIN, self.stream.shutdown()).await;
                    return Ok(reason);
                }
                // LMTP here is plain text on loopback, and nobody speaks for others.
                Step::StartTlsAsked
                | Step::StartTls
                | Step::AuthAsked
                | Step::XClient(_)
                | Step::AwaitAnswer => {
                    unreachable!("every question is answered before the next step is asked for")
                }
            }
        }
    }

    /// Waits for octets: as long as a command may take, or, within a body, for the next piece of it.
    async fn read(&mut self) -> Result<(), Broken> {
        let in_body = self.transaction.as_ref().is_some_and(Transaction::in_body);
        let limits = &self.backend.config.limits;
        let within = if in_body {
            limits.stall()
        } else {
            Duration::from_secs(limits.lmtp_idle_s)
        };
        let room = self.server.room().min(self.input.len());
        let read = timeout(within, self.stream.read(&mut self.input[..room]));
        let read = if in_body {
            // A message under way is taken before the process ends.
            read.await
        } else {
            tokio::select! {
                read = read => read,
                () = self.backend.shutdown.requested() => {
                    self.transaction = None;
                    self.server.shut(Reply::new(421, (4, 3, 2), "going down, try again in a moment"));
                    return Ok(());
                }
            }
        };
        match read {
            Ok(Ok(0) | Err(_)) => Err(Broken::Gone),
            Ok(Ok(count)) => {
                self.server.receive(&self.input[..count]);
                Ok(())
            }
            Err(_) => {
                self.transaction = None;
                self.server
                    .shut(Reply::new(421, (4, 4, 2), "waited too long for you"));
                Ok(())
            }
        }
    }
}

/// Where mail for one recipient goes.
async fn find(backend: &Backend, path: ForwardPath) -> Result<Found, Reply> {
    let mut is_postmaster = matches!(path, ForwardPath::Postmaster);
    let address = match path {
        ForwardPath::Mailbox(address) => address,
        // RFC 5321 §4.5.1 wants it accepted; the directory decides who reads it.
        ForwardPath::Postmaster => format!("postmaster@{}", backend.config.hostname)
            .parse()
            .map_err(|_| Reply::new(550, (5, 1, 1), "no such user here"))?,
    };
    let key = Address::new(address.local(), address.domain())
        .map_err(|_| Reply::new(550, (5, 1, 3), "not an address of a user here"))?;
    let mut verdict = backend.directory.lookup(&key).await;
    if matches!(verdict, Ok(Verdict::UnknownAddress)) && key.local() == "postmaster" {
        // Every domain of ours has one: RFC 5321 §4.5.1.
        is_postmaster = true;
        if let Ok(general) = Address::new("postmaster", &backend.config.hostname) {
            verdict = backend.directory.lookup(&general).await;
        }
    }
    match verdict {
        Ok(Verdict::Accounts(homes)) => {
            for home in homes.iter().map(|located| &located.home.backend) {
                // Any other trouble with a sibling shows at the commit, and is its own recipients' alone.
                if *home != backend.name
                    && let Err(BackendAway::Foreign(_)) = backend.backends.link(home).await
                {
                    info!(address = %key, %home, reason = "foreign_home", "recipient refused");
                    return Err(Reply::new(
                        451,
                        (4, 3, 2),
                        "recipient's mail is kept by another system, not reached from here, try again later",
                    ));
                }
            }
            Ok(Found { address, homes })
        }
        Ok(Verdict::External { .. }) => {
            info!(address = %key, reason = "external_target", "recipient refused");
            Err(Reply::new(
                451,
                (4, 3, 2),
                "recipient's mail goes to another system, not reached from here, try again later",
            ))
        }
        // A mistake of ours is never "no such postmaster".
        Ok(Verdict::UnknownAddress | Verdict::UnknownDomain) if is_postmaster => {
            warn!(address = %key, reason = "postmaster_unset", "nobody reads the mail for postmaster: make an address of that name, or set hostname to a domain of ours");
            Err(Reply::new(
                451,
                (4, 3, 5),
                "postmaster is not set up, try again later",
            ))
        }
        Ok(Verdict::UnknownAddress) => Err(Reply::new(550, (5, 1, 1), "no such user here")),
        Ok(Verdict::UnknownDomain) => Err(Reply::new(550, (5, 1, 2), "no such domain here")),
        Err(error) => {
            warn!(%error, address = %key, "recipient cannot be looked up");
            Err(Reply::new(
                451,
                (4, 3, 0),
                "directory does not answer, try again later",
            ))
        }
    }
}

/// RFC 3463 X.2.2. Temporary by default: the owner may make room while the sender tries.
fn over_quota(for_good: bool) -> Reply {
    match for_good {
        true => Reply::new(552, (5, 2, 2), "mailbox is full"),
        false => Reply::new(452, (4, 2, 2), "mailbox is full, try again later"),
    }
}

/// One read: some whole small messages with their commands.
const READ_OCTETS: usize = 32 << 10;
/// DESIGN §13: up to 64 KiB may be allowed, and what another server has accepted is.
const TEXT_LINE_MAX_OCTETS: u64 = 64 << 10;
const CLOSE_WITHIN: Duration = Duration::from_secs(5);
