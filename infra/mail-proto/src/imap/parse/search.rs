//! SEARCH and its keys. RFC 9051 §6.4.4, RFC 4731, 5032, 5182, 7162, 8474, 8514, 9394, 9738.

use super::super::command::{DateField, DateTest, Flag, ReturnOptions, Search, SearchKey};
use super::super::sequence::Addressing;
use super::cursor::Cursor;
use super::error::ParseError;
use super::{NESTING_MAX, SEARCH_KEYS_MAX, date, set, store};

/// The arguments of SEARCH.
pub(super) fn search(by: Addressing, cursor: &mut Cursor<'_>) -> Result<Search, ParseError> {
    cursor.spaces_or_open()?;
    let returns = returns(cursor)?;
    let mut charset = None;
    if cursor.take_word("CHARSET") {
        cursor.spaces()?;
        charset = Some(cursor.astring_text("a charset")?);
        cursor.spaces_or_open()?;
    }
    Ok(Search {
        by,
        returns,
        charset,
        keys: keys(cursor)?,
    })
}

/// `RETURN (…)`, if it is there, and the spaces behind.
pub(super) fn returns(cursor: &mut Cursor<'_>) -> Result<Option<ReturnOptions>, ParseError> {
    if !cursor.take_word("RETURN") {
        return Ok(None);
    }
    let mut options = ReturnOptions::default();
    let mut is_empty = true;
    cursor.list(|cursor| {
        is_empty = false;
        let start = cursor.at();
        match cursor.name("a search return option")?.as_ref() {
            "MIN" => options.min = true,
            "MAX" => options.max = true,
            "ALL" => options.all = true,
            "COUNT" => options.count = true,
            "SAVE" => options.save = true,
            // RFC 9394 §3.1.
            "PARTIAL" if options.partial.is_some() => {
                return Err(cursor.expected_from(start, "PARTIAL only once"));
            }
            "PARTIAL" => {
                cursor.spaces()?;
                options.partial = Some(set::partial(cursor)?);
            }
            _ => return Err(cursor.expected_from(start, "a known search return option")),
        }
        Ok(())
    })?;
    options.all |= is_empty;
    // RFC 9394 §3.1.
    if options.all && options.partial.is_some() {
        return Err(cursor.expected("either ALL or PARTIAL"));
    }
    cursor.spaces_or_open()?;
    Ok(Some(options))
}

/// Keys up to the end of the command.
///
/// A stack of our own stands for recursion: clients send chains of a thousand
/// `OR`, one inside the other.
pub(super) fn keys(cursor: &mut Cursor<'_>) -> Result<SearchKey, ParseError> {
    let mut program = Program::default();
    loop {
        program.key(cursor)?;
        while program.awaits_more() {
            cursor.optional_spaces();
            if !program.has_open_group() || !cursor.take(b')') {
                break;
            }
            program.close(cursor)?;
        }
        if program.is_complete() && cursor.peek().is_none() {
            return Ok(program.finish());
        }
        program.between(cursor)?;
    }
}

/// What is known of an unfinished search.
#[derive(Default)]
struct Program {
    /// The outermost AND.
    top: Vec<Node>,
    open: Vec<Open>,
    group_count: usize,
    key_count: usize,
}

/// A key and how many levels it has below itself.
struct Node {
    key: SearchKey,
    levels: usize,
}

enum Open {
    Group(Vec<Node>),
    Not,
    Or(Option<Node>),
}

impl Program {
    /// Reads operators and parentheses up to a key, and that.
    fn key(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
        loop {
            if cursor.take(b'(') {
                self.group_count += 1;
                if self.group_count > NESTING_MAX {
                    return Err(cursor.over_limit("parentheses nested at most 32 deep"));
                }
                self.open.push(Open::Group(Vec::new()));
                cursor.optional_spaces();
            } else if cursor.take_word("OR") {
                self.open.push(Open::Or(None));
                cursor.spaces_or_open()?;
            } else if cursor.take_word("NOT") {
                match self.open.last() {
                    Some(Open::Not) => drop(self.open.pop()),
                    _ => self.open.push(Open::Not),
                }
                cursor.spaces_or_open()?;
            } else {
                break;
            }
            // What a thousand keys can need: an OR and a NOT for each.
            if self.open.len() > 2 * SEARCH_KEYS_MAX + NESTING_MAX {
                return Err(cursor.over_limit("at most 1000 search keys"));
            }
        }
        self.key_count += 1;
        if self.key_count > SEARCH_KEYS_MAX {
            return Err(cursor.over_limit("at most 1000 search keys"));
        }
        let key = leaf(cursor)?;
        let levels = match key {
            // NEW, which has a NOT below.
            SearchKey::And(_) => 2,
            SearchKey::Not(_) => 1,
            _ => 0,
        };
        self.reduce(Node { key, levels }, cursor)
    }

    /// A key is complete: so may be what awaited it.
    fn reduce(&mut self, mut node: Node, cursor: &Cursor<'_>) -> Result<(), ParseError> {
        loop {
            if node.levels > LEVELS_MAX {
                return Err(cursor.over_limit("search keys nested at most 100 deep"));
            }
            match self.open.last_mut() {
                None => {
                    self.top.push(node);
                    return Ok(());
                }
                Some(Open::Group(keys)) => {
                    keys.push(node);
                    return Ok(());
                }
                Some(Open::Or(first @ None)) => {
                    *first = Some(node);
                    return Ok(());
                }
                Some(Open::Or(Some(_))) => {
                    let Some(Open::Or(Some(first))) = self.open.pop() else {
                        unreachable!("matched just before")
                    };
                    node = or(first, node);
                }
                Some(Open::Not) => {
                    self.open.pop();
                    node = not(node);
                }
            }
        }
    }

    /// Whether a `)` or the end may come now.
    fn awaits_more(&self) -> bool {
        matches!(self.open.last(), None | Some(Open::Group(_)))
    }

    fn has_open_group(&self) -> bool {
        matches!(self.open.last(), Some(Open::Group(_)))
    }

    fn is_complete(&self) -> bool {
        self.open.is_empty()
    }

    /// The `)` of a group was read.
    fn close(&mut self, cursor: &Cursor<'_>) -> Result<(), ParseError> {
        let Some(Open::Group(keys)) = self.open.pop() else {
            return Err(cursor.expected("a search key"));
        };
        self.group_count -= 1;
        self.reduce(and(keys), cursor)
    }

    /// What separates two keys.
    fn between(&self, cursor: &mut Cursor<'_>) -> Result<(), ParseError> {
        cursor.optional_spaces();
        match cursor.peek() {
            None if self.has_open_group() => Err(cursor.expected("a closing parenthesis")),
            None => Err(cursor.expected("a search key")),
            Some(b'(') => Ok(()),
            Some(_) if cursor.was_space() => Ok(()),
            Some(_) => Err(cursor.expected("a space")),
        }
    }

    fn finish(self) -> SearchKey {
        and(self.top).key
    }
}

/// All of some keys; parentheses inside parentheses are no level of their own.
fn and(mut nodes: Vec<Node>) -> Node {
    if nodes.len() == 1
        && let Some(node) = nodes.pop()
    {
        return node;
    }
    let mut keys = Vec::with_capacity(nodes.len());
    let mut levels = 0;
    for node in nodes {
        match node.key {
            SearchKey::And(inner) => {
                levels = levels.max(node.levels);
                keys.extend(inner);
            }
            key => {
                levels = levels.max(node.levels + 1);
                keys.push(key);
            }
        }
    }
    Node {
        key: SearchKey::And(keys),
        levels,
    }
}

/// Either of two. A chain becomes one list: the shorter goes behind the longer,
/// so that a thousand take linear time from either end.
fn or(first: Node, second: Node) -> Node {
    let split = |node: Node| match node.key {
        SearchKey::Or(keys) => (keys, node.levels),
        key => (vec![key], node.levels + 1),
    };
    let ((mut keys, one), (mut others, other)) = (split(first), split(second));
    if keys.len() < others.len() {
        std::mem::swap(&mut keys, &mut others);
    }
    keys.append(&mut others);
    Node {
        key: SearchKey::Or(keys),
        levels: one.max(other),
    }
}

fn not(node: Node) -> Node {
    match node.key {
        SearchKey::Not(key) => Node {
            key: *key,
            levels: node.levels - 1,
        },
        key => Node {
            key: SearchKey::Not(Box::new(key)),
            levels: node.levels + 1,
        },
    }
}

fn leaf(cursor: &mut Cursor<'_>) -> Result<SearchKey, ParseError> {
    if matches!(cursor.peek(), Some(b'0'..=b'9' | b'*' | b'$')) {
        return Ok(SearchKey::Sequence(set::message_set(cursor)?));
    }
    let start = cursor.at();
    let name = cursor.name("a search key")?;
    if let Some(key) = without_argument(&name) {
        return Ok(key);
    }
    if let Some((field, test)) = date_key(&name) {
        cursor.spaces()?;
        return Ok(SearchKey::Date(field, test, date::date(cursor)?));
    }
    if !WITH_ARGUMENT.contains(&name.as_ref()) {
        return Err(cursor.expected_from(start, "a search key"));
    }
    cursor.spaces()?;
    Ok(match name.as_ref() {
        "UID" => SearchKey::Uid(set::message_set(cursor)?),
        "UIDAFTER" => SearchKey::UidAfter(set::one_uid(cursor)?),
        "UIDBEFORE" => SearchKey::UidBefore(set::one_uid(cursor)?),
        "KEYWORD" => SearchKey::Flag(Flag::Keyword(store::keyword(cursor)?)),
        "UNKEYWORD" => negated(SearchKey::Flag(Flag::Keyword(store::keyword(cursor)?))),
        "BODY" => SearchKey::Body(text(cursor)?),
        "TEXT" => SearchKey::Text(text(cursor)?),
        "HEADER" => {
            let mut field = cursor.astring_text("a header field's name")?;
            field.make_ascii_uppercase();
            cursor.spaces()?;
            SearchKey::Header(field, text(cursor)?)
        }
        "LARGER" => SearchKey::Larger(cursor.number64("a count of octets")?),
        "SMALLER" => SearchKey::Smaller(cursor.number64("a count of octets")?),
        "OLDER" => SearchKey::Older(cursor.positive("a positive count of seconds")?),
        "YOUNGER" => SearchKey::Younger(cursor.positive("a positive count of seconds")?),
        "MODSEQ" => modseq(cursor)?,
        "EMAILID" => SearchKey::EmailId(cursor.astring_text("an object id")?),
        "THREADID" => SearchKey::ThreadId(cursor.astring_text("an object id")?),
        // BCC, CC, FROM, SUBJECT, TO.
        field => SearchKey::Header(field.to_owned(), text(cursor)?),
    })
}

const WITH_ARGUMENT: [&str; 20] = [
    "BCC",
    "BODY",
    "CC",
    "EMAILID",
    "FROM",
    "HEADER",
    "KEYWORD",
    "LARGER",
    "MODSEQ",
    "OLDER",
    "SMALLER",
    "SUBJECT",
    "TEXT",
    "THREADID",
    "TO",
    "UID",
    "UIDAFTER",
    "UIDBEFORE",
    "UNKEYWORD",
    "YOUNGER",
];

fn without_argument(name: &str) -> Option<SearchKey> {
    let flag = |name: &str| Flag::system(name.as_bytes()).map(SearchKey::Flag);
    match name {
        "ALL" => Some(SearchKey::All),
        "RECENT" => Some(SearchKey::Recent),
        "OLD" => Some(negated(SearchKey::Recent)),
        "NEW" => Some(SearchKey::And(vec![
            SearchKey::Recent,
            negated(SearchKey::Flag(Flag::Seen)),
        ])),
        "SAVEDATESUPPORTED" => Some(SearchKey::SaveDateSupported),
        name => flag(name).or_else(|| flag(name.strip_prefix("UN")?).map(negated)),
    }
}

fn negated(key: SearchKey) -> SearchKey {
    SearchKey::Not(Box::new(key))
}

fn date_key(name: &str) -> Option<(DateField, DateTest)> {
    let (field, test) = match name.strip_prefix("SENT") {
        Some(test) => (DateField::Sent, test),
        None => match name.strip_prefix("SAVED") {
            Some(test) => (DateField::Saved, test),
            None => (DateField::Internal, name),
        },
    };
    let test = match test {
        "BEFORE" => DateTest::Before,
        "ON" => DateTest::On,
        "SINCE" => DateTest::Since,
        _ => return None,
    };
    Some((field, test))
}

/// `MODSEQ ["/flags/\\Seen" all] 620162338`. RFC 7162 §3.1.5.
fn modseq(cursor: &mut Cursor<'_>) -> Result<SearchKey, ParseError> {
    if cursor.peek() == Some(b'"') {
        cursor.string("an entry name")?;
        cursor.spaces()?;
        if !["PRIV", "SHARED", "ALL"]
            .iter()
            .any(|kind| cursor.take_word(kind))
        {
            return Err(cursor.expected("priv, shared or all"));
        }
        cursor.spaces()?;
    }
    Ok(SearchKey::ModSeq(cursor.modseq()?))
}

fn text(cursor: &mut Cursor<'_>) -> Result<Vec<u8>, ParseError> {
    Ok(cursor.astring("a text to search for")?.into_owned())
}

/// Levels of the finished tree, so that whoever walks it may recurse: a NOT and
/// an OR for each of 32 parentheses, and some.
const LEVELS_MAX: usize = 100;
