//! What `posthouse up` prints when everything runs: all that a person needs to try it.

use std::fmt::Write;
use std::path::Path;

use comfy_table::{ContentArrangement, Table, presets};
use directory_api::operator::PKI_FOLDER;

use super::accounts::{DOMAIN, Demo, SEED_PASSWORD};
use crate::ports::{Port, Ports};

pub(super) fn text(data: &Path, ports: Ports, demo: &Demo, seeded: Option<u32>) -> String {
    let mut out = String::from("\nPosthouse runs. It listens on\n");
    _ = writeln!(out, "{}\n", port_table(ports).trim_fmt());
    out.push_str("Accounts (passwords as first made)\n");
    for account in &demo.accounts {
        _ = writeln!(
            out,
            "  {}  {}  on {}",
            account.address, account.password, account.backend
        );
    }
    if let Some(last) = seeded.map(|count| count - 1) {
        _ = writeln!(
            out,
            "  user00000@{DOMAIN} to user{last:05}@{DOMAIN}  {SEED_PASSWORD}"
        );
        out.push_str("  WARNING: their password is known, and login without TLS is allowed: for tests only\n");
    }
    if let [anna, ben, ..] = demo.accounts.as_slice() {
        out.push_str("\nSend a message\n");
        _ = writeln!(
            out,
            "  printf 'From: {ben}\\r\\nTo: {anna}\\r\\nSubject: Hello\\r\\n\\r\\nIt works.\\r\\n' | curl -sS --url smtp://{smtp} --mail-from {ben} --mail-rcpt {anna} --upload-file -",
            anna = anna.address,
            ben = ben.address,
            smtp = ports.of(Port::Smtp),
        );
        let ca = data.join(PKI_FOLDER).join("ca.pem");
        let curl = format!(
            "curl -sS --cacert {} --user {}:{}",
            quoted(&ca.to_string_lossy()),
            anna.address,
            anna.password
        );
        let pop3s = ports.of(Port::Pop3s);
        out.push_str("Read it\n");
        _ = writeln!(out, "  {curl} --url pop3s://{pop3s}/");
        _ = writeln!(out, "  {curl} --url pop3s://{pop3s}/1");
        let imaps = ports.of(Port::Imaps);
        _ = writeln!(out, "  {curl} --url 'imaps://{imaps}/INBOX;UID=1'");
        _ = writeln!(
            out,
            "With a mail program\n  IMAP at {imaps} or POP3 at {pop3s}, with SSL/TLS; the login name is the whole address.\n  \
             It has to trust {}",
            ca.display()
        );
    }
    let shown = quoted(&data.to_string_lossy());
    // As a command to copy: after `cargo run` it is on nobody's path.
    let own = std::env::current_exe().unwrap_or_else(|_| "posthouse".into());
    let own = quoted(&own.to_string_lossy());
    _ = writeln!(
        out,
        "\nState lives in {shown}. Look around: {own} status --data {shown}"
    );
    _ = writeln!(out, "Stop with Ctrl-C, or: {own} down --data {shown}\n");
    out
}

fn port_table(ports: Ports) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    for pair in Port::all().chunks(2) {
        let cells = pair
            .iter()
            .flat_map(|port| [format!("  {port}"), ports.of(*port).to_string()]);
        table.add_row(cells);
    }
    table
}

/// Quotes a path for a shell when it needs that.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,=@%:".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_survives_the_shell() {
        assert_eq!(quoted("/a/b-c.d"), "/a/b-c.d");
        assert_eq!(quoted("/a b/it's"), "'/a b/it'\\''s'");
    }

    #[test]
    fn every_port_is_printed() {
        let ports = Ports::new(4100).unwrap();
        let table = port_table(ports).to_string();
        for port in Port::all() {
            assert!(
                table.contains(&port.to_string()) && table.contains(&ports.of(port).to_string()),
                "{port}"
            );
        }
    }
}
