//! Plays a DNS server with a zone of its own, over UDP and TCP: honest, slow, silent, or lying.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, Metadata, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, MX, PTR, SOA, TXT};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use testkit::address::unused_address;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// What it does with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Honest,
    /// Answers after a while.
    Slow(Duration),
    /// Never answers.
    Silent,
    /// Answers under another question's number.
    WrongId,
    /// Answers another question.
    WrongQuestion,
    /// Over UDP says only that there is more, and over TCP all of it after a while: there nobody asks twice because it
    /// takes long.
    Truncated(Duration),
    /// Says that it cannot.
    Failing,
    /// Answers with what is no answer.
    Garbage,
}

/// One server; dropped, it is gone.
pub(crate) struct PlayedDns {
    pub(crate) address: SocketAddr,
    zone: Arc<Zone>,
    _tasks: JoinSet<()>,
}

struct Zone {
    records: Mutex<HashMap<(Name, RecordType), Vec<RData>>>,
    manner: Mutex<Manner>,
    asked: Mutex<HashMap<(Name, RecordType), usize>>,
}

impl PlayedDns {
    pub(crate) async fn start() -> Self {
        let address = unused_address();
        let udp = Arc::new(UdpSocket::bind(address).await.unwrap());
        let tcp = TcpListener::bind(address).await.unwrap();
        let zone = Arc::new(Zone {
            records: Mutex::default(),
            manner: Mutex::new(Manner::Honest),
            asked: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_udp(udp, Arc::clone(&zone)));
        tasks.spawn(serve_tcp(tcp, Arc::clone(&zone)));
        Self {
            address,
            zone,
            _tasks: tasks,
        }
    }

    pub(crate) fn behave(&self, manner: Manner) {
        *self.zone.manner.lock().unwrap() = manner;
    }

    fn add(&self, name: &Name, data: RData) {
        let mut records = self.zone.records.lock().unwrap();
        let key = (name.to_lowercase(), data.record_type());
        records.entry(key).or_default().push(data);
    }

    /// `name` has this address.
    pub(crate) fn address(&self, of: &str, address: &str) {
        let data = match address.parse::<IpAddr>().unwrap() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.add(&name(of), data);
    }

    /// The address has this name.
    pub(crate) fn pointer(&self, address: &str, to: &str) {
        let address: IpAddr = address.parse().unwrap();
        self.add(&Name::from(address), RData::PTR(PTR(name(to))));
    }

    pub(crate) fn alias(&self, from: &str, to: &str) {
        self.add(&name(from), RData::CNAME(CNAME(name(to))));
    }

    pub(crate) fn text(&self, of: &str, text: &str) {
        let pieces = text.as_bytes().chunks(255);
        let pieces = pieces.map(|piece| String::from_utf8(piece.to_vec()).unwrap());
        self.add(&name(of), RData::TXT(TXT::new(pieces.collect())));
    }

    pub(crate) fn exchange(&self, of: &str, to: &str) {
        self.add(&name(of), RData::MX(MX::new(10, name(to))));
    }

    /// How often it was asked this, and had it to answer.
    pub(crate) fn asked(&self, of: &str, kind: RecordType) -> usize {
        let asked = self.zone.asked.lock().unwrap();
        asked.get(&(name(of), kind)).copied().unwrap_or(0)
    }

    /// How often it was asked anything.
    pub(crate) fn asked_in_all(&self) -> usize {
        self.zone.asked.lock().unwrap().values().sum()
    }
}

fn name(text: &str) -> Name {
    // Any octet may stand in a label.
    let mut name = Name::from_labels(text.split('.').map(str::as_bytes)).unwrap();
    name.set_fqdn(true);
    name.to_lowercase()
}

impl Zone {
    /// What is said to a question, and after how long.
    fn answer(&self, question: &[u8], is_udp: bool) -> Option<(Duration, Vec<u8>)> {
        let request = Message::from_vec(question).ok()?;
        let query = request.queries.first()?.clone();
        let key = (query.name().to_lowercase(), query.query_type());
        let manner = *self.manner.lock().unwrap();
        if !(is_udp && matches!(manner, Manner::Truncated(_))) {
            *self.asked.lock().unwrap().entry(key.clone()).or_default() += 1;
        }
        let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
        reply.metadata = Metadata::response_from_request(&request.metadata);
        reply.metadata.authoritative = true;
        reply.metadata.recursion_available = true;
        let mut wait = Duration::ZERO;
        match manner {
            Manner::Honest => {}
            Manner::Slow(after) => wait = after,
            Manner::Silent => return None,
            Manner::WrongId => reply.metadata.id ^= 1,
            Manner::Truncated(_) if is_udp => {
                reply.metadata.truncation = true;
                reply.add_query(query);
                return Some((wait, reply.to_vec().unwrap()));
            }
            Manner::Truncated(after) => wait = after,
            Manner::Failing => {
                reply.metadata.response_code = ResponseCode::ServFail;
                reply.add_query(query);
                return Some((wait, reply.to_vec().unwrap()));
            }
            Manner::Garbage => return Some((wait, vec![0xff; 40])),
            Manner::WrongQuestion => {
                let mut other = query.clone();
                other.set_name(name("other.test"));
                reply.add_query(other);
            }
        }
        if reply.queries.is_empty() {
            reply.add_query(query);
        }
        self.look_up(&key, &mut reply);
        if is_udp && reply.to_vec().unwrap().len() > UDP_MAX {
            reply.answers.clear();
            reply.metadata.truncation = true;
        }
        Some((wait, reply.to_vec().unwrap()))
    }

    fn look_up(&self, (asked, kind): &(Name, RecordType), reply: &mut Message) {
        let records = self.records.lock().unwrap();
        let mut at = asked.clone();
        // A loop of aliases is told as far as it is long, and no further.
        for _ in 0..8 {
            if let Some(found) = records.get(&(at.clone(), *kind)) {
                for data in found {
                    reply.add_answer(Record::from_rdata(at.clone(), TTL, data.clone()));
                }
                return;
            }
            let Some(found) = records.get(&(at.clone(), RecordType::CNAME)) else {
                break;
            };
            reply.add_answer(Record::from_rdata(at.clone(), TTL, found[0].clone()));
            if let RData::CNAME(to) = &found[0] {
                at = to.0.clone();
            }
        }
        if reply.answers.is_empty() {
            let is_there = records.keys().any(|(name, _)| *name == at);
            if !is_there {
                reply.metadata.response_code = ResponseCode::NXDomain;
            }
            let soa = SOA::new(name("ns.test"), name("root.test"), 1, 60, 60, 60, 60);
            let record = Record::from_rdata(name("test"), TTL, RData::SOA(soa));
            reply.add_authority(record);
        }
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, zone: Arc<Zone>) {
    let mut question = [0; 4096];
    let mut answers = JoinSet::new();
    loop {
        let Ok((octets, from)) = socket.recv_from(&mut question).await else {
            continue;
        };
        if let Some((wait, answer)) = zone.answer(&question[..octets], true) {
            let socket = Arc::clone(&socket);
            answers.spawn(async move {
                tokio::time::sleep(wait).await;
                _ = socket.send_to(&answer, from).await;
            });
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Arc<Zone>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            continue;
        };
        let zone = Arc::clone(&zone);
        connections.spawn(async move {
            while let Ok(octets) = stream.read_u16().await {
                let mut question = vec![0; octets.into()];
                if stream.read_exact(&mut question).await.is_err() {
                    return;
                }
                let Some((wait, answer)) = zone.answer(&question, false) else {
                    continue;
                };
                tokio::time::sleep(wait).await;
                let length = u16::try_from(answer.len()).unwrap();
                let mut framed = length.to_be_bytes().to_vec();
                framed.extend(answer);
                if stream.write_all(&framed).await.is_err() {
                    return;
                }
            }
        });
    }
}

const TTL: u32 = 60;
/// What resolvers ask for at most.
const UDP_MAX: usize = 1232;
