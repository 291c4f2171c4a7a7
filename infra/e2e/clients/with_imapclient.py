"""Python's IMAPClient and the imaplib below it, against a running system; `tests/peers_imapclient.rs` starts this.

It ends with 0 when all is as it should be. A line `DELIVER` on its output asks for a message by SMTP.
"""

import imaplib
import os
import pathlib
import ssl
import time
from datetime import datetime, timezone

import imapclient
from imapclient import IMAPClient, SocketTimeout, DELETED, FLAGGED, RECENT, SEEN
from imapclient.exceptions import IMAPClientError, LoginError

HOST = "localhost"
PORT, PLAIN_PORT = int(os.environ["IMAPS_PORT"]), int(os.environ["IMAP_PORT"])
USER, PASSWORD = os.environ["LOGIN"], os.environ["PASSWORD"]


def read(folder):
    return [path.read_bytes() for path in sorted(pathlib.Path(folder).iterdir())]


WHOLE, CORPUS = read(os.environ["WHOLE"]), read(os.environ["CORPUS"])
TRUST = ssl.create_default_context(cafile=os.environ["CA"])
TIMEOUT = SocketTimeout(connect=10, read=60)


def connect():
    client = IMAPClient(HOST, PORT, ssl_context=TRUST, timeout=TIMEOUT)
    client.login(USER, PASSWORD)
    return client


def lasting(told):
    """Flags by UID, less the one that belongs to whoever selected first."""
    return {uid: tuple(flag for flag in flags if flag != RECENT) for uid, flags in told.items()}


def equal(found, wanted, what=""):
    assert found == wanted, f"{what}: found {found!r:.1500}, wanted {wanted!r:.1500}"


def refused(call, *arguments, why):
    try:
        call(*arguments)
    except (IMAPClientError, imaplib.IMAP4.error) as error:
        assert why in str(error), error
    else:
        raise AssertionError(f"{arguments} was not refused")


def folder(client, name):
    client.create_folder(name)
    client.subscribe_folder(name)
    return name


def logins():
    """TLS from the first octet, STARTTLS, PLAIN with an initial response, a wrong password, a strange certificate."""
    with IMAPClient(HOST, PLAIN_PORT, ssl=False, timeout=TIMEOUT) as client:
        client.starttls(TRUST)
        client.plain_login(USER, PASSWORD)
        assert client.has_capability("QRESYNC")
    with IMAPClient(HOST, PORT, ssl_context=TRUST, timeout=TIMEOUT) as client:
        try:
            client.login(USER, PASSWORD + "x")
        except LoginError as error:
            assert "AUTHENTICATIONFAILED" in str(error), error
        else:
            raise AssertionError("a wrong password was taken")
        # The connection goes on.
        client.login(USER, PASSWORD)
        equal(client.id_({"name": "IMAPClient", "version": imapclient.__version__})[0], (b"name", b"Posthouse"))
    try:
        IMAPClient(HOST, PORT, timeout=TIMEOUT)
    except ssl.SSLCertVerificationError:
        pass
    else:
        raise AssertionError("a certificate of a stranger was taken")


def enable():
    """imaplib keeps the capabilities of the greeting and looks for ENABLE there."""
    client = imaplib.IMAP4_SSL(HOST, PORT, ssl_context=TRUST, timeout=60)
    client.login(USER, PASSWORD)
    # Before ENABLE: behind it, imaplib wraps the message in `UTF8 (…)` within the literal, which makes it another one.
    client.create("8bit")
    equal(client.append("8bit", None, None, "Subject: Grüße\r\n\r\nä\r\n".encode())[0], "OK")
    equal(client.enable("UTF8=ACCEPT")[0], "OK")
    client.select("8bit")
    # Quoted and in UTF-8 as it is, without a charset.
    equal(client.search(None, "SUBJECT", '"Grüße"'), ("OK", [b"1"]))
    client.store("1", "+FLAGS", r"(\Deleted)")
    equal(client.expunge(), ("OK", [b"1"]))
    client.close()
    equal(client.create('"Grüße"')[0], "OK")
    assert any("Grüße".encode() in name for name in client.list()[1]), client.list()
    equal(client.logout()[0], "BYE")


def whole(client):
    """Every message there is, octet by octet."""
    equal(client.select_folder("whole", readonly=True)[b"EXISTS"], len(WHOLE))
    for first in range(1, len(WHOLE) + 1, 500):
        found = client.fetch(f"{first}:{min(first + 499, len(WHOLE))}", ["BODY.PEEK[]", "RFC822.SIZE"])
        for uid, message in enumerate(WHOLE[first - 1:first + 499], first):
            assert found[uid][b"BODY[]"] == message and found[uid][b"RFC822.SIZE"] == len(message), f"UID {uid} of all"
    client.unselect_folder()


def corpus(client):
    """What is appended is read, octet by octet; IMAPClient makes every line end CRLF on its way in."""
    folder(client, "corpus")
    wanted = []
    date = datetime(2020, 2, 29, 23, 59, 58, tzinfo=timezone.utc)
    for message in CORPUS:
        client.append("corpus", message, (SEEN, "$Label1"), date)
        wanted.append(imaplib.MapCRLF.sub(b"\r\n", message))
    # By MULTIAPPEND too: as they are.
    client.multiappend("corpus", [{"msg": message, "flags": [FLAGGED], "date": date} for message in CORPUS])
    wanted += CORPUS
    equal(client.select_folder("corpus")[b"EXISTS"], len(wanted))
    client.normalise_times = False
    items = ["FLAGS", "INTERNALDATE", "RFC822.SIZE", "BODY.PEEK[]", "ENVELOPE", "BODYSTRUCTURE"]
    found = client.fetch("1:*", items)
    equal(sorted(found), list(range(1, len(wanted) + 1)))
    for uid, message in enumerate(wanted, 1):
        one = found[uid]
        equal(one[b"BODY[]"], message, f"UID {uid}")
        equal(one[b"RFC822.SIZE"], len(message), f"UID {uid}")
        equal(one[b"INTERNALDATE"], date, f"UID {uid}")
        flags = (SEEN, b"$Label1") if uid <= len(CORPUS) else (FLAGGED,)
        equal(set(one[b"FLAGS"]) - {RECENT}, set(flags), f"UID {uid}")
        assert one[b"ENVELOPE"] is not None and one[b"BODYSTRUCTURE"] is not None
        head = client.fetch(uid, ["BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]"])[uid] if uid % 16 == 0 else None
        if head:
            equal(head[b"BODY[HEADER]"] + head[b"BODY[TEXT]"], message, f"UID {uid}")
    client.close_folder()


MESSAGES = [
    b"From: %s\r\nSubject: %s\r\nDate: Mon, %d Feb 2020 10:00:00 +0000\r\nMessage-ID: <%d@x>\r\n%s\r\n%s\r\n"
    % row
    for row in [
        (b"b@example.test", b"zebra", 3, 1, b"", b"first body"),
        (b"c@example.test", b"Re: zebra", 2, 2, b"In-Reply-To: <1@x>\r\n", b"second text"),
        (b"a@example.test", b"=?utf-8?q?gr=C3=BCn?=", 1, 3, b"", b"third body"),
    ]
]


def verbs(client):
    """Flags, keywords, COPY, MOVE, EXPUNGE, SEARCH, SORT, THREAD, LIST, STATUS, NAMESPACE, SUBSCRIBE."""
    folder(client, "verbs")
    folder(client, "Entwürfe & mehr/日本")
    for message in MESSAGES:
        client.append("verbs", message)
    client.select_folder("verbs")
    equal(lasting(client.add_flags([1, 2], [SEEN, "Keyword"])), {1: (SEEN, b"Keyword"), 2: (SEEN, b"Keyword")})
    equal(lasting(client.remove_flags(2, [SEEN])), {2: (b"Keyword",)})
    equal(client.set_flags(3, [FLAGGED], silent=True), None)
    equal(lasting(client.get_flags([1, 2, 3])), {1: (SEEN, b"Keyword"), 2: (b"Keyword",), 3: (FLAGGED,)})

    equal(client.search(["KEYWORD", "Keyword", "NOT", "SEEN"]), [2])
    equal(client.search(["SUBJECT", "grün"], "UTF-8"), [3])
    equal(client.search(["BODY", "body"]), [1, 3])
    equal(client.search(["OR", "FROM", "a@", "FROM", "c@"]), [2, 3])
    equal(client.search(["SENTSINCE", datetime(2020, 2, 2)]), [1, 2])
    assert client.search("MODSEQ 1").modseq > 1
    equal(client.sort("SUBJECT"), [3, 1, 2])
    equal(client.sort(["REVERSE", "DATE"], ["BODY", "body"]), [1, 3])
    equal(client.thread("REFERENCES"), ((3,), (1, 2)))
    equal(client.thread("ORDEREDSUBJECT", "SUBJECT zebra"), ((2, 1),))
    refused(client.search, "NONSENSE", why="expected a search key")

    name = "Entwürfe & mehr/日本"
    client.copy([1, 3], name)
    client.move([2], name)
    equal(client.search(), [1, 3])
    client.delete_messages(3)
    client.expunge([3])
    equal(client.search(), [1])
    equal(client.folder_status(name, ["MESSAGES", "UIDNEXT", "UNSEEN"]), {b"MESSAGES": 3, b"UIDNEXT": 4, b"UNSEEN": 2})
    client.select_folder(name, readonly=True)
    copies = client.fetch("1:*", "BODY[]")
    equal([copies[uid][b"BODY[]"] for uid in (1, 2, 3)], [MESSAGES[0], MESSAGES[2], MESSAGES[1]])
    refused(client.add_flags, 1, [DELETED], why="read-only")
    client.unselect_folder()

    assert name in [listed for _, _, listed in client.list_folders()]
    assert name in [listed for _, _, listed in client.list_sub_folders()]
    client.rename_folder(name, "moved/日本")
    assert client.folder_exists("moved/日本") and not client.folder_exists(name)
    client.unsubscribe_folder(name)
    client.delete_folder("moved/日本")
    equal(client.namespace().personal, (("", "/"),))
    refused(client.create_folder, "INBOX", why="ALREADYEXISTS")
    refused(client.append, "nowhere", b"x", why="TRYCREATE")


def idle(client):
    """A delivery arrives while we idle, and a change of flags by another session."""
    client.select_folder("INBOX")
    uid = client.search()[-1:] or [0]
    client.idle()
    print("DELIVER", flush=True)
    until(client, lambda told: told[1:] == (b"EXISTS",))
    client.idle_done()
    [new] = [one for one in client.search(["UID", f"{uid[0] + 1}:*"]) if one > uid[0]]
    assert b"Subject: delivered" in client.fetch(new, "RFC822.HEADER")[new][b"RFC822.HEADER"]
    client.idle()
    with connect() as other:
        other.select_folder("INBOX")
        other.add_flags(new, [FLAGGED])
    until(client, lambda told: told[1] == b"FETCH" and FLAGGED in told[2][told[2].index(b"FLAGS") + 1])
    client.idle_done()


def until(client, is_told):
    end = time.monotonic() + 30
    while not any(is_told(told) for told in client.idle_check(timeout=1)):
        assert time.monotonic() < end, "nothing was told in IDLE"


def resync(client):
    """CONDSTORE by the library; QRESYNC, which it does not know, by its way to send any command."""
    folder(client, "resync")
    for message in MESSAGES:
        client.append("resync", message)
    opened = client.select_folder("resync")
    validity, before = opened[b"UIDVALIDITY"], opened[b"HIGHESTMODSEQ"]
    client.unselect_folder()
    with connect() as other:
        other.select_folder("resync")
        other.delete_messages(1)
        other.expunge([1])
        other.add_flags(3, [FLAGGED])
    client.select_folder("resync")
    changed = client.fetch("1:*", ["FLAGS"], [f"CHANGEDSINCE {before}"])
    equal(list(changed), [3])
    assert changed[3][b"MODSEQ"][0] > before
    with connect() as again:
        equal(again.enable("QRESYNC", "CONDSTORE"), [b"QRESYNC", b"CONDSTORE"])
        told = ask(again, "SELECT", f"resync (QRESYNC ({validity} {before}))")
        assert (b"VANISHED", (b"EARLIER",), 1) in told, told
        [fetch] = [one for one in told if one[1:2] == (b"FETCH",)]
        equal((fetch[0], fetch[2][:4]), (2, (b"UID", 3, b"FLAGS", (FLAGGED,))))
        told = ask(again, "UID FETCH", f"1:* (FLAGS) (CHANGEDSINCE {before} VANISHED)")
        assert (b"VANISHED", (b"EARLIER",), 1) in told, told
        ask(again, "UID STORE", r"2 +FLAGS.SILENT (\Deleted)")
        told = ask(again, "UID EXPUNGE", "2")
        assert (b"VANISHED", 2) in told, told


def ask(client, verb, arguments):
    """Sends a command as it is; gives the untagged responses, parsed by the library."""
    tag = client._imap._new_tag()
    client._imap.send(b"%s %s\r\n" % (tag, f"{verb} {arguments}".encode()))
    client._imap.state = "SELECTED"
    return client._consume_until_tagged_response(tag, verb)[1]


def main():
    logins()
    with connect() as client:
        whole(client)
        corpus(client)
        verbs(client)
        idle(client)
        resync(client)
    enable()
    print(f"{len(WHOLE)} messages read, {len(CORPUS)} of them appended, IMAPClient {imapclient.__version__}")


main()
