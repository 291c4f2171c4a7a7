//! QUOTA, ACL, METADATA, ID. RFC 9208, RFC 4314, RFC 5464, RFC 2971.

use super::super::command::Rights;
use super::super::mailbox::MailboxName;
use super::Encoder;
use super::string::{astring, nstring, nstring8, string};
use crate::output::number;

impl Encoder<'_> {
    /// QUOTA: each resource with its usage and limit.
    pub fn quota(&mut self, root: &str, resources: &[(&str, u64, u64)]) {
        self.out.extend_from_slice(b"* QUOTA ");
        astring(self.out, root.as_bytes(), self.form);
        self.out.extend_from_slice(b" (");
        for (index, (name, usage, limit)) in resources.iter().enumerate() {
            if index > 0 {
                self.out.push(b' ');
            }
            self.text(name);
            for value in [usage, limit] {
                self.out.push(b' ');
                number(self.out, *value);
            }
        }
        self.out.push(b')');
        self.end();
    }

    /// QUOTAROOT.
    pub fn quota_root(&mut self, name: &MailboxName, roots: &[&str]) {
        self.out.extend_from_slice(b"* QUOTAROOT ");
        self.name(name);
        for root in roots {
            self.out.push(b' ');
            astring(self.out, root.as_bytes(), self.form);
        }
        self.end();
    }

    /// ACL: who may what.
    pub fn acl(&mut self, name: &MailboxName, entries: &[(&str, Rights)]) {
        self.out.extend_from_slice(b"* ACL ");
        self.name(name);
        for (identifier, rights) in entries {
            self.out.push(b' ');
            astring(self.out, identifier.as_bytes(), self.form);
            self.out.push(b' ');
            astring(self.out, rights.letters().as_bytes(), self.form);
        }
        self.end();
    }

    /// LISTRIGHTS: those always granted, and each group that can be.
    pub fn list_rights(
        &mut self,
        name: &MailboxName,
        identifier: &str,
        required: Rights,
        optional: &[Rights],
    ) {
        self.out.extend_from_slice(b"* LISTRIGHTS ");
        self.name(name);
        self.out.push(b' ');
        astring(self.out, identifier.as_bytes(), self.form);
        for rights in std::iter::once(&required).chain(optional) {
            self.out.push(b' ');
            astring(self.out, rights.letters().as_bytes(), self.form);
        }
        self.end();
    }

    /// MYRIGHTS.
    pub fn my_rights(&mut self, name: &MailboxName, rights: Rights) {
        self.out.extend_from_slice(b"* MYRIGHTS ");
        self.name(name);
        self.out.push(b' ');
        astring(self.out, rights.letters().as_bytes(), self.form);
        self.end();
    }

    /// METADATA with values; of the server when there is no name.
    pub fn metadata(&mut self, name: Option<&MailboxName>, entries: &[(&str, Option<&[u8]>)]) {
        self.metadata_name(name);
        self.out.extend_from_slice(b" (");
        for (index, (entry, value)) in entries.iter().enumerate() {
            if index > 0 {
                self.out.push(b' ');
            }
            astring(self.out, entry.as_bytes(), self.form);
            self.out.push(b' ');
            nstring8(self.out, *value, self.form);
        }
        self.out.push(b')');
        self.end();
    }

    /// METADATA without values: these entries have changed.
    pub fn metadata_changed(&mut self, name: Option<&MailboxName>, entries: &[&str]) {
        self.metadata_name(name);
        for entry in entries {
            self.out.push(b' ');
            astring(self.out, entry.as_bytes(), self.form);
        }
        self.end();
    }

    /// ID: what we say of ourselves; NIL when that is nothing.
    pub fn id(&mut self, fields: &[(&str, Option<&str>)]) {
        self.out.extend_from_slice(b"* ID ");
        if fields.is_empty() {
            self.out.extend_from_slice(b"NIL");
        } else {
            self.out.push(b'(');
            for (index, (name, value)) in fields.iter().enumerate() {
                if index > 0 {
                    self.out.push(b' ');
                }
                string(self.out, name.as_bytes(), self.form);
                self.out.push(b' ');
                nstring(self.out, value.map(str::as_bytes), self.form);
            }
            self.out.push(b')');
        }
        self.end();
    }

    fn metadata_name(&mut self, name: Option<&MailboxName>) {
        self.out.extend_from_slice(b"* METADATA ");
        match name {
            Some(name) => self.name(name),
            None => self.out.extend_from_slice(b"\"\""),
        }
    }
}
