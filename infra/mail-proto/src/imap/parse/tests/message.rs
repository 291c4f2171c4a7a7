use super::*;

fn head(text: &str) -> Result<MessageHead, ParseError> {
    message_head(&framed(text.as_bytes()), NameForm::Utf7)
        .map(|tagged| tagged.command)
        .map_err(|bad| bad.error)
}

#[test]
fn heads_of_messages_are_read() {
    let options = MessageOptions {
        flags: vec![Flag::Seen],
        internal_date: Some(DateTime {
            unix_s: 951_782_400,
            offset_minutes: 60,
        }),
        utf8: false,
        binary: false,
    };
    let append = |options| {
        Ok(MessageHead::Append(AppendHead {
            mailbox: mailbox("x"),
            options,
        }))
    };
    for text in [
        "a APPEND x (\\Seen) \"29-Feb-2000 01:00:00 +0100\" {5}",
        "a append {1+}\r\nx (\\Seen \\Recent)  \"29-feb-2000 01:00:00 +0100\" {5+}",
        "a APPEND x(\\Seen) \" 29-Feb-2000 01:00:00 +0100\" {5}",
    ] {
        assert_eq!(head(text), append(options.clone()), "{text}");
    }
    assert_eq!(head("a APPEND x {5}"), append(MessageOptions::default()));
    let binary = MessageOptions {
        binary: true,
        ..MessageOptions::default()
    };
    assert_eq!(head("a APPEND x ~{5}"), append(binary.clone()));
    assert_eq!(
        head("a APPEND x UTF8 (~{5+}"),
        append(MessageOptions {
            utf8: true,
            ..binary
        })
    );
    // As Thunderbird writes it.
    assert!(head("34 append \"Sent\" (\\Seen) UTF8 (~{4471006}").is_ok());
    let replace = |by, number| {
        Ok(MessageHead::Replace(ReplaceHead {
            by,
            number,
            mailbox: mailbox("x"),
            options: MessageOptions::default(),
        }))
    };
    assert_eq!(
        head("a REPLACE 4 x {5}"),
        replace(Addressing::Sequence, Some(4))
    );
    assert_eq!(
        head("a UID REPLACE * x {5}"),
        replace(Addressing::Uid, None)
    );
    for text in [
        "a APPEND x (\\ ) {5}",
        "a APPEND x \\Seen{5}",
        "a APPEND x{5}",
        "a APPEND x \"30-Feb-2000 01:00:00 +0100\" {5}",
        "a APPEND x \"29-Feb-2000 24:00:00 +0100\" {5}",
        "a APPEND x \"29-Feb-2000 01:00:00 +0160\" {5}",
        "a APPEND x y {5}",
        "a UID APPEND x {5}",
        "a REPLACE 0 x {5}",
        "a REPLACE 1:2 x {5}",
    ] {
        assert!(head(text).is_err(), "{text}");
    }
    fails("APPEND x", 8, "a literal with the message");
    fails("REPLACE 4 x (\\Seen)", 19, "a literal with the message");
}

#[test]
fn between_and_behind_messages() {
    let plain = MessageOptions::default();
    let utf8 = MessageOptions {
        utf8: true,
        ..MessageOptions::default()
    };
    let rest = |text: &[u8]| Frame::line(text);
    assert_eq!(message_end(&rest(b""), &plain), Ok(()));
    assert_eq!(message_end(&rest(b" "), &plain), Ok(()));
    assert_eq!(message_end(&rest(b")"), &utf8), Ok(()));
    assert!(message_end(&rest(b")"), &plain).is_err());
    assert!(message_end(&rest(b""), &utf8).is_err());
    assert!(message_end(&rest(b" x"), &plain).is_err());

    let mut input = &b"a APPEND x {1+}\r\ny (\\Seen) {2+}\r\n"[..];
    let mut framer = Framer::new(Limits::default());
    let next = loop {
        match framer.next(&mut input) {
            Step::Message { frame, size: 2 } => break frame,
            Step::Message { .. } => framer.accept_message(),
            Step::MessageOctets(_) | Step::MessageEnd => {}
            step => panic!("{step:?}"),
        }
    };
    let options = message_next(&next, &plain).unwrap();
    assert_eq!(options.flags, [Flag::Seen]);
    assert!(message_next(&next, &utf8).is_err());
}
