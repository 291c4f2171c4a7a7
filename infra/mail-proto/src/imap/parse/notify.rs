//! NOTIFY. RFC 5465 §8.

use super::super::command::{FetchItem, MailboxFilter, NotifyEvent, NotifyGroup, NotifySet};
use super::super::mailbox::MailboxName;
use super::cursor::Cursor;
use super::error::ParseError;
use super::fetch;

/// The arguments of NOTIFY; `None` for NONE.
pub(super) fn notify(cursor: &mut Cursor<'_>) -> Result<Option<NotifySet>, ParseError> {
    cursor.spaces()?;
    if cursor.take_word("NONE") {
        return Ok(None);
    }
    if !cursor.take_word("SET") {
        return Err(cursor.expected("SET or NONE"));
    }
    cursor.spaces_or_open()?;
    let status = cursor.take_word("STATUS");
    if status {
        cursor.spaces_or_open()?;
    }
    let mut set = NotifySet {
        status,
        groups: Vec::new(),
    };
    loop {
        let start = cursor.at();
        let group = group(cursor)?;
        let is_selected = |group: &NotifyGroup| group.filter.is_selected();
        if is_selected(&group) && set.groups.iter().any(is_selected) {
            return Err(cursor.expected_from(start, "the selected mailbox only once"));
        }
        if set.groups.len() == GROUPS_MAX {
            return Err(cursor.over_limit("at most 100 groups of events"));
        }
        set.groups.push(group);
        if !cursor.has_more() {
            return Ok(Some(set));
        }
    }
}

fn group(cursor: &mut Cursor<'_>) -> Result<NotifyGroup, ParseError> {
    cursor.open()?;
    let start = cursor.at();
    let filter = match cursor.name("a mailbox filter")?.as_ref() {
        "SELECTED" => MailboxFilter::Selected,
        "SELECTED-DELAYED" => MailboxFilter::SelectedDelayed,
        "INBOXES" => MailboxFilter::Inboxes,
        "PERSONAL" => MailboxFilter::Personal,
        "SUBSCRIBED" => MailboxFilter::Subscribed,
        "SUBTREE" => MailboxFilter::Subtree(mailboxes(cursor)?),
        "MAILBOXES" => MailboxFilter::Mailboxes(mailboxes(cursor)?),
        _ => return Err(cursor.expected_from(start, "a mailbox filter")),
    };
    cursor.spaces_or_open()?;
    let mut events = Vec::new();
    let start = cursor.at();
    if !cursor.take_word("NONE") {
        cursor.list(|cursor| event(&mut events, filter.is_selected(), cursor))?;
        check(&events, filter.is_selected())
            .map_err(|expected| cursor.expected_from(start, expected))?;
    }
    cursor.optional_spaces();
    cursor.require(b')', "a closing parenthesis")?;
    Ok(NotifyGroup { filter, events })
}

fn mailboxes(cursor: &mut Cursor<'_>) -> Result<Vec<MailboxName>, ParseError> {
    cursor.spaces_or_open()?;
    let start = cursor.at();
    let mut names = Vec::new();
    if cursor.peek() == Some(b'(') {
        cursor.list(|cursor| {
            if names.len() == NAMES_MAX {
                return Err(cursor.over_limit("at most 1000 mailboxes"));
            }
            names.push(cursor.mailbox()?);
            Ok(())
        })?;
    } else {
        names.push(cursor.mailbox()?);
    }
    match names.is_empty() {
        true => Err(cursor.expected_from(start, "at least one mailbox")),
        false => Ok(names),
    }
}

fn event(
    events: &mut Vec<NotifyEvent>,
    is_selected: bool,
    cursor: &mut Cursor<'_>,
) -> Result<(), ParseError> {
    let start = cursor.at();
    let event = match cursor.name("an event")?.as_ref() {
        "MESSAGENEW" => NotifyEvent::MessageNew(items(is_selected, cursor)?),
        "MESSAGEEXPUNGE" => NotifyEvent::MessageExpunge,
        "FLAGCHANGE" => NotifyEvent::FlagChange,
        "ANNOTATIONCHANGE" => NotifyEvent::AnnotationChange,
        "MAILBOXNAME" => NotifyEvent::MailboxName,
        "SUBSCRIPTIONCHANGE" => NotifyEvent::SubscriptionChange,
        "MAILBOXMETADATACHANGE" => NotifyEvent::MailboxMetadataChange,
        "SERVERMETADATACHANGE" => NotifyEvent::ServerMetadataChange,
        _ => return Err(cursor.bad_event(start)),
    };
    let kind = std::mem::discriminant(&event);
    if events
        .iter()
        .any(|other| std::mem::discriminant(other) == kind)
    {
        return Err(cursor.expected_from(start, "each event once"));
    }
    events.push(event);
    Ok(())
}

/// RFC 5465 §5.2: what to fetch of new messages, in the selected mailbox only.
fn items(is_selected: bool, cursor: &mut Cursor<'_>) -> Result<Vec<FetchItem>, ParseError> {
    let before = cursor.at();
    cursor.optional_spaces();
    if cursor.peek() != Some(b'(') {
        cursor.back_to(before);
        return Ok(Vec::new());
    }
    match is_selected {
        true => fetch::list(cursor),
        false => Err(cursor.expected("items to fetch for the selected mailbox only")),
    }
}

/// RFC 5465 §5: which events cannot stand without each other.
fn check(events: &[NotifyEvent], is_selected: bool) -> Result<(), &'static str> {
    use NotifyEvent as Event;
    let has_new = events
        .iter()
        .any(|event| matches!(event, Event::MessageNew(_)));
    let has_expunge = events.contains(&Event::MessageExpunge);
    let has_change =
        events.contains(&Event::FlagChange) || events.contains(&Event::AnnotationChange);
    let is_of_messages = |event: &Event| {
        matches!(
            event,
            Event::MessageNew(_)
                | Event::MessageExpunge
                | Event::FlagChange
                | Event::AnnotationChange
        )
    };
    if events.is_empty() {
        Err("at least one event or NONE")
    } else if has_new != has_expunge {
        Err("MessageNew and MessageExpunge together")
    } else if has_change && !has_new {
        Err("FlagChange with MessageNew and MessageExpunge")
    } else if is_selected && !events.iter().all(is_of_messages) {
        Err("message events only for the selected mailbox")
    } else {
        Ok(())
    }
}

/// What a registration may hold for as long as the session lives. Clients that
/// watch more use SUBTREE or PERSONAL.
const GROUPS_MAX: usize = 100;
const NAMES_MAX: usize = 1000;
