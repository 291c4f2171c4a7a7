//! Real `store-backend` processes on real sockets, with a directory made of a few maps.
#![allow(clippy::unwrap_used)]

mod site;

mod backup;
mod bad_input;
mod balancer;
mod crash;
mod deliver;
mod disk;
mod grants;
mod hold;
mod imap;
mod imap_access;
mod imap_attacks;
mod imap_client;
mod imap_compress;
mod imap_dialogue;
mod imap_limits;
mod imap_meanwhile;
mod imap_messages;
mod imap_model;
mod imap_names;
mod imap_notify;
mod imap_revoked;
mod imap_search;
mod imap_search_random;
mod imap_together;
mod imap_together_all;
mod life;
mod lmtp;
mod load;
mod pop3;
mod quota;
mod rot;
mod shown;
mod tls;
mod transfer;
mod undelete;
mod volumes;
