//! What scanning a blob and writing its FETCH values cost.
//!
//! `cargo bench -p mail-proto --bench mime`

use divan::counter::BytesCount;
use divan::{Bencher, black_box};
use mail_proto::mime::{
    BodyForm, Dialect, Envelope, Scanned, Scanner, Structure, write_body_structure,
};

fn main() {
    divan::main();
}

const HEADER: &str = "Received: from a.test by b.test; Sun, 22 Nov 2026 15:00:00 +0000\r\n\
    Date: Sun, 22 Nov 2026 15:00:00 +0000\r\n\
    From: \"Public, Joe\" <joe@example.test>\r\n\
    To: list@example.test, Someone Else <else@example.test>\r\n\
    Subject: =?utf-8?Q?caf=C3=A9?= at noon\r\n\
    Message-ID: <1@example.test>\r\n\
    MIME-Version: 1.0\r\n";

/// The workload's small message: 4.7 KB of text.
fn small() -> Vec<u8> {
    let line = "Some words of an ordinary message, as people write them to others.\r\n";
    let text = line.repeat(4_200 / line.len());
    format!("{HEADER}Content-Type: text/plain; charset=utf-8\r\n\r\n{text}").into_bytes()
}

/// Text, HTML and an attachment of a megabyte.
fn attachment() -> Vec<u8> {
    let text = "Some words of an ordinary message, as people write them.\r\n".repeat(40);
    let base64 = format!("{}\r\n", "QUJD".repeat(19)).repeat(1_000_000 / 78);
    format!(
        "{HEADER}Content-Type: multipart/mixed; boundary=outer\r\n\r\n\
        --outer\r\nContent-Type: multipart/alternative; boundary=inner\r\n\r\n\
        --inner\r\nContent-Type: text/plain\r\n\r\n{text}\r\n\
        --inner\r\nContent-Type: text/html\r\n\r\n{text}\r\n--inner--\r\n\
        --outer\r\nContent-Type: application/pdf; name=a.pdf\r\n\
        Content-Transfer-Encoding: base64\r\n\r\n{base64}\r\n--outer--\r\n"
    )
    .into_bytes()
}

/// Lines that all look like delimiters, below a hundred boundaries.
fn hostile() -> Vec<u8> {
    let name = "b".repeat(60);
    let open: String = (10..100)
        .map(|at| format!("Content-Type: multipart/x; boundary={name}{at}\r\n\r\n--{name}{at}\r\n"))
        .collect();
    let line = format!("--{name}zz\r\n");
    format!("{open}\r\n{}", line.repeat(1_000_000 / line.len())).into_bytes()
}

/// In pieces of 64 KiB, as they come from a socket or a segment.
fn scan(blob: &[u8]) -> Scanned {
    let mut scanner = Scanner::new();
    blob.chunks(64 * 1024).for_each(|piece| scanner.push(piece));
    scanner.finish()
}

#[divan::bench(args = [("small", small as fn() -> Vec<u8>), ("attachment", attachment), ("hostile", hostile)].map(Kind))]
fn scan_blob(bencher: Bencher<'_, '_>, kind: &Kind) {
    let blob = kind.0.1();
    bencher
        .counter(BytesCount::new(blob.len()))
        .bench_local(|| scan(black_box(&blob)));
}

#[divan::bench]
fn write_envelope_and_body_structure(bencher: Bencher<'_, '_>) {
    let scanned = scan(&attachment());
    let octets = scanned.structure.as_bytes();
    bencher.bench_local(|| {
        let mut out = Vec::new();
        Envelope::read(black_box(&scanned.header)).write(Dialect::Rev1, &mut out);
        let structure = Structure::from_bytes(black_box(octets)).expect("a structure");
        write_body_structure(&structure, BodyForm::BodyStructure, Dialect::Rev1, &mut out);
        out
    });
}

/// A kind of blob, shown by its name.
#[derive(Clone, Copy)]
struct Kind((&'static str, fn() -> Vec<u8>));

impl std::fmt::Display for Kind {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.0.0)
    }
}
