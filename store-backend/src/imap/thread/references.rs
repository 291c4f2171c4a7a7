//! REFERENCES: who answers whom, by Message-ID; threads of one base subject are put together. RFC 5256 §3.
//!
//! Nodes stand in one list and name each other by place; nothing here recurses, for threads can be as deep as
//! a mailbox has messages.

use std::collections::HashMap;

use mail_proto::imap::encode::ThreadEntry;

use super::{Id, Mail, entry};

/// A message, or the place of one that is not here.
#[derive(Debug, Default)]
struct Node {
    /// Its place among the mails.
    mail: Option<usize>,
    parent: Option<usize>,
    /// It was somebody's parent at some time: only then can it be above anything.
    is_parent: bool,
    children: Vec<usize>,
}

struct Forest<'m> {
    mails: &'m [Mail],
    nodes: Vec<Node>,
    by_id: HashMap<Id, usize>,
}

pub(super) fn thread(mails: &[Mail]) -> Vec<ThreadEntry> {
    let mut forest = Forest {
        mails,
        nodes: Vec::with_capacity(mails.len()),
        by_id: HashMap::with_capacity(mails.len()),
    };
    for at in 0..mails.len() {
        forest.link(at);
    }
    forest.gather_children();
    let roots = forest.prune();
    let mut roots = forest.join_subjects(roots);
    forest.sort(&mut roots);
    forest.entries(&roots)
}

impl<'m> Forest<'m> {
    /// Steps 1 A to C.
    fn link(&mut self, at: usize) {
        let mail = &self.mails[at];
        let mut parent = None;
        for id in &mail.references {
            let child = self.node_of(*id);
            if let Some(parent) = parent
                && self.nodes[child].parent.is_none()
                && !self.is_above(child, parent)
            {
                self.set_parent(child, Some(parent));
            }
            parent = Some(child);
        }
        let own = mail.id.map(|id| self.node_of(id));
        // A second message of the same Message-ID is one of its own.
        let own = own.filter(|own| self.nodes[*own].mail.is_none());
        let own = own.unwrap_or_else(|| self.add());
        self.nodes[own].mail = Some(at);
        let parent = parent.filter(|parent| !self.is_above(own, *parent));
        // What others said of where it belongs does not count any more.
        self.set_parent(own, parent);
    }

    fn set_parent(&mut self, child: usize, parent: Option<usize>) {
        self.nodes[child].parent = parent;
        if let Some(parent) = parent {
            self.nodes[parent].is_parent = true;
        }
    }

    fn add(&mut self) -> usize {
        self.nodes.push(Node::default());
        self.nodes.len() - 1
    }

    fn node_of(&mut self, id: Id) -> usize {
        if let Some(known) = self.by_id.get(&id) {
            return *known;
        }
        let new = self.add();
        self.by_id.insert(id, new);
        new
    }

    /// Whether `node` is `below` or above it.
    fn is_above(&self, node: usize, below: usize) -> bool {
        if node != below && !self.nodes[node].is_parent {
            return false;
        }
        let mut at = Some(below);
        while let Some(place) = at {
            if place == node {
                return true;
            }
            at = self.nodes[place].parent;
        }
        false
    }

    fn gather_children(&mut self) {
        for at in 0..self.nodes.len() {
            if let Some(parent) = self.nodes[at].parent {
                self.nodes[parent].children.push(at);
            }
        }
    }

    /// Step 3: places without a message go; their children take them. The roots that are left.
    fn prune(&mut self) -> Vec<usize> {
        // From the leaves up, so that what takes a place is pruned itself.
        let tops = (0..self.nodes.len()).filter(|at| self.nodes[*at].parent.is_none());
        let mut order: Vec<usize> = tops.collect();
        let tops = order.len();
        let mut next = 0;
        while next < order.len() {
            order.extend(&self.nodes[order[next]].children);
            next += 1;
        }
        for at in order[tops..].iter().rev() {
            let node = &mut self.nodes[*at];
            if node.mail.is_some() {
                continue;
            }
            let orphans = std::mem::take(&mut node.children);
            if let Some(parent) = self.nodes[*at].parent {
                for orphan in &orphans {
                    self.nodes[*orphan].parent = Some(parent);
                }
                let siblings = &mut self.nodes[parent].children;
                siblings.extend(orphans);
            }
        }
        for at in &order {
            // Those that were emptied and had no message are no children any more.
            let mut children = std::mem::take(&mut self.nodes[*at].children);
            children.retain(|child| self.nodes[*child].mail.is_some());
            self.nodes[*at].children = children;
        }
        let mut roots = Vec::with_capacity(tops);
        for at in order.into_iter().take(tops) {
            match (self.nodes[at].mail, self.nodes[at].children.as_slice()) {
                (None, []) => {}
                (None, [only]) => {
                    let only = *only;
                    self.nodes[only].parent = None;
                    self.nodes[at].children.clear();
                    roots.push(only);
                }
                _ => roots.push(at),
            }
        }
        roots
    }

    /// The message that stands for a root.
    fn head(&self, root: usize) -> Option<&'m Mail> {
        let first = |node: &Node| node.mail;
        let children = self.nodes[root].children.iter();
        let heads = children.filter_map(|child| first(&self.nodes[*child]));
        let earliest = heads.min_by_key(|at| self.mails[*at].order());
        first(&self.nodes[root])
            .or(earliest)
            .map(|at| &self.mails[at])
    }

    /// Step 5: threads of the same base subject become one.
    fn join_subjects(&mut self, mut roots: Vec<usize>) -> Vec<usize> {
        // Step 4: in the order of their heads.
        roots.sort_by_key(|root| self.head(*root).map(Mail::order));
        let mut table: HashMap<&'m str, usize> = HashMap::new();
        for root in &roots {
            let Some(head) = self.head(*root) else {
                continue;
            };
            if head.subject.text.is_empty() {
                continue;
            }
            let known = table.entry(&head.subject.text).or_insert(*root);
            let is_better = (self.nodes[*root].mail.is_none() && self.nodes[*known].mail.is_some())
                || (self.nodes[*root].mail.is_none() == self.nodes[*known].mail.is_none()
                    && !head.subject.is_reply_or_forward
                    && self.is_reply(*known));
            if is_better {
                *known = *root;
            }
        }
        let mut joined = Vec::with_capacity(roots.len());
        // A root that was joined stands in for the one that it was joined to.
        let mut replaced: HashMap<usize, usize> = HashMap::new();
        let mut gone = vec![false; self.nodes.len()];
        for root in roots {
            joined.push(root);
            let subject = self.head(root).map(|head| head.subject.text.as_str());
            let Some(known) = subject.and_then(|subject| table.get(subject)).copied() else {
                continue;
            };
            if known == root {
                continue;
            }
            let target = replaced.get(&known).copied().unwrap_or(known);
            gone[root] = true;
            let (is_dummy, target_is_dummy) = (
                self.nodes[root].mail.is_none(),
                self.nodes[target].mail.is_none(),
            );
            if target_is_dummy && is_dummy {
                let children = std::mem::take(&mut self.nodes[root].children);
                self.adopt(target, children);
            } else if target_is_dummy || (self.is_reply(root) && !self.is_reply(target)) {
                self.adopt(target, vec![root]);
            } else {
                // Siblings below a place of their own.
                let place = self.add();
                gone.push(false);
                gone[target] = true;
                self.adopt(place, vec![target, root]);
                replaced.insert(known, place);
                joined.push(place);
            }
        }
        joined.retain(|root| !gone[*root]);
        joined
    }

    fn is_reply(&self, root: usize) -> bool {
        self.head(root)
            .is_some_and(|head| head.subject.is_reply_or_forward)
    }

    fn adopt(&mut self, parent: usize, children: Vec<usize>) {
        for child in &children {
            self.nodes[*child].parent = Some(parent);
        }
        self.nodes[parent].children.extend(children);
    }

    /// Step 6.
    fn sort(&mut self, roots: &mut [usize]) {
        let mails = self.mails;
        for at in 0..self.nodes.len() {
            let mut children = std::mem::take(&mut self.nodes[at].children);
            children.sort_by_key(|child| self.nodes[*child].mail.map(|mail| mails[mail].order()));
            self.nodes[at].children = children;
        }
        roots.sort_by_key(|root| self.head(*root).map(Mail::order));
    }

    fn entries(&self, roots: &[usize]) -> Vec<ThreadEntry> {
        let mut entries = Vec::with_capacity(self.mails.len());
        let mut open: Vec<(usize, usize)> = roots.iter().rev().map(|root| (*root, 0)).collect();
        while let Some((at, depth)) = open.pop() {
            let node = &self.nodes[at];
            entries.push(entry(depth, node.mail.map(|mail| self.mails[mail].uid)));
            let children = node.children.iter().rev();
            open.extend(children.map(|child| (*child, depth + 1)));
        }
        entries
    }
}
