use super::*;

fn plan(service: Service) -> Plan<'static> {
    Plan {
        service,
        starttls: false,
        client: None,
        authorization: "ann",
        authentication: "master",
        password: "secret",
    }
}

fn client() -> (SocketAddr, &'static str) {
    (([192, 0, 2, 7], 4711).into(), "t1")
}

/// Plays a script: `S:` lines come from the other side, `C:` lines must be said next.
fn play(plan: Plan<'_>, script: &str) -> Result<Step, Fault> {
    let mut dialogue = Dialogue::new(plan);
    for line in script
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
    {
        if let Some(said) = line.strip_prefix("S: ") {
            assert_eq!(dialogue.next().unwrap(), Step::NeedInput, "{line}");
            dialogue.receive(format!("{said}\r\n").as_bytes());
        } else if let Some(say) = line.strip_prefix("C: ") {
            let say = Step::Send(format!("{say}\r\n").into_bytes());
            assert_eq!(dialogue.next().unwrap(), say, "{line}");
        } else {
            assert_eq!((line, dialogue.next().unwrap()), ("TLS", Step::StartTls));
            dialogue.tls_started();
        }
    }
    dialogue.next()
}

/// `\0` in the text is NUL.
fn base64(text: &str) -> String {
    BASE64.encode(text.as_bytes())
}

#[test]
fn a_user_is_logged_in_and_the_capabilities_are_told() {
    let message = base64("ann\0master\0secret");
    let script = format!(
        "S: * OK [CAPABILITY IMAP4rev1] ready
        C: p1 AUTHENTICATE PLAIN
        S: +
        C: {message}
        S: * CAPABILITY IMAP4rev1 OLD
        S: p1 ok [capability IMAP4rev1 IDLE] in"
    );
    let welcome = |capabilities: Option<&str>| {
        Step::In(Welcome {
            capabilities: capabilities.map(str::to_owned),
            more: Vec::new(),
        })
    };
    let told = play(plan(Service::Imap), &script).unwrap();
    assert_eq!(told, welcome(Some("IMAP4rev1 IDLE")));
    let untagged = script.replace(" [capability IMAP4rev1 IDLE]", "");
    let told = play(plan(Service::Imap), &untagged).unwrap();
    assert_eq!(told, welcome(Some("IMAP4rev1 OLD")));
    // One that tells nothing with its yes is asked.
    let asked = script
        .replace(" [capability IMAP4rev1 IDLE]", "")
        .replace("OLD", "\u{1}");
    let asked = format!("{asked}\nC: p2 CAPABILITY");
    for (answer, capabilities) in [
        (
            "S: * CAPABILITY IMAP4rev1 NEW\nS: p2 OK",
            Some("IMAP4rev1 NEW"),
        ),
        // Nothing that would end our answer's code early.
        ("S: * CAPABILITY IMAP4rev1 ]\nS: p2 OK", None),
        ("S: p2 BAD what", None),
    ] {
        let told = play(plan(Service::Imap), &format!("{asked}\n{answer}")).unwrap();
        assert_eq!(told, welcome(capabilities));
    }
    let odd = play(plan(Service::Imap), &format!("{asked}\nS: p1 OK in again"));
    assert!(matches!(odd, Err(Fault::Nonsense(_))));
    let pop3 = format!(
        "S: +OK
        C: AUTH PLAIN
        S: +
        C: {message}
        S: +OK in"
    );
    let told = play(plan(Service::Pop3), &pop3).unwrap();
    assert_eq!(told, welcome(None));
}

#[test]
fn tls_comes_first_and_then_who_the_client_is() {
    let with = |service| Plan {
        starttls: true,
        client: Some(client()),
        ..plan(service)
    };
    let imap = "S: * OK ready
        C: p1 STARTTLS
        S: p1 OK begin
        TLS
        C: p2 ID (\"x-originating-ip\" \"192.0.2.7\" \"x-originating-port\" \"4711\" \"x-session-ext-id\" \"t1\")
        S: * ID NIL
        S: p2 BAD what
        C: p3 AUTHENTICATE PLAIN";
    assert_eq!(play(with(Service::Imap), imap).unwrap(), Step::NeedInput);
    let pop3 = "S: +OK ready
        C: STLS
        S: +OK begin
        TLS
        C: XCLIENT ADDR=192.0.2.7 PORT=4711 SESSION=t1
        S: -ERR you are nobody
        C: AUTH PLAIN";
    assert_eq!(play(with(Service::Pop3), pop3).unwrap(), Step::NeedInput);
}

#[test]
fn what_was_said_before_tls_began_ends_the_attempt() {
    let plan = Plan {
        starttls: true,
        ..plan(Service::Imap)
    };
    let mut dialogue = Dialogue::new(plan);
    dialogue.receive(b"* OK ready\r\n");
    assert!(matches!(dialogue.next(), Ok(Step::Send(_))));
    dialogue.receive(b"p1 OK begin\r\n* BYE injected\r\n");
    assert!(matches!(dialogue.next(), Err(Fault::Nonsense(_))));
}

#[test]
fn an_answer_in_the_wrong_place_is_none() {
    for (service, script) in [
        (Service::Imap, "S: * PREAUTH welcome, root"),
        (Service::Imap, "S: +OK I speak POP3"),
        (Service::Pop3, "S: * OK I speak IMAP"),
        (Service::Imap, "S: p1 OK who are you"),
        (Service::Pop3, "S: HTTP/1.1 400 Bad Request"),
        (
            Service::Imap,
            "S: * OK
            C: p1 AUTHENTICATE PLAIN
            S: p1 OK you are in, without a word",
        ),
        (
            Service::Pop3,
            "S: +OK
            C: AUTH PLAIN
            S: +OK you are in, without a word",
        ),
        (
            Service::Imap,
            "S: * OK
            C: p1 AUTHENTICATE PLAIN
            S: p2 OK another's",
        ),
    ] {
        let fault = play(plan(service), script).unwrap_err();
        assert!(matches!(fault, Fault::Nonsense(_)), "{script}: {fault}");
    }
}

#[test]
fn a_refusal_is_ours_and_temporary_unless_it_says_that_the_user_has_too_much() {
    let imap = |answer: &str| {
        let message = base64("ann\0master\0secret");
        let script = format!(
            "S: * OK
            C: p1 AUTHENTICATE PLAIN
            S: +
            C: {message}
            S: p1 {answer}"
        );
        play(plan(Service::Imap), &script).unwrap_err().refusal()
    };
    assert_eq!(imap("NO [AUTHENTICATIONFAILED] no"), Refusal::Temporary);
    assert_eq!(imap("BAD"), Refusal::Temporary);
    assert_eq!(imap("NO [LIMIT] enough"), Refusal::TooMany);
    assert_eq!(imap("NO [INUSE] later"), Refusal::InUse);
    let pop3 = |answer: &str| {
        let script = format!("S: +OK\nC: AUTH PLAIN\nS: -ERR {answer}");
        play(plan(Service::Pop3), &script).unwrap_err().refusal()
    };
    assert_eq!(pop3("[IN-USE] locked"), Refusal::InUse);
    assert_eq!(pop3("[AUTH] no"), Refusal::Temporary);
    for script in [
        "S: * BYE busy",
        // Behind ID, which may be refused, it is no refusal of that one command.
        "S: * OK
        C: p1 ID (\"x-originating-ip\" \"192.0.2.7\" \"x-originating-port\" \"4711\" \"x-session-ext-id\" \"t1\")
        S: * BYE busy",
    ] {
        let told = Plan {
            client: script.contains("ID").then(client),
            ..plan(Service::Imap)
        };
        let bye = play(told, script).unwrap_err();
        assert_eq!(
            (bye.code(), bye.refusal()),
            ("foreign_refused", Refusal::Temporary)
        );
    }
}

#[test]
fn one_that_repeats_the_password_does_not_bring_it_into_the_log() {
    let message = base64("ann\0master\0secret");
    for (service, begin, answer, shown) in [
        (Service::Imap, "* OK\nC: p1 AUTHENTICATE", "{}", "[?] in "),
        (
            Service::Imap,
            "* OK\nC: p1 AUTHENTICATE",
            "p1 BAD {}",
            "[?] in ",
        ),
        (
            Service::Imap,
            "* OK\nC: p1 AUTHENTICATE",
            "p1 NO [{}] no",
            "[?] in ",
        ),
        (
            Service::Imap,
            "* OK\nC: p1 AUTHENTICATE",
            "* BYE secret",
            "[?] in 6 octets",
        ),
        (
            Service::Imap,
            "* OK\nC: p1 AUTHENTICATE",
            "p1 NO [authorizationfailed] secret",
            "[authorizationfailed] in 28 octets",
        ),
        (
            Service::Pop3,
            "+OK\nC: AUTH",
            "-ERR [AUTH] {}",
            "[AUTH] in ",
        ),
        (Service::Pop3, "+OK\nC: AUTH", "{}", "[?] in "),
    ] {
        let answer = answer.replace("{}", &message);
        let script = format!("S: {begin} PLAIN\nS: +\nC: {message}\nS: {answer}");
        let told = play(plan(service), &script).unwrap_err().to_string();
        assert!(told.contains(shown), "{told}");
        assert!(
            !told.contains(&message) && !told.contains("secret"),
            "{told}"
        );
    }
}

#[test]
fn a_line_and_all_lines_are_taken_up_to_their_limits_and_no_further() {
    let greeting = |octets: usize| {
        let line = format!("* OK {}\r\n", "x".repeat(octets - 6));
        let mut dialogue = Dialogue::new(plan(Service::Imap));
        dialogue.receive(line.as_bytes());
        dialogue.next()
    };
    // The line's end counts but for its last octet.
    assert!(matches!(greeting(LINE_MAX_OCTETS), Ok(Step::Send(_))));
    assert!(matches!(greeting(LINE_MAX_OCTETS + 1), Err(Fault::TooLong)));
    let mut endless = Dialogue::new(plan(Service::Pop3));
    endless.receive(&vec![b'x'; LINE_MAX_OCTETS]);
    assert!(matches!(endless.next(), Ok(Step::NeedInput)));
    endless.receive(b"x");
    assert!(matches!(endless.next(), Err(Fault::TooLong)));

    let many = |octets: usize| {
        let mut dialogue = Dialogue::new(plan(Service::Imap));
        dialogue.receive(b"* OK\r\n");
        assert!(matches!(dialogue.next(), Ok(Step::Send(_))));
        let line = b"* 1 EXISTS......\r\n";
        let mut left = octets - b"* OK\r\n".len();
        while left > 0 {
            let some = left.min(line.len());
            dialogue.receive(&line[..some]);
            left -= some;
            dialogue.next()?;
        }
        Ok::<_, Fault>(())
    };
    assert!(many(OCTETS_MAX).is_ok());
    assert!(matches!(many(OCTETS_MAX + 1), Err(Fault::TooLong)));
}

#[test]
fn what_stands_behind_the_yes_is_the_user_s() {
    for (service, last) in [
        (
            Service::Imap,
            "p1 OK [CAPABILITY IMAP4rev1] in\r\n* BYE more",
        ),
        (Service::Pop3, "+OK in\r\n* BYE more"),
    ] {
        let greeting = match service {
            Service::Imap => "* OK\r\n",
            Service::Pop3 => "+OK\r\n",
        };
        let mut dialogue = Dialogue::new(plan(service));
        for said in [greeting, "+\r\n", last] {
            dialogue.receive(said.as_bytes());
            if said != last {
                assert!(matches!(dialogue.next(), Ok(Step::Send(_))));
            }
        }
        let Ok(Step::In(welcome)) = dialogue.next() else {
            panic!("not in");
        };
        assert_eq!(welcome.more, b"* BYE more");
    }
}

#[test]
fn octets_may_come_one_by_one() {
    let mut dialogue = Dialogue::new(plan(Service::Pop3));
    let mut said = Vec::new();
    for octet in b"+OK\r\n+ \r\n+OK in\r\nmore" {
        dialogue.receive(&[*octet]);
        loop {
            match dialogue.next().unwrap() {
                Step::Send(octets) => said.push(octets),
                Step::NeedInput => break,
                Step::In(welcome) => {
                    assert_eq!(said.len(), 2);
                    return assert_eq!(welcome.more, b"");
                }
                Step::StartTls => panic!("nobody asked for TLS"),
            }
        }
    }
    panic!("never in");
}
