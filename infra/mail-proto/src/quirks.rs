//! What real clients send besides the grammar, and how it is read. Everything else is strict.
//!
//! A client is named where its own log or a report about it shows the form, with the version if that tells one; "scripts" are
//! people's own programs, by hand or over a library that sends what it is given. Each row has its test below.
//!
//! | quirk of IMAP | client | how it is read |
//! |---|---|---|
//! | more than one space between words | scripts | as one |
//! | spaces inside parentheses: `FETCH 1 (FLAGS UID )`, `( \Seen)` | scripts over imaplib | dropped |
//! | spaces at the end of the line: `IDLE ` | aioimaplib 0.6 | dropped |
//! | no space before `(`: `FETCH 1(FLAGS)`, `STATUS INBOX(MESSAGES)` | scripts | as one space |
//! | no space behind `)` or the date before a message: `APPEND x (\Seen){5}` | scripts | as one space |
//! | items to fetch without parentheses: `UID FETCH 1:* UID FLAGS` | Velo and others over async-imap | as a list |
//! | flags without parentheses before a message: `APPEND x \Seen {5}` | mail-mcp over async-imap | as a list |
//! | 8-bit octets in quoted strings | imaplib of Python 3.11, imap_tools | kept |
//! | 8-bit octets in unquoted names and strings | scripts | kept |
//! | `\` before another octet than `"` and `\` in a quoted string: `"DOMAIN\user"` | mutt and IMAPClient of 2014, in passwords | both are kept |
//! | an unquoted user name or password with `(`, `)`, `%`, `*`, `\` or 8-bit octets | imapsync with Mail::IMAPClient 3.37, simplomon, HaskellNet | kept |
//! | lower-case verbs, items, keys, months | Thunderbird (`append`), c-client 2007f of PHP (`Create`, `+Flags (\DELETED)`), Mail::IMAPClient 3.43 (`unseen`), MailKit 1.2 (`1-FEB-2020`) | in any case |
//! | `inbox` in any case | all | `INBOX` |
//! | names in UTF-8 where modified UTF-7 is due | Vandelay 1.0.7, scripts | kept |
//! | `]` in unquoted names: `[Gmail]/Sent` | curl 7.45, scripts over imaplib | kept |
//! | empty lines between commands | gmail-imap-label | passed over |
//! | an empty line in IDLE | emailjs-imap-client of 2016 | passed over |
//! | IDLE, its DONE and the next command at once | Mail of iOS 18 | one after the other |
//! | a macro in parentheses: `(ALL)` | scripts | as the macro |
//! | an item, flag or STATUS item twice | scripts | once |
//! | `\Recent` among flags to set | Larch, Geary, imapcopy | dropped |
//! | `\` before a keyword: `\$NotJunk` | node-imap 0.8, imap-backup 8.0.0 | the keyword |
//! | flags with `\` that nobody knows: `\Indexed`, `\X-Eon-Has-Attachment` | imapsync, Larch | dropped |
//! | a date-time with one digit for the day and no space | Mail of iOS 18.3, Outlook for Android, imapflow 1.0.182 | kept |
//! | a quoted day with a space before: `" 1-Oct-2016"` | go-imap of 2016 | kept |
//! | a quoted day with a time behind | AE.Net.Mail | the day |
//! | `CHANGEDSINCE 0` | Mail of iOS 16.5 | everything |
//! | sets with a comma at the end: `1,2,` | scripts | dropped |
//! | sets that go down: `9:1,5` | Himalaya | put in order |
//! | CHARSET in quotes, which RFC 3501 allows | aerc | kept |
//! | `DONE` in lower case or with spaces behind | scripts | as `DONE` |
//! | `ID ()` and `ID` alone | scripts | as `ID NIL` |
//! | GETMETADATA's options behind the mailbox | after RFC 5464's examples | as before it |
//! | GETMETADATA's entries without parentheses | after RFC 5464's examples | as a list |
//!
//! | quirk of POP3 | client | how it is read |
//! |---|---|---|
//! | spaces at the end of the line: `LIST ` | curl 7.21.6 | dropped |
//! | `AUTH` alone | Outlook | as the question which mechanisms there are |
//!
//! Watched octet by octet and in need of none of these: mbsync 1.4.4, fetchmail 6.4.37, curl 7.88.1, Net::IMAP 0.2.4,
//! OfflineIMAP 8.0.0, getmail 6.18.11, imapfilter 2.8.1; by their own logs mutt 2.2.12 and NeoMutt 20220429.
//!
//! Not mended: behind ENABLE UTF8=ACCEPT, imaplib of Python 3.11 appends a plain literal whose octets begin with
//! `UTF8 (` and end in `)`. A message is kept as it comes. Nor are passwords that are neither quoted nor free of spaces and
//! quotes (imapsync, imapfilter 2.6): nobody can tell where they end.

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::imap::framing::{Framer, Limits, Step};
    use crate::imap::mailbox::NameForm;
    use crate::imap::{Login as ImapDialogue, parse};
    use crate::login::{Config, LoginDialogue, LoginEvent, LoginStep, Tls};
    use crate::pop3::{Command, Login as Pop3Dialogue};

    /// What a client sends, and what the grammar has for it.
    enum Read {
        /// IMAP after the login, without tag: the same commands.
        Imap(&'static [u8], &'static [u8]),
        /// IMAP before the login: the same answers and credentials.
        Login(&'static [u8], &'static [u8]),
        /// POP3 before the login.
        Pop3Login(&'static [u8], &'static [u8]),
        /// POP3 after it.
        Pop3(&'static [u8], &'static [u8]),
        /// POP3 before the login: this answer.
        Pop3Answer(&'static [u8], &'static str),
    }
    use Read::{Imap, Login, Pop3, Pop3Answer, Pop3Login};

    /// Rows of the tables by their first words, in their order.
    const ROWS: &[(&str, &[Read])] = &[
        (
            "more than one space",
            &[
                Imap(b"FETCH  1   (FLAGS  UID)", b"FETCH 1 (FLAGS UID)"),
                Imap(b"COPY 1  x", b"COPY 1 x"),
                Login(b"a LOGIN  joe   secret", b"a LOGIN joe secret"),
                Login(
                    b"a  AUTHENTICATE  PLAIN  AGpvZQBzZWNyZXQ=",
                    b"a AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=",
                ),
            ],
        ),
        (
            "spaces inside parentheses",
            &[
                Imap(b"FETCH 1 (FLAGS UID )", b"FETCH 1 (FLAGS UID)"),
                Imap(b"FETCH 1 ( FLAGS UID)", b"FETCH 1 (FLAGS UID)"),
                Imap(b"STORE 1 +FLAGS ( \\Seen)", b"STORE 1 +FLAGS (\\Seen)"),
                Imap(
                    b"FETCH 1 BODY[HEADER.FIELDS ( To )]",
                    b"FETCH 1 BODY[HEADER.FIELDS (To)]",
                ),
            ],
        ),
        (
            "spaces at the end of the line: `IDLE",
            &[
                Imap(b"IDLE ", b"IDLE"),
                Imap(b"FETCH 1 FLAGS  ", b"FETCH 1 FLAGS"),
                Login(b"a CAPABILITY ", b"a CAPABILITY"),
                Login(b"a LOGIN joe secret ", b"a LOGIN joe secret"),
                Login(
                    b"a AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ= ",
                    b"a AUTHENTICATE PLAIN AGpvZQBzZWNyZXQ=",
                ),
                Login(b"a AUTHENTICATE LOGIN ", b"a AUTHENTICATE LOGIN"),
            ],
        ),
        (
            "no space before `(`",
            &[
                Imap(b"FETCH 1(FLAGS UID)", b"FETCH 1 (FLAGS UID)"),
                Imap(b"STATUS INBOX(MESSAGES)", b"STATUS INBOX (MESSAGES)"),
                Imap(b"STORE 1 FLAGS(\\Seen)", b"STORE 1 FLAGS (\\Seen)"),
                Imap(
                    b"FETCH 1 BODY[HEADER.FIELDS(To)]",
                    b"FETCH 1 BODY[HEADER.FIELDS (To)]",
                ),
                Imap(b"APPEND x(\\Seen) {5}", b"APPEND x (\\Seen) {5}"),
            ],
        ),
        (
            "no space behind `)` or the date",
            &[
                Imap(b"APPEND x (\\Seen){5}", b"APPEND x (\\Seen) {5}"),
                Imap(
                    b"APPEND x (\\Seen)\"29-Feb-2000 01:00:00 +0100\"{5}",
                    b"APPEND x (\\Seen) \"29-Feb-2000 01:00:00 +0100\" {5}",
                ),
            ],
        ),
        (
            "items to fetch without parentheses",
            &[
                Imap(
                    b"UID FETCH 1:* UID FLAGS INTERNALDATE BODY.PEEK[]",
                    b"UID FETCH 1:* (UID FLAGS INTERNALDATE BODY.PEEK[])",
                ),
                Imap(
                    b"FETCH 1 UID FLAGS (CHANGEDSINCE 5)",
                    b"FETCH 1 (UID FLAGS) (CHANGEDSINCE 5)",
                ),
            ],
        ),
        (
            "flags without parentheses before a message",
            &[
                Imap(b"APPEND x \\Seen {5}", b"APPEND x (\\Seen) {5}"),
                Imap(
                    b"APPEND x \\Seen \\Draft \"29-Feb-2000 01:00:00 +0100\" {5}",
                    b"APPEND x (\\Seen \\Draft) \"29-Feb-2000 01:00:00 +0100\" {5}",
                ),
            ],
        ),
        (
            "8-bit octets in quoted strings",
            &[
                Imap(
                    b"SEARCH SUBJECT \"caf\xe9\"",
                    b"SEARCH SUBJECT {4+}\r\ncaf\xe9",
                ),
                Imap(b"SELECT \"caf\xc3\xa9\"", b"SELECT caf&AOk-"),
                Login(
                    b"a LOGIN joe \"caf\xc3\xa9\"",
                    b"a LOGIN joe {5+}\r\ncaf\xc3\xa9",
                ),
            ],
        ),
        (
            "8-bit octets in unquoted names and strings",
            &[
                Imap(b"SEARCH SUBJECT caf\xe9", b"SEARCH SUBJECT {4+}\r\ncaf\xe9"),
                Imap(b"SELECT caf\xc3\xa9", b"SELECT caf&AOk-"),
            ],
        ),
        (
            "`\\` before another octet",
            &[
                Imap(b"SELECT \"a\\b\"", b"SELECT \"a\\\\b\""),
                Login(
                    b"a LOGIN \"DOMAIN\\user\" \"pa\\ss\"",
                    b"a LOGIN \"DOMAIN\\\\user\" \"pa\\\\ss\"",
                ),
            ],
        ),
        (
            "an unquoted user name or password",
            &[Login(
                b"a LOGIN joe (p)%a*s\\s\xc3\xa9",
                b"a LOGIN joe \"(p)%a*s\\\\s\xc3\xa9\"",
            )],
        ),
        (
            "lower-case verbs",
            &[
                Imap(b"uid fetch 1 (flags)", b"UID FETCH 1 (FLAGS)"),
                Imap(
                    b"search unseen since 1-FEB-2020 before 2-feb-2020",
                    b"SEARCH UNSEEN SINCE 1-Feb-2020 BEFORE 2-Feb-2020",
                ),
                Imap(b"Store 1 +Flags (\\DELETED)", b"STORE 1 +FLAGS (\\Deleted)"),
                Imap(b"append \"x\" (\\seen) {5}", b"APPEND x (\\Seen) {5}"),
                Login(b"a login joe secret", b"a LOGIN joe secret"),
                Pop3Login(b"user joe\r\npass secret", b"USER joe\r\nPASS secret"),
                Pop3(b"retr 1", b"RETR 1"),
            ],
        ),
        (
            "`inbox` in any case",
            &[
                Imap(b"SELECT inbox", b"SELECT INBOX"),
                Imap(b"CREATE \"Inbox/x\"", b"CREATE INBOX/x"),
            ],
        ),
        (
            "names in UTF-8",
            &[Imap(b"SELECT \"L/\xc3\xa8ve\"", b"SELECT \"L/&AOg-ve\"")],
        ),
        (
            "`]` in unquoted names",
            &[Imap(b"SELECT [Gmail]/Sent", b"SELECT \"[Gmail]/Sent\"")],
        ),
        (
            "empty lines between commands",
            &[
                Imap(b"NOOP\r\n\r\nx CHECK", b"NOOP\r\nx CHECK"),
                Login(b"\r\n \r\na NOOP", b"a NOOP"),
            ],
        ),
        (
            "an empty line in IDLE",
            &[Imap(
                b"IDLE\r\n\r\nDONE\r\nb NOOP",
                b"IDLE\r\nDONE\r\nb NOOP",
            )],
        ),
        // All octets are given at once here.
        (
            "IDLE, its DONE and the next command",
            &[Imap(b"IDLE\r\nDONE\r\nb NOOP", b"IDLE\r\nDONE\r\nb NOOP")],
        ),
        (
            "a macro in parentheses",
            &[Imap(b"FETCH 1 (FAST)", b"FETCH 1 FAST")],
        ),
        (
            "an item, flag or STATUS item twice",
            &[
                Imap(b"FETCH 1 (UID FLAGS UID)", b"FETCH 1 (UID FLAGS)"),
                Imap(b"STORE 1 FLAGS (\\Seen \\SEEN)", b"STORE 1 FLAGS (\\Seen)"),
                Imap(b"STATUS x (UNSEEN UNSEEN)", b"STATUS x (UNSEEN)"),
            ],
        ),
        (
            "`\\Recent` among flags to set",
            &[
                Imap(
                    b"STORE 1 FLAGS (\\Recent \\Seen)",
                    b"STORE 1 FLAGS (\\Seen)",
                ),
                Imap(b"APPEND x (\\Recent) {5}", b"APPEND x () {5}"),
            ],
        ),
        (
            "`\\` before a keyword",
            &[
                Imap(
                    b"STORE 1 FLAGS (\\Seen \\$NotJunk)",
                    b"STORE 1 FLAGS (\\Seen $NotJunk)",
                ),
                Imap(b"APPEND x (\\$Junk) {5}", b"APPEND x ($Junk) {5}"),
            ],
        ),
        (
            "flags with `\\` that nobody knows",
            &[
                Imap(
                    b"APPEND x (\\Indexed \\Seen \\X-Eon-Has-Attachment) {5}",
                    b"APPEND x (\\Seen) {5}",
                ),
                Imap(b"STORE 1 +FLAGS (\\Indexed)", b"STORE 1 +FLAGS ()"),
            ],
        ),
        (
            "a date-time with one digit",
            &[Imap(
                b"APPEND x \"3-Feb-2025 18:28:47 +0000\" {5}",
                b"APPEND x \" 3-Feb-2025 18:28:47 +0000\" {5}",
            )],
        ),
        (
            "a quoted day with a space before",
            &[Imap(
                b"SEARCH BEFORE \" 1-Oct-2016\"",
                b"SEARCH BEFORE 1-Oct-2016",
            )],
        ),
        (
            "a quoted day with a time behind",
            &[
                Imap(
                    b"SEARCH SENTON \"01-Oct-2016 10:00:00 -05\"",
                    b"SEARCH SENTON 1-Oct-2016",
                ),
                Imap(
                    b"SEARCH ON \"1-Oct-2016 10:00:00 +0000\" SEEN",
                    b"SEARCH ON 1-Oct-2016 SEEN",
                ),
            ],
        ),
        (
            "`CHANGEDSINCE 0`",
            &[Imap(
                b"UID FETCH 1:* FLAGS (CHANGEDSINCE 0)",
                b"UID FETCH 1:* (FLAGS) (CHANGEDSINCE 0)",
            )],
        ),
        (
            "sets with a comma at the end",
            &[Imap(b"UID COPY 1,2, x", b"UID COPY 1,2 x")],
        ),
        (
            "sets that go down",
            &[Imap(b"UID COPY 9:1,5 x", b"UID COPY 1:9 x")],
        ),
        (
            "CHARSET in quotes",
            &[Imap(
                b"SEARCH CHARSET \"UTF-8\" ALL",
                b"SEARCH CHARSET UTF-8 ALL",
            )],
        ),
        (
            "`DONE` in lower case",
            &[
                Imap(b"IDLE\r\ndone", b"IDLE\r\nDONE"),
                Imap(b"IDLE\r\nDone  ", b"IDLE\r\nDONE"),
            ],
        ),
        (
            "`ID ()` and `ID` alone",
            &[Imap(b"ID ()", b"ID NIL"), Imap(b"ID", b"ID NIL")],
        ),
        (
            "GETMETADATA's options",
            &[Imap(
                b"GETMETADATA \"\" (MAXSIZE 9) /shared/comment",
                b"GETMETADATA (MAXSIZE 9) \"\" /shared/comment",
            )],
        ),
        (
            "GETMETADATA's entries",
            &[Imap(
                b"GETMETADATA x /private/comment /shared/comment",
                b"GETMETADATA x (/private/comment /shared/comment)",
            )],
        ),
        (
            "spaces at the end of the line: `LIST",
            &[
                Pop3(b"LIST ", b"LIST"),
                Pop3(b"RETR 1 ", b"RETR 1"),
                Pop3Login(b"CAPA ", b"CAPA"),
                Pop3Login(b"QUIT ", b"QUIT"),
            ],
        ),
        (
            "`AUTH` alone",
            &[Pop3Answer(b"AUTH", "+OK\r\nPLAIN\r\nLOGIN\r\n.\r\n")],
        ),
    ];

    #[test]
    fn every_quirk_is_read_as_its_row_says() {
        for (row, reads) in ROWS {
            for read in *reads {
                let (sent, found, meant) = match read {
                    Imap(sent, plain) => (sent, commands(sent), commands(plain)),
                    Login(sent, plain) => {
                        let dialogue = |octets| said(ImapDialogue::new(config()), octets);
                        (sent, dialogue(sent), dialogue(plain))
                    }
                    Pop3Login(sent, plain) => {
                        let dialogue = |octets| said(Pop3Dialogue::new(config()), octets);
                        (sent, dialogue(sent), dialogue(plain))
                    }
                    Pop3(sent, plain) => {
                        let command = |octets| format!("{:?}", Command::parse(octets).unwrap());
                        (sent, command(sent), command(plain))
                    }
                    Pop3Answer(sent, answer) => {
                        let greeting = said(Pop3Dialogue::new(config()), b"");
                        let found = said(Pop3Dialogue::new(config()), sent);
                        (sent, found, format!("{greeting}{answer}"))
                    }
                };
                assert_eq!(found, meant, "{row}: {}", sent.escape_ascii());
            }
        }
    }

    #[test]
    fn every_row_of_the_tables_has_its_test() {
        let rows = include_str!("quirks.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | "))
            .filter(|row| !row.starts_with("quirk of "));
        let rows: Vec<&str> = rows.collect();
        assert_eq!(rows.len(), ROWS.len());
        for (row, (words, _)) in rows.iter().zip(ROWS) {
            assert!(row.starts_with(words), "{words:?} is no test of {row:?}");
        }
    }

    /// The commands in these octets, the first without its tag; all must be read.
    fn commands(octets: &[u8]) -> String {
        let octets = [b"a ", octets, b"\r\n"].concat();
        let mut framer = Framer::new(Limits::default());
        let (mut input, mut read) = (&octets[..], String::new());
        loop {
            match framer.next(&mut input) {
                Step::Command(frame) => {
                    let tagged = parse::command(&frame, NameForm::Utf7).unwrap();
                    read += &format!("{} {:?}\n", tagged.tag, tagged.command);
                    if matches!(tagged.command, crate::imap::command::Command::Idle) {
                        framer.expect_line();
                    }
                }
                Step::Message { frame, size } => {
                    let head = parse::message_head(&frame, NameForm::Utf7).unwrap();
                    return format!("{read}{head:?} {size}");
                }
                Step::Line(line) => {
                    assert!(parse::is_done(&line));
                    read += "DONE\n";
                }
                Step::NeedInput => return read,
                step => panic!("{step:?}"),
            }
        }
    }

    /// What a dialogue before the login says and asks for, given all octets at once.
    fn said(mut dialogue: impl LoginDialogue, octets: &[u8]) -> String {
        if !octets.is_empty() {
            let octets = [octets, b"\r\n"].concat();
            assert_eq!(dialogue.receive(&octets), octets.len());
        }
        let mut said = String::new();
        loop {
            match dialogue.next() {
                LoginStep::Send(octets) => said += &String::from_utf8_lossy(octets),
                LoginStep::Ask(LoginEvent::Login(credentials)) => {
                    let password = credentials.password.as_bytes().escape_ascii();
                    return format!("{said}{} {password}", credentials.user);
                }
                LoginStep::NeedInput | LoginStep::Close(_) => return said,
                step => panic!("{step:?}"),
            }
        }
    }

    fn config() -> Config {
        Config::new("mail.example.test", Tls::Active)
    }
}
