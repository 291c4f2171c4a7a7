use super::*;

#[test]
fn quota_acl_and_metadata_are_read() {
    let rights = |letters| Rights::new(letters).unwrap();
    reads("GETQUOTA \"\"", Command::GetQuota(String::new()));
    reads(
        "GETQUOTAROOT inbox",
        Command::GetQuotaRoot(mailbox("INBOX")),
    );
    reads(
        "SETQUOTA \"\" (STORAGE 512 message 9)",
        Command::SetQuota(
            String::new(),
            vec![("STORAGE".into(), 512), ("MESSAGE".into(), 9)],
        ),
    );
    reads("GETACL x", Command::GetAcl(mailbox("x")));
    for (text, change) in [
        ("lrs", RightsChange::Replace(rights("lrs"))),
        ("+w", RightsChange::Add(rights("w"))),
        ("\"-\"", RightsChange::Remove(rights(""))),
        ("\"\"", RightsChange::Replace(rights(""))),
    ] {
        reads(
            &format!("SETACL x joe {text}"),
            Command::SetAcl(mailbox("x"), "joe".into(), change),
        );
    }
    reads(
        "DELETEACL x \"jo e\"",
        Command::DeleteAcl(mailbox("x"), "jo e".into()),
    );
    reads(
        "LISTRIGHTS x joe",
        Command::ListRights(mailbox("x"), "joe".into()),
    );
    fails("SETACL x joe LRS", 13, "rights");
    fails("SETQUOTA \"\" (STORAGE)", 20, "a space");

    let get = GetMetadata {
        mailbox: Some(mailbox("x")),
        size_max_bytes: Some(1024),
        depth: MetadataDepth::Infinity,
        entries: vec!["/shared/a".into(), "/private/b".into()],
    };
    for text in [
        "GETMETADATA (MAXSIZE 1024 DEPTH infinity) x (/shared/a /private/b)",
        "GETMETADATA x (MAXSIZE 1024 DEPTH infinity) (/shared/a \"/private/b\")",
    ] {
        reads(text, Command::GetMetadata(get.clone()));
    }
    reads(
        "GETMETADATA \"\" /shared/a",
        Command::GetMetadata(GetMetadata {
            mailbox: None,
            size_max_bytes: None,
            depth: MetadataDepth::Zero,
            entries: vec!["/shared/a".into()],
        }),
    );
    reads(
        "SETMETADATA x (/shared/a NIL /private/b \"v\" /private/c ~{3+}\r\na\0b /private/d {2+}\r\n\r\n)",
        Command::SetMetadata(SetMetadata {
            mailbox: Some(mailbox("x")),
            entries: vec![
                ("/shared/a".into(), None),
                ("/private/b".into(), Some(b"v".to_vec())),
                ("/private/c".into(), Some(b"a\0b".to_vec())),
                ("/private/d".into(), Some(b"\r\n".to_vec())),
            ],
        }),
    );
    fails(
        "GETMETADATA x shared",
        14,
        "an entry name such as /private/comment",
    );
    fails(
        "GETMETADATA x /a//b",
        14,
        "an entry name such as /private/comment",
    );
    fails(
        "GETMETADATA x \"/a*\"",
        14,
        "an entry name such as /private/comment",
    );
    fails("SETMETADATA x ()", 13, "at least one entry");
    fails("SETMETADATA x (/a)", 17, "a space");
}
