//! LIST, LSUB, STATUS, NAMESPACE. RFC 9051 §7.3, RFC 5258, RFC 2342.

use super::super::command::StatusItem;
use super::super::mailbox::{MailboxName, NameForm, encode_text};
use super::Encoder;
use super::string::{astring, string};
use crate::output::number;

/// One mailbox in LIST's answer.
#[derive(Debug, Clone, Copy)]
pub struct ListResponse<'a> {
    /// `\HasChildren`, `\Noselect`, `\Sent` …
    pub attributes: &'a [&'a str],
    /// What separates its levels; none for a flat name.
    pub delimiter: Option<char>,
    /// Its name.
    pub name: &'a MailboxName,
    /// CHILDINFO: the selection options by which a child was selected. RFC 5258 §4.
    pub child_info: &'a [&'a str],
    /// OLDNAME: it was renamed from this. RFC 9051 §7.3.1.
    pub old_name: Option<&'a MailboxName>,
}

/// What STATUS tells of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusValue<'a> {
    /// A count, size or number.
    Number(u64),
    /// MAILBOXID's.
    Id(&'a str),
    /// NIL: no APPENDLIMIT.
    Absent,
}

/// One namespace: prefix in UTF-8, and delimiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Namespace<'a> {
    /// Begins every name in it.
    pub prefix: &'a str,
    /// Separates its levels.
    pub delimiter: Option<char>,
}

impl Encoder<'_> {
    /// LIST.
    pub fn list(&mut self, response: &ListResponse<'_>) {
        self.out.extend_from_slice(b"* LIST (");
        self.list_body(response);
        let form = self.form;
        let has_child_info = !response.child_info.is_empty();
        if has_child_info || response.old_name.is_some() {
            self.out.extend_from_slice(b" (");
            if has_child_info {
                let options = response.child_info.join("\" \"");
                let text = format!("\"CHILDINFO\" (\"{options}\")");
                self.out.extend_from_slice(text.as_bytes());
            }
            if let Some(old) = response.old_name {
                if has_child_info {
                    self.out.push(b' ');
                }
                self.out.extend_from_slice(b"\"OLDNAME\" (");
                astring(self.out, old.encode(form).as_bytes(), form);
                self.out.push(b')');
            }
            self.out.push(b')');
        }
        self.end();
    }

    /// LSUB; extended data is not of its grammar.
    pub fn lsub(&mut self, response: &ListResponse<'_>) {
        self.out.extend_from_slice(b"* LSUB (");
        self.list_body(response);
        self.end();
    }

    /// What an empty pattern asks for: the delimiter and the root of a name.
    pub fn list_root(&mut self, delimiter: Option<char>, root: &str) {
        self.out.extend_from_slice(b"* LIST (\\Noselect) ");
        self.delimiter(delimiter);
        self.out.push(b' ');
        string(self.out, encode_text(root, self.form).as_bytes(), self.form);
        self.end();
    }

    /// STATUS.
    pub fn status(&mut self, name: &MailboxName, values: &[(StatusItem, StatusValue<'_>)]) {
        self.out.extend_from_slice(b"* STATUS ");
        self.name(name);
        self.out.extend_from_slice(b" (");
        for (index, (item, value)) in values.iter().enumerate() {
            if index > 0 {
                self.out.push(b' ');
            }
            self.out.extend_from_slice(item.as_str().as_bytes());
            self.out.push(b' ');
            match value {
                StatusValue::Number(value) => number(self.out, *value),
                StatusValue::Absent => self.out.extend_from_slice(b"NIL"),
                StatusValue::Id(id) => {
                    self.out.push(b'(');
                    self.text(id);
                    self.out.push(b')');
                }
            }
        }
        self.out.push(b')');
        self.end();
    }

    /// NAMESPACE: personal, other users', shared.
    pub fn namespace(&mut self, kinds: [&[Namespace<'_>]; 3]) {
        self.out.extend_from_slice(b"* NAMESPACE");
        for spaces in kinds {
            self.out.push(b' ');
            if spaces.is_empty() {
                self.out.extend_from_slice(b"NIL");
                continue;
            }
            self.out.push(b'(');
            for space in spaces {
                self.out.push(b'(');
                string(
                    self.out,
                    encode_text(space.prefix, self.form).as_bytes(),
                    self.form,
                );
                self.out.push(b' ');
                self.delimiter(space.delimiter);
                self.out.push(b')');
            }
            self.out.push(b')');
        }
        self.end();
    }

    fn list_body(&mut self, response: &ListResponse<'_>) {
        self.out
            .extend_from_slice(response.attributes.join(" ").as_bytes());
        self.out.extend_from_slice(b") ");
        self.delimiter(response.delimiter);
        self.out.push(b' ');
        self.name(response.name);
    }

    fn delimiter(&mut self, delimiter: Option<char>) {
        match delimiter {
            None => self.out.extend_from_slice(b"NIL"),
            Some(delimiter) => {
                string(self.out, delimiter.to_string().as_bytes(), NameForm::Utf7);
            }
        }
    }
}
