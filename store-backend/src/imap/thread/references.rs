//! REFERENCES: who answers whom, by Message-ID; threads of one base subject are put together. RFC 5256 §3.
//!
//! Nodes stand in one list and name each other by place; nothing here recurses, for threads can be as deep as
//! a mailbox has messages. Whatever the headers say, the work is that of a sort: whether a link would close a loop is asked
//! of disjoint sets, never by walking up a thread.
//!
//! RFC 5256 links message by message, and what a message says of itself undoes what was guessed before from the references
//! of others. Nothing is undone here: first every message is linked to the one that it names last, then come
//! the guesses, for those that have said nothing. That is the same, but where headers contradict each other: then a
//! message's own word counts more than the guess.

use std::collections::HashMap;

use mail_proto::imap::encode::ThreadEntry;
use mail_proto::mime::BaseSubject;

use super::{Id, Mail, TooMany, entry};

/// A message, or the place of one that is not here.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Its place among the mails, or [`NONE`].
    mail: u32,
    /// [`NONE`] for a root.
    parent: u32,
    /// A node of the same thread; the node itself where that ends. For [`Forest::set_of`].
    set: u32,
}

struct Forest<'m> {
    mails: &'m [Mail],
    nodes: Vec<Node>,
    by_id: HashMap<Id, u32>,
}

/// The threads of these messages.
///
/// # Errors
/// They name more messages than [`NODES_MAX`].
pub(super) fn thread(mails: &[Mail]) -> Result<Vec<ThreadEntry>, TooMany> {
    let mut forest = Forest {
        mails,
        nodes: Vec::with_capacity(mails.len()),
        by_id: HashMap::with_capacity(mails.len()),
    };
    forest.link()?;
    let mut roots = forest.prune();
    let mut heads = forest.heads();
    forest.join_subjects(&mut roots, &mut heads);
    Ok(forest.entries(roots, &heads))
}

impl<'m> Forest<'m> {
    /// Steps 1 and 2.
    fn link(&mut self) -> Result<(), TooMany> {
        let mails = self.mails;
        let mut own = Vec::with_capacity(mails.len());
        for (at, mail) in (0..).zip(mails) {
            let known = mail.id.map(|id| self.node_of(id)).transpose()?;
            // A second message of the same Message-ID is one of its own.
            let known = known.filter(|node| self.node(*node).mail == NONE);
            let node = known.map_or_else(|| self.add(), Ok)?;
            self.node_mut(node).mail = at;
            own.push(node);
        }
        for (mail, own) in mails.iter().zip(own) {
            if let Some(last) = mail.references.last() {
                let parent = self.node_of(*last)?;
                self.set_parent(own, parent);
            }
        }
        for (at, mail) in (0..).zip(mails) {
            let mut parent = None;
            for id in &mail.references {
                let child = self.node_of(*id)?;
                let of = self.node(child);
                // What a message says that comes later counts alone.
                let is_open = of.parent == NONE && (of.mail == NONE || of.mail < at);
                if let Some(parent) = parent.filter(|_| is_open) {
                    self.set_parent(child, parent);
                }
                parent = Some(child);
            }
        }
        Ok(())
    }

    /// Unless that would close a loop. The child is a root: it is above all of its thread and of nothing else.
    fn set_parent(&mut self, child: u32, parent: u32) {
        let (below, above) = (self.set_of(child), self.set_of(parent));
        if below != above {
            self.node_mut(below).set = above;
            self.node_mut(child).parent = parent;
        }
    }

    /// What all nodes of one thread have in common. Each visit halves the way for the next.
    fn set_of(&mut self, mut at: u32) -> u32 {
        loop {
            let next = self.node(at).set;
            if next == at {
                return at;
            }
            let behind = self.node(next).set;
            self.node_mut(at).set = behind;
            at = behind;
        }
    }

    fn node(&self, at: u32) -> Node {
        self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    fn is_message(&self, at: u32) -> bool {
        self.node(at).mail != NONE
    }

    fn add(&mut self) -> Result<u32, TooMany> {
        let at = u32::try_from(self.nodes.len()).map_err(|_| TooMany)?;
        if self.nodes.len() >= NODES_MAX {
            return Err(TooMany);
        }
        self.nodes.push(Node {
            mail: NONE,
            parent: NONE,
            set: at,
        });
        Ok(at)
    }

    fn node_of(&mut self, id: Id) -> Result<u32, TooMany> {
        if let Some(known) = self.by_id.get(&id) {
            return Ok(*known);
        }
        let new = self.add()?;
        self.by_id.insert(id, new);
        Ok(new)
    }

    /// Every node that has a parent, with that, in the order of the parents.
    fn children(&self) -> Vec<(u32, u32)> {
        let nodes = (0..)
            .zip(&self.nodes)
            .filter(|(_, node)| node.parent != NONE);
        let mut children: Vec<(u32, u32)> = nodes.map(|(at, node)| (node.parent, at)).collect();
        children.sort_unstable();
        children
    }

    /// Step 3: places without a message go; the next one above them takes their children. The roots that are left.
    fn prune(&mut self) -> Vec<u32> {
        let children = self.children();
        let mut roots: Vec<u32> = (0..).take(self.nodes.len()).collect();
        roots.retain(|at| self.node(*at).parent == NONE);
        // From the roots down, so that what is above is settled.
        let mut order = roots.clone();
        let mut next = 0;
        while let Some(at) = order.get(next).copied() {
            next += 1;
            let above = match self.node(at).parent {
                NONE => NONE,
                parent if self.is_message(parent) || self.node(parent).parent == NONE => parent,
                // It is gone.
                parent => self.node(parent).parent,
            };
            self.node_mut(at).parent = above;
            order.extend(children_of(&children, at).iter().map(|(_, child)| *child));
        }
        // How many a place at the top has below it, and the last of them.
        let mut below: HashMap<u32, (u32, u32)> = HashMap::new();
        for at in order {
            let node = self.node(at);
            if node.mail == NONE || node.parent == NONE || self.is_message(node.parent) {
                continue;
            }
            let (count, last) = below.entry(node.parent).or_default();
            (*count, *last) = (*count + 1, at);
        }
        let kept =
            roots
                .into_iter()
                .filter_map(|root| match (self.is_message(root), below.get(&root)) {
                    (false, None) => None,
                    (false, Some((1, only))) => {
                        self.nodes[*only as usize].parent = NONE;
                        Some(*only)
                    }
                    _ => Some(root),
                });
        kept.collect()
    }

    /// The message that stands for each node: its own, or else the first of its children.
    fn heads(&self) -> Vec<u32> {
        let mut heads: Vec<u32> = self.nodes.iter().map(|node| node.mail).collect();
        for node in &self.nodes {
            if node.mail != NONE && node.parent != NONE && !self.is_message(node.parent) {
                let head = &mut heads[node.parent as usize];
                *head = self.earlier(*head, node.mail);
            }
        }
        heads
    }

    fn earlier(&self, one: u32, other: u32) -> u32 {
        let mails = [one, other].into_iter().filter(|mail| *mail != NONE);
        mails
            .min_by_key(|mail| self.mail(*mail).order())
            .unwrap_or(NONE)
    }

    fn mail(&self, at: u32) -> &'m Mail {
        &self.mails[at as usize]
    }

    /// Of the message that stands for a root.
    fn subject(&self, heads: &[u32], root: u32) -> &'m BaseSubject {
        &self.mail(heads[root as usize]).subject
    }

    /// Step 5: threads of the same base subject become one.
    fn join_subjects(&mut self, roots: &mut Vec<u32>, heads: &mut Vec<u32>) {
        // Step 4: in the order of their heads.
        roots.sort_by_cached_key(|root| self.mail(heads[*root as usize]).order());
        let mut table: HashMap<&'m str, u32> = HashMap::new();
        for root in roots.iter().copied() {
            let subject = self.subject(heads, root);
            if subject.text.is_empty() {
                continue;
            }
            let known = table.entry(&subject.text).or_insert(root);
            let (is_message, knows_message) = (self.is_message(root), self.is_message(*known));
            let is_better = (!is_message && knows_message)
                || (is_message == knows_message
                    && !subject.is_reply_or_forward
                    && self.subject(heads, *known).is_reply_or_forward);
            if is_better {
                *known = root;
            }
        }
        // A place that was made for a root and others stands in for it.
        let mut replaced: HashMap<u32, u32> = HashMap::new();
        // Places whose children went to another.
        let mut emptied: HashMap<u32, u32> = HashMap::new();
        for root in roots.clone() {
            let subject = self.subject(heads, root);
            let known = table.get(subject.text.as_str()).copied();
            let Some(known) = known.filter(|known| *known != root) else {
                continue;
            };
            let mut target = replaced.get(&known).copied().unwrap_or(known);
            if !self.is_message(target) && !self.is_message(root) {
                emptied.insert(root, target);
            } else {
                let is_answer =
                    subject.is_reply_or_forward && !self.subject(heads, target).is_reply_or_forward;
                if self.is_message(target) && !is_answer {
                    // Siblings below a place of their own.
                    let Ok(place) = self.add() else {
                        // They stay apart: there is no room for one more.
                        continue;
                    };
                    self.node_mut(target).parent = place;
                    heads.push(heads[target as usize]);
                    roots.push(place);
                    replaced.insert(known, place);
                    target = place;
                }
                self.node_mut(root).parent = target;
            }
            if !self.is_message(target) {
                heads[target as usize] = self.earlier(heads[target as usize], heads[root as usize]);
            }
        }
        for at in 0..self.nodes.len() {
            if let Some(target) = emptied.get(&self.nodes[at].parent) {
                self.nodes[at].parent = *target;
            }
        }
        roots.retain(|root| self.node(*root).parent == NONE && !emptied.contains_key(root));
    }

    /// Step 6, and the answer.
    fn entries(&self, mut roots: Vec<u32>, heads: &[u32]) -> Vec<ThreadEntry> {
        let order = |at: u32| self.mail(heads[at as usize]).order();
        roots.sort_by_cached_key(|root| order(*root));
        let mut children = self.children();
        // Of places that are gone nobody is the head.
        children.retain(|(_, child)| heads[*child as usize] != NONE);
        children.sort_by_cached_key(|(parent, child)| (*parent, order(*child)));
        let mut entries = Vec::with_capacity(self.mails.len());
        let mut open: Vec<(u32, usize)> = roots.iter().rev().map(|root| (*root, 0)).collect();
        while let Some((at, depth)) = open.pop() {
            let mail = Some(self.node(at).mail).filter(|mail| *mail != NONE);
            entries.push(entry(depth, mail.map(|mail| self.mail(mail).uid)));
            let below = children_of(&children, at).iter().rev();
            open.extend(below.map(|(_, child)| (*child, depth + 1)));
        }
        entries
    }
}

/// The children of a node, among all in the order of their parents.
fn children_of(children: &[(u32, u32)], of: u32) -> &[(u32, u32)] {
    let start = children.partition_point(|(parent, _)| *parent < of);
    let count = children[start..].partition_point(|(parent, _)| *parent == of);
    &children[start..start + count]
}

const NONE: u32 = u32::MAX;
/// Messages that are here or named by those that are: some 60 octets each.
const NODES_MAX: usize = 1 << 20;
