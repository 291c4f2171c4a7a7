// Node's imapflow against a running system; `tests/peers_imapflow.rs` starts this.
// It ends with 0 when all is as it should be. A line `DELIVER` on its output asks for a message by SMTP.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const path = require('node:path');
const { ImapFlow } = require('imapflow');

const { CA, WHOLE, CORPUS, IMAPS_PORT, IMAP_PORT, LOGIN, PASSWORD } = process.env;
const read = folder => fs.readdirSync(folder).sort().map(name => fs.readFileSync(path.join(folder, name)));
const messages = read(CORPUS);

async function connect(options) {
    const client = new ImapFlow({
        host: 'localhost',
        port: Number(IMAPS_PORT),
        secure: true,
        auth: { user: LOGIN, pass: PASSWORD },
        tls: { ca: fs.readFileSync(CA) },
        logger: false,
        ...options
    });
    // Without a listener an error of the connection would end the program without a word of where it was.
    client.on('error', error => assert.fail(error));
    await client.connect();
    return client;
}

// Flags in order, less the one that belongs to whoever selected first.
function lasting(flags) {
    return [...flags].filter(flag => flag !== '\\Recent').sort();
}

async function all(messages) {
    const found = [];
    for await (const message of messages) {
        found.push(message);
    }
    return found;
}

// What has been told since, by name; `next` waits for more.
function listen(client, name) {
    const told = [];
    let wake = () => {};
    client.on(name, event => {
        told.push(event);
        wake();
    });
    const next = async () => {
        const end = Date.now() + 30000;
        while (!told.length) {
            assert.ok(Date.now() < end, `no ${name} was told`);
            await new Promise(resolve => {
                wake = resolve;
                setTimeout(resolve, 1000);
            });
        }
        return told.shift();
    };
    return { told, next };
}

async function logins() {
    const started = await connect({ port: Number(IMAP_PORT), secure: false, doSTARTTLS: true });
    assert.ok(started.secureConnection);
    assert.equal(started.serverInfo.name, 'Posthouse');
    await started.logout();
    for (const [options, wanted] of [
        [{ auth: { user: LOGIN, pass: `${PASSWORD}x` } }, error => error.serverResponseCode === 'AUTHENTICATIONFAILED'],
        [{ tls: {} }, error => error.code === 'SELF_SIGNED_CERT_IN_CHAIN' || error.code === 'UNABLE_TO_VERIFY_LEAF_SIGNATURE']
    ]) {
        await assert.rejects(connect(options), error => wanted(error) || assert.fail(error));
    }
}

// Every message there is, octet by octet.
async function whole(client) {
    const wanted = read(WHOLE);
    const opened = await client.mailboxOpen('whole', { readOnly: true });
    assert.equal(opened.exists, wanted.length);
    let count = 0;
    for await (const { seq, size, source } of client.fetch('1:*', { size: true, source: true })) {
        assert.ok(source.equals(wanted[seq - 1]) && size === source.length, `message ${seq} of all`);
        count += 1;
    }
    assert.equal(count, wanted.length);
    // While a mailbox is open, imapflow appends only such flags as that one takes, and this one takes none.
    await client.mailboxClose();
    return count;
}

// Some messages of the corpus are appended and read, and each of its parts by its number has the announced octets.
async function corpus(client) {
    await client.mailboxCreate('corpus');
    const date = new Date('2020-02-29T23:59:58Z');
    for (const [at, message] of messages.entries()) {
        const { uid } = await client.append('corpus', message, ['\\Seen', '$Label1'], date);
        assert.equal(uid, at + 1);
    }
    const opened = await client.mailboxOpen('corpus', { readOnly: true });
    assert.equal(opened.exists, messages.length);
    const items = { uid: true, flags: true, internalDate: true, size: true, envelope: true, bodyStructure: true, source: true };
    const found = await all(client.fetch('1:*', items));
    assert.equal(found.length, messages.length);
    let parts = 0;
    for (const one of found) {
        const what = `UID ${one.uid}`;
        assert.ok(one.source.equals(messages[one.uid - 1]), what);
        assert.equal(one.size, one.source.length, what);
        assert.deepEqual(lasting(one.flags), ['$Label1', '\\Seen'], what);
        assert.deepEqual(one.internalDate, date, what);
        assert.ok(one.envelope && one.bodyStructure, what);
        const leaves = walk(one.bodyStructure).slice(0, 20);
        const { bodyParts } = await client.fetchOne(one.uid, { bodyParts: leaves.map(leaf => leaf.part || 'TEXT') }, { uid: true });
        for (const leaf of leaves) {
            const part = bodyParts.get((leaf.part || 'text').toLowerCase());
            assert.equal(part ? part.length : 0, leaf.size, `${what} part ${leaf.part}`);
            parts += 1;
        }
    }
    // A part decoded and streamed, from pieces of 64 KiB.
    const largest = found.reduce((a, b) => (a.size > b.size ? a : b));
    const { content } = await client.download(largest.uid, undefined, { uid: true });
    const pieces = [];
    for await (const piece of content) {
        pieces.push(piece);
    }
    assert.ok(Buffer.concat(pieces).equals(messages[largest.uid - 1]));
    return parts;
}

// A message within is taken as one part: imapflow gives the part inside it the number of the whole.
function walk(node) {
    return node.childNodes && node.type !== 'message/rfc822' ? node.childNodes.flatMap(walk) : [node];
}

async function verbs(client) {
    const name = 'Entwürfe & mehr/日本';
    await client.mailboxCreate(name);
    await client.mailboxSubscribe(name);
    const rows = [
        'From: b@example.test\r\nSubject: zebra\r\nDate: Mon, 3 Feb 2020 10:00:00 +0000\r\n\r\nfirst body\r\n',
        'From: c@example.test\r\nSubject: =?utf-8?q?gr=C3=BCn?=\r\nDate: Sat, 1 Feb 2020 10:00:00 +0000\r\n\r\nsecond text\r\n',
        'From: a@example.test\r\nSubject: last\r\n\r\nthird body\r\n'
    ];
    for (const row of rows) {
        await client.append(name, row);
    }
    const listed = await client.list({ statusQuery: { messages: true, unseen: true, uidNext: true } });
    const { subscribed, status } = listed.find(one => one.path === name);
    assert.ok(subscribed);
    assert.deepEqual([status.messages, status.unseen, status.uidNext], [3, 3, 4]);
    await client.mailboxOpen(name);
    assert.deepEqual(await client.search({ body: 'body' }), [1, 3]);
    assert.deepEqual(await client.search({ subject: 'grün' }, { uid: true }), [2]);
    assert.deepEqual(await client.search({ or: [{ from: 'a@' }, { from: 'b@' }] }), [1, 3]);
    assert.deepEqual(await client.search({ sentSince: new Date('2020-02-02'), not: { seen: true } }), [1]);
    assert.ok(await client.messageFlagsAdd('1:2', ['\\Seen', 'Keyword']));
    assert.ok(await client.messageFlagsRemove('1', ['\\Seen']));
    assert.ok(await client.messageFlagsSet({ uid: '3' }, ['\\Flagged']));
    const flags = (await all(client.fetch('1:*', { flags: true }))).map(one => lasting(one.flags));
    assert.deepEqual(flags, [['Keyword'], ['Keyword', '\\Seen'], ['\\Flagged']]);
    const copied = await client.messageCopy('1,3', 'INBOX');
    assert.deepEqual([...copied.uidMap.keys()], [1, 3]);
    await client.mailboxCreate('target');
    const moved = await client.messageMove('2', 'target');
    assert.deepEqual([...moved.uidMap], [[2, 1]]);
    assert.ok(await client.messageDelete('1'));
    assert.deepEqual(await client.search({ all: true }, { uid: true }), [3]);
    await client.mailboxClose();
    await client.mailboxRename(name, 'renamed/日本');
    await client.mailboxDelete('renamed/日本');
    await assert.rejects(client.mailboxDelete('nowhere'), error => error.serverResponseCode === 'NONEXISTENT' || assert.fail(error));
}

// A delivery, flags and an expunge by another session are told to who idles.
async function idle(client) {
    const [exists, flags, expunge] = ['exists', 'flags', 'expunge'].map(name => listen(client, name));
    const { exists: before } = await client.mailboxOpen('INBOX');
    const idling = client.idle();
    console.log('DELIVER');
    assert.equal((await exists.next()).count, before + 1);
    const other = await connect();
    await other.mailboxOpen('INBOX');
    await other.messageFlagsAdd('*', ['\\Flagged']);
    assert.ok((await flags.next()).flags.has('\\Flagged'));
    await other.messageDelete('*');
    assert.equal((await expunge.next()).seq, before + 1);
    await other.logout();
    // Any command ends it.
    await client.noop();
    await idling;
}

// What changed and what vanished while we were away comes with the opening. RFC 7162.
async function resync() {
    const name = 'resync';
    const client = await connect({ qresync: true });
    assert.ok(client.enabled.has('CONDSTORE') && client.enabled.has('QRESYNC'));
    await client.mailboxCreate(name);
    for (let at = 0; at < 10; at += 1) {
        await client.append(name, `Subject: ${at}\r\n\r\n${at}\r\n`);
    }
    const { uidValidity, highestModseq } = await client.mailboxOpen(name);
    await client.mailboxClose();
    const other = await connect();
    await other.mailboxOpen(name);
    await other.messageDelete('2:4,9', { uid: true });
    await other.messageFlagsAdd('6', ['\\Flagged'], { uid: true });
    await other.append(name, 'Subject: new\r\n\r\nnew\r\n');
    await other.logout();

    const [expunge, flags] = ['expunge', 'flags'].map(event => listen(client, event));
    const opened = await client.mailboxOpen(name, { uidValidity, changedSince: highestModseq });
    assert.ok(opened.qresync && opened.highestModseq > highestModseq);
    assert.deepEqual(expunge.told.map(one => [one.uid, one.vanished, one.earlier]), [2, 3, 4, 9].map(uid => [uid, true, true]));
    assert.deepEqual(flags.told.map(one => [one.uid, lasting(one.flags)]), [[6, ['\\Flagged']], [11, []]]);
    const changed = await all(client.fetch('1:*', { uid: true, flags: true }, { changedSince: highestModseq }));
    assert.deepEqual(changed.map(one => one.uid), [6, 11]);
    assert.ok(changed.every(one => one.modseq > highestModseq));
    // A condition that no longer holds.
    await client.messageFlagsAdd('6', ['\\Seen'], { uid: true, unchangedSince: highestModseq });
    assert.ok(!(await client.fetchOne('6', { flags: true }, { uid: true })).flags.has('\\Seen'));
    expunge.told.length = 0;
    await client.messageDelete('1', { uid: true });
    assert.deepEqual(expunge.told.map(one => [one.uid, one.vanished]), [[1, true]]);
    await client.logout();
}

async function main() {
    await logins();
    const client = await connect();
    const all = await whole(client);
    const parts = await corpus(client);
    await verbs(client);
    await idle(client);
    await client.logout();
    await resync();
    const { version } = require('imapflow/package.json');
    console.log(`${all} messages read, ${messages.length} of them appended, ${parts} parts, imapflow ${version}`);
}

main().catch(error => {
    console.error(error);
    process.exit(1);
});
